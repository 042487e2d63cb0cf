"""What is common to the networks of published figures: the sample they see, and their place in the report."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
from click.testing import CliRunner
from mean_judge import Means
from rich.console import Console
from tiny_network import Colours

from kind_train.cli import main
from kind_train.evaluate.judges import Viewing
from kind_train.evaluate.networks import Figure, as_report, refuse_import
from kind_train.evaluate.session import _group_notes, _metric_table
from kind_train.seen_files import recall_nothing


def make_images(n: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 2, 2, 3), np.uint8)


def observe(images: np.ndarray, n: int, parts: list[int], seed: int = 0) -> np.ndarray:
    view = Viewing(Means(), [Colours()], "set", recall_nothing, n=n, total=len(images), seed=seed)
    for part in np.split(images, parts):
        view.show(0, len(part), partial(np.copy, part))
    (observed,) = view.observed()
    return observed["colour"]


def test_the_sample_does_not_depend_on_the_parts() -> None:
    images = make_images(30)
    whole = observe(images, 12, [])
    assert whole.shape == (12, 3)
    assert len(np.unique(whole, axis=0)) == 12
    for parts in ([1], [7, 8, 20], [10, 10]):
        assert np.array_equal(observe(images, 12, parts), whole)
    assert not np.array_equal(observe(images, 12, [], seed=1), whole)
    assert np.array_equal(observe(images, 30, [15]), Colours().observe(images)["colour"])


def test_a_set_that_was_not_shown_whole_is_an_error() -> None:
    view = Viewing(Means(), [Colours()], "set", recall_nothing, n=3, total=10)
    view.show(0, 9, partial(make_images, 9))
    with pytest.raises(AssertionError, match="shown 9 of 10"):
        view.observed()


def test_figures_have_their_own_names_and_no_empty_note() -> None:
    sets = [Colours().observe(make_images(60, seed=seed)) for seed in range(3)]
    metrics = Colours().compare(*sets)
    report = json.loads(json.dumps(as_report(metrics)))
    assert set(report) == {"colour_distance"}
    assert {"value", "low", "high"} == set(report["colour_distance"]["generated"])
    assert (report["colour_distance"]["n"], report["colour_distance"]["dimensions"]) == (60, 3)
    silent = Figure(**{**asdict(metrics["colour_distance"]), "note": ""})
    assert "note" not in as_report({"one": silent})["one"]
    assert as_report({}) == {}


def test_the_table_has_both_figures_and_each_note_once() -> None:
    sets = [Colours().observe(make_images(60, seed=seed)) for seed in range(3)]
    (figure,) = Colours().compare(*sets).values()
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(_metric_table({"fid": figure, "fdd": figure}))
    text = console.export_text()
    for words in ("FID", "FDD", f"{figure.generated.value:.4g} (", f"{figure.real.value:.4g} (", "60"):
        assert words in text
    assert list(_group_notes({"fid": figure, "fdd": figure}).values()) == [["FID", "FDD"]]


def test_an_import_that_fails_says_what_to_install() -> None:
    missing = refuse_import("torch-fidelity", ModuleNotFoundError("no", name="torchvision"))
    assert "'torchvision' is not installed" in missing.message
    assert missing.hint == "pip install 'kind-diffusion[fid]'"
    inner = RuntimeError("operator torchvision::nms does not exist")
    outer = ModuleNotFoundError("Could not import module")
    outer.__cause__ = inner
    for error in (inner, outer):
        broken = refuse_import("torch-fidelity", error)
        assert "beside torch" in broken.message
        assert "operator torchvision::nms does not exist" in broken.message
        assert "install torchvision from the index" in broken.hint


def test_the_command_names_both_options() -> None:
    text = CliRunner().invoke(main, ["evaluate", "--help"]).output
    assert "--inception-weights FILE|none" in text
    assert "--dinov2 FOLDER|none" in text
    assert "none is downloaded" in " ".join(text.split())
