"""One function a class: programs that hold their class as constants and share all else in one Core ML package."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from kind_core.classes import ClassInfo
from kind_core.naming import MAX_STEM_BYTES, digest_text
from kind_export.compact.model import CompactModel
from kind_export.compact.step import GraphStyle, StepProgram
from kind_export.rewrites.pick_class import pick_class
from kind_export.targets.programs import make_step
from kind_export.targets.target import Lowering, Target, TargetOptions


class ClassStep(StepProgram):
    """A step of the only class of a model: forward(latents, [history,] step_index[, guidance]), without class_index."""

    only_class: Tensor

    def __init__(self, model: CompactModel, style: GraphStyle) -> None:
        super().__init__(model, style=style)
        self.register_buffer("only_class", torch.zeros(1, dtype=torch.int32))

    def forward(self, latents: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        num_state = 1 if self.has_history else 0
        state, (step_index, *guidance) = rest[:num_state], rest[num_state:]
        return super().forward(latents, *state, step_index, self.only_class, *guidance)


def name_functions(classes: Sequence[ClassInfo]) -> dict[str, str]:
    """The function of each class by id: its first name where no other has it, in letters, digits and underscores.

    Otherwise its id, or a digest of it where that has letters which Core ML does not take.
    """
    choices = [(_slug(info.name), _slug(f"class {info.id}"), f"class_{digest_text(info.id, 16)}") for info in classes]
    held = Counter(chain.from_iterable(choices))
    return {
        info.id: next(one for one in own if one[:1].isalpha() and held[one] == 1)
        for info, own in zip(classes, choices, strict=True)
    }


def make_class_steps(
    model: CompactModel, functions: Mapping[str, str], target: Target, options: TargetOptions
) -> dict[str, Lowering]:
    """The step of each class of `model` by function name; `functions` has them in the order of class_index."""
    return {name: _make_class_step(pick_class(model, i), target, options) for i, name in enumerate(functions.values())}


def _make_class_step(model: CompactModel, target: Target, options: TargetOptions) -> Lowering:
    step = make_step(model, target, options)
    places = [i for i, spec in enumerate(step.inputs) if spec.name != "class_index"]
    return replace(
        step,
        module=ClassStep(model, target.STYLE).eval(),
        example=tuple(step.example[i] for i in places),
        inputs=tuple(step.inputs[i] for i in places),
    )


def _slug(text: str) -> str:
    """`text` as an identifier; nothing of a text that is long or in letters that an identifier has not."""
    is_whole = text.isascii() and len(text) <= MAX_STEM_BYTES
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") if is_whole else ""
