"""`kind-bench run`: what is measured, in which processes, and what is left when it is cut short."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from interruptible import interruptible
from kind_bench.cli import main
from kind_bench.measure import cases
from kind_bench.measure.cases import BenchRequest, measure_bundle
from kind_bench.measure.gathering import Gathering
from kind_bench.measure.timing import Counts
from kind_bench.results.results import Results, read_results
from kind_core.errors import BundleError, ConfigError, KindError, TargetError
from kind_core.files.hashing import hash_file
from kind_runtimes.bundle import Bundle
from kind_runtimes.engines.onnx import list_providers
from kind_runtimes.engines.runtime import EngineOptions
from small_bundles import STEPS, write_manifest

FLAGS = ("--warmup", "1", "--repeat", "5", "--profile", "--json")
ROUNDS = {"onnx": 2, "executorch": 1}
THREADS = {"onnx": (1, 2), "executorch": (2,)}
needs_no_core_ml = pytest.mark.skipif(sys.platform == "darwin", reason="Core ML itself runs here")

Measured = dict[str, tuple[Results, Result]]


@pytest.fixture(scope="module")
def measured(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return {runtime: _run(small_bundle, runtime, tmp_path_factory.mktemp("bench")) for runtime in ROUNDS}


def _run(bundle: Bundle, runtime: str, folder: Path) -> tuple[Results, Result]:
    threads = ",".join(map(str, THREADS[runtime]))
    arguments = ["--runtime", runtime, "--threads", threads, "--rounds", str(ROUNDS[runtime]), "--sustain", "0.2"]
    file = folder / "here.json"
    result = CliRunner().invoke(main, ["run", str(bundle.path), *FLAGS, *arguments, "-o", str(file)])
    assert result.exit_code == 0, result.stderr
    return read_results(file), result


@pytest.mark.parametrize("runtime", ROUNDS)
def test_every_number_of_threads_is_a_case(measured: Measured, runtime: str) -> None:
    cases, rounds = measured[runtime][0].cases, ROUNDS[runtime]
    assert [(case.runtime, case.threads) for case in cases] == [(runtime, count) for count in THREADS[runtime]]
    for case in cases:
        assert len(case.step.samples) == 5
        assert (case.data["rounds"], case.data["warmup"], case.data["process"]) == (rounds, 1, "fresh")
        assert len(case.data["whole_image_ms"]["samples"]) == rounds
        sustained = case.data["sustained"]
        assert (sustained["after_s"], len(sustained["step_ms"]["samples"])) == (0.2, 5 // rounds)
        assert case.decode is not None
        assert case.image_ms == pytest.approx(STEPS * case.step.median + case.decode.median, abs=1e-3)
        assert case.precision == "fp32"
        assert case.data["load_ms"]["again"] > 0
        assert case.data["load_ms"]["first"] > 0


def test_memory_is_that_of_the_process_and_says_its_baseline(measured: Measured) -> None:
    peaks = {}
    for runtime, (results, _) in measured.items():
        data = results.cases[0].data
        assert 10e6 < data["baseline_memory_bytes"] < data["peak_memory_bytes"] < 2e9
        peaks[runtime] = data["peak_memory_bytes"]
    # the process of onnxruntime never imported torch, as the one that started it has
    assert peaks["onnx"] < peaks["executorch"] - 50e6


def test_profiles_name_operators_and_who_runs_them(measured: Measured) -> None:
    onnx, executorch = (measured[runtime][0].cases[0].data["profile"] for runtime in ROUNDS)
    assert onnx["tool"] == "onnxruntime profiler"
    assert {op["op_type"]: op["count"] for op in onnx["ops"]}["MatMul"] == 1
    assert {op["backend"] for op in onnx["ops"]} == {"CPU"}
    assert executorch["tool"] == "ETDump"
    named = {(op["op_type"], op["backend"]): op["count"] for op in executorch["ops"]}
    assert named["index_select", "portable"] == 2
    assert named["Fully Connected (NC, F32) GEMM", "XNNPACK"] == 1
    assert 0 < executorch["delegate_share"] <= 1
    for profile in (onnx, executorch):
        assert 0 < sum(op["ms"] for op in profile["ops"]) <= profile["run_ms"] * 1.5


@pytest.mark.parametrize("runtime", ROUNDS)
def test_the_file_says_what_was_measured_and_on_what(measured: Measured, small_bundle: Bundle, runtime: str) -> None:
    results, printed = measured[runtime]
    assert json.loads(printed.stdout) == results.data
    assert results.manifest_sha256 == hash_file(small_bundle.path / "manifest.json")
    files = results.data["bundle"]["files"]
    assert files == {name: sha for name, sha in small_bundle.manifest.files.items() if name.startswith(f"{runtime}/")}
    assert {"system", "processor", "num_cpus", "load_before", "versions"} <= set(results.machine)
    assert {"onnxruntime", "executorch", "python"} <= set(results.machine["versions"])
    assert not results.partial


def test_cases_take_turns(measured: Measured) -> None:
    names = ["onnx, 1 thread", "onnx, 2 threads"]
    assert measured["onnx"][1].stderr.splitlines() == [
        *(f"round {i} of 2: {name}" for i in (1, 2) for name in names),
        *(f"profiling {name}" for name in names),
    ]


def test_samples_are_shared_out_over_the_rounds() -> None:
    request = BenchRequest(bundle=Path("a.kind"), repeat=20, rounds=3)
    assert [request.counts_of(i).repeat for i in range(3)] == [7, 7, 6]
    few = BenchRequest(bundle=Path("a.kind"), repeat=2, rounds=3)
    assert [few.counts_of(i).repeat for i in range(few.num_rounds)] == [1, 1]
    long = BenchRequest(bundle=Path("a.kind"), rounds=2, sustain_s=60)
    assert [long.counts_of(i).sustain_s for i in range(2)] == [0, 60]


@needs_no_core_ml
def test_the_evaluator_is_never_timed(small_bundle: Bundle) -> None:
    with pytest.raises(TargetError, match="Core ML runs on Apple's systems only"):
        measure_bundle(BenchRequest(bundle=small_bundle.path, runtimes=("coreml",)))


@needs_no_core_ml
def test_a_bundle_of_core_ml_alone_cannot_be_timed(placeholders: Path) -> None:
    write_manifest(placeholders, ["coreml"])
    with pytest.raises(TargetError, match=r"nothing in .* can be timed here: coreml is left out"):
        measure_bundle(BenchRequest(bundle=placeholders))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sustain", "-1"], "sustain is -1.0, expected 0 to 86400"),
        (["--sustain", "nan"], "sustain is nan, expected 0 to 86400"),
        (["--repeat", "0"], "repeat is 0, expected 1 to 1000000"),
        (["--repeat", "1000000000000"], "repeat is 1000000000000, expected 1 to 1000000"),
        (["--threads", "0"], "threads is 0, expected 1 to 1024"),
        (["--threads", "100000"], "threads is 100000, expected 1 to 1024"),
        (["--threads", "one"], "threads is 'one', expected whole numbers"),
        (["--runtime", "tflite"], "unknown runtime 'tflite'"),
        (["--runtime", "executorch", "--provider", "CPU"], "an ExecuTorch program has no --provider"),
        (["--runtime", "onnx", "--provider", "Quantum"], "this onnxruntime has no provider 'Quantum', only "),
        (["--runtime", "onnx", "-o", "/proc/a.json"], "cannot write"),
    ],
)
def test_what_cannot_be_measured_is_named(small_bundle: Bundle, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["run", str(small_bundle.path), *arguments])
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.skipif("Azure" not in list_providers(), reason="no provider that runs nothing")
def test_a_provider_that_leaves_all_to_the_cpu_is_refused(small_bundle: Bundle) -> None:
    measured = measure_bundle(BenchRequest(bundle=small_bundle.path, runtimes=("onnx",), providers=("Azure",)))
    assert measured.error is not None
    assert "runs no operator of the step" in measured.error.message
    assert measured.results.cases == ()


def test_providers_may_have_their_full_names() -> None:
    request = BenchRequest(bundle=Path("a.kind"), providers=("CPUExecutionProvider", "CoreML"), threads=(1,))
    assert cases._list_options(request, "onnx") == [
        EngineOptions(threads=1, provider="CPU"), EngineOptions(threads=1, provider="CoreML")
    ]  # fmt: skip


def test_core_ml_takes_no_threads() -> None:
    request = BenchRequest(bundle=Path("a.kind"), threads=(1,))
    with pytest.raises(ConfigError, match="Core ML chooses its threads itself"):
        cases._list_options(request, "coreml")


def test_an_interruption_keeps_what_was_measured(small_bundle: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "here.json"
    command = [sys.executable, "-m", "kind_bench.cli", "run", str(small_bundle.path), "-o", str(file)]
    with interruptible([*command, "--runtime", "onnx", "--repeat", "1000000", "--rounds", "1"]) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "round 1 of 1: onnx\n"  # the programs are open
        time.sleep(3)  # samples are handed on twice a second
        workers = _children(process.pid)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted: 1 case kept, marked partial"
    results = read_results(file)
    assert results.partial
    assert len(results.cases[0].step.samples) > 0
    assert results.cases[0].image_ms is None
    assert workers or sys.platform != "linux"
    assert not any(_is_running(worker) for worker in workers)


def test_an_error_keeps_the_cases_before_it(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_worker = cases.run_worker

    def fail(case: Gathering, job: dict[str, Any]) -> Any:
        if case.runtime == "executorch":
            raise BundleError("the second case broke", "mend it")
        return run_worker(case, job)

    monkeypatch.setattr(cases, "run_worker", fail)
    file = tmp_path / "here.json"
    arguments = ["--runtime", "onnx,executorch", "--repeat", "2", "--rounds", "1", "-o", str(file)]
    result = CliRunner().invoke(main, ["run", str(small_bundle.path), *arguments])
    assert result.exit_code == 1
    assert "error: the second case broke" in result.stderr
    assert "(partial: it was cut short)" in result.stdout
    assert [case.runtime for case in read_results(file).cases] == ["onnx"]
    assert read_results(file).partial


def test_a_process_that_dies_is_named(small_bundle: Bundle) -> None:
    case = Gathering(runtime="onnx", options=EngineOptions(threads=2), counts=Counts())
    job = {
        "bundle": str(small_bundle.path),
        "runtime": "onnx",
        "options": asdict(case.options),
        "counts": {"repeats": 1},
    }
    with pytest.raises(KindError, match=r"measured onnx, 2 threads failed with exit code 1: .*repeats"):
        list(cases.run_worker(case, job | {"cold": False, "profile": False}))


def test_the_files_may_be_dropped_from_the_cache(small_bundle: Bundle) -> None:
    request = BenchRequest(bundle=small_bundle.path, runtimes=("onnx",), repeat=1, rounds=1, warmup=0, cold=True)
    data = measure_bundle(request).results.cases[0].data
    assert data["load_ms"]["file_cache"] in ("cold", "unknown")  # unknown: a file system that cannot tell
    assert data["first_picture_ms"] > data["load_ms"]["first"]  # it begins with the opening
    sizes = [file.stat().st_size for file in (small_bundle.path / "onnx").iterdir()]
    assert data["download_bytes"] == sum(sizes)


def test_what_was_read_is_warm(small_bundle: Bundle) -> None:
    request = BenchRequest(bundle=small_bundle.path, runtimes=("onnx",), repeat=1, rounds=1, warmup=0, images=0)
    case = measure_bundle(request).results.cases[0]
    assert case.data["load_ms"]["file_cache"] in ("warm", "unknown")
    assert "whole_image_ms" not in case.data


def _children(pid: int) -> list[int]:
    """The processes that `pid` started; none where there is no /proc."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            state_and_parent = file.read_text().rpartition(")")[2].split()
            if int(state_and_parent[1]) == pid:
                found.append(int(file.parent.name))
    return found


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="a system whose processes can be killed without a word")
def test_a_worker_ends_with_its_parent(small_bundle: Bundle) -> None:
    """A killed parent cannot say so: the end of the worker's stdin does."""
    job = {
        "bundle": str(small_bundle.path), "runtime": "onnx", "options": asdict(EngineOptions()), "cold": False,
        "counts": asdict(Counts(repeat=1_000_000)), "profile": False,
    }  # fmt: skip
    command = [sys.executable, "-P", "-m", "kind_bench.measure.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(json.dumps(job) + "\n")
        worker.stdin.flush()
        assert "opened" in worker.stdout.readline()
        worker.stdin.close()  # what the system does for a parent that was killed
        assert worker.wait(timeout=30) == 1
