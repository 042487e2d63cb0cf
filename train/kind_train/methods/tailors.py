"""KIND: the learngene of a decomposed base, frozen, and a fresh tailor for every new class behind its gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kind_core.config import DiTConfig
from kind_train.methods.method import Method, freeze

if TYPE_CHECKING:
    from kind_core.dit import DivertedTransformer


class Tailors(Method):
    name, title = "tailors", "KIND"
    needs_dense = False
    keeps_base = True
    can_shard = True
    label_dropout = 0.0  # no label, no tailor, nothing to train

    def prepare(self, model: DivertedTransformer, plan: DiTConfig) -> None:
        freeze(model)


METHOD = Tailors()
