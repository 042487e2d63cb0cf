"""The programs that `compact.py` times: compact KIND models, and diffusers' dense DiT-B/2 as its peer.

Random weights (also in the layers that start at zero), one class, 20 steps. The peer is exported in each tool's
ordinary way and takes a batch of two, as its pipeline does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from kind_core.config import preset
from kind_core.dit import KindDiT
from kind_core.precisions import PrecisionName
from kind_core.samplers import FIRST_ORDER, Distillation
from kind_core.schedule import read_sampler_table
from kind_export.compact.model import CompactModel
from kind_export.rewrites import RewriteOptions, rewrite
from kind_export.rewrites.factor_modulations import table_error_db
from kind_export.targets.programs import make_step
from kind_export.targets.target import Lowering, TargetOptions, load_target
from kind_runtimes.manifest import ProgramSpec, TensorSpec

STEPS, STUDENT_STEPS = 20, 4
UNGUIDED, STUDENT = "-alone", "-student"
PEER = "dense DiT-B/2"
PRESETS = ("kind-b/2", "kind-mobile")
# What is exported of a preset, the first that runs here first; of the peer see `_peer_exports`.
ROWS: dict[str, tuple[str, ...]] = {
    "onnx": ("fp32", "fp32-student", "fp16", "int8", "int8-alone", "int8-student"),
    "executorch": ("fp32", "fp32-student", "int8", "int8-student"),
    "coreml": ("fp16", "int8"),
}
ALL_ROWS = tuple(dict.fromkeys(row for rows in ROWS.values() for row in rows))
SIZE_ONLY = (("onnx", "fp16"), ("coreml", "fp32"), ("coreml", "fp16"), ("coreml", "int8"))
Export = Callable[[Path], Lowering]


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedProgram:
    """A program on disk. `row` is a precision and how it is called."""

    runtime: str
    model: str
    row: str
    file: Path
    spec: ProgramSpec

    @property
    def size_bytes(self) -> int:
        """Bytes of the file, or of all files in the folder."""
        files = [self.file] if self.file.is_file() else [f for f in self.file.rglob("*") if f.is_file()]
        return sum(file.stat().st_size for file in files)

    @property
    def runs_here(self) -> bool:
        return (self.runtime, self.row) not in SIZE_ONLY


def save_programs(
    runtime: str, folder: Path, presets: Collection[str] = PRESETS, rows: Collection[str] = ALL_ROWS
) -> Iterator[SavedProgram]:
    """The programs of a runtime, the peer in fp32 (or what its tool does by default) first.

    What `folder` has already is not exported again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    has_students = any(row.endswith(STUDENT) for row in rows)  # which are held against one half of the peer
    for row, export in _peer_exports(runtime, folder).items():
        if row in ("fp32", "fp16", *rows) or (has_students and row.endswith(UNGUIDED)):
            yield _save(runtime, PEER, row, folder, export)
    for name in presets:
        for row in ROWS[runtime]:
            if row in rows:
                yield _save(runtime, name, row, folder, partial(_export_kind, runtime, name, row))


def _save(runtime: str, model: str, row: str, folder: Path, export: Export) -> SavedProgram:
    stem = "peer" if model == PEER else model.replace("/", "-")
    file = folder / f"{stem}-{row}{load_target(runtime).ROW.suffix}"
    about = file.with_suffix(".json")
    if not about.exists():
        lowering = export(file)
        contract = ([asdict(spec) for spec in specs] for specs in (lowering.inputs, lowering.outputs))
        about.write_text(json.dumps([lowering.name, *contract]))
    name, *contract = json.loads(about.read_text())
    inputs, outputs = (tuple(TensorSpec(**s | {"shape": tuple(s["shape"])}) for s in specs) for specs in contract)
    spec = ProgramSpec(name=name, file=file.name, inputs=inputs, outputs=outputs)
    return SavedProgram(runtime=runtime, model=model, row=row, file=file, spec=spec)


# ---- KIND


def kind_model(name: str, precision: str, *, is_student: bool = False) -> CompactModel:
    """A preset with random weights, for one class; or its student of few steps."""
    torch.manual_seed(0)
    dit, diffusion = preset(name)
    if is_student:
        distillation = Distillation(steps=(STUDENT_STEPS,), guidance_scale=1.5)
        diffusion = replace(
            diffusion, noise_schedule="flow", prediction_type="sample", sampler=FIRST_ORDER, steps=STUDENT_STEPS,
            guidance_scale=1.0, distillation=distillation,
        )  # fmt: skip
        dit = replace(dit, end_blocks=dit.depth // 3)
    model = KindDiT(replace(dit, num_classes=1)).eval()
    for parameter in model.parameters():
        if not parameter.any():  # adaLN-Zero: the modulations would all be equal
            torch.nn.init.normal_(parameter, std=0.02)
    options = RewriteOptions(table_error_db=table_error_db(precision))
    sampler, steps = (FIRST_ORDER, STUDENT_STEPS) if is_student else ("ddim", STEPS)
    return rewrite(model, read_sampler_table(diffusion, sampler, steps), options)


def _export_kind(runtime: str, name: str, row: str, file: Path) -> Lowering:
    """The step of a model; with the suffix of UNGUIDED the half of the class alone, as outside a guidance interval."""
    precision: PrecisionName = row.partition("-")[0]
    target, options = load_target(runtime), TargetOptions(precision=precision)
    compact = kind_model(name, precision, is_student=row.endswith(STUDENT))
    lowering = make_step(compact, target, options, is_guided=not row.endswith(UNGUIDED))
    target.lower(lowering, file, options)
    return lowering


# ---- the peer


class Peer(torch.nn.Module):
    """diffusers' dense model as its pipeline calls it: (2, 4, 32, 32), both guidance halves; or one."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import DiTTransformer2DModel

        self.model = DiTTransformer2DModel(
            num_attention_heads=12, attention_head_dim=64, in_channels=4, out_channels=8, num_layers=12,
            sample_size=32, patch_size=2, num_embeds_ada_norm=150,
        ).eval()  # fmt: skip

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.model(latents, timestep=timesteps, class_labels=labels, return_dict=False)[0]
        return output


def peer_lowering(halves: int = 2) -> Lowering:
    """The peer with its inputs by name, on both guidance halves or on the class's alone."""
    integer = torch.int64
    inputs = (
        TensorSpec(name="latents", shape=(halves, 4, 32, 32), dtype="float32"),
        TensorSpec(name="timesteps", shape=(halves,), dtype="int64"),
        TensorSpec(name="labels", shape=(halves,), dtype="int64"),
    )
    outputs = (TensorSpec(name="sample", shape=(halves, 8, 32, 32), dtype="float32"),)
    times, labels = (torch.zeros(halves, dtype=integer) for _ in range(2))
    example = (torch.zeros(halves, 4, 32, 32), times, labels)
    return Lowering(name="peer", module=Peer().eval(), example=example, inputs=inputs, outputs=outputs)


def _peer_exports(runtime: str, folder: Path) -> dict[str, Export]:
    """The peer in each tool's ordinary way, where it can run also on one half."""
    if runtime == "coreml":
        return {precision: partial(_export_peer_coreml, precision) for precision in ("fp32", "fp16")}
    if runtime == "executorch":
        return {
            "fp32": _export_peer_executorch,
            "fp32" + UNGUIDED: partial(_export_peer_executorch, halves=1),
            "int8": partial(_export_peer_executorch, is_int8=True),
        }
    return {
        "fp32": _export_peer_onnx,
        "fp32" + UNGUIDED: partial(_export_peer_onnx, halves=1),
        "int8": partial(_quantise_peer_onnx, folder / "peer-fp32.onnx"),
    }


def _export_peer_onnx(file: Path, halves: int = 2) -> Lowering:
    lowering = peer_lowering(halves)
    load_target("onnx").lower(lowering, file, TargetOptions(precision="fp32"))
    return lowering


def _quantise_peer_onnx(exported: Path, file: Path) -> Lowering:
    """onnxruntime's dynamic int8 with its defaults."""
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)
    quantize_dynamic(exported, file, weight_type=QuantType.QInt8)
    logging.disable(logging.NOTSET)
    return peer_lowering()


def _export_peer_executorch(file: Path, halves: int = 2, *, is_int8: bool = False) -> Lowering:
    """XNNPACK with its defaults; in int8 its own quantiser's, dynamic and by channel, as its guide has them."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowering = peer_lowering(halves)
    exported = torch.export.export(lowering.module, lowering.example, strict=False)
    if is_int8:
        exported = torch.export.export(_quantise_peer_executorch(exported.module(), lowering), lowering.example)
    edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    file.write_bytes(edge.to_executorch().buffer)
    return lowering


def _quantise_peer_executorch(module: torch.nn.Module, lowering: Lowering) -> torch.nn.Module:
    """XNNPACK's quantiser over the whole model."""
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = xnnpack.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    quantizer = xnnpack.XNNPACKQuantizer().set_global(config)
    prepared = prepare_pt2e(module, quantizer)
    prepared(*lowering.example)
    converted: torch.nn.Module = convert_pt2e(prepared)
    return converted


def _export_peer_coreml(precision: str, file: Path) -> Lowering:
    """coremltools' ML program; its default is fp16."""
    from kind_runtimes.quiet import import_coremltools

    ct, lowering = import_coremltools(), peer_lowering()
    exported = torch.export.export(lowering.module, lowering.example, strict=False).run_decompositions({})
    ct.convert(
        exported,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32 if precision == "fp32" else ct.precision.FLOAT16,
        skip_model_load=True,
    ).save(str(file))
    return lowering
