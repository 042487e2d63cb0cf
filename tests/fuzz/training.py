"""What training reads, and folders of diffusers, as subjects: runs, caches of latents, classifiers, pipelines."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzz import mutations


def _write_copy(made: dict[str, bytes], folder: Path, rng: Random) -> Path:
    """A folder of which one file is changed as files of its ending are, or is no file; documents most of the time."""
    for name, content in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    documents = [name for name in made if Path(name).suffix in (".json", ".jsonl", ".yaml")]
    name = rng.choice(sorted(made) if rng.randrange(3) == 0 else sorted(documents))
    (folder / name).write_bytes(_change(name, made[name], rng))
    if rng.randrange(12) == 0:
        mutations.no_file(folder / name, rng)
    return folder


def _change(name: str, content: bytes, rng: Random) -> bytes:
    suffix = Path(name).suffix
    if suffix == ".json":
        return mutations.encode_json(mutations.mutate_document(json.loads(content), rng), rng)
    if suffix == ".jsonl":
        lines = [json.loads(line) for line in content.splitlines()]
        changed = mutations.mutate_document(lines, rng)
        return b"".join(mutations.encode_json(line, rng) + b"\n" for line in changed)
    if suffix == ".safetensors":
        return mutations.mutate_safetensors(content, rng)
    return mutations.flip_bytes(content, rng)


def _read_made(make: Callable[[Path], None]) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "made"
        make(folder)
        return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


# ---- runs


@cache
def _run_files() -> dict[str, bytes]:
    from tiny_training import make_config

    from kind_train.run.metrics import append_metrics
    from kind_train.run.run_folder import start_run_folder

    def make(folder: Path) -> None:
        start_run_folder(make_config(folder), resume=False, force=False)
        _open_trainer(folder, resume=False).save()
        for step in range(1, 4):
            append_metrics(folder, {"step": step, "images": 4 * step, "loss": 1 / step, "held_out_loss": 2 / step})

    return _read_made(make)


def _open_trainer(folder: Path, *, resume: bool) -> Any:  # a Trainer, which loads torch
    from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config, make_photos

    from kind_train.run.trainer import Trainer
    from kind_train.start.shape import Shape

    photos = make_photos()
    return Trainer(
        make_config(folder), photos, photos, resume=resume, shape=Shape(dit=TINY_DIT, diffusion=TINY_DIFFUSION)
    )


def write_run(folder: Path, rng: Random) -> Path:
    """A run that can be resumed."""
    return _write_copy(_run_files(), folder, rng)


def use_run(place: Path) -> None:
    """As `fit --resume` does, up to the first step."""
    from kind_train.options_file import check_options
    from kind_train.plots import draw_losses
    from kind_train.run.metrics import read_metrics
    from kind_train.run.run_folder import check_run_folder, read_step

    check_options(place / "options.yaml")
    check_run_folder(place, resume=True, force=False)
    assert read_step(place) is not None
    _open_trainer(place, resume=True)
    draw_losses([record for _, record in read_metrics(place)], place / "losses.png")


# ---- caches of latents


@cache
def _cache_files() -> dict[str, bytes]:
    import torch
    from safetensors.torch import save_file

    from kind_core.autoencoder import read_autoencoder
    from kind_train.data.cache_files import CacheFile, CacheSettings, write_cache_file
    from tiny import CLASSES
    from tiny_autoencoder import save_autoencoder

    def make(folder: Path) -> None:
        save_autoencoder(folder / "autoencoder", "AutoencoderTiny")
        shard = folder / "shards" / "00000"
        shard.mkdir(parents=True)
        np.save(shard / "latents.npy", np.ones((3, 1, 4, 8, 8), np.float16))
        (shard / "hashes.json").write_text(json.dumps(["0" * 64] * 3))
        save_file({"rows": torch.arange(3), "labels": torch.tensor([0, 1, 1])}, folder / "index.safetensors")
        settings = CacheSettings(
            autoencoder=read_autoencoder(folder / "autoencoder"), autoencoder_sha256="0" * 64, size=16, flip=False,
            shard_rows=8,
        )  # fmt: skip
        write_cache_file(folder, CacheFile(settings=settings, classes=CLASSES[:2], finished=True))

    return _read_made(make)


def write_cache(folder: Path, rng: Random) -> Path:
    """A finished cache of three photos."""
    return _write_copy(_cache_files(), folder, rng)


def use_cache(place: Path) -> None:
    """Every latent is read and one is decoded."""
    import torch

    from kind_train.data.latents import open_cache

    found = open_cache(place)
    stored = found.read(torch.arange(len(found)))
    assert len(stored) == len(found.digests())
    inputs = found.to_input(stored, torch.Tensor)
    assert found.decoder(torch.device("cpu"))(inputs[:1].float()).shape[1] == 3


# ---- classifiers


@cache
def _classifier_file() -> bytes:
    from tiny_training import make_photos

    from kind_train.evaluate.small_classifier import save_classifier, train_classifier

    with tempfile.TemporaryDirectory() as folder:
        save_classifier(Path(folder) / "c", *train_classifier(make_photos(size=16), make_photos(size=16), images=64))
        return (Path(folder) / "c").read_bytes()


def write_classifier(folder: Path, rng: Random) -> Path:
    """A judge of three classes."""
    content, file = _classifier_file(), folder / "judge.safetensors"
    changed = (
        mutations.mutate_metadata(content, "kind_classifier", rng) if rng.randrange(2) else
        mutations.mutate_safetensors(content, rng)
    )  # fmt: skip
    file.write_bytes(changed)
    if rng.randrange(12) == 0:
        mutations.no_file(file, rng)
    return file


def use_classifier(place: Path) -> None:
    """It judges a picture of its own size."""
    from kind_train.evaluate.small_classifier import SmallClassifier

    judge = SmallClassifier(place)
    side = judge.info.size
    assert len(judge.classify(np.zeros((1, side, side, 3), np.uint8)).logits[0]) == len(judge.info.classes)


# ---- folders of diffusers


@cache
def _pipeline_files() -> dict[str, bytes]:
    from diffusers_folders import write_folder
    from tiny_autoencoder import save_autoencoder

    def make(folder: Path) -> None:
        write_folder(folder)
        save_autoencoder(folder / "vae", "AutoencoderKL")

    return _read_made(make)


def write_pipeline(folder: Path, rng: Random) -> Path:
    """A transformer, a scheduler and an autoencoder."""
    return _write_copy(_pipeline_files(), folder, rng)


def use_pipeline(place: Path) -> None:
    """A step and a picture of it."""
    import torch

    from kind_core.autoencoder import load_autoencoder, read_autoencoder
    from kind_core.diffusers.folder import load_diffusers, read_diffusers_config
    from kind_core.schedule import choose_sampling, read_sampler_table

    config = read_diffusers_config(place)
    sampling = choose_sampling(config.diffusion)
    read_sampler_table(config.diffusion, sampling.sampler, sampling.steps)
    checkpoint = load_diffusers(place, [0])
    dit = checkpoint.config.dit
    latents, label = torch.randn(1, dit.in_channels, dit.sample_size, dit.sample_size), torch.tensor([0])
    with torch.no_grad():
        assert checkpoint.model(latents, torch.tensor([10.0]), label, label).shape[2:] == latents.shape[2:]
        if config.autoencoder is not None:
            decoder = load_autoencoder(place / "vae", read_autoencoder(place / "vae"))
            assert decoder.decode(latents).sample.shape[1] == 3


# ---- golden data


def write_golden(folder: Path, rng: Random) -> Path:
    """A bundle whose golden data are changed, with a hash that is right."""
    from fuzz.subjects import write_bundle
    from kind_core.files.hashing import hash_file

    data = write_bundle(folder)
    (folder / "golden.safetensors").write_bytes(mutations.mutate_safetensors(_golden_file(), rng))
    hashed = {"sha256": hash_file(folder / "golden.safetensors"), "size_bytes": 1}
    data["files"]["golden.safetensors"] = hashed
    (folder / "manifest.json").write_text(json.dumps(data))
    return folder


@cache
def _golden_file() -> bytes:
    """What the small programs of `subjects` give."""
    from safetensors.numpy import save

    from fuzz.subjects import write_bundle
    from kind_core.noise import start_noise
    from kind_runtimes.bundle import open_bundle
    from kind_runtimes.generator import open_generator

    with tempfile.TemporaryDirectory() as place:
        write_bundle(Path(place))
        generator = open_generator(Path(place), open_bundle(Path(place)).manifest, "onnx")
        noise = start_noise(0, (1, 3, 8, 8))
        tensors = {}
        for index in range(2):
            latents = [noise, *generator.trajectory(noise, index)]
            assert generator.decode is not None
            image = generator.decode({"latents": latents[-1]})["image"]
            tensors |= {f"{index}.noise": noise, f"{index}.latents": np.concatenate(latents), f"{index}.image": image}
        return bytes(save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}))
