"""What holds the house together: one place for one thing, counted in the code itself."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from kind_core.config import DiffusionConfig
from kind_core.config.sampling import allowed_samplers
from kind_core.errors import BundleError, ConfigError
from kind_core.precisions import PRECISIONS, list_precisions
from kind_core.samplers import SAMPLERS, list_samplers
from kind_core.schedule import choose_sampling, make_scheduler
from kind_export.precision import count_bytes
from kind_export.request import ExportRequest
from kind_export.rewrites.factor_modulations import table_error_db
from kind_runtimes.documents.published import make_schemas, normalise
from kind_runtimes.engine_rows import ENGINES
from kind_runtimes.engines.runtime import choose_runtime, is_installed
from kind_runtimes.manifest import load_schema, parse_manifest
from small_bundles import manifest_data

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "kind_core", "export/kind_export", "runtimes/kind_runtimes", "runtimes/kind_bench", "train/kind_train",
    "samples/kind_samples",
)  # fmt: skip


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the packages by its path."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def declares(tree: ast.Module, name: str) -> bool:
    """Whether a module has a parameter or a field called `name`."""
    names = [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    names += [node.target.id for node in ast.walk(tree) if isinstance(node, ast.AnnAssign | ast.NamedExpr)
              if isinstance(node.target, ast.Name)]  # fmt: skip
    return name in names


def test_the_guidance_interval_travels_in_one_object() -> None:
    # what a document calls it is no parameter
    code = {file: tree for file, tree in modules().items() if "/documents/" not in file}
    files = [file for file, tree in code.items() if declares(tree, "guidance_interval")]
    assert len(files) <= 5, files


def test_one_line_adds_a_sampler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(SAMPLERS, "third", replace(SAMPLERS["ddim"], name="third", scheduler="DDPMScheduler"))
    assert list_samplers() == "ddim, dpmpp, third or, for flow models, dpmpp1, euler"
    request = ExportRequest(classes=("panda",), targets=("onnx",), checkpoint=tmp_path, sampler="third", steps=4)
    assert allowed_samplers(DiffusionConfig()) == ("ddim", "dpmpp", "third")
    sampling = choose_sampling(DiffusionConfig(), sampler=request.sampler, steps=request.steps)
    assert (sampling.sampler, sampling.guided) == ("third", (True,) * 4)
    assert type(make_scheduler(DiffusionConfig(), "third", 4)).__name__ == "DDPMScheduler"
    manifest = parse_manifest(json.dumps(manifest_data(["onnx"], {}, sampler="third")), "manifest.json")
    assert manifest.sampling.sampler == "third"
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="sampler is 'third', expected one of ddim, dpmpp, dpmpp1, euler"):
        replace(request)


@pytest.mark.parametrize(("words", "most"), [("# fmt: skip", 6), ("# type: ignore", 22)])
def test_few_lines_ask_a_tool_to_look_away(words: str, most: int) -> None:
    count = sum((ROOT / file).read_text(encoding="utf-8").count(words) for file in modules())
    assert count <= most


def imported_names(tree: ast.Module) -> set[str]:
    """`module.name` of everything that a module imports by name."""
    froms = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return {f"{node.module}.{alias.name}" for node in froms for alias in node.names}


def test_programs_are_run_and_verified_without_a_manifest() -> None:
    places = ("export/kind_export/verify/", "export/kind_export/planning/", "runtimes/kind_runtimes/loop.py")
    manifest = {"kind_runtimes.manifest.Manifest", "kind_runtimes.manifest.parse_manifest"}
    found = [file for file, tree in modules().items() if file.startswith(places) and imported_names(tree) & manifest]
    assert found == []


def test_no_module_is_longer_than_300_lines() -> None:
    lengths = {file: (ROOT / file).read_text(encoding="utf-8").count("\n") for file in modules()}
    assert {file: lines for file, lines in lengths.items() if lines > 300} == {}


def test_documents_are_typed() -> None:
    """What is still any object of any values is other people's: of engines, files that are not ours, options."""
    words = ("dict[str, Any]", "Mapping[str, Any]")
    count = sum((ROOT / file).read_text(encoding="utf-8").count(word) for file in modules() for word in words)
    assert count <= 21


def is_there(name: str) -> bool:
    """Whether a dotted name leads to a module, or from a folder or module to something that is spelled there."""
    first, *rest = name.split(".")
    place = next(ROOT / package for package in PACKAGES if package.endswith(first))
    for part in rest:
        inner = place / part
        if not inner.is_dir():
            file = inner.with_suffix(".py") if inner.with_suffix(".py").is_file() else place / "__init__.py"
            return file.stem == part or re.search(rf"\b{part}\b", file.read_text(encoding="utf-8")) is not None
        place = inner
    return True


def test_what_texts_call_a_module_is_one() -> None:
    texts = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *map(ROOT.joinpath, modules()),
    ]
    named = re.compile(r"`((?:kind_core|kind_export|kind_runtimes|kind_bench|kind_train|kind_samples)(?:\.\w+)+)")
    found = {
        (str(text.relative_to(ROOT)), name)
        for text in texts
        for name in named.findall(text.read_text(encoding="utf-8"))
    }
    assert len(found) > 20
    assert [one for one in sorted(found) if not is_there(one[1])] == []


def test_the_guide_to_the_layout_names_files_that_are_there() -> None:
    """From the root, from the folder of a package, or from within one."""
    places = [ROOT, *{(ROOT / package).parent for package in PACKAGES}, *map(ROOT.joinpath, PACKAGES)]
    places += [ROOT / "train/kind_train" / inner for inner in ("methods", "benchmark")]
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = {word for word in re.findall(r"`([\w.*-]+(?:/[\w.*-]*)*)`", text) if "/" in word or word.endswith(".py")}
    assert len(paths) > 50
    assert [path for path in sorted(paths) if not any(list(place.glob(path.rstrip("/"))) for place in places)] == []


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_no_folder_is_a_heap() -> None:
    folders: dict[str, int] = {}
    for file in modules():
        folder = str(Path(file).parent)
        folders[folder] = folders.get(folder, 0) + 1
    assert {name: count for name, count in folders.items() if count > 20 + 4 * (name == "kind_core")} == {}


def test_one_line_adds_a_precision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    added = replace(PRECISIONS["int8"], name="int6", weight_bits=6, trajectory_db=27.5)
    monkeypatch.setitem(PRECISIONS, "int6", added)
    assert "int8, int4 or int6; for Core ML" in list_precisions()
    request = ExportRequest(classes=("panda",), targets=("onnx",), checkpoint=tmp_path, precision="int6")
    assert request.precision == "int6"
    load_schema.cache_clear()
    data = manifest_data(["onnx"], {})
    data["targets"]["onnx"]["precision"] = "int6"
    assert parse_manifest(json.dumps(data), "manifest.json").targets["onnx"].precision == "int6"
    assert table_error_db("int6") == added.table_error_db
    layer = torch.nn.Sequential(torch.nn.Linear(64, 64, bias=False))
    assert count_bytes(layer, "int6") == 64 * 64 * 6 // 8
    monkeypatch.undo()
    load_schema.cache_clear()
    with pytest.raises(BundleError, match="int6"):
        parse_manifest(json.dumps(data), "manifest.json")


@pytest.mark.parametrize("name", ["manifest", "report", "results", "device"])
def test_published_schemas_are_those_of_the_types(name: str) -> None:
    """And name what the tables do. Where this fails: python -m kind_runtimes.documents.published."""
    published = json.loads((ROOT / f"runtimes/kind_runtimes/schemas/{name}.schema.json").read_text(encoding="utf-8"))
    assert normalise(published) == normalise(make_schemas()[name])
    assert published == load_schema(name)


def test_gates_and_bits_of_precisions_stand_in_one_table() -> None:
    names = set(PRECISIONS)
    tables = [
        file
        for file, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        and len(names & {key.value for key in node.keys if isinstance(key, ast.Constant)}) > 2
    ]
    assert [file for file in tables if not file.startswith("runtimes/kind_runtimes/coreml/")] == []


def compared_names(tree: ast.Module) -> list[int]:
    """Lines that compare something with the name of a target or an engine."""
    found = []
    for node in (one for one in ast.walk(tree) if isinstance(one, ast.Compare)):
        sides = [side for one in (node.left, *node.comparators) for side in getattr(one, "elts", [one])]
        constants = {side.value for side in sides if isinstance(side, ast.Constant)}
        constants |= {"diffusers" for side in sides if isinstance(side, ast.Name) and side.id == "PIPELINE_TARGET"}
        if constants & set(ENGINES):
            found.append(node.lineno)
    return found


def test_what_is_known_of_a_target_stands_in_its_row() -> None:
    found = {file: lines for file, tree in modules().items() if (lines := compared_names(tree))}
    assert sum(map(len, found.values())) <= 0, found


def test_one_line_adds_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = replace(ENGINES["onnx"], name="toy", title="Toy", suffix=".toy", package="a_package_that_is_not_there")
    monkeypatch.setitem(ENGINES, "toy", toy)
    load_schema.cache_clear()
    manifest = parse_manifest(json.dumps(manifest_data(["onnx"], {}, targets=_only("toy"))), "manifest.json")
    assert choose_runtime(manifest.targets) == "toy"
    assert not is_installed("toy")
    monkeypatch.undo()
    load_schema.cache_clear()
    with pytest.raises(BundleError, match="toy"):
        parse_manifest(json.dumps(dict(manifest.data)), "manifest.json")


def _only(name: str) -> dict[str, object]:
    """The targets of a manifest: one, whatever it is."""
    return {name: manifest_data(["onnx"], {})["targets"]["onnx"]}
