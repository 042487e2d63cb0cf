"""Activations and softmax."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from kind_runtimes.coreml.ops.registry import rule


def _gelu_sigmoid(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


_GELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "EXACT": functional.gelu,
    "TANH_APPROXIMATION": lambda x: functional.gelu(x, approximate="tanh"),
    "SIGMOID_APPROXIMATION": _gelu_sigmoid,
}


@rule("gelu")
def gelu(x: Tensor, mode: str) -> Tensor:
    """x * Phi(x), exact or by one of two approximations."""
    return _GELUS[mode](x)


@rule("softmax")
def softmax(x: Tensor, axis: int) -> Tensor:
    """exp(x) / sum(exp(x)) along `axis`."""
    return functional.softmax(x, axis)


@rule("sigmoid")
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return torch.sigmoid(x)


@rule("silu")
def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x)."""
    return functional.silu(x)


@rule("relu")
def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return functional.relu(x)


@rule("relu6")
def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6)."""
    return functional.relu6(x)


@rule("softplus")
def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    return functional.softplus(x)


@rule("softsign")
def softsign(x: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return functional.softsign(x)


@rule("leaky_relu")
def leaky_relu(x: Tensor, alpha: float) -> Tensor:
    """x where x >= 0, else alpha * x."""
    return functional.leaky_relu(x, alpha)


@rule("elu")
def elu(x: Tensor, alpha: float) -> Tensor:
    """x where x > 0, else alpha * (exp(x) - 1)."""
    return functional.elu(x, alpha)


@rule("prelu")
def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """x where x > 0, else alpha * x with one alpha per channel (axis 1)."""
    return functional.prelu(x, alpha)


@rule("linear_activation")
def linear_activation(x: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha * x + beta."""
    return alpha * x + beta


@rule("scaled_tanh")
def scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha * tanh(beta * x)."""
    return alpha * torch.tanh(beta * x)


@rule("sigmoid_hard")
def sigmoid_hard(x: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha * x + beta limited to [0, 1]."""
    return torch.clamp(alpha * x + beta, 0, 1)


@rule("clamped_relu")
def clamped_relu(x: Tensor, alpha: float, beta: float) -> Tensor:
    """min(beta, x) where x >= 0, else min(beta, alpha * x)."""
    return torch.clamp(functional.leaky_relu(x, alpha), max=beta)


@rule("thresholded_relu")
def thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    """x where x >= alpha, else 0."""
    return torch.where(x >= alpha, x, torch.zeros_like(x))
