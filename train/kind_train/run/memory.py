"""What lets a model train that is too large for a device: its blocks sharded over the processes, activations twice.

Sharding is FSDP2: each process holds a slice of every parameter of the learngene, of its average and of its moments,
and gathers a block when it runs. The bank of tailors stays whole everywhere, because a step touches few of its rows
only. Files hold whole tensors, so that a run goes on sharded or not, on any number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from kind_core.dit import DivertedTransformer


def checkpoint_activations(model: DivertedTransformer) -> None:
    """Keep what goes into each block only, and run the block again on the way back. Nothing in it draws numbers."""
    for block in model.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)


def shard_model(model: DivertedTransformer, num_processes: int) -> None:
    """Leave this process its slice of the learngene, block by block; all processes must hold the same weights."""
    mesh = init_device_mesh(model.tailors.weight.device.type, (num_processes,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params={model.tailors.weight})


def gather(tensors: Mapping[str, Tensor], *, on_host: bool = False, keep: bool = True) -> dict[str, Tensor]:
    """The tensors made whole, by all processes together; those that do not `keep` them get nothing.

    `on_host`: one tensor after the other leaves the device, which then needs room for one alone.
    """
    whole = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor().cpu() if on_host else tensor.full_tensor()
        if keep:
            whole[name] = tensor
    return whole


def shard_like(tensor: Tensor, sharded: Tensor) -> Tensor:
    """A copy of the whole `tensor` where and as `sharded` lies; every process has to hold the whole of it."""
    copy = tensor.detach().to(sharded.device)
    if not isinstance(sharded, DTensor):
        return copy.clone()
    # without a source there is nothing to send; the copy lets go of the whole tensor
    return distribute_tensor(copy, sharded.device_mesh, sharded.placements, src_data_rank=None).clone()


def local(tensor: Tensor) -> Tensor:
    """This process's slice of `tensor`, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def clip_gradients(learngene: Sequence[Tensor], rows: Tensor, max_norm: float) -> Tensor:
    """Scale all gradients so that their joint norm is at most `max_norm`; returns the norm before."""
    if not any(isinstance(parameter, DTensor) for parameter in learngene):
        return torch.nn.utils.clip_grad_norm_([*learngene, rows], max_norm)
    sharded = [parameter.grad for parameter in learngene if parameter.grad is not None]
    whole = [rows.grad] if rows.grad is not None else []
    norms = gather({str(i): torch.nn.utils.get_total_norm(group) for i, group in enumerate((sharded, whole)) if group})
    norm: Tensor = torch.stack(list(norms.values())).norm()
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # as clip_grad_norm_
    torch._foreach_mul_([local(gradient) for gradient in (*sharded, *whole)], factor)
    return norm
