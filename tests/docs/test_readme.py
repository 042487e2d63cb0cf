"""README followed from the top: every command runs, in order, in one folder, on tiny models."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from test_commands import COMMANDS, ROOT, find_commands

from kind_core.checkpoint import save_checkpoint
from kind_core.classes import ClassInfo
from kind_core.config import DiffusionConfig, DiTConfig, ModelConfig
from tiny import tiny_config, tiny_model

README = find_commands((ROOT / "README.md").read_text())
CLASSES = (
    ClassInfo(id="n02510455", names=("giant panda", "panda bear")),
    ClassInfo(id="n01882714", names=("koala",)),
)
DIFFUSION = DiffusionConfig(noise_schedule="squaredcos_cap_v2", prediction_type="sample")
# What the reader puts in: `photos/` are the reader's own, as is the name of one of their classes.
PLACEHOLDERS = ("photos/", "my class")
# Shorter ways of the same: these are added at the end of a command that begins so.
SHORTER = {
    "kind-train fit": ["--images", "320", "--batch-size", "8", "--ema-decay", "0.9", "--val-fraction", "0.25"],
    "kind-export": ["--steps", "3"],
    "kind-bench run": ["--repeat", "2", "--warmup", "1"],
}
# All targets are written once, for the commands that go on from there; where nothing does, one is enough.
ONE_TARGET = ("kind-export --classes panda --target all --precision int8", "kind-export --checkpoint run/best")


def tiny_pictures(num_classes: int = len(CLASSES)) -> DiTConfig:
    return tiny_config(num_classes=num_classes, depth=1)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with nothing but `photos/`, where commands take tiny models and a page ends as by Ctrl-C."""
    dit = tiny_pictures()
    save_checkpoint(tmp_path / "sample", ModelConfig(dit=dit, diffusion=DIFFUSION, classes=CLASSES), tiny_model(dit))
    monkeypatch.setattr("kind_export.cli.sample_checkpoint", lambda name="photos": tmp_path / "sample")
    monkeypatch.setattr("kind_train.start.shape.preset", lambda name: (tiny_pictures(), DIFFUSION))
    monkeypatch.setattr("kind_runtimes.serve.BundleServer.serve_forever", _press_ctrl_c)
    folder = tmp_path / "reader"
    _take_photos(folder / PLACEHOLDERS[0])
    monkeypatch.chdir(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield folder
    torch.set_num_threads(threads)


def _press_ctrl_c(server: object) -> NoReturn:
    raise KeyboardInterrupt


def _take_photos(folder: Path) -> None:
    """Eight photos of each of two classes: a bright disc somewhere, or a stripe."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:8, :8]
    shapes: dict[str, Callable[[int, int], np.ndarray]] = {
        PLACEHOLDERS[1]: lambda row, column: (y - row) ** 2 + (x - column) ** 2 < 8,
        "another": lambda row, column: abs(y - row) < 2,
    }
    for name, draw in shapes.items():
        (folder / name).mkdir(parents=True)
        for number in range(8):
            shape = draw(*generator.integers(2, 6, size=2))
            pixels = np.where(shape[..., None], (240, 220, 40), (20, 60, 130)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def shorten(call: str) -> list[str]:
    """The words of a command, with what makes it short."""
    words = shlex.split(call.replace("--target all", "--target onnx") if call.startswith(ONE_TARGET) else call)
    extra = next((more for start, more in SHORTER.items() if call.startswith(start)), [])
    return words if words[1] in ("report", "classes") else [*words, *extra]


@pytest.mark.slow
def test_readme_runs_from_top_to_bottom(reader: Path) -> None:
    for call in README:
        name, *arguments = shorten(call)
        result = CliRunner().invoke(COMMANDS[name], arguments)
        assert result.exit_code == 0, f"{call}\n{result.output}{result.exception!r}"
        if "-o" in arguments:
            assert (reader / arguments[arguments.index("-o") + 1]).exists(), call
    assert {file.name for file in reader.glob("*.kind")} >= {"panda.kind", "panda-koala.kind"}


def test_the_rest_of_readme_is_not_left_out() -> None:
    """A command in another kind of block would be tried by nobody."""
    text = (ROOT / "README.md").read_text()
    for name in COMMANDS:
        assert sum(call.startswith(f"{name} ") for call in README) >= text.count(f"\n{name} ") > 0, name
    parts = (*PLACEHOLDERS, *SHORTER, *ONE_TARGET)
    assert all(any(part in call for call in README) for part in parts), "a command of this test is not in README"
