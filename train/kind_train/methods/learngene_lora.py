"""Table 4, #2: the learngene of a decomposed base, frozen, and LoRA of the tailors' budget beside it."""

from __future__ import annotations

from kind_train.methods.shared.grown_linear import GrownMethod


class LearngeneLora(GrownMethod):
    name, title = "learngene-lora", "learngene + LoRA (#2)"


METHOD = LearngeneLora()
