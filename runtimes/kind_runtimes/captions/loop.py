"""The loop of a bundle that draws from captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from kind_runtimes.loop import Loop


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionLoop(Loop):
    """The loop over the programs of one target, with a caption. `class_index` counts the domains."""

    caption: Mapping[str, np.ndarray]

    def choose_class(self, class_index: int) -> Mapping[str, np.ndarray]:
        """The inputs of `step` that say what is drawn."""
        return {**Loop.choose_class(self, class_index), **self.caption}

    @classmethod
    def of(cls, loop: Loop, caption: Mapping[str, np.ndarray]) -> Self:
        """`loop` with the inputs of a caption."""
        return cls(**{field.name: getattr(loop, field.name) for field in fields(loop) if field.init}, caption=caption)
