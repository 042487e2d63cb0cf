"""Command lines start fast because these imports load nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from kind_core.checkpoint import save_checkpoint
from kind_samples import sample_checkpoint
from kind_train.cli import main as train
from tiny import tiny_config, tiny_model, tiny_model_config

HEAVY = {"torch", "diffusers", "coremltools", "onnx", "onnxruntime", "executorch", "safetensors", "PIL"}
PACKAGES = ["kind_core", "kind_export", "kind_runtimes", "kind_bench", "kind_train"]
LIGHT_MODULES = ["errors", "classes", "config", "flops", "noise", "files.staging"]


def _loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    loaded = _loaded_by(f"import kind_core.{module}")
    assert f"kind_core.{module}" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_none_of_its_modules(package: str) -> None:
    loaded = _loaded_by(f"import {package}")
    assert loaded & HEAVY == set()
    assert {name for name in loaded if name.startswith("kind_")} == {package}


def test_numpy_alone_comes_with_noise() -> None:
    assert "numpy" not in _loaded_by("import kind_core.flops, kind_core.classes")
    assert "numpy" in _loaded_by("import kind_core.noise")


def test_public_names_load_no_more_than_they_need() -> None:
    assert "torch" not in _loaded_by("from kind_core import preset, KindError, ModelConfig, resolve_class")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there(package: str) -> None:
    module = import_module(package)
    assert all(getattr(module, name).__name__ == name for name in module.__all__)
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match="nothing"):
        module.nothing  # noqa: B018


@pytest.mark.parametrize("command", ["kind_runtimes.cli", "kind_bench.cli", "kind_export.cli", "kind_train.cli"])
def test_help_of_a_command_line_loads_nothing_heavy(command: str) -> None:
    loaded = _loaded_by(f"from {command} import main\nmain(['--help'], standalone_mode=False)")
    assert command in loaded
    assert loaded & (HEAVY | {"numpy", "rich", "jsonschema"}) == set()


# Runs command lines one after the other up to where torch would be loaded, and prints what each had said by then.
SPEAKER = """
import io, json, shlex, sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise SystemExit("torch")
sys.meta_path.insert(0, Stop())
for command in json.load(sys.stdin):
    module, *words = shlex.split(command)
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()):
        try:
            import_module(module).main(words, prog_name="x")
        except SystemExit as error:
            end = error.code
    print(json.dumps([end, said.getvalue()]))
"""


def test_a_command_speaks_before_it_loads_torch(tmp_path: Path) -> None:
    """What comes then takes seconds, and silence looks like a fault."""
    panda = tmp_path / "photos" / "n02510455_panda"
    panda.mkdir(parents=True)
    for folder in ("vae", "dit"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text("{}")
    for file in ("text_encoder/config.json", "tokenizer/tokenizer_config.json"):
        (tmp_path / "pixart" / file).parent.mkdir(parents=True)
        (tmp_path / "pixart" / file).write_text("{}")
    dense = tiny_config(learngene_rank=None, tailor_rank=0)
    save_checkpoint(tmp_path / "dense", tiny_model_config(dense), tiny_model(dense))
    start = sample_checkpoint("photos-teacher")
    commands = (
        "kind_train.cli fit --data photos --output run",
        f"kind_train.cli adapt --data photos --output run --checkpoint {start}",
        f"kind_train.cli convert {start} out",
        f"kind_train.cli add {start} {start}",
        f"kind_train.cli evaluate --checkpoint {start} --classes panda --data photos --val-data photos",
        "kind_train.cli classifier --data photos -o judge.safetensors",
        "kind_train.cli benchmark class-agnostic --sample photos --output table",
        "kind_train.cli statistics --data photos --size 32 -o real.safetensors",
        "kind_train.cli shrink dense smaller --construction laptop-diff --data photos",
        f"kind_train.cli distill --checkpoint {sample_checkpoint('garments-teacher')} --data photos --steps 2 -o few",
        "kind_train.cli cache --data photos --autoencoder vae --output latents",
        "kind_train.cli embed --caption lighthouse --text-encoder pixart --output words.safetensors",
        "kind_train.cli init --from-dit dit --preset kind-b/2 -o out",
        "kind_export.cli --classes panda --target onnx",
    )
    named = {command.split()[1] for command in commands}
    assert set(train.commands) - named == {"imagenet-split"}, "a command of training that needs no torch?"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    (panda / "1.png").write_bytes(b"")
    result = subprocess.run(
        [sys.executable, "-c", SPEAKER],
        input=json.dumps(commands), env=env, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = [json.loads(line) for line in result.stdout.splitlines()]
    for command, (end, said) in zip(commands, told, strict=True):
        assert end == "torch", f"{command}: {said}"
        assert "loading" in said, command
