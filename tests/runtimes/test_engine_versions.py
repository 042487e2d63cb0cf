"""One table of engine versions: gates, kits, page and manifest take what stands there."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from kind_runtimes.engine_rows import ENGINES
from kind_runtimes.engines.versions import VERSIONS
from kind_runtimes.kits import kit_folder

ROOT = Path(__file__).parents[2]
ONNX = VERSIONS["onnx"]


def number(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def test_every_engine_has_its_versions() -> None:
    assert list(VERSIONS) == list(ENGINES)
    for name, one in VERSIONS.items():
        assert one.package == ENGINES[name].package
        assert all(number(one.oldest) <= number(kit) <= number(one.gate) for kit in one.kits.values()), name


@pytest.mark.parametrize("name", VERSIONS)
def test_the_gates_run_the_version_that_is_installed(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    package, extra = VERSIONS[name].package, ENGINES[name].extra
    wanted = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    pins = [one for one in wanted if one.replace("-", "_").startswith(f"{package}==")]
    assert [re.split(r"[=;\s]+", one)[1] for one in pins] == [VERSIONS[name].gate]
    # coreml has no wheel for Linux on ARM
    if name != "coreml" and (extra is None or find_spec(package) is not None):
        assert version(VERSIONS[name].package) == VERSIONS[name].gate


def test_the_android_kit_takes_the_version_of_the_table() -> None:
    text = (kit_folder("android") / "kind-runtime" / "build.gradle.kts").read_text()
    assert re.findall(r"onnxruntime-android:([\d.]+)", text) == [ONNX.kits["android"]]


@pytest.mark.parametrize("file", ["runtimes/js/package.json", "samples/web/package.json"])
def test_javascript_takes_the_version_of_the_table(file: str) -> None:
    package = json.loads((ROOT / file).read_text())
    found = {
        (name.removeprefix("onnxruntime-"), wanted)
        for kind in ("dependencies", "devDependencies", "peerDependencies")
        for name, wanted in package.get(kind, {}).items()
        if name.startswith("onnxruntime-") and name != "onnxruntime-common"
    }
    assert found
    assert found <= {(name, ONNX.kits[name]) for name in ("web", "node")}


def test_the_page_that_ships_has_the_version_of_the_table() -> None:
    scripts = (ROOT / "runtimes" / "kind_runtimes" / "web" / "assets").glob("*.js")
    assert any(f'"{ONNX.kits["web"]}"' in script.read_text() for script in scripts)


def test_r8_keeps_what_native_code_finds_by_name() -> None:
    library = kit_folder("android") / "kind-runtime"
    rules = (library / "consumer-rules.pro").read_text()
    assert "-keep class ai.onnxruntime.** { *; }" in rules
    assert 'consumerProguardFiles("consumer-rules.pro")' in (library / "build.gradle.kts").read_text()
    assert "isMinifyEnabled = true" in (ROOT / "samples" / "android" / "app" / "build.gradle.kts").read_text()


def test_the_sample_app_takes_every_version_from_its_catalogue() -> None:
    android = ROOT / "samples" / "android"
    catalogue = tomllib.loads((android / "gradle" / "libs.versions.toml").read_text())
    built = "".join((android / part / "build.gradle.kts").read_text() for part in (".", "app"))
    names = {name.replace("-", ".") for kind in ("libraries", "plugins") for name in catalogue[kind]}
    used = {name.removeprefix("plugins.") for name in re.findall(r"libs\.((?:[a-z0-9]+\.?)+)", built)}
    assert used == names
    assert not re.search(r'"\d+\.\d+\.\d+"', built)
    for part in ("app", "../../runtimes/kind_runtimes/kits/android/kind-runtime"):
        assert "compileSdk = 36" in (android / part / "build.gradle.kts").read_text()


def test_the_swift_package_at_the_root_is_the_kits() -> None:
    root, kit = (ROOT / "Package.swift").read_text(), kit_folder("ios") / "KindRuntime"
    folder = kit.relative_to(ROOT).as_posix()
    own = (kit / "Package.swift").read_text()
    assert re.findall(r"platforms: .*", root) == re.findall(r"platforms: .*", own)
    assert re.findall(r'name: "(\w+)"', root) == re.findall(r'name: "(\w+)"', own)
    assert re.findall(r"products: \[.*?\]", root, re.S) == re.findall(r"products: \[.*?\]", own, re.S)
    paths = re.findall(r'path: "(.*)"', root)
    assert paths == [
        f"{folder}/{part}" for part in ("Sources/KindRuntime", "Sources/KindDraw", "Tests/KindRuntimeTests")
    ]
    assert all((ROOT / path).is_dir() for path in paths)
