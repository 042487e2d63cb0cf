"""Pictures side by side, and their file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kind_core.errors import OutputError
from kind_core.files.staging import file_kind, staged


def _check_picture(file: Path) -> None:
    """Raise OutputError for a file that `write_picture` cannot have written."""
    try:
        with Image.open(file) as picture:
            if picture.getexif():
                raise OutputError("it has the data of a camera")
            if getattr(picture, "n_frames", 1) > 1:
                raise OutputError("it holds several pictures")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OutputError("it holds no picture that can be read") from error


PICTURE = file_kind("a picture that this program drew", _check_picture)


def make_grid(pictures: Sequence[np.ndarray], columns: int, gap: int = 2) -> Image.Image:
    """Pictures, uint8 (height, width, 3) of one size, as one picture with `columns` a row."""
    height, width = pictures[0].shape[0] + gap, pictures[0].shape[1] + gap
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    canvas = Image.new("RGB", (columns * width - gap, rows * height - gap), "white")
    for i, picture in enumerate(pictures):
        canvas.paste(Image.fromarray(picture), (i % columns * width, i // columns * height))
    return canvas


def check_format(path: Path) -> str:
    """The image format of a file name, as Pillow calls it; raises OutputError where it cannot write one."""
    image_format = Image.registered_extensions().get(path.suffix.lower(), "")
    try:
        Image.new("RGB", (1, 1)).save(io.BytesIO(), image_format)
        Image.OPEN[image_format]  # what cannot be read again could not be known again: no PDF
    except (KeyError, OSError, ValueError) as error:  # no such format, only read, or without colours
        given = f"the ending {path.suffix!r}" if path.suffix else "no ending"
        raise OutputError(f"{path} has {given}, expected an image type such as .png or .jpg") from error
    return image_format


def write_picture(path: Path, picture: Image.Image, *, force: bool) -> None:
    """Write a whole file or none; raises OutputError."""
    image_format = check_format(path)
    with staged(path, PICTURE, force=force) as file:
        picture.save(file, image_format)
