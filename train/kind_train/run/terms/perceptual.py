"""How unlike two pictures look to a classifier's first stages: a term that asks for edges where squared error blurs.

LPIPS (https://arxiv.org/abs/1801.03924) without its learned weights, on EfficientNet-Lite0. A network that was trained
against is no judge: evaluation has others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval

from kind_core.config import ModelConfig
from kind_core.files.hashing import hash_file
from kind_train.evaluate.features import PIXEL_MEAN, PIXEL_SCALE, load_network
from kind_train.start.starting import TERM

# Beyond this share of noise on the straight path a picture is guesswork, and sharp guesses are all alike:
# PixelGen, https://arxiv.org/abs/2602.02493.
MAX_NOISE = 0.7
_SIZE = 64
# after the stem and after the first three stages that halve the picture; then the others
_STAGES, _LATER = ((0, 3), (3, 5), (5, 8)), ((8, 11), (11, 16))
_EPS = 1e-6


def with_terms(
    config: ModelConfig,
    weights: Mapping[str, float],
    classifier: Path | None = None,
    earlier: Sequence[str] = (),
    class_guidance: Sequence[str] = (),
) -> ModelConfig:
    """The config of a model that is trained with these terms, from weights that were trained with the `earlier` ones:
    its provenance says so, by which networks, and what guidance single classes have."""
    networks = "EfficientNet-Lite0" + ("" if classifier is None else f" and classifier {hash_file(classifier)[:12]}")
    training = [f"{TERM}{term} of weight {weight:g} by {networks}" for term, weight in weights.items()]
    training += [f"{TERM}guidance scale of its own for {one}" for one in class_guidance]
    return replace(config, provenance=config.provenance.with_training(*earlier, *training))


class FirstStages:
    """What EfficientNet-Lite0's first stages see. The network is frozen, belongs to no model and is never saved.

    Raises TargetError where it is not installed.
    """

    def __init__(self, device: torch.device) -> None:
        self._stages = load_stages(device)

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        """pictures (batch, 3, size, size) in [-1, 1] -> features of each stage, (batch, channels, side, side), of
        length one over the channels; side is 32, 16, 8 and 4."""
        x = as_seen(pictures)
        features = []
        for stage in self._stages:
            x = stage(x)
            wide = x.float()
            features.append(wide / (wide.square().sum(1, keepdim=True) + _EPS).sqrt())
        return features


class PerceptualDistance:
    """Mean over stages of the squared distance between features of length one at each place, 0 to 4."""

    def __init__(self, stages: FirstStages) -> None:
        self._stages = stages

    def __call__(self, pictures: Tensor, photos: Tensor) -> Tensor:
        """pictures, photos (batch, 3, size, size) in [-1, 1] -> (batch,); gradients reach the pictures alone."""
        with torch.no_grad():
            wanted = self._stages(photos)
        distances = [
            (ours - theirs).square().sum(1).mean((1, 2))
            for ours, theirs in zip(self._stages(pictures), wanted, strict=True)
        ]
        return torch.stack(distances).mean(0)


def load_stages(device: torch.device, *, is_whole: bool = False) -> list[nn.Module]:
    """EfficientNet-Lite0 in parts that follow each other: the stem and the first stages, or all of them, the head and
    what answers, from the mean over the head's maps.

    Frozen; raises TargetError where it is not installed.
    """
    network = load_network(str(device)).requires_grad_(False)
    _fuse_norms(network)
    blocks = list(network._blocks)
    stages = [nn.Sequential(*blocks[first:end]) for first, end in (*_STAGES, *(_LATER if is_whole else ()))]
    head = [nn.Sequential(network._conv_head, network._swish), network._fc] if is_whole else []
    return [nn.Sequential(network._conv_stem, network._swish), *stages, *head]


def as_seen(pictures: Tensor, size: int = _SIZE) -> Tensor:
    """pictures (batch, 3, side, side) in [-1, 1] as the network takes them, (batch, 3, size, size)."""
    x = ((pictures.float() + 1) * 127.5 - PIXEL_MEAN) / PIXEL_SCALE
    if x.shape[-1] != size:
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=x.shape[-1] > size)
    return x.contiguous(memory_format=torch.channels_last)


def _fuse_norms(network: nn.Module) -> None:
    """Fold each frozen norm into the convolution before it: they come in pairs, in the order they run in."""
    pending: tuple[nn.Module, str] | None = None
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                pending = module, name
            elif isinstance(child, nn.BatchNorm2d) and pending is not None:
                owner, conv = pending
                setattr(owner, conv, fuse_conv_bn_eval(getattr(owner, conv), child))
                setattr(module, name, nn.Identity())
                pending = None
