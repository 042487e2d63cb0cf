"""Photos in WebDataset shards: tar files whose members of one stem are one sample, an image and its `.cls`."""

from __future__ import annotations

import lzma
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, Self

from kind_core.errors import DataError
from kind_core.files.litter import is_hidden
from kind_core.files.regular_files import decode_text
from kind_core.files.weight_files import is_pointer
from kind_train.data.captions.beside import read_words
from kind_train.data.decoding import photo_suffixes
from kind_train.data.photo_source import Entry, Source, check_label, count_classes, make_classes

NAMES_NAME = "classes.txt"
_LABEL_SUFFIX = ".cls"
_MAX_LABEL_BYTES = 1024
_MAX_PHOTO_BYTES = 1 << 30
_READ_BYTES = 1 << 20
_Mode = Literal["r:", "r:gz", "r:bz2", "r:xz"]
_COMPRESSIONS: dict[bytes, _Mode] = {b"\x1f\x8b": "r:gz", b"BZ": "r:bz2", b"\xfd7": "r:xz"}
_BROKEN = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError)


@dataclass
class _Sample:
    """The members of one stem that matter: suffixes of all, contents of those that were read."""

    key: str
    suffixes: dict[str, None] = field(default_factory=dict)  # in their order
    contents: dict[str, bytes] = field(default_factory=dict)
    problem: str = ""

    @property
    def image_suffix(self) -> str | None:
        return next((suffix for suffix in self.suffixes if suffix in photo_suffixes()), None)


def open_shards(path: str, shards: Sequence[Path]) -> Source:
    """The samples of `shards`, one shard after the other; the lines of `classes.txt` beside them name the classes.

    What is no whole sample, an image with a label, is told in the notes.
    """
    partial: Counter[str] = Counter()
    places, numbers = [], []
    for shard in shards:
        for sample in _read_samples(shard, partial, with_images=False):
            places.append(f"{shard.name} {sample.key}")
            numbers.append(_read_label(shard, sample))
    notes = tuple(f"left out in {path}: {count} samples {what}" for what, count in partial.items())
    if not numbers:
        held = f"; {'; '.join(notes)}" if notes else ""
        raise DataError(f"{path} holds no sample with an image and .cls{held}", "write shards with webdataset's names")
    names = _find_names(shards) or [str(i) for i in range(count_classes(numbers, path))]
    labels = [check_label(number, len(names), place) for number, place in zip(numbers, places, strict=True)]
    return Source(
        path=path,
        classes=make_classes(path, names),
        labels=labels,
        entries=lambda: (entry for shard in shards for entry in _read_entries(shard)),
        notes=notes,
    )


def _find_names(shards: Sequence[Path]) -> list[str]:
    """What lies beside the shards, which may be in several folders, names the classes; nothing where none does."""
    files = [folder / NAMES_NAME for folder in dict.fromkeys(shard.parent for shard in shards)]
    named = {file: read_names(file) for file in files if file.is_file()}
    first = next(iter(named), None)
    if first is None:
        return []
    other = next((file for file, names in named.items() if names != named[first]), None)
    if other is not None:
        raise DataError(f"{first} and {other} name the classes differently", "number them alike, in one list")
    return named[first]


def read_names(file: Path) -> list[str]:
    """The class names in a text file, one a line in the order of their labels, as any editor writes it."""
    lines = read_words(file).rstrip().split("\n")
    names = [line.strip() for line in lines]
    if "" in names:
        raise DataError(f"{file} names no class in line {names.index('') + 1}", "write the name of one class a line")
    return names


class _Header(tarfile.TarInfo):
    """A header that must be whole: tarfile takes a broken one, or none, for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) < tarfile.BLOCKSIZE:
                raise tarfile.ReadError("it ends in the middle, before the mark that ends a tar file") from error
            if not any(buf):  # the mark
                raise
            raise tarfile.ReadError(f"what should be the next file's header is none: {error}") from error


@contextmanager
def _open_shard(shard: Path) -> Iterator[tarfile.TarFile]:
    """A shard, compressed or not; what is wrong with it, at any place, is one DataError."""
    try:
        if is_pointer(shard):
            raise tarfile.ReadError("it is a Git LFS pointer: git lfs pull brings the data")
        with shard.open("rb") as stream:
            mode = _COMPRESSIONS.get(stream.read(2), "r:")
        with tarfile.open(shard, mode, tarinfo=_Header) as archive:
            yield archive
    except _BROKEN as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{shard} is not a whole tar file: {reason}", "copy the shard again") from error


def _require_end(archive: tarfile.TarFile) -> None:
    """Raise ReadError where something follows the end: an archive joined to another, which tarfile does not see."""
    while rest := archive.fileobj.read(_READ_BYTES) if archive.fileobj else b"":
        if rest.strip(b"\0"):
            raise tarfile.ReadError("another archive follows its end: keep joined shards as files of their own")


def _read_entries(shard: Path) -> Iterator[Entry]:
    for sample in _read_samples(shard, Counter(), with_images=True):
        yield Entry(
            name=f"{shard.name} {sample.key}",
            label=_read_label(shard, sample),
            source=sample.contents.get(sample.image_suffix or "", b""),
            problem=sample.problem,
        )


def _read_samples(shard: Path, partial: Counter[str], *, with_images: bool) -> Iterator[_Sample]:
    """The whole samples of a shard, in which what belongs together lies together; others are counted in `partial`."""
    sample = _Sample("")
    with _open_shard(shard) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if not member.isfile() or any(map(is_hidden, path.parts)):
                continue
            stem, _, suffix = path.name.partition(".")
            key = str(path.with_name(stem))
            if key != sample.key:
                if _is_whole(sample, partial):
                    yield sample
                sample = _Sample(key)
            _add_member(archive, member, f".{suffix}".lower(), sample, with_images=with_images)
        _require_end(archive)
    if _is_whole(sample, partial):
        yield sample


def _add_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, suffix: str, sample: _Sample, *, with_images: bool
) -> None:
    sample.suffixes[suffix] = None
    is_label = suffix == _LABEL_SUFFIX
    if not is_label and not (with_images and suffix == sample.image_suffix):
        return
    if member.size > (_MAX_LABEL_BYTES if is_label else _MAX_PHOTO_BYTES):
        sample.problem = f"its {suffix} has {member.size} bytes"
        return
    stream = archive.extractfile(member)
    sample.contents[suffix] = b"" if stream is None else stream.read()


def _is_whole(sample: _Sample, partial: Counter[str]) -> bool:
    has_image, has_label = sample.image_suffix is not None, _LABEL_SUFFIX in sample.suffixes
    if has_image and not has_label:
        partial["without .cls"] += 1
    if has_label and not has_image:
        others = ", ".join(sorted(sample.suffixes.keys() - {_LABEL_SUFFIX}))
        partial[f"without an image that is read{f', but with {others}' if others else ''}"] += 1
    return has_image and has_label


def _read_label(shard: Path, sample: _Sample) -> int:
    try:
        text = decode_text(sample.contents.get(_LABEL_SUFFIX, b"")).strip()
    except ValueError:
        text = repr(sample.contents[_LABEL_SUFFIX])
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise DataError(f"{shard} has a sample with .cls {text!r:.60}, expected a whole number: {sample.key}")
    return int(text)
