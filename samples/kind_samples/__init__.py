"""The sample checkpoints that ship with the package."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

from kind_core.errors import ConfigError

# Where each lies in this package; the first is the one that commands take where nothing is asked for.
_FOLDERS = {
    "photos": "checkpoint",
    "garments": "garments/checkpoint",
    "photos-teacher": "teacher",
    "garments-teacher": "garments/teacher",
}
SAMPLES = tuple(_FOLDERS)


def sample_checkpoint(name: str = SAMPLES[0]) -> Path:
    """The folder of a shipped checkpoint: `photos` (research only) or `garments` (free to ship).

    Both draw in four steps or fewer; `photos-teacher` and `garments-teacher` are what they were distilled from: those
    take twenty guided ones, and can be trained on, adapted and distilled anew. Raises ConfigError for another name.
    """
    if name not in _FOLDERS:
        raise ConfigError(f"sample is {name!r}, expected one of {', '.join(SAMPLES)}", "or give --checkpoint")
    with as_file(files(__name__).joinpath(*_FOLDERS[name].split("/"))) as folder:
        return Path(folder)
