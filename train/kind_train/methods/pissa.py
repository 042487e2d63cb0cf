"""PiSSA (https://arxiv.org/abs/2404.02948): LoRA that starts from the largest singular triplets, by peft."""

from __future__ import annotations

from kind_core.config import DiTConfig
from kind_train.methods.lora import Lora


class Pissa(Lora):
    name, title = "pissa", "PiSSA"

    def settings(self, plan: DiTConfig, classes: int) -> dict[str, object]:
        return super().settings(plan, classes) | {"init_lora_weights": "pissa"}


METHOD = Pissa()
