"""The sample checkpoint that ships with the package."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path


def sample_checkpoint() -> Path:
    """The folder of the shipped sample checkpoint."""
    with as_file(files(__name__) / "checkpoint") as folder:
        return Path(folder)
