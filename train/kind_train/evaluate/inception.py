"""FID, sFID, Inception Score, precision and recall on the Inception-v3 of the original FID, as torch-fidelity has it.

The weights are those of TensorFlow's `inception-2015-12-05` that pytorch-fid and torch-fidelity publish as
`...inception-2015-12-05-6726825d.pth`; torchvision's Inception-v3 is another network and no base for a FID.
"""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kind_core.errors import ConfigError, DataError
from kind_core.files.hashing import hash_file
from kind_core.files.tensor_files import read_pickled
from kind_train.evaluate.frechet import Rows, shift_interval
from kind_train.evaluate.networks import (
    INCEPTION_FILES,
    INCEPTION_HINT,
    LEVEL,
    Estimate,
    Figure,
    Observed,
    compare_coverage,
    compare_sets,
    make_figure,
    refuse_import,
    require_file,
)

SHA256_PREFIX = "6726825d"
# sFID's features as in ADM's evaluator: `mixed_6/conv:0` of TensorFlow's graph, after its ReLU, 7 of 192 channels.
SPATIAL_LAYER = "Mixed_6d.branch1x1"
SPATIAL_CHANNELS = 7
# torch-fidelity's; ADM's evaluator parts the pictures in fives of thousands instead.
SCORE_SPLITS = 10
NUM_REPLICATES = 100
_LAYERS = ("2048", "logits_unbiased")


def find_inception_weights() -> Path | None:
    """The weights in torch hub's cache, as torch-fidelity or pytorch-fid put them, if the former is installed."""
    if find_spec("torch_fidelity") is None:
        return None
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return next((folder / name for name in INCEPTION_FILES if (folder / name).is_file()), None)


class InceptionV3:
    """Inception-v3 on pictures resized to 299 x 299 as TensorFlow 1 does it, bilinear without antialiasing.

    Raises ConfigError for a file that is not the published one, and TargetError when torch-fidelity cannot be
    imported. `sha256_prefix` is for other weights in the same layout, which make no FID that compares.
    """

    name = "Inception-v3 of torch-fidelity"

    def __init__(
        self, path: Path, *, sha256_prefix: str = SHA256_PREFIX, batch_size: int = 16, device: str = "cpu"
    ) -> None:
        self.sha256 = hash_file(require_file(path, "--inception-weights", INCEPTION_HINT))
        if not self.sha256.startswith(sha256_prefix):
            message = f"the SHA-256 of {path} begins with {self.sha256[:8]}, expected {sha256_prefix}"
            raise ConfigError(message, INCEPTION_HINT)
        self.batch_size = batch_size
        self.device = device
        self._network = _load_network(path).to(device)
        self._spatial: list[Any] = []
        self._network.get_submodule(SPATIAL_LAYER).register_forward_hook(
            lambda module, inputs, output: self._spatial.append(output[:, :SPATIAL_CHANNELS].flatten(1))
        )

    def observe(self, images: NDArray[np.uint8]) -> Observed:
        """`pooled` (N, 2048), `spatial` (N, 7 * 17 * 17) and `logits` (N, 1008), the last without the bias."""
        import torch

        parts: list[tuple[Any, ...]] = []
        with torch.inference_mode():
            for start in range(0, len(images), self.batch_size):
                pixels = torch.from_numpy(images[start : start + self.batch_size].copy()).permute(0, 3, 1, 2)
                pooled, logits = self._network(pixels.to(self.device))
                parts.append(tuple(one.cpu() for one in (pooled, self._spatial.pop(), logits)))
        pooled, spatial, logits = (torch.cat(one).numpy() for one in zip(*parts, strict=True))
        return {"pooled": pooled, "spatial": spatial, "logits": logits}

    def compare(self, generated: Observed, held_out: Observed, training: Observed) -> dict[str, Figure]:
        fid, sfid = (
            compare_sets(self, generated[name], held_out[name], training[name]) for name in ("pooled", "spatial")
        )
        scores = (estimate_score(one["logits"]) for one in (generated, held_out))
        how = f"bootstrap, {NUM_REPLICATES} replicates"
        return {
            "fid": fid,
            "sfid": sfid,
            "inception_score": make_figure(self, generated["logits"], scores, how, f"mean of {SCORE_SPLITS} splits"),
            **compare_coverage(self, "inception", generated["pooled"], held_out["pooled"], training["pooled"]),
        }


def inception_score(logits: Rows) -> float:
    """exp of the mean divergence of the pictures' classes from those of their split, mean over `SCORE_SPLITS`.

    Raises DataError when there are fewer pictures than splits.
    """
    import torch
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    if len(logits) < SCORE_SPLITS:
        raise DataError(
            f"the Inception Score needs {SCORE_SPLITS} or more pictures, there are {len(logits)}", "raise --count"
        )
    return float(isc_features_to_metric(torch.from_numpy(logits), splits=SCORE_SPLITS)[KEY_METRIC_ISC_MEAN])


def estimate_score(logits: Rows, *, num_replicates: int = NUM_REPLICATES, level: float = LEVEL) -> Estimate:
    """The Inception Score with the interval of its replicates, moved to it as that of a Frechet distance."""
    value = inception_score(logits)
    rng = np.random.default_rng(0)
    replicates = [inception_score(logits[rng.integers(len(logits), size=len(logits))]) for _ in range(num_replicates)]
    low, high = shift_interval(value, np.array(replicates), level)
    return Estimate(value=value, low=max(1.0, low), high=high)


def _load_network(path: Path) -> Any:
    import torch

    try:
        from torch_fidelity import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError) as error:
        raise refuse_import("torch-fidelity", error) from error
    # torch-fidelity unpickles whatever the file holds, so it gets what has been read as tensors alone.
    tensors = io.BytesIO()
    torch.save(read_pickled(path), tensors)
    tensors.seek(0)
    return FeatureExtractorInceptionV3("inception-v3-compat", list(_LAYERS), feature_extractor_weights_path=tensors)
