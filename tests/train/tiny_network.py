"""A network of published figures, small enough to need no weights."""

from __future__ import annotations

import numpy as np

from kind_train.evaluate.networks import Figure, Observed, compare_sets


class Colours:
    """A network that sees the mean colour of a picture."""

    name = "mean colours"
    sha256 = "0" * 64

    def observe(self, images: np.ndarray) -> Observed:
        return {"colour": images.mean((1, 2)).astype(np.float32)}

    def compare(self, generated: Observed, held_out: Observed, training: Observed) -> dict[str, Figure]:
        sets = (one["colour"] for one in (generated, held_out, training))
        return {"colour_distance": compare_sets(self, *sets)}
