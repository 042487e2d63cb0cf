"""An accelerator: shared components that make a model draw in few steps, beside a learngene and tailors that stay.

LCM-LoRA (https://arxiv.org/abs/2311.05556) in the form of a KIND model: a low-rank addition for every class, which
serves tailors that it was not distilled with.
"""

from __future__ import annotations

from kind_core.config import DiTConfig
from kind_core.dit import KindDiT
from kind_train.methods.method import AddedMethod
from kind_train.methods.shared.grown_linear import fold_grown, grow


class Accelerator(AddedMethod):
    """`rank` components in every matrix, behind those of the learngene; no other number is trained."""

    name, title = "accelerator", "accelerator"
    needs_dense = False

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def prepare(self, model: KindDiT, plan: DiTConfig) -> None:
        model.requires_grad_(False)
        grow(model, self.rank, as_lora=True)

    def fold(self, model: KindDiT) -> DiTConfig:
        return fold_grown(model)
