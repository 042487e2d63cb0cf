"""Gathers, slices, joins, changes of shape, and tensors made from scalars."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

CASES = [
    (
        "gather",
        lambda mb, t: mb.gather(x=t.x, indices=t.i, axis=-2),
        lambda t: t.x[:, :, t.i.long()],
    ),
    (
        "gather",
        lambda mb, t: mb.gather(x=t.s, indices=t.i, axis=1, batch_dims=1),
        lambda t: torch.stack([t.s[row][t.i[row].long()] for row in range(2)]),
    ),
    (
        "gather_along_axis",
        lambda mb, t: mb.gather_along_axis(x=t.x, indices=t.k, axis=2),
        lambda t: torch.from_numpy(np.take_along_axis(t.x.numpy(), t.k.numpy(), 2)),
    ),
    (
        "gather_nd",
        lambda mb, t: mb.gather_nd(x=mb.reshape(x=t.x, shape=[4, 6, 6]), indices=t.i),
        lambda t: t.x.reshape(4, 6, 6)[t.i[:, 0].long(), t.i[:, 1].long(), t.i[:, 2].long()],
    ),
    (
        "slice_by_index",
        lambda mb, t: mb.slice_by_index(
            x=t.x,
            begin=[1, 9, -1, 1],
            end=[2, 9, -4, -1],
            stride=[1, 2, -2, 3],
            begin_mask=[False, True, False, False],
            end_mask=[False, True, False, False],
            squeeze_mask=[True, False, False, False],
        ),
        lambda t: torch.from_numpy(t.x.numpy()[1, ::2, -1:-4:-2, 1:-1:3].copy()),
    ),
    (
        "slice_by_size",
        lambda mb, t: mb.slice_by_size(x=t.x, begin=[0, 1, 2, 3], size=[2, 2, -1, 1]),
        lambda t: t.x[:, 1:, 2:, 3:4],
    ),
    (
        "split",
        lambda mb, t: mb.split(x=t.x, split_sizes=[1, 2, 3], axis=-1),
        lambda t: (t.x[..., :1], t.x[..., 1:3], t.x[..., 3:]),
    ),
    (
        "split",
        lambda mb, t: mb.split(x=t.x, num_splits=2, axis=2),
        lambda t: (t.x[:, :, :2], t.x[:, :, 2:]),
    ),
    ("concat", lambda mb, t: mb.concat(values=(t.x, t.y), axis=1), lambda t: torch.cat([t.x, t.y], 1)),
    (
        "concat",
        lambda mb, t: mb.concat(values=(t.x, t.u), axis=-1, interleave=True),
        lambda t: torch.stack([t.x, t.u], -1).flatten(-2),
    ),
    ("stack", lambda mb, t: mb.stack(values=(t.x, t.y), axis=-1), lambda t: torch.stack([t.x, t.y], 4)),
    ("reshape", lambda mb, t: mb.reshape(x=t.x, shape=[4, -1]), lambda t: t.x.reshape(4, 36)),
    (  # Zeros count from the right: the sizes are those of axes 0 and 3 of x.
        "reshape",
        lambda mb, t: mb.reshape(x=t.x, shape=[-1, 0, 2, 2, 0]),
        lambda t: t.x.reshape(3, 2, 2, 2, 6),
    ),
    ("transpose", lambda mb, t: mb.transpose(x=t.x, perm=[0, -1, 1, 2]), lambda t: t.x.permute(0, 3, 1, 2)),
    ("expand_dims", lambda mb, t: mb.expand_dims(x=t.s, axes=[0, -1]), lambda t: t.s[None, ..., None]),
    (
        "squeeze",
        lambda mb, t: mb.squeeze(x=mb.slice_by_size(x=t.x, begin=[0, 1, 0, 0], size=[2, 1, 4, 6]), axes=[1]),
        lambda t: t.x[:, 1],
    ),
    ("flatten2d", lambda mb, t: mb.flatten2d(x=t.x, axis=2), lambda t: t.x.reshape(6, 24)),
    (
        "tile",
        lambda mb, t: mb.tile(x=t.s, reps=[1, 2, 3]),
        lambda t: torch.from_numpy(np.tile(t.s.numpy(), (1, 2, 3))),
    ),
    ("reverse", lambda mb, t: mb.reverse(x=t.s, axes=[1, -1]), lambda t: t.s.flip((1, 2))),
    (
        "pad",
        lambda mb, t: mb.pad(x=t.x, pad=[1, 2, 3, 0], mode="constant", constant_val=0.5),
        lambda t: functional.pad(t.x, (3, 0, 1, 2), value=0.5),
    ),
    (
        "pad",
        lambda mb, t: mb.pad(x=t.x, pad=[1, 2, 3, 0], mode="reflect"),
        lambda t: functional.pad(t.x, (3, 0, 1, 2), mode="reflect"),
    ),
    (
        "pad",
        lambda mb, t: mb.pad(x=t.x, pad=[1, 2, 3, 0], mode="replicate"),
        lambda t: functional.pad(t.x, (3, 0, 1, 2), mode="replicate"),
    ),
    (
        "sliding_windows",
        lambda mb, t: mb.sliding_windows(x=t.s, axis=1, size=3, stride=2),
        lambda t: torch.stack([t.s[:, 0:3], t.s[:, 2:5]], 1),
    ),
    (
        "pixel_shuffle",
        lambda mb, t: mb.pixel_shuffle(x=mb.concat(values=(t.x, t.y, t.u, t.p), axis=1), upscale_factor=2),
        lambda t: functional.pixel_shuffle(torch.cat([t.x, t.y, t.u, t.p], 1), 2),
    ),
    (
        "pixel_unshuffle",
        lambda mb, t: mb.pixel_unshuffle(x=t.x, downscale_factor=np.uint32(2)),
        lambda t: functional.pixel_unshuffle(t.x, 2),
    ),
    (  # Blocks are outermost in depth: x, y, u, p become the four corners of each cell.
        "depth_to_space",
        lambda mb, t: mb.depth_to_space(x=mb.concat(values=(t.x, t.y, t.u, t.p), axis=1), block_size=2),
        lambda t: torch.cat(
            [torch.stack([t.x, t.y], -1).flatten(3), torch.stack([t.u, t.p], -1).flatten(3)], -1
        ).reshape(2, 3, 8, 12),
    ),
    (
        "space_to_depth",
        lambda mb, t: mb.space_to_depth(x=t.x, block_size=2),
        lambda t: torch.cat([t.x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)], 1),
    ),
    (
        "one_hot",
        lambda mb, t: mb.one_hot(indices=t.i, one_hot_vector_size=5, axis=1, on_value=2.0, off_value=-1.0),
        lambda t: functional.one_hot(t.i.long(), 5).transpose(1, 2) * 3.0 - 1,
    ),
]
IOS18_CASES = [
    (
        "slice_update",
        lambda mb, t: mb.slice_update(
            x=t.x,
            update=mb.slice_by_size(x=t.y, begin=[0, 0, 0, 0], size=[2, 1, 4, 3]),
            begin=[0, 1, 0, 0],
            end=[2, 2, 4, 6],
            stride=[1, 1, 1, 2],
        ),
        lambda t: torch.where(
            torch.arange(6) % 2 + (torch.arange(3) != 1)[:, None, None] > 0,
            t.x,
            t.y[:, :1, :, [0, 0, 1, 1, 2, 2]],
        ),
    ),
]


@pytest.mark.parametrize("precision", ["FLOAT32", "FLOAT16"])
@pytest.mark.parametrize("index", range(len(CASES)), ids=[f"{n}-{one[0]}" for n, one in enumerate(CASES)])
def test_op_equals_its_formula(index: int, precision: str, check_op: Callable[..., None]) -> None:
    check_op(CASES, index, precision)


@pytest.mark.parametrize("precision", ["FLOAT32", "FLOAT16"])
def test_slice_update_equals_its_formula(precision: str, check_op: Callable[..., None]) -> None:
    check_op(IOS18_CASES, 0, precision, "iOS18")
