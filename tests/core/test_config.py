from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from kind_core.config import (
    FORMAT_VERSION,
    AutoencoderConfig,
    DiffusionConfig,
    DiTConfig,
    ModelConfig,
    Provenance,
    on_schedule,
    preset,
)
from kind_core.dit import KindDiT
from kind_core.errors import CheckpointError, ClassNameError, ConfigError, KindError
from tiny import CLASSES, tiny_config, tiny_model_config


def test_a_config_survives_json() -> None:
    autoencoder = AutoencoderConfig(kind="AutoencoderTiny", source="vae", scaling_factor=0.5)
    base = tiny_model_config(tiny_config(tailor_ranks=(2, 0, 1, 2)), prediction_type="v_prediction")
    config = replace(base, autoencoder=autoencoder)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("name", "hidden", "depth", "heads", "patch", "learngene_rank", "tailor_rank"),
    [
        ("kind-b/2", 768, 12, 12, 2, 318, 3),
        ("KIND-L/2", 1024, 24, 16, 2, 424, 4),
        ("kind-s/4", 384, 12, 6, 4, 159, 3),
        ("kind-xl/8", 1152, 28, 16, 8, 477, 4),
        ("kind-mobile", 768, 12, 12, 2, 151, 3),
        ("kind-l-206", 1024, 24, 16, 2, 202, 4),
        ("dit-b/2", 768, 12, 12, 2, None, 0),
    ],
)
def test_presets_are_the_papers(
    name: str, hidden: int, depth: int, heads: int, patch: int, learngene_rank: int | None, tailor_rank: int
) -> None:
    dit, diffusion = preset(name)
    assert (dit.hidden_size, dit.depth, dit.num_heads, dit.patch_size) == (hidden, depth, heads, patch)
    assert (dit.learngene_rank, dit.tailor_rank, dit.num_classes) == (learngene_rank, tailor_rank, 150)
    assert (dit.sample_size, dit.in_channels, dit.out_channels) == (32, 4, 8)
    assert (diffusion.noise_schedule, diffusion.prediction_type) == ("linear", "epsilon")


@pytest.mark.parametrize(("name", "rank"), [("kind-b/2", 768), ("kind-l/2", 1024)])
def test_all_components_of_a_paper_preset_have_full_rank(name: str, rank: int) -> None:
    dit, _ = preset(name)
    assert dit.learngene_rank is not None
    assert dit.learngene_rank + sum(dit.ranks) == rank == dit.hidden_size


@pytest.mark.parametrize(("name", "size"), [("sample", 32), ("sample-64", 64)])
def test_the_sample_presets_are_in_pixels_and_have_a_dense_twin(name: str, size: int) -> None:
    dit, diffusion = preset(name)
    assert (dit.sample_size, dit.in_channels, dit.is_dense) == (size, 3, False)
    twin = replace(dit, learngene_rank=None, tailor_rank=0)
    assert preset(f"dit-{name}") == (twin, diffusion)


def test_the_sample_for_a_gpu_is_at_most_20_mb_in_fp16() -> None:
    dit, _ = preset("sample-64")
    assert sum(p.numel() for p in KindDiT(dit).parameters()) * 2 < 20e6


@pytest.mark.parametrize("name", ["kind-b", "kind-h/2", "vit-b/2", "kind-b/x", "", "kind-b/2/2", "kind-b/²"])
def test_an_unknown_preset_is_named_with_what_there_is(name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown preset .*kind-mobile") as caught:
        preset(name)
    assert repr(name) in caught.value.message
    assert "kind-b/2" in caught.value.hint
    with pytest.raises(ConfigError, match="unknown preset"):
        preset(f"kind-b/{'9' * 5000}")  # Python makes no number of it


def test_what_came_later_is_written_only_where_it_is_used() -> None:
    plain = tiny_model_config().to_dict()
    assert "provenance" not in plain
    assert not {"mlp_norm_eps", "block_embedders"} & plain["architecture"].keys()
    dit = tiny_config(mlp_norm_eps=1e-5, block_embedders=True)
    config = replace(tiny_model_config(dit), provenance=Provenance(author="A. Uthor", licence="mit"))
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert set(config.to_dict()["provenance"]) == {"author", "licence", "data"}
    told = replace(config, provenance=Provenance(training="without diversion"))
    assert ModelConfig.from_dict(json.loads(json.dumps(told.to_dict()))) == told
    with pytest.raises(ConfigError, match="provenance licence is 3, expected a text"):
        ModelConfig.from_dict({**plain, "provenance": {"licence": 3}})


def test_derived_shapes() -> None:
    config = tiny_config(learn_sigma=True, mlp_ratio=2.0)
    assert (config.num_tokens, config.mlp_size, config.out_channels) == (16, 64, 6)
    names = config.matrix_names()
    assert len(names) == 6 * config.depth
    assert ("blocks.1.mlp.up", 64, 32) in names
    assert ("blocks.0.attn.o", 32, 32) in names
    assert tiny_config().ranks == (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 0}, "depth is 0, expected a whole number from 1"),
        ({"hidden_size": "32"}, "hidden_size is '32'"),
        ({"num_classes": True}, "num_classes is True"),
        ({"learngene_rank": 0}, "learngene_rank is 0"),
        ({"patch_size": 3}, "sample_size 8 is not a multiple of patch_size 3"),
        ({"num_heads": 5}, "hidden_size 32 must be a multiple of 4 and of num_heads 5"),
        ({"hidden_size": 6, "num_heads": 2}, "hidden_size 6 must be a multiple of 4"),
        ({"tailor_ranks": (1, 2)}, "tailor_ranks has 2 entries, expected one for each of 4 classes"),
        ({"tailor_ranks": (1, 2, 3, -1)}, "tailor rank is -1, expected a whole number from 0"),
        ({"tailor_rank": 1.5}, "tailor rank is 1.5, expected a whole number from 0"),
        ({"learngene_rank": None}, "a dense model .* has no tailors"),
        ({"mlp_ratio": 0}, "mlp_ratio is 0, expected a number above 0"),
        ({"mlp_ratio": math.nan}, "mlp_ratio is nan"),
        ({"learn_sigma": "false"}, "learn_sigma is 'false', expected true or false"),
        ({"block_embedders": 1}, "block_embedders is 1, expected true or false"),
    ],
)
def test_a_wrong_architecture_names_value_and_expectation(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_schedule": "cosine"}, "noise_schedule is 'cosine', expected one of linear, .*flow"),
        ({"prediction_type": "noise"}, "prediction_type is 'noise', expected one of epsilon"),
        ({"noise_schedule": "flow"}, "'epsilon' does not go with noise_schedule 'flow'"),
        ({"noise_schedule": "flow", "prediction_type": "v_prediction"}, "'v_prediction' does not go with .*'flow'"),
        ({"prediction_type": "flow_prediction"}, "'flow_prediction' does not go with .* 'linear'"),
        ({"steps": 0}, "steps is 0"),
        ({"beta_start": 0}, "beta_start is 0, expected a number above 0"),
        ({"guidance_scale": "2"}, "guidance_scale is '2', expected a number"),
    ],
)
def test_a_wrong_schedule_names_value_and_expectation(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DiffusionConfig(**changes)


def test_a_wrong_autoencoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="autoencoder kind is 'VQModel', expected one of AutoencoderTiny"):
        AutoencoderConfig(kind="VQModel", source="x")


def test_classes_must_fit_the_architecture() -> None:
    dit, diffusion = tiny_config(), DiffusionConfig()
    with pytest.raises(ConfigError, match="3 classes are named, expected num_classes = 4"):
        ModelConfig(dit=dit, diffusion=diffusion, classes=CLASSES[:3])
    with pytest.raises(ConfigError, match="class id 'n02510455' appears twice"):
        ModelConfig(dit=dit, diffusion=diffusion, classes=(*CLASSES[:3], CLASSES[0]))


def _changed(path: str, value: Any) -> dict[str, Any]:
    """config.json as a dict with `value` at the dotted `path`; None as the value drops the key."""
    data: dict[str, Any] = json.loads(json.dumps(tiny_model_config().to_dict()))
    *parents, last = path.split(".")
    place: Any = data
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "error", "message"),
    [
        ("format_version", None, CheckpointError, "format_version None, expected an integer from 1"),
        ("format_version", "1", CheckpointError, "format_version '1'"),
        ("format_version", True, CheckpointError, "format_version True"),
        ("format_version", FORMAT_VERSION + 1, CheckpointError, f"reads up to {FORMAT_VERSION}"),
        ("architecture", None, CheckpointError, "config.json has no 'architecture'"),
        ("architecture", 3, ConfigError, "architecture in config.json is 3, expected an object"),
        (
            "architecture.width",
            3,
            ConfigError,
            "unknown field 'width' in architecture, expected block_embedders, depth",
        ),
        ("architecture.depth", None, ConfigError, "architecture: .*missing .*'depth'"),
        ("architecture.tailor_ranks", 3, ConfigError, "architecture: "),
        ("diffusion.eta", 0, ConfigError, "unknown field 'eta' in diffusion"),
        ("author", "x", ConfigError, "unknown field 'author' in config.json"),
        ("autoencoder", "taesd", ConfigError, "autoencoder in config.json is 'taesd', expected an object"),
        ("classes", "panda", ConfigError, "classes in config.json is 'panda', expected a list"),
        ("classes.2.names", "lemon", ConfigError, "'lemon'.*expected an id and a list of names"),
        ("classes.2.id", 7, ConfigError, "expected an id and a list of names"),
        ("classes.2.id", "../lemon", ClassNameError, "class id '../lemon' is not a plain file name"),
        ("classes.2.names", [], ClassNameError, "class 'n07749582' has no name"),
    ],
)
def test_a_wrong_config_file_is_one_clear_error(path: str, value: Any, error: type[KindError], message: str) -> None:
    with pytest.raises(error, match=message):
        ModelConfig.from_dict(_changed(path, value))


def test_a_config_file_without_autoencoder_is_in_pixels() -> None:
    assert ModelConfig.from_dict(_changed("diffusion.steps", 7)).diffusion.steps == 7
    data = _changed("diffusion.steps", 7)
    del data["autoencoder"]
    assert ModelConfig.from_dict(data).autoencoder is None


def test_configs_are_values() -> None:
    assert tiny_config() == tiny_config()
    assert hash(tiny_config()) == hash(tiny_config())
    with pytest.raises(AttributeError):
        DiTConfig.__setattr__(tiny_config(), "depth", 3)


@pytest.mark.parametrize(
    ("name", "noise_schedule", "expected"),
    [
        ("sample", "flow", ("flow", "sample", "dpmpp")),
        ("sample", "linear", ("linear", "sample", "dpmpp")),
        ("kind-b/2", "flow", ("flow", "flow_prediction", "dpmpp")),
        ("kind-b/2", "scaled_linear", ("scaled_linear", "epsilon", "ddim")),
        ("sample-64-cpu", "squaredcos_cap_v2", ("squaredcos_cap_v2", "sample", "dpmpp")),
    ],
)
def test_another_schedule_keeps_what_is_predicted(name: str, noise_schedule: str, expected: tuple[str, ...]) -> None:
    diffusion = on_schedule(preset(name)[1], noise_schedule)
    assert (diffusion.noise_schedule, diffusion.prediction_type, diffusion.sampler) == expected


def test_the_larger_sample_for_a_cpu_has_the_tokens_of_the_smaller() -> None:
    small, large = preset("sample")[0], preset("sample-64-cpu")[0]
    assert (large.num_tokens, large.sample_size) == (small.num_tokens, 64)
    assert large.matrix_shapes == small.matrix_shapes
