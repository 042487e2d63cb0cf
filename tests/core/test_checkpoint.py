from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kind_core.checkpoint import (
    load_checkpoint,
    read_config,
    save_checkpoint,
    subset_config,
    tailor_path,
)
from kind_core.config import FORMAT_VERSION, DiTConfig, ModelConfig
from kind_core.dit import KindDiT
from kind_core.errors import CheckpointError, ConfigError, OutputError
from tiny import tiny_batch, tiny_config, tiny_model, tiny_model_config

LEMON = "n07749582"
CONFIGS = {
    "kind": tiny_config(),
    "ranks by class": tiny_config(tailor_ranks=(2, 0, 1, 3)),
    "dense": tiny_config(learngene_rank=None, tailor_rank=0),
    "embedders of each block": tiny_config(block_embedders=True),
    "dense, embedders of each block": tiny_config(block_embedders=True, learngene_rank=None, tailor_rank=0),
}


@torch.no_grad()
def _run(model: KindDiT, choice: int) -> Tensor:
    latents, timesteps = tiny_batch(model.config, 2)
    chosen = torch.full((2,), choice)
    return model(latents, timesteps, chosen, chosen)  # type: ignore[no-any-return]


@pytest.mark.parametrize("dit", CONFIGS.values(), ids=CONFIGS)
def test_save_and_load_are_bit_identical(tmp_path: Path, dit: DiTConfig) -> None:
    model, config = tiny_model(dit), tiny_model_config(dit)
    save_checkpoint(tmp_path / "c", config, model)
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded.config == config
    assert not loaded.model.training
    assert loaded.model.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name


def test_the_folder_holds_what_is_documented(checkpoint_path: Path, model_config: ModelConfig) -> None:
    files = {str(path.relative_to(checkpoint_path)) for path in checkpoint_path.rglob("*") if path.is_file()}
    tailors = {f"tailors/{info.id}.safetensors" for info in model_config.classes}
    assert files == {"config.json", "learngene.safetensors"} | tailors
    tailor = load_file(checkpoint_path / "tailors" / f"{LEMON}.safetensors")
    assert tailor["blocks.1.mlp.up.U"].shape == (128, 2)
    assert tailor["blocks.1.mlp.up.s"].shape == (2,)
    assert tailor["blocks.1.mlp.up.V"].shape == (32, 2)
    assert tailor["label_embedding"].shape == (32,)


@pytest.mark.parametrize("dit", CONFIGS.values(), ids=CONFIGS)
def test_a_subset_is_the_full_model_for_its_classes(tmp_path: Path, dit: DiTConfig) -> None:
    model = tiny_model(dit)
    save_checkpoint(tmp_path / "c", tiny_model_config(dit), model)
    subset = load_checkpoint(tmp_path / "c", [3, 0])
    assert [info.id for info in subset.config.classes] == ["n09428293", "n02510455"]
    assert subset.config.dit.num_classes == 2
    for index, full_index in ((0, 3), (1, 0), (-1, -1)):
        assert torch.equal(_run(subset.model, index), _run(model, full_index))


def test_only_the_asked_tailors_are_read(checkpoint_path: Path, model: KindDiT) -> None:
    full = load_checkpoint(checkpoint_path, [2])
    for file in (checkpoint_path / "tailors").iterdir():
        if LEMON not in file.name:
            file.unlink()
    alone = load_checkpoint(checkpoint_path, [2])
    assert torch.equal(_run(alone.model, 0), _run(model, 2))
    assert alone.sha256 == full.sha256


def test_the_hash_covers_exactly_the_files_read(checkpoint_path: Path) -> None:
    before = load_checkpoint(checkpoint_path, [2]).sha256
    assert load_checkpoint(checkpoint_path, [2]).sha256 == before
    assert load_checkpoint(checkpoint_path, [1]).sha256 != before
    _rewrite(tailor_path(checkpoint_path, "n02509815"), lambda tensors: tensors["label_embedding"].add_(1))
    assert load_checkpoint(checkpoint_path, [2]).sha256 == before
    _rewrite(tailor_path(checkpoint_path, LEMON), lambda tensors: tensors["label_embedding"].add_(1))
    assert load_checkpoint(checkpoint_path, [2]).sha256 != before


def test_saving_twice_gives_the_same_bytes(tmp_path: Path, model: KindDiT, model_config: ModelConfig) -> None:
    for name in ("a", "b"):
        save_checkpoint(tmp_path / name, model_config, model)
    for file in (tmp_path / "a").rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_stored_small_and_loaded_as_fp32(
    tmp_path: Path, model: KindDiT, model_config: ModelConfig, dtype: torch.dtype
) -> None:
    save_checkpoint(tmp_path / "c", model_config, model, dtype=dtype)
    assert load_file(tmp_path / "c" / "learngene.safetensors")["patch_embedding.weight"].dtype == dtype
    loaded = load_checkpoint(tmp_path / "c").model
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.to(dtype).float()), name


def test_a_checkpoint_is_not_overwritten_without_force(
    checkpoint_path: Path, model: KindDiT, model_config: ModelConfig
) -> None:
    with pytest.raises(OutputError, match="already exists"):
        save_checkpoint(checkpoint_path, model_config, model)
    other = tiny_model(seed=1)
    save_checkpoint(checkpoint_path, model_config, other, force=True)
    assert torch.equal(load_checkpoint(checkpoint_path).model.tailors.weight, other.tailors.weight)


def test_a_subset_of_ranks_by_class_keeps_them() -> None:
    config = subset_config(tiny_model_config(CONFIGS["ranks by class"]), [3, 1])
    assert config.dit.ranks == (3, 0)
    assert subset_config(tiny_model_config(), [2]).dit.tailor_ranks is None


def _rewrite(file: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def _drop(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.pop(name)


def _put(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({name: tensor})


@pytest.mark.parametrize("file", ["learngene.safetensors", f"tailors/{LEMON}.safetensors"])
class TestBrokenFiles:
    """Each error names the file, and the tensor where there is one."""

    def _fail(self, checkpoint_path: Path, file: str) -> CheckpointError:
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(checkpoint_path)
        assert str(checkpoint_path / file) in caught.value.message
        return caught.value

    def _name(self, file: str) -> str:
        return "blocks.0.attn.q.U"  # in both files, of 8 and of 2 components

    def test_missing_file(self, checkpoint_path: Path, file: str) -> None:
        (checkpoint_path / file).unlink()
        error = self._fail(checkpoint_path, file)
        assert error.message.startswith("missing file")
        assert "download" in error.hint

    @pytest.mark.parametrize("size", [0, 4, 100, 1000])
    def test_truncated_file(self, checkpoint_path: Path, file: str, size: int) -> None:
        os.truncate(checkpoint_path / file, size)
        assert "is not a whole safetensors file" in self._fail(checkpoint_path, file).message

    def test_last_byte_missing(self, checkpoint_path: Path, file: str) -> None:
        os.truncate(checkpoint_path / file, (checkpoint_path / file).stat().st_size - 1)
        assert "is not a whole safetensors file" in self._fail(checkpoint_path, file).message

    def test_a_pickle_is_not_read(self, checkpoint_path: Path, file: str) -> None:
        torch.save({self._name(file): torch.zeros(1)}, checkpoint_path / file)
        assert "is not a whole safetensors file" in self._fail(checkpoint_path, file).message

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_not_finite(self, checkpoint_path: Path, file: str, value: float) -> None:
        name = self._name(file)
        _rewrite(checkpoint_path / file, lambda tensors: tensors[name][1, 1].fill_(value))
        message = self._fail(checkpoint_path, file).message
        assert f"{name!r} holds NaN or infinity, expected finite numbers" in message

    def test_wrong_shape(self, checkpoint_path: Path, file: str) -> None:
        name, rank = self._name(file), 8 if "learngene" in file else 2
        _rewrite(checkpoint_path / file, _put(name, torch.zeros(32, 9)))
        message = self._fail(checkpoint_path, file).message
        assert f"{name!r} has shape [32, 9], expected [32, {rank}]" in message

    def test_missing_tensor(self, checkpoint_path: Path, file: str) -> None:
        name, rank = self._name(file), 8 if "learngene" in file else 2
        _rewrite(checkpoint_path / file, _drop(name))
        message = self._fail(checkpoint_path, file).message
        assert f"has no tensor {name!r}, expected shape [32, {rank}]" in message

    def test_extra_tensor(self, checkpoint_path: Path, file: str) -> None:
        _rewrite(checkpoint_path / file, _put("blocks.7.attn.q.U", torch.zeros(1)))
        message = self._fail(checkpoint_path, file).message
        assert "has a tensor 'blocks.7.attn.q.U' that the config does not expect" in message

    def test_a_folder_in_its_place(self, checkpoint_path: Path, file: str) -> None:
        (checkpoint_path / file).unlink()
        (checkpoint_path / file).mkdir()
        self._fail(checkpoint_path, file)


def _edit_config(path: Path, **changes: object) -> None:
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_newer_format_says_what_to_do(checkpoint_path: Path) -> None:
    _edit_config(checkpoint_path, format_version=FORMAT_VERSION + 1)
    with pytest.raises(CheckpointError, match=f"format_version {FORMAT_VERSION + 1}, .* up to") as caught:
        load_checkpoint(checkpoint_path)
    assert "upgrade" in caught.value.hint


def test_an_unknown_field_is_named(checkpoint_path: Path) -> None:
    _edit_config(checkpoint_path, licence="mit")
    with pytest.raises(ConfigError, match=r"unknown field 'licence' in config\.json"):
        load_checkpoint(checkpoint_path)


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"panda"])
def test_a_config_that_is_not_json_is_named(checkpoint_path: Path, content: bytes) -> None:
    (checkpoint_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json is not JSON"):
        read_config(checkpoint_path)


def test_a_config_that_is_a_list_is_named(checkpoint_path: Path) -> None:
    (checkpoint_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config\.json holds a list, expected an object"):
        read_config(checkpoint_path)


def test_a_config_that_cannot_be_read_is_named(checkpoint_path: Path) -> None:
    (checkpoint_path / "config.json").unlink()
    (checkpoint_path / "config.json").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot read .*config\.json"):
        read_config(checkpoint_path)


def test_a_folder_without_config_is_no_checkpoint(checkpoint_path: Path) -> None:
    (checkpoint_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        read_config(checkpoint_path)


def test_no_folder_is_no_checkpoint(checkpoint_path: Path) -> None:
    shutil.rmtree(checkpoint_path)
    with pytest.raises(CheckpointError, match="no checkpoint folder at"):
        read_config(checkpoint_path)
