"""What the command lines share: one clear line for an error, progress on stderr, exit codes."""

from __future__ import annotations

import csv
import io
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from traceback import format_exception
from typing import IO, Any, ParamSpec, TypeVar

import click
from click.shell_completion import get_completion_class

from kind_core.console import clean, echo_lines, tell, verbosity
from kind_core.console.vocabulary import VERBOSITY_OPTIONS, join_vocabulary
from kind_core.errors import (
    BundleError,
    CheckpointError,
    ClassNameError,
    ConfigError,
    DataError,
    DeviceError,
    KindError,
    OutputError,
    ResultsError,
)
from kind_core.samplers import ALL_STEPS
from kind_core.stopping import exit_code, stoppable

_P = ParamSpec("_P")
_R = TypeVar("_R")
_C = TypeVar("_C", bound=Callable[..., object])
SHELLS = ("bash", "zsh", "fish")


def report_errors(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Turn a KindError into `error: <message>` and a hint on stderr with exit code 1, and Ctrl-C into exit code 130.

    What the system refuses, by an OSError or for want of memory, is one line too. SIGTERM ends it as Ctrl-C does.
    """

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        take_any_text()
        try:
            with stoppable():
                return command(*args, **kwargs)
        except KindError as error:
            if verbosity() > 0:
                echo_lines("".join(format_exception(error)), err=True)
            tell(f"error: {error.message}")
            step = next((step for kind, step in _NEXT_STEPS.items() if isinstance(error, kind)), None)
            tell(f"hint: {error.hint or step or _say_where(click.get_current_context(silent=True))}")
            sys.exit(1)
        except BrokenPipeError:
            raise  # nobody reads any more, which click ends quietly
        except OSError as error:  # a name that is too long, a loop of links, a disk that went away
            where = "" if error.filename is None else f": {error.filename}"
            tell(f"error: {error.strerror or error}{where}")
            tell("hint: with -v it is said where in the code this comes from")
            sys.exit(1)
        except MemoryError:
            tell("error: there is not enough memory for this")
            tell("hint: ask for less at a time (classes, --batch-size, --count), or end other programs")
            sys.exit(1)
        except KeyboardInterrupt as error:
            tell("interrupted: nothing was published")
            sys.exit(exit_code(error))

    return run


# The next step after an error that names none itself; of the others the help is where to go on.
_NEXT_STEPS: dict[type[KindError], str] = {
    CheckpointError: "copy the checkpoint again, or give another",
    ClassNameError: "rename the class",
    DataError: "mend it, or take it out of the data",
    BundleError: "copy or export the bundle again",
    ResultsError: "measure again: kind-bench run -o",
    OutputError: "choose another --output",
    DeviceError: "kind-bench devices lists those that are known",
}


def _say_where(context: click.Context | None) -> str:
    return "--help lists what it takes" if context is None else f"{context.command_path} --help lists what it takes"


def take_any_text() -> None:
    """Let stdout and stderr write letters that their terminal does not have as escapes, in place of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


class PlainCommand(click.Command):
    """A command that takes -q and -v, as all do, and sees slips which its parser would take for something else."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        *own, last = super().get_params(ctx)  # the last is --help, which click itself adds
        return [*own, *VERBOSITY_OPTIONS, last]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # as completion parses
            _refuse_swallowed(self, ctx, args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # the parser leaves it out where a value is missing
            raise


def _refuse_swallowed(command: click.Command, ctx: click.Context, args: list[str]) -> None:
    """Raise UsageError where an option would take the next option for its value, or has one dash in place of two."""
    options = [one for one in command.get_params(ctx) if isinstance(one, click.Option)]
    known = {spelling for one in options for spelling in (*one.opts, *one.secondary_opts)}
    valued = {spelling for one in options if not one.is_flag for spelling in one.opts}
    inner = command.commands if isinstance(command, click.Group) else {}
    before = ""
    for word in args:
        name = word.partition("=")[0]
        if word == "--" or word in inner:  # what follows is no option, or one of another command
            return
        if before in valued and word in known:
            raise click.BadOptionUsage(before, f"Option {before!r} requires an argument.", ctx)
        if before not in valued and name not in known and f"-{name}" in known:
            raise click.NoSuchOption(name, possibilities=[f"-{name}"], ctx=ctx)
        before = word


class PlainGroup(PlainCommand, click.Group):
    """A group of commands of one vocabulary, whose errors of usage show what was typed as text, whatever it holds."""

    command_class = PlainCommand

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        join_vocabulary(self)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        join_vocabulary(cmd)
        super().add_command(cmd, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands, each with its whole first sentence."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(limit=1000)) for name, one in self.commands.items()])

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _cleaned():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _cleaned():
            return super().invoke(ctx)


class OneLineUsageError(click.UsageError):
    """An error of usage in one line, with the next step in another, as every other error is told."""

    def __init__(self, message: str, ctx: click.Context | None = None, hint: str = "") -> None:
        super().__init__(clean(message), ctx)
        self.hint = hint

    def show(self, file: IO[Any] | None = None) -> None:
        tell(f"error: {self.message[:1].lower()}{self.message[1:].removesuffix('.')}")
        tell(f"hint: {self.hint or _say_where(self.ctx)}")


@contextmanager
def _cleaned() -> Iterator[None]:
    take_any_text()
    try:
        yield
    except (OneLineUsageError, click.exceptions.NoArgsIsHelpError):
        raise  # said already; or nothing was typed, and several lines are meant
    except click.MissingParameter as error:
        is_place = error.ctx is not None and isinstance(error.param, click.Argument)
        usage = " ".join(error.ctx.get_usage().removeprefix("Usage: ").split()) if error.ctx and is_place else ""
        raise OneLineUsageError(" ".join(error.format_message().split()), error.ctx, usage) from error
    except click.UsageError as error:
        raise OneLineUsageError(error.format_message(), error.ctx, _hint_of_usage(error)) from error


def _hint_of_usage(error: click.UsageError) -> str:
    """What a word may have meant that is neither a command nor expected at its place; empty for other errors."""
    if error.ctx is None:
        return ""
    command = error.ctx.command
    if isinstance(error, click.exceptions.NoSuchCommand) and isinstance(command, click.Group):
        return "" if error.possibilities else f"{error.ctx.command_path} takes {', '.join(command.commands)}"
    found = re.fullmatch(r"Got unexpected extra arguments? \((?P<words>.*)\)\.?", error.format_message())
    if found is None:
        return ""
    taken = {spelling for one in command.params for spelling in one.opts}
    option = "--data" if Path(found["words"]).exists() else "--class"
    return f"did you mean {shlex.join([option, found['words']])}?" if option in taken else ""


def completion_option(program: str) -> Callable[[_C], _C]:
    """`--completion SHELL` of a command: prints the script that completes it, for bash, zsh or fish."""

    def show(context: click.Context, parameter: click.Parameter, shell: str | None) -> None:
        if shell is None:
            return
        found = get_completion_class(shell)
        assert found is not None, shell
        variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
        echo_lines(found(context.command, {}, program, variable).source())
        context.exit()

    return click.option(
        "--completion",
        type=click.Choice(SHELLS),
        is_eager=True,
        expose_value=False,
        callback=show,
        help=f"Print a script that completes {program} in this shell.",
    )


def split_names(given: Sequence[str]) -> tuple[str, ...]:
    """Names given comma-parted, repeated, or both; a name with a comma of its own in double quotes."""
    return tuple(name for row in split_rows(given, ",") for name in row if name)


def split_rows(given: Sequence[str], separator: str) -> list[tuple[str, ...]]:
    """The names in each text; one with the separator in it stands in double quotes. Raises ConfigError."""
    texts = (" ".join(part.split()) for part in given)
    try:
        rows = list(csv.reader(texts, delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise ConfigError(f"a name is none: {error}", "write names as kind-export classes lists them") from error
    return [tuple(name.strip() for name in row) for row in rows]


def parse_counts(option: str, text: str) -> tuple[int, ...]:
    """`4,2,1` as whole numbers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"{option} is {text!r}, expected whole numbers with commas between", f"for example --{option} 4,2,1"
        ) from error


def parse_interval(text: str | None) -> tuple[float, float]:
    """`lo,hi` as two numbers; all steps where there is no text."""
    if text is None:
        return ALL_STEPS
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"guidance-interval is {text!r}, expected two numbers from 0 to 1 with a comma between",
            "for example --guidance-interval 0.2,0.8",
        ) from error
    return low, high
