"""Slips of the command line: each is told at once, in one line, with the next step in another, and loads no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

# Runs many commands one after the other, and says of each what it printed, its seconds, and whether torch came in.
RUNNER = """
import io, json, shlex, sys, time
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
MODULES = {"kind-export": "kind_export", "kind-run": "kind_runtimes", "kind-bench": "kind_bench",
           "kind-train": "kind_train"}
programs = {name: import_module(f"{module}.cli").main for name, module in MODULES.items()}
for command in json.load(sys.stdin):
    name, *words = shlex.split(command)
    out, err, start, code = io.StringIO(), io.StringIO(), time.process_time(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            programs[name](words, prog_name=name)
        except SystemExit as error:
            code = error.code
    told = {"stdout": out.getvalue(), "stderr": err.getvalue(), "code": code,
            "seconds": time.process_time() - start, "torch": "torch" in sys.modules}
    print(json.dumps(told), flush=True)
"""
EXPORT = "kind-export --classes panda --target coreml"
FIT = "kind-train fit --data photos --output new"
SLIPS = (
    # what was typed, the error, the next step
    ("kind-export panda", "'panda' is no command; classes are given by --classes", "--classes panda"),
    ("kind-export clases", "no such command 'clases'. Did you mean 'classes'?", "kind-export --help"),
    (f"{EXPORT} --taget onnx", "no such option '--taget'", "kind-export --help"),
    ("kind-export", "no class was asked for", "--classes NAME"),
    ("kind-export --classes panda", "no target was asked for", "--target coreml, onnx"),
    ("kind-export --classes pnada --target onnx", "unknown class 'pnada', nearest: ", "kind-export classes"),
    ("kind-export --classes panda --target coremll", "'coremll'", ""),
    (f"{EXPORT} --precision int7", "'int7'", ""),
    (f"{EXPORT} --steps many", "'many' is not a valid integer", "kind-export --help"),
    (f"{EXPORT} --steps 0", "steps is 0, expected 1 or more", ""),
    (f"{EXPORT} --max-size 50XB", "max-size is '50XB', expected a number with kB, MB or GB", "--max-size 50MB"),
    (f"{EXPORT} --device iphone-99", "unknown device 'iphone-99'", "kind-bench devices"),
    (f"{EXPORT} --kit android", "kit 'android' runs onnx or litert programs, but", "--target onnx"),
    (f"{EXPORT} -o here.kind", "here.kind already exists", "--force"),
    (f"{EXPORT} --checkpoint rn/best", "there is no folder rn/best", "hub:rn/best; did you mean run/best?"),
    (f"{EXPORT} --checkpoint empty", "empty has no config.json", ""),
    (f"{EXPORT} --sample garment", "'garment'", ""),
    ("kind-export report her.kind", "there is no bundle her.kind", "did you mean here.kind?"),
    ("kind-run", "missing argument 'BUNDLE'", "kind-run draw [OPTIONS] BUNDLE"),
    ("kind-run here", "there is no bundle here", "did you mean here.kind?"),
    ("kind-run here.kind", "here.kind is not a bundle: it has no manifest.json", "make one with kind-export"),
    ("kind-run --sed 7 here.kind", "no such option '--sed'", "kind-run draw --help"),
    ("kind-run here.kind --runtime tensorflow", "'tensorflow'", ""),
    ("kind-run serve empty", "empty is not a bundle: it has no manifest.json", "make one with kind-export"),
    ("kind-run inspect step.onnx", "there is no file or folder step.onnx", "give a bundle"),
    ("kind-bench run", "missing argument 'BUNDLE'", "kind-bench run [OPTIONS] BUNDLE"),
    ("kind-bench devices iphone-99", "unknown device 'iphone-99'", "kind-bench devices"),
    ("kind-bench compare a.json b.json", "there is no file a.json", "kind-bench run -o"),
    ("kind-train fit", "no data given", "--data"),
    ("kind-train fit --data photos", "no output given", "--output"),
    ("kind-train fit --data photo --output new", "no data at photo", "did you mean photos?"),
    ("kind-train fit --data empty --output new", "empty holds no class folders", "a folder of its name"),
    ("kind-train fit --data photos --output run", "run holds other files than a run", "a new --output"),
    ("kind-train fit --data hub:org/set --output new", "the package 'datasets', which is not installed", "pip install"),
    (f"{FIT} --device cdua", "device 'cdua' cannot be used", "--device cpu"),
    (f"{FIT} --preset smaple", "unknown preset 'smaple'", "kind-b/2"),
    (f"{FIT} --images none", "'none' is not a valid integer", "kind-train fit --help"),
    (f"{FIT} --start-from rn/best", "no checkpoint folder at rn/best", "did you mean run/best?"),
    (f"{FIT} --resume", "new holds no training state to resume", "start without --resume"),
    ("kind-train adapt --data photos --output new", "no checkpoint given", "--checkpoint"),
    ("kind-train evaluate --checkpoint run/best", "expected --data and --val-data, or --real", "kind-train statistics"),
    ("kind-train statistics --data photo --size 8 -o new", "no data at photo", "did you mean photos?"),
    ("kind-train shrink rn/best new --construction heur-lg", "no checkpoint folder at rn/best", "run/best"),
    ("kind-train benchmark table-9 --output new", "there is no suite 'table-9'", "kind-train benchmark --help"),
    ("kind-train benchmark novel-classes --methods lorra --output new", "no method 'lorra'", "kind-train benchmark"),
    ("kind-train benchmark novel-classes --output new", "expected photos of new classes", "--data photos/"),
    ("kind-train benchmark novel-classes --data photo --output new", "no data at photo", "did you mean photos?"),
)  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What a command said of a slip; `torch`: whether it, or one before it, loaded torch."""

    stdout: str
    stderr: str
    code: int
    seconds: float
    torch: bool


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    """Every slip, in a folder with photos, an empty folder, a run that is none, and a bundle without a manifest."""
    folder = tmp_path_factory.mktemp("slips")
    for name in ("photos/a", "empty", "run/best", "here.kind"):
        (folder / name).mkdir(parents=True)
    (folder / "photos" / "a" / "1.png").write_bytes(b"")
    (folder / "run" / "notes.txt").write_text("mine")
    hidden = folder / "hidden"  # so that the extra is missing, whatever is installed
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'datasets' else find(name, package)\n"
    )
    path = os.pathsep.join([str(hidden), *(part for part in sys.path if part)])
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], input=json.dumps([slip[0] for slip in SLIPS]), text=True, cwd=folder,
        capture_output=True, env={**os.environ, "PYTHONPATH": path}, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    return {slip[0]: Told(**json.loads(line)) for slip, line in zip(SLIPS, lines, strict=True)}


@pytest.mark.parametrize(("command", "error", "step"), SLIPS, ids=[slip[0] for slip in SLIPS])
def test_a_slip_is_told_at_once(told: dict[str, Told], command: str, error: str, step: str) -> None:
    one = told[command]
    assert one.code in (1, 2)
    assert one.stdout == ""
    first, *rest = one.stderr.splitlines()
    assert first.startswith("error: ")
    assert error in first
    assert len(rest) == 1, "the next step is missing"
    assert rest[0].startswith("hint: ")
    assert step in rest[0]
    assert not one.torch
    assert one.seconds < 1


def test_nothing_was_written(told: dict[str, Told], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "slips0"
    assert sorted(item.name for item in folder.iterdir()) == ["empty", "here.kind", "hidden", "photos", "run"]
