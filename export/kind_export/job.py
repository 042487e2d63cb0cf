"""A request with every default filled in and its classes found: what one export does, before any weight is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kind_core.classes import ResolvedClass
from kind_core.config import ModelConfig
from kind_core.errors import ConfigError
from kind_core.samplers import Sampling
from kind_core.schedule import choose_sampling
from kind_export.blending import Opening
from kind_export.request import TARGETS, ExportRequest, parse_targets
from kind_export.source import Source, find_asked, name_output, open_source
from kind_export.target_rows import TARGET_ROWS


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


def read_job(request: ExportRequest, source: Source | None = None) -> ExportJob:
    """Raises a KindError for classes, targets or steps that the checkpoint does not offer.

    `source` is its checkpoint where that was opened already.
    """
    source = source or open_source(request)
    config = source.config
    classes, openings = find_asked(request, config.classes)
    sampling = choose_sampling(
        config.diffusion,
        sampler=request.sampler,
        steps=request.steps,
        guidance_scale=request.guidance,
        guidance_interval=request.guidance_interval,
        force_steps=request.force_steps,
    )
    if request.packs:
        require_tailors(config)
    targets = parse_targets(request.targets)
    _require_programs(config, targets)
    return ExportJob(
        request=request,
        source=source,
        targets=targets,
        classes=classes,
        openings=openings,
        sampling=sampling,
        output=name_output(request, config.classes),
    )


def _require_programs(config: ModelConfig, targets: Sequence[str]) -> None:
    """Raise ConfigError where a distilled model is asked for as a folder, whose blocks all see the same timestep."""
    folder = next((name for name in targets if not TARGET_ROWS[name].is_program), None)
    if config.dit.end_blocks and folder is not None:
        raise ConfigError(
            f"target {folder!r} tells all blocks the same timestep, but the last {config.dit.end_blocks} of this "
            "distilled model see where a step ends",
            f"take --target {', '.join(TARGETS)}",
        )


def require_tailors(config: ModelConfig) -> int:
    """The rank that holds every tailor of a checkpoint; raises ConfigError where there are none to put into packs."""
    rank = 0 if config.dit.learngene_rank is None else max(config.dit.ranks)
    if rank == 0:
        raise ConfigError("the checkpoint has no tailors, so it has no packs", "export it without --packs")
    return rank
