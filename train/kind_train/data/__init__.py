"""Photos, from whatever holds them to batches."""

from kind_train.data.holding_out import split_photos
from kind_train.data.photo_set import PhotoSet, load_photos

__all__ = ["PhotoSet", "load_photos", "split_photos"]
