"""The whole export of a tiny checkpoint to all three targets, as a user runs it, and what the bundle promises."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import load_file

from kind_core.checkpoint import load_checkpoint, save_checkpoint
from kind_core.closeness import psnr_db
from kind_core.config import TrainingRecord
from kind_core.files.hashing import hash_file
from kind_core.noise import start_noise
from kind_core.precisions import PRECISIONS
from kind_core.samplers import Sampling
from kind_export.cli import main
from kind_export.request import TARGETS
from kind_export.verify.reference import Reference
from kind_runtimes.bundle import Bundle, list_files, open_bundle
from kind_runtimes.engines.versions import VERSIONS
from kind_runtimes.generator import open_generator
from kind_runtimes.manifest import check_schema
from tiny import CLASSES, tiny_config, tiny_model, tiny_model_config

STEPS = 4
BARELY = TrainingRecord(images=320, held_out_loss=0.9, mean_image_loss=1.0)
OPTIONS = ["--classes", "panda", "--target", "all", "--steps", str(STEPS), "--sampler", "dpmpp", "--guidance", "2"]
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Export:
    """A finished export: the checkpoint, the bundle, and what the command printed."""

    checkpoint: Path
    bundle: Bundle
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    folder = tmp_path_factory.mktemp("export")
    dit = tiny_config(depth=1)
    config = tiny_model_config(dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample")
    config = replace(config, training=BARELY)
    checkpoint, output = folder / "model", folder / "panda.kind"
    save_checkpoint(checkpoint, config, tiny_model(dit))
    result = CliRunner().invoke(main, [*OPTIONS, "--json", "--checkpoint", str(checkpoint), "-o", str(output)])
    assert result.exit_code == 0, result.output
    return Export(checkpoint, open_bundle(output), result.stdout, result.stderr)


def test_a_model_that_has_barely_trained_is_called_so_everywhere(export: Export) -> None:
    """85 dB of closeness to a model that draws nothing is no good news."""
    told = "The model has barely trained: held-out loss 0.9 after 320 images, 90\u00a0% of that of the mean image."
    assert told in export.stderr
    assert export.bundle.manifest.data["source"]["training"] == BARELY.to_dict()
    page = (export.bundle.path / "report.html").read_text(encoding="utf-8")
    assert 'class="warning"' in page
    assert "held-out loss 0.9 after 320 images" in page


def test_stdout_is_json_alone(export: Export) -> None:
    printed = json.loads(export.stdout)
    assert printed["bundle"] == str(export.bundle.path)
    assert printed["manifest"] == json.loads((export.bundle.path / "manifest.json").read_text())
    assert printed["report"] == json.loads((export.bundle.path / "report.json").read_text())


def test_progress_and_notes_are_on_stderr(export: Export) -> None:
    assert "lowering step to onnx" in export.stderr
    assert "'panda' is taken as 'giant panda', not 'lesser panda'" in export.stderr


def test_nothing_lies_beside_the_bundle(export: Export) -> None:
    assert sorted(p.name for p in export.bundle.path.parent.iterdir()) == ["model", "panda.kind"]


def test_manifest_fits_its_schema(export: Export) -> None:
    data = dict(export.bundle.manifest.data)
    check_schema(data, "manifest", "manifest.json")
    assert [c["id"] for c in data["classes"]] == [CLASSES[0].id]
    assert (data["steps"], data["sampler"], data["guidance_scale"]) == (STEPS, "dpmpp", 2.0)
    assert data["source"]["checkpoint_sha256"] == load_checkpoint(export.checkpoint, [0]).sha256


def test_manifest_lists_every_file_with_its_hash(export: Export) -> None:
    path, files = export.bundle.path, export.bundle.manifest.data["files"]
    assert sorted(files) == list_files(path)
    for name, entry in files.items():
        assert entry == {"sha256": hash_file(path / name), "size_bytes": (path / name).stat().st_size}


@pytest.mark.parametrize("target", TARGETS)
def test_parity_is_in_the_manifest(export: Export, target: str) -> None:
    entry = export.bundle.manifest.data["targets"][target]
    parity, precision = entry["parity"], entry["precision"]
    assert precision == ("fp16" if target == "coreml" else "fp32")
    assert parity["threshold_db"] == PRECISIONS[precision].trajectory_db
    assert parity["trajectory_psnr_db"] > parity["threshold_db"]
    assert parity["step_psnr_db"] > 40
    assert parity["verified_by"]


def test_golden_file_is_the_eager_model(export: Export) -> None:
    golden = load_file(export.bundle.path / "golden.safetensors")
    checkpoint = load_checkpoint(export.checkpoint, [0])
    reference = Reference(checkpoint=checkpoint, sampling=Sampling(sampler="dpmpp", steps=STEPS, guidance_scale=2.0))
    trajectory = reference.run(0)
    np.testing.assert_array_equal(golden["0.noise"], start_noise(0, (1, 3, 8, 8)))
    np.testing.assert_allclose(golden["0.latents"], np.concatenate(trajectory.latents), atol=1e-6)
    np.testing.assert_allclose(golden["0.image"], reference.decode(trajectory.latents[-1]), atol=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_an_apps_loop_makes_the_golden_picture(export: Export, target: str) -> None:
    golden = load_file(export.bundle.path / "golden.safetensors")
    generator = open_generator(export.bundle.path, export.bundle.manifest, target)
    latents = list(generator.trajectory(golden["0.noise"], 0))
    assert len(latents) == STEPS
    for step, actual in enumerate(latents):
        assert psnr_db(golden["0.latents"][step + 1 : step + 2], actual) > (60 if target != "coreml" else 35)
    assert generator.decode is not None
    picture = generator.picture(0, 0).astype(np.float32) / 255
    assert psnr_db(golden["0.image"][0].transpose(1, 2, 0), picture) > 35


def test_preview_and_reports_are_there(export: Export) -> None:
    with Image.open(export.bundle.path / "preview.png") as preview:
        assert preview.size == (4 * 200 + 8, 30 + 192 + 8)  # four pictures of 192 pixels under the class's name
    assert "<html" in (export.bundle.path / "report.html").read_text().lower()
    check_schema(json.loads((export.bundle.path / "report.json").read_text()), "report", "report.json")


def test_no_path_of_this_machine_is_in_the_bundle(export: Export) -> None:
    paths = (Path.cwd(), Path.home(), Path(np.__file__).parents[1], export.checkpoint.parent)
    for name in (*list_files(export.bundle.path), "manifest.json"):
        content = (export.bundle.path / name).read_bytes()
        assert not [path for path in paths if len(path.parts) > 1 and os.fsencode(path) in content], name


def test_same_command_elsewhere_gives_the_same_bytes(export: Export, tmp_path: Path) -> None:
    code = "from kind_export.cli import main; main()"
    checkpoint = os.path.relpath(export.checkpoint, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code, *OPTIONS, "--checkpoint", checkpoint, "-o", "other.kind"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["bundle  other.kind", "report  other.kind/report.html"]
    assert done.stderr.splitlines()[0].endswith("loading torch and the exporters")
    assert done.stderr.splitlines()[-1].endswith("kind-run other.kind --scale 8")
    first, second = export.bundle.path, tmp_path / "other.kind"
    assert list_files(first) == list_files(second)
    assert {"golden.safetensors", "preview.png", "onnx/step.onnx", "executorch/step.pte"} <= set(list_files(first))
    differing = [name for name in list_files(first) if (first / name).read_bytes() != (second / name).read_bytes()]
    assert differing == []
    manifests = [json.loads((path / "manifest.json").read_text()) for path in (first, second)]
    assert [manifest.pop("name") for manifest in manifests] == ["panda", "other"]
    assert manifests[0] == manifests[1]


def test_existing_bundle_is_replaced_with_force_only(export: Export, tmp_path: Path) -> None:
    output = Path(shutil.copytree(export.bundle.path, tmp_path / "panda.kind"))
    arguments = ["--classes", "panda", "--target", "onnx", "--steps", "2", "--checkpoint", str(export.checkpoint)]
    assert CliRunner().invoke(main, [*arguments, "-o", str(output)]).exit_code == 1
    assert set(open_bundle(output).manifest.targets) == set(export.bundle.manifest.targets)
    done = CliRunner().invoke(main, [*arguments, "-o", str(output), "--force"])
    assert done.exit_code == 0, done.output
    assert set(open_bundle(output).manifest.targets) == {"onnx"}
    assert [path.name for path in tmp_path.iterdir()] == ["panda.kind"]


def test_classes_are_listed(export: Export) -> None:
    listed = CliRunner().invoke(main, ["classes", "--checkpoint", str(export.checkpoint)])
    assert listed.stdout.splitlines() == [f"{c.id}  {', '.join(c.names)}" for c in CLASSES]
    as_json = CliRunner().invoke(main, ["classes", "--json", "--checkpoint", str(export.checkpoint)])
    assert json.loads(as_json.stdout) == [{"id": c.id, "names": list(c.names)} for c in CLASSES]


def test_the_manifest_says_which_engines_were_tried(export: Export) -> None:
    for name, target in export.bundle.manifest.data["targets"].items():
        known = VERSIONS[name]
        assert target["engine"] == {"package": known.package, "gate": known.gate, "oldest": known.oldest}
