"""Photos, from whatever holds them to batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from kind_train.data.holding_out import split_photos
    from kind_train.data.photo_set import PhotoSet, load_photos

__all__ = [
    "PhotoSet",
    "load_photos",
    "split_photos",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "holding_out": ["split_photos"],
        "photo_set": ["PhotoSet", "load_photos"],
    },
)
