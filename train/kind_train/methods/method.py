"""What every way of adapting a base offers: where it starts, how the model is prepared, what is left in the end."""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from kind_core.config import DiTConfig
from kind_core.errors import ConfigError

if TYPE_CHECKING:  # what a method is called and starts from is asked before torch is loaded
    from torch import Tensor, nn

    from kind_core.dit import DivertedTransformer

# Where a dense base says nothing of components: N_T over hidden size is that of the paper's DiT-B and DiT-L, and so is
# N_G (318 of 768, 424 of 1024).
_TAILOR_SHARE, _LEARNGENE_SHARE = 1 / 256, 0.414
SMALL_RATE, _RATE = 1e-4, 1e-3  # table 7


class Method(ABC):
    """One way of adapting a base to new classes.

    `needs_dense`: it starts from a dense base, else from a decomposed one. `keeps_base`: the base's own classes stay
    as they are, and the checkpoint is the base with the new classes added; else the new classes alone are written.
    `can_shard`: its weights may be shared out over processes. `rate`: the learning rate.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs_dense: ClassVar[bool] = True
    keeps_base: ClassVar[bool] = False
    can_shard: ClassVar[bool] = False
    label_dropout: ClassVar[float] = 0.1
    rate: ClassVar[float] = _RATE

    def learning_rate(self, base: DiTConfig) -> float:
        """The paper's (table 7)."""
        return self.rate

    def plan(self, base: DiTConfig, tailor_rank: int | None = None) -> DiTConfig:
        """The decomposed shape whose tailors set the budget; their rank is the base's, or the paper's share of it."""
        rank = tailor_rank
        if rank is None:
            rank = round(base.hidden_size * _TAILOR_SHARE) if base.is_dense else max(base.ranks)
        learngene = base.learngene_rank or max(1, round(base.hidden_size * _LEARNGENE_SHARE))
        return replace(base, learngene_rank=learngene, tailor_rank=max(rank, 1), tailor_ranks=None)

    def require_base(self, base: DiTConfig, where: str) -> None:
        """Raise ConfigError where the method cannot start from the base at `where`, which has this shape."""
        if base.is_dense != self.needs_dense:
            has, wants = ("dense", "decomposed") if base.is_dense else ("decomposed", "dense")
            raise ConfigError(
                f"{where} is {has}, method {self.name!r} starts from a {wants} base",
                "train one: kind-train fit --preset " + ("dit-sample" if self.needs_dense else "sample"),
            )

    def shape(self, plan: DiTConfig) -> DiTConfig:
        """The model before `prepare`, of the classes that `plan` has."""
        return replace(plan, learngene_rank=None, tailor_rank=0) if self.needs_dense else plan

    def load(self, model: DivertedTransformer, base: DivertedTransformer, seed: int) -> None:
        """Give `model`, which is random, what it inherits of the base."""
        model.load_state_dict(base.learngene_state(), strict=False)

    def prepare(self, model: DivertedTransformer, plan: DiTConfig) -> None:
        """Put in what the method adds, and leave only what it trains requiring a gradient; all of it by default."""
        model.requires_grad_(True)

    def merged(self, model: DivertedTransformer, state: Mapping[str, Tensor]) -> DivertedTransformer:
        """The plain model that `model` is with the weights of `state`, on the same device."""
        return _make_plain(model.config, dict(state), model)


class AddedMethod(Method):
    """A method that puts something into the model, which is folded into the weights in the end."""

    def merged(self, model: DivertedTransformer, state: Mapping[str, Tensor]) -> DivertedTransformer:
        import torch

        adapted = copy.deepcopy(model)
        adapted.load_state_dict(dict(state), strict=False)
        with torch.no_grad():
            config = self.fold(adapted)
        return _make_plain(config, adapted.state_dict(), model)

    def fold(self, model: DivertedTransformer) -> DiTConfig:
        """Replace what was put into `model` by plain layers; returns the shape that it has then."""
        for name, _, _ in model.config.matrix_names():
            layer: Any = model.get_submodule(name)
            replace_layer(model, name, layer.folded())
        return model.config


def _make_plain(config: DiTConfig, state: Mapping[str, Tensor], like: DivertedTransformer) -> DivertedTransformer:
    plain = like.fresh(config).to(like.tailors.weight.device)
    plain.load_state_dict(state)
    return plain.eval()


def freeze(model: nn.Module) -> None:
    """Leave only label embeddings to train, which lie in the bank of tailors."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("tailors."))


def replace_layer(model: DivertedTransformer, name: str, layer: nn.Module) -> None:
    """Put `layer` where the matrix `name` was."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
