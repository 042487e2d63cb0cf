"""A classifier of a data set's own classes: it learns, says how often it is right, and judges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_training import make_photos, write_folder

from kind_core.classes import ClassInfo
from kind_core.errors import CheckpointError, ConfigError
from kind_train.cli import main
from kind_train.evaluate.judges import TRAINED_AGAINST, SecondJudge, open_judge
from kind_train.evaluate.small_classifier import SmallClassifier, read_classifier

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained by the command on red, green and blue photos."""
    folder = tmp_path_factory.mktemp("classifier")
    for name, seed in (("photos", 0), ("others", 3)):
        write_folder(folder / name, make_photos(15, seed=seed))
    data = ["--data", folder / "photos", "--val-data", folder / "others"]
    arguments = ["classifier", *data, "--size", 8, "--images", 960, "-o", folder / "judge"]
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert "100.0% right on 15 photos, trained on 15 others" in result.stdout
    again = CliRunner().invoke(main, [*map(str, arguments)])
    assert "already exists" in again.output
    return folder / "judge"


def pictures(seed: int = 1, num: int = 9) -> tuple[np.ndarray, np.ndarray]:
    photos = make_photos(num, seed=seed)
    return photos.images.permute(0, 2, 3, 1).contiguous().numpy(), photos.labels.numpy()


def test_it_knows_its_own_classes(judge: Path) -> None:
    classifier = SmallClassifier(judge)
    images, labels = pictures()
    seen = classifier.classify(images)
    assert (seen.logits.argmax(1) == labels).all()
    assert seen.features.shape == (9, 128)
    info = read_classifier(judge)
    assert (info.accuracy, info.num_trained, info.num_tested, info.size) == (1.0, 15, 15, 8)
    assert [classifier.index(one) for one in info.classes] == [0, 1, 2]
    assert classifier.index(ClassInfo(id="n02510455", names=("giant panda",))) is None


def test_pictures_of_another_size_are_refused(judge: Path) -> None:
    with pytest.raises(ConfigError, match="the pictures are 4 x 4, the classifier's are 8 x 8"):
        SmallClassifier(judge).classify(np.zeros((1, 4, 4, 3), np.uint8))


def test_another_file_is_no_classifier(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("not a classifier")
    with pytest.raises(CheckpointError, match="is no classifier"):
        open_judge(tmp_path / "other", "cpu")
    (tmp_path / "other").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match="is a Git LFS pointer"):
        open_judge(tmp_path / "other", "cpu")


def test_weights_that_do_not_fit_are_refused(judge: Path, tmp_path: Path) -> None:
    with safe_open(judge, "pt") as opened:
        metadata = opened.metadata()
    weights = load_file(judge)
    file = tmp_path / "other"
    save_file({**weights, "head.weight": weights["head.weight"].to(torch.float8_e4m3fn)}, file, metadata)
    with pytest.raises(CheckpointError, match=r"holds 'head\.weight' as F8_E4M3, expected floating point"):
        SmallClassifier(file)
    save_file({**weights, "head.weight": weights["head.weight"][:2].contiguous()}, file, metadata)
    with pytest.raises(CheckpointError, match=r"is no classifier: .*head\.weight"):
        SmallClassifier(file)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("size", 10**18, "size is 1000000000000000000, expected a whole number up to 8192"),
        ("size", "8", "size is '8'"), ("size", True, "size is True"), ("num_trained", -1, "num_trained is -1"),
        ("accuracy", 1e30, "accuracy is 1e\\+30, expected 0 to 1"), ("classes", [], "it has no classes"),
    ],
)  # fmt: skip
def test_what_no_training_writes_is_refused(
    field: str, value: object, message: str, judge: Path, tmp_path: Path
) -> None:
    with safe_open(judge, "pt") as held:
        data = json.loads(held.metadata()["kind_classifier"])
    save_file(load_file(judge), tmp_path / "c", {"kind_classifier": json.dumps({**data, field: value})})
    with pytest.raises(CheckpointError, match=message):
        read_classifier(tmp_path / "c")


def test_a_second_judge_counts_what_is_called_as_asked(judge: Path) -> None:
    classifier = SmallClassifier(judge)
    second: Any = SecondJudge(classifier, "own", classifier.info.classes, TRAINED_AGAINST)
    images, labels = pictures(num=30)
    right = second.observe(images) | {"label": labels.astype(np.float32)}
    others = second.observe(pictures(seed=2, num=30)[0])
    wrong = right | {"label": np.roll(labels, 1).astype(np.float32)}
    figures = second.compare(wrong, right, others)
    assert set(figures) == {f"own_{name}" for name in ("distance", "precision", "recall", "called_as_asked")}
    called = figures["own_called_as_asked"]
    assert (called.generated.value, called.real.value, called.note) == (0.0, 1.0, TRAINED_AGAINST)
    assert figures["own_distance"].generated.value == pytest.approx(0, abs=1e-3)
    assert TRAINED_AGAINST in figures["own_distance"].note


def test_a_class_the_judge_does_not_know_is_not_counted(judge: Path) -> None:
    classifier = SmallClassifier(judge)
    other = ClassInfo(id="other", names=("other",))
    second: Any = SecondJudge(classifier, "own", (*classifier.info.classes[:2], other))
    images, labels = pictures(num=30)
    observed = second.observe(images) | {"label": labels.astype(np.float32)}
    others = second.observe(pictures(seed=2, num=30)[0])
    assert second.compare(observed, observed, others)["own_called_as_asked"].generated.value == 1.0
    unknown: Any = SecondJudge(classifier, "own", (other,) * 3)
    assert "own_called_as_asked" not in unknown.compare(observed, observed, others)


def test_without_other_photos_half_of_them_say_how_often_it_is_right(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", make_photos(30))
    arguments = ["classifier", "--data", tmp_path / "photos", "--size", 8, "--images", 64, "-o", tmp_path / "judge"]
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    info = read_classifier(tmp_path / "judge")
    assert info.num_trained + info.num_tested == 30
    assert 10 <= info.num_tested <= 20
    result = CliRunner().invoke(main, [*map(str, arguments), "--force", "--val-data", str(tmp_path / "photos")])
    assert "30 of the 30 photos of --val-data are in --data too, such as" in " ".join(result.stderr.split())
