"""JSON Schemas of documents from their types.

A `TypedDict` is an object; a text in `Annotated` describes it, a dictionary adds keywords of JSON Schema, and the
markers below what a type does not say. What is in no type stays free: unknown fields are kept and ignored.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

Schema = dict[str, Any]
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number"}


@dataclass(frozen=True, slots=True)
class Def:
    """A part with a name of its own in the schema, which says it once."""

    name: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of the names of a table, which is what the schema says; to Python it is a text."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NamesOnly:
    """An object of which the schema demands the fields, but says nothing of their values."""


@dataclass(frozen=True, slots=True)
class Free:
    """An object of which the schema says nothing but that it is one."""


@dataclass(frozen=True, slots=True)
class Unsaid:
    """A field that the schema may demand, but says nothing of."""


@dataclass(frozen=True, slots=True)
class OfValue:
    """What else holds of the value of a figure, which has a name of its own in the schema."""

    keywords: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Alike:
    """An object of which every field, asked for or not, is of one type."""

    of: object


def make_schema(document: object, title: str, **keywords: str) -> Schema:
    """The JSON Schema of a document."""
    defs: dict[str, Schema] = {}
    schema = _describe(document, defs)
    return {"$schema": _DIALECT, "title": title, **keywords, **schema, **({"$defs": defs} if defs else {})}


def _describe(kind: Any, defs: dict[str, Schema]) -> Schema:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _annotate(arguments[0], arguments[1:], defs)
    if origin in (Required, NotRequired):
        return _describe(arguments[0], defs)
    if origin is Literal:
        return {"const": arguments[0]} if len(arguments) == 1 else {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return _or_null(arguments, defs)
    if origin is list:
        return {"type": "array", **({} if arguments[0] is object else {"items": _describe(arguments[0], defs)})}
    if origin in (dict, Mapping):
        values = {} if arguments[1] is object else {"additionalProperties": _describe(arguments[1], defs)}
        return {"type": "object", **values}
    if is_typeddict(kind):
        return _describe_object(kind, defs)
    return {} if kind is object else {"type": _NAMES[kind]}


def _annotate(kind: Any, marks: tuple[object, ...], defs: dict[str, Schema]) -> Schema:
    schema = _describe(kind, defs)
    for mark in marks:
        if isinstance(mark, Def):
            defs[mark.name] = schema
            schema = {"$ref": f"#/$defs/{mark.name}"}
        elif isinstance(mark, OneOf):
            schema = {"enum": list(mark.names)}
        elif isinstance(mark, NamesOnly):
            schema = {name: value for name, value in schema.items() if name != "properties"}
        elif isinstance(mark, Free):
            schema = {"type": schema["type"]}
        elif isinstance(mark, OfValue):
            schema = {"allOf": [schema, {"properties": {"value": dict(mark.keywords)}}]}
        elif isinstance(mark, Alike):
            schema = {name: value for name, value in schema.items() if name != "properties"}
            schema |= {"additionalProperties": _describe(mark.of, defs)}
        else:
            assert isinstance(mark, str | Mapping), f"{mark!r} is no keyword of a schema"
            schema |= {"description": mark} if isinstance(mark, str) else mark
    return schema


def _or_null(kinds: tuple[Any, ...], defs: dict[str, Schema]) -> Schema:
    (kind,) = (one for one in kinds if one is not types.NoneType)
    schema = _describe(kind, defs)
    return schema | {"type": [schema["type"], "null"]}


def _describe_object(kind: Any, defs: dict[str, Schema]) -> Schema:
    hints = get_type_hints(kind, include_extras=True)
    properties = {name: _describe(hint, defs) for name, hint in hints.items() if not _is_unsaid(hint)}
    origins = {name: get_origin(hint) for name, hint in hints.items()}
    required = [name for name, one in origins.items() if one is Required or (kind.__total__ and one is not NotRequired)]
    return {"type": "object", **({"required": required} if required else {}), "properties": properties}


def _is_unsaid(hint: Any) -> bool:
    if get_origin(hint) in (Required, NotRequired):
        return _is_unsaid(get_args(hint)[0])
    return get_origin(hint) is Annotated and any(isinstance(mark, Unsaid) for mark in get_args(hint)[1:])
