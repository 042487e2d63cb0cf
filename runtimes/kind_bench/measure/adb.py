"""Measuring on an attached Android device: push the bundle, start the sample app or a runner, pull its results.

What the device's side must do. The app's activity `dev.kind.sample/.BenchmarkActivity` gets the extras `bundle` (a
folder that it can read), `out` (a file to write), and, where they were asked for, `runtime` and `class`. A runner is
started as `RUNNER BUNDLE OUT [--runtime NAME] [--class NAME]`. Either writes results as `schemas/results.schema.json`
has them, under another name first and renamed to `out` when they are whole; or, if it fails, the reason in a line to
`out` + `.error`. The app makes the folder of `out`, which is its own, so that it may write there.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kind_bench.results.importing import import_results
from kind_bench.results.results import Results
from kind_core.errors import ConfigError, ResultsError, TargetError
from kind_runtimes.bundle import open_bundle
from kind_runtimes.engines.runtime import check_runtime
from kind_runtimes.progress import OnProgress, Progress

PACKAGE = "dev.kind.sample"
ACTIVITY = f"{PACKAGE}/.BenchmarkActivity"
# world-readable for apps, and writable for adb; the app itself writes to its own folder, where adb may read
_PUSHED = PurePosixPath("/data/local/tmp/kind")
_APP_FILES = PurePosixPath(f"/sdcard/Android/data/{PACKAGE}/files")
_POLL_S = 0.5
_GRACE_S = 5.0  # for the app's process to be seen
_STAGES = ("pushing the bundle", "measuring on the device", "pulling the results")


@dataclass(frozen=True, kw_only=True, slots=True)
class AdbRequest:
    """`serial` where several devices are attached; `runner`, a program for the device, in place of the sample app."""

    bundle: Path
    serial: str | None = None
    runner: Path | None = None
    runtime: str | None = None
    class_name: str | None = None
    timeout_s: float = 900.0

    def __post_init__(self) -> None:
        if self.runtime is not None:
            check_runtime(self.runtime)
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout is {self.timeout_s:g} s, expected more than 0")
        if self.runner is not None and not self.runner.is_file():
            raise ConfigError(f"there is no runner {self.runner}", "give --runner a program built for the device")


def measure_on_device(request: AdbRequest, on_progress: OnProgress = lambda progress: None) -> tuple[Results, Path]:
    """Measure and import; what was pushed is removed again, whatever happens."""
    name = open_bundle(request.bundle).path.resolve().name  # checked before anything is copied
    device = _Device.find(request.serial)
    if request.runner is None:
        device.require_app()
    bundle = _PUSHED / name
    out = (_PUSHED if request.runner else _APP_FILES) / f"{name}.results.json"

    def show(index: int) -> None:
        on_progress(Progress(stage=_STAGES[index], done=index, total=len(_STAGES)))

    pushed = [bundle, out, _error_file(out)]
    try:
        show(0)
        device.shell("rm", "-rf", *map(str, pushed))
        device.shell("mkdir", "-p", str(_PUSHED))
        device.run("push", str(request.bundle), str(bundle))
        show(1)
        if request.runner is None:
            _run_app(device, request, bundle, out)
        else:
            pushed.append(_PUSHED / request.runner.name)
            _run_runner(device, request, request.runner, bundle, out)
        show(2)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / out.name
            device.run("pull", str(out), str(file))
            return import_results(file, request.bundle)
    finally:
        device.try_shell("rm", "-rf", *map(str, pushed))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Device:
    """An attached device, spoken to by adb."""

    adb: str
    serial: str

    @classmethod
    def find(cls, serial: str | None) -> _Device:
        """The device that was asked for, or the only one; it must be ready."""
        adb = shutil.which("adb")
        if adb is None:
            raise TargetError("adb is not on the PATH", "install Android's platform-tools")
        listed = subprocess.run([adb, "devices"], capture_output=True, text=True, check=False)
        if listed.returncode != 0:
            raise TargetError(f"adb devices failed: {_last_line(listed)}", "adb kill-server, then again")
        states = dict(line.split("\t", 1) for line in listed.stdout.splitlines() if "\t" in line)
        if not states:
            raise TargetError("no Android device is attached", "plug one in with USB debugging on; see adb devices")
        held = ", ".join(f"{name} ({state})" for name, state in states.items())
        if serial is None and len(states) > 1:
            raise TargetError(f"{len(states)} Android devices are attached: {held}", "choose one with --serial")
        chosen = serial or next(iter(states))
        if chosen not in states:
            raise TargetError(f"no Android device {chosen} is attached, only {held}", "see adb devices")
        if states[chosen] != "device":
            raise TargetError(
                f"the Android device {chosen} is {states[chosen]}", "unlock it and allow USB debugging, or replug it"
            )
        return cls(adb=adb, serial=chosen)

    def require_app(self) -> None:
        found = self._call("shell", "pm", "path", PACKAGE)
        if not found.stdout.startswith("package:"):
            raise TargetError(
                f"the sample app {PACKAGE} is not installed on {self.serial}",
                "install it from samples/android, or give a program with --runner",
            )

    def run(self, *arguments: str) -> str:
        """What adb writes to stdout; raises TargetError with its last line when it fails."""
        done = self._call(*arguments)
        if done.returncode != 0:
            what = " ".join(arguments[:2])
            raise TargetError(f"adb {what} failed on {self.serial}: {_last_line(done)}", "see adb devices")
        return done.stdout

    def shell(self, *arguments: str) -> str:
        """Run a command on the device; its arguments are quoted, because adb joins them for the device's shell."""
        return self.run("shell", shlex.join(arguments))

    def try_shell(self, *arguments: str) -> bool:
        """Whether a command on the device succeeds."""
        return self._call("shell", shlex.join(arguments)).returncode == 0

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.adb, "-s", self.serial, *arguments]
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


def _run_app(device: _Device, request: AdbRequest, bundle: PurePosixPath, out: PurePosixPath) -> None:
    extras = {"bundle": str(bundle), "out": str(out), **_choices(request)}
    flags = [part for name, value in extras.items() for part in ("--es", name, value)]
    said = device.shell("am", "start", "-W", "-S", "-n", ACTIVITY, *flags)
    # am succeeds even where it says that it did not
    if failure := next((line for line in said.splitlines() if line.startswith("Error")), None):
        raise TargetError(f"{ACTIVITY} does not start on {device.serial}: {failure}", "install a newer sample app")
    began = time.monotonic()
    while not _is_there(device, out):
        waited = time.monotonic() - began
        if waited > request.timeout_s:
            device.try_shell("am", "force-stop", PACKAGE)
            raise ResultsError(
                f"the app on {device.serial} had no results after {request.timeout_s:g} s", "wait longer with --timeout"
            )
        # asked again after it: the app may have written and ended between the two questions
        if waited > _GRACE_S and not device.try_shell("pidof", PACKAGE) and not _is_there(device, out):
            raise ResultsError(f"the app on {device.serial} ended without results", "adb logcat says why")
        time.sleep(_POLL_S)


def _run_runner(device: _Device, request: AdbRequest, runner: Path, bundle: PurePosixPath, out: PurePosixPath) -> None:
    place = str(_PUSHED / runner.name)
    device.run("push", str(runner), place)
    device.shell("chmod", "755", place)
    flags = [part for name, value in _choices(request).items() for part in (f"--{name}", value)]
    command = [device.adb, "-s", device.serial, "shell", shlex.join([place, str(bundle), str(out), *flags])]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=request.timeout_s
        )
    except subprocess.TimeoutExpired:
        raise ResultsError(
            f"the runner on {device.serial} had no results after {request.timeout_s:g} s", "wait longer with --timeout"
        ) from None
    if not _is_there(device, out):
        raise ResultsError(
            f"the runner on {device.serial} ended with exit code {done.returncode} and no results: {_last_line(done)}",
            f"adb shell {place} says more",
        )


def _is_there(device: _Device, out: PurePosixPath) -> bool:
    """Whether the results are written; raises ResultsError with the reason that the device's side left instead."""
    if device.try_shell("ls", str(out)):
        return True
    if device.try_shell("ls", str(_error_file(out))):
        reason = " ".join(device.shell("cat", str(_error_file(out))).split())
        raise ResultsError(f"measuring on {device.serial} failed: {reason}", "adb logcat says more")
    return False


def _choices(request: AdbRequest) -> dict[str, str]:
    asked = {"runtime": request.runtime, "class": request.class_name}
    return {name: value for name, value in asked.items() if value is not None}


def _error_file(out: PurePosixPath) -> PurePosixPath:
    return out.with_name(f"{out.name}.error")


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"exit code {done.returncode}"
