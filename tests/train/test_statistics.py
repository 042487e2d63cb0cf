"""Statistics of real photos: moments, what is kept, the file, and what it is compared with."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from mean_judge import Means
from numpy.typing import NDArray
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_photos, write_folder

from kind_core.checkpoint import save_checkpoint
from kind_core.classes import ClassInfo
from kind_core.config import ModelConfig
from kind_core.errors import DataError, ResultsError
from kind_train.cli import main
from kind_train.data.photo_set import PhotoStream, load_photos, stream_photos
from kind_train.evaluate.frechet import MomentSums, compare_with_moments, frechet_distance, pool_moments
from kind_train.evaluate.statistics import collect_statistics, read_statistics, save_statistics
from tiny import tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "photos", make_photos(30))
    return tmp_path / "photos"


def test_moments_of_parts_are_those_of_all() -> None:
    rows = np.random.default_rng(0).normal(1000, [1e-2, 1, 50], size=(400, 3))
    sums = MomentSums()
    for part in np.split(rows, [3, 7, 200]):
        sums.add(part)
    for made in (sums.moments(), pool_moments([_moments(rows[:90]), _moments(rows[90:])])):
        np.testing.assert_allclose(made.mean, rows.mean(0), rtol=1e-12)
        np.testing.assert_allclose(made.covariance, np.cov(rows.T), rtol=1e-9)
        assert made.n == 400


def test_a_distance_to_moments_is_that_to_the_rows() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(60, 8)), rng.normal(0.5, 2, size=(90, 8))
    found = compare_with_moments(a, _moments(b))
    assert found.distance == pytest.approx(frechet_distance(a, b), rel=1e-9)
    assert found.low < found.distance < found.high
    few = rng.normal(size=(5, 8))  # singular
    assert compare_with_moments(few, _moments(b)).distance == pytest.approx(frechet_distance(few, b), rel=1e-6)


def _moments(rows: NDArray[np.float64]):  # type: ignore[no-untyped-def]
    sums = MomentSums()
    sums.add(rows)
    return sums.moments()


def test_streamed_photos_are_those_that_are_loaded(folder: Path) -> None:
    (folder / "class_1" / "broken.png").write_bytes(b"no image")
    told: list[str] = []
    stream = stream_photos(folder, 8, part_size=7, tell=told.append)
    parts = list(stream.parts())
    loaded = load_photos(folder, 8)
    assert [len(images) for images, _ in parts] == [7, 7, 7, 7, 2]
    assert np.array_equal(np.concatenate([p for p, _ in parts]), loaded.images.permute(0, 2, 3, 1).numpy())
    assert np.concatenate([labels for _, labels in parts]).tolist() == loaded.labels.tolist()
    assert any("broken.png" in line for line in told)


def test_a_file_holds_what_was_seen(folder: Path, tmp_path: Path) -> None:
    found = collect_statistics(stream_photos(folder, 8, part_size=7), [Means()], keep=12)
    save_statistics(tmp_path / "real.safetensors", found)
    read = read_statistics(tmp_path / "real.safetensors")
    features = Means().classify(load_photos(folder, 8).images.permute(0, 2, 3, 1).numpy()).features
    moments = read.moments["means", "features"]
    np.testing.assert_allclose(moments.covariance, np.cov(features.T), rtol=1e-9)
    assert (read.counts, read.size, moments.n) == ((10, 10, 10), 8, 30)
    assert read.photos_sha256 == found.photos_sha256
    kept = read.rows["means", "features"]
    assert kept.shape == (12, 3)
    places = [int(np.flatnonzero((features == row).all(1))[0]) for row in kept]
    assert len(set(places)) == 12
    assert max(places) > 12  # not the first ones
    assert read.labels.tolist() == [place // 10 for place in places]


def test_what_is_kept_is_an_even_sample() -> None:
    """Each of 40 photos should be kept in a quarter of the seeds."""
    images = np.arange(40, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    stream = PhotoStream(classes=make_photos().classes, total=40,
                         parts=lambda: iter([(images[i : i + 6], np.zeros(len(images[i : i + 6]), int))
                                             for i in range(0, 40, 6)]))  # fmt: skip
    hits = np.zeros(40)
    for seed in range(200):
        hits[collect_statistics(stream, [Means()], keep=10, seed=seed).rows["means", "features"][:, 0].astype(int)] += 1
    assert hits.sum() == 2000
    assert 20 < hits.min() < hits.max() < 80  # 50 each, 6 deviations of a binomial away at most


def test_statistics_of_others_are_refused(folder: Path, tmp_path: Path) -> None:
    found = collect_statistics(stream_photos(folder, 8), [Means()])
    with pytest.raises(DataError, match="holds statistics of other photos: 3 classes, 'class_2' among those they have"):
        found.require_photos(found.classes[:2], found.size, "real")
    with pytest.raises(DataError, match="'apple' among those they lack but are asked for"):
        found.require_photos((*found.classes, ClassInfo(id="apple", names=("apple",))), found.size, "real")
    with pytest.raises(DataError, match="statistics of photos at 8 x 8, the pictures are 16 x 16"):
        found.require_photos(found.classes, 16, "real")
    other = Means()
    other.sha256 = "1" * 64
    with pytest.raises(DataError, match=r"seen by means \(00000000\), not by means \(11111111\)"):
        found.require_networks((other,), "real")
    (tmp_path / "no.safetensors").write_bytes(b"{}")
    with pytest.raises(ResultsError, match="holds no statistics of photos that can be read"):
        read_statistics(tmp_path / "no.safetensors")
    save_statistics(tmp_path / "odd", replace(found, moments={}))
    with pytest.raises(ResultsError, match=r"holds no statistics of photos that can be read: .*mean"):
        read_statistics(tmp_path / "odd")
    save_statistics(tmp_path / "endless", replace(found, counts=(math.inf,) * 3))
    with pytest.raises(ResultsError, match=r"holds no statistics of photos that can be read: .*infinity"):
        read_statistics(tmp_path / "endless")
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n")
    with pytest.raises(ResultsError, match="is a Git LFS pointer"):
        read_statistics(tmp_path / "pointer")


def test_an_evaluation_beside_statistics_on_the_command_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("judges", "beside_statistics"):
        monkeypatch.setattr(f"kind_train.evaluate.{module}.open_judge", lambda classifier, device: Means())
    config = ModelConfig(dit=TINY_DIT, diffusion=TINY_DIFFUSION, classes=make_photos().classes)
    save_checkpoint(tmp_path / "model", config, tiny_model(TINY_DIT))
    real, fast = tmp_path / "real.safetensors", ("--inception-weights", "none", "--dinov2", "none")

    def call(*words: object) -> str:
        result = CliRunner().invoke(main, [*map(str, words)])
        return result.stdout if result.exit_code == 0 else f"failed: {result.stderr}"

    assert "30 photos of 3 classes at 8 x 8, seen by means" in call(
        "statistics", "--data", folder, "--size", 8, "-o", real, *fast
    )
    given = ("evaluate", "--checkpoint", tmp_path / "model", "--count", 5, *fast)
    report = json.loads(call(*given, "--real", real, "--json"))
    figures = report["overall"]["means"]
    assert {"distance", "precision", "recall", "called_as_asked"} == set(figures)
    assert (figures["distance"]["n"], figures["distance"]["n_real"]) == (15, 30)
    assert figures["distance"]["low"] <= figures["distance"]["value"] <= figures["distance"]["high"]
    assert report["statistics"]["photos"] == 30
    assert "called as asked, means" in call(*given, "--real", real)
    assert "statistics of other photos" in call(*given, "--real", real, "--classes", "class_0")
    assert "expected --data and --val-data, or --real" in call(*given)
    assert "expected --real alone, not with --data" in call(*given, "--real", real, "--data", folder)
