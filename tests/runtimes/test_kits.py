"""The kits do as Python does: their vectors are what Python draws now, and their own tests pass where a compiler is.

Kotlin: `npm install kotlin-compiler`, Debian's `libandroid-json-java` and `junit4`. Swift: `test_swift_kit.py`.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from kind_bench.results.results import read_results
from kind_core.errors import BundleError
from kind_runtimes.kits import KITS, kit_folder
from kind_runtimes.packs import read_pack
from mobile_vectors import NAMES, PLACES, format_names, format_vectors
from snippets import ROOT, Snippet, find_blocks, find_spans

_SOURCES = kit_folder("android") / "kind-runtime" / "src"
# Android's, onnxruntime's and LiteRT's classes: those that the kit calls have stand-ins
_STUBS = (Path(__file__).parent / "android_stub", Path(__file__).parent / "litert_stub")
_JARS = Path("/usr/share/java")
_SAMPLE = ROOT / "samples" / "android" / "app" / "src" / "main" / "kotlin"
# What an example takes from the lines around it.
_FRAME = """package examples

import android.content.Context
import android.graphics.Bitmap
import android.util.Log
import com.google.ai.edge.litert.Accelerator
import dev.kind.runtime.*
import java.io.File

class {name}(val context: Context, val bundle: KindBundle, val generator: KindGenerator, val file: File) {{
    var bitmap: Bitmap? = null

    suspend fun run() {{
{code}
    }}
}}
"""


@pytest.mark.parametrize("kit", KITS)
def test_vectors_are_what_python_draws(kit: str) -> None:
    text = (kit_folder(kit) / PLACES[kit]).read_text(encoding="utf-8")
    assert text == format_vectors(), "run: python tests/mobile_vectors.py"


def test_names_are_those_of_python_in_javascript_too() -> None:
    assert NAMES.read_text(encoding="utf-8") == format_names(), "run: python tests/mobile_vectors.py"


def test_packs_are_read_or_refused(tmp_path: Path) -> None:
    """What the kits' own tests ask of their readers, asked of Python's."""
    file = tmp_path / "a.pack"
    for case in json.loads(format_names())["packs"]:
        file.write_bytes(base64.b64decode(case["base64"]))
        if case["is_refused"]:
            with pytest.raises(BundleError) as caught:
                read_pack(file)
            assert case["says"] in caught.value.message, case["what"]
            assert "\n" not in caught.value.message
        else:
            assert read_pack(file).info.name == "lemon"


@dataclass(frozen=True)
class Kotlin:
    """The compiler, and the libraries of the kit's sources and tests."""

    compiler: str
    libraries: str

    def compile(self, sources: Sequence[Path], path: str, output: Path) -> str:
        """Compile sources, every warning an error; the class path of what came of it."""
        _run(["bash", self.compiler, "-Werror", "-jvm-target", "17", "-cp", path, "-d", output, *sources])
        return f"{output}{os.pathsep}{path}"


@pytest.fixture(name="kotlin", scope="module")
def find_kotlin() -> Kotlin:
    kotlinc = os.environ.get("KOTLINC") or shutil.which("kotlinc")
    jars = [_JARS / name for name in ("com.android.json.jar", "junit4.jar", "hamcrest-core.jar")]
    missing = [str(jar) for jar in jars if not jar.exists()]
    if kotlinc is None or missing:
        pytest.skip(f"no Kotlin compiler on PATH or in KOTLINC, or no {missing}")
    library = Path(kotlinc).resolve().parents[1] / "lib"
    names = ("kotlinx-coroutines-core-jvm", "kotlin-test", "kotlin-test-junit", "kotlin-stdlib")
    return Kotlin(kotlinc, os.pathsep.join(map(str, [*jars, *(library / f"{name}.jar" for name in names)])))


@pytest.fixture(name="kit_classes", scope="module")
def compile_kit(kotlin: Kotlin, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The class path with the kit, its tests and the stand-ins."""
    folder = tmp_path_factory.mktemp("kit")
    stubs = [file for stub in _STUBS for file in sorted(stub.rglob("*.java"))]
    _run(["javac", "-Xlint:all,-serial", "-Werror", "-d", folder / "java", *stubs])
    sources = [*_SOURCES.rglob("*.kt"), *(file for stub in _STUBS for file in stub.glob("*.kt"))]
    return kotlin.compile(sorted(sources), f"{folder / 'java'}{os.pathsep}{kotlin.libraries}", folder / "classes")


@pytest.mark.slow
def test_kotlin_kit_passes_its_tests(kit_classes: str, tmp_path: Path) -> None:
    everything = os.pathsep.join([str(_SOURCES / "test" / "resources"), kit_classes])
    names = ("VectorsTest", "KindBundleTest", "LiteRtProgramsTest", "LadderTest", "BenchmarkTest", "AndroidTest")
    classes = [f"dev.kind.runtime.{name}" for name in names]
    results = tmp_path / "results.json"
    command: list[str | Path] = ["java", "-cp", everything, "org.junit.runner.JUnitCore", *classes]
    output = _run(command, {"KIND_RESULTS": str(results)})
    assert re.search(r"OK \(\d+ tests\)", output), output
    measured = read_results(results)
    assert [unit["is_taken"] for unit in measured.units] == [False, True]
    assert [case.threads for case in measured.cases] == [1, 2]


@pytest.mark.slow
def test_the_android_sample_and_the_examples_are_kotlin_of_the_kit(
    kotlin: Kotlin, kit_classes: str, tmp_path: Path
) -> None:
    """In a module of their own, where nothing internal of the kit is seen."""
    for snippet in list_snippets():
        (tmp_path / f"{snippet.name}.kt").write_text(_frame(snippet), encoding="utf-8")
    sources = [*tmp_path.glob("*.kt"), *_SAMPLE.rglob("*.kt"), *(_STUBS[0] / "androidx").glob("*.kt")]
    assert kotlin.compile(sorted(sources), kit_classes, tmp_path / "classes")


def list_snippets() -> list[Snippet]:
    """The documents' examples in Kotlin, without those of Gradle's build files."""
    blocks = [snippet for snippet in find_blocks("kotlin") if not snippet.code.startswith("include(")]
    return [*blocks, *find_spans("", r"generator\.(generate\((?!\{|class:|pack:).*|unit|refusedUnits)")]


def _frame(snippet: Snippet) -> str:
    used = [f"println({name})" for name in re.findall(r"^val (\w+)", snippet.code, re.M)]
    code = "\n".join(f"        {line}" for line in [*snippet.code.splitlines(), *used])
    return _FRAME.format(name=snippet.name, code=code)


def test_the_examples_are_found() -> None:
    assert {snippet.page for snippet in list_snippets()} >= {
        "docs/guides/android.md", "docs/guides/compute-units.md", "docs/guides/packs.md",
        "runtimes/kind_runtimes/kits/android/README.md",
    }  # fmt: skip


def _run(command: Sequence[str | Path], variables: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=550,
        env=os.environ | (variables or {}),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout
