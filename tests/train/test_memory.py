"""Activations computed twice: the same gradients from far fewer bytes kept. Sharding is in test_train_processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config, make_photos
from torch import Tensor

from kind_core.config import DiTConfig
from kind_core.dit import KindDiT
from kind_core.errors import ConfigError
from kind_train.run.forms import read_forms
from kind_train.run.memory import checkpoint_activations
from kind_train.run.trainer import Trainer
from kind_train.start.shape import Shape
from tiny import tiny_batch, tiny_config, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")
DIVERTED = tiny_config(depth=6)
DENSE = tiny_config(depth=6, learngene_rank=None, tailor_rank=0)


def run_backward(model: KindDiT) -> tuple[dict[str, Tensor], int]:
    """Output and gradients of a batch, and the bytes that the forward pass keeps for them beside the parameters."""
    kept: dict[int, int] = {}
    labels = torch.tensor([0, 1, 1, -1, 3, 2])
    rows = model.tailors.weight.detach().clone().requires_grad_()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(*tiny_batch(model.config, 6), labels, labels, rows)
    output.square().mean().backward()
    assert rows.grad is not None
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    held = {p.untyped_storage().data_ptr() for p in (*model.parameters(), rows)}
    num_bytes = sum(size for place, size in kept.items() if place not in held)
    return {"output": output.detach(), "rows": rows.grad, **gradients}, num_bytes


@pytest.mark.parametrize("config", [DIVERTED, DENSE], ids=["diverted", "dense"])
def test_activations_computed_twice_give_the_same_gradients_from_fewer_bytes(config: DiTConfig) -> None:
    kept, num_bytes = run_backward(tiny_model(config).train())
    model = tiny_model(config).train()
    checkpoint_activations(model)
    again, fewer_bytes = run_backward(model)
    assert set(kept) == set(again)
    for name, value in kept.items():
        assert torch.equal(value, again[name]), name
    print(f"{num_bytes} bytes kept, {fewer_bytes} with activations computed twice")
    assert fewer_bytes < num_bytes / 3


def test_a_run_is_the_same_with_activations_computed_twice(tmp_path: Path) -> None:
    losses = []
    for twice in (False, True):
        config = make_config(tmp_path / str(twice), checkpoint_activations=twice)
        trainer = Trainer(config, make_photos(), make_photos(4), shape=Shape(dit=TINY_DIT, diffusion=TINY_DIFFUSION))
        assert hasattr(trainer.model.blocks[0].forward, "func") == twice
        assert len(read_forms(trainer.model)) == 4
        losses.append((trainer.run(), [p.clone() for p in trainer.model.parameters()]))
    assert losses[0][0] == losses[1][0]
    assert all(torch.equal(one, other) for one, other in zip(losses[0][1], losses[1][1], strict=True))


def test_a_sharded_model_is_not_compiled(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="compile is True, expected false where the model is sharded"):
        make_config(tmp_path, compile=True, shard=True)
