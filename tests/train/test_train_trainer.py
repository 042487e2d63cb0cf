"""What training promises: exact tailors, exact resuming, nothing half written, the best weights kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config, make_photos
from torch import Tensor

from kind_core.checkpoint import load_checkpoint, read_config
from kind_core.config import preset
from kind_core.errors import ConfigError
from kind_train.data.batches import draw_batch, step_generator
from kind_train.data.photo_set import PhotoSet
from kind_train.device import require_arithmetic
from kind_train.run.metrics import Progress
from kind_train.run.step import autocast
from kind_train.run.trainer import Trainer
from kind_train.start.shape import Shape
from kind_train.start.starting import make_model_config
from tiny import randomise

pytestmark = pytest.mark.usefixtures("tiny")


def make_trainer(output: Path, photos: PhotoSet | None = None, *, resume: bool = False, **options: Any) -> Trainer:
    photos = make_photos() if photos is None else photos
    return Trainer(make_config(output, **options), photos, make_photos(seed=1), resume=resume)


def run(trainer: Trainer, stop_after: int | None = None) -> list[float]:
    """The losses of a run; `stop_after` interrupts it once so many steps are done."""
    losses: list[float] = []

    def note(progress: Progress) -> None:
        losses.append(progress.loss)
        if progress.step == stop_after:
            raise KeyboardInterrupt

    if stop_after is None:
        trainer.run(note)
    else:
        with pytest.raises(KeyboardInterrupt):
            trainer.run(note)
    return losses


def everything(trainer: Trainer) -> dict[str, Tensor]:
    """Weights, averages and optimiser state."""
    averaged = {f"averaged.{k}": v for k, v in trainer.optimizer.averaged_state().items()}
    state = {**trainer.model.state_dict(), **trainer.optimizer.state_dict(), **averaged}
    return {name: value.clone() for name, value in state.items()}


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert set(one) == set(other)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_a_tailor_whose_class_is_not_in_the_batch_keeps_every_bit(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, batch_size=12, label_dropout=0.0)
    randomise(trainer.model)
    for trainer.step in range(2):  # every class gets moments
        trainer.stepper.take(trainer.step)
    photos = make_photos()
    trainer.stepper.feeder.photos = photos.select((photos.labels != 1).nonzero()[:, 0])
    before = everything(trainer)
    trainer.step = 2
    trainer.stepper.take(trainer.step)
    after = everything(trainer)
    for name in ("tailors.weight", "rows.first", "rows.second", "rows.average", "rows.steps", "rows.log_decay"):
        assert torch.equal(before[name][1], after[name][1]), name
        assert before[name][1].any(), name
        for present in (0, 2):
            assert not torch.equal(before[name][present], after[name][present]), name


def test_a_dropped_label_opens_no_gate(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, label_dropout=1 - 1e-9)
    randomise(trainer.model)
    asked: list[tuple[Tensor, Tensor]] = []

    def forward(latents: Tensor, timesteps: Tensor, labels: Tensor, gates: Tensor, rows: Tensor) -> Tensor:
        asked.append((labels, gates))
        return trainer.model(latents, timesteps, labels, gates, rows)  # type: ignore[no-any-return]

    trainer.stepper.forward = forward
    before = everything(trainer)
    loss = trainer.stepper.take(trainer.step)
    after = everything(trainer)
    [(labels, gates)] = asked
    assert labels.eq(-1).all()
    assert gates.eq(-1).all()
    assert loss.isfinite()
    assert trainer.model.tailors.weight.grad is None
    assert torch.equal(before["tailors.weight"], after["tailors.weight"])
    assert torch.equal(before["rows.steps"], after["rows.steps"])
    assert not torch.equal(before["null_label_embedding"], after["null_label_embedding"])


def test_labels_and_gates_choose_the_row_of_the_photos_own_class(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, batch_size=5, label_dropout=0.3)
    asked: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(latents: Tensor, timesteps: Tensor, labels: Tensor, gates: Tensor, rows: Tensor) -> Tensor:
        asked.append((labels, gates, rows.detach().clone()))
        return trainer.model(latents, timesteps, labels, gates, rows)  # type: ignore[no-any-return]

    trainer.stepper.forward = forward
    bank = trainer.model.tailors.weight.detach().clone()
    batch = draw_batch(make_photos().labels, trainer.config, 0, step_generator(trainer.config, 0))
    trainer.stepper.take(trainer.step)
    [(labels, gates, rows)] = asked
    assert torch.equal(labels, gates)
    kept = labels >= 0
    assert 0 < kept.sum() < 5
    own_class = batch.indices[kept] % 3
    assert torch.equal(rows[labels[kept]], bank[own_class])


def test_flipped_photos_are_mirror_images(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, batch_size=10)
    feed = trainer.stepper.feeder.take(0)
    assert 0 < feed.batch.flipped.sum() < 10
    for image, index, flipped in zip(feed.photos, feed.batch.indices, feed.batch.flipped, strict=True):
        photo = make_photos().images[index]
        assert torch.equal(image, photo.flip(-1) if flipped else photo)


def test_a_resumed_run_is_an_uninterrupted_one(tmp_path: Path) -> None:
    # 11 photos in batches of 4: the checkpoints of step 5 and 10 lie in the middle of an epoch
    photos, options = make_photos(11), {"label_dropout": 0.4, "weight_decay": 0.1}
    whole = make_trainer(tmp_path / "whole", photos, **options)
    expected = run(whole)
    assert len(set(expected)) == 12
    broken = make_trainer(tmp_path / "broken", photos, **options)
    assert run(broken, stop_after=7) == expected[:7]
    resumed = make_trainer(tmp_path / "broken", photos, resume=True, **options)
    assert resumed.step == 5
    assert run(resumed, stop_after=11) == expected[5:11]
    again = make_trainer(tmp_path / "broken", photos, resume=True, **options)
    assert again.step == 10
    assert run(again) == expected[10:]
    assert_same_bits(everything(again), everything(whole))
    assert again.best_loss == whole.best_loss
    for name in ("best", "last"):
        one, other = (load_checkpoint(tmp_path / which / name).model for which in ("broken", "whole"))
        assert_same_bits(one.state_dict(), other.state_dict())


def test_the_loss_falls_and_the_label_decides_the_colour(tmp_path: Path) -> None:
    photos = make_photos(8)
    trainer = make_trainer(tmp_path, photos, images=8 * 120, batch_size=8, save_every=10**9)
    losses = run(trainer)
    assert sum(losses[-20:]) < 0.25 * sum(losses[:20])
    labels = torch.arange(3).repeat_interleave(4)
    noise = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answer = trainer.averaged_model()(noise, torch.full((12,), 990.0), labels, labels)
    # photos of class 0, 1, 2 are red, green, blue
    assert answer.mean(dim=(2, 3)).argmax(dim=1).tolist() == labels.tolist()


def test_the_best_weights_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = iter([3.0, 1.0, 2.0])
    averages: list[dict[str, Tensor]] = []

    def measure(self: Trainer, model: object) -> float:
        if not isinstance(model, torch.nn.Module):  # the mean image, with which the weights are compared
            return 9.0
        averages.append({name: value.clone() for name, value in model.state_dict().items()})
        return next(scripted)

    monkeypatch.setattr(Trainer, "measure_held_out", measure)
    trainer = make_trainer(tmp_path)
    assert trainer.run() == 1.0
    kept = load_checkpoint(tmp_path / "best").model.state_dict()
    assert_same_bits(kept, averages[1])
    last = load_checkpoint(tmp_path / "last").model.state_dict()
    assert_same_bits(last, averages[2])
    assert not torch.equal(kept["tailors.weight"], averages[2]["tailors.weight"])
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["step"], r["images"], r["held_out_loss"]) for r in records if "held_out_loss" in r] == [
        (5, 20, 3.0),
        (10, 40, 1.0),
        (12, 48, 2.0),
    ]


def test_held_out_losses_are_alike_whatever_times_are_trained(tmp_path: Path) -> None:
    losses = []
    for name, mean in (("early", -2.0), ("late", 2.0)):
        trainer = make_trainer(tmp_path / name, noise_schedule="flow", timestep_mean=mean, learning_rate=1e-30)
        losses.append(trainer.run())
    assert losses[0] == losses[1]


def test_a_resumed_run_does_not_forget_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "measure_held_out", lambda self, model: 1.0)
    run(make_trainer(tmp_path), stop_after=7)
    kept = load_checkpoint(tmp_path / "best").sha256
    monkeypatch.setattr(Trainer, "measure_held_out", lambda self, model: 2.0)
    assert make_trainer(tmp_path, resume=True).run() == 1.0
    assert load_checkpoint(tmp_path / "best").sha256 == kept


def test_held_out_photos_are_measured_alike_each_time(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    randomise(trainer.model)
    model = trainer.model
    before = everything(trainer)
    loss = trainer.measure_held_out(model)
    trainer.step += 1
    assert loss == trainer.measure_held_out(model)
    assert_same_bits(before, everything(trainer))
    trainer.held_out = make_photos(seed=5).select(torch.arange(4))
    assert trainer.measure_held_out(model) != loss


def test_what_is_saved_is_a_checkpoint_of_the_averaged_weights(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, ema_decay=0.9)
    run(trainer)
    config = read_config(tmp_path / "last")
    assert [info.id for info in config.classes] == ["class_0", "class_1", "class_2"]
    assert (config.dit, config.diffusion) == (TINY_DIT, TINY_DIFFUSION)
    saved = load_checkpoint(tmp_path / "last").model.state_dict()
    for name, value in trainer.optimizer.averaged_state().items():
        assert torch.equal(saved[name], value), name
    assert not torch.equal(saved["tailors.weight"], trainer.model.tailors.weight)


def test_sample_grids_are_drawn_on_time(tmp_path: Path) -> None:
    from PIL import Image

    run(make_trainer(tmp_path, sample_every=24))
    files = sorted((tmp_path / "samples").iterdir())
    assert [file.name for file in files] == ["000000024.png", "000000048.png"]
    with Image.open(files[0]) as picture:
        # eight pictures a class, enlarged to 96 pixels, with gaps of 8 and a line of 30 for the name
        assert picture.size == (8 * 104 + 8, 3 * (30 + 104))
    assert files[0].read_bytes() != files[1].read_bytes()


def broken_loss(trainer: Trainer, step: int, value: float) -> Callable[..., Tensor]:
    real = trainer.objective.loss

    def loss(*args: Tensor) -> Tensor:
        return real(*args) * (value if trainer.step == step - 1 else 1.0)

    return loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("step", "report_steps"), [(10, 1), (10, 4), (7, 1), (7, 4)])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(
    tmp_path: Path, value: float, step: int, report_steps: int
) -> None:
    trainer = make_trainer(tmp_path)
    trainer.report_steps = report_steps
    trainer.objective.loss = broken_loss(trainer, step, value)  # type: ignore[method-assign]
    with pytest.raises(
        ConfigError, match=rf"the loss is {value} at step {step} of 12, expected a finite number"
    ) as caught:
        trainer.run()
    assert "--learning-rate" in caught.value.hint
    resumed = make_trainer(tmp_path, resume=True)
    assert resumed.step == 5  # step 10 was due to be saved
    assert all(value.isfinite().all() for value in everything(resumed).values())
    load_checkpoint(tmp_path / "last")
    load_checkpoint(tmp_path / "best")


def test_weights_that_are_no_longer_finite_are_not_saved(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    real, steps = trainer.optimizer.clip_gradients, iter(range(1, 100))

    def overflow(rows: Tensor, max_norm: float) -> Tensor:
        if next(steps) == 10 and rows.grad is not None:
            rows.grad[:] = float("inf")
        return real(rows, max_norm)

    trainer.optimizer.clip_gradients = overflow  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="the held-out loss is nan at step 10 of 12"):
        trainer.run()
    assert make_trainer(tmp_path, resume=True).step == 5


def test_losses_may_be_read_every_few_steps_only(tmp_path: Path) -> None:
    expected = run(make_trainer(tmp_path / "each"))
    trainer = make_trainer(tmp_path / "few")
    trainer.report_steps = 4
    told: list[tuple[int, float]] = []
    trainer.run(lambda progress: told.append((progress.step, progress.loss)))
    # every fourth, and wherever a checkpoint is written
    assert told == [(step, expected[step - 1]) for step in (4, 5, 8, 10, 12)]


def test_progress_says_how_far_and_how_fast(tmp_path: Path) -> None:
    told: list[Progress] = []
    make_trainer(tmp_path).run(told.append)
    assert [(p.step, p.images, p.num_steps) for p in told] == [(i, 4 * i, 12) for i in range(1, 13)]
    assert all(p.images_per_second > 0 for p in told)
    assert told[0].held_out_loss is None
    assert told[4].held_out_loss is not None
    assert told[5].seconds_left == pytest.approx(6 * 4 / told[5].images_per_second)
    assert told[-1].seconds_left == 0


def test_bf16_covers_the_forward_pass_alone(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, precision="bf16", images=4)
    told: dict[str, Any] = {}
    real = trainer.objective.loss

    def forward(*args: Tensor) -> Tensor:
        told["forward"] = torch.is_autocast_enabled("cpu")
        return trainer.model(*args)  # type: ignore[no-any-return]

    def loss(output: Tensor, *args: Tensor) -> Tensor:
        told["loss"] = torch.is_autocast_enabled("cpu")
        told["dtype"] = output.dtype
        return real(output, *args)

    trainer.stepper.forward, trainer.objective.loss = forward, loss  # type: ignore[method-assign]
    assert trainer.stepper.take(trainer.step).dtype == torch.float32
    assert told == {"forward": True, "loss": False, "dtype": torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())


def test_a_cpu_trains_in_fp32_unless_told_otherwise(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    with autocast(trainer.config, trainer.device):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "xpu"])
def test_a_device_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"device '{name}' cannot be used") as caught:
        make_trainer(tmp_path, device=name)
    assert "\n" not in caught.value.message


def test_bf16_is_not_compiled_where_that_is_wrong() -> None:
    cpu, amx = torch.device("cpu"), {"amx_bf16": True}
    with pytest.raises(ConfigError, match="--precision bf16 with --compile is wrong on this CPU: with AMX") as refused:
        require_arithmetic("bf16", cpu, is_compiled=True, capabilities=amx)
    assert refused.value.hint == "leave out --compile, or take --precision fp32"
    require_arithmetic("bf16", cpu, is_compiled=False, capabilities=amx)
    require_arithmetic("bf16", cpu, is_compiled=True, capabilities={"avx512_bf16": True})
    require_arithmetic("bf16", torch.device("cuda"), is_compiled=True, capabilities=amx)
    for precision in ("auto", "fp32"):
        require_arithmetic(precision, cpu, is_compiled=True, capabilities=amx)


def test_a_preset_for_latents_does_not_take_photos() -> None:
    dit, diffusion = preset("kind-b/2")
    with pytest.raises(ConfigError, match="the preset works on 4 channels, the data have 3"):
        make_model_config(Shape(dit=dit, diffusion=diffusion), make_photos())
