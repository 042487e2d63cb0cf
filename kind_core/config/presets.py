"""The models that have a name: the paper's settings, their dense twins, and the samples."""

from __future__ import annotations

import re
from dataclasses import replace

from kind_core.config.diffusion import DiffusionConfig, on_schedule
from kind_core.config.dit import DiTConfig
from kind_core.errors import ConfigError

# hidden size, depth, heads
_SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "xl": (1152, 28, 16)}
# N_G and N_T: B and L are the paper's settings, KIND-Mobile is the only live rank (154) that gives its printed figures,
# and 206 the one whose size, truncated, is that of DiT-L in table 1;
# S and XL keep the paper's ratio of learngene to hidden size (0.414).
_RANKS = {"s": (159, 3), "b": (318, 3), "l": (424, 4), "xl": (477, 4)}

# 10 classes at 32 x 32 pixels: the largest problem that gives recognisable pictures in two hours on two CPU cores.
_SAMPLE = DiTConfig(
    sample_size=32,
    patch_size=4,
    in_channels=3,
    hidden_size=160,
    depth=6,
    num_heads=5,
    num_classes=10,
    learngene_rank=80,
    tailor_rank=4,
)
# For a GPU: forty classes and every tailor are 19 MB in fp16.
_SAMPLE_64 = replace(
    _SAMPLE, sample_size=64, hidden_size=256, num_heads=8, num_classes=40, learngene_rank=128, tailor_rank=3
)
# Patches of 8: 64 x 64 pixels at the tokens, and so nearly at the cost, of `sample`.
_SAMPLE_64_CPU = replace(_SAMPLE, sample_size=64, patch_size=8)
# Ten small grey pictures of one thing each: under 4 MB in fp16 with every tailor.
_GARMENTS = replace(_SAMPLE, hidden_size=128, num_heads=4, learngene_rank=56, tailor_rank=3)
_SAMPLE_DIFFUSION = DiffusionConfig(
    noise_schedule="squaredcos_cap_v2", prediction_type="sample", sampler="dpmpp", steps=20, guidance_scale=2.5
)
_PIXELS = {
    "sample": (_SAMPLE, _SAMPLE_DIFFUSION),
    "sample-64": (_SAMPLE_64, _SAMPLE_DIFFUSION),
    "sample-64-cpu": (_SAMPLE_64_CPU, on_schedule(_SAMPLE_DIFFUSION, "flow")),
    "garments": (_GARMENTS, on_schedule(_SAMPLE_DIFFUSION, "flow")),
}


def preset(name: str) -> tuple[DiTConfig, DiffusionConfig]:
    """Architecture and schedule of `name`: `kind-b/2`, `dit-b/2` (also s, l, xl, any patch), `kind-mobile`, `sample`.

    `kind-*` are the paper's settings (150 classes, latents 4x32x32), `kind-l-206` the smaller DiT-L of its table 1;
    `dit-*` are their dense twins. The samples work on
    pixels: `sample` on 32 x 32 `garments` the same but smaller, and `sample-64-cpu` on 64 x 64 for a CPU,
    `sample-64` on 64 x 64 for a GPU; `dit-sample` and so on are theirs.
    """
    key = name.lower()
    if key.removeprefix("dit-") in _PIXELS:
        dit, diffusion = _PIXELS[key.removeprefix("dit-")]
        is_dense = key.startswith("dit-")
        return replace(dit, learngene_rank=None, tailor_rank=0) if is_dense else dit, diffusion
    if key == "kind-mobile":
        b2, diffusion = preset("kind-b/2")
        return replace(b2, learngene_rank=151, tailor_rank=3), diffusion
    if key == "kind-l-206":
        l2, diffusion = preset("kind-l/2")
        return replace(l2, learngene_rank=202, tailor_rank=4), diffusion
    family, _, rest = key.partition("-")
    size, _, patch = rest.partition("/")
    if family not in ("kind", "dit") or size not in _SIZES or re.fullmatch(r"[0-9]{1,4}", patch) is None:
        raise ConfigError(
            f"unknown preset {name!r}, expected {', '.join(_PIXELS)}, kind-mobile, kind-l-206 or kind-SIZE/PATCH, or a "
            "dense twin: dit-sample, dit-sample-64 ... or dit-SIZE/PATCH",
            "SIZE is s, b, l or xl; for example kind-b/2",
        )
    num_learngene, num_tailor = (None, 0) if family == "dit" else _RANKS[size]
    hidden_size, depth, num_heads = _SIZES[size]
    dit = DiTConfig(
        sample_size=32,
        patch_size=int(patch),
        in_channels=4,
        hidden_size=hidden_size,
        depth=depth,
        num_heads=num_heads,
        num_classes=150,
        learngene_rank=num_learngene,
        tailor_rank=num_tailor,
        learn_sigma=True,
    )
    return dit, DiffusionConfig()
