"""Bundles of captions on disk: opened only when every file is the one that was verified."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kind_core.config.checks import is_whole
from kind_core.errors import BundleError, KindError
from kind_core.files.json_files import read_object
from kind_core.files.staging import OutputKind, find_foreign
from kind_runtimes.about import describe_manifest
from kind_runtimes.bundle import CAPTIONS_NAME, check_files
from kind_runtimes.captions.caption import Caption
from kind_runtimes.documents.manifest import ManifestDocument
from kind_runtimes.engines.runtime import choose_runtime
from kind_runtimes.loop import Loop, open_loop
from kind_runtimes.manifest import Manifest, parse_manifest

_FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionLoop(Loop):
    """The loop over the programs of one target, with a caption. `class_index` counts the domains."""

    caption: Mapping[str, np.ndarray]

    def choose_class(self, class_index: int) -> Mapping[str, np.ndarray]:
        """The inputs of `step` that say what is drawn."""
        return {**Loop.choose_class(self, class_index), **self.caption}


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionBundle:
    """A bundle of captions whose files match its manifest; its classes are the domains."""

    path: Path
    manifest: Manifest
    words: int
    channels: int

    def open(self, caption: Caption, target: str | None = None) -> CaptionLoop:
        """The programs of `target`, by default of the first that runs here, with a caption.

        `picture(domain, seed)` of it draws; without a decode program `latents(domain, seed)`.
        """
        name = target or choose_runtime(self.manifest.targets)
        inputs = caption.inputs(self.words, self.channels)
        spec = self.manifest.target(name)
        loop = open_loop(self.path, spec, describe_manifest(self.manifest), self.manifest.latents_shape)
        return CaptionLoop.of(loop, caption=inputs)


def open_captions(path: Path) -> CaptionBundle:
    """Open a bundle of captions and check the hash of every file; raises BundleError."""
    bundle = read_captions(path)
    check_files(path, bundle.manifest)
    return bundle


def read_captions(path: Path) -> CaptionBundle:
    """The same without a look at the files."""
    file = path / CAPTIONS_NAME
    data = read_object(file, BundleError, "make one with kind-export captions")
    if data.get("format_version") != _FORMAT_VERSION:
        message = f"{file} has format_version {data.get('format_version')!r:.20}, this program reads {_FORMAT_VERSION}"
        raise BundleError(message, "upgrade kind-diffusion")
    text, manifest = data.get("text"), data.get("manifest")
    words, channels = (text.get(name) if isinstance(text, dict) else None for name in ("words", "channels"))
    if not is_whole(words) or not is_whole(channels) or not isinstance(manifest, dict):
        raise BundleError(f"{file} lacks text or manifest", "export the bundle again")
    return CaptionBundle(
        path=path, manifest=parse_manifest(json.dumps(manifest), str(file)), words=words, channels=channels
    )


def write_captions(path: Path, manifest: ManifestDocument, words: int, channels: int) -> None:
    """Say in the bundle at `path` what lies there, and what of a caption its programs take: written last."""
    text = {"words": words, "channels": channels}
    data = {"format_version": _FORMAT_VERSION, "text": text, "manifest": manifest}
    (path / CAPTIONS_NAME).write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _find_misfit(path: Path) -> str | None:
    try:
        known = {CAPTIONS_NAME, *read_captions(path).manifest.files}
        foreign = find_foreign(path, known.__contains__)
    except KindError as error:
        return error.message
    return None if foreign is None else f"it also holds {foreign}"


CAPTIONS = OutputKind("a bundle of captions", _find_misfit, heart=CAPTIONS_NAME)
