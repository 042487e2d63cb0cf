"""LoHa (https://arxiv.org/abs/2108.06098): the product of two low-rank matrices, element by element, by peft."""

from __future__ import annotations

from kind_core.config import DiTConfig
from kind_core.costs.methods import loha_rank
from kind_train.methods.shared.peft_method import PeftMethod


class Loha(PeftMethod):
    name, title = "loha", "LoHa"
    config_name = "LoHaConfig"

    def settings(self, plan: DiTConfig, classes: int) -> dict[str, object]:
        rank = loha_rank(plan, classes)
        return {"r": rank, "alpha": rank}


METHOD = Loha()
