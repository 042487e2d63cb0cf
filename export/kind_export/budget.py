"""What an export may cost: bytes to ship, milliseconds of a step or of a picture on a device."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kind_core.errors import ConfigError

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Limits; None is no limit. Times are of the likely forecast for the one device of the export."""

    max_size_bytes: int | None = None
    max_step_ms: float | None = None
    max_image_ms: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_size_bytes", "max_step_ms", "max_image_ms"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                option = name.removesuffix("_bytes").replace("_", "-")
                raise ConfigError(f"{option} is {value}, expected a positive number")

    @property
    def is_timed(self) -> bool:
        """Whether a device is needed to say if it is met."""
        return self.max_step_ms is not None or self.max_image_ms is not None

    @property
    def is_empty(self) -> bool:
        return self == NO_BUDGET


NO_BUDGET = Budget()


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a choice costs, or an artifact. Times are None without a device."""

    size_bytes: int
    step_ms: float | None = None
    image_ms: float | None = None

    def misses(self, budget: Budget) -> tuple[Miss, ...]:
        """Each limit that is not met, with by how much."""
        pairs = (
            ("max-size", budget.max_size_bytes, self.size_bytes),
            ("max-step-ms", budget.max_step_ms, self.step_ms),
            ("max-image-ms", budget.max_image_ms, self.image_ms),
        )
        return tuple(
            Miss(limit=name, allowed=allowed, actual=actual)
            for name, allowed, actual in pairs
            if allowed is not None and actual is not None and actual > allowed
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Miss:
    """A limit of the budget that a choice does not meet."""

    limit: str
    allowed: float
    actual: float

    @property
    def factor(self) -> float:
        """How many times over the limit."""
        return self.actual / self.allowed

    def describe(self) -> str:
        """`max-size 2.00 MB, needs 3.47 MB (73 % over)`."""
        allowed, actual = (
            f"{value / 1e6:.2f} MB" if self.limit == "max-size" else f"{value:.1f} ms"
            for value in (self.allowed, self.actual)
        )
        return f"{self.limit} {allowed}, needs {actual} ({self.factor - 1:.0%} over)"


def parse_size(text: str | None) -> int | None:
    """`50MB`, `1.5 GB`, `800 kB` or bytes, decimal as app stores count (MiB and the like are binary)."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([a-z]*)\s*", text.lower())
    if found is None or found[2] not in _UNITS:
        raise ConfigError(f"max-size is {text!r}, expected a number with kB, MB or GB", "for example --max-size 50MB")
    return round(float(found[1]) * _UNITS[found[2]])
