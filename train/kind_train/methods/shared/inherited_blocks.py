"""Methods that inherit some blocks of a dense base and train everything, the other blocks from random weights.

What is outside the blocks is inherited too. Which blocks is a fixed choice here, in place of the original selection.
"""

from __future__ import annotations

from collections.abc import Sequence

from kind_core.config import DiTConfig
from kind_core.dit import DivertedTransformer
from kind_train.methods.method import Method

_RATE = 1e-4  # table 7


class InheritedBlocks(Method):
    """A method that inherits the blocks of `inherited(depth)`."""

    can_shard = True

    def learning_rate(self, base: DiTConfig) -> float:
        return _RATE

    def inherited(self, depth: int) -> Sequence[int]:
        """The blocks of so many that are inherited."""
        raise NotImplementedError

    def load(self, model: DivertedTransformer, base: DivertedTransformer, seed: int) -> None:
        places = {f"blocks.{index}." for index in self.inherited(base.config.depth)}
        state = base.learngene_state()
        kept = {
            name: value
            for name, value in state.items()
            if not name.startswith("blocks.") or any(name.startswith(place) for place in places)
        }
        model.load_state_dict(kept, strict=False)
