"""The one protocol over ONNX Runtime, ExecuTorch and Core ML: open a program, call it with arrays by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeGuard

import numpy as np

from kind_core.errors import BundleError, ConfigError, KindError, TargetError
from kind_runtimes.about import FileDescription
from kind_runtimes.engine_rows import ENGINES, by_preference
from kind_runtimes.engines.trial import require_survivable
from kind_runtimes.manifest import ProgramSpec

Arrays = dict[str, np.ndarray]
MAX_THREADS = 1024  # engines start as many as they are told
_MAX_REASON = 500  # some quote a whole graph
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed: ?|"
    r"/onnxruntime_src/\S+ .*?\) (?:const )?|\S+\.cc:\d+ \w+ "
)


class Program(Protocol):
    """An opened program. `engine` says what really runs it, in words for a report."""

    engine: str

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run once. Inputs and outputs have the names, shapes and dtypes of the manifest."""
        ...


class Unroundable(Program, Protocol):
    """A program that an evaluator runs, and so can also run with activations kept in fp32."""

    def without_rounding(self) -> Program:
        """The same with nothing rounded but weights."""
        ...


class NodeRunnable(Program, Protocol):
    """A program whose nodes can also be run one by one."""

    def node_by_node(self) -> Program:
        """The same with each node's result in the precision that its graph says, whatever kernels are wider."""
        ...


def can_unround(program: Program | None) -> TypeGuard[Unroundable]:
    """Whether a program has a way without rounding."""
    return hasattr(program, "without_rounding")


def runs_node_by_node(program: Program | None) -> TypeGuard[NodeRunnable]:
    """Whether a program's nodes can be run one by one."""
    return hasattr(program, "node_by_node")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """What a caller may choose of a runtime; None leaves it to the runtime.

    `threads`: of ExecuTorch they are the whole process's. `provider`: of ONNX an execution provider without its ending,
    `CPU` or `CoreML`; of Core ML `all`, `cpu-only`, `cpu-and-gpu` or `cpu-and-neural-engine`.
    """

    threads: int | None = None
    provider: str | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise ConfigError(f"threads is {self.threads}, expected 1 to {MAX_THREADS}")


class ClassPrograms:
    """Programs that hold one class each, called as one: `class_index` picks, and is 0 where it is not given.

    `openers` open them in the order of the classes: the first at once, the others when they are first called.
    """

    def __init__(self, openers: Sequence[Callable[[], Program]]) -> None:
        self._openers = [cache(opener) for opener in openers]
        self.engine = self._openers[0]().engine
        self.texts: Mapping[str, str] = getattr(self._openers[0](), "texts", {})

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run the program of `class_index` (1,) once on the other inputs."""
        index = int(inputs["class_index"][0]) if "class_index" in inputs else 0
        if not 0 <= index < len(self._openers):
            raise ValueError(f"class_index is {index}, expected 0 to {len(self._openers) - 1}")
        return self._openers[index]()({name: value for name, value in inputs.items() if name != "class_index"})

    @property
    def without_rounding(self) -> Callable[[], ClassPrograms]:
        """As of an evaluated program; there only where the programs have it."""
        if not can_unround(self._openers[0]()):
            raise AttributeError("the programs have no way without rounding", name="without_rounding", obj=self)
        return lambda: ClassPrograms([partial(_open_unrounded, opener) for opener in self._openers])


DEFAULT_OPTIONS = EngineOptions()


def check_runtime(name: str) -> str:
    """`name`; raises TargetError when there is no such runtime."""
    if name not in ENGINES:
        raise TargetError(f"unknown runtime {name!r}, expected one of {', '.join(ENGINES)}")
    return name


def choose_runtime(targets: Collection[str]) -> str:
    """The best installed one of a bundle's targets; if none is installed, the best: opening it says what is missing."""
    held = [one.name for one in by_preference() if one.name in targets]
    if not held:
        raise TargetError(
            f"the bundle holds {', '.join(targets)} only, whose pipeline.py is code that would run here",
            "add --runtime diffusers where you trust where the bundle comes from",
        )
    return next((name for name in held if find_spec(ENGINES[name].package)), held[0])


def is_installed(runtime: str) -> bool:
    """Whether the package of `runtime` is there."""
    return find_spec(ENGINES[check_runtime(runtime)].package) is not None


def open_program(
    runtime: str,
    file: Path,
    spec: ProgramSpec,
    options: EngineOptions = DEFAULT_OPTIONS,
    *,
    is_expendable: bool = False,
) -> Program:
    """Open one program in the runtime of its target; raises TargetError when that is unknown or not installed.

    Where each class has a function of its own, those after the first are opened when they are called. A file at which
    the engine would end this process is a BundleError, unless the process `is_expendable`.
    """
    _require_file(file)
    if spec.class_functions is not None:
        specs = [replace(spec, function=one, class_functions=None) for one in spec.class_functions.values()]
        return ClassPrograms(
            [partial(open_program, runtime, file, one, options, is_expendable=is_expendable) for one in specs]
        )
    # onnxruntime's files hold one program each
    name = {} if spec.function is None else {"function": spec.function}
    what = f"{runtime} cannot load {file}"
    with engine_errors(what):
        opener = partial(load_runtime(runtime).open_program, file, spec, options=options, **name)
        if ENGINES[runtime].may_crash and not is_expendable:
            zeros = {one.name: np.zeros(one.shape, one.dtype) for one in spec.inputs}
            require_survivable(what, file, lambda: opener()(zeros))
        result: Program = opener()
        return result


def load_runtime(runtime: str) -> ModuleType:
    """The module that opens the programs of `runtime`, its library with it; raises TargetError like `open_program`."""
    entry = ENGINES[check_runtime(runtime)]
    try:
        return import_module(entry.module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != entry.package:
            raise
        raise TargetError(
            f"runtime {runtime!r} needs the package {entry.package}, which is not installed",
            entry.installed_by,
        ) from error


def describe_file(runtime: str, file: Path) -> FileDescription:
    """What a program file says of itself, read by the runtime of its format; raises TargetError without it."""
    _require_file(file)
    what = f"{runtime} cannot read {file}"
    with engine_errors(what):
        describe = partial(load_runtime(runtime).describe_file, file)
        if ENGINES[runtime].may_crash:
            require_survivable(what, file, describe)
        result: FileDescription = describe()
        return result


@contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Turn whatever an engine raises in the body into a BundleError of one line that begins with `what`.

    Engines have no common class of errors, and a damaged file finds new ones.
    """
    try:
        yield
    except (KindError, OSError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, MemoryError) and not str(error):
            raise  # Python's own says nothing: the machine is full; an engine's is of a size that the file asks for
        reason = clean_reason(error) or type(error).__name__
        raise BundleError(f"{what}: {reason}", "export the bundle again") from error


def clean_reason(error: Exception) -> str:
    """What an engine says, in one line, without its own name, codes, the file once more and places in its source."""
    return _NOISE.sub("", " ".join(str(error).split()))[:_MAX_REASON]


def _require_file(file: Path) -> None:
    """Raise BundleError where a program is neither a folder nor a file with an end: engines wait for ever."""
    if file.exists() and not file.is_dir() and not file.is_file():
        raise BundleError(f"{file} is no regular file", "copy or export the bundle again")


def check_outputs(outputs: Mapping[str, np.ndarray], spec: ProgramSpec) -> None:
    """Raise BundleError where a program gives another shape or type than the manifest says."""
    for s in spec.outputs:
        array = outputs[s.name]
        if array.shape != s.shape or array.dtype != s.dtype:
            raise BundleError(
                f"{spec.name} gives {s.name} as {array.dtype} {list(array.shape)}, the manifest says {s.dtype} "
                f"{list(s.shape)}",
                "export the bundle again",
            )


def check_inputs(inputs: Mapping[str, np.ndarray], spec: ProgramSpec) -> list[np.ndarray]:
    """The inputs in the program's order; raises ValueError where a name, shape or dtype differs from the manifest."""
    if set(inputs) != {s.name for s in spec.inputs}:
        raise ValueError(f"{spec.name} takes {[s.name for s in spec.inputs]}, was given {sorted(inputs)}")
    for s in spec.inputs:
        array = inputs[s.name]
        if array.shape != s.shape or array.dtype != s.dtype:
            raise ValueError(f"{spec.name} takes {s.name} {s.dtype} {s.shape}, was given {array.dtype} {array.shape}")
    return [inputs[s.name] for s in spec.inputs]


def _open_unrounded(opener: Callable[[], Program]) -> Program:
    program = opener()
    assert can_unround(program)
    return program.without_rounding()
