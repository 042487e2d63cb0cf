"""Writing safetensors files, and reading the pickles of older folders without running them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from kind_core.errors import CheckpointError
from kind_core.files.weight_files import COUNTER, is_pointer

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors` from any device; raises OSError when they cannot be written."""
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file)
    except SafetensorError as error:
        raise OSError(str(error)) from error  # how safetensors reports a full disk


def read_pickled(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of torch.save, by name; raises CheckpointError where it holds anything else, unrun."""
    try:
        if is_pointer(file):
            raise CheckpointError(
                f"{file} is a Git LFS pointer, not the weights", "run git lfs pull, or download the file itself"
            )
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(
            f"{file} holds more than weights, or is cut short: it was not loaded", "save them as safetensors"
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(one, Tensor) for one in tensors.values()):
        raise CheckpointError(f"{file} holds no table of weights", "save them as safetensors")
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATING and not name.endswith(COUNTER):
            raise CheckpointError(
                f"{file} holds {name!r} as {str(tensor.dtype).removeprefix('torch.')}, "
                "expected floating point of 16 bits or more",
                "export the weights as float16 or float32",
            )
    return tensors
