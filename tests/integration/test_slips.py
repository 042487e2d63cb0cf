"""Slips of the command line: each is told at once, in one line, with the next step in another, and loads no torch."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import spec_from_file_location
from pathlib import Path

import pytest

from kind_core.errors import ConfigError
from kind_samples import sample_checkpoint
from kind_train.places import require_device

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
SAMPLE = shlex.quote(str(sample_checkpoint("photos-teacher")))
TEACHER = f"{EXPORT} --sample photos-teacher"
EVALUATE = f"kind-train evaluate --checkpoint {SAMPLE} --data photos --val-data photos"
FIT = "kind-train fit --data photos --output new"
BENCHMARK = "kind-train benchmark novel-classes --data photos --output new"
SLIPS = (
    # what was typed, the error, the next step
    ("kind-export panda", "'panda' is no command; classes are given by --classes", "--classes panda"),
    ("kind-export --classes --target onnx", "option '--classes' requires an argument", "kind-export --help"),
    ("kind-export --target onnx --classes", "option '--classes' requires an argument", "kind-export --help"),
    ("kind-export -classes panda", "no such option '-classes'. Did you mean '--classes'?", "kind-export --help"),
    ("kind-export clases", "no such command 'clases'. Did you mean 'classes'?", "kind-export --help"),
    (f"{EXPORT} --taget onnx", "no such option '--taget'", "kind-export --help"),
    ("kind-export", "no class was asked for", "--classes NAME"),
    ("kind-export --classes panda", "no target was asked for", "--target coreml, onnx"),
    ("kind-export --classes pnada --target onnx", "unknown class 'pnada', nearest: ", "kind-export classes"),
    ("kind-export --classes panda --target coremll", "'coremll'", ""),
    (f"{EXPORT} --precision int7", "'int7'", ""),
    (f"{EXPORT} --precision palette4 --target onnx", "target 'onnx' has no precision 'palette4'", "--precision"),
    (f"{TEACHER} --steps 5000", "steps is 5000, expected 1 to 1000", "kind-export --help"),
    (f"{EXPORT} --steps 20", "steps is 20, but the model was distilled for 4, 2, 1", "take --steps 4"),
    (f"{EXPORT} --guidance 2", "is built in; --guidance does not apply", "the model that this one was distilled from"),
    (f"{TEACHER} --sampler euler", "sampler 'euler' does not go with", "use --sampler dpmpp or dpmpp1"),
    (f"{EXPORT} --latents-only", "--latents-only was given", "leave it out"),
    ("kind-export --classes a --target onnx --from-diffusers rn/best", "no folder rn/best", "did you mean run/best?"),
    ("kind-export --classes a --target onnx --from-diffusers photos", "is no diffusers folder", "the folder of a DiT"),
    ("kind-export --classes panda --packs --base her.kind", "there is no bundle her.kind", "did you mean here.kind?"),
    (f"{EXPORT} --steps many", "'many' is not a valid integer", "kind-export --help"),
    (f"{EXPORT} --steps 0", "steps is 0, expected 1 or more", ""),
    (f"{EXPORT} --max-size 50XB", "max-size is '50XB', expected a number with kB, MB or GB", "--max-size 50MB"),
    (f"{EXPORT} --device iphone-99", "unknown device 'iphone-99'", "kind-bench devices"),
    (f"{EXPORT} --kit android", "kit 'android' runs onnx or litert programs, but", "--target onnx"),
    (f"{EXPORT} -o here.kind", "here.kind already exists", "--force"),
    (f"{EXPORT} --checkpoint rn/best", "there is no folder rn/best", "hub:rn/best; did you mean run/best?"),
    (f"{EXPORT} --checkpoint notes.txt", "no checkpoint folder at notes.txt", "a folder that holds config.json"),
    (f"{EXPORT} --checkpoint https://a.org/b/c", "there is no folder https:/a.org/b/c", "hub:ORG/NAME"),
    (f"{EXPORT} --checkpoint empty", "empty has no config.json", ""),
    (f"{EXPORT} --sample garment", "'garment'", ""),
    ("kind-export report her.kind", "there is no bundle her.kind", "did you mean here.kind?"),
    ("kind-run", "missing argument 'BUNDLE'", "kind-run draw [OPTIONS] BUNDLE"),
    ("kind-run here", "there is no bundle here", "did you mean here.kind?"),
    ("kind-run here.kind", "here.kind is not a bundle: it has no manifest.json", "make one with kind-export"),
    ("kind-run real.kind/manifest.json", "is not a bundle", "the folder that it lies in: real.kind"),
    ("kind-run here.kind panda", "got unexpected extra argument (panda)", "did you mean --class panda?"),
    ("kind-run srve here.kind", "no such command 'srve'. Did you mean 'serve'?", "kind-run --help"),
    ("kind-run --sed 7 here.kind", "no such option '--sed'", "kind-run draw --help"),
    ("kind-run here.kind --runtime tensorflow", "'tensorflow'", ""),
    ("kind-run serve empty", "empty is not a bundle: it has no manifest.json", "make one with kind-export"),
    ("kind-run inspect step.onnx", "there is no file or folder step.onnx", "give a bundle"),
    ("kind-bench run", "missing argument 'BUNDLE'", "kind-bench run [OPTIONS] BUNDLE"),
    ("kind-bench here.kind", "no such command 'here.kind'", "kind-bench takes run, import"),
    ("kind-bench devices iphone-99", "unknown device 'iphone-99'", "kind-bench devices"),
    ("kind-bench compare a.json b.json", "there is no file a.json", "kind-bench run -o"),
    ("kind-train fit", "no data given", "--data"),
    ("kind-train fit photos -o new", "got unexpected extra argument (photos)", "did you mean --data photos?"),
    ("kind-train fit --data https://a.org/b.zip -o new", "no data at https://a.org/b.zip", "download it first"),
    ("kind-train fit --data photos", "no output given", "--output"),
    ("kind-train fit --data photo --output new", "no data at photo", "did you mean photos?"),
    ("kind-train fit --data empty --output new", "empty holds no class folders", "a folder of its name"),
    ("kind-train fit --data photos --output run", "run holds other files than a run", "a new --output"),
    ("kind-train fit --data photos/a --output new", "photos/a holds no class folders", "a folder of its name"),
    ("kind-train fit --data hollow --output new", "hollow holds no photo", "into its folder"),
    ("kind-train fit --data notes.txt --output new", "neither a folder of photos nor", "an image folder"),
    ("kind-train fit --data hub:org/set --output new", "the package 'datasets', which is not installed", "pip install"),
    (f"{FIT} --device cdua", "device 'cdua' cannot be used", "--device cpu"),
    (f"{FIT} --classes zebra", "unknown class 'zebra'", "photos holds a"),
    (f"{FIT} --preset kind-b/2", "the preset works on 4 channels, the data have 3", "kind-train cache"),
    (f"{FIT} --timestep-mean 0.5", "whose timesteps are all alike", "--noise-schedule flow"),
    (f"{FIT} --preset smaple", "unknown preset 'smaple'", "kind-b/2"),
    (f"{FIT} --images none", "'none' is not a valid integer", "kind-train fit --help"),
    (f"{FIT} --start-from rn/best", "no checkpoint folder at rn/best", "did you mean run/best?"),
    (f"{FIT} --resume", "new holds no training state to resume", "start without --resume"),
    ("kind-train adapt --data photos --output new", "no checkpoint given", "--checkpoint"),
    (f"kind-train adapt --checkpoint {SAMPLE} --data photos -o new --init-from zebra", "class 'zebra'", "classes"),
    ("kind-train cache --data photos --autoencoder vea -o new", "no autoencoder at vea", "as diffusers saves it"),
    ("kind-train add run/bset run/best", "no checkpoint folder at run/bset", "did you mean run/best?"),
    ("kind-train convert run/bset new", "no checkpoint folder at run/bset", "did you mean run/best?"),
    (f"kind-train convert {SAMPLE} run", "run already exists", "--force"),
    (f"kind-train convert {SAMPLE} new --precision int8", "precision is 'int8'", "kind-train convert --help"),
    (f"kind-train convert {SAMPLE} new --sampler euler", "sampler 'euler' does not go with", "dpmpp or dpmpp1"),
    (f"kind-train shrink {SAMPLE} new --construction heur-lg", "is decomposed", "--preset dit-sample"),
    ("kind-train init --from-dit dti --preset kind-b/2 -o new", "there is no folder dti", "check the path"),
    ("kind-train init --from-dit photos -o new", "the ranks come from a preset or from both", "--preset"),
    ("kind-train classifier --data photos --output notes.txt", "notes.txt already exists", "--force"),
    ("kind-train classifier --data photos --images 0 --output new", "images is 0, expected a whole number from 1", ""),
    ("kind-train statistics --data photos --size 8 -o notes.txt", "notes.txt already exists", "--force"),
    ("kind-train benchmark", "missing argument 'SUITE'. Choose from: class-agnostic", "kind-train benchmark [OPTIONS]"),
    ("kind-train benchmark class-agnostic --output photos", "holds other files than results", "an empty --output"),
    (f"{EVALUATE} -o notes.txt", "notes.txt already exists", "--force"),
    (f"{EVALUATE} --classes zebra", "unknown class 'zebra'", "kind-export classes"),
    (f"{EVALUATE} --classes panda", "no class has the id 'n02510455'", "photos holds a (a)"),
    (f"{EVALUATE} --count 0", "count is 0", "kind-train evaluate --help"),
    (f"{EVALUATE} --seed -3", "seed is -3, expected a whole number from 0", "kind-train evaluate --help"),
    (f"{EVALUATE} --guidance nan", "guidance is nan, expected a number", "kind-train evaluate --help"),
    (f"{EVALUATE} --classifier judge.st", "there is no file judge.st", "kind-train classifier"),
    (f"{EVALUATE} --bundle here.kind", "expected one of --checkpoint and --bundle", "one after the other"),
    ("kind-train evaluate --checkpoint run/best", "expected --data and --val-data, or --real", "kind-train statistics"),
    ("kind-train statistics --data photos --size 8 --seed -1 -o new", "seed is -1", "kind-train statistics --help"),
    ("kind-train benchmark class-agnostic --count 0 --output new", "count is 0", "kind-train benchmark --help"),
    (f"{BENCHMARK} --guidance inf", "guidance is inf, expected a number", "kind-train benchmark --help"),
    (f"{BENCHMARK} --steps 0", "steps is 0, expected a whole number from 1", "kind-train benchmark --help"),
    (f"{BENCHMARK} --seeds 1,-1", "seed is -1, expected a whole number from 0", "kind-train benchmark --help"),
    (f"{BENCHMARK} --seeds 1,0,1", "seeds are 1, 0, 1, expected each of them once", "kind-train benchmark --help"),
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
    for name in ("photos/a", "empty", "run/best", "here.kind", "real.kind", "hollow/a"):
        (folder / name).mkdir(parents=True)
    (folder / "real.kind" / "manifest.json").write_text("{}")
    (folder / "notes.txt").write_text("mine")
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


@pytest.mark.parametrize(
    ("built", "is_refused"),
    [("cuda = hip = None", True), ("cuda, hip = '12.8', None", False), ("cuda, hip = None, '6.4'", False)],
)
def test_a_gpu_is_refused_where_torch_knows_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: str, is_refused: bool
) -> None:
    (tmp_path / "version.py").write_text(built)
    spec = spec_from_file_location("torch", tmp_path / "__init__.py")
    monkeypatch.setattr("kind_train.places.find_spec", lambda name: spec)
    with pytest.raises(ConfigError, match="build for CPUs") if is_refused else nullcontext():
        require_device("cuda:1")


def test_nothing_was_written(told: dict[str, Told], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "slips0"
    assert sorted(item.name for item in folder.iterdir()) == [
        "empty", "here.kind", "hidden", "hollow", "notes.txt", "photos", "real.kind", "run",
    ]  # fmt: skip
