"""Numbers and choices of a report as words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

from kind_core.closeness import MAX_DB
from kind_core.config import TrainingRecord
from kind_core.console import count_of
from kind_runtimes.documents.reports.document import (
    BudgetEntry,
    ChoiceEntry,
    ForecastEntry,
    Host,
    PlanEntry,
    ReportSampling,
    TimesEntry,
)
from kind_runtimes.documents.reports.model import MatrixEntry
from kind_runtimes.documents.reports.targets import MeasuredHere
from kind_runtimes.engine_rows import ENGINES

_SPACE = "\u00a0"  # a figure and its unit stay on one line
_BUSY = 1.1  # of the CPUs: an export alone does not load them more
_MOST_LIMITS = 2  # that a row of the table names
_MOST_CHOICES = 12  # of a budget, a row each


def format_bytes(size_bytes: int) -> str:
    """Decimal units, as app stores count."""
    return _scale(size_bytes, ("B", "kB", "MB", "GB"))


def format_count(number: float) -> str:
    """Thousands as K, then M, G and T."""
    return _scale(number, ("", "K", "M", "G", "T"))


def format_ms(milliseconds: float) -> str:
    """Milliseconds; seconds from one thousand, microseconds below a tenth."""
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.2f}{_SPACE}s"
    if milliseconds < 0.1:
        return f"{milliseconds * 1000:.0f}{_SPACE}\N{MICRO SIGN}s"
    return f"{milliseconds:.1f}{_SPACE}ms" if milliseconds >= 1 else f"{milliseconds:.2f}{_SPACE}ms"


def format_db(decibels: float | None) -> str:
    """A PSNR; `identical` where no bit differs."""
    if decibels is None:
        return "none"
    return "identical" if decibels >= MAX_DB else f"{decibels:.1f}".removesuffix(".0") + f"{_SPACE}dB"


def format_percent(share: float) -> str:
    """A share from 0 to 1; small ones with a digit more."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return f"under 0.1{_SPACE}%"
    return f"{percent:.0f}{_SPACE}%" if percent >= 10 or percent == 0 else f"{percent:.1f}{_SPACE}%"


def format_range(times: TimesEntry) -> str:
    """`0.24 ms (0.12 ms to 0.61 ms)`; the floor where no more is known."""
    low, likely, high, floor = times["low_ms"], times["likely_ms"], times["high_ms"], times["floor_ms"]
    if likely is None or low is None or high is None:
        return "unknown" if floor is None else f"floor {format_ms(floor)}"
    return f"{format_ms(likely)} ({format_ms(low)} to {format_ms(high)})"


def name_forecast(entry: ForecastEntry) -> str:
    """`iPhone 16, NPU, Core ML fp16`."""
    return f"{entry['device_name']}, {entry['unit'].upper()}, {ENGINES[entry['target']].title} {entry['precision']}"


def describe_limits(forecast: ForecastEntry) -> str:
    """`linear by arithmetic, norm by memory and 3 more`: the first two that it names; empty without a forecast."""
    words = {"compute": "arithmetic", "bandwidth": "memory", "dispatch": "calls"}
    limited = [f"{op_class} by {words[limit]}" for op_class, limit in forecast["limited_by"].items()]
    more = f" and {len(limited) - _MOST_LIMITS} more" if len(limited) > _MOST_LIMITS else ""
    return ", ".join(limited[:_MOST_LIMITS]) + more if more or not limited else join_words(limited)


def describe_load(host: Host) -> str:
    """`load 5.4 on 2 CPUs`, where others ran while this host was timed; empty where it was idle or does not tell."""
    load, num_cpus = host.get("load_before"), host["num_cpus"]
    if load is None or num_cpus is None or load <= _BUSY * num_cpus:
        return ""
    return f"load {load:.1f} on {count_of(num_cpus, 'CPU')}"


def picture_range_ms(measured: MeasuredHere, steps: int) -> tuple[float, float]:
    """The least and the most milliseconds of a picture, all of whose steps took the least or the most."""
    shortest, longest = (measured[name] - measured["step_ms"] for name in ("step_min_ms", "step_max_ms"))
    return max(measured["image_ms"] + steps * shortest, 0.0), measured["image_ms"] + steps * longest


def describe_times(measured: MeasuredHere, steps: int, *, is_busy: bool) -> tuple[str, str]:
    """A step and a picture; of a busy host their ranges alone, because its median is no fact."""
    if not is_busy:
        return format_ms(measured["step_ms"]), format_ms(measured["image_ms"])
    ranges = (measured["step_min_ms"], measured["step_max_ms"]), picture_range_ms(measured, steps)
    step, picture = (f"{format_ms(low)} to {format_ms(high)}" for low, high in ranges)
    return step, picture


def describe_training(training: TrainingRecord) -> str:
    """`held-out loss 0.142 after 590,080 images, 30 % of the mean image's`; without a loss, the images alone."""
    images = f"{training.images:,} images"
    if training.held_out_loss is None:
        return images
    loss = f"held-out loss {training.held_out_loss:.3g} after {images}"
    return loss if training.share is None else f"{loss}, {100 * training.share:.0f}{_SPACE}% of that of the mean image"


def warn_of_training(training: TrainingRecord | None) -> str:
    """What to know where an export is close to a model that has learned next to nothing; else empty."""
    if training is None or not training.is_barely_trained:
        return ""
    return (
        f"The model has barely trained: {describe_training(training)}. Closeness says how well it was exported, "
        "not how well it draws."
    )


def compare_share(number: float, other: float) -> str:
    """`29 % fewer`, `3 % more`."""
    percent = round(100 * (1 - number / other))
    return f"{abs(percent)}{_SPACE}% {'fewer' if percent >= 0 else 'more'}"


def join_words(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def explain_form(matrix: MatrixEntry) -> str:
    """Why a matrix of a block is dense or factored."""
    costs = matrix["products_per_token"]
    if costs is None:
        return "the checkpoint is not decomposed"
    thin, dense = f"{costs['factored']:,}", f"{costs['dense']:,}"
    beside = "" if costs["dense"] == math.prod(matrix["shape"]) else " with the tailor beside it"
    if matrix["form"] == "factored":
        return f"{thin} multiplications a token at rank {costs['rank']}, {dense} dense{beside}"
    return f"rank {costs['rank']} is not small enough: {dense} multiplications a token dense{beside}, {thin} factored"


def _scale(number: float, units: Sequence[str]) -> str:
    """Three significant digits or whole numbers, in the largest unit that leaves one digit before the point."""
    index = 0
    while number >= 999.5 and index < len(units) - 1:
        number, index = number / 1000, index + 1
    digits = 0 if index == 0 or number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f}{_SPACE}{units[index]}".rstrip(_SPACE)


def describe_guidance(sampling: ReportSampling) -> str:
    """`at guidance 2.5`, or what a distilled model holds, of the `sampling` of a report."""
    held = sampling.get("distillation")
    if held is None:
        return f"at guidance {sampling['guidance_scale']:g}"
    steps = ", ".join(map(str, held["steps"]))
    mark = f", approximate: distilled for {steps}" if sampling["is_approximate"] else ""
    return f"with guidance {held['guidance_scale']:g} built in{mark}"


class PlanWords(TypedDict):
    """A budget and its choice as sentences, and the choices worth a row."""

    budget: str
    chosen: str
    rows: list[dict[str, object]]
    rest: str


def describe_plan(plan: PlanEntry) -> PlanWords:
    """The budget and the choice as sentences, and the choices worth a row: measured ones, then the nearest misses."""
    chosen = plan["chosen"]
    ranked = sorted(plan["considered"], key=_rank)
    rows = [_describe_choice(one, chosen) for one in ranked[:_MOST_CHOICES]]
    left = len(ranked) - len(rows)
    return {
        "budget": f"Asked for: {describe_budget(plan['budget'])}.",
        "chosen": f"Chosen, because it fits and comes closest to the model: {_name_entry(chosen)}, "
        f"{format_db(chosen['error_db'])}.",
        "rows": rows,
        "rest": f"{left} more were considered, see report.json." if left else "",
    }


def _rank(one: ChoiceEntry) -> tuple[bool, float, bool, int, int]:
    """Measured ones by closeness, then those that miss the fewest limits, then what fits but is coarser throughout."""
    is_measured, misses = one["error_db"] is not None, len(one["misses"])
    return (not is_measured, -(one["error_db"] or 0), misses == 0, misses, one["size_bytes"])


def describe_budget(budget: BudgetEntry) -> str:
    """`at most 2.00 MB and 1.0 ms a step on apple-a18`."""
    limits = []
    if budget["max_size_bytes"] is not None:
        limits.append(format_bytes(budget["max_size_bytes"]))
    if budget["max_step_ms"] is not None:
        limits.append(f"{format_ms(budget['max_step_ms'])} a step on {budget['device']}")
    if budget["max_image_ms"] is not None:
        limits.append(f"{format_ms(budget['max_image_ms'])} a picture on {budget['device']}")
    return f"at most {join_words(limits)}"


def name_choice(precision: str, max_rank: int | None, forms: str, steps: int) -> str:
    """`int8, rank 64, dense matrices, 12 steps`."""
    rank = "all ranks" if max_rank is None else f"rank {max_rank}"
    form = "" if forms == "auto" else f", {forms} matrices"
    return f"{precision}, {rank}{form}, {count_of(steps, 'step')}"


def _name_entry(one: ChoiceEntry) -> str:
    return name_choice(one["precision"], one["max_rank"], one["forms"], one["steps"])


def _describe_choice(one: ChoiceEntry, chosen: ChoiceEntry) -> dict[str, object]:
    fits = "fits" if one["error_db"] is not None else "fits, but has no more of anything than another that does"
    verdict = "; ".join(one["misses"]) or ("below its gate" if one["below_gate"] else fits)
    return {**one, "name": _name_entry(one), "is_chosen": _name_entry(one) == _name_entry(chosen), "verdict": verdict}
