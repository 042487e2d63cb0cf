"""LoRA (https://arxiv.org/abs/2106.09685) at the rank of all tailors, by peft."""

from __future__ import annotations

from kind_core.config import DiTConfig
from kind_core.costs.methods import adapter_rank
from kind_train.methods.shared.peft_method import PeftMethod


class Lora(PeftMethod):
    name, title = "lora", "LoRA"

    def settings(self, plan: DiTConfig, classes: int) -> dict[str, object]:
        rank = adapter_rank(plan, classes)
        return {"r": rank, "lora_alpha": rank}


METHOD = Lora()
