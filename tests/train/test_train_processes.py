"""Several processes train as one: same batches, same losses, same weights; a run may go on with another number."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config, make_photos, write_folder

from kind_core.checkpoint import load_checkpoint, save_checkpoint
from kind_core.config import ModelConfig
from kind_core.errors import ConfigError
from kind_train.processes import Processes, joined_processes
from kind_train.shape import Shape
from kind_train.trainer import Progress, Trainer
from tiny import CLASSES, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


def train(output: Path, resume: bool = False, **options: Any) -> list[float]:
    """A run of 12 steps of 8 photos in this process, or in its share of it; returns the losses."""
    photos = make_photos(11)
    config = make_config(output, images=96, batch_size=8, save_every=40, learning_rate=3e-3, **options)
    shape = None if config.base else Shape(dit=TINY_DIT, diffusion=TINY_DIFFUSION)
    losses: list[float] = []

    def note(progress: Progress) -> None:
        losses.append(progress.loss)
        if progress.step == stop_after:
            raise KeyboardInterrupt

    stop_after = 7 if output.name.startswith("half") and not resume else None
    with joined_processes("cpu") as processes:
        trainer = Trainer(config, photos, make_photos(600, seed=1), resume=resume, shape=shape, processes=processes)
        try:
            trainer.run(note)
        except KeyboardInterrupt:
            assert stop_after is not None
        if processes.rank == processes.count - 1:  # every process has the weights
            tensors = trainer.model.state_dict() | {"best_loss": torch.tensor(trainer.best_loss)}
            torch.save({**tensors, "losses": torch.tensor(losses)}, output.parent / f"{output.name}.pt")
    return losses


def launch(count: int, output: Path, resume: bool = False, **options: Any) -> None:
    """`train` in `count` processes, started as a launcher does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"import sys, pathlib, torch; torch.set_num_threads(1); from test_train_processes import train; " \
           f"train(pathlib.Path({str(output)!r}), {resume}, **{options!r})"  # fmt: skip
    path = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": path},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    for process in processes:
        _, said = process.communicate(timeout=500)
        assert process.returncode == 0, said


def read(output: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(output.parent / f"{output.name}.pt", weights_only=True))


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Up to the order of sums."""
    assert set(one) == set(other)
    for name, value in one.items():
        # softmax ignores what k's bias adds, so its gradient is rounding alone, which AdamW blows up
        if not name.endswith("attn.k.bias"):
            torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    train(tmp_path / "one", label_dropout=0.3)
    launch(2, tmp_path / "two", label_dropout=0.3)
    assert len(read(tmp_path / "two")["losses"]) == 12
    assert_close(read(tmp_path / "one"), read(tmp_path / "two"))
    metrics = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert len(metrics[0]) == len(metrics[1])
    for one, two in zip(*metrics, strict=True):
        assert one == pytest.approx(two, rel=1e-4)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    launch(2, tmp_path / "half")
    train(tmp_path / "half", resume=True)
    resumed, whole = read(tmp_path / "half"), read(tmp_path / "whole")
    assert torch.allclose(resumed.pop("losses"), whole.pop("losses")[5:], rtol=1e-3)
    assert_close(resumed, whole)
    train(tmp_path / "half-again")
    launch(2, tmp_path / "half-again", resume=True)
    again = read(tmp_path / "half-again")
    again.pop("losses")
    assert_close(again, whole)


@pytest.mark.slow
def test_two_processes_adapt_as_one(tmp_path: Path) -> None:
    config = ModelConfig(dit=TINY_DIT, diffusion=TINY_DIFFUSION, classes=CLASSES[:3])
    save_checkpoint(tmp_path / "base", config, tiny_model(TINY_DIT))
    options = {"base": str(tmp_path / "base"), "label_dropout": 0.0}
    train(tmp_path / "one", **options)
    launch(2, tmp_path / "two", **options)
    assert_close(read(tmp_path / "one"), read(tmp_path / "two"))


def test_shares_make_up_the_batch() -> None:
    batch = list(range(12))
    shares = [batch[Processes(rank=rank, count=3).share(12)] for rank in range(3)]
    assert [one for share in shares for one in share] == batch
    with pytest.raises(ConfigError, match="batch_size is 12, expected a multiple of the 5 processes"):
        Processes(rank=0, count=5).share(12)


def test_only_the_rows_of_a_batch_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, ...]] = []

    def average(self: Processes, tensor: torch.Tensor) -> torch.Tensor:
        sent.append(tuple(tensor.shape))
        return tensor

    monkeypatch.setattr(Processes, "average", average)
    photos = make_photos(10)
    config = make_config(tmp_path, label_dropout=0.0)
    few = photos.select((photos.labels != 1).nonzero()[:, 0])
    trainer = Trainer(config, few, photos, shape=Shape(dit=TINY_DIT, diffusion=TINY_DIFFUSION))
    trainer._train_step()
    assert sent == [(2, trainer.model.tailors.width)]


@pytest.mark.slow
def test_torchrun_starts_the_command(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", make_photos(12))
    script = tmp_path / "train.py"
    script.write_text(
        "import kind_train.shape, tiny_training\nkind_train.shape.preset = tiny_training.tiny_preset\n"
        "from kind_train.cli import main\nmain()\n"
    )
    arguments = ["fit", "--data", str(tmp_path / "photos"), "--output", str(tmp_path / "run"), "--batch-size", "4"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script),
         *arguments, "--images", "16", "--device", "cpu"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best held-out loss") == 1
    assert done.stderr.count("11 photos, 1 held out") == 1
    assert load_checkpoint(tmp_path / "run" / "best").config.dit.num_classes == 3
    assert "batch_size: 4" in (tmp_path / "run" / "options.yaml").read_text()
