"""Tiny models for tests, random in zero-initialised layers too, so that every part shows in the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kind_core.classes import ClassInfo
from kind_core.config import DiffusionConfig, DiTConfig, ModelConfig
from kind_core.dit import KindDiT

CLASSES = (
    ClassInfo(id="n02510455", names=("giant panda", "panda bear")),
    ClassInfo(id="n02509815", names=("lesser panda", "red panda")),
    ClassInfo(id="n07749582", names=("lemon",)),
    ClassInfo(id="n09428293", names=("seashore", "coast")),
)


def tiny_config(**changes: Any) -> DiTConfig:
    """16 tokens of width 32, two blocks, four classes, N_G 8, N_T 2; `changes` are fields."""
    config = DiTConfig(
        sample_size=8, patch_size=2, in_channels=3, hidden_size=32, depth=2, num_heads=2, num_classes=4,
        learngene_rank=8, tailor_rank=2,
    )  # fmt: skip
    return replace(config, **changes)


def tiny_model(config: DiTConfig | None = None, seed: int = 0) -> KindDiT:
    """A randomised model in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = KindDiT(config or tiny_config())
    return randomise(model, seed).eval()


@torch.no_grad()
def randomise(model: KindDiT, seed: int = 0) -> KindDiT:
    """Draw what starts at zero (adaLN, final layer, biases), and label embeddings large enough to matter."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(std=0.3, generator=generator)
    for embedding in (model.null_label_embedding, model.tailors.label_embeddings()):
        embedding.normal_(generator=generator)
    return model


def tiny_model_config(dit: DiTConfig | None = None, **diffusion: Any) -> ModelConfig:
    """The config of a checkpoint of `dit`; `diffusion` are fields of DiffusionConfig."""
    dit = dit or tiny_config()
    return ModelConfig(dit=dit, diffusion=DiffusionConfig(**diffusion), classes=CLASSES[: dit.num_classes])


def tiny_batch(config: DiTConfig, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(latents, timesteps) of `batch` samples."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, config.in_channels, config.sample_size, config.sample_size)
    return torch.randn(shape, generator=generator), torch.rand(batch, generator=generator) * 999


@torch.no_grad()
def compose_dense(model: KindDiT, classes: Sequence[int]) -> KindDiT:
    """The ordinary DiT whose W is U diag(s) V^T of the learngene plus those of `classes`, as stored in files.

    It keeps every label embedding, so it takes the same labels; gates do nothing.
    """
    dense = KindDiT(replace(model.config, learngene_rank=None, tailor_rank=0, tailor_ranks=None)).eval()
    state = model.learngene_state()
    tailors = [model.tailors.state_of(index) for index in classes]
    for name, _, _ in model.config.matrix_names():
        terms = [state, *(tailor for tailor in tailors if f"{name}.U" in tailor)]
        products = [t[f"{name}.U"] @ torch.diag(t[f"{name}.s"]) @ t[f"{name}.V"].T for t in terms]
        state[f"{name}.weight"] = torch.stack(products).sum(dim=0)
        for factor in "UsV":
            del state[f"{name}.{factor}"]
    state["tailors.weight"] = model.tailors.label_embeddings().flatten(1)
    dense.load_state_dict(state)
    return dense
