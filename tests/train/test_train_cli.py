"""`kind-train` as a user meets it: one clear line for what is wrong, and a run that can be stopped and resumed."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner, Result
from rich.console import Console
from tiny_training import encode, make_config, make_photos, write_folder, write_parquet

from interruptible import interruptible
from kind_core.checkpoint import load_checkpoint, read_config
from kind_train import fit as session
from kind_train.cli import adapt, distill, fit, main

FAST = ("--batch-size", "4", "--images", "16", "--save-every", "8", "--learning-rate", "1e-3", "--device", "cpu")


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["fit", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def error_of(*arguments: object) -> str:
    """The one line of an error; nothing else may be said but a hint."""
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert len(lines) <= 2
    return "\n".join(lines)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_folder(tmp_path / "photos", make_photos(12))
    return tmp_path / "photos"


@pytest.mark.usefixtures("tiny")
def test_a_run_from_a_folder_ends_with_a_checkpoint(data: Path, tmp_path: Path) -> None:
    (data / "class_0" / "broken.png").write_bytes(b"no image")
    result = call("--data", data, "--output", tmp_path / "run", *FAST, "--val-fraction", 0.2)
    assert result.exit_code == 0, result.stderr
    assert f"checkpoint         {tmp_path / 'run' / 'best'}" in result.stdout
    assert re.search(r"best held-out loss \d+\.\d{5}", result.stdout)
    said = result.stderr.splitlines()
    assert said[0] == f"reading {data} 13/13"
    assert said[1] == (
        f"skipped unreadable image {data / 'class_0' / 'broken.png'}: it is of no format that is read here"
    )
    assert said[2] == "1 unreadable images skipped: it is of no format that is read here (1)"
    assert re.fullmatch(r"9 photos, 3 held out, 3 classes; 0\.\d\dM parameters on cpu", said[3])
    rates = "16 images in batches of 4, learning rate 0.001, no warm-up, falling over the last 30%, average 0.9995"
    assert said[4] == rates
    assert re.fullmatch(r"about [\d.]+ minutes for 16 images, by one step that was tried", said[5])
    assert re.fullmatch(r"images 16/16 loss [\d.]+ held-out [\d.]+ \| \d+ images/s \| 0:00:00 left", said[6])
    load_checkpoint(tmp_path / "run" / "best")
    assert (tmp_path / "run" / "samples" / "000000016.png").exists()


@pytest.mark.usefixtures("tiny")
def test_flags_win_over_yaml_and_classes_keep_their_order(data: Path, tmp_path: Path) -> None:
    held_out = make_photos(6, seed=1)
    names = [info.id for info in held_out.classes]
    write_parquet(
        tmp_path / "val.parquet", [encode(image) for image in held_out.images], held_out.labels.tolist(), names
    )
    options = f"data: {data}\nval_data: {tmp_path / 'val.parquet'}\nimages: 400\nlearning_rate: 5e-4\nbatch_size: 4\n"
    (tmp_path / "options.yaml").write_text(options)
    output = tmp_path / "run"
    flags = ("--images", 8, "--classes", "class 2, class_0", "--no-flip", "--device", "cpu")
    result = call("--config", tmp_path / "options.yaml", "--output", output, *flags)
    assert result.exit_code == 0, result.stderr
    assert "8 photos, 4 held out, 2 classes" in result.stderr
    written = (output / "options.yaml").read_text()
    for line in ("images: 8", "learning_rate: 0.0005", "flip: false", f"val_data: {tmp_path / 'val.parquet'}"):
        assert line in written.splitlines()
    assert [info.id for info in read_config(output / "best").classes] == ["class_2", "class_0"]


@pytest.mark.usefixtures("tiny")
def test_a_run_without_diversion_is_told(data: Path, tmp_path: Path) -> None:
    result = call("--data", data, "--output", tmp_path / "run", *FAST, "--no-diversion", "--checkpoint-activations")
    assert result.exit_code == 0, result.stderr
    assert "trained without diversion, the gates of all 3 classes open for every image" in result.stderr
    assert "diversion: false" in (tmp_path / "run" / "options.yaml").read_text()
    assert load_checkpoint(tmp_path / "run" / "best").config.dit.ranks == (0, 0, 0)
    resumed = call("--output", tmp_path / "run", "--resume", "--diversion")
    assert resumed.exit_code == 1
    assert "was trained with diversion False, not True" in resumed.stderr


@pytest.mark.usefixtures("tiny")
def test_held_out_photos_are_labelled_as_the_trained_ones(data: Path, tmp_path: Path) -> None:
    names = ["class_2", "class_1", "class_0"]  # in another order than the folders
    photos = make_photos(3)
    write_parquet(tmp_path / "val.parquet", [encode(image) for image in photos.images], [2, 1, 0], names)
    config = make_config(
        tmp_path, data=str(data), val_data=str(tmp_path / "val.parquet"), classes=("class 2", "class 0")
    )
    train, held_out, _ = session._load_split(config, Console(quiet=True), resume=False)
    assert train.labels.tolist() == [1] * 4 + [0] * 4
    assert held_out.labels.tolist() == [1, 0]
    assert torch.equal(held_out.images, photos.images[[0, 2]])


@pytest.mark.usefixtures("tiny")
def test_a_run_goes_on_from_its_own_options(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert call("--data", data, "--output", output, *FAST).exit_code == 0
    result = call("--output", output, "--images", 32, "--resume")
    assert result.exit_code == 0, result.stderr
    assert "resumed at step 4 of 8" in result.stderr
    assert json.loads((output / "state" / "state.json").read_text())["step"] == 8
    again = call("--output", output, "--resume")
    assert again.exit_code == 0
    assert "step 8 of 8 is done already, raise --images to go on" in again.stderr
    assert "was trained with batch_size 4, not 8" in error_of_resume("--output", output, "--batch-size", 8)
    assert "was trained with classes" in error_of_resume("--output", output, "--classes", "class_0")


def error_of_resume(*arguments: object) -> str:
    result = call(*arguments, "--resume")
    assert result.exit_code == 1
    return next(line for line in result.stderr.splitlines() if line.startswith("error: "))


@pytest.mark.usefixtures("tiny")
def test_an_existing_run_is_not_touched_unless_forced(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert call("--data", data, "--output", output, *FAST).exit_code == 0
    before = load_checkpoint(output / "best").sha256
    text = error_of("--data", data, "--output", output, *FAST)
    assert "already holds a run" in text
    assert "--resume" in text
    assert "--force" in text
    # what is asked for is checked before the old run is removed
    assert call("--data", data, "--output", output, *FAST, "--force", "--device", "nonsense").exit_code == 1
    assert call("--data", tmp_path / "none", "--output", output, *FAST, "--force").exit_code == 1
    assert load_checkpoint(output / "best").sha256 == before
    assert call("--data", data, "--output", output, *FAST, "--force", "--seed", 1).exit_code == 0
    assert load_checkpoint(output / "best").sha256 != before


@pytest.mark.usefixtures("tiny")
def test_strict_stops_at_an_unreadable_image(data: Path, tmp_path: Path) -> None:
    (data / "class_0" / "broken.png").write_bytes(b"no image")
    text = error_of("--data", data, "--output", tmp_path / "run", "--strict")
    assert f"unreadable image {data / 'class_0' / 'broken.png'}" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("tiny")
def test_photos_alone_in_their_class_are_not_held_out(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", make_photos(3))
    result = call("--data", tmp_path / "photos", "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert "error: no photo can be held out: no class has two different photos of its own" in result.stderr
    assert "--val-fraction 0" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("tiny")
def test_without_held_out_photos_the_last_checkpoint_is_the_best(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", make_photos(3))
    options = ("--data", tmp_path / "photos", "--output", tmp_path / "run", *FAST, "--val-fraction", 0)
    result = call(*options)
    assert result.exit_code == 0, result.stderr
    assert "no photo was held out: the checkpoint is the last one" in result.stdout
    assert "3 photos, 0 held out" in result.stderr
    assert load_checkpoint(tmp_path / "run" / "best").sha256 == load_checkpoint(tmp_path / "run" / "last").sha256
    again = call("--output", tmp_path / "run", "--resume", "--images", 24)
    assert again.exit_code == 0, again.stderr
    assert load_checkpoint(tmp_path / "run" / "best").sha256 == load_checkpoint(tmp_path / "run" / "last").sha256


@pytest.mark.usefixtures("tiny")
def test_photos_stay_held_out_when_others_are_added(tmp_path: Path) -> None:
    data, run = tmp_path / "photos", tmp_path / "run"
    write_folder(data, make_photos(30))
    result = call("--data", data, "--output", run, *FAST, "--val-fraction", 0.2)
    assert result.exit_code == 0, result.stderr
    write_folder(tmp_path / "more", make_photos(36, seed=5))
    for file in (tmp_path / "more").rglob("*.png"):
        file.rename(data / file.parent.name / f"more-{file.name}")
    write_folder(tmp_path / "other", make_photos(3, seed=7))
    changed = call("--output", run, "--resume", "--images", 24, "--val-fraction", 0.3)
    assert changed.exit_code == 1
    assert "held out 0.2 of its photos, not 0.3" in changed.stderr
    result = call("--output", run, "--resume", "--images", 24)
    assert result.exit_code == 0, result.stderr
    assert "66 photos are there, 30 when the run was started" in result.stderr
    gone = call("--output", run, "--resume", "--images", 24, "--data", tmp_path / "other")
    assert gone.exit_code == 1
    assert "none of the photos that this run held out is there any more" in gone.stderr
    (run / "held_out.json").unlink()
    result = call("--output", run, "--resume", "--images", 32)
    assert "the run does not tell which photos it held out" in result.stderr
    (run / "held_out.json").write_text('{"format_version": 1, "moved": 3}')
    broken = call("--output", run, "--resume", "--images", 40)
    assert broken.exit_code == 1
    assert "held_out.json is broken" in broken.stderr


@pytest.mark.usefixtures("tiny")
def test_photos_in_both_data_are_told_by_their_files(data: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "val", make_photos(6, seed=5))
    given = ("--data", data, "--val-data", tmp_path / "val", "--output", tmp_path / "run", *FAST)
    assert "are in --data too" not in call(*given).stderr
    assert "left out" not in call(*given, "--force").stderr
    (tmp_path / "val" / "zebra").mkdir()
    (tmp_path / "val" / "zebra" / "1.png").write_bytes(encode(make_photos(1, seed=9).images[0]))
    copy = tmp_path / "val" / "class_1" / "renamed.png"
    copy.write_bytes((data / "class_1" / "001.png").read_bytes())
    result = call(*given, "--force")
    assert result.exit_code == 0, result.stderr
    expected = f"1 of the 7 photos of --val-data are in --data too, such as {copy}: "
    assert expected in " ".join(result.stderr.split())
    assert f"left out in {tmp_path / 'val'}: 1 photos of classes that are not asked for: 'zebra'" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("images: many", "images is 'many', expected a whole number"),
        ("learning_rate: [1]", "learning_rate is [1], expected a number"),
        ("imags: 3", "unknown option 'imags'"),
        ("preset: kind-q/2", "unknown preset 'kind-q/2'"),
        ("preset: kind-b/2", "the preset works on 4 channels, the data have 3"),
        ("timestep_mean: -0.4", "timestep_mean is -0.4, but noise_schedule is 'squaredcos_cap_v2'"),
        ("noise_schedule: straight", "noise_schedule is 'straight', expected one of linear, "),
        ("images: [", "is not YAML"),
        ("data: none", "no data at none"),
        ("classes: unicorn", "unknown class 'unicorn'"),
        ("data: broken.parquet", "broken.parquet is not a whole Parquet file"),
        ("data: other.parquet", "other.parquet has no column 'label'"),
    ],
)
def test_bad_options_and_data_are_one_clear_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, words: str
) -> None:
    import pyarrow
    import pyarrow.parquet

    monkeypatch.chdir(tmp_path)
    Path("broken.parquet").write_bytes(b"PAR1 and then nothing")
    pyarrow.parquet.write_table(pyarrow.table({"image": [b"x"]}), "other.parquet")
    given: dict[str, Any] = {"data": f"data: {data}", "output": "output: run"}
    given[options.partition(":")[0]] = options
    Path("options.yaml").write_text("\n".join(given.values()))
    assert words in error_of("--config", "options.yaml")
    assert not Path("run").exists()


def test_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    assert "no data given" in error_of("--output", tmp_path / "run")
    assert "no output given" in error_of("--data", tmp_path)
    assert "no YAML file at" in error_of("--config", tmp_path / "none.yaml")
    assert "holds no training state to resume" in error_of("--data", tmp_path, "--output", tmp_path / "run", "--resume")


def test_a_state_of_a_newer_format_is_one_clear_line(data: Path, tmp_path: Path, tiny: None) -> None:
    output = tmp_path / "run"
    assert call("--data", data, "--output", output, *FAST).exit_code == 0
    file = output / "state" / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format_version": 9}))
    assert "has format_version 9, this program reads up to 1" in error_of_resume("--output", output)


@pytest.mark.parametrize("arguments", [("--images", "many"), ("--no-such-option",), ("--flip", "maybe")])
def test_what_the_parser_refuses_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    assert call("--data", "x", "--output", "y", *arguments).exit_code == 2


def commands() -> dict[str, click.Command]:
    return {"": main, **{f"{name} ": command for name, command in main.commands.items()}}


@pytest.mark.parametrize("name", commands())
def test_the_examples_of_the_help_are_taken_as_they_stand(name: str) -> None:
    text = CliRunner().invoke(main, [*name.split(), "--help"]).output
    examples = re.findall(r"^ +(kind-train .*)$", text, re.MULTILINE)
    assert examples
    for example in examples:
        program, command, *arguments = shlex.split(example)
        assert program == "kind-train"
        with main.commands[command].make_context(command, arguments):
            pass


def test_every_option_of_the_config_is_a_flag_with_a_help() -> None:
    from dataclasses import fields

    from kind_train.config import TrainConfig

    flags = {parameter.name: parameter for command in (fit, adapt, distill) for parameter in command.params}
    assert set(flags) == {f.name for f in fields(TrainConfig)} | {"config_file", "resume", "force"}
    assert all(getattr(parameter, "help", None) for parameter in flags.values())


@pytest.mark.parametrize("name", commands())
def test_help_loads_nothing_heavy(name: str) -> None:
    heavy = ("torch", "numpy", "diffusers", "PIL", "pyarrow", "rich", "yaml", "safetensors")
    code = (
        "import sys\nfrom kind_train.cli import main\n"
        f"main({[*name.split(), '--help']!r}, standalone_mode=False)\n"
        f"print('loaded:', [name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert done.stdout.endswith("loaded: []\n")


def test_ctrl_c_leaves_a_whole_checkpoint_and_says_how_to_go_on(data: Path, tmp_path: Path, tiny: None) -> None:
    output = tmp_path / "run"
    code = (
        "import kind_train.fit, kind_train.run.trainer, tiny_training\n"
        "kind_train.start.shape.preset = tiny_training.tiny_preset\n"
        "from kind_train.cli import main\nmain()"
    )
    arguments = ["fit", "--data", str(data), "--output", str(output), *FAST, "--images", str(10**7)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with interruptible([sys.executable, "-c", code, *arguments], env) as process:
        deadline_s = time.monotonic() + 150
        while not (output / "last").exists() and process.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    step = json.loads((output / "state" / "state.json").read_text())["step"]
    assert said.splitlines()[-1] == (
        f"interrupted; the checkpoint of step {step} in {output} is whole, continue with --resume"
    )
    assert not list(tmp_path.rglob("*.partial"))
    for name in ("best", "last"):
        load_checkpoint(output / name)
    result = call("--output", output, "--images", (step + 2) * 4, "--resume")
    assert result.exit_code == 0, result.stderr
    assert f"resumed at step {step} of {step + 2}" in result.stderr


def test_ctrl_c_before_the_first_checkpoint(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kind_train.fit.load_photos", interrupt)
    result = call("--data", data, "--output", tmp_path / "run")
    assert result.exit_code == 130
    assert result.stderr == "interrupted before the first checkpoint, nothing was written\n"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "options.yaml").write_text("images: 3\n")
    forced = call("--data", data, "--output", tmp_path / "run", "--force")
    assert forced.stderr == "interrupted before the first checkpoint, start again\n"
