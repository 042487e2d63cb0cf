"""Photos for training: an image folder or a Parquet file, decoded once into one uint8 tensor."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from kind_core.classes import ClassInfo, resolve_classes
from kind_core.errors import ClassNameError, DataError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
Progress = Callable[[int, int], None]
# Standard normals of the shape of the model's inputs, for data that is a distribution.
Draw = Callable[[], Tensor]


class TrainingSet(Protocol):
    """What a run is trained on: photos, or the latents of photos, that stay on the host until a step takes some."""

    @property
    def labels(self) -> Tensor:
        """Long (n,), positions in `classes`."""

    @property
    def classes(self) -> tuple[ClassInfo, ...]: ...

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, size, size) of what the model takes."""

    def __len__(self) -> int: ...

    def read(self, indices: Tensor, flipped: Tensor | None = None) -> Tensor:
        """What is stored of the photos at `indices`, those in `flipped` (bool, like indices) mirrored."""

    def to_input(self, stored: Tensor, draw: Draw) -> Tensor:
        """What `read` returned, by then on any device, as the model takes it: float32 (batch, channels, size, size)."""

    def select(self, indices: Tensor) -> Self:
        """The photos at `indices` alone."""


_Set = TypeVar("_Set", bound=TrainingSet)


@dataclass(frozen=True, kw_only=True, slots=True)
class PhotoSet:
    """Decoded photos: `images` (n, 3, size, size) uint8, `labels` (n,) long into `classes`.

    `skipped` names the images that could not be read.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[ClassInfo, ...]
    skipped: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(3, size, size)."""
        return 3, self.images.shape[2], self.images.shape[3]

    def read(self, indices: Tensor, flipped: Tensor | None = None) -> Tensor:
        """uint8 (batch, 3, size, size)."""
        images = self.images[indices]
        return images if flipped is None else torch.where(flipped[:, None, None, None], images.flip(-1), images)

    def to_input(self, stored: Tensor, draw: Draw) -> Tensor:
        """Pixels in [-1, 1]."""
        return stored.float() / 127.5 - 1

    def to_unit(self, indices: Tensor) -> Tensor:
        """The photos at `indices` as float32 in [-1, 1]."""
        return self.images[indices].float() / 127.5 - 1

    def select(self, indices: Tensor) -> PhotoSet:
        """The photos at `indices`."""
        return replace(self, images=self.images[indices], labels=self.labels[indices], skipped=())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    name: str
    label: int
    source: Path | bytes


def load_photos(
    path: Path, size: int, *, classes: Sequence[str] = (), strict: bool = False, progress: Progress | None = None
) -> PhotoSet:
    """Read all photos at `path`, cropped to the centre square and resized to `size`.

    A folder holds one folder a class; a Parquet file holds columns `image` (encoded bytes, or a struct with `bytes`)
    and `label`, with the class names in the schema as the `datasets` library writes them. `classes` keeps some classes,
    in that order. An unreadable image is named, skipped and counted; `strict` raises DataError instead.
    """
    if not path.exists():
        raise DataError(f"no data at {path}", "give --data an image folder or a .parquet file")
    names, entries = _scan_folder(path) if path.is_dir() else _scan_parquet(path)
    infos = [parse_class_name(name) for name in names]
    kept = _choose_classes(path, classes, infos)
    position = {label: i for i, label in enumerate(kept)}
    chosen = [entry for entry in entries if entry.label in position]
    images = np.empty((len(chosen), 3, size, size), np.uint8)
    labels: list[int] = []
    skipped: list[str] = []
    for number, entry in enumerate(chosen):
        try:
            images[len(labels)] = _decode(entry.source, size)
            labels.append(position[entry.label])
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            if strict:
                message = f"unreadable image {entry.name}: {error}"
                raise DataError(message, "remove it, or leave out --strict") from error
            skipped.append(entry.name)
        if progress is not None:
            progress(number + 1, len(chosen))
    if not labels:
        raise DataError(f"{path} holds no readable image of the asked classes", "check the path and --classes")
    missing = [infos[label].name for i, label in enumerate(kept) if i not in set(labels)]
    if missing:
        raise DataError(f"{path} holds no readable image of class {missing[0]!r}", "add images or leave the class out")
    return PhotoSet(
        images=torch.from_numpy(images[: len(labels)]),
        labels=torch.tensor(labels),
        classes=tuple(infos[label] for label in kept),
        skipped=tuple(skipped),
    )


def _choose_classes(path: Path, classes: Sequence[str], infos: Sequence[ClassInfo]) -> list[int]:
    if not classes:
        return list(range(len(infos)))
    try:
        return [resolved.index for resolved in resolve_classes(classes, infos)]
    except ClassNameError as error:
        # the hint of kind_core is about checkpoints
        raise ClassNameError(error.message, f"{path} holds {', '.join(info.name for info in infos)}") from error


def split_photos(photos: _Set, fraction: float, seed: int) -> tuple[_Set, _Set]:
    """Split off a held-out share, drawn at random: (train, held out)."""
    order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(seed))
    num_held_out = max(1, round(len(photos) * fraction))
    return photos.select(order[num_held_out:].sort()[0]), photos.select(order[:num_held_out].sort()[0])


def parse_class_name(name: str) -> ClassInfo:
    """`n02510455_giant_panda` -> id n02510455, 'giant panda'; a name without WordNet id becomes its own id.

    Several names of a class are parted by commas.
    """
    match = re.fullmatch(r"(n\d{8})[_ -](.+)", name)
    words = match[2] if match else name
    names = tuple(" ".join(part.replace("_", " ").split()) for part in words.split(",") if part.strip(" _"))
    class_id = match[1] if match else re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_.-") or "class"
    return ClassInfo(id=class_id, names=names or (class_id,))


def _scan_folder(path: Path) -> tuple[list[str], list[_Entry]]:
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise DataError(f"{path} holds no class folders", "put the images of each class into a folder of its name")
    entries = [
        _Entry(name=str(file), label=label, source=file)
        for label, folder in enumerate(folders)
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES
    ]
    return [folder.name for folder in folders], entries


def _scan_parquet(path: Path) -> tuple[list[str], list[_Entry]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        _check_columns(path, file.schema_arrow)
        entries = list(_parquet_entries(path, file))
    except (pyarrow.ArrowException, OSError) as error:
        message = f"{path} is not a whole Parquet file: {' '.join(str(error).split())}"
        raise DataError(message, "give --data an image folder or a .parquet file") from error
    if not entries:
        raise DataError(f"{path} holds no rows", "give --data a file with images")
    labels = [entry.label for entry in entries]
    names = _parquet_names(file.schema_arrow.metadata or {}) or [str(i) for i in range(max(labels) + 1)]
    for entry in entries:
        if not 0 <= entry.label < len(names):
            raise DataError(f"{entry.name} has label {entry.label}, expected 0 to {len(names) - 1}")
    return names, entries


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


def _parquet_entries(path: Path, file: Any) -> Iterator[_Entry]:
    row = 0
    for batch in file.iter_batches(columns=["image", "label"]):
        for image, label in zip(batch["image"].to_pylist(), batch["label"].to_pylist(), strict=True):
            data = image["bytes"] if isinstance(image, dict) else image
            yield _Entry(name=f"{path.name} row {row}", label=-1 if label is None else label, source=data or b"")
            row += 1


def _parquet_names(metadata: dict[bytes, bytes]) -> list[str]:
    """The class names that the `datasets` library writes into the schema; none where it wrote none."""
    data: Any = json.loads(metadata.get(b"huggingface", b"{}"))
    for key in ("info", "features", "label", "names"):
        data = data.get(key) if isinstance(data, dict) else None
    return [str(name) for name in data or ()]


def _decode(source: Path | bytes, size: int) -> np.ndarray:
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        rgb = image.convert("RGB")
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    box = (left, top, left + side, top + side)
    if rgb.size != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.LANCZOS, box=box)
    return np.asarray(rgb).transpose(2, 0, 1)
