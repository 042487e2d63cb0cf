"""What a program does, counted from its file: operators, FLOPs, bytes, memory and backends, of every format.

The formats hold the same products, so their FLOPs agree with each other and with the count of the model that
they were made of. What differs:

- int4 programs of ExecuTorch hold ranks filled up to whole groups of 32, and compute with them.
- A LayerNorm for XNNPACK is written with products with a constant vector. They are of class `norm`, so no FLOPs of
  `full`; `paper` counts one an element that is normalised, here only the tokens.
- coremltools gives every linear layer a bias, of zeros where it had none: one an element of `paper`, none of `full`.
- LiteRT looks rows up by products with one-hot rows. They are of class `lookup`, so no FLOPs of `full`, but read the
  whole table. Its LayerNorm has one such product with a constant vector, and divides by the largest number first.
- ONNX graphs add a bias by an operator after the product; it counts as the product's own.
- ONNX joins what onnxruntime has an operator for: the scores of attention are never a tensor, as they are elsewhere.
- onnxruntime makes what depends on constants alone when it loads a file: wide copies of halved constants are no
  operators, and their bytes are those stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from kind_bench.counting.work import ProgramWork
from kind_core.errors import TargetError
from kind_core.samplers import Sampling
from kind_runtimes.bundle import Bundle
from kind_runtimes.engine_rows import ENGINES, holds_code
from kind_runtimes.engines.runtime import engine_errors
from kind_runtimes.manifest import ProgramSpec, TargetSpec


def count_program(file: Path, spec: ProgramSpec, target: str) -> ProgramWork:
    """Count one program of `target`. Where each class has a function of its own, the first: they are alike.

    An ONNX step that picks a branch is counted guided; see `count_bundle` for the other.
    """
    return _count(_load_walker(target), file, spec)


def count_bundle(bundle: Bundle) -> dict[str, dict[str, ProgramWork]]:
    """Every program of a bundle by target and name; `step_unguided` too where an ONNX step has it inside.

    A diffusers folder is not among them.
    """
    return count_targets(bundle.path, bundle.manifest.targets, bundle.manifest.sampling)


def count_targets(
    folder: Path, targets: Mapping[str, TargetSpec], sampling: Sampling
) -> dict[str, dict[str, ProgramWork]]:
    """The same of programs that lie in a folder."""
    works: dict[str, dict[str, ProgramWork]] = {}
    for target, entry in targets.items():
        if holds_code(target):
            continue  # a folder of weights and code has no operators in a file
        walker = _load_walker(target)
        works[target] = {name: _count(walker, folder / p.file, p) for name, p in entry.programs.items()}
        if sampling.guided_steps is not None and "step_unguided" not in works[target]:
            step = entry.programs["step"]
            works[target]["step_unguided"] = _count(walker, folder / step.file, step, is_guided=False)
    return works


def _count(walker: Any, file: Path, spec: ProgramSpec, **options: bool) -> ProgramWork:
    with engine_errors(f"{file} cannot be counted"):  # a damaged file may be wrong in any way
        work: ProgramWork = walker.count(file, spec, **options)
        return work


def _load_walker(target: str) -> Any:
    counters = {name: one.counter for name, one in ENGINES.items() if one.counter is not None}
    if target not in counters:
        raise TargetError(f"unknown target {target!r}, expected one of {', '.join(counters)}", "check the bundle")
    try:
        return import_module(counters[target])
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("kind_"):
            raise
        raise TargetError(
            f"counting {target} programs needs the package {error.name}, which is not installed",
            ENGINES[target].installed_by,
        ) from error
