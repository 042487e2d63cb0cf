"""Diversion training (paper, Alg. 1): every image trains the learngene and the tailor of its own class, no other.

What happens at a step depends only on the options and the step's number: data order, flips, noise and label dropout
are drawn from seeds of (seed, epoch) and (seed, step). A resumed run therefore has the losses of an uninterrupted one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from kind_core.config import TrainingRecord
from kind_core.dit import DivertedTransformer
from kind_core.stopping import StopRequest, hold_interrupts, noted_stops
from kind_core.text.checkpoint import make_model
from kind_train.config import TrainConfig
from kind_train.data.photo_set import TrainingSet
from kind_train.device import pick_device, tune_device
from kind_train.methods import pick_method
from kind_train.objective import Objective
from kind_train.run.forms import read_forms, set_forms, tune_forms
from kind_train.run.losses import Forward, Losses, classifier_terms
from kind_train.run.memory import checkpoint_activations, gather, shard_model
from kind_train.run.metrics import Progress, append_metrics, is_due, trim_metrics
from kind_train.run.optimizer import DivertedAdamW
from kind_train.run.processes import Processes
from kind_train.run.products import Products
from kind_train.run.run_folder import (
    BEST_NAME,
    LAST_NAME,
    TrainingState,
    explained_misfit,
    identify_run,
    read_state,
    write_state,
)
from kind_train.run.scoring import complete_losses, measure_held_out, open_losses, read_mean_image
from kind_train.run.step import Stepper, autocast, require_finite
from kind_train.run.terms.perceptual import with_terms
from kind_train.start import starting
from kind_train.start.diversion import open_gates
from kind_train.start.orthogonal import constrain_factors, merged
from kind_train.start.shape import Shape, pick_shape

# Reading a loss makes the host wait for the GPU, so there it is done for many steps at once.
_GPU_REPORT_STEPS = 20


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
        self.method = pick_method(config)
        self.model_config = starting.make_model_config(shape or pick_shape(config), train)
        if not config.diversion:
            self.model_config = open_gates(self.model_config)
        eye = None if config.match_classifier is None else Path(config.match_classifier)
        terms, earlier = classifier_terms(config), starting.list_earlier_terms(config)
        self.model_config = with_terms(self.model_config, terms, eye, earlier, config.class_guidance)
        keeps_base = self.method is not None and self.method.keeps_base
        self.products = Products(
            config=config, model_config=self.model_config, photos=held_out, base=self.base if keeps_base else None
        )
        torch.manual_seed(config.seed)
        self.model = make_model(self.model_config).to(self.device)
        self.photos, self.held_out = train, held_out
        times = {"timestep_mean": config.timestep_mean, "timestep_std": config.timestep_std}
        self.objective = Objective(self.model_config.diffusion, self.device, **times)
        self.losses = open_losses(config, self.model_config, held_out, self.objective, self.device)
        starting.check_origin(self.output / LAST_NAME if resume else config.teacher or config.start_from, train)
        if not resume:
            self._load_start(train)
        if self.base is not None and self.method is not None:
            starting.prepare_adaptation(self.model, self.model_config, self.base, self.method, config, train)
        elif self.method is not None:
            self.method.prepare(self.model, self.model_config.dit)
        if config.factors == "cayley":
            constrain_factors(self.model)
        complete_losses(self.losses, config, self.model, self.model_config, train, self.device)
        self.identity = identify_run(config, [info.id for info in self.model_config.classes])
        self.step, self.best_loss = 0, float("inf")
        self.held_out_loss: float | None = None
        self._mean_image_loss: float | None = None
        self._on_metrics: Callable[[Mapping[str, float]], None] | None = None
        self.report_steps = 1 if self.device.type == "cpu" else _GPU_REPORT_STEPS
        state = self._read_state() if resume else None
        if state is None and self.device.type == "cuda":
            tune_forms(self.model, config.batch_size // processes.count, partial(autocast, config, self.device))
        if processes.count > 1:
            set_forms(self.model, processes.copy_from_main(read_forms(self.model).to(self.device)))
        if config.checkpoint_activations:
            checkpoint_activations(self.model)
        if self.is_sharded:
            shard_model(self.model, processes.count)
        self.optimizer = DivertedAdamW(self.model, weight_decay=config.weight_decay, ema_decay=config.ema_decay)
        if state is not None:
            with explained_misfit(self.output):
                self.optimizer.load_state_dict(state.part("optimizer."))
        self.stepper = Stepper(
            self.model, self.losses, self.optimizer, train, config, processes, self.device, is_sharded=self.is_sharded
        )

    @property
    def images(self) -> int:
        """Training images seen so far."""
        return self.step * self.config.batch_size

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

        `on_metrics` is told every line of metrics. Without held-out photos the loss is infinite, and the last weights
        lie there. Raises ConfigError at a loss that is NaN or infinite; what was saved before stays.
        """
        self._on_metrics = on_metrics
        with noted_stops() as stop:
            self._train(stop, on_step)
        return self.best_loss

    def _train(self, stop: StopRequest, on_step: Callable[[Progress], None] | None) -> None:
        """Steps until the last one, or until `stop`, which leaves a state to go on from."""
        start_s, first = time.perf_counter(), self.step
        while self.step < self.config.num_steps:
            self.stepper.take(self.step)
            self.step += 1
            is_last = self.step == self.config.num_steps
            is_save = is_last or is_due(self.config, self.step, self.config.save_every)
            is_read = is_save or self.step % self.report_steps == 0
            is_stop = not is_last and self.processes.is_stopped(stop, self.device, is_read=is_read)
            progress = None
            if is_read or is_stop:
                progress = self._note(time.perf_counter() - start_s, self.step - first)
            if is_save:
                self._validate()
            if is_save or is_stop:
                self.save()
            if is_last or is_due(self.config, self.step, self.config.sample_every):
                self._draw_samples()
            if is_stop or (is_save and not is_last and self.processes.is_stopped(stop, self.device, is_read=True)):
                return  # the second: asked while it saved
            if progress is not None and on_step is not None:
                on_step(replace(progress, held_out_loss=self.held_out_loss))
        stop.number = 0  # the run is done

    def _note(self, seconds: float, steps: int) -> Progress:
        """Write down how the last `steps` steps went, which took so long."""
        config, speed = self.config, steps * self.config.batch_size / seconds
        progress = Progress(
            step=self.step,
            num_steps=config.num_steps,
            images=self.images,
            loss=self.stepper.read_loss(self.step),
            images_per_second=speed,
            seconds_left=(config.num_steps - self.step) * config.batch_size / speed,
            held_out_loss=self.held_out_loss,
            learning_rate=config.learning_rate_at(self.step - 1),
            gradient_norm=float(self.stepper.gradient_norm),
        )
        self._record(progress.metrics())
        return progress

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
        state = TrainingState(
            step=self.step,
            best_loss=self.best_loss,
            identity=self.identity,
            tensors=tensors,
            held_out_loss=self.held_out_loss,
            mean_image_loss=self._mean_image_loss,
        )
        with hold_interrupts():
            write_state(self.output, state)
            self.products.save_checkpoint(LAST_NAME, model, self.training())

    @property
    def _takes_part(self) -> bool:
        """Whether this process is needed for what the main one writes: all have to hand in their slices."""
        return self.processes.is_main or self.is_sharded

    def averaged_model(self) -> DivertedTransformer:
        """A copy of the model with the EMA weights, whole; of a sharded model all processes must ask for it."""
        state = gather(self.optimizer.averaged_state())
        if self.method is not None:
            return self.method.merged(self.model, state)
        if self.config.factors == "cayley":
            return merged(self.model, state)
        averaged = self.model.fresh(self.model_config.dit).to(self.device)
        averaged.load_state_dict(state)
        return averaged.eval()

    def _load_start(self, photos: TrainingSet) -> None:
        config = self.config
        if self.base is not None and self.method is not None:
            starting.start_adaptation(
                self.model, self.base, self.method, config.init_from, photos, self.objective, config.seed
            )
            return
        for start in filter(None, (config.teacher, config.start_from)):
            starting.load_start(self.model, self.model_config, Path(start))

    def training(self) -> TrainingRecord:
        """What its checkpoints tell of the run."""
        images = max(1, self.images)
        return TrainingRecord(images=images, held_out_loss=self.held_out_loss, mean_image_loss=self._mean_image_loss)

    def _read_state(self) -> TrainingState:
        """Take up the run in the output folder, all but the state of its optimizer."""
        state = read_state(self.output, self.identity, self.device)
        with explained_misfit(self.output):
            self.model.load_state_dict(state.part("model."))
        set_forms(self.model, state.tensors.get("forms", read_forms(self.model)))
        self.step, self.best_loss = state.step, state.best_loss
        self.held_out_loss, self._mean_image_loss = state.held_out_loss, state.mean_image_loss
        if self.processes.is_main:
            trim_metrics(self.output, self.step)
        return state

    def estimate_seconds(self) -> float:
        """How long the rest of the run may take, by a step that changes nothing; on a GPU after one that warms up."""
        return self.stepper.time_trial(self.step) * (self.config.num_steps - self.step)

    def _validate(self) -> None:
        """Note how the averaged weights do on held-out photos, and keep the best; without photos that is the last."""
        model = self.averaged_model()
        metrics: dict[str, float] = {"step": self.step, "images": self.images}
        is_best = True
        if len(self.held_out):
            self.held_out_loss = metrics["held_out_loss"] = self.measure_held_out(model)
            require_finite("held-out loss", self.held_out_loss, self.step, self.config.num_steps)
            if self._mean_image_loss is None and isinstance(self.losses, Losses):
                guess = read_mean_image(self.photos, self.device)  # what knows no shapes
                self._mean_image_loss = self.measure_held_out(lambda x, told, *_: guess.answer(self.objective, x, told))
            is_best = self.held_out_loss < self.best_loss
            self.best_loss = min(self.best_loss, self.held_out_loss)
        if self.processes.is_main:
            self._record(metrics)
            if is_best:
                with hold_interrupts():
                    self.products.save_checkpoint(BEST_NAME, model, self.training())

    def measure_held_out(self, model: Forward) -> float:
        """The held-out loss of a model of this run; all processes must ask for it."""
        return measure_held_out(model, self.losses, self.held_out, self.config, self.device, self.processes)

    def _draw_samples(self) -> None:
        if not self._takes_part:
            return
        model = self.averaged_model()
        if self.processes.is_main:
            self.products.draw_samples(model, self.images, self.device)

    def _record(self, metrics: dict[str, float]) -> None:
        if self.processes.is_main:
            append_metrics(self.output, metrics)
            if self._on_metrics is not None:
                self._on_metrics(metrics)
