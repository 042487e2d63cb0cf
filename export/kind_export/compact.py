"""The compact model: what is left of a KIND model for some classes, some steps and one sampler, and how it runs.

`CompactModel` is plain data that rewrites replace piece by piece; `StepProgram` runs any such model, rewritten or not,
which is how every rewrite is tested for equality. A step evaluates two halves at once: half 0 is the class, with its
label and its tailor; half 1 is the null label with no gate open, the learngene alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_core.config import DiTConfig
from kind_core.dit import NORM_EPS
from kind_core.schedule import SamplerTable


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

    `rank` is the live rank before padding. `gate` (2, 1, rank) is there when a tailor was merged into the learngene's
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
    """Conditioning as trained: timestep MLP, labels (classes + 1, hidden) with the null label last, adaLN layers."""

    timestep_mlp: nn.Module
    label_embeddings: Tensor
    adaln: tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ConditioningTable:
    """SiLU of the conditioning of every step and label, (steps, classes + 1, hidden), and one joined adaLN layer."""

    vectors: Tensor
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class ModulationTable:
    """Every adaLN output, (steps, classes + 1, 6 * depth + 2, hidden); scales are stored as 1 + scale."""

    values: Tensor


Conditioning = Embedders | ConditioningTable | ModulationTable


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactModel:
    """All that a step program needs. `blocks[i]` maps matrix names (q, k, v or qkv; o, up, down) to matrices."""

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

    @property
    def num_classes(self) -> int:
        return self.config.num_classes

    @property
    def num_outputs(self) -> int:
        """Channels that the final layer predicts."""
        return self.final_weight.shape[0] // self.config.patch_size**2


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphStyle:
    """How a target wants operators written; the numbers are the same.

    `norm`: LayerNorm as the operator (`native`) or as products with a constant vector (`matmul`). `gelu`: tanh-GELU as
    the operator (`native`) or written out (`expanded`).
    """

    norm: Literal["native", "matmul"] = "native"
    gelu: Literal["native", "expanded"] = "native"


class StepProgram(nn.Module):
    """One sampler step with classifier-free guidance, as a program takes it.

    forward(latents, [history,] step_index, class_index, guidance) -> latents [, history]. latents and history
    (1, channels, size, size) float32; step_index, class_index (1,) int32; guidance (1,) float32. `history` is there
    only where the sampler is multistep. `dtype` is that of the network; the sampler stays in float32.
    """

    sampler_table: Tensor
    position_embedding: Tensor
    null_offset: Tensor

    def __init__(
        self, model: CompactModel, *, style: GraphStyle = GraphStyle(), dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        config, table = model.config, model.sampler
        self.config = config
        self.dtype = dtype
        self.num_outputs = model.num_outputs
        self.has_history = table.has_history
        columns = (table.latents, table.output, table.history, table.history_from_latents, table.history_from_output)
        self.register_buffer("sampler_table", torch.stack([torch.from_numpy(c) for c in columns], dim=1))
        self.register_buffer("null_offset", torch.tensor([model.num_classes], dtype=torch.int32))
        self.register_buffer("position_embedding", model.position_embedding.to(dtype))
        self.patch = _conv(model.patch_weight, model.patch_bias, config.patch_size).to(dtype)
        self.conditioner = make_conditioner(model).to(dtype)
        self.tailors = TailorTable(model).to(dtype)
        self.blocks = nn.ModuleList(
            CompactBlock(model, i, style=style, is_dynamic=self.tailors.is_dynamic) for i in range(config.depth)
        ).to(dtype)
        self.norm = Norm(config.hidden_size, style.norm).to(dtype)
        self.final = _linear(model.final_weight, model.final_bias).to(dtype)

    def forward(self, latents: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        history, (step_index, class_index, guidance) = (rest[0], rest[1:]) if self.has_history else (None, rest)
        labels = torch.cat([class_index, self.null_offset])  # the label of each half
        modulations = self.conditioner(step_index, labels)  # (2, 6 * depth + 2, hidden)
        tailors = self.tailors(labels)
        # both halves start from the same tokens: (1, tokens, hidden) until the first modulation broadcasts it to two
        x = self.patch(latents.to(self.dtype)).flatten(2).transpose(1, 2) + self.position_embedding
        for i, block in enumerate(self.blocks):
            x = block(x, modulations[:, 6 * i : 6 * i + 6], tailors)
        shift, scale = _pick(modulations, 6 * self.config.depth), _pick(modulations, 6 * self.config.depth + 1)
        halves = self.final(self.norm(x) * scale + shift).to(latents.dtype)  # (2, tokens, patch * patch * channels)
        guided = halves[1:] + guidance * (halves[:1] - halves[1:])
        return self._advance(latents, history, self._unpatchify(guided), step_index)

    def _advance(
        self, latents: Tensor, history: Tensor | None, output: Tensor, step_index: Tensor
    ) -> tuple[Tensor, ...]:
        row = self.sampler_table.index_select(0, step_index)
        a, b, c, p, q = (row[:, i : i + 1].reshape(1, 1, 1, 1) for i in range(5))
        advanced = latents * a + output * b
        if history is None:
            return (advanced,)
        return advanced + history * c, latents * p + output * q

    def _unpatchify(self, tokens: Tensor) -> Tensor:
        # five axes at most: the Neural Engine takes no more
        side, p = self.config.sample_size // self.config.patch_size, self.config.patch_size
        x = tokens.reshape(side, side, p, p, self.num_outputs).permute(4, 0, 2, 1, 3)
        image = x.reshape(1, self.num_outputs, side * p, side * p)
        return image if self.num_outputs == self.config.in_channels else image[:, : self.config.in_channels]


class CompactBlock(nn.Module):
    """A DiT block over two halves."""

    def __init__(self, model: CompactModel, index: int, *, style: GraphStyle, is_dynamic: bool) -> None:
        super().__init__()
        self.num_heads = model.config.num_heads
        self.attention_scale = model.attention_scale
        self.matrices = nn.ModuleDict(
            {
                name: PairLinear(matrix, f"{index}.{name}", is_dynamic=is_dynamic)
                for name, matrix in model.blocks[index].items()
            }
        )
        self.norm1 = Norm(model.config.hidden_size, style.norm)
        self.norm2 = Norm(model.config.hidden_size, style.norm)
        self.gelu = Gelu(style.gelu)

    def forward(self, x: Tensor, modulations: Tensor, tailors: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """x (2, tokens, hidden), modulations (2, 6, hidden)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (_pick(modulations, i) for i in range(6))
        x = x + gate1 * self._attend(self.norm1(x) * scale1 + shift1, tailors)
        hidden = self.gelu(self.matrices["up"](self.norm2(x) * scale2 + shift2, tailors))
        return x + gate2 * self.matrices["down"](hidden, tailors)  # type: ignore[no-any-return]

    def _attend(self, x: Tensor, tailors: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        if "qkv" in self.matrices:
            joined, d = self.matrices["qkv"](x, tailors), x.shape[2]
            q, k, v = joined[..., :d], joined[..., d : 2 * d], joined[..., 2 * d :]
        else:
            q, k, v = (self.matrices[name](x, tailors) for name in "qkv")
        q, k, v = (self._split_heads(part) for part in (q, k, v))
        # written out, in three axes: fused attention and broadcast matmul fall off XNNPACK
        scores = torch.bmm(q, k.transpose(1, 2))
        if self.attention_scale != 1:
            scores = scores * self.attention_scale
        y = torch.bmm(scores.softmax(dim=-1), v).reshape(2, self.num_heads, x.shape[1], -1)
        return self.matrices["o"](y.transpose(1, 2).reshape(x.shape), tailors)  # type: ignore[no-any-return]

    def _split_heads(self, x: Tensor) -> Tensor:
        # (2, tokens, hidden) -> (2 * heads, tokens, head size)
        head_size = x.shape[2] // self.num_heads
        heads = x.reshape(2, x.shape[1], self.num_heads, head_size).transpose(1, 2)
        return heads.reshape(2 * self.num_heads, x.shape[1], head_size)


class PairLinear(nn.Module):
    """A `Matrix` over both halves: (2, tokens, in) -> (2, tokens, out)."""

    scale: Tensor | None
    gate: Tensor | None
    tailor_gate: Tensor | None

    def __init__(self, matrix: Matrix, name: str, *, is_dynamic: bool) -> None:
        super().__init__()
        self.name = name
        self.is_dynamic = is_dynamic and bool(matrix.tailors)
        learngene = matrix.learngene
        if isinstance(learngene, Tensor):
            self.down, self.last = None, _linear(learngene, matrix.bias)
            self.register_buffer("scale", None)
        else:
            self.down, self.last = _linear(learngene.down, None), _linear(learngene.up, matrix.bias)
            self.register_buffer("scale", learngene.scale)
        self.register_buffer("gate", matrix.gate)
        self._add_tailor(matrix)

    def _add_tailor(self, matrix: Matrix) -> None:
        self.tailor_down = self.tailor_up = None
        self.register_buffer("tailor_gate", None)
        if matrix.tailors and not self.is_dynamic:
            (tailor,) = matrix.tailors
            self.tailor_down, self.tailor_up = _linear(tailor.down, None), _linear(tailor.up, None)
            open_half = torch.tensor([1.0, 0.0]).reshape(2, 1, 1)
            self.tailor_gate = open_half if tailor.scale is None else open_half * tailor.scale

    def forward(self, x: Tensor, tailors: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        hidden = x
        if self.down is not None:
            hidden = self.down(x)
            if self.scale is not None:
                hidden = hidden * self.scale
            if self.gate is not None:
                hidden = hidden * self.gate
        y: Tensor = self.last(hidden)
        if self.is_dynamic:
            down, up = tailors[self.name]  # (2, in, rank) and (2, rank, out); zeros for the null half
            return y + torch.bmm(torch.bmm(x, down), up)
        if self.tailor_down is not None and self.tailor_up is not None:
            y = y + self.tailor_up(self.tailor_down(x) * self.tailor_gate)
        return y


class TailorTable(nn.Module):
    """The tailors of several classes as rows of one table, so that a program picks a class with a single gather.

    Row `classes` is zero: the null half. Programs of one class hold their tailor as constants and have no table.
    """

    table: Tensor

    def __init__(self, model: CompactModel) -> None:
        super().__init__()
        self.is_dynamic = model.num_classes > 1 and any(m.tailors for block in model.blocks for m in block.values())
        self.spans: dict[str, tuple[int, tuple[int, int], int, tuple[int, int]]] = {}
        columns, start = [torch.empty(model.num_classes + 1, 0)], 0
        for name, matrix in ((f"{i}.{n}", m) for i, block in enumerate(model.blocks) for n, m in block.items()):
            if not (self.is_dynamic and matrix.tailors):
                continue
            scaled = [t.down if t.scale is None else t.down * t.scale[:, None] for t in matrix.tailors]
            downs = [d.T for d in scaled]
            ups = [t.up.T for t in matrix.tailors]
            columns += [_rows(downs), _rows(ups)]
            middle = start + downs[0].numel()
            self.spans[name] = (start, _shape(downs[0]), middle, _shape(ups[0]))
            start = middle + ups[0].numel()
        self.register_buffer("table", torch.cat(columns, dim=1))

    def forward(self, labels: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """labels (2,) -> by matrix, down (2, in, rank) and up (2, rank, out)."""
        if not self.is_dynamic:
            return {}
        rows = self.table.index_select(0, labels)
        return {
            name: (_cut(rows, first, down), _cut(rows, second, up))
            for name, (first, down, second, up) in self.spans.items()
        }


class EmbedderConditioner(nn.Module):
    """`Embedders` as a module: step and label to modulations (2, 6 * depth + 2, hidden)."""

    timesteps: Tensor
    label_embeddings: Tensor
    offset: Tensor

    def __init__(self, source: Embedders, model: CompactModel) -> None:
        super().__init__()
        self.timestep_mlp = source.timestep_mlp
        self.adaln = nn.ModuleList(_linear(weight, bias) for weight, bias in source.adaln)
        self.hidden_size = model.config.hidden_size
        self.register_buffer("timesteps", torch.from_numpy(model.sampler.timesteps))
        self.register_buffer("label_embeddings", source.label_embeddings)
        self.register_buffer("offset", scale_offset(model.config.depth))

    def forward(self, step_index: Tensor, labels: Tensor) -> Tensor:
        embedded = self.timestep_mlp(self.timesteps.index_select(0, step_index))
        conditioning = F.silu(embedded + self.label_embeddings.index_select(0, labels))
        values = torch.cat([layer(conditioning) for layer in self.adaln], dim=1)
        return values.reshape(2, -1, self.hidden_size) + self.offset


class TableConditioner(nn.Module):
    """A `ConditioningTable` or a `ModulationTable` as a module: one gather, and one linear layer in the first case."""

    table: Tensor

    def __init__(self, source: ConditioningTable | ModulationTable, model: CompactModel) -> None:
        super().__init__()
        table = source.values if isinstance(source, ModulationTable) else source.vectors
        self.layer = None if isinstance(source, ModulationTable) else _linear(source.weight, source.bias)
        self.num_labels, self.hidden_size = table.shape[1], model.config.hidden_size
        self.register_buffer("table", table.reshape(table.shape[0] * table.shape[1], -1))

    def forward(self, step_index: Tensor, labels: Tensor) -> Tensor:
        rows = self.table.index_select(0, step_index * self.num_labels + labels)
        values = rows if self.layer is None else self.layer(rows)
        return values.reshape(2, -1, self.hidden_size)


class Norm(nn.Module):
    """LayerNorm without weights; as operator, or as products with a constant vector."""

    mean_weight: Tensor

    def __init__(self, size: int, form: str) -> None:
        super().__init__()
        self.size = size
        self.form = form
        if form == "matmul":
            self.register_buffer("mean_weight", torch.full((1, size), 1 / size))

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "native":
            return F.layer_norm(x, (self.size,), eps=NORM_EPS)
        centred = x - F.linear(x, self.mean_weight)
        return centred * (F.linear(centred * centred, self.mean_weight) + NORM_EPS).rsqrt()


class Gelu(nn.Module):
    """tanh-GELU; as operator, or written out."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "native":
            return F.gelu(x, approximate="tanh")
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def make_conditioner(model: CompactModel) -> nn.Module:
    """The module of the model's conditioning."""
    if isinstance(model.conditioning, Embedders):
        return EmbedderConditioner(model.conditioning, model)
    return TableConditioner(model.conditioning, model)


def scale_offset(depth: int) -> Tensor:
    """(6 * depth + 2, 1): one where a modulation is a scale, which is stored as 1 + scale, zero elsewhere."""
    block = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]  # shift, scale, gate of attention, then of the MLP
    return torch.tensor([*block * depth, 0.0, 1.0]).reshape(-1, 1)


def _pick(modulations: Tensor, index: int) -> Tensor:
    # a slice, not a selection, which XNNPACK does not take: (2, 1, hidden)
    return modulations[:, index : index + 1]


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.contiguous(), requires_grad=False)
    return layer


def _conv(weight: Tensor, bias: Tensor, stride: int) -> nn.Conv2d:
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], stride=stride)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def _rows(parts: list[Tensor]) -> Tensor:
    return torch.stack([p.reshape(-1) for p in (*parts, torch.zeros_like(parts[0]))])


def _shape(matrix: Tensor) -> tuple[int, int]:
    return matrix.shape[0], matrix.shape[1]


def _cut(rows: Tensor, start: int, shape: tuple[int, int]) -> Tensor:
    return rows[:, start : start + shape[0] * shape[1]].reshape(2, *shape)
