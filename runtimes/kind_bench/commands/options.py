"""What the options of several commands are made of."""

from __future__ import annotations

from pathlib import Path

import click

CONTEXT = {"help_option_names": ["-h", "--help"]}
PATH = click.Path(path_type=Path)
RUNTIMES = ("onnx", "executorch", "coreml", "litert")
