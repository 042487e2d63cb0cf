"""diffusers' `DiTTransformer2DModel` and the dense DiT of this project: one network under two sets of names.

diffusers holds a timestep and a label embedder in every block. In a model converted from the original DiT they are
copies of one, which is held once here; one that was trained in diffusers has another in every block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kind_core.config import DiTConfig
from kind_core.console.quiet import without_import_noise
from kind_core.diffusers.component import Settings, default_settings, shorten
from kind_core.dit import KindDiT
from kind_core.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from diffusers import DiTTransformer2DModel

_MLP_RATIO = 4.0  # the only one that diffusers builds
_OUTSIDE = {"patch_embedding": "pos_embed.proj", "final.adaln": "proj_out_1", "final.linear": "proj_out_2"}
_BLOCK = {
    "adaln": "norm1.linear",
    "attn.q": "attn1.to_q",
    "attn.k": "attn1.to_k",
    "attn.v": "attn1.to_v",
    "attn.o": "attn1.to_out.0",
    "mlp.up": "ff.net.0.proj",
    "mlp.down": "ff.net.2",
}
_EMBEDDERS = {"fc1": "linear_1", "fc2": "linear_2"}
_LABELS = "norm1.emb.class_embedder.embedding_table.weight"
# What the dense DiT of this project is; a transformer with another value is another network.
_EXPECTED = {"norm_type": "ada_norm_zero", "activation_fn": "gelu-approximate"}


def to_diffusers(config: DiTConfig, state: Mapping[str, Tensor], labels: Tensor) -> DiTTransformer2DModel:
    """The transformer of dense weights (`dense_state` of a `KindDiT`) and label embeddings (labels, ...), null last."""
    with without_import_noise():
        from diffusers import DiTTransformer2DModel

    if config.mlp_ratio != _MLP_RATIO:
        raise ConfigError(f"mlp_ratio is {config.mlp_ratio:g}, diffusers' DiT has {_MLP_RATIO:g} only")
    transformer = DiTTransformer2DModel(
        **trunk_settings(config), num_embeds_ada_norm=len(labels) - 1, norm_eps=config.mlp_norm_eps
    )
    tensors = rename_layers(state, _layers(config))
    by_block = labels.unbind(1) if config.block_embedders else (labels,) * config.depth
    tensors |= {f"transformer_blocks.{i}.{_LABELS}": table for i, table in enumerate(by_block)}
    transformer.load_state_dict(tensors)
    return transformer.eval()


def from_diffusers(transformer: DiTTransformer2DModel, classes: Sequence[int]) -> KindDiT:
    """The dense model of `classes` (label indices), sharing the transformer's tensors.

    Raises CheckpointError for a transformer that is no DiT with adaLN-Zero.
    """
    config = read_architecture(transformer.config, len(classes))
    theirs = transformer.state_dict()
    config = replace(config, block_embedders=not _is_shared(theirs, config.depth))
    state = rename_layers(theirs, ((name, ours) for ours, name in _layers(config)))
    if transformer.config.norm_elementwise_affine:
        for i in range(config.depth):
            norm = f"transformer_blocks.{i}.norm3"
            _fold_norm(state, f"blocks.{i}.adaln", theirs[f"{norm}.weight"], theirs[f"{norm}.bias"])
    tables = [theirs[f"transformer_blocks.{i}.{_LABELS}"] for i in range(config.num_embedders)]
    labels = torch.stack([table[[*classes, -1]] for table in tables], dim=1)  # (classes + 1, embedders, hidden)
    state["null_label_embedding"] = labels[-1].reshape(config.label_shape).clone()
    state["tailors.weight"] = labels[:-1].flatten(1)
    model = KindDiT(config)
    model.load_state_dict(state, assign=True)
    return model.eval()


def read_architecture(config: Settings, num_classes: int) -> DiTConfig:
    """The architecture that a transformer's `config.json` describes; raises CheckpointError for another network.

    Whether the blocks share their embedders is in the weights alone; here it is taken that they do.
    """
    return make_trunk(
        {**default_settings("DiTTransformer2DModel"), **config},
        num_classes,
        _EXPECTED,
        "only DiT with adaLN-Zero is read",
    )


def make_trunk(config: Settings, num_classes: int, expected: Settings, hint: str) -> DiTConfig:
    """The sizes of the dense blocks that a transformer's whole `config.json` describes.

    Raises CheckpointError, with `hint`, for another value than one of `expected`.
    """
    for name, value in expected.items():
        if config[name] != value:
            raise CheckpointError(f"the transformer has {name} {shorten(config[name])}, expected {value!r}", hint)
    channels = config["in_channels"]
    out_channels = channels if config["out_channels"] is None else config["out_channels"]
    if out_channels not in (channels, 2 * channels):
        expected_channels = f"{channels}, or {2 * channels} with a variance"
        raise CheckpointError(f"the transformer has {out_channels} output channels, expected {expected_channels}", hint)
    return DiTConfig(
        sample_size=config["sample_size"],
        patch_size=config["patch_size"],
        in_channels=config["in_channels"],
        hidden_size=config["num_attention_heads"] * config["attention_head_dim"],
        depth=config["num_layers"],
        num_heads=config["num_attention_heads"],
        num_classes=num_classes,
        learngene_rank=None,
        mlp_ratio=_MLP_RATIO,
        learn_sigma=out_channels != channels,
        mlp_norm_eps=config["norm_eps"],
    )


def trunk_settings(config: DiTConfig) -> dict[str, int]:
    """The same sizes as a transformer of diffusers is built with."""
    return {
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.hidden_size // config.num_heads,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_layers": config.depth,
        "sample_size": config.sample_size,
        "patch_size": config.patch_size,
    }


def rename_layers(tensors: Mapping[str, Tensor], names: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """Weight and bias of layers by other names, (now, then) each; zeros for a bias that is not there."""
    renamed: dict[str, Tensor] = {}
    for old, new in names:
        weight = renamed[f"{new}.weight"] = tensors[f"{old}.weight"]
        renamed[f"{new}.bias"] = tensors.get(f"{old}.bias", weight.new_zeros(len(weight)))  # attention_bias false
    return renamed


def _layers(config: DiTConfig) -> list[tuple[str, str]]:
    """(our name, diffusers' name) of every layer with weight and bias; a shared embedder has one for each block."""
    layers = list(_OUTSIDE.items())
    for i in range(config.depth):
        embedder = f"timestep_embedder.{i}" if config.block_embedders else "timestep_embedder"
        layers += [(f"blocks.{i}.{ours}", f"transformer_blocks.{i}.{theirs}") for ours, theirs in _BLOCK.items()]
        layers += [
            (f"{embedder}.{ours}", f"transformer_blocks.{i}.norm1.emb.timestep_embedder.{theirs}")
            for ours, theirs in _EMBEDDERS.items()
        ]
    return layers


def _is_shared(tensors: Mapping[str, Tensor], depth: int) -> bool:
    """Whether the timestep and label embedders of all blocks are block 0's."""
    prefix = "transformer_blocks.0.norm1.emb."
    return all(
        torch.equal(tensor, tensors[name.replace("transformer_blocks.0.", f"transformer_blocks.{i}.", 1)])
        for name, tensor in tensors.items()
        if name.startswith(prefix)
        for i in range(1, depth)
    )


def _fold_norm(state: dict[str, Tensor], adaln: str, gain: Tensor, offset: Tensor) -> None:
    """Put gain and offset of the norm before the MLP into the layer that modulates what it gives, exactly.

    (n gain + offset) (1 + scale) + shift = n (1 + scale') + shift', with both new ones linear in the old.
    """
    for part in ("weight", "bias"):
        one = float(part == "bias")  # the 1 of 1 + scale is part of the bias
        chunks = list(state[f"{adaln}.{part}"].chunk(6))
        shift, scale = chunks[3], chunks[4]
        column = (-1, *(1,) * (scale.dim() - 1))
        chunks[3] = shift + offset.reshape(column) * (scale + one)
        chunks[4] = gain.reshape(column) * (scale + one) - one
        state[f"{adaln}.{part}"] = torch.cat(chunks)
