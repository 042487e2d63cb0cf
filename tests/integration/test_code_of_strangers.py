"""Nothing of a bundle, a checkpoint or a pipeline folder runs unless `--runtime diffusers` names it.

Every command is walked; the table below must name each of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file

import kind_bench.cli
import kind_export.cli
import kind_runtimes.cli
import kind_runtimes.serve
import kind_train.cli
from booby_traps import SHADOWS, Trap
from kind_core.errors import BundleError, TargetError
from kind_core.files.hashing import hash_file
from kind_runtimes.bundle import MANIFEST_NAME, list_files, open_bundle
from kind_runtimes.generator import open_generator
from tiny_captions import write_photos
from tiny_pixart import save_start, write_pixart

GROUPS = {
    "kind-export": kind_export.cli.main,
    "kind-train": kind_train.cli.main,
    "kind-bench": kind_bench.cli.main,
    "kind-run": kind_runtimes.cli.main,
}


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Trap:
    return Trap(tmp_path_factory.mktemp("marks") / "mark")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory, trap: Trap) -> Path:
    """A folder of what strangers sent."""
    folder = tmp_path_factory.mktemp("strangers")
    trap.write_checkpoint(folder / "checkpoint")
    checkpoint = ("--checkpoint", folder / "checkpoint", "--steps", 1, "--target", "onnx", "--classes", "giant panda")
    for name, more in (("bundle", ()), ("base", ("--packs",))):
        assert call("kind-export", *checkpoint, *more, "-o", folder / name).exit_code == 0
        trap.spoil_bundle(folder / name)
    _keep_the_code_alone(folder / "bundle", folder / "only")
    trap.write_pipeline(folder / "pipeline")
    trap.write_pipeline(folder / "pickled")
    (folder / "pickled" / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    trap.write_autoencoder(folder / "vae")
    trap.put_code(folder / "dinov2")
    settings = {"model_type": "dinov2", "auto_map": {"AutoModel": "modeling.Trap"}}
    (folder / "dinov2" / "config.json").write_text(json.dumps(settings))
    (folder / "dinov2" / "model.safetensors").write_bytes(trap.pickle())
    (folder / "dinov2" / "pytorch_model.bin").write_bytes(trap.pickle())
    write_pixart(folder / "pixart")
    save_start(folder / "captions", folder / "pixart")
    write_photos(folder / "told", 2)
    _write_text_encoder(trap, folder / "pixart")
    (folder / "inception.pth").write_bytes(trap.pickle())
    (folder / "options.yaml").write_text(f"data: x\noutput: !!python/object/apply:exec [{json.dumps(trap.code)}]\n")
    for class_id in ("n02510455", "n02509815"):
        (folder / "photos" / class_id).mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / class_id / f"{i}.png")
    return folder


def _write_text_encoder(trap: Trap, pixart: Path) -> None:
    """Whose tokenizer and network want code of their folder to be run."""
    for name in ("text_encoder", "tokenizer"):
        trap.put_code(pixart / name)
    mapped = {"auto_map": {"AutoTokenizer": ["modeling.Trap", None], "AutoModel": "modeling.Trap"}}
    (pixart / "text_encoder" / "config.json").write_text(json.dumps({"model_type": "t5", **mapped}))
    (pixart / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Trap", **mapped}))
    save_file({"shared.weight": torch.zeros(8, 8)}, pixart / "text_encoder" / "model.safetensors")
    (pixart / "text_encoder" / "pytorch_model.bin").write_bytes(trap.pickle())


def _keep_the_code_alone(bundle: Path, only: Path) -> None:
    shutil.copytree(bundle, only)
    data = json.loads((only / "manifest.json").read_text())
    data["targets"] = {"diffusers": data["targets"]["diffusers"]}
    (only / "manifest.json").write_text(json.dumps(data))


def _commands(s: Path, out: Path) -> dict[str, list[tuple[object, ...]]]:
    """For each command the ways in which it opens what others made."""
    data = ("--data", s / "photos", "--output", out, "--images", 2, "--batch-size", 2, "--device", "cpu")
    photos = ("--data", s / "photos", "--val-data", s / "photos", "--count", 2, "--cross-count", 0)
    none = ("--inception-weights", "none", "--dinov2", "none")
    export = ("--target", "onnx", "--steps", 1, "-o", out)
    real = ("--data", s / "photos", "--size", 16, "-o", out)
    return {
        "kind-export": [
            ("--checkpoint", s / "checkpoint", "--classes", "giant panda", *export),
            ("--from-diffusers", s / "pipeline", "--classes", "tench", "--latents-only", *export),
            ("--checkpoint", s / "checkpoint", "--classes", "lesser panda", "--packs", "--base", s / "base", "-o", out),
        ],
        "kind-export captions": [
            ("--checkpoint", s / "captions", "--domains", "photo", *export),
            ("--checkpoint", s / "captions", "--domains", "photo", "--caption", s / "inception.pth", *export),
        ],
        "kind-export classes": [("--checkpoint", s / "checkpoint"), ("--from-diffusers", s / "pipeline")],
        "kind-export report": [(s / "bundle",), (s / "only",)],
        "kind-export register-optimum": [("--help",)],  # it opens nothing of anybody
        "kind-train fit": [(*data, "--start-from", s / "checkpoint"), ("--config", s / "options.yaml")],
        "kind-train adapt": [(*data, "--checkpoint", s / "checkpoint")],
        "kind-train distill": [(*data, "--checkpoint", s / "checkpoint", "--start-from", s / "checkpoint")],
        "kind-train benchmark": [("class-agnostic", "--checkpoint", s / "checkpoint", "--output", out)],
        "kind-train cache": [
            ("--data", s / "photos", "--autoencoder", s / "vae", "--size", 16, "--output", out, "--device", "cpu")
        ],
        "kind-train embed": [
            ("--data", s / "told", "--text-encoder", s / "pixart", "--output", out),
            ("--caption", "a boat", "--text-encoder", s / "pixart", "--output", out),
        ],
        "kind-train imagenet-split": [(s / "photos", out)],
        "kind-train classifier": [("--data", s / "photos", "--size", 16, "--images", 4, "-o", out)],
        "kind-train add": [(s / "checkpoint", s / "checkpoint")],
        "kind-train convert": [(s / "checkpoint", out)],
        "kind-train shrink": [(s / "checkpoint", out, "--construction", "auto-lg")],
        "kind-train statistics": [
            (*real, "--inception-weights", s / "inception.pth", "--dinov2", "none"),
            (*real, "--inception-weights", "none", "--dinov2", s / "dinov2"),
        ],
        "kind-train init": [
            ("--from-dit", s / "pipeline", "--learngene-rank", 8, "--tailor-rank", 2, "-o", out, "--classes", "tench"),
            ("--from-dit", s / "pickled", "--learngene-rank", 8, "--tailor-rank", 2, "-o", out),
        ],
        "kind-train evaluate": [
            ("--bundle", s / "bundle", *photos, *none),
            ("--bundle", s / "only", *photos, *none),
            ("--checkpoint", s / "checkpoint", *photos, *none, "--classifier", s / "inception.pth"),
            ("--checkpoint", s / "checkpoint", *photos, "--inception-weights", "none", "--dinov2", s / "dinov2"),
            ("--checkpoint", s / "checkpoint", *photos, "--inception-weights", s / "inception.pth", "--dinov2", "none"),
        ],
        "kind-bench run": [
            (s / "bundle", "--repeat", 1, "--rounds", 1, "--images", 0, "--warmup", 0),
            (s / "only",),
        ],
        "kind-bench import": [(s / "bundle" / "manifest.json", "--bundle", s / "bundle")],
        "kind-bench adb": [(s / "bundle",)],
        "kind-bench compare": [(s / "bundle" / "manifest.json", s / "only" / "manifest.json")],
        "kind-bench calibrate": [(s / "bundle" / "manifest.json", "--bundle", s / "bundle", "-o", out / "d.json")],
        "kind-bench devices": [()],
        "kind-bench lint": [(s / "bundle",), (s / "only",), (s / "only", "--profile")],
        "kind-bench paper": [()],
        "kind-run draw": [
            (s / "bundle", "--class", "giant panda", "-o", s / "p.png", "--force"),
            (s / "only", "--class", "giant panda"),
        ],
        "kind-run serve": [(s / "bundle", "--port", 0), (s / "only", "--port", 0)],
        "kind-run inspect": [(s / "bundle",), (s / "only",), (s / "bundle" / "onnx" / "step.onnx",)],
    }  # fmt: skip


def call(command: str, *arguments: object) -> Result:
    group, _, name = command.partition(" ")
    return CliRunner().invoke(GROUPS[group], [*([name] if name else []), *map(str, arguments)])


def test_every_command_is_walked() -> None:
    known = {f"{group} {name}" for group, main in GROUPS.items() for name in main.commands}
    assert set(_commands(Path(), Path())) == known | {"kind-export"}


@pytest.mark.parametrize("command", list(_commands(Path(), Path())))
def test_nothing_of_a_stranger_runs(
    command: str, strangers: Path, trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kind_runtimes.serve.BundleServer, "serve_forever", lambda self: None)
    for number, arguments in enumerate(_commands(strangers, tmp_path / "out")[command]):
        done = call(command, *(tmp_path / f"out{number}" if one == tmp_path / "out" else one for one in arguments))
        assert not trap.went_off, arguments
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception


def test_the_trap_goes_off_where_its_runtime_is_named(strangers: Path, tmp_path: Path) -> None:
    """Otherwise the walk would show nothing."""
    trap = Trap(tmp_path / "mark")
    bundle = trap.spoil_bundle(Path(shutil.copytree(strangers / "bundle", tmp_path / "bundle")))
    done = call("kind-run draw", bundle, "--class", "giant panda", "--runtime", "diffusers", "-o", tmp_path / "p.png")
    assert trap.went_off, done.stderr
    trap.mark.unlink()
    with pytest.raises(BundleError, match="diffusers cannot load"):
        open_generator(bundle, open_bundle(bundle, run_code=True).manifest, "diffusers")
    assert trap.went_off


def test_python_runs_code_only_by_its_argument(strangers: Path, trap: Trap) -> None:
    bundle = open_bundle(strangers / "bundle")
    for name in bundle.manifest.targets:
        if name == "diffusers":
            with pytest.raises(TargetError, match="are code, and nobody asked for it to run"):
                open_generator(bundle.path, bundle.manifest, name)
        else:
            open_generator(bundle.path, bundle.manifest, name)
    assert not trap.went_off


def test_modules_of_the_folder_one_stands_in_are_not_imported(strangers: Path, tmp_path: Path) -> None:
    """`cd bundle && kind-bench run .`, where the bundle has a numpy.py of its own."""
    trap = Trap(tmp_path / "mark")
    bundle = Path(shutil.copytree(strangers / "bundle", tmp_path / "bundle"))
    trap.put_code(bundle, names=SHADOWS)
    program = "import sys; sys.path.remove(''); from kind_bench.cli import main; main()"
    arguments = ["run", ".", "--repeat", "1", "--rounds", "1", "--images", "0", "--warmup", "0"]
    command = [sys.executable, "-c", program, *arguments]  # as the installed script has its path
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not trap.went_off


@pytest.mark.parametrize("how", ["unlisted", "hard link", "in a branch"])
def test_a_program_reads_no_file_that_the_manifest_does_not_list(how: str, strangers: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(strangers / "bundle", tmp_path / "bundle"))
    step = bundle / "onnx" / "step.onnx"
    model = onnx.load(step)
    tensor = onnx.TensorProto(name="unverified", data_type=onnx.TensorProto.FLOAT, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value="more.bin")
    if how == "in a branch":
        graph = onnx.helper.make_graph([], "branch", [], [], [tensor])
        model.graph.node.append(onnx.helper.make_node("If", ["never"], [], then_branch=graph))
    else:
        model.graph.initializer.append(tensor)
    step.write_bytes(model.SerializeToString())
    (tmp_path / "secret").write_bytes(bytes(4))
    _rehash(bundle)
    put = os.link if how == "hard link" else shutil.copyfile
    put(tmp_path / "secret", bundle / "onnx" / "more.bin")
    with pytest.raises(BundleError, match=r"reads onnx/more\.bin, which manifest\.json does not list"):
        open_bundle(bundle)
    _rehash(bundle)  # now it lists it
    assert "onnx/more.bin" in open_bundle(bundle).manifest.files


def test_a_program_folder_holds_no_file_that_the_manifest_does_not_list(strangers: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(strangers / "bundle", tmp_path / "bundle"))
    (bundle / "diffusers" / "more.py").write_text("")
    with pytest.raises(BundleError, match=r"reads diffusers/more\.py, which manifest\.json does not list"):
        open_bundle(bundle)
    (bundle / "diffusers" / "more.py").rename(bundle / "diffusers" / ".DS_Store")
    open_bundle(bundle)


def test_no_file_of_a_bundle_is_a_link_out_of_it(strangers: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(strangers / "bundle", tmp_path / "bundle"))
    step = bundle / "onnx" / "step.onnx"
    step.rename(tmp_path / "step.onnx")
    step.symlink_to(tmp_path / "step.onnx")
    with pytest.raises(BundleError, match=r"step\.onnx is a link out of the bundle"):
        open_bundle(bundle)


def test_an_operator_that_onnxruntime_does_not_have_is_no_library_to_load(strangers: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(strangers / "bundle", tmp_path / "bundle"))
    step = bundle / "onnx" / "step.onnx"
    model = onnx.load(step)
    model.graph.node[-1].domain = "stranger.example"
    model.opset_import.add(domain="stranger.example", version=1)
    step.write_bytes(model.SerializeToString())
    _rehash(bundle)
    done = call("kind-run draw", bundle, "--class", "giant panda", "-o", tmp_path / "p.png")
    assert done.exit_code == 1
    assert "error: onnxruntime cannot load" in done.stderr.splitlines()[-2]


def _rehash(bundle: Path) -> None:
    """Whoever changes a bundle can write its hashes too."""
    data = json.loads((bundle / MANIFEST_NAME).read_text())
    data["files"] = {name: {"sha256": hash_file(bundle / name), "size_bytes": 1} for name in list_files(bundle)}
    (bundle / MANIFEST_NAME).write_text(json.dumps(data))
