"""What a report says of devices that are not here."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from kind_runtimes.documents.parts import ProgramTarget
from kind_runtimes.documents.schema import Alike, Def, Free, NamesOnly, Unsaid


class TimesEntry(TypedDict):
    """Milliseconds that are forecast."""

    floor_ms: float | None
    low_ms: float | None
    likely_ms: float | None
    high_ms: float | None
    sustained_ms: float | None
    first_run_ms: float | None


Times = Annotated[
    TimesEntry,
    Alike(Annotated[float | None, {"minimum": 0}]),
    "Milliseconds, cool and run before; null where nothing is known. floor: FLOPs over sustained GFLOPS, the "
    "paper's way.",
    Def("times"),
]


class RooflinePoint(TypedDict):
    """The operators of one class below a roof."""

    name: str
    flops: int
    bytes_moved: int
    flops_per_byte: float | None
    gflops: float
    limited_by: str | None


class Roofline(TypedDict):
    """The two lines of a unit."""

    peak_gflops: float
    reached_gflops: float
    peak_bandwidth_gbs: float
    reached_bandwidth_gbs: float
    points: list[RooflinePoint]


class ForecastEntry(TypedDict):
    """A calculated time on a device that is not here."""

    kind: Literal["forecast"]
    device: str
    device_name: str
    target: ProgramTarget
    unit: Literal["cpu", "gpu", "npu"]
    unit_name: NotRequired[Annotated[str, Unsaid()]]
    precision: str
    method: Literal["roofline", "calibrated", "floor only"]
    reason: Annotated[str, "Why there is no more than the floor; empty otherwise."]
    step: Times
    picture: Times
    limited_by: Annotated[dict[str, str], Free()]
    notes: list[str]
    unsure: Annotated[Annotated[dict[str, str], Free()], "Figures of the device that are derived or unconfirmed."]
    roofline: Annotated[Roofline | None, NamesOnly()]
