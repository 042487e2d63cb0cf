"""`kind-bench adb` against an adb that is a script and a device that is a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fake_adb import FakeDevice
from made_up_results import minimal_results

from kind_bench.cli import main
from kind_bench.measure import adb
from kind_bench.measure.adb import AdbRequest
from kind_core.errors import ConfigError, TargetError
from kind_runtimes.bundle import Bundle, open_bundle

Adb = Callable[..., Result]


@pytest.fixture
def bundle(placeholders: Path) -> Bundle:
    return open_bundle(placeholders)


@pytest.fixture
def device(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    device = FakeDevice(tmp_path)
    device.behave("results", minimal_results(bundle))
    monkeypatch.setenv("PATH", f"{device.tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(adb, "_POLL_S", 0.05)
    monkeypatch.setattr(adb, "_GRACE_S", 0.2)
    return device


@pytest.fixture
def kind_adb(device: FakeDevice, bundle: Bundle) -> Adb:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["adb", str(bundle.path), *arguments])

    return run


def test_the_app_s_results_come_into_the_bundle(kind_adb: Adb, device: FakeDevice, bundle: Bundle) -> None:
    result = kind_adb("--class", "red panda; false", "--runtime", "onnx")
    assert result.exit_code == 0, result.stderr
    assert "SM8650, Android 15" in result.stdout
    assert len(list((bundle.path / "measured").iterdir())) == 1
    start = next(call[-1] for call in device.calls() if call[-1].startswith("am start"))
    assert "-n dev.kind.sample/.BenchmarkActivity" in start
    assert "--es bundle /data/local/tmp/kind/placeholders.kind" in start
    assert "--es class 'red panda; false'" in start
    assert "--es runtime onnx" in start
    assert all(call[:2] == ["-s", "SERIAL1"] for call in device.calls()[1:])
    assert device.files() == []


def test_a_runner_takes_the_app_s_place(kind_adb: Adb, device: FakeDevice, tmp_path: Path) -> None:
    device.install(False)
    runner = tmp_path / "runner"
    runner.write_text(
        f'#!/bin/sh\ntest -f "$1/manifest.json" || exit 3\ncp {device.root}/results.json "$2"\n'
        f'echo "$@" > {device.root}/arguments\n'
    )
    result = kind_adb("--runner", str(runner), "--runtime", "executorch")
    assert result.exit_code == 0, result.stderr
    assert (device.root / "arguments").read_text().split()[2:] == ["--runtime", "executorch"]
    assert device.files() == []


def test_a_runner_that_fails_is_named(kind_adb: Adb, device: FakeDevice, tmp_path: Path) -> None:
    runner = tmp_path / "runner"
    runner.write_text("#!/bin/sh\necho no such library >&2\nexit 7\n")
    result = kind_adb("--runner", str(runner))
    assert result.exit_code == 1
    assert "the runner on SERIAL1 ended with exit code 7 and no results: no such library" in result.stderr
    assert device.files() == []


@pytest.mark.parametrize(
    ("lines", "arguments", "message"),
    [
        ([], [], "no Android device is attached"),
        (["A\tdevice", "B\toffline"], [], "2 Android devices are attached: A (device), B (offline)"),
        (["A\tunauthorized"], [], "the Android device A is unauthorized"),
        (["A\tdevice"], ["--serial", "C"], "no Android device C is attached, only A (device)"),
    ],
)
def test_devices_that_are_not_ready_are_named(
    kind_adb: Adb, device: FakeDevice, lines: list[str], arguments: list[str], message: str
) -> None:
    device.devices(*lines)
    result = kind_adb(*arguments)
    assert (result.exit_code, result.stderr.splitlines()[-2]) == (1, f"error: {message}")


def test_one_of_several_can_be_chosen(kind_adb: Adb, device: FakeDevice) -> None:
    device.devices("A\tdevice", "B\tdevice")
    assert kind_adb("--serial", "B").exit_code == 0
    assert {call[1] for call in device.calls()[1:]} == {"B"}


def test_an_app_that_is_not_installed_is_named_before_anything_is_pushed(kind_adb: Adb, device: FakeDevice) -> None:
    device.install(False)
    result = kind_adb()
    assert "error: the sample app dev.kind.sample is not installed on SERIAL1" in result.stderr
    assert not any("push" in call for call in device.calls())


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("missing", "does not start on SERIAL1: Error: Activity class does not exist."),
        ("failure", "measuring on SERIAL1 failed: out of memory in onnxruntime"),
        ("crash", "the app on SERIAL1 ended without results"),
        ("silence", "the app on SERIAL1 had no results after 0.5 s"),
    ],
)
def test_an_app_that_does_not_deliver_is_named_and_tidied_up_after(
    kind_adb: Adb, device: FakeDevice, behaviour: str, message: str
) -> None:
    device.behave(behaviour)
    result = kind_adb("--timeout", "0.5" if behaviour == "silence" else "60")
    assert result.exit_code == 1
    assert message in result.stderr
    assert device.files() == []
    assert (device.root / "stopped").exists() == (behaviour == "silence")


def test_results_of_another_model_are_refused(kind_adb: Adb, device: FakeDevice, bundle: Bundle) -> None:
    other = {"name": "koala", "manifest_sha256": "1" * 64}
    device.behave("results", minimal_results(bundle, bundle=other))
    result = kind_adb()
    assert "was measured with another model: koala" in result.stderr
    assert not (bundle.path / "measured").exists()


def test_without_adb_it_is_said(placeholders: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetError, match="adb is not on the PATH"):
        adb.measure_on_device(AdbRequest(bundle=placeholders))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"timeout_s": 0.0}, "timeout is 0 s"), ({"runner": Path("nowhere")}, "there is no runner nowhere")],
)
def test_requests_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AdbRequest(bundle=Path("a.kind"), **changes)  # type: ignore[arg-type]
