"""Where photos come from: image folders, Parquet files, WebDataset shards, data sets of the Hub.

A source knows the label of every photo before it reads one; photos are read one after the other, each in its turn, so a
source may be larger than memory.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kind_core.class_ids import choose_classes, parse_class_names
from kind_core.class_ids import parse_class_name as parse_class_name
from kind_core.classes import ClassInfo
from kind_core.errors import ClassNameError, DataError, TargetError
from kind_train.decoding import is_photo_name, photo_suffixes

HUB_PREFIX = "hub:"
_SHARD_SUFFIX = ".tar"
_NAMES_FILE = "classes.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A photo that is not decoded yet: how an error calls it, its label, its file or its encoded bytes."""

    name: str
    label: int
    source: Path | bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Photos at `path`: `classes` by label, `labels` of all in order, and `entries()`, a new pass over them."""

    path: str
    classes: tuple[ClassInfo, ...]
    labels: Sequence[int]
    entries: Callable[[], Iterator[Entry]]

    def choose(self, classes: Sequence[str] | Sequence[ClassInfo] = ()) -> list[int]:
        """The labels of the asked classes, in their order; all labels where none is asked for.

        Texts are read as typed; the classes of a model or of another set are found by their ids alone.
        """
        if not classes:
            return list(range(len(self.classes)))
        try:
            return choose_classes(classes, self.classes)
        except ClassNameError as error:
            # the hint of kind_core is about checkpoints
            is_typed = isinstance(classes[0], str)
            held = ", ".join(info.name if is_typed else f"{info.name} ({info.id})" for info in self.classes)
            raise ClassNameError(error.message, f"{self.path} holds {held}") from error


def open_source(path: str | Path) -> Source:
    """The photos at `path`: a folder with one folder a class, a .parquet file, WebDataset shards (a .tar file, or a
    folder or pattern of them), or `hub:ORG/NAME` or `hub:ORG/NAME:SPLIT`, read with the `datasets` library.

    Parquet has columns `image` (encoded bytes, or a struct with `bytes`) and `label`, with the class names in the
    schema as `datasets` writes them. A sample of a shard is an image and `.cls`, a number; the names of the classes are
    the lines of `classes.txt` beside the shards.
    """
    text = str(path)
    if text.startswith(HUB_PREFIX):
        return _open_hub(text)
    shards = _find_shards(Path(text))
    if shards:
        return _open_shards(text, shards)
    if not Path(text).exists():
        raise DataError(f"no data at {text}", "give --data an image folder or a .parquet file")
    return _open_folder(Path(text)) if Path(text).is_dir() else _open_parquet(Path(text))


def _make_source(
    path: str, names: Sequence[str], labels: Sequence[int], entries: Callable[[], Iterator[Entry]]
) -> Source:
    for number, label in enumerate(labels):
        if not 0 <= label < len(names):
            raise DataError(f"{Path(path).name} row {number} has label {label}, expected 0 to {len(names) - 1}")
    try:
        classes = parse_class_names(names)
    except ClassNameError as error:
        raise ClassNameError(f"{path}: {error.message}", error.hint) from error
    return Source(path=path, classes=classes, labels=labels, entries=entries)


def _open_folder(path: Path) -> Source:
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise DataError(f"{path} holds no class folders", "put the images of each class into a folder of its name")
    entries = [
        Entry(name=str(file), label=label, source=file)
        for label, folder in enumerate(folders)
        for file in sorted(folder.rglob("*"))
        if is_photo_name(file.name)
    ]
    names = [folder.name for folder in folders]
    return _make_source(str(path), names, [entry.label for entry in entries], lambda: iter(entries))


def _open_parquet(path: Path) -> Source:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        _check_columns(path, file.schema_arrow)
        column = file.read(columns=["label"])["label"].to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise _broken_parquet(path, error) from error
    if not column:
        raise DataError(f"{path} holds no rows", "give --data a file with images")
    labels = [-1 if label is None else label for label in column]
    names = _parquet_names(file.schema_arrow.metadata or {}) or [str(i) for i in range(max(labels) + 1)]
    return _make_source(str(path), names, labels, lambda: _parquet_entries(path))


def _broken_parquet(path: Path, error: Exception) -> DataError:
    message = f"{path} is not a whole Parquet file: {' '.join(str(error).split())}"
    return DataError(message, "give --data an image folder or a .parquet file")


def _check_columns(path: Path, schema: Any) -> None:
    import pyarrow

    absent = {"image", "label"} - set(schema.names)
    if absent:
        message = f"{path} has no column {min(absent)!r}, expected 'image' and 'label'"
        raise DataError(message, f"its columns are {', '.join(map(repr, schema.names))}")
    image, label = schema.field("image").type, schema.field("label").type
    if pyarrow.types.is_struct(image) and image.get_field_index("bytes") >= 0:
        image = image.field("bytes").type
    if not (pyarrow.types.is_binary(image) or pyarrow.types.is_large_binary(image)):
        raise DataError(f"{path}: column 'image' holds {image}, expected encoded images or a struct with `bytes`")
    if not pyarrow.types.is_integer(label):
        raise DataError(f"{path}: column 'label' holds {label}, expected whole numbers")


def _parquet_entries(path: Path) -> Iterator[Entry]:
    import pyarrow
    import pyarrow.parquet

    row = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(columns=["image", "label"], batch_size=256):
            for image, label in zip(batch["image"].to_pylist(), batch["label"].to_pylist(), strict=True):
                data = image["bytes"] if isinstance(image, dict) else image
                yield Entry(name=f"{path.name} row {row}", label=-1 if label is None else label, source=data or b"")
                row += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise _broken_parquet(path, error) from error


def _parquet_names(metadata: dict[bytes, bytes]) -> list[str]:
    """The class names that the `datasets` library writes into the schema; none where it wrote none."""
    data: Any = json.loads(metadata.get(b"huggingface", b"{}"))
    for key in ("info", "features", "label", "names"):
        data = data.get(key) if isinstance(data, dict) else None
    return [str(name) for name in data or ()]


def _find_shards(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob(f"*{_SHARD_SUFFIX}"))
    if path.suffix != _SHARD_SUFFIX:
        return []
    return [path] if path.exists() else sorted(path.parent.glob(path.name))


def _open_shards(path: str, shards: Sequence[Path]) -> Source:
    labels = [label for shard in shards for label in _shard_labels(shard)]
    if not labels:
        raise DataError(f"{path} holds no sample with an image and .cls", "write shards with webdataset's names")
    file = shards[0].parent / _NAMES_FILE
    names = file.read_text(encoding="utf-8").splitlines() if file.exists() else [str(i) for i in range(max(labels) + 1)]
    return _make_source(path, names, labels, lambda: (entry for shard in shards for entry in _shard_entries(shard)))


def _shard_labels(shard: Path) -> Iterator[int]:
    for _, members in _shard_samples(shard, with_images=False):
        yield _read_label(shard, members)


def _shard_entries(shard: Path) -> Iterator[Entry]:
    for key, members in _shard_samples(shard, with_images=True):
        data = next(data for suffix, data in members.items() if suffix in photo_suffixes())
        yield Entry(name=f"{shard.name} {key}", label=_read_label(shard, members), source=data)


def _shard_samples(shard: Path, *, with_images: bool) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, contents by suffix) of each sample with an image and a label; what belongs together lies together."""
    key, members = "", dict[str, bytes]()
    try:
        with tarfile.open(shard) as archive:
            for member in archive:
                if not member.isfile():
                    continue
                name = Path(member.name)
                base = str(name.with_name(name.name.split(".")[0]))
                suffix = f".{name.name.partition('.')[2]}".lower()
                if base != key:
                    if _is_sample(members):
                        yield key, members
                    key, members = base, {}
                is_wanted = suffix == ".cls" or (with_images and suffix in photo_suffixes())
                stream = archive.extractfile(member) if is_wanted else None
                members[suffix] = b"" if stream is None else stream.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{shard} is not a whole tar file: {error}", "copy the shard again") from error
    if _is_sample(members):
        yield key, members


def _is_sample(members: dict[str, bytes]) -> bool:
    return ".cls" in members and not photo_suffixes().isdisjoint(members)


def _read_label(shard: Path, members: dict[str, bytes]) -> int:
    text = members[".cls"].decode(errors="replace").strip()
    if not text.lstrip("-").isdigit():
        raise DataError(f"{shard} has a sample with .cls {text!r}, expected a whole number")
    return int(text)


def _open_hub(path: str) -> Source:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise TargetError(
            f"{path} is read with the package 'datasets', which is not installed", "pip install 'kind-diffusion[data]'"
        ) from error
    name, _, split = path.removeprefix(HUB_PREFIX).partition(":")
    try:
        rows = datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # it raises errors of many libraries: no network, no such name, no such split
        raise DataError(
            f"cannot load {path}: {' '.join(str(error).split())}", "check the name and the split"
        ) from error
    for column, kind in (("image", datasets.Image), ("label", datasets.ClassLabel)):
        if not isinstance(rows.features.get(column), kind):
            held = ", ".join(f"{key} ({type(value).__name__})" for key, value in rows.features.items())
            raise DataError(f"{path} has no column {column!r} of type {kind.__name__}", f"its columns are {held}")
    encoded = rows.cast_column("image", datasets.Image(decode=False))

    def entries() -> Iterator[Entry]:
        for row, item in enumerate(encoded):
            image = item["image"]
            source = image["bytes"] or (Path(image["path"]) if image["path"] else b"")
            yield Entry(name=f"{name} row {row}", label=item["label"], source=source)

    return _make_source(path, rows.features["label"].names, list(rows["label"]), entries)
