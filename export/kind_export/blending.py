"""Blends: a class of its own that opens the gates of several classes at once, with the mean of their label embeddings.

W = U_G diag(s_G) V_G^T + sum over the blended classes c of U_c diag(s_c) V_c^T
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kind_core.checkpoint import Checkpoint
from kind_core.classes import ClassInfo
from kind_core.config import ModelConfig
from kind_core.dit import KindDiT


@torch.no_grad()
def add_blends(checkpoint: Checkpoint, blends: Sequence[tuple[int, ...]]) -> Checkpoint:
    """`checkpoint` with a further class for each blend of class indices: the tailors side by side, the mean label."""
    if not blends:
        return checkpoint
    source = checkpoint.model
    config = _blended_config(checkpoint.config, blends)
    model = KindDiT(config.dit)
    model.load_state_dict(source.learngene_state(), strict=False)
    states = [source.tailors.state_of(index) for index in range(source.config.num_classes)]
    for index, state in enumerate([*states, *(_blend([states[i] for i in blend]) for blend in blends)]):
        model.tailors.load_class(index, state)
    return replace(checkpoint, config=config, model=model.eval())


def blend_inputs(num_classes: int, blend: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(labels, gates), each (1, num_classes), that make the gated model itself blend these classes."""
    gates = torch.zeros(1, num_classes)
    gates[0, list(blend)] = 1
    return gates / gates.sum(), gates


def blend_info(parts: Sequence[ClassInfo]) -> ClassInfo:
    """First names joined by a plus; ids by a dash, because an id is a file name."""
    return ClassInfo(id="-".join(part.id for part in parts), names=(" + ".join(part.name for part in parts),))


def _blended_config(config: ModelConfig, blends: Sequence[tuple[int, ...]]) -> ModelConfig:
    ranks = config.dit.ranks + tuple(sum(config.dit.ranks[i] for i in blend) for blend in blends)
    infos = tuple(blend_info([config.classes[i] for i in blend]) for blend in blends)
    dit = replace(config.dit, num_classes=len(ranks), tailor_ranks=ranks)
    return replace(config, dit=dit, classes=config.classes + infos)


def _blend(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Files of several tailors as one; a class of rank 0 has a label embedding only."""
    blended = {"label_embedding": torch.stack([state["label_embedding"] for state in states]).mean(dim=0)}
    names = dict.fromkeys(name for state in states for name in state if name != "label_embedding")
    return blended | {name: torch.cat([state[name] for state in states if name in state], dim=-1) for name in names}
