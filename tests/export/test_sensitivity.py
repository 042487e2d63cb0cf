"""The ranking of layers by what their quantisation costs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from kind_export.precision import (
    choose_kept,
    describe_costs,
    measure_costs,
    quantizable_layers,
    round_weight,
)


class _Sum(nn.Module):
    """Two equal layers, one of which counts a hundred times more."""

    def __init__(self) -> None:
        super().__init__()
        self.loud, self.quiet, self.tiny = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (100 * self.loud(x) + self.quiet(x) + self.tiny(x).sum(),)


def test_the_layer_that_counts_more_costs_more() -> None:
    torch.manual_seed(0)
    module = _Sum()
    before = {name: p.clone() for name, p in module.named_parameters()}
    costs = measure_costs(module, [(torch.randn(2, 64),), (torch.randn(2, 64),)], "int4")
    assert list(costs) == ["loud", "quiet"]
    assert costs["loud"] > 1000 * costs["quiet"] > 0
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())


def test_fewer_bits_cost_more() -> None:
    torch.manual_seed(0)
    module, inputs = _Sum(), [(torch.randn(2, 64),)]
    int8, int4 = (measure_costs(module, inputs, precision)["loud"] for precision in ("int8", "int4"))
    assert int4 > 30 * int8


def test_layers_with_a_thin_side_are_left() -> None:
    assert list(quantizable_layers(_Sum())) == ["loud", "quiet"]


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_rounding_stays_within_half_a_level(bits: int) -> None:
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    rounded = round_weight(weight, bits)
    level = weight.abs().amax() / (2 ** (bits - 1) - 1)
    assert 0 < (weight - rounded).abs().max() <= level / 2 + 1e-6
    assert torch.allclose(round_weight(rounded, bits), rounded, atol=1e-5)


def test_as_many_are_kept_as_carry_the_excess_noise() -> None:
    costs = {"a": 90.0, "b": 9.0, "c": 0.9, "d": 0.1}
    assert choose_kept(costs, frozenset(), shortfall_db=5) == {"a"}  # 10 of 100 are left: -10 dB
    assert choose_kept(costs, frozenset(), shortfall_db=15) == {"a", "b"}
    assert choose_kept(costs, frozenset("a"), shortfall_db=5) == {"a", "b"}
    assert choose_kept(costs, frozenset("ab"), shortfall_db=math.inf) == set("abcd")


def test_costs_are_described_with_their_shares() -> None:
    assert describe_costs({"a": 3.0, "b": 1.0}, count=1) == "a (75%)"
