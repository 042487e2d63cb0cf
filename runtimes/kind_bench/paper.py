"""The figures of the KIND paper that can be computed, beside what our counters give: `kind-bench paper`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from kind_core.config import DiTConfig, preset
from kind_core.console import echo, echo_lines
from kind_core.flops import (
    count_flops,
    count_live_rank,
    count_lora_flops,
    count_parameters,
    count_trainable_parameters,
    latency_floor_s,
    paper_memory_mb,
)

_MEAN_CLASSES = 461 / 18  # novel classes over tasks
_UNITS = {
    "parameters": "M", "trainable": "M", "memory": "MB", "rank": "", "flops": "GFLOPs", "lora_flops": "GFLOPs",
    "lora_extra": "GFLOPs", "floor": "s",
}  # fmt: skip
_WORDS = {
    "parameters": "parameters", "trainable": "trained", "memory": "memory", "rank": "rank",
    "flops": "one pass", "lora_flops": "one pass, LoRA", "lora_extra": "LoRA's part", "floor": "floor",
}  # fmt: skip
_TABLES = {
    "Size (memory: fp32)": ("rank", "parameters", "memory", "trainable"),
    "FLOPs of one pass": ("flops", "lora_extra", "lora_flops"),
    "Latency floor, 500 passes (250 steps of a guidance pair)": ("floor",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperRow:
    """One figure: the paper's and ours with as many digits. `source`: printed there, or derived from its conventions.

    `full_gflops`: beside FLOPs in the paper's convention those with attention and without bias and norm terms.
    `note` says why the two differ, or where the figure comes from.
    """

    where: str
    model: str
    quantity: str
    setting: str
    unit: str
    paper: str
    ours: str
    is_same: bool
    source: str
    full_gflops: float | None = None
    note: str = ""


def paper_rows() -> tuple[PaperRow, ...]:
    """Every figure, in the order of the data file."""
    return tuple(_make_row(entry) for entry in load_figures())


def print_paper(as_json: bool = False) -> None:
    """Print all rows to stdout, as tables or as JSON."""
    rows = paper_rows()
    if as_json:
        echo_lines(json.dumps({"kind": "paper", "figures": [asdict(row) for row in rows]}, indent=2))
        return
    for title, quantities in _TABLES.items():
        echo(title)
        chosen = [row for row in rows if row.quantity in quantities]
        lines = [("where", "model", "what", "paper", "ours", ""), *map(_cells, chosen)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            echo("  " + "  ".join(map(str.ljust, line, widths)).rstrip())
        echo()
    num_same = sum(row.is_same for row in rows)
    echo(f"{num_same} of {len(rows)} figures the same. In brackets: derived from the paper's conventions.")


def _cells(row: PaperRow) -> tuple[str, ...]:
    paper = row.paper if row.source == "printed" else f"({row.paper})"
    words = [] if row.is_same else ["differs"]
    words += [row.note] if row.note else []
    words += [] if row.full_gflops is None else [f"full count {row.full_gflops:.2f}"]
    what = ", ".join(part for part in (_WORDS[row.quantity], row.setting) if part)
    return row.where, row.model, what, paper, f"{row.ours} {row.unit}".strip(), "; ".join(words)


@cache
def load_figures() -> tuple[dict[str, Any], ...]:
    """The entries of `data/paper_figures.toml`."""
    text = (files("kind_bench") / "data" / "paper_figures.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["figures"])


def _make_row(entry: Mapping[str, Any]) -> PaperRow:
    digits = len(entry["value"].partition(".")[2])
    ours = f"{_compute(entry):.{digits}f}"
    quantity = entry["quantity"]
    is_paper = quantity == "flops" and entry["convention"] == "paper"
    return PaperRow(
        where=entry["where"], model=entry["model"], quantity=quantity, setting=_describe(entry),
        unit=_UNITS[quantity], paper=entry["value"], ours=ours, is_same=ours == entry["value"], source=entry["source"],
        full_gflops=round(_compute({**entry, "convention": "full"}), 3) if is_paper else None,
        note=entry.get("note", ""),
    )  # fmt: skip


def _describe(entry: Mapping[str, Any]) -> str:
    """What an entry was computed for, in words."""
    classes = {"mean": "mean task", 1: "one class"}[entry["classes"]] if "classes" in entry else ""
    labels = f"{entry['labels']} labels" if "labels" in entry else ""
    convention = {"full": "full count", "paper+attention": "with attention"}.get(entry.get("convention", ""), "")
    return ", ".join(part for part in (entry.get("device", ""), classes, labels, convention) if part)


def _compute(entry: Mapping[str, Any]) -> float:
    """Our figure in the entry's unit."""
    config, _ = preset(entry["model"])
    classes: Any = _MEAN_CLASSES if entry.get("classes") == "mean" else entry.get("classes")
    quantity = entry["quantity"]
    if quantity == "rank":
        return count_live_rank(config, config.num_classes)
    if quantity in ("parameters", "memory"):
        total = count_parameters(_at_rank(config, entry), classes=classes, labels=entry.get("labels")).total
        return paper_memory_mb(total) if quantity == "memory" else total / 1e6
    if quantity == "trainable":
        return count_trainable_parameters(config, classes) / 1e6
    if quantity == "floor":
        return latency_floor_s(count_flops(config).total, entry["gflops"])
    if quantity == "flops":
        return _count_pass(config, classes, entry["convention"]) / 1e9
    return _count_lora(config, classes, quantity) / 1e9


def _at_rank(config: DiTConfig, entry: Mapping[str, Any]) -> DiTConfig:
    """`config` with the learngene of another live rank, where the entry names one."""
    if "live_rank" not in entry:
        return config
    return replace(config, learngene_rank=entry["live_rank"] - max(config.ranks))


def _count_pass(config: DiTConfig, classes: float | None, convention: str) -> float:
    live_rank = None if classes is None else count_live_rank(config, classes)
    count = count_flops(config, live_rank=live_rank, convention="full" if convention == "full" else "paper")
    if convention != "paper+attention":
        return count.total
    return count.total + count_flops(config, live_rank=live_rank, convention="full").attention_products


def _count_lora(config: DiTConfig, classes: float, quantity: str) -> float:
    """LoRA at the rank of the tailors on the dense model, or what it adds."""
    dense = replace(config, learngene_rank=None, tailor_rank=0, tailor_ranks=None)
    total = count_lora_flops(dense, config.tailor_rank * classes).total
    return total if quantity == "lora_flops" else total - count_flops(dense).total
