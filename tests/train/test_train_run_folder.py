"""A run folder: nothing of it is lost, and only a run that fits is resumed."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from tiny_training import make_config, make_photos

from kind_core.errors import CheckpointError, ConfigError, KindError, OutputError
from kind_core.files import tensor_files
from kind_train.run import run_folder
from kind_train.run.metrics import append_metrics
from kind_train.run.run_folder import check_run_folder, start_run_folder
from kind_train.run.trainer import Trainer

pytestmark = pytest.mark.usefixtures("tiny")


def make_trainer(output: Path, *, resume: bool = False, num_classes: int = 3, **options: Any) -> Trainer:
    photos = make_photos(num_classes=num_classes)
    return Trainer(make_config(output, **options), photos, photos, resume=resume)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def edit_numbers(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "state" / "state.json"
    numbers = json.loads(file.read_text())
    change(numbers)
    file.write_text(json.dumps(numbers))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was saved at step 2."""
    trainer = make_trainer(tmp_path / "run", images=8, save_every=8)
    start_run_folder(trainer.config, resume=False, force=False)
    trainer.run()
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "No space left on device"),
    ],
)
def test_a_state_that_cannot_be_written_leaves_the_one_before(
    run: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    before = contents(run)
    trainer = make_trainer(run, resume=True, images=16)

    def fail(tensors: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise error

    monkeypatch.setattr(tensor_files, "save_file", fail)
    trainer.step += 1
    with pytest.raises(OutputError, match=words):
        trainer.save()
    assert contents(run) == before
    assert not list(run.rglob("*.partial"))


def test_a_killed_write_of_the_numbers_leaves_the_state_before(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(run)
    trainer = make_trainer(run, resume=True, images=16)

    def fail(*args: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder.json, "dumps", fail)
    with pytest.raises(KeyboardInterrupt):
        trainer.save()
    assert contents(run) == before
    assert not list(run.rglob("*.partial"))


def test_more_or_fewer_images_are_allowed(run: Path) -> None:
    longer = make_trainer(run, resume=True, images=16)
    assert (longer.step, longer.config.num_steps) == (2, 4)
    longer.run()
    assert make_trainer(run, resume=True, images=16).step == 4
    shorter = make_trainer(run, resume=True, images=12)
    assert shorter.run() == longer.best_loss  # nothing is left to do


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 8}, "was trained with batch_size 4, not 8"),
        ({"seed": 1}, "was trained with seed 0, not 1"),
        ({"preset": "other"}, "was trained with preset 'sample', not 'other'"),
        ({"num_classes": 2}, "was trained with classes class_0, class_1, class_2, not class_0, class_1 "),
    ],
)
def test_a_run_is_not_resumed_as_another(run: Path, options: dict[str, Any], words: str) -> None:
    before = contents(run)
    with pytest.raises(ConfigError, match=words):
        make_trainer(run, resume=True, **options)
    assert contents(run) == before


def test_an_older_state_without_these_fields_is_resumed(run: Path) -> None:
    def age(numbers: dict[str, Any]) -> None:
        for name in ("format_version", "classes", "batch_size", "seed"):
            del numbers[name]

    edit_numbers(run, age)
    assert make_trainer(run, resume=True).step == 2
    with pytest.raises(CheckpointError, match=r"does not fit this model: size mismatch for tailors\.weight") as caught:
        make_trainer(run, resume=True, num_classes=2)
    assert "\n" not in caught.value.message


def test_a_state_of_a_newer_format_is_refused(run: Path) -> None:
    edit_numbers(run, lambda numbers: numbers.update(format_version=2))
    with pytest.raises(CheckpointError, match="has format_version 2, this program reads up to 1") as caught:
        make_trainer(run, resume=True)
    assert caught.value.hint == "upgrade kind-diffusion"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.json", b"{"),
        ("state.json", b"[]"),
        ("state.json", b"{}"),
        ("state.json", b'{"step": "two", "best_loss": 1.0}'),
        ("state.safetensors", b"cut"),
        ("state.safetensors", None),
        ("state.json", None),
    ],
)
def test_a_broken_state_is_named(run: Path, name: str, content: bytes | None) -> None:
    file = run / "state" / name
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"the training state at .* is broken") as caught:
        make_trainer(run, resume=True)
    assert str(run) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_state_that_git_lfs_left_behind_is_named(run: Path) -> None:
    (run / "state" / "state.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(CheckpointError, match=r"state\.safetensors is a Git LFS pointer"):
        make_trainer(run, resume=True)


@pytest.mark.parametrize("line", [b"not json\n", b'{"loss": 1}\n', b"[]\n", b'{"step": "two"}\n', b"\xff\0\n"])
def test_broken_lines_of_metrics_stop_no_run(run: Path, line: bytes) -> None:
    file = run / "metrics.jsonl"
    before = file.read_bytes()
    file.write_bytes(line + before)
    make_trainer(run, resume=True, images=16).run()
    steps = [json.loads(one)["step"] for one in file.read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps[-1] == 4


def test_a_state_cut_short_is_named(run: Path) -> None:
    file = run / "state" / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is broken"):
        make_trainer(run, resume=True)


def check(folder: Path, expected: type[KindError], words: str, *, resume: bool = False, force: bool = False) -> str:
    with pytest.raises(expected, match=words) as caught:
        check_run_folder(folder, resume=resume, force=force)
    return caught.value.hint


def test_an_existing_run_is_kept(run: Path) -> None:
    hint = check(run, ConfigError, "already holds a run")
    assert "--resume" in hint
    assert "--force" in hint
    check_run_folder(run, resume=True, force=False)
    check_run_folder(run, resume=False, force=True)
    check(run, ConfigError, "exclude each other", resume=True, force=True)


def test_force_replaces_a_run(run: Path) -> None:
    start_run_folder(make_config(run, images=7), resume=False, force=True)
    assert list(contents(run)) == ["options.yaml"]
    assert "images: 7" in (run / "options.yaml").read_text()


def test_resuming_keeps_the_run_and_notes_the_new_options(run: Path) -> None:
    before = contents(run)
    start_run_folder(make_config(run, images=7), resume=True, force=False)
    after = contents(run)
    assert {name for name in after if after[name] != before[name]} == {"options.yaml"}
    assert set(after) == set(before)


def test_force_removes_no_folder_that_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for force in (False, True):
        check(tmp_path, OutputError, "holds other files than a run", force=force)
        with pytest.raises(OutputError):
            start_run_folder(make_config(tmp_path), resume=False, force=force)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_there_must_be_a_state_to_resume(tmp_path: Path) -> None:
    assert check(tmp_path / "none", CheckpointError, "no training state", resume=True) == "start without --resume"
    start_run_folder(make_config(tmp_path / "run"), resume=False, force=False)
    (tmp_path / "run" / "last").mkdir()  # which is written after a state: somebody took that away
    assert check(tmp_path / "run", CheckpointError, "no training state", resume=True) == "start it over with --force"


def test_a_run_killed_before_its_first_state_begins_again_by_resume(tmp_path: Path) -> None:
    run = tmp_path / "run"
    start_run_folder(make_config(run), resume=False, force=False)
    check_run_folder(run, resume=True, force=False)
    (run / "best").mkdir()  # which is written before the state
    append_metrics(run, {"step": 2, "held_out_loss": 0.25})
    append_metrics(run, {"step": 4, "held_out_loss": 0.5})
    (run / "metrics.jsonl").open("ab").write(b'\0\0\n{"step": 6, "held')  # as a power cut leaves it
    check_run_folder(run, resume=True, force=False)
    assert run_folder.read_best_loss(run) == 0.25  # so that only a better one replaces it
    start_run_folder(make_config(run), resume=True, force=False)
    assert (run / "metrics.jsonl").read_bytes() == b""


def test_a_run_killed_before_its_first_checkpoint_is_started_again_without_force(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / ".options.yaml.999999-a1b2c3d4.partial").mkdir(parents=True)  # killed while it wrote its options
    (run / ".options.yaml.kind-lock").touch()
    start_run_folder(make_config(run), resume=False, force=False)
    assert list(contents(run)) == ["options.yaml"]
    start_run_folder(make_config(run, images=7), resume=False, force=False)  # killed before its first state
    assert list(contents(run)) == ["options.yaml"]
    assert "images: 7" in (run / "options.yaml").read_text()
    (run / "best").mkdir()
    check(run, ConfigError, "already holds a run")


def test_an_output_that_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    check(file, OutputError, "is a file, expected a folder", force=True)
    check(file / "run", OutputError, "is not a folder")


def test_metrics_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        append_metrics(tmp_path, {"step": 1})
