"""FDD on a tiny random DINOv2: what is loaded, what it is shown, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fid_packages import mend_torchvision
from safetensors.torch import load_file, save_file

from kind_core.errors import ConfigError, TargetError
from kind_train.evaluate.dinov2 import REPOSITORY, DinoV2, find_dinov2, preprocess
from kind_train.evaluate.frechet import frechet_distance
from kind_train.evaluate.networks import open_networks

mend_torchvision()
pytest.importorskip("transformers", reason="pip install 'kind-diffusion[fid]' to run DINOv2")
from transformers import Dinov2Config, Dinov2Model  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, layerscale_value=1.0
    )
    Dinov2Model(config).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def make_images(n: int, *, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 3, 4, 3), np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def test_features_are_the_networks_class_token(folder: Path) -> None:
    images = make_images(5)
    dinov2 = DinoV2(folder, batch_size=2)
    token = dinov2.observe(images)["token"]
    with torch.inference_mode():
        hidden = Dinov2Model.from_pretrained(folder)(torch.from_numpy(preprocess(images))).last_hidden_state
    assert token.shape == (5, 32)
    np.testing.assert_allclose(token, hidden[:, 0].numpy(), rtol=1e-4, atol=1e-5)
    assert dinov2.name == "DINOv2 of width 32 and depth 2"


def test_pictures_are_normalised_as_imagenets() -> None:
    white, black = (preprocess(np.full((1, 8, 8, 3), value, np.uint8))[0, :, 0, 0] for value in (255, 0))
    assert white == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    assert black == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[:, :4, :, 2] = 255  # the upper half is blue
    pixels = preprocess(image)
    assert pixels.shape == (1, 3, 224, 224)
    assert pixels[0, 2, 0, 0] == pytest.approx(white[2])
    assert pixels[0, 2, -1, 0] == pytest.approx(black[2])


def test_fdd_is_the_distance_of_the_tokens_with_its_floor(folder: Path) -> None:
    dinov2 = DinoV2(folder)
    generated, held_out, training = (dinov2.observe(make_images(40, seed=seed)) for seed in range(3))
    (figure,) = dinov2.compare(generated, held_out, training).values()
    assert figure.generated.value == pytest.approx(frechet_distance(generated["token"], held_out["token"]))
    assert figure.real.value == pytest.approx(frechet_distance(training["token"], held_out["token"]))
    assert figure.generated.low < figure.generated.value < figure.generated.high
    assert (figure.n, figure.dimensions) == (40, 32)
    assert figure.note.startswith("biased upward at n = 40: compare at equal n")


def test_folders_of_other_models_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--dinov2: there is no file"):
        DinoV2(tmp_path)
    with pytest.raises(ConfigError, match="--dinov2: there is no file"):
        open_networks("none", str(tmp_path / "nowhere"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "dinov2_with_registers"}))
    with pytest.raises(ConfigError, match="model_type 'dinov2_with_registers', expected 'dinov2'"):
        DinoV2(folder)


def test_weights_that_lack_a_part_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.norm2.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 1 weights of DINOv2, of them encoder\.layer\.1\.norm2\.weight"):
        DinoV2(folder)


@pytest.mark.parametrize(
    ("dtype", "said"), [(torch.int8, "I8"), (torch.bool, "BOOL"), (torch.float8_e4m3fn, "F8_E4M3")]
)
def test_weights_that_are_no_floating_point_are_refused(folder: Path, dtype: torch.dtype, said: str) -> None:
    """transformers would load them, and a distance on those would look like any other."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = "encoder.layer.1.mlp.fc1.weight"
    save_file(weights | {name: weights[name].to(dtype)}, file, {"format": "pt"})
    with pytest.raises(ConfigError, match=rf"holds '{name}' as {said}, expected floating point"):
        DinoV2(folder)


def test_a_pointer_of_git_lfs_is_called_one(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ConfigError, match=r"--dinov2: .*model\.safetensors is a Git LFS pointer, not the weights"):
        DinoV2(folder)


def test_the_hubs_cache_is_looked_into(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    assert find_dinov2() is None
    repository = cache / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    (snapshot / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert find_dinov2() is None
    (snapshot / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert find_dinov2() == snapshot
    (network,) = open_networks("none", None)
    assert network.name == "DINOv2 of width 32 and depth 2"
    assert open_networks("none", "none") == ()


def test_a_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(TargetError, match="transformers") as caught:
        DinoV2(folder)
    assert caught.value.hint == "pip install 'kind-diffusion[fid]'"
