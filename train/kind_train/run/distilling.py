"""What a few-step student is taught: to be in one step where its teacher's guided trajectory will be.

The numbers of steps share each batch. The most steps learn from the teacher, which takes several guided ones for each;
fewer learn from the student's own more steps (https://arxiv.org/abs/2202.00512), which are unguided and so cheap. Half
of the steps begin at photos with noise, half where the student's own steps from noise have led it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from kind_core.config import ModelConfig
from kind_core.schedule import make_scheduler
from kind_train.config import TrainConfig
from kind_train.data.photo_set import TrainingSet
from kind_train.objective import MIN_SIGMA
from kind_train.run.losses import DENOISING, PERCEPTUAL, PHOTOS, Draw, Forward, classifier_terms
from kind_train.run.teacher import Teacher, find_taught, picture_ahead, step_towards
from kind_train.run.terms.energy import PhotoEnergy
from kind_train.run.terms.perceptual import FirstStages, PerceptualDistance

# Pictures of a class that are drawn to be compared with its photos.
_EACH = 32
# Guided steps of the teacher from noise to picture: of second order, so that few are as good as many.
_TEACHER_STEPS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class _Steps:
    """Steps of a student before they are taken: noisy (batch, channels, size, size); sigma where each begins and ends,
    (batch,); labels and rows as a model takes them, rows of the teacher beside."""

    noisy: Tensor
    begin: Tensor
    end: Tensor
    labels: Tensor
    rows: Tensor | None = None
    teacher_rows: Tensor | None = None

    def choose(self, of: Tensor) -> _Steps:
        """Those where `of` (batch,) is true; what they need of the student is no longer learnt from."""
        rows = None if self.rows is None else self.rows.detach()
        noisy, begin, end, labels = (one[of] for one in (self.noisy, self.begin, self.end, self.labels))
        return _Steps(noisy=noisy, begin=begin, end=end, labels=labels, rows=rows, teacher_rows=self.teacher_rows)


class DistillationLosses:
    """What a batch costs a student, as `Losses` says it: squared errors of pictures ahead, weighted as velocities, and
    how unlike they look to a classifier's first stages, where that is asked for; and where `energy` is set, how unlike
    photos the pictures are that it draws from noise. Held-out photos measure the last where it is set, else the first.

    A step begins at one of the times of one of the numbers of steps.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: ModelConfig,
        photos: TrainingSet,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        distillation, teacher = model.diffusion.distillation, config.teacher
        assert distillation is not None
        assert teacher is not None
        self._teacher = Teacher(Path(teacher), model.classes, distillation, device) if config.follow else None
        if self._teacher is None:
            find_taught(Path(teacher), model.classes)  # a class that it lacks is refused here, too
        grids = [_read_grid(model, steps, device) for steps in distillation.steps]
        self._grids = [sigmas for sigmas, _ in grids]
        self._sigmas, self._times = (torch.cat(parts) for parts in zip(*grids, strict=True))
        self._photos, self._device, self._autocast = photos, device, autocast
        self._weights = {DENOISING: config.follow, **classifier_terms(config)}
        self.names = tuple(name for name, weight in self._weights.items() if weight)
        self._distance = PerceptualDistance(FirstStages(device)) if config.perceptual else None
        self.energy: PhotoEnergy | None = None

    def train(
        self, forward: Forward, stored: Tensor, labels: Tensor, draw: Draw, rows: Tensor | None, *, classes: Tensor
    ) -> Tensor:
        """See `Scoring`: what the student answers beside what it should, and its pictures beside photos."""
        terms = []
        if self._teacher is not None:
            taught = self._teacher.rows(classes if len(classes) else None)
            terms += self._follow(forward, stored, labels, draw, rows, taught)
        if self.energy is not None:
            index = int(torch.randint(len(self._grids), (), generator=draw.generator, device=self._device))
            order = torch.randperm(len(classes), generator=draw.generator, device=self._device)
            noise = draw.noise(self._photos.input_shape)
            chosen = order[: max(1, len(noise) // _EACH)]
            places = chosen[torch.arange(len(noise), device=self._device) * len(chosen) // len(noise)]
            pictures = self._draw_pictures(forward, noise, places, rows, self._grids[index])
            with self._autocast():
                terms.append(self._weights[PHOTOS] * self.energy(pictures, classes[places]))
        return torch.stack(terms)

    def measure(self, forward: Forward, stored: Tensor, labels: Tensor, draw: Draw) -> Tensor:
        """The error of each photo against the teacher itself, whatever the number of steps; or how unlike the photos of
        a class those pictures are that are drawn in their place, over all numbers of steps."""
        if self.energy is not None:
            noise = draw.noise(self._photos.input_shape)
            if not len(labels):  # of another process
                return noise.new_zeros(0)
            photos = self._photos.to_input(stored, lambda: draw.noise(self._photos.input_shape))
            drawn = [self._draw_pictures(forward, noise, labels, None, sigmas) for sigmas in self._grids]
            with self._autocast():
                return self.energy.between(drawn, photos, labels)
        noisy, _, begin, end, grid = self._draw(stored, draw)
        steps, targets = _Steps(noisy=noisy, begin=begin, end=end, labels=labels), torch.empty_like(noisy)
        with self._autocast():
            for index, of in self._groups(grid):
                targets[of] = self._ask_teacher(steps.choose(of), self._teacher_steps(index))
            return _errors(self._ask(forward, noisy, begin, end, steps), targets, begin)

    def _follow(
        self, forward: Forward, stored: Tensor, labels: Tensor, draw: Draw, rows: Tensor | None, taught: Tensor | None
    ) -> list[Tensor]:
        """The terms by the teacher, whose tailors are `taught`."""
        noisy, noise, begin, end, grid = self._draw(stored, draw)
        steps = _Steps(noisy=noisy, begin=begin, end=end, labels=labels, rows=rows, teacher_rows=taught)
        with self._autocast():
            self._walk(forward, steps, noise, grid, torch.arange(draw.batch_size, device=self._device)[draw.share])
            targets = self._find_targets(forward, steps, grid)
            pictures = self._ask(forward, steps.noisy, steps.begin, steps.end, steps)
            terms = [self._weights[DENOISING] * _errors(pictures, targets, steps.begin).mean()]
            if self._distance is not None:
                terms.append(self._weights[PERCEPTUAL] * self._distance(pictures, targets).mean())
        return terms

    def _draw_pictures(
        self, forward: Forward, noise: Tensor, labels: Tensor, rows: Tensor | None, sigmas: Tensor
    ) -> Tensor:
        """The pictures that the student makes of `noise` in the steps between `sigmas`."""
        steps, noisy = _Steps(noisy=noise, begin=sigmas[:1], end=sigmas[-1:], labels=labels, rows=rows), noise
        with self._autocast():
            for begin, end in pairwise(sigmas):
                here, there = begin.expand(len(noise)), end.expand(len(noise))
                noisy = step_towards(noisy, self._ask(forward, noisy, here, there, steps), here, there)
        return noisy

    def _draw(self, stored: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Noisy photos and their noise, sigma where a step of each begins and ends, and of which number of steps."""
        shape, size = self._photos.input_shape, draw.batch_size
        grid = torch.arange(size, device=self._device)[draw.share] % len(self._grids)
        place = torch.rand(size, generator=draw.generator, device=self._device)[draw.share]
        begin, end = torch.empty_like(place), torch.empty_like(place)
        for index, sigmas in enumerate(self._grids):
            of = grid == index
            chosen = (place[of] * (len(sigmas) - 1)).long()
            begin[of], end[of] = sigmas[chosen], sigmas[chosen + 1]
        noise, sigma = draw.noise(shape), begin[:, None, None, None]
        noisy = (1 - sigma) * self._photos.to_input(stored, lambda: draw.noise(shape)) + sigma * noise
        return noisy, noise, begin, end, grid

    @torch.no_grad()
    def _walk(self, forward: Forward, steps: _Steps, noise: Tensor, grid: Tensor, places: Tensor) -> None:
        """Put every second step of a number of steps where the student's own steps before it lead from `noise`."""
        is_own = places // len(self._grids) % 2 == 1
        for index, sigmas in enumerate(self._grids):
            walked = is_own & (grid == index)
            steps.noisy[walked] = noise[walked]
            for begin, end in pairwise(sigmas[:-1]):
                walked = walked & (steps.begin <= end)
                part = steps.choose(walked)
                if len(part.noisy):
                    here, there = (one.expand(len(part.noisy)) for one in (begin, end))
                    picture = self._ask(forward, part.noisy, here, there, part)
                    steps.noisy[walked] = step_towards(part.noisy, picture, here, there)

    @torch.no_grad()
    def _find_targets(self, forward: Forward, steps: _Steps, grid: Tensor) -> Tensor:
        """The picture towards which each step should lead, (batch, channels, size, size)."""
        targets = torch.empty_like(steps.noisy)
        for index, of in self._groups(grid):
            finer, part = self._finer_steps(index), steps.choose(of)
            if finer is None:
                targets[of] = self._ask_teacher(part, self._teacher_steps(index))
            else:
                advanced = self._advance(forward, part, finer)
                targets[of] = picture_ahead(part.noisy, advanced, part.begin, part.end)
        return targets

    def _ask_teacher(self, steps: _Steps, count: int) -> Tensor:
        assert self._teacher is not None
        advanced = self._teacher.advance(
            steps.noisy, steps.begin, steps.end, steps.labels, steps.teacher_rows, steps=count
        )
        return picture_ahead(steps.noisy, advanced, steps.begin, steps.end)

    def _advance(self, forward: Forward, steps: _Steps, count: int) -> Tensor:
        """Where `count` equal steps of the student lead."""
        noisy, sigma = steps.noisy, steps.begin
        for step in range(count):
            following = steps.begin + (steps.end - steps.begin) * ((step + 1) / count)
            picture = self._ask(forward, noisy, sigma, following, steps)
            noisy, sigma = step_towards(noisy, picture, sigma, following), following
        return noisy

    def _ask(self, forward: Forward, noisy: Tensor, begin: Tensor, end: Tensor, steps: _Steps) -> Tensor:
        """The picture that a student draws, with the classes of `steps`."""
        answer = forward(noisy, self._tell(begin), steps.labels, steps.labels, steps.rows, self._tell(end))
        return answer[:, : noisy.shape[1]].float()

    def _tell(self, sigma: Tensor) -> Tensor:
        """The timestep of the schedulers where one of the steps begins or ends."""
        return self._times[(sigma[:, None] - self._sigmas).abs().argmin(dim=1)]

    def _groups(self, grid: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The numbers of steps that are there, by index, and where they are."""
        for index in range(len(self._grids)):
            of = grid == index
            if of.any():
                yield index, of

    def _teacher_steps(self, index: int) -> int:
        """Guided steps of the teacher for one of a number of steps."""
        return -(-_TEACHER_STEPS // (len(self._grids[index]) - 1))

    def _finer_steps(self, index: int) -> int | None:
        """How many of the student's most steps make one of these; None where the teacher has to show it."""
        most, steps = len(self._grids[0]) - 1, len(self._grids[index]) - 1
        return most // steps if index and most % steps == 0 else None


def _errors(pictures: Tensor, targets: Tensor, begin: Tensor) -> Tensor:
    return (pictures - targets).square().mean(dim=(1, 2, 3)) / begin.clamp(min=MIN_SIGMA).square()


def _read_grid(model: ModelConfig, steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sigma where the steps begin and the last ends, (steps + 1,), and the timesteps that a network is told there."""
    scheduler = make_scheduler(model.diffusion, model.diffusion.sampler, steps)
    times = torch.cat([scheduler.timesteps.float(), torch.zeros(1)])
    return scheduler.sigmas.float().to(device), times.to(device)
