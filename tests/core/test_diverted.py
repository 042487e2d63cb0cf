from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from kind_core.diverted import DenseLinear, DivertedLinear, Tailor, init_factors

IN, OUT = 48, 32


def _tailor(rank: int, batch: int) -> Tailor:
    return Tailor(torch.randn(batch, rank, OUT), torch.randn(batch, rank), torch.randn(batch, rank, IN))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# 48 x 32 = 1536 products dense, 80 a component: thin up to 19 components, materialised from 20.
@pytest.mark.parametrize("rank", [1, 19, 20, 64])
def test_it_is_the_linear_layer_of_its_composed_weight(rank: int) -> None:
    layer, x = DivertedLinear(IN, OUT, rank, 0), torch.randn(3, 5, IN)
    torch.nn.init.normal_(layer.bias)
    weight = layer.U @ torch.diag(layer.s) @ layer.V.T
    torch.testing.assert_close(layer(x, None), F.linear(x, weight, layer.bias))
    torch.testing.assert_close(layer.learngene_weight(), weight)


@pytest.mark.parametrize("rank", [4, 40])
def test_each_sample_gets_its_own_tailor(rank: int) -> None:
    layer, x, tailor = DivertedLinear(IN, OUT, rank, 2), torch.randn(3, 5, IN), _tailor(2, batch=3)
    y = layer(x, tailor)
    for i in range(3):
        weight = layer.learngene_weight() + tailor.U[i].T @ torch.diag(tailor.s[i]) @ tailor.V[i]
        torch.testing.assert_close(y[i], F.linear(x[i], weight, layer.bias), rtol=1e-4, atol=1e-4)


def test_a_tailor_of_no_components_changes_nothing() -> None:
    layer, x = DivertedLinear(IN, OUT, 4, 2), torch.randn(3, 5, IN)
    assert torch.equal(layer(x, _tailor(0, batch=3)), layer(x, None))


@pytest.mark.parametrize(("in_features", "out_features"), [(256, 256), (256, 1024), (1024, 256)])
@pytest.mark.parametrize("tailor_rank", [0, 4, 32])
def test_the_composed_weight_starts_with_xaviers_variance(
    in_features: int, out_features: int, tailor_rank: int
) -> None:
    layer = DivertedLinear(in_features, out_features, 96, tailor_rank)
    U, s, V = (
        torch.empty(tailor_rank, out_features),
        torch.empty(tailor_rank),
        torch.empty(tailor_rank, in_features),
    )
    init_factors(U, s, V, in_features, out_features, layer.live_rank)
    weight = layer.learngene_weight() + U.T @ torch.diag(s) @ V
    xavier = 2 / (in_features + out_features)
    assert weight.var().item() == pytest.approx(xavier, rel=0.04)
    assert abs(weight.mean().item()) < 0.02 * xavier**0.5


def test_biases_start_at_zero() -> None:
    assert not DivertedLinear(IN, OUT, 4, 2).bias.any()


def test_a_dense_layer_takes_no_tailor() -> None:
    layer, x = DenseLinear(IN, OUT), torch.randn(3, 5, IN)
    torch.testing.assert_close(layer(x, None), F.linear(x, layer.weight, layer.bias))
    with pytest.raises(AssertionError, match="dense layer was given a tailor"):
        layer(x, _tailor(1, batch=3))
