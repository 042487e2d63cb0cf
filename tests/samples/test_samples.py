"""The shipped checkpoint and the sample programs."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from kind_core.checkpoint import load_checkpoint, read_config, save_checkpoint
from kind_core.checkpoint_config import hash_learngene
from kind_core.errors import ConfigError
from kind_core.noise import start_noise
from kind_export.cli import main
from kind_export.pipeline import export_bundle
from kind_export.request import ExportRequest
from kind_runtimes.generator import open_generator
from kind_samples import SAMPLES, sample_checkpoint
from tiny import tiny_model, tiny_model_config

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "max_bytes", "held", "licence"),
    [
        ("photos", 10e6, "giant panda", "research"),
        ("photos-teacher", 10e6, "giant panda", "research"),
        ("garments", 4e6, "sneaker", "apache-2.0"),
        ("garments-teacher", 4e6, "sneaker", "apache-2.0"),
    ],
)
def test_a_sample_ships_whole_and_small(name: str, max_bytes: float, held: str, licence: str) -> None:
    folder = sample_checkpoint(name)
    checkpoint = load_checkpoint(folder)
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= max_bytes
    config = read_config(folder)
    assert held in [info.name for info in config.classes]
    assert config.provenance.licence.startswith(licence)
    assert all(parameter.isfinite().all() for parameter in checkpoint.model.parameters())
    assert all((folder.parent / file).is_file() for file in ("MODEL_CARD.md", "LICENSE-WEIGHTS.md"))


def test_the_first_sample_is_the_default_and_another_name_is_refused() -> None:
    assert sample_checkpoint() == sample_checkpoint(SAMPLES[0]) == sample_checkpoint("photos")
    with pytest.raises(ConfigError, match="sample is 'shoes', expected one of photos, garments, photos-teacher, "):
        sample_checkpoint("shoes")


@pytest.mark.parametrize("name", ["photos", "garments"])
def test_a_sample_is_a_student_of_the_teacher_that_ships(name: str) -> None:
    folders = sample_checkpoint(name), sample_checkpoint(f"{name}-teacher")
    student, teacher = (read_config(folder) for folder in folders)
    distillation = student.diffusion.distillation
    assert distillation is not None
    assert teacher.diffusion.distillation is None
    assert distillation.teacher == hash_learngene(folders[1])
    assert student.diffusion.steps <= 4
    assert student.classes == teacher.classes


def test_the_classes_of_a_sample_are_listed(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["classes", "--sample", "garments"])
    assert result.exit_code == 0, result.output
    assert [line.split()[-1] for line in result.stdout.splitlines()][5:8] == ["sandal", "shirt", "sneaker"]
    both = CliRunner().invoke(main, ["classes", "--sample", "garments", "--checkpoint", str(tmp_path)])
    assert both.exit_code == 1
    assert "both --checkpoint and --sample were given" in both.output


def test_the_onnx_loop_makes_the_picture_of_kind_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    config = tiny_model_config(
        model.config, noise_schedule="squaredcos_cap_v2", prediction_type="sample", sampler="dpmpp", steps=4
    )
    save_checkpoint(tmp_path / "checkpoint", config, model)
    bundle = tmp_path / "two.kind"
    request = ExportRequest(
        classes=("lemon", "seashore"), targets=("onnx",), checkpoint=tmp_path / "checkpoint", output=bundle
    )
    manifest = export_bundle(request).manifest
    program = ROOT / "samples" / "onnx_loop.py"
    monkeypatch.setattr(sys, "argv", [str(program), str(bundle), str(tmp_path / "picture.png"), "1", "7"])
    runpy.run_path(str(program), run_name="__main__")
    with Image.open(tmp_path / "picture.png") as picture:
        pixels = np.asarray(picture)
    expected = open_generator(bundle, manifest, "onnx").picture(class_index=1, seed=7)
    assert np.abs(pixels.astype(int) - expected).max() <= 1
    assert pixels.std() > 5


def test_the_film_ends_with_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, output = tmp_path / "lemon.kind", tmp_path / "lemon.gif"
    model = tiny_model()
    save_checkpoint(tmp_path / "checkpoint", tiny_model_config(model.config, steps=4), model)
    request = ExportRequest(classes=("lemon",), targets=("onnx",), checkpoint=tmp_path / "checkpoint", output=bundle)
    manifest = export_bundle(request).manifest
    program = ROOT / "samples" / "denoising_film.py"
    monkeypatch.setattr(sys, "argv", [str(program), str(bundle), str(output), "7"])
    runpy.run_path(str(program), run_name="__main__")
    with Image.open(output) as film:
        assert 2 <= film.n_frames <= 4  # frames that look alike in 256 colours are one
        film.seek(film.n_frames - 1)
        last = np.asarray(film.convert("RGB"))[4::8, 4::8]
    expected = open_generator(bundle, manifest, "onnx").picture(class_index=0, seed=7)
    assert np.abs(last.astype(int) - expected).mean() < 8  # a GIF has 256 colours


def test_the_onnx_loop_starts_from_the_documented_noise() -> None:
    sample = runpy.run_path(str(ROOT / "samples" / "onnx_loop.py"))
    for seed in (0, 7, 2**40 + 3):
        np.testing.assert_allclose(sample["start_noise"](seed, 11), start_noise(seed, (11,)), rtol=1e-6)
