"""A cache of latents: what it holds, that it goes on where it was interrupted, and that training reads it."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from tiny_training import TINY_DIFFUSION, make_config, make_photos, write_folder

from kind_core.autoencoder import load_autoencoder, read_autoencoder
from kind_core.checkpoint import load_checkpoint, read_config
from kind_core.errors import ConfigError, DataError, KindError, OutputError
from kind_train.cli import main
from kind_train.data import caching
from kind_train.data.caching import CacheRequest, CacheResult, make_cache
from kind_train.data.latents import LatentSet, open_cache
from kind_train.data.photo_set import load_photos
from kind_train.run.trainer import Trainer
from kind_train.start.shape import Shape
from tiny import tiny_config
from tiny_autoencoder import save_autoencoder

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = Shape(dit=tiny_config(in_channels=4, num_classes=3, learn_sigma=True), diffusion=TINY_DIFFUSION)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_autoencoder(tmp_path_factory.mktemp("vae") / "kl", "AutoencoderKL")


@pytest.fixture(scope="module")
def tiny_autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_autoencoder(tmp_path_factory.mktemp("vae") / "tiny", "AutoencoderTiny")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_folder(tmp_path / "photos", make_photos(11, size=16))
    return tmp_path / "photos"


def cache(photos: Path, autoencoder: Path, output: Path, **options: Any) -> CacheResult:
    fast: dict[str, Any] = {"size": 16, "batch_size": 3, "shard_rows": 4, "device": "cpu"}
    return make_cache(CacheRequest(data=str(photos), autoencoder=autoencoder, output=output, **fast | options))


def test_latents_are_what_the_autoencoder_says(photos: Path, autoencoder: Path, tmp_path: Path) -> None:
    result = cache(photos, autoencoder, tmp_path / "cache")
    assert (result.photos, result.latents, result.duplicates, result.skipped) == (11, 11, 0, ())
    latents, pixels = open_cache(tmp_path / "cache"), load_photos(photos, 16)
    assert latents.input_shape == (4, 8, 8)
    assert torch.equal(latents.labels, pixels.labels)
    assert latents.classes == pixels.classes
    model = load_autoencoder(autoencoder, read_autoencoder(autoencoder))
    order = torch.tensor([7, 0, 10])
    flipped = torch.tensor([False, True, False])
    images = pixels.read(order, flipped).float() / 127.5 - 1
    with torch.no_grad():
        expected = model.encode(images).latent_dist
    noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    actual = latents.to_input(latents.read(order, flipped), lambda: noise)
    scale = model.config.scaling_factor
    torch.testing.assert_close(actual, (expected.mean + expected.std * noise) * scale, rtol=5e-3, atol=5e-3)


def test_a_tiny_autoencoder_has_no_distribution(photos: Path, tiny_autoencoder: Path, tmp_path: Path) -> None:
    cache(photos, tiny_autoencoder, tmp_path / "cache")
    latents = open_cache(tmp_path / "cache")

    def refuse() -> torch.Tensor:
        raise AssertionError("nothing is random here")

    model = load_autoencoder(tiny_autoencoder, read_autoencoder(tiny_autoencoder))
    with torch.no_grad():
        expected = model.encode(load_photos(photos, 16).to_unit(torch.arange(2))).latents
    actual = latents.to_input(latents.read(torch.arange(2)), refuse)
    torch.testing.assert_close(actual, expected, rtol=5e-3, atol=5e-3)


def test_photos_with_the_same_pixels_are_encoded_once(photos: Path, autoencoder: Path, tmp_path: Path) -> None:
    first, *_ = sorted((photos / "class_0").iterdir())
    (photos / "class_0" / "zz.png").write_bytes(first.read_bytes())
    (photos / "class_1" / "zz.png").write_bytes(first.read_bytes())
    result = cache(photos, autoencoder, tmp_path / "cache")
    assert (result.photos, result.latents, result.duplicates) == (13, 11, 1)
    latents = open_cache(tmp_path / "cache")
    assert len(latents) == 12  # twice in a class is once; in another class it counts there too
    (row,) = [r for r in latents.rows.unique() if (latents.rows == r).sum() == 2]
    assert sorted(latents.labels[latents.rows == row].tolist()) == [0, 1]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_an_interrupted_cache_goes_on(
    photos: Path, autoencoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache(photos, autoencoder, tmp_path / "whole")
    real, encoded = caching.encode_moments, []

    def stop(*args: Any) -> torch.Tensor:
        encoded.append(len(args[2]))
        if len(encoded) == limit:
            raise KeyboardInterrupt
        return real(*args)

    limit = 8  # both ways of four batches: the second shard was not finished
    monkeypatch.setattr(caching, "encode_moments", stop)
    with pytest.raises(KeyboardInterrupt):
        cache(photos, autoencoder, tmp_path / "broken")
    with pytest.raises(DataError, match="is not finished") as caught:
        open_cache(tmp_path / "broken")
    assert "--resume" in caught.value.hint
    assert len(list((tmp_path / "broken" / "shards").iterdir())) == 1
    limit = -1
    encoded.clear()
    cache(photos, autoencoder, tmp_path / "broken", resume=True)
    assert sum(encoded) == 2 * 7  # four of the eleven were there
    assert bytes_of(tmp_path / "broken") == bytes_of(tmp_path / "whole")


def _encode_and_stop(
    encode: Callable[..., torch.Tensor], calls: Iterator[int], stopped_at: int, *args: Any
) -> torch.Tensor:
    if next(calls) == stopped_at:
        signal.raise_signal(signal.SIGINT)
    return encode(*args)


def test_a_cache_that_is_asked_to_stop_keeps_every_whole_batch(
    photos: Path, autoencoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache(photos, autoencoder, tmp_path / "whole")
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    real = caching.encode_moments
    for stopped_at in (1, 5):  # in the first shard, which is kept in part, and in the second
        calls = itertools.count(1)
        monkeypatch.setattr(caching, "encode_moments", partial(_encode_and_stop, real, calls, stopped_at))
        with pytest.raises(KeyboardInterrupt):
            cache(photos, autoencoder, tmp_path / "stopped", resume=stopped_at == 5)
    monkeypatch.setattr(caching, "encode_moments", real)
    signal.signal(signal.SIGINT, previous)
    cache(photos, autoencoder, tmp_path / "stopped", resume=True)
    assert bytes_of(tmp_path / "stopped") == bytes_of(tmp_path / "whole")


def test_photos_can_be_added(photos: Path, autoencoder: Path, tmp_path: Path) -> None:
    cache(photos, autoencoder, tmp_path / "cache")
    before = open_cache(tmp_path / "cache").read(torch.arange(11))
    more = make_photos(14, size=16, seed=9)
    (photos / "class_2" / "new.png").write_bytes(b"")
    write_folder(photos.parent / "more", more)
    (photos.parent / "more" / "class_2" / "011.png").replace(photos / "class_2" / "new.png")
    result = cache(photos, autoencoder, tmp_path / "cache", resume=True)
    assert (result.photos, result.latents) == (12, 12)
    torch.testing.assert_close(open_cache(tmp_path / "cache").read(torch.arange(11)), before, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, OutputError, "already holds a cache"),
        ({"resume": True, "flip": False}, ConfigError, "was made with flip True, not False"),
        ({"resume": True, "force": True}, ConfigError, "exclude each other"),
        ({"force": True, "size": 15}, ConfigError, "size is 15, expected a multiple of the autoencoder's 2"),
        ({"force": True, "classes": ("zebra",)}, KindError, "unknown class 'zebra'"),
    ],
)
def test_what_does_not_fit_is_named(
    photos: Path, autoencoder: Path, tmp_path: Path, options: dict[str, Any], error: type[KindError], words: str
) -> None:
    cache(photos, autoencoder, tmp_path / "cache")
    before = bytes_of(tmp_path / "cache")
    with pytest.raises(error, match=words):
        cache(photos, autoencoder, tmp_path / "cache", **options)
    assert bytes_of(tmp_path / "cache") == before


def test_other_files_and_missing_weights_are_named(photos: Path, autoencoder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(OutputError, match="holds other files than a cache"):
        cache(photos, autoencoder, tmp_path / "other")
    with pytest.raises(ConfigError, match="no autoencoder at"):
        cache(photos, tmp_path / "other", tmp_path / "cache")
    with pytest.raises(ConfigError, match="holds no cache to resume"):
        cache(photos, autoencoder, tmp_path / "cache", resume=True)


def train(latents: LatentSet, output: Path, **options: Any) -> Trainer:
    trainer = Trainer(make_config(output, **options), latents, latents, shape=SHAPE)
    trainer.run()
    return trainer


def test_a_model_trains_on_latents_and_decodes(photos: Path, autoencoder: Path, tmp_path: Path) -> None:
    cache(photos, autoencoder, tmp_path / "cache")
    train(open_cache(tmp_path / "cache"), tmp_path / "run", sample_every=48)
    config = read_config(tmp_path / "run" / "best")
    assert config.autoencoder == read_autoencoder(autoencoder)
    assert (config.dit.in_channels, config.dit.sample_size) == (4, 8)
    checkpoint = load_checkpoint(tmp_path / "run" / "best")
    images = checkpoint.decode(torch.randn(2, 4, 8, 8))
    assert images.shape == (2, 3, 16, 16)
    assert 0 <= images.min() < images.max() <= 1
    from PIL import Image

    (file,) = (tmp_path / "run" / "samples").iterdir()
    with Image.open(file) as grid:
        assert grid.size == (8 * 104 + 8, 3 * (30 + 104))


def test_adaptation_wants_the_autoencoder_of_its_base(
    photos: Path, autoencoder: Path, tiny_autoencoder: Path, tmp_path: Path
) -> None:
    cache(photos, autoencoder, tmp_path / "cache")
    latents = open_cache(tmp_path / "cache")
    train(latents.choose(("class_0", "class_1")), tmp_path / "run")
    base = tmp_path / "run" / "best"
    config = make_config(tmp_path / "adapted", base=str(base), label_dropout=0.0)
    new = latents.choose(("class_2",))
    Trainer(config, new, new).run()
    grown = load_checkpoint(tmp_path / "adapted" / "best")
    assert [info.id for info in grown.config.classes] == ["class_0", "class_1", "class_2"]
    assert grown.decoder is not None
    cache(photos, save_autoencoder(tmp_path / "other", "AutoencoderKL", seed=1), tmp_path / "cache2")
    with pytest.raises(ConfigError, match="are of another autoencoder than that of"):
        Trainer(config, *[open_cache(tmp_path / "cache2").choose(("class_2",))] * 2)
    with pytest.raises(ConfigError, match="the base works on latents, the data are photos"):
        Trainer(config, make_photos(), make_photos())


def test_training_on_wants_the_autoencoder_of_its_start(photos: Path, autoencoder: Path, tmp_path: Path) -> None:
    """Two autoencoders may have the same settings: what was learned of one's latents is nothing to the other's."""
    cache(photos, autoencoder, tmp_path / "cache")
    cache(photos, save_autoencoder(tmp_path / "other", "AutoencoderKL", seed=1), tmp_path / "others")
    latents, others = open_cache(tmp_path / "cache"), open_cache(tmp_path / "others")
    assert latents.autoencoder == others.autoencoder
    train(latents, tmp_path / "run")
    start = make_config(tmp_path / "next", start_from=str(tmp_path / "run" / "best"))
    Trainer(start, latents, latents)
    for config, resume in ((start, False), (make_config(tmp_path / "run", images=96), True)):
        with pytest.raises(ConfigError, match=r"others are of another autoencoder than that of .*run"):
            Trainer(config, others, others, shape=SHAPE, resume=resume)


def test_an_autoencoder_in_an_older_file_is_known_by_its_weights(
    photos: Path, autoencoder: Path, tmp_path: Path
) -> None:
    older = tmp_path / "older"
    shutil.copytree(autoencoder, older)
    weights = older / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    cache(photos, older, tmp_path / "cache")
    latents = open_cache(tmp_path / "cache")
    train(latents.choose(("class_0", "class_1")), tmp_path / "run")
    config = make_config(tmp_path / "adapted", base=str(tmp_path / "run" / "best"), label_dropout=0.0)
    Trainer(config, *[latents.choose(("class_2",))] * 2)
    assert cache(photos, older, tmp_path / "cache", resume=True).latents == 11


@pytest.fixture
def latent_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kind_train.start.shape.preset", lambda name: (SHAPE.dit, SHAPE.diffusion))


@pytest.mark.usefixtures("latent_preset")
def test_from_photos_to_a_model_of_latents_on_the_command_line(photos: Path, autoencoder: Path, tmp_path: Path) -> None:
    def call(*arguments: object) -> Any:
        return CliRunner().invoke(main, [str(a) for a in arguments])

    cached = call(
        "cache", "--data", photos, "--autoencoder", autoencoder, "--output", tmp_path / "cache", "--size", 16,
        "--no-flip", "--device", "cpu",
    )  # fmt: skip
    assert cached.exit_code == 0, cached.output
    assert cached.stdout.splitlines()[0] == "11 photos, 11 latents, 0 photos twice"
    assert json.loads((tmp_path / "cache" / "cache.json").read_text())["finished"] is True
    options = ("--data", tmp_path / "cache", "--output", tmp_path / "run", "--images", 16, "--batch-size", 4)
    refused = call("fit", *options, "--device", "cpu")
    assert refused.exit_code == 1
    assert "holds no mirror images" in refused.stderr
    fitted = call("fit", *options, "--device", "cpu", "--no-flip")
    assert fitted.exit_code == 0, fitted.output
    assert load_checkpoint(tmp_path / "run" / "best").decoder is not None
    assert np.isfinite(float(fitted.stdout.split()[3]))


def damage_settings(folder: Path, **changed: Any) -> None:
    file = folder / "cache.json"
    data = json.loads(file.read_text())
    for name, value in changed.items():
        if value is None:
            data.pop(name, None) or data["settings"].pop(name)
        else:
            (data if name in data else data["settings"])[name] = value
    file.write_text(json.dumps(data))


def damage_index(folder: Path, name: str, add: int) -> None:
    file = folder / "index.safetensors"
    index = load_file(file)
    save_file(index | {name: index[name] + add}, file)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


LATENTS, HASHES = "shards/00001/latents.npy", "shards/00001/hashes.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "latents cut": (lambda c: cut(c / LATENTS), r"00001.latents\.npy is damaged"),
    "latents gone": (lambda c: (c / LATENTS).unlink(), r"there is no .*latents\.npy"),
    "latents empty": (lambda c: (c / LATENTS).write_bytes(b""), r"latents\.npy is damaged"),
    "latents a pointer": (lambda c: (c / LATENTS).write_bytes(POINTER), "is a Git LFS pointer"),
    "latents pickled": (lambda c: np.save(c / LATENTS, np.array([{}]), allow_pickle=True), r"latents\.npy is damaged"),
    "latents of another type": (lambda c: np.save(c / LATENTS, np.zeros((4, 2, 8, 8, 8))), "expected float16"),
    "latents of another shape": (lambda c: np.save(c / LATENTS, np.zeros((4, 8), np.float16)), "expected float16"),
    "latents too few": (lambda c: np.save(c / LATENTS, np.zeros((3, 2, 8, 8, 8), np.float16)), "do not go with"),
    "a shard gone": (lambda c: shutil.rmtree(c / "shards" / "00001"), "lacks 00001"),
    "the shards gone": (lambda c: shutil.rmtree(c / "shards"), "shards cannot be read"),
    "hashes cut": (lambda c: cut(c / HASHES), r"00001.hashes\.json is damaged"),
    "hashes gone": (lambda c: (c / HASHES).unlink(), r"hashes\.json is damaged or missing"),
    "rows beyond the shards": (
        lambda c: damage_index(c, "rows", 1000),
        "has rows of .* from 0 to 10",
    ),
    "labels below zero": (lambda c: damage_index(c, "labels", -1), "has labels of"),
    "index cut": (lambda c: cut(c / "index.safetensors"), r"index\.safetensors is damaged"),
    "index a pointer": (lambda c: (c / "index.safetensors").write_bytes(POINTER), "is a Git LFS pointer"),
    "autoencoder a pointer": (
        lambda c: (c / "autoencoder" / "diffusion_pytorch_model.safetensors").write_bytes(POINTER),
        "is a Git LFS pointer",
    ),
    "index gone": (lambda c: (c / "index.safetensors").unlink(), r"index\.safetensors is damaged or missing"),
    "no settings": (lambda c: damage_settings(c, settings=None), "has settings None, expected an object"),
    "an unknown setting": (lambda c: damage_settings(c, new=1), "has a setting 'new' that this program does not know"),
    "a setting gone": (lambda c: damage_settings(c, size=None), "has no setting 'size'"),
    "a setting of another type": (lambda c: damage_settings(c, size="16"), "has size '16'"),
    "a size below zero": (lambda c: damage_settings(c, shard_rows=-4), "has shard_rows -4"),
    "no classes": (lambda c: damage_settings(c, classes=None), "has classes None"),
    "an id with a slash": (lambda c: damage_settings(c, classes=[{"id": "a/b", "names": ["a"]}]), "class id 'a/b'"),
    "a class of text": (lambda c: damage_settings(c, classes=["a"]), "has a class 'a'"),
    "cache.json cut": (lambda c: cut(c / "cache.json"), r"cache\.json is not JSON"),
    "autoencoder gone": (lambda c: shutil.rmtree(c / "autoencoder"), "has lost its autoencoder"),
    "another autoencoder": (
        lambda c: save_autoencoder(c / "autoencoder", "AutoencoderKL", seed=1),
        "has weights of sha256 .* but the latents were made by",
    ),
    "autoencoder cut": (lambda c: cut(next((c / "autoencoder").glob("*.safetensors"))), "has lost its autoencoder"),
}


@pytest.fixture(scope="module")
def whole(autoencoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_folder(folder / "photos", make_photos(11, size=16))
    cache(folder / "photos", autoencoder, folder / "cache")
    return folder


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_cache_is_named(whole: Path, autoencoder: Path, tmp_path: Path, what: str) -> None:
    damage, words = DAMAGES[what]
    shutil.copytree(whole / "cache", tmp_path / "cache")
    damage(tmp_path / "cache")
    with pytest.raises(KindError, match=words) as caught:
        open_cache(tmp_path / "cache").digests()
    assert len(caught.value.message.splitlines()) == 1
    if what.startswith(("latents", "hashes", "a setting", "no ", "an ", "cache")):
        with contextlib.suppress(KindError):
            cache(whole / "photos", autoencoder, tmp_path / "cache", resume=True)
    cache(whole / "photos", autoencoder, tmp_path / "cache", force=True)
    assert open_cache(tmp_path / "cache").digests() == open_cache(whole / "cache").digests()


def test_a_cache_made_when_a_missing_scaling_factor_was_read_as_one_is_corrected_without_encoding(
    photos: Path, tmp_path: Path
) -> None:
    silent = save_autoencoder(tmp_path / "vae", "AutoencoderKL")
    settings = json.loads((silent / "config.json").read_text())
    del settings["scaling_factor"]
    (silent / "config.json").write_text(json.dumps(settings))
    new, old = tmp_path / "new", tmp_path / "old"
    cache(photos, silent, new)
    shutil.copytree(new, old)
    held = json.loads((old / "cache.json").read_text())
    assert held["settings"]["autoencoder"]["scaling_factor"] == 0.18215
    held["settings"]["autoencoder"]["scaling_factor"] = 1.0
    (old / "cache.json").write_text(json.dumps(held))
    with pytest.raises(
        DataError, match=r"says scaling_factor 1, but its autoencoder means scaling_factor 0\.18215"
    ) as no:
        open_cache(old)
    assert "--resume" in no.value.hint
    whole_shards = {file: file.stat().st_mtime_ns for file in sorted(old.rglob("latents.npy"))[:2]}
    cache(photos, silent, old, resume=True)
    assert {file: file.stat().st_mtime_ns for file in whole_shards} == whole_shards
    order, noise = torch.arange(11), torch.randn(11, 4, 8, 8)
    given, expected = (one.to_input(one.read(order), lambda: noise) for one in map(open_cache, (old, new)))
    assert torch.equal(given, expected)


def test_files_of_tools_in_a_cache_are_nothing(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "cache", tmp_path / "cache")
    for name in (".DS_Store", "._00000", "Thumbs.db"):
        (tmp_path / "cache" / "shards" / name).write_bytes(b"x")
    assert len(open_cache(tmp_path / "cache").digests()) == 11


def test_latents_are_known_by_the_pixels_of_their_photos(whole: Path) -> None:
    assert open_cache(whole / "cache").digests() == load_photos(whole / "photos", 16).digests()
