"""The processes that train one model together, as `torchrun` or `accelerate launch` starts them.

Every process draws the whole batch of a step and works on its share of it, so that a run has the same batches, noise
and dropped labels on any number of processes. What they tell each other: the gradients of the learngene, those of the
tailors whose classes are in the batch of any of them, and losses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from kind_core.errors import ConfigError


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

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """Join the processes that the launcher started, if it did; `device` decides how they talk.

    Launchers set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    processes = Processes(
        rank=int(os.environ["RANK"]), count=count, local_rank=int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
    )
    is_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if is_gpu:
        torch.cuda.set_device(processes.local_rank)
    dist.init_process_group("nccl" if is_gpu else "gloo")
    try:
        yield processes
    finally:
        dist.destroy_process_group()
