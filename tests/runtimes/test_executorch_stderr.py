"""What ExecuTorch writes to stderr: the cpuinfo lines of x86 are dropped, nothing else is lost."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kind_runtimes.bundle import Bundle
from kind_runtimes.engines.executorch import hushed_cpuinfo

NOISE = b"[cpuinfo_utils.cpp:71] Reading file /sys/devices/soc0/image_version\n"
REASON = b"[program.cpp:168] Program identifier 'abcd' != expected 'ET12'\n"
OTHER = b"another library has something to say\nwithout an end"


def test_the_first_load_of_a_process_is_quiet(small_bundle: Bundle) -> None:
    program = f"""
import os, sys
from pathlib import Path
from kind_runtimes import open_bundle, open_generator
bundle = open_bundle(Path({str(small_bundle.path)!r}))
generator = open_generator(bundle.path, bundle.manifest, "executorch")
os.write(2, b"written by the test\\n")
generator.picture(0, 1)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "written by the test\n"


def test_all_but_cpuinfo_is_written_on(capfd: pytest.CaptureFixture[str]) -> None:
    with hushed_cpuinfo():
        os.write(2, NOISE + REASON + OTHER)
    assert capfd.readouterr().err.encode() == REASON + OTHER


def test_what_python_writes_is_sifted_too(capfd: pytest.CaptureFixture[str]) -> None:
    with hushed_cpuinfo():
        os.write(2, b"a bar")
        sys.stderr.write(NOISE.decode() + "half a line, ")
        os.write(2, OTHER)
    assert capfd.readouterr().err.encode() == b"a barhalf a line, " + OTHER


def test_stderr_works_again_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with hushed_cpuinfo():
        pass
    os.write(2, NOISE)
    assert capfd.readouterr().err.encode() == NOISE


def fail(reasons: list[str] | None) -> None:
    with hushed_cpuinfo(reasons):
        os.write(2, REASON + NOISE + OTHER)
        raise RuntimeError("error 35")


def test_the_reasons_of_a_failure_are_handed_over(capfd: pytest.CaptureFixture[str]) -> None:
    reasons: list[str] = []
    with pytest.raises(RuntimeError, match="error 35"):
        fail(reasons)
    assert reasons == ["Program identifier 'abcd' != expected 'ET12'"]
    assert capfd.readouterr().err.encode() == OTHER


def test_the_reasons_of_a_failure_are_written_where_nobody_takes_them(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="error 35"):
        fail(None)
    assert capfd.readouterr().err.encode() == REASON + OTHER
