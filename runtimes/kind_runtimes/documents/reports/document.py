"""`report.json` of an export: what is in the bundle, how big, how much work, how fast, how close to the model."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, Required, TypedDict

from kind_runtimes.documents.parts import (
    TARGETS,
    TRAINING_DESCRIPTION,
    Distillation,
    PlainSha256,
    Positive,
    ProgramTarget,
    Shape,
    Text,
    Texts,
    Training,
)
from kind_runtimes.documents.reports.model import ModelEntry, Work
from kind_runtimes.documents.reports.targets import ReportTarget
from kind_runtimes.documents.results import UnitEntry
from kind_runtimes.documents.schema import Alike, Def, Free, NamesOnly, Unsaid


class ReportClass(TypedDict):
    """A class of the bundle; of a blend with the ids that it was made of."""

    id: Text
    names: Texts
    blend_of: NotRequired[Annotated[list[str], Unsaid()]]


class ReportSampling(TypedDict):
    """How latents come from noise."""

    sampler: str
    steps: Positive
    guidance_scale: float
    guided_steps: Annotated[list[int], "Steps with guidance; the others run the class alone."]
    guidance_interval: NotRequired[list[float]]
    passes_per_step: Annotated[Positive, "Network passes of a guided step."]
    distillation: NotRequired[
        Annotated[Distillation | None, Free(), "As in the manifest; null where guidance is given at run time."]
    ]
    is_approximate: NotRequired[Annotated[bool, "The model was distilled for other numbers of steps."]]
    initial_noise_scale: Annotated[float, {"exclusiveMinimum": 0}]


class ReportPack(TypedDict):
    """A class of a base."""

    name: str
    file: str
    size_bytes: int


class Rewrites(TypedDict):
    """What was done to the model."""

    conditioning: str
    cut: NotRequired[dict[str, float]]


class MeasuredMachine(TypedDict):
    """Where results of another machine come from."""

    system: str
    processor: str
    model: NotRequired[str]
    device: NotRequired[str]


class MeasuredCase(TypedDict, total=False):
    """One way of running the bundle on another machine."""

    name: Required[str]
    runtime: Required[str]
    engine: Required[str]
    precision: Required[str]
    threads: int | None
    provider: str | None
    step_ms: Required[dict[str, float]]
    image_ms: float | None
    load_ms: float | None
    load_again_ms: float | None
    first_picture_ms: float | None
    download_bytes: int | None
    peak_memory_bytes: int | None


class MeasuredElsewhere(TypedDict):
    """Results of another machine."""

    kind: Literal["measured"]
    machine: Annotated[MeasuredMachine, NamesOnly()]
    partial: bool
    units: NotRequired[
        Annotated[list[Annotated[UnitEntry, NamesOnly()]], "The compute units of the device, as in the results."]
    ]
    cases: list[Annotated[MeasuredCase, NamesOnly()]]


class Host(TypedDict):
    """The machine that exported."""

    system: str
    processor: str
    num_cpus: int | None
    load_before: NotRequired[Annotated[float | None, {"minimum": 0}]]


class ReportSource(TypedDict):
    """What was exported."""

    checkpoint_sha256: PlainSha256
    training: NotRequired[Annotated[Training, TRAINING_DESCRIPTION, {"additionalProperties": False}]]


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


class BudgetEntry(TypedDict):
    """What was asked for."""

    max_size_bytes: int | None
    max_step_ms: float | None
    max_image_ms: float | None
    device: str | None


class ChoiceEntry(TypedDict):
    """One choice within a budget, and what it costs."""

    precision: str
    max_rank: int | None
    forms: str
    steps: int
    size_bytes: int
    step_ms: float | None
    image_ms: float | None
    error_db: float | None
    below_gate: bool
    misses: list[str]


Choice = Annotated[ChoiceEntry, NamesOnly(), Def("choice")]


class PlanEntry(TypedDict):
    """How a budget was met."""

    budget: Annotated[BudgetEntry, NamesOnly()]
    chosen: Choice
    considered: Annotated[list[Choice], {"minItems": 1}]


class ReportDocument(TypedDict):
    """The whole document."""

    format_version: Literal[2]
    name: Text
    classes: Annotated[list[ReportClass], "In the order of class_index.", {"minItems": 1}]
    latents_shape: Shape
    sampling: ReportSampling
    model: ModelEntry
    packs: Annotated[list[Annotated[ReportPack, NamesOnly()]], "Of a base: its classes, one file each."]
    rewrites: Annotated[Rewrites, NamesOnly()]
    targets: Annotated[
        dict[str, Annotated[ReportTarget, Def("target")]],
        {"minProperties": 1, "propertyNames": {"enum": list(TARGETS)}},
    ]
    work: Annotated[
        dict[str, Annotated[dict[str, Work], {"required": ["step"]}]],
        "What each program does, counted from its file: by target, then by program. A diffusers folder is not counted.",
    ]
    forecasts: Annotated[
        list[Annotated[ForecastEntry, Def("forecast")]],
        "Calculated times on devices that are not here; never measured.",
    ]
    measured_elsewhere: Annotated[
        list[MeasuredElsewhere], "Results of other machines that were imported into the bundle."
    ]
    plan: Annotated[PlanEntry | None, "How a budget was met; null where none was asked for."]
    host: Host
    source: ReportSource
    tools: dict[str, str]
