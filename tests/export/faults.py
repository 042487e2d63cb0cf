"""Graph faults for the mutation tests: each turns a right compact model or step module into a wrong one.

`CONSTANT_FAULTS` change numbers only, so they are seeded into a lowered file in place; `MODULE_FAULTS` change the
graph, so they are lowered anew. Not among them, because no gate can see them: a dropped bias of k, which softmax
cancels, and exact for tanh GELU, which differ by less than XNNPACK's own rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kind_export.compact.decode import DecodeProgram
from kind_export.compact.model import CompactModel, Factors, Matrix, ModulationTable
from kind_export.compact.step import StepProgram

ConstantFault = Callable[[CompactModel], CompactModel]
ModuleFault = Callable[[nn.Module], nn.Module]


def _swap(first: str, second: str) -> ConstantFault:
    def fault(model: CompactModel) -> CompactModel:
        block = model.blocks[0]
        return _with_block(model, {first: block[second], second: block[first]})

    return fault


def _alter(name: str, change: Callable[[Matrix], Matrix]) -> ConstantFault:
    return lambda model: _with_block(model, {name: change(model.blocks[0][name])})


def _with_block(model: CompactModel, changed: dict[str, Matrix]) -> CompactModel:
    return replace(model, blocks=(model.blocks[0] | changed, *model.blocks[1:]))


def _without_bias(name: str) -> ConstantFault:
    return _alter(name, lambda matrix: replace(matrix, bias=torch.zeros_like(matrix.bias)))


def _on_factors(change: Callable[[Factors], Factors]) -> Callable[[Matrix], Matrix]:
    def alter(matrix: Matrix) -> Matrix:
        assert isinstance(matrix.learngene, Factors)
        return replace(matrix, learngene=change(matrix.learngene))

    return alter


def _transposed(factors: Factors) -> Factors:
    """The learngene's product transposed, which for square matrices has the same factors in swapped roles."""
    return Factors(up=factors.down.T.contiguous(), scale=None, down=factors.up.T.contiguous())


def _permuted_heads(factors: Factors) -> Factors:
    return replace(factors, down=factors.down.roll(factors.down.shape[1] // 2, dims=1))


def _scaled_output(matrix: Matrix, factor: float) -> Matrix:
    assert isinstance(matrix.learngene, Factors)
    tailors = tuple(replace(t, up=t.up * factor) for t in matrix.tailors)
    learngene = replace(matrix.learngene, up=matrix.learngene.up * factor)
    return replace(matrix, learngene=learngene, tailors=tailors, bias=matrix.bias * factor)


def _on_tailors(change: Callable[[tuple[Factors, ...]], tuple[Factors, ...]]) -> ConstantFault:
    def fault(model: CompactModel) -> CompactModel:
        blocks = tuple({n: replace(m, tailors=change(m.tailors)) for n, m in b.items()} for b in model.blocks)
        return replace(model, blocks=blocks)

    return fault


def _on_table(change: Callable[[Tensor], Tensor]) -> ConstantFault:
    """`change` takes the modulations, (steps, classes + 1, 6 * depth + 2, hidden)."""

    def fault(model: CompactModel) -> CompactModel:
        assert isinstance(model.conditioning, ModulationTable)
        return replace(model, conditioning=ModulationTable(values=change(model.conditioning.values)))

    return fault


def _without_one(values: Tensor) -> Tensor:
    values = values.clone()
    values[:, :, 1] -= 1
    return values


def _swapped_rows(values: Tensor, first: int, second: int) -> Tensor:
    values = values.clone()
    values[:, :, [first, second]] = values[:, :, [second, first]]
    return values


def _on_sampler(**changes: Callable[[Any], Any]) -> ConstantFault:
    def fault(model: CompactModel) -> CompactModel:
        changed = {name: change(getattr(model.sampler, name)) for name, change in changes.items()}
        return replace(model, sampler=replace(model.sampler, **changed))

    return fault


def _swap_rows(column: Any) -> Any:
    return column[[0, 2, 1, 3]]


def _roll(column: Any) -> Any:
    return column[[1, 2, 3, 3]]


def _on_final(change: Callable[[Tensor], Tensor]) -> ConstantFault:
    """`change` takes weight or bias of the final layer as (patch, patch, channels, ...)."""

    def fault(model: CompactModel) -> CompactModel:
        p = model.config.patch_size

        def altered(tensor: Tensor) -> Tensor:
            return change(tensor.unflatten(0, (p, p, -1))).flatten(0, 2).contiguous()

        return replace(model, final_weight=altered(model.final_weight), final_bias=altered(model.final_bias))

    return fault


def _transposed_positions(model: CompactModel) -> CompactModel:
    side = model.config.sample_size // model.config.patch_size
    grid = model.position_embedding.unflatten(1, (side, side))
    return replace(model, position_embedding=grid.transpose(1, 2).flatten(1, 2).contiguous())


CONSTANT_FAULTS: dict[str, ConstantFault] = {
    "q and k swapped": _swap("q", "k"),
    "k and v swapped": _swap("k", "v"),
    "v and o swapped": _swap("v", "o"),
    "no bias of q": _without_bias("q"),
    "no bias of v": _without_bias("v"),
    "no bias of o": _without_bias("o"),
    "no bias of up": _without_bias("up"),
    "no bias of down": _without_bias("down"),
    "no bias of the patches": lambda m: replace(m, patch_bias=torch.zeros_like(m.patch_bias)),
    "no bias of the final layer": lambda m: replace(m, final_bias=torch.zeros_like(m.final_bias)),
    "transposed weight of o": _alter("o", _on_factors(_transposed)),
    "transposed weight of v": _alter("v", _on_factors(_transposed)),
    "heads permuted": _alter("o", _on_factors(_permuted_heads)),
    "no attention scale": _alter("q", lambda m: _scaled_output(m, 4.0)),
    "another class's tailor": _on_tailors(lambda tailors: tailors[::-1]),
    "no tailor": _on_tailors(lambda tailors: tuple(replace(t, up=torch.zeros_like(t.up)) for t in tailors)),
    "no tailor of one matrix": _alter(
        "v", lambda m: replace(m, tailors=tuple(replace(t, up=torch.zeros_like(t.up)) for t in m.tailors))
    ),
    "modulations one step late": _on_table(lambda values: values.roll(1, dims=0)),
    "modulations of another label": _on_table(lambda values: values.roll(1, dims=1)),
    "modulations of the labels swapped": _on_table(lambda values: values[:, [1, 0, 2]]),
    "scale without the one": _on_table(_without_one),
    "shift and scale swapped": _on_table(lambda values: _swapped_rows(values, 0, 1)),
    "attention and MLP gates swapped": _on_table(lambda values: _swapped_rows(values, 2, 5)),
    "sampler rows swapped": _on_sampler(latents=_swap_rows, output=_swap_rows),
    "sampler one step early": _on_sampler(latents=_roll, output=_roll, history=_roll),
    "history dropped": _on_sampler(history=lambda column: column * 0),
    "history with the wrong sign": _on_sampler(history=lambda column: -column),
    "history of the latents": _on_sampler(
        history_from_latents=lambda column: column + 1, history_from_output=lambda column: column * 0
    ),
    "positions transposed": _transposed_positions,
    "patch rows and columns swapped": _on_final(lambda t: t.transpose(0, 1)),
    "channels reversed": _on_final(lambda t: t.flip(2)),
    "patch weights transposed": lambda m: replace(m, patch_weight=m.patch_weight.transpose(2, 3).contiguous()),
}


class _WithInputs(nn.Module):
    """A step program whose last three inputs (step index, class index, guidance) are changed on the way in."""

    def __init__(self, step: nn.Module, change: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.step = step
        self.change = change

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.step(*inputs[:-3], *self.change(*inputs[-3:]))  # type: ignore[no-any-return]


def _guided_by(change: Callable[[Tensor], Tensor]) -> ModuleFault:
    return lambda step: _WithInputs(step, lambda index, label, guidance: (index, label, change(guidance)))


class _LooseNorm(nn.Module):
    """LayerNorm with an epsilon that is far too large."""

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        return centred * ((centred * centred).mean(dim=-1, keepdim=True) + 0.1).rsqrt()


def _replaced(child: str, new: nn.Module) -> ModuleFault:
    def fault(step: nn.Module) -> nn.Module:
        assert isinstance(step, StepProgram)
        parent, _, name = child.rpartition(".")
        setattr(step.get_submodule(parent), name, new)
        return step

    return fault


# halves swapped: c + g (n - c) = n + (1 - g) (c - n)
MODULE_FAULTS: dict[str, ModuleFault] = {
    "guidance with the wrong sign": _guided_by(lambda guidance: -guidance),
    "guidance off by one": _guided_by(lambda guidance: guidance - 1),
    "guidance ignored": _guided_by(torch.ones_like),
    "halves swapped": _guided_by(lambda guidance: 1 - guidance),
    "final norm missing": _replaced("norm", nn.Identity()),
    "norm with a large epsilon": _replaced("blocks.0.norm1", _LooseNorm()),
}


class _Decode(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor], peak: float) -> None:
        super().__init__()
        self.change = change
        self.peak = peak

    def forward(self, latents: Tensor) -> Tensor:
        return self.change(latents) * self.peak


def _decoded_by(change: Callable[[Tensor], Tensor]) -> ModuleFault:
    def fault(decode: nn.Module) -> nn.Module:
        assert isinstance(decode, DecodeProgram)
        return _Decode(change, decode.peak)

    return fault


DECODE_FAULTS: dict[str, ModuleFault] = {
    "decode without the clamp": _decoded_by(lambda latents: latents * 0.5 + 0.5),
    "decode without the half": _decoded_by(lambda latents: (latents * 0.5).clamp(0, 1)),
    "decode with channels reversed": _decoded_by(lambda latents: (latents * 0.5 + 0.5).clamp(0, 1).flip(1)),
    "decode transposed": _decoded_by(lambda latents: (latents * 0.5 + 0.5).clamp(0, 1).transpose(2, 3)),
}
