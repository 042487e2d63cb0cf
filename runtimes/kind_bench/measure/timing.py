"""The one way of timing: parts of an opened generator, called again and again in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kind_core.noise import start_noise
from kind_runtimes.loop import Loop

Part = Literal["step", "step_unguided", "decode", "whole_image", "sustained"]
OnSamples = Callable[[Part, list[float]], None]
_SEED = 0
_BATCH_S = 0.5  # samples are handed on this often, which costs no time of the next call worth mentioning


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How often each part is called: `warmup` untimed calls, then `repeat` samples; `images` whole pictures.

    `sustain_s`: seconds of steps without a pause before the step is sampled once more; 0: it is not.
    """

    warmup: int = 3
    repeat: int = 20
    images: int = 0
    sustain_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Timed:
    """What is called, after how much warming up, and how many samples are taken."""

    part: Part
    call: Callable[[], object]
    repeat: int
    warmup: int = 0
    warmup_s: float = 0.0


def measure_loop(loop: Loop, counts: Counts, on_samples: OnSamples) -> None:
    """Time a guided step, an unguided one where there are such, decoding, whole pictures and a step of a warm machine.

    Milliseconds are handed on while measuring goes on, so that nothing is lost when it is interrupted.
    """
    for timed in _list_parts(loop, counts):
        part, call = timed.part, timed.call
        for _ in range(timed.warmup):
            call()
        end = time.perf_counter() + timed.warmup_s
        while timed.warmup_s and time.perf_counter() < end:
            call()
        samples: list[float] = []
        handed = time.perf_counter()
        for _ in range(timed.repeat):
            start = time.perf_counter()
            call()
            end = time.perf_counter()
            samples.append((end - start) * 1e3)
            if end - handed >= _BATCH_S:
                on_samples(part, samples)
                samples, handed = [], time.perf_counter()
        if samples:
            on_samples(part, samples)


def step_inputs(loop: Loop) -> dict[str, np.ndarray]:
    """What a step of the first class takes besides its index and guidance: start noise, as in a real run."""
    noise = start_noise(_SEED, loop.latents_shape) * loop.sampling.initial_noise_scale
    state = {"latents": noise.astype(np.float32)}
    if "history" in loop.input_names:
        state["history"] = np.zeros_like(state["latents"])
    return {**state, **loop.choose_class(0)}


def _list_parts(loop: Loop, counts: Counts) -> Iterator[_Timed]:
    inputs, scale = step_inputs(loop), loop.sampling.guidance_scale
    flags = loop.sampling.guided
    # where no step is guided, the step without guidance is the step
    guided = flags.index(True) if True in flags else 0

    def step() -> object:
        return loop.run_step(inputs, guided, scale)

    yield _Timed(part="step", call=step, repeat=counts.repeat, warmup=counts.warmup)
    if True in flags and False in flags:
        unguided = flags.index(False)
        yield _Timed(
            part="step_unguided",
            call=lambda: loop.run_step(inputs, unguided, scale),
            repeat=counts.repeat,
            warmup=counts.warmup,
        )
    if loop.decode is not None:
        decode = loop.decode
        yield _Timed(
            part="decode",
            call=lambda: decode({"latents": inputs["latents"]}),
            repeat=counts.repeat,
            warmup=counts.warmup,
        )
        yield _Timed(part="whole_image", call=lambda: loop.picture(0, _SEED), repeat=counts.images)
    if counts.sustain_s:
        yield _Timed(part="sustained", call=step, repeat=counts.repeat, warmup_s=counts.sustain_s)
