"""Core ML as an ML program in an .mlpackage, for iOS and macOS."""

from __future__ import annotations

import json
import logging
import tempfile
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kind_export.compact.step import GraphStyle
from kind_export.target_rows import TARGET_ROWS
from kind_export.targets.coreml.compression import COMPRESSED, compress
from kind_export.targets.done_once import done_once, replaced
from kind_export.targets.target import Facts, Lowering, TargetOptions, one_line_errors
from kind_runtimes.about import DESCRIPTIONS
from kind_runtimes.quiet import import_coremltools

ROW = TARGET_ROWS["coreml"]
# coremltools 9 takes the tanh-GELU of an exported program for the exact one; written out, it finds the right one
STYLE = GraphStyle(gelu="expanded")
_NAMESPACE = uuid.UUID("8b0f6c0e-4a55-4d3c-9d5a-9f2f7c1f5c61")


def lower(lowering: Lowering, file: Path, options: TargetOptions) -> Facts:
    """Convert `lowering`; the same program gives the same bytes."""
    ct = import_coremltools()
    facts: Facts = {"min_ios": options.min_ios}
    with _quiet(), torch.no_grad(), done_once(), validated_at_the_end(), one_line_errors("coremltools", lowering):
        exported = torch.export.export(lowering.module, lowering.example, strict=False).run_decompositions({})
        # it goes on from one program of a process to the next, into their names
        ct.converters.mil.mil.Builder.name_count.clear()
        model = ct.convert(
            exported,
            convert_to="mlprogram",
            inputs=[ct.TensorType(s.name, s.shape, np.dtype(s.dtype)) for s in lowering.inputs],
            outputs=[_output_type(ct, s.name, s.dtype) for s in lowering.outputs],
            minimum_deployment_target=getattr(ct.target, f"iOS{options.min_ios}"),
            compute_precision=ct.precision.FLOAT32 if options.precision == "fp32" else ct.precision.FLOAT16,
            compute_units=ct.ComputeUnit.ALL,
            skip_model_load=True,
        )
        if options.precision in COMPRESSED:
            model, compression = compress(model, lowering, options)
            facts |= compression
        model.user_defined_metadata.clear()
        model.save(str(file))
    _normalise(file, lowering, options)
    return facts


def lower_functions(lowerings: Mapping[str, Lowering], file: Path, options: TargetOptions) -> Facts:
    """Write one package with a function per name, equal weights stored once; the first function is the default.

    It needs iOS 18, as requests know. The facts of each function are under `functions`.
    """
    ct = import_coremltools()
    descriptor = ct.utils.MultiFunctionDescriptor()
    with tempfile.TemporaryDirectory() as folder:
        facts: Facts = {}
        for name, lowering in lowerings.items():
            one = Path(folder) / f"{len(facts)}.mlpackage"
            facts[name] = lower(lowering, one, options)
            descriptor.add_function(str(one), "main", name)
        descriptor.default_function_name = next(iter(lowerings))
        with _quiet(), validated_at_the_end(), one_line_errors("coremltools", next(iter(lowerings.values()))):
            ct.utils.save_multifunction(descriptor, str(file))
    _normalise(
        file, next(iter(lowerings.values())), options, options.class_functions or {name: name for name in lowerings}
    )
    return {"min_ios": options.min_ios, "functions": facts}


def lower_pair(
    step: Lowering, unguided: Lowering, is_guided: Sequence[bool], file: Path, options: TargetOptions
) -> tuple[Facts, dict[str, str | None]]:
    """A guided step and its unguided twin as functions of one package."""
    lowerings = {lowering.name: lowering for lowering in (step, unguided)}
    return lower_functions(lowerings, file, options), {name: name for name in lowerings}


def _output_type(ct: Any, name: str, dtype: str) -> Any:
    if dtype == "image_rgb_uint8":
        return ct.ImageType(name, color_layout=ct.colorlayout.RGB)
    return ct.TensorType(name, dtype=np.dtype(dtype))


def _normalise(
    package: Path, lowering: Lowering, options: TargetOptions, functions: Mapping[str, str] | None = None
) -> None:
    """Give the package the same bytes at every export, and its own description.

    Its identifiers are random, and its spec holds a date.
    """
    from coremltools.proto import Model_pb2

    # a table for ExecuTorch's debugger, which the package's own manifest does not list
    (package / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
    manifest_file = package / "Manifest.json"
    manifest = json.loads(manifest_file.read_text())
    items = manifest["itemInfoEntries"]
    names = {old: str(uuid.uuid5(_NAMESPACE, item["path"])).upper() for old, item in items.items()}
    manifest["itemInfoEntries"] = {names[old]: item for old, item in items.items()}
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    manifest_file.write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n")
    spec_file = next(package.glob("Data/com.apple.CoreML/*.mlmodel"))
    spec = Model_pb2.Model()
    spec.ParseFromString(spec_file.read_bytes())
    _describe(spec.description, options.describe(lowering, functions), options)
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            for operation in block.operations:
                operation.attributes.pop("stack_trace", None)
    spec_file.write_bytes(spec.SerializeToString(deterministic=True))


def _describe(description: Any, about: Mapping[str, str], options: TargetOptions) -> None:
    """Xcode shows these: what the program is, whose, and what its inputs and outputs are."""
    description.metadata.ClearField("userDefined")
    if options.about is None:
        return
    description.metadata.userDefined.update(about)
    description.metadata.shortDescription = about["kind.how_to_call"]
    description.metadata.versionString = about["kind.version"]
    description.metadata.author = options.about.author
    description.metadata.license = options.about.licence
    for one in (description, *description.functions):
        for feature in (*one.input, *one.output):
            feature.shortDescription = DESCRIPTIONS.get(feature.name, "")


@contextmanager
def validated_at_the_end() -> Iterator[None]:
    """Have coremltools look at its own program where dead code has gone and before it is written, and not after each of
    a hundred passes, which is a fifth of a conversion's time."""
    owner = import_coremltools().converters.mil.mil.Program
    validate = owner.validate

    def validate_essential(program: object, check_essential_scope: bool = False) -> None:
        if check_essential_scope:
            validate(program, check_essential_scope=True)

    with replaced(owner, "validate", validate_essential):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep coremltools' own progress bars and version warnings out of ours."""
    from tqdm import tqdm

    logger = logging.getLogger("coremltools")
    level, draw = logger.level, tqdm.__init__
    logger.setLevel(logging.ERROR)
    tqdm.__init__ = partialmethod(draw, disable=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        tqdm.__init__ = draw
