"""Few-step models: what their config says, where their blocks look, and how they are sampled."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from distilled import GUIDANCE, STEPS, distilled_config
from kind_core.config import DiffusionConfig, ModelConfig
from kind_core.errors import ConfigError
from kind_core.samplers import FIRST_ORDER, Distillation
from kind_core.sampling import sample_trajectory
from kind_core.schedule import choose_sampling, make_scheduler
from tiny import tiny_batch, tiny_config, tiny_model, tiny_model_config


def test_config_says_what_it_was_distilled_for() -> None:
    config = distilled_config()
    data = json.loads(json.dumps(config.to_dict()))
    assert data["format_version"] == 2
    assert data["diffusion"]["distillation"] == {
        "steps": [4, 2, 1], "guidance_scale": GUIDANCE, "guidance_interval": [0.0, 1.0],
    }  # fmt: skip
    assert ModelConfig.from_dict(data) == config


def test_other_models_are_written_as_before() -> None:
    data = tiny_model_config().to_dict()
    assert data["format_version"] == 1
    assert "distillation" not in data["diffusion"]
    assert "end_blocks" not in data["architecture"]


@pytest.mark.parametrize(
    ("distillation", "expected"),
    [
        ({"steps": []}, "distilled steps are \\(\\), expected whole numbers"),
        ({"steps": [4, 0]}, "expected whole numbers from 1"),
        ({"steps": [1, 4]}, "expected each once, the most first"),
        ({"steps": [4, 4]}, "expected each once"),
        ({"steps": 4}, "expected whole numbers"),
        ({"guidance_scale": "3"}, "expected a scale and an interval"),
        ({"guidance_interval": [0.5]}, "expected a scale and an interval"),
        ({"guidance_interval": [0.8, 0.2]}, "guidance-interval is 0.8,0.2"),
        ({"master": "x"}, "expected an object of guidance_interval, guidance_scale, learngene, steps, teacher"),
        ({"teacher": 3}, "distilled teacher is 3, expected the sha256"),
        ({"steps": [8, 2]}, "steps is 4, but the model was distilled for 8, 2"),
    ],
)
def test_damaged_record_is_one_line(distillation: dict[str, Any], expected: str) -> None:
    data = json.loads(json.dumps(distilled_config().to_dict()))
    data["diffusion"]["distillation"] |= distillation
    with pytest.raises(ConfigError, match=expected):
        ModelConfig.from_dict(data)


def test_record_and_architecture_go_together() -> None:
    config = distilled_config()
    with pytest.raises(ConfigError, match="end_blocks is 0, expected 1 or more in a distilled model"):
        replace(config, dit=replace(config.dit, end_blocks=0))
    with pytest.raises(ConfigError, match="end_blocks is 1"):
        tiny_model_config(tiny_config(end_blocks=1))
    with pytest.raises(ConfigError, match="end_blocks is 2, expected 0 to below the depth 2"):
        tiny_config(end_blocks=2)
    with pytest.raises(ConfigError, match="sampler of a distilled model is 'dpmpp', expected 'dpmpp1'"):
        replace(config.diffusion, sampler="dpmpp")


def test_last_blocks_and_final_layer_see_the_end() -> None:
    """With the adaLN of the others closed, only the end changes the answer; and the other way round."""
    config = tiny_config(end_blocks=1)
    latents, begin = tiny_batch(config, 2)
    labels, end = torch.arange(2), begin / 2
    for silent, changes in (("begin", begin / 3), ("end", end / 3)):
        model = tiny_model(config)
        blocks = model.blocks[:1] if silent == "begin" else [*model.blocks[1:], model.final]
        for block in blocks:
            torch.nn.init.zeros_(block.adaln.weight)  # type: ignore[arg-type, union-attr]
        times = {"begin": begin, "end": end, silent: changes}
        before = model(latents, begin, labels, labels, ends=end)
        assert torch.equal(before, model(latents, times["begin"], labels, labels, ends=times["end"]))
    model = tiny_model(config)
    assert not torch.allclose(model(latents, begin, labels, labels, ends=end), model(latents, begin, labels, labels))


def test_at_one_time_the_student_is_its_teacher() -> None:
    student = tiny_model(tiny_config(end_blocks=1))
    teacher = tiny_model(tiny_config())
    teacher.load_state_dict(student.state_dict())
    latents, times = tiny_batch(student.config, 3)
    labels = torch.tensor([0, 2, -1])
    assert torch.equal(student(latents, times, labels, labels, ends=times), teacher(latents, times, labels, labels))


@pytest.mark.parametrize("steps", STEPS)
def test_a_step_is_a_straight_line_to_the_picture(steps: int) -> None:
    """x_r = (r / t) x_t + (1 - r / t) answer, the class's half alone, told where it begins and ends."""
    config = distilled_config()
    model = tiny_model(config.dit)
    noise = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([1])
    sampling = choose_sampling(config.diffusion, steps=steps)
    sigmas = [float(one) for one in make_scheduler(config.diffusion, FIRST_ORDER, steps).sigmas]
    assert [len(sigmas), sigmas[-1]] == [steps + 1, 0]
    expected = noise
    for begin, end in pairwise(sigmas):
        told = (torch.tensor([float(int(1000 * one + 1e-4))]) for one in (begin, end))
        with torch.no_grad():
            picture = model(expected, *[next(told)], label, label, ends=next(told))
        expected = end / begin * expected + (1 - end / begin) * picture
    actual = sample_trajectory(model, config.diffusion, noise, label, label, sampling)[-1]
    assert torch.allclose(actual, expected, atol=1e-4)


def test_sampling_takes_no_guidance_and_trained_steps_only() -> None:
    diffusion = distilled_config().diffusion
    sampling = choose_sampling(diffusion)
    assert (sampling.steps, sampling.takes_guidance, sampling.scale_at(0)) == (4, False, None)
    for option in ({"guidance_scale": 2.0}, {"guidance_interval": (0.2, 0.8)}):
        with pytest.raises(ConfigError, match=r"guidance 3 is built in; --guidance.* does not apply"):
            choose_sampling(diffusion, **option)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="steps is 3, but the model was distilled for 4, 2, 1") as caught:
        choose_sampling(diffusion, steps=3)
    assert "--force-steps" in caught.value.hint
    assert choose_sampling(diffusion, steps=3, force_steps=True).steps == 3
    with pytest.raises(ConfigError, match="sampler 'dpmpp' does not go with"):
        choose_sampling(diffusion, sampler="dpmpp")


def test_first_order_suits_teachers_too() -> None:
    diffusion = DiffusionConfig(noise_schedule="flow", prediction_type="sample", sampler=FIRST_ORDER)
    assert choose_sampling(diffusion, steps=5).takes_guidance
    assert Distillation(steps=(2,), guidance_scale=1.5).describe_steps() == "2"
