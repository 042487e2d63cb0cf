"""Shipping a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kind_core.checkpoint import load_checkpoint, save_checkpoint
from kind_core.config import Provenance
from kind_core.errors import CheckpointError, ConfigError
from kind_train.start.convert import convert_checkpoint
from tiny import tiny_model, tiny_model_config


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model = tiny_model()
    save_checkpoint(tmp_path / "full", tiny_model_config(model.config), model)
    return tmp_path / "full"


def test_fp16_halves_the_bytes_and_rounds_each_weight_once(checkpoint: Path, tmp_path: Path) -> None:
    size_bytes = convert_checkpoint(checkpoint, tmp_path / "half")
    full_bytes = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
    assert size_bytes < 0.7 * full_bytes  # tiny tensors: the headers weigh
    full, half = (load_checkpoint(tmp_path / name).model.state_dict() for name in ("full", "half"))
    assert all(torch.equal(full[name].half().float(), half[name]) for name in full)


def test_sampling_defaults_are_stored(checkpoint: Path, tmp_path: Path) -> None:
    convert_checkpoint(checkpoint, tmp_path / "tuned", dtype="fp32", sampler="dpmpp", steps=7, guidance=2.5)
    diffusion = load_checkpoint(tmp_path / "tuned").config.diffusion
    assert (diffusion.sampler, diffusion.steps, diffusion.guidance_scale) == ("dpmpp", 7, 2.5)


def test_provenance_is_stored_and_kept(checkpoint: Path, tmp_path: Path) -> None:
    convert_checkpoint(checkpoint, tmp_path / "named", author="A. Uthor", licence="apache-2.0")
    convert_checkpoint(tmp_path / "named", tmp_path / "again", trained_on="my photos", licence="")
    assert load_checkpoint(tmp_path / "again").config.provenance == Provenance(author="A. Uthor", data="my photos")


def test_a_weight_beyond_fp16_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.null_label_embedding[0] = 1e6
    save_checkpoint(tmp_path / "large", tiny_model_config(model.config), model)
    with pytest.raises(CheckpointError, match="1e\\+06"):
        convert_checkpoint(tmp_path / "large", tmp_path / "half")
    assert not (tmp_path / "half").exists()


def test_an_unknown_dtype_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bf16"):
        convert_checkpoint(checkpoint, tmp_path / "other", dtype="bf16")
