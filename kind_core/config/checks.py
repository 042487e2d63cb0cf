"""What settings are held against: each raises ConfigError that names setting, value and what is expected."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TypeGuard

from kind_core.errors import ConfigError

MAX_SEED = 2**32 - 1


def require_known(data: Mapping[str, object], known: Collection[str], where: str) -> None:
    unknown = sorted(set(data).difference(known))
    if unknown:
        raise ConfigError(f"unknown field {unknown[0]!r} in {where}, expected {', '.join(sorted(known))}")


def is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def require_positive(name: str, value: object, most: int | None = None) -> None:
    if not is_whole(value) or value < 1 or (most is not None and value > most):
        limit = "" if most is None else f" to {most}"
        raise ConfigError(f"{name} is {value!r}, expected a whole number from 1{limit}")


def require_seed(seed: object) -> None:
    """A seed of what is drawn in training; start noise takes larger ones (`kind_core.noise`)."""
    if not is_whole(seed) or not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"seed is {seed!r:.60}, expected a whole number from 0 to {MAX_SEED}")


def require_number(name: str, value: object, above: float = -math.inf, below: float = math.inf) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not above < value < below:
        limit = "" if above == -math.inf else f" above {above}"
        limit += "" if below == math.inf else f" and below {below}"
        raise ConfigError(f"{name} is {value!r}, expected a number{limit}")


def require_choice(name: str, value: object, allowed: Collection[object]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(map(str, allowed))}")
