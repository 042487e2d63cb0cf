"""A photo becomes the pixels that a viewer shows; what cannot be read says why, in one line."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from kind_train.data.decoding import UnreadableImage, decode_photo, is_photo_name

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
# a different colour in each corner, so that no turn goes unseen
UPRIGHT = np.kron(np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8), np.ones((16, 16, 1), np.uint8))
# how a camera stores UPRIGHT under each value of EXIF's Orientation
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


def encode(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))
    image.save(stream, kind, **options)
    return stream.getvalue()


def decode(data: bytes | Path, size: int = 32) -> np.ndarray:
    """(size, size, 3) as int, to subtract."""
    return decode_photo(data, size).transpose(1, 2, 0).astype(int)


def reason(data: bytes | Path) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode_photo(data, 8)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
    ],
)
def test_photos_are_turned_as_exif_says(kind: str, options: dict[str, Any]) -> None:
    for orientation, store in STORED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = decode(encode(store(UPRIGHT), kind, exif=exif, **options))
        assert np.abs(turned - UPRIGHT).max() < 12, orientation


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_broken_exif_turns_nothing(exif: bytes) -> None:
    assert np.abs(decode(encode(UPRIGHT, "JPEG", quality=100, subsampling=0, exif=exif)) - UPRIGHT).max() < 12


def cut_outs() -> dict[str, bytes]:
    """A square of one colour amid hidden colours, in every way to say what is transparent."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    noise[8:24, 8:24] = (90, 90, 90)
    alpha = np.zeros((32, 32, 1), np.uint8)
    alpha[8:24, 8:24] = 255
    rgba = Image.fromarray(np.concatenate([noise, alpha], -1))
    grey_alpha = Image.fromarray(np.concatenate([noise[..., :1], alpha], -1), "LA")
    key = np.full((32, 32), 7, np.uint8)
    key[8:24, 8:24] = 90
    colour_key = np.full((32, 32, 3), (0, 255, 0), np.uint8)
    colour_key[8:24, 8:24] = 90
    palette = Image.fromarray((key == 90).astype(np.uint8), "P")
    palette.putpalette([0, 255, 0, 90, 90, 90])
    return {
        "RGBA": encode(rgba),
        "RGBA in WebP": encode(rgba, "WEBP", lossless=True, exact=True),
        "RGBA in TIFF": encode(rgba, "TIFF"),
        "LA": encode(grey_alpha),
        "palette": encode(palette, transparency=0),
        "palette with alpha": encode(palette, transparency=bytes([0, 255])),
        "GIF": encode(palette, "GIF", transparency=0),
        "one grey": encode(key, transparency=7),
        "one grey of 16 bits": encode(key.astype(np.uint16) * 257, transparency=7 * 257),
        "one colour": encode(colour_key, transparency=(0, 255, 0)),
        "LA with a profile": encode(grey_alpha, icc_profile=SRGB),
    }


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("what", cut_outs())
def test_what_is_transparent_lies_on_white(what: str) -> None:
    pixels = decode(cut_outs()[what])
    assert (pixels[9:23, 9:23] == 90).all()
    pixels[8:24, 8:24] = 255
    assert (pixels == 255).all()


def test_half_transparent_is_half_white() -> None:
    assert np.abs(decode(encode(Image.new("RGBA", (8, 8), (200, 0, 100, 128))), 8)[0, 0] - (227, 127, 177)).max() <= 1


def tiff(values: bytes, bits: int, photometric: int, side: int = 16) -> bytes:
    """A grey TIFF of one strip, as cameras of microscopes write it: Pillow writes no such depths."""
    tags = [(256, side), (257, side), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, side)]
    tags.append((279, len(values)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(values)) + values + struct.pack("<H", len(tags)) + entries + bytes(4)


RAMP = np.arange(0, 256, dtype=np.uint16).reshape(16, 16)


def pack_12_bits(values: np.ndarray) -> bytes:
    pairs = values.reshape(-1, 2).astype(np.uint32)
    three = (pairs[:, 0] << 12) | pairs[:, 1]
    return b"".join(int(one).to_bytes(3, "big") for one in three)


@pytest.mark.parametrize(
    ("what", "data"),
    {
        "PNG": encode(RAMP * 257),
        "TIFF": encode(RAMP * 257, "TIFF"),
        "PGM": encode(RAMP * 257, "PPM"),
        "JPEG 2000": encode(RAMP * 257, "JPEG2000"),
        "TIFF of 12 bits": tiff(pack_12_bits(np.rint(RAMP * (4095 / 255))), 12, 1),
        "TIFF whose white is zero": tiff((65535 - RAMP * 257).tobytes(), 16, 0),
        "TIFF of floats": encode((RAMP / 255).astype(np.float32), "TIFF"),
    }.items(),
)
def test_deep_samples_are_scaled_not_clipped(what: str, data: bytes) -> None:
    assert np.abs(decode(data, 16) - RAMP.astype(int)[..., None]).max() == 0


def test_samples_without_a_known_white_are_named() -> None:
    assert reason(encode(RAMP.astype(np.float32), "TIFF")) == (
        "its floating-point samples go from 0 to 255, expected 0 to 1"
    )
    assert "nan" in reason(encode(np.full((8, 8), np.nan, np.float32), "TIFF"))
    assert "nothing says which one is white" in reason(encode(RAMP.astype(np.int32), "TIFF"))


def swapped_profile() -> bytes:
    """An RGB whose red is sRGB's green, and the other way round."""
    data = bytearray(SRGB)
    places = [132 + 12 * i for i in range(int.from_bytes(data[128:132], "big"))]
    red, green = (next(p for p in places if data[p : p + 4] == name) for name in (b"rXYZ", b"gXYZ"))
    data[red : red + 4], data[green : green + 4] = data[green : green + 4], data[red : red + 4]
    return bytes(data)


def test_colour_profiles_are_obeyed() -> None:
    image, profile = Image.new("RGB", (8, 8), (200, 30, 60)), swapped_profile()
    assert np.abs(decode(encode(image, icc_profile=profile), 8)[0, 0] - (30, 200, 60)).max() <= 1
    assert np.abs(decode(encode(image, "TIFF", icc_profile=profile), 8)[0, 0] - (30, 200, 60)).max() <= 1
    image.putalpha(255)
    assert np.abs(decode(encode(image, icc_profile=profile), 8)[0, 0] - (30, 200, 60)).max() <= 1


@pytest.mark.parametrize(
    "profile", [SRGB, b"no profile", swapped_profile()[:200], b""], ids=["sRGB", "none", "cut", "empty"]
)
def test_srgb_and_broken_profiles_change_nothing(profile: bytes) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert (decode(encode(pixels, icc_profile=profile), 8) == pixels).all()


def test_a_profile_of_other_colours_changes_nothing() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert (decode(encode(grey, icc_profile=swapped_profile()), 8) == grey[..., None]).all()
    assert np.abs(decode(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), 8)[0, 0] - RED).max() <= 2


@pytest.mark.parametrize(("kind", "suffix"), [("GIF", ".gif"), ("PNG", ".apng"), ("WEBP", ".webp"), ("TIFF", ".tif")])
def test_the_first_frame_of_several_counts(kind: str, suffix: str) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(first, kind, save_all=True, append_images=[second], **options)
    assert np.abs(decode(data, 8) - RED).max() <= 1
    assert is_photo_name(f"x{suffix}")


@pytest.mark.parametrize("name", ["a.jpg", "A.JPEG", "b.jfif", "c.tif", "d.avif", "e.gif", "f.mpo", "g.jp2", "h.webp"])
def test_every_format_of_pillow_counts(name: str) -> None:
    assert is_photo_name(name)


@pytest.mark.parametrize("name", ["a.txt", "a", ".jpg", "a.pdf", "a.eps", "a.h5", "a.mpg", "a.heic", "a.jpg.txt"])
def test_what_is_no_photo_does_not_count(name: str) -> None:
    assert not is_photo_name(name)


def test_heic_counts_where_a_plugin_is_installed(tmp_path: Path) -> None:
    (tmp_path / "pillow_heif.py").write_text(
        "from PIL import Image\n"
        "def register_heif_opener():\n"
        "    def open_heif(file, name):\n"
        "        return Image.new('RGB', (8, 8), (9, 8, 7))\n"
        "    Image.register_open('HEIF', open_heif, lambda prefix: prefix[4:8] == b'ftyp')\n"
        "    Image.register_extension('HEIF', '.heic')\n"
    )
    code = (
        "from kind_train.data.decoding import decode_photo, is_photo_name\n"
        "print(is_photo_name('x.heic'), decode_photo(b'0000ftypheic' + bytes(20), 8)[:, 0, 0].tolist())"
    )
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert said.stdout == "True [9, 8, 7]\n"


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns above 1000 pixels and refuses above 2000."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)


@pytest.mark.usefixtures("low_limit")
def test_a_jpeg_over_the_limit_is_read_scaled_down() -> None:
    large = np.kron(UPRIGHT, np.ones((4, 4, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for orientation, data in ((1, large), (6, STORED[6](large))):
        exif[0x0112] = orientation
        pixels = decode(encode(data, "JPEG", quality=100, subsampling=0, exif=exif), 8)
        for corner, colour in (((1, 1), RED), ((1, 6), GREEN), ((6, 1), BLUE), ((6, 6), WHITE)):
            assert np.abs(pixels[corner] - colour).max() < 12


@pytest.mark.usefixtures("low_limit")
def test_another_photo_over_the_limit_is_named_with_its_size() -> None:
    large = np.zeros((50, 60, 3), np.uint8)
    assert reason(encode(large)) == "3,000 pixels are more than the 2,000 that are read; scale it down"
    assert reason(encode(large, "JPEG", progressive=True)) == (
        "60 x 50 are too many pixels to read at once; scale it down"
    )


@pytest.mark.usefixtures("low_limit")
def test_no_warning_of_pillow_reaches_the_user() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(encode(np.zeros((32, 40, 3), np.uint8))).max() == 0


PHOTO = encode(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (PHOTO[: len(PHOTO) // 2], "truncated"),
        (PHOTO[:60], "truncated"),
        (b"not an image at all", "it is of no format that is read here"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "pillow-heif"),
        (b"<!DOCTYPE html><title>404</title>", "it is a web page"),
        # Pillow would start Ghostscript
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "it is of no format that is read here"),
    ],
)
def test_what_cannot_be_read_says_why(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(data)
    for source in (data, tmp_path / "x.jpg"):
        said = reason(source)
        assert words in said
        assert len(said.splitlines()) == 1


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "pipe.jpg") == "it is no regular file"
    assert reason(Path("/dev/zero")) == "it is no regular file"
    assert reason(tmp_path / "none.jpg") == "there is no such file"


def test_damaged_photos_end_in_a_reason() -> None:
    rng = np.random.default_rng(1)
    kinds = ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "AVIF", "JPEG2000", "TGA", "ICO", "PPM", "SGI", "DDS", "PCX")
    for kind in kinds:
        whole = encode(UPRIGHT, kind)
        for _ in range(20):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), 400), 6):
                data[place] = rng.integers(0, 256)
            with contextlib.suppress(UnreadableImage):
                assert decode_photo(bytes(data), 8).shape == (3, 8, 8)
