from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from kind_core.diverted import DenseLinear, DivertedLinear, Tailor, init_factors, project

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


def _tensors(layers: list[DivertedLinear], tailors: list[Tailor], x: torch.Tensor) -> list[torch.Tensor]:
    return [x, *(p for layer in layers for p in layer.parameters()), *(t for tailor in tailors for t in tailor)]


@pytest.mark.parametrize("rank", [4, 40], ids=["thin", "materialised"])
@pytest.mark.parametrize("count", [1, 3])
def test_layers_that_share_their_input_have_the_gradients_of_their_formula(rank: int, count: int) -> None:
    layers = [DivertedLinear(IN, OUT, rank, 2).double() for _ in range(count)]
    for layer in layers:
        torch.nn.init.normal_(layer.bias)
    x = torch.randn(3, 5, IN, dtype=torch.float64, requires_grad=True)
    tailors = [Tailor(*(t.double().requires_grad_() for t in _tailor(2, batch=3))) for _ in layers]
    actual = project(layers, x, tailors)
    expected = [
        F.linear(x, (layer.U * layer.s) @ layer.V.T, layer.bias) + ((x @ t.V.transpose(1, 2)) * t.s[:, None]) @ t.U
        for layer, t in zip(layers, tailors, strict=True)
    ]
    weights = [torch.randn_like(y) for y in expected]
    inputs = _tensors(layers, tailors, x)
    for results in zip(actual, expected, strict=True):
        torch.testing.assert_close(*results)
    for one, other in zip(
        torch.autograd.grad(actual, inputs, weights), torch.autograd.grad(expected, inputs, weights), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("rank", [4, 40], ids=["thin", "materialised"])
def test_a_frozen_learngene_gets_no_gradient_and_tailors_the_same(rank: int) -> None:
    layer, x, tailor = DivertedLinear(IN, OUT, rank, 2), torch.randn(3, 5, IN), _tailor(2, batch=3)
    opened = Tailor(*(t.requires_grad_() for t in tailor))
    expected = torch.autograd.grad(layer(x, opened).square().sum(), opened)
    layer.requires_grad_(False)
    layer(x, opened).square().sum().backward()
    assert all(p.grad is None for p in layer.parameters())
    for one, other in zip(opened, expected, strict=True):
        torch.testing.assert_close(one.grad, other)


@pytest.mark.parametrize("rank", [4, 40], ids=["thin", "materialised"])
def test_both_forms_agree(rank: int) -> None:
    layer, x, tailor = DivertedLinear(IN, OUT, rank, 2), torch.randn(3, 5, IN), _tailor(2, batch=3)
    before = layer(x, tailor)
    layer.is_thin = not layer.is_thin
    torch.testing.assert_close(layer(x, tailor), before, rtol=1e-4, atol=1e-4)


def test_autocast_reaches_learngene_and_tailor() -> None:
    layer, x, tailor = DivertedLinear(IN, OUT, 4, 2), torch.randn(3, 5, IN), _tailor(2, batch=3)
    opened = Tailor(*(t.requires_grad_() for t in tailor))
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x, opened)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    for tensor in (*opened, *layer.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer(x, tailor), rtol=0.05, atol=0.2)
