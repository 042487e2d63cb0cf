"""Measured results of a bundle on one machine: what `kind-bench run` and the apps on phones write."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from kind_runtimes.documents.case import CaseEntry
from kind_runtimes.documents.parts import PlainNatural, Sha256, Text
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
