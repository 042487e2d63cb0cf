"""Captioned photos of two domains, and words of chance for each caption, in place of a text encoder's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import torch
from PIL import Image

from kind_train.data.captions.store import NULL_CAPTION, append_shard, make_store
from kind_train.data.captions.store_files import EncoderRecord
from tiny_pixart import CHANNELS, save_start, write_pixart

TEXTS = ("a red boat", "a green boat at night", "a blue boat")
PIXELS = {"in_channels": 3, "out_channels": 6}  # of a PixArt that needs no autoencoder


def save_base(path: Path) -> Path:
    """A checkpoint of captions that works on 8 x 8 pixels; the folder of its PixArt lies beside it."""
    write_pixart(path / "pixart", **PIXELS)
    save_start(path / "base", path / "pixart")
    return path / "base"


def write_store(
    path: Path, captions: Sequence[str] = TEXTS, *, channels: int = CHANNELS, tokens: int = 120, encoder: str = "chance"
) -> Path:
    """A cache of embedded captions, as many words in each as the text has and one for its end."""
    path.mkdir(parents=True)
    make_store(path, EncoderRecord(name=encoder, sha256=encoder, channels=channels, tokens=tokens))
    texts = [NULL_CAPTION, *captions]
    words = []
    for text in texts:
        generator = torch.Generator().manual_seed(crc32(text.encode()))
        words.append(torch.randn(len(text.split()) + 1, channels, generator=generator))
    append_shard(path, texts, words)
    return path


def save_picture(file: Path, number: int) -> None:
    """Noise on the colour that its caption, `TEXTS[number % 3]`, names."""
    generator = torch.Generator().manual_seed(number)
    pixels = torch.randint(0, 64, (8, 8, 3), generator=generator)
    pixels[..., number % 3] += 160
    Image.fromarray(pixels.byte().numpy()).save(file)


def write_photos(path: Path, num_photos: int = 12, domains: Sequence[str] = ("comic", "map")) -> Path:
    """A folder a domain, and a .txt beside each photo."""
    for number in range(num_photos):
        folder = path / domains[number % len(domains)]
        folder.mkdir(parents=True, exist_ok=True)
        save_picture(folder / f"{number:03d}.png", number)
        (folder / f"{number:03d}.txt").write_text(f"{TEXTS[number % 3]}\n")
    return path
