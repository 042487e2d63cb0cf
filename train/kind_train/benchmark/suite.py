"""A suite as its YAML file in `suites/` says: rows, the paper's figures, and how much is drawn at each scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from kind_core.errors import ConfigError

SUITES = ("class-agnostic",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of a table. `source`: model, dense, photos or noise; `has_label` and `has_gate`: the class's own."""

    name: str
    title: str
    source: str = "model"
    has_label: bool = False
    has_gate: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """`counts`: pictures a class at each scale. `paper`: entropy, variance and kurtosis of the rows that it prints."""

    name: str
    title: str
    rows: tuple[Row, ...]
    paper: Mapping[str, tuple[float, float, float]]
    counts: Mapping[str, int]

    def choose(self, names: tuple[str, ...]) -> tuple[Row, ...]:
        """The rows called so, all of them by default; raises ConfigError for one that is unknown."""
        known = {row.name: row for row in self.rows}
        for name in names:
            if name not in known:
                raise ConfigError(f"suite {self.name!r} has no method {name!r}, expected one of {', '.join(known)}")
        return tuple(known[name] for name in names) or self.rows


def read_suite(name: str) -> Suite:
    """The suite called `name`; raises ConfigError naming those there are."""
    import yaml

    if name not in SUITES:
        raise ConfigError(f"there is no suite {name!r}, expected {' or '.join(SUITES)}")
    text = (files("kind_train.benchmark") / "suites" / f"{name}.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    rows = tuple(
        Row(
            name=key,
            title=row["title"],
            source=row.get("source", "model"),
            has_label=row.get("label") == "own",
            has_gate=row.get("gate") == "own",
        )
        for key, row in data["rows"].items()
    )
    paper = {key: (float(e), float(v), float(k)) for key, (e, v, k) in data["paper"].items()}
    counts = {key: scale["count"] for key, scale in data["scales"].items()}
    return Suite(name=name, title=data["title"], rows=rows, paper=paper, counts=counts)
