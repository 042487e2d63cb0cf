"""Bundles of the LiteRT target for its tests, which skip where its extra is not installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from kind_core.checkpoint import save_checkpoint
from kind_export.cli import main
from kind_runtimes.bundle import Bundle, open_bundle
from tiny import tiny_config, tiny_model, tiny_model_config

needs_litert = pytest.mark.skipif(find_spec("ai_edge_litert") is None, reason="needs the extra litert")
STEPS = 4


@dataclass(frozen=True)
class Model:
    """A checkpoint of two classes."""

    path: Path
    names: tuple[str, ...]


def make_model(places: pytest.TempPathFactory) -> Model:
    """A tiny one."""
    dit = tiny_config(num_classes=2, depth=1, hidden_size=64, learngene_rank=40)
    config = tiny_model_config(dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample", sampler="dpmpp")
    folder = places.mktemp("checkpoint") / "model"
    save_checkpoint(folder, config, tiny_model(dit))
    return Model(folder, tuple(one.id for one in config.classes))


def make_bundle(model: Model, places: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """What exports both classes, or some, with some options, once each."""

    @cache
    def make(*options: str, classes: tuple[str, ...] = model.names) -> Bundle:
        output = places.mktemp("bundle") / "both.kind"
        asked = ["--classes", ",".join(classes), "--checkpoint", str(model.path), "--steps", str(STEPS)]
        done = CliRunner().invoke(main, [*asked, "--target", "litert", "--strict", *options, "-o", str(output)])
        assert done.exit_code == 0, done.output
        return open_bundle(output)

    return make
