"""Who judges: a classifier of the very classes or EfficientNet-Lite2, which no model is trained against.

The first judge sees every picture and photo; the others see n of each, and their figures stand beside its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kind_core.classes import ClassInfo
from kind_core.errors import ConfigError
from kind_train.data.photo_set import PhotoSet
from kind_train.evaluate.classification import count_asked
from kind_train.evaluate.features import Classification, EfficientNetLite0, EfficientNetLite2
from kind_train.evaluate.inception import InceptionV3
from kind_train.evaluate.networks import (
    Estimate,
    FeatureNetwork,
    Figure,
    Observed,
    compare_coverage,
    compare_sets,
    estimate_share,
    make_figure,
    open_networks,
)
from kind_train.seen_files import Recall

OnWork = Callable[[str, int, int], None]  # what is done, how much of it, and of how much
TRAINED_AGAINST = "the model was trained against this network: it says less than the others do"


class Judge(Protocol):
    """Tells classes in pictures. `name` and `sha256` go into the report."""

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    def index(self, info: ClassInfo) -> int | None:
        """The output for a class, None for one that it does not know."""

    def classify(self, images: NDArray[np.uint8]) -> Classification:
        """Run uint8 RGB images (N, H, W, 3)."""


class SecondJudge:
    """A judge whose figures, `<prefix>_distance` and so on, stand beside the first one's."""

    def __init__(self, judge: Judge, prefix: str, classes: Sequence[ClassInfo], note: str = "") -> None:
        self.name, self.sha256 = judge.name, judge.sha256
        self._judge, self._prefix, self._note = judge, prefix, note
        self._outputs = [judge.index(info) for info in classes]

    def observe(self, images: NDArray[np.uint8]) -> Observed:
        """`features` and `logits` of each image."""
        seen = self._judge.classify(images)
        return {"features": seen.features, "logits": seen.logits}

    def compare(self, generated: Observed, held_out: Observed, training: Observed) -> dict[str, Figure]:
        prefix, rows = self._prefix, tuple(one["features"] for one in (generated, held_out, training))
        figures = {f"{prefix}_distance": compare_sets(self, *rows, note=self._note)}
        figures |= compare_coverage(self, prefix, *rows, note=self._note)
        if any(output is not None for output in self._outputs):
            asked = (self._called_as_asked(one) for one in (generated, held_out))
            name = f"{prefix}_called_as_asked"
            figures[name] = make_figure(self, generated["logits"], asked, "Wilson", self._note)
        return figures

    def _called_as_asked(self, observed: Observed) -> Estimate:
        """The share whose most likely class is the asked one, of the pictures of the classes that the judge knows."""
        hits, total = count_asked(observed["logits"], observed["label"].astype(int), self._outputs)
        return estimate_share(hits, total) if total else Estimate(value=0.0, low=0.0, high=1.0)


class InceptionJudge:
    """Inception-v3's logits, as table 5 of the paper was judged; it is asked for no class by name."""

    def __init__(self, path: Path, *, device: str = "cpu") -> None:
        self._network = InceptionV3(path, device=device)
        self.name, self.sha256 = self._network.name, self._network.sha256

    def index(self, info: ClassInfo) -> int | None:
        """None: its outputs are not in ImageNet's order."""
        return None

    def classify(self, images: NDArray[np.uint8]) -> Classification:
        """`pooled` features (N, 2048) and `logits` (N, 1008)."""
        seen = self._network.observe(images)
        return Classification(features=seen["pooled"], logits=seen["logits"])


def open_judge(classifier: Path | None, device: str) -> Judge:
    """The first judge: the classifier of the very classes where one is given, else EfficientNet-Lite2."""
    if classifier is None:
        return EfficientNetLite2(device=device)
    from kind_train.evaluate.small_classifier import SmallClassifier

    return SmallClassifier(classifier, device=device)


def open_observers(
    judge: Judge, inception_weights: str | None, dinov2: str | None, device: str
) -> tuple[FeatureNetwork, ...]:
    """The judge, then the networks of published figures whose weights are given or cached."""
    return (SecondJudge(judge, "judge", ()), *open_networks(inception_weights, dinov2, device))


def require_independent(judge: Judge, training: str) -> None:
    """Raise ConfigError where `training`, a model's provenance, says that the classifier that judges taught it."""
    if judge.sha256[:12] in training:
        raise ConfigError(
            f"the {judge.name} {judge.sha256[:12]} taught this model, and so is no judge of it",
            "train another with kind-train classifier, on photos that the model did not see",
        )


def open_second_judges(
    first: Judge, classes: Sequence[ClassInfo], training: str, device: str
) -> tuple[FeatureNetwork, ...]:
    """EfficientNet-Lite2, unless it is the first judge, and -Lite0, marked where `training` says that it was used."""
    second: list[FeatureNetwork] = []
    if not isinstance(first, EfficientNetLite2):
        second.append(SecondJudge(EfficientNetLite2(device=device), "lite2", classes))
    lite0 = EfficientNetLite0(device=device)
    note = TRAINED_AGAINST if lite0.name in training else ""
    return (*second, SecondJudge(lite0, "lite0", classes, note))


class Viewing:
    """Shows a set of `total` pictures class by class: the first judge sees each, `networks` the same `n` of them.

    `recall` is asked for what was seen of a class, by the `name` of the set and the number of the class.
    """

    def __init__(
        self,
        judge: Judge,
        networks: Sequence[FeatureNetwork],
        name: str,
        recall: Recall,
        *,
        n: int,
        total: int,
        seed: int = 0,
    ) -> None:
        self._judge, self._networks, self._name, self._recall = judge, networks, name, recall
        self._chosen = np.zeros(total, bool)
        self._chosen[np.random.default_rng(seed).choice(total, n, replace=False)] = True
        self._position = 0
        self._parts: list[list[Observed]] = [[] for _ in networks]

    def show(self, label: int, count: int, draw: Callable[[], NDArray[np.uint8]]) -> Classification:
        """The `count` pictures of a class, which `draw` makes where nobody has seen them."""
        chosen = self._chosen[self._position : self._position + count]
        self._position += count

        def see() -> list[Observed]:
            pictures = draw()
            judged = self._judge.classify(pictures)
            own: Observed = {"features": judged.features, "logits": judged.logits}
            sample = pictures[chosen]
            return [own, *(network.observe(sample) for network in self._networks if len(sample))]

        judged, *observed = self._recall(f"{self._name}-{label}", see)
        for one, parts in zip(observed, self._parts, strict=bool(observed)):
            parts.append({**one, "label": np.full(int(chosen.sum()), label, np.float32)})
        return Classification(features=judged["features"], logits=judged["logits"])

    def observed(self) -> list[Observed]:
        """What each network saw of the whole set, with the `label` (N,) of every image."""
        assert self._position == len(self._chosen), f"shown {self._position} of {len(self._chosen)} images"
        return [{name: np.concatenate([part[name] for part in parts]) for name in parts[0]} for parts in self._parts]

    def show_photos(self, photos: PhotoSet, what: str, on_work: OnWork) -> list[Classification]:
        """All photos; `what` they are is told as they are seen."""
        results = []
        for label in range(len(photos.classes)):
            count = int((photos.labels == label).sum())
            results.append(self.show(label, count, partial(_take_class, photos, label)))
            on_work(what, label + 1, len(photos.classes))
        return results


def _take_class(photos: PhotoSet, label: int) -> NDArray[np.uint8]:
    images: NDArray[np.uint8] = photos.images[photos.labels == label].permute(0, 2, 3, 1).contiguous().numpy()
    return images
