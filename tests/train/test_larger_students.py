"""Students that draw larger pictures than their teacher, in as many patches: where they start, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from test_distill import FLOW, save_teacher
from tiny_training import make_config, make_photos, write_folder

from kind_core.checkpoint import load_checkpoint, read_config
from kind_core.errors import ConfigError
from kind_core.sampling import sample_latents
from kind_core.schedule import choose_sampling
from kind_train.cli import main
from kind_train.run.trainer import Trainer
from kind_train.start.shape import pick_shape

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE, LARGER = 8, 16


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "t")


def make_options(teacher: Path, output: Path, **options: Any) -> dict[str, Any]:
    given = {"steps": (2, 1), "label_dropout": 0.0, "batch_size": 8, "match_photos": 1.0, "follow": 0.0}
    return {"output": output, "teacher": str(teacher), **given, **options}


def distil(teacher: Path, output: Path, *, side: int = LARGER, **options: Any) -> Trainer:
    config = make_config(**make_options(teacher, output, **options))
    return Trainer(config, make_photos(12, size=side), make_photos(12, size=side, seed=1))


def spread(pictures: torch.Tensor, factor: int) -> torch.Tensor:
    return pictures.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


@pytest.mark.parametrize("factor", [2, 3])
def test_it_starts_by_drawing_the_pictures_of_its_teacher(factor: int, teacher: Path, tmp_path: Path) -> None:
    trainer = distil(teacher, tmp_path / "run", side=factor * SIDE, size=factor * SIDE)
    dit = trainer.model_config.dit
    assert (dit.sample_size, dit.patch_size, dit.num_tokens) == (factor * SIDE, factor * 4, 4)
    noise = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    labels, times = torch.arange(3), torch.full((3,), 999.0)
    small = load_checkpoint(teacher).model(noise, times, labels, labels)
    # noise that is alike in every square, as strong there as fresh noise is in the sum
    large = trainer.averaged_model()(spread(noise, factor) / factor, times, labels, labels)
    assert torch.allclose(large, spread(small, factor), atol=1e-5)


def test_noise_is_as_strong_to_it_as_to_its_teacher(teacher: Path, tmp_path: Path) -> None:
    trainer = distil(teacher, tmp_path / "run", size=LARGER)
    generator = torch.Generator().manual_seed(0)
    read_small = load_checkpoint(teacher).model.patch_embedding(torch.randn(500, 3, SIDE, SIDE, generator=generator))
    read_large = trainer.averaged_model().patch_embedding(torch.randn(500, 3, LARGER, LARGER, generator=generator))
    assert float(read_large.detach().std()) == pytest.approx(float(read_small.detach().std()), rel=0.05)


def test_it_learns_to_draw_what_a_smaller_one_cannot(teacher: Path, tmp_path: Path) -> None:
    trainer = distil(teacher, tmp_path / "run", size=LARGER, images=480, ema_decay=0.9, learning_rate=3e-3)
    before = trainer.measure_held_out(trainer.averaged_model())
    assert trainer.run() < 0.5 * before
    student = load_checkpoint(tmp_path / "run" / "best")
    diffusion = student.config.diffusion
    noise, label = torch.randn(1, 3, LARGER, LARGER, generator=torch.Generator().manual_seed(1)), torch.tensor([0])
    picture = sample_latents(student.model, diffusion, noise, label, label, choose_sampling(diffusion))
    assert not torch.allclose(picture, spread(picture[:, :, ::2, ::2], 2), atol=1e-3)


def test_a_larger_one_goes_on_from_a_smaller_and_from_its_like(teacher: Path, tmp_path: Path) -> None:
    distil(teacher, tmp_path / "small", side=SIDE).run()
    grown = distil(teacher, tmp_path / "grown", size=LARGER, start_from=str(tmp_path / "small" / "best"))
    small = load_checkpoint(tmp_path / "small" / "best").model
    assert torch.equal(grown.averaged_model().blocks[0].adaln.weight, small.blocks[0].adaln.weight)
    grown.run()
    further = distil(teacher, tmp_path / "further", start_from=str(tmp_path / "grown" / "best"))
    large = load_checkpoint(tmp_path / "grown" / "best").model
    assert further.model_config.dit.sample_size == LARGER
    assert torch.equal(further.averaged_model().final.linear.weight, large.final.linear.weight)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"size": 12}, "size is 12, expected a multiple of 8, the side of the pictures of"),
        ({"size": 4}, "size is 4, expected a multiple of 8"),
        ({"size": 16, "follow": 1.0}, "size is 16 and follow is 1: a teacher of 8 shows no larger picture"),
        ({"size": 16, "train": "table"}, "size is 16 and train is 'table': a teacher of 8 shows no larger picture"),
    ],
)
def test_what_cannot_be_larger_is_refused(
    options: dict[str, Any], expected: str, teacher: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        pick_shape(make_config(**make_options(teacher, tmp_path / "run", **options)))
    assert caught.value.hint


def test_latents_have_no_larger_student(tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path / "latents", in_channels=4)
    config = make_config(**make_options(teacher, tmp_path / "run", size=LARGER, match_photos=0.0, follow=1.0))
    with pytest.raises(ConfigError, match=r"size is 16, but .* works on latents of 8 x 8"):
        pick_shape(config)


def test_a_smaller_one_does_not_come_of_a_larger(teacher: Path, tmp_path: Path) -> None:
    distil(teacher, tmp_path / "run", size=LARGER, images=8).run()
    given = make_options(teacher, tmp_path / "small", size=SIDE, start_from=str(tmp_path / "run" / "best"))
    with pytest.raises(ConfigError, match=r"has sample_size 16, a student of .* has 8"):
        pick_shape(make_config(**given))


def test_command(teacher: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", make_photos(24, size=LARGER))
    output = tmp_path / "run"
    options = ["--steps", "1", "--follow", "0", "--match-photos", "1", "--size", LARGER, "--images", "8"]
    given = ["--checkpoint", teacher, "--data", tmp_path / "photos", "--batch-size", "8", "--device", "cpu"]
    result = CliRunner().invoke(main, list(map(str, ["distill", *given, *options, "--output", output])))
    assert result.exit_code == 0, result.output
    assert read_config(output / "best").dit.sample_size == LARGER
    assert read_config(teacher).diffusion == FLOW
    result = CliRunner().invoke(main, ["distill", "--output", str(output), "--resume", "--images", "16"])
    assert result.exit_code == 0, result.output
