"""The ways of adapting a base that the paper compares, all of one protocol (`method.Method`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name

from kind_core.checkpoint_config import read_any_config
from kind_core.errors import ConfigError
from kind_train.config import METHODS, TAILORS, TrainConfig
from kind_train.methods.method import Method as Method


def open_method(name: str) -> Method:
    """The method called `name`; raises ConfigError naming those there are."""
    if name not in METHODS:
        raise ConfigError(f"method is {name!r}, expected one of {', '.join(METHODS)}")
    method: Method = resolve_name(f"kind_train.methods.{METHODS[name]}")()
    return method


def pick_method(config: TrainConfig) -> Method | None:
    """What is put into a model for the run and is part of its weights in the end; None where all of it is trained."""
    from kind_train.methods.grown import open_arm

    if config.base is not None:
        return open_method(config.method)
    return open_arm(config.train, config.accelerator_rank)


def adaptation_defaults(options: Mapping[str, object]) -> dict[str, object]:
    """What the options of a run imply that adapts a base, for those that are not given: the paper's rate and so on."""
    base = options.get("base")
    if not isinstance(base, str) or {"images", "learning_rate", "label_dropout"} <= options.keys():
        return {}
    method = open_method(str(options.get("method", TAILORS)))
    rate = method.learning_rate(read_any_config(Path(base)).dit)
    return {"images": 50_000, "learning_rate": rate, "label_dropout": method.label_dropout}
