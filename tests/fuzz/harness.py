"""Runs cases in a child process that has so much memory and time, and says what became of each.

A case is refused (one clear line), accepted (and then used), unclear (an answer that helps nobody), or ends in a
traceback, in a hang or for want of memory; a child that dies is a traceback of the engine's.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, TextIO

OUTCOMES = ("refused", "accepted", "unclear", "traceback", "hang", "memory")
FAILURES = ("traceback", "hang", "memory")
# Seconds of work, seconds on the clock (of a busy machine, or waiting in vain), and bytes beyond those at the start.
HANG_S, WAIT_S, MEMORY_BYTES = 5.0, 20.0, 1 << 30
_START_S = 600.0  # loading everything, on a machine that others use
_BUSY_S = 0.2  # of work in WAIT_S: less is a wait in vain
_MAX_LETTERS = 1500
_UNCLEAR = re.compile(r"Traceback|object at 0x|<class |\n|^\s*$|\[ONNXRuntimeError\]")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One input: the subject by name and the seed of its mutation."""

    subject: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of a case, and what was said."""

    case: Case
    outcome: str
    said: str = ""


class _HangError(BaseException):
    """Time is up; no handler of errors takes it for one of its own."""


def make_cases(count: int, seed: int, subjects: Sequence[str]) -> list[Case]:
    """`count` cases, the subjects in turn."""
    return [Case(subject=subjects[i % len(subjects)], seed=seed * 1_000_003 + i) for i in range(count)]


def run_cases(cases: Sequence[Case]) -> Iterator[Answer]:
    """The answer of each case, in order; a child that is stuck or dead is replaced."""
    done = 0
    while done < len(cases):
        for answer in _run_child(cases[done:]):
            done += 1
            yield answer


def _run_child(cases: Sequence[Case]) -> Iterator[Answer]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        code = 1
        try:
            _serve(cases, os.fdopen(writer, "w"))
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    count = 0
    with os.fdopen(reader) as stream:
        stream.readline()  # it is ready, or dead
        while count < len(cases):
            line = stream.readline() if select.select([stream], [], [], _START_S)[0] else None
            if not line:
                outcome, said = ("hang", "not even a signal ended it") if line is None else ("traceback", "it died")
                os.kill(child, signal.SIGKILL)
                yield Answer(case=cases[count], outcome=outcome, said=said)
                break
            count += 1
            yield Answer(
                case=Case(**json.loads(line)["case"]), **{k: v for k, v in json.loads(line).items() if k != "case"}
            )
    os.waitpid(child, 0)


def _serve(cases: Sequence[Case], stream: TextIO) -> None:
    from fuzz.subjects import SUBJECTS

    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, 0)
    for name in (1, 2):
        os.dup2(quiet, name)
    _warm_up()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES, resource.RLIM_INFINITY))
    for alarm in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(alarm, _stop)
    stream.write("ready\n")
    stream.flush()
    by_name = {subject.name: subject for subject in SUBJECTS}
    for case in cases:
        answer = _answer(by_name[case.subject], case)
        stream.write(json.dumps(asdict(answer)) + "\n")
        stream.flush()


def _warm_up() -> None:
    """Everything is loaded and used once before memory and time are counted."""
    import onnxruntime
    import torch

    from fuzz.subjects import SUBJECTS, step_file

    torch.set_num_threads(1)
    onnxruntime.InferenceSession(step_file(), providers=["CPUExecutionProvider"])
    for subject in SUBJECTS:
        _try(subject, Case(subject=subject.name, seed=0))


_worked_s = 0.0


def _stop(number: int, frame: FrameType | None) -> None:
    """Time is up, unless the clock alone went on, because others work on this machine."""
    global _worked_s
    worked_s = time.process_time()
    if number == signal.SIGPROF or worked_s - _worked_s < _BUSY_S:
        raise _HangError
    _worked_s = worked_s
    signal.setitimer(signal.ITIMER_REAL, WAIT_S)


def _answer(subject: Any, case: Case) -> Answer:
    global _worked_s
    _worked_s = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, HANG_S)
    signal.setitimer(signal.ITIMER_REAL, WAIT_S)
    try:
        outcome, said = _try(subject, case)
    except _HangError:
        outcome, said = "hang", _tail()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return Answer(case=case, outcome=outcome, said=said)


def _try(subject: Any, case: Case) -> tuple[str, str]:
    from kind_core.errors import KindError

    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "in").mkdir()
        subject.use(subject.write(folder / "in", Random(case.seed)))
    except KindError as error:
        is_unclear = _UNCLEAR.search(error.message) or len(error.message) > _MAX_LETTERS
        return ("unclear" if is_unclear else "refused"), str(error)[:_MAX_LETTERS]
    except MemoryError:
        return "memory", _tail()
    except Exception as error:
        is_memory = "allocat" in str(error) or "bad_alloc" in str(error)
        return ("memory" if is_memory else "traceback"), _tail()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return "accepted", ""


def _tail() -> str:
    """The last frames and the error."""
    kind, error, trace = sys.exc_info()
    frames = [f"{Path(one.filename).name}:{one.lineno}" for one in traceback.extract_tb(trace)[-4:]]
    return f"{kind.__name__ if kind else ''}: {str(error)[:200]} at {' > '.join(frames)}"
