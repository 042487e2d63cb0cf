"""The compact model: what is left of a KIND model for some classes, some steps and one sampler, as plain data.

Rewrites replace it piece by piece; `step.StepProgram` runs any such model, rewritten or not, which is how every
rewrite is tested for equality.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_core.config import DiTConfig
from kind_core.schedule import SamplerTable

if TYPE_CHECKING:
    from kind_export.compact.decode import MeasuredDecoder


@dataclass(frozen=True, kw_only=True, slots=True)
class Factors:
    """`up @ diag(scale) @ down`: up (out, rank), scale (rank,) or None where folded, down (rank, in)."""

    up: Tensor
    scale: Tensor | None
    down: Tensor

    @property
    def rank(self) -> int:
        return self.down.shape[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """One linear map of a block. `learngene` serves both halves, `tailors[c]` the first half for class c.

    `rank` is the live rank, tailor included. `gate` (2, 1, rank) is there when a tailor was merged into the learngene's
    factors: it closes those components for the null half.
    """

    learngene: Factors | Tensor
    tailors: tuple[Factors, ...]
    bias: Tensor
    rank: int
    gate: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        if isinstance(self.learngene, Tensor):
            return self.learngene.shape[0], self.learngene.shape[1]
        return self.learngene.up.shape[0], self.learngene.down.shape[1]

    @property
    def is_dense(self) -> bool:
        return isinstance(self.learngene, Tensor)


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedders:
    """Conditioning as trained: timestep MLP, labels (classes + 1, embedders, hidden) with the null label last, adaLN.

    There is one embedder for all blocks, or one for each; `reads` says by which vector each block and the final layer
    are conditioned (`DiTConfig.read_embeddings`). Of a distilled model the first is of where a step begins and the
    second of where it ends.
    """

    timestep_mlp: nn.Module
    label_embeddings: Tensor
    adaln: tuple[tuple[Tensor, Tensor], ...]
    reads: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ConditioningTable:
    """SiLU of the conditioning of every step and label, (steps, classes + 1, vectors, hidden), and the joined adaLN
    layers, which read them as `Embedders.reads` says."""

    vectors: Tensor
    weight: Tensor
    bias: Tensor
    reads: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModulationTable:
    """Every adaLN output, (steps, classes + 1, 6 * depth + 2, hidden); scales are stored as 1 + scale."""

    values: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRankTable:
    """The null label's modulations, and for each class coefficients @ basis: how far its own lie from them.

    null (steps, 6 * depth + 2, hidden), coefficients (classes, steps, rank), basis (classes, rank, 6 * depth + 2,
    hidden). `error_db`: rms error of the worst step of any class below the range of the whole table. A base has no
    class; its programs take coefficients and basis as inputs.
    """

    null: Tensor
    coefficients: Tensor
    basis: Tensor
    error_db: float

    @property
    def rank(self) -> int:
        return self.basis.shape[1]


Layer = tuple[Tensor, Tensor]  # weight (out, in), bias (out,)


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionLayers:
    """What reads a caption: the layers from a text encoder's channels, if any, and q, k, v and o of every block.

    The scale of the scores is folded into q. A program takes `words` of `channels` of the caption and of the null one.
    """

    projection: tuple[Layer, ...]
    blocks: tuple[dict[str, Layer], ...]
    words: int
    channels: int


Conditioning = Embedders | ConditioningTable | ModulationTable | LowRankTable


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactModel:
    """All that a step program needs. `blocks[i]` maps matrix names (q, k, v or qkv; o, up, down) to matrices.

    `pack_rank` is there where classes come as packs: the rank of the tailors that a program takes as an input.
    `truncation_error` is there where ranks were cut: how far the learngene's matrices are off, of their norm.
    `decoder` is there where the latents are an autoencoder's; it is the business of the decode program alone.
    `captions` is there where a model draws from them.
    """

    config: DiTConfig
    sampler: SamplerTable
    conditioning: Conditioning
    blocks: tuple[dict[str, Matrix], ...]
    patch_weight: Tensor
    patch_bias: Tensor
    position_embedding: Tensor
    final_weight: Tensor
    final_bias: Tensor
    attention_scale: float
    pack_rank: int | None = None
    truncation_error: float | None = None
    decoder: MeasuredDecoder | None = None
    captions: CaptionLayers | None = None

    @property
    def num_classes(self) -> int:
        return self.config.num_classes

    @property
    def num_outputs(self) -> int:
        """Channels that the final layer predicts."""
        return self.final_weight.shape[0] // self.config.patch_size**2

    def map_matrices(self, change: Callable[[Matrix], Matrix]) -> CompactModel:
        """The same with every matrix changed."""
        blocks = ({name: change(matrix) for name, matrix in block.items()} for block in self.blocks)
        return replace(self, blocks=tuple(blocks))


def scale_offset(depth: int) -> Tensor:
    """(6 * depth + 2, 1): one where a modulation is a scale, which is stored as 1 + scale, zero elsewhere."""
    block = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]  # shift, scale, gate of attention, then of the MLP
    return torch.tensor([*block * depth, 0.0, 1.0]).reshape(-1, 1)


def split_adaln(weight: Tensor, bias: Tensor, reads: tuple[int, ...]) -> list[tuple[int, tuple[Tensor, Tensor]]]:
    """The joined adaLN layers of all blocks and the final one, those that follow each other and read one vector as one:
    the vector's index and the layer."""
    hidden = weight.shape[1]
    rows = [6 * hidden] * (len(reads) - 1) + [2 * hidden]
    runs = [
        (index, sum(size for _, size in run)) for index, run in groupby(zip(reads, rows, strict=True), itemgetter(0))
    ]
    sizes = [size for _, size in runs]
    layers = zip(torch.split(weight, sizes), torch.split(bias, sizes), strict=True)
    return [(index, layer) for (index, _), layer in zip(runs, layers, strict=True)]


def apply_adaln(vectors: Tensor, weight: Tensor, bias: Tensor, reads: tuple[int, ...]) -> Tensor:
    """vectors (..., vectors, hidden) -> (..., (6 * depth + 2) * hidden)."""
    inputs = vectors.unbind(-2)
    return torch.cat([F.linear(inputs[index], *layer) for index, layer in split_adaln(weight, bias, reads)], dim=-1)
