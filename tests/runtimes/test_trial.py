"""A program at which its engine ends the process is one line: nothing else of the process is lost."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from kind_core.errors import BundleError
from kind_runtimes.cli import main
from kind_runtimes.engines.trial import require_survivable
from small_bundles import write_manifest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process is forked safely on Linux alone")


def _crash(number: int) -> None:
    os.write(2, b"what it says last\n")
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE])
def test_a_crash_is_one_line(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "step.pte").write_bytes(b"x")
    with pytest.raises(BundleError, match=f"^it: the engine ends the process with {number.name}: what it says last "):
        require_survivable("it", tmp_path / "step.pte", lambda: _crash(number))


def test_what_is_raised_is_left_to_the_caller(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "step.pte").write_bytes(b"x")
    for call in (lambda: sys.exit(3), lambda: 1 / 0, lambda: os.write(1, b"said\n")):
        require_survivable("it", tmp_path / "step.pte", call)
    assert capfd.readouterr() == ("", "")


def test_a_file_is_tried_once_until_it_changes(tmp_path: Path) -> None:
    file, log = tmp_path / "step.pte", tmp_path / "log"
    log.touch()
    for content in (b"x", b"x", b"xx"):
        if not file.exists() or file.read_bytes() != content:
            file.write_bytes(content)
        require_survivable("it", file, lambda: log.write_bytes(log.read_bytes() + b"."))
    assert log.read_bytes() == b".."


@pytest.mark.parametrize("command", ["draw", "inspect"])
def test_a_program_at_which_executorch_ends_the_process_is_refused(
    command: str, copy_bundle: Callable[[], Path], tmp_path: Path
) -> None:
    """It quotes the mark of a delegate in its log, which pybind11 decodes, and what that throws nobody catches."""
    bundle = copy_bundle()
    step = bundle / "executorch" / "step.pte"
    content = step.read_bytes()
    assert b"XN01" in content
    step.write_bytes(content.replace(b"XN01", b"\x98\xea\xf8\xff"))
    write_manifest(bundle, ["executorch"])
    arguments = [bundle, "--class", "red panda", "-o", tmp_path / "p.png"] if command == "draw" else ["inspect", step]
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == 1
    assert "the engine ends the process with SIGABRT" in done.stderr.splitlines()[-2]
