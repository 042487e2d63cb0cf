"""Samples of one case as they come in, and the entry of a results file that they make."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from kind_bench.measure.timing import Counts, Part
from kind_bench.results.results import Spread, combine_image_ms, round_ms
from kind_runtimes.bundle import count_download
from kind_runtimes.documents.case import CaseEntry, FileCache, Load, ProfileEntry
from kind_runtimes.engines.runtime import EngineOptions
from kind_runtimes.manifest import Manifest

_FIELDS: Mapping[Part, str] = {
    "step": "step_ms",
    "step_unguided": "step_unguided_ms",
    "decode": "decode_ms",
    "whole_image": "whole_image_ms",
}


Message = dict[str, Any]  # what the process that measures and the one that asked tell each other, as JSON


@dataclass(kw_only=True, slots=True)
class Gathering:
    """What is known of one case so far."""

    runtime: str
    options: EngineOptions
    counts: Counts
    manifest_sha256: str = ""  # of the bundle, for processes that open it later
    engine: str = ""
    process: str = "fresh"
    rounds: int = 0
    samples: dict[Part, list[float]] = field(default_factory=dict)
    first_loads_ms: list[float] = field(default_factory=list)
    second_loads_ms: list[float] = field(default_factory=list)
    first_pictures_ms: list[float] = field(default_factory=list)
    file_caches: set[FileCache] = field(default_factory=set)
    memory: Message = field(default_factory=dict)  # as a results file has it, of the process that held the most
    profile: ProfileEntry | None = None

    def add_samples(self, part: Part, samples_ms: Sequence[float]) -> None:
        """Take in what `measure_loop` hands on."""
        self.samples.setdefault(part, []).extend(samples_ms)

    def add_memory(self, memory: Message) -> None:
        """Take in one process's memory, as a results file has it; that with the largest peak is kept."""
        self.memory = max(self.memory, memory, key=lambda one: one.get("peak_memory_bytes", 0))

    @property
    def num_samples(self) -> int:
        return sum(len(samples) for samples in self.samples.values())

    def to_case(self, manifest: Manifest) -> CaseEntry | None:
        """The entry of a results file; None while no step was measured."""
        if "step" not in self.samples:
            return None
        spreads = {part: Spread(samples=tuple(samples)) for part, samples in self.samples.items()}
        sustained = spreads.pop("sustained", None)
        case: dict[str, object] = {
            "runtime": self.runtime,
            "engine": self.engine,
            "threads": self.options.threads,
            "provider": self.options.provider,
            "precision": manifest.target(self.runtime).precision,
            "process": self.process,
            "rounds": self.rounds,
            "warmup": self.counts.warmup,
            **{_FIELDS[part]: spread.to_dict() for part, spread in spreads.items()},
            **self._describe_image(manifest, spreads),
            **self._describe_load(),
            "download_bytes": count_download(manifest, self.runtime),
            **self.memory,
        }
        if sustained is not None:
            case["sustained"] = {"after_s": self.counts.sustain_s, "step_ms": sustained.to_dict()}
        return cast(CaseEntry, case | ({"profile": self.profile} if self.profile is not None else {}))

    def _describe_image(self, manifest: Manifest, spreads: Mapping[Part, Spread]) -> dict[str, float]:
        step, unguided, decode = spreads["step"], spreads.get("step_unguided"), spreads.get("decode")
        is_drawn = has_decode(manifest, self.runtime)
        image_ms = combine_image_ms(step, unguided, decode, manifest.sampling.guided, has_decode=is_drawn)
        return {} if image_ms is None else {"image_ms": image_ms}  # interrupted before

    def _describe_load(self) -> dict[str, object]:
        if not self.first_loads_ms:
            return {}
        load: Load = {"first": round_ms(statistics.median(self.first_loads_ms))}
        if self.second_loads_ms:
            load["again"] = round_ms(statistics.median(self.second_loads_ms))
        if self.file_caches:
            (*others, cache) = self.file_caches
            load["file_cache"] = "unknown" if others else cache
        if not self.first_pictures_ms:
            return {"load_ms": load}
        return {"load_ms": load, "first_picture_ms": round_ms(statistics.median(self.first_pictures_ms))}


def has_decode(manifest: Manifest, runtime: str) -> bool:
    """Whether the bundle makes pictures in this runtime, not latents alone."""
    return "decode" in manifest.target(runtime).programs
