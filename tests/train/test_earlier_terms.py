"""A network that a model was trained against is never its judge, however many runs have gone on from its weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from test_distill import save_teacher
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config, make_photos

from kind_core.checkpoint import read_config, save_checkpoint
from kind_core.classes import ClassInfo
from kind_core.config import ModelConfig, Provenance
from kind_core.costs.methods import dense_twin
from kind_core.growth import add_classes
from kind_train.run.trainer import Trainer
from kind_train.start.shrinking import ShrinkRequest, shrink_checkpoint
from tiny import CLASSES, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

EYE = "with a term of likeness to photos of weight 1 by EfficientNet-Lite0 and classifier 0123456789ab"
SHARP = "with a perceptual term of weight 0.15 by EfficientNet-Lite0"


def told(checkpoint: Path) -> list[str]:
    """What the provenance of a checkpoint says, part by part."""
    return read_config(checkpoint).provenance.training.split("; ")


def mark(checkpoint: Path, *training: str) -> Path:
    """The checkpoint, which says that it was trained so."""
    config = read_config(checkpoint)
    marked = replace(config, provenance=Provenance(training="; ".join(training), licence="mit"))
    save_checkpoint(checkpoint, marked, tiny_model(config.dit), force=True)
    return checkpoint


def save(path: Path, *, is_dense: bool = False, classes: tuple[ClassInfo, ...] = CLASSES[:3]) -> Path:
    dit = dense_twin(TINY_DIT) if is_dense else TINY_DIT
    save_checkpoint(path, ModelConfig(dit=dit, diffusion=TINY_DIFFUSION, classes=classes), tiny_model(dit))
    return path


def test_a_run_that_starts_from_weights_tells_what_they_were_trained_with(tmp_path: Path) -> None:
    base = mark(save(tmp_path / "base"), "without diversion", SHARP)
    options = {"start_from": str(base), "images": 8}
    Trainer(make_config(tmp_path / "run", **options), make_photos(), make_photos(seed=1)).run()
    assert told(tmp_path / "run/best") == [SHARP]  # how its own gates are, it says itself
    Trainer(make_config(tmp_path / "same", **options, perceptual=0.15), make_photos(), make_photos(seed=1)).run()
    assert told(tmp_path / "same/best") == [SHARP]
    shutil.rmtree(base)  # a run that goes on does not need it
    config = make_config(tmp_path / "run", **options | {"images": 16})
    Trainer(config, make_photos(), make_photos(seed=1), resume=True).run()
    assert told(tmp_path / "run/last") == [SHARP]


def test_a_student_tells_of_its_teacher_and_of_the_student_before_it(tmp_path: Path) -> None:
    teacher = mark(save_teacher(tmp_path / "teacher"), SHARP)
    options = {"teacher": str(teacher), "steps": (2, 1), "label_dropout": 0.0, "images": 8}
    Trainer(make_config(tmp_path / "one", **options), make_photos(), make_photos(seed=1)).run()
    assert told(tmp_path / "one/best") == [SHARP]
    earlier = mark(tmp_path / "one/best", SHARP, EYE)
    config = make_config(tmp_path / "two", **options, start_from=str(earlier))
    Trainer(config, make_photos(), make_photos(seed=1)).run()
    assert told(tmp_path / "two/best") == [SHARP, EYE]


def test_tailors_bring_along_what_they_were_trained_with(tmp_path: Path) -> None:
    base, other = (mark(save(tmp_path / name), SHARP) for name in ("base", "other"))
    options = {"base": str(base), "label_dropout": 0.0, "images": 8, "perceptual": 0.5}
    Trainer(make_config(tmp_path / "run", **options), make_photos(), make_photos(seed=1)).run()
    own = "with a perceptual term of weight 0.5 by EfficientNet-Lite0"
    assert told(tmp_path / "run/best") == [SHARP, own]
    assert read_config(tmp_path / "run/best").provenance.licence == "mit"
    add_classes(other, tmp_path / "run/best")
    assert told(other) == [SHARP, own]


def test_a_dense_model_made_smaller_tells_of_the_larger_one(tmp_path: Path) -> None:
    dense = mark(save(tmp_path / "dense", is_dense=True), SHARP)
    shrink_checkpoint(ShrinkRequest(source=dense, output=tmp_path / "small", construction="auto-lg", blocks=1))
    assert told(tmp_path / "small") == [f"auto-lg of {TINY_DIT.depth} blocks to 1, not trained since", SHARP]
    config = make_config(tmp_path / "run", start_from=str(tmp_path / "small"), images=8)
    Trainer(config, make_photos(), make_photos(seed=1)).run()
    assert told(tmp_path / "run/best") == [SHARP]
