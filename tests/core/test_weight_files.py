"""Weights are floating point, in every file that weights are read from; what stands for them is called by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kind_core.autoencoder import load_autoencoder, read_autoencoder
from kind_core.checkpoint import load_checkpoint, read_config
from kind_core.classes import ClassInfo
from kind_core.errors import BundleError, CheckpointError
from kind_runtimes.packs import encode_metadata, read_pack
from tiny_autoencoder import save_autoencoder

DTYPES = [(torch.int8, "I8"), (torch.int32, "I32"), (torch.bool, "BOOL"), (torch.float8_e4m3fn, "F8_E4M3")]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"


def cast_first(file: Path, dtype: torch.dtype) -> str:
    """Store the file's first tensor as another type; its name."""
    tensors = load_file(file)
    name = sorted(tensors)[0]
    save_file(tensors | {name: tensors[name].to(dtype)}, file)
    return name


@pytest.mark.parametrize(("dtype", "word"), DTYPES)
@pytest.mark.parametrize("which", ["learngene.safetensors", "tailors"])
def test_a_checkpoint_of_numbers_that_are_no_weights_is_refused(
    checkpoint_path: Path, dtype: torch.dtype, word: str, which: str
) -> None:
    file = checkpoint_path / which
    file = sorted(file.iterdir())[0] if file.is_dir() else file
    name = cast_first(file, dtype)
    with pytest.raises(CheckpointError, match=f"{file.name} holds '{name}' as {word}, expected floating point"):
        load_checkpoint(checkpoint_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_point_of_16_bits_or_more_is_read(checkpoint_path: Path, dtype: torch.dtype) -> None:
    cast_first(checkpoint_path / "learngene.safetensors", dtype)
    assert load_checkpoint(checkpoint_path).config == read_config(checkpoint_path)


@pytest.fixture
def autoencoder(tmp_path: Path) -> Path:
    save_autoencoder(tmp_path / "vae", "AutoencoderKL")
    return tmp_path / "vae"


@pytest.mark.parametrize(("dtype", "word"), DTYPES)
def test_an_autoencoder_of_integers_is_refused(autoencoder: Path, dtype: torch.dtype, word: str) -> None:
    cast_first(autoencoder / "diffusion_pytorch_model.safetensors", dtype)
    with pytest.raises(CheckpointError, match=f"as {word}, expected floating point"):
        load_autoencoder(autoencoder, read_autoencoder(autoencoder))


def test_an_old_autoencoder_of_integers_is_refused(autoencoder: Path) -> None:
    file = autoencoder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    torch.save(tensors | {name: tensors[name].to(torch.int32)}, autoencoder / "diffusion_pytorch_model.bin")
    file.unlink()
    with pytest.raises(CheckpointError, match="as int32, expected floating point"):
        load_autoencoder(autoencoder, read_autoencoder(autoencoder))


def test_a_pointer_of_git_lfs_is_called_one(checkpoint_path: Path, autoencoder: Path, tmp_path: Path) -> None:
    (checkpoint_path / "learngene.safetensors").write_text(POINTER)
    with pytest.raises(CheckpointError, match="is a Git LFS pointer"):
        load_checkpoint(checkpoint_path)
    config = read_autoencoder(autoencoder)
    for name in ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"):
        (autoencoder / "diffusion_pytorch_model.safetensors").unlink(missing_ok=True)
        (autoencoder / name).write_text(POINTER)
        with pytest.raises(CheckpointError, match="is a Git LFS pointer"):
            load_autoencoder(autoencoder, config)
    (tmp_path / "koala.pack").write_text(POINTER)
    with pytest.raises(BundleError, match="is a Git LFS pointer"):
        read_pack(tmp_path / "koala.pack")


@pytest.mark.parametrize(
    "name",
    [
        "._diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.bin",
    ],
)
def test_what_lies_beside_the_weights_is_not_read(autoencoder: Path, name: str) -> None:
    """What macOS leaves of a file on a stick, and what diffusers itself leaves out of a clone without all of LFS."""
    (autoencoder / name).write_text(POINTER)
    load_autoencoder(autoencoder, read_autoencoder(autoencoder))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8, torch.float8_e5m2])
def test_a_pack_of_another_type_is_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    file = tmp_path / "koala.pack"
    info = ClassInfo(id="n01882714", names=("koala",))
    save_file({"tailor": torch.zeros(1, 4, dtype=dtype)}, file, encode_metadata(info, "0" * 64))
    with pytest.raises(BundleError, match="expected floating point: F16"):
        read_pack(file)
