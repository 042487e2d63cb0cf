"""A small vision transformer whose block matrices are diverted layers, as the DiT's; dense it is the vanilla one.

A classifier is asked what an image shows, so nothing can choose a gate for it: all tailors run, and the gate of an
image's class decides which of them its gradient reaches (diversion, Alg. 1, of the backward pass). The label embedding
of a class is its direction among the features: logits are scaled cosines.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_core.config import NORM_EPS, DiTConfig
from kind_core.dit import Attention, Mlp, make_position_embedding
from kind_core.diverted import Tailor
from kind_core.tailors import TailorBank

_SCALE = 10.0  # of cosines: W.-Y. Chen et al., A Closer Look at Few-shot Classification, 2019
_BANK = "tailors."


class _Block(nn.Module):
    """Attention and MLP, each behind a norm."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=NORM_EPS)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=NORM_EPS)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, tailors: dict[str, Tailor], prefix: str) -> Tensor:
        """x (batch, tokens, hidden) -> the same."""
        x = x + self.attn(self.norm1(x), tailors, f"{prefix}.attn")
        result: Tensor = x + self.mlp(self.norm2(x), tailors, f"{prefix}.mlp")
        return result


class KindViT(nn.Module):
    """Images to logits of the classes of `config`, whose noise and time are of no meaning here.

    Tailors start at nothing (U is 0): with all gates open a new model is its learngene.
    """

    position_embedding: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        d, p = config.hidden_size, config.patch_size
        self.patch_embedding = nn.Conv2d(config.in_channels, d, kernel_size=p, stride=p)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(d, eps=NORM_EPS)
        self.tailors = TailorBank(config)
        self.register_buffer("position_embedding", make_position_embedding(config), persistent=False)
        with torch.no_grad():
            nn.init.xavier_uniform_(self.patch_embedding.weight.flatten(1))
            for name, _, _ in config.matrix_names() if self.tailors.rank else ():
                self.tailors.factors(self.tailors.weight, name)[0].zero_()

    def features(self, images: Tensor, gates: Tensor | None = None, own: Tensor | None = None) -> Tensor:
        """images (batch, 3, size, size) in [-1, 1] -> (batch, hidden), the mean over the tokens.

        gates: float (batch, classes), of all classes or none for each image; None opens none. own: long (batch,), the
        class whose tailor alone the gradient of an image reaches, any other number for no tailor; None reaches all.
        """
        tailors = {} if gates is None else self.tailors.open(gates)
        if own is not None:
            tailors = {name: divert_gradient(tailor, own, self.config.num_classes) for name, tailor in tailors.items()}
        x = self.patch_embedding(images).flatten(2).transpose(1, 2) + self.position_embedding
        for i, block in enumerate(self.blocks):
            x = block(x, tailors, f"blocks.{i}")
        result: Tensor = self.norm(x).mean(1)
        return result

    def forward(self, images: Tensor, gates: Tensor | None = None, own: Tensor | None = None) -> Tensor:
        """Logits (batch, classes); see `features`."""
        directions = F.normalize(self.tailors.label_embeddings(), dim=-1)
        return _SCALE * F.normalize(self.features(images, gates, own), dim=-1) @ directions.T

    def learngene_state(self) -> dict[str, Tensor]:
        """Everything that serves every class; of a dense model all but its classes."""
        return {name: value.detach() for name, value in self.state_dict().items() if not name.startswith(_BANK)}

    def opened(self, count: int) -> Tensor | None:
        """Gates that open every tailor to `count` images; None where there are no tailors."""
        weight = self.tailors.weight
        return None if self.tailors.rank == 0 else weight.new_ones(count, self.config.num_classes)


def divert_gradient(tailor: Tailor, own: Tensor, num_classes: int) -> Tailor:
    """The same tailors, all classes' side by side; the gradient of an image reaches those of `own` alone."""
    width = tailor.s.shape[1]
    if width == 0:
        return tailor
    classes = torch.arange(num_classes, device=own.device).repeat_interleave(width // num_classes)
    reached = own[:, None] == classes
    U, s, V = (torch.where(reached if part.dim() == 2 else reached[..., None], part, part.detach()) for part in tailor)
    return Tailor(U=U, s=s, V=V)


def start_task(base: KindViT, num_classes: int, rank: int) -> KindViT:
    """The learngene of `base` with tailors of `rank` for new classes; of a dense model itself, with new classes."""
    is_dense = base.config.is_dense
    task = KindViT(replace(base.config, num_classes=num_classes, tailor_rank=0 if is_dense else rank))
    task.load_state_dict(base.learngene_state() | {"tailors.weight": task.tailors.weight.detach()})
    return task.to(base.tailors.weight.device)


@torch.no_grad()
def merge(model: KindViT) -> KindViT:
    """The ordinary ViT that `model` is with all its gates open."""
    config = model.config
    if config.is_dense:
        return model
    state = model.learngene_state()
    for name, _, _ in config.matrix_names():
        U, s, V = (state.pop(f"{name}.{factor}") for factor in "UsV")
        weight = (U * s) @ V.T
        for own_U, own_s, own_V in zip(*model.tailors.factors(model.tailors.weight, name), strict=True):
            weight = weight + (own_U.T * own_s) @ own_V
        state[f"{name}.weight"] = weight
    merged = KindViT(replace(config, learngene_rank=None, tailor_rank=0))
    state["tailors.weight"] = model.tailors.label_embeddings()
    merged.load_state_dict(state)
    return merged.to(model.tailors.weight.device)
