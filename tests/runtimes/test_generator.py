"""The loop of an app, on a program that writes down how it is called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from kind_core.noise import start_noise
from kind_runtimes.generator import Generator
from kind_runtimes.loop import to_pixels
from kind_runtimes.manifest import parse_manifest
from small_bundles import GUIDANCE, SHAPE, STEPS, manifest_data


@dataclass
class Recorder:
    """A step that adds 1 to the latents and 10 to the history."""

    engine: str = "a test"
    calls: list[dict[str, np.ndarray]] = field(default_factory=list)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.calls.append({name: array.copy() for name, array in inputs.items()})
        return {f"next_{name}": inputs[name] + n for name, n in (("latents", 1), ("history", 10)) if name in inputs}


class Picture:
    """A decoder that gives the latents themselves."""

    engine = "a test"

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"image": inputs["latents"]}


def make_generator(recorder: Recorder, *, history: bool = True) -> Generator:
    data: dict[str, Any] = manifest_data(["onnx"], {})
    if not history:
        step = data["targets"]["onnx"]["programs"]["step"]
        step["inputs"] = [spec for spec in step["inputs"] if spec["name"] != "history"]
    manifest = parse_manifest(json.dumps(data), "a test")
    return Generator(
        manifest=manifest, sampling=manifest.sampling, latents_shape=manifest.latents_shape,
        spec=manifest.target("onnx").programs["step"], step=recorder, decode=Picture(),
    )  # fmt: skip


def scalars(recorder: Recorder, name: str) -> list[float]:
    assert all(call[name].shape == (1,) for call in recorder.calls)
    return [call[name].item() for call in recorder.calls]


def test_steps_are_called_in_order_each_with_what_the_last_gave() -> None:
    recorder = Recorder()
    latents = make_generator(recorder).latents(class_index=1, seed=7)
    start = start_noise(7, SHAPE) * np.float32(2)
    assert scalars(recorder, "step_index") == list(range(STEPS))
    assert scalars(recorder, "class_index") == [1] * STEPS
    for index, call in enumerate(recorder.calls):
        np.testing.assert_allclose(call["latents"], start + index, atol=1e-5)
        np.testing.assert_array_equal(call["history"], np.full(SHAPE, 10 * index, np.float32))
    np.testing.assert_allclose(latents, start + STEPS, atol=1e-5)


def test_inputs_have_the_types_of_the_manifest() -> None:
    recorder = Recorder()
    generator = make_generator(recorder)
    generator.latents(0, seed=0)
    specs = generator.manifest.target("onnx").programs["step"].inputs
    assert {s.name: (s.shape, s.dtype) for s in specs} == {
        name: (array.shape, array.dtype.name) for name, array in recorder.calls[-1].items()
    }


def test_history_is_given_only_where_the_program_takes_it() -> None:
    recorder = Recorder()
    make_generator(recorder, history=False).latents(0, seed=0)
    assert all("history" not in call for call in recorder.calls)


@pytest.mark.parametrize(("asked", "given"), [(None, GUIDANCE), (3.25, 3.25), (0.0, 0.0), (-1.0, -1.0)])
def test_guidance_is_the_bundles_unless_asked(asked: float | None, given: float) -> None:
    recorder = Recorder()
    make_generator(recorder).latents(0, seed=0, guidance=asked)
    assert scalars(recorder, "guidance") == [given] * STEPS


def test_a_trajectory_has_the_latents_after_each_step() -> None:
    noise = start_noise(1, SHAPE)
    states = list(make_generator(Recorder()).trajectory(noise, class_index=0))
    assert len(states) == STEPS
    np.testing.assert_allclose(states[0], noise * 2 + 1, atol=1e-5)
    np.testing.assert_array_equal(noise, start_noise(1, SHAPE))


def test_steps_are_reported_as_they_are_done() -> None:
    seen: list[tuple[int, int]] = []
    recorder = Recorder()
    make_generator(recorder).latents(0, seed=0, on_step=lambda *at: seen.append((*at, len(recorder.calls))))  # type: ignore[arg-type]
    assert seen == [(n, STEPS, n) for n in range(1, STEPS + 1)]


def test_a_picture_is_the_decoded_latents() -> None:
    generator = make_generator(Recorder())
    np.testing.assert_array_equal(generator.picture(0, seed=5), to_pixels(generator.latents(0, seed=5)))
    assert (generator.picture(0, seed=5) != generator.picture(0, seed=6)).any()


def test_pixels_are_rounded_clipped_and_turned() -> None:
    image = np.zeros((1, 3, 2, 4), np.float32)
    image[0, 0], image[0, 1], image[0, 2, 1, 3] = 2.0, -1.0, 0.5
    pixels = to_pixels(image)
    assert (pixels.shape, pixels.dtype) == ((2, 4, 3), np.uint8)
    assert pixels[1, 3].tolist() == [255, 0, 128]
    assert pixels[0, 0].tolist() == [255, 0, 0]


def test_pixels_of_an_image_output_stay_as_they_are() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert to_pixels(pixels) is pixels
