"""The diffusion transformer of KIND: a DiT with adaLN-Zero whose block matrices are diverted layers.

Architecture: Peebles and Xie, https://arxiv.org/abs/2212.09748, in the form of diffusers' `DiTTransformer2DModel`,
which a model with one fixed gate equals.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_core.config import NORM_EPS, TIMESTEP_FREQUENCIES, DiTConfig
from kind_core.diverted import DenseLinear, DivertedLinear, Tailor, project
from kind_core.tailors import TailorBank


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (batch, tokens, hidden), shift and scale (batch, hidden)."""
    return x * (1 + scale[:, None]) + shift[:, None]


def make_matrix(config: DiTConfig, in_features: int, out_features: int) -> DivertedLinear | DenseLinear:
    """A block matrix: diverted, or dense where the config is dense."""
    if config.learngene_rank is None:
        layer = DenseLinear(in_features, out_features)
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
        return layer
    return DivertedLinear(in_features, out_features, config.learngene_rank, max(config.ranks))


class Attention(nn.Module):
    """Multi-head self-attention over diverted q, k, v and o."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        d = config.hidden_size
        self.num_heads = config.num_heads
        self.q, self.k, self.v, self.o = (make_matrix(config, d, d) for _ in range(4))

    def forward(self, x: Tensor, tailors: dict[str, Tailor], prefix: str) -> Tensor:
        """x (batch, tokens, hidden) -> the same."""
        layers = [self.q, self.k, self.v]
        opened = [tailors.get(f"{prefix}.{name}") for name in "qkv"]
        if all(isinstance(layer, DivertedLinear) for layer in layers):
            projected = project(layers, x, opened)  # type: ignore[arg-type]  # just checked
        else:
            projected = [layer(x, tailor) for layer, tailor in zip(layers, opened, strict=True)]
        q, k, v = (
            torch.unflatten(one, -1, (self.num_heads, -1)).transpose(1, 2)  # (batch, heads, tokens, head size)
            for one in projected
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        result: Tensor = self.o(y, tailors.get(f"{prefix}.o"))
        return result


class Mlp(nn.Module):
    """Two diverted matrices with tanh-GELU between."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.up = make_matrix(config, config.hidden_size, config.mlp_size)
        self.down = make_matrix(config, config.mlp_size, config.hidden_size)

    def forward(self, x: Tensor, tailors: dict[str, Tailor], prefix: str) -> Tensor:
        """x (batch, tokens, hidden) -> the same."""
        h = F.gelu(self.up(x, tailors.get(f"{prefix}.up")), approximate="tanh")
        result: Tensor = self.down(h, tailors.get(f"{prefix}.down"))
        return result


class Block(nn.Module):
    """A DiT block: attention and MLP, each modulated by the conditioning and opened by a learned gate (adaLN-Zero)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.adaln = nn.Linear(config.hidden_size, 6 * config.hidden_size)
        self.norm1 = nn.LayerNorm(config.hidden_size, elementwise_affine=False, eps=NORM_EPS)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, elementwise_affine=False, eps=config.mlp_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, conditioning: Tensor, tailors: dict[str, Tailor], prefix: str) -> Tensor:
        """x (batch, tokens, hidden), conditioning after SiLU (batch, hidden) -> like x."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaln(conditioning).chunk(6, dim=1)
        x = x + gate1[:, None] * self.attn(modulate(self.norm1(x), shift1, scale1), tailors, f"{prefix}.attn")
        result: Tensor = x + gate2[:, None] * self.mlp(
            modulate(self.norm2(x), shift2, scale2), tailors, f"{prefix}.mlp"
        )
        return result


class TimestepEmbedder(nn.Module):
    """Sinusoids of a number (a timestep, a length in pixels, a ratio) through a two-layer MLP.

    `frequency_shift` is diffusers' `downscale_freq_shift`: with 1 the lowest frequency is 1/10000, with 0 just above.
    """

    def __init__(self, hidden_size: int, frequency_shift: int = 1) -> None:
        super().__init__()
        self.frequency_shift = frequency_shift
        self.fc1 = nn.Linear(TIMESTEP_FREQUENCIES, hidden_size)
        self.fc2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, numbers: Tensor) -> Tensor:
        """numbers (batch,), fractions allowed; timesteps are train timesteps, 0 to 1000 -> (batch, hidden)."""
        half = TIMESTEP_FREQUENCIES // 2
        exponent = torch.arange(half, dtype=torch.float32, device=numbers.device) / (half - self.frequency_shift)
        angles = numbers.float()[:, None] * torch.exp(-math.log(10000) * exponent)
        sinusoids = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.fc1.weight.dtype)
        result: Tensor = self.fc2(F.silu(self.fc1(sinusoids)))
        return result


class BlockEmbedders(nn.ModuleList):
    """A timestep embedder for each block."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(TimestepEmbedder(config.hidden_size) for _ in range(config.depth))

    def forward(self, timesteps: Tensor) -> Tensor:
        """timesteps (batch,) -> (batch, depth, hidden)."""
        return torch.stack([embedder(timesteps) for embedder in self], dim=1)


class FinalLayer(nn.Module):
    """Modulated norm and a linear layer from tokens to patches."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.adaln = nn.Linear(config.hidden_size, 2 * config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, elementwise_affine=False, eps=NORM_EPS)
        self.linear = nn.Linear(config.hidden_size, config.patch_size**2 * config.out_channels)

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """x (batch, tokens, hidden) -> (batch, tokens, patch * patch * channels)."""
        shift, scale = self.adaln(conditioning).chunk(2, dim=1)
        result: Tensor = self.linear(modulate(self.norm(x), shift, scale))
        return result


class DivertedTransformer(nn.Module):
    """What every decomposable transformer has: diverted matrices in its blocks, and the bank of their tailors."""

    blocks: nn.ModuleList
    tailors: TailorBank

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config

    def fresh(self, config: DiTConfig) -> Self:
        """A random model of this kind with another shape."""
        return type(self)(config)

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """tokens (batch, T, patch * patch * channels) -> (batch, channels, size, size)."""
        side, p = self.config.sample_size // self.config.patch_size, self.config.patch_size
        c = self.config.out_channels
        x = tokens.reshape(-1, side, side, p, p, c)  # (batch, h, w, p, q, c)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, c, side * p, side * p)

    def learngene_state(self) -> dict[str, Tensor]:
        """Everything that serves every class, by the names of `learngene.safetensors`."""
        return {k: v.detach() for k, v in self.state_dict().items() if not k.startswith("tailors.")}


class KindDiT(DivertedTransformer):
    """The decomposable DiT. Labels choose the label embedding, gates open tailors; they are separate on purpose."""

    position_embedding: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config)
        d, p = config.hidden_size, config.patch_size
        self.patch_embedding = nn.Conv2d(config.in_channels, d, kernel_size=p, stride=p)
        self.timestep_embedder = BlockEmbedders(config) if config.block_embedders else TimestepEmbedder(d)
        self.null_label_embedding = nn.Parameter(torch.empty(config.label_shape))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final = FinalLayer(config)
        self.tailors = TailorBank(config)
        self.register_buffer("position_embedding", make_position_embedding(config), persistent=False)
        self._init_weights()

    @torch.no_grad()
    def _init_weights(self) -> None:
        nn.init.xavier_uniform_(self.patch_embedding.weight.flatten(1))
        nn.init.normal_(self.null_label_embedding, std=0.02)
        for layer in self.timestep_embedder.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        for name in ("patch_embedding.bias", "final.linear.weight", "final.linear.bias"):
            nn.init.zeros_(self.get_parameter(name))
        for name, parameter in self.named_parameters():
            if ".adaln." in name:
                nn.init.zeros_(parameter)

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        labels: Tensor,
        gates: Tensor,
        rows: Tensor | None = None,
        ends: Tensor | None = None,
    ) -> Tensor:
        """The network's prediction, (batch, out channels, size, size).

        latents (batch, channels, size, size); timesteps (batch,) in train timesteps; ends, alike, where the step will
        end, by default where it begins: only a distilled model looks there. labels: long (batch,), any
        number outside 0..classes-1 for the null label, or float (batch, classes), the weights of a mean (all zero:
        the null label). gates: see `TailorBank.open`. rows: tailor rows to index instead of the whole bank, labels
        and gates then count in them.
        """
        tailors = self.tailors.open(gates, rows)
        by_block = self._condition(timesteps, timesteps if ends is None else ends, labels, rows)
        x = self.patch_embedding(latents).flatten(2).transpose(1, 2) + self.position_embedding
        for i, block in enumerate(self.blocks):
            own = {name: tailor for name, tailor in tailors.items() if name.startswith(f"blocks.{i}.")}
            x = block(x, by_block[i], own, f"blocks.{i}")
        return self.unpatchify(self.final(x, by_block[-1]))

    def _condition(self, timesteps: Tensor, ends: Tensor, labels: Tensor, rows: Tensor | None) -> list[Tensor]:
        """What modulates each block and the final layer, (batch, hidden) each."""
        embedded = F.silu(self.embed_conditioning(timesteps, labels, rows))
        choices = embedded.unbind(1) if self.config.block_embedders else (embedded,)
        if self.config.end_blocks:
            choices = (*choices, F.silu(self.embed_conditioning(ends, labels, rows)))
        return [choices[index] for index in self.config.read_embeddings]

    def embed_conditioning(self, timesteps: Tensor, labels: Tensor, rows: Tensor | None = None) -> Tensor:
        """Sum of timestep and label embedding before SiLU, (batch, hidden); of each block's, (batch, depth, hidden)."""
        result: Tensor = self.timestep_embedder(timesteps) + self.embed_labels(labels, rows)
        return result

    def embed_labels(self, labels: Tensor, rows: Tensor | None = None) -> Tensor:
        """(batch, hidden), or (batch, depth, hidden), from the labels of `forward`."""
        table, null = self.tailors.label_embeddings(rows).flatten(1), self.null_label_embedding.flatten()
        if labels.dtype != torch.long:
            is_class = labels.any(dim=1)
            embedded = labels.to(table.dtype) @ table
        else:
            is_class = (labels >= 0) & (labels < table.shape[0])
            embedded = table[labels * is_class]
        return torch.where(is_class[:, None], embedded, null).view(-1, *self.config.label_shape)


def make_position_embedding(config: DiTConfig, interpolation_scale: int = 1) -> Tensor:
    """Fixed 2-D sine-cosine embedding, (1, tokens, hidden); columns before rows, as diffusers' `PatchEmbed`.

    `interpolation_scale`: how many patches lie as far apart as two of the sizes that a model was first trained on.
    """
    side, d = config.sample_size // config.patch_size, config.hidden_size
    omega = 10000.0 ** -(torch.arange(d // 4, dtype=torch.float64) / (d / 4))
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [grid.reshape(-1, 1).double() / interpolation_scale * omega for grid in (column, row)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1).float()[None]


@torch.no_grad()
def dense_state(model: DivertedTransformer, gate: int | None = None) -> dict[str, Tensor]:
    """The learngene's tensors with `<matrix>.weight` = W_G + W_gate in place of the factors; no gate: W_G alone.

    Of a dense model they are its own. Label embeddings of classes are not among them.
    """
    state = model.learngene_state()
    if model.config.is_dense:
        return state
    tailor = {} if gate is None else model.tailors.state_of(gate)
    for name, _, _ in model.config.matrix_names():
        terms = [source for source in (state, tailor) if f"{name}.s" in source]
        state[f"{name}.weight"] = sum((_product(source, name) for source in terms), torch.tensor(0.0))
        for factor in "UsV":
            del state[f"{name}.{factor}"]
    return state


def _product(factors: dict[str, Tensor], name: str) -> Tensor:
    return (factors[f"{name}.U"] * factors[f"{name}.s"]) @ factors[f"{name}.V"].T
