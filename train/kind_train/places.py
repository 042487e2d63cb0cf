"""Whether data and devices that a command line names can be there at all. No torch is loaded."""

from __future__ import annotations

import glob
import re
import runpy
from importlib.util import find_spec
from pathlib import Path

from kind_core.errors import ConfigError, DataError, TargetError
from kind_core.files.litter import is_bare, is_hidden
from kind_core.files.near_paths import suggest_path

HUB_PREFIX = "hub:"
CACHE_NAME = "cache.json"
_BRACES = re.compile(r"\{(?:(?P<first>\d{1,9})\.\.(?P<last>\d{1,9})|(?P<words>[^{}]*,[^{}]*))\}")
_MAX_NAMED = 100_000  # in one pair of braces
_DEVICE = re.compile(r"auto|[a-z]+(:\d+)?")
_DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


def require_data(path: str) -> None:
    """Raise DataError where no photos can be at `path`, TargetError where a package is missing to read them."""
    if path.startswith(HUB_PREFIX):
        if find_spec("datasets") is None:
            raise no_datasets(path)
    elif not find_paths(path):
        raise no_data(path)
    elif Path(path).is_dir() and is_bare(Path(path)):
        raise no_classes(path)


def is_cache(path: str | Path) -> bool:
    """Whether `path` is a finished or unfinished cache of latents."""
    return (Path(path) / CACHE_NAME).exists()


def find_paths(pattern: str) -> list[Path]:
    """What a path or a pattern names, in order: `*`, `?`, `**`, and braces as in `shard-{000..003}.tar`.

    Raises DataError where some of what braces name is there and some is not.
    """
    if not pattern:  # of a variable that is not set; it is not the folder one stands in
        return []
    if Path(pattern).exists():
        return [Path(pattern)]
    named = {one: [Path(one)] if Path(one).exists() else _glob(one) for one in _expand_braces(pattern)}
    found = [path for paths in named.values() for path in paths]
    missing = next((one for one, paths in named.items() if not paths), None)
    if found and missing is not None:
        there = sum(map(bool, named.values()))
        message = f"there is no {missing}, but {there} of the {len(named)} files that {pattern} names"
        raise DataError(message, "copy the missing ones, or name those that are there")
    return found


def _glob(pattern: str) -> list[Path]:
    """What a pattern finds, in order, and not in hidden folders, unless it is in one itself.

    A folder whose name has brackets means itself.
    """
    parts = Path(pattern).parts
    start = next((i for i in range(len(parts)) if not Path(*parts[: i + 1]).exists()), len(parts))
    asked = Path(glob.escape(str(Path(*parts[:start]))), *parts[start:])
    found = map(Path, glob.glob(str(asked), recursive=True))
    return sorted(path for path in found if not any(map(is_hidden, path.parts[start:])))


def _expand_braces(pattern: str) -> list[str]:
    """`{000..003}` and `{a,b}` as shells expand them; webdataset's users write their shards so."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    if match["words"] is None:
        first, last = int(match["first"]), int(match["last"])
        if last - first >= _MAX_NAMED:
            raise DataError(
                f"{match[0]} names {last - first + 1} files, expected {_MAX_NAMED} at most", "use * instead"
            )
        parts = [f"{number:0{len(match['first'])}d}" for number in range(first, last + 1)]
    else:
        parts = match["words"].split(",")
    rest = _expand_braces(pattern[match.end() :])
    return [pattern[: match.start()] + part + more for part in parts for more in rest]


def require_device(name: str) -> None:
    """Raise ConfigError for what no device is called; whether it is there is known when torch is loaded."""
    if _DEVICE.fullmatch(name) is None or name.partition(":")[0] not in _DEVICES:
        expected = ", ".join(_DEVICES)
        raise ConfigError(f"device {name!r} cannot be used: expected {expected} or cuda:1", "use --device cpu, or auto")
    if name.startswith("cuda") and _is_for_cpus():
        message = f"device {name!r} cannot be used: the PyTorch that is installed is its build for CPUs"
        raise ConfigError(message, "use --device cpu, or auto; or install the build for your GPU")


def _is_for_cpus() -> bool:
    """Whether the torch that would be loaded knows no GPU of CUDA or ROCm, by the constants that it was built with."""
    spec = find_spec("torch")
    file = None if spec is None or spec.origin is None else Path(spec.origin).with_name("version.py")
    if file is None or not file.is_file():
        return False
    built = runpy.run_path(str(file))
    return "cuda" in built and built["cuda"] is None and built.get("hip") is None


def no_data(path: str) -> DataError:
    """The error for a path where nothing is."""
    near = suggest_path(Path(path)) if path else ""
    return DataError(f"no data at {path or repr(path)}", f"give --data an image folder or a .parquet file{near}")


def no_classes(path: str, held: str = "") -> DataError:
    """The error for a folder without class folders, with what it `held` instead."""
    return DataError(f"{path} holds no class folders{held}", "put the images of each class into a folder of its name")


def no_datasets(path: str) -> TargetError:
    """The error where the package that reads data sets of the Hub is missing."""
    return TargetError(
        f"{path} is read with the package 'datasets', which is not installed", "pip install 'kind-diffusion[data]'"
    )
