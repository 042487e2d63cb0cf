"""What is read: for each kind of document or file a right one, how it is changed, and how it is read and then used.

A reader that accepts must be able to go on: a checkpoint runs forward, a bundle draws, results compare with themselves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzz import mutations, training

LOWERED = "KIND_FUZZ_BUNDLE"  # the environment's name for a bundle of small programs for every target
Write = Callable[[Path, Random], Path]
_NOISE = np.linspace(-2, 2, 192, dtype=np.float32).reshape(1, 3, 8, 8)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """`write` puts a changed input into an empty folder and says where; `use` reads and uses it, or raises."""

    name: str
    write: Write
    use: Callable[[Path], None]


def _with(file: Path, content: bytes, rng: Random) -> Path:
    """The file as it was changed; one in twelve is no file at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    if rng.randrange(12) == 0:
        mutations.no_file(file, rng)
    return file


# ---- checkpoints


@cache
def _checkpoint_files() -> dict[str, bytes]:
    import tempfile

    from kind_core.checkpoint import save_checkpoint
    from tiny import tiny_config, tiny_model, tiny_model_config

    dit = tiny_config(num_classes=2, depth=1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "c"
        save_checkpoint(place, tiny_model_config(dit), tiny_model(dit))
        return {str(f.relative_to(place)): f.read_bytes() for f in place.rglob("*") if f.is_file()}


def _write_checkpoint(folder: Path, rng: Random) -> Path:
    files = _checkpoint_files()
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    name = rng.choice(("config.json", "config.json", "config.json", *sorted(files)))
    if name == "config.json":
        document = mutations.mutate_document(json.loads(files[name]), rng)
        _with(folder / name, mutations.encode_json(document, rng), rng)
    else:
        _with(folder / name, mutations.mutate_safetensors(files[name], rng), rng)
    return folder


def _use_checkpoint(place: Path) -> None:
    import torch

    from kind_core.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(place)
    config = checkpoint.config.dit
    shape = (1, config.in_channels, config.sample_size, config.sample_size)
    with torch.no_grad():
        output = checkpoint.model(torch.zeros(shape), torch.zeros(1), torch.tensor([0]), torch.tensor([0]))
    assert output.shape[:1] == (1,)


# ---- bundles: a step and a decoder that really run


def _tensor(name: str, shape: list[int], dtype: str = "float32") -> dict[str, Any]:
    return {"name": name, "shape": shape, "dtype": dtype}


@cache
def step_file() -> bytes:
    """A step in ONNX: latents * weights + guidance * 0.1, whatever step and class."""
    from onnx import TensorProto, helper, numpy_helper

    shape = [1, 3, 8, 8]
    inputs = [
        helper.make_tensor_value_info("latents", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("step_index", TensorProto.INT32, [1]),
        helper.make_tensor_value_info("class_index", TensorProto.INT32, [1]),
        helper.make_tensor_value_info("guidance", TensorProto.FLOAT, [1]),
    ]
    constants = [
        numpy_helper.from_array(np.full((8, 8), 0.1, np.float32), "weights"),
        numpy_helper.from_array(np.linspace(0, 1, 4, dtype=np.float32), "table"),
        numpy_helper.from_array(np.zeros((2, 3, 1, 1), np.float32), "tailors"),
    ]
    nodes = [
        helper.make_node("MatMul", ["latents", "weights"], ["product"]),
        helper.make_node("Gather", ["table", "step_index"], ["share"]),
        helper.make_node("Gather", ["tailors", "class_index"], ["tailor"]),
        helper.make_node("Mul", ["share", "guidance"], ["scale"]),
        helper.make_node("Add", ["product", "scale"], ["moved"]),
        helper.make_node("Add", ["moved", "tailor"], ["next_latents"]),
    ]
    output = helper.make_tensor_value_info("next_latents", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "step", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@cache
def _decode_file() -> bytes:
    from onnx import TensorProto, helper

    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("latents", "image")]
    graph = helper.make_graph([helper.make_node("Sigmoid", ["latents"], ["image"])], "decode", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def write_bundle(folder: Path, step: bytes | None = None) -> dict[str, Any]:
    """A bundle of two small ONNX programs; returns its manifest, which is written too."""
    from hashlib import sha256

    programs = {"onnx/step.onnx": step or step_file(), "onnx/decode.onnx": _decode_file()}
    for name, content in programs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    shape = [1, 3, 8, 8]
    step_inputs = [
        _tensor("latents", shape), _tensor("step_index", [1], "int32"), _tensor("class_index", [1], "int32"),
        _tensor("guidance", [1]),
    ]  # fmt: skip
    data = {
        "format_version": 1, "name": "small", "steps": 4, "sampler": "ddim", "guidance_scale": 1.5,
        "classes": [{"id": "n1", "names": ["panda"]}, {"id": "n2", "names": ["lemon"]}], "initial_noise_scale": 1.0,
        "guidance_interval": [0, 0.5], "guided_steps": [0, 1],
        "latents_shape": shape, "noise_generator": "philox4x32-10+box-muller/1", "tools": {"onnx": "1"},
        "source": {"checkpoint_sha256": "0" * 64}, "rewrites": {},
        "targets": {"onnx": {
            "precision": "fp32",
            "parity": {"verified_by": "a", "threshold_db": 0, "trajectory_psnr_db": 0, "step_psnr_db": 0},
            "programs": {
                "step": {"file": "onnx/step.onnx", "inputs": step_inputs, "outputs": [_tensor("next_latents", shape)]},
                "decode": {"file": "onnx/decode.onnx", "inputs": step_inputs[:1], "outputs": [_tensor("image", shape)]},
            },
        }},
        "files": {n: {"sha256": sha256(c).hexdigest(), "size_bytes": len(c)} for n, c in programs.items()},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(data), encoding="utf-8")
    return data


def _write_manifest(folder: Path, rng: Random) -> Path:
    data = mutations.mutate_document(write_bundle(folder), rng)
    _with(folder / "manifest.json", mutations.encode_json(data, rng), rng)
    if rng.randrange(12) == 0:
        mutations.no_file(folder / rng.choice(("onnx/step.onnx", "onnx/decode.onnx")), rng)
    return folder


def _write_program(folder: Path, rng: Random) -> Path:
    """A changed program whose hash is right: what the engine says of it is what is tested."""
    write_bundle(folder, mutations.mutate_onnx(step_file(), rng))
    return folder


def _use_bundle(place: Path) -> None:
    from kind_runtimes.bundle import open_bundle
    from kind_runtimes.draw import RunRequest, run_bundle

    bundle = open_bundle(place)
    first = bundle.manifest.classes[0].id
    run_bundle(RunRequest(bundle=place, class_name=first, output=place.parent / "picture.png", runtime="onnx"))


def _use_counts(place: Path) -> None:
    from kind_bench.counting import count_bundle
    from kind_runtimes.bundle import open_bundle

    assert count_bundle(open_bundle(place))["onnx"]["step"].flops() >= 0


def _copy_lowered(folder: Path, target: str, rng: Random) -> Path:
    """The bundle of small programs for one target, and one of its two programs, which is to be changed."""
    import shutil

    from small_bundles import SUFFIXES

    shutil.copytree(Path(os.environ[LOWERED]) / target, folder / target)
    return folder / target / f"{rng.choice(('step', 'step', 'decode'))}{SUFFIXES[target]}"


def _write_executorch(folder: Path, rng: Random) -> Path:
    from small_bundles import write_manifest as write_right_manifest

    file = _copy_lowered(folder, "executorch", rng)
    file.write_bytes(mutations.change_words(file.read_bytes(), rng))
    write_right_manifest(folder, ["executorch"])
    return file


def _write_coreml(folder: Path, rng: Random) -> Path:
    from small_bundles import write_manifest as write_right_manifest

    package = _copy_lowered(folder, "coreml", rng)
    files = sorted(file for file in package.rglob("*") if file.is_file())
    file = rng.choice((*files, *(one for one in files if one.suffix == ".mlmodel"), *files[1:2]))
    content = file.read_bytes()
    if file.suffix == ".json":
        file.write_bytes(mutations.encode_json(mutations.mutate_document(json.loads(content), rng), rng))
    elif file.suffix == ".mlmodel" and rng.randrange(4):
        file.write_bytes(_mutate_mlmodel(content, rng))
    else:
        file.write_bytes(mutations.flip_bytes(content, rng))
    write_right_manifest(folder, ["coreml"])
    return package


def _mutate_mlmodel(content: bytes, rng: Random) -> bytes:
    from kind_runtimes.quiet import import_coremltools

    model = import_coremltools().proto.Model_pb2.Model()
    model.ParseFromString(content)
    mutations.mutate_message(model, rng)
    return bytes(model.SerializeToString())


def _use_lowered(place: Path) -> None:
    """A program of a bundle: inspected alone, counted and drawn with; what all of them refuse is refused."""
    from kind_bench.counting import count_bundle
    from kind_core.errors import KindError
    from kind_runtimes.bundle import open_bundle
    from kind_runtimes.draw import RunRequest, run_bundle
    from kind_runtimes.inspection import inspect_path

    folder, target = place.parents[1], place.parent.name
    output = folder / "picture.png"
    request = RunRequest(bundle=folder, class_name="giant panda", output=output, runtime=target, force=True)
    refusals = []
    for use in (lambda: inspect_path(place), lambda: count_bundle(open_bundle(folder)), lambda: run_bundle(request)):
        try:
            use()
        except KindError as error:
            refusals.append(error)
    if refusals:
        raise refusals[-1]


def _write_onnx(folder: Path, rng: Random) -> Path:
    return _with(folder / "step.onnx", mutations.mutate_onnx(step_file(), rng), rng)


def _use_inspection(place: Path) -> None:
    from kind_runtimes.inspection import inspect_path

    assert inspect_path(place).kind


# ---- packs


@cache
def _pack_file() -> bytes:
    from safetensors.numpy import save

    from kind_core.classes import ClassInfo
    from kind_runtimes.packs import PACK_TENSORS, encode_metadata

    tensors = {name: np.ones((2, 8), np.float16) for name in PACK_TENSORS}
    return bytes(save(tensors, encode_metadata(ClassInfo(id="n1", names=("panda",)), "0" * 64)))


def _write_pack(folder: Path, rng: Random) -> Path:
    content = _pack_file()
    changed = (
        mutations.mutate_metadata(content, "pack", rng) if rng.randrange(2) else
        mutations.mutate_safetensors(content, rng)
    )  # fmt: skip
    return _with(folder / "panda.pack", changed, rng)


def _use_pack(place: Path) -> None:
    from kind_runtimes.manifest import TensorSpec
    from kind_runtimes.packs import PACK_TENSORS, pack_inputs, read_pack, read_pack_info

    assert read_pack_info(place).name
    pack = read_pack(place)
    pack_inputs(pack, [TensorSpec(name=name, shape=(2, 8), dtype="float32") for name in PACK_TENSORS])
    _use_inspection(place)


# ---- results, reports, devices, options


@cache
def _results_data() -> dict[str, Any]:
    case = {"runtime": "onnx", "engine": "onnxruntime", "threads": 2, "step_ms": {"samples": [5.0, 4.0, 6.0]},
            "load_ms": {"first": 20.0}}  # fmt: skip
    return {
        "format_version": 1, "kind": "measured", "made_by": "a test app 1.0", "cases": [case],
        "bundle": {"name": "small", "manifest_sha256": "0" * 64}, "machine": {"system": "A 15", "processor": "S"},
    }  # fmt: skip


def _write_results(folder: Path, rng: Random) -> Path:
    data = mutations.mutate_document(_results_data(), rng)
    return _with(folder / "here.json", mutations.encode_json(data, rng), rng)


def _use_results(place: Path) -> None:
    from kind_bench.results.compare import compare_files
    from kind_bench.results.results import read_results

    read_results(place)
    assert compare_files(place, place).changes


@cache
def _report_data() -> dict[str, Any]:
    import tempfile

    from made_up_reports import write_reports

    with tempfile.TemporaryDirectory() as folder:
        return write_reports(Path(folder))[0]


def _write_report(folder: Path, rng: Random) -> Path:
    write_bundle(folder)
    data = mutations.mutate_document(_report_data(), rng)
    _with(folder / "report.json", mutations.encode_json(data, rng), rng)
    return folder


def _use_report(place: Path) -> None:
    from kind_bench.results.compare import compare_files
    from kind_export.report.collect import choose_devices, refresh_report

    assert compare_files(place / "report.json", place / "report.json").changes
    refresh_report(place, choose_devices(["apple-a16"]))
    assert "<html" in (place / "report.html").read_text(encoding="utf-8")


@cache
def _device_data() -> dict[str, Any]:
    from kind_bench.forecasting.devices import describe_device, load_device

    data: dict[str, Any] = json.loads(json.dumps(describe_device(load_device("apple-a16"))))
    rate = {"runtime": "onnx", "threads": 2, "provider": None, "measured": ["gflop"], "first_load_ms_per_mb": 2.0,
            "ms_per": {"gflop": 20.0, "mb": 0.1, "operator": 0.01, "call": 0.1}, "num_measurements": 12,
            "median_error": 0.1, "factor": 1.5, "sustained_share": 0.9}  # fmt: skip
    return data | {"calibration": {"format_version": 1, "rates": [rate], "bundles": ["small"]}}


def _write_device(folder: Path, rng: Random) -> Path:
    data = mutations.mutate_document(_device_data(), rng)
    return _with(folder / "phone.json", mutations.encode_json(data, rng), rng)


def _use_device(place: Path) -> None:
    from kind_bench.forecasting.calibration import parse_calibration
    from kind_bench.forecasting.devices import describe_device, load_device

    device = load_device(str(place))
    parse_calibration(device)
    assert describe_device(device)


def _write_toml(folder: Path, rng: Random) -> Path:
    from importlib.resources import files

    text = (files("kind_bench") / "devices" / "apple-a16.toml").read_text(encoding="utf-8")
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 3))):
        index = rng.randrange(len(lines))
        new = (
            "x = 1",
            "[units.cpu",
            "a = " + "[" * 5000,
            "name = 7",
            "year = 1e400",
            "[[units]]",
            'name = "\\u0000"',
            "",
        )
        lines[index] = rng.choice((*new, lines[index] * 2, lines[index].replace("=", "= -"), lines[index][:-1]))
    return _with(folder / "phone.toml", mutations.damage_text("\n".join(lines), rng), rng)


_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
_YAML_LINES: tuple[str, ...] = (
    "images: 1e30", "images: -1", "images: [1]", "images: .nan", "batch_size: 1000000000000", "images: 0x7fffffffffff",
    "data: !!python/object/apply:os.system [true]", "output: &x [*x]", "<<: {data: x}", "? [a]\n: b",
    "learning_rate: .inf", "output: " + "[" * 5000, "output: 2001-99-99", "images: 1:99:99", "images: " + "9" * 6000,
    'data: "\\0"', "1: 2", "classes: {a: b}", "output: " + "x" * 5000, "resume: yes", "seed: 1.5", "--- a",
    "%YAML 9.9", "\t", "data: |", _BOMB,
)  # fmt: skip


def _write_options(folder: Path, rng: Random) -> Path:
    lines = ["data: photos", "output: run", "images: 1000", "learning_rate: 1e-4", "classes: [panda, lemon]"]
    for _ in range(rng.choice((1, 1, 2))):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(_YAML_LINES))
    return _with(folder / "options.yaml", mutations.damage_text("\n".join(lines), rng), rng)


def _use_options(place: Path) -> None:
    from kind_train.options_file import load_options

    assert load_options(load_options(place, {}) and place, {}).to_yaml()


# ---- names that are no names


# No argument holds NUL, with which the system starts no program, nor half a surrogate pair but for an undecodable byte.
_NAMES = (
    "n" * 5000, "/".join(["d"] * 3000), "\udc80", "", ".", "..", "/dev/zero", "/dev/stdin", "/dev/full",
)  # fmt: skip


def _write_name(folder: Path, rng: Random) -> Path:
    return Path(rng.choice(_NAMES) + rng.choice(("", "", ".onnx", ".json", ".pack", ".toml")))


_COMMANDS = (
    ("kind_runtimes.cli", ["inspect", "{}"]), ("kind_runtimes.cli", ["{}", "-o", "x.png"]),
    ("kind_bench.cli", ["compare", "{}", "{}"]), ("kind_bench.cli", ["devices", "{}"]),
    ("kind_export.cli", ["--checkpoint", "{}", "--classes", "a"]), ("kind_train.cli", ["fit", "--config", "{}"]),
    ("kind_export.cli", ["report", "{}"]), ("kind_export.cli", ["classes", "--checkpoint", "{}"]),
    ("kind_bench.cli", ["import", "{}", "{}"]), ("kind_bench.cli", ["lint", "{}"]),
)  # fmt: skip


def _use_name(place: Path) -> None:
    """By every command line, where a name is an argument: what they print is the answer."""
    from importlib import import_module

    from click.testing import CliRunner

    from kind_core.errors import KindError

    results = []
    for module, arguments in _COMMANDS:
        command = import_module(module).main
        given = [one.format(place) for one in arguments]
        results.append(CliRunner().invoke(command, given))
    for result in results:
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code != 0 or not result.output.startswith("Traceback")
    raise KindError(f"{place!s:.100}: refused by every command")


SUBJECTS = tuple(
    Subject(name=name, write=write, use=use)
    for name, write, use in (
        ("manifest", _write_manifest, _use_bundle),
        ("checkpoint", _write_checkpoint, _use_checkpoint),
        ("program with its hash", _write_program, _use_bundle),
        ("program counted", _write_program, _use_counts),
        ("program alone", _write_onnx, _use_inspection),
        ("ExecuTorch program", _write_executorch, _use_lowered),
        ("Core ML package", _write_coreml, _use_lowered),
        ("pack", _write_pack, _use_pack),
        ("results", _write_results, _use_results),
        ("report", _write_report, _use_report),
        ("device", _write_device, _use_device),
        ("device table", _write_toml, _use_device),
        ("options", _write_options, _use_options),
        ("name", _write_name, _use_name),
        ("golden data", training.write_golden, _use_bundle),
        ("run", training.write_run, training.use_run),
        ("cache", training.write_cache, training.use_cache),
        ("classifier", training.write_classifier, training.use_classifier),
        ("pipeline", training.write_pipeline, training.use_pipeline),
    )
)
