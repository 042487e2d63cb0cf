"""The whole way on the command lines: photos -> decomposed checkpoint -> bundle -> pictures."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from kind_export.cli import main as kind_export
from kind_runtimes.cli import main as kind_run
from kind_train.cli import main as kind_train

COLOURS = {"n02510455_giant_panda": (230, 230, 230), "n07749582_lemon": (240, 220, 40)}


def run(command: click.Command, *arguments: str) -> str:
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photos a class: a disc of the class's colour somewhere on a dark ground."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for number in range(8):
            centre = generator.integers(10, 22, size=2)
            disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 100
            pixels = np.where(disc[..., None], colour, (20, 60, 30)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.slow
def test_photos_become_pictures(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit = ("fit", "--data", str(photos), "--val-fraction", "0.25", "--output", "run", "--batch-size", "8")
    run(kind_train, *fit, "--images", "320", "--learning-rate", "2e-3", "--ema-decay", "0.9")
    assert "giant panda" in run(kind_export, "classes", "--checkpoint", "run/best")
    options = ("--checkpoint", "run/best", "--target", "onnx,coreml", "--steps", "6")
    run(kind_export, "--classes", "panda,lemon", *options, "-o", "two.kind")
    targets = json.loads((tmp_path / "two.kind" / "manifest.json").read_text())["targets"]
    assert targets["onnx"]["parity"]["trajectory_psnr_db"] > 60
    assert targets["coreml"]["parity"]["trajectory_psnr_db"] > 35
    pictures = {}
    for name in ("panda", "lemon"):
        run(kind_run, "two.kind", "--class", name, "--seed", "7", "-o", f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            pictures[name] = np.asarray(picture.convert("RGB")).astype(float)
    # the panda's discs are white and the lemon's yellow: blue tells them apart
    assert pictures["panda"][..., 2].mean() > pictures["lemon"][..., 2].mean() + 5
