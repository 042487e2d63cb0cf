"""A model and photos small enough to train in a second."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from kind_core.classes import ClassInfo
from kind_core.config import DiffusionConfig, DiTConfig
from kind_train.config import TrainConfig
from kind_train.data.photo_set import PhotoSet
from tiny import tiny_config

TINY_DIT = tiny_config(patch_size=4, num_classes=3, learngene_rank=12)
TINY_DIFFUSION = DiffusionConfig(noise_schedule="squaredcos_cap_v2", prediction_type="sample", sampler="ddim", steps=2)


def tiny_preset(name: str) -> tuple[DiTConfig, DiffusionConfig]:
    """Stands in for `kind_core.config.preset`."""
    return TINY_DIT, TINY_DIFFUSION


def make_config(output: Path, **options: Any) -> TrainConfig:
    """Options of a run of 12 steps of 4 photos, saved every 5 steps."""
    tiny: dict[str, Any] = {"data": "photos", "device": "cpu", "images": 48, "batch_size": 4, "learning_rate": 1e-2}
    return TrainConfig(output=str(output), **{**tiny, "save_every": 20, "sample_every": 10**9, **options})


def run_losses(folder: Path, **options: Any) -> list[float]:
    """The loss of each step of a run of `make_config`."""
    from kind_train.run.trainer import Trainer

    trainer = Trainer(make_config(folder, **options), make_photos(), make_photos(seed=1))
    losses: list[float] = []
    trainer.run(lambda progress: losses.append(progress.loss))
    return losses


def make_photos(num_photos: int = 10, num_classes: int = 3, size: int = 8, seed: int = 0) -> PhotoSet:
    """Noise on red, green, blue; photo i is of class i modulo the classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_photos) % num_classes
    noise = torch.randint(0, 64, (num_photos, 3, size, size), generator=generator)
    colours = 160 * torch.eye(3, dtype=torch.long)[torch.arange(num_classes) % 3][:, :, None, None]
    classes = tuple(ClassInfo(id=f"class_{i}", names=(f"class {i}",)) for i in range(num_classes))
    return PhotoSet(images=(noise + colours[labels]).byte(), labels=labels, classes=classes)


def encode(pixels: Tensor, kind: str = "PNG") -> bytes:
    """pixels (3, height, width) uint8 -> the bytes of an image file."""
    stream = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(stream, kind)
    return stream.getvalue()


def write_folder(path: Path, photos: PhotoSet) -> None:
    """One folder a class, file names in the order of the photos."""
    for i, label in enumerate(photos.labels.tolist()):
        folder = path / photos.classes[label].id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:03d}.png").write_bytes(encode(photos.images[i]))


def write_parquet(path: Path, images: Sequence[Any], labels: Sequence[Any], names: Sequence[str] | None = None) -> None:
    """A table as the `datasets` library writes it: structs with `bytes`, names of the labels in the schema."""
    import pyarrow
    import pyarrow.parquet

    structs = [{"bytes": image, "path": None} if isinstance(image, bytes) else image for image in images]
    table = pyarrow.table({"image": structs, "label": list(labels)})
    if names is not None:
        info = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pyarrow.parquet.write_table(table, path)
