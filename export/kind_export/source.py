"""What an export starts from, a KIND checkpoint or a diffusers folder with a dense DiT, here or on the Hub, and what a
request asks of it: found in its config, and refused early, before anything heavy is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kind_core.checkpoint_config import read_any_config, read_config
from kind_core.class_ids import name_class_file
from kind_core.classes import ClassInfo, ResolvedClass, resolve_classes
from kind_core.config import ModelConfig
from kind_core.config.sampling import check_choice
from kind_core.errors import BundleError, ClassNameError, ConfigError
from kind_core.files.staging import check_output
from kind_core.hub import find_checkpoint, find_config, find_diffusers
from kind_core.naming import MAX_STEM_BYTES, shorten
from kind_export.request import ExportRequest, parse_targets
from kind_export.target_rows import TARGET_ROWS

if TYPE_CHECKING:
    from kind_core.checkpoint import Checkpoint
    from kind_export.blending import Opening
    from kind_runtimes.manifest import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A checkpoint whose weights are not read yet; `config` knows every class."""

    path: Path
    config: ModelConfig
    is_diffusers: bool = False

    @property
    def autoencoder(self) -> Path | None:
        """The diffusers folder of the autoencoder, where the checkpoint has one."""
        if self.config.autoencoder is None:
            return None
        return self.path / ("vae" if self.is_diffusers else "autoencoder")

    def load(self, classes: Sequence[int]) -> Checkpoint:
        """The weights of `classes`, indices into the config, with the autoencoder that decodes."""
        from kind_core.autoencoder import hash_autoencoder, load_decoder
        from kind_core.checkpoint import load_checkpoint
        from kind_core.diffusers.folder import load_diffusers

        if self.is_diffusers:
            checkpoint = load_diffusers(self.path, classes)
        else:
            checkpoint = load_checkpoint(self.path, classes, with_decoder=self.autoencoder is not None)
        checkpoint = replace(checkpoint, config=replace(checkpoint.config, autoencoder=self.config.autoencoder))
        if not self.is_diffusers or self.autoencoder is None or self.config.autoencoder is None:
            return checkpoint
        both = checkpoint.sha256 + hash_autoencoder(self.autoencoder)
        return replace(
            checkpoint,
            decoder=load_decoder(self.autoencoder, self.config.autoencoder, self.config.dit.in_channels),
            sha256=hashlib.sha256(both.encode()).hexdigest(),
        )


def open_source(request: ExportRequest) -> Source:
    """Read the config that `request` names. With `latents_only` there is no autoencoder to export.

    Raises ConfigError or CheckpointError where the autoencoder that would decode is not there.
    """
    if request.from_diffusers:
        path = find_diffusers(request.checkpoint)
    else:
        classes, _ = find_asked(request, read_config(find_config(request.checkpoint)).classes)
        infos = [found.info for found in classes]
        path = find_checkpoint(request.checkpoint, infos, with_decoder=not request.latents_only)
    config = _read_config(path, request.from_diffusers)
    if request.latents_only:
        require_latents(config)
        config = replace(config, autoencoder=None)
    return Source(path=path, config=config, is_diffusers=request.from_diffusers)


def find_asked(request: ExportRequest, known: tuple[ClassInfo, ...]) -> tuple[list[ResolvedClass], tuple[Opening, ...]]:
    """The classes whose tailors are read, and which of them each class of the bundle opens; raises ClassNameError."""
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


def read_source_config(checkpoint: Path, from_diffusers: bool = False) -> ModelConfig:
    """The config of either kind of folder, of the Hub without its weights; of a model of captions too."""
    if not from_diffusers:
        return read_any_config(find_config(checkpoint))
    return _read_config(find_diffusers(checkpoint, is_whole=False), True)


def _read_config(path: Path, is_diffusers: bool) -> ModelConfig:
    if not is_diffusers:
        return read_config(path)
    from kind_core.diffusers.folder import read_diffusers_config

    return read_diffusers_config(path)


def require_latents(config: ModelConfig) -> None:
    """Raise ConfigError where a model makes pixels: a program of three channels is decoded as pixels."""
    if config.dit.in_channels == 3:
        raise ConfigError("--latents-only was given, but the checkpoint's latents have 3 channels", "leave it out")


def check_request(request: ExportRequest) -> None:
    """Raise the KindError that the export would end with, as far as no torch is needed to know it.

    A slip is told at once, not after the seconds that loading torch and its exporters takes.
    """
    from kind_bench.forecasting.devices import load_device
    from kind_core.diffusers.layout import find_transformer
    from kind_runtimes.bundle import BUNDLE, read_manifest

    for name in request.devices:
        load_device(name)
    for name in parse_targets(request.targets):
        TARGET_ROWS[name].choose_precision(request.precision)
    if request.base is not None:
        require_base(read_manifest(request.base), request.base)
    if request.from_diffusers:
        find_transformer(find_diffusers(request.checkpoint, is_whole=False))
        return
    config = read_config(find_config(request.checkpoint))
    known = config.classes
    find_asked(request, known)
    if request.base is not None:
        return
    guidance = request.guidance, request.guidance_interval
    check_choice(config.diffusion, request.sampler, request.steps, *guidance, force_steps=request.force_steps)
    if request.latents_only:
        require_latents(config)
    check_output(name_output(request, known), BUNDLE, force=request.force)


def require_base(manifest: Manifest, path: Path) -> str:
    """The hash of the base at `path`; raises BundleError where its classes are built in."""
    if manifest.pack_base is None:
        raise BundleError(f"{path} takes no packs: its classes are built in", "make a base with --packs")
    return manifest.pack_base


def name_output(request: ExportRequest, known: tuple[ClassInfo, ...]) -> Path:
    """The output, by default a bundle named after its classes as they were asked for, those of a blend with a plus."""
    if request.output is not None:
        return request.output
    if request.packs:
        return Path("base.kind")
    asked = [[one] for one in resolve_classes(request.classes, known)]
    asked += [resolve_classes(blend, known, is_list=False) for blend in request.blends]
    stems = ["+".join(name_class_file(one.info, known, one.query) for one in parts) for parts in asked]
    more = f"-and-{len(stems) - 3}-more" if len(stems) > 3 else ""
    return Path(f"{shorten('-'.join(stems[:3]), '-'.join(stems), MAX_STEM_BYTES - len(more))}{more}.kind")
