"""What is told of tailor, label and learngene is told of the right one, on models where mixing them up shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import make_photos, write_folder

from kind_core.checkpoint import save_checkpoint
from kind_core.classes import ClassInfo
from kind_core.dit import KindDiT
from kind_train.data.imagenet import imagenet_index
from kind_train.evaluate.features import Classification
from kind_train.evaluate.run import Evaluation, EvaluationRequest, evaluate, open_drawer
from tiny import CLASSES, tiny_config, tiny_model, tiny_model_config

pytestmark = pytest.mark.usefixtures("one_thread")
_CLASSES = CLASSES[:3]
_COUNT = 4


class NearestPicture:
    """A classifier that names the class whose own pictures, label and gate open, are nearest."""

    name, sha256 = "nearest picture", "0" * 64

    def __init__(self, checkpoint: Path, known: int) -> None:
        drawer = open_drawer(_request(checkpoint))
        own = [drawer.draw(index, index, _COUNT).reshape(_COUNT, -1) for index in range(known)]
        self.own = np.stack(own).astype(np.float32)
        self.outputs = [imagenet_index(info.id) for info in _CLASSES[:known]]

    def index(self, info: ClassInfo) -> int | None:
        return imagenet_index(info.id)

    def classify(self, images: np.ndarray) -> Classification:
        flat = images.reshape(len(images), -1).astype(np.float32)
        distances = ((flat[:, None, None] - self.own) ** 2).mean(-1).min(-1)  # (images, classes)
        logits = np.zeros((len(images), 1000), np.float32)
        logits[:, self.outputs] = 100 / (1 + distances)
        return Classification(features=flat[:, :8], logits=logits)


def _request(checkpoint: Path) -> EvaluationRequest:
    folder = checkpoint.parent
    return EvaluationRequest(
        data=folder / "train", val_data=folder / "val", checkpoint=checkpoint, count=_COUNT, cross_count=_COUNT,
        cross_matrix=True,
    )  # fmt: skip


def _save(path: Path, model: KindDiT) -> Path:
    config = tiny_model_config(model.config, noise_schedule="squaredcos_cap_v2", prediction_type="sample", steps=3)
    save_checkpoint(path, config, model)
    return path


@pytest.fixture
def measured(tmp_path: Path) -> Any:
    """What an evaluation says of a model."""
    for name, seed in (("train", 1), ("val", 2)):
        write_folder(tmp_path / name, replace(make_photos(18, seed=seed), classes=_CLASSES))

    def measure(
        model: KindDiT, name: str = "model", known: int = len(_CLASSES), judged_by: str | None = None
    ) -> Evaluation:
        checkpoint = _save(tmp_path / name, model)
        classifier = NearestPicture(Path(judged_by or checkpoint), known)
        return evaluate(_request(checkpoint), networks=[], judge=classifier)

    return measure


def _model(seed: int = 0) -> KindDiT:
    return tiny_model(tiny_config(num_classes=3), seed)


@torch.no_grad()
def _with_tailors_alone(model: KindDiT) -> KindDiT:
    """The label embedding of the first class for all: which class is drawn is up to the gate."""
    embeddings = model.tailors.label_embeddings()
    embeddings.copy_(embeddings[:1].expand_as(embeddings).clone())
    return model


@torch.no_grad()
def _with_labels_alone(model: KindDiT) -> KindDiT:
    """No tailor has a component: which class is drawn is up to the label."""
    for name, _, _ in model.config.matrix_names():
        model.tailors.factors(model.tailors.weight, name)[1].zero_()
    return model


def test_pictures_of_another_tailor_count_for_its_class(measured: Any) -> None:
    pairs = measured(_with_tailors_alone(_model())).cross_class
    assert {(one.tailor, one.label) for one in pairs} == {
        (a.name, b.name) for a in _CLASSES for b in _CLASSES if a is not b
    }
    assert [(one.as_tailor_class.share, one.as_label_class.share) for one in pairs] == [(1.0, 0.0)] * 6


def test_pictures_of_another_label_count_for_its_class(measured: Any) -> None:
    pairs = measured(_with_labels_alone(_model())).cross_class
    assert [(one.as_tailor_class.share, one.as_label_class.share) for one in pairs] == [(0.0, 1.0)] * 6


def test_each_pair_is_of_the_tailor_and_label_that_it_names(measured: Any) -> None:
    """Labels do nothing, and the classifier does not know the last class: its tailor is never right, the others are."""
    pairs = measured(_with_tailors_alone(_model()), known=2).cross_class
    assert {one.tailor: one.as_tailor_class.share for one in pairs} == {
        _CLASSES[0].name: 1.0, _CLASSES[1].name: 1.0, _CLASSES[2].name: 0.0,
    }  # fmt: skip


def test_the_learngene_row_knows_no_tailor_and_no_label(measured: Any) -> None:
    """Other tailors and labels on the same learngene change every picture but those of the learngene alone."""
    one, other = _model(), _model()
    with torch.no_grad():
        other.tailors.weight.copy_(_model(seed=5).tailors.weight)
    judged_by = measured(one).source
    first, second = (measured(model, name=name, judged_by=judged_by) for model, name in ((one, "1"), (other, "2")))
    assert first.statistics["generated"] != second.statistics["generated"]
    assert first.statistics["learngene"] == second.statistics["learngene"]
