"""Reports of small models that were never lowered, and a reader of their pages."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from kind_bench.counting.work import OpWork, ProgramWork
from kind_bench.forecasting.devices import load_device
from kind_core.checkpoint import Checkpoint
from kind_core.classes import ClassInfo
from kind_core.pictures import make_class_grid
from kind_core.schedule import read_sampler_table
from kind_export.compact.model import CompactModel
from kind_export.report.collect import write_report
from kind_export.rewrites import RewriteOptions, describe_rewrites, rewrite
from kind_export.targets.programs import latents_shape, make_decode, make_step
from kind_export.targets.target import TargetOptions, load_target
from kind_export.verify.parity import Parity
from kind_runtimes.documents.reports.targets import MeasuredHere
from kind_runtimes.manifest import FORMAT_VERSION, NOISE_GENERATOR, parse_manifest
from tiny import tiny_config, tiny_model, tiny_model_config

TARGETS = ("coreml", "onnx", "executorch")
LOWERING: dict[str, dict[str, Any]] = {
    "coreml": {"step": {"min_ios": 17}, "decode": {"min_ios": 17}},
    "onnx": {"step": {"opset": 20, "num_ops": 500}, "decode": {"opset": 20, "num_ops": 3}},
    "executorch": {
        "step": {"num_delegates": 1, "portable_ops": {"aten::index_select": 3, "aten::add": 1}},
        "decode": {"num_delegates": 1, "portable_ops": {}},
    },
}
PROFILE = {"delegate_share": 0.971, "run_ms": 4.5, "portable_ms": {"aten::index_select": 0.06}}
HOST = {"system": "Linux-6.1", "processor": "A Processor", "num_cpus": 2}

_CHOICE = {
    "precision": "int8", "max_rank": None, "forms": "auto", "steps": 4, "size_bytes": 1_900_000, "step_ms": 0.4,
    "image_ms": 1.7, "error_db": 51.5, "below_gate": False, "misses": [],
}  # fmt: skip
PLAN = {
    "budget": {"max_size_bytes": 2_000_000, "max_step_ms": 0.5, "max_image_ms": None, "device": "apple-a18"},
    "chosen": _CHOICE,
    "considered": [
        _CHOICE,
        _CHOICE | {"precision": "fp16", "error_db": None, "misses": ["max-size 2.00 MB, needs more"]},
    ],
}

Report = dict[str, Any]


def make_compact(baking: str = "auto", sampler: str = "dpmpp", **changes: Any) -> tuple[Checkpoint, CompactModel]:
    dit = tiny_config(**changes)
    checkpoint = Checkpoint(config=tiny_model_config(dit), model=tiny_model(dit), sha256="0" * 64)
    table = read_sampler_table(checkpoint.config.diffusion, sampler, 4)
    return checkpoint, rewrite(checkpoint.model, table, RewriteOptions(baking=baking))


def write_reports(
    folder: Path,
    *,
    num_classes: int = 2,
    targets: tuple[str, ...] = TARGETS,
    timed: bool = True,
    preview: bool = True,
    names: tuple[str, ...] = (),
    profile: Report | None = None,
    baking: str = "auto",
    sampler: str = "dpmpp",
    devices: tuple[str, ...] = ("a18", "kirin-9020"),
    plan: Report | None = None,
    **changes: Any,
) -> tuple[Report, str]:
    """Both reports of a model that was never lowered: sizes, parity and timings are made up."""
    checkpoint, compact = make_compact(baking, sampler, num_classes=num_classes, **changes)
    classes = [replace(c, names=(n, *c.names)) for c, n in zip(checkpoint.config.classes, names, strict=False)]
    classes += checkpoint.config.classes[len(classes) :]
    manifest = parse_manifest(json.dumps(_manifest(compact, classes, targets, sampler)), "the manifest")
    if preview:
        pictures = [np.full((8, 8, 3), 8 * i, np.uint8) for i in range(4 * num_classes)]
        rows = [(info, pictures[4 * i : 4 * i + 4]) for i, info in enumerate(classes)]
        make_class_grid(rows, 192).save(folder / "preview.png")
    measured = {"kind": "measured", "machine": HOST, "cases": []} | ({"delegation": profile} if profile else {})
    (folder / "measured.json").write_text(json.dumps(measured))
    parities = {name: _parity(name, num_classes) for name in targets}
    timings = {name: _timing(name) for name in targets if timed and name != "coreml"}
    works = {name: {"step": make_work(name, "step"), "decode": make_work(name, "decode")} for name in targets}
    write_report(
        folder, manifest, checkpoint, compact, parities, timings, works=works,
        devices=[load_device(name) for name in devices], plan=plan,
    )  # fmt: skip
    page = (folder / "report.html").read_text(encoding="utf-8")
    return json.loads((folder / "report.json").read_text(encoding="utf-8")), page


def _manifest(compact: CompactModel, classes: list[ClassInfo], targets: tuple[str, ...], sampler: str) -> Report:
    programs, made = {}, load_target("onnx")
    for lowering in (
        make_step(compact, made, TargetOptions(precision="fp32")),
        make_decode(compact, made, TargetOptions(precision="fp32")),
    ):
        assert lowering is not None
        tensors = {"inputs": lowering.inputs, "outputs": lowering.outputs}
        programs[lowering.name] = {key: [_describe_tensor(t) for t in value] for key, value in tensors.items()}
    return {
        "format_version": FORMAT_VERSION, "name": "tiny", "steps": 4, "sampler": sampler, "guidance_scale": 2.0,
        "classes": [{"id": c.id, "names": list(c.names)} for c in classes],
        "initial_noise_scale": 1.5, "latents_shape": list(latents_shape(compact)),
        "noise_generator": NOISE_GENERATOR, "source": {"checkpoint_sha256": "0" * 64},
        "tools": {"torch": "2.13.0"}, "rewrites": describe_rewrites(compact),
        "targets": {
            name: {
                "precision": "fp16" if name == "coreml" else "fp32",
                "programs": {key: spec | {"file": f"{name}/{key}.bin"} for key, spec in programs.items()},
                "lowering": LOWERING[name],
                "parity": _parity(name, len(classes)).to_dict(),
            }
            for name in targets
        },
        "files": {
            f"{name}/{key}.bin": {"sha256": "0" * 64, "size_bytes": 4_321_000 if key == "step" else 1_000}
            for name in targets
            for key in programs
        },
    }  # fmt: skip


def _describe_tensor(spec: Any) -> Report:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}


def _parity(name: str, num_classes: int) -> Parity:
    is_half = name == "coreml"
    return Parity(
        verified_by=f"runner of {name}", threshold_db=35.0 if is_half else 60.0,
        trajectory_psnr_db=65.47 if is_half else 81.2, trajectory_max_error=0.001, step_psnr_db=89.7,
        step_threshold_db=70.0, decode_psnr_db=200.0, num_classes=num_classes, step_indices=(0, 1, 3),
        guidance_scales=(2.0, 3.5), decode_threshold_db=50.0,
    )  # fmt: skip


def _timing(name: str) -> MeasuredHere:
    return MeasuredHere(
        runtime=name, engine=f"runner of {name}", step_ms=25.561, step_min_ms=18.141, step_max_ms=29.952,
        image_ms=1511.3, load_ms=44.1, repeats=15,
    )  # fmt: skip


def make_work(target: str, program: str) -> ProgramWork:
    """Two blocks of a linear layer and attention, and an operator off the fast path; ExecuTorch names no layers."""
    ops = []
    for index in range(2):
        layer = "" if target == "executorch" else f"blocks.{index}"
        linear = OpWork(
            name=f"linear{index}", op_type="Linear", op_class="linear", backend="fast", precision="fp16",
            flops=4_000_000, elements=1000, weight_bytes=60_000, activation_bytes=8_000, layer=layer,
        )  # fmt: skip
        ops += [linear, replace(linear, name=f"attention{index}", op_class="attention", weight_bytes=0)]
    slow = replace(
        ops[0], name="pick", op_type="index_select", op_class="lookup", backend="portable", flops=0,
        obstacle="no look-up of rows there",
    )  # fmt: skip
    return ProgramWork(
        target=target, program=program, ops=(slow, *ops), weight_bytes=180_000, peak_activation_bytes=24_000,
        num_delegates=1,
    )  # fmt: skip


VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """What a page holds: its elements in order, its headings and its text; raises on tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == [], f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"an attribute twice: {tag} {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data.replace("\xa0", " ")

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]
