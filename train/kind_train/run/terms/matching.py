"""A smaller model learns from the one that it was made of: its prediction, and its features after the kept blocks.

As in https://arxiv.org/abs/2404.11098: |eps_T - eps_S|^2, and of each kept block |f_T - f_S|^2 over |f_T|^2, which
makes blocks of any scale count alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kind_core.checkpoint import load_checkpoint
from kind_core.config import ModelConfig
from kind_core.dit import DivertedTransformer
from kind_core.errors import ConfigError
from kind_train.run.terms.relations import remember

NAMES = ("term of the teacher's prediction", "term of the teacher's features")
_EPS = 1e-6


class Matching:
    """Remembers what the blocks of `student` put out at its last pass, and compares it with the teacher's.

    Raises ConfigError where the two do not fit together.
    """

    def __init__(self, teacher: Path, blocks: Sequence[int], student: DivertedTransformer, config: ModelConfig) -> None:
        source = load_checkpoint(teacher, with_decoder=False)
        _check(teacher, source.config, blocks, config)
        device = student.tailors.weight.device
        self._teacher = source.model.to(device).requires_grad_(False)
        known = {info.id: index for index, info in enumerate(source.config.classes)}
        self._labels = torch.tensor([known.get(info.id, -1) for info in config.classes], device=device)
        self._student_features: dict[int, Tensor] = {}
        self._teacher_features: dict[int, Tensor] = {}
        for own, theirs in enumerate(blocks):
            remember(student.blocks[own], self._student_features, own)
            remember(self._teacher.blocks[theirs], self._teacher_features, own)

    def terms(self, output: Tensor, noisy: Tensor, condition: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
        """(2,), of `NAMES`: means over the batch whose `output` the student just gave.

        labels (batch,) count in `classes`, or are -1 where they were dropped.
        """
        chosen = labels
        if len(classes):
            own = self._labels[classes]
            chosen = torch.where(labels >= 0, own[labels.clamp(min=0)], labels)
        with torch.no_grad():
            answer = self._teacher(noisy, condition, chosen, chosen)
        prediction = (output - answer).float().square().mean()
        features = [
            (theirs - self._student_features[block]).float().square().mean() / (theirs.float().square().mean() + _EPS)
            for block, theirs in self._teacher_features.items()
        ]
        return torch.stack([prediction, torch.stack(features).mean()])


def _check(teacher: Path, theirs: ModelConfig, blocks: Sequence[int], ours: ModelConfig) -> None:
    for name in ("sample_size", "patch_size", "in_channels", "hidden_size", "out_channels"):
        if getattr(theirs.dit, name) != getattr(ours.dit, name):
            raise ConfigError(
                f"{teacher} has {name} {getattr(theirs.dit, name)}, the model that learns from it "
                f"{getattr(ours.dit, name)}",
                "give --match the model that this one was made of",
            )
    if len(blocks) != ours.dit.depth or not all(0 <= one < theirs.dit.depth for one in blocks):
        raise ConfigError(
            f"match_blocks names {len(blocks)} blocks, expected one of 0 to {theirs.dit.depth - 1} for each of the "
            f"{ours.dit.depth} of the model",
            "kind-train shrink prints them",
        )
