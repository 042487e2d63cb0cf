"""Photos in Parquet files, one or several, as the `datasets` library and others write them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kind_core.errors import DataError
from kind_core.files.weight_files import is_pointer
from kind_train.data.captions.beside import choose_column, clean_caption
from kind_train.data.photo_source import Entry, Source, check_label, count_classes, make_classes

_COLUMNS = ["image", "label"]
# rows at a time: photos are megabytes
_BATCH_ROWS = 32


@dataclass(frozen=True, slots=True)
class _Table:
    """A file before its photos are read: labels as they stand there, the class names of its schema if it has any."""

    path: Path
    labels: list[Any]
    names: list[str]
    captions: list[str | None]


def open_parquet(path: str, files: Sequence[Path], *, with_captions: bool = False) -> Source:
    """The rows of `files`, one file after the other, as one source.

    Column `image` holds encoded bytes, or a struct with `bytes` or a `path` beside the file; `label` holds whole
    numbers, named in the schema as `datasets` writes it, or the names themselves. `with_captions`: column `caption`, or
    `text`, says what the photos show.
    """
    tables = [_read_table(file, with_captions=with_captions) for file in files]
    if not any(table.labels for table in tables):
        raise DataError(f"{path} holds no rows", "give --data a file with images")
    names = _find_names(path, tables)
    numbered = {table.path: _number_labels(table, names) for table in tables}
    return Source(
        path=path,
        classes=make_classes(path, names),
        labels=[label for labels in numbered.values() for label in labels],
        captions=[caption for table in tables for caption in table.captions],
        entries=lambda: (entry for file, labels in numbered.items() for entry in _read_entries(file, labels)),
    )


def _find_names(path: str, tables: Sequence[_Table]) -> list[str]:
    """The class names by label: as the schemas say, else the texts in order, else the numbers themselves."""
    named = [table for table in tables if table.names]
    other = next((table for table in named if table.names != named[0].names), None)
    if other is not None:
        message = f"{named[0].path.name} and {other.path.name} name their classes differently"
        raise DataError(f"{path}: {message}", "write them again as one data set")
    if named:
        return named[0].names
    labels = [label for table in tables for label in table.labels if label is not None]
    texts = {label for label in labels if isinstance(label, str)}
    if texts and len(texts) < len(set(labels)):
        raise DataError(f"{path} has labels of text in one file and numbers in another", "write them as one data set")
    return sorted(texts) if texts else [str(number) for number in range(count_classes(labels, path))]


def _number_labels(table: _Table, names: Sequence[str]) -> list[int]:
    numbers = {name: number for number, name in enumerate(names)}
    labels = []
    for row, label in enumerate(table.labels):
        place = _place(table.path, row)
        if isinstance(label, str) and label not in numbers:
            raise DataError(f"{place} has label {label!r}, which the names in its schema lack")
        labels.append(check_label(numbers[label] if isinstance(label, str) else label, len(names), place))
    return labels


def _place(file: Path, row: int) -> str:
    return f"{file.name} row {row}"


def _read_table(file: Path, *, with_captions: bool) -> _Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            schema = opened.schema_arrow
            _check_columns(file, schema)
            labels = opened.read(columns=["label"])["label"]
            captions = _read_captions(file, opened) if with_captions else []
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _broken(file, error) from error
    if pyarrow.types.is_dictionary(labels.type):
        labels = labels.cast(labels.type.value_type)
    return _Table(file, labels.to_pylist(), _read_names(file, schema.metadata or {}), captions)


def _read_captions(file: Path, opened: Any) -> list[str | None]:
    column = choose_column(opened.schema_arrow.names, str(file))
    texts = opened.read(columns=[column])[column].to_pylist()
    return [None if text is None else clean_caption(text, _place(file, row)) for row, text in enumerate(texts)]


def _broken(file: Path, error: Exception) -> DataError:
    if is_pointer(file):
        return DataError(f"{file} is a Git LFS pointer, not the data", "git lfs pull brings it")
    message = f"{file} is not a whole Parquet file: {' '.join(str(error).split())}"
    return DataError(message, "give --data an image folder or a .parquet file")


def _check_columns(file: Path, schema: Any) -> None:
    import pyarrow

    absent = set(_COLUMNS) - set(schema.names)
    if absent:
        message = f"{file} has no column {min(absent)!r}, expected 'image' and 'label'"
        raise DataError(message, f"its columns are {', '.join(map(repr, schema.names))}")
    types = pyarrow.types
    image, label = schema.field("image").type, schema.field("label").type
    if not _is_image(image):
        raise DataError(f"{file}: column 'image' holds {image}, expected encoded images or a struct with `bytes`")
    is_category = types.is_dictionary(label)
    if is_category and not types.is_integer(label.value_type):
        raise DataError(
            f"{file}: column 'label' holds {label}, expected whole numbers or plain text",
            "categories may have another order in another file: write them as text",
        )
    if not (is_category or types.is_integer(label) or types.is_string(label) or types.is_large_string(label)):
        raise DataError(f"{file}: column 'label' holds {label}, expected whole numbers or text")


def _is_image(kind: Any) -> bool:
    import pyarrow

    types = pyarrow.types
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
        if types.is_null(kind):  # paths alone
            return True
    return any(is_one(kind) for is_one in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary))


def _read_names(file: Path, metadata: dict[bytes, bytes]) -> list[str]:
    """The class names that the `datasets` library writes into the schema; none where it wrote none."""
    try:
        names: Any = json.loads(metadata.get(b"huggingface", b"{}"))
    except (ValueError, RecursionError) as error:
        message = f"{file}: its metadata 'huggingface' is not JSON: {error}"
        raise DataError(message, "write the file again with the datasets library, or without that metadata") from error
    for key in ("info", "features", "label", "names"):
        names = names.get(key) if isinstance(names, dict) else None
    if names is None:
        return []
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file}: the names of 'label' in its metadata are {names!r:.80}, expected a list of texts")
    return names


def _read_entries(file: Path, labels: Sequence[int]) -> Iterator[Entry]:
    import pyarrow
    import pyarrow.parquet

    row = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(columns=["image"], batch_size=_BATCH_ROWS):
                for image in batch["image"].to_pylist():
                    if row == len(labels):
                        raise DataError(f"{file} has more rows than it had before", "leave it alone while it is read")
                    source, problem = _find_bytes(image, file.parent)
                    yield Entry(name=_place(file, row), label=labels[row], source=source, problem=problem)
                    row += 1
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _broken(file, error) from error


def _find_bytes(image: Any, folder: Path) -> tuple[Path | bytes, str]:
    """The encoded bytes of a row, or the file that it speaks of, and what is wrong with it.

    A table of a stranger names no file but those beside it.
    """
    if not isinstance(image, dict):
        return image or b"", ""
    path = image.get("path")
    if image["bytes"] or not path:
        return image["bytes"] or b"", ""
    file = folder / str(path)
    try:
        is_beside = file.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # a loop of links, NUL in the name
        is_beside = False
    return file, "" if is_beside else f"it has no bytes, and {str(path)!r} does not lie beside the Parquet file"
