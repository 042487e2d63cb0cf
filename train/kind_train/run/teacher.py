"""The teacher of a distillation: what its guided trajectory does within a step of a student."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from kind_core.checkpoint import load_checkpoint
from kind_core.checkpoint_config import read_config
from kind_core.classes import ClassInfo
from kind_core.errors import ConfigError
from kind_core.samplers import Distillation


class Teacher:
    """The frozen teacher, its classes in the order of a run's, with the guidance that a student is to hold.

    Times are sigma (batch,), the share of noise of a straight path. Nothing of it is trained or saved.
    """

    def __init__(
        self, path: Path, classes: tuple[ClassInfo, ...], guidance: Distillation, device: torch.device
    ) -> None:
        config = read_config(path)
        loaded = load_checkpoint(path, find_taught(path, classes), with_decoder=False)
        self.model = loaded.model.to(device).eval().requires_grad_(False)
        self._guidance, self._num_times = guidance, config.diffusion.num_train_timesteps

    def rows(self, classes: Tensor | None) -> Tensor | None:
        """Its tailors of `classes`, in which labels count where a trainer gathered those; None for all of them."""
        return None if classes is None else self.model.tailors.weight[classes]

    @torch.no_grad()
    def predict(self, noisy: Tensor, sigma: Tensor, labels: Tensor, rows: Tensor | None) -> Tensor:
        """The guided picture that `noisy` (batch, channels, size, size) is predicted to become."""
        both = torch.cat([labels, torch.full_like(labels, -1)])
        times = torch.round(sigma * self._num_times).repeat(2)  # whole, as it was trained
        answer = self.model(noisy.repeat(2, 1, 1, 1), times, both, both, rows)
        of_class, of_null = answer.float()[:, : noisy.shape[1]].chunk(2)
        guided: Tensor = of_null + self._scale(sigma) * (of_class - of_null)
        return guided

    @torch.no_grad()
    def advance(
        self, noisy: Tensor, begin: Tensor, end: Tensor, labels: Tensor, rows: Tensor | None, *, steps: int
    ) -> Tensor:
        """Where `steps` equal steps of DPM-Solver++(2M) lead from `begin` to `end`."""
        sigma, before, last_width = begin, None, torch.ones_like(begin)
        for step in range(steps):
            following = begin + (end - begin) * ((step + 1) / steps)
            picture = self.predict(noisy, sigma, labels, rows)
            width = _log_snr(following) - _log_snr(sigma)
            guess = picture
            if before is not None:  # a step that ends without noise is of first order, as the solver's last
                bend = torch.where(width.isinf(), 0.0, width / (2 * last_width))
                guess = picture + _spread(bend) * (picture - before)
            noisy = step_towards(noisy, guess, sigma, following)
            before, sigma, last_width = picture, following, width
        return noisy

    def _scale(self, sigma: Tensor) -> Tensor:
        """The guidance at each sigma, (batch, 1, 1, 1); 1 outside its interval, which counts from noise to picture."""
        low, high = self._guidance.guidance_interval
        is_on = (1 - sigma >= low) & (1 - sigma < high)
        return _spread(torch.where(is_on, self._guidance.guidance_scale, 1.0))


def find_taught(path: Path, classes: tuple[ClassInfo, ...]) -> list[int]:
    """Where the teacher at `path` has `classes`; raises ConfigError for the first that it does not know."""
    places = {info.id: index for index, info in enumerate(read_config(path).classes)}
    unknown = next((info.name for info in classes if info.id not in places), None)
    if unknown is not None:
        raise ConfigError(f"{path} does not know the class {unknown!r}", "leave it out: --classes, or another --data")
    return [places[info.id] for info in classes]


def step_towards(noisy: Tensor, picture: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    """A straight step from sigma `begin` to `end` towards `picture`: what a few-step program does in one step."""
    share = _spread(end / begin)
    return share * noisy + (1 - share) * picture


def picture_ahead(noisy: Tensor, advanced: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    """The picture towards which one straight step leads from `noisy` to `advanced`."""
    share = _spread(end / begin)
    return (advanced - share * noisy) / (1 - share)


def _log_snr(sigma: Tensor) -> Tensor:
    return torch.log(1 - sigma) - torch.log(sigma)


def _spread(numbers: Tensor) -> Tensor:
    return numbers[:, None, None, None]
