"""Tailors of new domains for a model that draws from captions, from captioned photos to a bundle that draws."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config

from kind_core.checkpoint import save_checkpoint, tailor_path
from kind_core.checkpoint_config import read_any_config
from kind_core.config import ModelConfig
from kind_core.text.checkpoint import load_text_checkpoint
from kind_core.text.pixart import KindPixArt
from kind_export.cli import main as kind_export
from kind_runtimes.captions import Caption, open_captions
from kind_train.cli import main
from kind_train.data.batches import Feeder
from kind_train.data.captions.embedding import find_captions
from kind_train.data.captions.store import NULL_CAPTION, WordStore, tell
from kind_train.data.latents import open_cache
from kind_train.data.photo_set import PhotoSet, load_photos
from kind_train.data.requests import EmbedRequest
from kind_train.data.training_set import split_photos
from kind_train.objective import Objective
from tiny import CLASSES, tiny_model
from tiny_autoencoder import save_autoencoder
from tiny_captions import TEXTS, save_base, write_photos, write_store
from tiny_pixart import CHANNELS, save_start, write_pixart

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base`, `photos` and `words`."""
    path = tmp_path_factory.mktemp("given")
    save_base(path)
    write_photos(path / "photos")
    write_store(path / "words")
    return path


def adapt(given: Path, output: Path, *options: str, **places: Path) -> Result:
    named = {"checkpoint": given / "base", "data": given / "photos", "text-embeddings": given / "words", **places}
    arguments = [word for name, place in named.items() for word in (f"--{name.replace('_', '-')}", str(place))]
    plain = ["--images", "48", "--batch-size", "4", "--save-every", "20", "--sample-every", "1000", "--device", "cpu"]
    return CliRunner().invoke(main, ["adapt", *arguments, "--output", str(output), *plain, *options])


def bytes_of(path: Path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def run(given: Path) -> Path:
    before = bytes_of(given)
    done = adapt(given, given / "run", "--learning-rate", "1e-2")
    assert done.exit_code == 0, done.output
    assert {name: held for name, held in bytes_of(given).items() if not name.startswith("run/")} == before
    return given / "run"


def test_new_domains_stand_beside_the_old_ones_whose_files_keep_every_bit(given: Path, run: Path) -> None:
    for name in ("best", "last"):
        grown = read_any_config(run / name)
        assert [info.id for info in grown.classes] == ["photo", "ink_sketch", "comic", "map"]
        assert grown.text == read_any_config(given / "base").text
        files = bytes_of(run / name)
        kept = {key: held for key, held in bytes_of(given / "base").items() if key != "config.json"}
        assert {key: files[key] for key in kept} == kept
    model = load_text_checkpoint(run / "last").model
    rows = model.tailors.weight
    assert all((rows[2] - rows[one]).abs().max() > 0.01 for one in (0, 1, 3))
    assert model.tailors.label_embeddings()[2:].abs().amax(1).min() > 1e-4  # what a domain adds is learned, too


def test_the_bundle_of_a_new_domain_draws_what_the_model_draws(given: Path, run: Path) -> None:
    output = given / "comic.captions"
    arguments = ["captions", "--checkpoint", str(run / "last"), "--domains", "comic", "--target", "onnx"]
    done = CliRunner().invoke(kind_export, [*arguments, "--steps", "2", "-o", str(output)])
    assert done.exit_code == 0, done.output
    store = WordStore(given / "words")
    (text, mask), (null, null_mask) = store.read([TEXTS[0]]), store.read([NULL_CAPTION])
    caption = Caption(text=text.numpy(), mask=mask.numpy(), null_text=null.numpy(), null_mask=null_mask.numpy())
    picture = open_captions(output).open(caption).picture(0, seed=1)
    assert picture.shape == (8, 8, 3)
    assert np.ptp(picture) > 20


def test_the_loss_falls_below_that_of_the_base(given: Path, tmp_path: Path) -> None:
    options = ["--images", "1200", "--batch-size", "8", "--learning-rate", "2e-2", "--ema-decay", "0.9", "--no-flip"]
    done = adapt(given, tmp_path / "run", *options, "--save-every", "1200")
    assert done.exit_code == 0, done.output
    photos = load_photos(given / "photos", 8, store=WordStore(given / "words"))
    losses = []
    for checkpoint, domains in ((given / "base", [0, 1]), (tmp_path / "run" / "last", [2, 3])):
        loaded = load_text_checkpoint(checkpoint, domains)
        losses.append(measure(loaded.model, Objective(loaded.config.diffusion, torch.device("cpu")), photos))
    assert losses[1] < 0.9 * losses[0]


def test_every_photo_is_trained_with_the_words_of_its_own_caption(given: Path, tmp_path: Path) -> None:
    """A photo's colour says which caption it has, whatever order photos are drawn in."""
    store = WordStore(given / "words")
    photos = load_photos(given / "photos", 8, store=store)
    trained, _ = split_photos(photos, 0.2, seed=0)
    options: dict[str, Any] = {
        "base": str(given / "base"),
        "text_embeddings": str(given / "words"),
        "caption_dropout": 0.5,
    }
    config = make_config(tmp_path / "run", label_dropout=0.0, batch_size=32, **options)
    feed = Feeder(trained, config, slice(4, None), torch.device("cpu")).take(3)
    assert feed.words is not None
    colours = feed.photos.float().mean(dim=(2, 3)).argmax(dim=1).tolist()
    is_null = feed.batch.is_null[4:].tolist()
    assert 5 < sum(is_null) < 23
    text, mask = feed.words
    for words, read, colour, drop in zip(text, mask, colours, is_null, strict=True):
        (expected,), _ = store.read([NULL_CAPTION if drop else TEXTS[colour]])
        assert torch.equal(words[read == 1], expected)
    model = load_text_checkpoint(given / "base").model
    noisy, times, domains = torch.randn(28, 3, 8, 8), torch.full((28,), 500.0), feed.batch.labels[4:]
    with torch.no_grad():
        answer = tell(model, feed.words, torch.device("cpu"))(noisy, times, domains, domains)
        assert torch.equal(answer, model(noisy, times, domains, domains, text, mask))
        assert not torch.allclose(answer, model(noisy, times, domains, domains, text.flip(0), mask.flip(0)))


@torch.no_grad()
def measure(model: KindPixArt, objective: Objective, photos: PhotoSet) -> float:
    assert photos.captions is not None
    words = photos.captions.read(torch.arange(len(photos)))
    generator = torch.Generator().manual_seed(0)
    images = photos.to_unit(torch.arange(len(photos)))
    total = 0.0
    for timestep in range(50, 1000, 100):
        timesteps, noise = torch.full((len(images),), timestep), torch.randn(images.shape, generator=generator)
        noisy = objective.add_noise(images, noise, timesteps)
        output = model(noisy, objective.condition(timesteps), photos.labels, photos.labels, *words)
        total += float(objective.loss(output, images, noise, timesteps).mean())
    return total / 10


def test_a_resumed_run_ends_as_one_that_was_not_stopped(given: Path, run: Path, tmp_path: Path) -> None:
    first = adapt(given, tmp_path / "half", "--learning-rate", "1e-2", "--images", "20")
    assert first.exit_code == 0, first.output
    done = CliRunner().invoke(main, ["adapt", "--output", str(tmp_path / "half"), "--images", "48", "--resume"])
    assert done.exit_code == 0, done.output
    for name in ("comic", "map"):
        one, other = (load_file(tailor_path(folder / "last", name)) for folder in (run, tmp_path / "half"))
        assert all(torch.equal(one[key], other[key]) for key in one)
    write_store(tmp_path / "words", encoder="another")
    done = adapt(given, tmp_path / "half", "--resume", **{"text-embeddings": tmp_path / "words"})
    assert "was trained with text encoder 'chance', not 'another'" in done.stderr


def test_folders_tables_and_parquet_say_the_same(given: Path, tmp_path: Path) -> None:
    """`NAME.txt`, `metadata.jsonl` at the root, `metadata.csv` in a class folder, and a column of Parquet."""
    store = WordStore(given / "words")
    expected = load_photos(given / "photos", 8, store=store)
    files = sorted((given / "photos").rglob("*.png"))
    table = [(file.relative_to(given / "photos").as_posix(), file.with_suffix(".txt").read_text()) for file in files]
    for name in ("lines", "rows"):
        shutil.copytree(given / "photos", tmp_path / name, ignore=shutil.ignore_patterns("*.txt"))
    lines = [json.dumps({"file_name": file, "text": text}) for file, text in table]
    (tmp_path / "lines" / "metadata.jsonl").write_text("\n".join(lines))
    for domain in ("comic", "map"):
        rows = [f'{Path(file).name},"{text.strip()}"' for file, text in table if file.startswith(domain)]
        (tmp_path / "rows" / domain / "metadata.csv").write_text("\n".join(["file_name,caption", *rows]))
    write_table(tmp_path / "photos.parquet", files)
    for name in ("lines", "rows", "photos.parquet"):
        told: list[str] = []
        photos = load_photos(tmp_path / name, 8, store=store, tell=told.append)
        assert photos.captions is not None
        assert expected.captions is not None
        assert photos.captions.texts == expected.captions.texts == tuple(text.strip() for _, text in table)
        assert torch.equal(photos.labels, expected.labels)
        assert told == []
    assert load_photos(tmp_path / "lines", 8).captions is None


def test_rows_that_name_no_photo_are_told(given: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(given / "photos", photos)
    (photos / "map" / "clip.mov").write_bytes(b"")
    names = ("comic/gone.png", "comic/000.png", "x" * 300, "\0", "map/clip.mov")
    lines = [json.dumps({"file_name": name, "text": TEXTS[0]}) for name in names]
    (photos / "metadata.jsonl").write_text("\n".join(lines))
    table = photos / "metadata.jsonl"
    expected = [
        f"left out in {photos}: 1 .mov, of no format that is read",
        f"left out 3 such as {photos}/comic/gone.png: {table} has a caption for it, but there is no such photo",
        f"left out {photos}/map/clip.mov: {table} has a caption for it, but it is no photo that is read",
    ]
    told: list[str] = []
    load_photos(photos, 8, store=WordStore(given / "words"), tell=told.append)
    assert told == expected
    told = []
    find_captions(EmbedRequest(text_encoder=tmp_path, output=tmp_path / "new", data=str(photos)), told.append)
    assert told == expected
    told = []
    load_photos(photos, 8, tell=told.append)  # who asks for no captions reads no table
    assert told == [f"left out in {photos}: 12 .txt, 1 .jsonl, 1 .mov, of no format that is read"]


def write_table(file: Path, photos: list[Path]) -> None:
    """As `datasets` writes captioned images with their class."""
    images = [{"bytes": photo.read_bytes(), "path": photo.name} for photo in photos]
    texts = [photo.with_suffix(".txt").read_text() for photo in photos]
    table = {"image": images, "label": [photo.parent.name for photo in photos], "text": texts}
    pyarrow.parquet.write_table(pyarrow.table(table), file)


def test_a_cache_of_latents_keeps_captions(given: Path, tmp_path: Path) -> None:
    write_pixart(tmp_path / "pixart")
    save_autoencoder(tmp_path / "pixart" / "vae", "AutoencoderKL")
    save_start(tmp_path / "base", tmp_path / "pixart")
    photos, latents = given / "photos", tmp_path / "latents"
    arguments = ["--data", str(photos), "--autoencoder", str(tmp_path / "pixart" / "vae"), "--size", "16"]
    cache = ["cache", *arguments, "--device", "cpu", "--output"]
    assert CliRunner().invoke(main, [*cache, str(latents), "--captions"]).exit_code == 0
    done = adapt(given, tmp_path / "run", checkpoint=tmp_path / "base", data=latents)
    assert done.exit_code == 0, done.output
    assert [info.id for info in read_any_config(tmp_path / "run" / "best").classes][2:] == ["comic", "map"]
    texts = load_photos(photos, 8, store=WordStore(given / "words")).captions
    assert texts is not None
    assert open_cache(latents).texts == texts.texts
    assert CliRunner().invoke(main, [*cache, str(tmp_path / "plain")]).exit_code == 0
    done = adapt(given, tmp_path / "new", checkpoint=tmp_path / "base", data=tmp_path / "plain")
    refused(done, "plain keeps no captions", tmp_path / "new")
    (latents / "captions.json").write_text('["one"]')
    done = adapt(given, tmp_path / "new", checkpoint=tmp_path / "base", data=latents)
    refused(done, "captions.json is damaged, expected the captions of 12 photos", tmp_path / "new")


def _lose_a_caption(photos: Path) -> None:
    (photos / "map" / "001.txt").unlink()


def _empty_a_caption(photos: Path) -> None:
    (photos / "map" / "001.txt").write_text(" \n")


def _contradict(photos: Path) -> None:
    (photos / "metadata.jsonl").write_text('{"file_name": "map/001.png", "caption": "a lake"}')


def _two_columns(photos: Path) -> None:
    (photos / "metadata.jsonl").write_text('{"file_name": "map/001.png", "caption": "a lake", "text": "a sea"}')


def _no_json(photos: Path) -> None:
    (photos / "metadata.jsonl").write_text('{"file_name": "map/001.png"')


def _repeat_a_row(photos: Path) -> None:
    (photos / "map" / "001.txt").unlink()
    (photos / "map" / "metadata.csv").write_text("file_name,text\n001.png,a lake\n001.png,a lake\n001.png,a sea\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            _repeat_a_row,
            "PHOTOS/map/001.png has two captions, in PHOTOS/map/metadata.csv line 2 and PHOTOS/map/metadata.csv line 4",
        ),
        (_lose_a_caption, "1 of the 12 photos of PHOTOS have no caption, such as PHOTOS/map/001.png"),
        (_empty_a_caption, "1 of the 12 photos of PHOTOS have no caption, such as PHOTOS/map/001.png"),
        (_contradict, "PHOTOS/map/001.png has two captions, in PHOTOS/map/001.txt and PHOTOS"),
        (_two_columns, "PHOTOS/metadata.jsonl line 1 has columns caption and text, expected one of"),
        (_no_json, "PHOTOS/metadata.jsonl line 1 is not JSON"),
    ],
)
def test_a_photo_has_one_caption(given: Path, damage: Any, message: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(given / "photos", photos)
    damage(photos)
    refused(adapt(given, tmp_path / "run", data=photos), message.replace("PHOTOS", str(photos)), tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": CHANNELS + 1}, f"of {CHANNELS + 1} channels (chance), BASE reads up to 120 of {CHANNELS}"),
        ({"tokens": 121}, "holds up to 121 words of"),
        ({"captions": TEXTS[:2]}, "1 of the 4 captions of PHOTOS are not in WORDS, such as 'a blue boat'"),
    ],
)
def test_embedded_captions_are_those_of_model_and_data(
    given: Path, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    words = write_store(tmp_path / "words", **options)
    names = {"BASE": given / "base", "PHOTOS": given / "photos", "WORDS": words}
    for name, place in names.items():
        message = message.replace(name, str(place))
    refused(adapt(given, tmp_path / "run", **{"text-embeddings": words}), message, tmp_path / "run")


def test_damaged_words_are_one_line(given: Path, tmp_path: Path) -> None:
    words = tmp_path / "words"
    shutil.copytree(given / "words", words)
    file = words / "shards" / "00000" / "words.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    refused(adapt(given, tmp_path / "run", **{"text-embeddings": words}), f"{file} is damaged", tmp_path / "run")
    (file.parent / "captions.json").write_text('["", "a"]')
    write_store(tmp_path / "whole")
    shutil.copy(tmp_path / "whole" / "shards" / "00000" / "words.safetensors", file)
    refused(adapt(given, tmp_path / "run", **{"text-embeddings": words}), "that do not go with", tmp_path / "run")
    (words / "text_embeddings.json").write_text('{"format_version": 2}')
    refused(adapt(given, tmp_path / "run", **{"text-embeddings": words}), "has format_version 2", tmp_path / "run")
    shutil.rmtree(words)
    refused(adapt(given, tmp_path / "run", **{"text-embeddings": words}), "no embedded captions at", tmp_path / "run")


def test_a_model_of_captions_takes_captions_and_tailors(given: Path, tmp_path: Path) -> None:
    save_checkpoint(
        tmp_path / "classes",
        ModelConfig(dit=TINY_DIT, diffusion=TINY_DIFFUSION, classes=CLASSES[:3]),
        tiny_model(TINY_DIT, 0),
    )
    run = tmp_path / "run"
    refused(adapt(given, run, checkpoint=tmp_path / "classes"), "draws classes, but captions were given", run)
    refused(adapt(given, run, "--method", "open-tailors"), "where a model draws from captions", run)
    plain = ["adapt", "--checkpoint", str(given / "base"), "--data", str(given / "photos"), "--output", str(run)]
    refused(CliRunner().invoke(main, plain), "but no embedded captions were given", run)


def test_a_text_encoder_that_cannot_be_run_is_one_line(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    pixart, output = tmp_path / "pixart", tmp_path / "words"
    arguments = ["embed", "--text-encoder", str(pixart), "--output", str(output)]
    data = ["--data", str(given / "photos")]
    refused(CliRunner().invoke(main, [*arguments, *data]), f"no text encoder at {pixart}", output)
    for name, held in (
        ("text_encoder/config.json", '{"model_type": "clip"}'),
        ("tokenizer/tokenizer_config.json", "{}"),
    ):
        (pixart / name).parent.mkdir(parents=True)
        (pixart / name).write_text(held)
    refused(CliRunner().invoke(main, [*arguments, *data]), "is of model_type 'clip', expected 't5'", output)
    (pixart / "text_encoder" / "config.json").write_text('{"model_type": "t5"}')
    refused(CliRunner().invoke(main, [*arguments, *data]), "has no weights in safetensors", output)
    save_file({"weight": torch.zeros(1)}, pixart / "text_encoder" / "model.safetensors")
    done = CliRunner().invoke(main, [*arguments, *data])
    refused(done, "captions are embedded by transformers, which cannot be imported", output)
    assert "pip install 'kind-diffusion[captions]'" in done.stderr
    refused(CliRunner().invoke(main, [*arguments]), "expected one of --data and --caption", output)
    _lose_a_caption(shutil.copytree(given / "photos", tmp_path / "photos"))
    done = CliRunner().invoke(main, [*arguments, "--data", str(tmp_path / "photos")])
    refused(done, "1 of the 12 photos of", output)


def refused(done: Result, message: str, output: Path) -> None:
    """One line of an error that says so, before anything is written."""
    assert done.exit_code == 1, done.output
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not output.exists()
