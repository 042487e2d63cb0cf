"""Step and class to the modulations of every block, one module for each way of storing them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_export.compact.layers import LookupModule, as_cut, cut_row, make_linear, pick_rows
from kind_export.compact.model import (
    CompactModel,
    ConditioningTable,
    Embedders,
    LowRankTable,
    ModulationTable,
    scale_offset,
    split_adaln,
)


def make_conditioner(model: CompactModel) -> nn.Module:
    """The module of the model's conditioning."""
    if isinstance(model.conditioning, Embedders):
        return EmbedderConditioner(model.conditioning, model)
    if isinstance(model.conditioning, LowRankTable):
        return PackConditioner(model.conditioning) if model.pack_rank else LowRankConditioner(model.conditioning)
    return TableConditioner(model.conditioning, model)


class EmbedderConditioner(LookupModule):
    """`Embedders` as a module: step and label to modulations (2, 6 * depth + 2, hidden)."""

    timesteps: Tensor
    label_embeddings: Tensor
    offset: Tensor
    null_label: Tensor

    def __init__(self, source: Embedders, model: CompactModel) -> None:
        super().__init__()
        self.timestep_mlp = source.timestep_mlp
        self.adaln = nn.ModuleList(make_linear(weight, bias) for weight, bias in source.adaln)
        self.hidden_size = model.config.hidden_size
        self.reads = source.reads
        times = [model.sampler.timesteps, model.sampler.ends]
        self.num_times = 2 if model.config.end_blocks else 1
        self.register_buffer("timesteps", torch.from_numpy(np.stack(times[: self.num_times], axis=1)))
        self.register_buffer("label_embeddings", source.label_embeddings)
        self.register_buffer("offset", scale_offset(model.config.depth))
        self.register_buffer("null_label", torch.tensor([model.num_classes], dtype=torch.int32))

    def forward(self, step_index: Tensor, class_index: Tensor) -> Tensor:
        # (1, where the step begins and, if it is read, ends)
        times = self.look_up(self.timesteps, (step_index, len(self.timesteps)))
        labels = self.join_places(class_index, self.null_label)  # the label of each half
        rows = self.look_up(self.label_embeddings, (labels, len(self.label_embeddings)))
        vectors = [vector for i in range(self.num_times) for vector in self._embed(self._time(times, i), rows)]
        read = [vectors[index] for index in self.reads]
        values = torch.cat([layer(one) for layer, one in zip(self.adaln, read, strict=True)], dim=1)
        return values.reshape(2, -1, self.hidden_size) + self.offset

    def _time(self, times: Tensor, index: int) -> Tensor:
        return times[:, index] if self.form == "gather" else cut_row(as_cut(times, self.form), index, 1).reshape(1)

    def _embed(self, timestep: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        # (halves, hidden) of each embedder
        embedded = self.timestep_mlp(timestep).reshape(1, -1, self.hidden_size)
        return F.silu(embedded + rows).unbind(1)


class TableConditioner(LookupModule):
    """A `ConditioningTable` or a `ModulationTable` as a module: one gather, and the adaLN layers in the first case."""

    TABLES = ("table",)
    table: Tensor
    null_label: Tensor | None

    def __init__(self, source: ConditioningTable | ModulationTable, model: CompactModel) -> None:
        super().__init__()
        table = source.values if isinstance(source, ModulationTable) else source.vectors
        self.layer = None if isinstance(source, ModulationTable) else _make_adaln(source)
        self.num_steps, self.num_labels = table.shape[:2]
        self.hidden_size = model.config.hidden_size
        null_label = torch.tensor([model.num_classes], dtype=torch.int32)
        self.register_buffer("null_label", null_label if self.num_labels > model.num_classes else None)
        self.register_buffer("table", table.reshape(table.shape[0] * table.shape[1], -1))

    def forward(self, step_index: Tensor, class_index: Tensor) -> Tensor:
        # the label of each half, or of the only one
        labels = class_index if self.null_label is None else self.join_places(class_index, self.null_label)
        rows = self.look_up(self.table, (step_index, self.num_steps), (labels, self.num_labels))
        values = rows if self.layer is None else self.layer(rows)
        return values.reshape(1 if self.null_label is None else 2, -1, self.hidden_size)


class SplitAdaln(nn.Module):
    """The adaLN layers where they read different vectors: (halves, vectors * hidden) -> all modulations."""

    def __init__(self, layers: list[tuple[int, tuple[Tensor, Tensor]]], num_vectors: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make_linear(weight, bias) for _, (weight, bias) in layers)
        self.reads, self.num_vectors = [index for index, _ in layers], num_vectors

    def forward(self, rows: Tensor) -> Tensor:
        vectors = rows.chunk(self.num_vectors, dim=1)
        return torch.cat([layer(vectors[i]) for layer, i in zip(self.layers, self.reads, strict=True)], dim=1)


def _make_adaln(source: ConditioningTable) -> nn.Module:
    layers = split_adaln(source.weight, source.bias, source.reads)
    return make_linear(*layers[0][1]) if len(layers) == 1 else SplitAdaln(layers, source.vectors.shape[2])


class LowRankConditioner(LookupModule):
    """A `LowRankTable` as a module: the null row, and the class's distance from it by one product with a basis."""

    TABLES = ("null", "basis")
    null: Tensor
    coefficients: Tensor
    basis: Tensor

    def __init__(self, source: LowRankTable) -> None:
        super().__init__()
        self.num_steps, self.num_classes = source.null.shape[0], len(source.basis)
        self.hidden_size = source.null.shape[2]
        self.register_buffer("null", source.null.flatten(1))
        self.register_buffer("coefficients", source.coefficients.flatten(0, 1))
        self.register_buffer("basis", source.basis.flatten(1))

    def forward(self, step_index: Tensor, class_index: Tensor) -> Tensor:
        place, step = (class_index, self.num_classes), (step_index, self.num_steps)
        row = pick_rows(self.coefficients, place, step, form=self.form)
        basis = self.look_up(self.basis, place)
        return self._add(step_index, row, basis)

    def _add(self, step_index: Tensor, row: Tensor, basis: Tensor) -> Tensor:
        # row (1, rank), basis of as many rows; reshapes, because XNNPACK takes no axis added or dropped
        null = self.look_up(self.null, (step_index, self.num_steps))
        distance = torch.bmm(row.reshape(1, 1, -1), basis.reshape(1, row.shape[1], -1)).reshape(1, -1)
        return torch.cat([null + distance, null]).reshape(2, -1, self.hidden_size)


class PackConditioner(LowRankConditioner):
    """The same for a base, which is given basis (rank, (6 * depth + 2) * hidden) and coefficients (steps, rank)."""

    def forward(self, step_index: Tensor, basis: Tensor, coefficients: Tensor) -> Tensor:  # type: ignore[override]
        row = pick_rows(coefficients, (step_index, self.num_steps), form=self.form)
        return self._add(step_index, row, basis)
