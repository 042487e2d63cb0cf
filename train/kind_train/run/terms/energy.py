"""How unlike the pictures of a class and its photos are as sets: a term that asks for sharp and for varied ones.

The energy distance (https://arxiv.org/abs/1705.10743) between features at every depth of EfficientNet-Lite0, as in
https://arxiv.org/abs/1904.02762: zero where both sets are drawn alike, and without a network of its own to train. With
guidance pictures keep away from photos of any class, too, as far as classifier-free guidance would take them: the set
that is aimed at is (scale * photos of the class - (scale - 1) * all photos), as in https://arxiv.org/abs/2602.04770. A
network that was trained against is no judge: evaluation has others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_core.errors import DataError
from kind_train.config import MATCH_SIZE
from kind_train.data.batches import spread
from kind_train.data.training_set import TrainingSet
from kind_train.run.terms.perceptual import as_seen, load_stages

# Photos whose features are kept, of all classes together: each is some 5,000 numbers, and as many of its mirror.
_MOST_PHOTOS = 8192
_MOST_OTHERS = 1280  # of these, of all classes, what guidance keeps away from
_BATCH = 64
# places of a feature map that are told apart where it is still a picture, and of the pixels themselves
_PLACES, _PIXELS = 4, 8
_WITH_PLACES = (2, 3)
_EPS = 1e-6
# The side of pictures from which Lite0's answers say something: it calls 18 % of koalas so at 128, at 64 next to none.
_NAMES_FROM = 96


class Levels(Protocol):
    """Looks at pictures (batch, 3, size, size) in [-1, 1] and gives features (batch, numbers) of each level."""

    @property
    def is_scaled(self) -> Sequence[bool]:
        """Of each level whether its numbers, of units of their own, are to count alike."""

    def __call__(self, pictures: Tensor) -> list[Tensor]: ...


class Lite0Levels:
    """What EfficientNet-Lite0 sees of pictures as a whole, from pixels to what it classifies by, at the side `size`."""

    def __init__(self, device: torch.device, size: int = MATCH_SIZE) -> None:
        *self._stages, self._answer = load_stages(device, is_whole=True)
        self._size, self._is_named = size, size >= _NAMES_FROM
        # pixels in place of the stem; roots of probabilities are of one unit, and most names of nothing that is there
        self.is_scaled = (True,) * (len(self._stages) + len(_WITH_PLACES)) + (False,) * self._is_named

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        """pictures (batch, 3, size, size) in [-1, 1] -> features (batch, numbers) of each level: coarse pixels, mean
        and deviation of each stage's maps, where things are in the middle ones, what the head sees, and at a side where
        it is often right what it takes them for, as roots of probabilities."""
        levels = [F.adaptive_avg_pool2d(pictures.float(), _PIXELS).flatten(1)]
        x = as_seen(pictures, self._size)
        for number, stage in enumerate(self._stages):
            x = stage(x)
            wide = x.float()
            if number == len(self._stages) - 1:
                levels.append(wide.mean((2, 3)))
                if self._is_named:
                    levels.append(self._answer(levels[-1]).softmax(1).clamp(min=_EPS).sqrt())
            elif number:  # the stem sees no more than the pixels do
                levels.append(_mean_and_deviation(wide))
            if number in _WITH_PLACES:
                levels.append(F.adaptive_avg_pool2d(wide, _PLACES).flatten(1))
        return levels


class ClassifierLevels:
    """What a small classifier of the very classes sees after each of its `stages`."""

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        self._stages, self.is_scaled = stages, (True,) * len(stages)

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        """pictures (batch, 3, size, size) in [-1, 1] -> mean and deviation of each stage's maps, (batch, numbers)."""
        x, levels = pictures.float(), []
        for stage in self._stages:
            x = stage(x)
            levels.append(_mean_and_deviation(x))
        return levels


class PhotoEnergy:
    """The energy distance between pictures and the photos of their classes, mean over levels and classes.

    Each of those who `look` counts alike, and each of its levels in units of the mean distance between two photos of a
    class, each number in units of its deviation within classes. `guidance_scales` has one for each class, by default 1,
    with which it is 0 at least, but for chance. Raises DataError where a class has a single photo.
    """

    def __init__(
        self,
        photos: TrainingSet,
        device: torch.device,
        guidance_scales: Sequence[float] = (),
        *,
        mirror: bool = True,
        look: Sequence[Levels] = (),
    ) -> None:
        self._look, classes = tuple(look) or (Lite0Levels(device),), len(photos.classes)
        self._guidance_scales, self._mirror = tuple(guidance_scales) or (1.0,) * classes, mirror
        labels = photos.labels
        counts = torch.bincount(labels, minlength=classes).tolist()
        few = next((one for one in zip(photos.classes, counts, strict=True) if one[1] < 2), None)
        if few is not None:
            raise DataError(
                f"class {few[0].name!r} has {few[1]} photos to train on, expected 2 or more, which make a set",
                "add photos, or leave the class out with --classes",
            )
        each = max(2, _MOST_PHOTOS // classes)
        self._scales: list[Tensor] = []
        self._photos: list[list[Tensor]] = []  # of each level and class, (photos, numbers), in those units
        chosen = [spread(torch.nonzero(labels == index)[:, 0], each) for index in range(classes)]
        seen = [self._look_at(photos, indices, device) for indices in chosen]
        kinds = [(1 / (len(self._look) * len(one.is_scaled)), scaled) for one in self._look for scaled in one.is_scaled]
        for (share, is_scaled), level in zip(kinds, zip(*seen, strict=True), strict=True):
            within = torch.stack([one.std(0) for one in level]).mean(0)
            scale = 1 / (within + 0.05 * within.mean() + _EPS) if is_scaled else torch.ones_like(within)
            unit = torch.stack([_mean_within(one * scale) for one in level]).mean() / share
            self._scales.append(scale / unit)
            self._photos.append([one * (scale / unit) for one in level])
        self._within = [torch.stack([_mean_within(one) for one in level]) for level in self._photos]
        some = max(1, _MOST_OTHERS // classes)
        self._all = [torch.cat([spread(one, some) for one in level]) for level in self._photos]

    def __call__(self, pictures: Tensor, labels: Tensor) -> Tensor:
        """pictures (batch, 3, size, size) in [-1, 1] of classes `labels` (batch,), two or more of each -> ()."""
        classes = sorted(set(labels.tolist()))
        total = pictures.new_zeros(())
        for level, features in enumerate(self._levels(pictures)):
            scaled = features * self._scales[level]
            for label in classes:
                ours, photos = scaled[labels == label], self._photos[level][label]
                across = self._guide(label, torch.cdist(ours, photos), ours, self._all[level]).mean()
                total = total + 2 * across - _mean_within(ours) - self._within[level][label]
        return total / len(classes)

    @torch.no_grad()
    def between(self, drawn: Sequence[Tensor], photos: Tensor, labels: Tensor) -> Tensor:
        """What each of `photos` (batch, 3, size, size), of classes `labels`, and the picture in its place have in the
        distance of their class in the batch, mean over the sets of pictures `drawn`, (batch,): their mean is that of
        the classes, as often as they are there. A class with one photo in the batch counts for nothing."""
        seen = self._levels(photos)
        return torch.stack([self._share(pictures, seen, labels) for pictures in drawn]).mean(0)

    def _share(self, pictures: Tensor, seen: list[Tensor], labels: Tensor) -> Tensor:
        """The same of one set of pictures beside photos whose levels are `seen`."""
        shares = pictures.new_zeros(len(labels))
        for scale, ours_of_all, real in zip(self._scales, self._levels(pictures), seen, strict=True):
            for label in set(labels.tolist()):
                of = labels == label
                ours, theirs, others = ours_of_all[of] * scale, real[of] * scale, int(of.sum()) - 1
                if others:
                    within = torch.cdist(ours, ours).sum(1) + torch.cdist(theirs, theirs).sum(1)
                    across = self._guide(label, torch.cdist(ours, theirs), ours, real * scale)
                    shares[of] += 2 * across - within / others
        return shares

    def _guide(self, label: int, to_class: Tensor, ours: Tensor, photos: Tensor) -> Tensor:
        """Mean distances of pictures to the photos of their class `label`, (n, photos), and away from `photos` of any,
        (n,)."""
        scale = self._guidance_scales[label]
        away = scale - 1
        nearer = scale * to_class.mean(1)
        return nearer - away * torch.cdist(ours, photos).mean(1) if away else nearer

    @torch.no_grad()
    def _look_at(self, photos: TrainingSet, indices: Tensor, device: torch.device) -> list[Tensor]:
        """The levels of photos and, where a run mirrors them, of their mirrors."""
        parts = []
        for part in torch.split(indices, _BATCH):
            pictures = photos.to_input(photos.read(part).to(device), _no_noise)
            parts.append(self._levels(torch.cat([pictures, pictures.flip(-1)]) if self._mirror else pictures))
        return [torch.cat(level) for level in zip(*parts, strict=True)]

    def _levels(self, pictures: Tensor) -> list[Tensor]:
        """All that is seen of `pictures`, whoever looks."""
        return [level for look in self._look for level in look(pictures)]


def _mean_and_deviation(maps: Tensor) -> Tensor:
    """(batch, channels, height, width) -> (batch, 2 * channels)."""
    return torch.cat([maps.mean((2, 3)), (maps.var((2, 3), correction=0) + _EPS).sqrt()], dim=1)


def _mean_within(rows: Tensor) -> Tensor:
    """The mean distance between two of the `rows` (n, numbers), n > 1."""
    return torch.cdist(rows, rows).sum() / (len(rows) * (len(rows) - 1))


def _no_noise() -> Tensor:
    raise AssertionError("photos are pixels, which nothing is drawn for")
