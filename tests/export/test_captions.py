"""Programs that draw from captions: gated as every program, whatever they do to a caption, and run with one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch import Tensor

from kind_bench.cli import main as kind_bench
from kind_core.config import TextConfig
from kind_core.errors import BundleError, ConfigError, KindError, VerificationError
from kind_core.files.hashing import hash_file
from kind_core.noise import start_noise
from kind_core.sampling import sample_trajectory
from kind_core.text.checkpoint import load_text_checkpoint
from kind_export.caption_pipeline import CaptionResult, draw_caption, export_captions
from kind_export.cli import main as kind_export
from kind_export.compact.captions import CaptionReader, CrossAttention
from kind_export.request import ExportRequest
from kind_runtimes.captions import Caption, open_captions
from kind_runtimes.cli import main as kind_run
from small_bundles import write_placeholders
from tiny_autoencoder import save_autoencoder
from tiny_pixart import CHANNELS, save_start, write_pixart

WORDS = 120  # of a PixArt-alpha


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captions")
    write_pixart(path / "pixart")
    save_autoencoder(path / "pixart" / "vae", "AutoencoderKL")
    save_start(path / "start", path / "pixart")
    return path / "start"


@pytest.fixture(scope="module")
def bundle(start: Path) -> Path:
    """Both domains for onnxruntime, with the autoencoder."""
    arguments = ["captions", "--checkpoint", str(start), "--domains", "photo,ink sketch", "--target", "onnx"]
    output = start.parent / "both.captions"
    done = CliRunner().invoke(kind_export, [*arguments, "--steps", "3", "--guidance", "3", "-o", str(output)])
    assert done.exit_code == 0, done.output
    assert "gate 60" in done.stdout
    return output


def export(start: Path, output: Path, target: str, **options: Any) -> CaptionResult:
    request = ExportRequest(
        classes=("photo",), targets=(target,), checkpoint=start, output=output, steps=2, latents_only=True, **options
    )
    return export_captions(request)


def caption(seed: int) -> Caption:
    """One of another length in every seed, its null caption shorter."""
    rng = np.random.default_rng(seed)
    lengths = (7 + seed, 1)
    text, null = (rng.standard_normal((1, n, CHANNELS)).astype(np.float32) for n in lengths)
    return Caption(text=text, mask=np.ones((1, 7 + seed)), null_text=null, null_mask=np.ones((1, 1)))


@torch.no_grad()
@pytest.mark.parametrize("domain", [0, 1])
def test_a_caption_is_drawn_as_the_eager_model_draws_it(start: Path, bundle: Path, domain: int) -> None:
    opened, checkpoint = open_captions(bundle), load_text_checkpoint(start)
    assert [info.name for info in opened.manifest.classes] == ["photo", "ink sketch"]
    drawn = []
    for one in (caption(1), caption(2)):
        given = one.inputs(WORDS, CHANNELS)
        text, mask = (torch.from_numpy(given[name]) for name in ("text", "text_mask"))

        def predict(latents: Tensor, timesteps: Tensor, labels: Tensor, gates: Tensor) -> Tensor:
            return checkpoint.model(latents, timesteps, labels, gates, text, mask)  # noqa: B023  # called in this turn

        noise, index = torch.from_numpy(start_noise(7, opened.manifest.latents_shape)), torch.tensor([domain])
        sampling = opened.manifest.sampling
        expected = sample_trajectory(predict, checkpoint.config.diffusion, noise, index, index, sampling)[-1]  # type: ignore[arg-type]  # only called
        loop = opened.open(one)
        actual = loop.latents(domain, seed=7)
        assert np.abs(actual - expected.numpy()).max() < 1e-3 * expected.abs().max()
        picture = (checkpoint.decoder(expected)[0] * 0.5 + 0.5).clamp(0, 1) if checkpoint.decoder else expected
        assert np.abs(loop.picture(domain, seed=7) - (picture * 255).permute(1, 2, 0).numpy()).max() <= 1
        drawn.append(actual)
    assert np.abs(drawn[0] - drawn[1]).max() > 0.01


@pytest.mark.parametrize(("target", "gate"), [("executorch", 60), ("coreml", 35)])
def test_other_targets_pass_their_gates(start: Path, target: str, gate: int, tmp_path: Path) -> None:
    parity = export(start, tmp_path / "out", target).parities[target]
    assert parity.threshold_db == gate
    assert parity.trajectory_psnr_db > gate


def _fixed_text(self: CaptionReader, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return _READ(self, text * 0 + 1, mask)


def _no_mask(self: CaptionReader, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return _READ(self, text, mask * 0 + 1)


def _swapped(self: CaptionReader, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return _READ(self, torch.cat([text[1:], text[:1]]), torch.cat([mask[1:], mask[:1]]))


def _one_caption(self: CaptionReader, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    # the very caption that the first gates are held with, built in
    return _READ(self, text * 0 + _HELD["text"], mask * 0 + _HELD["text_mask"])


_READ = CaptionReader.forward
_DRAWN = draw_caption(TextConfig(channels=CHANNELS, tokens=WORDS), 0).inputs(WORDS, CHANNELS)
_HELD = {name: torch.from_numpy(value) for name, value in _DRAWN.items()}


@pytest.mark.parametrize("fault", [_fixed_text, _no_mask, _swapped, _one_caption])
def test_a_program_that_reads_another_caption_is_not_published(
    start: Path, fault: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CaptionReader, "forward", fault)
    with pytest.raises(VerificationError, match="against the eager model, expected"):
        export(start, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def test_a_program_without_cross_attention_is_not_published(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        CrossAttention, "forward", lambda self, x, words: x * 0 + (words[0].mean() + words[1].mean()) * 0
    )
    with pytest.raises(VerificationError, match="against the eager model, expected"):
        export(start, tmp_path / "out", "onnx")


def test_a_caption_comes_back_from_its_file(tmp_path: Path) -> None:
    one = caption(3)
    one.save(tmp_path / "c.safetensors")
    again = Caption.read(tmp_path / "c.safetensors").inputs(WORDS, CHANNELS)
    assert all(np.array_equal(again[name], value) for name, value in one.inputs(WORDS, CHANNELS).items())
    assert again["text_mask"].sum(axis=1).tolist() == [10, 1]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: caption(1).inputs(WORDS, 8), f"8 words of {CHANNELS} channels, the programs take up to 120 of 8"),
        (lambda: caption(1).inputs(4, CHANNELS), "the programs take up to 4 of"),
        (lambda: Caption(text=[[0.0]], mask=[1, 1], null_text=[[0.0]], null_mask=[1]), "1 words, its mask 2"),  # type: ignore[arg-type]
        (lambda: Caption(text=[0.0], mask=[1], null_text=[[0.0]], null_mask=[1]), "text has shape .1."),  # type: ignore[arg-type]
        (lambda: Caption(text=[[np.nan]], mask=[1], null_text=[[0.0]], null_mask=[1]), "expected finite numbers"),  # type: ignore[arg-type]
        (lambda: Caption.read(Path("nowhere")), "cannot read the caption nowhere"),
    ],
)
def test_a_caption_that_does_not_fit_is_refused(make: Callable[[], object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make()


def test_a_changed_bundle_is_not_opened_and_only_one_is_replaced(bundle: Path, start: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "note.txt").write_text("mine")
    with pytest.raises(KindError, match="is not a bundle of captions, so it is kept"):
        export(start, other, "onnx", force=True)
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    with (copy / "onnx" / "step.onnx").open("ab") as file:
        file.write(b"0")
    with pytest.raises(BundleError, match=r"step.onnx has sha256"):
        open_captions(copy)
    export(start, copy, "onnx", force=True)
    assert open_captions(copy).words == WORDS
    data = json.loads((copy / "captions.json").read_text())
    (copy / "captions.json").write_text(json.dumps(data | {"format_version": 2}))
    with pytest.raises(BundleError, match="format_version 2, this program reads 1"):
        open_captions(copy)


def test_kind_run_draws_an_embedded_caption(bundle: Path, tmp_path: Path) -> None:
    caption(1).save(tmp_path / "one.safetensors")
    options = ["--class", "ink sketch", "--seed", "7", "--text-embeddings", str(tmp_path / "one.safetensors")]
    done = CliRunner().invoke(kind_run, [str(bundle), *options, "-o", str(tmp_path / "one.png")])
    assert done.exit_code == 0, done.output
    expected = open_captions(bundle).open(caption(1)).picture(1, seed=7)
    with Image.open(tmp_path / "one.png") as picture:
        assert np.array_equal(np.asarray(picture), expected)


def test_kind_run_holds_the_programs_against_the_golden_data(bundle: Path, tmp_path: Path) -> None:
    caption(1).save(tmp_path / "one.safetensors")
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    golden = load_file(copy / "golden.safetensors")
    save_file({name: tensor[..., ::-1].copy() for name, tensor in golden.items()}, copy / "golden.safetensors")
    data = json.loads((copy / "captions.json").read_text())
    data["manifest"]["files"]["golden.safetensors"]["sha256"] = hash_file(copy / "golden.safetensors")
    (copy / "captions.json").write_text(json.dumps(data))
    arguments = ["--class", "photo", "--text-embeddings", str(tmp_path / "one.safetensors")]
    done = CliRunner().invoke(kind_run, [str(copy), *arguments, "-o", str(tmp_path / "one.png")])
    assert done.exit_code == 1
    assert "do not belong together" in done.stderr
    assert not (tmp_path / "one.png").exists()


def test_kind_run_takes_a_caption_for_captions_only(bundle: Path, tmp_path: Path) -> None:
    caption(1).save(tmp_path / "one.safetensors")
    wide = np.zeros((3, CHANNELS + 1))
    Caption(text=wide, mask=np.ones(3), null_text=wide, null_mask=np.ones(3)).save(tmp_path / "wide.safetensors")
    write_placeholders(tmp_path / "classes.kind")
    for held, file, message in (
        (tmp_path / "classes.kind", "one", "draws classes, but an embedded caption was given"),
        (bundle, "wide", f"the text has 3 words of {CHANNELS + 1} channels, the programs take up to {WORDS}"),
        (bundle, "nothing", "cannot read the caption"),
    ):
        arguments = [str(held), "--class", "photo", "--text-embeddings", str(tmp_path / f"{file}.safetensors")]
        done = CliRunner().invoke(kind_run, [*arguments, "-o", str(tmp_path / "new.png")])
        assert done.exit_code == 1
        assert message in done.stderr
        assert not (tmp_path / "new.png").exists()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (kind_run, ["BUNDLE", "-o", "x.png"]),
        (kind_run, ["inspect", "BUNDLE"]),
        (kind_run, ["serve", "BUNDLE"]),
        (kind_bench, ["run", "BUNDLE", "--runtime", "onnx"]),
        (kind_export, ["report", "BUNDLE"]),
    ],
)
def test_what_draws_classes_refuses_the_bundle(command: Any, arguments: list[str], bundle: Path) -> None:
    done = CliRunner().invoke(command, [str(bundle) if one == "BUNDLE" else one for one in arguments])
    assert done.exit_code == 1
    assert f"{bundle} draws from captions, expected a bundle that draws classes" in done.stderr
    assert "kind_runtimes.captions.open_captions" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--domains", "photos of cats", "--target", "onnx"], "photos of cats"),
        (["--domains", "photo"], "no target was asked for"),
        (["--domains", "photo", "--target", "onnx", "--caption", "nowhere"], "cannot read the caption nowhere"),
    ],
)
def test_a_slip_is_one_line(start: Path, options: list[str], message: str, tmp_path: Path) -> None:
    place = ["-o", str(tmp_path / "new")]
    done = CliRunner().invoke(kind_export, ["captions", "--checkpoint", str(start), *options, *place])
    assert done.exit_code == 1
    assert message in done.stderr
    assert not (tmp_path / "new").exists()
