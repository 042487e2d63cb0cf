"""Methods that put nothing into the model: they choose what it inherits, and what of it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kind_core.config import DiTConfig
from kind_train.methods.method import SMALL_RATE, Method, freeze

if TYPE_CHECKING:
    from kind_core.dit import DivertedTransformer


class Tailors(Method):
    """KIND: the learngene of a decomposed base, frozen, and a fresh tailor for every new class behind its gate."""

    name, title = "tailors", "KIND"
    needs_dense = False
    keeps_base = True
    can_shard = True
    label_dropout = 0.0  # no label, no tailor, nothing to train

    def prepare(self, model: DivertedTransformer, plan: DiTConfig) -> None:
        freeze(model)


class FullFineTuning(Method):
    """Every weight of a dense base trains."""

    name, title = "full-ft", "full fine-tuning"
    can_shard = True
    rate = SMALL_RATE


class InheritedBlocks(Method):
    """Inherits the blocks of `inherited(depth)` of a dense base and trains everything, the others from random weights.

    What is outside the blocks is inherited too. Which blocks is a fixed choice here, in place of the original one.
    """

    can_shard = True
    rate = SMALL_RATE

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


class HeurLg(InheritedBlocks):
    """https://arxiv.org/abs/2106.06788: the last quarter of the blocks is inherited."""

    name, title = "heur-lg", "Heur-LG"

    def inherited(self, depth: int) -> Sequence[int]:
        return range(depth - max(1, depth // 4), depth)


class AutoLg(InheritedBlocks):
    """https://arxiv.org/abs/2305.02279: the first half of the blocks is inherited."""

    name, title = "auto-lg", "Auto-LG"

    def inherited(self, depth: int) -> Sequence[int]:
        return range(max(1, depth // 2))
