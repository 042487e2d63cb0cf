"""DoRA (https://arxiv.org/abs/2402.09353): LoRA of the direction beside a trained length of each output, by peft."""

from __future__ import annotations

from kind_core.config import DiTConfig
from kind_train.methods.lora import Lora


class Dora(Lora):
    name, title = "dora", "DoRA"

    def settings(self, plan: DiTConfig, classes: int) -> dict[str, object]:
        return super().settings(plan, classes) | {"use_dora": True}


METHOD = Dora()
