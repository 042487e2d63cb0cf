"""Options of a run from a YAML file, with the command line's over them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from kind_core.console.commands import split_names
from kind_core.errors import ConfigError
from kind_core.files.regular_files import read_text
from kind_train.config import OPTIONS_NAME, TrainConfig
from kind_train.preset_options import RECIPES, preset_options

_MAX_DEPTH = 8  # of YAML: options are values and lists of names


def load_options(
    path: Path | None,
    flags: Mapping[str, object],
    defaults: Callable[[Mapping[str, object]], Mapping[str, object]] = lambda options: {},
) -> TrainConfig:
    """Options from a YAML file (if any) with `flags` over them; None flags and an empty tuple count as not given.

    `defaults` says what the options that are given imply for others; what nobody says is the preset's.
    """
    options: dict[str, object] = read_yaml(path) if path is not None else {}
    options |= {name: value for name, value in flags.items() if value is not None and value != ()}
    known = {f.name: str(f.type) for f in fields(TrainConfig)}
    _refuse_unknown(options, known)
    recipe = options.get("recipe")
    options = {**defaults(options), **(RECIPES.get(recipe, {}) if isinstance(recipe, str) else {}), **options}
    options = {**preset_options(options), **options}
    for name in ("data", "output"):
        if name not in options:
            raise ConfigError(f"no {name} given", f"add --{name} or `{name}:` in the YAML file")
    return TrainConfig(**{name: _from_yaml(value, known[name]) for name, value in options.items()})


def configure(**options: Any) -> TrainConfig:
    """Options of a run by name, as `kind-train fit` takes them: what is not given is that of the preset.

    Raises ConfigError for an unknown name, and for a value that does not fit.
    """
    return load_options(None, options)


def gather_options(
    path: Path | None,
    flags: Mapping[str, object],
    *,
    resume: bool,
    defaults: Callable[[Mapping[str, object]], Mapping[str, object]] = lambda options: {},
) -> TrainConfig:
    """The same; a resumed run without a file takes the options of its own folder, under the flags."""
    if resume and path is None and flags.get("output"):
        options = Path(str(flags["output"])) / OPTIONS_NAME
        path = options if options.exists() else None
    return load_options(path, flags, defaults)


def check_options(path: Path) -> None:
    """Raise ConfigError where a YAML file holds anything but options of a run."""
    _refuse_unknown(read_yaml(path), {f.name for f in fields(TrainConfig)})


def _refuse_unknown(options: Collection[str], known: Collection[str]) -> None:
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]!r}, expected one of {', '.join(sorted(known))}")


def _from_yaml(value: Any, kind: str) -> Any:
    """`value` as YAML means it: 1e-4 is text to YAML 1.1, and one name may stand without a list."""
    if kind.startswith("float") and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value  # TrainConfig names it
    if kind == "tuple[int, ...]":
        return tuple(value) if isinstance(value, list) else value
    if kind == "tuple[str, ...]":
        return split_names((value,)) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
    return value


def _require_plain(text: str, path: Path, expected: str) -> None:
    """Raise ConfigError before anything is built of aliases, a few of which make gigabytes, or of deep nesting."""
    import yaml

    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > _MAX_DEPTH:
            found = "is nested too deeply" if depth > _MAX_DEPTH else "has an alias, *name"
            raise ConfigError(f"{path} {found}, expected {expected}")


def read_yaml(path: Path, expected: str = "`option: value` lines") -> dict[str, object]:
    """What a YAML file holds, without aliases; raises ConfigError where that is not what is `expected`."""
    import yaml

    try:
        text = read_text(path)
        _require_plain(text, path, expected)
        data = yaml.safe_load(text)
    except FileNotFoundError as error:
        raise ConfigError(f"no YAML file at {path}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply, expected {expected}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"{path} holds {found}, expected {expected}")
    return data
