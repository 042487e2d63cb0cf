"""Between an app's pictures, (height, width, 3) uint8, and a program's arrays, (1, 3, height, width) in 0..255."""

from __future__ import annotations

import numpy as np

UInt8Array = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def write_image(value: FloatArray, layout: str) -> UInt8Array:
    """Pixels of a program's value (1, channels, height, width) in 0..255, as `predict` gives them: RGB, or grey."""
    # A pixel has no NaN: it becomes black
    rounded = np.rint(np.nan_to_num(value[0].astype(np.float32), nan=0.0))
    planes: UInt8Array = np.clip(rounded, 0, 255).astype(np.uint8)
    if layout == "GRAYSCALE":
        return planes.reshape(planes.shape[1:])
    return np.ascontiguousarray(_order_channels(planes, layout).transpose(1, 2, 0))


def read_image(pixels: UInt8Array, layout: str) -> FloatArray:
    """The program's value (1, channels, height, width) of an RGB or grey picture; the program itself scales it."""
    planes = pixels[None] if layout == "GRAYSCALE" else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(_order_channels(planes, layout)[None], dtype=np.float32)


def _order_channels(planes: UInt8Array, layout: str) -> UInt8Array:
    return planes[::-1] if layout == "BGR" else planes
