"""Pictures side by side, and their file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageDraw, ImageFont

from kind_core.classes import ClassInfo
from kind_core.console import clean
from kind_core.errors import OutputError
from kind_core.files.staging import file_kind, staged

# Pixels of a grid with names: between pictures, of a line of text, of its letters.
_GAP, _LINE, _FONT_SIZE = 8, 30, 17
_MAX_SIDE = {"WEBP": 16_383}  # pixels, by Pillow's name of a format
_MAX_SIDE_OF_OTHERS = 65_500  # JPEG's
_MAKER = "kind-run"  # in the EXIF of every picture whose format has one


def _check_picture(file: Path) -> None:
    """Raise OutputError for a file that `write_picture` has not written: no user's photo is replaced."""
    try:
        with Image.open(file) as picture:
            maker = picture.getexif().get(ExifTags.Base.Software)
            num_frames = getattr(picture, "n_frames", 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OutputError("it holds no picture that can be read") from error
    if maker != _MAKER or num_frames > 1:
        raise OutputError("nothing in it says that this program drew it")


PICTURE = file_kind("a picture that this program drew", _check_picture)


def enlarge(picture: np.ndarray, scale: int, *, sharp: bool = False) -> Image.Image:
    """A picture, uint8 (height, width, 3), `scale` times as large: smoothly, or with each pixel as a sharp square."""
    image = Image.fromarray(picture)
    size = (image.width * scale, image.height * scale)
    return image.resize(size, Image.Resampling.NEAREST if sharp else Image.Resampling.LANCZOS)


def choose_scale(height: int, wanted: int) -> int:
    """How many times a picture of `height` pixels is enlarged so that it has `wanted` or more."""
    return max(1, -(-wanted // height))


def make_grid(
    pictures: Sequence[np.ndarray], columns: int, gap: int = 2, *, scale: int = 1, sharp: bool = False
) -> Image.Image:
    """Pictures, uint8 (height, width, 3) of one size, as one picture with `columns` a row, each enlarged."""
    size = measure_grid(pictures[0].shape[:2], len(pictures), columns, gap, scale=scale)
    canvas = Image.new("RGB", size, "white")
    for i, picture in enumerate(pictures):
        tile = enlarge(picture, scale, sharp=sharp)
        canvas.paste(tile, (i % columns * (tile.width + gap), i // columns * (tile.height + gap)))
    return canvas


def measure_grid(shape: Sequence[int], count: int, columns: int, gap: int = 2, *, scale: int = 1) -> tuple[int, int]:
    """Width and height of the grid that `make_grid` makes of `count` pictures of `shape`, (height, width)."""
    height, width = (side * scale + gap for side in shape)
    columns = min(columns, count)
    return columns * width - gap, -(-count // columns) * height - gap


def make_class_grid(rows: Sequence[tuple[ClassInfo, Sequence[np.ndarray]]], height: int) -> Image.Image:
    """A row of pictures a class under its name, smoothly enlarged to `height` pixels or more each, for looking at."""
    scale = choose_scale(rows[0][1][0].shape[0], height)
    strips = [make_grid(pictures, len(pictures), _GAP, scale=scale) for _, pictures in rows]
    size = (strips[0].width + 2 * _GAP, sum(_LINE + strip.height + _GAP for strip in strips))
    canvas = Image.new("RGB", size, "white")
    pen, font, top = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT_SIZE), 0
    for (info, _), strip in zip(rows, strips, strict=True):
        pen.text((_GAP, top + _LINE // 2), _name_row(info, font, strip.width), "black", font, anchor="lm")
        canvas.paste(strip, (_GAP, top + _LINE))
        top += _LINE + strip.height + _GAP
    return canvas


def _name_row(info: ClassInfo, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The name of a class in letters that the font has, else its id; as much of it as fits into `width` pixels."""
    missing = font.getmask("\uffff").getbbox(), bytes(font.getmask("\uffff"))

    def has(letter: str) -> bool:
        mask = font.getmask(letter)
        return letter.isspace() or (mask.getbbox(), bytes(mask)) != missing

    texts = (info.name[:width], info.id[:width])  # a letter has a pixel at least
    text = clean(next((text for text in texts if all(map(has, text))), ""))
    while text and font.getlength(text) > width:
        text = text[:-2].rstrip() + "\u2026"
    return text


def check_format(path: Path) -> str:
    """The image format of a file name, as Pillow calls it; raises OutputError where it cannot write one."""
    image_format = Image.registered_extensions().get(path.suffix.lower(), "")
    try:
        Image.new("RGB", (1, 1)).save(io.BytesIO(), image_format)
        Image.OPEN[image_format]  # what cannot be read again could not be known again: no PDF
    except (KeyError, OSError, ValueError) as error:  # no such format, only read, or without colours
        given = f"the ending {path.suffix!r}" if path.suffix else "no ending"
        message = f"{path} has {given}, expected an image type such as .png or .jpg"
        raise OutputError(message, f"for example -o {path.stem}.png") from error
    return image_format


def check_size(path: Path, size: tuple[int, int]) -> None:
    """Raise OutputError where a picture of `size`, (width, height), does not fit into a file that is read again."""
    side = _MAX_SIDE.get(check_format(path), _MAX_SIDE_OF_OTHERS)
    # beyond it Pillow takes a file for an attack, and `--force` could not know it as one of this program's
    pixels = 2 * (Image.MAX_IMAGE_PIXELS or 1 << 26)
    if max(size) > side or size[0] * size[1] > pixels:
        raise OutputError(
            f"{path} would have {size[0]} x {size[1]} pixels, expected {side} a side and {pixels} in all at most",
            "a smaller --scale or --count, or other --columns",
        )


def write_picture(path: Path, picture: Image.Image, *, force: bool) -> None:
    """Write a whole file or none, which says who drew it where its format can; raises OutputError."""
    image_format = check_format(path)
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = _MAKER
    with staged(path, PICTURE, force=force) as file:
        picture.save(file, image_format, exif=exif)
