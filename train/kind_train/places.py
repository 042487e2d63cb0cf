"""Whether data and devices that a command line names can be there at all. No torch is loaded."""

from __future__ import annotations

import glob
import re
from importlib.util import find_spec
from pathlib import Path

from kind_core.errors import ConfigError, DataError, TargetError
from kind_core.files.litter import is_bare
from kind_core.files.near_paths import suggest_path

HUB_PREFIX = "hub:"
_DEVICE = re.compile(r"auto|[a-z]+(:\d+)?")
_DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


def require_data(path: str) -> None:
    """Raise DataError where no photos can be at `path`, TargetError where a package is missing to read them."""
    if path.startswith(HUB_PREFIX):
        if find_spec("datasets") is None:
            raise no_datasets(path)
    elif not Path(path).exists() and not any(glob.iglob(path, recursive=True)):
        raise no_data(path)
    elif Path(path).is_dir() and is_bare(Path(path)):
        raise no_classes(path)


def require_device(name: str) -> None:
    """Raise ConfigError for what no device is called; whether it is there is known when torch is loaded."""
    if _DEVICE.fullmatch(name) is None or name.partition(":")[0] not in _DEVICES:
        expected = ", ".join(_DEVICES)
        raise ConfigError(f"device {name!r} cannot be used: expected {expected} or cuda:1", "use --device cpu, or auto")


def no_data(path: str) -> DataError:
    """The error for a path where nothing is."""
    return DataError(f"no data at {path}", f"give --data an image folder or a .parquet file{suggest_path(Path(path))}")


def no_classes(path: str, held: str = "") -> DataError:
    """The error for a folder without class folders, with what it `held` instead."""
    return DataError(f"{path} holds no class folders{held}", "put the images of each class into a folder of its name")


def no_datasets(path: str) -> TargetError:
    """The error where the package that reads data sets of the Hub is missing."""
    return TargetError(
        f"{path} is read with the package 'datasets', which is not installed", "pip install 'kind-diffusion[data]'"
    )
