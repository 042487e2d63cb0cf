"""One chip of the device table, or a device of a user's own."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from kind_runtimes.documents.parts import PlainPositive, ProgramTarget, Text
from kind_runtimes.documents.schema import Also, Def

_STRICT = {"additionalProperties": False}


class FigureEntry(TypedDict):
    """A number, how sure it is, and who says it."""

    value: Annotated[float, {"exclusiveMinimum": 0}]
    status: Annotated[
        Literal["published", "measured", "derived", "unconfirmed"],
        {
            "description": "published: the maker, a paper or a specification site prints it and none contradicts; "
            "measured: by a third party on the chip; derived: computed from other figures, the formula in the source; "
            "unconfirmed: sources conflict, or one that nobody checked. What is less sure widens a forecast."
        },
    ]
    source: Annotated[str, {"description": "Who says it, or the formula.", "minLength": 3}]
    low: NotRequired[Annotated[float, {"description": "Where sources conflict: the lowest.", "exclusiveMinimum": 0}]]
    high: NotRequired[Annotated[float, {"description": "Where sources conflict: the highest.", "exclusiveMinimum": 0}]]


Figure = Annotated[FigureEntry, _STRICT, Def("figure")]
Gflops = Annotated[Figure, Also({"properties": {"value": {"minimum": 0.1, "maximum": 1_000_000}}}), Def("gflops")]


class UnitEntry(TypedDict):
    """A part of the chip that can run a program."""

    name: Text
    family: NotRequired[
        Annotated[
            str,
            {
                "description": "Lower case: whose design it is (adreno, mali, powervr); what a unit reaches of its "
                "peak is shared by it. The vendor's, where absent.",
                "pattern": "^[a-z0-9-]+$",
            },
        ]
    ]
    fp32_gflops: NotRequired[Gflops]
    fp16_gflops: NotRequired[Gflops]
    int8_gops: NotRequired[Gflops]
    rated_tops: NotRequired[
        Annotated[
            Figure,
            Also({"properties": {"value": {"minimum": 0.1, "maximum": 1000}}}),
            {"description": "The maker's headline, taken as int8 with fp16 at half of it."},
        ]
    ]
    dispatch_us: NotRequired[
        Annotated[
            Figure,
            Also({"properties": {"value": {"maximum": 10_000}}}),
            {"description": "Cost of starting one operator."},
        ]
    ]
    call_ms: NotRequired[
        Annotated[
            Figure,
            Also({"properties": {"value": {"maximum": 1000}}}),
            {"description": "Cost of starting one program, or one part of it that is handed to this unit."},
        ]
    ]
    cache_mb: NotRequired[
        Annotated[
            Figure,
            Also({"properties": {"value": {"maximum": 4096}}}),
            {"description": "Memory on the chip that keeps activations off the bus."},
        ]
    ]


Unit = Annotated[UnitEntry, _STRICT, {"description": "A part of the chip that can run a program."}, Def("unit")]


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
    ms_per: Annotated[
        dict[str, Annotated[float, {"minimum": 0}]],
        {"description": "Milliseconds per GFLOP, megabyte, operator, call."},
    ]
    measured: list[str]
    num_measurements: PlainPositive
    median_error: Annotated[
        float | None,
        {
            "description": "Leaving one measurement out at a time; null where there were too few.",
            "minimum": 0,
        },
    ]
    factor: Annotated[float, {"minimum": 1}]
    first_load_ms_per_mb: NotRequired[Annotated[float | None, {"minimum": 0}]]
    sustained_share: NotRequired[Annotated[float | None, {"exclusiveMinimum": 0, "maximum": 1}]]


class CalibrationEntry(TypedDict):
    """What `kind-bench calibrate` writes."""

    format_version: PlainPositive
    bundles: list[str]
    rates: list[Annotated[RatesEntry, _STRICT, Def("rates")]]


class DeviceDocument(TypedDict):
    """The whole document."""

    format_version: Literal[1]
    name: Text
    vendor: Annotated[
        str,
        {
            "description": "Lower case: what efficiency is shared by, where a unit names no family.",
            "pattern": "^[a-z0-9-]+$",
        },
    ]
    year: NotRequired[
        Annotated[
            int,
            {
                "description": "When the chip came out: makers' numbers of an NPU say less than its age.",
                "minimum": 2010,
                "maximum": 2100,
            },
        ]
    ]
    form: Literal["phone", "tablet", "laptop", "board", "computer"]
    aliases: NotRequired[
        Annotated[
            list[Annotated[str, {"pattern": "^[a-z0-9][a-z0-9.-]*$"}]],
            {"description": "Products and other names, lower case with hyphens.", "uniqueItems": True},
        ]
    ]
    notes: NotRequired[list[Text]]
    paper_sustained_gflops: NotRequired[
        Annotated[Gflops, {"description": "What the paper's latency floor divides by."}]
    ]
    memory_bandwidth_gbs: NotRequired[
        Annotated[Figure, Also({"properties": {"value": {"minimum": 0.5, "maximum": 2000}}})]
    ]
    sustained_share: NotRequired[
        Annotated[
            Figure,
            Also({"properties": {"value": {"minimum": 0.05, "maximum": 1}}}),
            {"description": "Speed of the warm device as a share of the cold one's."},
        ]
    ]
    units: NotRequired[Annotated[Units, _STRICT]]
    calibration: NotRequired[
        Annotated[
            CalibrationEntry,
            {
                "description": "Written by kind-bench calibrate: rates by measurements taken on the device, see "
                "calibration.py."
            },
        ]
    ]


DEVICE_DESCRIPTION = (
    "A TOML file, or JSON of the same fields. Units are in the names of the fields. Limits are there to catch a slip "
    "of the unit: a phone has neither 1 TB/s nor a thousandth of a GFLOPS."
)
