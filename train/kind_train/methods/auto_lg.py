"""Auto-LG (https://arxiv.org/abs/2305.02279): the first half of the blocks is inherited."""

from __future__ import annotations

from collections.abc import Sequence

from kind_train.methods.shared.inherited_blocks import InheritedBlocks


class AutoLg(InheritedBlocks):
    name, title = "auto-lg", "Auto-LG"

    def inherited(self, depth: int) -> Sequence[int]:
        return range(max(1, depth // 2))


METHOD = AutoLg()
