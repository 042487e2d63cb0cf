"""diffusers' DiT and the dense DiT of this project: the same network either way, and other networks are refused.

A transformer that is made in diffusers has embedders of its own in every block.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel

from diffusers_folders import random_transformer
from kind_core.config import DiTConfig
from kind_core.diffusers.dit import from_diffusers, read_architecture, to_diffusers
from kind_core.dit import KindDiT, dense_state
from kind_core.errors import CheckpointError, ConfigError
from tiny import compose_dense, tiny_batch, tiny_config, tiny_model


def _transformer(model: KindDiT, gate: int | None) -> DiTTransformer2DModel:
    labels = torch.cat([model.tailors.label_embeddings(), model.null_label_embedding[None]]).detach()
    return to_diffusers(model.config, dense_state(model, gate), labels)


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [{}, {"learn_sigma": True}, {"tailor_ranks": (2, 0, 1, 3)}, {"mlp_norm_eps": 1e-2}, {"block_embedders": True}],
)
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
@pytest.mark.parametrize("changes", [{}, {"learn_sigma": True, "mlp_norm_eps": 1e-2}, {"block_embedders": True}])
def test_a_transformer_becomes_a_dense_model_of_some_classes(changes: dict[str, Any]) -> None:
    transformer = _transformer(tiny_model(tiny_config(**changes)), 0)
    model = from_diffusers(transformer, [3, 1])
    assert model.config == tiny_config(learngene_rank=None, tailor_rank=0, num_classes=2, **changes)
    latents, timesteps = tiny_batch(model.config, 3)
    expected = transformer(latents, timesteps, torch.tensor([3, 1, 4])).sample
    actual = model(latents, timesteps, torch.tensor([0, 1, -1]), torch.tensor([0, 1, -1]))
    assert (actual - expected).abs().max() < 1e-4


VARIATIONS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "a variance": {"out_channels": 6},
    "output channels named": {"out_channels": 3},
    "no attention bias": {"attention_bias": False},
    "norm with gain and offset": {"norm_elementwise_affine": True, "norm_eps": 1e-2},
    "one block": {"num_layers": 1},
    "patches of one": {"sample_size": 5, "patch_size": 1},
    "patches of three": {"sample_size": 9, "patch_size": 3},
    "a patch": {"sample_size": 4, "patch_size": 4},
    "one label": {"num_embeds_ada_norm": 2},
    "many labels": {"num_embeds_ada_norm": 1500},
    "one head": {"num_attention_heads": 1, "attention_head_dim": 20},
    "dropout": {"dropout": 0.5},
    "upcast": {"upcast_attention": True},
    "norm groups": {"norm_num_groups": 7},
    "one channel": {"in_channels": 1},
}


@torch.no_grad()
@pytest.mark.parametrize("changes", VARIATIONS.values(), ids=list(VARIATIONS))
def test_any_transformer_is_a_dense_model(changes: dict[str, Any]) -> None:
    transformer = random_transformer(**changes)
    null = transformer.config.num_embeds_ada_norm
    classes = [null - 1, 0]
    model = from_diffusers(transformer, classes)
    assert model.config.block_embedders is (model.config.depth > 1)
    labels = torch.tensor([0, 1, -1])
    for timestep in (0.0, 1.0, 499.5, 999.0):
        latents, _ = tiny_batch(model.config, 3, seed=int(timestep))
        timesteps = torch.full((3,), timestep)
        expected = transformer(latents, timesteps, torch.tensor([*classes, null])).sample
        assert expected.std() > 0.1
        assert all((expected[0] - other).abs().max() > 0.01 for other in expected[1:]), "labels must tell"
        assert (model(latents, timesteps, labels, labels) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_missing_attention_biases_are_zero() -> None:
    model = from_diffusers(random_transformer(attention_bias=False), [0])
    assert not model.get_parameter("blocks.0.attn.q.bias").any()
    assert model.get_parameter("blocks.0.attn.o.bias").any()


def test_what_a_config_leaves_out_is_diffusers_default() -> None:
    defaults = {name: p.default for name, p in inspect.signature(DiTTransformer2DModel).parameters.items()}
    assert read_architecture({}, 5) == read_architecture(defaults, 5)
    assert read_architecture({}, 5).mlp_norm_eps == 1e-5


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"activation_fn": "geglu"}, "activation_fn 'geglu', expected 'gelu-approximate'"),
        ({"activation_fn": "gelu"}, "activation_fn 'gelu', expected 'gelu-approximate'"),
        ({"out_channels": 5}, "5 output channels, expected 3, or 6 with a variance"),
        ({"num_layers": 0}, "depth is 0, expected a whole number from 1"),
        ({"sample_size": 7}, "sample_size 7 is not a multiple of patch_size 2"),
    ],
)
def test_another_network_is_refused(changes: dict[str, Any], match: str) -> None:
    transformer = random_transformer(**changes)
    with pytest.raises((CheckpointError, ConfigError), match=match):
        from_diffusers(transformer, [0])


@torch.no_grad()
@pytest.mark.parametrize("name", ["timestep_embedder.linear_1.bias", "class_embedder.embedding_table.weight"])
def test_embedders_are_shared_only_where_they_are_equal(model: KindDiT, name: str) -> None:
    transformer = _transformer(model, None)
    assert not from_diffusers(transformer, [0]).config.block_embedders
    transformer.transformer_blocks[1].norm1.emb.get_parameter(name)[0] += 1
    assert from_diffusers(transformer, [0]).config.block_embedders


def test_there_and_back_keeps_every_embedder() -> None:
    transformer = random_transformer(attention_bias=True, out_channels=6)
    model = from_diffusers(transformer, range(3))
    assert model.config.block_embedders
    expected, actual = transformer.state_dict(), _transformer(model, None).state_dict()
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_another_mlp_ratio_has_no_transformer() -> None:
    config: DiTConfig = tiny_config(mlp_ratio=2.0)
    model = tiny_model(config)
    with pytest.raises(ConfigError, match="mlp_ratio is 2, diffusers' DiT has 4 only"):
        _transformer(model, None)
