"""Bundles on disk: opened only when every file is the one that was verified."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from kind_core.errors import BundleError
from kind_runtimes.manifest import Manifest, parse_manifest

MANIFEST_NAME = "manifest.json"
# Written beside the manifest but not hashed: they hold timings, which differ from run to run.
UNHASHED = frozenset({MANIFEST_NAME, "measured.json", "report.json", "report.html"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """A bundle whose files match its manifest."""

    path: Path
    manifest: Manifest


def open_bundle(path: Path) -> Bundle:
    """Open a bundle and check the hash of every file; raises BundleError naming the first that does not match."""
    file = path / MANIFEST_NAME
    if not file.is_file():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST_NAME}", "make one with kind-export")
    manifest = parse_manifest(file.read_text(encoding="utf-8"), str(file))
    for name, expected in manifest.files.items():
        if not _stays_inside(name):
            raise BundleError(f"{file} lists {name!r}, which is outside the bundle", "export the bundle again")
        if not (path / name).is_file():
            raise BundleError(f"{path} has no file {name}", "copy the whole bundle or export it again")
        actual = hash_file(path / name)
        if actual != expected:
            raise BundleError(
                f"{path / name} has sha256 {actual[:12]}..., the manifest expects {expected[:12]}...",
                "the file was changed or damaged; copy or export the bundle again",
            )
    return Bundle(path=path, manifest=manifest)


def list_files(path: Path) -> list[str]:
    """All files below a bundle folder that the manifest lists, as sorted relative POSIX paths."""
    found = (p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    return sorted(name for name in found if name not in UNHASHED)


def hash_file(file: Path) -> str:
    """sha256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _stays_inside(name: str) -> bool:
    parts = Path(name).parts
    return bool(parts) and ".." not in parts and not Path(name).is_absolute()
