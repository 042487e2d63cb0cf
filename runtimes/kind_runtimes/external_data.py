"""Which other files an ONNX program reads its weights from, found without loading any of them."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kind_core.errors import BundleError

_KEY = b"location"  # of the entry that names the file; a program without these bytes has its weights inside


def list_external_data(file: Path) -> list[str]:
    """The files that a program names, as it names them: relative to its folder where it is well-behaved.

    Raises BundleError for a file that is no ONNX program, and OSError where it cannot be read.
    """
    if file.stat().st_size == 0:
        return []
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(_KEY) < 0:
            return []
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(file), load_external_data=False)
    except DecodeError as error:
        raise BundleError(f"{file} is no ONNX program: {error}", "export the bundle again") from error
    return sorted(set(_find_locations(model)))


def _find_locations(message: Any) -> Iterator[str]:
    """Through every part, because weights may lie in branches, functions and attributes too."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield from (entry.value for entry in message.external_data if entry.key == _KEY.decode())
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if field.is_repeated else (value,):
                yield from _find_locations(one)
