"""LiteRT programs: on a CPU by its interpreter, on other units by the CompiledModel API, which apps use."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from copy import copy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.hardware_accelerator import HardwareAccelerator
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools.flatbuffer_utils import read_model_from_bytearray

from kind_core.errors import BundleError, TargetError
from kind_runtimes.about import PREFIX, FileDescription
from kind_runtimes.engines.native_log import held_stderr
from kind_runtimes.engines.runtime import DEFAULT_OPTIONS, Arrays, EngineOptions, check_inputs, check_outputs
from kind_runtimes.manifest import ProgramSpec, TensorSpec

_Run = Callable[[Mapping[str, np.ndarray]], Arrays]
_CPU = "CPU"
IDENTIFIER = b"TFL3"
_UNITS = (_CPU, "GPU", "NPU")
# What it says of itself, and of accelerators and compilers that are not there, whenever a file is opened.
_NOISE_LINE = re.compile(rb"(?m)^(?:INFO|WARNING|VERBOSE): [^\n]*\n|^\xe2\x94\x94 [^\n]*\n")
_REASON_LINE = re.compile(rb"(?m)^ERROR: (?:\[[^\]\n]*\] ?)?(?P<reason>[^\n]+)\n")
# How it says that an operator is of a version that it has not learnt yet.
_NEWER = re.compile(r"op for builtin opcode|(?i:newer model)")
_DTYPES = {getattr(schema.TensorType, name): name.lower() for name in ("FLOAT32", "FLOAT16", "INT32", "INT64", "BOOL")}


class LiteRTProgram:
    """A signature of a .tflite file: `function`, or the first; a BundleError has LiteRT's reason where there is none.

    On the CPU unless `options` name another unit; what that cannot run is an error, because LiteRT alone would not say.
    """

    def __init__(
        self, file: Path, spec: ProgramSpec, function: str | None = None, options: EngineOptions = DEFAULT_OPTIONS
    ) -> None:
        unit = _find_unit(options.provider or _CPU)
        self.texts = read_texts(file)
        self._file, self._spec, self._function = file, spec, function
        threads = options.threads or os.cpu_count() or 1
        self._run = _open_on_cpu(file, function, threads) if unit == _CPU else _open_on(unit, file, spec, function)
        self.engine = f"LiteRT {version('ai-edge-litert')} on {unit}"

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        check_inputs(inputs, self._spec)
        outputs = self._run(inputs)
        check_outputs(outputs, self._spec)
        return outputs

    def node_by_node(self) -> LiteRTProgram:
        """The same file with each result rounded to fp16, as a GPU gives it and kernels of a CPU do not."""
        from kind_runtimes.engines.litert_half import round_results

        other = copy(self)
        other._run = _open_on_cpu(self._file, self._function, 1, round_results(self._file))
        other.engine = f"LiteRT {version('ai-edge-litert')} with each result rounded to fp16"
        return other


open_program = LiteRTProgram


def describe_file(file: Path) -> FileDescription:
    """What a .tflite file says of itself: its metadata, and its first signature; BundleError where it is none."""
    model = read_model(file)
    signature = model.signatureDefs[0]
    tensors = model.subgraphs[signature.subgraphIndex].tensors
    return FileDescription(
        texts=_texts_of(model),
        inputs=tuple(_read_spec(one, tensors) for one in signature.inputs),
        outputs=tuple(_read_spec(one, tensors) for one in signature.outputs),
    )


def read_texts(file: Path) -> dict[str, str]:
    """The metadata that kind-export wrote into a file."""
    return _texts_of(read_model(file))


def read_model(file: Path) -> Any:
    """The flatbuffer of a .tflite file as an object; raises BundleError where it is none."""
    with file.open("rb") as stream:
        content = stream.read()
    if content[4:8] != IDENTIFIER:
        raise BundleError(f"{file} is not a LiteRT program: it does not begin like one", "export the bundle again")
    try:
        return read_model_from_bytearray(content)
    except Exception as error:  # flatbuffers checks nothing: what a broken file raises is anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BundleError(f"{file} is not a LiteRT program: {reason}", "export the bundle again") from error


def _texts_of(model: Any) -> dict[str, str]:
    entries = {one.name.decode(): model.buffers[one.buffer].data for one in model.metadata or ()}
    return {name: bytes(data).decode() for name, data in sorted(entries.items()) if name.startswith(PREFIX)}


def _read_spec(entry: Any, tensors: Any) -> TensorSpec:
    tensor = tensors[entry.tensorIndex]
    shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
    return TensorSpec(name=entry.name.decode(), shape=shape, dtype=_DTYPES.get(tensor.type, f"type {tensor.type}"))


def _find_unit(asked: str) -> str:
    found = next((one for one in _UNITS if one.lower() == asked.lower()), None)
    if found is None:
        raise TargetError(f"LiteRT has no unit {asked!r}, only {', '.join(_UNITS)}", "leave --provider out")
    return found


def _open_on_cpu(file: Path, function: str | None, threads: int, content: bytes | None = None) -> _Run:
    """A signature with XNNPACK's kernels, by the interpreter: the same as CompiledModel's on a CPU, and it is quiet.

    `content` is run in place of what the file holds.
    """
    source: dict[str, object] = {"model_path": str(file)} if content is None else {"model_content": content}
    reasons: list[str] = []
    try:
        with held_stderr(_NOISE_LINE, _REASON_LINE, reasons):
            interpreter = Interpreter(**source, num_threads=threads)
            interpreter.allocate_tensors()
            held = interpreter.get_signature_list()
            key = _find_signature(file, function, held)
            runner = interpreter.get_signature_runner(key)
    except (RuntimeError, ValueError) as error:
        reason = _join(reasons, error)
        is_newer = _NEWER.search(reason) is not None
        raise BundleError(
            f"LiteRT {version('ai-edge-litert')} cannot load {file}: {reason}",
            "the file is newer than this runtime: pip install -U ai-edge-litert"
            if is_newer
            else "export the bundle again",
        ) from error
    return lambda inputs: dict(runner(**inputs))


def _open_on(unit: str, file: Path, spec: ProgramSpec, function: str | None) -> _Run:
    """A signature on a GPU or NPU; raises TargetError where that is not there or leaves operators out."""
    reasons: list[str] = []
    try:
        with held_stderr(_NOISE_LINE, _REASON_LINE, reasons):
            model = CompiledModel.from_file(str(file), hardware_accel=getattr(HardwareAccelerator, unit))
            is_whole = model.is_fully_accelerated()
    except (RuntimeError, ValueError) as error:
        raise TargetError(
            f"LiteRT cannot start its {unit} here: {_join(reasons, error)}", "--provider CPU runs everywhere"
        ) from error
    if not is_whole:
        raise TargetError(
            f"LiteRT leaves operators of {file} off its {unit}", "kind-bench lint names them; --provider CPU runs"
        )
    key = _find_signature(file, function, model.get_signature_list())
    ins = {s.name: model.create_input_buffer_by_name(key, s.name) for s in spec.inputs}
    outs = {s.name: model.create_output_buffer_by_name(key, s.name) for s in spec.outputs}

    def run(inputs: Mapping[str, np.ndarray]) -> Arrays:
        for name, buffer in ins.items():
            buffer.write(np.ascontiguousarray(inputs[name]))
        model.run_by_name(key, ins, outs)
        return {s.name: outs[s.name].read(math.prod(s.shape), np.float32).reshape(s.shape) for s in spec.outputs}

    return run


def _find_signature(file: Path, function: str | None, held: Collection[str]) -> str:
    key = function or next(iter(held), None)
    if key is None or key not in held:
        names = ", ".join(held) or "none"
        raise BundleError(f"{file} has no signature {function!r}, only {names}", "export the bundle again")
    return key


def _join(reasons: list[str], error: Exception) -> str:
    return "; ".join(dict.fromkeys(reasons)) or " ".join(str(error).split())
