"""Where the time of an ExecuTorch program goes, by its own event tracer: inside delegates or in portable kernels."""

from __future__ import annotations

import statistics
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kind_runtimes.engines.executorch import DEFAULT_METHOD, hushed_cpuinfo
from kind_runtimes.engines.runtime import check_inputs
from kind_runtimes.manifest import ProgramSpec
from kind_runtimes.quiet import without_import_noise

_RUNS = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class DelegationProfile:
    """Medians over a few runs on this host. `portable_ms`: milliseconds of each kernel outside the delegates."""

    run_ms: float
    delegate_share: float
    portable_ms: Mapping[str, float]


def profile_delegation(
    file: Path, spec: ProgramSpec, inputs: Mapping[str, np.ndarray], function: str | None = None
) -> DelegationProfile:
    """Run a method of a .pte file, `forward` unless given, under the event tracer."""
    return _summarise([event for event in trace_method(file, spec, inputs, function) if not event.is_delegated_op])


def trace_method(
    file: Path, spec: ProgramSpec, inputs: Mapping[str, np.ndarray], function: str | None = None
) -> list[Any]:
    """The timed events of a few runs, as executorch's Inspector gives them: `perf_data.raw` has one time each run."""
    with without_import_noise():
        from executorch.devtools import Inspector
        from executorch.extension.pybindings import portable_lib

    tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in check_inputs(inputs, spec)]
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.etdump"
        with hushed_cpuinfo():
            module = portable_lib._load_for_executorch(str(file), enable_etdump=True)
            for _ in range(_RUNS):
                module.run_method(function or DEFAULT_METHOD, tensors)
        module.write_etdump_result_to_file(str(trace))
        with warnings.catch_warnings():
            # tensors were not asked for, only times
            warnings.filterwarnings("ignore", "Output Buffer not found", UserWarning)
            events = [e for block in Inspector(etdump_path=str(trace)).event_blocks for e in block.events]
    return [event for event in events if event.perf_data is not None]


def _summarise(events: list[Any]) -> DelegationProfile:
    # the first run loads caches; what happens once, such as loading the method, is not a run
    medians = [(e.name, statistics.median(e.perf_data.raw[1:])) for e in events if len(e.perf_data.raw) > 1]
    run_ms = sum(ms for name, ms in medians if name == "Method::execute")
    delegate_ms = sum(ms for name, ms in medians if name == "DELEGATE_CALL")
    portable: dict[str, float] = {}
    for name, ms in medians:
        if name.startswith("native_call_"):
            op = name.removeprefix("native_call_").partition(".")[0]
            portable[op] = round(portable.get(op, 0.0) + ms, 4)
    return DelegationProfile(run_ms=run_ms, delegate_share=delegate_ms / run_ms, portable_ms=portable)
