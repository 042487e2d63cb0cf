"""Measured results of a bundle on one machine: what `kind-bench run` and the apps on phones write."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from kind_runtimes.documents.parts import (
    Milliseconds,
    PlainNatural,
    PlainPositive,
    Precision,
    Sha256,
    TargetName,
    Text,
)
from kind_runtimes.documents.schema import Def

_MODEL = "Product name, such as `Galaxy S24`."


class BundleName(TypedDict):
    """Which bundle was measured."""

    name: Annotated[Text, {"description": "`name` of manifest.json."}]
    manifest_sha256: Annotated[
        Sha256,
        {
            "description": "sha256 of the bytes of manifest.json, lower-case hex. The manifest holds the hashes of all "
            "programs, so it names the model exactly."
        },
    ]
    files: NotRequired[
        Annotated[
            dict[str, Sha256],
            {
                "description": "sha256 of the files of the measured programs, by their path in the bundle, as in the "
                "manifest. Optional for an app."
            },
        ]
    ]


class Machine(TypedDict):
    """Where it was measured."""

    system: Annotated[Text, {"description": "Operating system and version, such as `iOS 18.3` or `Android 15`."}]
    processor: Annotated[
        Text,
        {
            "description": "Chip as the system names it: `iPhone17,3` (hw.machine), ro.soc.model, or the model name of "
            "/proc/cpuinfo."
        },
    ]
    model: NotRequired[Annotated[str, {"description": _MODEL}]]
    device: NotRequired[
        Annotated[str, {"description": "Name of the chip or product in the device table, where it is known: `a18`."}]
    ]
    num_cpus: NotRequired[Annotated[int | None, {"minimum": 1}]]
    memory_bytes: NotRequired[Annotated[int | None, {"minimum": 1}]]
    governor: NotRequired[Annotated[str | None, {"description": "Frequency governor of the processor."}]]
    load_before: NotRequired[
        Annotated[float | None, {"description": "Load average over one minute before measuring began.", "minimum": 0}]
    ]
    thermal_state: NotRequired[
        Annotated[
            str | None,
            {"description": "As the system says it, before measuring: nominal, fair, serious, critical."},
        ]
    ]
    low_power_mode: NotRequired[bool | None]
    versions: NotRequired[Annotated[dict[str, str], {"description": "Versions of runtimes and tools by name."}]]


class SpreadEntry(TypedDict):
    """Samples, and what follows from them."""

    samples: Annotated[list[Annotated[float, {"exclusiveMinimum": 0}]], {"minItems": 1}]
    median: NotRequired[Milliseconds]
    q1: NotRequired[Milliseconds]
    q3: NotRequired[Milliseconds]
    min: NotRequired[Milliseconds]
    max: NotRequired[Milliseconds]


Spread = Annotated[
    SpreadEntry,
    {
        "description": "Samples in the order of measuring, warm-up left out. The other figures follow from them and "
        "are filled in by import; quartiles interpolate linearly."
    },
    Def("spread"),
]


class Load(TypedDict):
    """Opening all programs of a target."""

    first: Milliseconds
    again: NotRequired[Milliseconds]
    file_cache: NotRequired[
        Annotated[
            Literal["cold", "warm", "unknown"],
            {"description": "Whether the files were in memory before `first`."},
        ]
    ]


class Sustained(TypedDict):
    """The same step on a warm device."""

    after_s: Annotated[float, {"description": "Seconds of uninterrupted work before the first sample.", "minimum": 0}]
    thermal_state: NotRequired[str | None]
    step_ms: Spread


class OpEntry(TypedDict):
    """The operators of one type and backend in one run."""

    op_type: str
    backend: str
    count: Annotated[PlainPositive, {"description": "Operators of this type in one run."}]
    ms: NotRequired[Annotated[float | None, {"description": "All of them together in one run.", "minimum": 0}]]
    share: NotRequired[
        Annotated[
            float | None,
            {
                "description": "Of the run's time, 0 to 1, by the tool's own estimate where it measures none.",
                "minimum": 0,
            },
        ]
    ]


class ProfileEntry(TypedDict):
    """Where the time of a step goes."""

    tool: Annotated[str, {"description": "ETDump, onnxruntime profiler or MLComputePlan."}]
    run_ms: Annotated[
        float | None,
        {"description": "One traced step; null where the tool estimates shares only.", "minimum": 0},
    ]
    delegate_share: NotRequired[
        Annotated[
            float | None,
            {
                "description": "Part of the time inside accelerated backends, 0 to 1.",
                "minimum": 0,
                "maximum": 1,
            },
        ]
    ]
    ops: Annotated[list[OpEntry], {"description": "By operator type and backend, the slowest first."}]


class CaseEntry(TypedDict):
    """One way of running a bundle."""

    runtime: Annotated[TargetName, {"description": "The bundle's target that was run."}]
    engine: Annotated[Text, {"description": "What really ran it, in words, with its version."}]
    threads: NotRequired[
        Annotated[
            int | None,
            {
                "description": "Threads asked for; null or absent: the runtime's own choice.",
                "minimum": 1,
            },
        ]
    ]
    provider: NotRequired[
        Annotated[
            str | None,
            {
                "description": "Hardware asked for: of ONNX an execution provider without its ending (CPU, CoreML, "
                "NNAPI, XNNPACK), of Core ML all, cpu-only, cpu-and-gpu or cpu-and-neural-engine; null or absent: the "
                "runtime's default."
            },
        ]
    ]
    precision: NotRequired[Annotated[Precision, {"description": "Of the target, as in the manifest."}]]
    process: NotRequired[
        Annotated[
            Literal["fresh", "shared"],
            {
                "description": "fresh: nothing else ran in the process before; shared: something did, so load and "
                "memory say little."
            },
        ]
    ]
    rounds: NotRequired[Annotated[PlainPositive, {"description": "Processes that the samples come from."}]]
    warmup: NotRequired[Annotated[PlainNatural, {"description": "Calls before the first sample, in each process."}]]
    step_ms: Annotated[Spread, {"description": "One call of `step` with guidance on."}]
    step_unguided_ms: NotRequired[
        Annotated[Spread, {"description": "One step without guidance, where the bundle has such steps."}]
    ]
    decode_ms: NotRequired[Spread]
    image_ms: NotRequired[Annotated[Milliseconds, {"description": "Medians of all steps and one decode added up."}]]
    whole_image_ms: NotRequired[
        Annotated[Spread, {"description": "Whole pictures, made in one go with the loop around them."}]
    ]
    load_ms: NotRequired[
        Annotated[
            Load,
            {
                "description": "Opening all programs of the target, the runtime's library already loaded. first: in a "
                "new process, for Core ML the first after installing, which compiles for the chip; again: once more in "
                "the same process."
            },
        ]
    ]
    peak_memory_bytes: NotRequired[
        Annotated[
            Annotated[PlainNatural, Def("bytes")],
            {"description": "Most resident memory of the process. The program's own share is this less the baseline."},
        ]
    ]
    baseline_memory_bytes: NotRequired[
        Annotated[
            Annotated[PlainNatural, Def("bytes")],
            {"description": "Resident memory with the runtime's library loaded, before any program is opened."},
        ]
    ]
    memory_measure: NotRequired[
        Annotated[
            str,
            {"description": "What the two are: VmHWM (Linux, Android), ru_maxrss, phys_footprint (iOS, macOS)."},
        ]
    ]
    download_bytes: NotRequired[
        Annotated[
            Annotated[PlainNatural, Def("bytes")],
            {"description": "What an app ships to run the case: the programs' files; filled in by import."},
        ]
    ]
    first_picture_ms: NotRequired[
        Annotated[
            Milliseconds,
            {
                "description": "From opening the programs to the first picture, in a new process, before anything is "
                "warm."
            },
        ]
    ]
    sustained: NotRequired[Annotated[Sustained, {"description": "The same step on a warm device."}]]
    profile: NotRequired[
        Annotated[
            ProfileEntry,
            {
                "description": "Where the time of a step goes, by the runtime's own trace, which slows the step down a "
                "little."
            },
        ]
    ]


class UnitEntry(TypedDict):
    """A compute unit of a device, and how close what it draws comes to the eager model."""

    name: Annotated[Text, {"description": "As `provider` of its cases."}]
    kind: Literal["npu", "gpu", "cpu"]
    runtime: Annotated[Text, {"description": "The bundle's target that was run."}]
    is_taken: Annotated[bool, {"description": "Whether it draws what the eager model does."}]
    steps: NotRequired[Annotated[PlainNatural, {"description": "Steps that were held; 0 where it never came to one."}]]
    psnr_db: NotRequired[
        Annotated[
            float | None,
            {
                "description": "Agreement of the latents with the eager model's, the worst step; -200 where they are "
                "no numbers."
            },
        ]
    ]
    step_ms: NotRequired[Annotated[float | None, {"description": "Median of the held steps.", "minimum": 0}]]
    first_load_ms: NotRequired[
        Annotated[float | None, {"description": "Opening all programs on it for the first time.", "minimum": 0}]
    ]
    peak_memory_bytes: NotRequired[
        Annotated[int | None, {"description": "The most memory of the process up to then.", "minimum": 0}]
    ]
    reason: NotRequired[
        Annotated[str | None, {"description": "Why it was refused or, of one that is taken, why it was not held."}]
    ]


class ResultsDocument(TypedDict):
    """The whole document."""

    format_version: Literal[1]
    kind: Annotated[Literal["measured"], {"description": "Never anything else: a forecast is another kind of file."}]
    partial: NotRequired[
        Annotated[
            bool,
            {
                "description": "True where measuring was interrupted: what is there is right, something is missing.",
                "default": False,
            },
        ]
    ]
    made_by: Annotated[Text, {"description": "Program and version that measured, such as `kind-bench 0.1.0`."}]
    created: NotRequired[
        Annotated[
            str,
            {"description": "When measuring began, ISO 8601 with its zone, such as 2026-03-01T12:00:00Z."},
        ]
    ]
    bundle: BundleName
    machine: Machine
    units: NotRequired[
        Annotated[
            list[Annotated[UnitEntry, Def("unit")]],
            {
                "description": "The compute units of the device, each held against the bundle's golden trajectory "
                "before it was timed. Optional."
            },
        ]
    ]
    cases: Annotated[
        list[Annotated[CaseEntry, Def("case")]],
        {"description": "One way of running the bundle each; empty where nothing could be measured."},
    ]


RESULTS_DESCRIPTION = (
    "Written by kind-bench run and by apps on a phone. An app needs no more than: format_version, kind, made_by, "
    "bundle {name, manifest_sha256}, machine {system, processor}, and in each case runtime, engine and step_ms "
    "{samples}. `kind-bench import` checks the file against the bundle and fills in what follows from these: the "
    "quartiles of the samples, the precision, image_ms, the hashes of the programs. Numbers are milliseconds and "
    "bytes. Unknown fields are kept and ignored."
)
