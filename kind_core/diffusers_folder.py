"""A folder of diffusers with a class-conditional DiT, read as a dense checkpoint.

    model_index.json   transformer/   scheduler/   vae/          as facebook/DiT-XL-2-256, or transformer/ alone

Weights are safetensors, or a pickle that is loaded as weights only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kind_core.checkpoint import Checkpoint, subset_config
from kind_core.classes import ClassInfo
from kind_core.config import NOISE_SCHEDULES, AutoencoderConfig, DiffusionConfig, ModelConfig
from kind_core.diffusers_dit import from_diffusers, read_architecture
from kind_core.dit import KindDiT
from kind_core.errors import CheckpointError
from kind_core.hashing import hash_files
from kind_core.quiet import without_import_noise

if TYPE_CHECKING:
    from diffusers import DiTTransformer2DModel

GUIDANCE_SCALE = 4.0  # the default of diffusers' DiTPipeline
_INDEX_NAME = "model_index.json"
_WEIGHTS = "diffusion_pytorch_model*"
_TRANSFORMERS = ("DiTTransformer2DModel", "Transformer2DModel")  # the second is what older folders call the first
_SAMPLERS = {"DPMSolverMultistepScheduler": "dpmpp", "FlowMatchEulerDiscreteScheduler": "euler"}
_NUM_LABELS = 1000  # what diffusers takes where nothing is said
_MAX_DIFFERENCE = 1e-4  # of the range of the output: what two orders of summation leave in fp32


def read_diffusers_config(path: Path) -> ModelConfig:
    """The config of a folder: every label a class, by its number and by the names of `id2label`."""
    file = _transformer_folder(path) / "config.json"
    config = _read_json(file)
    if config.get("_class_name") not in _TRANSFORMERS:
        raise CheckpointError(
            f"{file} is of a {config.get('_class_name')}, expected a {_TRANSFORMERS[0]}",
            "only class-conditional DiT is read",
        )
    num_labels = config.get("num_embeds_ada_norm", _NUM_LABELS)
    if not isinstance(num_labels, int):
        raise CheckpointError(f"{file} has num_embeds_ada_norm {num_labels!r}, expected a number")
    return ModelConfig(
        dit=read_architecture(config, num_labels),
        diffusion=_read_diffusion(path / "scheduler" / "scheduler_config.json"),
        classes=_read_classes(path, num_labels),
        autoencoder=_read_autoencoder(path / "vae"),
    )


def load_diffusers(path: Path, classes: Sequence[int] | None = None) -> Checkpoint:
    """The dense model of `classes` (label numbers, all by default), in fp32, proven equal to diffusers' own.

    Raises CheckpointError for a folder that holds another network, or none.
    """
    full = read_diffusers_config(path)
    chosen = list(range(full.dit.num_classes)) if classes is None else list(classes)
    transformer = _load_transformer(_transformer_folder(path))
    model = from_diffusers(transformer, chosen)
    _require_equal(model, transformer, chosen, path)
    # the weights alone tell whether every block has embedders of its own
    config = replace(subset_config(full, chosen), dit=model.config)
    return Checkpoint(config=config, model=model, sha256=hash_files(_list_files(path)))


def _load_transformer(folder: Path) -> DiTTransformer2DModel:
    with without_import_noise():
        from diffusers import DiTTransformer2DModel
        from diffusers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # older folders hold settings that this class no longer has
    try:
        transformer = DiTTransformer2DModel.from_pretrained(folder, dtype=torch.float32, low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"diffusers cannot load {folder}: {reason}", "download it again") from error
    finally:
        logging.set_verbosity(verbosity)
    return transformer.eval()  # type: ignore[no-any-return]


@torch.no_grad()
def _require_equal(model: KindDiT, transformer: DiTTransformer2DModel, classes: Sequence[int], path: Path) -> None:
    """Raise CheckpointError where the converted model answers otherwise than diffusers' for a class or for null."""
    config = model.config
    shape = (2, config.in_channels, config.sample_size, config.sample_size)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    timesteps, null = torch.tensor([10.0, 900.0]), transformer.config.num_embeds_ada_norm
    theirs = transformer(latents, timesteps, torch.tensor([classes[-1], null])).sample
    labels = torch.tensor([len(classes) - 1, -1])
    difference = float((model(latents, timesteps, labels, labels) - theirs).abs().max())
    limit = _MAX_DIFFERENCE * float(theirs.max() - theirs.min())
    if not difference <= limit:
        raise CheckpointError(
            f"{path}: the converted model differs from diffusers' by {difference:.3g}, expected {limit:.3g} or less",
            "please report which model it is",
        )


def _transformer_folder(path: Path) -> Path:
    if (path / _INDEX_NAME).is_file():
        return path / "transformer"
    if (path / "config.json").is_file():
        return path
    raise CheckpointError(
        f"{path} is no diffusers folder: it has neither {_INDEX_NAME} nor config.json",
        "give the folder of a DiT pipeline, or of its transformer",
    )


def _read_diffusion(file: Path) -> DiffusionConfig:
    """The schedule that the model was trained with; without a file DiT's own: linear, epsilon."""
    if not file.is_file():
        return DiffusionConfig(guidance_scale=GUIDANCE_SCALE)
    data = _read_json(file)
    name = str(data.get("_class_name"))
    if name == "FlowMatchEulerDiscreteScheduler" or data.get("use_flow_sigmas"):
        is_euler = name == "FlowMatchEulerDiscreteScheduler"  # it takes a velocity and has no word for it
        return DiffusionConfig(
            noise_schedule="flow", sampler=_SAMPLERS.get(name, "dpmpp"),
            prediction_type="flow_prediction" if is_euler else data.get("prediction_type", "flow_prediction"),
            num_train_timesteps=data.get("num_train_timesteps", 1000), guidance_scale=GUIDANCE_SCALE,
        )  # fmt: skip
    for key in ("trained_betas", "rescale_betas_zero_snr"):
        if data.get(key):
            raise CheckpointError(f"{file} has {key}, expected one of {', '.join(NOISE_SCHEDULES)} as it is")
    defaults = DiffusionConfig()
    return DiffusionConfig(
        noise_schedule=data.get("beta_schedule", defaults.noise_schedule),
        prediction_type=data.get("prediction_type", defaults.prediction_type),
        num_train_timesteps=data.get("num_train_timesteps", defaults.num_train_timesteps),
        beta_start=data.get("beta_start", defaults.beta_start),
        beta_end=data.get("beta_end", defaults.beta_end),
        sampler=_SAMPLERS.get(name, "ddim"),
        guidance_scale=GUIDANCE_SCALE,
    )


def _read_classes(path: Path, num_labels: int) -> tuple[ClassInfo, ...]:
    """Label n is class `n`; `id2label` has its names, with commas between."""
    index = path / _INDEX_NAME
    known: Mapping[str, Any] = (_read_json(index).get("id2label") or {}) if index.is_file() else {}
    classes = []
    for number in range(num_labels):
        text = known.get(str(number), f"label {number}")
        names = tuple(name.strip() for name in str(text).split(",") if name.strip())
        classes.append(ClassInfo(id=str(number), names=names or (f"label {number}",)))
    return tuple(classes)


def _read_autoencoder(folder: Path) -> AutoencoderConfig | None:
    if not (folder / "config.json").is_file():
        return None
    data = _read_json(folder / "config.json")
    blocks = data.get("block_out_channels") or ()
    return AutoencoderConfig(
        kind=str(data.get("_class_name")),
        source=str(folder),
        scaling_factor=data.get("scaling_factor", 1.0),
        downscale=2 ** max(0, len(blocks) - 1),
    )


def _list_files(path: Path) -> list[Path]:
    """What the checkpoint's hash covers, in a fixed order."""
    folder = _transformer_folder(path)
    found = [path / _INDEX_NAME, path / "scheduler" / "scheduler_config.json", folder / "config.json"]
    return [file for file in (*found, *sorted(folder.glob(_WEIGHTS))) if file.is_file()]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}", "download the whole folder") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}", "download it again") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} holds a {type(data).__name__}, expected an object")
    return data
