"""Heur-LG (https://arxiv.org/abs/2106.06788): the last quarter of the blocks is inherited."""

from __future__ import annotations

from collections.abc import Sequence

from kind_train.methods.shared.inherited_blocks import InheritedBlocks


class HeurLg(InheritedBlocks):
    name, title = "heur-lg", "Heur-LG"

    def inherited(self, depth: int) -> Sequence[int]:
        return range(depth - max(1, depth // 4), depth)


METHOD = HeurLg()
