"""Pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image


def make_grid(pictures: Sequence[np.ndarray], columns: int, gap: int = 2) -> Image.Image:
    """Pictures, uint8 (height, width, 3) of one size, as one picture with `columns` a row."""
    height, width = pictures[0].shape[0] + gap, pictures[0].shape[1] + gap
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    canvas = Image.new("RGB", (columns * width - gap, rows * height - gap), "white")
    for i, picture in enumerate(pictures):
        canvas.paste(Image.fromarray(picture), (i % columns * width, i // columns * height))
    return canvas
