"""A run of `kind-run`: open a verified bundle, draw pictures in one runtime, write them as one image."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kind_core.class_ids import name_class_file
from kind_core.classes import ClassInfo, ResolvedClass, resolve_class
from kind_core.errors import BundleError, ClassNameError, ConfigError, OutputError
from kind_core.files.staging import check_output
from kind_core.noise import picture_seed
from kind_core.samplers import MAX_GUIDANCE
from kind_runtimes.bundle import CAPTIONS_NAME, open_bundle, read_manifest
from kind_runtimes.captions import Caption, CaptionBundle, open_captions
from kind_runtimes.captions.caption import CAPTION_NAME
from kind_runtimes.engine_rows import holds_code
from kind_runtimes.engines.runtime import check_runtime, choose_runtime
from kind_runtimes.generator import Generator, open_generator
from kind_runtimes.golden import check_golden
from kind_runtimes.loop import Loop
from kind_runtimes.manifest import Manifest
from kind_runtimes.packs import Pack, check_pack, find_packs, read_pack
from kind_runtimes.progress import OnProgress, Progress

MAX_SCALE = 64
MAX_COUNT = 10_000  # of pictures in one image: a million steps at least
_LEARNGENE = ClassInfo(id="learngene", names=("learngene",))  # what a base draws without a pack


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """One run. None means: the bundle's only class, the best runtime here, the bundle's guidance, a square grid.

    Each picture is enlarged `scale` times, smoothly or as `sharp` squares; 1 keeps what the programs drew.
    Of a bundle of captions `text_embeddings` is a file of `Caption`, and a class is a domain.
    Of a base, `pack` is the class, or `class_name` that of a pack in its folder; with neither, the learngene alone.
    """

    bundle: Path
    class_name: str | None = None
    pack: Path | None = None
    text_embeddings: Path | None = None
    seed: int = 0
    count: int = 1
    runtime: str | None = None
    guidance: float | None = None
    columns: int | None = None
    scale: int = 1
    sharp: bool = False
    output: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.pack is not None and self.class_name is not None:
            raise ConfigError(f"both a class, {self.class_name!r}, and a pack, {self.pack}, were asked for", "give one")
        for name in ("count", "columns", "scale"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_COUNT:
                raise ConfigError(f"{name} is {value}, expected 1 to {MAX_COUNT}")
        if self.scale > MAX_SCALE:
            raise ConfigError(f"scale is {self.scale}, expected {MAX_SCALE} at most")
        if self.guidance is not None and not abs(self.guidance) <= MAX_GUIDANCE:  # also of NaN
            raise ConfigError(f"guidance is {self.guidance}, expected a finite number up to {MAX_GUIDANCE:g}")
        if self.runtime is not None:
            check_runtime(self.runtime)
        picture_seed(self.seed, self.count - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """What was drawn. `seconds` is the time of drawing, without opening; `note` says how an unclear class was read."""

    path: Path
    info: ClassInfo
    seeds: tuple[int, ...]
    guidance: float
    runtime: str
    engine: str
    seconds: float
    note: str


def run_bundle(request: RunRequest, on_progress: OnProgress = lambda progress: None) -> RunResult:
    """Draw the pictures of `request` and write them; raises a KindError and writes nothing when anything fails."""
    from kind_core.pictures import check_size, make_grid, measure_grid, write_picture

    told = _read_caption(request)
    opened = told[1] if told is not None else open_bundle(request.bundle, run_code=holds_code(request.runtime))
    manifest = opened.manifest
    if request.guidance is not None:
        manifest.require_guidance()
    pack, found = _find_pack(request, manifest)
    output = _check_output(request, found.info, manifest.classes)
    runtime = choose_runtime(manifest.targets) if request.runtime is None else request.runtime
    if "decode" not in manifest.target(runtime).programs:
        message = "the bundle has no decode program: it makes latents, not pictures"
        raise BundleError(message, "export it without --latents-only")
    columns = request.columns or math.ceil(math.sqrt(request.count))
    shape = manifest.target(runtime).programs["decode"].outputs[0].shape[-2:]
    check_size(output, measure_grid(shape, request.count, columns, scale=request.scale))
    total = request.count * manifest.sampling.steps
    on_progress(Progress(stage=f"opening the {runtime} programs", done=0, total=total))
    loop: Loop
    if told is not None:
        loop = _open_captioned(*told, runtime, found.index)
    else:
        loop = _open_checked(request.bundle, manifest, runtime, pack, found)
    guidance = manifest.guidance_scale if request.guidance is None else request.guidance
    seeds = tuple(picture_seed(request.seed, i) for i in range(request.count))
    start = time.perf_counter()
    pictures = _draw(loop, found.index, seeds, request.guidance, on_progress)
    seconds = time.perf_counter() - start
    write_picture(output, make_grid(pictures, columns, scale=request.scale, sharp=request.sharp), force=request.force)
    return RunResult(
        path=output,
        info=found.info,
        seeds=seeds,
        guidance=guidance,
        runtime=runtime,
        engine=loop.step.engine,
        seconds=seconds,
        note=found.note,
    )


def _read_caption(request: RunRequest) -> tuple[Caption, CaptionBundle] | None:
    """The embedded caption that is drawn and the bundle that takes it; None where the bundle draws classes.

    Raises BundleError where only one of the two is of captions.
    """
    if request.text_embeddings is None:
        return None  # open_bundle refuses a bundle of captions
    if not (request.bundle / CAPTIONS_NAME).is_file():
        read_manifest(request.bundle)
        message = f"{request.bundle} draws classes, but an embedded caption was given: {request.text_embeddings}"
        raise BundleError(message, "leave out --text-embeddings, or give a bundle of kind-export captions")
    if request.pack is not None:
        raise ConfigError(f"a bundle of captions has no packs, given was {request.pack}", "leave out --pack")
    return Caption.read(request.text_embeddings), open_captions(request.bundle)


def _draw(
    loop: Loop, class_index: int, seeds: tuple[int, ...], guidance: float | None, on_progress: OnProgress
) -> list[np.ndarray]:
    pictures = []
    for i, seed in enumerate(seeds):

        def show(step: int, steps: int, i: int = i) -> None:
            stage = f"picture {i + 1} of {len(seeds)}"
            on_progress(Progress(stage=stage, done=i * steps + step, total=len(seeds) * steps))

        latents = loop.latents(class_index, seed, guidance, show)
        if not np.isfinite(latents).all():
            scale = loop.sampling.guidance_scale if guidance is None else guidance
            raise ConfigError(f"seed {seed} gives numbers that are not finite at guidance {scale:g}", "lower it")
        pictures.append(loop.decode_picture(latents))
    return pictures


def _find_pack(request: RunRequest, manifest: Manifest) -> tuple[Pack | None, ResolvedClass]:
    """The class to draw and, of a base, its pack: class 0 once it is attached."""
    if request.pack is not None:
        pack = read_pack(request.pack)
        check_pack(pack, manifest)
        return pack, ResolvedClass(index=0, info=pack.info)
    if manifest.pack_base is None:
        return None, _find_class(request.class_name, manifest.classes)
    held = find_packs(request.bundle)
    if request.class_name is None:
        note = "no pack is attached: the picture is the learngene's alone; add --pack FILE or --class NAME"
        return None, ResolvedClass(index=0, info=_LEARNGENE, note=note)
    known = {info.id: info for info in (*held.values(), *manifest.classes)}
    found = _find_class(request.class_name, tuple(known.values()))
    listed = next((request.bundle / one.file for one in manifest.packs if one.info.id == found.info.id), None)
    # the one that was verified, whatever lies beside it
    file = listed if listed in held else next((file for file, info in held.items() if info.id == found.info.id), None)
    if file is None:
        missing = next(pack.file for pack in manifest.packs if pack.info.id == found.info.id)
        raise BundleError(f"{request.bundle} has no {missing}", "download it, or give it with --pack")
    pack = read_pack(file)
    check_pack(pack, manifest)
    return pack, ResolvedClass(index=0, info=found.info, note=found.note)


def _open_captioned(caption: Caption, bundle: CaptionBundle, runtime: str, domain: int) -> Loop:
    """The programs that draw the caption, held against the golden data, which were made with the bundle's own."""
    inputs = caption.inputs(bundle.words, bundle.channels)
    loop = bundle.open(Caption.read(bundle.path / CAPTION_NAME), runtime)
    check_golden(bundle.path, bundle.manifest, loop, runtime, domain)
    return replace(loop, caption=inputs)


def _open_checked(bundle: Path, manifest: Manifest, runtime: str, pack: Pack | None, found: ResolvedClass) -> Generator:
    """The programs that draw the class, with its pack, held against the golden data."""
    generator = open_generator(bundle, manifest, runtime)
    generator = generator if pack is None else generator.with_pack(pack)
    check_golden(bundle, manifest, generator, runtime, _golden_index(bundle, manifest, pack, found))
    return generator


def _golden_index(bundle: Path, manifest: Manifest, pack: Pack | None, found: ResolvedClass) -> int | None:
    """The number of what is drawn in the golden data; None for the learngene alone, or a pack that came later."""
    if manifest.pack_base is None:
        return found.index
    files = [(bundle / one.file).resolve() for one in manifest.packs]
    given = None if pack is None else Path(pack.name).resolve()
    return files.index(given) if given is not None and given in files else None


def _find_class(name: str | None, classes: tuple[ClassInfo, ...]) -> ResolvedClass:
    held = f"the bundle holds {', '.join(c.name for c in classes)}"
    if name is None:
        if len(classes) > 1:
            raise ClassNameError(f"no class was asked for, and there are {len(classes)}", f"add --class; {held}")
        return ResolvedClass(index=0, info=classes[0])
    try:
        return resolve_class(name, classes)
    except ClassNameError as error:
        raise ClassNameError(error.message, held) from error


def _check_output(request: RunRequest, info: ClassInfo, known: Sequence[ClassInfo]) -> Path:
    """The output, checked before long work."""
    from kind_core.pictures import PICTURE, check_format

    output = request.output or Path(f"{name_class_file(info, known)}.png")
    check_format(output)
    if output.is_dir():
        raise OutputError(f"{output} is a folder", "choose another --output")
    check_output(output, PICTURE, force=request.force)
    return output
