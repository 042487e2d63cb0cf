"""Full fine-tuning: every weight of a dense base trains."""

from __future__ import annotations

from kind_core.config import DiTConfig
from kind_train.methods.method import Method

_RATE = 1e-4  # table 7


class FullFineTuning(Method):
    name, title = "full-ft", "full fine-tuning"
    can_shard = True

    def learning_rate(self, base: DiTConfig) -> float:
        return _RATE


METHOD = FullFineTuning()
