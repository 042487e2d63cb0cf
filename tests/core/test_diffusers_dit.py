"""diffusers' DiT and the dense DiT of this project: the same network either way, and other networks are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel

from kind_core.config import DiTConfig
from kind_core.dense import dense_state
from kind_core.diffusers_dit import from_diffusers, to_diffusers
from kind_core.dit import KindDiT
from kind_core.errors import CheckpointError, ConfigError
from tiny import compose_dense, tiny_batch, tiny_config, tiny_model


def _transformer(model: KindDiT, gate: int | None) -> DiTTransformer2DModel:
    labels = torch.cat([model.tailors.label_embeddings(), model.null_label_embedding[None]]).detach()
    return to_diffusers(model.config, dense_state(model, gate), labels)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"learn_sigma": True}, {"tailor_ranks": (2, 0, 1, 3)}, {"mlp_norm_eps": 1e-2}])
@pytest.mark.parametrize("gate", [None, 1, 3])
def test_a_gate_becomes_a_transformer(changes: dict[str, Any], gate: int | None) -> None:
    model = tiny_model(tiny_config(**changes))
    latents, timesteps = tiny_batch(model.config, 5)
    labels = torch.arange(5)
    expected = model(latents, timesteps, labels, torch.full((5,), -1 if gate is None else gate))
    actual = _transformer(model, gate)(latents, timesteps, labels).sample
    assert (actual - expected).abs().max() < 1e-4


def test_dense_weights_are_the_products_of_the_factors(model: KindDiT) -> None:
    expected = compose_dense(model, [2]).learngene_state()
    state = dense_state(model, 2)
    assert state.keys() == expected.keys()
    assert all(torch.allclose(state[name], expected[name], atol=1e-6) for name in expected)
    dense = compose_dense(model, [])
    assert dense_state(dense).keys() == dense.learngene_state().keys()


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"learn_sigma": True, "mlp_norm_eps": 1e-2}])
def test_a_transformer_becomes_a_dense_model_of_some_classes(changes: dict[str, Any]) -> None:
    transformer = _transformer(tiny_model(tiny_config(**changes)), 0)
    model = from_diffusers(transformer, [3, 1])
    assert model.config == tiny_config(learngene_rank=None, tailor_rank=0, num_classes=2, **changes)
    latents, timesteps = tiny_batch(model.config, 3)
    expected = transformer(latents, timesteps, torch.tensor([3, 1, 4])).sample
    actual = model(latents, timesteps, torch.tensor([0, 1, -1]), torch.tensor([0, 1, -1]))
    assert (actual - expected).abs().max() < 1e-4


def test_missing_attention_biases_are_zero() -> None:
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=3, num_layers=1, sample_size=4, num_embeds_ada_norm=2,
        attention_bias=False,
    ).eval()  # fmt: skip
    model = from_diffusers(transformer, [0])
    assert not model.get_parameter("blocks.0.attn.q.bias").any()
    latents, timesteps = tiny_batch(model.config, 1)
    label = torch.tensor([0])
    with torch.no_grad():
        difference = model(latents, timesteps, label, label) - transformer(latents, timesteps, label).sample
    assert difference.abs().max() < 1e-4


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"activation_fn": "geglu"}, "activation_fn 'geglu', expected 'gelu-approximate'"),
        ({"norm_elementwise_affine": True}, "norm_elementwise_affine True, expected False"),
        ({"out_channels": 5}, "5 output channels, expected 3, or 6 with a variance"),
    ],
)
def test_another_network_is_refused(changes: dict[str, Any], match: str) -> None:
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=3, num_layers=1, sample_size=4, num_embeds_ada_norm=2,
        **changes,
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=match):
        from_diffusers(transformer, [0])


def test_embedders_of_each_block_are_refused(model: KindDiT) -> None:
    transformer = _transformer(model, None)
    with torch.no_grad():
        transformer.transformer_blocks[1].norm1.emb.timestep_embedder.linear_1.bias[0] += 1
    with pytest.raises(CheckpointError, match="one timestep and label embedder for all blocks"):
        from_diffusers(transformer, [0])


def test_another_mlp_ratio_has_no_transformer() -> None:
    config: DiTConfig = tiny_config(mlp_ratio=2.0)
    model = tiny_model(config)
    with pytest.raises(ConfigError, match="mlp_ratio is 2, diffusers' DiT has 4 only"):
        _transformer(model, None)
