"""report.json and report.html of small models: what they say, and that the page is whole, offline and accessible."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from made_up_reports import HOST, PLAN, PROFILE, Page, Report, make_compact, write_reports
from torch.utils.flop_counter import FlopCounterMode

from kind_core.errors import BundleError
from kind_export.cli import main
from kind_export.compact.step import StepProgram
from kind_export.report.model import count_step_flops
from kind_export.report.usage import read_snippet
from kind_export.report.words import (
    compare_share,
    describe_load,
    format_bytes,
    format_count,
    format_db,
    format_ms,
    join_words,
)
from kind_export.targets.programs import latents_shape
from kind_runtimes.documents.reports.document import ReportDocument
from kind_runtimes.manifest import check_schema

CASES: dict[str, Report] = {
    "one class": {"num_classes": 1, "targets": ("coreml",)},
    "several classes": {"num_classes": 4},
    "nothing timed": {"timed": False},
    "no preview": {"preview": False},
    "adaLN layers kept": {"baking": "off"},
    "without history": {"sampler": "ddim", "targets": ("onnx",)},
    "dense": {"learngene_rank": None, "tailor_rank": 0},
    "profiled": {"profile": {"executorch": PROFILE}},
    "no device": {"devices": ()},
    "a planned one": {"plan": PLAN},
    "all factored": {"learngene_rank": 2, "tailor_rank": 1, "num_classes": 1},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_page_is_whole_offline_and_accessible(tmp_path: Path, case: Report) -> None:
    _, text = write_reports(tmp_path, **case)
    page = Page(text)
    assert text.lower().count("<!doctype html>") == 1
    _require_offline(page, text)
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    assert page.attributes("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.attributes("meta")
    assert all(a.get("alt") for a in page.attributes("img"))
    assert all(a.get("scope") for a in page.attributes("th"))
    assert all(a.get("aria-label") for a in page.attributes("svg"))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a} <= set(ids)
    assert not re.search(r"\b(None|nan)\b|\{\{|\{%", page.text)  # words: a model may be called nano


def _require_offline(page: Page, text: str) -> None:
    assert not re.search(r"https?://|url\(|@import", text)
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object", "embed", "form"}
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))


def test_page_says_what_the_report_says(tmp_path: Path) -> None:
    report, text = write_reports(tmp_path, profile={"executorch": PROFILE})
    words = Page(text).text
    parameters = report["model"]["parameters"]
    for number in (*parameters.values(), report["model"]["flops_per_step_executed"]):
        assert format_count(number).replace("\xa0", " ") in words
    for expected in (
        "Giant panda and lesser panda".lower(), "4.32 MB", "25.6 ms", "18.1 ms to 30.0 ms", "1.51 s", "44.1 ms",
        "picture 65.5 dB, gate 35 dB", "picture 81.2 dB, gate 60 dB", "decode identical", "runner of onnx",
        "not measured: needs a Mac", "A Processor, 2 CPUs, Linux-6.1", "median of 15 repeats", "not a phone forecast",
        "iOS 17", "aten::index_select \N{MULTIPLICATION SIGN} 3", "97.1 %", "0" * 64, "torch 2.13.0",
    ):  # fmt: skip
        assert expected in words or expected in words.lower(), expected


def test_nothing_timed_is_said_and_not_invented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kind_export.report.page.list_alternatives", list)  # what others published has times
    report, text = write_reports(tmp_path, targets=("coreml",), devices=())  # a forecast has times, and says so
    words = Page(text).text
    assert report["targets"]["coreml"]["measured"] is None
    assert "Nothing was timed on this host" in words
    assert not re.search(r"\d (ms|s|\N{MICRO SIGN}s)\b", words)


def test_preview_is_embedded_and_its_rows_are_named(tmp_path: Path) -> None:
    _, text = write_reports(tmp_path)
    (image,) = Page(text).attributes("img")
    assert (image["src"] or "").startswith("data:image/png;base64,")
    assert image["alt"] == "Generated pictures, one row a class, from the top: giant panda and lesser panda"
    assert image["style"] == "width: 640px"  # four pictures of 192 pixels and their gaps are wider
    assert "Made by the exported programs." in text


def test_preview_of_a_single_target_names_its_runner(tmp_path: Path) -> None:
    _, text = write_reports(tmp_path, num_classes=1, targets=("onnx",))
    assert "Generated pictures, giant panda. Made by the exported program, run by runner of onnx." in Page(text).text


def test_no_preview_no_picture(tmp_path: Path) -> None:
    _, text = write_reports(tmp_path, preview=False)
    assert Page(text).attributes("img") == []


def test_class_names_are_escaped(tmp_path: Path) -> None:
    name = """<b>Tom & "Jerry's"</b><script>alert(1)</script>"""
    report, text = write_reports(tmp_path, names=(name,))
    page = Page(text)  # a tag that slipped through would be an element
    assert report["classes"][0]["names"][0] == name
    assert not page.attributes("script")
    assert not page.attributes("b")
    assert page.text.count(name) >= 3
    assert name in (page.attributes("img")[0]["alt"] or "")


def test_many_classes_shorten_the_title_only(tmp_path: Path) -> None:
    _, text = write_reports(tmp_path, num_classes=4)
    assert "<h1>giant panda, lesser panda and 2 more classes</h1>" in text
    assert "seashore" in Page(text).text


def test_bars_are_in_proportion(tmp_path: Path) -> None:
    report, text = write_reports(tmp_path)
    bars = [a["width"] or "" for a in Page(text).attributes("rect") if "bar" in (a["class"] or "")]
    widths = [float(width.rstrip("%")) for width in bars if width.endswith("%")]  # columns are in pixels
    parameters = list(report["model"]["parameters"].values())
    assert widths[:3] == pytest.approx([100 * p / max(parameters) for p in parameters], abs=0.01)
    assert max(widths) == 100


@pytest.mark.parametrize("sampler", ["dpmpp", "ddim"])
def test_loop_calls_step_with_every_input_of_the_manifest(tmp_path: Path, sampler: str) -> None:
    report, text = write_reports(tmp_path, sampler=sampler)
    programs = report["targets"]["onnx"]["programs"]
    calls: list[Report] = []

    def step(**inputs: Any) -> Report:
        calls.append(inputs)
        return {spec["name"]: f"{spec['name']} {len(calls)}" for spec in programs["step"]["outputs"]}

    scope: Report = {
        "seed": 7, "step": step, "zeros": lambda shape: np.zeros(shape),
        "start_noise": lambda seed, shape: np.ones(shape), "decode": lambda latents: {"image": latents},
    }  # fmt: skip
    exec(_code(text, "The loop in pseudocode"), scope)
    assert {frozenset(inputs) for inputs in calls} == {frozenset(spec["name"] for spec in programs["step"]["inputs"])}
    assert [inputs["step_index"] for inputs in calls] == [0, 1, 2, 3]
    assert calls[0]["latents"] == pytest.approx(np.full((1, 3, 8, 8), 1.5))
    assert scope["image"] == "next_latents 4"


def test_command_is_one_that_the_command_line_takes(tmp_path: Path) -> None:
    report, text = write_reports(tmp_path, targets=("coreml",))
    program, *arguments = shlex.split(_code(text, "Export command").replace("\\\n", ""))
    given = main.make_context(program, arguments).params
    assert given["classes"] == ("n02510455,n02509815",)
    assert given["targets"] == ("coreml",)
    assert (given["sampler"], given["steps"], given["guidance"]) == ("dpmpp", 4, 2.0)
    assert (given["precision"], given["min_ios"]) == ("fp16", 17)
    assert (given["baking"] == "on") == (report["rewrites"]["conditioning"] == "modulation table")
    assert given["output"] == Path("tiny.kind")


def _code(page: str, label: str) -> str:
    match = re.search(rf'<pre[^>]*aria-label="{label}"[^>]*>(.*?)</pre>', page, re.DOTALL)
    assert match
    return match[1].replace("&#34;", '"').replace("&#39;", "'")


@pytest.mark.parametrize("num_classes", [1, 2])
@pytest.mark.parametrize("rank", [2, 7, 8, 13, 16, 23, 25, 30])
def test_reason_of_every_form_agrees_with_the_form(tmp_path: Path, rank: int, num_classes: int) -> None:
    report, text = write_reports(tmp_path, learngene_rank=rank, num_classes=num_classes, targets=("onnx",))
    for name, matrix in report["model"]["matrices_of_a_block"].items():
        costs = matrix["products_per_token"]
        assert matrix["form"] == report["rewrites"]["matrices_of_a_block"][name]["form"]
        assert matrix["form"] == ("factored" if costs["factored"] < costs["dense"] else "dense")
        assert f"{costs['factored']:,}" in text


@pytest.mark.parametrize("baking", ["on", "off"])
@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("ranks", [(8, 8), (24, 8), (None, 0)])
def test_step_flops_are_those_that_torch_counts(ranks: tuple[int | None, int], num_classes: int, baking: str) -> None:
    # multiples of 8, which padding leaves alone
    checkpoint, model = make_compact(baking, learngene_rank=ranks[0], tailor_rank=ranks[1], num_classes=num_classes)
    assert checkpoint.config.dit.num_classes == num_classes
    latents, index = torch.zeros(latents_shape(model)), torch.zeros(1, dtype=torch.int32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        StepProgram(model)(latents, latents, index, index, torch.ones(1))
    assert count_step_flops(model) == counter.get_total_flops()


def _drop(*path: str) -> Callable[[Report], object]:
    def drop(report: Report) -> object:
        for key in path[:-1]:
            report = report[key]
        return report.pop(path[-1])

    return drop


@pytest.mark.parametrize(
    "damage",
    [
        _drop("sampling"),
        _drop("model", "parameters", "dense_twin"),
        _drop("model", "flops_per_pass", "paper"),
        _drop("targets", "onnx", "parity", "threshold_db"),
        _drop("targets", "onnx", "programs", "step"),
        _drop("targets", "onnx", "measured", "step_ms"),
        lambda report: report.update(format_version=1),
        _drop("work"),
        lambda report: report["forecasts"][0].update(kind="measured"),
        lambda report: report["targets"].update(tflite=report["targets"]["onnx"]),
        lambda report: report["targets"]["onnx"].update(size_bytes=0),
        lambda report: report["model"].update(flops_per_step_executed=-1),
        lambda report: report["source"].update(checkpoint_sha256="unknown"),
    ],
)
def test_schema_refuses_a_damaged_report(tmp_path: Path, damage: Callable[[Report], object]) -> None:
    report, _ = write_reports(tmp_path)
    check_schema(report, "report", "report.json")
    damage(report)
    with pytest.raises(BundleError, match=r"report\.json: \$"):
        check_schema(report, "report", "report.json")


def test_text_has_contrast_in_light_dark_and_print() -> None:
    css = (files("kind_core") / "templates" / "page.css").read_text(encoding="utf-8")
    schemes = [
        dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    ]
    assert len(schemes) == 3
    for colours in schemes:
        for ink in ("text", "muted", "accent"):
            assert min(_contrast(colours[ink], colours[ground]) for ground in ("page", "card", "code")) >= 4.5
        assert min(_contrast(colours[bar], colours["card"]) for bar in ("bar", "accent")) >= 3


def _contrast(first: str, second: str) -> float:
    """WCAG 2 contrast of two colours."""
    dark, light = sorted((_luminance(first), _luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (format_bytes(278), "278 B"),
        (format_bytes(8_272_718), "8.27 MB"),
        (format_bytes(999_499), "999 kB"),
        (format_bytes(999_500), "1.00 MB"),
        (format_bytes(99_960_000), "100 MB"),
        (format_count(42), "42"),
        (format_count(119_200_000_000), "119 G"),
        (format_ms(0.044), "44 \N{MICRO SIGN}s"),
        (format_ms(0.44), "0.44 ms"),
        (format_ms(999.9), "999.9 ms"),
        (format_ms(12_345), "12.35 s"),
        (format_db(35.0), "35 dB"),
        (format_db(65.47), "65.5 dB"),
        (format_db(200.0), "identical"),
        (compare_share(71, 100), "29 % fewer"),
        (compare_share(150, 100), "50 % more"),
        (join_words(["a"]), "a"),
        (join_words(["a", "b"]), "a and b"),
        (join_words(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_figures_as_words(given: str, expected: str) -> None:
    assert given.replace("\xa0", " ") == expected


@pytest.mark.parametrize(
    ("load", "num_cpus", "expected"),
    [(5.4, 2, "load 5.4 on 2 CPUs"), (1.4, 1, "load 1.4 on 1 CPU"), (2.0, 2, ""), (None, 2, ""), (3.0, None, "")],
)
def test_a_busy_host_is_told(load: float | None, num_cpus: int | None, expected: str) -> None:
    assert describe_load({"load_before": load, "num_cpus": num_cpus}) == expected


def test_a_busy_host_publishes_no_time_as_a_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for load, label in ((0.5, "One step here"), (5.4, "One step here, busy")):
        monkeypatch.setitem(HOST, "load_before", load)
        folder = tmp_path / label
        folder.mkdir()
        report, text = write_reports(folder)
        words = " ".join(Page(text).text.split())
        assert report["host"]["load_before"] == load
        assert f"<dt>{label}</dt>" in text
        assert ("The host was under load 5.4 on 2 CPUs" in words) == (load > 2)
        assert ("these times are what a busy host took" in words) == (load > 2)
        for target in report["targets"].values():
            for name in ("step_ms", "image_ms") if target["measured"] else ():
                programs, _, _ = text.partition('<h2 id="use">')
                assert (f">{format_ms(target['measured'][name])}<" in programs) == (load < 2), name


def test_the_page_leads_to_every_section(tmp_path: Path) -> None:
    _, text = write_reports(tmp_path)
    contents = text.partition('<nav aria-label="Contents">')[2].partition("</nav>")[0]
    anchors = re.findall(r'href="#([a-z]+)"', contents)
    assert anchors == re.findall(r'<h2 id="([a-z]+)">', text)
    assert anchors.index("use") == 1  # near the top


@pytest.mark.parametrize(("kit", "expected"), [("ios", "import KindRuntime"), ("android", "KindBundle.fromAssets")])
def test_the_page_shows_the_code_of_the_kit_that_was_asked_for(tmp_path: Path, kit: str, expected: str) -> None:
    _, without = write_reports(tmp_path)
    assert expected not in without
    (tmp_path / kit).mkdir()
    (tmp_path / kit / "README.md").write_text("")
    _, text = write_reports(tmp_path)
    assert expected in Page(text).text
    assert f"{kit}/README.md" in text


@pytest.mark.parametrize(
    ("kit", "of_class", "of_base"),
    [
        ("ios", 'try generator.generate(class: "a \\"$1\\" mug", seed: 7)', "(pack: Pack(contentsOf: file), seed: 7)"),
        ("android", 'generator.generate("a \\"\\$1\\" mug", seed = 7u)', "(Pack.read(file), seed = 7u)"),
    ],
)
def test_the_code_of_a_kit_draws_the_first_class_of_the_bundle(
    tmp_path: Path, kit: str, of_class: str, of_base: str
) -> None:
    (tmp_path / kit).mkdir()
    (tmp_path / kit / "README.md").write_text("")
    _, text = write_reports(tmp_path, names=('a "$1" mug',))
    assert of_class in Page(text).text
    named = {"classes": [{"id": "n1", "names": ["crane"]}, {"id": "n2", "names": ["crane"]}], "packs": []}
    assert '"n1", seed' in read_snippet(kit, cast(ReportDocument, named))["code"]
    base = read_snippet(kit, cast(ReportDocument, named | {"packs": [{"id": "n1"}]}))["code"]
    assert of_base in base
