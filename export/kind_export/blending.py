"""Blends: a class of its own that opens the gates of several classes at once, with the mean of their label embeddings.

    W = U_G diag(s_G) V_G^T + sum over the blended classes c of U_c diag(s_c) V_c^T

An opening is the classes of a checkpoint that one class of an export opens: one for a plain class, several for a blend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kind_core.checkpoint import Checkpoint
from kind_core.class_ids import make_distinct
from kind_core.classes import MAX_ID_BYTES, ClassInfo
from kind_core.config import ModelConfig
from kind_core.dit import KindDiT
from kind_core.naming import shorten

Opening = tuple[int, ...]


@torch.no_grad()
def open_together(checkpoint: Checkpoint, openings: Sequence[Opening]) -> Checkpoint:
    """A checkpoint with a class for each opening: the tailors side by side, the mean label."""
    if list(openings) == plain_openings(checkpoint.config):
        return checkpoint
    source = checkpoint.model
    config = _blended_config(checkpoint.config, openings)
    model = KindDiT(config.dit)
    model.load_state_dict(source.learngene_state(), strict=False)
    states = [source.tailors.state_of(index) for index in range(source.config.num_classes)]
    for index, opening in enumerate(openings):
        model.tailors.load_class(index, _blend([states[i] for i in opening]))
    return replace(checkpoint, config=config, model=model.eval())


def plain_openings(config: ModelConfig) -> list[Opening]:
    """Every class by itself."""
    return [(index,) for index in range(config.dit.num_classes)]


def opening_inputs(num_classes: int, opening: Opening) -> tuple[Tensor, Tensor]:
    """(labels, gates) of the gated model: (1,) for one class, each (1, num_classes) for several."""
    if len(opening) == 1:
        index = torch.tensor(opening)
        return index, index
    gates = torch.zeros(1, num_classes)
    gates[0, list(opening)] = 1
    return gates / gates.sum(), gates


def describe_openings(config: ModelConfig, openings: Sequence[Opening]) -> tuple[ClassInfo, ...]:
    """The classes; of a blend the first names joined by a plus, and the ids by a dash: an id is a file name."""
    parts = [[config.classes[index] for index in opening] for opening in openings]
    ids = [[part.id for part in one] for one in parts]
    joined = [shorten("-".join(one), "+".join(one), MAX_ID_BYTES) for one in ids]
    distinct = make_distinct(joined, ["+".join(one) for one in ids])
    return tuple(
        one[0] if len(one) == 1 else ClassInfo(id=class_id, names=(" + ".join(part.name for part in one),))
        for class_id, one in zip(distinct, parts, strict=True)
    )


def _blended_config(config: ModelConfig, openings: Sequence[Opening]) -> ModelConfig:
    ranks = tuple(sum(config.dit.ranks[i] for i in opening) for opening in openings)
    infos = describe_openings(config, openings)
    return replace(config, dit=replace(config.dit, num_classes=len(ranks), tailor_ranks=ranks), classes=infos)


def _blend(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Files of several tailors as one; a class of rank 0 has a label embedding only."""
    blended = {"label_embedding": torch.stack([state["label_embedding"] for state in states]).mean(dim=0)}
    names = dict.fromkeys(name for state in states for name in state if name != "label_embedding")
    return blended | {name: torch.cat([state[name] for state in states if name in state], dim=-1) for name in names}
