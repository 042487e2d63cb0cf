"""Adaptation: only tailors are trained, and what the base had keeps every bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config, make_photos, write_folder
from torch import Tensor

from kind_core.checkpoint import load_checkpoint, read_config, save_checkpoint, tailor_path
from kind_core.config import ModelConfig
from kind_core.dit import KindDiT
from kind_core.errors import CheckpointError, ConfigError, KindError
from kind_core.growth import add_classes
from kind_train.cli import main
from kind_train.data.photo_set import PhotoSet
from kind_train.objective import Objective
from kind_train.run.trainer import Trainer
from tiny import CLASSES, tiny_batch, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_base(tmp_path / "base")


def save_base(path: Path, seed: int = 0, **changes: Any) -> Path:
    """A random base of three classes, none of which the photos have."""
    dit = replace(TINY_DIT, **changes)
    config = ModelConfig(dit=dit, diffusion=TINY_DIFFUSION, classes=CLASSES[: dit.num_classes])
    save_checkpoint(path, config, tiny_model(dit, seed))
    return path


def adapt(base: Path, output: Path, photos: PhotoSet | None = None, *, resume: bool = False, **options: Any) -> Trainer:
    config = make_config(output, base=str(base), **{"label_dropout": 0.0, **options})
    return Trainer(config, photos or make_photos(), make_photos(seed=1), resume=resume)


def bytes_of(path: Path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def draw(checkpoint: Path, class_id: str) -> Tensor:
    """The network's answer for a class of a checkpoint that is loaded with that class alone."""
    index = [info.id for info in read_config(checkpoint).classes].index(class_id)
    model = load_checkpoint(checkpoint, [index]).model
    choice = torch.zeros(2, dtype=torch.long)
    with torch.no_grad():
        return model(*tiny_batch(model.config, 2), choice, choice)  # type: ignore[no-any-return]


def test_only_tailors_are_trained(base: Path, tmp_path: Path) -> None:
    trainer = adapt(base, tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]) != (name == "tailors.weight"), name
    source = load_checkpoint(base).model.learngene_state()
    for name, value in trainer.averaged_model().learngene_state().items():
        assert torch.equal(value, source[name]), name


def test_the_classes_and_files_of_the_base_keep_every_bit(base: Path, tmp_path: Path) -> None:
    before = bytes_of(base)
    adapt(base, tmp_path / "run").run()
    assert bytes_of(base) == before
    for name in ("best", "last"):
        grown = tmp_path / "run" / name
        ids = [info.id for info in read_config(grown).classes]
        assert ids == [*(info.id for info in CLASSES[:3]), "class_0", "class_1", "class_2"]
        files = bytes_of(grown)
        assert {key: files[key] for key in before if key != "config.json"} == {
            key: value for key, value in before.items() if key != "config.json"
        }
        for info in CLASSES[:3]:
            assert torch.equal(draw(grown, info.id), draw(base, info.id))
    load_checkpoint(tmp_path / "run" / "best")


def test_adaptation_learns_the_new_classes(base: Path, tmp_path: Path) -> None:
    options = {"images": 8 * 60, "batch_size": 8, "save_every": 10**9, "learning_rate": 1e-2, "ema_decay": 0.9}
    trainer = adapt(base, tmp_path / "run", make_photos(9), **options)
    start = trainer.measure_held_out(trainer.model)
    assert trainer.run() < 0.7 * start


def test_ranks_may_differ_from_the_base(base: Path, tmp_path: Path) -> None:
    adapt(base, tmp_path / "run", tailor_rank=5).run()
    grown = read_config(tmp_path / "run" / "best")
    assert grown.dit.ranks == (2, 2, 2, 5, 5, 5)
    assert torch.equal(draw(tmp_path / "run" / "best", "n02510455"), draw(base, "n02510455"))
    assert draw(tmp_path / "run" / "best", "class_1").isfinite().all()


@pytest.mark.parametrize("rank", [None, 4])
def test_a_tailor_can_start_from_a_class_of_the_base(base: Path, tmp_path: Path, rank: int | None) -> None:
    trainer = adapt(base, tmp_path / "run", init_from="lesser panda", tailor_rank=rank)
    latents, timesteps = tiny_batch(TINY_DIT, 3)
    source, choice, lesser = load_checkpoint(base).model, torch.arange(3), torch.full((3,), 1)
    with torch.no_grad():
        expected = source(latents, timesteps, lesser, lesser)
        torch.testing.assert_close(trainer.model(latents, timesteps, choice, choice), expected, rtol=1e-5, atol=1e-5)
    before = trainer.model.tailors.weight.detach().clone()
    trainer.run()
    for _, s, _ in (trainer.model.tailors.factors(trainer.model.tailors.weight, n) for n in ("blocks.0.mlp.up",)):
        assert s[:, : 2 if rank is None else rank].ne(0).all()  # those that began at zero have moved
    assert not torch.equal(before, trainer.model.tailors.weight)


def test_the_nearest_class_is_the_one_that_denoises_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_base(tmp_path / "base")
    photos = make_photos(9)

    def loss(self: Objective, output: Tensor, images: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        # the channel that is brightest in the photos decides which candidate is best: 2, 0, 1 for red, green, blue
        colour = int(images.mean(dim=(0, 2, 3)).argmax())
        candidate = calls.pop(0)
        return torch.full((len(images),), float(candidate != (2, 0, 1)[colour]))

    calls = [0, 1, 2] * 3
    monkeypatch.setattr(Objective, "loss", loss)
    trainer = adapt(base, tmp_path / "run", photos, init_from="nearest")
    bank = load_checkpoint(base).model.tailors.weight
    assert torch.equal(trainer.model.tailors.weight, bank[[2, 0, 1]])


def test_an_adaptation_resumes_where_it_was(base: Path, tmp_path: Path) -> None:
    whole = adapt(base, tmp_path / "whole", weight_decay=0.1)
    whole.run()
    half = adapt(base, tmp_path / "half", weight_decay=0.1, images=24)
    half.run()
    resumed = adapt(base, tmp_path / "half", weight_decay=0.1, resume=True)
    assert resumed.step == 6
    resumed.run()
    assert torch.equal(resumed.model.tailors.weight, whole.model.tailors.weight)
    other = save_base(tmp_path / "other", seed=1)
    with pytest.raises(ConfigError, match="was trained with base"):
        adapt(other, tmp_path / "half", resume=True)


@pytest.mark.parametrize("changes", [{}, {"block_embedders": True}], ids=["one embedder", "embedders of each block"])
def test_tailors_drop_into_the_base(changes: dict[str, Any], tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", **changes)
    adapt(base, tmp_path / "run").run()
    before = bytes_of(base)
    added = add_classes(base, tmp_path / "run" / "best", ["class 2"])
    assert [info.id for info in added] == ["class_2"]
    after = bytes_of(base)
    assert set(after) - set(before) == {"tailors/class_2.safetensors"}
    assert all(after[key] == before[key] for key in before if key != "config.json")
    assert torch.equal(draw(base, "class_2"), draw(tmp_path / "run" / "best", "class_2"))
    assert [info.id for info in add_classes(base, tmp_path / "run" / "best")] == ["class_0", "class_1"]
    assert [info.id for info in read_config(base).classes][3:] == ["class_2", "class_0", "class_1"]
    with pytest.raises(ConfigError, match=r"no class that .* lacks"):
        add_classes(base, tmp_path / "run" / "best")
    with pytest.raises(ConfigError, match=r"has class 'class 0' \(class_0\) already"):
        add_classes(base, tmp_path / "run" / "best", ["class_0"])


def test_a_tailor_of_another_learngene_is_refused(base: Path, tmp_path: Path) -> None:
    adapt(base, tmp_path / "run").run()
    other = save_base(tmp_path / "other", seed=1)
    before = bytes_of(other)
    with pytest.raises(CheckpointError, match=r"the learngene of .* is not that of"):
        add_classes(other, tmp_path / "run" / "best")
    assert bytes_of(other) == before


def test_a_base_is_whole_when_adding_fails(base: Path, tmp_path: Path) -> None:
    adapt(base, tmp_path / "run").run()
    tailor_path(tmp_path / "run" / "best", "class_1").unlink()
    before = read_config(base)
    with pytest.raises(KindError):
        add_classes(base, tmp_path / "run" / "best")
    assert read_config(base) == before
    load_checkpoint(base)


def test_what_cannot_be_adapted_is_named(base: Path, tmp_path: Path) -> None:
    dense = save_base(tmp_path / "dense", learngene_rank=None, tailor_rank=0)
    with pytest.raises(ConfigError, match="is dense, method 'tailors' starts from a decomposed base"):
        adapt(dense, tmp_path / "run")
    photos = make_photos()
    known = replace(photos, classes=(photos.classes[0], CLASSES[0], photos.classes[2]))
    with pytest.raises(ConfigError, match=r"has class 'giant panda' .* already, expected new classes only"):
        adapt(base, tmp_path / "run", known)
    with pytest.raises(ConfigError, match="tailor_rank is 1, expected 2 or more"):
        adapt(base, tmp_path / "run", init_from="lemon", tailor_rank=1)
    with pytest.raises(ConfigError, match=r"label_dropout is 0\.1, expected 0"):
        make_config(tmp_path / "run", base=str(base))
    with pytest.raises(ConfigError, match="init_from is 'lemon', expected none without a base"):
        make_config(tmp_path / "run", init_from="lemon")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_from_photos_to_a_grown_base_on_the_command_line(base: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", make_photos(12))
    fast = ("--batch-size", 4, "--images", 16, "--save-every", 8, "--device", "cpu")
    output = tmp_path / "run"
    result = call("adapt", "--checkpoint", base, "--data", tmp_path / "photos", "--output", output, *fast)
    assert result.exit_code == 0, result.output
    assert "learning_rate: 0.001" in (output / "options.yaml").read_text().splitlines()
    resumed = call("adapt", "--output", output, "--images", 32, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "resumed at step 4 of 8" in resumed.stderr
    added = call("add", base, output / "best", "--classes", "class_1")
    assert added.stdout == "class_1  class 1\n"
    missing = call("adapt", "--data", tmp_path / "photos", "--output", tmp_path / "other")
    assert missing.exit_code == 1
    assert "no checkpoint given" in missing.stderr


def test_nearest_is_asked_of_photos_from_the_whole_class(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos come in the order of their names, side by side those that are alike."""
    monkeypatch.setattr("kind_train.start.starting._NEAREST_PHOTOS", 4)
    seen: list[list[int]] = []
    read = PhotoSet.read

    def note(photos: PhotoSet, indices: Tensor, flipped: Tensor | None = None) -> Tensor:
        seen.append(indices.tolist())
        return read(photos, indices, flipped)

    monkeypatch.setattr(PhotoSet, "read", note)
    adapt(base, tmp_path / "run", make_photos(48), init_from="nearest")
    assert seen == [[0, 12, 24, 36], [1, 13, 25, 37], [2, 14, 26, 38]]


def test_an_adapted_model_keeps_no_gradient_of_the_learngene(base: Path, tmp_path: Path) -> None:
    trainer = adapt(base, tmp_path / "run")
    trainer.stepper.take(trainer.step)
    model: KindDiT = trainer.model
    assert all(p.grad is None for p in model.parameters())
    assert not any(name.startswith("adamw.") for name in trainer.optimizer.state_dict())
