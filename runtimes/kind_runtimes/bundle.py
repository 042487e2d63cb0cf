"""Bundles on disk: opened only when every file is the one that was verified."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from kind_core.errors import BundleError, KindError
from kind_core.files.hashing import hash_file
from kind_core.files.litter import is_litter
from kind_core.files.near_paths import suggest_path
from kind_core.files.regular_files import read_text
from kind_core.files.staging import OutputKind, find_foreign
from kind_core.files.weight_files import is_pointer
from kind_runtimes.external_data import list_external_data
from kind_runtimes.kits import APP_FOLDERS
from kind_runtimes.manifest import MEASURED_FOLDER, PACK_SUFFIX, PACKS_FOLDER, Manifest, parse_manifest

MANIFEST_NAME = "manifest.json"
CAPTIONS_NAME = "captions.json"  # in its place where a bundle draws from captions
# Written beside the manifest but not hashed: they hold timings, which differ from run to run.
UNHASHED = frozenset({MANIFEST_NAME, "measured.json", "report.json", "report.html"})
_APART = (f"{PACKS_FOLDER}/", f"{MEASURED_FOLDER}/")
_OF_APPS = tuple(f"{folder}/" for folder in APP_FOLDERS.values())  # what is in there is in the bundle, too


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Bundle:
    """A bundle whose files match its manifest."""

    path: Path
    manifest: Manifest

    def __repr__(self) -> str:
        from kind_runtimes.notebook import describe_bundle

        return describe_bundle(self)

    def _repr_html_(self) -> str:
        from kind_runtimes.notebook import render_bundle

        return render_bundle(self)


def open_bundle(path: Path, *, run_code: bool = False) -> Bundle:
    """Open a bundle and check the hash of every file; raises BundleError naming the first that does not match.

    Packs need not be there: an app downloads them later. A diffusers folder is code that its maker wrote: its programs
    are opened only where `run_code` asks for them, and a program reads only what the manifest lists.
    """
    manifest = read_manifest(path, run_code=run_code)
    check_files(path, manifest)
    return Bundle(path=path, manifest=manifest)


def check_files(path: Path, manifest: Manifest) -> None:
    """Raise BundleError naming the first file at `path` that is not the one that a manifest lists."""
    for name in (*manifest.files, *(pack.file for pack in manifest.packs)):
        if not _stays_inside(name):
            raise BundleError(f"{path / MANIFEST_NAME} lists {name!r}, which is outside the bundle", "export it again")
    held = {pack.file: pack.sha256 for pack in manifest.packs if (path / pack.file).exists()}
    for name, expected in {**manifest.files, **held}.items():
        _check_file(path, name, expected)
    for target in manifest.targets.values():
        for program in target.programs.values():
            if not any(_is_part(name, program.file) for name in manifest.files):
                raise BundleError(
                    f"{path / MANIFEST_NAME} has no sha256 of the program {program.file}", "export the bundle again"
                )
            _check_reads(path, manifest, program.file)


def read_manifest(path: Path, *, run_code: bool = False) -> Manifest:
    """The manifest of a bundle folder, whose files are not looked at."""
    file = path / MANIFEST_NAME
    if not path.exists():
        raise BundleError(f"there is no bundle {path}", f"make one with kind-export{suggest_path(path)}")
    if (path / CAPTIONS_NAME).is_file():
        raise BundleError(
            f"{path} draws from captions, expected a bundle that draws classes",
            "kind-run takes it with --text-embeddings, Python by kind_runtimes.captions.open_captions: see "
            "docs/guides/captions.md",
        )
    if not file.is_file():
        whole = next((folder for folder in path.parents if (folder / MANIFEST_NAME).is_file()), None)
        hint = "make one with kind-export" if whole is None else f"the bundle is the folder that it lies in: {whole}"
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST_NAME}", hint)
    try:
        text = read_text(file)
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read {file}: {error}", "copy or export the bundle again") from error
    manifest = parse_manifest(text, str(file))
    return manifest.with_code() if run_code else manifest


def list_files(path: Path) -> list[str]:
    """All files below a bundle folder that the manifest lists, as sorted relative POSIX paths."""
    found = (p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file() and not is_litter(p.name))
    return sorted(name for name in found if name not in UNHASHED and not name.startswith((*_APART, *_OF_APPS)))


def _find_misfit(path: Path) -> str | None:
    """Why a path is no bundle, or which of its files no export, measurement or added pack has put there."""
    try:
        listed = frozenset(read_manifest(path).files)
        known = listed | {MANIFEST_NAME}
        foreign = find_foreign(
            path, lambda name: name in listed or name in UNHASHED or _is_apart(name) or _without_app(name) in known
        )
    except KindError as error:
        return error.message
    return None if foreign is None else f"it also holds {foreign}"


BUNDLE = OutputKind("a bundle", _find_misfit, heart=MANIFEST_NAME)


def _without_app(name: str) -> str | None:
    """The name in the bundle of a file that is laid apart for apps."""
    return next((name.removeprefix(folder) for folder in _OF_APPS if name.startswith(folder)), None)


def _is_apart(name: str) -> bool:
    """Whether a file is one of those that come later and are listed apart, or not at all."""
    return PurePosixPath(name).parent.as_posix() + "/" in _APART and name.endswith((PACK_SUFFIX, ".json"))


def list_program_files(manifest: Manifest, target: str) -> list[str]:
    """The files of the programs of one target, as the manifest lists them; a Core ML program is a folder of them."""
    programs = manifest.target(target).programs.values()
    return [name for name in manifest.files if any(_is_part(name, program.file) for program in programs)]


def count_download(manifest: Manifest, target: str) -> int:
    """Bytes of what an app ships to run one target: the files of its programs."""
    return sum(int(manifest.data["files"][name].get("size_bytes", 0)) for name in list_program_files(manifest, target))


def _check_file(path: Path, name: str, expected: str) -> None:
    if not (path / name).is_file():
        raise BundleError(f"{path} has no file {name}", "copy the whole bundle or export it again")
    if not (path / name).resolve().is_relative_to(path.resolve()):
        raise BundleError(f"{path / name} is a link out of the bundle", "put the file itself there")
    try:
        actual = hash_file(path / name)
    except OSError as error:
        raise BundleError(f"cannot read {path / name}: {error.strerror or error}", "copy the bundle again") from error
    if actual != expected and is_pointer(path / name):
        raise BundleError(f"{path / name} is a Git LFS pointer, not the file itself", "git lfs pull brings it")
    if actual != expected:
        raise BundleError(
            f"{path / name} has sha256 {actual[:12]}..., the manifest expects {expected[:12]}...",
            "the file was changed or damaged; copy or export the bundle again",
        )


def _check_reads(path: Path, manifest: Manifest, program: str) -> None:
    """Raise BundleError where a program would read a file that the manifest does not list, so that nobody verified."""
    place = path / program
    if place.is_dir():
        foreign = find_foreign(place, lambda name: f"{program}/{name}" in manifest.files)
        read = [] if foreign is None else [f"{program}/{foreign}"]
    else:
        beside = PurePosixPath(program).parent
        names = list_external_data(place) if place.suffix == ".onnx" else []
        read = [(beside / name).as_posix() for name in names]
    for name in read:
        if name not in manifest.files:
            raise BundleError(
                f"{place} holds or reads {name}, which {MANIFEST_NAME} does not list",
                "the bundle was changed; copy or export it again",
            )


def _is_part(name: str, program: str) -> bool:
    """Whether file `name` is the program or, where that is a folder, in it."""
    return name == program or name.startswith(f"{program}/")


def _stays_inside(name: str) -> bool:
    """Whether `name` is a file's below the bundle, on any system."""
    is_nameable = bool(name) and "\0" not in name and all(len(part.encode()) < 256 for part in name.split("/"))
    return is_nameable and not any(
        ".." in pure.parts or pure.is_absolute() or pure.anchor for pure in (PurePosixPath(name), PureWindowsPath(name))
    )
