"""Training without diversion is training a KIND with all gates open, and its checkpoint is read as it was trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config, make_photos

from kind_core.checkpoint import Checkpoint, load_checkpoint
from kind_core.config import ModelConfig, preset
from kind_core.dit import KindDiT
from kind_core.errors import ConfigError
from kind_core.model_card import render_card
from kind_train.run.trainer import Trainer
from kind_train.start.diversion import open_gates, part_tailors
from kind_train.start.shape import Shape
from tiny import CLASSES, tiny_batch, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = Shape(dit=TINY_DIT, diffusion=TINY_DIFFUSION)


def make_whole() -> Checkpoint:
    """A random model of the shape that training without diversion has."""
    config = open_gates(ModelConfig(dit=TINY_DIT, diffusion=TINY_DIFFUSION, classes=CLASSES[:3]))
    return Checkpoint(config=config, model=tiny_model(config.dit), sha256="")


def test_it_is_a_model_with_the_gates_of_all_classes_open_for_every_image() -> None:
    whole = make_whole()
    parted = part_tailors(whole, 12)
    assert parted.config.dit == TINY_DIT
    labels = torch.tensor([0, 2, -1, 1])
    batch, gates = tiny_batch(TINY_DIT, 4), torch.ones(4, 3)
    outputs = [whole.model(*batch, labels, labels), parted.model(*batch, labels, gates)]
    torch.testing.assert_close(*outputs)
    own = parted.model(*batch, labels, labels)
    assert (own - outputs[0]).abs().amax(dim=(1, 2, 3)).min() > 0.01  # the null label too: no gate is not all gates

    for model, output in zip((whole.model, parted.model), outputs, strict=True):
        output.square().mean().backward()
        assert model.tailors.weight.grad is not None
    bank = parted.model.tailors
    for name, _, _ in TINY_DIT.matrix_names():
        of_tailors = bank.factors(bank.weight.grad, name)  # type: ignore[arg-type]  # just checked
        for factor, of_bank in zip("UsV", of_tailors, strict=True):
            of_learngene = parted.model.get_parameter(f"{name}.{factor}").grad
            of_whole = whole.model.get_parameter(f"{name}.{factor}").grad
            assert of_learngene is not None
            assert of_whole is not None
            joined = torch.cat([of_learngene, of_bank.flatten(0, 1).movedim(0, -1)], dim=-1)
            torch.testing.assert_close(joined, of_whole, rtol=1e-4, atol=1e-5, msg=f"{name}.{factor}")


def test_a_run_without_diversion_says_so(tmp_path: Path) -> None:
    config = make_config(tmp_path / "run", diversion=False)
    trainer = Trainer(config, make_photos(), make_photos(4), shape=SHAPE)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.run()
    # every component of every class was trained, from an image of whatever class
    for name, parameter in trainer.model.named_parameters():
        if name.endswith(".s"):
            assert ((parameter - before[name]) != 0).all()
    checkpoint = load_checkpoint(tmp_path / "run" / "best")
    assert checkpoint.config.dit == replace(TINY_DIT, learngene_rank=12 + 3 * 2, tailor_rank=0)
    said = "without diversion, the gates of all 3 classes open for every image: 12 components and 6 of classes"
    assert checkpoint.config.provenance.training.startswith(said)
    assert f"| training | {said}" in render_card(checkpoint, "name/model")
    # the same to a program that asks for one class only
    one = load_checkpoint(tmp_path / "run" / "best", [1])
    batch, label = tiny_batch(TINY_DIT, 2), torch.tensor([1, 1])
    asked = torch.zeros_like(label)
    assert torch.equal(one.model(*batch, asked, asked), checkpoint.model(*batch, label, label))

    for changed in (True, False):
        resume = make_config(tmp_path / "run", images=56, diversion=changed)
        if changed:
            with pytest.raises(ConfigError, match="was trained with diversion False, not True"):
                Trainer(resume, make_photos(), make_photos(4), shape=SHAPE, resume=True)
        else:
            again = Trainer(resume, make_photos(), make_photos(4), shape=SHAPE, resume=True)
            assert again.step == 12
            again.run()


def test_the_ranks_of_the_preset_are_needed() -> None:
    with pytest.raises(ConfigError, match="learngene_rank 18 does not part into 11 components"):
        part_tailors(make_whole(), 11)
    with pytest.raises(ConfigError, match="does not part into 18"):
        part_tailors(make_whole(), 18)
    diverted = ModelConfig(dit=TINY_DIT, diffusion=TINY_DIFFUSION, classes=CLASSES[:3])
    with pytest.raises(ConfigError, match="does not part"):
        part_tailors(Checkpoint(config=diverted, model=KindDiT(TINY_DIT), sha256=""), 6)


def test_a_dense_model_has_no_gates_to_open() -> None:
    dit, diffusion = preset("dit-sample")
    with pytest.raises(ConfigError, match="diversion is False, but the model has no tailors"):
        open_gates(Shape(dit=dit, diffusion=diffusion).with_classes(CLASSES))
