"""A bundle that draws: the loop over its programs, with what its manifest allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from kind_core.errors import BundleError, TargetError
from kind_core.files.json_files import read_object
from kind_runtimes.about import describe_manifest
from kind_runtimes.bundle import MANIFEST_NAME
from kind_runtimes.engine_rows import holds_code
from kind_runtimes.engines.runtime import DEFAULT_OPTIONS, EngineOptions
from kind_runtimes.loop import Loop, OnStep, make_loop, open_programs
from kind_runtimes.manifest import Manifest
from kind_runtimes.packs import Pack, check_pack


@dataclass(frozen=True, kw_only=True, slots=True)
class Generator(Loop):
    """The opened programs of a bundle for one runtime, and its manifest."""

    manifest: Manifest

    def with_pack(self, pack: Pack) -> Self:
        """The same programs with `pack` attached; raises BundleError when it was made for another base."""
        check_pack(pack, self.manifest)
        return Loop.with_pack(self, pack)

    def trajectory(
        self, noise: np.ndarray, class_index: int, guidance: float | None = None, on_step: OnStep | None = None
    ) -> Iterator[np.ndarray]:
        """The latents after each step, from start noise of unit variance; raises ConfigError for built-in guidance."""
        if guidance is not None:
            self.manifest.require_guidance()
        return Loop.trajectory(self, noise, class_index, guidance, on_step)


def open_generator(
    folder: Path,
    manifest: Manifest,
    runtime: str,
    options: EngineOptions = DEFAULT_OPTIONS,
    *,
    is_expendable: bool = False,
) -> Generator:
    """Open the programs of a bundle folder in `runtime`; raises TargetError for code that was not asked for.

    Raises BundleError where a program contradicts the manifest in what it says of itself, or would end this process,
    unless that `is_expendable`, whose programs are not tried first; and where another bundle has taken the folder's
    place since the manifest was read.
    """
    target = manifest.target(runtime)
    if holds_code(runtime) and not manifest.may_run_code:
        raise TargetError(
            f"the {runtime} programs of {folder} are code, and nobody asked for it to run",
            f"where you trust who made the bundle: --runtime {runtime}, or open_bundle(path, run_code=True)",
        )
    opened = open_programs(folder, target, options, is_expendable=is_expendable)
    if read_object(folder / MANIFEST_NAME, BundleError) != manifest.data:
        raise BundleError(f"{folder} was replaced while it was opened", "run the command again")
    loop = make_loop(folder, target, opened, describe_manifest(manifest), manifest.latents_shape)
    return Generator.of(loop, manifest=manifest)
