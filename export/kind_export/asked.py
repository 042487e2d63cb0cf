"""What a request asks of a checkpoint, found in its config; and refused early, before anything heavy is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kind_core.class_ids import name_class_file
from kind_core.classes import ClassInfo, resolve_classes
from kind_core.config.sampling import check_choice
from kind_core.errors import BundleError
from kind_core.files.staging import check_output
from kind_core.naming import MAX_STEM_BYTES, shorten
from kind_core.samplers import ALL_STEPS
from kind_export.request import ExportRequest, parse_targets
from kind_export.source import find_asked, require_latents
from kind_export.target_rows import TARGET_ROWS

if TYPE_CHECKING:
    from kind_runtimes.manifest import Manifest


def check_request(request: ExportRequest) -> None:
    """Raise the KindError that the export would end with, as far as no torch is needed to know it.

    A slip is told at once, not after the seconds that loading torch and its exporters takes.
    """
    from kind_bench.forecasting.devices import load_device
    from kind_core.checkpoint_config import read_config
    from kind_core.diffusers.layout import find_transformer
    from kind_core.hub import find_config, find_diffusers
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
    given = {"guidance": request.guidance is not None, "guidance-interval": request.guidance_interval != ALL_STEPS}
    check_choice(config.diffusion, request.sampler, request.steps, guidance=given, force_steps=request.force_steps)
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
