"""The processes that train one model together, as `torchrun` or `accelerate launch` starts them.

Every process draws the whole batch of a step and works on its share of it, so that a run has the same batches, noise
and dropped labels on any number of processes. What they tell each other: the gradients of the learngene, those of the
tailors whose classes are in the batch of any of them, and losses.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from kind_core.errors import ConfigError
from kind_core.stopping import StopRequest

# The groups that were joined, held to the end of the process: a model's reducer that outlives its group would free it
# with the interpreter's lock held, and wait for threads of the group that may be waiting for that lock.
_groups: list[object] = []
_LAUNCHER_VARIABLES = {
    "RANK": ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"),
    "WORLD_SIZE": ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"),
    "LOCAL_RANK": ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """This process among those that train together; alone by default."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """The one that writes files and speaks."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """What of a batch this process works on; raises ConfigError where it cannot be shared evenly."""
        if batch_size % self.count:
            raise ConfigError(f"batch_size is {batch_size}, expected a multiple of the {self.count} processes")
        size = batch_size // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def average(self, tensor: Tensor) -> Tensor:
        """The mean over the processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
            tensor /= self.count
        return tensor

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def copy_from_main(self, tensor: Tensor) -> Tensor:
        """What the main process has in `tensor`, in place."""
        if self.count > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def is_stopped(self, stop: StopRequest, device: torch.device, *, is_read: bool) -> bool:
        """Whether one was asked to stop; several ask each other where they wait for each other anyway: `is_read`."""
        if self.count > 1 and is_read:
            asked = torch.tensor(float(bool(stop.number)), device=device)
            if self.total(asked) and not stop.number:
                stop.number = signal.SIGTERM
        return bool(stop.number) and (self.count == 1 or is_read)

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """Join the processes that the launcher started, if it did; `device` decides how they talk.

    torchrun and `accelerate launch --multi_gpu` set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, with
    or without GPUs. Raises ConfigError where accelerate was asked for several processes and started one.
    """
    count = _read_number("WORLD_SIZE", 1)
    if count == 1:
        _require_no_more_wanted()
        yield Processes()
        return
    rank = _read_number("RANK", 0)
    processes = Processes(rank=rank, count=count, local_rank=_read_number("LOCAL_RANK", rank))
    is_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if is_gpu:
        torch.cuda.set_device(processes.local_rank)
    dist.init_process_group("nccl" if is_gpu else "gloo", rank=rank, world_size=count)
    _groups.append(dist.group.WORLD)
    try:
        yield processes
    finally:
        dist.destroy_process_group()


def _read_number(name: str, default: int) -> int:
    """A number of the launcher: under its own name, or where accelerate starts mpirun, under that of the MPI."""
    for variable in _LAUNCHER_VARIABLES[name]:
        if variable in os.environ:
            return int(os.environ[variable])
    return default


def _require_no_more_wanted() -> None:
    """`accelerate launch --cpu --num_processes 2` starts one process, but says by MASTER_ADDR that it has two."""
    is_one_started = "ACCELERATE_MIXED_PRECISION" in os.environ and "WORLD_SIZE" not in os.environ
    if is_one_started and "MASTER_ADDR" in os.environ:
        raise ConfigError(
            "accelerate launch was asked for several processes and started one, as it does with --cpu",
            "give it --multi_gpu in place of --cpu: processes without a GPU train on the CPU; or start by torchrun",
        )
