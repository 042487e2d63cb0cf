"""One chip of the device table, or a device of a user's own."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, Required, TypedDict

from kind_runtimes.documents.parts import PlainPositive, ProgramTarget, Text
from kind_runtimes.documents.schema import Def, OfValue

_STRICT = {"additionalProperties": False}


class FigureEntry(TypedDict):
    """A number, how sure it is, and who says it."""

    value: Annotated[float, {"exclusiveMinimum": 0}]
    status: Annotated[
        Literal["published", "measured", "derived", "unconfirmed"],
        "published: the maker, a paper or a specification site prints it and none contradicts; measured: by a "
        "third party on the chip; derived: computed from other figures, the formula in the source; unconfirmed: "
        "sources conflict, or one that nobody checked. What is less sure widens a forecast.",
    ]
    source: Annotated[str, "Who says it, or the formula.", {"minLength": 3}]
    low: NotRequired[Annotated[float, "Where sources conflict: the lowest.", {"exclusiveMinimum": 0}]]
    high: NotRequired[Annotated[float, "Where sources conflict: the highest.", {"exclusiveMinimum": 0}]]


Figure = Annotated[FigureEntry, _STRICT, Def("figure")]
Gflops = Annotated[Figure, OfValue({"minimum": 0.1, "maximum": 1_000_000}), Def("gflops")]


class UnitEntry(TypedDict, total=False):
    """A part of the chip that can run a program."""

    name: Required[Text]
    family: Annotated[
        str,
        "Lower case: whose design it is (adreno, mali, powervr); what a unit reaches of its peak is shared by it. "
        "The vendor's, where absent.",
        {"pattern": "^[a-z0-9-]+$"},
    ]
    fp32_gflops: Gflops
    fp16_gflops: Gflops
    int8_gops: Gflops
    rated_tops: Annotated[
        Figure,
        OfValue({"minimum": 0.1, "maximum": 1000}),
        "The maker's headline, taken as int8 with fp16 at half of it.",
    ]
    dispatch_us: Annotated[Figure, OfValue({"maximum": 10_000}), "Cost of starting one operator."]
    call_ms: Annotated[
        Figure,
        OfValue({"maximum": 1000}),
        "Cost of starting one program, or one part of it that is handed to this unit.",
    ]
    cache_mb: Annotated[Figure, OfValue({"maximum": 4096}), "Memory on the chip that keeps activations off the bus."]


Unit = Annotated[UnitEntry, _STRICT, "A part of the chip that can run a program.", Def("unit")]


class Units(TypedDict, total=False):
    """The parts of a chip by name."""

    cpu: Unit
    gpu: Unit
    npu: Unit


class RatesEntry(TypedDict):
    """Rates of one way of running, fitted to measurements."""

    runtime: ProgramTarget
    threads: Annotated[int | None, {"minimum": 1}]
    provider: str | None
    ms_per: Annotated[dict[str, Annotated[float, {"minimum": 0}]], "Milliseconds per GFLOP, megabyte, operator, call."]
    measured: list[str]
    num_measurements: PlainPositive
    median_error: Annotated[
        float | None, "Leaving one measurement out at a time; null where there were too few.", {"minimum": 0}
    ]
    factor: Annotated[float, {"minimum": 1}]
    first_load_ms_per_mb: NotRequired[Annotated[float | None, {"minimum": 0}]]
    sustained_share: NotRequired[Annotated[float | None, {"exclusiveMinimum": 0, "maximum": 1}]]


class CalibrationEntry(TypedDict):
    """What `kind-bench calibrate` writes."""

    format_version: PlainPositive
    bundles: list[str]
    rates: list[Annotated[RatesEntry, _STRICT, Def("rates")]]


class DeviceDocument(TypedDict, total=False):
    """The whole document."""

    format_version: Required[Literal[1]]
    name: Required[Text]
    vendor: Required[
        Annotated[
            str, "Lower case: what efficiency is shared by, where a unit names no family.", {"pattern": "^[a-z0-9-]+$"}
        ]
    ]
    year: Annotated[
        int,
        "When the chip came out: makers' numbers of an NPU say less than its age.",
        {"minimum": 2010, "maximum": 2100},
    ]
    form: Required[Literal["phone", "tablet", "laptop", "board", "computer"]]
    aliases: Annotated[
        list[Annotated[str, {"pattern": "^[a-z0-9][a-z0-9.-]*$"}]],
        "Products and other names, lower case with hyphens.",
        {"uniqueItems": True},
    ]
    notes: list[Text]
    paper_sustained_gflops: Annotated[Gflops, "What the paper's latency floor divides by."]
    memory_bandwidth_gbs: Annotated[Figure, OfValue({"minimum": 0.5, "maximum": 2000})]
    sustained_share: Annotated[
        Figure, OfValue({"minimum": 0.05, "maximum": 1}), "Speed of the warm device as a share of the cold one's."
    ]
    units: Annotated[Units, _STRICT]
    calibration: Annotated[
        CalibrationEntry,
        "Written by kind-bench calibrate: rates by measurements taken on the device, see calibration.py.",
    ]


DEVICE_DESCRIPTION = (
    "A TOML file, or JSON of the same fields. Units are in the names of the fields. Limits are there to catch a slip "
    "of the unit: a phone has neither 1 TB/s nor a thousandth of a GFLOPS."
)
