"""One vocabulary of options over all commands: other spellings, units, choices, and how much is said.

A command declares what it takes; what is the same everywhere is added here when it joins its program, so that no
command can forget it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

# Spellings of one option; whichever a command declares, it takes the others too. The first is shown in the help.
SPELLINGS = (
    ("-o", "--output"),
    ("--classes", "--class"),
    ("--class", "--classes"),
    ("--licence", "--license"),
    ("--compute", "--precision"),
)
# What a number counts, with the names of the options that count it.
_COUNTED = {
    "CALLS": ("warmup",),
    "FACTOR": ("ema_decay", "scale", "weight_decay"),
    "IMAGES": ("base_images", "batch_size", "images", "sample_every", "save_every", "warmup_images"),
    "MS": ("max_image_ms", "max_step_ms"),
    "NORM": ("max_grad_norm",),
    "NUMBER": ("timestep_mean", "timestep_std"),
    "PICTURES": ("columns", "count", "cross_count"),
    "PIXELS": ("match_size", "size"),
    "PORT": ("port",),
    "PROCESSES": ("rounds",),
    "RANK": ("learngene_rank", "max_rank", "tailor_rank"),
    "RATE": ("learning_rate",),
    "SAMPLES": ("repeat",),
    "SCALE": ("guidance",),
    "SECONDS": ("sustain_s", "timeout_s"),
    "SEED": ("seed",),
    "SHARE": ("decay_fraction", "energy", "label_dropout", "val_fraction"),
    "STEPS": ("steps",),
    "TASKS": ("episodes",),
    "WEIGHT": ("follow", "match_photos", "perceptual", "repa"),
}
UNITS = {name: unit for unit, names in _COUNTED.items() for name in names}
PATH = click.Path(path_type=Path)  # of a file or a folder, which need not be there
VERBOSITY = "kind_core.verbosity"  # in the context of a command, see `kind_core.console.verbosity`


class Named(click.Choice[str]):
    """Names that help and completion list; what is none of them is refused where it is used, in that error's words.

    An option that is repeated or comma-parted takes several of them in one value.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value)


def join_vocabulary(command: click.Command) -> None:
    """Give the options of a command their other spellings and units."""
    for one in command.params:
        if isinstance(one, click.Option):
            _spell(one, {spelling for other in command.params for spelling in other.opts})
            if one.metavar is None and isinstance(one.type, click.types.IntParamType | click.types.FloatParamType):
                one.metavar = UNITS.get(one.name or "")


def _spell(option: click.Option, taken: Iterable[str]) -> None:
    for spellings in SPELLINGS:
        if spellings[0] in option.opts or (spellings[0] == "-o" and "--output" in option.opts):
            option.opts += [one for one in spellings if one not in taken]
            option.opts.sort(key=lambda one: spellings.index(one) if one in spellings else -1)
            return


def _set_verbosity(context: click.Context, option: click.Parameter, is_given: bool) -> None:
    if is_given:
        context.find_root().meta[VERBOSITY] = -1 if "--quiet" in option.opts else 1


def _verbosity_option(*names: str, help: str) -> click.Option:
    return click.Option(names, is_flag=True, expose_value=False, is_eager=True, callback=_set_verbosity, help=help)


VERBOSITY_OPTIONS = (
    _verbosity_option("-q", "--quiet", help="Print results and errors only."),
    _verbosity_option("-v", "--verbose", help="Say of an error where in the code it comes from."),
)
