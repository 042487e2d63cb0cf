"""Bad input ends in one clear line, exit code 1 and nothing lost or left behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from faults import CONSTANT_FAULTS
from safetensors.torch import load_file, save_file

from interruptible import interruptible
from kind_core.checkpoint import save_checkpoint
from kind_core.dit import KindDiT
from kind_export import pipeline
from kind_export.cli import main
from kind_export.target_rows import TARGET_ROWS
from kind_export.targets.target import load_target
from tiny import tiny_config, tiny_model, tiny_model_config

PANDA = "n02510455"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Two classes with sane trajectories of four steps."""
    return _save(tmp_path / "model", tiny_model(tiny_config(num_classes=2, depth=1)))


def _save(path: Path, model: KindDiT) -> Path:
    config = tiny_model_config(
        model.config, noise_schedule="squaredcos_cap_v2", prediction_type="sample", sampler="dpmpp", steps=4
    )
    save_checkpoint(path, config, model)
    return path


def _export(checkpoint: Path, *options: str, classes: str = "giant panda", target: str = "onnx") -> Result:
    output = checkpoint.parent / "out" / "panda.kind"
    arguments = ["--checkpoint", checkpoint, "--classes", classes, "--target", target, "--output", output, *options]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def _require_refused(result: Result, checkpoint: Path, *parts: str) -> None:
    """One `error:` line that holds `parts`, at most one hint, exit code 1, nothing on stdout, nothing published."""
    lines = [line for line in result.stderr.splitlines() if line.startswith(("error:", "hint:", "Traceback"))]
    assert [line.partition(":")[0] for line in lines] in (["error"], ["error", "hint"]), result.output
    assert result.stderr.splitlines()[-len(lines) :] == lines
    assert result.exit_code == 1
    assert result.stdout == ""
    for part in parts:
        assert part in " ".join(lines)
    folder = checkpoint.parent / "out"
    assert not folder.exists() or not list(folder.iterdir())


def _break_config(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def breaks(checkpoint: Path) -> None:
        file = checkpoint / "config.json"
        data = json.loads(file.read_text())
        change(data)
        file.write_text(json.dumps(data))

    return breaks


def _break_tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], object]:
    def breaks(checkpoint: Path) -> None:
        file = checkpoint / "learngene.safetensors"
        tensors = load_file(file)
        save_file(tensors | {name: change(tensors[name]).contiguous()}, file)

    return breaks


def _truncate(checkpoint: Path) -> None:
    file = checkpoint / "learngene.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "zero steps": (("--steps", "0"), ("steps is 0", "1 or more")),
    "too many steps": (("--steps", "1001"), ("steps is 1001", "1 to 1000")),
    "NaN guidance": (("--guidance", "nan"), ("guidance is nan", "finite")),
    "infinite guidance": (("--guidance", "inf"), ("guidance is inf", "finite")),
    "unknown precision": (("--precision", "int3"), ("precision is 'int3'", "fp32, fp16")),
    "unknown sampler": (("--sampler", "ddpm"), ("sampler is 'ddpm'", "ddim, dpmpp, dpmpp1, euler")),
    "sampler of another schedule": (("--sampler", "euler"), ("'euler'", "squaredcos_cap_v2", "ddim or dpmpp")),
    "unknown iOS": (("--min-ios", "12"), ("min-ios is 12", "17, 18")),
    "unknown baking": (("--baking", "maybe"), ("baking is 'maybe'", "auto, on, off")),
    "guidance interval backwards": (
        ("--guidance-interval", "0.8,0.2"),
        ("guidance-interval is 0.8,0.2", "lower first"),
    ),
    "empty guidance interval": (("--guidance-interval", "0.5,0.5"), ("guidance-interval is 0.5,0.5", "lower first")),
    "guidance interval beyond 1": (("--guidance-interval", "0,2"), ("guidance-interval is 0,2", "from 0 to 1")),
    "NaN guidance interval": (("--guidance-interval", "nan,1"), ("guidance-interval is nan,1", "from 0 to 1")),
    "guidance interval in words": (("--guidance-interval", "abc"), ("guidance-interval is 'abc'", "two numbers")),
    "half a guidance interval": (("--guidance-interval", "0.2"), ("guidance-interval is '0.2'", "two numbers")),
    "no energy": (("--energy", "0"), ("energy is 0", "above 0 up to 1")),
    "energy in percent": (("--energy", "99"), ("energy is 99", "above 0 up to 1")),
    "NaN energy": (("--energy", "nan"), ("energy is nan", "above 0 up to 1")),
    "no rank": (("--max-rank", "0"), ("max-rank is 0", "1 or more")),
    "negative rank": (("--max-rank", "-3"), ("max-rank is -3", "1 or more")),
    "palette for ONNX": (("--precision", "palette4"), ("'onnx' has no precision 'palette4'", "fp32", "int4")),
    "blend of one": (("--blend", "panda"), ("blend 'panda' does not name two classes", "panda+koala")),
    "blend with a gap": (("--blend", "panda+"), ("blend 'panda+' does not name two classes",)),
    "blend of an unknown class": (("--blend", "giant panda+leser panda"), ("'leser panda'", "'lesser panda'")),
    "blend of a class with itself": (("--blend", "giant panda+panda bear"), ("'panda bear'", "'giant panda'")),
    "class functions for ONNX": (("--class-functions",), ("target coreml alone, asked for onnx",)),
    "blend in packs": (("--blend", "giant panda+red panda", "--packs"), ("--blend", "not with --packs")),
}
CHECKPOINTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no tailor file": (
        lambda path: (path / "tailors" / f"{PANDA}.safetensors").unlink(), ("missing file", f"{PANDA}.safetensors"),
    ),
    "no config": (lambda path: (path / "config.json").unlink(), ("has no config.json",)),
    "cut short": (_truncate, ("learngene.safetensors", "not a whole safetensors file")),
    "NaN": (
        _break_tensor("patch_embedding.bias", lambda t: t * float("nan")),
        ("learngene.safetensors", "patch_embedding.bias", "NaN"),
    ),
    "wrong shape": (
        _break_tensor("patch_embedding.bias", lambda t: t[:-1]),
        ("patch_embedding.bias", "shape [31]", "expected [32]"),
    ),
    "newer format": (_break_config(lambda data: data.update(format_version=99)), ("format_version 99", "upgrade")),
    "other sizes": (_break_config(lambda data: data["architecture"].update(hidden_size=64)), ("shape", "expected")),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS)
def test_bad_option(checkpoint: Path, case: str) -> None:
    options, parts = OPTIONS[case]
    _require_refused(_export(checkpoint, *options), checkpoint, *parts)


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_bad_checkpoint(checkpoint: Path, case: str) -> None:
    breaks, parts = CHECKPOINTS[case]
    breaks(checkpoint)
    _require_refused(_export(checkpoint), checkpoint, *parts)


def test_unknown_class_names_the_nearest(checkpoint: Path) -> None:
    result = _export(checkpoint, classes="gaint panda")
    _require_refused(result, checkpoint, "'gaint panda'", "'giant panda'", "kind-export classes", "lists them all")


def test_unknown_target(checkpoint: Path) -> None:
    _require_refused(
        _export(checkpoint, target="tflite"),
        checkpoint,
        "'tflite'",
        "coreml, onnx, executorch, litert, diffusers or all",
    )


def test_few_bits_for_core_ml_need_ios_18(checkpoint: Path) -> None:
    result = _export(checkpoint, "--precision", "int4", target="coreml")
    _require_refused(result, checkpoint, "'int4'", "iOS 18", "--min-ios 18")


@pytest.mark.parametrize("options", [("--energy", "much"), ("--max-rank", "1.5")])
def test_option_that_is_no_number(checkpoint: Path, options: tuple[str, str]) -> None:
    result = _export(checkpoint, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: invalid value for '{options[0]}'")
    assert not (checkpoint.parent / "out").exists()


def test_no_checkpoint_folder(tmp_path: Path) -> None:
    _require_refused(_export(tmp_path / "nothing"), tmp_path / "nothing", "there is no folder", "nothing")


def test_nothing_asked_for() -> None:
    result = CliRunner().invoke(main, ["--target", "onnx"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no class was asked for" in result.stderr


@pytest.mark.parametrize("options", [["--target", "x"], ["--precision", "x"], ["--sampler", "x"], ["--min-ios", "9"]])
def test_bad_option_is_refused_before_torch_is_imported(options: list[str]) -> None:
    code = (
        "import sys\nfrom kind_export.request import ExportRequest\nfrom kind_export.cli import main\n"
        "try: main(['--classes', 'panda', '--target', 'onnx', '--checkpoint', 'x', *sys.argv[1:]])\n"
        "except SystemExit as end: assert end.code == 1\n"
        "assert not {'torch', 'coremltools', 'executorch', 'onnx', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, *options], check=True)


def test_help_is_fast() -> None:
    code = (
        "import os, sys\nfrom kind_export.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'diffusers', 'rich'} & set(sys.modules)\n"
        "assert sum(os.times()[:2]) < 0.5"  # of this process, however busy the machine is
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Examples:" in shown.stdout


def test_existing_output_is_untouched(checkpoint: Path) -> None:
    output = checkpoint.parent / "panda.kind"
    output.mkdir()
    (output / "mine").write_text("precious")
    result = _export(checkpoint, "--output", str(output))
    _require_refused(result, checkpoint, "panda.kind already exists", "--force")
    assert (output / "mine").read_text() == "precious"


def test_output_below_a_file(checkpoint: Path) -> None:
    result = _export(checkpoint, "--output", str(checkpoint / "config.json" / "panda.kind"))
    _require_refused(result, checkpoint, "cannot write", "is not a folder", "--output")


def test_unwritable_output(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    _require_refused(_export(checkpoint), checkpoint, "cannot write", "no permission")


def _raise(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_full_disk(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(load_target("onnx"), "lower", _raise(full))
    _require_refused(_export(checkpoint), checkpoint, "cannot write", "the disk is full", "free some space")


def test_exporter_error_is_one_line(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, "export", _raise(KeyError("\n\nno such op\nsecond line\nthird")))
    _require_refused(_export(checkpoint), checkpoint, "torch.onnx cannot lower step", "report")


def test_untrained_checkpoint(tmp_path: Path) -> None:
    checkpoint = _save(tmp_path / "model", KindDiT(tiny_config(num_classes=2, depth=1)))
    _require_refused(_export(checkpoint), checkpoint, "'giant panda' is flat", "untrained")


def test_tailor_without_effect(tmp_path: Path) -> None:
    model = tiny_model(tiny_config(num_classes=2, depth=1))
    state = model.tailors.state_of(0)
    silent = {name: t if name == "label_embedding" else torch.zeros_like(t) for name, t in state.items()}
    model.tailors.load_class(0, silent)
    checkpoint = _save(tmp_path / "model", model)
    _require_refused(_export(checkpoint), checkpoint, "closing the gate of 'giant panda'", "its tailor does nothing")


def test_failed_verification_publishes_nothing(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite = pipeline.rewrite
    monkeypatch.setattr(pipeline, "rewrite", lambda *given: CONSTANT_FAULTS["channels reversed"](rewrite(*given)))
    result = _export(checkpoint)
    _require_refused(result, checkpoint, "onnx: step 0", "nothing was published", "expected 70 dB")


def test_failed_replacement_keeps_the_old_bundle(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = checkpoint.parent / "panda.kind"
    output.mkdir()
    (output / "mine").write_text("precious")
    monkeypatch.setattr(load_target("onnx"), "lower", _raise(RuntimeError("no")))
    result = _export(checkpoint, "--force", "--output", str(output))
    assert result.exit_code == 1
    assert (output / "mine").read_text() == "precious"


@pytest.mark.slow
def test_interrupt_leaves_nothing(checkpoint: Path) -> None:
    folder = checkpoint.parent / "out"
    code = "from kind_export.cli import main; main()"
    arguments = ["--checkpoint", checkpoint, "--classes", "giant panda", "--target", "onnx"]
    with interruptible(
        [sys.executable, "-c", code, *map(str, arguments), "--output", str(folder / "panda.kind")]
    ) as process:
        deadline = time.monotonic() + 120
        while not list(folder.glob(".*.partial/panda.kind/onnx")) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "interrupted: nothing was published"
    assert "Traceback" not in stderr
    assert stdout == ""
    assert list(folder.iterdir()) == []


def test_classes_of_a_broken_checkpoint(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{")
    result = CliRunner().invoke(main, ["classes", "--checkpoint", str(checkpoint)])
    _require_refused(result, checkpoint, "config.json is not JSON")


def test_step_too_large_for_onnx_is_refused_before_anything_is_lowered(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGET_ROWS, "onnx", replace(TARGET_ROWS["onnx"], max_bytes=30_000))
    result = _export(checkpoint, target="all")
    _require_refused(result, checkpoint, "step.onnx in fp32 take 0.00 GB", "use fewer bits")
    assert "lowering" not in result.stderr
