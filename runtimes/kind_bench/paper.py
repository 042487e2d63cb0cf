"""The figures of the KIND paper that can be computed, beside what our counters give: `kind-bench paper`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from typing import Any

from kind_bench.paper_figures import MethodEntry, MobileTable, SizeEntry, load_figures
from kind_core.config import DiTConfig, preset
from kind_core.console import echo, echo_lines
from kind_core.costs.methods import Counter, dense_twin, find_cost
from kind_core.flops import count_flops, count_live_rank, count_parameters, latency_floor_s, paper_memory_mb

_SIZES = {"DiT-B": "kind-b/2", "DiT-L": "kind-l/2"}
_UNITS = {
    "parameters": "M",
    "trained parameters": "M",
    "memory": "MB",
    "one pass": "GFLOPs",
    "floor": "s",
    "training": "GPU h",
    "live rank": "",
}
_TABLES = {
    "table 1": "Table 1, size of one class's model",
    "table 2": "Table 2, new classes: mean of the 18 tasks",
    "mobile": "On phones: floor of 500 passes (250 steps of a guidance pair)",
    "ratios": "On phones, traditional over KIND-Mobile: of the figures as printed, so never counted",
    "settings": "Settings of pre-training",
    "answers": "GPU time, answers to reviewers",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperRow:
    """One figure: the paper's as printed, and ours with as many digits.

    `match` says how ours becomes the printed one, `rounded` or `truncated`; else it `differs`, or is `not compared`:
    what the paper does not print itself, or what was not measured here (`ours` is then empty).
    `full_gflops`: beside FLOPs in the paper's convention those with attention and without bias and norm terms.
    """

    table: str
    system: str
    model: str
    quantity: str
    unit: str
    paper: str
    ours: str = ""
    match: str = "not compared"
    full_gflops: float | None = None
    note: str = ""


def paper_rows() -> tuple[PaperRow, ...]:
    """Every figure, table by table."""
    figures = load_figures()
    return (
        *_size_rows(figures["table_1"]),
        *_task_rows(figures["table_2"], figures["tasks"]["classes"]),
        *_mobile_rows(figures["mobile"]),
        *_ratio_rows(figures["mobile"]),
        *_setting_rows(figures["settings"]["rank"]),
        *_hour_rows(figures["table_2"]),
    )


def print_paper(as_json: bool = False) -> None:
    """Print all rows to stdout, as tables or as JSON."""
    rows = paper_rows()
    if as_json:
        echo_lines(json.dumps({"kind": "paper", "figures": [asdict(row) for row in rows]}, indent=2))
        return
    for table, title in _TABLES.items():
        echo(title)
        lines = [("system", "model", "what", "paper", "ours", ""), *(_cells(row) for row in rows if row.table == table)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            echo("  " + "  ".join(map(str.ljust, line, widths)).rstrip())
        echo()
    for what, tables in (("tables 1 and 2", ("table 1", "table 2")), ("the others", ("mobile", "settings"))):
        echo(f"{what}: {_summarise([row for row in rows if row.table in tables])}")


def _summarise(rows: Sequence[PaperRow]) -> str:
    counts = {how: sum(row.match == how for row in rows) for how in ("rounded", "truncated", "differs")}
    same = counts["rounded"] + counts["truncated"]
    cut = f", {counts['truncated']} of them truncated where we would round" if counts["truncated"] else ""
    return f"{same} of {len(rows)} figures the same to the printed digit{cut}"


def _cells(row: PaperRow) -> tuple[str, ...]:
    words = [] if row.match in ("rounded", "not compared") else [row.match]
    words += [row.note] if row.note else []
    words += [] if row.full_gflops is None else [f"full count {row.full_gflops:.2f}"]
    ours = f"{row.ours} {row.unit}".strip() if row.ours else "not measured"
    return row.system, row.model, row.quantity, row.paper, ours, "; ".join(words)


def _make_row(table: str, system: str, model: str, quantity: str, paper: str, value: float, **more: Any) -> PaperRow:
    step = Decimal(1).scaleb(-len(paper.partition(".")[2]))
    exact = Decimal(value)
    rounded, truncated = (str(exact.quantize(step, how)) for how in (ROUND_HALF_EVEN, ROUND_DOWN))
    match = "rounded" if rounded == paper else "truncated" if truncated == paper else "differs"
    if match == "truncated":
        more["note"] = "; ".join(filter(None, (more.get("note"), f"{exact.quantize(step / 100)} before that")))
    return PaperRow(
        table=table,
        system=system,
        model=model,
        quantity=quantity,
        unit=_UNITS[quantity],
        paper=paper,
        ours=paper if match == "truncated" else rounded,
        match=match,
        **more,
    )


def _size_rows(entries: Sequence[SizeEntry]) -> Iterator[PaperRow]:
    for entry in entries:
        depths: Sequence[int | None] = entry.get("depths", (None, None))
        for model, name, depth, paper in zip(_SIZES, entry["presets"], depths, entry["parameters"], strict=True):
            config = preset(name)[0]
            config = config if depth is None else replace(config, depth=depth)
            note = "" if depth is None else f"{depth} blocks"
            millions = _count_one_class(config) / 1e6
            yield _make_row("table 1", entry["system"], model, "parameters", paper, millions, note=note)


def _task_rows(entries: Sequence[MethodEntry], tasks: Sequence[int]) -> Iterator[PaperRow]:
    for entry in entries:
        cost = find_cost(entry["method"])
        for (model, name), trained, flops in zip(_SIZES.items(), entry["trained"], entry["flops"], strict=True):
            config = preset(name)[0]
            row = ("table 2", entry["system"], model)
            yield _make_row(*row, "trained parameters", trained, _mean(cost.trained, config, tasks) / 1e6)
            yield _make_row(
                *row,
                "one pass",
                flops,
                _mean(cost.flops, config, tasks) / 1e9,
                full_gflops=_full_gflops(entry["method"], config, tasks),
            )


def _mean(count: Counter, config: DiTConfig, tasks: Sequence[int]) -> float:
    return sum(count(config, classes) for classes in tasks) / len(tasks)


def _full_gflops(method: str, config: DiTConfig, tasks: Sequence[int]) -> float | None:
    """2 x MAC with attention, of the methods that run as plain layers."""
    if method not in ("tailors", "full-ft"):
        return None
    if method == "full-ft":
        return round(count_flops(dense_twin(config), convention="full").total / 1e9, 3)
    live_rank = count_live_rank(config, sum(tasks) / len(tasks))
    return round(count_flops(config, live_rank=live_rank, convention="full").total / 1e9, 3)


def _count_one_class(config: DiTConfig) -> float:
    """A dense model knows every class; of a decomposed one stay one tailor, its label and the null label."""
    if config.is_dense:
        return count_parameters(config).total
    return count_parameters(config, classes=1, labels=2).total


def _mobile_rows(mobile: MobileTable) -> Iterator[PaperRow]:
    for name, entry in mobile["models"].items():
        config = preset(name)[0]
        parameters, flops = _count_one_class(config), count_flops(config).total
        full = round(count_flops(config, convention="full").total / 1e9, 3)
        row = ("mobile", entry["system"], name)
        yield _make_row(*row, "parameters", entry["parameters"], parameters / 1e6)
        yield _make_row(*row, "memory", entry["memory"], paper_memory_mb(parameters), note="fp32")
        yield _make_row(*row, "one pass", entry["flops"], flops / 1e9, full_gflops=full)
        for (device, gflops), paper in zip(mobile["gflops"].items(), entry["seconds"], strict=True):
            yield _make_row(*row, "floor", paper, latency_floor_s(flops, gflops), note=device)


def _ratio_rows(mobile: MobileTable) -> Iterator[PaperRow]:
    """How much smaller KIND-Mobile is; the paper's ratio is of its own two figures."""
    dense, kind = (entry["system"] for entry in mobile["models"].values())
    rows = list(_mobile_rows(mobile))
    pairs = zip(*([row for row in rows if row.system == system] for system in (dense, kind)), strict=True)
    for of_dense, of_kind in pairs:
        ours, paper = (float(getattr(of_dense, side)) / float(getattr(of_kind, side)) for side in ("ours", "paper"))
        yield PaperRow(
            table="ratios",
            system=kind,
            model="",
            quantity=of_kind.quantity,
            unit="x",
            paper=f"({paper:.2f})",
            ours=f"{ours:.2f}",
            note=of_kind.note,
        )


def _setting_rows(ranks: Sequence[str]) -> Iterator[PaperRow]:
    for (model, name), paper in zip(_SIZES.items(), ranks, strict=True):
        config = preset(name)[0]
        yield _make_row("settings", "KIND", model, "live rank", paper, count_live_rank(config, config.num_classes))


def _hour_rows(entries: Sequence[MethodEntry]) -> Iterator[PaperRow]:
    for entry in entries:
        for model, paper in zip(_SIZES, entry["gpu_hours"], strict=True):
            yield PaperRow(
                table="answers",
                system=entry["system"],
                model=model,
                quantity="training",
                unit=_UNITS["training"],
                paper=paper,
            )
