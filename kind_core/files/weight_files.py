"""What a file of weights must be: floating point, and the file itself, not a pointer to it. No torch is loaded."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from safetensors import safe_open

from kind_core.files.regular_files import POINTER_START, require_regular

# The names that a safetensors header has for them.
FLOATING = ("F16", "BF16", "F32", "F64")
COUNTER = "num_batches_tracked"  # how the name of a batch norm's counter ends, which is no weight
POINTER = "is a Git LFS pointer, not the weights: run git lfs pull, or download the file itself"


def find_misfit(file: Path, dtypes: Collection[str] = FLOATING) -> str | None:
    """Why a safetensors file holds no weights, in words that follow its name; None where it does.

    Reads the header alone. Raises OSError and SafetensorError as safetensors does.
    """
    if is_pointer(file):
        return POINTER
    with safe_open(file, framework="numpy") as opened:
        for name in opened.keys():  # noqa: SIM118  # not a mapping
            dtype = opened.get_slice(name).get_dtype()
            if dtype not in dtypes and not name.endswith(COUNTER):
                return f"holds {name!r} as {dtype}, expected floating point: {', '.join(dtypes)}"
    return None


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a safetensors file, from its header alone; raises as `find_misfit` does."""
    with safe_open(file, framework="numpy") as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


def is_pointer(file: Path) -> bool:
    """Whether Git LFS left a few lines of text in the file's place; raises OSError where it is no file with an end."""
    require_regular(file)
    with file.open("rb") as opened:
        return opened.read(len(POINTER_START)) == POINTER_START
