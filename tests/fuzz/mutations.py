"""Mutations that know the formats: values and keys of documents, headers of tensor files, parts of an ONNX graph, files
that are no files. All draw from one `random.Random`, so that a case is its seed."""

from __future__ import annotations

import copy
import json
import math
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

Place = tuple[Any, ...]
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 7, 255, 2**31, 2**63, 10**9, 10**18, 10**40, 1e30, -1e30, 1e-30, 0.5, 20.0, math.nan,
    math.inf, "", "x", "0", "../x", "/etc/passwd", "a\0b", "n" * 5000, "\ud800", "\x1b[2J", "é", "日本", [], [1, 2],
    [[]], {}, {"a": 1}, [None], list(range(1000)),
)  # fmt: skip
_DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F4", "C64", "nonsense", 7, None)


def places(data: Any, before: Place = ()) -> Iterator[Place]:
    """The way to each value in nested JSON."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*before, key)
        yield from places(value, (*before, key))


def mutate_document(data: Any, rng: Random) -> Any:
    """A document with one to three values replaced, nudged, removed, renamed or repeated."""
    changed = copy.deepcopy(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        held = list(places(changed))
        if held:
            how = rng.choice(("replace", "replace", "replace", "nudge", "remove", "rename", "repeat", "nest"))
            _change(changed, rng.choice(held), how, rng)
            if how == "nest":  # the next would have to go as deep
                break
    return changed


def _change(data: Any, place: Place, how: str, rng: Random) -> None:
    inner = data
    for key in place[:-1]:
        inner = inner[key]
    key, value = place[-1], inner[place[-1]]
    if how == "remove":
        del inner[key]
    elif how == "rename" and isinstance(inner, dict):
        inner[rng.choice(("", "x", str(key) + " ", "\ud800", "k" * 5000, "../" + str(key)))] = inner.pop(key)
    elif how == "repeat" and isinstance(value, list | str):
        inner[key] = value * rng.choice((2, 3, 1000))
    elif how == "nest":
        for _ in range(rng.choice((1, 50, 500, 5000))):
            value = [value]
        inner[key] = value
    elif how == "nudge" and isinstance(value, int | float):
        inner[key] = rng.choice((value + 1, value - 1, -value, value * 1000, value + 0.5, float(value), str(value)))
    else:
        inner[key] = copy.deepcopy(rng.choice(VALUES))  # which a later change may alter


def encode_json(data: Any, rng: Random) -> bytes:
    """JSON, most of the time whole; what json itself cannot nest is written by hand."""
    return damage_text(_dump(data), rng)


def _dump(data: Any) -> str:
    try:
        return json.dumps(data)
    except (RecursionError, ValueError):
        return "[" * 100_000


def damage_text(text: str, rng: Random) -> bytes:
    """The bytes of a text, most of the time as they are; else cut, doubled, in another encoding, or with junk."""
    content = text.encode("utf-8", "surrogatepass")
    how = rng.randrange(24)
    if how == 0:
        return content[: rng.randrange(len(content) + 1)]
    if how == 1:
        return content + content
    if how == 2:
        return text.encode("utf-16", "surrogatepass")
    if how == 3:
        return b"\xef\xbb\xbf" + content
    if how == 4:
        return flip_bytes(content, rng)
    if how == 5:
        return content.replace(b"1", b"1" * 5000, 1)
    if how == 6:
        return content.replace(b"1", b"1e999", 1)
    return content


def flip_bytes(content: bytes, rng: Random) -> bytes:
    """A few bytes replaced, a stretch cut out, put in or doubled."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 8))):
        start = rng.randrange(len(changed) + 1)
        how = rng.randrange(4)
        if how == 0 and start < len(changed):
            changed[start] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif how == 1:
            del changed[start : start + rng.choice((1, 4, 64))]
        elif how == 2:
            changed[start:start] = rng.randbytes(rng.choice((1, 4, 64)))
        else:
            changed[start:start] = changed[start : start + 64]
    return bytes(changed)


def mutate_safetensors(content: bytes, rng: Random) -> bytes:
    """Another header over the same tensors: names, dtypes, shapes, offsets, metadata, its length; or other bytes."""
    if rng.randrange(5) == 0:
        return flip_bytes(content, rng)
    (length,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    name = rng.choice([key for key in header if key != "__metadata__"])
    how = rng.randrange(8)
    if how == 0:
        header[name]["dtype"] = rng.choice(_DTYPES)
    elif how == 1:
        header[name]["shape"] = rng.choice(([], [0], [2**40], [-1], header[name]["shape"][::-1], [2**62, 4], [1.5]))
    elif how == 2:
        header[name]["data_offsets"] = rng.choice(([0, 0], [0, 2**60], [2**60, 0], [-8, 8], [0], "x"))
    elif how == 3:
        body = rng.choice((b"", body[: len(body) // 2], body + body, b"\xff" * len(body)))
    elif how == 4:
        header["__metadata__"] = rng.choice(({"format": 7}, {"": ""}, {"pack": "{"}, [], {"pack": "[" * 100_000}))
    else:
        header = mutate_document(header, rng)
    text = b"{" * 5000 if how == 6 else _dump(header).encode("utf-8", "surrogatepass")
    sizes = (len(text),) * 9 + (0, 2**63, len(text) + 8, len(text) - 1, 10**11)
    return struct.pack("<Q", rng.choice(sizes)) + text + body


def mutate_metadata(content: bytes, key: str, rng: Random) -> bytes:
    """The JSON that a tensor file carries under `key` of its metadata, changed."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    data = mutate_document(json.loads(header["__metadata__"][key]), rng)
    header["__metadata__"][key] = encode_json(data, rng).decode("utf-8", "surrogateescape")
    text = _dump(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def mutate_onnx(content: bytes, rng: Random) -> bytes:
    """A graph with one part changed: dimensions, types, data, names, attributes, operators; or other bytes."""
    import onnx

    if rng.randrange(4) == 0:
        return flip_bytes(content, rng)
    model = onnx.ModelProto.FromString(content)
    graph, how = model.graph, rng.randrange(12)
    node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
    if how == 0:
        tensor.dims[:] = rng.choice(([2**40], [0], [-1], [10**11, 10], [1] * 200))
    elif how == 1:
        tensor.data_type = rng.choice((0, 7, 10, 16, 99, 8))
    elif how == 2:
        tensor.raw_data = rng.choice((b"", tensor.raw_data[:3], tensor.raw_data * 3, b"\xff" * len(tensor.raw_data)))
    elif how == 3:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", rng.choice(("weights.bin", "/etc/passwd", "../x", ""))
    elif how == 4:
        node.op_type = rng.choice(("Nonsense", "", "If", "Loop", "Identity", "MatMul", "Resize", "ConstantOfShape"))
    elif how == 5 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(("", "nothing", node.output[0]))
    elif how == 6:
        node.domain = rng.choice(("evil.custom", "com.microsoft", "ai.onnx.ml"))
    elif how == 7:
        value = rng.choice((*graph.input, *graph.output))
        value.type.tensor_type.shape.dim[0].dim_value = rng.choice((0, -1, 2**40, 7))
    elif how == 8:
        value = rng.choice((*graph.input, *graph.output))
        value.type.tensor_type.elem_type = rng.choice((0, 7, 10, 8, 99))
    elif how == 9:
        model.opset_import[0].version = rng.choice((0, -1, 1, 999, 2**40))
    elif how == 10:
        del graph.node[rng.randrange(len(graph.node))]
    else:
        value = rng.choice((*graph.input, *graph.output))
        value.name = rng.choice(("", "x", "\x1b[2J", "n" * 5000))
    return bytes(model.SerializeToString())


def change_words(content: bytes, rng: Random) -> bytes:
    """A flatbuffer with some of its words changed: offsets, lengths, types, indices; or other bytes."""
    if rng.randrange(3) == 0:
        return flip_bytes(content, rng)
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(len(changed) // 4) * 4
        (word,) = struct.unpack_from("<I", changed, start)
        new = rng.choice(
            (0, 1, 0xFF, 2**31 - 1, 2**32 - 1, word + 1, word - 1, word + 4, word ^ (1 << rng.randrange(32)))
        )
        struct.pack_into("<I", changed, start, new % 2**32)
    return bytes(changed)


def mutate_message(message: Any, rng: Random) -> None:
    """Change, repeat or remove a few fields of a protobuf message, wherever they lie."""
    for _ in range(rng.choice((1, 1, 2))):
        held = list(_fields(message))
        if held:
            _change_field(*rng.choice(held), rng)


def _fields(message: Any) -> Iterator[tuple[Any, Any]]:
    for field, value in message.ListFields():
        yield message, field
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = [value[key] for key in value]
        else:
            inner = list(value) if field.is_repeated else [value]
        for one in inner:
            if hasattr(one, "ListFields"):
                yield from _fields(one)


def _change_field(message: Any, field: Any, rng: Random) -> None:
    value = getattr(message, field.name)
    numbers = (0, 1, -1, 7, 255, 2**31 - 1, 2**40, -(2**31))
    if field.is_repeated and field.message_type is None and rng.randrange(2):
        value[rng.randrange(len(value))] = _fitting(field, value[0], numbers, rng)
    elif field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
        del value[rng.choice(list(value))]
    elif field.is_repeated:
        how = rng.randrange(3)
        del value[rng.randrange(len(value)) :: (1 if how == 0 else len(value))]
        if how == 2:
            value.extend(list(value) * 3)
    elif field.message_type is not None:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _fitting(field, value, numbers, rng))


def _fitting(field: Any, value: Any, numbers: tuple[int, ...], rng: Random) -> Any:
    """Another value of the field's own type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return rng.choice(("", "x", "../x", "\x1b[2J", "n" * 5000, value * 2))
    if isinstance(value, bytes):
        return flip_bytes(value, rng)
    if isinstance(value, float):
        return rng.choice((0.0, -1.0, 1e30, math.nan, math.inf))
    if field.enum_type is not None:
        return rng.choice([one.number for one in field.enum_type.values])
    is_unsigned, is_narrow = field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64), field.cpp_type in (
        field.CPPTYPE_INT32, field.CPPTYPE_UINT32,
    )  # fmt: skip
    low, high = (0 if is_unsigned else -(2**31)), (2**31 - 1 if is_narrow else 2**40)
    return max(low, min(high, rng.choice((*numbers, value + 1, value - 1, value * 2))))


def no_file(file: Path, rng: Random) -> None:
    """In the place of `file` what is none: a pipe, a device, a loop, a folder, nothing, a link away."""
    file.unlink(missing_ok=True)
    ways: tuple[Callable[[], object], ...] = (
        lambda: os.mkfifo(file), lambda: file.symlink_to("/dev/zero"), lambda: file.symlink_to(file.name),
        lambda: file.mkdir(), lambda: file.write_bytes(b""), lambda: file.symlink_to("nowhere"), lambda: None,
        lambda: file.symlink_to("/dev/full"), lambda: file.symlink_to("/proc/self/mem"),
    )  # fmt: skip
    rng.choice(ways)()
