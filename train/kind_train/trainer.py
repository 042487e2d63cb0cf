"""Diversion training (paper, Alg. 1): every image trains the learngene and the tailor of its own class, no other.

What happens at a step depends only on the options and the step's number: data order, flips, noise and label dropout
are drawn from seeds of (seed, epoch) and (seed, step). A resumed run therefore has the losses of an uninterrupted one.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kind_core.checkpoint import save_checkpoint
from kind_core.config import DiffusionConfig, DiTConfig, ModelConfig, preset
from kind_core.dit import KindDiT
from kind_core.errors import CheckpointError, ConfigError
from kind_core.staging import staged
from kind_train.config import TrainConfig
from kind_train.data import PhotoSet
from kind_train.grid import save_sample_grid
from kind_train.objective import Objective
from kind_train.optimizer import DivertedAdamW

STATE_NAME = "state"
BEST_NAME = "best"
LAST_NAME = "last"
METRICS_NAME = "metrics.jsonl"
_VALIDATION_BATCH = 256
_VALIDATION_IMAGES = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What a progress display is told after each step."""

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
        self.device = _pick_device(config.device)
        self.output = Path(config.output)
        self.model_config = make_model_config(*preset(config.preset), train)
        torch.manual_seed(config.seed)
        self.model = KindDiT(self.model_config.dit).to(self.device)
        self.optimizer = DivertedAdamW(self.model, weight_decay=config.weight_decay, ema_decay=config.ema_decay)
        self.objective = Objective(self.model_config.diffusion, self.device)
        self.train, self.held_out = _to_device(train, self.device), _to_device(held_out, self.device)
        self.step = 0
        self.best_loss = float("inf")
        self.held_out_loss: float | None = None
        self._forward: Callable[..., Tensor] = torch.compile(self.model) if config.compile else self.model
        if resume:
            self._restore()

    def run(self, on_step: Callable[[Progress], None] | None = None) -> float:
        """Train to the end; returns the best held-out loss, whose weights lie in `<output>/best`."""
        start, first = time.perf_counter(), self.step
        while self.step < self.config.num_steps:
            loss = self._train_step()
            self.step += 1
            if self._is_due(self.config.save_every) or self.step == self.config.num_steps:
                self._validate()
                self.save()
            if self._is_due(self.config.sample_every) or self.step == self.config.num_steps:
                self._draw_samples()
            if on_step is not None:
                on_step(self._progress(loss, time.perf_counter() - start, self.step - first))
        return self.best_loss

    def save(self) -> None:
        """Write the training state, whole or not at all; the previous state stays until the new one stands."""
        state = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        state |= {f"optimizer.{k}": v for k, v in self.optimizer.state_dict().items()}
        with staged(self.output / STATE_NAME, force=True) as folder:
            folder.mkdir()
            save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, folder / "state.safetensors")
            numbers = {"step": self.step, "best_loss": self.best_loss, "preset": self.config.preset}
            (folder / "state.json").write_text(json.dumps(numbers))
        save_checkpoint(self.output / LAST_NAME, self.model_config, self.averaged_model(), force=True)

    def averaged_model(self) -> KindDiT:
        """A copy of the model with the EMA weights."""
        averaged = KindDiT(self.model_config.dit).to(self.device)
        averaged.load_state_dict(self.optimizer.averaged_state())
        return averaged.eval()

    def _restore(self) -> None:
        folder = self.output / STATE_NAME
        try:
            numbers = json.loads((folder / "state.json").read_text())
            state = load_file(folder / "state.safetensors", device=str(self.device))
        except FileNotFoundError as error:
            raise CheckpointError(f"no training state at {folder}", "start without --resume") from error
        except (SafetensorError, ValueError, OSError) as error:
            raise CheckpointError(f"the training state at {folder} is broken: {error}") from error
        if numbers["preset"] != self.config.preset:
            raise ConfigError(f"{folder} was trained with preset {numbers['preset']!r}, not {self.config.preset!r}")
        self.model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
        self.optimizer.load_state_dict(
            {k.removeprefix("optimizer."): v for k, v in state.items() if k.startswith("optimizer.")}
        )
        self.step, self.best_loss = numbers["step"], numbers["best_loss"]

    def _train_step(self) -> float:
        generator = self._generator(self.step)
        indices = self._batch_indices(self.step)
        images, labels = self.train.to_unit(indices), self.train.labels[indices]
        size = len(indices)
        if self.config.flip:
            flipped = torch.rand(size, generator=generator, device=self.device) < 0.5
            images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
        dropped = torch.rand(size, generator=generator, device=self.device) < self.config.label_dropout
        classes, positions = labels[~dropped].unique(return_inverse=True)
        labels = torch.full_like(labels, -1).masked_scatter(~dropped, positions)
        rows = self.optimizer.gather(classes)
        loss = self._losses(self._forward, images, labels, generator, rows).mean()
        loss.backward()
        self.optimizer.clip_gradients(rows, self.config.max_grad_norm)
        self.optimizer.step(classes, rows, self.config.learning_rate_at(self.step))
        return float(loss.detach())

    def _losses(
        self, forward: Callable[..., Tensor], images: Tensor, labels: Tensor, generator: torch.Generator, rows: Tensor | None
    ) -> Tensor:
        timesteps = torch.randint(
            self.objective.num_timesteps, (len(images),), generator=generator, device=self.device
        )
        noise = torch.randn(images.shape, generator=generator, device=self.device)
        noisy = self.objective.add_noise(images, noise, timesteps)
        with self._autocast():
            output = forward(noisy, self.objective.condition(timesteps), labels, labels, rows)
        return self.objective.loss(output, images, noise, timesteps)

    @torch.no_grad()
    def _validate(self) -> None:
        model = self.averaged_model()
        generator = self._generator(-1)  # the same noise and timesteps at every validation
        order = torch.randperm(len(self.held_out), generator=generator, device=self.device)[:_VALIDATION_IMAGES]
        losses = [
            self._losses(model, self.held_out.to_unit(part), self.held_out.labels[part], generator, None)
            for part in order.split(_VALIDATION_BATCH)
        ]
        self.held_out_loss = float(torch.cat(losses).mean())
        self._log({"step": self.step, "images": self.step * self.config.batch_size, "held_out_loss": self.held_out_loss})
        if self.held_out_loss < self.best_loss:
            self.best_loss = self.held_out_loss
            save_checkpoint(self.output / BEST_NAME, self.model_config, model, force=True)

    def _draw_samples(self) -> None:
        file = self.output / "samples" / f"{self.step * self.config.batch_size:09d}.png"
        save_sample_grid(self.averaged_model(), self.model_config, file, seed=self.config.seed)

    def _batch_indices(self, step: int) -> Tensor:
        size, total = self.config.batch_size, len(self.train)
        first = step * size
        parts = []
        for epoch in range(first // total, (first + size - 1) // total + 1):
            generator = torch.Generator().manual_seed(_mix(self.config.seed, epoch, 1))
            order = torch.randperm(total, generator=generator)
            parts.append(order[max(first - epoch * total, 0) : first + size - epoch * total])
        return torch.cat(parts).to(self.device)

    def _generator(self, step: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(_mix(self.config.seed, step, 2))

    def _autocast(self) -> AbstractContextManager[object]:
        is_bf16 = self.config.precision == "bf16" or (self.config.precision == "auto" and self.device.type == "cuda")
        return torch.autocast(self.device.type, torch.bfloat16) if is_bf16 else nullcontext()

    def _is_due(self, every_images: int) -> bool:
        size = self.config.batch_size
        return self.step * size // every_images > (self.step - 1) * size // every_images

    def _progress(self, loss: float, seconds: float, steps: int) -> Progress:
        speed = steps * self.config.batch_size / seconds
        left = (self.config.num_steps - self.step) * self.config.batch_size / speed
        return Progress(
            step=self.step, num_steps=self.config.num_steps, images=self.step * self.config.batch_size, loss=loss,
            images_per_second=speed, seconds_left=left, held_out_loss=self.held_out_loss,
        )  # fmt: skip

    def _log(self, record: dict[str, float]) -> None:
        with (self.output / METRICS_NAME).open("a") as stream:
            stream.write(json.dumps(record) + "\n")


def start_run_folder(config: TrainConfig, *, resume: bool, force: bool) -> None:
    """Make the run folder and write the options there; an existing run is kept unless `force`."""
    folder = Path(config.output)
    if not resume and folder.exists() and any(folder.iterdir()):
        if not force:
            raise ConfigError(f"{folder} already holds a run", "continue it with --resume or replace it with --force")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "options.yaml").write_text(config.to_yaml(), encoding="utf-8")


def make_model_config(dit: DiTConfig, diffusion: DiffusionConfig, photos: PhotoSet) -> ModelConfig:
    """The config of a preset for the classes of a data set."""
    num_classes = len(photos.classes)
    if photos.images.shape[1] != dit.in_channels:
        raise ConfigError(
            f"the preset works on {dit.in_channels} channels, the photos have {photos.images.shape[1]}",
            "train in pixel space with the sample preset",
        )
    return ModelConfig(dit=replace(dit, num_classes=num_classes), diffusion=diffusion, classes=photos.classes)


def _pick_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r} was asked for, but this torch finds no CUDA GPU", "use --device cpu")
    return torch.device(name)


def _to_device(photos: PhotoSet, device: torch.device) -> PhotoSet:
    return replace(photos, images=photos.images.to(device), labels=photos.labels.to(device))


def _mix(seed: int, number: int, stream: int) -> int:
    return (seed * 1_000_003 + number + 1) * 4 + stream
