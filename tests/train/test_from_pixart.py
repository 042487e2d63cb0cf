"""KIND's factors from the SVD of a PixArt: exact where ranks allow it, and refused by whatever draws classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from kind_core.text.checkpoint import load_text_checkpoint
from kind_core.text.convert import to_pixart
from kind_export.cli import main as export
from kind_train.cli import main as train
from tiny_pixart import HIDDEN, ask_diffusers, text_batch, write_pixart


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hidden 24: a matrix has 24 components, and 22 + 2 are all of them."""
    path = tmp_path_factory.mktemp("pixart")
    write_pixart(path / "pixart")
    arguments = ["--learngene-rank", str(HIDDEN - 2), "--tailor-rank", "2", "--domains", "photo,ink sketch"]
    done = _init(path / "pixart", path / "start", *arguments, "--json")
    assert done["errors"][-1]["learngene"] > 0.001 > done["errors"][-1]["last_class"]
    return path / "start"


@torch.no_grad()
def test_at_full_rank_every_domain_is_the_pixart(start: Path) -> None:
    checkpoint = load_text_checkpoint(start)
    assert [info.name for info in checkpoint.config.classes] == ["photo", "ink sketch"]
    model, batch = checkpoint.model, text_batch()
    latents, timesteps, text, mask = batch
    original = ask_diffusers(write_pixart(start.parent / "again"), model, batch)
    limit = 1e-5 * float(original.abs().max())
    for domain in (0, 1):
        gates = torch.full((3,), domain)
        assert (model(latents, timesteps, gates, gates, text, mask) - original).abs().max() < limit
        assert (ask_diffusers(to_pixart(model, domain), model, batch) - original).abs().max() < limit
    closed = torch.full((3,), -1)
    assert (model(latents, timesteps, closed, closed, text, mask) - original).abs().max() > 100 * limit


def test_its_domains_are_listed(start: Path) -> None:
    done = CliRunner().invoke(export, ["classes", "--checkpoint", str(start)])
    assert [line.split() for line in done.stdout.splitlines()] == [["photo", "photo"], ["ink_sketch", "ink", "sketch"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--domains", "photo"], "the ranks of a PixArt are in no preset"),
        (["--preset", "kind-b/2", "--domains", "photo"], "preset 'kind-b/2' is of a DiT, not of a PixArt"),
        (["--learngene-rank", "8", "--tailor-rank", "2"], "no domain was named"),
        (["--learngene-rank", "8", "--tailor-rank", "2", "--classes", "0"], "a PixArt has no classes, asked for 0"),
        (["--learngene-rank", "23", "--tailor-rank", "2", "--domains", "a"], "a matrix of the PixArt has 24"),
    ],
)
def test_what_does_not_fit_is_refused(start: Path, options: list[str], message: str, tmp_path: Path) -> None:
    source = start.parent / "pixart"
    done = CliRunner().invoke(train, ["init", "--from-pixart", str(source), *options, "-o", str(tmp_path / "new")])
    assert done.exit_code == 1
    assert message in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_pixart_is_no_dit_and_a_start_is_of_one(start: Path, tmp_path: Path) -> None:
    source, new = start.parent / "pixart", tmp_path / "new"
    ranks = ["--learngene-rank", "8", "--tailor-rank", "2", "-o", str(new)]
    done = CliRunner().invoke(train, ["init", "--from-dit", str(source), *ranks])
    assert "a PixArt by kind-train init --from-pixart" in done.stderr
    for both in ([], ["--from-dit", str(source), "--from-pixart", str(source)]):
        assert "a start is from one trained model" in CliRunner().invoke(train, ["init", *both, *ranks]).stderr
    done = CliRunner().invoke(train, ["init", "--from-dit", str(source), "--domains", "photo", *ranks])
    assert "domains are those of a PixArt" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "fit --data PHOTOS --output NEW --start-from START",
        "distill --data PHOTOS --output NEW --checkpoint START --steps 2",
        "shrink START NEW --construction heur-lg",
        "add START START",
        "convert START NEW",
        "evaluate --checkpoint START --data PHOTOS --val-data PHOTOS",
        "benchmark class-agnostic --checkpoint START --output NEW",
        "export --checkpoint START --classes photo --target onnx -o NEW",
    ],
)
def test_whatever_draws_classes_refuses_it_in_one_line(start: Path, command: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos" / "cat"
    photos.mkdir(parents=True)
    (photos / "one.png").write_bytes(b"")
    places = {"START": str(start), "NEW": str(tmp_path / "new"), "PHOTOS": str(photos.parent)}
    before = {file: file.read_bytes() for file in start.rglob("*") if file.is_file()}
    name, *arguments = [places.get(word, word) for word in command.split()]
    done = CliRunner().invoke(export, arguments) if name == "export" else CliRunner().invoke(train, [name, *arguments])
    assert done.exit_code == 1, done.output
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert f"{start} draws from captions (a PixArt), expected a checkpoint that draws classes" in errors[0]
    assert "docs/guides/captions.md" in done.stderr
    assert not (tmp_path / "new").exists()
    assert {file: file.read_bytes() for file in start.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("command", "instead"),
    [
        ("add START START", "its domains are added by training: kind-train adapt --checkpoint BASE"),
        (
            "convert START NEW",
            "kind-export captions takes it, with --precision fp16, --sampler, --steps and --guidance",
        ),
        ("evaluate --checkpoint START --real FILE", "kind-train adapt measures the held-out loss of such a model"),
        ("fit --data START --output NEW --start-from START", "kind-train adapt --text-embeddings trains on it"),
    ],
)
def test_a_refusal_says_what_does_take_it(start: Path, command: str, instead: str, tmp_path: Path) -> None:
    places = {"START": str(start), "NEW": str(tmp_path / "new"), "FILE": str(start / "config.json")}
    done = CliRunner().invoke(train, [places.get(word, word) for word in command.split()])
    (hint,) = [line for line in done.stderr.splitlines() if line.startswith("hint: ")]
    assert instead in hint
    assert "kind-export captions takes it" in hint


def _init(source: Path, output: Path, *arguments: str) -> dict[str, list[dict[str, float]]]:
    done = CliRunner().invoke(train, ["init", "--from-pixart", str(source), *arguments, "-o", str(output)])
    assert done.exit_code == 0, done.output
    printed: dict[str, list[dict[str, float]]] = json.loads(done.stdout)
    return printed
