"""Tables that a program reads a row of."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

LookupForm = Literal["gather", "one_hot"]


class LookupModule(nn.Module):
    """Buffers of which a call reads one row, computed with in the module's own dtype however they are stored."""

    TABLES: tuple[str, ...] = ()
    widened_to: torch.dtype | None = None
    form: LookupForm = "gather"

    def store_as(self, dtype: torch.dtype) -> None:
        """Store the tables as `dtype` and widen what is read of them."""
        for name in self.TABLES:
            table = self.get_buffer(name)
            self.widened_to = table.dtype
            self.register_buffer(name, table.to(dtype))

    def join_places(self, *places: Tensor) -> Tensor:
        """Places of several rows as one tensor; a GPU joins no integers."""
        return torch.cat([one if self.form == "gather" else one.to(torch.float32) for one in places])

    def look_up(self, table: Tensor, *index: tuple[Tensor, int]) -> Tensor:
        row = pick_rows(table, *index, form=self.form)
        return row if self.widened_to is None else row.to(self.widened_to)


def pick_rows(table: Tensor, *index: tuple[Tensor, int], form: LookupForm) -> Tensor:
    """Rows of `table` (rows, width), as a gather or as products of one-hot rows with it: (n, width).

    `index` is a place on each of the axes that the rows were made of, the slowest first: (1,) int32, of the last (n,),
    and the length of its axis. The products are exact.
    """
    if form == "gather":
        flat, _ = index[0]
        for place, size in index[1:]:
            flat = flat * size + place
        return table.index_select(0, flat)
    rows = table
    for place, size in index:
        if size > 1:  # of one there is no choice
            rows = _one_hot(place, size).to(table.dtype) @ rows.reshape(size, -1)
    return rows.reshape(-1, *table.shape[1:])


def as_cut(row: Tensor, form: LookupForm) -> Tensor:
    """A row (1, width) as `cut_row` takes it: with a third axis where a GPU slices no less."""
    return row if form == "gather" else row.unsqueeze(0)


def cut_row(row: Tensor, start: int, width: int) -> Tensor:
    """A part of a row."""
    return row[:, start : start + width] if row.dim() == 2 else row[:, :, start : start + width]


def _one_hot(place: Tensor, size: int) -> Tensor:
    """(n,) integers below `size` -> (n, size), by arithmetic: a GPU has no integers, and counts to 2048 in fp16."""
    distance = torch.arange(size, dtype=torch.float32) - place.to(torch.float32).reshape(-1, 1)
    return (1 - distance.abs()).relu()
