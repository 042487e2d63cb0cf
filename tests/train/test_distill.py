"""Distillation: a student starts as its teacher, comes nearer to its guided trajectory, and draws in few steps."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from tiny_training import TINY_DIT, make_config, make_photos, write_folder

from kind_core.checkpoint import load_checkpoint, read_config, save_checkpoint
from kind_core.checkpoint_config import hash_learngene
from kind_core.classes import ClassInfo
from kind_core.config import DiffusionConfig, ModelConfig
from kind_core.errors import CheckpointError, ConfigError
from kind_core.growth import add_classes, save_grown
from kind_core.samplers import Distillation, Sampling
from kind_core.sampling import sample_latents
from kind_core.schedule import choose_sampling
from kind_train.cli import main
from kind_train.run.distilling import DistillationLosses
from kind_train.run.trainer import Trainer
from kind_train.start.shape import pick_shape
from tiny import tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

FLOW = DiffusionConfig(
    noise_schedule="flow", prediction_type="sample", sampler="dpmpp", steps=20, guidance_scale=2.0
)  # fmt: skip


def save_teacher(path: Path, diffusion: DiffusionConfig = FLOW, **architecture: Any) -> Path:
    dit = replace(TINY_DIT, depth=3, **architecture)
    config = ModelConfig(dit=dit, diffusion=diffusion, classes=make_photos().classes)
    save_checkpoint(path, config, tiny_model(dit))
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "t")


def distil(teacher: Path, output: Path, *, resume: bool = False, **options: Any) -> Trainer:
    given = {"steps": (4, 2, 1), "label_dropout": 0.0, "learning_rate": 3e-3, "batch_size": 6, **options}
    config = make_config(output, teacher=str(teacher), **given)
    return Trainer(config, make_photos(12), make_photos(seed=1), resume=resume)


def test_student_starts_as_its_teacher_and_says_what_it_is(teacher: Path, tmp_path: Path) -> None:
    trainer = distil(teacher, tmp_path / "run")
    state = load_checkpoint(teacher).model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in trainer.model.state_dict().items())
    trainer.run()
    student = read_config(tmp_path / "run" / "best")
    assert student.dit.end_blocks == 1
    assert student.diffusion.steps == 4
    record = student.diffusion.distillation
    assert record is not None
    assert (record.steps, record.guidance_scale, record.guidance_interval) == ((4, 2, 1), 2.0, (0.0, 1.0))


def test_targets_are_the_teachers_guided_trajectory(teacher: Path, tmp_path: Path) -> None:
    """From noise to picture in one step: the target is where the teacher's own sampler arrives in twelve."""
    trainer = distil(teacher, tmp_path / "run", steps=(1,))
    losses = trainer.losses
    assert isinstance(losses, DistillationLosses)
    loaded = load_checkpoint(teacher)
    noise = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(3)
    sampling = Sampling(sampler="dpmpp", steps=12, guidance_scale=2.0)
    expected = sample_latents(loaded.model, FLOW, noise, labels, labels, sampling)
    begin, end = torch.full((3,), 0.999), torch.zeros(3)
    actual = losses._teacher.advance(noise, begin, end, labels, None, steps=12)
    # the solver's timesteps are cut to whole numbers, which these are rounded to
    assert (actual - expected).norm() < 0.02 * expected.norm()


def test_student_comes_nearer_in_every_number_of_steps(teacher: Path, tmp_path: Path) -> None:
    trainer = distil(teacher, tmp_path / "run", images=900, ema_decay=0.9, save_every=10**6)
    noise = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(6) % 3
    loaded = load_checkpoint(teacher)
    wanted = sample_latents(loaded.model, FLOW, noise, labels, labels, choose_sampling(FLOW))

    def distances() -> list[float]:
        diffusion, model = trainer.model_config.diffusion, trainer.averaged_model()
        drawn = (
            sample_latents(model, diffusion, noise, labels, labels, choose_sampling(diffusion, steps=steps))
            for steps in (4, 2, 1)
        )
        return [float((one - wanted).square().mean()) for one in drawn]

    before = distances()
    trainer.run()
    assert all(after < 0.7 * earlier for after, earlier in zip(distances(), before, strict=True))


def test_resumed_run_has_the_losses_of_an_uninterrupted_one(teacher: Path, tmp_path: Path) -> None:
    whole = distil(teacher, tmp_path / "whole", images=48)
    whole.run()
    distil(teacher, tmp_path / "parts", images=24).run()
    rest = distil(teacher, tmp_path / "parts", images=48, resume=True)
    rest.run()
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), rest.model.parameters(), strict=True))


def test_tailors_alone_leave_the_learngene(teacher: Path, tmp_path: Path) -> None:
    trainer = distil(teacher, tmp_path / "run", train="tailors")
    trainer.run()
    before = load_checkpoint(teacher).model
    after = load_checkpoint(tmp_path / "run" / "best").model
    assert all(torch.equal(value, before.learngene_state()[name]) for name, value in after.learngene_state().items())
    assert not torch.equal(after.tailors.weight, before.tailors.weight)


def test_a_table_alone_leaves_every_matrix_and_tailor(teacher: Path, tmp_path: Path) -> None:
    distil(teacher, tmp_path / "run", train="table").run()
    before = load_checkpoint(teacher).model
    after = load_checkpoint(tmp_path / "run" / "best").model
    assert torch.equal(after.tailors.weight, before.tailors.weight)
    changed = {n for n, v in after.learngene_state().items() if not torch.equal(v, before.learngene_state()[n])}
    assert changed == {n for n in before.learngene_state() if n.startswith("timestep_embedder.") or ".adaln." in n}


@pytest.mark.parametrize("arm", ["accelerator", "accelerator-table"])
def test_an_accelerator_leaves_learngene_and_tailors(arm: str, teacher: Path, tmp_path: Path) -> None:
    distil(teacher, tmp_path / "run", train=arm, accelerator_rank=3).run()
    student, before = load_checkpoint(tmp_path / "run" / "best"), load_checkpoint(teacher)
    assert torch.equal(student.model.tailors.weight, before.model.tailors.weight)
    learngene, rank = before.model.learngene_state(), before.config.dit.learngene_rank
    assert student.config.dit.learngene_rank == rank + 3
    is_changed = False
    for name, value in student.model.learngene_state().items():
        part = value[..., :rank] if name.rpartition(".")[2] in ("U", "s", "V") else value
        is_open = arm == "accelerator-table" and (name.startswith("timestep_embedder.") or ".adaln." in name)
        assert torch.equal(part, learngene[name]) != is_open
        is_changed |= name.endswith(".U") and bool(value[:, rank:].any())
    assert is_changed


@pytest.mark.parametrize("arm", ["tailors", "table", "accelerator"])
def test_classes_adapted_beside_the_teacher_serve_a_student_with_its_matrices(
    arm: str, teacher: Path, tmp_path: Path
) -> None:
    distil(teacher, tmp_path / "run", train=arm).run()
    before = load_checkpoint(teacher)
    addition = replace(
        before.config, classes=(ClassInfo(id="later", names=("later",)),), dit=replace(before.config.dit, num_classes=1)
    )
    save_grown(tmp_path / "later", teacher, addition, tiny_model(addition.dit, seed=5))
    added = add_classes(tmp_path / "run" / "best", tmp_path / "later")
    assert [info.id for info in added] == ["later"]
    other = tiny_model(before.config.dit, seed=9)
    save_checkpoint(tmp_path / "other", before.config, other)
    with pytest.raises(CheckpointError, match="the learngene of"):
        add_classes(tmp_path / "other", tmp_path / "later")


def test_a_resumed_accelerator_has_the_losses_of_an_uninterrupted_one(teacher: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"train": "accelerator", "accelerator_rank": 2, "images": 36}
    whole = distil(teacher, tmp_path / "whole", **options)
    whole.run()
    distil(teacher, tmp_path / "parts", **{**options, "images": 18}).run()
    resumed = distil(teacher, tmp_path / "parts", resume=True, **options)
    resumed.run()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])


@pytest.fixture(scope="module")
def earlier(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student whose table was trained for 4, 2 and 1 steps with guidance 1.5."""
    distil(teacher, run := tmp_path_factory.mktemp("earlier") / "run", train="table", guidance=1.5).run()
    return run / "last"


@pytest.mark.parametrize(("arm", "keeps"), [("everything", False), ("tailors", True), ("accelerator", True)])
def test_a_student_goes_on_from_an_earlier_one(
    arm: str, keeps: bool, teacher: Path, earlier: Path, tmp_path: Path
) -> None:
    trainer = distil(teacher, tmp_path / "run", train=arm, steps=(4, 1), start_from=str(earlier), accelerator_rank=2)
    before = load_checkpoint(earlier)
    model = trainer.averaged_model()
    assert torch.equal(model.blocks[0].adaln.weight, before.model.blocks[0].adaln.weight)
    assert not torch.equal(model.blocks[0].adaln.weight, load_checkpoint(teacher).model.blocks[0].adaln.weight)
    record = trainer.model_config.diffusion.distillation
    assert record is not None
    assert (record.steps, record.guidance_scale, record.teacher) == ((4, 1), 1.5, hash_learngene(teacher))
    assert record.learngene == (hash_learngene(teacher) if keeps else None)


def test_a_run_goes_on_without_the_student_that_it_started_from(teacher: Path, earlier: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(earlier, tmp_path / "copy"))
    options = {"train": "accelerator", "accelerator_rank": 2, "start_from": str(copy)}
    whole = distil(teacher, tmp_path / "whole", images=24, **options)
    whole.run()
    distil(teacher, tmp_path / "parts", images=12, **options).run()
    shutil.rmtree(copy)
    rest = distil(teacher, tmp_path / "parts", images=24, resume=True, **options)
    rest.run()
    assert rest.model_config == whole.model_config
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), rest.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"steps": (8, 3, 2)}, "steps 8, 3 were not trained in .*, which was distilled for 4, 2, 1"),
        ({"teacher": "other"}, "was distilled from the learngene [0-9a-f]{12}, .*other is the learngene"),
        ({"start_from": "unnamed"}, "was distilled from a teacher that it does not name"),
        ({"start_from": "wide"}, "has learngene_rank 15, a student of .* has 12"),
        ({"start_from": "teacher"}, "was never distilled, expected an earlier student of"),
    ],
)
def test_what_is_no_earlier_student_is_refused(
    options: dict[str, Any], expected: str, teacher: Path, earlier: Path, tmp_path: Path
) -> None:
    places = {"teacher": teacher, "other": tmp_path / "other", "unnamed": tmp_path / "unnamed", "wide": tmp_path / "w"}
    config = read_config(earlier)
    save_checkpoint(places["other"], read_config(teacher), tiny_model(read_config(teacher).dit, seed=9))
    record = replace(config.diffusion, distillation=Distillation(steps=(4, 2, 1), guidance_scale=2.0))
    save_checkpoint(places["unnamed"], replace(config, diffusion=record), tiny_model(config.dit))
    wide = replace(config.dit, learngene_rank=15)
    save_checkpoint(places["wide"], replace(config, dit=wide), tiny_model(wide))
    chosen = {name: str(places[one]) if isinstance(one, str) else one for name, one in options.items()}
    given = {"teacher": str(teacher), "start_from": str(earlier), "steps": (4, 2, 1), "label_dropout": 0.0, **chosen}
    with pytest.raises(ConfigError, match=expected) as caught:
        pick_shape(make_config(tmp_path / "run", **given))
    assert caught.value.hint


def test_perceptual_term_is_a_second_one_of_its_weight(teacher: Path, tmp_path: Path) -> None:
    plain, once, twice = (
        distil(teacher, tmp_path / str(weight), perceptual=weight).stepper.take(0, is_trial=True)
        for weight in (0.0, 0.1, 0.2)
    )
    assert len(plain) == 1
    assert once[0] == twice[0] == plain[0]
    assert once[1] > 0
    assert torch.allclose(twice[1], 2 * once[1])


@pytest.mark.parametrize(
    ("diffusion", "expected"),
    [
        (replace(FLOW, prediction_type="flow_prediction"), "predicts 'flow_prediction' on noise schedule 'flow'"),
        (DiffusionConfig(prediction_type="sample"), "predicts 'sample' on noise schedule 'linear', expected 'sample'"),
    ],
)
def test_other_teachers_are_refused(diffusion: DiffusionConfig, expected: str, tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path / "t", diffusion)
    with pytest.raises(ConfigError, match=expected) as caught:
        distil(teacher, tmp_path / "run")
    assert "kind-train fit --preset sample --noise-schedule flow" in caught.value.hint


def test_student_teaches_and_trains_no_further(teacher: Path, tmp_path: Path) -> None:
    distil(teacher, tmp_path / "run", images=6).run()
    student = str(tmp_path / "run" / "best")
    with pytest.raises(ConfigError, match="was distilled for 4, 2, 1 steps and cannot be distilled again"):
        distil(Path(student), tmp_path / "again")
    for what, options in {
        "adapted": {"base": student, "label_dropout": 0.0}, "trained on": {"start_from": student},
    }.items():  # fmt: skip
        with pytest.raises(ConfigError, match=f"cannot be {what}"):
            pick_shape(make_config(tmp_path / "x", **options))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"steps": ()}, "steps is \\(\\), expected numbers of steps"),
        ({"steps": (1, 4)}, "expected each once, the most first"),
        ({"train": "head"}, "train is 'head', expected one of"),
        ({"preset": "sample"}, "preset is 'sample', expected none where a teacher is distilled"),
        ({"repa": 0.1}, "repa is 0.1, expected 0"),
    ],
)
def test_misfits_are_refused(teacher: Path, tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        distil(teacher, tmp_path / "run", **options)


def test_unknown_class_is_named(teacher: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run", teacher=str(teacher), steps=(2, 1), label_dropout=0.0)
    with pytest.raises(ConfigError, match="does not know the class 'class 3'"):
        Trainer(config, make_photos(12, num_classes=4), make_photos(8, num_classes=4, seed=1))


def test_command_and_its_resume(teacher: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", make_photos(24))
    output = tmp_path / "run"
    options = ["--data", tmp_path / "photos", "--steps", "4,2,1", "--batch-size", "6", "--device", "cpu"]
    command = ["distill", "--checkpoint", teacher, *options, "--images", "12", "--output", output]
    result = CliRunner().invoke(main, [str(one) for one in command])
    assert result.exit_code == 0, result.output
    assert len(list((output / "samples").iterdir())) == 1
    result = CliRunner().invoke(main, ["distill", "--output", str(output), "--resume", "--images", "24"])
    assert result.exit_code == 0, result.output
    wrong = CliRunner().invoke(main, ["distill", "--output", str(output), "--resume", "--steps", "4,x"])
    assert "steps is '4,x', expected whole numbers with commas between" in wrong.output


def test_options_of_a_file_leave_the_defaults_of_the_help_as_they_are(teacher: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", make_photos(24))
    lines = {"data": tmp_path / "photos", "steps": "[4, 2, 1]", "batch_size": 6, "output": tmp_path / "run"}
    text = "".join(f"{name}: {value}\n" for name, value in lines.items())
    (tmp_path / "c.yaml").write_text(text)
    (tmp_path / "c.yaml").write_text(f"{text}teacher: {teacher}\n")
    result = CliRunner().invoke(main, ["distill", "--config", str(tmp_path / "c.yaml"), "--images", "12"])
    assert result.exit_code == 0, result.output
    options = yaml.safe_load((tmp_path / "run/options.yaml").read_text())
    assert (options["images"], options["learning_rate"], options["label_dropout"]) == (12, 2e-4, 0.0)


@pytest.mark.parametrize("command", ["adapt", "distill"])
def test_a_file_of_options_without_a_checkpoint_trains_nothing_else(command: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", make_photos(24))
    (tmp_path / "c.yaml").write_text(f"data: {tmp_path / 'photos'}\noutput: {tmp_path / 'run'}\nimages: 8\n")
    result = CliRunner().invoke(main, [command, "--config", str(tmp_path / "c.yaml")])
    assert "no checkpoint given" in result.stderr
    assert not (tmp_path / "run").exists()
