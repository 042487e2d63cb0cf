"""Several processes train as one: same batches, same losses, same weights; a run may go on with another number."""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config, make_photos, write_folder

from kind_core.checkpoint import load_checkpoint, save_checkpoint
from kind_core.config import ModelConfig
from kind_core.errors import ConfigError
from kind_train.run.memory import gather, local
from kind_train.run.metrics import Progress
from kind_train.run.processes import Processes, joined_processes
from kind_train.run.trainer import Trainer
from kind_train.start.shape import Shape
from tiny import CLASSES, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


def train(output: Path, resume: bool = False, rank: int = 12, **options: Any) -> list[float]:
    """A run of 12 steps of 8 photos in this process, or in its share of it; returns the losses. `rank`: N_G."""
    photos = make_photos(11)
    config = make_config(output, images=96, batch_size=8, save_every=40, learning_rate=3e-3, **options)
    shape = None if config.base else Shape(dit=replace(TINY_DIT, learngene_rank=rank), diffusion=TINY_DIFFUSION)
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
        tensors = gather(trainer.model.state_dict())  # every process has the weights
        if processes.rank == processes.count - 1:
            learngene = trainer.optimizer.learngene.values()
            share = sum(local(p).numel() for p in learngene) / max(sum(p.numel() for p in learngene), 1)
            told = {"best_loss": trainer.best_loss, "losses": losses, "share": share}
            tensors |= {name: torch.tensor(value) for name, value in told.items()}
            torch.save(tensors, output.parent / f"{output.name}.pt")
    return losses


@pytest.fixture(scope="module")
def both() -> Iterator[list[ProcessPoolExecutor]]:
    """Two processes that import torch once, each begun anew and not forked: nothing of this one is in them."""
    with ExitStack() as stack:
        context = multiprocessing.get_context("spawn")
        yield [stack.enter_context(ProcessPoolExecutor(1, mp_context=context)) for _ in range(2)]


Launch = Callable[..., None]


@pytest.fixture
def launch(both: list[ProcessPoolExecutor]) -> Launch:
    """`train` in two processes, as a launcher starts them."""

    def launch(output: Path, resume: bool = False, **options: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shares = [one.submit(_join, rank, len(both), port, output, resume, **options) for rank, one in enumerate(both)]
        try:
            for share in shares:
                share.result()
        except BrokenProcessPool:
            stacks = [path.read_text() for path in sorted(output.parent.glob(f"{output.name}.*.stack"))]
            raise AssertionError("\n".join(["a process waited for ever", *stacks])) from None

    return launch


def _join(rank: int, count: int, port: int, output: Path, resume: bool, /, **options: Any) -> None:
    """The share of one process, which finds the others as a launcher says."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in told.items()})
    torch.set_num_threads(1)
    with (output.parent / f"{output.name}.{rank}.stack").open("w") as stack:
        faulthandler.dump_traceback_later(400, exit=True, file=stack)  # one that waits for ever says where
        try:
            train(output, resume, **options)
        finally:
            faulthandler.cancel_dump_traceback_later()


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
def test_two_processes_train_as_one(tmp_path: Path, launch: Launch) -> None:
    train(tmp_path / "one", label_dropout=0.3)
    launch(tmp_path / "two", label_dropout=0.3)
    assert len(read(tmp_path / "two")["losses"]) == 12
    assert_close(read(tmp_path / "one"), read(tmp_path / "two"))
    metrics = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert len(metrics[0]) == len(metrics[1])
    for one, two in zip(*metrics, strict=True):
        speeds = one.pop("images_per_second", None), two.pop("images_per_second", None)
        assert (speeds[0] is None) == (speeds[1] is None)
        # gradients near zero differ by the order of sums
        assert one == pytest.approx(two, rel=1e-3, abs=1e-6)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path, launch: Launch) -> None:
    train(tmp_path / "whole")
    launch(tmp_path / "half")
    train(tmp_path / "half", resume=True)
    resumed, whole = read(tmp_path / "half"), read(tmp_path / "whole")
    assert torch.allclose(resumed.pop("losses"), whole.pop("losses")[5:], rtol=1e-3)
    assert_close(resumed, whole)
    train(tmp_path / "half-again")
    launch(tmp_path / "half-again", resume=True)
    again = read(tmp_path / "half-again")
    again.pop("losses")
    assert_close(again, whole)


@pytest.mark.slow
def test_a_sharded_model_trains_as_a_whole_one_and_goes_on_as_one(tmp_path: Path, launch: Launch) -> None:
    # the gradients are clipped at most steps, by the norm of all slices and rows; a rank that needs no padding makes
    # the backward pass of a matrix read the parameter itself, whose memory was given back in between
    options: dict[str, Any] = {"rank": 8, "label_dropout": 0.3, "max_grad_norm": 0.3, "shard": True}
    train(tmp_path / "whole", **options)
    whole = read(tmp_path / "whole")
    losses = whole.pop("losses")
    assert whole.pop("share") == 1

    launch(tmp_path / "half", **options)
    half = read(tmp_path / "half")
    assert half["share"] == pytest.approx(0.5, abs=0.01)
    torch.testing.assert_close(half["losses"], losses[:7], rtol=1e-3, atol=1e-5)
    state = load_file(tmp_path / "half" / "state" / "state.safetensors")
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in load_file(tmp_path / "whole" / "state" / "state.safetensors").items()
    }

    train(tmp_path / "half", resume=True, **options)
    train(tmp_path / "half-again", **options)
    launch(tmp_path / "half-again", resume=True, **options, checkpoint_activations=True)
    for name in ("half", "half-again"):
        resumed = read(tmp_path / name)
        torch.testing.assert_close(resumed.pop("losses"), losses[5:], rtol=1e-3, atol=1e-5)
        assert resumed.pop("share") == pytest.approx(0.5 if name == "half-again" else 1, abs=0.01)
        assert_close(resumed, whole)
        one, other = (load_checkpoint(tmp_path / run / "last").model.state_dict() for run in (name, "whole"))
        assert_close(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True], ids=["whole", "sharded"])
def test_two_processes_adapt_as_one(tmp_path: Path, launch: Launch, shard: bool) -> None:
    config = ModelConfig(dit=TINY_DIT, diffusion=TINY_DIFFUSION, classes=CLASSES[:3])
    save_checkpoint(tmp_path / "base", config, tiny_model(TINY_DIT))
    options: dict[str, Any] = {"base": str(tmp_path / "base"), "label_dropout": 0.0}
    train(tmp_path / "one", **options)
    launch(tmp_path / "two", **options, shard=shard)
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
    trainer.stepper.take(trainer.step)
    assert sent == [(2, trainer.model.tailors.width)]


TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# --multi_gpu is accelerate's word for several processes: with --cpu it starts one
ACCELERATE = [
    "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
]  # fmt: skip


def start(launcher: list[str], folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`kind-train fit` of the tiny model on 11 photos for 4 steps, in processes of `launcher`."""
    if not (folder / "photos").exists():
        write_folder(folder / "photos", make_photos(12))
    script = folder / "train.py"
    script.write_text(
        "import kind_train.start.shape, tiny_training, torch\n"
        "kind_train.start.shape.preset = tiny_training.tiny_preset\n"
        "torch.set_num_threads(1)\nfrom kind_train.cli import main\nmain()\n"
    )
    module = ["-m", *launcher] if launcher else []
    return subprocess.run(
        [sys.executable, *module, str(script), "fit", "--data", str(folder / "photos"), "--batch-size", "4",
         "--images", "16", "--save-every", "4", "--device", "cpu", *options],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and the run of one process on them."""
    folder = tmp_path_factory.mktemp("alone")
    done = start([], folder, "--output", str(folder / "run"))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_launchers_start_the_command(tmp_path: Path, alone: Path, launcher: list[str]) -> None:
    done = start(launcher, alone, "--output", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best held-out loss") == 1
    assert done.stderr.count("11 photos, 1 held out") == 1
    assert load_checkpoint(tmp_path / "run" / "best").config.dit.num_classes == 3
    assert "batch_size: 4" in (tmp_path / "run" / "options.yaml").read_text()
    curves = [
        [
            one["held_out_loss"]
            for one in map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
            if "held_out_loss" in one
        ]
        for folder in (tmp_path, alone)
    ]
    assert len(curves[0]) == 4
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


@pytest.mark.slow
def test_accelerate_does_not_train_alone_where_two_were_asked_for(tmp_path: Path) -> None:
    launcher = [ACCELERATE[0], "--cpu", *ACCELERATE[2:]]
    done = start(launcher, tmp_path, "--output", str(tmp_path / "run"))
    assert done.returncode != 0
    assert "asked for several processes and started one" in done.stderr
    assert "give it --multi_gpu in place of --cpu" in done.stderr


@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")])
def test_processes_are_numbered_by_launcher_or_mpi(monkeypatch: pytest.MonkeyPatch, names: tuple[str, str]) -> None:
    joined: dict[str, int] = {}
    monkeypatch.setattr("torch.distributed.init_process_group", lambda backend, **told: joined.update(told))
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    for name, value in zip(names, "24", strict=True):
        monkeypatch.setenv(name, value)
    with joined_processes("cpu") as processes:
        assert (processes.rank, processes.count, processes.local_rank) == (2, 4, 2)
    assert joined == {"rank": 2, "world_size": 4}
