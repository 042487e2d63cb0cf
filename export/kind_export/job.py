"""A request with every default filled in and its classes found: what one export does, before any weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kind_core.class_ids import name_class_file
from kind_core.classes import ClassInfo, ResolvedClass, resolve_classes
from kind_core.config import ModelConfig
from kind_core.errors import ClassNameError, ConfigError
from kind_core.naming import MAX_STEM_BYTES, shorten
from kind_core.samplers import Sampling
from kind_core.schedule import choose_sampling
from kind_export.blending import Opening
from kind_export.request import ExportRequest, parse_targets
from kind_export.source import Source, open_source


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportJob:
    """`classes` are those whose tailors are read; `openings` which of them each class of the bundle opens."""

    request: ExportRequest
    source: Source
    targets: list[str]
    classes: list[ResolvedClass]
    openings: tuple[Opening, ...]
    sampling: Sampling
    output: Path


def read_job(request: ExportRequest) -> ExportJob:
    """Raises a KindError for classes, targets or steps that the checkpoint does not offer."""
    source = open_source(request)
    config = source.config
    classes, openings = _resolve(request, config.classes)
    sampling = choose_sampling(
        config.diffusion, sampler=request.sampler, steps=request.steps, guidance_scale=request.guidance,
        guidance_interval=request.guidance_interval,
    )  # fmt: skip
    if request.packs:
        require_tailors(config)
    return ExportJob(
        request=request,
        source=source,
        targets=parse_targets(request.targets),
        classes=classes,
        openings=openings,
        sampling=sampling,
        output=_name_output(request, config.classes) if request.output is None else request.output,
    )


def _name_output(request: ExportRequest, known: tuple[ClassInfo, ...]) -> Path:
    """A bundle named after its classes as they were asked for, those of a blend with a plus between."""
    if request.packs:
        return Path("base.kind")
    asked = [[one] for one in resolve_classes(request.classes, known)]
    asked += [resolve_classes(blend, known, is_list=False) for blend in request.blends]
    stems = ["+".join(name_class_file(one.info, known, one.query) for one in parts) for parts in asked]
    more = f"-and-{len(stems) - 3}-more" if len(stems) > 3 else ""
    return Path(f"{shorten('-'.join(stems[:3]), '-'.join(stems), MAX_STEM_BYTES - len(more))}{more}.kind")


def _resolve(request: ExportRequest, known: tuple[ClassInfo, ...]) -> tuple[list[ResolvedClass], tuple[Opening, ...]]:
    """The classes whose tailors are read, and which of them each class of the bundle opens."""
    classes = resolve_classes(request.classes, known)
    openings: list[Opening] = [(position,) for position in range(len(classes))]
    for blend in request.blends:
        parts = resolve_classes(blend, known, is_list=False)
        classes += [part for part in parts if part.index not in {c.index for c in classes}]
        places = {c.index: position for position, c in enumerate(classes)}
        opening = tuple(places[part.index] for part in parts)
        if opening in openings:
            raise ClassNameError(f"the blend {'+'.join(blend)!r} was asked for twice", "name each blend once")
        openings.append(opening)
    return classes, tuple(openings)


def require_tailors(config: ModelConfig) -> int:
    """The rank that holds every tailor of a checkpoint; raises ConfigError where there are none to put into packs."""
    rank = 0 if config.dit.learngene_rank is None else max(config.dit.ranks)
    if rank == 0:
        raise ConfigError("the checkpoint has no tailors, so it has no packs", "export it without --packs")
    return rank
