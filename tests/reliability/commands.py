"""The commands that are troubled, with models that train and export in a second, and what each has to leave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tiny_training import TINY_DIT, make_photos, tiny_preset, write_folder

import kind_train.start.shape
from kind_core.checkpoint import load_checkpoint, save_checkpoint
from kind_core.config import DiffusionConfig, ModelConfig
from kind_train.data import requests
from kind_train.data.latents import open_cache
from kind_train.options_file import check_options
from kind_train.run.run_folder import read_step
from tiny import CLASSES, tiny_config, tiny_model, tiny_model_config
from tiny_autoencoder import save_autoencoder

_FAST = (
    *("--batch-size", "4", "--images", "48", "--learning-rate", "1e-2", "--device", "cpu"),
    *("--save-every", "12", "--sample-every", "24", "--val-fraction", "0.3"),
)
_EXPORT = ("--steps", "2", "--target", "onnx", "--checkpoint", "{inputs}/model")
_FLOW = DiffusionConfig(noise_schedule="flow", prediction_type="sample", sampler="dpmpp", steps=4, guidance_scale=2.0)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line whose output is `output`; `{inputs}` in it is the folder of what it reads.

    `goes_on` is added where it has been broken off, in place of `--force`. `check` raises where what stands at the
    output is half; `read` is what an uninterrupted one gives, equal for equal runs. `prepare` puts beside the output
    what the command changes.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    output: str
    check: Callable[[Path], object]
    read: Callable[[Path], dict[str, Any]]
    goes_on: str | None = None
    takes_force: bool = True
    prepare: Callable[[Path, Path], object] = lambda inputs, folder: None

    def line(self, inputs: Path, *more: str) -> list[str]:
        """Its arguments."""
        return [one.replace("{inputs}", str(inputs)) for one in (*self.arguments, *more)]


def make_inputs(inputs: Path) -> None:
    """Photos, an autoencoder and models."""
    write_folder(inputs / "photos", make_photos(12))
    write_folder(inputs / "novel", make_photos(12, seed=3))
    write_folder(inputs / "large", make_photos(11, size=16))
    save_autoencoder(inputs / "vae", "AutoencoderKL")
    _, diffusion = tiny_preset("")
    base = ModelConfig(dit=TINY_DIT, diffusion=diffusion, classes=CLASSES[:3])
    save_checkpoint(inputs / "base", base, tiny_model(TINY_DIT))
    teacher = replace(TINY_DIT, depth=3)
    save_checkpoint(
        inputs / "teacher",
        ModelConfig(dit=teacher, diffusion=_FLOW, classes=make_photos().classes),
        tiny_model(teacher),
    )
    dit = tiny_config(num_classes=2, depth=1)
    model = tiny_model_config(
        dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample", sampler="dpmpp", steps=4
    )
    save_checkpoint(inputs / "model", model, tiny_model(dit))


def make_tiny() -> None:
    """Have the commands train the tiny model, and cache in shards of four photos."""
    kind_train.start.shape.preset = tiny_preset  # type: ignore[attr-defined]
    requests.CacheRequest = partial(requests.CacheRequest, shard_rows=4)  # type: ignore[misc, assignment]


def check_run(folder: Path) -> None:
    """Every checkpoint that is there is whole, and so is the state."""
    for name in ("best", "last"):
        if (folder / name).exists():
            load_checkpoint(folder / name)
    read_step(folder)
    if (folder / "options.yaml").exists():
        check_options(folder / "options.yaml")


def read_run(folder: Path) -> dict[str, Any]:
    """Weights and metrics."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None)
    return {"metrics": lines, **read_files(folder, "best", "last", "state")}


def read_files(folder: Path, *parts: str) -> dict[str, Any]:
    """The bytes of the files in parts of a folder, by name; without parts, in all of it."""
    places = [folder / part for part in parts] or [folder]
    files = (file for place in places for file in sorted(place.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def check_cache(folder: Path) -> None:
    """A cache is unfinished, or whole."""
    if json.loads((folder / "cache.json").read_text())["finished"]:
        open_cache(folder)


def check_bundle(folder: Path) -> None:
    """Every file has its hash."""
    from kind_runtimes.bundle import open_bundle

    open_bundle(folder)


def read_bundle(folder: Path) -> dict[str, Any]:
    """The hashes of all that is the same in every export."""
    return dict(json.loads((folder / "manifest.json").read_text())["files"])


def check_packs(folder: Path) -> None:
    """Every pack that is there can be read, and the base is whole."""
    from kind_runtimes.packs import read_pack

    check_bundle(folder)
    for file in (folder / "packs").glob("*.pack"):
        read_pack(file)


def check_results(file: Path) -> None:
    """It is a results file."""
    from kind_bench.results.results import read_results

    read_results(file)


def _copy_base(inputs: Path, folder: Path) -> None:
    shutil.copytree(inputs / "base.kind", folder / "base.kind")


def _run(name: str, *arguments: str) -> Command:
    return Command(
        name=name, module="kind_train.cli", arguments=(name, *arguments, *_FAST, "--output", "run"),
        output="run", check=check_run, read=read_run, goes_on="--resume",
    )  # fmt: skip


FIT = _run("fit", "--data", "{inputs}/photos")
ADAPT = _run("adapt", "--data", "{inputs}/novel", "--checkpoint", "{inputs}/base")
DISTILL = _run("distill", "--data", "{inputs}/photos", "--checkpoint", "{inputs}/teacher", "--steps", "2,1")
CACHE = Command(
    name="cache", module="kind_train.cli",
    arguments=(
        "cache", "--data", "{inputs}/large", "--autoencoder", "{inputs}/vae", "--size", "16", "--batch-size", "3",
        "--device", "cpu", "--output", "cache",
    ),
    output="cache", check=check_cache, read=read_files, goes_on="--resume",
)  # fmt: skip
EXPORT = Command(
    name="export", module="kind_export.cli",
    arguments=("--classes", "giant panda", *_EXPORT, "--output", "panda.kind"),
    output="panda.kind", check=check_bundle, read=read_bundle,
)  # fmt: skip
BASE = replace(
    EXPORT, name="export --packs", arguments=(*EXPORT.arguments[:-1], "base.kind", "--packs"), output="base.kind"
)
PACKS = Command(
    name="export --packs --base", module="kind_export.cli",
    arguments=("--classes", "red panda", *_EXPORT[4:], "--packs", "--base", "base.kind"),
    output="base.kind", check=check_packs, read=partial(read_files), prepare=_copy_base,
)  # fmt: skip
BENCH = Command(
    name="kind-bench run", module="kind_bench.cli",
    arguments=(
        "run", "{inputs}/base.kind", "--runtime", "onnx", "--repeat", "1", "--rounds", "1", "--warmup", "0",
        "--output", "here.json",
    ),
    output="here.json", check=check_results, read=lambda file: {},
)  # fmt: skip
COMMANDS: Sequence[Command] = (FIT, ADAPT, CACHE, DISTILL, EXPORT, PACKS, BENCH)
