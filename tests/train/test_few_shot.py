"""The few-shot suite: what its gates let through, what a task changes, its cells, table and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny_suites import call
from tiny_training import encode, make_photos, write_folder, write_parquet
from torch.nn import functional as F

from kind_train.benchmark.few_shot.episodes import adapt, draw_episode, measure_accuracy
from kind_train.benchmark.few_shot.pretraining import Pretraining, shape_network
from kind_train.benchmark.few_shot.vit import KindViT, merge, start_task
from kind_train.benchmark.suite import FewShotScale, FewShotSuite, Network, read_suite
from kind_train.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")
SUITE = read_suite("few-shot")
assert isinstance(SUITE, FewShotSuite)
TINY: dict[str, Any] = {
    "size": 8, "patch_size": 4, "hidden_size": 16, "depth": 2, "num_heads": 2, "learngene_rank": 6, "tailor_rank": 2,
    "task_rank": 3, "images": 64, "batch_size": 8, "ways": 3, "queries": 4, "episodes": 4, "steps": 6, "task_batch": 6,
    "shots": (1, 2),
}  # fmt: skip
SCALE: FewShotScale = replace(SUITE.scales["small"], **TINY)


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """The suite at a scale of seconds, on photos of three colours."""
    monkeypatch.setattr("kind_train.benchmark.suite.read_suite", lambda name: replace(SUITE, scales={"small": SCALE}))
    write_folder(tmp_path / "base", make_photos(24))
    write_folder(tmp_path / "new", make_photos(24, seed=1))
    return ("few-shot", "--base-data", tmp_path / "base", "--data", tmp_path / "new")


def make_network(network: Network, num_classes: int = 3) -> KindViT:
    """With random tailors, which a new one has not."""
    torch.manual_seed(0)
    model = KindViT(shape_network(network, SCALE, num_classes))
    torch.nn.init.normal_(model.tailors.weight, std=0.3)
    return model


def make_images(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def read_lines(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds_per_task"} for line in lines]


def test_an_image_trains_the_tailor_of_its_own_class_alone() -> None:
    model = make_network("kind")
    loss = F.cross_entropy(model(make_images(), model.opened(5), torch.full((5,), 1)), torch.full((5,), 1))
    torch.autograd.backward(loss)
    gradient = model.tailors.weight.grad
    assert gradient is not None
    for name, _, _ in model.config.matrix_names():
        for factor in model.tailors.factors(gradient, name):
            reached = factor.flatten(1).abs().sum(1) > 0
            assert reached.tolist() == [False, True, False]
    assert model.get_parameter("blocks.0.attn.q.U").grad is not None  # the learngene is every image's


def test_gates_change_what_is_trained_and_not_what_is_said() -> None:
    model = make_network("kind")
    images = make_images()
    plain, gated = model(images, model.opened(5)), model(images, model.opened(5), torch.arange(5) % 3)
    torch.testing.assert_close(plain, gated)
    assert not torch.allclose(plain, model(images), atol=1e-3)  # the learngene alone


def test_all_open_tailors_merge_into_an_ordinary_network() -> None:
    model = make_network("kind")
    merged = merge(model)
    assert merged.config.is_dense
    torch.testing.assert_close(merged(make_images()), model(make_images(), model.opened(5)), rtol=0, atol=1e-5)


def test_a_new_task_starts_as_the_learngene_and_keeps_its_bits() -> None:
    base, photos = make_network("kind"), make_photos(30)
    before = {name: tensor.clone() for name, tensor in base.learngene_state().items()}
    task = start_task(base, 3, 3)
    torch.testing.assert_close(task.features(make_images(), task.opened(5)), base.features(make_images()))
    episode = draw_episode(photos.labels, SCALE, 2, torch.Generator().manual_seed(0))
    adapted = adapt(base, photos, episode, SUITE.arms[0], SCALE, torch.Generator().manual_seed(0))
    for state in (base.learngene_state(), adapted.learngene_state()):
        assert all(torch.equal(state[name], tensor) for name, tensor in before.items())
    q, _, _ = adapted.tailors.factors(adapted.tailors.weight, "blocks.0.attn.q")
    assert bool((q.flatten(1).abs().sum(1) > 0).all())  # every class of the task has learned something


def test_everything_trains_everything() -> None:
    base, photos = make_network("vit"), make_photos(30)
    episode = draw_episode(photos.labels, SCALE, 2, torch.Generator().manual_seed(0))
    adapted = adapt(base, photos, episode, SUITE.arms[1], SCALE, torch.Generator().manual_seed(0))
    assert SUITE.arms[1].train == "everything"
    for name, tensor in base.learngene_state().items():
        assert not torch.equal(adapted.learngene_state()[name], tensor), name


def test_an_episode_asks_about_photos_that_it_did_not_show() -> None:
    labels = make_photos(30).labels
    episode = draw_episode(labels, SCALE, 2, torch.Generator().manual_seed(3))
    assert not set(episode.support.tolist()) & set(episode.queries.tolist())
    assert len(set(episode.queries.tolist())) == 12
    classes = labels[episode.support].view(3, 2)
    assert bool((classes == classes[:, :1]).all())
    assert labels[episode.queries].view(3, 4)[:, 0].tolist() == classes[:, 0].tolist()
    assert episode.query_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_colours_are_told_apart_after_a_few_photos(tmp_path: Path) -> None:
    photos = make_photos(30)
    base = Pretraining("kind", 3, replace(SCALE, images=800), 0, tmp_path, "cpu").run(photos)
    episode = draw_episode(photos.labels, SCALE, 2, torch.Generator().manual_seed(0))
    adapted = adapt(base, photos, episode, SUITE.arms[0], SCALE, torch.Generator().manual_seed(0))
    assert measure_accuracy(adapted, photos, episode) == 1


def test_a_suite_to_its_page(given: tuple[Any, ...], tmp_path: Path) -> None:
    output = tmp_path / "results"
    printed = call(*given, "--output", output)
    assert "| KIND |" in printed
    assert "| vanilla ViT, fine-tuned |" in printed
    lines = read_lines(output)
    assert [(line["arm"], line["shots"]) for line in lines] == [
        (arm.name, shots) for shots in (1, 2) for arm in SUITE.arms
    ]
    for line in lines:
        with np.load(output / "cells" / f"{line['arm']}--{line['shots']}-shot--0.npz") as cell:
            assert cell["accuracies"].shape == (4,)
            assert line["accuracy"] == pytest.approx(cell["accuracies"].mean())
        assert len(line["curve"]) == 8
        assert (line["trained"] > 0) == (line["arm"] in ("kind", "vanilla"))
    table = (output / "results.md").read_text()
    assert "| method | 1-shot | 2-shot | paper: accuracy |" in table
    assert "| 64.6% |" in table
    assert "## Points that KIND is ahead by, on the same tasks" in table
    assert (output / "curve.png").stat().st_size
    assert not (output / "pictures.png").exists()
    assert "<title>Few-shot classification (answers): results</title>" in (output / "index.html").read_text()
    assert call(*given, "--output", output, "--list-cells").splitlines()[0] == "0  kind--1-shot--0  done"
    call(*given, "--output", tmp_path / "parts", "--cell", 5)
    assert read_lines(tmp_path / "parts") == lines[5:6]


@pytest.mark.parametrize("place", ["save", "answer_one"])
def test_a_killed_cell_goes_on_to_the_same_results(
    place: str, given: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in pre-training after its second save, or after two tasks of the first cell."""
    from kind_train.benchmark.few_shot import pretraining, runner

    words = (*given, "--methods", "kind,vanilla-still")
    call(*words, "--output", tmp_path / "whole")
    owner = pretraining.Pretraining if place == "save" else runner.FewShotRunner
    whole, calls = getattr(owner, place), []

    def die(self: Any, *arguments: Any) -> Any:
        if place == "save":
            whole(self, *arguments)
        calls.append(arguments)
        if len(calls) == (2 if place == "save" else 3):
            raise KeyboardInterrupt
        return whole(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, place, die)
        assert CliRunner().invoke(main, ["benchmark", *map(str, words), "--output", str(tmp_path / "half")]).exit_code
    assert not list(tmp_path.glob("half/cells/*"))
    steps: list[int] = []
    step = pretraining.Pretraining.take_step
    monkeypatch.setattr(
        pretraining.Pretraining, "take_step", lambda self, n, photos: steps.append(n) or step(self, n, photos)
    )  # type: ignore[func-returns-value]
    call(*words, "--output", tmp_path / "half", "--resume")
    assert read_lines(tmp_path / "half") == read_lines(tmp_path / "whole")
    assert steps[:1] == ([2] if place == "save" else [0])  # of the network that was not there yet
    assert not list(tmp_path.glob("half/runs/*.jsonl")) + list(tmp_path.glob("half/runs/*/state.safetensors"))


def test_names_without_photos_and_photos_that_cannot_be_read_end_no_suite(
    given: tuple[Any, ...], tmp_path: Path
) -> None:
    photos = make_photos(24)
    labels = (photos.labels + 1).tolist()  # no photo is of the first class that the file names
    images = [encode(pixels) for pixels in photos.images]
    write_parquet(tmp_path / "old.parquet", images, labels, ["ghost", "a", "b", "c"])
    few = ("few-shot", "--base-data", tmp_path / "old.parquet", "--methods", "learngene")
    call(*few, *given[3:], "--output", tmp_path / "results")
    assert [line["shots"] for line in read_lines(tmp_path / "results")] == [1, 2]
    write_folder(tmp_path / "just", make_photos(18))
    sorted((tmp_path / "just").rglob("*.png"))[0].write_bytes(b"broken")
    told = call(*few, "--data", tmp_path / "just", "--output", tmp_path / "other")
    assert "just holds 5 photos of 'class 0', expected 6 or more" in told


def test_what_cannot_be_run_is_one_line(given: tuple[Any, ...], tmp_path: Path) -> None:
    output = ("--output", tmp_path / "results")
    write_folder(tmp_path / "few", make_photos(13))
    few = (*given[:3], "--data", tmp_path / "few")
    assert call(*few, *output) == (
        f"failed: error: task '2-shot': {tmp_path / 'few'} holds 5 photos of 'class 0', expected 6 or more: "
        "2 to learn from and 4 to be asked about"
    ) or "holds 4 photos of 'class 1', expected 6 or more" in call(*few, *output)
    write_folder(tmp_path / "two", make_photos(24, num_classes=2))
    assert "holds photos of 2 classes, expected 3 or more" in call(*given[:3], "--data", tmp_path / "two", *output)
    assert "expected --base-data: photos that networks are pre-trained on" in call(given[0], *given[3:], *output)
    assert "expected --data: photos of the classes of tasks" in call(*given[:3], *output)
    assert "--count is of other suites" in call(*given, "--count", 4, *output)
    assert "episodes is 1, expected 2 or more" in call(*given, "--episodes", 1, *output)
    assert "has no method 'lora', expected one of kind, vanilla" in call(*given, "--methods", "lora", *output)
    assert not (tmp_path / "results").exists()
    call(*given, "--methods", "learngene", *output)
    assert "holds results of episodes 4, not 5" in call(*given, "--episodes", 5, *output)
    assert "already holds results of this suite" in call(*given, *output)
    partial = tmp_path / "results" / "runs" / "kind--1-shot--0.jsonl"
    partial.write_text("[0.5, 1]\nno numbers\n")
    assert "kind--1-shot--0.jsonl is damaged: " in call(*given, *output, "--resume")
    network = tmp_path / "results" / "runs" / "kind--0" / "network.safetensors"
    network.write_bytes(network.read_bytes()[:100])
    assert "network.safetensors is damaged: " in call(*given, *output, "--resume")
