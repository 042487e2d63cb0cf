"""Table 4, #1: as many random singular triplets of a dense base as a learngene has components, and LoRA beside them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kind_core.config import DiTConfig
from kind_core.dit import DivertedTransformer
from kind_train.methods.shared.grown_linear import GrownMethod


class SvdLora(GrownMethod):
    name, title = "svd-lora", "random SVD triplets + LoRA (#1)"
    needs_dense = True

    def plan(self, base: DiTConfig, tailor_rank: int | None = None) -> DiTConfig:
        plan = super().plan(base, tailor_rank)
        return replace(plan, learngene_rank=min(plan.learngene_rank or 1, base.hidden_size, base.mlp_size))

    @torch.no_grad()
    def load(self, model: DivertedTransformer, base: DivertedTransformer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        state: dict[str, Tensor] = base.learngene_state()
        for name, _, _ in base.config.matrix_names():
            U, s, Vt = torch.linalg.svd(state.pop(f"{name}.weight").float(), full_matrices=False)
            kept = torch.randperm(len(s), generator=generator)[: model.config.learngene_rank]
            state |= {f"{name}.U": U[:, kept], f"{name}.s": s[kept], f"{name}.V": Vt[kept].T}
        model.load_state_dict(state, strict=False)


METHOD = SvdLora()
