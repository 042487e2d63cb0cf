"""A component of a diffusers folder: its settings, with what they leave out as diffusers itself fills it in.

Every config of diffusers is read here: autoencoder, transformer and scheduler.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from kind_core.console.quiet import without_import_noise
from kind_core.errors import CheckpointError, ConfigError, KindError
from kind_core.files.json_files import read_object
from kind_core.files.litter import is_hidden
from kind_core.files.tensor_files import read_pickled
from kind_core.files.weight_files import find_misfit, read_shapes

Settings = Mapping[str, Any]  # of a class of diffusers, by name
_MAX_WHOLE = 2**31 - 1  # what a size of a tensor may be, wherever it is run
_LONGEST_REASON = 200
_ROOM = 2  # times what the files hold: so much more may be planned, to say what is lacking
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """The settings in `file`, all that the diffusers class `kind` takes: `values` as stored or else its defaults."""

    file: Path
    kind: str
    values: Settings

    def refuse(self, name: str, expected: str, hint: str = "") -> ConfigError:
        """The error that says that a setting does not fit."""
        return ConfigError(f"{self.file} has {name} {shorten(self.values[name])}, expected {expected}", hint)

    def describe(self) -> str:
        """The settings that are not diffusers' own, for an error that comes from several of them."""
        usual = default_settings(self.kind)
        told = {name: one for name, one in self.values.items() if one != usual[name]}
        return ", ".join(f"{name} {shorten(one)}" for name, one in told.items())


def read_component(
    file: Path, kinds: Mapping[str, str], error: type[KindError] = CheckpointError, hint: str = "", *, smallest: int = 1
) -> Component:
    """Read a config file; `kinds` are the class names that it may have, each with the class that diffusers makes of it.

    `smallest` is the least whole number that a setting may be: those of a model are sizes and counts. Raises `error`
    for a file that cannot be read or is of another class, ConfigError for a value of another type.
    """
    data = read_object(file, error, hint)
    name = data.get("_class_name")
    if not isinstance(name, str) or name not in kinds:
        expected = ", ".join(dict.fromkeys(kinds.values()))
        raise error(f"{file} has _class_name {shorten(name)}, expected one of {expected}", hint)
    types_of, values = _signature(kinds[name])
    # diffusers notes there which values were its defaults of the time, and takes today's instead
    unsaid = data.get("_use_default_values") or ()
    for key, expected in types_of.items():
        if key not in data or (isinstance(unsaid, list) and key in unsaid):
            continue
        is_default = type(data[key]) is type(values[key]) and data[key] == values[key]
        if not (is_default or _fits(data[key], expected, smallest)):
            raise ConfigError(f"{file}: {key} is {shorten(data[key])}, expected {_describe(expected, smallest)}")
        values[key] = data[key]
    return Component(file=file, kind=kinds[name], values=values)


def load_component(component: Component, what: str) -> Any:
    """The diffusers model of a local folder, in fp32, every weight of it from its files; no pickle is run.

    Raises CheckpointError, which calls it `what`, also where its settings ask for more than the files hold.
    """
    folder = component.file.parent
    with without_import_noise():
        import diffusers
        from diffusers.utils import logging

        model_class = getattr(diffusers, component.kind)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # older folders hold settings that these classes no longer have
    try:
        with loading(component, what):
            _require_fit(model_class, component, _read_weights(folder))
            model, loaded = model_class.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
            )
    finally:
        logging.set_verbosity(verbosity)
    lacking = [*loaded["missing_keys"], *(str(key) for key in loaded["mismatched_keys"])]
    if lacking:  # diffusers would draw them
        raise _misfit(component, f"{folder} lacks {len(lacking)} tensors of it, of them {lacking[0]}")
    unread = [key for key in loaded["unexpected_keys"] if not key.endswith("pos_embed")]
    if unread:
        raise _misfit(component, f"{folder} holds {len(unread)} tensors that are none of it, of them {unread[0]}")
    return model.float().eval()


@contextmanager
def loading(component: Component, what: str) -> Iterator[None]:
    """Whatever a class of diffusers makes of settings and files that do not go together, as a CheckpointError."""
    try:
        yield
    except KindError:
        raise
    except Exception as error:
        raise _misfit(component, f"diffusers cannot load the {what}: {' '.join(str(error).split())}") from error


def _misfit(component: Component, reason: str) -> CheckpointError:
    """The error of a model that its settings do not make, with those that say how large it is and of what."""
    reason = f"{reason[:_LONGEST_REASON]}; it says {component.describe()}"
    return CheckpointError(f"{component.file} does not go with the weights beside it: {reason}", "download both again")


def _require_fit(model_class: type[nn.Module], component: Component, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise CheckpointError where the settings ask for more tensors or numbers than the files hold, or for others.

    The model is built without memory, and no further than that is known.
    """
    stored = sum(math.prod(shape) for shape in shapes.values())
    tensors = numbers = 0

    def plan(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal tensors, numbers
        tensors, numbers = tensors + 1, numbers + parameter.numel()
        if tensors > _ROOM * len(shapes) or numbers > _ROOM * stored:
            counted = f"{len(shapes)} tensors of {stored:.4g} numbers"
            raise _misfit(component, f"the files hold {counted}, {component.kind} would have far more")

    handle = register_module_parameter_registration_hook(plan)
    try:
        with torch.device("meta"):
            model = model_class(**component.values)
    finally:
        handle.remove()
    for name, tensor in model.state_dict().items():
        if name in shapes and tuple(tensor.shape) != shapes[name]:
            raise _misfit(component, f"{name} is {list(shapes[name])} there, expected {list(tensor.shape)}")


def _read_weights(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors that diffusers may read, by name.

    Raises CheckpointError for what it would cast or not explain: integers, fp8, pointers of Git LFS.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in _list_weights(folder):
        if file.suffix == ".bin":
            shapes |= {name: tuple(tensor.shape) for name, tensor in read_pickled(file).items()}
        else:
            shapes |= _read_shapes(file)
    if not shapes:
        raise CheckpointError(f"{folder} has no weights", "save it with diffusers' save_pretrained")
    return shapes


def _list_weights(folder: Path) -> list[Path]:
    """The files that diffusers loads, safetensors before pickles; what lies beside them in another precision is not."""
    for suffix in (".safetensors", ".bin"):
        whole = folder / f"diffusion_pytorch_model{suffix}"
        if (folder / f"{whole.name}.index.json").is_file():  # its parts may have any names
            return sorted(file for file in folder.glob(f"*{suffix}") if not is_hidden(file.name))
        if whole.is_file():
            return [whole]
    return []


def _read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    try:
        misfit = find_misfit(file)
        found = {} if misfit else read_shapes(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} is not a whole safetensors file: {error}", "download it again") from error
    if misfit is not None:
        raise CheckpointError(f"{file} {misfit}", "download it again")
    return found


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


def _fits(value: object, expected: Any, smallest: int) -> bool:
    """Whether a value of a JSON file is what a type hint of diffusers means."""
    origin, parts = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part, smallest) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin in (list, tuple):  # diffusers writes tuple[int] for any number of them
        return isinstance(value, list) and all(_fits(one, parts[0], smallest) for one in value)
    if isinstance(value, bool) or expected is bool:
        return isinstance(value, bool) and expected is bool
    if expected is float:
        return isinstance(value, int | float) and abs(value) <= _MAX_WHOLE and math.isfinite(value)
    if expected is int:
        return isinstance(value, int) and smallest <= value <= _MAX_WHOLE
    return isinstance(expected, type) and isinstance(value, expected)


def _describe(expected: Any, smallest: int) -> str:
    origin, parts = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(part, smallest) for part in parts if part in _WORDS or get_origin(part))
    if origin is Literal:
        return f"one of {', '.join(parts)}"
    if origin in (list, tuple):
        return f"a list of which each is {_describe(parts[0], smallest)}"
    if expected is int:
        return f"a whole number from {smallest}"
    return _WORDS.get(expected, str(expected))


def shorten(value: object) -> str:
    """A value of a file as an error shows it."""
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."
