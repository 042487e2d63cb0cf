"""Diversion training (paper, Alg. 1): every image trains the learngene and the tailor of its own class, no other.

What happens at a step depends only on the options and the step's number: data order, flips, noise and label dropout
are drawn from seeds of (seed, epoch) and (seed, step). A resumed run therefore has the losses of an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kind_core.checkpoint import load_checkpoint, save_checkpoint
from kind_core.config import DiffusionConfig, DiTConfig, ModelConfig, preset
from kind_core.dit import KindDiT
from kind_core.errors import CheckpointError, ConfigError
from kind_train.batches import Batch, draw_batch, step_generator
from kind_train.config import TrainConfig
from kind_train.data import PhotoSet
from kind_train.device import pick_device, tune_device
from kind_train.grid import save_sample_grid
from kind_train.interrupts import hold_interrupts
from kind_train.objective import Objective
from kind_train.optimizer import DivertedAdamW
from kind_train.run_folder import (
    BEST_NAME,
    LAST_NAME,
    SAMPLES_NAME,
    TrainingState,
    append_metrics,
    read_state,
    write_state,
)

_VALIDATION_BATCH = 256
_VALIDATION_IMAGES = 1024
# Reading a loss makes the host wait for the GPU, so there it is done for many steps at once.
_GPU_REPORT_STEPS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What a progress display is told: after each step on a CPU, after every twentieth on a GPU."""

    step: int
    num_steps: int
    images: int
    loss: float
    images_per_second: float
    seconds_left: float
    held_out_loss: float | None


class Trainer:
    """One training run. `run()` trains to the end; state lies in the run folder and `resume=True` picks it up."""

    def __init__(self, config: TrainConfig, train: PhotoSet, held_out: PhotoSet, *, resume: bool = False) -> None:
        self.config = config
        self.device = pick_device(config.device)
        tune_device(self.device)
        self.output = Path(config.output)
        self.model_config = make_model_config(*preset(config.preset), train)
        torch.manual_seed(config.seed)
        self.model = KindDiT(self.model_config.dit).to(self.device)
        if config.start_from is not None and not resume:
            load_start(self.model, self.model_config, Path(config.start_from))
        self.optimizer = DivertedAdamW(self.model, weight_decay=config.weight_decay, ema_decay=config.ema_decay)
        self.objective = Objective(self.model_config.diffusion, self.device)
        self.train = replace(train, images=train.images.to(self.device))  # labels stay on the host, see draw_batch
        self.held_out = replace(
            held_out, images=held_out.images.to(self.device), labels=held_out.labels.to(self.device)
        )
        self.step = 0
        self.best_loss = float("inf")
        self.held_out_loss: float | None = None
        self._unread_losses: list[Tensor] = []
        self._report_steps = 1 if self.device.type == "cpu" else _GPU_REPORT_STEPS
        self._forward: Callable[..., Tensor] = torch.compile(self.model) if config.compile else self.model
        if resume:
            self._restore()

    def run(self, on_step: Callable[[Progress], None] | None = None) -> float:
        """Train to the end; returns the best held-out loss, whose weights lie in `<output>/best`.

        Raises ConfigError at a loss that is NaN or infinite; what was saved before stays.
        """
        start_s, first = time.perf_counter(), self.step
        while self.step < self.config.num_steps:
            self._unread_losses.append(self._train_step())
            self.step += 1
            is_last = self.step == self.config.num_steps
            is_save = is_last or self._is_due(self.config.save_every)
            is_report = is_save or self.step % self._report_steps == 0
            loss = self._read_losses() if is_report else math.nan
            if is_save:
                self._validate()
                self.save()
            if is_last or self._is_due(self.config.sample_every):
                self._draw_samples()
            if is_report and on_step is not None:
                on_step(self._progress(loss, time.perf_counter() - start_s, self.step - first))
        return self.best_loss

    def save(self) -> None:
        """Write state and checkpoint, each whole or not at all; the previous ones stay until the new ones stand."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in self.optimizer.state_dict().items()}
        state = TrainingState(step=self.step, best_loss=self.best_loss, identity=self._identity(), tensors=tensors)
        with hold_interrupts():
            write_state(self.output, state)
            save_checkpoint(self.output / LAST_NAME, self.model_config, self.averaged_model(), force=True)

    def averaged_model(self) -> KindDiT:
        """A copy of the model with the EMA weights."""
        averaged = KindDiT(self.model_config.dit).to(self.device)
        averaged.load_state_dict(self.optimizer.averaged_state())
        return averaged.eval()

    def _identity(self) -> dict[str, Any]:
        """What decides the order of the photos and the meaning of the weights."""
        config, classes = self.config, [info.id for info in self.model_config.classes]
        return {"preset": config.preset, "classes": classes, "batch_size": config.batch_size, "seed": config.seed}

    def _restore(self) -> None:
        state = read_state(self.output, self._identity(), self.device)
        model, optimizer = (_strip(state.tensors, prefix) for prefix in ("model.", "optimizer."))
        try:
            self.model.load_state_dict(model)
            self.optimizer.load_state_dict(optimizer)
        except (RuntimeError, KeyError) as error:
            # load_state_dict lists every tensor, one a line; the first line that names one is enough
            reason = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
            raise CheckpointError(
                f"the training state in {self.output} does not fit this model: {reason}",
                "resume with the classes and the preset it was trained with",
            ) from error
        self.step, self.best_loss = state.step, state.best_loss

    def _train_step(self) -> Tensor:
        generator = step_generator(self.config, self.step)
        batch = draw_batch(self.train.labels, self.config, self.step, generator)
        if self.device.type != "cpu":
            generator = step_generator(self.config, self.step, self.device)
        classes, labels = batch.classes.to(self.device), batch.labels.to(self.device)
        rows = self.optimizer.gather(classes)
        # Where every label was dropped no gate opens, but the model needs a row to look at.
        bank = rows if len(classes) else self.model.tailors.weight.detach()
        loss = self._losses(self._forward, self._read_images(batch), labels, generator, bank).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.clip_gradients(rows, self.config.max_grad_norm)
        self.optimizer.step(classes, rows, self.config.learning_rate_at(self.step))
        return loss.detach()

    def _read_images(self, batch: Batch) -> Tensor:
        images = self.train.to_unit(batch.indices.to(self.device))
        return torch.where(batch.flipped.to(self.device)[:, None, None, None], images.flip(-1), images)

    def _losses(
        self,
        forward: Callable[..., Tensor],
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        rows: Tensor | None,
    ) -> Tensor:
        timesteps = torch.randint(self.objective.num_timesteps, (len(images),), generator=generator, device=self.device)
        noise = torch.randn(images.shape, generator=generator, device=self.device)
        noisy = self.objective.add_noise(images, noise, timesteps)
        with self._autocast():
            output = forward(noisy, self.objective.condition(timesteps), labels, labels, rows)
        return self.objective.loss(output, images, noise, timesteps)

    def _read_losses(self) -> float:
        """The loss of the last step; raises ConfigError naming the first of the unread ones that is not finite."""
        losses = torch.stack(self._unread_losses).tolist()
        self._unread_losses.clear()
        for step, loss in enumerate(losses, self.step - len(losses) + 1):
            self._require_finite("loss", loss, step)
        return float(losses[-1])

    def _require_finite(self, what: str, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise ConfigError(
                f"the {what} is {loss} at step {step} of {self.config.num_steps}, expected a finite number",
                "lower --learning-rate or lengthen --warmup-images; checkpoints saved before are kept",
            )

    def _validate(self) -> None:
        model = self.averaged_model()
        self.held_out_loss = self._measure_held_out(model)
        self._require_finite("held-out loss", self.held_out_loss, self.step)
        images = self.step * self.config.batch_size
        append_metrics(self.output, {"step": self.step, "images": images, "held_out_loss": self.held_out_loss})
        if self.held_out_loss < self.best_loss:
            self.best_loss = self.held_out_loss
            with hold_interrupts():
                save_checkpoint(self.output / BEST_NAME, self.model_config, model, force=True)

    @torch.no_grad()
    def _measure_held_out(self, model: KindDiT) -> float:
        generator = step_generator(self.config, -1, self.device)  # the same noise and timesteps at every validation
        order = torch.randperm(len(self.held_out), generator=generator, device=self.device)[:_VALIDATION_IMAGES]
        losses = [
            self._losses(model, self.held_out.to_unit(part), self.held_out.labels[part], generator, None)
            for part in torch.split(order, _VALIDATION_BATCH)
        ]
        return float(torch.cat(losses).mean())

    def _draw_samples(self) -> None:
        file = self.output / SAMPLES_NAME / f"{self.step * self.config.batch_size:09d}.png"
        save_sample_grid(self.averaged_model(), self.model_config, file, seed=self.config.seed)

    def _autocast(self) -> AbstractContextManager[object]:
        is_bf16 = self.config.precision == "bf16" or (self.config.precision == "auto" and self.device.type == "cuda")
        return torch.autocast(self.device.type, torch.bfloat16) if is_bf16 else nullcontext()

    def _is_due(self, every_images: int) -> bool:
        size = self.config.batch_size
        return self.step * size // every_images > (self.step - 1) * size // every_images

    def _progress(self, loss: float, seconds: float, steps: int) -> Progress:
        speed = steps * self.config.batch_size / seconds
        left_s = (self.config.num_steps - self.step) * self.config.batch_size / speed
        return Progress(
            step=self.step, num_steps=self.config.num_steps, images=self.step * self.config.batch_size, loss=loss,
            images_per_second=speed, seconds_left=left_s, held_out_loss=self.held_out_loss,
        )  # fmt: skip


def make_model_config(dit: DiTConfig, diffusion: DiffusionConfig, photos: PhotoSet) -> ModelConfig:
    """The config of a preset for the classes of a data set."""
    check_pixel_space(dit)
    return ModelConfig(dit=replace(dit, num_classes=len(photos.classes)), diffusion=diffusion, classes=photos.classes)


def load_start(model: KindDiT, config: ModelConfig, path: Path) -> None:
    """Load the learngene and the tailors of the classes that the checkpoint at `path` knows too, by id.

    Raises ConfigError where the checkpoint is of another architecture or predicts something else.
    """
    source = load_checkpoint(path)
    if replace(source.config.dit, num_classes=config.dit.num_classes, tailor_ranks=None) != config.dit:
        raise ConfigError(f"{path} has another architecture than the preset", "start from a checkpoint of this preset")
    ours, theirs = (replace(c.diffusion, sampler="", steps=1, guidance_scale=0.0) for c in (config, source.config))
    if ours != theirs:
        raise ConfigError(f"{path} was trained with {theirs.prediction_type} on {theirs.noise_schedule} noise, "
                          f"not with {ours.prediction_type} on {ours.noise_schedule}")  # fmt: skip
    model.load_state_dict(source.model.learngene_state(), strict=False)
    known = {info.id: index for index, info in enumerate(source.config.classes)}
    with torch.no_grad():
        for index, info in enumerate(config.classes):
            if info.id in known:
                model.tailors.weight[index] = source.model.tailors.weight[known[info.id]]


def check_pixel_space(dit: DiTConfig) -> None:
    """Raise ConfigError when a model does not work on RGB pixels."""
    if dit.in_channels != 3:
        message = f"the preset works on {dit.in_channels} channels, photos have 3"
        raise ConfigError(message, "train in pixel space with --preset sample")


def _strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
