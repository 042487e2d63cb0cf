"""`report.json` of an export: what is in the bundle, how big, how much work, how fast, how close to the model."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, Required, TypedDict

from kind_runtimes.documents.parts import (
    TARGETS,
    TRAINING_DESCRIPTION,
    Distillation,
    PlainSha256,
    Positive,
    Shape,
    Text,
    Texts,
    Training,
)
from kind_runtimes.documents.reports.forecasts import ForecastEntry
from kind_runtimes.documents.reports.model import ModelEntry
from kind_runtimes.documents.reports.plan import PlanEntry
from kind_runtimes.documents.reports.targets import ReportTarget
from kind_runtimes.documents.reports.work import Work
from kind_runtimes.documents.results import UnitEntry
from kind_runtimes.documents.schema import Def, Free, NamesOnly, Unsaid


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
