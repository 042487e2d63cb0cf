"""A photo as a viewer shows it: the one place where files become pixels, for training, caches and evaluation.

EXIF says how a photo is turned, an ICC profile what its numbers mean; what is transparent lies on white; 16 bits are
scaled to 8, not clipped; of an animation the first frame counts.
"""

from __future__ import annotations

import io
import re
import warnings
from functools import cache, lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin, UnidentifiedImageError

# Pillow lists them, but starts Ghostscript for EPS, and has no decoder of its own for the others.
_NOT_READ = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"}
# A JPEG over Pillow's limit is read scaled down; a progressive one needs 6 bytes a pixel all the same.
_MAX_JPEG_PIXELS = 1_000_000_000
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_GREY = {"1", "L", "LA", "La"}
_PROFILE_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF


class UnreadableImage(Exception):  # noqa: N818  # it is a reason, in words that follow the photo's name
    """Why a photo cannot be read, in one line."""


def decode_photo(source: Path | bytes, size: int) -> np.ndarray:
    """uint8 (3, size, size), RGB as sRGB: the centre square of an image file or of its bytes.

    Raises UnreadableImage.
    """
    if isinstance(source, Path) and not source.is_file():
        raise UnreadableImage("it is no regular file" if source.exists() else "there is no such file")
    try:
        with warnings.catch_warnings(), _open_stream(source) as stream:
            warnings.simplefilter("ignore")  # of metadata that no viewer needs
            rgb = _read_rgb(stream, size)
    except UnreadableImage:
        raise
    except Exception as error:  # decoders raise whatever damaged bytes lead them to
        raise UnreadableImage(_describe(error, source)) from error
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    if rgb.size != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    return np.asarray(rgb).transpose(2, 0, 1)


def is_photo_name(name: str) -> bool:
    """Whether a file of this name is of a format that is read here."""
    return Path(name).suffix.lower() in photo_suffixes()


@cache
def photo_suffixes() -> frozenset[str]:
    """The suffixes of all formats that Pillow reads here, `.heic` among them where pillow-heif is installed."""
    formats = {*_formats(), "MPO"}  # which its JPEG reader opens
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


@cache
def _formats() -> list[str]:
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    Image.init()
    return [name for name in Image.ID if name not in _NOT_READ]


def _open_stream(source: Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _read_rgb(stream: BinaryIO, size: int) -> Image.Image:
    if not stream.read(1):
        raise UnreadableImage("it is empty")
    stream.seek(0)
    try:
        image: Image.Image = Image.open(stream, formats=_formats())
    except Image.DecompressionBombError:
        stream.seek(0)
        if stream.read(3) != b"\xff\xd8\xff":
            raise
        image = _open_scaled_down(stream, size)
    image.load()
    return _turn(_to_rgb(image), image)


def _open_scaled_down(stream: BinaryIO, size: int) -> Image.Image:
    """A JPEG over Pillow's limit, to be decoded at the smallest scale that has `size`."""
    stream.seek(0)
    image = JpegImagePlugin.JpegImageFile(stream)
    if image.width * image.height > _MAX_JPEG_PIXELS or "progressive" in image.info:
        raise UnreadableImage(f"{image.width} x {image.height} are too many pixels to read at once; scale it down")
    image.draft("RGB", (size, size))
    return image


def _turn(rgb: Image.Image, image: Image.Image) -> Image.Image:
    """The pixels of `image` as its EXIF turns them."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken EXIF: viewers show the pixels as they are stored
        return rgb
    return rgb if turn is None else rgb.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB in sRGB, on white."""
    profile = image.info.get("icc_profile")
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_8_bits(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in _GREY else "RGBA")
        alpha = image.getchannel("A")
    if image.mode != "CMYK":
        image = image.convert("L" if image.mode in _GREY else "RGB")
    transform = _find_transform(profile, image.mode) if profile else None
    rgb = image.convert("RGB") if transform is None else transform.apply(image)
    if alpha is None:
        return rgb
    white = Image.new("RGB", rgb.size, "white")
    white.paste(rgb, mask=alpha)
    return white


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Grey of deeper samples as L, or as LA where one value is transparent."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    top = _find_top(image, values, tags)
    levels = np.rint(values * (255 / top)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero
        levels = 255 - levels
    grey = Image.fromarray(levels)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _find_top(image: Image.Image, values: np.ndarray, tags: dict[int, object]) -> float:
    """The sample value of full brightness; raises UnreadableImage where nothing says which it is."""
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not 0 <= low <= high <= 1:  # not so of NaN either
            raise UnreadableImage(f"its floating-point samples go from {low:g} to {high:g}, expected 0 to 1")
        return 1
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # which hold 16 bits in it
        raise UnreadableImage("its samples are of 32 or signed bits, and nothing says which one is white")
    return 4095 if tags.get(_BITS_PER_SAMPLE) == (12,) else 65535


@lru_cache(maxsize=16)
def _find_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From the colours of an ICC profile to sRGB.

    None where they are sRGB, and where the profile is broken or of another kind of colours, as viewers take it.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _PROFILE_SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if mode == "CMYK":
        return transform
    ramp = np.arange(256, dtype=np.uint8)[:, None] if mode == "L" else _cube()
    probe = Image.fromarray(ramp)
    before, after = (np.asarray(one.convert("RGB"), np.int16) for one in (probe, transform.apply(probe)))
    return None if np.abs(after - before).max() <= 1 else transform


def _cube() -> np.ndarray:
    """Colours from all of RGB, (1, 4913, 3) uint8."""
    steps = np.linspace(0, 255, 17).astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)


def _describe(error: Exception, source: Path | bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        return _guess(source)
    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"\d+", str(error))
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"{int(pixels[0]) if pixels else 0:,} pixels are more than the {limit:,} that are read; scale it down"
    return " ".join(str(error).split())[:200] or type(error).__name__


def _guess(source: Path | bytes) -> str:
    """What a file is that no decoder knows."""
    with _open_stream(source) as stream:
        head = stream.read(64)
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer: git lfs pull brings the photo"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "it is HEIC: pip install pillow-heif, or convert it"
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
        return "it is a web page, XML or SVG"
    return "it is of no format that is read here"
