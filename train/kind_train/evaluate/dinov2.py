"""FDD: Frechet distance on the class token of DINOv2, which follows people's judgement better than a FID does.

Stein et al., https://arxiv.org/abs/2306.04675, who take ViT-L/14: `facebook/dinov2-large` of the Hub, loaded by
transformers. Its position encoding is interpolated a little differently than in facebookresearch/dinov2.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from kind_core.errors import ConfigError
from kind_core.files.hashing import hash_file
from kind_core.files.json_files import read_json
from kind_core.files.weight_files import find_misfit
from kind_train.evaluate.networks import Figure, Observed, compare_sets, refuse_import, require_file

REPOSITORY = "facebook/dinov2-large"
INPUT_SIZE = 224
# ImageNet's, of pixels in [0, 1].
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_DEVIATION = (0.229, 0.224, 0.225)
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_HINT = f"hf download {REPOSITORY} {_CONFIG} {_WEIGHTS} --local-dir dinov2-large, then --dinov2 dinov2-large"


def find_dinov2() -> Path | None:
    """The folder of ViT-L/14 in the Hub's cache, if it was downloaded and transformers is installed."""
    if find_spec("transformers") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    config, weights = (try_to_load_from_cache(REPOSITORY, name) for name in (_CONFIG, _WEIGHTS))
    return Path(weights).parent if isinstance(config, str) and isinstance(weights, str) else None


class DinoV2:
    """DINOv2 of any size on pictures resized to 224 x 224, bicubic and antialiased.

    `path` is a folder in transformers' layout, with its weights in safetensors. Raises ConfigError for another
    one, and TargetError when transformers is not installed.
    """

    def __init__(self, path: Path, *, batch_size: int = 8, device: str = "cpu") -> None:
        _check_folder(path)
        self.batch_size = batch_size
        self.device = device
        self._network = _load_network(path).to(device)
        config = self._network.config
        self.name = f"DINOv2 of width {config.hidden_size} and depth {config.num_hidden_layers}"
        self.sha256 = hash_file(path / _WEIGHTS)

    def observe(self, images: NDArray[np.uint8]) -> Observed:
        """`token` (N, width): the class token after the last norm."""
        import torch

        with torch.inference_mode():
            parts = []
            for start in range(0, len(images), self.batch_size):
                pixels = torch.from_numpy(preprocess(images[start : start + self.batch_size]))
                parts.append(self._network(pixels.to(self.device)).pooler_output.cpu())
            return {"token": torch.cat(parts).numpy()}

    def compare(self, generated: Observed, held_out: Observed, training: Observed) -> dict[str, Figure]:
        sets = (one["token"] for one in (generated, held_out, training))
        return {"fdd": compare_sets(self, *sets)}


def preprocess(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (N, H, W, 3) -> float32 (N, 3, 224, 224), as the authors of FDD do it."""
    from PIL import Image

    size = (INPUT_SIZE, INPUT_SIZE)
    resized = np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BICUBIC)) for one in images])
    pixels = (resized.astype(np.float32) / 255 - np.array(PIXEL_MEAN)) / np.array(PIXEL_DEVIATION)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)


def _check_folder(path: Path) -> None:
    for name in (_CONFIG, _WEIGHTS):
        require_file(path / name, "--dinov2", _HINT)
    try:
        kind = read_json(path / _CONFIG).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{path / _CONFIG} is no JSON object: {error}", _HINT) from error
    if kind != "dinov2":
        raise ConfigError(f"{path / _CONFIG} is of model_type {kind!r}, expected 'dinov2'", _HINT)


def _load_network(path: Path) -> Any:
    try:
        from transformers import Dinov2Model
        from transformers.utils import logging
    except (ImportError, RuntimeError) as error:
        raise refuse_import("transformers", error) from error
    logging.disable_progress_bar()  # the evaluation has its own
    try:
        misfit = find_misfit(path / _WEIGHTS)
        if misfit is not None:
            raise ConfigError(f"{path / _WEIGHTS} {misfit}", _HINT)
        network, loaded = Dinov2Model.from_pretrained(
            path, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{path} is no DINOv2 that can be loaded: {' '.join(str(error).split())}", _HINT) from error
    # transformers fills what a file lacks with chance, and a distance on that would look like any other
    lacking = sorted({*loaded["missing_keys"], *(str(key) for key in loaded["mismatched_keys"])})
    if lacking:
        raise ConfigError(f"{path / _WEIGHTS} lacks {len(lacking)} weights of DINOv2, of them {lacking[0]}", _HINT)
    return network.float().eval()
