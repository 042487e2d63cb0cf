"""report.json and report.html of small models: what they say, and that the page is whole, offline and accessible."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kind_core.checkpoint import Checkpoint
from kind_core.classes import ClassInfo
from kind_core.errors import BundleError
from kind_core.schedule import read_sampler_table
from kind_export.cli import main
from kind_export.compact import CompactModel, StepProgram
from kind_export.programs import latents_shape, make_decode, make_step
from kind_export.report import count_step_flops, write_report
from kind_export.report_words import compare_share, format_bytes, format_count, format_db, format_ms, join_words
from kind_export.rewrites import RewriteOptions, describe_rewrites, rewrite
from kind_export.targets import TargetOptions, load_target
from kind_export.verify import Parity
from kind_runtimes.manifest import FORMAT_VERSION, NOISE_GENERATOR, check_schema, parse_manifest
from kind_runtimes.pictures import make_grid
from kind_runtimes.timing import Timing
from tiny import tiny_config, tiny_model, tiny_model_config

TARGETS = ("coreml", "onnx", "executorch")
LOWERING: dict[str, dict[str, Any]] = {
    "coreml": {"step": {"min_ios": 17}, "decode": {"min_ios": 17}},
    "onnx": {"step": {"opset": 20, "num_ops": 500}, "decode": {"opset": 20, "num_ops": 3}},
    "executorch": {
        "step": {"num_delegates": 1, "portable_ops": {"aten::index_select": 3, "aten::add": 1}},
        "decode": {"num_delegates": 1, "portable_ops": {}},
    },
}
PROFILE = {"delegate_share": 0.971, "run_ms": 4.5, "portable_ms": {"aten::index_select": 0.06}}
HOST = {"system": "Linux-6.1", "processor": "A Processor", "num_cpus": 2}

Report = dict[str, Any]


def _compact(baking: str = "auto", sampler: str = "dpmpp", **changes: Any) -> tuple[Checkpoint, CompactModel]:
    dit = tiny_config(**changes)
    checkpoint = Checkpoint(config=tiny_model_config(dit), model=tiny_model(dit), sha256="0" * 64)
    table = read_sampler_table(checkpoint.config.diffusion, sampler, 4)
    return checkpoint, rewrite(checkpoint.model, table, RewriteOptions(baking=baking))


def _write(
    folder: Path,
    *,
    num_classes: int = 2,
    targets: tuple[str, ...] = TARGETS,
    timed: bool = True,
    preview: bool = True,
    names: tuple[str, ...] = (),
    profile: Report | None = None,
    baking: str = "auto",
    sampler: str = "dpmpp",
    **changes: Any,
) -> tuple[Report, str]:
    """Both reports of a model that was never lowered: sizes, parity and timings are made up."""
    checkpoint, compact = _compact(baking, sampler, num_classes=num_classes, **changes)
    classes = [replace(c, names=(n, *c.names)) for c, n in zip(checkpoint.config.classes, names, strict=False)]
    classes += checkpoint.config.classes[len(classes) :]
    manifest = parse_manifest(json.dumps(_manifest(compact, classes, targets, sampler)), "the manifest")
    if preview:
        pictures = [np.full((8, 8, 3), 8 * i, np.uint8) for i in range(4 * num_classes)]
        make_grid(pictures, 4).save(folder / "preview.png")
    measured = {"kind": "measured", "host": HOST, "timings": {}} | ({"delegation": profile} if profile else {})
    (folder / "measured.json").write_text(json.dumps(measured))
    parities = {name: _parity(name, num_classes) for name in targets}
    timings = {name: _timing(name) for name in targets if timed and name != "coreml"}
    write_report(folder, manifest, checkpoint, compact, parities, timings)
    page = (folder / "report.html").read_text(encoding="utf-8")
    return json.loads((folder / "report.json").read_text(encoding="utf-8")), page


def _manifest(compact: CompactModel, classes: list[ClassInfo], targets: tuple[str, ...], sampler: str) -> Report:
    programs, made = {}, load_target("onnx")
    for lowering in (make_step(compact, made, TargetOptions(precision="fp32")), make_decode(compact, made)):
        assert lowering is not None
        tensors = {"inputs": lowering.inputs, "outputs": lowering.outputs}
        programs[lowering.name] = {key: [_describe_tensor(t) for t in value] for key, value in tensors.items()}
    return {
        "format_version": FORMAT_VERSION, "name": "tiny", "steps": 4, "sampler": sampler, "guidance_scale": 2.0,
        "classes": [{"id": c.id, "names": list(c.names)} for c in classes],
        "initial_noise_scale": 1.5, "latents_shape": list(latents_shape(compact)),
        "noise_generator": NOISE_GENERATOR, "source": {"checkpoint_sha256": "0" * 64},
        "tools": {"torch": "2.13.0"}, "rewrites": describe_rewrites(compact),
        "targets": {
            name: {
                "precision": "fp16" if name == "coreml" else "fp32",
                "programs": {key: spec | {"file": f"{name}/{key}.bin"} for key, spec in programs.items()},
                "lowering": LOWERING[name],
                "parity": _parity(name, len(classes)).to_dict(),
            }
            for name in targets
        },
        "files": {
            f"{name}/{key}.bin": {"sha256": "0" * 64, "size_bytes": 4_321_000 if key == "step" else 1_000}
            for name in targets
            for key in programs
        },
    }  # fmt: skip


def _describe_tensor(spec: Any) -> Report:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}


def _parity(name: str, num_classes: int) -> Parity:
    is_half = name == "coreml"
    return Parity(
        verified_by=f"runner of {name}", threshold_db=35.0 if is_half else 60.0,
        trajectory_psnr_db=65.47 if is_half else 81.2, trajectory_max_error=0.001, step_psnr_db=89.7,
        decode_psnr_db=200.0, num_classes=num_classes, step_indices=(0, 1, 3), guidance_scales=(2.0, 3.5),
    )  # fmt: skip


def _timing(name: str) -> Timing:
    return Timing(
        runtime=name, engine=f"runner of {name}", step_ms=25.561, step_min_ms=18.141, step_max_ms=29.952,
        image_ms=1511.3, load_ms=44.1, repeats=15,
    )  # fmt: skip


VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """What a page holds: its elements in order, its headings and its text; raises on tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == [], f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"an attribute twice: {tag} {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data.replace("\xa0", " ")

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


CASES: dict[str, Report] = {
    "one class": {"num_classes": 1, "targets": ("coreml",)},
    "several classes": {"num_classes": 4},
    "nothing timed": {"timed": False},
    "no preview": {"preview": False},
    "adaLN layers kept": {"baking": "off"},
    "without history": {"sampler": "ddim", "targets": ("onnx",)},
    "dense": {"learngene_rank": None, "tailor_rank": 0},
    "profiled": {"profile": {"executorch": PROFILE}},
    "all factored": {"learngene_rank": 2, "tailor_rank": 1, "num_classes": 1},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_page_is_whole_offline_and_accessible(tmp_path: Path, case: Report) -> None:
    _, text = _write(tmp_path, **case)
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
    for word in ("None", "nan", "{{", "{%"):
        assert word not in page.text


def _require_offline(page: Page, text: str) -> None:
    assert not re.search(r"https?://|url\(|@import", text)
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object", "embed", "form"}
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")


def test_page_says_what_the_report_says(tmp_path: Path) -> None:
    report, text = _write(tmp_path, profile={"executorch": PROFILE})
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


def test_nothing_timed_is_said_and_not_invented(tmp_path: Path) -> None:
    report, text = _write(tmp_path, targets=("coreml",))
    words = Page(text).text
    assert report["targets"]["coreml"]["measured"] is None
    assert "Nothing was timed on this host" in words
    assert not re.search(r"\d ms", words)


def test_preview_is_embedded_and_its_rows_are_named(tmp_path: Path) -> None:
    _, text = _write(tmp_path)
    (image,) = Page(text).attributes("img")
    assert (image["src"] or "").startswith("data:image/png;base64,")
    assert image["alt"] == "Generated pictures, one row a class, from the top: giant panda and lesser panda"
    assert image["style"] == "width: 494px"  # 13 times the 38 pixels of four tiles and their gaps
    assert "Made by the exported programs." in text


def test_preview_of_a_single_target_names_its_runner(tmp_path: Path) -> None:
    _, text = _write(tmp_path, num_classes=1, targets=("onnx",))
    assert "Generated pictures, giant panda. Made by the exported program, run by runner of onnx." in Page(text).text


def test_no_preview_no_picture(tmp_path: Path) -> None:
    _, text = _write(tmp_path, preview=False)
    assert Page(text).attributes("img") == []


def test_class_names_are_escaped(tmp_path: Path) -> None:
    name = """<b>Tom & "Jerry's"</b><script>alert(1)</script>"""
    report, text = _write(tmp_path, names=(name,))
    page = Page(text)  # a tag that slipped through would be an element
    assert report["classes"][0]["names"][0] == name
    assert not page.attributes("script")
    assert not page.attributes("b")
    assert page.text.count(name) >= 3
    assert name in (page.attributes("img")[0]["alt"] or "")


def test_many_classes_shorten_the_title_only(tmp_path: Path) -> None:
    _, text = _write(tmp_path, num_classes=4)
    assert "<h1>giant panda, lesser panda and 2 more classes</h1>" in text
    assert "seashore" in Page(text).text


def test_bars_are_in_proportion(tmp_path: Path) -> None:
    report, text = _write(tmp_path)
    widths = [
        float((a["width"] or "").rstrip("%")) for a in Page(text).attributes("rect") if "bar" in (a["class"] or "")
    ]
    parameters = list(report["model"]["parameters"].values())
    assert widths[:3] == pytest.approx([100 * p / max(parameters) for p in parameters], abs=0.01)
    assert max(widths) == 100


@pytest.mark.parametrize("sampler", ["dpmpp", "ddim"])
def test_loop_calls_step_with_every_input_of_the_manifest(tmp_path: Path, sampler: str) -> None:
    report, text = _write(tmp_path, sampler=sampler)
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
    report, text = _write(tmp_path, targets=("coreml",))
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
    report, text = _write(tmp_path, learngene_rank=rank, num_classes=num_classes, targets=("onnx",))
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
    checkpoint, model = _compact(baking, learngene_rank=ranks[0], tailor_rank=ranks[1], num_classes=num_classes)
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
        lambda report: report.update(format_version=2),
        lambda report: report["targets"].update(tflite=report["targets"]["onnx"]),
        lambda report: report["targets"]["onnx"].update(size_bytes=0),
        lambda report: report["model"].update(flops_per_step_executed=-1),
        lambda report: report["source"].update(checkpoint_sha256="unknown"),
    ],
)
def test_schema_refuses_a_damaged_report(tmp_path: Path, damage: Callable[[Report], object]) -> None:
    report, _ = _write(tmp_path)
    check_schema(report, "report", "report.json")
    damage(report)
    with pytest.raises(BundleError, match=r"report\.json: \$"):
        check_schema(report, "report", "report.json")


def test_text_has_contrast_in_light_dark_and_print() -> None:
    css = (files("kind_export") / "templates" / "report.css").read_text(encoding="utf-8")
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
        (format_ms(0.044), "0.04 ms"),
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
