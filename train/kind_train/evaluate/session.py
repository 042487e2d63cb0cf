"""An evaluation as the command line runs it: progress on stderr, a table or JSON on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kind_core.console import count_of, echo, echo_lines
from kind_core.console.tables import open_console, say
from kind_core.errors import ResultsError
from kind_core.files.json_files import read_json
from kind_core.files.staging import file_kind, staged
from kind_core.stopping import exit_code
from kind_train.display import show_progress
from kind_train.evaluate.against import FigureEntry
from kind_train.evaluate.beside_statistics import evaluate_against
from kind_train.evaluate.networks import Figure
from kind_train.evaluate.run import Evaluation, EvaluationRequest, evaluate
from kind_train.evaluation import KeptEvaluation, kept_beside, seen_folder

LABELS = {
    **{
        f"{one}_{name}": f"{one.capitalize()} {name.replace('_', ' ')}"
        for one in ("lite2", "lite0")
        for name in ("distance", "precision", "recall", "called_as_asked")
    },
    "fid": "FID",
    "sfid": "sFID",
    "inception_score": "Inception Score",
    "inception_precision": "Inception precision",
    "inception_recall": "Inception recall",
    "fdd": "FDD",
}
_SHARES = ("_precision", "_recall", "_called_as_asked")
_FIELDS = frozenset({"source", "sha256", "classes", "overall", "statistics"})  # some of `Evaluation`


def _check_report(file: Path) -> None:
    try:
        data = read_json(file)
    except (OSError, ValueError) as error:
        raise ResultsError(f"it is not JSON: {error}") from error
    if not isinstance(data, dict) or not _FIELDS.issubset(data):
        raise ResultsError(f"it has not the fields {', '.join(sorted(_FIELDS))}")


REPORT = file_kind("an evaluation's report", _check_report)


def run_evaluation(
    request: EvaluationRequest, real: Path | None, output: Path | None, *, resume: bool, force: bool, as_json: bool
) -> None:
    """Evaluate beside photos, or beside statistics of `real` ones, write the JSON report if asked, and print.

    With `resume` what was seen before is not seen again.
    """
    console = open_console(stderr=True)
    with _kept(output, console, resume=resume, force=force) as kept:
        with show_progress(console, "evaluating") as update:

            def on_work(what: str, done: int, total: int) -> None:
                update(done, total, what)

            if real is None:
                found = evaluate(request, on_work, tell=lambda line: say(console, line, style="yellow"), kept=kept)
                report: Mapping[str, object] = found.to_dict()
                show = partial(_print_evaluation, found)
            else:
                beside = evaluate_against(request, real, on_work, kept=kept)
                report, show = beside, partial(_print_figures, beside["overall"])
        text = json.dumps(report, indent=2) + "\n"
        if output is not None:
            with staged(output, REPORT, force=force) as temporary:
                temporary.write_text(text, encoding="utf-8")
    if as_json:
        echo_lines(text)
    else:
        show()


def _print_evaluation(evaluation: Evaluation) -> None:
    echo(f"judged by the {evaluation.judge}")
    open_console().print(_class_table(evaluation))
    for line in _explain_classes(evaluation):
        echo(line)
    floor = evaluation.overall_floor
    echo(
        f"all classes: distance {evaluation.overall.distance:.1f}, "
        f"real photos among themselves {floor.distance:.1f} at n = {floor.n}"
    )
    ours, real = evaluation.coverage, evaluation.coverage_floor
    echo(
        f"precision {ours.precision:.2f} and recall {ours.recall:.2f}, "
        f"real photos {real.precision:.2f} and {real.recall:.2f} at n = {ours.n}"
    )
    if evaluation.metrics:
        open_console().print(_metric_table(evaluation.metrics))
        for note, names in _group_notes(evaluation.metrics).items():
            echo(f"{', '.join(names)}: {note}")
    for name, one in evaluation.statistics.items():
        echo(
            f"classifier on {name}: entropy {one.entropy:.3f}, variance {one.variance:.3e}, kurtosis {one.kurtosis:.1f}"
        )
    echo("entropy: how unsure the classifier is, 0 is sure; variance and kurtosis rise as it is surer")
    for pair in evaluation.cross_class:
        echo(
            f"tailor {pair.tailor!r} with label {pair.label!r}: {pair.as_tailor_class.share:.0%} are called "
            f"{pair.tailor!r}, {pair.as_label_class.share:.0%} {pair.label!r}"
        )


def _print_figures(overall: Mapping[str, Mapping[str, FigureEntry]]) -> None:
    """By network and name."""
    table = _new_table("all classes, 95 % intervals", "metric", "pictures", "n", "photos")
    for network, figures in overall.items():
        for name, one in figures.items():
            digits = ".2f" if name.endswith(("precision", "recall", "called_as_asked")) else ".4g"
            value, low, high = (f"{one[key]:{digits}}" for key in ("value", "low", "high"))
            table.add_row(
                f"{name.replace('_', ' ')}, {network}",
                f"{value} ({low}, {high})",
                str(one["n"]),
                str(one["n_real"] or ""),
            )
    open_console().print(table)


@contextmanager
def _kept(output: Path | None, console: Console, *, resume: bool, force: bool) -> Iterator[KeptEvaluation | None]:
    """What is seen, kept beside the report until that is written; nothing without one. A stop ends the process."""
    if output is None:
        yield None
        return
    try:
        with kept_beside(output, resume=resume, force=force, tell=lambda line: say(console, line)) as kept:
            yield kept
    except KeyboardInterrupt as error:
        if not seen_folder(output).exists():
            raise
        say(console, f"interrupted; what was seen lies in {seen_folder(output)}, continue with --resume")
        sys.exit(exit_code(error))


def _new_table(title: str, first: str, *numbers: str) -> Table:
    table = Table(title=title)
    table.add_column(first)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _explain_classes(evaluation: Evaluation) -> Iterator[str]:
    """What the columns mean, and why a class has no share."""
    yield (
        "distance: Frechet distance of pictures to held-out photos, n of each; floor: that of training photos to them, "
        "as near as pictures of this data come"
    )
    yield (
        "nearest / held-out: how far pictures lie from the nearest training photo, beside how far held-out photos do; "
        "well below 1 is a copier"
    )
    unknown = [one.name for one in evaluation.classes if one.generated_share is None]
    if unknown:
        yield (
            f"the {evaluation.judge} does not know {', '.join(unknown)}: no share is called as asked there, "
            "distance and recall stand; for the share train a judge of your own classes with kind-train classifier"
        )


def _metric_table(metrics: Mapping[str, Figure]) -> Table:
    table = _new_table("all classes, 95 % intervals", "metric", "generated", "real photos", "n")
    for name, one in metrics.items():
        digits = ".2f" if name.endswith(_SHARES) else ".4g"
        values = (f"{e.value:{digits}} ({e.low:{digits}}, {e.high:{digits}})" for e in (one.generated, one.real))
        table.add_row(LABELS.get(name, name), *values, str(one.n))
    return table


def _group_notes(metrics: Mapping[str, Figure]) -> dict[str, list[str]]:
    notes: dict[str, list[str]] = {}
    for name, one in metrics.items():
        if one.note:
            notes.setdefault(one.note, []).append(LABELS.get(name, name))
    return notes


def _class_table(evaluation: Evaluation) -> Table:
    guidance = f"at guidance {evaluation.guidance_scale:g}" if evaluation.takes_guidance else "with guidance built in"
    title = f"{count_of(evaluation.steps, f'{evaluation.sampler} step')} {guidance}"
    headings = ("as asked", "real photos", "distance", "floor", "n", "nearest / held-out")
    table = _new_table(title, "class", *headings)
    for result in evaluation.classes:
        table.add_row(
            result.name,
            *("unknown" if one is None else f"{one.share:.0%}" for one in (result.generated_share, result.real_share)),
            f"{result.distance.distance:.0f}",
            f"{result.floor.distance:.0f}",
            str(result.floor.n),
            f"{result.copying.ratio:.2f}",
        )
    return table
