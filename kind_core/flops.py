"""Parameters and FLOPs of a DiT by part, counted as the paper does or in full, and the paper's latency floor.

A FLOP count is of one network pass of one sample (guidance takes two). Parameters leave out the fixed
position embedding. A decomposed block matrix of m x n with live rank k is k (m + n + 1) parameters and two
thin products; a dense one is m n of each. Ranks may be fractions, as in the mean over several tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple

from kind_core.config import TIMESTEP_FREQUENCIES, DiTConfig
from kind_core.errors import ConfigError

Convention = Literal["paper", "full"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """Parameters or FLOPs, part by part. `adaln` holds every modulation matrix, the final layer's too."""

    patch_embedding: float
    timestep_embedder: float
    label_embedding: float
    adaln: float
    attention_matrices: float
    attention_products: float
    mlp: float
    norms: float
    final_layer: float

    @property
    def total(self) -> float:
        parts: list[float] = [getattr(self, part.name) for part in fields(self)]
        return sum(parts)


class _Linear(NamedTuple):
    """`copies` equal linear layers, each applied to `tokens` vectors; of `rank` components, or dense."""

    in_features: int
    out_features: int
    copies: int = 1
    tokens: int = 1
    rank: float | None = None

    @property
    def products(self) -> float:
        """Multiplications for one vector, which is also the number of weights without s."""
        m, n, k = self.out_features, self.in_features, self.rank
        return m * n if k is None else k * (m + n)

    @property
    def parameters(self) -> float:
        return self.copies * (self.products + (self.rank or 0) + self.out_features)

    def count_flops(self, convention: Convention) -> float:
        extra = self.out_features + (self.rank or 0) if convention == "paper" else 0
        return self.copies * self.tokens * (2 * self.products + extra)


def count_live_rank(config: DiTConfig, classes: float = 1) -> float:
    """k of a composed model: N_G plus the tailor components of `classes` classes at the mean tailor rank."""
    if config.learngene_rank is None:
        raise ConfigError("a dense model (learngene_rank null) has no live rank")
    if config.tailor_ranks is None:
        return config.learngene_rank + config.tailor_rank * classes
    return config.learngene_rank + sum(config.ranks) * classes / config.num_classes


def count_parameters(config: DiTConfig, *, classes: float | None = None, labels: float | None = None) -> Count:
    """Parameters of a model that holds the learngene and the tailors of `classes` classes, by default of all.

    `labels` is the number of label embeddings, the null label's among them; by default every class and null.
    """
    num_labels = config.num_classes + 1 if labels is None else labels
    if config.is_dense and classes is not None:
        raise ConfigError("a dense model (learngene_rank null) has no tailors to count by class")
    held = config.num_classes if classes is None else classes
    linears = _linears(config, None if config.is_dense else count_live_rank(config, held))
    return Count(
        label_embedding=num_labels * config.num_embedders * config.hidden_size,
        attention_products=0,
        norms=0,
        **{part: sum(layer.parameters for layer in layers) for part, layers in linears.items()},
    )


def count_trainable_parameters(config: DiTConfig, classes: float) -> float:
    """Parameters of `classes` new classes, their tailors and label embeddings: what adaptation trains."""
    base, adapted = (count_parameters(config, classes=n, labels=n).total for n in (0, classes))
    return adapted - base


def count_flops(config: DiTConfig, *, live_rank: float | None = None, convention: Convention = "paper") -> Count:
    """FLOPs of one pass with `live_rank` components a matrix, by default N_G and the widest tailor's.

    `paper`: 2 x MAC of linear and convolution layers, plus one per bias add, per LayerNorm element and per
    scaling by s; the two attention products are left out. It gives the paper's printed figures.
    `full`: 2 x MAC only, of linear and convolution layers and the attention products; no bias, norm or
    scaling terms. Activations, softmax, modulation, residual sums and sinusoids are in neither.
    """
    if convention not in ("paper", "full"):
        raise ValueError(f"convention is {convention!r}, expected 'paper' or 'full'")
    if live_rank is None and config.learngene_rank is not None:
        live_rank = config.learngene_rank + max(config.ranks)
    num_tokens, width = config.num_tokens, config.num_tokens * config.hidden_size
    linears = _linears(config, live_rank)
    return Count(
        label_embedding=0,
        attention_products=4 * num_tokens * width * config.depth if convention == "full" else 0,
        norms=(2 * config.depth + 1) * width if convention == "paper" else 0,
        **{part: sum(layer.count_flops(convention) for layer in layers) for part, layers in linears.items()},
    )


def count_lora_flops(config: DiTConfig, rank: float) -> Count:
    """FLOPs of one pass of the dense model with an unmerged LoRA of `rank` beside every block matrix."""
    twin = replace(config, learngene_rank=None, tailor_rank=0, tailor_ranks=None)
    dense = count_flops(twin)
    adapters = {
        part: sum(layer.count_flops("full") for layer in layers)  # an adapter has no bias
        for part, layers in _block_linears(config, rank).items()
    }
    return replace(dense, **{part: getattr(dense, part) + flops for part, flops in adapters.items()})


def paper_memory_mb(parameters: float) -> float:
    """fp32 megabytes as the paper has them: 4 x the parameters in millions, which it first rounds to 0.1."""
    return 4 * round(parameters / 1e6, 1)


def latency_floor_s(flops: float, sustained_gflops: float, passes: int = 500) -> float:
    """Seconds for `passes` network passes of `flops` each at a device's sustained GFLOPS.

    500 passes, 250 steps of a guidance pair, give the paper's table. Memory traffic, attention, launches,
    precision and the decoder are ignored: a floor, not a forecast.
    """
    return flops * passes / (sustained_gflops * 1e9)


def _linears(config: DiTConfig, rank: float | None) -> dict[str, list[_Linear]]:
    d, patch = config.hidden_size, config.patch_size**2
    outside = {
        "patch_embedding": [_Linear(patch * config.in_channels, d, tokens=config.num_tokens)],
        "timestep_embedder": [_Linear(n, d, copies=config.num_embedders) for n in (TIMESTEP_FREQUENCIES, d)],
        "adaln": [_Linear(d, 6 * d, copies=config.depth), _Linear(d, 2 * d)],
        "final_layer": [_Linear(d, patch * config.out_channels, tokens=config.num_tokens)],
    }
    return outside | _block_linears(config, rank)


def _block_linears(config: DiTConfig, rank: float | None) -> dict[str, list[_Linear]]:
    parts: dict[str, list[_Linear]] = {"attention_matrices": [], "mlp": []}
    for name, (out_features, in_features) in config.matrix_shapes.items():
        layer = _Linear(in_features, out_features, copies=config.depth, tokens=config.num_tokens, rank=rank)
        parts["mlp" if name.startswith("mlp.") else "attention_matrices"].append(layer)
    return parts
