"""What runs programs: one row an engine, with all that others need to know of it. Nothing heavy is imported.

An engine has the name of the target whose programs it runs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """`module` opens its programs and needs `package`; `counter` counts the work in a file, where that can be counted.

    `title`: its programs' format in words; `file_kind`: a file of it, as `kind-run inspect` says. `is_code`: what a
    bundle holds for it is code, which runs only where it was asked for by name. `platform`: `sys.platform` of the only
    system where the engine itself runs, elsewhere an evaluator stands in, which is never timed. `vendor`: of the only
    devices. `picks_unit`: it chooses unit and threads itself, by rules and not by the file. `has_delegates`: a file
    says what runs in a backend, which was fixed at export. `may_fall_back`: a provider that is not there is left out.
    `extra`: of this package, which has what the engine needs. `rule_for`: what the counter judges nodes for by rule.
    `is_traced`: it tells in Python how long its operators take. `may_crash`: it ends the process at some broken files,
    so that what it opens is tried in a copy of it first.
    """

    name: str
    title: str
    module: str
    package: str
    suffix: str = ""
    file_kind: str = ""
    counter: str | None = None
    is_code: bool = False
    platform: str | None = None
    vendor: str | None = None
    picks_unit: bool = False
    has_delegates: bool = False
    may_fall_back: bool = False
    extra: str | None = None
    rule_for: str | None = None
    is_traced: bool = True
    may_crash: bool = False

    @property
    def installed_by(self) -> str:
        """What gives the engine its package, for a hint."""
        return f"pip install 'kind-diffusion[{self.extra}]'" if self.extra else f"pip install {self.package}"

    @property
    def is_timed_here(self) -> bool:
        """Whether the engine itself, and no evaluator, would run here."""
        return self.platform in (None, sys.platform)


def _table(*rows: Engine) -> dict[str, Engine]:
    return {row.name: row for row in rows}


ENGINES = _table(
    Engine(
        name="onnx",
        title="ONNX",
        module="kind_runtimes.engines.onnx",
        package="onnxruntime",
        suffix=".onnx",
        file_kind="ONNX program",
        counter="kind_bench.counting.onnx_graph",
        may_fall_back=True,
    ),
    Engine(
        name="executorch",
        title="ExecuTorch",
        module="kind_runtimes.engines.executorch",
        package="executorch",
        suffix=".pte",
        file_kind="ExecuTorch program",
        counter="kind_bench.counting.executorch_program",
        has_delegates=True,
        may_crash=True,
    ),
    Engine(
        name="coreml",
        title="Core ML",
        module="kind_runtimes.engines.coreml",
        package="coremltools",
        suffix=".mlpackage",
        file_kind="Core ML package",
        counter="kind_bench.counting.mil_program",
        platform="darwin",
        vendor="apple",
        picks_unit=True,
    ),
    Engine(
        name="litert",
        title="LiteRT",
        module="kind_runtimes.engines.litert",
        package="ai_edge_litert",
        suffix=".tflite",
        file_kind="LiteRT program",
        counter="kind_bench.counting.litert_program",
        extra="litert",
        rule_for="LiteRT's GPU delegate",
        is_traced=False,
    ),
    Engine(
        name="diffusers",
        title="diffusers",
        module="kind_runtimes.engines.diffusers",
        package="diffusers",
        is_code=True,
    ),
)


def holds_code(name: str | None) -> bool:
    """Whether what a bundle holds for the engine called `name` is code."""
    return name in ENGINES and ENGINES[name].is_code


def by_preference() -> list[Engine]:
    """Those that run no code: an engine of this system alone first, one of another system, an evaluator here, last."""
    rank = {sys.platform: 0, None: 1}
    return sorted((one for one in ENGINES.values() if not one.is_code), key=lambda one: rank.get(one.platform, 2))
