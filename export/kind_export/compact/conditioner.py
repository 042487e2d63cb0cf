"""Step and class to the modulations of every block, one module for each way of storing them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_export.compact.layers import make_linear
from kind_export.compact.lookup import LookupModule
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


class EmbedderConditioner(nn.Module):
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
        self.register_buffer("timesteps", torch.from_numpy(model.sampler.timesteps))
        self.register_buffer("label_embeddings", source.label_embeddings)
        self.register_buffer("offset", scale_offset(model.config.depth))
        self.register_buffer("null_label", torch.tensor([model.num_classes], dtype=torch.int32))

    def forward(self, step_index: Tensor, class_index: Tensor) -> Tensor:
        embedded = self.timestep_mlp(self.timesteps.index_select(0, step_index))
        labels = torch.cat([class_index, self.null_label])  # the label of each half
        rows = self.label_embeddings.index_select(0, labels)
        vectors = F.silu(embedded.reshape(1, -1, self.hidden_size) + rows).unbind(1)  # one, or one for each block
        read = (*vectors, vectors[0]) if len(vectors) > 1 else vectors * len(self.adaln)
        values = torch.cat([layer(one) for layer, one in zip(self.adaln, read, strict=True)], dim=1)
        return values.reshape(2, -1, self.hidden_size) + self.offset


class TableConditioner(LookupModule):
    """A `ConditioningTable` or a `ModulationTable` as a module: one gather, and the adaLN layers in the first case."""

    TABLES = ("table",)
    table: Tensor
    null_label: Tensor

    def __init__(self, source: ConditioningTable | ModulationTable, model: CompactModel) -> None:
        super().__init__()
        table = source.values if isinstance(source, ModulationTable) else source.vectors
        self.layer = None if isinstance(source, ModulationTable) else _make_adaln(source)
        self.num_labels, self.hidden_size = table.shape[1], model.config.hidden_size
        self.register_buffer("null_label", torch.tensor([self.num_labels - 1], dtype=torch.int32))
        self.register_buffer("table", table.reshape(table.shape[0] * table.shape[1], -1))

    def forward(self, step_index: Tensor, class_index: Tensor) -> Tensor:
        labels = torch.cat([class_index, self.null_label])  # the label of each half
        rows = self.look_up(self.table, step_index * self.num_labels + labels)
        values = rows if self.layer is None else self.layer(rows)
        return values.reshape(2, -1, self.hidden_size)


class BlockAdaln(nn.Module):
    """The adaLN layers where every block reads a vector of its own: (halves, depth * hidden) -> all modulations."""

    def __init__(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make_linear(weight, bias) for weight, bias in layers)

    def forward(self, rows: Tensor) -> Tensor:
        vectors = rows.chunk(len(self.layers) - 1, dim=1)
        read = (*vectors, vectors[0])  # the final layer reads the first block's
        return torch.cat([layer(one) for layer, one in zip(self.layers, read, strict=True)], dim=1)


def _make_adaln(source: ConditioningTable) -> nn.Module:
    layers = split_adaln(source.weight, source.bias, source.vectors.shape[2])
    return make_linear(*layers[0]) if len(layers) == 1 else BlockAdaln(layers)


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
