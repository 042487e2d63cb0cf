"""Smaller dense models: which blocks they have, what each block does, and learning from the model they were made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config, make_photos, write_folder

from kind_core.checkpoint import load_checkpoint, read_config, save_checkpoint
from kind_core.config import ModelConfig
from kind_core.costs.methods import dense_twin
from kind_core.errors import ConfigError
from kind_train.cli import main
from kind_train.run.trainer import Trainer
from kind_train.start.shrinking import ShrinkRequest, measure_changes, shrink_checkpoint
from tiny import tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")
DEPTH = 8


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    """A random dense model of eight blocks, of which block 5 does nothing and block 2 little."""
    dit = replace(dense_twin(TINY_DIT), depth=DEPTH)
    model = tiny_model(dit, seed=5)
    with torch.no_grad():
        for block, factor in ((5, 0.0), (2, 1e-3)):
            for name, parameter in model.blocks[block].named_parameters():
                if name.startswith("adaln"):
                    parameter.mul_(factor)
    config = ModelConfig(dit=dit, diffusion=TINY_DIFFUSION, classes=make_photos().classes)
    save_checkpoint(tmp_path / "dense", config, model)
    return tmp_path / "dense"


def blocks_of(path: Path) -> list[dict[str, torch.Tensor]]:
    model = load_checkpoint(path).model
    return [dict(block.state_dict()) for block in model.blocks]


def is_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_laptop_diff_takes_out_the_blocks_that_change_least(dense: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", make_photos(12))
    (tmp_path / "photos" / "class_0" / "broken.png").write_bytes(b"no image")
    told: list[str] = []
    request = ShrinkRequest(
        source=dense, output=tmp_path / "small", construction="laptop-diff", blocks=6, data=str(tmp_path / "photos")
    )
    made = shrink_checkpoint(request, tell=told.append)
    assert any("broken.png" in line for line in told)
    assert made.changes[5] == 0
    assert sorted(range(DEPTH), key=made.changes.__getitem__)[:2] == [5, 2]
    assert made.origins == (0, 1, 3, 4, 6, 7)
    whole, small = blocks_of(dense), blocks_of(tmp_path / "small")
    assert [next(i for i, one in enumerate(whole) if is_same(one, own)) for own in small] == [0, 1, 3, 4, 6, 7]
    assert torch.equal(
        load_checkpoint(dense).model.tailors.weight, load_checkpoint(tmp_path / "small").model.tailors.weight
    )


def test_a_change_is_the_mean_square_without_the_block(dense: Path) -> None:
    """Held against a model built without the block."""
    source = load_checkpoint(dense)
    photos = make_photos(5)
    changes = measure_changes(source, photos, 0, "cpu")
    from kind_train.objective import Objective
    from kind_train.start.shrinking import build

    smaller = build(source.model, [0, 1, 2, 4, 5, 6, 7], seed=0)
    objective = Objective(TINY_DIFFUSION, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(0))
    timesteps = objective.draw_timesteps(5, generator)
    noise = torch.randn(5, 3, 8, 8, generator=generator)
    noisy = objective.add_noise(photos.to_unit(order), noise, timesteps)
    given = (noisy, objective.condition(timesteps), photos.labels[order], photos.labels[order])
    with torch.no_grad():
        expected = float((smaller(*given) - source.model(*given)).square().mean())
    assert changes[3] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("construction", "blocks", "origins"),
    [
        ("heur-lg", None, (None,) * 4 + (6, 7)),
        ("auto-lg", None, (0, 1, 2, 3)),
        ("auto-lg", 6, (0, 1, 2, 3, None, None)),
    ],
)
def test_what_is_inherited_lies_at_its_own_end(
    construction: str, blocks: int | None, origins: tuple[int | None, ...], dense: Path, tmp_path: Path
) -> None:
    made = shrink_checkpoint(
        ShrinkRequest(source=dense, output=tmp_path / "small", construction=construction, blocks=blocks)
    )
    assert made.origins == origins
    whole, small = blocks_of(dense), blocks_of(tmp_path / "small")
    for own, origin in zip(small, origins, strict=True):
        assert [i for i, one in enumerate(whole) if is_same(one, own)] == ([] if origin is None else [origin])
    assert "not trained since" in read_config(tmp_path / "small").provenance.training


def test_sizes_are_those_of_the_paper() -> None:

    for depth, expected in ((12, {"heur-lg": 10, "auto-lg": 7, "laptop-diff": 7}),
                            (24, {"heur-lg": 19, "auto-lg": 13, "laptop-diff": 13})):  # fmt: skip
        dit = replace(dense_twin(TINY_DIT), depth=depth)
        for construction, blocks in expected.items():
            request = ShrinkRequest(source=Path("a"), output=Path("b"), construction=construction, data="photos")
            assert request.require_depth(dit) == blocks


def test_a_smaller_model_learns_from_the_one_it_was_made_of(dense: Path, tmp_path: Path) -> None:
    """Eq. 1 and both terms fall; without blocks missing both are zero."""
    shrink_checkpoint(
        ShrinkRequest(source=dense, output=tmp_path / "small", construction="auto-lg", blocks=4)
    )  # the first four
    options = {"start_from": str(tmp_path / "small"), "match": str(dense), "label_dropout": 0.3, "images": 160}
    photos = make_photos(12)
    trainer = Trainer(
        make_config(tmp_path / "run", match_blocks=(0, 1, 2, 3), ema_decay=1e-6, **options), photos, photos
    )
    assert trainer.losses.names == ("loss", "term of the teacher's prediction", "term of the teacher's features")
    before = trainer.stepper.take(trainer.step, is_trial=True)
    trainer.run()
    after = trainer.stepper.take(trainer.step, is_trial=True)
    assert float(before[2]) < 1e-10  # its blocks are still the teacher's, one after the other
    assert float(before[1]) > 1e-3
    assert float(after[1]) < float(before[1])
    whole = Trainer(
        make_config(tmp_path / "whole", **(options | {"start_from": str(dense)}), match_blocks=tuple(range(DEPTH))),
        photos,
        photos,
    )
    assert whole.stepper.take(whole.step, is_trial=True)[1:].abs().max() < 1e-10


def test_what_does_not_go_together_is_named(dense: Path, tmp_path: Path) -> None:
    def refuse(match: str, **changes: object) -> None:
        given = {"source": dense, "output": tmp_path / "small", "construction": "auto-lg", **changes}
        with pytest.raises(ConfigError, match=match):
            shrink_checkpoint(ShrinkRequest(**given))  # type: ignore[arg-type]
        assert not (tmp_path / "small").exists()

    refuse("blocks is 8, expected 1 to 7: the model has 8", blocks=8)
    refuse("construction is 'auto', expected one of laptop-diff, heur-lg, auto-lg", construction="auto")
    refuse("laptop-diff measures blocks on photos, none are given", construction="laptop-diff")
    config = ModelConfig(dit=TINY_DIT, diffusion=TINY_DIFFUSION, classes=make_photos().classes)
    save_checkpoint(tmp_path / "kind", config, tiny_model(TINY_DIT))
    refuse("is decomposed, shrink takes blocks out of a dense model", source=tmp_path / "kind")
    photos = make_photos()
    with pytest.raises(ConfigError, match="match_blocks names 2 blocks, expected one of 0 to 7 for each of the 8"):
        Trainer(
            make_config(tmp_path / "run", start_from=str(dense), match=str(dense), match_blocks=(0, 1)), photos, photos
        )
    with pytest.raises(ConfigError, match=r"match_blocks is \(\), expected blocks where `match` is given"):
        make_config(tmp_path / "run", match="dense")


def test_from_a_dense_model_to_a_smaller_run_on_the_command_line(dense: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", make_photos(12))

    def call(*words: object) -> str:
        result = CliRunner().invoke(main, [*map(str, words)])
        assert result.exit_code == 0, result.output
        return result.stdout

    data = ("--data", tmp_path / "photos")
    printed = call("shrink", dense, tmp_path / "small", "--construction", "laptop-diff", "--blocks", 6, *data)
    assert printed.splitlines()[-1] == f"{tmp_path / 'small'}  blocks 0,1,3,4,6,7"
    assert "taken out" in printed.splitlines()[5]
    run = ("--output", tmp_path / "run", "--images", 8, "--batch-size", 4, "--device", "cpu", "--val-fraction", 0.3)
    call("fit", *data, "--start-from", tmp_path / "small", "--match", dense, "--match-blocks", "0,1,3,4,6,7", *run)
    assert read_config(tmp_path / "run" / "best").dit.depth == 6
