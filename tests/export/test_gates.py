"""Faults that once passed the gates, seeded into programs as they run: each is refused, and the right program passes.

What runs is the step itself in eager fp32, so that only the gate is tested; the faults of each target's own files are
in `test_mutations.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from artifacts import Artifact, make_reference
from eager_programs import Arrays, EagerProgram

from kind_core.errors import VerificationError
from kind_export.verify.decode_check import check_decode, decode_threshold_db
from kind_export.verify.gates import Verifier
from kind_export.verify.parity import Gate
from kind_export.verify.reference import Trajectory
from kind_runtimes.engines.runtime import Program, open_program

Change = Callable[[Arrays], Arrays]


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    """Of two classes, whose tailors are rows of a table."""
    return Verifier(make_reference(2))


@pytest.fixture(scope="module")
def programs(verifier: Verifier) -> Artifact:
    """What is lowered for onnxruntime; nothing is."""
    return Artifact.prepare("onnx", verifier)


def check(
    programs: Artifact, *, step: dict[str, object] | None = None, decode: dict[str, object] | None = None
) -> None:
    """The gate on the right programs, or on those with a fault."""
    specs = programs.specs()
    step_program, decode_program = (
        EagerProgram(one.module, specs.programs[one.name], **(fault or {}))  # type: ignore[arg-type]
        for one, fault in zip(programs.lowerings(), (step, decode), strict=True)
    )
    programs.verifier.check(programs.loop(step_program, decode_program), specs)


def test_the_right_programs_pass(programs: Artifact) -> None:
    check(programs)


def _guided_by(change: Callable[[np.ndarray], np.ndarray]) -> dict[str, object]:
    return {"before": lambda inputs: inputs | {"guidance": change(inputs["guidance"]).astype(np.float32)}}


def _nan_above(limit: float) -> dict[str, object]:
    def spoil(outputs: Arrays, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return {n: v * np.float32(np.nan) for n, v in outputs.items()} if inputs["guidance"][0] > limit else outputs

    return {"after": spoil}


def _at_step(index: int, change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> dict[str, object]:
    """`change` takes the right next latents and the latents before, in one step only."""

    def alter(outputs: Arrays, inputs: Mapping[str, np.ndarray]) -> Arrays:
        if inputs["step_index"][0] != index:
            return outputs
        return outputs | {"next_latents": change(outputs["next_latents"], inputs["latents"])}

    return {"after": alter}


def _reach(verifier: Verifier, state: str) -> float:
    """How far the reference's own latents go, or what its scheduler keeps."""
    arrays = [one for t in verifier.trajectories for one in (t.latents if state == "latents" else t.denoised)]
    return max(float(np.abs(one).max()) for one in arrays)


GUIDANCE_FAULTS: dict[str, dict[str, object]] = {
    "clamped to 1 to 10": _guided_by(lambda g: g.clip(1, 10)),
    "clamped from below at 0": _guided_by(lambda g: g.clip(0, None)),
    "clamped from above at 50": _guided_by(lambda g: g.clip(None, 50)),
    "rounded to halves": _guided_by(lambda g: np.rint(g * 2) / 2),
    "rounded to tenths": _guided_by(lambda g: np.rint(g * 10) / 10),
    "without its sign": _guided_by(np.abs),
    "NaN above 10": _nan_above(10),
    "0.5 % too large": _guided_by(lambda g: g * 1.005),
    "one where it is below one": _guided_by(lambda g: np.where(g < 1, 1, g)),
}


@pytest.mark.parametrize("fault", GUIDANCE_FAULTS)
def test_wrong_guidance_is_refused(programs: Artifact, fault: str) -> None:
    with pytest.raises(VerificationError, match="nothing was published"):
        check(programs, step=GUIDANCE_FAULTS[fault])


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("share", [0.98, 1.02, 1.005])
def test_one_step_that_is_a_little_off_is_refused(programs: Artifact, index: int, share: float) -> None:
    fault = _at_step(index, lambda after, before: before + np.float32(share) * (after - before))
    with pytest.raises(VerificationError, match=f"step {index} "):
        check(programs, step=fault)


@pytest.mark.parametrize("index", range(4))
def test_one_step_without_guidance_is_refused(programs: Artifact, index: int) -> None:
    fault = {
        "before": lambda inputs: (
            inputs | {"guidance": np.ones(1, np.float32)} if inputs["step_index"][0] == index else inputs
        )
    }
    with pytest.raises(VerificationError, match="nothing was published"):
        check(programs, step=fault)


@pytest.mark.parametrize("state", ["latents", "history"])
def test_a_clamp_beyond_the_references_reach_is_refused(programs: Artifact, state: str) -> None:
    limit = np.float32(_reach(programs.verifier, state) * 1.02)
    fault = {"before": lambda inputs: inputs | {state: inputs[state].clip(-limit, limit)}}
    with pytest.raises(VerificationError, match=r"1\.5 times as large"):
        check(programs, step=fault)


DECODE_FAULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "scaled by 0.995": lambda image: image * np.float32(0.995),
    "shifted by 0.4 of a level": lambda image: image + np.float32(0.4 / 255),
    "rounded down": lambda image: np.floor(image * 255) / np.float32(255),
    "in 7 bits": lambda image: np.rint(image * 127) / np.float32(127),
    "mirrored": lambda image: image[..., ::-1],
    "upside down": lambda image: image[..., ::-1, :],
    "blue first": lambda image: image[:, ::-1],
    "with a gamma of 1.01": lambda image: image ** np.float32(1.01),
    "of studio range": lambda image: (image * 219 + 16) / np.float32(255),
}


@pytest.mark.parametrize("fault", DECODE_FAULTS)
def test_wrong_pictures_are_refused(programs: Artifact, fault: str) -> None:
    change = DECODE_FAULTS[fault]
    altered = {"after": lambda outputs, inputs: {"image": np.ascontiguousarray(change(outputs["image"]), np.float32)}}
    with pytest.raises(VerificationError, match="decode"):
        check(programs, decode=altered)


def test_an_eager_model_that_gives_no_number_holds_nothing() -> None:
    check = Gate(target="onnx", config=make_reference(2))
    expected = np.ones((1, 3, 8, 8), np.float32)
    actual = expected.copy()
    expected[0, 1, 2, 3] = np.nan
    with pytest.raises(VerificationError, match="the eager model itself gives NaN or infinity"):
        check.require("step 0", expected, actual, 60.0, class_index=0)


@pytest.mark.parametrize(
    ("precision", "is_approximate", "hint"),
    [("fp32", False, "please report it"), ("fp32", True, "cut less"), ("fp16", False, "try --precision fp32")],
)
def test_the_hint_names_what_may_help(
    programs: Artifact, verifier: Verifier, precision: str, is_approximate: bool, hint: str
) -> None:
    specs = replace(programs.specs(), precision=precision)
    step, decode = (EagerProgram(one.module, specs.programs[one.name]) for one in programs.lowerings())
    step.after = lambda outputs, inputs: {**outputs, "next_latents": -outputs["next_latents"]}
    with pytest.raises(VerificationError) as error:
        verifier.with_gates(is_approximate=is_approximate).check(programs.loop(step, decode), specs)
    assert error.value.hint.startswith(hint)


def _nearly_white(trajectory: Trajectory, low: float) -> Trajectory:
    """A class whose picture is white but for an edge of it; beyond 1 its latents differ as others do."""
    final = np.linspace(low, 3, trajectory.latents[-1].size, dtype=np.float32).reshape(trajectory.latents[-1].shape)
    return replace(trajectory, latents=(*trajectory.latents[:-1], final))


def _check_decode(artifact: Artifact, decode: Program, trajectory: Trajectory, *, is_exact: bool) -> float:
    specs = artifact.specs()
    step = EagerProgram(next(artifact.lowerings()).module, specs.programs["step"])
    generator = artifact.loop(step, decode)
    threshold_db = decode_threshold_db(artifact.reference, generator, specs, is_exact=is_exact)
    check = Gate(target=artifact.name, config=artifact.reference)
    measured = check_decode(generator, check, [trajectory], threshold_db, is_exact=is_exact)
    assert measured is not None
    return measured


@pytest.fixture(scope="module")
def rounded_decode(verifier: Verifier, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Program]:
    """A decoder of Core ML in fp16, as the evaluator runs it: the target whose pixels are rounded."""
    artifact = Artifact.prepare("coreml", verifier)
    lowering = list(artifact.lowerings())[1]
    file = artifact.file(lowering, tmp_path_factory.mktemp("coreml"))
    artifact.target.lower(lowering, file, artifact.options)
    spec = replace(artifact.specs().programs["decode"], file=str(file))
    return artifact, open_program("coreml", file, spec)


@pytest.mark.parametrize("low", [0.9, 0.99, 0.999, 1.0])
def test_a_class_of_nearly_one_colour_passes_in_fp16(rounded_decode: tuple[Artifact, Program], low: float) -> None:
    artifact, decode = rounded_decode
    trajectory = _nearly_white(artifact.verifier.trajectories[0], low)
    assert _check_decode(artifact, decode, trajectory, is_exact=False) > 80


@pytest.mark.parametrize("fault", DECODE_FAULTS)
def test_of_nearly_one_colour_wrong_pictures_are_refused(programs: Artifact, fault: str) -> None:
    change, spec = DECODE_FAULTS[fault], programs.specs().programs["decode"]
    module = list(programs.lowerings())[1].module
    altered = EagerProgram(module, spec, after=lambda outputs, inputs: {"image": change(outputs["image"])})
    trajectory = _nearly_white(programs.verifier.trajectories[0], 0.9)
    assert _check_decode(programs, EagerProgram(module, spec), trajectory, is_exact=True) == 200
    with pytest.raises(VerificationError, match="decode"):
        _check_decode(programs, altered, trajectory, is_exact=True)
