"""Which layers of a program are held in fewer bits, the same for every target."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from kind_core.precisions import PRECISIONS, PrecisionName

# A tailor's factors are a few rows: their bytes are nothing beside the learngene's, and every class hangs on them.
MIN_SIDE = 32
# Small, and its error goes straight into the latents: several dB of a trajectory.
FINAL_LAYER = "final"


def linear_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of `module` by name, in order."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}


def quantizable_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """Those that are worth quantising."""
    layers = linear_layers(module).items()
    return {name: layer for name, layer in layers if min(layer.weight.shape) >= MIN_SIDE and name != FINAL_LAYER}


def count_bytes(module: nn.Module, precision: PrecisionName, keep: Collection[str] = ()) -> int:
    """What the weights of a program take in a file, each once; of fewer bits a layer's scales are not counted."""
    held = {tensor.data_ptr(): tensor.nbytes for tensor in module.state_dict().values()}
    if not PRECISIONS[precision].is_float:
        held |= {
            layer.weight.data_ptr(): layer.weight.numel()
            * (8 if name in keep else PRECISIONS[precision].weight_bits)
            // 8
            for name, layer in quantizable_layers(module).items()
        }
    return sum(held.values())
