"""`--force` replaces what the command itself writes and nothing else, in every command that has it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import ExifTags, Image

import kind_bench.cli
import kind_export.cli
import kind_runtimes.cli
import kind_train.cli
from diffusers_folders import write_folder as write_dit
from kind_core.checkpoint import save_checkpoint
from kind_core.errors import OutputError
from kind_core.files.staging import check_output
from kind_core.pictures import PICTURE, write_picture
from kind_runtimes.bundle import BUNDLE
from kind_train.data.imagenet import read_split
from small_bundles import write_placeholders
from tiny import CLASSES, tiny_config, tiny_model, tiny_model_config
from tiny_autoencoder import save_autoencoder
from tiny_captions import write_photos
from tiny_pixart import save_start, write_pixart

Arguments = tuple[object, ...]
GROUPS = {
    "kind-export": kind_export.cli.main,
    "kind-train": kind_train.cli.main,
    "kind-bench": kind_bench.cli.main,
    "kind-run": kind_runtimes.cli.main,
}


def call(command: str, *arguments: object) -> Result:
    return CliRunner().invoke(GROUPS[command], list(map(str, arguments)))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read: a DiT, an autoencoder, photos of other classes and of the checkpoint's, a dense model,
    and ImageNet without a photo."""
    folder = tmp_path_factory.mktemp("inputs")
    write_dit(folder / "dit")
    save_autoencoder(folder / "vae", "AutoencoderTiny")
    for name in ("cat", "dog"):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.random.default_rng(i).integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "data" / name / f"{i}.png")
    for info in CLASSES:
        shutil.copytree(folder / "data" / "cat", folder / "own" / info.id)
    dit = tiny_config(learngene_rank=None, tailor_rank=0)
    write_pixart(folder / "pixart")
    save_start(folder / "captions", folder / "pixart")
    write_photos(folder / "told", 2)
    for name in ("text_encoder/config.json", "tokenizer/tokenizer_config.json"):
        (folder / "pixart" / name).parent.mkdir()
        (folder / "pixart" / name).write_text("{}")
    save_checkpoint(folder / "dense", tiny_model_config(dit), tiny_model(dit))
    for part in read_split().values():
        for one in part:
            for member in one.members:
                (folder / "imagenet" / member).mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def placeholders(tmp_path: Path) -> Path:
    """A bundle of files that cannot be run."""
    folder = tmp_path / "placeholders.kind"
    write_placeholders(folder)
    return folder


def _commands(inputs: Path, checkpoint: Path, bundle: Path, out: Path) -> dict[str, Arguments]:
    """Every command with `--force`, each writing to `out`."""
    data = ("--data", inputs / "data", "--device", "cpu")
    export = ("kind-export", "--checkpoint", checkpoint, "--classes", "lemon")
    return {
        "export": (*export, "--target", "onnx", "-o", out),
        "export to diffusers": (*export, "--target", "diffusers", "-o", out),
        "export within a budget": (*export, "--target", "onnx", "--max-size", "9MB", "-o", out),
        "export captions": ("kind-export", "captions", "--checkpoint", inputs / "captions", "--domains", "photo",
                            "--target", "onnx", "-o", out),
        "fit": ("kind-train", "fit", *data, "--output", out),
        "adapt": ("kind-train", "adapt", "--checkpoint", checkpoint, *data, "--output", out),
        "distill": ("kind-train", "distill", "--checkpoint", checkpoint, *data, "--steps", 2, "--output", out),
        "cache": ("kind-train", "cache", *data, "--autoencoder", inputs / "vae", "--size", 16, "--output", out),
        "embed": ("kind-train", "embed", "--data", inputs / "told", "--text-encoder", inputs / "pixart",
                  "--output", out),
        "init": ("kind-train", "init", "--from-dit", inputs / "dit", "--learngene-rank", 8, "--tailor-rank", 2,
                 "-o", out),
        "convert": ("kind-train", "convert", checkpoint, out),
        "shrink": ("kind-train", "shrink", inputs / "dense", "--construction", "auto-lg", "-o", out),
        "statistics": ("kind-train", "statistics", "--data", inputs / "data", "--size", 16, "-o", out),
        "imagenet-split": ("kind-train", "imagenet-split", inputs / "imagenet", out),
        "classifier": ("kind-train", "classifier", "--data", inputs / "data", "--size", 16, "-o", out),
        "evaluate": ("kind-train", "evaluate", "--checkpoint", checkpoint, "--data", inputs / "own", "--val-data",
                     inputs / "own", "-o", out),
        "bench run": ("kind-bench", "run", bundle, "-o", out),
        "calibrate": ("kind-bench", "calibrate", bundle / "measured.json", "--bundle", bundle, "-o", out),
        "run": ("kind-run", bundle, "--class", "panda", "-o", out),
    }  # fmt: skip


NAMES = list(_commands(Path(), Path(), Path(), Path()))


def test_every_command_with_force_is_walked() -> None:
    with_force = {
        f"{group} {name}".strip()
        for group, main in GROUPS.items()
        for name, command in [("", main), *main.commands.items()]
        if any("--force" in parameter.opts for parameter in command.params)
    }
    walked = {" ".join(map(str, one[:2])) for one in _commands(Path(), Path(), Path(), Path()).values()}
    assert {"kind-export --checkpoint" if name == "kind-export" else name for name in with_force} == {
        name.replace("kind-run .", "kind-run draw") for name in walked
    }


def _photos(out: Path) -> None:
    (out / "2019").mkdir(parents=True)
    (out / "2019" / "wedding.jpg").write_bytes(b"the only copy")


def _site(out: Path) -> None:
    """A folder with files of the names that the commands' own have."""
    out.mkdir()
    for name in ("manifest.json", "config.json", "cache.json", "options.yaml"):
        (out / name).write_text('{"name": "my site", "data": "x"}')
    _photos(out / "pretrain")


def _letter(out: Path) -> None:
    out.write_text("Dear Ada,")


@pytest.mark.parametrize("put", [_photos, _site, _letter])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_of_the_command_stays(
    name: str, put: Callable[[Path], None], inputs: Path, checkpoint_path: Path, placeholders: Path, tmp_path: Path
) -> None:
    out = tmp_path / ("out.png" if name == "run" else "out.json" if name == "calibrate" else "out")
    put(out)
    before = _contents(out)
    done = call(*_commands(inputs, checkpoint_path, placeholders, out)[name], "--force")
    assert done.exit_code == 1, done.output
    assert _contents(out) == before
    assert "Traceback" not in done.stderr
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: ")
    assert str(out) in error
    assert hint.startswith("hint: choose")
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".partial")]


def _contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return {str(one): one.read_bytes() for one in files}


def test_a_bundle_that_holds_a_file_of_its_user_is_kept(placeholders: Path) -> None:
    check_output(placeholders, BUNDLE, force=True)
    (placeholders / "packs").mkdir()
    (placeholders / "packs" / "lemon.pack").write_bytes(b"added later")
    (placeholders / "measured").mkdir()
    (placeholders / "measured" / "phone.json").write_text("{}")
    check_output(placeholders, BUNDLE, force=True)
    (placeholders / "onnx" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"it also holds onnx/notes\.txt"):
        check_output(placeholders, BUNDLE, force=True)


def test_a_pack_replaces_a_pack_alone(checkpoint_path: Path, tmp_path: Path) -> None:
    write_placeholders(tmp_path / "base", pack_base="0" * 64, packs=[])
    (tmp_path / "out").mkdir()
    _letter(tmp_path / "out" / "lemon.pack")
    base = ("--packs", "--base", tmp_path / "base")
    export = ("kind-export", "--checkpoint", checkpoint_path, "--classes", "lemon", *base)
    done = call(*export, "-o", tmp_path / "out", "--force")
    assert f"{tmp_path / 'out' / 'lemon.pack'} is not a pack" in done.stderr
    assert (tmp_path / "out" / "lemon.pack").read_text() == "Dear Ada,"


@pytest.mark.parametrize("name", ["out.png", "out.jpg", "out.webp", "out.tif", "out.avif"])
def test_a_photo_is_not_what_kind_run_draws(name: str, tmp_path: Path) -> None:
    """Nor where it was stripped of all that a camera has written, as messengers do."""
    out, picture = tmp_path / name, Image.new("RGB", (8, 8))
    for _ in range(2):
        write_picture(out, picture, force=True)
    exif = picture.getexif()
    exif[ExifTags.Base.Software] = "GIMP"
    for more in ({}, {"exif": exif}):
        picture.save(out, **more)
        with pytest.raises(OutputError, match="is not a picture that this program drew, so it is kept: nothing in it"):
            write_picture(out, picture, force=True)


def test_an_animation_is_not_what_kind_run_draws(tmp_path: Path) -> None:
    write_picture(tmp_path / "out.png", Image.new("RGB", (8, 8)), force=True)
    with Image.open(tmp_path / "out.png") as drawn:
        frames = [Image.new("RGB", (8, 8), "red")]
        drawn.save(tmp_path / "more.png", save_all=True, append_images=frames, exif=drawn.getexif())
    with pytest.raises(OutputError, match="is not a picture that this program drew"):
        check_output(tmp_path / "more.png", PICTURE, force=True)
