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
from pathlib import Path

import pytest

from kind_core.errors import BundleError
from kind_runtimes.kits import KITS, kit_folder
from kind_runtimes.packs import read_pack
from mobile_vectors import NAMES, PLACES, format_names, format_vectors

_SOURCES = kit_folder("android") / "kind-runtime" / "src"
# LiteRT's classes are Android's too: those that the kit calls have stand-ins
_STUBS = Path(__file__).parent / "litert_stub"
_JARS = Path("/usr/share/java")
# what needs more than a Java machine: Android itself, and onnxruntime's Java classes
_NEED_A_PHONE = {"AndroidSupport.kt", "OnnxPrograms.kt"}


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


@pytest.mark.slow
def test_kotlin_kit_passes_its_tests(tmp_path: Path) -> None:
    kotlinc = os.environ.get("KOTLINC") or shutil.which("kotlinc")
    jars = [_JARS / name for name in ("com.android.json.jar", "junit4.jar", "hamcrest-core.jar")]
    missing = [str(jar) for jar in jars if not jar.exists()]
    if kotlinc is None or missing:
        pytest.skip(f"no Kotlin compiler on PATH or in KOTLINC, or no {missing}")
    library = Path(kotlinc).resolve().parents[1] / "lib"
    names = ("kotlinx-coroutines-core-jvm", "kotlin-test", "kotlin-test-junit", "kotlin-stdlib")
    path = os.pathsep.join(map(str, [*jars, *(library / f"{name}.jar" for name in names)]))
    sources = [*sorted(_SOURCES.rglob("*.kt")), *sorted(_STUBS.glob("*.kt"))]
    files = [file for file in sources if file.name not in _NEED_A_PHONE]
    compiled = tmp_path / "classes"
    _run(["bash", kotlinc, "-Werror", "-jvm-target", "17", "-cp", path, "-d", compiled, *files])
    everything = os.pathsep.join([str(compiled), str(_SOURCES / "test" / "resources"), path])
    names = ("VectorsTest", "KindBundleTest", "LiteRtProgramsTest", "LadderTest", "BenchmarkTest")
    classes = [f"dev.kind.runtime.{name}" for name in names]
    output = _run(["java", "-cp", everything, "org.junit.runner.JUnitCore", *classes])
    assert re.search(r"OK \(\d+ tests\)", output), output


def _run(command: list[str | Path]) -> str:
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=550
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
