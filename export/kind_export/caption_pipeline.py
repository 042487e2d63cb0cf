"""The export of a model that draws from captions, top to bottom; its step takes the words of a caption, embedded.

The gates are those of every program. They are held with two captions, so that no program passes that holds one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from kind_core.checkpoint import Checkpoint
from kind_core.checkpoint_config import read_text_config
from kind_core.config import TextConfig
from kind_core.dit import KindDiT
from kind_core.errors import ConfigError, VerificationError
from kind_core.files.staging import check_output, staged, temporaries_beside
from kind_core.schedule import read_sampler_table
from kind_core.text.checkpoint import TextCheckpoint, load_text_checkpoint
from kind_core.text.pixart import KindPixArt
from kind_export.bundle.golden import write_golden
from kind_export.bundle.manifest import make_manifest
from kind_export.compact.decode import measure_decoder
from kind_export.compact.model import CompactModel
from kind_export.job import ExportJob, read_job
from kind_export.request import ExportRequest
from kind_export.rewrites import RewriteOptions, rewrite_captions
from kind_export.rewrites.factor_modulations import table_error_db
from kind_export.source import Source
from kind_export.target_rows import TARGET_ROWS
from kind_export.targets.lowering import Lowered, choose_options
from kind_export.targets.target import TargetOptions
from kind_export.verify.delegation import check_delegation
from kind_export.verify.gates import Verifier
from kind_export.verify.lower_within_gate import lower_within_gate
from kind_export.verify.parity import Parity
from kind_export.verify.reference import MIN_GATE_EFFECT, Reference
from kind_export.verify.trial import Trial
from kind_runtimes.captions import Caption, CaptionLoop, open_captions
from kind_runtimes.captions.bundle import CAPTIONS, write_captions
from kind_runtimes.captions.caption import CAPTION_NAME
from kind_runtimes.golden import GOLDEN_NAME
from kind_runtimes.loop import Loop
from kind_runtimes.manifest import TargetSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionResult:
    """The finished bundle and how well each target was verified."""

    path: Path
    parities: Mapping[str, Parity]


def export_captions(
    request: ExportRequest, caption: Caption | None = None, on_stage: Callable[[str], None] = lambda stage: None
) -> CaptionResult:
    """Export, verify and publish the domains that `request` names; raises a KindError and leaves nothing otherwise.

    `caption` is the one that the gates are held with beside a drawn one; without it two are drawn.
    """
    config, text = read_text_config(request.checkpoint)
    if request.latents_only:
        config = replace(config, autoencoder=None)
    source = Source(path=request.checkpoint, config=config)
    job = read_job(request, source)
    _require_programs(job)
    check_output(job.output, CAPTIONS, force=request.force)
    captions = [caption or draw_caption(text, 0), draw_caption(text, 1)]
    inputs = [one.inputs(text.tokens, text.channels) for one in captions]
    on_stage("reading the checkpoint")
    loaded = load_text_checkpoint(
        request.checkpoint, [c.index for c in job.classes], with_decoder=config.autoencoder is not None
    )
    on_stage("running the eager model")
    verifiers = [Verifier(Reference(checkpoint=_captioned(loaded, one), sampling=job.sampling)) for one in inputs]
    _require_effect(*verifiers)
    on_stage("composing and rewriting")
    compact = _compose(job, loaded, verifiers[0])
    with staged(job.output, CAPTIONS, force=request.force) as folder, temporaries_beside(folder):
        folder.mkdir()
        trials = [
            _CaptionTrial(folder=folder, verifier=verifier, packs=(), on_stage=on_stage, caption=one)
            for verifier, one in zip(verifiers, inputs, strict=True)
        ]
        lowered: dict[str, Lowered] = {}
        parities: dict[str, Parity] = {}
        for name, options in choose_options(job, loaded.config, compact).items():
            lowered[name], parities[name] = _write_target(name, options, compact, trials)
        write_golden(folder / GOLDEN_NAME, verifiers[0].trajectories, verifiers[0].reference)
        captions[0].save(folder / CAPTION_NAME)
        checkpoint = verifiers[0].reference.checkpoint
        manifest = make_manifest(folder, job, checkpoint, compact, lowered, parities)
        write_captions(folder, manifest, text.tokens, text.channels)
        open_captions(folder)
    return CaptionResult(path=job.output, parities=parities)


def draw_caption(text: TextConfig, seed: int) -> Caption:
    """Normals in place of embedded words; one and the null caption are shorter than a step takes."""
    rng = np.random.default_rng(seed)
    words, null = (rng.standard_normal((text.tokens, text.channels)).astype(np.float32) for _ in range(2))
    places = np.arange(text.tokens)
    lengths = [max(1, text.tokens * (2 - seed) // 2), max(1, text.tokens // 3)]
    mask, null_mask = ((places < length).astype(np.float32) for length in lengths)
    return Caption(text=words, mask=mask, null_text=null, null_mask=null_mask)


class _Captioned(nn.Module):
    """A model of captions with one caption, called as a model of classes: where no label is given it reads the null
    caption."""

    def __init__(self, model: KindPixArt, inputs: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.model = model
        self.text, self.mask = (torch.from_numpy(inputs[name]) for name in ("text", "text_mask"))

    def forward(self, latents: Tensor, timesteps: Tensor, labels: Tensor, gates: Tensor) -> Tensor:
        half = (labels < 0).long() if labels.dtype == torch.long else (~labels.any(dim=1)).long()
        result: Tensor = self.model(latents, timesteps, labels, gates, self.text[half], self.mask[half])
        return result


@dataclass(frozen=True, kw_only=True, slots=True)
class _CaptionTrial(Trial):
    """Programs tried with a caption."""

    caption: Mapping[str, np.ndarray]

    def open(self, target: TargetSpec) -> Loop:
        return CaptionLoop.of(Trial.open(self, target), caption=self.caption)


def _captioned(loaded: TextCheckpoint, inputs: Mapping[str, np.ndarray]) -> Checkpoint:
    model = cast(KindDiT, _Captioned(loaded.model, inputs).eval())  # the reference only calls it
    return Checkpoint(config=loaded.config, model=model, sha256=loaded.sha256, decoder=loaded.decoder)


def _require_programs(job: ExportJob) -> None:
    folder = next((name for name in job.targets if not TARGET_ROWS[name].is_program), None)
    if folder is not None:
        raise ConfigError(
            f"target {folder!r} is a pipeline of classes, asked for captions",
            "kind_core.text.convert.to_pixart makes the transformer of a PixArt pipeline",
        )


def _require_effect(one: Verifier, other: Verifier) -> None:
    """Raise VerificationError where the model draws the same from two captions: no check could tell them apart."""
    pairs = zip(one.trajectories, other.trajectories, strict=True)
    effect = min(float(np.abs(a.latents[-1] - b.latents[-1]).max()) for a, b in pairs)
    if not effect > MIN_GATE_EFFECT:
        raise VerificationError(
            f"another caption changes the eager model by {effect:.3g} only, expected more than {MIN_GATE_EFFECT}",
            "its cross-attention does nothing, so no check could tell whether a program reads the caption",
        )


def _compose(job: ExportJob, loaded: TextCheckpoint, verifier: Verifier) -> CompactModel:
    sampler = read_sampler_table(loaded.config.diffusion, job.sampling.sampler, job.sampling.steps)
    options = RewriteOptions(table_error_db=table_error_db(job.request.precision), forms=job.request.forms)
    compact = rewrite_captions(loaded.model, sampler, options)
    if loaded.decoder is None:
        return compact
    finals = [one.latents[-1] for one in verifier.trajectories]
    return replace(compact, decoder=measure_decoder(loaded.decoder, finals))


def _write_target(
    name: str, options: TargetOptions, compact: CompactModel, trials: list[_CaptionTrial]
) -> tuple[Lowered, Parity]:
    """The programs of a target that pass its gates with both captions; raises VerificationError where none do."""
    lowered, parity = lower_within_gate(name, compact, options, trials[0])
    other = trials[1].check(trials[1].open(lowered.spec), lowered.spec)
    check_delegation(trials[0].folder, lowered.spec)
    return lowered, min(parity, other, key=lambda one: one.trajectory_psnr_db)
