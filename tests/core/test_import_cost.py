"""Command lines start fast because these imports load nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module

import pytest

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
