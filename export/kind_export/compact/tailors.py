"""The tailors of a class as one row: of a table that a program picks from, or of a pack that it is given."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kind_core.config import DiTConfig
from kind_export.compact.layers import LookupModule, as_cut, cut_row
from kind_export.compact.model import CompactModel, Factors, Matrix

# The tailors of a block by matrix: the way down, then the way up; q, k and v share the first.
Tailors = dict[str, tuple[Tensor, ...]]


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
        """row (1, width) or (1, 1, width) -> for each block, by matrix: down (1, in, rank), then up (1, rank, out); qkv
        has three.
        """
        if not self.width:
            return []
        return [self._cut_block(row, index * self.block_width) for index in range(self.depth)]

    def _cut_block(self, row: Tensor, offset: int) -> Tailors:
        parts: dict[str, list[Tensor]] = {}
        for name, start, (height, width) in self.spans:
            first = offset + start
            parts.setdefault(name, []).append(cut_row(row, first, height * width).reshape(1, height, width))
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


class TailorTable(LookupModule):
    """The tailors of several classes as rows of one table, so that a program picks a class with a single gather.

    Programs of one class hold their tailor as constants and have no table; a base has none either and cuts the row
    that it is given.
    """

    TABLES = ("table",)
    table: Tensor

    def __init__(self, model: CompactModel) -> None:
        super().__init__()
        is_dynamic = model.num_classes > 1 and any(m.tailors for block in model.blocks for m in block.values())
        own = max((one.rank for one in _tailors_of(model.blocks[0], 0).values()), default=0) if is_dynamic else 0
        rank = model.pack_rank or own
        self.layout = TailorLayout(model.config, rank)
        self.register_buffer("table", self.layout.rows(model) if is_dynamic else torch.empty(0, 0))

    def forward(self, class_index: Tensor) -> list[Tailors]:
        """class_index (1,) -> the tailors of each block; none where they are constants."""
        if not self.layout.width:
            return []
        return self.cut(self.look_up(self.table, (class_index, len(self.table))))

    def cut(self, row: Tensor) -> list[Tailors]:
        return self.layout.cut(as_cut(row, self.form))


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
