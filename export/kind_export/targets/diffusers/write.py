"""A folder for diffusers: the learngene and each class as `DiTTransformer2DModel`s behind a pipeline of its own.

Unlike the programs it keeps the weights as trained, without rewrites: a dense matrix for every class. A dense model has
one transformer for all of its classes, which predicts the null half too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kind_core.autoencoder import copy_autoencoder
from kind_core.checkpoint import Checkpoint
from kind_core.config import ModelConfig
from kind_core.diffusers.dit import to_diffusers
from kind_core.dit import dense_state
from kind_core.precisions import PrecisionName
from kind_core.samplers import Sampling
from kind_core.schedule import make_scheduler
from kind_export.compact.model import CompactModel
from kind_export.targets.class_functions import name_functions
from kind_export.targets.lowering import Written
from kind_export.targets.programs import decode_contract, step_contract
from kind_export.targets.target import Facts
from kind_runtimes.documents.pipeline import PipelineSettings
from kind_runtimes.manifest import ProgramSpec, TargetSpec

NAME = "diffusers"
PIPELINE_FILE = "pipeline.py"
_LEARNGENE = "learngene"
_VAE = "vae"
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """A transformer of the folder: the gate that it has open and the classes whose labels it knows, null apart."""

    name: str
    gate: int | None
    labels: tuple[int, ...]


def lower_pipeline(
    folder: Path,
    checkpoint: Checkpoint,
    compact: CompactModel,
    sampling: Sampling,
    precision: PrecisionName,
    autoencoder: Path | None = None,
) -> Written:
    """Write the folder into a bundle folder. Its pipeline is called like a program too, with the inputs of all."""
    facts = write_pipeline(folder / NAME, checkpoint, sampling, precision, autoencoder)
    inputs, outputs = step_contract(compact)
    step = ProgramSpec(name="step", file=NAME, inputs=inputs, outputs=outputs)
    programs = {"step": step}
    decode = decode_contract(compact)
    if decode is not None:
        # the part that decodes: the autoencoder, or for pixels the pipeline's own code
        file = f"{NAME}/{PIPELINE_FILE if autoencoder is None else _VAE}"
        programs["decode"] = ProgramSpec(name="decode", file=file, inputs=decode[0], outputs=decode[1])
    spec = TargetSpec(target=NAME, precision=precision, programs=programs)
    return Written(spec=spec, facts={"step": facts})


def write_pipeline(
    folder: Path, checkpoint: Checkpoint, sampling: Sampling, precision: PrecisionName, autoencoder: Path | None = None
) -> Facts:
    """Write the classes of `checkpoint`, sampled as `sampling` says, to a new folder; returns facts for the manifest.

    `autoencoder` is the diffusers folder of the checkpoint's, if it has one; its weights are copied as they are.
    """
    folder.mkdir(parents=True)
    config, parts = checkpoint.config, list(_parts(checkpoint))
    table = checkpoint.model.tailors.label_embeddings().detach()
    null = checkpoint.model.null_label_embedding.detach()[None]
    for part in parts:
        state = dense_state(checkpoint.model, part.gate)
        # diffusers' table has a class at least: the learngene's stands for none and is the null label again
        labels = torch.cat([table[list(part.labels)] if part.labels else null, null])
        transformer = to_diffusers(config.dit, state, labels)
        nn.Module.to(transformer, _DTYPES[precision])  # diffusers' own `to` warns that it casts
        transformer.save_pretrained(folder / part.name)
    scheduler = make_scheduler(config.diffusion, sampling.sampler, sampling.steps)
    scheduler.save_pretrained(folder / "scheduler")
    settings, vae = _settings(checkpoint.config, parts, sampling), None
    if autoencoder is not None:
        assert config.autoencoder is not None, "an autoencoder's folder without its settings"
        vae = config.autoencoder.kind
        copy_autoencoder(autoencoder, folder / _VAE, is_linked=False)
    (folder / "model_index.json").write_text(_index(parts, scheduler, settings, vae), encoding="utf-8")
    (folder / PIPELINE_FILE).write_text(_render(parts, scheduler, settings, vae), encoding="utf-8")
    return {"components": [part.name for part in parts], "scheduler": type(scheduler).__name__}


def _parts(checkpoint: Checkpoint) -> Iterator[_Part]:
    count = checkpoint.config.dit.num_classes
    if checkpoint.config.dit.is_dense:
        yield _Part(name=_LEARNGENE, gate=None, labels=tuple(range(count)))
        return
    yield _Part(name=_LEARNGENE, gate=None, labels=())
    for index, name in enumerate(name_functions(checkpoint.config.classes).values()):
        yield _Part(name=f"transformer_{name}", gate=index, labels=(index,))


def _settings(config: ModelConfig, parts: list[_Part], sampling: Sampling) -> PipelineSettings:
    """What the pipeline keeps beside its components."""
    places = {index: (part.name, label) for part in parts for label, index in enumerate(part.labels)}
    return {
        "classes": {
            info.id: {"names": list(info.names), "component": places[index][0], "label": places[index][1]}
            for index, info in enumerate(config.classes)
        },
        "null_label": max(1, len(parts[0].labels)),
        "steps": sampling.steps,
        "guidance_scale": sampling.guidance_scale,
        "guidance_interval": list(sampling.guidance_interval),
        "scaling_factor": 1.0 if config.autoencoder is None else config.autoencoder.scaling_factor,
        "shift_factor": 0.0 if config.autoencoder is None else config.autoencoder.shift_factor,
    }


def _index(parts: list[_Part], scheduler: Any, settings: PipelineSettings, vae: str | None) -> str:
    index = {
        "_class_name": [Path(PIPELINE_FILE).stem, "KindPipeline"],
        "_diffusers_version": version("diffusers"),
        "scheduler": ["diffusers", type(scheduler).__name__],
        **{part.name: ["diffusers", "DiTTransformer2DModel"] for part in parts},
        **({} if vae is None else {_VAE: ["diffusers", vae]}),
        **settings,
    }
    return json.dumps(index, indent=2, ensure_ascii=False) + "\n"


def _render(parts: list[_Part], scheduler: Any, settings: PipelineSettings, vae: str | None) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("kind_export"), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    classes = settings["classes"]
    class_id, entry = next(iter(classes.items()))
    transformers = [part.name for part in parts if part.name != _LEARNGENE]
    return environment.get_template("diffusers_pipeline.py.jinja").render(
        **settings,
        # names come from the checkpoint and this is code: ids are file names, a name may be anything
        example=entry["names"][0] if re.fullmatch(r"[\w .-]+", entry["names"][0]) else class_id,
        transformers=transformers,
        classes_of={name: [one for one, its in classes.items() if its["component"] == name] for name in transformers},
        imports=sorted({"DiffusionPipeline", "DiTTransformer2DModel", type(scheduler).__name__, *filter(None, [vae])}),
        scheduler=type(scheduler).__name__,
        vae=vae,
    )
