"""Adding `kind` to `optimum-cli export`, where that was asked for.

optimum finds commands as files in its own namespace. A package that ships such a file claims that namespace: without
optimum, programs then take it for installed, and with it diffusers warns that there are two. So the file is not in the
wheel; a command puts it into the folder of the installed optimum.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from kind_core.errors import OutputError, TargetError

_PLACE = "optimum/commands/register/register_kind.py"
# harmless where this package was uninstalled since
_TEXT = '''"""Adds `kind` to `optimum-cli export`; written by `kind-export register-optimum`, which also removes it."""

from importlib.util import find_spec

from optimum.commands.export.base import ExportCommand

REGISTER_COMMANDS = []
if find_spec("kind_export") is not None:
    from kind_export.optimum_command import KindExportCommand

    REGISTER_COMMANDS.append((KindExportCommand, ExportCommand))
'''


def register() -> Path:
    """Write the file that optimum looks for; raises TargetError without optimum, OutputError where that is closed."""
    file = _locate()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_TEXT, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error.strerror}", "use an environment of your own") from error
    return file


def unregister() -> Path:
    """Remove what `register` wrote, and its folder where nothing else is in it."""
    file = _locate()
    try:
        file.unlink(missing_ok=True)
        if file.parent.is_dir() and all(entry.name == "__pycache__" for entry in file.parent.iterdir()):
            _remove_folder(file.parent)
    except OSError as error:
        raise OutputError(f"cannot remove {file}: {error.strerror}", "use an environment of your own") from error
    return file


def _remove_folder(folder: Path) -> None:
    for compiled in folder.rglob("*.pyc"):
        compiled.unlink()
    for inner in (*folder.iterdir(), folder):
        inner.rmdir()


def _locate() -> Path:
    """Where optimum, as it is installed, looks for the file of a command."""
    try:
        return Path(str(distribution("optimum").locate_file(_PLACE)))
    except PackageNotFoundError as error:
        raise TargetError("optimum is not installed", "pip install 'kind-diffusion[optimum]'") from error
