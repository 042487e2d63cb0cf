"""Measured results of a bundle on one machine: what `kind-bench run` and the apps on phones write."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, Required, TypedDict

from kind_runtimes.documents.case import CaseEntry
from kind_runtimes.documents.parts import PlainNatural, Sha256, Text
from kind_runtimes.documents.schema import Def

_MODEL = "Product name, such as `Galaxy S24`."


class BundleName(TypedDict):
    """Which bundle was measured."""

    name: Annotated[Text, "`name` of manifest.json."]
    manifest_sha256: Annotated[
        Sha256,
        "sha256 of the bytes of manifest.json, lower-case hex. The manifest holds the hashes of all programs, so "
        "it names the model exactly.",
    ]
    files: NotRequired[
        Annotated[
            dict[str, Sha256],
            "sha256 of the files of the measured programs, by their path in the bundle, as in the manifest. "
            "Optional for an app.",
        ]
    ]


class Machine(TypedDict, total=False):
    """Where it was measured."""

    system: Required[Annotated[Text, "Operating system and version, such as `iOS 18.3` or `Android 15`."]]
    processor: Required[
        Annotated[
            Text,
            "Chip as the system names it: `iPhone17,3` (hw.machine), ro.soc.model, or the model name of /proc/cpuinfo.",
        ]
    ]
    model: Annotated[str, _MODEL]
    device: Annotated[str, "Name of the chip or product in the device table, where it is known: `a18`."]
    num_cpus: Annotated[int | None, {"minimum": 1}]
    memory_bytes: Annotated[int | None, {"minimum": 1}]
    governor: Annotated[str | None, "Frequency governor of the processor."]
    load_before: Annotated[float | None, "Load average over one minute before measuring began.", {"minimum": 0}]
    thermal_state: Annotated[str | None, "As the system says it, before measuring: nominal, fair, serious, critical."]
    low_power_mode: bool | None
    versions: Annotated[dict[str, str], "Versions of runtimes and tools by name."]


class UnitEntry(TypedDict, total=False):
    """A compute unit of a device, and how close what it draws comes to the eager model."""

    name: Required[Annotated[Text, "As `provider` of its cases."]]
    kind: Required[Literal["npu", "gpu", "cpu"]]
    runtime: Required[Annotated[Text, "The bundle's target that was run."]]
    is_taken: Required[Annotated[bool, "Whether it draws what the eager model does."]]
    steps: Annotated[PlainNatural, "Steps that were held; 0 where it never came to one."]
    psnr_db: Annotated[
        float | None, "Agreement of the latents with the eager model's, the worst step; -200 where they are no numbers."
    ]
    step_ms: Annotated[float | None, "Median of the held steps.", {"minimum": 0}]
    first_load_ms: Annotated[float | None, "Opening all programs on it for the first time.", {"minimum": 0}]
    peak_memory_bytes: Annotated[int | None, "The most memory of the process up to then.", {"minimum": 0}]
    reason: Annotated[str | None, "Why it was refused or, of one that is taken, why it was not held."]


class ResultsDocument(TypedDict):
    """The whole document."""

    format_version: Literal[1]
    kind: Annotated[Literal["measured"], "Never anything else: a forecast is another kind of file."]
    partial: NotRequired[
        Annotated[
            bool,
            "True where measuring was interrupted: what is there is right, something is missing.",
            {"default": False},
        ]
    ]
    made_by: Annotated[Text, "Program and version that measured, such as `kind-bench 0.1.0`."]
    created: NotRequired[Annotated[str, "When measuring began, ISO 8601 with its zone, such as 2026-03-01T12:00:00Z."]]
    bundle: BundleName
    machine: Machine
    units: NotRequired[
        Annotated[
            list[Annotated[UnitEntry, Def("unit")]],
            "The compute units of the device, each held against the bundle's golden trajectory before it was "
            "timed. Optional.",
        ]
    ]
    cases: Annotated[
        list[Annotated[CaseEntry, Def("case")]],
        "One way of running the bundle each; empty where nothing could be measured.",
    ]


RESULTS_DESCRIPTION = (
    "Written by kind-bench run and by apps on a phone. An app needs no more than: format_version, kind, made_by, "
    "bundle {name, manifest_sha256}, machine {system, processor}, and in each case runtime, engine and step_ms "
    "{samples}. `kind-bench import` checks the file against the bundle and fills in what follows from these: the "
    "quartiles of the samples, the precision, image_ms, the hashes of the programs. Numbers are milliseconds and "
    "bytes. Unknown fields are kept and ignored."
)
