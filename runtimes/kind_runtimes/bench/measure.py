"""The one way of timing: parts of an opened generator, called again and again in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kind_core.noise import start_noise
from kind_runtimes.generator import Generator

Part = Literal["step", "step_unguided", "decode", "whole_image"]
OnSamples = Callable[[Part, list[float]], None]
_SEED = 0
_BATCH_S = 0.5  # samples are handed on this often, which costs no time of the next call worth mentioning


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How often each part is called: `warmup` untimed calls, then `repeat` samples; `images` whole pictures."""

    warmup: int = 3
    repeat: int = 20
    images: int = 0


def measure_generator(generator: Generator, counts: Counts, on_samples: OnSamples) -> None:
    """Time a guided step, an unguided one where there are such, decoding and whole pictures.

    Milliseconds are handed on while measuring goes on, so that nothing is lost when it is interrupted.
    """
    for part, call, repeat in _list_parts(generator, counts):
        for _ in range(0 if part == "whole_image" else counts.warmup):
            call()
        samples: list[float] = []
        handed = time.perf_counter()
        for _ in range(repeat):
            start = time.perf_counter()
            call()
            end = time.perf_counter()
            samples.append((end - start) * 1e3)
            if end - handed >= _BATCH_S:
                on_samples(part, samples)
                samples, handed = [], time.perf_counter()
        if samples:
            on_samples(part, samples)


def guided_flags(generator: Generator) -> list[bool]:
    """For each step of a picture, whether it runs with guidance."""
    return [generator.manifest.is_guided(index) for index in range(generator.manifest.steps)]


def step_inputs(generator: Generator) -> dict[str, np.ndarray]:
    """What a step of the first class takes besides its index and guidance: start noise, as in a real run."""
    manifest = generator.manifest
    noise = start_noise(_SEED, manifest.latents_shape) * manifest.initial_noise_scale
    state = {"latents": noise.astype(np.float32)}
    if "history" in generator.input_names:
        state["history"] = np.zeros_like(state["latents"])
    return {**state, **generator.choose_class(0)}


def _list_parts(generator: Generator, counts: Counts) -> Iterator[tuple[Part, Callable[[], object], int]]:
    inputs, scale = step_inputs(generator), generator.manifest.guidance_scale
    flags = guided_flags(generator)
    # where no step is guided, the step without guidance is the step
    guided = flags.index(True) if True in flags else 0
    yield "step", lambda: generator.run_step(inputs, guided, scale), counts.repeat
    if True in flags and False in flags:
        unguided = flags.index(False)
        yield "step_unguided", lambda: generator.run_step(inputs, unguided, scale), counts.repeat
    if generator.decode is not None:
        decode = generator.decode
        yield "decode", lambda: decode({"latents": inputs["latents"]}), counts.repeat
        yield "whole_image", lambda: generator.picture(0, _SEED), counts.images
