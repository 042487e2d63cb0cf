"""The diffusers folder of a bundle, its pipeline called step by step like every other program.

Opening it runs the `pipeline.py` of the folder: a bundle from elsewhere is code, which no other program is.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from diffusers.utils import dynamic_modules_utils, logging

from kind_core.console.quiet import without_import_noise
from kind_core.errors import BundleError, TargetError
from kind_core.files.json_files import read_json
from kind_runtimes.engines.runtime import DEFAULT_OPTIONS, Arrays, EngineOptions, check_inputs
from kind_runtimes.manifest import ProgramSpec

with without_import_noise():
    from diffusers import DiffusionPipeline, DiTTransformer2DModel  # noqa: F401  # the second, which imports torchao

_INDEX_NAME = "model_index.json"


class DiffusersStep:
    """One step of the pipeline's sampler: its own `predict`, then its scheduler, set to where the step stands."""

    def __init__(self, file: Path, spec: ProgramSpec) -> None:
        self._pipeline = open_pipeline(file, without=("vae",))
        self._spec = spec
        self.engine = _engine()

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        check_inputs(inputs, self._spec)
        pipeline, scheduler = self._pipeline, self._pipeline.scheduler
        index, class_index = (int(inputs[name][0]) for name in ("step_index", "class_index"))
        steps, latents = pipeline.config.steps, torch.from_numpy(inputs["latents"])
        _stand_at(scheduler, steps, index, inputs.get("history"))
        scale = float(inputs["guidance"][0]) if pipeline.is_guided(index, steps) else 1.0
        timestep = scheduler.timesteps[index]
        output = pipeline.predict(latents, timestep, [class_index], scale)
        outputs = {"next_latents": scheduler.step(output, timestep, latents).prev_sample.numpy()}
        if "history" in inputs:
            outputs["next_history"] = scheduler.model_outputs[-1].numpy()
        return outputs


class DiffusersDecode:
    """The pipeline's way from latents to a picture, without its transformers."""

    def __init__(self, file: Path, spec: ProgramSpec) -> None:
        self._pipeline = open_pipeline(file.parent, only=("vae", "scheduler"))
        self._spec = spec
        self.engine = _engine()

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        (latents,) = check_inputs(inputs, self._spec)
        return {"image": self._pipeline.decode(torch.from_numpy(latents)).numpy()}


def open_program(
    file: Path, spec: ProgramSpec, *, options: EngineOptions = DEFAULT_OPTIONS
) -> DiffusersStep | DiffusersDecode:
    """Open `step`, whose file is the folder, or `decode`, whose file is what decodes in it."""
    if options != DEFAULT_OPTIONS:
        raise TargetError("diffusers was asked for threads or a provider, which torch alone decides", "leave them out")
    return DiffusersStep(file, spec) if spec.name == "step" else DiffusersDecode(file, spec)


def open_pipeline(folder: Path, *, without: tuple[str, ...] = (), only: tuple[str, ...] = ()) -> Any:
    """The pipeline of a folder in fp32 on the CPU, as a user opens it; raises BundleError where diffusers cannot.

    `without` names components that are not loaded; with `only`, no other component is.
    """
    components = _list_components(folder)
    absent = [name for name in components if name in without or (only and name not in only)]
    try:
        with _own_module_cache(), _quiet():
            return DiffusionPipeline.from_pretrained(
                str(folder),
                custom_pipeline=str(folder),
                trust_remote_code=True,
                dtype=torch.float32,
                low_cpu_mem_usage=False,
                **dict.fromkeys(absent),
            )
    except (OSError, ValueError, RuntimeError, AttributeError, SyntaxError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"diffusers cannot load {folder}: {reason}", "export the bundle again") from error


def _list_components(folder: Path) -> list[str]:
    try:
        index = read_json(folder / _INDEX_NAME)
        return [
            name
            for name, value in index.items()
            if isinstance(value, list) and not name.startswith("_") and (folder / name).is_dir()
        ]
    except (OSError, ValueError, AttributeError) as error:
        raise BundleError(f"cannot read {folder / _INDEX_NAME}: {error}", "export the bundle again") from error


def _stand_at(scheduler: Any, steps: int, index: int, history: np.ndarray | None) -> None:
    """Put a scheduler where it stands before step `index`; `history` is what a multistep one remembers."""
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)
    if history is not None:
        scheduler.model_outputs = [None, torch.from_numpy(history)]
        scheduler.lower_order_nums = min(index, 1)


def _engine() -> str:
    return f"diffusers {version('diffusers')} in torch {version('torch')} on CPU"


@contextmanager
def _own_module_cache() -> Iterator[None]:
    """diffusers copies every folder's pipeline.py to one place in the home directory before it imports it.

    There two folders opened at the same time would take each other's code.
    """
    before = list(sys.path)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(dynamic_modules_utils, "HF_MODULES_CACHE", folder),
    ):
        try:
            yield
        finally:
            sys.path[:] = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Without diffusers' loading bar."""
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()
