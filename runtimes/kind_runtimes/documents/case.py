"""One way of running a bundle, as results tell it."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, Required, TypedDict

from kind_runtimes.documents.parts import Milliseconds, PlainNatural, PlainPositive, Precision, TargetName, Text
from kind_runtimes.documents.schema import Def


class SpreadEntry(TypedDict, total=False):
    """Samples, and what follows from them."""

    samples: Required[Annotated[list[Annotated[float, {"exclusiveMinimum": 0}]], {"minItems": 1}]]
    median: Milliseconds
    q1: Milliseconds
    q3: Milliseconds
    min: Milliseconds
    max: Milliseconds


Spread = Annotated[
    SpreadEntry,
    "Samples in the order of measuring, warm-up left out. The other figures follow from them and are filled in by "
    "import; quartiles interpolate linearly.",
    Def("spread"),
]


Bytes = Annotated[PlainNatural, Def("bytes")]
FileCache = Literal["cold", "warm", "unknown"]


class Load(TypedDict):
    """Opening all programs of a target."""

    first: Milliseconds
    again: NotRequired[Milliseconds]
    file_cache: NotRequired[Annotated[FileCache, "Whether the files were in memory before `first`."]]


class Sustained(TypedDict):
    """The same step on a warm device."""

    after_s: Annotated[float, "Seconds of uninterrupted work before the first sample.", {"minimum": 0}]
    thermal_state: NotRequired[str | None]
    step_ms: Spread


class OpEntry(TypedDict):
    """The operators of one type and backend in one run."""

    op_type: str
    backend: str
    count: Annotated[PlainPositive, "Operators of this type in one run."]
    ms: NotRequired[Annotated[float | None, "All of them together in one run.", {"minimum": 0}]]
    share: NotRequired[
        Annotated[
            float | None,
            "Of the run's time, 0 to 1, by the tool's own estimate where it measures none.",
            {"minimum": 0},
        ]
    ]


class ProfileEntry(TypedDict):
    """Where the time of a step goes."""

    tool: Annotated[str, "ETDump, onnxruntime profiler or MLComputePlan."]
    run_ms: Annotated[float | None, "One traced step; null where the tool estimates shares only.", {"minimum": 0}]
    delegate_share: NotRequired[
        Annotated[float | None, "Part of the time inside accelerated backends, 0 to 1.", {"minimum": 0, "maximum": 1}]
    ]
    ops: Annotated[list[OpEntry], "By operator type and backend, the slowest first."]


class CaseEntry(TypedDict, total=False):
    """One way of running a bundle."""

    runtime: Required[Annotated[TargetName, "The bundle's target that was run."]]
    engine: Required[Annotated[Text, "What really ran it, in words, with its version."]]
    threads: Annotated[int | None, "Threads asked for; null or absent: the runtime's own choice.", {"minimum": 1}]
    provider: Annotated[
        str | None,
        "Hardware asked for: of ONNX an execution provider without its ending (CPU, CoreML, NNAPI, XNNPACK), of "
        "Core ML all, cpu-only, cpu-and-gpu or cpu-and-neural-engine; null or absent: the runtime's default.",
    ]
    precision: Annotated[Precision, "Of the target, as in the manifest."]
    process: Annotated[
        Literal["fresh", "shared"],
        "fresh: nothing else ran in the process before; shared: something did, so load and memory say little.",
    ]
    rounds: Annotated[PlainPositive, "Processes that the samples come from."]
    warmup: Annotated[PlainNatural, "Calls before the first sample, in each process."]
    step_ms: Required[Annotated[Spread, "One call of `step` with guidance on."]]
    step_unguided_ms: Annotated[Spread, "One step without guidance, where the bundle has such steps."]
    decode_ms: Spread
    image_ms: Annotated[Milliseconds, "Medians of all steps and one decode added up."]
    whole_image_ms: Annotated[Spread, "Whole pictures, made in one go with the loop around them."]
    load_ms: Annotated[
        Load,
        "Opening all programs of the target, the runtime's library already loaded. first: in a new process, for "
        "Core ML the first after installing, which compiles for the chip; again: once more in the same process.",
    ]
    peak_memory_bytes: Annotated[
        Bytes,
        "Most resident memory of the process. The program's own share is this less the baseline.",
    ]
    baseline_memory_bytes: Annotated[
        Bytes,
        "Resident memory with the runtime's library loaded, before any program is opened.",
    ]
    memory_measure: Annotated[str, "What the two are: VmHWM (Linux, Android), ru_maxrss, phys_footprint (iOS, macOS)."]
    download_bytes: Annotated[
        Bytes,
        "What an app ships to run the case: the programs' files; filled in by import.",
    ]
    first_picture_ms: Annotated[
        Milliseconds, "From opening the programs to the first picture, in a new process, before anything is warm."
    ]
    sustained: Annotated[Sustained, "The same step on a warm device."]
    profile: Annotated[
        ProfileEntry, "Where the time of a step goes, by the runtime's own trace, which slows the step down a little."
    ]
