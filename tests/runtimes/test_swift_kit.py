"""The Swift kit: what it computes is what Python computes, and all of it compiles in Swift 6 without a warning.

What stands beside Core ML is compiled and tested with stand-ins for Apple's frameworks (`apple_stub`), so a phone is
needed for Core ML itself alone. A Swift toolchain on PATH: swift.org's, or Debian 13's package `swiftlang`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kind_bench.results.results import read_results
from kind_runtimes.kits import kit_folder
from snippets import ROOT, Snippet, find_blocks, find_spans

_PACKAGE = kit_folder("ios") / "KindRuntime"
_SAMPLE = ROOT / "samples" / "ios" / "KindSample.swiftpm"
_STUB = Path(__file__).parent / "apple_stub"
_OURS = r"^/.*/(?:Sources/(?:KindRuntime|KindDraw|KindSample|Snippets)|Tests)/.*: (?:warning|error): .*$"
# What an example takes from the lines around it.
_FRAME = """
@MainActor
final class {name} {{
    var image: CGImage?

    func run(_ generator: KindGenerator, bundle: KindBundle, file: URL) async throws {{
{code}
    }}
}}
"""
_IMPORTS = "import CoreGraphics\nimport Foundation\nimport KindRuntime\n"


@pytest.fixture(name="swift")
def find_swift() -> str:
    swift = shutil.which("swift")
    # OpenStack's client has the same name
    if swift is None or "Swift version" not in _run([swift, "--version"]):
        pytest.skip("no Swift toolchain on PATH")
    return swift


@pytest.mark.slow
def test_the_package_at_the_root_passes_its_tests(swift: str, tmp_path: Path) -> None:
    output = _run([swift, "test", "--package-path", ROOT, "--scratch-path", tmp_path / "build"])
    assert re.search(r"Executed [1-9]\d* tests, with 0 failures", output), output


@pytest.mark.slow
def test_the_package_of_a_bundle_is_that_of_the_root(swift: str, tmp_path: Path) -> None:
    root, kit = (_describe(swift, package, tmp_path) for package in (ROOT, _PACKAGE))
    assert root == kit
    assert {target["name"] for target in kit["targets"]} == {"KindRuntime", "KindDraw", "KindRuntimeTests"}


def _describe(swift: str, package: Path, tmp_path: Path) -> dict[str, Any]:
    command = [swift, "package", "--package-path", package, "--scratch-path", tmp_path / "build"]
    text = _run([*command, "describe", "--type", "json"])
    said: dict[str, Any] = json.loads(text[text.index("{\n") :])
    same = ("name", "type", "sources", "product_dependencies", "target_dependencies", "product_memberships")
    targets = [{key: target[key] for key in same if key in target} for target in said["targets"]]
    named = ("name", "platforms", "products", "tools_version")
    return {key: said[key] for key in named} | {"targets": sorted(targets, key=lambda target: str(target["name"]))}


_BESIDE_STANDINS = pytest.mark.skipif(
    sys.platform == "darwin", reason="Apple's own frameworks are here, under the names of the stand-ins"
)


@pytest.mark.slow
@_BESIDE_STANDINS
def test_all_of_it_is_swift_6_and_right_beside_core_ml(swift: str, tmp_path: Path) -> None:
    package, results = tmp_path / "package", tmp_path / "results.json"
    _lay_package(package)
    command = [swift, "test", "--package-path", package, "--scratch-path", tmp_path / "build"]
    output = _run(command, {"KIND_RESULTS": str(results)})
    assert not re.findall(_OURS, output, re.M), output
    assert re.search(r"Executed [1-9]\d* tests, with 3 tests skipped and 0 failures", output), output
    measured = read_results(results)
    assert [unit["is_taken"] for unit in measured.units] == [False, True, True]
    assert [case.runtime for case in measured.cases] == ["coreml", "coreml"]


def _lay_package(package: Path) -> None:
    """The stand-ins with the kit, the sample app and the documents' examples between them."""
    shutil.copytree(_STUB, package)
    shutil.copytree(_PACKAGE / "Sources", package / "Sources", dirs_exist_ok=True)
    shutil.copytree(_PACKAGE / "Tests", package / "Tests", dirs_exist_ok=True)
    sample = package / "Sources" / "KindSample"
    shutil.copytree(_SAMPLE / "Sources", sample, ignore=shutil.ignore_patterns("model.kind"))
    (sample / "model.kind").mkdir()
    (sample / "model.kind" / "manifest.json").write_text("{}")
    (package / "Sources" / "Snippets").mkdir()
    for snippet in list_snippets():
        (package / "Sources" / "Snippets" / f"{snippet.name}.swift").write_text(_frame(snippet))


def list_snippets() -> list[Snippet]:
    spans = find_spans("runtimes/kind_runtimes/kits/ios/", r"(try |try await )?(generator\.|KindGenerator\().*")
    examples = [Snippet(one.page, one.line, f"_ = {_complete(one.code)}") for one in spans]
    return [*find_blocks("swift"), *examples]


def _complete(code: str) -> str:
    """An expression with the words before it that a sentence may leave out."""
    return f"try await {code}" if code.startswith("KindGenerator") else code


def _frame(snippet: Snippet) -> str:
    lines = [line for line in snippet.code.splitlines() if not line.startswith("import ")]
    used = [f"_ = {name}" for name in re.findall(r"^let (\w+)", snippet.code, re.M)]
    code = "\n".join(f"        {line}" for line in [*lines, *used])
    return _IMPORTS + _FRAME.format(name=f"Example_{snippet.name}", code=code)


def test_the_examples_are_found() -> None:
    pages = {snippet.page for snippet in list_snippets()}
    assert pages >= {f"docs/guides/{name}.md" for name in ("iphone", "compute-units", "tasks")}
    assert len(list_snippets()) >= 10


@pytest.mark.slow
def test_the_sources_are_formatted(swift: str) -> None:
    if "Swift version 6.0." not in _run([swift, "--version"]):
        pytest.skip("formatted by Swift 6.0, from which other versions differ")
    _run([swift, "format", "lint", "--recursive", "--strict", _PACKAGE, _SAMPLE, ROOT / "Package.swift"])


def _run(command: list[str | Path], variables: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=550,
        env=os.environ | (variables or {}), cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout
