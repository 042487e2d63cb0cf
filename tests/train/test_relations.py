"""The REPA term: what it measures, when it counts, what it leaves alone, and where it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_training import make_config, make_photos, run_losses
from torch import Tensor
from torch.nn import functional as F

from kind_core.checkpoint import load_checkpoint, read_config
from kind_core.dit import KindDiT
from kind_core.errors import ConfigError
from kind_train.run.terms.perceptual import FirstStages
from kind_train.run.terms.relations import Relations, middle_block
from kind_train.run.trainer import Trainer

CPU = torch.device("cpu")


class _Stages(FirstStages):
    """Stages that see chosen features, (batch, channels, side, side), whatever the picture."""

    def __init__(self, features: Tensor) -> None:
        self._features = features

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        return [self._features] * 4


def _pass(model: KindDiT) -> Tensor:
    """Let the model see something; returns what its middle block put out."""
    kept: list[Tensor] = []
    handle = middle_block(model).register_forward_hook(lambda module, inputs, output: kept.append(output))
    size, channels = model.config.sample_size, model.config.in_channels
    noisy = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(3))
    model(noisy, torch.tensor([10, 500]), torch.tensor([0, 1]), torch.tensor([0, 1]))
    handle.remove()
    return kept[0]


def test_it_is_nothing_where_parts_are_alike_in_both(model: KindDiT) -> None:
    side = model.config.sample_size // model.config.patch_size
    seen = _pass(model).detach().transpose(1, 2).unflatten(2, (side, side))
    same = Relations(model, _Stages(3 * seen + 5))  # neither scale nor what all places share counts
    other = Relations(model, _Stages(seen.flip(3)))
    _pass(model)
    photos = torch.zeros(2, 3, 8, 8)
    assert same(photos).abs().max() == 0
    assert (other(photos) > 0.05).all()


def test_the_difference_is_that_of_cosines_beyond_a_margin(model: KindDiT) -> None:
    tokens = _pass(model).detach()
    side = model.config.sample_size // model.config.patch_size
    features = torch.randn(2, 7, side, side, generator=torch.Generator().manual_seed(1))
    relations = Relations(model, _Stages(features))
    _pass(model)
    parts = []
    for own in (tokens, features.flatten(2).transpose(1, 2)):
        centred = own - own.mean(1, keepdim=True)
        parts.append(F.cosine_similarity(centred[:, :, None], centred[:, None], dim=3))
    expected = ((parts[0] - parts[1]).abs() - 0.1).clamp(min=0).mean((1, 2))
    torch.testing.assert_close(relations(torch.zeros(2, 3, 8, 8)), expected, rtol=1e-3, atol=1e-4)


def test_blocks_behind_the_middle_one_are_left_alone(model: KindDiT) -> None:
    relations = Relations(model, FirstStages(CPU))
    _pass(model)
    coarse = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    relations(F.interpolate(coarse, 64)).sum().backward()  # type: ignore[no-untyped-call]
    touched = {name for name, one in model.named_parameters() if one.grad is not None and one.grad.any()}
    middle = next(number for number, block in enumerate(model.blocks) if block is middle_block(model))
    assert any(name.startswith(f"blocks.{middle}.") for name in touched)
    behind = tuple(f"blocks.{number}." for number in range(middle + 1, model.config.depth))
    assert not [name for name in touched if name.startswith((*behind, "final."))]


@pytest.mark.usefixtures("tiny")
def test_it_counts_in_the_first_half_and_adds_nothing_to_what_is_saved(tmp_path: Path) -> None:
    plain, both = run_losses(tmp_path / "plain", repa=0.0), run_losses(tmp_path / "both", repa=0.5)
    assert both[0] > plain[0]  # the same weights, photos and noise, and a term more
    names = [{f.relative_to(tmp_path / run) for f in (tmp_path / run).rglob("*")} for run in ("plain", "both")]
    assert names[0] == names[1]
    states = [load_checkpoint(tmp_path / run / "last").model.state_dict() for run in ("plain", "both")]
    assert {k: v.shape for k, v in states[0].items()} == {k: v.shape for k, v in states[1].items()}
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert (
        "a REPA term of weight 0.5 by EfficientNet-Lite0" in read_config(tmp_path / "both" / "best").provenance.training
    )
    trainer = Trainer(make_config(tmp_path / "late", repa=0.5), make_photos(), make_photos(seed=1))
    terms = [trainer.stepper.take(step, is_trial=True) for step in (0, trainer.config.num_steps // 2)]
    assert [bool(one[1]) for one in terms] == [True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repa": -1.0}, "repa is -1.0, expected 0 or more"),
        ({"repa": 0.5, "compile": True}, "repa is 0.5, expected 0 in a sharded or compiled run"),
        ({"repa": 0.5, "teacher": "run", "steps": (4,)}, "repa is 0.5, expected 0 where a teacher is distilled"),
    ],
)
def test_what_it_does_not_go_with_is_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(tmp_path, **options)
