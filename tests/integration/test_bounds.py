"""Sizes, seeds, steps and scales that no machine can take are one line, before anything is read or allocated."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

HUGE = "1" + "0" * 18
CLASSIFIER = ("kind_train", "classifier", "--data", "PHOTOS", "-o", "OUT")
CACHE = ("kind_train", "cache", "--data", "PHOTOS", "--autoencoder", "PHOTOS", "--output", "OUT")
INIT = ("kind_train", "init", "--from-dit", "PHOTOS", "--learngene-rank", "4", "--tailor-rank", "1", "-o", "OUT")
FIT = ("kind_train", "fit", "--data", "PHOTOS", "--output", "OUT")
CONVERT = ("kind_train", "convert", "CHECKPOINT", "OUT")
BENCH = ("kind_bench", "run", "PHOTOS")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("command", "option", "value", "message"),
    [
        (CLASSIFIER, "size", HUGE, f"size is {HUGE}, expected a whole number from 1 to 8192"),
        (CLASSIFIER, "size", "-1", "size is -1, expected a whole number from 1 to 8192"),
        (CLASSIFIER, "seed", "-1", "seed is -1, expected a whole number from 0 to 4294967295"),
        (CACHE, "size", "2147483648", "size is 2147483648, expected a whole number from 1 to 8192"),
        (CACHE, "batch-size", HUGE, f"batch_size is {HUGE}, expected a whole number from 1 to 65536"),
        (INIT, "seed", HUGE, f"seed is {HUGE}, expected a whole number from 0 to 4294967295"),
        (FIT, "size", HUGE, f"size is {HUGE}, expected 1 to 8192"),
        (FIT, "batch-size", HUGE, f"batch_size is {HUGE}, expected 65536 at most"),
        (FIT, "seed", HUGE, f"seed is {HUGE}, expected a whole number from 0 to 4294967295"),
        (CONVERT, "steps", HUGE, f"steps is {HUGE}, expected a whole number from 1 to 100000"),
        (CONVERT, "steps", "1001", "steps is 1001, expected 1 to 1000, the num_train_timesteps"),
        (CONVERT, "guidance", "1e30", "guidance_scale is 1e+30, expected 100 at most"),
        (CONVERT, "guidance", "nan", "guidance_scale is nan, expected a number"),
        (BENCH, "threads", HUGE, f"threads is {HUGE}, expected 1 to 1024"),
        (BENCH, "repeat", HUGE, f"repeat is {HUGE}, expected 1 to 1000000"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_what_no_machine_can_take_is_one_line(
    command: tuple[str, ...], option: str, value: str, message: str, checkpoint_path: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "photos" / name / f"{i}.png")
    places = {"PHOTOS": tmp_path / "photos", "OUT": tmp_path / "out", "CHECKPOINT": checkpoint_path}
    module, *arguments = (str(places.get(one, one)) for one in command)
    done = CliRunner().invoke(import_module(f"{module}.cli").main, [*arguments, f"--{option}={value}"])
    assert done.exit_code in (1, 2), done.output
    assert f"error: {message}" in done.stderr
    assert not (tmp_path / "out").exists()
