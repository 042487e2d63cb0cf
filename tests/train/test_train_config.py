"""Options: flags over YAML over defaults; whatever does not fit is one ConfigError that names it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config, make_photos

from kind_core.config import ModelConfig
from kind_core.errors import ConfigError
from kind_samples import sample_checkpoint
from kind_train.config import TrainConfig
from kind_train.options_file import configure, load_options
from kind_train.preset_options import PRESET_OPTIONS
from kind_train.start.shape import pick_shape

GIVEN: dict[str, Any] = {"data": "photos", "output": "run"}
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "train.md"


def test_the_recipe_of_the_paper_is_one_word_and_what_is_given_wins(tmp_path: Path) -> None:
    config = load_options(None, {"data": "d", "output": "o", "recipe": "paper"})
    assert (config.preset_name, config.batch_size, config.num_steps) == ("kind-b/2", 256, 300_000)
    assert (config.learning_rate_at(0), config.learning_rate_at(299_999)) == (1e-4, 1e-4)
    assert (config.ema_decay, config.max_grad_norm, config.weight_decay) == (0.9999, float("inf"), 0)
    given = load_options(None, {"data": "d", "output": "o", "recipe": "paper", "preset": "kind-l/2", "images": 512})
    assert (given.preset_name, given.num_steps, given.max_grad_norm) == ("kind-l/2", 2, float("inf"))
    assert load_options(write(tmp_path, given.to_yaml()), {}) == given
    with pytest.raises(ConfigError, match="recipe is 'papers', expected one of paper"):
        load_options(None, {"data": "d", "output": "o", "recipe": "papers"})
    shape = pick_shape(config)
    assert (shape.dit.learn_sigma, shape.dit.learngene_rank) == (False, 318)


def write(folder: Path, text: str) -> Path:
    file = folder / "options.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_flags_win_over_yaml_and_yaml_over_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, "data: from-yaml\noutput: run\nimages: 1000\nbatch_size: 16\nflip: true\nclasses: [a, b]\n")
    flags = {"images": 2000, "batch_size": None, "flip": False, "classes": (), "seed": 0}
    config = load_options(file, flags)
    assert (config.data, config.images, config.batch_size, config.flip) == ("from-yaml", 2000, 16, False)
    assert config.classes == ("a", "b")
    assert (config.learning_rate, config.weight_decay) == (6e-4, TrainConfig(**GIVEN).weight_decay)


def test_what_is_written_beside_a_run_is_read_back_as_it_was(tmp_path: Path) -> None:
    config = make_config(
        Path("run"), classes=("giant panda", "n02509815"), val_data="held-out.parquet", precision="bf16"
    )
    assert load_options(write(tmp_path, config.to_yaml()), {}) == config


def test_yaml_may_write_numbers_as_people_do(tmp_path: Path) -> None:
    config = load_options(write(tmp_path, "data: d\noutput: o\nlearning_rate: 6e-4\nweight_decay: 0\n"), {})
    assert (config.learning_rate, config.weight_decay) == (6e-4, 0)


def test_one_class_is_not_its_letters(tmp_path: Path) -> None:
    config = load_options(write(tmp_path, "data: d\noutput: o\nclasses: panda, koala\n"), {})
    assert config.classes == ("panda", "koala")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("images: many", "images is 'many', expected a whole number"),
        ("images: 1.5", "images is 1.5, expected a whole number"),
        ("images:", "images is None, expected a whole number"),
        ("images: true", "images is True, expected a whole number"),
        ("images: [1]", r"images is \[1\], expected a whole number"),
        ("learning_rate: fast", "learning_rate is 'fast', expected a number"),
        ("learning_rate: {}", "learning_rate is {}, expected a number"),
        (f"learning_rate: 1{'0' * 400}", "learning_rate is 10+, expected 9223372036854775807 at most"),
        (f"images: 1{'0' * 400}", "images is 10+, expected 9223372036854775807 at most"),
        ("flip: 1", "flip is 1, expected true or false"),
        ("preset: 3", "preset is 3, expected text"),
        ("val_data: 3", "val_data is 3, expected text"),
        ("classes: 3", "classes is 3, expected a list of names"),
        (f"classes: {'n' * 200_000}", "a name is none: field larger than field limit"),
        ("classes: [panda, 3]", "classes holds 3, expected text"),
        ("imagse: 3", "unknown option 'imagse', expected one of accelerator_rank, base, batch_size"),
        ("3: 3", "unknown option 3, expected one of"),
    ],
)
def test_a_yaml_value_of_the_wrong_type_is_named(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_options(write(tmp_path, f"data: d\noutput: o\n{line}\n"), {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", 0),
        ("batch_size", -1),
        ("save_every", 0),
        ("sample_every", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("max_grad_norm", 0.0),
        ("max_grad_norm", float("nan")),
        ("weight_decay", -0.1),
        ("weight_decay", float("nan")),
        ("warmup_images", -1),
        ("val_fraction", 1.0),
        ("decay_fraction", float("nan")),
        ("label_dropout", -0.1),
        ("ema_decay", 0.0),
        ("ema_decay", 1.0),
        ("seed", -1),
        ("seed", 2**32),
        ("precision", "fp16"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_is_expected(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} is {value!r}, expected "):
        TrainConfig(**GIVEN, **{name: value})


@pytest.mark.parametrize("name", ["data", "output"])
def test_what_has_no_default_must_be_given(name: str) -> None:
    flags = {key: value for key, value in GIVEN.items() if key != name}
    with pytest.raises(ConfigError, match=f"no {name} given"):
        load_options(None, flags)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds nothing, expected"),
        (b"- a\n- b\n", "holds a list, expected"),
        (b"data: [1, 2\n", "is not YAML"),
        (b"data: \xff\xfe\n", "is not YAML"),
    ],
)
def test_a_file_that_is_no_list_of_options(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "options.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load_options(file, GIVEN)
    assert "\n" not in caught.value.message
    assert str(file) in caught.value.message


def test_a_missing_yaml_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no YAML file at"):
        load_options(tmp_path / "none.yaml", GIVEN)
    with pytest.raises(ConfigError, match="cannot read"):
        load_options(tmp_path, GIVEN)


def test_the_learning_rate_warms_up_stays_and_falls_to_zero() -> None:
    config = make_config(
        Path("run"), images=1000, batch_size=10, learning_rate=1.0, warmup_images=200, decay_fraction=0.5
    )
    assert config.num_steps == 100
    rates = [config.learning_rate_at(step) for step in range(100)]
    assert rates[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert rates[20:51] == pytest.approx([1.0] * 31)
    assert rates[50:] == pytest.approx([(100 - step) / 50 for step in range(50, 100)])


def test_without_warm_up_and_decay_the_learning_rate_is_constant() -> None:
    config = make_config(Path("run"), images=1001, batch_size=10, learning_rate=0.3)
    assert {config.learning_rate_at(step) for step in range(config.num_steps)} == {0.3}
    assert config.num_steps == 101  # the last batch is whole


def test_a_preset_says_how_it_is_trained_and_what_is_given_wins(tmp_path: Path) -> None:
    """The default trains the default: at 1e-4 the sample learns nothing worth looking at in its hours."""
    plain = configure(**GIVEN)
    assert (plain.preset_name, plain.images, plain.learning_rate) == ("sample", 590_000, 6e-4)
    assert (plain.warmup_images, plain.decay_fraction, plain.ema_decay) == (5_000, 0.3, 0.9995)
    assert configure(**GIVEN, preset="dit-sample") == replace(plain, preset="dit-sample")
    assert configure(**GIVEN, preset="sample-64-cpu").perceptual == 0.15
    assert configure(**GIVEN, preset="Garments").batch_size == 16
    latents = configure(**GIVEN, preset="kind-l/4")
    assert (latents.num_steps, latents.learning_rate_at(0), latents.decay_fraction) == (300_000, 1e-4, 0)
    assert configure(**GIVEN, images=10_000).warmup_images == 500
    given = load_options(write(tmp_path, "warmup_images: 0\n"), {**GIVEN, "learning_rate": 2e-4})
    assert (given.learning_rate, given.warmup_images, given.decay_fraction) == (2e-4, 0, 0.3)
    assert load_options(write(tmp_path, given.to_yaml()), {}) == given


def test_who_starts_from_weights_trains_as_their_preset_does(tmp_path: Path) -> None:
    garments = configure(**GIVEN, start_from=str(sample_checkpoint("garments-teacher")))
    assert (garments.learning_rate, garments.batch_size, garments.preset) == (8e-4, 16, None)
    other = ModelConfig(dit=TINY_DIT, diffusion=TINY_DIFFUSION, classes=make_photos().classes)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(other.to_dict()))
    plain = TrainConfig(**GIVEN, start_from=str(tmp_path / "tiny"))
    assert configure(**GIVEN, start_from=plain.start_from) == plain
    assert configure(**GIVEN, start_from="nowhere") == replace(plain, start_from="nowhere")  # refused later


def test_the_guide_says_what_the_presets_say() -> None:
    rows = [row for row in GUIDE.read_text().splitlines() if row.startswith("| `") and row.count("|") == 9]
    for name, row in zip((*PRESET_OPTIONS, "kind-b/2"), rows, strict=True):
        config = configure(**GIVEN, preset=name)
        figures = (
            f"{config.images:,}", config.batch_size, f"{config.learning_rate:.4f}", f"{config.warmup_images:,}",
            f"{config.decay_fraction:.0%}".replace("%", " %"), f"{config.ema_decay:g}",
        )  # fmt: skip
        assert [cell.strip() for cell in row.split("|")[2:8]] == [str(figure) for figure in figures]
        assert name in row
