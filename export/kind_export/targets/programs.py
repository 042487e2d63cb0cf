"""The programs of a bundle and their contract: names, shapes and dtypes in one place."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from kind_core.precisions import EXACT, PRECISIONS
from kind_export.compact.decode import DecodeProgram
from kind_export.compact.model import CompactModel, LowRankTable
from kind_export.compact.step import StepProgram
from kind_export.compact.tailors import TailorLayout
from kind_export.targets.target import Lowering, Target, TargetOptions
from kind_runtimes.manifest import TensorSpec

Contract = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]  # inputs, outputs


def make_step(model: CompactModel, target: Target, options: TargetOptions, *, is_guided: bool = True) -> Lowering:
    """The step program of `model` in the form that suits a target; unguided it has no input `guidance`.

    The step of a model that takes no guidance is unguided.
    """
    is_half = PRECISIONS[options.precision].is_half and target.ROW.casts_module
    dtype = torch.float16 if is_half else torch.float32
    # beside weights of a byte, tables in fp32 would be what a program is made of
    table_dtype = torch.float16 if not PRECISIONS[options.precision].is_float and target.ROW.casts_module else None
    module = StepProgram(model, style=target.STYLE, dtype=dtype, table_dtype=table_dtype, is_guided=is_guided).eval()
    inputs, outputs = step_contract(model, is_guided=is_guided)
    name = "step" if is_guided else "step_unguided"
    return Lowering(name=name, module=module, example=_example(inputs), inputs=inputs, outputs=outputs)


def step_contract(model: CompactModel, *, is_guided: bool = True) -> Contract:
    """Inputs and outputs of the step of `model`."""
    shape = latents_shape(model)
    state = [TensorSpec(name=name, shape=shape, dtype="float32") for name in ("latents", "history")]
    state = state if model.sampler.has_history else state[:1]
    takes_guidance = is_guided and model.sampler.takes_guidance
    inputs = (*state, *(one for one in _choices(model) if takes_guidance or one.name != "guidance"))
    inputs += _captions(model)
    # an output may not have the name of an input
    return inputs, tuple(TensorSpec(name=f"next_{s.name}", shape=s.shape, dtype=s.dtype) for s in state)


def _captions(model: CompactModel) -> tuple[TensorSpec, ...]:
    """The embedded words of a caption and of the null one, and which of them are read."""
    if model.captions is None:
        return ()
    words, channels = model.captions.words, model.captions.channels
    shapes = {"text": (2, words, channels), "text_mask": (2, words)}
    return tuple(TensorSpec(name=name, shape=shape, dtype="float32") for name, shape in shapes.items())


def _choices(model: CompactModel) -> tuple[TensorSpec, ...]:
    """Step, class and guidance; the class as an index, or as what a pack holds."""
    step, index = (TensorSpec(name=name, shape=(1,), dtype="int32") for name in ("step_index", "class_index"))
    guidance = TensorSpec(name="guidance", shape=(1,), dtype="float32")
    if model.pack_rank is None:
        return step, index, guidance
    table = model.conditioning
    assert isinstance(table, LowRankTable), "a base has its table from detach_classes"
    shapes = {
        "tailor": (1, TailorLayout(model.config, model.pack_rank).width),
        "modulation_basis": (table.rank, table.null[0].numel()),
        "modulation_coefficients": (table.null.shape[0], table.rank),
    }
    return step, guidance, *(TensorSpec(name=n, shape=shape, dtype="float32") for n, shape in shapes.items())


def decode_options(model: CompactModel, target: Target, options: TargetOptions) -> TargetOptions:
    """The options of the decode program.

    Of pixels it is a few element-wise operators: nothing is worth fewer bits. An autoencoder is in fp16 where that is
    asked for and it fits; never below, because it draws the picture.
    """
    own = replace(options, keep=frozenset(), class_functions={})
    if model.decoder is None:
        return own
    # a runtime that computes in fp16 anyway, or a file of half the size where that was asked for
    asked = PRECISIONS[options.precision]
    wants_half = asked.is_half if target.ROW.casts_module else options.precision != EXACT
    return replace(own, precision="fp16" if wants_half and model.decoder.fits_fp16 else "fp32")


def make_decode(model: CompactModel, target: Target, options: TargetOptions) -> Lowering | None:
    """The decode program in its own options, or None where the latents are not pixels and there is no autoencoder."""
    contract = decode_contract(model, dtype="image_rgb_uint8" if target.ROW.gives_pictures else "float32")
    if contract is None:
        return None
    inputs, outputs = contract
    is_half = model.decoder is not None and PRECISIONS[options.precision].is_half and target.ROW.casts_module
    dtype = torch.float16 if is_half else torch.float32
    decoder = None if model.decoder is None else copy.deepcopy(model.decoder.module).to(dtype)
    peak = 255.0 if target.ROW.gives_pictures else 1.0
    module = DecodeProgram(peak, decoder, dtype, target.STYLE.clamp).eval()
    return Lowering(name="decode", module=module, example=_example(inputs), inputs=inputs, outputs=outputs)


def decode_contract(model: CompactModel, dtype: str = "float32") -> Contract | None:
    """Inputs and outputs of the decode program, or None where there is none."""
    shape = latents_shape(model)
    if model.decoder is None and shape[1] != 3:
        return None
    downscale = 1 if model.decoder is None else model.decoder.module.config.downscale
    image_shape = (1, 3, shape[2] * downscale, shape[3] * downscale)
    return (TensorSpec(name="latents", shape=shape, dtype="float32"),), (
        TensorSpec(name="image", shape=image_shape, dtype=dtype),
    )


def latents_shape(model: CompactModel) -> tuple[int, int, int, int]:
    """(1, channels, size, size)."""
    config = model.config
    return 1, config.in_channels, config.sample_size, config.sample_size


def _example(inputs: tuple[TensorSpec, ...]) -> tuple[Tensor, ...]:
    dtypes = {"float32": torch.float32, "int32": torch.int32}
    return tuple(torch.zeros(s.shape, dtype=dtypes[s.dtype]) for s in inputs)
