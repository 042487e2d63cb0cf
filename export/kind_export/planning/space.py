"""Compact models of an export's choices: their work, their time and their error, each found once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from kind_bench.counting.work import ProgramWork
from kind_bench.forecasting.devices import Device
from kind_bench.forecasting.forecast import forecast
from kind_core.closeness import psnr_db
from kind_core.errors import BudgetError
from kind_core.precisions import PRECISIONS, PrecisionName
from kind_core.samplers import Sampling
from kind_core.schedule import read_sampler_table
from kind_export.budget import Cost
from kind_export.compact.decode import MeasuredDecoder
from kind_export.compact.model import CompactModel
from kind_export.planning.choice import Choice, Considered, PlanInputs, gate_db
from kind_export.planning.eager_work import count_eager
from kind_export.precision import quantizable_layers, round_weight
from kind_export.rewrites import RewriteOptions, rewrite
from kind_export.targets.eager import EagerProgram
from kind_export.targets.programs import make_decode, make_step
from kind_export.targets.target import Lowering, TargetOptions, load_target
from kind_runtimes.loop import Loop
from kind_runtimes.manifest import ProgramSpec

# A file holds more than its weights: graph, names, alignment. Where that is more, the next choice is exported.
_FILE_BYTES = 30_000


class Space:
    """Compact models and their work, each made once."""

    def __init__(self, inputs: PlanInputs) -> None:
        self.inputs = inputs
        self._models: dict[tuple[RewriteOptions, int], CompactModel] = {}
        self._works: dict[tuple[PrecisionName, int | None, str], dict[str, ProgramWork]] = {}
        self._times: dict[tuple[PrecisionName, int | None, str], dict[str, float]] = {}

    def cost(self, choice: Choice) -> Cost:
        key, device = (choice.precision, choice.max_rank, choice.forms), self.inputs.device
        if key not in self._works:
            self._works[key] = self._count(choice)
        works = self._works[key]
        size = sum(work.weight_bytes + _FILE_BYTES for work in works.values())
        if device is None:
            return Cost(size_bytes=size)
        if key not in self._times:
            self._times[key] = likely_times(works, device)
        return timed_cost(size, self._times[key], self._sampling(choice).guided)

    @torch.no_grad()
    def measure(self, considered: Considered) -> Considered:
        """The same with its error: the latents of the first class's picture, all ranks and bits as chosen."""
        choice = considered.choice
        compact = self._model(choice)
        lowering = make_step(compact, load_target(self.inputs.target), TargetOptions(precision="fp32"))
        precision = PRECISIONS[choice.precision]
        for layer in quantizable_layers(lowering.module).values():
            weight = layer.weight.data
            if not precision.is_float:
                layer.weight.data = round_weight(weight, precision.weight_bits)
            elif precision.is_half:
                layer.weight.data = weight.half().float()
        sampling = replace(self._sampling(choice), initial_noise_scale=compact.sampler.initial_noise_scale)
        latents = _run(lowering, sampling, self.inputs.expected.noise)
        error_db = psnr_db(self.inputs.expected.latents[-1], latents)
        # fewer steps are no error of the artifact: its gate holds it against as many steps of the model
        is_gated = choice.steps == self.inputs.reference.sampling.steps
        return replace(considered, error_db=error_db, below_gate=is_gated and error_db < gate_db(choice, self.inputs))

    def _sampling(self, choice: Choice) -> Sampling:
        return replace(self.inputs.reference.sampling, steps=choice.steps, guided=())  # which follow from the steps

    def _count(self, choice: Choice) -> dict[str, ProgramWork]:
        # as many steps as asked: fewer change a few rows of a table
        steps = self.inputs.reference.sampling.steps
        target, compact = load_target(self.inputs.target), self._model(replace(choice, steps=steps))
        options = TargetOptions(precision="fp32")
        programs = [make_step(compact, target, options)]
        if not all(self.inputs.reference.sampling.guided):
            programs.append(make_step(compact, target, options, is_guided=False))
        decoder = self.inputs.reference.checkpoint.decoder
        if decoder is not None:  # its activations do not change its size
            compact = replace(compact, decoder=MeasuredDecoder(module=decoder, peak=0.0, peak_square=0.0))
        decode = make_decode(compact, target, options)
        programs += [decode] if decode is not None else []
        return {one.name: count_eager(one, self.inputs.target, choice.precision) for one in programs}

    def _model(self, choice: Choice) -> CompactModel:
        # tables hold a row a step: a model for as many steps as it will run
        reference, options = self.inputs.reference, RewriteOptions.of(choice.apply(self.inputs.request))
        key = (options, choice.steps)
        if key not in self._models:
            diffusion = reference.checkpoint.config.diffusion
            table = read_sampler_table(diffusion, reference.sampling.sampler, choice.steps)
            self._models[key] = rewrite(reference.checkpoint.model, table, options)
        return self._models[key]


def likely_times(works: Mapping[str, ProgramWork], device: Device) -> dict[str, float]:
    """Milliseconds of each program; raises BudgetError where nothing can be forecast."""
    times = {}
    for name, work in works.items():
        one = forecast(work, device)
        if one.likely_ms is None:
            raise BudgetError(f"no forecast for {device.name}: {one.reason}", "budget the size alone")
        times[name] = one.likely_ms
    return times


def timed_cost(size_bytes: int, times: Mapping[str, float], guided: Sequence[bool]) -> Cost:
    unguided_ms = times.get("step_unguided", times["step"])
    steps_ms = sum(times["step"] if is_guided else unguided_ms for is_guided in guided)
    return Cost(size_bytes=size_bytes, step_ms=times["step"], image_ms=steps_ms + times.get("decode", 0.0))


def _run(lowering: Lowering, sampling: Sampling, noise: np.ndarray) -> np.ndarray:
    """The latents of the first class by the step module; at guidance 1 the class is predicted alone."""
    loop = Loop(
        sampling=sampling,
        latents_shape=noise.shape,
        spec=ProgramSpec(name="step", file="", inputs=lowering.inputs, outputs=lowering.outputs),
        step=EagerProgram(lowering),
        decode=None,
        step_unguided=EagerProgram(lowering, guidance=1.0),
    )
    *_, latents = loop.trajectory(noise, 0)
    return latents
