"""Low precision for XNNPACK: linear layers with 8-bit or 4-bit weights, and activations that are 8 bit at run time.

A quantised layer takes its input as 8-bit integers, scaled anew for every token (qd8), so nothing is calibrated and an
outlier costs one token only. The rest of the graph is fp32: attention, norms, patch embedding, tables.
torchao's weights rather than PT2E: that makes the integer arithmetic of a table look-up a float, and shares one scaled
input between q, k and v, at which XNNPACK's partitioner cuts the graph.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from kind_core.errors import ExportError
from kind_export.compact.step import PairLinear
from kind_export.precision import linear_layers, quantizable_layers
from kind_export.targets.target import Facts, Lowering, TargetOptions
from kind_runtimes.quiet import without_import_noise

with without_import_noise():
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.granularity import PerAxis, PerGroup
    from torchao.quantization.quantize_.workflows import IntxChooseQParamsAlgorithm

GROUP_SIZE = 32  # the smallest that XNNPACK takes for 4-bit weights
# Scales that minimise the error of the weights cost nothing at run time: 0.7 dB of the sample's trajectory at 4 bit.
_ALGORITHMS = {8: IntxChooseQParamsAlgorithm.AFFINE, 4: IntxChooseQParamsAlgorithm.HQQ_SCALE_ONLY}
_BITS = {"int8": 8, "int4": 4}
_SCHEMES = {
    8: "8-bit weights per output channel, 8-bit activations per token (qd8-f32-qc8w)",
    4: f"4-bit weights in groups of {GROUP_SIZE}, 8-bit activations per token (qd8-f32-qb4w)",
}


def quantize(lowering: Lowering, options: TargetOptions) -> tuple[Lowering, Facts]:
    """`lowering` in the asked precision, and facts for the manifest; floating point comes back as it is.

    Of the facts, `num_layers` have that precision, `kept` were asked for and `small` are not worth it. Raises
    ExportError where a name of `keep` is no linear layer.
    """
    if not linear_layers(lowering.module):  # the decode program has none
        return lowering, {}
    _require_linears(lowering.module, options.keep, lowering.name)
    if options.precision not in _BITS:
        return lowering, {}
    module, bits = copy.deepcopy(lowering.module), _BITS[options.precision]
    if bits == 4:
        pad_for_groups(module)
    linears, worth = linear_layers(module), quantizable_layers(module)
    asked = {name: layer for name, layer in worth.items() if name not in options.keep}
    four = [name for name, layer in asked.items() if bits == 4 and layer.in_features % GROUP_SIZE == 0]
    eight = [name for name in (worth if bits == 4 else asked) if name not in four]
    _quantize_layers(module, frozenset(eight), 8)
    _quantize_layers(module, frozenset(four), 4)
    facts: dict[str, object] = {
        "scheme": _SCHEMES[bits],
        "num_layers": len(four if bits == 4 else eight),
        "kept": [name for name in linears if name in options.keep],
        "small": [name for name in linears if name not in worth],
    }
    wider = [name for name in eight if name in asked] if bits == 4 else []  # in no whole groups
    return replace(lowering, module=module), {"quantization": facts | ({"eight_bit": wider} if wider else {})}


@torch.no_grad()
def pad_for_groups(module: nn.Module) -> None:
    """Fill the ranks of factored matrices with zero components, so that whole groups go into the second factor."""
    for pair in (m for m in module.modules() if isinstance(m, PairLinear)):
        if pair.down is None:
            continue
        extra = -pair.last.in_features % GROUP_SIZE
        pair.down, pair.last = _resized(pair.down, rows=extra), _resized(pair.last, columns=extra)
        for key in ("scale", "gate"):
            factor = getattr(pair, key)
            if factor is not None:
                setattr(pair, key, F.pad(factor, (0, extra)))


def _resized(layer: nn.Linear, *, rows: int = 0, columns: int = 0) -> nn.Linear:
    weight = F.pad(layer.weight, (0, columns, 0, rows))
    wider = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None)
    wider.weight = nn.Parameter(weight, requires_grad=False)
    if layer.bias is not None:
        wider.bias = nn.Parameter(F.pad(layer.bias, (0, rows)), requires_grad=False)
    return wider


def _quantize_layers(module: nn.Module, names: frozenset[str], bits: int) -> None:
    def is_chosen(layer: nn.Module, name: str) -> bool:
        return name in names and isinstance(layer, nn.Linear)

    config = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int8 if bits == 8 else torch.int4,  # type: ignore[attr-defined]
        weight_granularity=PerAxis(0) if bits == 8 else PerGroup(GROUP_SIZE),
        intx_choose_qparams_algorithm=_ALGORITHMS[bits],
    )
    quantize_(module, config, filter_fn=is_chosen)


def _require_linears(module: nn.Module, keep: Iterable[str], program: str) -> None:
    linears = linear_layers(module)
    unknown = next((name for name in sorted(keep) if name not in linears), None)
    if unknown is not None:
        raise ExportError(
            f"cannot keep {unknown!r} of {program}: no linear layer has that name, "
            f"expected one of {', '.join(list(linears)[:3])}, ... ({len(linears)} layers)",
            "name layers as the lowered module does, `blocks.0.matrices.qkv.last`",
        )
