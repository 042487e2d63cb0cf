"""The process that measures a case: how it is started, what it says, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import suppress

from kind_bench.measure.gathering import Gathering, Message
from kind_bench.results.results import name_case
from kind_core import errors
from kind_core.errors import KindError, TargetError


def run_worker(case: Gathering, job: dict[str, object]) -> Generator[Message]:
    """The messages of a new process, as they come; raises the error that it met."""
    # -P: not from the folder that the user stands in, which may be a stranger's bundle with a numpy.py
    command = [sys.executable, "-P", "-m", "kind_bench.measure.worker"]
    with tempfile.TemporaryFile("w+") as log:
        # in a session of its own: Ctrl-C is for this process, which ends the other
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError):  # it has died: its exit code says so below
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.flush()  # and stays open: where it ends, this process has died
            for line in process.stdout:
                message = json.loads(line)
                if "error" in message:
                    raise _rebuild_error(message["error"])
                yield message
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            with suppress(BrokenPipeError):
                process.stdin.close()
        if code != 0:
            log.seek(0)
            raise _crash(case, code, log.read())


def name_gathering(case: Gathering) -> str:
    """A case in words."""
    return name_case(case.runtime, case.options.threads, case.options.provider)


def _rebuild_error(data: dict[str, str]) -> KindError:
    kind: type[KindError] = getattr(errors, data["type"])
    return kind(data["message"], data["hint"])


def _crash(case: Gathering, code: int, log: str) -> TargetError:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "it said nothing")
    return TargetError(
        f"the process that measured {name_gathering(case)} {how}: {last}", "try kind-run with the same bundle"
    )
