"""A scheduler of a diffusers folder steps as it does there, or is refused by the setting that it would lose."""

from __future__ import annotations

import inspect
import json
import math
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from kind_core.config import DiffusionConfig
from kind_core.diffusers.schedule import read_diffusion
from kind_core.errors import CheckpointError, ConfigError, KindError
from kind_core.schedule import make_scheduler, read_sampler_table

FILE = "scheduler_config.json"
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
CARRIED: list[tuple[Any, dict[str, Any]]] = [
    (DDIMScheduler, {"clip_sample": False}),
    (DDIMScheduler, {"clip_sample": False, "timestep_spacing": "linspace", "beta_schedule": "scaled_linear"}),
    (DDIMScheduler, {"clip_sample": False, "timestep_spacing": "trailing", "beta_start": 0.001, "beta_end": 0.01}),
    (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
    (DDIMScheduler, {"clip_sample": False, "prediction_type": "v_prediction", "num_train_timesteps": 400}),
    (DPMSolverMultistepScheduler, {}),
    (DPMSolverMultistepScheduler, {"timestep_spacing": "leading", "steps_offset": 1, "euler_at_final": True}),
    (DPMSolverMultistepScheduler, {"solver_order": 1}),
    (DPMSolverMultistepScheduler, {"solver_type": "heun", "lower_order_final": False}),
    (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    (DPMSolverMultistepScheduler, {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"}),
    (DPMSolverMultistepScheduler, {"use_exponential_sigmas": True}),
    (DPMSolverMultistepScheduler, {"use_beta_sigmas": True}),
    (DPMSolverMultistepScheduler, {"use_lu_lambdas": True, "prediction_type": "sample"}),
    (DPMSolverMultistepScheduler, {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}),
    (DPMSolverMultistepScheduler, FLOW | {"flow_shift": 3.0}),
    (FlowMatchEulerDiscreteScheduler, {}),
    (FlowMatchEulerDiscreteScheduler, {"shift": 3.0, "max_shift": 2.0}),
    (FlowMatchEulerDiscreteScheduler, {"use_karras_sigmas": True}),
]


def network(latents: torch.Tensor, timestep: float) -> torch.Tensor:
    """Not linear, and another at every timestep."""
    return torch.tanh(0.3 * latents + 0.002 * timestep) + 0.1 * torch.sin(3 * latents)


@pytest.mark.parametrize("steps", [1, 2, 12, 20])
@pytest.mark.parametrize(("kind", "changes"), CARRIED)
def test_programs_step_as_the_folders_scheduler(kind: Any, changes: dict[str, Any], steps: int, tmp_path: Path) -> None:
    kind(**changes).save_pretrained(tmp_path)
    require_same_steps(kind, tmp_path, steps)


def require_same_steps(kind: Any, folder: Path, steps: int) -> None:
    """By the table that programs hold, and by the scheduler that they are judged by."""
    name, config = read_diffusion(folder / FILE)
    assert name == kind.__name__
    ours, table = make_scheduler(config, config.sampler, steps), read_sampler_table(config, config.sampler, steps)
    scheduler = kind.from_pretrained(folder)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # cosine and Karras begin with two timesteps of one number
    assert table.timesteps.tolist() == scheduler.timesteps.tolist() == ours.timesteps.tolist()
    expected = torch.randn(64, generator=torch.Generator().manual_seed(0)) * getattr(scheduler, "init_noise_sigma", 1.0)
    eager, latents, history = expected, expected, torch.zeros(64)
    for i, timestep in enumerate(scheduler.timesteps):
        output = network(latents, float(table.timesteps[i]))
        expected = scheduler.step(network(expected, float(timestep)), timestep, expected).prev_sample
        eager = ours.step(network(eager, float(timestep)), timestep, eager).prev_sample
        latents, history = (
            latents * table.latents[i] + output * table.output[i] + history * table.history[i],
            latents * table.history_from_latents[i] + output * table.history_from_output[i],
        )
    assert torch.equal(eager, expected)
    assert (latents - expected).abs().max() < 3e-5 * max(1.0, float(expected.abs().max()))


# Values of the settings of all three schedulers, those that are carried and those that are not.
ANY = {
    "num_train_timesteps": (1000, 400), "beta_start": (1e-4, 0.00085), "beta_end": (0.02, 0.012),
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"), "clip_sample": (False, False, True),
    "set_alpha_to_one": (True, False), "steps_offset": (0, 1, 5), "thresholding": (False, False, True),
    "prediction_type": ("epsilon", "v_prediction", "sample", "flow_prediction"),
    "timestep_spacing": ("leading", "linspace", "trailing"), "rescale_betas_zero_snr": (False, False, True),
    "solver_order": (1, 2, 3), "algorithm_type": ("dpmsolver++", "dpmsolver", "sde-dpmsolver++"),
    "solver_type": ("midpoint", "heun"), "lower_order_final": (True, False), "euler_at_final": (True, False),
    "use_karras_sigmas": (False, False, True), "use_exponential_sigmas": (False, False, True),
    "use_beta_sigmas": (False, False, True), "use_lu_lambdas": (False, False, True), "flow_shift": (1.0, 3.0),
    "use_flow_sigmas": (False, False, True), "final_sigmas_type": ("zero", "sigma_min"),
    "lambda_min_clipped": (-math.inf, -5.1), "variance_type": (None, None, "learned"), "shift": (1.0, 3.0, 0.3),
    "use_dynamic_shifting": (False, False, True), "invert_sigmas": (False, False, True), "max_shift": (1.15, 2.0),
    "shift_terminal": (None, 0.02), "stochastic_sampling": (False, False, True),
}  # fmt: skip


@pytest.mark.parametrize("kind", [DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler])
def test_any_settings_step_as_they_do_there_or_are_refused(kind: Any, tmp_path: Path) -> None:
    rng, settings = Random(0), [name for name in inspect.signature(kind).parameters if name in ANY]
    outcomes = Counter[bool]()
    for _ in range(60):
        chosen = {name: rng.choice(ANY[name]) for name in rng.sample(settings, rng.randint(1, 4))}
        document = {"_class_name": kind.__name__, "clip_sample": False, **chosen}
        (tmp_path / FILE).write_text(json.dumps(document))
        try:
            require_same_steps(kind, tmp_path, rng.choice((1, 3, 10)))
        except KindError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
    assert min(outcomes.values()) > 10, outcomes


@pytest.mark.parametrize(
    ("scheduler", "match"),
    [
        (DDIMScheduler(), "has clip_sample True, which is not exported, expected False"),
        (DDIMScheduler(clip_sample=False, thresholding=True), "has thresholding True"),
        (DDIMScheduler(clip_sample=False, rescale_betas_zero_snr=True), "has rescale_betas_zero_snr True"),
        (DDIMScheduler(clip_sample=False, trained_betas=[0.1, 0.2]), r"has trained_betas \[0.1, 0.2\]"),
        (DPMSolverMultistepScheduler(solver_order=3), "solver_order is 3, expected one of 1, 2"),
        (DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"), r"algorithm_type is 'sde-dpmsolver\+\+'"),
        (DPMSolverMultistepScheduler(variance_type="learned_range"), "has variance_type 'learned_range'"),
        (
            DPMSolverMultistepScheduler(use_flow_sigmas=True),
            "expected flow_prediction or sample where use_flow_sigmas",
        ),
        (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "has use_dynamic_shifting True"),
        (FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), "has stochastic_sampling True"),
        (FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "has invert_sigmas True"),
        (
            DDPMScheduler(),
            "has _class_name 'DDPMScheduler', expected one of DDIMScheduler, DPMSolverMultistepScheduler, Flow",
        ),
        (EulerDiscreteScheduler(), "has _class_name 'EulerDiscreteScheduler', expected one of DDIMScheduler"),
    ],
)
def test_what_would_be_lost_is_refused(scheduler: Any, match: str, tmp_path: Path) -> None:
    scheduler.save_pretrained(tmp_path)
    with pytest.raises(KindError, match=match):
        read_diffusion(tmp_path / FILE)


def test_what_the_file_leaves_out_is_diffusers_default(tmp_path: Path) -> None:
    """facebook/DiT-XL-2-256 says nothing of its spacing, which diffusers takes for leading."""
    (tmp_path / FILE).write_text(json.dumps({"_class_name": "DDIMScheduler", "clip_sample": False}))
    _, config = read_diffusion(tmp_path / FILE)
    assert config.sampler_settings == {"timestep_spacing": "leading"}
    assert make_scheduler(config, "ddim", 4).timesteps.tolist() == [750, 500, 250, 0]
    assert make_scheduler(config, "dpmpp", 4).config.timestep_spacing == "trailing", "another sampler is ours"
    (tmp_path / FILE).write_text(json.dumps({"_class_name": "DDIMScheduler"}))
    with pytest.raises(CheckpointError, match="has clip_sample True"):
        read_diffusion(tmp_path / FILE)


def test_settings_travel_in_a_checkpoint() -> None:
    plain = DiffusionConfig()
    assert "sampler_settings" not in plain.to_dict()
    settings = {"timestep_spacing": "leading", "steps_offset": 1}
    config = DiffusionConfig(sampler="ddim", sampler_settings=settings)
    assert config.to_dict()["sampler_settings"] == settings
    assert DiffusionConfig(**json.loads(json.dumps(config.to_dict()))) == config != plain


@pytest.mark.parametrize(
    ("sampler", "settings", "match"),
    [
        ("ddim", {"solver_order": 2}, "sampler 'ddim' has no setting 'solver_order', expected one of timestep_spacing"),
        ("ddim", {"timestep_spacing": "even"}, "timestep_spacing is 'even', expected one of leading, linspace, trail"),
        ("ddim", {"set_alpha_to_one": 1}, "set_alpha_to_one is 1, expected true or false"),
        ("dpmpp", {"solver_order": True}, "solver_order is True, expected one of 1, 2"),
        ("euler", {"shift": float("nan")}, "shift is nan, expected a finite number"),
        ("ddim", [["steps_offset", 1]], "sampler_settings is .*, expected an object"),
        ("heun", {}, "sampler is 'heun', expected one of ddim, dpmpp, dpmpp1, euler"),
    ],
)
def test_settings_that_a_sampler_does_not_have_are_refused(sampler: str, settings: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        DiffusionConfig(sampler=sampler, sampler_settings=settings)


@pytest.mark.parametrize(
    ("sampler", "settings"),
    [
        ("ddim", {"timestep_spacing": "leading", "steps_offset": 900}),
        ("dpmpp", {"use_karras_sigmas": True, "use_beta_sigmas": True}),
        ("dpmpp", {"algorithm_type": "dpmsolver", "final_sigmas_type": "zero"}),
        ("dpmpp", {"lambda_min_clipped": 100.0}),
    ],
)
def test_settings_that_make_no_sampler_are_named(sampler: str, settings: dict[str, Any]) -> None:
    config = DiffusionConfig(sampler=sampler, sampler_settings=settings)
    with pytest.raises(ConfigError, match=f"sampler {sampler!r} does not go with {next(iter(settings))}"):
        make_scheduler(config, sampler, 4)
