"""A run of `kind-bench run`: every case in fresh processes, round by round, so that a busy spell hits all of them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Literal, TypedDict

from kind_bench.measure.gathering import Gathering, Message, has_decode
from kind_bench.measure.machine import describe_machine
from kind_bench.measure.processes import name_gathering, run_worker
from kind_bench.measure.timing import Counts
from kind_bench.results.results import RESULTS_VERSION, Results, parse_results
from kind_core.errors import ConfigError, KindError, TargetError
from kind_core.files.hashing import hash_file
from kind_runtimes.bundle import MANIFEST_NAME, Bundle, list_program_files, open_bundle
from kind_runtimes.documents.case import ProfileEntry
from kind_runtimes.documents.results import BundleName
from kind_runtimes.engine_rows import ENGINES, holds_code
from kind_runtimes.engines.runtime import DEFAULT_OPTIONS, MAX_THREADS, EngineOptions, check_runtime, is_installed
from kind_runtimes.manifest import Manifest
from kind_runtimes.progress import OnProgress, Progress

_NO_CORE_ML = (
    "Core ML runs on Apple's systems only; its stand-in here checks results and says nothing about speed",
    "run kind-bench on a Mac, or take in what the app measured on a phone with kind-bench import",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchRequest:
    """What to measure. Every runtime is combined with every number of threads and every provider; none: its own.

    `repeat` samples of a step in all, spread over `rounds` processes; `images` whole pictures in each of them.
    `sustain_s`: seconds of steps without a pause, in the last process of a case, before its step is sampled once more.
    """

    bundle: Path
    runtimes: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    providers: tuple[str, ...] = ()
    warmup: int = 3
    repeat: int = 20
    rounds: int = 3
    images: int = 1
    sustain_s: float = 0.0
    cold: bool = False
    profile: bool = False

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("warmup", self.warmup, 0, 100_000),
            ("repeat", self.repeat, 1, 1_000_000),
            ("rounds", self.rounds, 1, 1000),
            ("images", self.images, 0, 100_000),
            ("sustain", self.sustain_s, 0, 86_400),
            *(("threads", count, 1, MAX_THREADS) for count in self.threads),
        ):
            if not least <= value <= most:  # also of NaN
                raise ConfigError(f"{name} is {value}, expected {least} to {most}")
        for runtime in self.runtimes:
            check_runtime(runtime)

    def counts_of(self, round_index: int) -> Counts:
        """What one process of a case measures."""
        repeat = self.repeat // self.num_rounds + (round_index < self.repeat % self.num_rounds)
        sustain_s = self.sustain_s if round_index == self.num_rounds - 1 else 0.0
        return Counts(warmup=self.warmup, repeat=repeat, images=self.images, sustain_s=sustain_s)

    @property
    def num_rounds(self) -> int:
        """No more than there are samples."""
        return min(self.rounds, self.repeat)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The results, marked partial where `error` or an interruption cut them short; `notes` say what was left out."""

    results: Results
    interrupted: bool
    error: KindError | None
    notes: tuple[str, ...]


class Described(TypedDict):
    """What a results file says before anything is measured."""

    format_version: Literal[1]
    kind: Literal["measured"]
    made_by: str
    bundle: BundleName


def measure_bundle(request: BenchRequest, on_progress: OnProgress = lambda progress: None) -> Measured:
    """Measure; what was measured before an error or Ctrl-C is kept. Raises a KindError when nothing can begin."""
    bundle = open_bundle(request.bundle)
    runtimes, notes = _choose_runtimes(request, bundle.manifest)
    if request.profile:
        untraced = [name for name in runtimes if not ENGINES[name].is_traced]
        notes += tuple(f"{name} has no profile: its runtime does not tell times of operators" for name in untraced)
    described = describe_document(bundle, runtimes)
    counts, sha256 = request.counts_of(request.num_rounds - 1), described["bundle"]["manifest_sha256"]
    cases = [
        Gathering(runtime=runtime, options=options, counts=counts, manifest_sha256=sha256)
        for runtime in runtimes
        for options in _list_options(request, runtime)
    ]
    began = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    machine = describe_machine()
    interrupted, error = False, None
    try:
        _measure_rounds(request, bundle.manifest, cases, on_progress)
    except KeyboardInterrupt:
        interrupted = True
    except KindError as failure:
        error = failure
    document = {
        **described,
        "partial": interrupted or error is not None,
        "created": began,
        "machine": machine,
        "cases": [case for gathering in cases if (case := gathering.to_case(bundle.manifest))],
    }
    results = parse_results(document, "the results")
    return Measured(results=results, interrupted=interrupted, error=error, notes=notes)


def profile_bundle(request: BenchRequest) -> dict[str, ProfileEntry]:
    """The profile of a step in each runtime of `request` that runs here, without measuring."""
    runtimes, _ = _choose_runtimes(request, open_bundle(request.bundle).manifest)
    profiles = {}
    for runtime in (name for name in runtimes if ENGINES[name].is_traced):
        case = Gathering(runtime=runtime, options=DEFAULT_OPTIONS, counts=request.counts_of(0))
        _profile(request, case)
        assert case.profile is not None
        profiles[runtime] = case.profile
    return profiles


def describe_document(bundle: Bundle, runtimes: list[str]) -> Described:
    """The fields of a results file that name its program and the bundle."""
    files = {file for runtime in runtimes for file in list_program_files(bundle.manifest, runtime)}
    return {
        "format_version": RESULTS_VERSION,
        "kind": "measured",
        "made_by": f"kind-bench {version('kind-diffusion')}",
        "bundle": {
            "name": bundle.manifest.data["name"],
            "manifest_sha256": hash_file(bundle.path / MANIFEST_NAME),
            "files": {name: bundle.manifest.files[name] for name in sorted(files)},
        },
    }


def _choose_runtimes(request: BenchRequest, manifest: Manifest) -> tuple[list[str], tuple[str, ...]]:
    """The runtimes asked for, or all that run here, and what is said of the others."""
    if request.runtimes:
        for runtime in request.runtimes:
            manifest.target(runtime)
        if not all(ENGINES[runtime].is_timed_here for runtime in request.runtimes):
            raise TargetError(*_NO_CORE_ML)
        return list(dict.fromkeys(request.runtimes)), ()
    chosen, notes = [], []
    for runtime in manifest.targets:
        if holds_code(runtime):
            notes.append(f"{runtime} is left out: its pipeline.py is code, and runs where --runtime names it")
        elif not ENGINES[runtime].is_timed_here:
            notes.append(f"{runtime} is left out: {_NO_CORE_ML[0]}")
        elif not is_installed(runtime):
            notes.append(f"{runtime} is left out: it is not installed")
        else:
            chosen.append(runtime)
    if not chosen:
        raise TargetError(f"nothing in {request.bundle} can be timed here: {'; '.join(notes)}", _NO_CORE_ML[1])
    return chosen, tuple(notes)


def _list_options(request: BenchRequest, runtime: str) -> list[EngineOptions]:
    engine = ENGINES[runtime]
    if engine.picks_unit and request.threads:
        raise ConfigError(f"{engine.title} chooses its threads itself", "leave --threads out, or add --runtime onnx")
    if engine.has_delegates and request.providers:
        raise ConfigError(
            f"an {engine.title} program has no --provider: its backend was fixed when it was exported",
            "leave it out, or add --runtime onnx",
        )
    providers = [name.removesuffix("ExecutionProvider") for name in request.providers]
    pairs = product(request.threads or (None,), providers or (None,))
    return [EngineOptions(threads=threads, provider=provider) for threads, provider in pairs]


def _measure_rounds(request: BenchRequest, manifest: Manifest, cases: list[Gathering], on_progress: OnProgress) -> None:
    for case in cases:
        if ENGINES[case.runtime].may_fall_back and case.options.provider not in (None, "CPU"):
            _require_provider(request, case, on_progress)
    total = sum(
        _num_samples(request.counts_of(i), manifest, case.runtime) for i in range(request.num_rounds) for case in cases
    )
    for index in range(request.num_rounds):
        for case in cases:
            job = describe_job(request, case, request.counts_of(index))
            with closing(run_worker(case, job)) as messages:
                for message in messages:
                    _take(case, message)
                    done = sum(one.num_samples for one in cases)
                    stage = f"round {index + 1} of {request.num_rounds}: {name_gathering(case)}"
                    on_progress(Progress(stage=stage, done=min(done, total), total=total))
    for case in cases:
        if request.profile and case.profile is None and ENGINES[case.runtime].is_traced:
            on_progress(Progress(stage=f"profiling {name_gathering(case)}", done=total, total=total))
            _profile(request, case)


def _require_provider(request: BenchRequest, case: Gathering, on_progress: OnProgress) -> None:
    """Profile a case before it is measured: onnxruntime gives to the CPU, in silence, what a provider does not take."""
    on_progress(Progress(stage=f"profiling {name_gathering(case)}", done=0, total=1))
    _profile(request, case)
    if case.profile is not None and not case.profile["delegate_share"]:
        raise TargetError(
            f"onnxruntime's provider {case.options.provider} runs no operator of the step, all are left to the CPU",
            "leave --provider out",
        )


def _profile(request: BenchRequest, case: Gathering) -> None:
    with closing(run_worker(case, describe_job(request, case, case.counts) | {"profile": True})) as messages:
        for message in messages:
            _take(case, message)


def _num_samples(counts: Counts, manifest: Manifest, runtime: str) -> int:
    flags = set(manifest.sampling.guided)
    decode = counts.repeat + counts.images if has_decode(manifest, runtime) else 0
    return counts.repeat * (len(flags) + bool(counts.sustain_s)) + decode


def describe_job(request: BenchRequest, case: Gathering, counts: Counts) -> dict[str, object]:
    """What a process is told that measures a case."""
    return {
        "bundle": str(request.bundle),
        "manifest_sha256": case.manifest_sha256,
        "runtime": case.runtime,
        "options": asdict(case.options),
        "counts": asdict(counts),
        "cold": request.cold,
        "profile": False,
        "run_code": any(map(holds_code, request.runtimes)),
    }


def _take(case: Gathering, message: Message) -> None:
    match message:
        case {"opened": opened}:
            case.engine = opened["engine"]
            case.rounds += 1
            case.first_loads_ms.append(opened["first_ms"])
            case.file_caches.add(opened["file_cache"])
            if opened["first_picture_ms"] is not None:
                case.first_pictures_ms.append(opened["first_picture_ms"])
        case {"samples": samples, "part": part}:
            case.add_samples(part, samples)
        case {"finished": finished}:
            case.add_memory(finished["memory"])
            case.second_loads_ms.append(finished["again_ms"])
        case {"profile": profile}:
            case.profile = profile
