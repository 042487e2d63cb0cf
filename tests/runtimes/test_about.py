"""What programs say of themselves: texts that read back, and a call that fits the program."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kind_core.classes import ClassInfo
from kind_core.samplers import Sampling
from kind_runtimes.about import DESCRIPTIONS, About, parse_about
from small_bundles import STEP_INPUTS, STEP_OUTPUTS

ABOUT = About(
    classes=(ClassInfo(id="n02510455", names=("giant panda", "großer Panda")),),
    sampling=Sampling(sampler="dpmpp", steps=4, guidance_scale=1.5, initial_noise_scale=2.0),
    author="A. Uthor", licence="mit",
)  # fmt: skip


def test_texts_read_back() -> None:
    texts = ABOUT.describe("step", STEP_INPUTS, STEP_OUTPUTS)
    assert list(texts) == sorted(texts)
    assert all(isinstance(text, str) and text for text in texts.values())
    about = parse_about({**texts, "other": "of another tool"})
    assert about["classes"] == [{"id": "n02510455", "names": ["giant panda", "großer Panda"]}]
    assert [one["name"] for one in about["inputs"]] == [spec.name for spec in STEP_INPUTS]  # type: ignore[attr-defined]
    assert (about["steps"], about["guidance_scale"], about["author"], about["licence"]) == (
        "4",
        "1.5",
        "A. Uthor",
        "mit",
    )
    assert next(iter(about)) == "program"
    assert "other" not in about


def test_the_call_is_that_of_the_program() -> None:
    call = "latents, history = step(latents, history, step_index, class_index, guidance)"
    loop = "latents = start noise * 2, history = zeros; for step_index 0 to 3: "
    assert ABOUT.describe("step", STEP_INPUTS, STEP_OUTPUTS)["kind.how_to_call"] == loop + call
    without_history = [spec for spec in STEP_INPUTS if spec.name != "history"]
    assert "history" not in ABOUT.explain("step", without_history, {})
    assert (
        ABOUT.explain("decode", STEP_INPUTS[:1], {}) == "image = decode(latents), with the latents after the last step"
    )


@pytest.mark.parametrize(
    ("functions", "words"),
    [
        ({"step": "forward", "step_unguided": "step_unguided"}, "by the function step_unguided, without guidance"),
        ({"n02510455": "giant_panda", "n02509815": "lesser_panda"}, "by the function of the class"),
    ],
)
def test_functions_of_a_file_are_named(functions: dict[str, str], words: str) -> None:
    about = replace(ABOUT, sampling=replace(ABOUT.sampling, guided=(False, True, True, False)))
    texts = about.describe("step", STEP_INPUTS, STEP_OUTPUTS, functions)
    assert words in texts["kind.how_to_call"]
    assert json.loads(texts["kind.functions"]) == functions
    assert parse_about(texts)["guided_steps"] == [1, 2]


def test_every_input_and_output_is_described() -> None:
    packs = {"tailor", "modulation_basis", "modulation_coefficients", "image"}
    captions = {"text", "text_mask"}
    assert set(DESCRIPTIONS) == {spec.name for spec in (*STEP_INPUTS, *STEP_OUTPUTS)} | packs | captions


def test_what_another_wrote_is_shown_as_it_is() -> None:
    assert parse_about({"kind.classes": "panda, koala"}) == {"classes": "panda, koala"}
    assert parse_about({"author": "someone"}) == {}
    deep = "[" * 100_000
    assert parse_about({"kind.classes": deep}) == {"classes": deep}
