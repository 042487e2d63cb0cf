"""In which form each diverted matrix runs its learngene: two thin products, or one materialised W_G.

The default has fewer multiplications. On a GPU these are not always less time: thin products read and write more, and
their inner dimension is small. So there both are timed on the run's own shapes, and the choice is part of its state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from kind_core.dit import DivertedTransformer
from kind_core.diverted import DivertedLinear, project

# Matrices of a block that share a form: those that share their input, and each of the others.
GROUPS = (("attn.q", "attn.k", "attn.v"), ("attn.o",), ("mlp.up",), ("mlp.down",))
_WARM_UP, _ROUNDS = 2, 5


def read_forms(model: DivertedTransformer) -> Tensor:
    """Whether each of `GROUPS` is thin, (4,) uint8, from the first block; empty where the model is dense."""
    if model.config.is_dense:
        return torch.zeros(0, dtype=torch.uint8)
    return torch.tensor([_group(model.blocks[0], names)[0].is_thin for names in GROUPS], dtype=torch.uint8)


def set_forms(model: DivertedTransformer, forms: Tensor) -> None:
    """Run every block as `read_forms` said."""
    for is_thin, names in zip(forms.tolist(), GROUPS, strict=False):
        for block in model.blocks:
            for layer in _group(block, names):
                layer.is_thin = bool(is_thin)


def tune_forms(
    model: DivertedTransformer, batch_size: int, autocast: Callable[[], AbstractContextManager[object]]
) -> dict[str, tuple[float, float]]:
    """Time both forms of each group in the first block, forward and backward, and set the faster one everywhere.

    Returns the milliseconds of the thin and of the materialised form by the names of the group.
    """
    if model.config.is_dense:
        return {}
    device, tokens = model.tailors.weight.device, model.config.num_tokens
    times, forms = {}, []
    for names in GROUPS:
        layers = _group(model.blocks[0], names)
        x = torch.randn(batch_size, tokens, layers[0].in_features, device=device, requires_grad=True)
        thin_ms, whole_ms = (_time_form(layers, x, is_thin, autocast) for is_thin in (True, False))
        times[", ".join(names)] = thin_ms, whole_ms
        forms.append(thin_ms <= whole_ms)
    set_forms(model, torch.tensor(forms, dtype=torch.uint8))
    return times


def _time_form(
    layers: Sequence[DivertedLinear], x: Tensor, is_thin: bool, autocast: Callable[[], AbstractContextManager[object]]
) -> float:
    for layer in layers:
        layer.is_thin = is_thin
    inputs = [x, *(p for layer in layers for p in layer.parameters() if p.requires_grad)]
    best_s = float("inf")
    for round_ in range(_WARM_UP + _ROUNDS):
        _wait(x.device)
        start_s = time.perf_counter()
        with autocast():
            results = project(layers, x, [None] * len(layers))
        torch.autograd.grad(results, inputs, [torch.ones_like(y) for y in results])
        _wait(x.device)
        if round_ >= _WARM_UP:
            best_s = min(best_s, time.perf_counter() - start_s)
    return best_s * 1e3


def _group(block: torch.nn.Module, names: Sequence[str]) -> list[DivertedLinear]:
    return [block.get_submodule(name) for name in names]  # type: ignore[misc]  # a block of a model that is not dense


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
