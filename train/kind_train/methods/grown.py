"""Components beside a frozen learngene that serve every class: the ablations of table 4, and arms of a distillation."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import torch
from torch import Tensor, nn

from kind_core.config import DiTConfig
from kind_core.dit import DivertedTransformer
from kind_core.diverted import DivertedLinear
from kind_train.config import ACCELERATOR, BOTH, TABLE, TAILORS
from kind_train.methods.method import AddedMethod, Method, freeze, replace_layer


class GrownLinear(DivertedLinear):
    """A diverted layer with `rank` trained components behind those of `layer`, which are frozen.

    `as_lora`: they start as LoRA's, U at zero and no s; else as a tailor that is still closed, with s at zero.
    """

    ones: Tensor | None

    def __init__(self, layer: DivertedLinear, rank: int, *, as_lora: bool) -> None:
        nn.Module.__init__(self)  # U, s and V are put together below
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.live_rank, self.is_thin = layer.live_rank + rank, layer.is_thin
        self.kept = nn.ParameterDict({name: getattr(layer, name) for name in ("U", "s", "V")})
        device = layer.bias.device
        up = torch.zeros(layer.out_features, rank) if as_lora else _draw(layer.out_features, rank)
        self.added = nn.ParameterDict({"U": up.to(device), "V": _draw(layer.in_features, rank).to(device)})
        self.register_buffer("ones", torch.ones(rank, device=device) if as_lora else None, persistent=False)
        if not as_lora:
            self.added["s"] = torch.zeros(rank, device=device)
        self.bias = layer.bias

    @property
    def U(self) -> Tensor:  # type: ignore[override]  # noqa: N802
        return torch.cat([self.kept["U"], self.added["U"]], dim=1)

    @property
    def s(self) -> Tensor:  # type: ignore[override]
        return torch.cat([self.kept["s"], self.added["s"] if self.ones is None else self.ones])

    @property
    def V(self) -> Tensor:  # type: ignore[override]  # noqa: N802
        return torch.cat([self.kept["V"], self.added["V"]], dim=1)

    def folded(self) -> DivertedLinear:
        """The plain diverted layer of all components."""
        layer = DivertedLinear(self.in_features, self.out_features, self.s.shape[0], 0)
        for name in ("U", "s", "V", "bias"):
            getattr(layer, name).copy_(getattr(self, name))
        return layer.to(self.bias.device)


class GrownMethod(AddedMethod):
    """Trains shared components of the budget of all tailors, and the label embeddings of the new classes."""

    needs_dense = False
    as_lora = True

    def shape(self, plan: DiTConfig) -> DiTConfig:
        return replace(plan, tailor_rank=0)

    def prepare(self, model: DivertedTransformer, plan: DiTConfig) -> None:
        freeze(model)
        grow(model, plan.tailor_rank * model.config.num_classes, as_lora=self.as_lora)

    def fold(self, model: DivertedTransformer) -> DiTConfig:
        config, (name, _, _) = super().fold(model), model.config.matrix_names()[0]
        grown = model.get_submodule(name)
        assert isinstance(grown, DivertedLinear)
        return replace(config, learngene_rank=len(grown.s))


def grow(model: DivertedTransformer, rank: int, *, as_lora: bool) -> None:
    """Put `rank` trained components behind those of every diverted layer, which stay as they are."""
    for name, _, _ in model.config.matrix_names():
        layer = model.get_submodule(name)
        assert isinstance(layer, DivertedLinear)
        grown = GrownLinear(layer, rank, as_lora=as_lora)
        grown.added.requires_grad_(True)
        replace_layer(model, name, grown)


def _draw(features: int, rank: int) -> Tensor:
    return torch.randn(features, rank) / sqrt(features)


class LearngeneLora(GrownMethod):
    """Table 4, #2: the learngene of a decomposed base, frozen, and LoRA of the tailors' budget beside it."""

    name, title = "learngene-lora", "learngene + LoRA (#2)"


class OpenTailors(GrownMethod):
    """Table 4, #3: the learngene, frozen, and a tailor for every new class, with all gates open for every image.

    Nothing then tells one tailor from another: they are components that serve every class. They start with s at zero.
    """

    name, title = "open-tailors", "learngene + tailors without gates (#3)"
    as_lora = False


class SvdLora(GrownMethod):
    """Table 4, #1: random singular triplets of a dense base, as many as a learngene has components, and LoRA beside."""

    name, title = "svd-lora", "random SVD triplets + LoRA (#1)"
    needs_dense = True

    def plan(self, base: DiTConfig, tailor_rank: int | None = None) -> DiTConfig:
        plan = super().plan(base, tailor_rank)
        return replace(plan, learngene_rank=min(plan.learngene_rank or 1, base.hidden_size, base.mlp_size))

    @torch.no_grad()
    def load(self, model: DivertedTransformer, base: DivertedTransformer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        state = base.learngene_state()
        for name, _, _ in base.config.matrix_names():
            U, s, Vt = torch.linalg.svd(state.pop(f"{name}.weight").float(), full_matrices=False)
            kept = torch.randperm(len(s), generator=generator)[: model.config.learngene_rank]
            state |= {f"{name}.U": U[:, kept], f"{name}.s": s[kept], f"{name}.V": Vt[kept].T}
        model.load_state_dict(state, strict=False)


class TailorsAlone(Method):
    """The tailors and label embeddings; the learngene keeps its bits."""

    name, title = TAILORS, "tailors alone"
    needs_dense = False

    def prepare(self, model: DivertedTransformer, plan: DiTConfig) -> None:
        freeze(model)


class TableAlone(Method):
    """What an export bakes into the table of modulations; every matrix and every tailor keeps its bits."""

    name, title = TABLE, "table alone"
    needs_dense = False

    def prepare(self, model: DivertedTransformer, plan: DiTConfig) -> None:
        model.requires_grad_(False)
        _open_modulations(model)


class Accelerator(GrownMethod):
    """`rank` components in every matrix, behind those of the learngene; `with_table` the modulations, too.

    LCM-LoRA (https://arxiv.org/abs/2311.05556) in the form of a KIND model: a low-rank addition for every class, which
    serves tailors that it was not distilled with.
    """

    name, title = "accelerator", "accelerator"

    def __init__(self, rank: int, *, with_table: bool = False) -> None:
        self.rank, self.with_table = rank, with_table

    def prepare(self, model: DivertedTransformer, plan: DiTConfig) -> None:
        model.requires_grad_(False)
        if self.with_table:
            _open_modulations(model)
        grow(model, self.rank, as_lora=True)


def open_arm(name: str, accelerator_rank: int) -> Method | None:
    """What trains the arm `name` of `ARMS`; None where that is all of the student."""
    arms: dict[str, Method] = {
        TAILORS: TailorsAlone(),
        TABLE: TableAlone(),
        ACCELERATOR: Accelerator(accelerator_rank),
        BOTH: Accelerator(accelerator_rank, with_table=True),
    }
    return arms.get(name)


def _open_modulations(model: DivertedTransformer) -> None:
    for name, parameter in model.named_parameters():
        if name.startswith("timestep_embedder.") or ".adaln." in name:
            parameter.requires_grad_(True)
