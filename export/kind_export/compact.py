"""The compact model: what is left of a KIND model for some classes, some steps and one sampler, and how it runs.

`CompactModel` is plain data that rewrites replace piece by piece; `StepProgram` runs any such model, rewritten or not,
which is how every rewrite is tested for equality. A step evaluates two halves at once: half 0 is the class, with its
label and its tailor; half 1 is the null label with no gate open, the learngene alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_core.config import NORM_EPS, DiTConfig
from kind_core.schedule import SamplerTable

if TYPE_CHECKING:
    from kind_export.decoding import MeasuredDecoder

# The tailors of a block by matrix: the way down, then the way up; q, k and v share the first.
Tailors = dict[str, tuple[Tensor, ...]]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRankTable:
    """The null label's modulations, and for each class coefficients @ basis: how far its own lie from them.

    null (steps, 6 * depth + 2, hidden), coefficients (classes, steps, rank), basis (classes, rank, 6 * depth + 2,
    hidden). `error_db`: rms error of the worst class below the range of the whole table. A base has no class; its
    programs take coefficients and basis as inputs.
    """

    null: Tensor
    coefficients: Tensor
    basis: Tensor
    error_db: float

    @property
    def rank(self) -> int:
        return self.basis.shape[1]


Conditioning = Embedders | ConditioningTable | ModulationTable | LowRankTable


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactModel:
    """All that a step program needs. `blocks[i]` maps matrix names (q, k, v or qkv; o, up, down) to matrices.

    `pack_rank` is there where classes come as packs: the rank of the tailors that a program takes as an input.
    `truncation_error` is there where ranks were cut: how far the learngene's matrices are off, of their norm.
    `decoder` is there where the latents are an autoencoder's; it is the business of the decode program alone.
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
    the operator (`native`) or written out (`expanded`). `attention`: written out (`expanded`) or, in an ONNX export,
    onnxruntime's operator (`fused`).
    """

    norm: Literal["native", "matmul"] = "native"
    gelu: Literal["native", "expanded"] = "native"
    attention: Literal["fused", "expanded"] = "expanded"


class StepProgram(nn.Module):
    """One sampler step with classifier-free guidance, as a program takes it.

    forward(latents, [history,] step_index, class_index, guidance) -> latents [, history]. latents and history
    (1, channels, size, size) float32; step_index, class_index (1,) int32; guidance (1,) float32. `history` is there
    only where the sampler is multistep. `dtype` is that of the network; the sampler stays in float32.

    A base takes no class_index: forward(latents, [history,] step_index, guidance, tailor, modulation_basis,
    modulation_coefficients), float32 as `TailorLayout` and `LowRankTable` say, one row and one class of them. All zero
    is the learngene alone.

    With `is_guided` false the program evaluates the class's half only and takes no guidance. `table_dtype` is how the
    tables are stored that a step looks a row up in.
    """

    sampler_table: Tensor
    position_embedding: Tensor

    def __init__(
        self,
        model: CompactModel,
        *,
        style: GraphStyle = GraphStyle(),
        dtype: torch.dtype = torch.float32,
        table_dtype: torch.dtype | None = None,
        is_guided: bool = True,
    ) -> None:
        super().__init__()
        config, table = model.config, model.sampler
        self.num_halves = 2 if is_guided else 1
        self.config = config
        self.dtype = dtype
        self.num_outputs = model.num_outputs
        self.has_history = table.has_history
        self.takes_pack = model.pack_rank is not None
        columns = (table.latents, table.output, table.history, table.history_from_latents, table.history_from_output)
        self.register_buffer("sampler_table", torch.stack([torch.from_numpy(c) for c in columns], dim=1))
        self.register_buffer("position_embedding", model.position_embedding.to(dtype))
        self.patch = _conv(model.patch_weight, model.patch_bias, config.patch_size).to(dtype)
        self.conditioner = make_conditioner(model).to(dtype)
        self.tailors = TailorTable(model).to(dtype)
        for holder in (self.conditioner, self.tailors):
            if table_dtype is not None and isinstance(holder, LookupModule):
                holder.store_as(table_dtype)
        self.blocks = nn.ModuleList(
            CompactBlock(model, i, style=style, num_halves=self.num_halves) for i in range(config.depth)
        ).to(dtype)
        self.norm = Norm(config.hidden_size, style.norm).to(dtype)
        self.final = _linear(model.final_weight, model.final_bias).to(dtype)

    def forward(self, latents: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        history, rest = (rest[0], rest[1:]) if self.has_history else (None, rest)
        guidance, step_index, modulations, tailors = self._look_up(*rest)
        # both halves start from the same tokens: (1, tokens, hidden) until the first modulation broadcasts it to two
        x = self.patch(latents.to(self.dtype)).flatten(2).transpose(1, 2) + self.position_embedding
        for i, block in enumerate(self.blocks):
            x = block(x, modulations[:, 6 * i : 6 * i + 6], tailors[i] if tailors else {})
        shift, scale = _pick(modulations, 6 * self.config.depth), _pick(modulations, 6 * self.config.depth + 1)
        # (halves, tokens, patch * patch * channels)
        output = self.final(self.norm(x) * scale + shift).to(latents.dtype)
        if guidance is not None:
            output = output[1:] + guidance * (output[:1] - output[1:])
        return self._advance(latents, history, self._unpatchify(output), step_index)

    def _look_up(self, step_index: Tensor, *rest: Tensor) -> tuple[Tensor | None, Tensor, Tensor, list[Tailors]]:
        # guidance, step_index, modulations (halves, 6 * depth + 2, hidden) and the tailors of each block
        choice, guidance, pack = rest[:1], None, rest
        if self.num_halves == 2:
            guidance, pack = (rest[0], rest[1:]) if self.takes_pack else (rest[1], ())
        if self.takes_pack:
            tailor, *table = (one.to(self.dtype) for one in pack)
            tailors, both = self.tailors.cut(tailor), self.conditioner(step_index, *table)
        else:
            tailors, both = self.tailors(*choice), self.conditioner(step_index, *choice)
        modulations = both if self.num_halves == 2 else both[:1]
        return guidance, step_index, modulations, tailors

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
    """A DiT block over both halves, or over the class's alone."""

    class_half: Tensor

    def __init__(self, model: CompactModel, index: int, *, style: GraphStyle, num_halves: int) -> None:
        super().__init__()
        self.num_heads = model.config.num_heads
        self.attention_scale = model.attention_scale
        self.attention = style.attention
        is_dynamic = model.num_classes > 1
        self.matrices = nn.ModuleDict(
            {
                name: PairLinear(matrix, is_dynamic=is_dynamic, num_halves=num_halves)
                for name, matrix in model.blocks[index].items()
            }
        )
        self.num_halves = num_halves
        self.register_buffer("class_half", _class_half(num_halves))
        self.norm1 = Norm(model.config.hidden_size, style.norm)
        self.norm2 = Norm(model.config.hidden_size, style.norm, model.config.mlp_norm_eps)
        self.gelu = Gelu(style.gelu)

    def forward(self, x: Tensor, modulations: Tensor, tailors: Tailors) -> Tensor:
        """x (halves, tokens, hidden), modulations (halves, 6, hidden)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (_pick(modulations, i) for i in range(6))
        x = x + gate1 * self._attend(self.norm1(x) * scale1 + shift1, tailors)
        hidden = self.gelu(self._map("up", self.norm2(x) * scale2 + shift2, tailors))
        return x + gate2 * self._map("down", hidden, tailors)

    def _map(self, name: str, x: Tensor, tailors: Tailors) -> Tensor:
        y: Tensor = self.matrices[name](x)
        return y + self._tailor(x, *tailors[name])[0] if name in tailors else y

    def _tailor(self, x: Tensor, down: Tensor, *ups: Tensor) -> list[Tensor]:
        """What the tailor adds to x @ learngene, for each of the matrices that share `down`; zero for the null half."""
        # both halves in one product of three axes: expanding a factor to two halves falls off XNNPACK, as does a slice
        # that keeps everything
        halves, tokens = self.num_halves, x.shape[1]
        hidden = torch.bmm(x.reshape(1, halves * tokens, -1), down)
        if halves == 2:
            hidden = (hidden.reshape(2, tokens, -1) * self.class_half).reshape(1, 2 * tokens, -1)
        rank = ups[0].shape[1]
        parts = [hidden] if len(ups) == 1 else [hidden[..., i * rank : (i + 1) * rank] for i in range(len(ups))]
        return [torch.bmm(part, up).reshape(halves, tokens, -1) for part, up in zip(parts, ups, strict=True)]

    def _attend(self, x: Tensor, tailors: Tailors) -> Tensor:
        if "qkv" in self.matrices:
            joined, d = self.matrices["qkv"](x), x.shape[2]
            q, k, v = joined[..., :d], joined[..., d : 2 * d], joined[..., 2 * d :]
        else:
            q, k, v = (self.matrices[name](x) for name in "qkv")
        if "qkv" in tailors:
            q, k, v = (part + extra for part, extra in zip((q, k, v), self._tailor(x, *tailors["qkv"]), strict=True))
        is_fused = self.attention == "fused" and torch.onnx.is_in_onnx_export()
        mixed = self._mix_fused(q, k, v) if is_fused else self._mix(q, k, v)
        return self._map("o", mixed, tailors)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # written out, in three axes: fused attention and broadcast matmul fall off XNNPACK
        q, k, v = (self._split_heads(part) for part in (q, k, v))
        scores = torch.bmm(q, k.transpose(1, 2))
        if self.attention_scale != 1:
            scores = scores * self.attention_scale
        y = torch.bmm(scores.softmax(dim=-1), v).reshape(-1, self.num_heads, *q.shape[1:])
        return y.transpose(1, 2).flatten(2)

    def _mix_fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # one operator that splits the heads by strides and never stores the scores
        return torch.onnx.ops.symbolic(
            "com.microsoft::MultiHeadAttention",
            (q, k, v),
            {"num_heads": self.num_heads, "scale": float(self.attention_scale)},
            dtype=q.dtype,
            shape=q.shape,
            version=1,
        )

    def _split_heads(self, x: Tensor) -> Tensor:
        # (halves, tokens, hidden) -> (halves * heads, tokens, head size)
        head_size = x.shape[2] // self.num_heads
        heads = x.reshape(x.shape[0], x.shape[1], self.num_heads, head_size).transpose(1, 2)
        return heads.reshape(-1, x.shape[1], head_size)


class PairLinear(nn.Module):
    """A `Matrix`, (halves, tokens, in) -> (halves, tokens, out), with its tailor where that is constant."""

    scale: Tensor | None
    gate: Tensor | None
    tailor_gate: Tensor | None

    def __init__(self, matrix: Matrix, *, is_dynamic: bool, num_halves: int) -> None:
        super().__init__()
        self.num_halves = num_halves
        learngene = matrix.learngene
        if isinstance(learngene, Tensor):
            self.down, self.last = None, _linear(learngene, matrix.bias)
            self.register_buffer("scale", None)
        else:
            self.down, self.last = _linear(learngene.down, None), _linear(learngene.up, matrix.bias)
            self.register_buffer("scale", learngene.scale)
        # nothing is closed where the null half is not there
        self.register_buffer("gate", matrix.gate if num_halves == 2 else None)
        self._add_tailor(matrix if not is_dynamic else replace(matrix, tailors=()))

    def _add_tailor(self, matrix: Matrix) -> None:
        self.tailor_down = self.tailor_up = None
        self.register_buffer("tailor_gate", None)
        if matrix.tailors:
            (tailor,) = matrix.tailors
            self.tailor_down, self.tailor_up = _linear(tailor.down, None), _linear(tailor.up, None)
            open_half = _class_half(self.num_halves)
            self.tailor_gate = open_half if tailor.scale is None else open_half * tailor.scale

    def forward(self, x: Tensor) -> Tensor:
        hidden = x
        if self.down is not None:
            hidden = self.down(x)
            if self.scale is not None:
                hidden = hidden * self.scale
            if self.gate is not None:
                hidden = hidden * self.gate
        y: Tensor = self.last(hidden)
        if self.tailor_down is not None and self.tailor_up is not None:
            y = y + self.tailor_up(self.tailor_down(x) * self.tailor_gate)
        return y


class TailorLayout:
    """Where the factors of a class lie in its row, (1, width): those of block 0, block 1, ...

    A block has, each in row-major order: down of q, k and v side by side (hidden, 3 * rank), up of q, of k and of v
    (rank, hidden), then down (in, rank) and up (rank, out) of o, up and down. s and the attention scale are folded in.
    """

    def __init__(self, config: DiTConfig, rank: int) -> None:
        self.rank = rank
        self.depth = config.depth
        self.spans: list[tuple[str, int, tuple[int, int]]] = []
        shapes = {name.split(".")[-1]: shape for name, shape in config.matrix_shapes.items()}
        groups = (("qkv", "qkv"), *((name, (name,)) for name in ("o", "up", "down")))
        self.width = 0
        for group, names in groups:
            into = shapes[names[0]][1]
            for shape in ((into, rank * len(names)), *((rank, shapes[name][0]) for name in names)):
                self.spans.append((group, self.width, shape))
                self.width += shape[0] * shape[1]
        self.block_width, self.width = self.width, self.width * config.depth

    def cut(self, row: Tensor) -> list[Tailors]:
        """row (1, width) -> for each block, by matrix: down (1, in, rank), then up (1, rank, out); qkv has three."""
        if not self.width:
            return []
        return [self._cut_block(row, index * self.block_width) for index in range(self.depth)]

    def _cut_block(self, row: Tensor, offset: int) -> Tailors:
        parts: dict[str, list[Tensor]] = {}
        for name, start, (height, width) in self.spans:
            first = offset + start
            parts.setdefault(name, []).append(row[:, first : first + height * width].reshape(1, height, width))
        return {name: tuple(tensors) for name, tensors in parts.items()}

    def rows(self, model: CompactModel) -> Tensor:
        """The tailors of the classes of `model`, (classes, width)."""
        classes = range(model.num_classes)
        return torch.stack([torch.cat([self._row(block, c) for block in model.blocks]) for c in classes])

    def _row(self, block: dict[str, Matrix], index: int) -> Tensor:
        factors = {name: _folded(part, self.rank) for name, part in _tailors_of(block, index).items()}
        pieces = [torch.cat([factors[name].down.T for name in "qkv"], dim=1), *(factors[n].up.T for n in "qkv")]
        for name in ("o", "up", "down"):
            pieces += [factors[name].down.T, factors[name].up.T]
        return torch.cat([piece.reshape(-1) for piece in pieces])


class LookupModule(nn.Module):
    """Buffers of which a call reads one row, computed with in the module's own dtype however they are stored."""

    TABLES: tuple[str, ...] = ()
    widened_to: torch.dtype | None = None

    def store_as(self, dtype: torch.dtype) -> None:
        """Store the tables as `dtype` and widen what is read of them."""
        for name in self.TABLES:
            table = self.get_buffer(name)
            self.widened_to = table.dtype
            self.register_buffer(name, table.to(dtype))

    def look_up(self, table: Tensor, index: Tensor) -> Tensor:
        row = table.index_select(0, index)
        return row if self.widened_to is None else row.to(self.widened_to)


class TailorTable(LookupModule):
    """The tailors of several classes as rows of one table, so that a program picks a class with a single gather.

    Programs of one class hold their tailor as constants and have no table; a base has none either and cuts the row
    that it is given.
    """

    TABLES = ("table",)
    table: Tensor

    def __init__(self, model: CompactModel) -> None:
        super().__init__()
        ranks = {t.rank for block in model.blocks for m in block.values() for t in m.tailors}
        is_dynamic = model.num_classes > 1 and bool(ranks)
        rank = model.pack_rank or (tailor_rank(model) if is_dynamic else 0)
        self.layout = TailorLayout(model.config, rank)
        self.register_buffer("table", self.layout.rows(model) if is_dynamic else torch.empty(0, 0))

    def forward(self, class_index: Tensor) -> list[Tailors]:
        """class_index (1,) -> the tailors of each block; none where they are constants."""
        return self.cut(self.look_up(self.table, class_index)) if self.layout.width else []

    def cut(self, row: Tensor) -> list[Tailors]:
        return self.layout.cut(row)


class EmbedderConditioner(nn.Module):
    """`Embedders` as a module: step and label to modulations (2, 6 * depth + 2, hidden)."""

    timesteps: Tensor
    label_embeddings: Tensor
    offset: Tensor
    null_label: Tensor

    def __init__(self, source: Embedders, model: CompactModel) -> None:
        super().__init__()
        self.timestep_mlp = source.timestep_mlp
        self.adaln = nn.ModuleList(_linear(weight, bias) for weight, bias in source.adaln)
        self.hidden_size = model.config.hidden_size
        self.register_buffer("timesteps", torch.from_numpy(model.sampler.timesteps))
        self.register_buffer("label_embeddings", source.label_embeddings)
        self.register_buffer("offset", scale_offset(model.config.depth))
        self.register_buffer("null_label", torch.tensor([model.num_classes], dtype=torch.int32))

    def forward(self, step_index: Tensor, class_index: Tensor) -> Tensor:
        embedded = self.timestep_mlp(self.timesteps.index_select(0, step_index))
        labels = torch.cat([class_index, self.null_label])  # the label of each half
        conditioning = F.silu(embedded + self.label_embeddings.index_select(0, labels))
        values = torch.cat([layer(conditioning) for layer in self.adaln], dim=1)
        return values.reshape(2, -1, self.hidden_size) + self.offset


class TableConditioner(LookupModule):
    """A `ConditioningTable` or a `ModulationTable` as a module: one gather, and one linear layer in the first case."""

    TABLES = ("table",)
    table: Tensor
    null_label: Tensor

    def __init__(self, source: ConditioningTable | ModulationTable, model: CompactModel) -> None:
        super().__init__()
        table = source.values if isinstance(source, ModulationTable) else source.vectors
        self.layer = None if isinstance(source, ModulationTable) else _linear(source.weight, source.bias)
        self.num_labels, self.hidden_size = table.shape[1], model.config.hidden_size
        self.register_buffer("null_label", torch.tensor([self.num_labels - 1], dtype=torch.int32))
        self.register_buffer("table", table.reshape(table.shape[0] * table.shape[1], -1))

    def forward(self, step_index: Tensor, class_index: Tensor) -> Tensor:
        labels = torch.cat([class_index, self.null_label])  # the label of each half
        rows = self.look_up(self.table, step_index * self.num_labels + labels)
        values = rows if self.layer is None else self.layer(rows)
        return values.reshape(2, -1, self.hidden_size)


class LowRankConditioner(LookupModule):
    """A `LowRankTable` as a module: the null row, and the class's distance from it by one product with a basis."""

    TABLES = ("null", "basis")
    null: Tensor
    coefficients: Tensor
    basis: Tensor

    def __init__(self, source: LowRankTable) -> None:
        super().__init__()
        self.num_steps, self.hidden_size = source.null.shape[0], source.null.shape[2]
        self.register_buffer("null", source.null.flatten(1))
        self.register_buffer("coefficients", source.coefficients.flatten(0, 1))
        self.register_buffer("basis", source.basis.flatten(1))

    def forward(self, step_index: Tensor, class_index: Tensor) -> Tensor:
        row = self.coefficients.index_select(0, class_index * self.num_steps + step_index)
        basis = self.look_up(self.basis, class_index)
        return self._add(step_index, row, basis)

    def _add(self, step_index: Tensor, row: Tensor, basis: Tensor) -> Tensor:
        # row (1, rank), basis of as many rows; reshapes, because XNNPACK takes no axis added or dropped
        null = self.look_up(self.null, step_index)
        distance = torch.bmm(row.reshape(1, 1, -1), basis.reshape(1, row.shape[1], -1)).reshape(1, -1)
        return torch.cat([null + distance, null]).reshape(2, -1, self.hidden_size)


class PackConditioner(LowRankConditioner):
    """The same for a base, which is given basis (rank, (6 * depth + 2) * hidden) and coefficients (steps, rank)."""

    def forward(self, step_index: Tensor, basis: Tensor, coefficients: Tensor) -> Tensor:  # type: ignore[override]
        return self._add(step_index, coefficients.index_select(0, step_index), basis)


class Norm(nn.Module):
    """LayerNorm without weights; as operator, or as products with a constant vector."""

    mean_weight: Tensor

    def __init__(self, size: int, form: str, eps: float = NORM_EPS) -> None:
        super().__init__()
        self.size = size
        self.eps = eps
        self.form = form
        if form == "matmul":
            self.register_buffer("mean_weight", torch.full((1, size), 1 / size))

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "native":
            return F.layer_norm(x, (self.size,), eps=self.eps)
        centred = x - F.linear(x, self.mean_weight)
        return centred * (F.linear(centred * centred, self.mean_weight) + self.eps).rsqrt()


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
    if isinstance(model.conditioning, LowRankTable):
        return PackConditioner(model.conditioning) if model.pack_rank else LowRankConditioner(model.conditioning)
    return TableConditioner(model.conditioning, model)


def scale_offset(depth: int) -> Tensor:
    """(6 * depth + 2, 1): one where a modulation is a scale, which is stored as 1 + scale, zero elsewhere."""
    block = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]  # shift, scale, gate of attention, then of the MLP
    return torch.tensor([*block * depth, 0.0, 1.0]).reshape(-1, 1)


def _class_half(num_halves: int) -> Tensor:
    """(halves, 1, 1): one for the class, zero for the null half."""
    return torch.tensor([1.0, 0.0])[:num_halves].reshape(-1, 1, 1)


def _pick(modulations: Tensor, index: int) -> Tensor:
    # a slice, not a selection, which XNNPACK does not take: (halves, 1, hidden)
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


def tailor_rank(model: CompactModel) -> int:
    """The rank of the tailors of one matrix before any was joined; 0 without tailors."""
    block = model.blocks[0]
    return max((t.rank for t in _tailors_of(block, 0).values()), default=0)


def _tailors_of(block: dict[str, Matrix], index: int) -> dict[str, Factors]:
    """The tailors of class `index` by matrix, q, k and v apart."""
    found = {name: matrix.tailors[index] for name, matrix in block.items() if matrix.tailors}
    if "qkv" in found:
        joined = found.pop("qkv")  # block-diagonal on the way up, see join_qkv
        found |= {
            name: Factors(up=up.chunk(3, dim=1)[i], scale=None, down=down)
            for i, (name, up, down) in enumerate(zip("qkv", joined.up.chunk(3), joined.down.chunk(3), strict=True))
        }
    return found


def _folded(factors: Factors, rank: int) -> Factors:
    """`factors` with the scale in `down`, filled with zero components up to `rank`."""
    down = factors.down if factors.scale is None else factors.down * factors.scale[:, None]
    extra = rank - factors.rank
    return Factors(up=F.pad(factors.up, (0, extra)), scale=None, down=F.pad(down, (0, 0, 0, extra)))
