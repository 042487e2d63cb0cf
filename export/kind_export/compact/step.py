"""How a compact model runs: one sampler step with classifier-free guidance.

A step evaluates two halves at once: half 0 is the class, with its label and its tailor; half 1 is the null label with
no gate open, the learngene alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from kind_export.compact.captions import CaptionReader, CrossAttention, Words
from kind_export.compact.conditioner import make_conditioner
from kind_export.compact.layers import (
    Gelu,
    LookupForm,
    LookupModule,
    Norm,
    NormForm,
    as_cut,
    class_half,
    cut_row,
    make_conv,
    make_linear,
    pick_rows,
)
from kind_export.compact.model import CompactModel, Matrix
from kind_export.compact.tailors import Tailors, TailorTable


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphStyle:
    """How a target wants operators written; the numbers are the same.

    `norm`: LayerNorm as the operator (`native`), as products with a constant vector (`matmul`) or so that no number of
    it leaves fp16 (`scaled`). `gelu`: tanh-GELU as the operator (`native`) or written out (`expanded`). `attention`:
    written out (`expanded`) or, in an ONNX export, onnxruntime's operator (`fused`). `lookup`: rows of tables by index
    (`gather`) or by a product (`one_hot`). `max_axes`: of any tensor. `clamp`:
    of the decode program, as the operator (`native`) or by ReLUs (`relu`).
    """

    norm: NormForm = "native"
    gelu: Literal["native", "expanded"] = "native"
    attention: Literal["fused", "expanded"] = "expanded"
    lookup: LookupForm = "gather"
    max_axes: Literal[4, 5] = 5
    clamp: Literal["native", "relu"] = "native"


class StepProgram(nn.Module):
    """One sampler step with classifier-free guidance, as a program takes it.

    forward(latents, [history,] step_index, class_index, guidance) -> latents [, history]. latents and history
    (1, channels, size, size) float32; step_index, class_index (1,) int32; guidance (1,) float32. `history` is there
    only where the sampler is multistep. `dtype` is that of the network; the sampler stays in float32.

    A base takes no class_index: forward(latents, [history,] step_index, guidance, tailor, modulation_basis,
    modulation_coefficients), float32 as `TailorLayout` and `LowRankTable` say, one row and one class of them. All zero
    is the learngene alone.

    Of a model of captions the last two inputs are text and text_mask, float32 as `CaptionReader` takes them.

    With `is_guided` false, and of a model that takes no guidance, the program evaluates the class's half only and has
    no input for the scale. `table_dtype` is how the tables are stored that a step looks a row up in.
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
        self.num_halves = 2 if is_guided and table.takes_guidance else 1
        self.config = config
        self.style = style
        self.dtype = dtype
        self.num_outputs = model.num_outputs
        self.has_history = table.has_history
        self.takes_pack = model.pack_rank is not None
        columns = (table.latents, table.output, table.history, table.history_from_latents, table.history_from_output)
        self.register_buffer("sampler_table", torch.stack([torch.from_numpy(c) for c in columns], dim=1))
        self.register_buffer("position_embedding", model.position_embedding.to(dtype))
        self.patch = make_conv(model.patch_weight, model.patch_bias, config.patch_size).to(dtype)
        self.conditioner = make_conditioner(model).to(dtype)
        self.tailors = TailorTable(model).to(dtype)
        for holder in (self.conditioner, self.tailors):
            assert isinstance(holder, LookupModule)
            holder.form = style.lookup
            if table_dtype is not None:
                holder.store_as(table_dtype)
        self.reader = None
        if model.captions is not None:
            self.reader = CaptionReader(model.captions, style.gelu, dtype).to(dtype)
        self.blocks = nn.ModuleList(
            CompactBlock(model, i, style=style, num_halves=self.num_halves) for i in range(config.depth)
        ).to(dtype)
        self.norm = Norm(config.hidden_size, style.norm).to(dtype)
        self.final = make_linear(model.final_weight, model.final_bias).to(dtype)

    def forward(self, latents: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        history, rest = (rest[0], rest[1:]) if self.has_history else (None, rest)
        words = None
        if self.reader is not None:
            *others, text, mask = rest
            rest, words = tuple(others), self.reader(text, mask)
        guidance, step_index, modulations, tailors = self._look_up(*rest)
        # both halves start from the same tokens: (1, tokens, hidden) until the first modulation broadcasts it to two
        x = self.patch(latents.to(self.dtype)).flatten(2).transpose(1, 2) + self.position_embedding
        for i, block in enumerate(self.blocks):
            x = block(x, modulations[:, 6 * i : 6 * i + 6], tailors[i] if tailors else {}, words)
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
        modulations = both if both.shape[0] == self.num_halves else both[:1]
        return guidance, step_index, modulations, tailors

    def _advance(
        self, latents: Tensor, history: Tensor | None, output: Tensor, step_index: Tensor
    ) -> tuple[Tensor, ...]:
        row = pick_rows(self.sampler_table, (step_index, len(self.sampler_table)), form=self.style.lookup)
        row = as_cut(row, self.style.lookup)
        a, b, c, p, q = (cut_row(row, i, 1).reshape(1, 1, 1, 1) for i in range(5))
        advanced = latents * a + output * b
        if history is None:
            return (advanced,)
        return advanced + history * c, latents * p + output * q

    def _unpatchify(self, tokens: Tensor) -> Tensor:
        # five axes at most: the Neural Engine takes no more
        side, p = self.config.sample_size // self.config.patch_size, self.config.patch_size
        if self.style.max_axes == 4:
            x = tokens.reshape(side, side, p, p * self.num_outputs).transpose(1, 2)
            image = x.reshape(1, side * p, side * p, self.num_outputs).permute(0, 3, 1, 2)
        else:
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
        self.register_buffer("class_half", class_half(num_halves))
        self.norm1 = Norm(model.config.hidden_size, style.norm)
        self.norm2 = Norm(model.config.hidden_size, style.norm, model.config.mlp_norm_eps)
        self.gelu = Gelu(style.gelu)
        captions = model.captions
        self.cross = None if captions is None else CrossAttention(captions.blocks[index], self.num_heads)

    def forward(self, x: Tensor, modulations: Tensor, tailors: Tailors, words: Words | None = None) -> Tensor:
        """x (halves, tokens, hidden), modulations (halves, 6, hidden); words of a model of captions."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (_pick(modulations, i) for i in range(6))
        x = x + gate1 * self._attend(self.norm1(x) * scale1 + shift1, tailors)
        if self.cross is not None and words is not None:
            x = x + self.cross(x, words)
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
            self.down, self.last = None, make_linear(learngene, matrix.bias)
            self.register_buffer("scale", None)
        else:
            self.down, self.last = make_linear(learngene.down, None), make_linear(learngene.up, matrix.bias)
            self.register_buffer("scale", learngene.scale)
        # nothing is closed where the null half is not there
        self.register_buffer("gate", matrix.gate if num_halves == 2 else None)
        self._add_tailor(matrix if not is_dynamic else replace(matrix, tailors=()))

    def _add_tailor(self, matrix: Matrix) -> None:
        self.tailor_down = self.tailor_up = None
        self.register_buffer("tailor_gate", None)
        if matrix.tailors:
            (tailor,) = matrix.tailors
            self.tailor_down, self.tailor_up = make_linear(tailor.down, None), make_linear(tailor.up, None)
            open_half = class_half(self.num_halves)
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


def _pick(modulations: Tensor, index: int) -> Tensor:
    # a slice, not a selection, which XNNPACK does not take: (halves, 1, hidden)
    return modulations[:, index : index + 1]
