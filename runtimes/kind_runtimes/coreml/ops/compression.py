"""Constants that are saved compressed, expanded once when a program is bound. Of packed bits the lowest come first."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from kind_runtimes.coreml.ops.registry import rule


@rule("constexpr_affine_dequantize")
def constexpr_affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int) -> Tensor:
    """scale (data - zero_point); a vector of either runs along `axis`."""
    shape = [1] * quantized_data.dim()
    shape[axis] = -1
    offset, factor = (one.float().reshape(shape if one.dim() else ()) for one in (zero_point, scale))
    return (quantized_data.float() - offset) * factor


@rule("constexpr_blockwise_shift_scale")
def constexpr_blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """scale (data - offset); each element of both serves a block of `data`."""
    shifted = data.float() if offset is None else data.float() - _spread(offset.float(), data.shape)
    return shifted * _spread(scale.float(), data.shape)


@rule("constexpr_lut_to_dense")
def constexpr_lut_to_dense(
    indices: Tensor, lut: Tensor, shape: list[int] | None = None, vector_axis: int | None = None
) -> Tensor:
    """Elements of `lut`: before iOS 18 (where `shape` exists) one table and packed indices, then tables of blocks.

    `lut` (..., palette, vector) has one table for each block of `indices`; a vector goes along `vector_axis`.
    """
    if shape is not None:
        num_bits = int(math.log2(lut.numel()))
        return lut[_unpack_bits(indices, num_bits, math.prod(shape)).long()].reshape(shape)
    blocks = lut.shape[:-2]
    rows = torch.arange(math.prod(blocks)).reshape(blocks)
    picked = lut.flatten(0, -3)[_spread(rows, indices.shape), indices.long()]  # (*indices, vector)
    if picked.shape[-1] == 1:
        return picked.squeeze(-1)
    if vector_axis is None:
        raise ValueError(f"a table of vectors of {picked.shape[-1]} needs a vector_axis")
    axis = vector_axis % indices.dim()
    return picked.movedim(-1, axis + 1).flatten(axis, axis + 1)


@rule("constexpr_sparse_to_dense")
def constexpr_sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: list[int] | None = None) -> Tensor:
    """`nonzero_data` in order where `mask` is set, else zero; before iOS 18 (where `shape` exists) a packed mask."""
    whole = mask if shape is None else _unpack_bits(mask, 1, math.prod(shape)).reshape(shape)
    dense = torch.zeros(whole.shape, dtype=nonzero_data.dtype)
    dense[whole != 0] = nonzero_data
    return dense


@rule("constexpr_cast")
def constexpr_cast(source_val: Tensor, output_dtype: str) -> Tensor:
    """fp16 as fp32, the only conversion there is."""
    if output_dtype != "fp32":
        raise ValueError(f"no conversion to {output_dtype}")
    return source_val


def _spread(values: Tensor, shape: torch.Size) -> Tensor:
    """Each element of `values` over its block of a tensor of `shape`."""
    for axis, size in enumerate(shape):
        if size % values.shape[axis]:
            raise ValueError(f"{values.shape[axis]} blocks do not divide axis {axis} of size {size}")
        values = values.repeat_interleave(size // values.shape[axis], axis)
    return values


def _unpack_bits(packed: Tensor, num_bits: int, count: int) -> Tensor:
    """`count` numbers of `num_bits` bits each, from bytes."""
    bits = np.unpackbits(packed.numpy(), bitorder="little", count=count * num_bits).reshape(count, num_bits)
    return torch.from_numpy(np.packbits(bits, axis=1, bitorder="little")[:, 0])
