"""A frozen matrix of a dense model whose weight runs through a small trained module."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from kind_core.config import DiTConfig
from kind_core.costs.methods import dense_twin
from kind_core.dit import DivertedTransformer
from kind_core.diverted import DenseLinear, Tailor
from kind_train.methods.method import freeze, replace_layer


class AdaptedLinear(nn.Module):
    """`y = change(W) x + b`; W and b are those of `layer`."""

    def __init__(self, layer: DenseLinear, change: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias, self.change = layer.weight, layer.bias, change

    def forward(self, x: Tensor, tailor: Tailor | None = None) -> Tensor:
        """x (batch, tokens, in) -> (batch, tokens, out)."""
        assert tailor is None, "a dense layer was given a tailor"
        return F.linear(x, self.change(self.weight), self.bias)

    def folded(self) -> DenseLinear:
        """The plain layer of the changed weight."""
        layer = DenseLinear(self.weight.shape[1], self.weight.shape[0])
        layer.weight.copy_(self.change(self.weight))
        layer.bias.copy_(self.bias)
        return layer.to(self.weight.device)


def adapt_matrices(model: DivertedTransformer, make_change: Callable[[str, Tensor], nn.Module]) -> None:
    """Freeze a dense model and run each of its block matrices through `make_change(name, weight)`."""
    freeze(model)
    for name, _, _ in model.config.matrix_names():
        layer = model.get_submodule(name)
        assert isinstance(layer, DenseLinear)
        replace_layer(model, name, AdaptedLinear(layer, make_change(name, layer.weight.detach())))


def fold_matrices(model: DivertedTransformer) -> DiTConfig:
    """Put plain layers back, with the weights as they have become."""
    for name, _, _ in model.config.matrix_names():
        layer = model.get_submodule(name)
        assert isinstance(layer, AdaptedLinear)
        replace_layer(model, name, layer.folded())
    return dense_twin(model.config)
