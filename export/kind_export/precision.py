"""Which layers of a program are held in fewer bits, the same for every target, and which of them must stay in more.

Each layer is quantised alone on steps of the reference, and its noise measured. The noise of layers adds up nearly as
power, so a shortfall in dB says what share of the noise has to go. This ranks layers; whether the artifact is good
enough is measured on the artifact (`verify`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kind_core.precisions import PRECISIONS, PrecisionName

# A tailor's factors are a few rows: their bytes are nothing beside the learngene's, and every class hangs on them.
MIN_SIDE = 32
# Small, and its error goes straight into the latents: several dB of a trajectory.
FINAL_LAYER = "final"
_GROUP_SIZE = 32  # inputs that share a scale below 8 bit; above, a whole row does
# Noise does not add up exactly, and lowering again costs time: aim a little beyond the gate.
MARGIN_DB = 1.0


def linear_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of `module` by name, in order."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}


def quantizable_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """Those that are worth quantising."""
    layers = linear_layers(module).items()
    return {name: layer for name, layer in layers if min(layer.weight.shape) >= MIN_SIDE and name != FINAL_LAYER}


def count_bytes(module: nn.Module, precision: PrecisionName) -> int:
    """What the weights of a program take in a file, each once; of fewer bits a layer's scales are not counted."""
    held = {tensor.data_ptr(): tensor.nbytes for tensor in module.state_dict().values()}
    if not PRECISIONS[precision].is_float:
        weights = [layer.weight for layer in quantizable_layers(module).values()]
        held |= {one.data_ptr(): one.numel() * PRECISIONS[precision].weight_bits // 8 for one in weights}
    return sum(held.values())


@torch.no_grad()
def measure_costs(
    module: nn.Module, inputs: Sequence[tuple[Tensor, ...]], precision: PrecisionName
) -> dict[str, float]:
    """The noise that every layer of a step program adds when it alone is quantised, the most first: the mean square of
    the change of the latents over `inputs` (arguments of `forward`)."""
    expected = [module(*one)[0] for one in inputs]
    costs: dict[str, float] = {}
    for name, layer in quantizable_layers(module).items():
        rounded = {f"{name}.weight": round_weight(layer.weight, PRECISIONS[precision].weight_bits)}
        outputs = (functional_call(module, rounded, one)[0] for one in inputs)
        noise = [float((output - y).square().mean()) for output, y in zip(outputs, expected, strict=True)]
        costs[name] = sum(noise) / len(noise)
    return dict(sorted(costs.items(), key=lambda cost: -cost[1]))


def choose_kept(costs: Mapping[str, float], kept: frozenset[str], shortfall_db: float) -> frozenset[str]:
    """`kept` and the most costly other layers, as many as carry the noise that `shortfall_db` says is too much."""
    others = {name: noise for name, noise in costs.items() if name not in kept}
    total = sum(others.values())
    allowed = total * 10 ** (-(shortfall_db + MARGIN_DB) / 10)
    chosen = set(kept)
    for name, noise in others.items():
        if total <= allowed:
            break
        chosen.add(name)
        total -= noise
    return frozenset(chosen)


def describe_costs(costs: Mapping[str, float], count: int = 4) -> str:
    """The most costly layers with their share of all noise, for an error message."""
    total = sum(costs.values()) or math.inf
    return ", ".join(f"{name} ({noise / total:.0%})" for name, noise in islice(costs.items(), count))


def round_weight(weight: Tensor, bits: int) -> Tensor:
    """`weight` (out, in) on the grid of `bits` symmetric levels: a scale a row at 8 bit, one a group of 32 below."""
    size = weight.shape[1] if bits >= 8 or weight.shape[1] % _GROUP_SIZE else _GROUP_SIZE
    groups = weight.reshape(weight.shape[0], -1, size)
    top = 2 ** (bits - 1) - 1
    scale = groups.abs().amax(dim=2, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / top
    rounded: Tensor = (groups / scale).round().clamp(-top, top) * scale
    return rounded.reshape(weight.shape)
