"""A component of a diffusers folder: its settings, with what they leave out as diffusers itself fills it in.

Every config of diffusers is read here: autoencoder, transformer and scheduler.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError

from kind_core.console.quiet import without_import_noise
from kind_core.errors import CheckpointError, ConfigError, KindError
from kind_core.files.json_files import read_object
from kind_core.files.tensor_files import read_pickled
from kind_core.files.weight_files import find_misfit

_MAX_WHOLE = 2**31 - 1  # what a size of a tensor may be, wherever it is run
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """The settings in `file`, all that the diffusers class `kind` takes: `values` as stored or else its defaults."""

    file: Path
    kind: str
    values: Mapping[str, Any]

    def refuse(self, name: str, expected: str, hint: str = "") -> ConfigError:
        """The error that says that a setting does not fit."""
        return ConfigError(f"{self.file} has {name} {shorten(self.values[name])}, expected {expected}", hint)


def read_component(
    file: Path, kinds: Mapping[str, str], error: type[KindError] = CheckpointError, hint: str = ""
) -> Component:
    """Read a config file; `kinds` are the class names that it may have, each with the class that diffusers makes of it.

    Raises `error` for a file that cannot be read or is of another class, ConfigError for a value of another type.
    """
    data = read_object(file, error, hint)
    name = data.get("_class_name")
    if not isinstance(name, str) or name not in kinds:
        raise error(f"{file} is of a {name}, expected one of {', '.join(dict.fromkeys(kinds.values()))}", hint)
    types_of, values = _signature(kinds[name])
    # diffusers notes there which values were its defaults of the time, and takes today's instead
    unsaid = data.get("_use_default_values") or ()
    for key, expected in types_of.items():
        if key not in data or (isinstance(unsaid, list) and key in unsaid):
            continue
        is_default = type(data[key]) is type(values[key]) and data[key] == values[key]
        if not (is_default or _fits(data[key], expected)):
            raise ConfigError(f"{file}: {key} is {shorten(data[key])}, expected {_describe(expected)}")
        values[key] = data[key]
    return Component(file=file, kind=kinds[name], values=values)


def load_component(folder: Path, kind: str, what: str) -> Any:
    """The diffusers model `kind` in a local folder, in fp32, every weight of it from its files; no pickle is run.

    Raises CheckpointError, which calls it `what`.
    """
    _require_weights(folder)
    with without_import_noise():
        import diffusers
        from diffusers.utils import logging

        model_class = getattr(diffusers, kind)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # older folders hold settings that these classes no longer have
    try:
        model, loaded = model_class.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except Exception as error:  # whatever a class of diffusers makes of settings and files that do not go together
        reason = " ".join(str(error).split())
        raise CheckpointError(f"diffusers cannot load the {what} at {folder}: {reason}", "download it again") from error
    finally:
        logging.set_verbosity(verbosity)
    lacking = [*loaded["missing_keys"], *(str(key) for key in loaded["mismatched_keys"])]
    if lacking:  # diffusers would draw them
        raise CheckpointError(f"the weights in {folder} lack {len(lacking)} tensors, of them {lacking[0]}")
    return model.float().eval()


def _require_weights(folder: Path) -> None:
    """Raise CheckpointError for what diffusers would cast or not explain: integers, fp8, pointers of Git LFS."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            misfit = find_misfit(file)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file} is not a whole safetensors file: {error}", "download it again") from error
        if misfit is not None:
            raise CheckpointError(f"{file} {misfit}", "download it again")
    for file in sorted(folder.glob("*.bin")):
        read_pickled(file)


def _signature(kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Type and default of every setting of a diffusers class."""
    with without_import_noise():
        import diffusers

        made = getattr(diffusers, kind).__init__
    parameters = {name: one for name, one in inspect.signature(made).parameters.items() if name != "self"}
    hints = get_type_hints(inspect.unwrap(made))
    return {name: hints[name] for name in parameters}, {name: one.default for name, one in parameters.items()}


def default_settings(kind: str) -> dict[str, Any]:
    """What a diffusers class takes where nothing is said."""
    return _signature(kind)[1]


def _fits(value: object, expected: Any) -> bool:
    """Whether a value of a JSON file is what a type hint of diffusers means."""
    origin, parts = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin in (list, tuple):  # diffusers writes tuple[int] for any number of them
        return isinstance(value, list) and all(_fits(one, parts[0]) for one in value)
    if isinstance(value, bool) or expected is bool:
        return isinstance(value, bool) and expected is bool
    if expected is float:
        return isinstance(value, int | float) and abs(value) <= _MAX_WHOLE and math.isfinite(value)
    if expected is int:
        return isinstance(value, int) and abs(value) <= _MAX_WHOLE
    return isinstance(expected, type) and isinstance(value, expected)


def _describe(expected: Any) -> str:
    origin, parts = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(part) for part in parts if part in _WORDS or get_origin(part))
    if origin is Literal:
        return f"one of {', '.join(parts)}"
    if origin in (list, tuple):
        return f"a list of which each is {_describe(parts[0])}"
    return _WORDS.get(expected, str(expected))


def shorten(value: object) -> str:
    """A value of a file as an error shows it."""
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."
