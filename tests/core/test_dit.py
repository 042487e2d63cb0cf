from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from torch import Tensor

from kind_core.config import DiTConfig
from kind_core.dit import KindDiT, make_position_embedding
from tiny import compose_dense, tiny_batch, tiny_config, tiny_model


def _to_diffusers(dense: KindDiT) -> DiTTransformer2DModel:
    """diffusers' DiT with the weights of a dense model; each block holds a copy of the shared embedders."""
    config = dense.config
    reference = DiTTransformer2DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.hidden_size // config.num_heads,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        num_layers=config.depth,
        sample_size=config.sample_size,
        patch_size=config.patch_size,
        num_embeds_ada_norm=config.num_classes,
        norm_eps=1e-6,
    ).eval()
    reference.pos_embed.proj.load_state_dict(dense.patch_embedding.state_dict())
    ours: Any
    for block, ours in zip(reference.transformer_blocks, dense.blocks, strict=True):
        _copy_embedders(block.norm1.emb, dense)
        pairs = {
            block.norm1.linear: ours.adaln,
            block.attn1.to_q: ours.attn.q,
            block.attn1.to_k: ours.attn.k,
            block.attn1.to_v: ours.attn.v,
            block.attn1.to_out[0]: ours.attn.o,
            block.ff.net[0].proj: ours.mlp.up,
            block.ff.net[2]: ours.mlp.down,
        }
        for theirs, layer in pairs.items():
            theirs.load_state_dict(layer.state_dict())
    reference.proj_out_1.load_state_dict(dense.final.adaln.state_dict())
    reference.proj_out_2.load_state_dict(dense.final.linear.state_dict())
    return reference


@torch.no_grad()
def _copy_embedders(embedder: Any, dense: KindDiT) -> None:
    embedder.timestep_embedder.linear_1.load_state_dict(dense.timestep_embedder.fc1.state_dict())
    embedder.timestep_embedder.linear_2.load_state_dict(dense.timestep_embedder.fc2.state_dict())
    table = torch.cat([dense.tailors.label_embeddings(), dense.null_label_embedding[None]])
    embedder.class_embedder.embedding_table.weight.copy_(table)


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learn_sigma": True, "in_channels": 4},
        {"patch_size": 4, "depth": 3},
        {"tailor_ranks": (2, 0, 1, 3)},
    ],
)
@pytest.mark.parametrize("gate", [-1, 0, 3])
def test_with_one_fixed_gate_it_is_diffusers_dit(changes: dict[str, Any], gate: int) -> None:
    model = tiny_model(tiny_config(**changes))
    reference = _to_diffusers(compose_dense(model, [gate] if gate >= 0 else []))
    latents, timesteps = tiny_batch(model.config, 5)
    labels = torch.tensor([0, 1, 2, 3, 4])  # diffusers' null label is the row after the classes
    ours = model(latents, timesteps, labels, torch.full((5,), gate))
    theirs = reference(latents, timesteps, labels).sample
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().max() < 1e-4


@pytest.mark.parametrize(("side", "hidden"), [(4, 32), (16, 768), (5, 64)])
def test_the_position_embedding_is_diffusers(side: int, hidden: int) -> None:
    config = tiny_config(sample_size=2 * side, hidden_size=hidden)
    theirs = get_2d_sincos_pos_embed(hidden, side, base_size=side, output_type="pt").float()
    torch.testing.assert_close(make_position_embedding(config)[0], theirs, rtol=0, atol=1e-6)


@torch.no_grad()
def _run(model: KindDiT, labels: Tensor, gates: Tensor, rows: Tensor | None = None) -> Tensor:
    latents, timesteps = tiny_batch(model.config, gates.shape[0])
    return model(latents, timesteps, labels, gates, rows)  # type: ignore[no-any-return]


def test_labels_and_gates_are_separate(model: KindDiT) -> None:
    base = _run(model, torch.tensor([0]), torch.tensor([0]))
    other_label = _run(model, torch.tensor([1]), torch.tensor([0]))
    other_gate = _run(model, torch.tensor([0]), torch.tensor([1]))
    both = _run(model, torch.tensor([1]), torch.tensor([1]))
    for one, other in ((base, other_label), (base, other_gate), (other_label, both), (other_gate, both)):
        assert (one - other).abs().max() > 1e-2


@pytest.mark.parametrize("null", [-1, 4, 1000])
def test_any_number_that_is_no_class_is_the_null_label(model: KindDiT, null: int) -> None:
    embedding = model.embed_labels(torch.tensor([null, 2]))
    assert torch.equal(embedding[0], model.null_label_embedding)
    assert torch.equal(embedding[1], model.tailors.label_embeddings()[2])


def test_float_labels_are_a_mean_and_zeros_the_null_label(model: KindDiT) -> None:
    weights = torch.tensor([[0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 0]])
    table = model.tailors.label_embeddings()
    expected = torch.stack([table[1], (table[0] + table[2]) / 2, model.null_label_embedding])
    torch.testing.assert_close(model.embed_labels(weights), expected)


@pytest.fixture
def model_of_embedders() -> KindDiT:
    return tiny_model(tiny_config(block_embedders=True))


def test_labels_of_each_block_are_those_of_the_class(model_of_embedders: KindDiT) -> None:
    table, null = model_of_embedders.tailors.label_embeddings(), model_of_embedders.null_label_embedding
    assert table.shape == (4, 2, 32)
    assert torch.equal(model_of_embedders.embed_labels(torch.tensor([2, -1])), torch.stack([table[2], null]))
    weights = torch.tensor([[0.5, 0, 0.5, 0], [0, 0, 0, 0]])
    mean = model_of_embedders.embed_labels(weights)
    torch.testing.assert_close(mean, torch.stack([(table[0] + table[2]) / 2, null]))


@torch.no_grad()
def test_equal_embedders_of_blocks_are_one(model: KindDiT, model_of_embedders: KindDiT) -> None:
    state = model.state_dict()
    for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"):
        one = state.pop(f"timestep_embedder.{name}")
        state |= {f"timestep_embedder.{i}.{name}": one for i in range(2)}
    state["null_label_embedding"] = state["null_label_embedding"].repeat(2, 1)
    bank = state["tailors.weight"]
    state["tailors.weight"] = torch.cat([bank[:, :32], bank], dim=1)  # a row begins with the label embedding
    model_of_embedders.load_state_dict(state)
    choice = torch.tensor([0, 3, -1])
    torch.testing.assert_close(_run(model_of_embedders, choice, choice), _run(model, choice, choice))


def test_float_labels_agree_with_long_labels(model: KindDiT) -> None:
    gates = torch.tensor([0, 1, 2])
    by_weight = _run(model, torch.tensor([[0.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]), gates)
    torch.testing.assert_close(by_weight, _run(model, torch.tensor([3, 1, -1]), gates), rtol=1e-5, atol=1e-5)


def test_rows_of_the_batch_stand_for_the_whole_bank(model: KindDiT) -> None:
    classes = torch.tensor([3, 1, 3, -1])
    rows = model.tailors.weight[[1, 3]]  # class 1 is row 0, class 3 row 1
    places = torch.tensor([1, 0, 1, -1])
    assert torch.equal(_run(model, places, places, rows), _run(model, classes, classes))
    one_hot = torch.tensor([[0.0, 1], [1, 0], [0, 1], [0, 0]])
    torch.testing.assert_close(_run(model, one_hot, one_hot, rows), _run(model, classes, classes), rtol=1e-5, atol=1e-5)


def test_a_fresh_model_answers_zero_and_trains_from_there() -> None:
    model = KindDiT(tiny_config())
    latents, timesteps = tiny_batch(model.config, 2)
    output = model(latents, timesteps, torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert not output.any()
    (output - 1).square().mean().backward()
    assert model.final.linear.bias.grad is not None
    assert model.final.linear.bias.grad.any()


@pytest.mark.parametrize(("learn_sigma", "channels"), [(False, 3), (True, 6)])
def test_the_output_has_the_shape_of_the_latents(learn_sigma: bool, channels: int) -> None:
    model = tiny_model(tiny_config(learn_sigma=learn_sigma))
    assert _run(model, torch.tensor([0, 1]), torch.tensor([0, 1])).shape == (2, channels, 8, 8)


def test_patches_keep_their_place() -> None:
    model = KindDiT(tiny_config())
    tokens = torch.zeros(1, 16, 12)
    tokens[0, 6] = torch.arange(12)  # row 1, column 2 of 4 x 4; inside: patch row, patch column, channel
    image = model.unpatchify(tokens)
    assert image[0, :, 2:4, 4:6].permute(1, 2, 0).flatten().tolist() == list(range(12))
    assert image.sum() == sum(range(12))


def test_samples_do_not_see_each_other(model: KindDiT) -> None:
    latents, timesteps = tiny_batch(model.config, 3)
    choice = torch.tensor([0, 2, -1])
    with torch.no_grad():
        together = model(latents, timesteps, choice, choice)
        alone = [model(latents[[i]], timesteps[[i]], choice[[i]], choice[[i]]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_the_learngene_state_holds_all_but_the_tailors(dit_config: DiTConfig, model: KindDiT) -> None:
    state = model.learngene_state()
    assert set(model.state_dict()) - set(state) == {"tailors.weight"}
    assert "position_embedding" not in state
    assert state["blocks.0.mlp.down.V"].shape == (dit_config.mlp_size, dit_config.learngene_rank)
