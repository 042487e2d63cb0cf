"""Factors with orthonormal columns: the learngene's U and V as the first columns of a Cayley transform.

    Q = B (I - A)^-1 (I + A), A skew, of which the first N_G columns; B is what the run began with, made orthonormal

The paper has it in an answer, as slower and worse than free factors. Tailors stay free here: a row of their bank is
trained only when its class is in the batch.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.utils.parametrizations import orthogonal

from kind_core.dit import DivertedTransformer
from kind_core.diverted import DivertedLinear
from kind_core.errors import ConfigError

_FACTORS = ("U", "V")


def constrain_factors(model: DivertedTransformer) -> None:
    """Train the factors of all diverted matrices as orthonormal; raises ConfigError where there are none."""
    if model.config.is_dense:
        raise ConfigError("factors is 'cayley', but the model is dense: it has none", "choose a preset such as sample")
    for layer in [layer for layer in model.modules() if isinstance(layer, DivertedLinear)]:
        for name in _FACTORS:
            factor = getattr(layer, name)
            if factor.shape[0] < factor.shape[1]:
                raise ConfigError(
                    f"factors is 'cayley', but {factor.shape[1]} columns of {factor.shape[0]} cannot be orthonormal",
                    "choose a preset of a smaller learngene rank",
                )
            orthogonal(layer, name, orthogonal_map="cayley")


@torch.no_grad()
def merged(model: DivertedTransformer, state: Mapping[str, Tensor]) -> DivertedTransformer:
    """The plain model that `model` is with the weights of `state`."""
    bound = copy.deepcopy(model)
    bound.load_state_dict(dict(state), strict=False)
    # torch's own removal would take the factors from the class, which `model` shares with its copy
    plain_state = {name: value for name, value in bound.state_dict().items() if ".parametrizations." not in name}
    for name, layer in bound.named_modules():
        if isinstance(layer, DivertedLinear):
            plain_state |= {f"{name}.{factor}": getattr(layer, factor) for factor in _FACTORS}
    plain = model.fresh(model.config).to(model.tailors.weight.device)
    plain.load_state_dict(plain_state)
    return plain.eval()
