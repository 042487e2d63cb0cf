"""Core ML programs: `predict` on macOS, the op-by-op evaluator elsewhere; `engine` says which."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kind_core.errors import TargetError
from kind_runtimes.about import FileDescription
from kind_runtimes.coreml import package as package_module
from kind_runtimes.coreml.evaluator import Arithmetic, Evaluator
from kind_runtimes.coreml.package import CoreMLPackage
from kind_runtimes.engines.runtime import DEFAULT_OPTIONS, Arrays, EngineOptions, check_inputs
from kind_runtimes.manifest import ProgramSpec, TensorSpec
from kind_runtimes.quiet import import_coremltools

_UNITS = {
    "all": "ALL",
    "cpu-only": "CPU_ONLY",
    "cpu-and-gpu": "CPU_AND_GPU",
    "cpu-and-neural-engine": "CPU_AND_NE",
}


class EvaluatedProgram:
    """A saved package, evaluated op by op with the rounding of its own types. Checks results; says nothing of speed."""

    def __init__(
        self, file: Path, spec: ProgramSpec, arithmetic: Arithmetic = "saved", function: str | None = None
    ) -> None:
        self._file = file
        self._spec = spec
        self._function = function
        package = CoreMLPackage.open(file, function)
        self._evaluator = Evaluator(package, arithmetic)
        self.texts: dict[str, str] = dict(package.spec.description.metadata.userDefined)
        self.engine = "op-by-op evaluation of the saved Core ML package (no Apple hardware)"

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        check_inputs(inputs, self._spec)
        return self._evaluator.run(dict(inputs))

    def before_saturation(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """The outputs, images as the program's own floats (1, 3, height, width), 0 to 255 before uint8 clips."""
        check_inputs(inputs, self._spec)
        return self._evaluator.run(dict(inputs), raw_images=True)

    def without_rounding(self) -> EvaluatedProgram:
        """The same package with activations kept in fp32, which tells a wrong graph from rounding."""
        return EvaluatedProgram(self._file, self._spec, "fp32", self._function)


class PredictedProgram:
    """Core ML itself, on macOS."""

    def __init__(
        self, file: Path, spec: ProgramSpec, function: str | None = None, options: EngineOptions = DEFAULT_OPTIONS
    ) -> None:
        units = options.provider or "all"
        self.model: Any = import_coremltools().models.MLModel(
            str(file), function_name=function, compute_units=_find_units(units)
        )
        self._spec = spec
        self.texts: dict[str, str] = dict(self.model.user_defined_metadata)
        self.engine = "Core ML predict" if options.provider is None else f"Core ML predict on {units}"

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        check_inputs(inputs, self._spec)
        outputs = self.model.predict(dict(inputs))
        return {s.name: _to_array(outputs[s.name], s.dtype) for s in self._spec.outputs}


def open_program(
    file: Path, spec: ProgramSpec, function: str | None = None, *, options: EngineOptions = DEFAULT_OPTIONS
) -> EvaluatedProgram | PredictedProgram:
    """Open an .mlpackage; `function` picks one of a multifunction package, else its default one."""
    if options.threads is not None:
        raise TargetError(f"Core ML was asked for {options.threads} threads, but chooses them itself", "leave them out")
    if sys.platform == "darwin":
        return PredictedProgram(file, spec, function, options)
    if options.provider is not None:
        raise TargetError(f"Core ML was asked for {options.provider!r}, but does not run here", "that needs a Mac")
    return EvaluatedProgram(file, spec, function=function)


def describe_file(file: Path) -> FileDescription:
    """What an .mlpackage says of itself; raises BundleError where it is broken."""
    package = CoreMLPackage.open(file)
    metadata = package.spec.description.metadata
    return FileDescription(
        texts=dict(metadata.userDefined),
        inputs=tuple(_read_spec(name, spec) for name, spec in package.inputs.items()),
        outputs=tuple(_read_spec(name, spec) for name, spec in package.outputs.items()),
    )


def _read_spec(name: str, spec: package_module.TensorSpec) -> TensorSpec:
    return TensorSpec(name=name, shape=spec.shape, dtype=f"image_{spec.image.lower()}" if spec.image else spec.dtype)


def _find_units(name: str) -> Any:
    if name not in _UNITS:
        raise TargetError(f"unknown compute units {name!r} of Core ML, expected one of {', '.join(_UNITS)}")
    return import_coremltools().ComputeUnit[_UNITS[name]]


def _to_array(value: Any, dtype: str) -> np.ndarray:
    # an image output comes as a PIL image, with an alpha channel
    return np.asarray(value)[..., :3] if dtype == "image_rgb_uint8" else np.asarray(value, dtype=dtype)
