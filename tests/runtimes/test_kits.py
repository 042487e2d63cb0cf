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

_SOURCES = kit_folder("android") / "kind-runtime" / "src"
# Android's, onnxruntime's and LiteRT's classes: those that the kit calls have stand-ins
_STUBS = (Path(__file__).parent / "android_stub", Path(__file__).parent / "litert_stub")
_JARS = Path("/usr/share/java")


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

    def compile(self, sources: Sequence[Path], output: Path) -> str:
        """Compile sources beside the stand-ins, every warning an error; the class path of what came of it."""
        java = output.with_name("java")
        stubs = [file for stub in _STUBS for file in sorted(stub.rglob("*.java"))]
        _run(["javac", "-Xlint:all,-serial", "-Werror", "-d", java, *stubs])
        path = f"{java}{os.pathsep}{self.libraries}"
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


@pytest.mark.slow
def test_kotlin_kit_passes_its_tests(kotlin: Kotlin, tmp_path: Path) -> None:
    stubs = [file for stub in _STUBS for file in sorted(stub.glob("*.kt"))]
    path = kotlin.compile([*sorted(_SOURCES.rglob("*.kt")), *stubs], tmp_path / "classes")
    everything = os.pathsep.join([str(_SOURCES / "test" / "resources"), path])
    names = ("VectorsTest", "KindBundleTest", "LiteRtProgramsTest", "LadderTest", "BenchmarkTest", "AndroidTest")
    classes = [f"dev.kind.runtime.{name}" for name in names]
    results = tmp_path / "results.json"
    command: list[str | Path] = ["java", "-cp", everything, "org.junit.runner.JUnitCore", *classes]
    output = _run(command, {"KIND_RESULTS": str(results)})
    assert re.search(r"OK \(\d+ tests\)", output), output
    measured = read_results(results)
    assert [unit["is_taken"] for unit in measured.units] == [False, True]
    assert [case.threads for case in measured.cases] == [1, 2]


def _run(command: Sequence[str | Path], variables: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=550,
        env=os.environ | (variables or {}),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout
