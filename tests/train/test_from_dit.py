"""KIND's factors from the SVD of a DiT: exact where ranks allow it, honest about what is lost where they do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from diffusers import AutoencoderKL

from diffusers_folders import NUM_LABELS, random_transformer, write_folder
from kind_core.checkpoint import load_checkpoint
from kind_core.diffusers.folder import load_diffusers
from kind_core.dit import KindDiT, dense_state
from kind_core.errors import ConfigError
from kind_train.cli import main
from kind_train.start.from_dit import InitRequest, TailorStart, decompose, init_from_dit
from tiny import tiny_batch
from tiny_autoencoder import save_autoencoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hidden 32: a matrix has 32 components."""
    path = tmp_path_factory.mktemp("dit") / "dit"
    write_folder(path)
    return path


def start(dense: KindDiT, learngene_rank: int, tailor_rank: int, tailors: TailorStart) -> tuple[KindDiT, Any]:
    config = replace(dense.config, learngene_rank=learngene_rank, tailor_rank=tailor_rank)
    model = KindDiT(config).eval()
    return model, decompose(dense, model, tailors)


@torch.no_grad()
def test_at_full_rank_a_class_is_the_dit(folder: Path) -> None:
    dense = load_diffusers(folder).model
    model, errors = start(dense, 30, 2, "strongest")
    latents, timesteps = tiny_batch(dense.config, NUM_LABELS)
    labels = torch.arange(NUM_LABELS)
    expected = dense(latents, timesteps, labels, labels)
    assert expected.std() > 0.1
    assert (model(latents, timesteps, labels, labels) - expected).abs().max() < 1e-3
    assert errors[-1].name == "all"
    assert errors[-1].learngene > 0.001 > errors[-1].first_class


@torch.no_grad()
def test_dealt_tailors_give_the_dit_together(folder: Path) -> None:
    dense = load_diffusers(folder).model
    model, errors = start(dense, 26, 2, "dealt")
    latents, timesteps = tiny_batch(dense.config, 1)
    label, gates = torch.tensor([1]), torch.ones(1, NUM_LABELS)
    expected = dense(latents, timesteps, label, label)
    assert (model(latents, timesteps, label, gates) - expected).abs().max() < 1e-3
    assert errors[-1].first_class < errors[-1].last_class < errors[-1].learngene


@torch.no_grad()
@pytest.mark.parametrize("tailors", ["strongest", "dealt", "random"])
def test_errors_are_those_of_the_composed_matrices(folder: Path, tailors: TailorStart) -> None:
    dense = load_diffusers(folder).model
    model, errors = start(dense, 8, 2, tailors)
    original = dense_state(dense)
    for gate, field in ((None, "learngene"), (0, "first_class"), (NUM_LABELS - 1, "last_class")):
        composed = dense_state(model, gate)
        names = [f"blocks.{i}.attn.q.weight" for i in range(2)]
        lost = sum(float((original[name] - composed[name]).square().sum()) for name in names)
        total = sum(float(original[name].square().sum()) for name in names)
        reported = next(getattr(error, field) for error in errors if error.name == "q")
        assert reported == pytest.approx((lost / total) ** 0.5, rel=1e-3)


def test_no_other_learngene_of_that_rank_is_closer(folder: Path) -> None:
    dense = load_diffusers(folder).model
    _, errors = start(dense, 8, 2, "strongest")
    weights = torch.stack([dense.get_parameter(f"blocks.{i}.mlp.up.weight").detach() for i in (0, 1)])
    singular = torch.linalg.svdvals(weights)
    expected = float(singular[:, 8:].square().sum() / singular.square().sum()) ** 0.5
    assert next(e.learngene for e in errors if e.name == "up") == pytest.approx(expected, rel=1e-4)


def test_the_command_writes_a_checkpoint_of_the_asked_classes(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "start"
    arguments = ["init", "--from-dit", str(folder), "--learngene-rank", "20", "--tailor-rank", "3", "-o", str(output)]
    done = CliRunner().invoke(main, [*arguments, "--classes", "goldfish,0", "--json"])
    assert done.exit_code == 0, done.output
    checkpoint = load_checkpoint(output)
    assert [info.id for info in checkpoint.config.classes] == ["1", "0"]
    assert (checkpoint.config.dit.learngene_rank, checkpoint.config.dit.ranks) == (20, (3, 3))
    assert checkpoint.config.dit.mlp_norm_eps == 1e-5
    labels = load_diffusers(folder, [1, 0]).model.tailors.label_embeddings()
    assert torch.equal(checkpoint.model.tailors.label_embeddings(), labels)
    printed = json.loads(done.stdout)
    assert [error["name"] for error in printed["errors"]] == ["q", "k", "v", "o", "up", "down", "all"]
    table = CliRunner().invoke(main, [*arguments, "--classes", "goldfish", "--force"])
    assert "N_G 20, N_T 3" in table.stdout
    assert str(output) in table.stdout


@torch.no_grad()
def test_the_pipelines_autoencoder_comes_along(tmp_path: Path) -> None:
    write_folder(tmp_path / "dit")
    vae = save_autoencoder(tmp_path / "dit" / "vae", "AutoencoderKL")
    init_from_dit(InitRequest(source=tmp_path / "dit", output=tmp_path / "start", learngene_rank=14, tailor_rank=2))
    checkpoint = load_checkpoint(tmp_path / "start")
    assert str(tmp_path) not in (tmp_path / "start" / "config.json").read_text()
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = AutoencoderKL.from_pretrained(vae).decode(latents / 0.18215).sample
    torch.testing.assert_close(checkpoint.decode(latents), (expected * 0.5 + 0.5).clamp(0, 1))


@torch.no_grad()
def test_every_block_keeps_its_embedders(tmp_path: Path) -> None:
    transformer = random_transformer()
    transformer.save_pretrained(tmp_path / "dit")
    init_from_dit(InitRequest(source=tmp_path / "dit", output=tmp_path / "start", learngene_rank=14, tailor_rank=2))
    checkpoint = load_checkpoint(tmp_path / "start")
    assert checkpoint.config.dit.block_embedders
    latents, timesteps = tiny_batch(checkpoint.config.dit, NUM_LABELS)
    labels = torch.arange(NUM_LABELS)
    expected = transformer(latents, timesteps, labels).sample
    actual = checkpoint.model(latents, timesteps, labels, labels)
    assert (actual - expected).abs().max() < 1e-3 * expected.abs().max()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"preset": "kind-b/2"}, r"preset 'kind-b/2' has hidden_size 768, the DiT 32"),
        ({}, "the ranks come from a preset or from both ranks"),
        ({"preset": "kind-b/2", "tailor_rank": 2}, "the ranks come from a preset or from both ranks"),
        ({"tailor_rank": 2}, "one of the two ranks is missing"),
        ({"learngene_rank": 31, "tailor_rank": 2}, "need 33 components, a matrix of the DiT has 32"),
        ({"learngene_rank": 28, "tailor_rank": 2, "tailors": "dealt"}, "need 34 components"),
        ({"learngene_rank": 8, "tailor_rank": 2, "tailors": "best"}, "tailors is 'best', expected one of strongest"),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, options: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=match):
        init_from_dit(InitRequest(source=folder, output=tmp_path / "start", **options))
    assert not (tmp_path / "start").exists()
