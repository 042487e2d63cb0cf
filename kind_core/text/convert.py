"""diffusers' `PixArtTransformer2DModel` and the PixArt of this project: one network under two sets of names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kind_core.config import NORM_EPS, DiTConfig, TextConfig
from kind_core.console.quiet import without_import_noise
from kind_core.diffusers.component import Settings, default_settings
from kind_core.diffusers.dit import make_trunk, rename_layers, trunk_settings
from kind_core.dit import dense_state
from kind_core.errors import CheckpointError
from kind_core.text.pixart import KindPixArt

if TYPE_CHECKING:
    from diffusers import PixArtTransformer2DModel

PIXART = "PixArtTransformer2DModel"
HINT = "only PixArt-alpha and PixArt-sigma are read"
# What the PixArt of this project is; a transformer with another value is another network.
_EXPECTED = {
    "norm_type": "ada_norm_single",
    "activation_fn": "gelu-approximate",
    "attention_type": "default",
    "norm_elementwise_affine": False,
    "norm_eps": NORM_EPS,
}
_OUTSIDE = {
    "patch_embedding": "pos_embed.proj",
    "adaln": "adaln_single.linear",
    "timestep_embedder.fc1": "adaln_single.emb.timestep_embedder.linear_1",
    "timestep_embedder.fc2": "adaln_single.emb.timestep_embedder.linear_2",
    "final.linear": "proj_out",
}
_SIDE = {
    f"{ours}.fc{i}": f"adaln_single.emb.{theirs}.linear_{i}"
    for ours, theirs in (("side_embedder", "resolution_embedder"), ("ratio_embedder", "aspect_ratio_embedder"))
    for i in (1, 2)
}
_TEXT = {f"text_projection.fc{i}": f"caption_projection.linear_{i}" for i in (1, 2)}
_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
_BLOCK = {
    **{f"attn.{ours}": f"attn1.{theirs}" for ours, theirs in _ATTENTION.items()},
    **{f"cross.{ours}": f"attn2.{theirs}" for ours, theirs in _ATTENTION.items()},
    "mlp.up": "ff.net.0.proj",
    "mlp.down": "ff.net.2",
}


def from_pixart(transformer: PixArtTransformer2DModel, text: TextConfig, num_domains: int = 1) -> KindPixArt:
    """The dense model, sharing the transformer's tensors; its domains add nothing.

    Raises CheckpointError for a transformer that is another network.
    """
    model = KindPixArt(read_trunk(transformer.config, num_domains), text)
    theirs = transformer.state_dict()
    state: dict[str, Tensor] = dict(model.tailors.state_dict(prefix="tailors."))
    state |= rename_layers(theirs, ((name, ours) for ours, name in _layers(model.config, text)))
    state |= {ours: theirs[name] for ours, name in _tables(model.config)}
    model.load_state_dict(state, assign=True)
    return model.eval()


@torch.no_grad()
def to_pixart(model: KindPixArt, domain: int | None = None) -> PixArtTransformer2DModel:
    """The transformer of diffusers that `model` is with the gate of one domain open, or with none: it draws in any
    pipeline of PixArt at a guidance scale of 1; above, the null half of this project has no gate open.
    """
    with without_import_noise():
        from diffusers import PixArtTransformer2DModel

    config, text = model.config, model.text
    transformer = PixArtTransformer2DModel(
        **trunk_settings(config),
        cross_attention_dim=config.hidden_size if text.is_projected else text.channels,
        interpolation_scale=text.interpolation_scale,
        use_additional_conditions=text.picture_side is not None,
        caption_channels=text.channels if text.is_projected else None,
    )
    state = dense_state(model, domain)
    if domain is not None:  # what a domain adds to the timestep is one bias
        state["timestep_embedder.fc2.bias"] = (
            state["timestep_embedder.fc2.bias"] + model.tailors.label_embeddings()[domain]
        )
    tensors = rename_layers(state, _layers(config, text))
    transformer.load_state_dict(tensors | {theirs: state[ours] for ours, theirs in _tables(config)})
    return transformer.eval()


def read_trunk(config: Settings, num_domains: int) -> DiTConfig:
    """The transformer around the captions that a `config.json` describes.

    Raises CheckpointError for another network.
    """
    return make_trunk({**default_settings(PIXART), **config}, num_domains, _EXPECTED, HINT)


def read_text(config: Settings, tokens: int, downscale: int) -> TextConfig:
    """How the transformer of a `config.json` reads captions of `tokens` words; `downscale` is the autoencoder's."""
    config = {**default_settings(PIXART), **config}
    hidden = config["num_attention_heads"] * config["attention_head_dim"]
    into, channels = config["cross_attention_dim"], config["caption_channels"]
    if into is None or (channels is not None and into != hidden):
        expected = "a number" if channels is None else f"its width {hidden}"
        raise CheckpointError(f"the transformer has cross_attention_dim {into}, expected {expected}", HINT)
    size, is_told = config["sample_size"], config["use_additional_conditions"]
    return TextConfig(
        channels=into if channels is None else channels,
        tokens=tokens,
        is_projected=channels is not None,
        interpolation_scale=config["interpolation_scale"] or max(size // 64, 1),  # both as diffusers fills them in
        picture_side=size * downscale if (size == 128 if is_told is None else is_told) else None,
    )


def _layers(config: DiTConfig, text: TextConfig) -> list[tuple[str, str]]:
    """(our name, diffusers' name) of every layer with weight and bias."""
    outside = _OUTSIDE | (_TEXT if text.is_projected else {}) | (_SIDE if text.picture_side is not None else {})
    blocks = [
        (f"blocks.{i}.{ours}", f"transformer_blocks.{i}.{theirs}")
        for i in range(config.depth)
        for ours, theirs in _BLOCK.items()
    ]
    return [*outside.items(), *blocks]


def _tables(config: DiTConfig) -> list[tuple[str, str]]:
    """The same of what modulates each block and the final layer."""
    names = [(f"blocks.{i}", f"transformer_blocks.{i}.") for i in range(config.depth)]
    return [(f"{ours}.modulation", f"{theirs}scale_shift_table") for ours, theirs in (*names, ("final", ""))]
