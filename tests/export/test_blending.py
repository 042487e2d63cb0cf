"""A blend equals the gated model with several gates open and the mean label."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kind_core.checkpoint import Checkpoint
from kind_export.blending import open_together, opening_inputs, plain_openings
from tiny import tiny_batch, tiny_config, tiny_model, tiny_model_config


def _checkpoint(**changes: Any) -> Checkpoint:
    dit = tiny_config(**changes)
    return Checkpoint(config=tiny_model_config(dit), model=tiny_model(dit), sha256="")


@pytest.mark.parametrize("changes", [{}, {"tailor_ranks": (3, 0, 1, 2)}], ids=["one rank", "ranks by class"])
@pytest.mark.parametrize("blend", [(0, 2), (1, 2, 3)])
@torch.no_grad()
def test_blend_equals_gates_opened_together(changes: dict[str, Any], blend: tuple[int, ...]) -> None:
    checkpoint = _checkpoint(**changes)
    blended = open_together(checkpoint, [(3,), blend])
    latents, timesteps = tiny_batch(checkpoint.config.dit, 1)
    expected = checkpoint.model(latents, timesteps, *opening_inputs(4, blend))
    index = torch.tensor([1])
    actual = blended.model(latents, timesteps, index, index)
    assert torch.allclose(actual, expected, atol=1e-5)
    alone = checkpoint.model(latents, timesteps, torch.tensor([blend[0]]), torch.tensor([blend[0]]))
    assert (alone - expected).abs().max() > 1e-2


@torch.no_grad()
def test_other_classes_stay_as_they_are() -> None:
    checkpoint = _checkpoint()
    blended = open_together(checkpoint, [*plain_openings(checkpoint.config), (0, 1)])
    latents, timesteps = tiny_batch(checkpoint.config.dit, 4)
    labels = torch.arange(4)
    before, after = (c.model(latents, timesteps, labels, labels) for c in (checkpoint, blended))
    assert torch.allclose(before, after, atol=1e-3)


def test_blend_is_named_after_its_parts() -> None:
    blended = open_together(_checkpoint(), [(0, 2)])
    assert blended.config.classes[-1].id == "n02510455-n07749582"
    assert blended.config.classes[-1].name == "giant panda + lemon"


def test_no_blend_leaves_the_checkpoint() -> None:
    checkpoint = _checkpoint()
    assert open_together(checkpoint, [(0,), (1,), (2,), (3,)]) is checkpoint
