"""Late in a long run a step changes latents by less than fp16 can show: right steps pass, wrong ones do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts import Artifact, make_reference
from eager_programs import EagerProgram

from kind_core.errors import VerificationError
from kind_export.compact.model import CompactModel
from kind_export.verify.gates import Verifier
from kind_export.verify.parity import ROUNDINGS, most_rounding, showable_db

STEPS, LAST = 250, 10


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    return Verifier(make_reference(1, STEPS))


@pytest.fixture(scope="module")
def programs(verifier: Verifier) -> Artifact:
    """What is lowered for onnxruntime; nothing is."""
    return Artifact.prepare("onnx", verifier)


@pytest.fixture(scope="module")
def halved(verifier: Verifier, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Core ML in fp16, sampler included."""
    artifact = Artifact.prepare("coreml", verifier, tmp_path_factory.mktemp("coreml"))
    for lowering in artifact.lowerings():
        artifact.target.lower(lowering, artifact.file(lowering, artifact.folder), artifact.options)
    return artifact


def _check(programs: Artifact, step: torch.nn.Module) -> None:
    """The gate on programs in eager fp32."""
    specs = programs.specs()
    decode = list(programs.lowerings())[1].module
    loop = programs.loop(EagerProgram(step, specs.programs["step"]), EagerProgram(decode, specs.programs["decode"]))
    programs.verifier.check(loop, specs)


def _last_of_sampler(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[CompactModel], CompactModel]:
    """`change` takes the coefficients of the last steps and of the one before them, (LAST + 1, 5)."""
    names = ("latents", "output", "history", "history_from_latents", "history_from_output")

    def fault(model: CompactModel) -> CompactModel:
        rows = np.stack([getattr(model.sampler, name) for name in names], axis=1)
        rows[-LAST:] = change(rows[-LAST - 1 :])
        columns = dict(zip(names, rows.T.copy(), strict=True))
        return replace(model, sampler=replace(model.sampler, **columns))

    return fault


FAULTS: dict[str, Callable[[CompactModel], CompactModel]] = {
    "they do nothing": _last_of_sampler(lambda rows: np.broadcast_to(np.float32([1, 0, 0, 0, 0]), (LAST, 5))),
    "they are as the one before them": _last_of_sampler(lambda rows: rows[:1]),
    "they come the other way round": _last_of_sampler(lambda rows: rows[:0:-1]),
    "they predict 2 % too much": _last_of_sampler(lambda rows: rows[1:] * np.float32([1, 1.02, 1, 1, 1])),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_last_steps_are_refused(programs: Artifact, fault: str) -> None:
    _check(programs, next(programs.lowerings()).module)
    with pytest.raises(VerificationError, match="nothing was published"):
        _check(programs, next(programs.lowerings(FAULTS[fault](programs.compact))).module)


def test_in_fp16_right_steps_pass(halved: Artifact) -> None:
    assert halved.verify().trajectory_psnr_db >= 35


@pytest.mark.parametrize("fault", FAULTS)
def test_in_fp16_wrong_last_steps_are_refused(halved: Artifact, fault: str, tmp_path: Path) -> None:
    halved.seed_constants(FAULTS[fault](halved.compact), tmp_path / "wrong")
    with pytest.raises(VerificationError, match="nothing was published"):
        halved.verify(tmp_path / "wrong")


def test_what_fp16_shows_of_a_change() -> None:
    """Latents at 4096 to 8192 are 4 apart: a change of 1 is within what a right program may be off."""
    generator = np.random.default_rng(0)
    before = generator.uniform(4096, 8192, (1, 4, 32, 32)).astype(np.float32)
    for size, least, most in ((1.0, -25, -15), (1000.0, 35, 45)):
        change = generator.uniform(-size / 2, size / 2, before.shape).astype(np.float32)
        after = before + change
        limit = showable_db(after - before, most_rounding(after, ROUNDINGS))
        assert least < limit < most
        exact = showable_db(after - before, most_rounding(after, 0))
        assert exact == pytest.approx(limit + 20 * np.log10(2**13), abs=0.1)
