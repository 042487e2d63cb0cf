"""One step of training: every image trains the learngene and the tailor of its own class, no other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from kind_core.dit import DivertedTransformer
from kind_core.errors import ConfigError
from kind_train.config import TrainConfig
from kind_train.data.batches import Feeder, step_generator
from kind_train.data.captions.store import tell
from kind_train.data.training_set import TrainingSet
from kind_train.run.losses import Draw, Scoring
from kind_train.run.optimizer import DivertedAdamW
from kind_train.run.processes import Processes


class Stepper:
    """Takes steps of a run; `share` is what this process has of a batch, `gradient_norm` () that of the last step.

    Gradients of what is not sharded are averaged over the processes as they come.
    """

    def __init__(
        self,
        model: DivertedTransformer,
        losses: Scoring,
        optimizer: DivertedAdamW,
        train: TrainingSet,
        config: TrainConfig,
        processes: Processes,
        device: torch.device,
        *,
        is_sharded: bool,
    ) -> None:
        self.config, self.model, self.losses, self.optimizer = config, model, losses, optimizer
        self.processes, self.device = processes, device
        self.share = share = processes.share(config.batch_size)
        if config.match_photos and share.stop - share.start < 2:
            raise ConfigError(
                f"batch_size is {config.batch_size}, of which each of {processes.count} processes has one image: "
                "match_photos compares sets",
                f"give --batch-size {2 * processes.count} or more",
            )
        averages = processes.count > 1 and bool(optimizer.learngene) and not is_sharded
        self.forward = make_forward(model, device, averages=averages, is_compiled=config.compile)
        self.feeder = Feeder(train, config, share, device)
        self.gradient_norm = torch.zeros(())
        self._unread: list[Tensor] = []  # (terms,) of each step

    def take(self, step: int, *, is_trial: bool = False) -> Tensor:
        """Update the weights by the batch of `step`, from 0; a trial changes nothing. Returns the terms, (terms,)."""
        feed = self.feeder.take(step)
        generator = feed.generator
        if self.device.type != "cpu":
            generator = step_generator(self.config, step, self.device)
        batch, photos = feed.batch, feed.photos.to(self.device, non_blocking=True)
        classes, labels = batch.classes.to(self.device), batch.labels[self.share].to(self.device)
        rows = self.optimizer.gather(classes)
        # Where every label was dropped no gate opens, but the model needs a row to look at.
        bank = rows if len(classes) else self.model.tailors.weight.detach()
        done = step / self.config.num_steps
        draw = Draw(generator=generator, batch_size=self.config.batch_size, share=self.share, done=done)
        forward = tell(self.forward, feed.words, self.device)
        terms = self.losses.train(forward, photos, labels, draw, bank, classes=classes)
        torch.autograd.backward(terms.sum())
        if rows.grad is not None:
            self.processes.average(rows.grad)
        if is_trial:
            self.optimizer.drop_gradients()
            return terms.detach()
        self.gradient_norm = self.optimizer.clip_gradients(rows, self.config.max_grad_norm)
        self.optimizer.step(classes, rows, self.config.learning_rate_at(step))
        self._unread.append(terms.detach())
        return terms.detach()

    def read_loss(self, step: int) -> float:
        """The loss of the last of `step` steps; raises ConfigError naming the first unread term that is not finite."""
        steps = self.processes.average(torch.stack(self._unread)).tolist()
        self._unread.clear()
        for number, terms in enumerate(steps, step - len(steps) + 1):
            for name, value in zip(self.losses.names, terms, strict=True):
                require_finite(name, value, number, self.config.num_steps)
        return float(sum(steps[-1]))

    def time_trial(self, step: int) -> float:
        """Seconds of a step that changes nothing; where the first compiles or warms a GPU up, of the second."""
        start_s = 0.0
        for _ in range(1 if self.device.type == "cpu" and not self.config.compile else 2):
            start_s = time.perf_counter()
            self.take(step, is_trial=True)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        return time.perf_counter() - start_s


def require_finite(what: str, loss: float, step: int, num_steps: int) -> None:
    """Raise ConfigError for a loss that is NaN or infinite at `step`."""
    if not math.isfinite(loss):
        raise ConfigError(
            f"the {what} is {loss} at step {step} of {num_steps}, expected a finite number",
            "lower --learning-rate or lengthen --warmup-images; checkpoints saved before are kept",
        )


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a model runs in the numbers that were asked for; `auto` is bf16 on a GPU."""
    is_bf16 = config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16) if is_bf16 else nullcontext()


def make_forward(
    model: DivertedTransformer, device: torch.device, *, averages: bool, is_compiled: bool
) -> Callable[..., Tensor]:
    """The model itself, or with its gradients averaged over the processes, or compiled.

    The bank's gradient is left out: it goes to the rows that a step gathers, which the step averages itself.
    """
    forward: Callable[..., Tensor] = model
    if averages:
        ignore = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
        ignore(model, ["tailors.weight"])  # type: ignore[no-untyped-call]
        devices = None if device.type == "cpu" else [device]
        forward = DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
    return torch.compile(forward) if is_compiled else forward
