"""Weights of a converted Core ML program in 8, 6 or 4 bits, by coremltools.optimize.coreml.

Only the weights of `nn.Linear` layers of 2048 elements or more are compressed: tables, biases, convolutions and what is
small stay in fp16.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kind_core.errors import ExportError
from kind_core.precisions import PRECISIONS, PrecisionName
from kind_export.precision import linear_layers
from kind_export.targets.coreml.palette import fit_palette
from kind_export.targets.target import Facts, Lowering, TargetOptions
from kind_runtimes.coreml.package import CoreMLPackage
from kind_runtimes.coreml.steps import bind_function

MIN_ELEMENTS = 2048
COMPRESSED: tuple[PrecisionName, ...] = ("int8", "int4", "palette6", "palette4")
_BLOCK_SIZES = (32, 16, 8)  # inputs whose weights share a scale: the largest that divides those of the layer
_GROUP_SIZES = (16, 8)  # outputs whose weights share a palette: the largest that divides those of the layer
_INT8_PALETTES: tuple[PrecisionName, ...] = ("palette4",)  # palettes in int8: free there, 1.5 dB worse with 64 values
_REPORT_HINT = "please report it with this command"


def compress(model: Any, lowering: Lowering, options: TargetOptions) -> tuple[Any, Facts]:
    """(the compressed coremltools model, facts for the manifest). `model` has fp16 weights."""
    constants = _read_constants(model.get_spec())
    layers = find_layers(constants, lowering)
    _check_kept(layers, lowering, options)
    # where layers share a constant, the kept one decides
    kept = {constant for name, constant in layers.items() if name in options.keep}
    large = [constant for constant in layers.values() if math.prod(constants[constant]) >= MIN_ELEMENTS]
    plan: dict[str, PrecisionName] = {one: "int8" if one in kept else options.precision for one in large}
    if options.precision == "int8":
        plan = {constant: precision for constant, precision in plan.items() if constant not in kept}
    for precision in COMPRESSED:
        chosen = {constant: constants[constant] for constant, one in plan.items() if one == precision}
        if chosen:
            model = _apply(model, chosen, TargetOptions(precision=precision, min_ios=options.min_ios))
    _require_compressed(model, plan, lowering)
    if not layers:
        return model, {}
    facts = {
        "scheme": describe_scheme(options),
        "num_layers": sum(plan.get(constant) == options.precision for constant in layers.values()),
        "kept": sorted(options.keep),
    }
    return model, {"compression": facts}


def find_layers(constants: Mapping[str, tuple[int, ...]], lowering: Lowering) -> dict[str, str]:
    """The linear layers of the module with the constants of the converted program (shapes by name) that they became.

    torch.export calls the parameter `blocks.0.up.weight` `p_blocks_0_up_weight`, the cast to fp16 appends `_to_fp16`,
    and of equal constants coremltools keeps one. Raises ExportError where that finds no constant of the weight's shape.
    """
    found: dict[tuple[torch.Size, bytes], str] = {}
    layers: dict[str, str] = {}
    linears = linear_layers(lowering.module).items()
    for name, layer in sorted(linears, key=lambda x: _name_constant(x[0]) not in constants):
        content = layer.weight.shape, layer.weight.detach().half().contiguous().numpy().tobytes()
        constant = layers[name] = found.setdefault(content, _name_constant(name))
        if constants.get(constant) != tuple(layer.weight.shape):
            raise ExportError(
                f"the program of {lowering.name} has no constant {constant!r} of shape {tuple(layer.weight.shape)}, "
                f"expected for the weight of layer {name!r}",
                _REPORT_HINT,
            )
    return layers


def restore_module(lowering: Lowering, file: Path, function: str | None = None) -> nn.Module:
    """A copy of the module whose linear layers have the weights that a device expands from the saved package.

    In fp32 it is what the package computes, up to the fp16 of its other constants: with it a graph can be told from
    the error of its weights.
    """
    steps = bind_function(CoreMLPackage.open(file, function).load_function())
    # as coremltools calls what a constant becomes
    saved = {name.removesuffix("_quantized").removesuffix("_palettized"): one for name, one in steps.weights.items()}
    layers = find_layers({name: tuple(tensor.shape) for name, tensor in saved.items()}, lowering)
    module = copy.deepcopy(lowering.module)
    for name, constant in layers.items():
        module.get_submodule(name).weight = nn.Parameter(saved[constant].clone(), requires_grad=False)
    return module


def describe_scheme(options: TargetOptions) -> str:
    """How the weights of layers that are not kept are stored."""
    if options.precision == "int8":
        return "int8, a scale per output"
    if options.precision == "int4":
        return f"int4, a scale and an offset per {_BLOCK_SIZES[0]} inputs"
    dtype = "int8" if _has_int8_palettes(options) else "fp16"
    scope = "layer" if options.min_ios < 18 else f"{_GROUP_SIZES[0]} outputs"
    return f"a palette of {1 << PRECISIONS[options.precision].weight_bits} {dtype} values per {scope}"


def _apply(model: Any, shapes: Mapping[str, tuple[int, ...]], options: TargetOptions) -> Any:
    """Compress the constants `shapes` to the precision of `options`."""
    from coremltools.optimize import coreml as cto

    make = _make_palettizer if options.precision.startswith("palette") else _make_quantiser
    configs = {name: make(cto, shape, options) for name, shape in shapes.items()}
    if make is _make_quantiser:
        return cto.linear_quantize_weights(model, cto.OptimizationConfig(op_name_configs=configs))
    model = cto.palettize_weights(model, cto.OptimizationConfig(op_name_configs=configs))
    if not _has_int8_palettes(options):
        return model
    # the configuration of a constant inside a compressed one is found by the name of the latter
    int8 = cto.OpLinearQuantizerConfig(dtype="int8", granularity="per_tensor", weight_threshold=0)
    palettes = cto.OptimizationConfig(op_name_configs={f"{name}_palettized": int8 for name in shapes})
    return cto.linear_quantize_weights(model, palettes, joint_compression=True)


def _make_quantiser(cto: Any, shape: tuple[int, ...], options: TargetOptions) -> Any:
    size = next((x for x in _BLOCK_SIZES if shape[1] % x == 0), None)
    if options.precision == "int8" or size is None:
        return cto.OpLinearQuantizerConfig(dtype=options.precision, granularity="per_channel", weight_threshold=0)
    return cto.OpLinearQuantizerConfig(
        mode="linear", dtype="int4", granularity="per_block", block_size=size, weight_threshold=0
    )


def _make_palettizer(cto: Any, shape: tuple[int, ...], options: TargetOptions) -> Any:
    size = next((x for x in _GROUP_SIZES if shape[0] % x == 0), None)
    function = partial(fit_palette, num_bits=PRECISIONS[options.precision].weight_bits)
    if options.min_ios < 18 or size is None:
        return cto.OpPalettizerConfig(mode="custom", lut_function=function, weight_threshold=0)
    return cto.OpPalettizerConfig(
        mode="custom", lut_function=function, granularity="per_grouped_channel", group_size=size, weight_threshold=0
    )


def _has_int8_palettes(options: TargetOptions) -> bool:
    return options.min_ios >= 18 and options.precision in _INT8_PALETTES


def _check_kept(layers: Mapping[str, str], lowering: Lowering, options: TargetOptions) -> None:
    # a program without linear layers, such as `decode`, is lowered with the options of the step
    if layers and (unknown := sorted(options.keep - set(layers))):
        raise ExportError(
            f"{lowering.name} has no linear layer {unknown[0]!r} to keep, expected names like {next(iter(layers))!r}",
            "take the names from the module that is lowered",
        )


def _require_compressed(model: Any, plan: Mapping[str, PrecisionName], lowering: Lowering) -> None:
    """coremltools only warns of what it leaves out."""
    if left := sorted(set(plan) & set(_read_constants(model.get_spec()))):
        raise ExportError(
            f"{lowering.name}: coremltools left {len(left)} weights uncompressed, first {left[0]!r}", _REPORT_HINT
        )


def _list_operations(spec: Any) -> list[Any]:
    return [
        operation
        for function in spec.mlProgram.functions.values()
        for block in function.block_specializations.values()
        for operation in block.operations
    ]


def _read_constants(spec: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the constants by name."""
    outputs = [operation.outputs[0] for operation in _list_operations(spec) if operation.type == "const"]
    return {x.name: tuple(dimension.constant.size for dimension in x.type.tensorType.dimensions) for x in outputs}


def _name_constant(layer: str) -> str:
    return f"p_{layer.replace('.', '_')}_weight_to_fp16"
