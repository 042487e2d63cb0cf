"""Tables that a program reads a row of."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
