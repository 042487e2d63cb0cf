"""The choice of precision, rank, form and steps that meets a budget with the least measured error.

Every combination is forecast. Of those that fit, one that has fewer bits, ranks and steps than another that fits too
cannot be better; of the rest the error is measured: the picture's latents against the gated model's, in PyTorch, with
the weights rounded as the precision rounds them. What decides in the end are the gates on the artifact.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from kind_bench.counting.work import ProgramWork
from kind_bench.forecasting.devices import Device
from kind_bench.forecasting.forecast import forecast
from kind_core.closeness import psnr_db
from kind_core.errors import BudgetError
from kind_core.precisions import APPROXIMATE, PRECISIONS, PrecisionName
from kind_core.samplers import Sampling
from kind_core.schedule import read_sampler_table
from kind_export.budget import NO_BUDGET, Budget, Cost, Miss
from kind_export.compact.decode import MeasuredDecoder
from kind_export.compact.model import CompactModel
from kind_export.planning.eager_work import count_eager
from kind_export.precision.layers import quantizable_layers
from kind_export.precision.sensitivity import round_weight
from kind_export.report.plan_words import name_choice
from kind_export.request import ExportRequest
from kind_export.rewrites import RewriteOptions, rewrite
from kind_export.rewrites.factor_modulations import table_error_db
from kind_export.targets.programs import make_decode, make_step
from kind_export.targets.target import Lowering, TargetOptions, load_target
from kind_export.verify.reference import Reference, Trajectory
from kind_runtimes.manifest import Manifest

# Shares of the learngene's rank and of the asked steps that are tried.
_RANK_SHARES = (1.0, 0.875, 0.75, 0.625, 0.5)
_STEP_SHARES = (1.0, 0.75, 0.6, 0.5, 0.4)
_MIN_STEPS = 4
_FORMS = ("auto", "dense")
# A file holds more than its weights: graph, names, alignment. Where that is more, the next choice is exported.
_FILE_BYTES = 30_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One way to export. `max_rank` None keeps all ranks; `forms` as in `RewriteOptions`."""

    precision: PrecisionName
    steps: int
    max_rank: int | None = None
    forms: str = "auto"

    def describe(self) -> str:
        """`int8, rank 64, dense matrices, 12 steps`."""
        return name_choice(asdict(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Considered:
    """A choice with what it was forecast to cost. `error_db`: closeness, where it was measured."""

    choice: Choice
    cost: Cost
    misses: tuple[Miss, ...]
    error_db: float | None = None
    below_gate: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Choices that fit the budget, the best first, and all that were considered."""

    budget: Budget
    device: str | None
    ranked: tuple[Considered, ...]
    considered: tuple[Considered, ...]

    def to_dict(self, chosen: Considered) -> dict[str, Any]:
        """For the report; `chosen` is the one that was exported."""
        return {
            "budget": {
                "max_size_bytes": self.budget.max_size_bytes,
                "max_step_ms": self.budget.max_step_ms,
                "max_image_ms": self.budget.max_image_ms,
                "device": self.device,
            },
            "chosen": _describe(chosen),
            "considered": [_describe(one) for one in self.considered],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanInputs:
    """What is fixed before choosing: `expected` is the first class's picture, `precisions` those that may be chosen."""

    reference: Reference
    expected: Trajectory
    target: str
    precisions: tuple[PrecisionName, ...]
    baking: str
    max_rank: int | None
    energy: float | None
    device: Device | None


class Planner:
    """Makes plans for one export; what was counted and measured for one plan serves the next."""

    def __init__(self, inputs: PlanInputs, budget: Budget) -> None:
        self.inputs = inputs
        self.budget = budget
        self._space = _Space(inputs)
        self._measured: dict[Choice, Considered] = {}

    def plan(self, on_stage: Callable[[str], None], without: Collection[Choice] = ()) -> Plan:
        """Forecast every choice and measure those worth it, `without` those whose artifacts did not hold.

        Raises BudgetError when none meets the budget, naming what the closest misses and by how much.
        """
        on_stage("forecasting what meets the budget")
        considered = [
            Considered(choice=choice, cost=cost, misses=cost.misses(self.budget))
            for choice in _choices(self.inputs, is_timed=self.budget.max_image_ms is not None)
            for cost in (self._space.cost(choice),)
        ]
        fitting = _best_forms([one for one in considered if not one.misses and one.choice not in without])
        if not fitting:
            raise _unmet([one for one in considered if one.misses], self.inputs)
        worth = [one for one in fitting if not any(_is_finer(other.choice, one.choice) for other in fitting)]
        on_stage(f"measuring the error of {len(worth)} choices")
        for one in worth:
            if one.choice not in self._measured:
                self._measured[one.choice] = self._space.measure(one)
        return self._rank(considered, [self._measured[one.choice] for one in worth])

    def _rank(self, considered: Sequence[Considered], measured: Sequence[Considered]) -> Plan:
        ranked = sorted((one for one in measured if not one.below_gate), key=lambda one: -(one.error_db or 0))
        if not ranked:
            best = max(measured, key=lambda one: one.error_db or 0)
            gate = _gate_db(best.choice)
            raise BudgetError(
                f"what fits the budget is too far from the model: {best.choice.describe()} comes to "
                f"{best.error_db:.1f} dB, expected {gate:.0f} or more",
                "allow more size or time",
            )
        return Plan(
            budget=self.budget,
            device=self.inputs.device.id if self.inputs.device else None,
            ranked=tuple(ranked),
            considered=tuple(self._measured.get(one.choice, one) for one in considered),
        )


class _Space:
    """Compact models and their work, each made once."""

    def __init__(self, inputs: PlanInputs) -> None:
        self.inputs = inputs
        self._models: dict[tuple[RewriteOptions, int], CompactModel] = {}
        self._works: dict[tuple[PrecisionName, int | None, str], dict[str, ProgramWork]] = {}
        self._times: dict[tuple[PrecisionName, int | None, str], dict[str, float]] = {}
        self._steps = inputs.reference.sampling.steps
        self._expected = inputs.expected

    def cost(self, choice: Choice) -> Cost:
        works, device = self._work(choice), self.inputs.device
        size = sum(work.weight_bytes + _FILE_BYTES for work in works.values())
        if device is None:
            return Cost(size_bytes=size)
        key = (choice.precision, choice.max_rank, choice.forms)
        if key not in self._times:
            self._times[key] = _likely_times(works, device)
        return _timed_cost(size, self._times[key], self._sampling(choice).guided)

    @torch.no_grad()
    def measure(self, considered: Considered) -> Considered:
        """The same with its error: the latents of the first class's picture, all ranks and bits as chosen."""
        choice = considered.choice
        compact = self._model(choice)
        lowering = make_step(compact, load_target(self.inputs.target), TargetOptions(precision="fp32"))
        for layer in quantizable_layers(lowering.module).values():
            layer.weight.data = _rounded(layer.weight.data, choice.precision)
        start = (self._expected.noise * compact.sampler.initial_noise_scale).astype(np.float32)
        latents = _run(lowering, self._sampling(choice), start)
        error_db = psnr_db(self._expected.latents[-1], latents)
        # fewer steps are no error of the artifact: its gate holds it against as many steps of the model
        is_gated = choice.steps == self.inputs.reference.sampling.steps
        return replace(considered, error_db=error_db, below_gate=is_gated and error_db < _gate_db(choice))

    def _sampling(self, choice: Choice) -> Sampling:
        return replace(self.inputs.reference.sampling, steps=choice.steps, guided=())  # which follow from the steps

    def _work(self, choice: Choice) -> dict[str, ProgramWork]:
        key = (choice.precision, choice.max_rank, choice.forms)
        if key not in self._works:
            self._works[key] = self._count(choice)
        return self._works[key]

    def _count(self, choice: Choice) -> dict[str, ProgramWork]:
        # as many steps as asked: fewer change a few rows of a table
        target, compact = load_target(self.inputs.target), self._model(replace(choice, steps=self._steps))
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
        inputs, checkpoint = self.inputs, self.inputs.reference.checkpoint
        options = RewriteOptions(
            baking=inputs.baking,
            max_rank=choice.max_rank,
            energy=inputs.energy,
            forms=choice.forms,
            table_error_db=table_error_db(choice.precision),
        )
        key = (options, choice.steps)
        if key not in self._models:
            table = read_sampler_table(checkpoint.config.diffusion, inputs.reference.sampling.sampler, choice.steps)
            self._models[key] = rewrite(checkpoint.model, table, options)
        return self._models[key]


def apply_choice(request: ExportRequest, choice: Choice) -> ExportRequest:
    """The request with what was chosen filled in, and no budget left to plan."""
    return replace(
        request,
        precision=choice.precision,
        steps=choice.steps,
        max_rank=choice.max_rank,
        forms=choice.forms,
        budget=NO_BUDGET,
    )


def artifact_cost(works: Mapping[str, ProgramWork], size_bytes: int, manifest: Manifest, device: Device | None) -> Cost:
    """What an exported artifact costs, by its own size and its own counted work."""
    if device is None:
        return Cost(size_bytes=size_bytes)
    guided = manifest.sampling.guided
    return _timed_cost(size_bytes, _likely_times(works, device), guided)


def _likely_times(works: Mapping[str, ProgramWork], device: Device) -> dict[str, float]:
    """Milliseconds of each program; raises BudgetError where nothing can be forecast."""
    times = {}
    for name, work in works.items():
        one = forecast(work, device)
        if one.likely_ms is None:
            raise BudgetError(f"no forecast for {device.name}: {one.reason}", "budget the size alone")
        times[name] = one.likely_ms
    return times


def _timed_cost(size_bytes: int, times: Mapping[str, float], guided: Sequence[bool]) -> Cost:
    unguided_ms = times.get("step_unguided", times["step"])
    steps_ms = sum(times["step"] if is_guided else unguided_ms for is_guided in guided)
    return Cost(size_bytes=size_bytes, step_ms=times["step"], image_ms=steps_ms + times.get("decode", 0.0))


def _choices(inputs: PlanInputs, *, is_timed: bool) -> Iterator[Choice]:
    rank = inputs.reference.checkpoint.config.dit.learngene_rank
    steps = inputs.reference.sampling.steps
    shares = _STEP_SHARES if is_timed else _STEP_SHARES[:1]
    fewer = dict.fromkeys(min(steps, max(_MIN_STEPS, round(steps * share))) for share in shares)
    ranks: dict[int | None, None] = {inputs.max_rank: None}
    if rank is not None:
        full = min(rank, inputs.max_rank or rank)
        ranks |= {max(1, round(full * share)): None for share in _RANK_SHARES if share < 1}
    for num_steps in fewer:
        for max_rank in ranks:
            for precision in inputs.precisions:
                for forms in _FORMS if rank is not None else _FORMS[:1]:
                    yield Choice(precision=precision, steps=num_steps, max_rank=max_rank, forms=forms)


def _best_forms(fitting: Sequence[Considered]) -> list[Considered]:
    """Of choices that differ in form alone, which changes no result, the quickest or else the smallest."""
    best: dict[Choice, Considered] = {}
    for one in fitting:
        key = replace(one.choice, forms="auto")
        known = best.get(key)
        if known is None or _weight(one.cost) < _weight(known.cost):
            best[key] = one
    return list(best.values())


def _weight(cost: Cost) -> tuple[float, int]:
    return cost.step_ms or 0.0, cost.size_bytes


def _is_finer(one: Choice, other: Choice) -> bool:
    """Whether `one` has at least as many bits, ranks and steps as `other`, and more of one of them."""
    a, b = (
        (PRECISIONS[c.precision].weight_bits, float("inf") if c.max_rank is None else c.max_rank, c.steps)
        for c in (one, other)
    )
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))


def _gate_db(choice: Choice) -> float:
    return PRECISIONS[APPROXIMATE if choice.max_rank is not None else choice.precision].trajectory_db


def _rounded(weight: torch.Tensor, precision: PrecisionName) -> torch.Tensor:
    if not PRECISIONS[precision].is_float:
        return round_weight(weight, PRECISIONS[precision].weight_bits)
    return weight.half().float() if PRECISIONS[precision].is_half else weight


def _run(lowering: Lowering, sampling: Sampling, start: np.ndarray) -> np.ndarray:
    """The trajectory of the first class by the step module; at guidance 1 the class is predicted alone."""
    state = {"latents": start, "history": np.zeros_like(start)}
    for index in range(sampling.steps):
        scale = sampling.scale_at(index)
        scalars = {
            "step_index": np.array([index], np.int32),
            "class_index": np.zeros(1, np.int32),
            "guidance": np.array([1.0 if scale is None else scale], np.float32),
        }
        given = {**state, **scalars}
        outputs = lowering.module(*(torch.from_numpy(given[spec.name]) for spec in lowering.inputs))
        pairs = zip(lowering.outputs, outputs, strict=True)
        state |= {spec.name.removeprefix("next_"): one.numpy() for spec, one in pairs}
    return state["latents"]


def _unmet(missing: Sequence[Considered], inputs: PlanInputs) -> BudgetError:
    closest = min(missing, key=lambda one: max(miss.factor for miss in one.misses))
    where = f" on {inputs.device.name} (forecast)" if inputs.device else ""
    missed = "; ".join(miss.describe() for miss in closest.misses)
    return BudgetError(
        f"no choice meets the budget{where}: the closest, {closest.choice.describe()}, misses {missed}",
        "allow more, or another --target, --device or --guidance-interval",
    )


def _describe(one: Considered) -> dict[str, Any]:
    return {
        **asdict(one.choice),
        **asdict(one.cost),
        "error_db": one.error_db,
        "below_gate": one.below_gate,
        "misses": [miss.describe() for miss in one.misses],
    }
