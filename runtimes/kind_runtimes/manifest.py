"""What a bundle says of itself: `manifest.json`, its types and its schema."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any, cast

from kind_core.classes import ClassInfo, read_class
from kind_core.errors import BundleError, ClassNameError, ConfigError, KindError, TargetError
from kind_core.files.json_files import parse_json
from kind_core.precisions import PRECISIONS
from kind_core.samplers import ALL_STEPS, Distillation, Sampling
from kind_runtimes.documents.manifest import ManifestDocument, ProgramEntry, TargetEntry, TensorEntry
from kind_runtimes.documents.schema import Schema
from kind_runtimes.engine_rows import ENGINES, holds_code

FORMAT_VERSION = 2  # of bundles that take no guidance; the others are written as 1, which older programs read
PACKS_FOLDER = "packs"  # its files are listed apart
PACK_SUFFIX = ".pack"
MEASURED_FOLDER = "measured"  # results from other machines, added after the export
MAX_STEPS = 10_000  # a noise schedule has a thousand
MAX_ELEMENTS = 1 << 28  # of a tensor that a program takes or gives: 1 GB of floats
_MAX_MESSAGE = 400  # of a schema: it may quote what it found, whole
NOISE_GENERATOR = "philox4x32-10+box-muller/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """One input or output of a program."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def to_dict(self) -> dict[str, object]:
        """As JSON has it."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramSpec:
    """One program of a bundle: where it lies and how to call it; `function` where its file holds several.

    `class_functions` is there where each class has a function of its own, by class id, in place of an input.
    """

    name: str
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    function: str | None = None
    class_functions: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetSpec:
    """The programs of one target, by name: `step`, `decode` where the bundle makes pictures, and `step_unguided`, for
    the steps without guidance, where `step` does not choose by itself."""

    target: str
    precision: str
    programs: Mapping[str, ProgramSpec]


@dataclass(frozen=True, kw_only=True, slots=True)
class PackSpec:
    """A class that was exported as a pack. A bundle may be shipped without the file."""

    info: ClassInfo
    file: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """`manifest.json`, parsed. `data` is the whole document.

    A base holds no class in its programs: `pack_base` is the hash that its packs carry, and `classes` are those of the
    packs exported with it. `may_run_code`: whoever opened the bundle asked for what of it is code. `distillation` is
    there where the model draws in few steps: its guidance is built in.
    """

    classes: tuple[ClassInfo, ...]
    sampling: Sampling
    latents_shape: tuple[int, ...]
    targets: Mapping[str, TargetSpec]
    files: Mapping[str, str]
    data: ManifestDocument
    pack_base: str | None = None
    packs: tuple[PackSpec, ...] = ()
    may_run_code: bool = False
    distillation: Distillation | None = None

    @property
    def is_approximate(self) -> bool:
        """Whether the model was distilled for other numbers of steps than the bundle's."""
        return self.distillation is not None and self.sampling.steps not in self.distillation.steps

    @property
    def guidance_scale(self) -> float:
        """The default of the programs, or what is built in."""
        return self.sampling.guidance_scale if self.distillation is None else self.distillation.guidance_scale

    def require_guidance(self) -> None:
        """Raise ConfigError where the programs take no guidance scale: it was given all the same."""
        if self.distillation is not None:
            raise self.distillation.refuse_guidance("guidance")

    def with_code(self) -> Manifest:
        """The same, with what of the bundle is code allowed to run."""
        return replace(self, may_run_code=True)

    def target(self, name: str) -> TargetSpec:
        """The programs of target `name`; raises TargetError with what the bundle holds."""
        if name not in self.targets:
            held = ", ".join(self.targets)
            raise TargetError(f"the bundle holds no {name} programs, only {held}", f"export with --target {name}")
        return self.targets[name]


@cache
def load_schema(name: str) -> Schema:
    """A JSON Schema that ships with the package: `manifest`, `report` or `results`."""
    text = (files("kind_runtimes") / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8")
    return dict(json.loads(text, object_hook=_fill_in))


def _fill_in(part: Schema) -> Schema:
    """A part of a schema with the names of the tables, wherever a precision of weights or an engine stands."""
    entry = part.get("precision")
    if isinstance(entry, dict) and "enum" in entry:
        entry["enum"] = list(PRECISIONS)
    known = part.get("enum", ())
    if not {name for name in ENGINES if not holds_code(name)}.isdisjoint(known):
        part["enum"] += [name for name in ENGINES if name not in known and not holds_code(name)]
    return part


def parse_manifest(text: str, where: str) -> Manifest:
    """Check `manifest.json` against its schema and parse it; raises BundleError naming the field that does not fit."""
    try:
        data = parse_json(text, is_strict=True)
    except ValueError as error:
        raise BundleError(f"{where} is not JSON: {error}", "copy or export the bundle again") from error
    refuse_newer(data, FORMAT_VERSION, where, BundleError)
    check_schema(data, "manifest", where)
    document = cast(ManifestDocument, data)
    _require_sane(document, where)
    try:
        return _parse(document)
    except (ClassNameError, ConfigError) as error:
        raise BundleError(f"{where}: {error.message}", "export the bundle again") from error


def _require_sane(data: ManifestDocument, where: str) -> None:
    """Raise BundleError where a size is beyond any program: before anything is made of it."""
    if data["steps"] > MAX_STEPS:
        raise BundleError(f"{where} has {data['steps']} steps, expected {MAX_STEPS} at most", "export the bundle again")
    programs = [program for target in data["targets"].values() for program in target["programs"].values()]
    shapes = [one["shape"] for program in programs for one in (*program["inputs"], *program["outputs"])]
    for shape in (data["latents_shape"], *shapes):
        if math.prod(shape) > MAX_ELEMENTS:
            raise BundleError(f"{where} has a tensor of shape {shape}, beyond any program's", "export the bundle again")


def _parse(data: ManifestDocument) -> Manifest:
    return Manifest(
        classes=tuple(map(read_class, data["classes"])),
        sampling=_parse_sampling(data),
        latents_shape=tuple(data["latents_shape"]),
        targets={name: _parse_target(name, target) for name, target in data["targets"].items()},
        files={name: entry["sha256"] for name, entry in data["files"].items()},
        data=data,
        pack_base=data.get("pack_base"),
        packs=tuple(
            PackSpec(info=read_class(one), file=one["file"], sha256=one["sha256"], size_bytes=one["size_bytes"])
            for one in data.get("packs", ())
        ),
        distillation=Distillation.from_dict(data["distillation"]) if "distillation" in data else None,
    )


def _parse_sampling(data: ManifestDocument) -> Sampling:
    guided = data.get("guided_steps")
    low, high = data.get("guidance_interval", ALL_STEPS)
    return Sampling(
        sampler=data["sampler"],
        steps=data["steps"],
        guidance_scale=data["guidance_scale"],
        guidance_interval=(low, high),
        initial_noise_scale=data["initial_noise_scale"],
        guided=() if guided is None else tuple(index in guided for index in range(data["steps"])),
        takes_guidance="distillation" not in data,
    )


def check_schema(data: object, schema: str, where: str) -> None:
    """Raise BundleError naming the first field of `data` that does not fit."""
    misfit = find_misfit(data, schema)
    if misfit is not None:
        raise BundleError(f"{where}: {misfit}", "export the bundle again")


def refuse_newer(data: object, known: int, where: str, error: type[KindError]) -> None:
    """Raise `error` where a document is of a later format than `known`, the last that this program reads."""
    version = data.get("format_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > known:
        raise error(f"{where} has format_version {version}, this program reads up to {known}", "upgrade kind-diffusion")


def find_misfit(data: object, schema: str) -> str | None:
    """The first field of `data` that does not fit, and why; None where all do."""
    make_validator = _validator_class()
    from jsonschema.exceptions import best_match

    error = best_match(make_validator(load_schema(schema)).iter_errors(data))
    if error is None:
        return None
    message = f"{error.json_path} {error.message}"
    return message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}..."


@contextmanager
def _without_grammars() -> Iterator[None]:
    """Import jsonschema without rfc3987_syntax, which parses a grammar for seconds; it is there where Jupyter is.

    Who checks the format that it is for, which no schema here names, has it loaded then.
    """
    name = "rfc3987_syntax"
    if name in sys.modules or find_spec(name) is None:
        yield
        return

    def is_valid_syntax(*arguments: object) -> Any:
        return import_module(name).is_valid_syntax(*arguments)

    sys.modules[name] = cast(ModuleType, SimpleNamespace(is_valid_syntax=is_valid_syntax))
    try:
        yield
    finally:
        del sys.modules[name]


@cache
def _validator_class() -> Any:
    """Of schemas that ship; 20.0 is no whole number, because a program would take it for none."""
    with _without_grammars():
        from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    checker = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    made: Any = extend  # its annotations are not whole
    return made(Draft202012Validator, type_checker=checker)


def describe_program(program: ProgramSpec) -> ProgramEntry:
    """A program as the manifest writes it."""
    described = {
        "file": program.file,
        **({} if program.function is None else {"function": program.function}),
        **({} if program.class_functions is None else {"class_functions": dict(program.class_functions)}),
        "inputs": [spec.to_dict() for spec in program.inputs],
        "outputs": [spec.to_dict() for spec in program.outputs],
    }
    return cast(ProgramEntry, described)


def _parse_target(name: str, data: TargetEntry) -> TargetSpec:
    programs = {
        program: ProgramSpec(
            name=program,
            file=entry["file"],
            inputs=tuple(_parse_tensor(spec) for spec in entry["inputs"]),
            outputs=tuple(_parse_tensor(spec) for spec in entry["outputs"]),
            function=entry.get("function"),
            class_functions=entry.get("class_functions"),
        )
        for program, entry in data["programs"].items()
    }
    return TargetSpec(target=name, precision=data["precision"], programs=programs)


def _parse_tensor(data: TensorEntry) -> TensorSpec:
    return TensorSpec(name=data["name"], shape=tuple(data["shape"]), dtype=data["dtype"])
