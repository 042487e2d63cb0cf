"""What becomes of a command that was troubled: each case is one process and one trouble, known by its seed.

After every one of them: what stands at the output is whole (the old or the new), nothing that was saved is lost, the
next command works without --force where there was nothing to replace, it ends with the very bytes of an undisturbed
one, and afterwards no temporary and no lock is left.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from kind_core.errors import KindError
from kind_core.files.locking import LOCK_SUFFIX
from reliability.children import Child, Ended, Trouble, preload, run_child
from reliability.commands import BASE, COMMANDS, Command, make_inputs, make_tiny
from reliability.disks import SmallDisk
from reliability.power import Recorder, cut_power

_DAY_S = 86_400
_MORE_EVENTS = 12  # of a run that replaces something
_ONE_LINE = re.compile(r"^(error|interrupted|hint): .+$")


class LossError(AssertionError):
    """Something was lost, is half, or stays for good."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One trouble: its kind, the command and a seed; `part` of `parts` says where on the way it comes."""

    kind: str
    command: str
    seed: int
    part: int = 0
    parts: int = 1

    def __str__(self) -> str:
        return f"{self.kind}/{self.command}/{self.seed}/{self.part}/{self.parts}"


@dataclass(frozen=True, kw_only=True)
class Known:
    """Of an undisturbed run: what it gives, its number of events, seconds and bytes."""

    result: dict[str, Any]
    events: int
    seconds: float
    peak_bytes: int


class Bench:
    """Where cases are run: inputs and undisturbed runs are made once."""

    def __init__(self, root: Path) -> None:
        self.root, self.inputs = root, root / "inputs"
        self.inputs.mkdir()
        make_tiny()
        make_inputs(self.inputs)
        self._known: dict[str, Known] = {}
        self._olds: dict[str, Path] = {}
        self._count = 0

    def run(self, case: Case) -> None:
        """Run one case; raises LossError."""
        command = next(one for one in COMMANDS if one.name == case.command)
        self.know(command)
        folder = self.new_folder()
        try:
            KINDS[case.kind](self, case, command, folder, Random(f"{case.command} {case.seed} {case.part}"))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(folder.with_name(folder.name + "-shadow"), ignore_errors=True)

    def know(self, command: Command) -> Known:
        """The undisturbed run of a command."""
        if command.name in self._known:
            return self._known[command.name]
        if "base.kind" in " ".join(command.arguments) and not (self.inputs / "base.kind").exists():
            self._succeed(BASE, self.inputs)
            shutil.rmtree(self.inputs / "tmp")
        for _ in range(2):  # the second has everything loaded, as those that are troubled
            folder = self.new_folder()
            command.prepare(self.inputs, folder)
            ended = self._succeed(command, folder)
            preload(ended.modules)
            result = command.read(folder / command.output)
            self._olds[command.name] = folder
        self._known[command.name] = Known(
            result=result, events=ended.events, seconds=ended.seconds, peak_bytes=ended.peak_bytes
        )
        return self._known[command.name]

    def put_old(self, command: Command, folder: Path) -> None:
        """Have something stand at the output already, which `--force` replaces."""
        source, target = self._olds[command.name] / command.output, folder / command.output
        shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)

    def new_folder(self) -> Path:
        """An empty folder of its own."""
        self._count += 1
        folder = self.root / f"case-{self._count}"
        folder.mkdir()
        return folder

    def _succeed(self, command: Command, folder: Path, *more: str) -> Ended:
        ended = run_child(command.module, command.line(self.inputs, *more), folder)
        if ended.code:
            raise LossError(f"{command.name} {more} fails: {ended.stderr[-600:]}")
        return ended


def _begin(bench: Bench, command: Command, folder: Path, *, is_replaced: bool) -> list[str]:
    """Prepare the folder of a case; what is added to the command."""
    command.prepare(bench.inputs, folder)
    if is_replaced:
        bench.put_old(command, folder)
    return ["--force"] if is_replaced else []


def _may_replace(command: Command, random: Random) -> bool:
    return command.name != "export --packs --base" and random.random() < 0.5


def kill(bench: Bench, case: Case, command: Command, folder: Path, random: Random) -> None:
    """SIGKILL at an event or a moment."""
    is_replaced, known = _may_replace(command, random), bench.know(command)
    more = _begin(bench, command, folder, is_replaced=is_replaced)
    trouble = _strike(signal.SIGKILL, known, random, is_at_event=case.seed % 3 < 2)
    run_child(command.module, command.line(bench.inputs, *more), folder, trouble)
    if random.random() < 0.25:
        _turn_clock_back(folder)
    _go_on(bench, command, folder, random, is_replaced=is_replaced)


def cut(bench: Bench, case: Case, command: Command, folder: Path, random: Random) -> None:
    """A power cut at an event: what was not synced is gone."""
    is_replaced, known = _may_replace(command, random), bench.know(command)
    more = _begin(bench, command, folder, is_replaced=is_replaced)
    shadow = folder.with_name(folder.name + "-shadow")
    shadow.mkdir()
    Recorder(shadow).record_tree(folder)
    trouble = Trouble(signal=signal.SIGKILL, at_event=random.randint(1, known.events + _MORE_EVENTS), shadow=shadow)
    run_child(command.module, command.line(bench.inputs, *more), folder, trouble)
    cut_power(folder, shadow, keeps_names=case.seed % 2 == 0)
    _go_on(bench, command, folder, random, is_replaced=is_replaced)


def interrupt(bench: Bench, case: Case, command: Command, folder: Path, random: Random) -> None:
    """SIGINT or SIGTERM: a tidy end with the exit code of the signal, nothing left behind even before the next run."""
    number = (signal.SIGINT, signal.SIGTERM)[case.seed % 2]
    known, is_replaced = bench.know(command), _may_replace(command, random)
    more = _begin(bench, command, folder, is_replaced=is_replaced)
    trouble = _strike(number, known, random, is_at_event=case.seed % 3 < 2)
    ended = run_child(command.module, command.line(bench.inputs, *more), folder, trouble)
    allowed = (0, 128 + number, 130)  # what kind-bench has measured is kept, and that is said by 130
    if ended.code not in allowed or "Traceback" in ended.stderr:
        raise LossError(f"ended with {ended.code}: {ended.stderr[-900:]}")
    _require_tidy(folder, ())
    _go_on(bench, command, folder, random, is_replaced=is_replaced)


def fill(bench: Bench, case: Case, command: Command, folder: Path, random: Random) -> None:
    """A disk that is full after a share of what the command writes."""
    known, is_replaced = bench.know(command), _may_replace(command, random)
    with SmallDisk(folder) as disk:
        more = _begin(bench, command, folder, is_replaced=is_replaced)
        with disk.limited(int(known.peak_bytes * (case.part + 0.5) / case.parts)):
            ended = run_child(command.module, command.line(bench.inputs, *more), folder)
        if ended.code and not re.search(r"full|No space left|too large|OSError|I/O", ended.stderr):
            raise LossError(f"ended with {ended.code}, said {ended.stderr[-600:]}")
        _require_one_line(ended)
        _require_tidy(folder, ())
        _go_on(bench, command, folder, random, is_replaced=is_replaced)


def write_protect(bench: Bench, case: Case, command: Command, folder: Path, random: Random) -> None:
    """A read-only output: one line, and nothing is changed."""
    with SmallDisk(folder) as disk:
        more = _begin(bench, command, folder, is_replaced=command.name != "export --packs --base")
        (folder / "tmp").mkdir()
        before = _list(folder)
        with disk.protected():
            ended = run_child(command.module, command.line(bench.inputs, *more), folder)
        if ended.code != 1:
            raise LossError(f"ended with {ended.code}: {ended.stderr[-600:]}")
        _require_one_line(ended)
        if _list(folder) != before:
            raise LossError(f"changed: {sorted(_list(folder) ^ before)}")


def collide(bench: Bench, case: Case, command: Command, folder: Path, random: Random) -> None:
    """Two at once: while one waits in the middle, another is refused in one line that names it; the first ends well."""
    known, is_replaced = bench.know(command), _may_replace(command, random)
    more = _begin(bench, command, folder, is_replaced=is_replaced)
    line = command.line(bench.inputs, *more)
    first = Child(command.module, line, folder, Trouble(pause_at=random.randint(1, known.events)))
    is_inside = first.wait_until_paused()
    is_unnamed = any(not one.stat().st_size for one in folder.rglob(f".*{LOCK_SUFFIX}"))  # between lock and name
    second = run_child(command.module, line, folder)
    if is_inside:
        first.go()
    ended = first.end()
    for one in (ended, second):
        _require_one_line(one)
    who = rf"process {first.pid} |another process$" if is_unnamed else f"process {first.pid} "
    names_it = re.search(f"is being written by ({who})", second.stderr, re.MULTILINE)
    # before the first has locked its output, or after it has let it go, the second may be the one that writes
    codes = (ended.code, second.code)
    if 0 not in codes or (second.code and not names_it and "already" not in second.stderr):
        raise LossError(f"ended with {codes}: {ended.stderr[-400:]} / {second.stderr[-400:]}")
    _require_tidy(folder, ())
    _go_on(bench, command, folder, random, is_replaced=is_replaced)


KINDS: dict[str, Callable[[Bench, Case, Command, Path, Random], None]] = {
    "kill": kill,
    "power": cut,
    "signal": interrupt,
    "full disk": fill,
    "read-only": write_protect,
    "two at once": collide,
}


def _strike(number: int, known: Known, random: Random, *, is_at_event: bool) -> Trouble:
    if is_at_event:
        return Trouble(signal=number, at_event=random.randint(1, known.events + _MORE_EVENTS))
    return Trouble(signal=number, after_s=random.uniform(0, known.seconds))


def _turn_clock_back(folder: Path) -> None:
    """All that is there was written tomorrow."""
    for path in [folder, *folder.rglob("*")]:
        found = path.lstat()
        os.utime(path, (found.st_atime + _DAY_S, found.st_mtime + _DAY_S), follow_symlinks=False)


def _go_on(bench: Bench, command: Command, folder: Path, random: Random, *, is_replaced: bool) -> None:
    """What stands is whole; a person's next command works, gives what an undisturbed one gives, and tidies up."""
    output, known = folder / command.output, bench.know(command)
    if output.exists():
        try:
            command.check(output)
        except (KindError, OSError, ValueError) as error:
            raise LossError(f"{command.output} is half: {error}") from error
    elif is_replaced or command.name == "export --packs --base":
        raise LossError(f"{command.output} is gone")
    tries = [[], *([[command.goes_on]] if command.goes_on else [])]
    random.shuffle(tries)
    if is_replaced:
        tries = [["--force"]]
    said = []
    for more in tries:
        ended = run_child(command.module, command.line(bench.inputs, *more), folder)
        if ended.code == 0:
            break
        said.append(ended.stderr)
        _require_one_line(ended)
    else:
        is_there = output.exists() and command.goes_on is None and "already exists" in said[-1]
        if not is_there:
            raise LossError(f"no next command works: {' / '.join(said)[-900:]}")
    _require_same(command.read(output), known.result)
    _require_tidy(folder, (command.output.partition("/")[0],))


def _require_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    differing = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    if differing:
        raise LossError(f"differs from an undisturbed run in {', '.join(differing)[:300]}")


def _require_one_line(ended: Ended) -> None:
    """An error of one line, with its hint in another; progress may come before."""
    if ended.code == 0:
        return
    lines = ended.stderr.splitlines()
    count = sum(line.startswith("error: ") for line in lines)
    if ended.code != 1 or count != 1 or "Traceback" in ended.stderr or not _ONE_LINE.match(lines[-1]):
        raise LossError(f"not one line, exit code {ended.code}: {ended.stderr[-900:]}")


def _require_tidy(folder: Path, own: Sequence[str]) -> None:
    """No temporary, no lock; `own` is all that may stand in the folder, where it is given."""
    left = [one for one in _list(folder) if one.endswith((".partial", LOCK_SUFFIX))]
    left += [f"tmp/{one.name}" for one in (folder / "tmp").glob("*") if not _is_pythons(one)]
    if own:
        left += [one.name for one in folder.iterdir() if one.name not in (*own, "tmp")]
    if left:
        raise LossError(f"left behind: {', '.join(sorted(left))[:600]}")


def _is_pythons(file: Path) -> bool:
    """What `tempfile` writes and removes at once, in a process that ended in between, to see that it can."""
    return (
        re.fullmatch("[a-z0-9_]{8}", file.name) is not None and file.is_file() and file.read_bytes() in (b"", b"blat")
    )


def _list(folder: Path) -> set[str]:
    return {one.relative_to(folder).as_posix() for one in folder.rglob("*")}


def run_cases(bench: Bench, cases: Sequence[Case]) -> Iterator[tuple[Case, str]]:
    """Each case with what was lost; empty where nothing was."""
    for case in cases:
        try:
            bench.run(case)
        except LossError as error:
            yield case, str(error)
        else:
            yield case, ""
