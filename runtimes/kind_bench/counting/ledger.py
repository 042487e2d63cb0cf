"""What the walkers of all formats share: tensors, what each operator reads and writes, how long a result lives."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from kind_bench.counting.work import OpClass, OpWork, ProgramWork

# What only moves or converts weights leaves them weights: rows of a table, slices of a pack.
_CARRIES_WEIGHTS: tuple[OpClass, ...] = ("lookup", "layout", "quantize")
# How the modules of a step name their weights, with dots or, in Core ML, underscores. Other constants are no sign: what
# blocks have in common bears the name of the first.
_LAYER_NAME = re.compile(r"^(?:p_)?(?:(?P<block>blocks)[._](?P<index>\d+)|(?P<part>patch|final))[._].*(?:weight|bias)")


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSize:
    """Shape of a tensor and bits of an element as stored."""

    shape: tuple[int, ...]
    bits: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return -(-self.elements * self.bits // 8)


class Ledger:
    """The books of one program: every tensor by name, every operator in order.

    A constant has an identity apart from its names, so that it counts once. What is made of constants alone is made
    when a program is loaded: such a name stands for the constants that it was made of.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, TensorSize] = {}
        self._stored: dict[str, int] = {}  # bytes by identity
        self._bits: dict[str, int] = {}  # of an element, by identity
        self._constants: dict[str, tuple[str, ...]] = {}  # identities by name
        self._weights: set[str] = set()
        self._used: set[str] = set()
        self._roots: dict[str, str] = {}  # a view is held by the tensor that it looks at
        self._inputs: list[str] = []
        self._makers: dict[str, int] = {}
        self._last_read: dict[str, int] = {}
        self._ops: list[OpWork] = []

    def __getitem__(self, name: str) -> TensorSize:
        return self._sizes[name]

    def __contains__(self, name: str) -> bool:
        return name in self._sizes

    def add_input(self, name: str, size: TensorSize) -> None:
        self._sizes[name] = size
        self._inputs.append(name)
        self._weights.add(name)  # a pack is given as an input; latents lose this in the first product

    def add_constant(
        self, name: str, size: TensorSize, *, identity: str | None = None, stored: int | None = None
    ) -> None:
        """A constant; `stored` are its bytes in the file, by default those of its size."""
        key = identity or name
        self._sizes[name], self._constants[name] = size, (key,)
        self._stored[key] = size.size_bytes if stored is None else stored
        self._bits[key] = size.bits
        self._weights.add(name)

    def fold(self, name: str, size: TensorSize, reads: Iterable[str]) -> None:
        """A result that is made of the constants `reads` once, before the program runs."""
        self._sizes[name] = size
        self._constants[name] = tuple(key for one in reads for key in self._constants[one])
        self._weights.add(name)

    def is_constant(self, name: str) -> bool:
        return name in self._constants

    def sources(self, name: str) -> tuple[str, ...]:
        """Identities of the constants that `name` stands for; none for what is computed."""
        return self._constants.get(name, ())

    def is_weight(self, name: str) -> bool:
        """Whether a tensor is constant, given, or only looked up in, cut or converted from such."""
        return name in self._weights

    def product_class(self, *reads: str) -> OpClass:
        """`linear` where one of the factors is a weight."""
        return "linear" if any(map(self.is_weight, reads)) else "attention"

    def add(
        self,
        op: OpWork,
        reads: Sequence[str],
        writes: Mapping[str, TensorSize],
        *,
        has_bias: bool = False,
        is_view: bool = False,
        reads_all: bool = False,
    ) -> None:
        """An operator as a format holds it; what it moves is counted here, of what it is told to read and to write.

        `has_bias`: it adds one. `is_view`: it moves nothing. `reads_all`: the whole of what it looks up in or cuts.
        """
        index = len(self._ops)
        self._sizes |= writes
        self._makers |= dict.fromkeys(writes, index)
        self._used.update(key for name in reads for key in self._constants.get(name, ()))
        if is_view:
            self._roots |= dict.fromkeys(writes, self._root(reads[0]))
        for name in reads:
            self._last_read[self._root(name)] = index
        heads = reads[:1] if op.op_class == "lookup" else reads
        if op.op_class in _CARRIES_WEIGHTS and all(map(self.is_weight, heads)):
            self._weights.update(writes)
        elements = sum(size.elements for size in writes.values())
        weight_bytes = activation_bytes = 0
        if not is_view:
            is_partial = op.op_class in ("lookup", "layout") and not reads_all
            weight_bytes, read_bytes = self._count_reads(reads, elements if is_partial else None)
            activation_bytes = read_bytes + sum(size.size_bytes for size in writes.values())
        self._ops.append(
            replace(
                op,
                elements=elements,
                bias_elements=elements if has_bias else 0,
                weight_bytes=weight_bytes,
                activation_bytes=activation_bytes,
                layer=_name_layer(reads),
            )
        )

    def mark_bias(self, result: str) -> None:
        """The product that gives `result` has its bias added by an operator after it."""
        index = self._makers[result]
        self._ops[index] = replace(self._ops[index], bias_elements=self._ops[index].elements)

    def finish(self, target: str, program: str, outputs: Iterable[str], num_delegates: int = 0) -> ProgramWork:
        """The program, when all operators are in."""
        return ProgramWork(
            target=target,
            program=program,
            ops=_fill_layers(self._ops),
            weight_bytes=sum(self._stored[key] for key in self._used),
            bytes_by_bits=self._sum_by_bits(),
            peak_activation_bytes=self._find_peak({self._root(name) for name in outputs}),
            num_delegates=num_delegates,
        )

    def _sum_by_bits(self) -> dict[int, int]:
        sums: dict[int, int] = {}
        for key in self._used:
            sums[self._bits[key]] = sums.get(self._bits[key], 0) + self._stored[key]
        return dict(sorted(sums.items()))

    def _root(self, name: str) -> str:
        return self._roots.get(name, name)

    def _count_reads(self, reads: Sequence[str], elements: int | None) -> tuple[int, int]:
        """(bytes of constants, bytes of other tensors): of each the share of so many `elements`, all of it if None."""
        constants: dict[str, float] = {}
        activations: dict[str, float] = {}
        for name in reads:
            share = 1.0 if elements is None else min(1.0, elements / max(1, self._sizes[name].elements))
            if name in self._constants:
                constants |= {key: share * self._stored[key] for key in self._constants[name]}
            else:
                activations[name] = share * self._sizes[name].size_bytes
        return round(sum(constants.values())), round(sum(activations.values()))

    def _find_peak(self, outputs: set[str]) -> int:
        """Inputs and outputs are the caller's: there from the start, or to the end."""
        end = len(self._ops)
        changes = [0] * (end + 1)
        made = {name: index for name, index in self._makers.items() if name not in self._roots}
        for name in (*self._inputs, *made):
            first = made.get(name, 0)
            last = end - 1 if name in self._inputs or name in outputs else self._last_read.get(name, first)
            changes[first] += self._sizes[name].size_bytes
            changes[last + 1] -= self._sizes[name].size_bytes
        return max(accumulate(changes))


def _name_layer(names: Iterable[str]) -> str:
    """The layer that a constant among `names` is called after, `blocks.3`, or nothing."""
    found = next((match for name in names if (match := _LAYER_NAME.match(name))), None)
    if found is None:
        return ""
    return found["part"] or f"{found['block']}.{found['index']}"


def _fill_layers(ops: Sequence[OpWork]) -> tuple[OpWork, ...]:
    """What has no named weight belongs to the layer after it: products come before the bias that bears the name."""
    filled: list[OpWork] = []
    layer = next((op.layer for op in reversed(ops) if op.layer), "")
    for op in reversed(ops):
        layer = op.layer or layer
        filled.append(replace(op, layer=layer))
    return tuple(reversed(filled))
