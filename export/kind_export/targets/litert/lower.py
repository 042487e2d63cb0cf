"""LiteRT by litert-torch, for CPUs and GPUs of Android phones by its CompiledModel API."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from kind_core.precisions import EXACT, PRECISIONS
from kind_export.compact.step import GraphStyle
from kind_export.target_rows import TARGET_ROWS
from kind_export.targets.litert.flatbuffer import NamedModel, pack
from kind_export.targets.litert.quantization import halve_constants, quantize
from kind_export.targets.target import Facts, Lowering, TargetOptions, one_line_errors
from kind_runtimes.engines.native_log import dropped_stderr
from kind_runtimes.quiet import without_import_noise

with without_import_noise(), dropped_stderr(), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import litert_torch

ROW = TARGET_ROWS["litert"]
# what a GPU does not take: GATHER_ND, slices of two axes, five axes, RELU_0_TO_1; it computes in fp16, so norms must
# not leave it
STYLE = GraphStyle(norm="scaled", lookup="one_hot", max_axes=4, clamp="relu")


def lower(lowering: Lowering, file: Path, options: TargetOptions) -> Facts:
    """Convert `lowering` to one signature of its name."""
    return _lower_signatures([lowering], file, options, options.describe(lowering))


def lower_pair(
    step: Lowering, unguided: Lowering, is_guided: Sequence[bool], file: Path, options: TargetOptions
) -> tuple[Facts, dict[str, str | None]]:
    """A guided step and its unguided twin as signatures of one file, which share their weights."""
    functions = {one.name: one.name for one in (step, unguided)}
    facts = _lower_signatures([step, unguided], file, options, options.describe(step, functions))
    return facts, {name: name for name in functions}


def _lower_signatures(
    lowerings: Sequence[Lowering], file: Path, options: TargetOptions, about: Mapping[str, str]
) -> Facts:
    first = lowerings[0]
    with torch.no_grad(), one_line_errors("LiteRT", first), _quiet():
        converter = litert_torch.Converter()
        for one in lowerings:
            converter.add_signature(one.name, one.module, one.example)
        model = NamedModel(converter.convert().model_content(), lowerings)
        content, facts = model.pack(), Facts()
        if not PRECISIONS[options.precision].is_float:
            content, facts = quantize(content, model.products, lowerings, options)
        if options.precision != EXACT:
            content = halve_constants(content)
    file.write_bytes(pack(content, about))
    return {"num_ops": model.count_operators(first.name), **facts}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the progress lines of the converter, which it prints to stdout, and its advice."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    litert_torch.config.show_progress = False
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), dropped_stderr():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
