"""The whole evaluation on a tiny model: a checkpoint and its bundle get the same figures from the same noise."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny_network import Colours
from tiny_training import make_photos, write_folder

from distilled import distilled_config
from kind_core.checkpoint import save_checkpoint
from kind_core.classes import ClassInfo
from kind_core.errors import ConfigError, DataError
from kind_train.cli import main
from kind_train.evaluate.features import Classification
from kind_train.evaluate.neighbours import measure_coverage
from kind_train.evaluate.run import EvaluationRequest, evaluate, open_drawer
from tiny import CLASSES, tiny_config, tiny_model, tiny_model_config

pytestmark = pytest.mark.usefixtures("one_thread")
OTHER = ClassInfo(id="glioma", names=("glioma",))  # not in ImageNet


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two classes of ImageNet and one other, its bundle, and photos of the three."""
    folder = tmp_path_factory.mktemp("evaluate")
    dit = tiny_config(num_classes=3)
    config = tiny_model_config(dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample", steps=3)
    config = replace(config, classes=(CLASSES[0], CLASSES[2], OTHER))
    save_checkpoint(folder / "checkpoint", config, tiny_model(dit))
    for name, seed in (("train", 1), ("val", 2)):
        photos = make_photos(18, seed=seed)
        write_folder(folder / name, replace(photos, classes=config.classes))
    from kind_export.pipeline import export_bundle
    from kind_export.request import ExportRequest

    export_bundle(
        ExportRequest(
            checkpoint=folder / "checkpoint", classes=("panda", "lemon", "glioma"), targets=("onnx",),
            output=folder / "b.kind",
        )
    )  # fmt: skip
    return folder


def request(work: Path, **options: Any) -> EvaluationRequest:
    common: dict[str, Any] = {"data": work / "train", "val_data": work / "val", "count": 5, "cross_count": 2}
    return EvaluationRequest(**common | options)


def test_a_bundle_draws_the_pictures_of_its_checkpoint(work: Path) -> None:
    ours = open_drawer(request(work, checkpoint=work / "checkpoint"))
    theirs = open_drawer(request(work, bundle=work / "b.kind"))
    assert ours.classes == theirs.classes
    assert ours.size == theirs.size == 8
    for index in range(3):
        one, other = (drawer.draw(index, index, 3).astype(int) for drawer in (ours, theirs))
        assert np.abs(one - other).max() <= 1
    assert not np.array_equal(ours.draw(0, 0, 1), ours.draw(1, 1, 1))


@pytest.mark.slow
def test_both_get_the_same_figures(work: Path) -> None:
    ours = evaluate(request(work, checkpoint=work / "checkpoint", cross_matrix=True), networks=[Colours()])
    theirs = evaluate(request(work, bundle=work / "b.kind", runtime="onnx"), networks=[Colours()])
    assert theirs.overall.distance == pytest.approx(ours.overall.distance, rel=0.05)
    assert (ours.sampler, ours.steps, ours.guidance_scale) == (theirs.sampler, theirs.steps, theirs.guidance_scale)
    assert set(ours.statistics) == {"generated", "held_out", "learngene"}
    assert set(theirs.statistics) == {"generated", "held_out"}
    assert theirs.cross_class == ()
    # both ways of the two classes that the classifier can name
    assert [(pair.tailor, pair.label) for pair in ours.cross_class] == [
        ("giant panda", "lemon"),
        ("lemon", "giant panda"),
    ]
    glioma = ours.classes[2]
    assert glioma.generated_share is None
    assert glioma.distance.distance > 0
    assert ours.classes[0].generated_share is not None
    assert asdict(ours.coverage)["n"] == 15
    # a network of published figures sees the same pictures of both, and its figure has its own name in the report
    figure, other = (one.to_dict()["colour_distance"] for one in (ours, theirs))
    assert figure["n"] == 15
    assert other["generated"]["value"] == pytest.approx(figure["generated"]["value"], rel=0.05)
    assert other["real"] == figure["real"]
    assert "metrics" not in ours.to_dict()


@pytest.mark.slow
def test_the_command_prints_what_it_measured(work: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", "--bundle", work / "b.kind", "--data", work / "train", "--val-data", work / "val"]
    result = CliRunner().invoke(
        main,
        [
            *map(str, arguments),
            "--count",
            "5",
            "--inception-weights",
            "none",
            "--dinov2",
            "none",
            "-o",
            str(tmp_path / "report.json"),
        ],
    )
    assert result.exit_code == 0, result.output
    for words in (
        "all classes: distance",
        "precision",
        "classifier on held_out: entropy",
        "giant panda",
        "floor: that of",
    ):
        assert words in result.stdout
    # ImageNet lacks it: a sentence says why a figure is missing, and how it is had
    assert "does not know glioma: no share is called as asked there" in result.stdout
    assert "kind-train classifier" in result.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    # no weights, no figure: neither of another network nor an empty one
    assert not {"fid", "sfid", "inception_score", "inception_precision", "inception_recall", "fdd"} & set(report)
    assert "FID" not in result.stdout


@pytest.mark.slow
def test_guidance_of_a_student_is_said_to_be_built_in(work: Path, tmp_path: Path) -> None:
    """Its own scale, 1, was printed, with which no picture is drawn."""
    config = replace(distilled_config(num_classes=3), classes=(CLASSES[0], CLASSES[2], OTHER))
    save_checkpoint(tmp_path / "student", config, tiny_model(config.dit))
    given = ["evaluate", "--checkpoint", tmp_path / "student", "--data", work / "train", "--val-data", work / "val"]
    given += ["--count", 2, "--steps", 1, "--inception-weights", "none", "--dinov2", "none", "-o", tmp_path / "r.json"]
    result = CliRunner().invoke(main, list(map(str, given)))
    assert result.exit_code == 0, result.output
    assert "1 dpmpp1 step with guidance built in" in " ".join(result.stdout.split())
    assert json.loads((tmp_path / "r.json").read_text())["takes_guidance"] is False


def test_what_does_not_go_together_is_named(work: Path) -> None:
    with pytest.raises(ConfigError, match="expected one of --checkpoint and --bundle"):
        request(work)
    with pytest.raises(ConfigError, match="runtime is 'onnx', but a checkpoint has none"):
        request(work, checkpoint=work / "checkpoint", runtime="onnx")
    with pytest.raises(ConfigError, match="device is 'cuda', but a bundle runs in its own runtime"):
        request(work, bundle=work / "b.kind", device="cuda")
    with pytest.raises(ConfigError, match="steps and guidance interval are inside a bundle"):
        open_drawer(request(work, bundle=work / "b.kind", steps=5))


class _Judge:
    """Calls every picture the first class."""

    name, sha256 = "nobody", "0" * 64

    def index(self, info: ClassInfo) -> int:
        return 0

    def classify(self, images: np.ndarray) -> Classification:
        features = images.reshape(len(images), -1)[:, :2].astype(np.float32)
        return Classification(features=features, logits=np.zeros((len(images), 1), np.float32))


def test_photos_in_both_data_are_told(work: Path) -> None:
    told: list[str] = []
    one = request(work, checkpoint=work / "checkpoint", val_data=work / "train", cross_count=0)
    with pytest.raises(DataError, match="expected disjoint sets"):  # where most are shared
        evaluate(one, networks=(), judge=_Judge(), tell=told.append)
    assert [line.partition(":")[0] for line in told] == [
        f"18 of the 18 photos of --val-data are in --data too, such as {sorted((work / 'train').rglob('*.png'))[0]}"
    ]


def test_few_training_photos_are_measured_at_their_number(work: Path, tmp_path: Path) -> None:
    """A distance and the floor that it is held against are of as many rows, whichever set is the smallest."""
    classes = (CLASSES[0], CLASSES[2], OTHER)
    write_folder(tmp_path / "few", replace(make_photos(7, seed=4), classes=classes))
    one = request(work, checkpoint=work / "checkpoint", data=tmp_path / "few", cross_count=0)
    found = evaluate(one, networks=[Colours()], judge=_Judge())
    assert (found.overall.n, found.overall_floor.n, found.coverage.n, found.coverage_floor.n) == (7, 7, 7, 7)
    assert [(one.distance.n, one.floor.n) for one in found.classes] == [(3, 3), (2, 2), (2, 2)]


def test_a_class_of_one_photo_is_told_before_anything_is_drawn(work: Path, tmp_path: Path) -> None:
    classes = (CLASSES[0], CLASSES[2], OTHER)
    write_folder(tmp_path / "few", replace(make_photos(5, seed=4), classes=classes))
    one = request(work, checkpoint=work / "checkpoint", val_data=tmp_path / "few", cross_count=0)

    def draw(*done: object) -> None:
        raise AssertionError(done)

    with pytest.raises(DataError, match=r"few holds 1 photo of class 'glioma', expected 2 or more"):
        evaluate(one, draw, networks=(), judge=_Judge())


def test_coverage_of_equal_and_of_distant_sets() -> None:
    generator = torch.Generator().manual_seed(0)
    real, same = (torch.randn(200, 4, generator=generator).numpy() for _ in range(2))
    alike = measure_coverage(same, real)
    assert alike.precision > 0.8
    assert alike.recall > 0.8
    far = measure_coverage(same + 100, real)
    assert (far.precision, far.recall) == (0, 0)
    # pictures of one kind only are real but do not cover: precision without recall
    narrow = measure_coverage(same * 0.05, real)
    assert narrow.precision > 0.95
    assert narrow.recall < 0.2
    with pytest.raises(DataError, match="more than 3 rows"):
        measure_coverage(same[:3], real)
