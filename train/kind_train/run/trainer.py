"""Diversion training (paper, Alg. 1): every image trains the learngene and the tailor of its own class, no other.

What happens at a step depends only on the options and the step's number: data order, flips, noise and label dropout
are drawn from seeds of (seed, epoch) and (seed, step). A resumed run therefore has the losses of an uninterrupted one.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from kind_core.checkpoint import hash_learngene, save_checkpoint
from kind_core.config import TrainingRecord
from kind_core.dit import KindDiT
from kind_core.errors import CheckpointError, ConfigError
from kind_core.growth import save_grown
from kind_core.sampling import to_images
from kind_core.stopping import StopRequest, hold_interrupts, noted_stops
from kind_train.config import ACCELERATOR, TAILORS, TrainConfig
from kind_train.data.batches import step_generator
from kind_train.data.feeder import Feeder
from kind_train.data.latents import LatentSet
from kind_train.data.photo_set import TrainingSet
from kind_train.device import pick_device, tune_device
from kind_train.methods import open_method
from kind_train.methods.method import Method, freeze
from kind_train.methods.shared.accelerator import Accelerator
from kind_train.objective import Objective
from kind_train.run.distilling import DistillationLosses
from kind_train.run.forms import read_forms, set_forms, tune_forms
from kind_train.run.grid import Decode, save_sample_grid
from kind_train.run.loss_plot import draw_losses
from kind_train.run.losses import Forward, Losses
from kind_train.run.matching import Matching
from kind_train.run.mean_image import read_mean_image
from kind_train.run.memory import checkpoint_activations, gather, shard_model
from kind_train.run.optimizer import DivertedAdamW
from kind_train.run.perceptual import with_provenance
from kind_train.run.processes import Processes
from kind_train.run.run_folder import (
    BEST_NAME,
    LAST_NAME,
    LOSSES_NAME,
    METRICS_NAME,
    SAMPLES_NAME,
    TrainingState,
    append_metrics,
    read_state,
    trim_metrics,
    write_state,
)
from kind_train.start.adaptation import prepare_adaptation, start_adaptation
from kind_train.start.diversion import open_gates
from kind_train.start.orthogonal import constrain_factors, merged
from kind_train.start.shape import Shape, pick_shape
from kind_train.start.starting import check_origin, load_start, make_model_config

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
    learning_rate: float
    gradient_norm: float


class Trainer:
    """One training run. `run()` trains to the end; state lies in the run folder and `resume=True` picks it up.

    `shape` is what to train where it is no preset.
    """

    def __init__(
        self,
        config: TrainConfig,
        train: TrainingSet,
        held_out: TrainingSet,
        *,
        resume: bool = False,
        shape: Shape | None = None,
        processes: Processes = Processes(),  # noqa: B008  # it cannot be changed
    ) -> None:
        self.config = config
        self.processes = processes
        self.device = pick_device(config.device, processes.local_rank)
        tune_device(self.device)
        self.output = Path(config.output)
        self.base = None if config.base is None else Path(config.base)
        self.method = _pick_method(config)
        self.model_config = make_model_config(shape or pick_shape(config), train)
        if not config.diversion:
            self.model_config = open_gates(self.model_config)
        if config.perceptual:
            self.model_config = with_provenance(self.model_config, config.perceptual)
        torch.manual_seed(config.seed)
        self.model = KindDiT(self.model_config.dit).to(self.device)
        self.photos, self.held_out = train, held_out
        self.objective = Objective(
            self.model_config.diffusion,
            self.device,
            timestep_mean=config.timestep_mean,
            timestep_std=config.timestep_std,
        )
        self.losses = self._make_losses()
        check_origin(self.output / LAST_NAME if resume else config.teacher or config.start_from, train)
        self.share = processes.share(config.batch_size)
        self.feeder = Feeder(train, config, self.share, self.device)
        if not resume:
            self._load_start(train)
        if self.base is not None and self.method is not None:
            prepare_adaptation(self.model, self.model_config, self.base, self.method, config, train)
        elif self.method is not None:
            self.method.prepare(self.model, self.model_config.dit)
        elif config.train == "tailors":
            freeze(self.model)
        if config.factors == "cayley":
            constrain_factors(self.model)
        self._look_at_teacher()
        self.step = 0
        self.best_loss = float("inf")
        self.held_out_loss: float | None = None
        self._mean_image_loss: float | None = None
        self._unread_losses: list[Tensor] = []  # (terms,) of each step
        self._gradient_norm = torch.zeros(())
        self._on_metrics: Callable[[Mapping[str, float]], None] | None = None
        self._report_steps = 1 if self.device.type == "cpu" else _GPU_REPORT_STEPS
        state = self._read_state() if resume else None
        if state is None and self.device.type == "cuda":
            tune_forms(self.model, config.batch_size // processes.count, self._autocast)
        if processes.count > 1:
            set_forms(self.model, processes.copy_from_main(read_forms(self.model).to(self.device)))
        if config.checkpoint_activations:
            checkpoint_activations(self.model)
        if self.is_sharded:
            shard_model(self.model, processes.count)
        self.optimizer = DivertedAdamW(self.model, weight_decay=config.weight_decay, ema_decay=config.ema_decay)
        if state is not None:
            with self._explained_misfit():
                self.optimizer.load_state_dict(_strip(state.tensors, "optimizer."))
        self._forward = self._make_forward()

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a slice of the learngene; one alone holds all of it."""
        return self.config.shard and self.processes.count > 1

    def run(
        self,
        on_step: Callable[[Progress], None] | None = None,
        on_metrics: Callable[[Mapping[str, float]], None] | None = None,
    ) -> float:
        """Train to the end; returns the best held-out loss, whose weights lie in `<output>/best`.

        `on_metrics` is told every line that is added to metrics.jsonl.

        Without held-out photos that is infinite, and the last weights lie there.

        Raises ConfigError at a loss that is NaN or infinite; what was saved before stays.
        """
        self._on_metrics = on_metrics
        with noted_stops() as stop:
            self._train(stop, on_step)
        return self.best_loss

    def _train(self, stop: StopRequest, on_step: Callable[[Progress], None] | None) -> None:
        """Steps until the last one, or until `stop`, which leaves a state to go on from."""
        start_s, first = time.perf_counter(), self.step
        while self.step < self.config.num_steps:
            self._unread_losses.append(self._train_step())
            self.step += 1
            is_last = self.step == self.config.num_steps
            is_save = is_last or self._is_due(self.config.save_every)
            is_read = is_save or self.step % self._report_steps == 0
            is_stop = not is_last and self._is_stopped(stop, is_read=is_read)
            progress = None
            if is_read or is_stop:
                progress = self._progress(self._read_losses(), time.perf_counter() - start_s, self.step - first)
                self._report(progress)
            if is_save:
                self._validate()
            if is_save or is_stop:
                self.save()
            if is_last or self._is_due(self.config.sample_every):
                self._draw_samples()
            if is_stop or (is_save and not is_last and self._is_stopped(stop, is_read=True)):  # asked while it saved
                return
            if progress is not None and on_step is not None:
                on_step(replace(progress, held_out_loss=self.held_out_loss))
        stop.number = 0  # the run is done

    def _is_stopped(self, stop: StopRequest, *, is_read: bool) -> bool:
        """Whether a process was asked to stop; several ask each other where they wait for each other anyway."""
        if self.processes.count > 1 and is_read:
            asked = torch.tensor(float(bool(stop.number)), device=self.device)
            if self.processes.total(asked) and not stop.number:
                stop.number = signal.SIGTERM
        return bool(stop.number) and (self.processes.count == 1 or is_read)

    def save(self) -> None:
        """Write state and checkpoint, each whole or not at all; the previous ones stay until the new ones stand."""
        if not self._takes_part:
            return
        tensors = {"forms": read_forms(self.model)}
        tensors |= {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in self.optimizer.state_dict().items()}
        tensors = gather(tensors, on_host=True, keep=self.processes.is_main)
        model = self.averaged_model()
        if not self.processes.is_main:
            return
        state = TrainingState(step=self.step, best_loss=self.best_loss, identity=self._identity(), tensors=tensors)
        with hold_interrupts():
            write_state(self.output, state)
            self._save_checkpoint(LAST_NAME, model)

    @property
    def _takes_part(self) -> bool:
        """Whether this process is needed for what the main one writes: all have to hand in their slices."""
        return self.processes.is_main or self.is_sharded

    def averaged_model(self) -> KindDiT:
        """A copy of the model with the EMA weights, whole; of a sharded model all processes must ask for it."""
        state = gather(self.optimizer.averaged_state())
        if self.method is not None:
            return self.method.merged(self.model, state)
        if self.config.factors == "cayley":
            return merged(self.model, state)
        averaged = KindDiT(self.model_config.dit).to(self.device)
        averaged.load_state_dict(state)
        return averaged.eval()

    def _make_forward(self) -> Callable[..., Tensor]:
        """The model as a step calls it: its gradients averaged over the processes, compiled if asked."""
        forward: Callable[..., Tensor] = self.model
        if self.processes.count > 1 and self.optimizer.learngene and not self.is_sharded:
            # the bank's gradient goes to the rows that a step gathers, which `_train_step` averages
            ignore = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
            ignore(self.model, ["tailors.weight"])  # type: ignore[no-untyped-call]
            devices = None if self.device.type == "cpu" else [self.device]
            forward = DistributedDataParallel(self.model, device_ids=devices, gradient_as_bucket_view=True)
        return torch.compile(forward) if self.config.compile else forward

    def _make_losses(self) -> Losses | DistillationLosses:
        if self.config.teacher is None:
            return Losses(self.config, self.held_out, self.objective, self.device, self._autocast)
        return DistillationLosses(self.config, self.model_config, self.held_out, self.device, self._autocast)

    def _look_at_teacher(self) -> None:
        if self.config.match is not None and isinstance(self.losses, Losses):
            teacher, blocks = Path(self.config.match), self.config.match_blocks
            self.losses.match(Matching(teacher, blocks, self.model, self.model_config))

    def _load_start(self, photos: TrainingSet) -> None:
        config = self.config
        if self.base is not None and self.method is not None:
            start_adaptation(self.model, self.base, self.method, config.init_from, photos, self.objective, config.seed)
        elif (start := config.teacher or config.start_from) is not None:
            load_start(self.model, self.model_config, Path(start))

    def _save_checkpoint(self, name: str, model: KindDiT) -> None:
        """A checkpoint of the run's classes; where a base stays as it is beside them, of its own and the run's."""
        if self.base is None or self.method is None or not self.method.keeps_base:
            autoencoder = self.held_out.autoencoder_folder if isinstance(self.held_out, LatentSet) else None
            config = replace(self.model_config, dit=model.config, training=self._training())
            save_checkpoint(self.output / name, config, model, autoencoder=autoencoder, force=True)
        else:
            config = replace(self.model_config, training=self._training())
            save_grown(self.output / name, self.base, config, model, force=True)

    def _training(self) -> TrainingRecord:
        images = max(1, self.step * self.config.batch_size)
        return TrainingRecord(images=images, held_out_loss=self.held_out_loss, mean_image_loss=self._mean_image_loss)

    def _identity(self) -> dict[str, Any]:
        """What decides the order of the photos and the meaning of the weights."""
        config, classes = self.config, [info.id for info in self.model_config.classes]
        identity: dict[str, Any] = {
            "preset": config.preset_name,
            "diversion": config.diversion,
            "factors": config.factors,
            "classes": classes,
            "batch_size": config.batch_size,
            "seed": config.seed,
        }
        if config.noise_schedule is not None:
            identity["noise_schedule"] = config.noise_schedule
        if config.size is not None:
            identity["size"] = config.size
        if config.teacher is not None:
            steps = ",".join(map(str, config.steps))
            identity |= {"teacher": hash_learngene(Path(config.teacher)), "steps": steps, "train": config.train}
            if config.train == ACCELERATOR:
                identity["accelerator_rank"] = config.accelerator_rank
        if config.method != TAILORS:
            identity["method"] = config.method
        if config.match is not None:
            identity["match"] = hash_learngene(Path(config.match))
        return identity if self.base is None else identity | {"base": hash_learngene(self.base)}

    def _read_state(self) -> TrainingState:
        """Take up the run in the output folder, all but the state of its optimizer."""
        state = read_state(self.output, self._identity(), self.device)
        with self._explained_misfit():
            self.model.load_state_dict(_strip(state.tensors, "model."))
        set_forms(self.model, state.tensors.get("forms", read_forms(self.model)))
        self.step, self.best_loss = state.step, state.best_loss
        if self.processes.is_main:
            trim_metrics(self.output, self.step)
        return state

    @contextmanager
    def _explained_misfit(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, KeyError) as error:
            # load_state_dict lists every tensor, one a line; the first line that names one is enough
            reason = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
            raise CheckpointError(
                f"the training state in {self.output} does not fit this model: {reason}",
                "resume with the classes and the preset it was trained with",
            ) from error

    def _train_step(self, *, is_trial: bool = False) -> Tensor:
        feed = self.feeder.take(self.step)
        generator = feed.generator
        if self.device.type != "cpu":
            generator = step_generator(self.config, self.step, self.device)
        batch, photos = feed.batch, feed.photos.to(self.device, non_blocking=True)
        classes, labels = batch.classes.to(self.device), batch.labels[self.share].to(self.device)
        rows = self.optimizer.gather(classes)
        # Where every label was dropped no gate opens, but the model needs a row to look at.
        bank = rows if len(classes) else self.model.tailors.weight.detach()
        terms = self.losses.train(
            self._forward,
            photos,
            labels,
            generator,
            bank,
            classes=classes,
            batch_size=self.config.batch_size,
            share=self.share,
        )
        torch.autograd.backward(terms.sum())
        if rows.grad is not None:
            self.processes.average(rows.grad)
        if is_trial:
            self.optimizer.drop_gradients()
            return terms.detach()
        self._gradient_norm = self.optimizer.clip_gradients(rows, self.config.max_grad_norm)
        self.optimizer.step(classes, rows, self.config.learning_rate_at(self.step))
        return terms.detach()

    def estimate_seconds(self) -> float:
        """How long the rest of the run may take, by a step that changes nothing; on a GPU after one that warms up."""
        start_s = 0.0
        for _ in range(1 if self.device.type == "cpu" else 2):
            start_s = time.perf_counter()
            self._train_step(is_trial=True)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        return (time.perf_counter() - start_s) * (self.config.num_steps - self.step)

    def _read_losses(self) -> float:
        """The loss of the last step; raises ConfigError naming the first term of the unread ones that is not finite."""
        steps = self.processes.average(torch.stack(self._unread_losses)).tolist()
        self._unread_losses.clear()
        for step, terms in enumerate(steps, self.step - len(steps) + 1):
            for name, value in zip(self.losses.names, terms, strict=True):
                self._require_finite(name, value, step)
        return float(sum(steps[-1]))

    def _require_finite(self, what: str, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise ConfigError(
                f"the {what} is {loss} at step {step} of {self.config.num_steps}, expected a finite number",
                "lower --learning-rate or lengthen --warmup-images; checkpoints saved before are kept",
            )

    def _validate(self) -> None:
        model = self.averaged_model()
        images = self.step * self.config.batch_size
        if not len(self.held_out):  # nothing says which checkpoint is the best: it is the last
            if self.processes.is_main:
                self._record({"step": self.step, "images": images})
                with hold_interrupts():
                    self._save_checkpoint(BEST_NAME, model)
            return
        self.held_out_loss = self._measure_held_out(model)
        self._require_finite("held-out loss", self.held_out_loss, self.step)
        if self._mean_image_loss is None and isinstance(self.losses, Losses):
            self._mean_image_loss = self._measure_mean_image()
        if not self.processes.is_main:
            self.best_loss = min(self.best_loss, self.held_out_loss)
            return
        self._record({"step": self.step, "images": images, "held_out_loss": self.held_out_loss})
        if self.held_out_loss < self.best_loss:
            self.best_loss = self.held_out_loss
            with hold_interrupts():
                self._save_checkpoint(BEST_NAME, model)

    def _measure_mean_image(self) -> float:
        """The loss of the guess without shapes, on what the model is measured on."""
        guess = read_mean_image(self.photos, self.device)
        return self._measure_held_out(lambda noisy, told, *_: guess.answer(self.objective, noisy, told))

    @torch.no_grad()
    def _measure_held_out(self, model: Forward) -> float:
        # The same photos, noise and timesteps at every validation; the processes take its batches in turns.
        generator = step_generator(self.config, -1, self.device)
        order = torch.randperm(len(self.held_out), generator=generator, device=self.device)[:_VALIDATION_IMAGES].cpu()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for number, part in enumerate(torch.split(order, _VALIDATION_BATCH)):
            is_mine = number % self.processes.count == self.processes.rank
            share = slice(None) if is_mine else slice(0)
            photos, labels = (t[share].to(self.device) for t in (self.held_out.read(part), self.held_out.labels[part]))
            # what the others measure is drawn here all the same, but the model need not see it
            forward = model if is_mine else _return_first
            losses = self.losses.measure(forward, photos, labels, generator, batch_size=len(part), share=share)
            total += losses.double().sum()
        return float(self.processes.total(total)) / len(order)

    def _draw_samples(self) -> None:
        if not self._takes_part:
            return
        model = self.averaged_model()
        if not self.processes.is_main:
            return
        file = self.output / SAMPLES_NAME / f"{self.step * self.config.batch_size:09d}.png"
        decode: Decode = to_images
        if isinstance(self.held_out, LatentSet):
            decode = self.held_out.decoder(self.device)
        save_sample_grid(model, self.model_config, file, decode, seed=self.config.seed)
        draw_losses(self.output / METRICS_NAME, self.output / LOSSES_NAME)

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
            step=self.step,
            num_steps=self.config.num_steps,
            images=self.step * self.config.batch_size,
            loss=loss,
            images_per_second=speed,
            seconds_left=left_s,
            held_out_loss=self.held_out_loss,
            learning_rate=self.config.learning_rate_at(self.step - 1),
            gradient_norm=float(self._gradient_norm),
        )

    def _report(self, progress: Progress) -> None:
        """A line of metrics for what was trained since the last one; what is held out has lines of its own."""
        self._record(
            {
                "step": progress.step,
                "images": progress.images,
                "loss": progress.loss,
                "learning_rate": progress.learning_rate,
                "gradient_norm": progress.gradient_norm,
                "images_per_second": round(progress.images_per_second, 2),
            }
        )

    def _record(self, metrics: dict[str, float]) -> None:
        if self.processes.is_main:
            append_metrics(self.output, metrics)
            if self._on_metrics is not None:
                self._on_metrics(metrics)


def _pick_method(config: TrainConfig) -> Method | None:
    """What is put into a model for the run and is part of its weights in the end; None where all of it is trained."""
    if config.base is not None:
        return open_method(config.method)
    return Accelerator(config.accelerator_rank) if config.train == ACCELERATOR else None


def _return_first(latents: Tensor, *_: object) -> Tensor:
    return latents


def _strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
