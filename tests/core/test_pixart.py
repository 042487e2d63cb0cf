"""diffusers' PixArt and the diverted one: the same network taken apart, gated, stored, and put together again."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from kind_core.checkpoint import load_checkpoint, save_checkpoint
from kind_core.classes import ClassInfo
from kind_core.config import ModelConfig
from kind_core.errors import CheckpointError, ConfigError
from kind_core.text.checkpoint import load_text_checkpoint
from kind_core.text.convert import from_pixart, read_text, to_pixart
from kind_core.text.folder import read_pixart_config
from kind_core.text.pixart import KindPixArt
from tiny_pixart import CHANNELS, HIDDEN, WORDS, ask_diffusers, random_pixart, text_batch, write_pixart

DOMAINS = (ClassInfo(id="photo", names=("photo",)), ClassInfo(id="sketch", names=("sketch",)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pixart") / "pixart"
    write_pixart(path)
    return path


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_additional_conditions": True},
        {"caption_channels": None, "cross_attention_dim": CHANNELS},
        {"interpolation_scale": 2, "out_channels": None},
        {"attention_bias": False},
        {"sample_size": 128, "patch_size": 16, "num_layers": 1},  # is told the picture size by itself
    ],
)
def test_a_pixart_is_the_same_network_here_and_there(changes: dict[str, Any]) -> None:
    transformer = random_pixart(**changes)
    model = from_pixart(transformer, read_text(transformer.config, WORDS, 8), 2)
    batch = text_batch(sample_size=transformer.config.sample_size)
    labels = torch.tensor([0, 1, -1])
    latents, timesteps, text, mask = batch
    expected = ask_diffusers(transformer, model, batch)
    assert expected.std() > 0.1
    actual = model(latents, timesteps, labels, labels, text, mask)
    assert (actual - expected).abs().max() < 1e-5 * expected.abs().max()
    again = ask_diffusers(to_pixart(model), model, batch)
    assert (again - expected).abs().max() < 1e-5 * expected.abs().max()


@torch.no_grad()
def test_a_gate_becomes_a_transformer_of_diffusers() -> None:
    model = _diverted()
    latents, timesteps, text, mask = text_batch()
    answers = []
    for domain in (None, 0, 1):
        gates = torch.full((3,), -1 if domain is None else domain)
        expected = model(latents, timesteps, gates, gates, text, mask)
        actual = ask_diffusers(to_pixart(model, domain), model, text_batch())
        assert (actual - expected).abs().max() < 1e-5 * expected.abs().max()
        answers.append(expected)
    assert all((one - other).abs().max() > 0.01 for one, other in pairwise(answers))


@torch.no_grad()
def test_gates_and_labels_are_weights_too() -> None:
    model = _diverted()
    latents, timesteps, text, mask = text_batch()
    index, weight = torch.tensor([1, 0, -1]), torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    by_index = model(latents, timesteps, index, index, text, mask)
    assert torch.allclose(model(latents, timesteps, weight, weight, text, mask), by_index, atol=1e-5)
    swapped = model(latents, timesteps, index, torch.tensor([0, 1, -1]), text, mask)
    assert (swapped - by_index)[:2].abs().max() > 0.01
    assert torch.equal(swapped[2], by_index[2])


@torch.no_grad()
def test_a_word_that_the_mask_leaves_out_is_not_read() -> None:
    model = _diverted()
    latents, timesteps, text, mask = text_batch()
    gates = torch.zeros(3, dtype=torch.long)
    other = torch.where(mask[..., None] == 1, text, text + 3)
    answers = [model(latents, timesteps, gates, gates, one, mask) for one in (text, other, text.flip(1))]
    assert torch.equal(answers[0], answers[1])
    assert (answers[0] - answers[2]).abs().max() > 0.01


@torch.no_grad()
def test_a_checkpoint_comes_back_with_the_asked_domains(folder: Path, tmp_path: Path) -> None:
    config, model = _stored(folder, tmp_path / "kept")
    whole, one = load_text_checkpoint(tmp_path / "kept"), load_text_checkpoint(tmp_path / "kept", [1])
    assert whole.config == config
    assert '"format_version": 3' in (tmp_path / "kept" / "config.json").read_text()
    latents, timesteps, text, mask = text_batch()
    gates = torch.tensor([1, 1, -1])
    expected = model(latents, timesteps, gates, gates, text, mask)
    assert torch.equal(whole.model(latents, timesteps, gates, gates, text, mask), expected)
    first = torch.tensor([0, 0, -1])
    assert torch.equal(one.model(latents, timesteps, first, first, text, mask), expected)
    assert [info.id for info in one.config.classes] == ["sketch"]
    assert one.sha256 != whole.sha256


def test_what_draws_classes_and_what_draws_captions_is_told_apart(folder: Path, tmp_path: Path) -> None:
    config, _ = _stored(folder, tmp_path / "kept")
    with pytest.raises(CheckpointError, match="draws from captions") as raised:
        load_checkpoint(tmp_path / "kept")
    assert "kind-export captions takes it" in raised.value.hint
    with pytest.raises(ConfigError, match="block_embedders is True, which a model of captions does not have"):
        replace(config, dit=replace(config.dit, block_embedders=True))


def test_the_folder_says_how_captions_are_read(folder: Path) -> None:
    config = read_pixart_config(folder, DOMAINS)
    assert config.text is not None
    assert (config.text.channels, config.text.tokens, config.text.picture_side) == (CHANNELS, 120, None)
    assert config.diffusion.guidance_scale == 4.5
    assert (config.dit.learn_sigma, config.diffusion.sampler, config.diffusion.prediction_type) == (
        True, "dpmpp", "epsilon",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"norm_elementwise_affine": True}, "norm_elementwise_affine True, expected False"),
        ({"activation_fn": "gelu"}, "activation_fn 'gelu', expected 'gelu-approximate'"),
        ({"out_channels": 5}, "5 output channels, expected 4, or 8 with a variance"),
        ({"cross_attention_dim": CHANNELS}, f"cross_attention_dim {CHANNELS}, expected its width {HIDDEN}"),
    ],
)
def test_another_network_is_refused(changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    write_pixart(tmp_path / "pixart", **changes)
    with pytest.raises(CheckpointError, match=match):
        read_pixart_config(tmp_path / "pixart", DOMAINS)


@torch.no_grad()
def _diverted() -> KindPixArt:
    """N_G 8, N_T 2 of two domains, each with an embedding of its own."""
    transformer = random_pixart()
    dense = from_pixart(transformer, read_text(transformer.config, WORDS, 8), 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = KindPixArt(replace(dense.config, learngene_rank=8, tailor_rank=2), dense.text).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    model.tailors.label_embeddings().normal_(generator=generator)
    return model


def _stored(folder: Path, path: Path) -> tuple[ModelConfig, KindPixArt]:
    model = _diverted()
    config = replace(read_pixart_config(folder, DOMAINS), dit=model.config)
    save_checkpoint(path, config, model)
    return config, model
