"""A program that holds its weights in another precision than its manifest says is refused, whatever it computes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from artifacts import Artifact

from kind_bench.counting import count_program
from kind_core.checkpoint import Checkpoint
from kind_core.errors import VerificationError
from kind_core.precisions import PrecisionName
from kind_core.samplers import Sampling
from kind_export.targets.lowering import Lowered
from kind_export.verify.gates import Verifier
from kind_export.verify.reference import Reference
from kind_export.verify.stored_weights import check_stored_weights
from tiny import tiny_config, tiny_model, tiny_model_config


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    """Of one class, with layers that are large enough to be quantised."""
    dit = tiny_config(num_classes=1, depth=1, hidden_size=64, learngene_rank=32)
    config = tiny_model_config(dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample")
    checkpoint = Checkpoint(config=config, model=tiny_model(dit), sha256="")
    return Verifier(Reference(checkpoint=checkpoint, sampling=Sampling(sampler="dpmpp", steps=4, guidance_scale=2.5)))


def _lower(
    verifier: Verifier, name: str, precision: PrecisionName, folder: Path, *, is_rounded: bool = False
) -> tuple[Artifact, Lowered]:
    """The step of a target, described as it was asked for; `is_rounded`: from weights of half precision."""
    artifact = Artifact.prepare(name, verifier, folder, precision)
    step = next(artifact.lowerings())
    wrong = deepcopy(step.module)  # modules share the weights of their compact model
    if is_rounded:
        with torch.no_grad():
            for parameter in (*wrong.parameters(), *wrong.buffers()):
                parameter.copy_(parameter.half().float()) if parameter.is_floating_point() else None
    artifact.target.lower(replace(step, module=wrong), artifact.file(step, folder), artifact.options)
    return artifact, Lowered(spec=artifact.specs(), facts={}, step=step, options=artifact.options)


def _check(lowered: Lowered, folder: Path, precision: PrecisionName | None = None) -> None:
    """The gate on a step, as what it is or, with `precision`, as what it is not."""
    spec = lowered.spec.programs["step"]
    work = count_program(folder / spec.file, spec, lowered.spec.target)
    said = lowered if precision is None else replace(lowered, spec=replace(lowered.spec, precision=precision))
    check_stored_weights(folder, said, work)


@pytest.mark.parametrize(
    ("name", "precision", "lies"),
    [
        ("onnx", "fp32", ("fp16", "int8")), ("onnx", "fp16", ("fp32", "int8")), ("onnx", "int8", ("fp32", "fp16")),
        ("coreml", "fp32", ("fp16",)), ("coreml", "fp16", ("fp32", "palette4")), ("executorch", "fp32", ("int8",)),
    ],
)  # fmt: skip
def test_what_is_said_is_what_is_stored(
    verifier: Verifier, tmp_path: Path, name: str, precision: PrecisionName, lies: tuple[PrecisionName, ...]
) -> None:
    _, lowered = _lower(verifier, name, precision, tmp_path)
    _check(lowered, tmp_path)
    for lie in lies:
        with pytest.raises(VerificationError, match=f"step says {lie} but holds"):
            _check(lowered, tmp_path, lie)


@pytest.mark.parametrize("name", ["onnx", "coreml", "executorch"])
def test_fp32_is_not_half_precision_in_more_bits(verifier: Verifier, tmp_path: Path, name: str) -> None:
    _, lowered = _lower(verifier, name, "fp32", tmp_path, is_rounded=True)
    with pytest.raises(VerificationError, match="numbers of its weights to the last bit"):
        _check(lowered, tmp_path)
