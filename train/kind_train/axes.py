"""The axes of the plots that a run and a suite draw: values over the images seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """Where the axes lie, in pixels."""

    left: int
    top: int
    right: int
    bottom: int

    def draw(
        self, pen: ImageDraw.ImageDraw, font: Font, value_at: Callable[[float], float], last: float, legend: str
    ) -> None:
        """Five lines from 0 images to `last`, and at the values of `value_at`, told a share of the height."""
        pen.line((self.left, self.top, self.left, self.bottom, self.right, self.bottom), "#555", 1)
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            x, y = self.place(share, share)
            pen.line((self.left, y, self.right, y), "#e4e4e4", 1)
            pen.text((self.left - 8, y), f"{value_at(share):.3g}", "#333", font, anchor="rm")
            pen.text((x, self.bottom + 14), f"{share * last:,.0f}", "#333", font, anchor="mm")
        pen.text(((self.left + self.right) / 2, self.bottom + 42), legend, "#333", font, anchor="mm")

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The pixel at these shares of width and height."""
        return self.left + (self.right - self.left) * x, self.bottom - (self.bottom - self.top) * y
