"""`optimum-cli export kind`: the options of `kind-export`, one to one, handed on to it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator
from functools import partial
from inspect import cleandoc

import click
from optimum.commands.base import BaseOptimumCLICommand, CommandInfo

from kind_export.cli import main

_PROGRAM = "optimum-cli export kind"


class KindExportCommand(BaseOptimumCLICommand):  # type: ignore[misc]  # optimum is not typed
    """Registered with optimum by the file that `kind-export register-optimum` writes."""

    COMMAND = CommandInfo(
        name="kind", help="Export classes of a decomposable DiT to Core ML, ONNX, ExecuTorch or diffusers."
    )

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Give `parser` every option of `kind-export`; click itself checks their values."""
        parser.formatter_class = RawDescriptionHelpFormatter
        text = cleandoc((main.help or "").replace("\b", "")).replace("kind-export", _PROGRAM)
        others = tuple(f"{_PROGRAM} {name}" for name in main.commands)  # which this one does not take
        parser.description = "\n".join(line for line in text.splitlines() if not line.strip().startswith(others))
        for option in _options():
            add = partial(
                parser.add_argument, *option.opts, dest=option.name, help=(option.help or "").replace("%", "%%")
            )
            if option.is_flag:
                add(action="store_true")
            else:
                add(metavar=option.metavar or _name_values(option), action="append" if option.multiple else "store")

    def run(self) -> None:
        """Call `kind-export` with what was given; it prints and ends the process."""
        main(args=list(_arguments(self.args)), prog_name=_PROGRAM)


def _name_values(option: click.Option) -> str:
    """The names that an option takes, or what it holds; without brackets, on which argparse stumbles."""
    kind = option.type
    return "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else kind.name.upper()


def _options() -> Iterator[click.Option]:
    """Those that ask for something; help, version and verbosity are argparse's and optimum's own."""
    for option in main.params:
        if isinstance(option, click.Option) and not option.is_eager:
            yield option


def _arguments(args: Namespace) -> Iterator[str]:
    for option in _options():
        value, flag = getattr(args, option.name or ""), max(option.opts, key=len)
        if option.is_flag:
            yield from [flag] if value else []
        else:
            for one in value if option.multiple and value else [value] if value is not None else []:
                yield f"{flag}={one}"
