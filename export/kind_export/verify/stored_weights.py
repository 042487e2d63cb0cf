"""A manifest that says fp32 must not lie: what a program's file holds is read back and compared with its precision.

Parity cannot tell it: weights rounded to fp16 leave 87 dB, where 60 are asked for and the right program has 91.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kind_bench.counting.work import ProgramWork
from kind_core.errors import VerificationError
from kind_core.precisions import EXACT, PRECISIONS
from kind_export.precision import quantizable_layers
from kind_export.targets.lowering import Lowered

# Of the bytes of constants: those of other types than the precision says. Measured 0 in fp32, 0.01 % in fp16.
_MAX_OTHER = {32: 0.01, 16: 0.1}
# Of the bytes that quantised layers should take: measured 1.0 in 8 bits, more in fewer, where scales lie beside them.
_MIN_QUANTISED = 0.8
_NUM_SAMPLES, _MIN_FOUND = 32, 0.5


def check_stored_weights(folder: Path, lowered: Lowered, work: ProgramWork) -> None:
    """Raise VerificationError where the step of a target stores its weights in another precision than it says."""
    precision, held = PRECISIONS[lowered.spec.precision], work.bytes_by_bits
    total = sum(held.values())
    if precision.is_float:
        other = sum(count for bits, count in held.items() if _is_other(bits, precision.weight_bits))
        if other > _MAX_OTHER[precision.weight_bits] * total:
            raise _lie(lowered, f"{other} of {total} bytes of weights in other types")
    else:
        layers = quantizable_layers(lowered.step.module)
        elements = sum(layer.weight.numel() for name, layer in layers.items() if name not in lowered.options.keep)
        low = sum(count for bits, count in held.items() if 0 < bits <= 8)
        if low < _MIN_QUANTISED * elements * precision.weight_bits / 8:
            raise _lie(lowered, f"{low} bytes in 8 bits or fewer for {elements} weights")
    if lowered.spec.precision == EXACT:  # the numbers of the module must be there to the last bit, in any layout
        samples = _draw_samples(lowered)
        found = _count_found(folder / lowered.spec.programs["step"].file, samples)
        if found < _MIN_FOUND * len(samples):
            raise _lie(lowered, f"{found} of {len(samples)} numbers of its weights to the last bit")


def _is_other(bits: int, expected: int) -> bool:
    """Fewer bits than said or, of half precision, more; indices of 32 and 64 bits are no weights of fp32."""
    return 0 < bits < expected or (expected == 16 and bits > expected)


def _draw_samples(lowered: Lowered) -> list[bytes]:
    """Some numbers of the linear layers that half precision could not hold: four bytes each, as a file has them."""
    layers = quantizable_layers(lowered.step.module).values()
    values = np.concatenate([layer.weight.detach().numpy().ravel() for layer in layers] or [np.zeros(0, np.float32)])
    values = values[values.astype(np.float16).astype(np.float32) != values]
    rng = np.random.default_rng(0)
    return [value.tobytes() for value in rng.choice(values, min(_NUM_SAMPLES, len(values)), replace=False)]


def _count_found(place: Path, samples: list[bytes]) -> int:
    missing = set(samples)
    for file in _list_files(place):
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            missing = {sample for sample in missing if content.find(sample) < 0}
    return len(set(samples)) - len(missing)


def _list_files(place: Path) -> Iterator[Path]:
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    return (file for file in files if file.is_file() and file.stat().st_size > 0)


def _lie(lowered: Lowered, held: str) -> VerificationError:
    return VerificationError(
        f"{lowered.spec.target}: step says {lowered.spec.precision} but holds {held}; nothing was published",
        "please report it with this command",
    )
