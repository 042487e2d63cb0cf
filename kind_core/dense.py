"""The ordinary DiT that a decomposable one is with one gate open, as weights by the names of `KindDiT`."""

from __future__ import annotations

import torch
from torch import Tensor

from kind_core.dit import KindDiT


@torch.no_grad()
def dense_state(model: KindDiT, gate: int | None = None) -> dict[str, Tensor]:
    """The learngene's tensors with `<matrix>.weight` = W_G + W_gate in place of the factors; no gate: W_G alone.

    Of a dense model they are its own. Label embeddings of classes are not among them.
    """
    state = model.learngene_state()
    if model.config.is_dense:
        return state
    tailor = {} if gate is None else model.tailors.state_of(gate)
    for name, _, _ in model.config.matrix_names():
        terms = [source for source in (state, tailor) if f"{name}.s" in source]
        state[f"{name}.weight"] = sum((_product(source, name) for source in terms), torch.tensor(0.0))
        for factor in "UsV":
            del state[f"{name}.{factor}"]
    return state


def _product(factors: dict[str, Tensor], name: str) -> Tensor:
    return (factors[f"{name}.U"] * factors[f"{name}.s"]) @ factors[f"{name}.V"].T
