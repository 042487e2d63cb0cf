"""A MIL function as a list of steps: every op bound to its rule, its constants ready as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kind_core.errors import TargetError
from kind_runtimes.coreml.ops import TORCH_DTYPES, Rule, find_rule

_REPORT_HINT = "report it, or add it in runtimes/kind_runtimes/coreml/ops"
RULE_ERRORS = (RuntimeError, ValueError, LookupError, TypeError, AttributeError)  # what torch raises in a rule
Source = int | list[int | Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A result in the program. `shape` has None where the size is known at run time only."""

    slot: int
    name: str
    shape: tuple[int | None, ...]
    mil_dtype: str

    @property
    def torch_dtype(self) -> torch.dtype:
        """In what the evaluator holds it; fp16 is held, rounded, in fp32."""
        return TORCH_DTYPES[self.mil_dtype]

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether `shape` is this one, up to the sizes that are known at run time only."""
        return len(shape) == len(self.shape) and all(
            expected in (None, size) for expected, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One op. `constants` and `sources` together are the arguments of its rule; `plain` ones become Python values."""

    op_type: str
    name: str
    rule: Rule
    constants: dict[str, object]
    sources: dict[str, Source]
    plain: frozenset[str]
    outputs: tuple[Value, ...]
    releases: list[int] = field(default_factory=list)  # slots that nothing after this step reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The whole function. Slots number the values that change from run to run.

    `weights` has the constant tensors by their saved names, compressed ones expanded.
    """

    inputs: dict[str, Value]
    outputs: dict[str, int | Tensor]
    output_dtypes: dict[str, str]
    steps: tuple[Step, ...]
    num_slots: int
    weights: dict[str, Tensor]


def bind_function(function: Any) -> Steps:
    """The steps of a loaded MIL function; a TargetError names an op that has no rule, before anything runs."""
    return _Binder().bind(function)


class _Binder:
    """Walks the ops in order and remembers where each variable's value is: in a slot, or known already."""

    def __init__(self) -> None:
        self._slots: dict[Any, int] = {}
        self._constants: dict[Any, Any] = {}  # numpy arrays and scalars, str
        self._tensors: dict[Any, Tensor] = {}  # the same as tensors, made once

    def bind(self, function: Any) -> Steps:
        inputs = {name: self._add_value(var) for name, var in function.inputs.items()}
        steps = tuple(step for op in function.operations if (step := self._bind_op(op)))
        outputs: dict[str, int | Tensor] = {
            var.name: self._slots[var] if var in self._slots else self._find_tensor(var) for var in function.outputs
        }
        kept = {slot for slot in outputs.values() if isinstance(slot, int)}
        _plan_releases(steps, kept)
        return Steps(
            inputs=inputs,
            outputs=outputs,
            output_dtypes={var.name: _name_dtype(var) for var in function.outputs},
            steps=steps,
            num_slots=len(self._slots),
            weights={str(var.name): tensor for var, tensor in self._tensors.items()},
        )

    def _bind_op(self, op: Any) -> Step | None:
        """The step of `op`; None for a constant, whose value is kept instead."""
        if op.op_type == "const":
            self._constants[op.outputs[0]] = op.outputs[0].val
            return None
        name = str(op.outputs[0].name)
        if op.blocks:
            raise TargetError(f"op {name!r} of type {op.op_type} has nested blocks", _REPORT_HINT)
        rule = find_rule(op.op_type)
        if rule is None:
            raise TargetError(f"op {name!r} has type {op.op_type}, which has no rule", _REPORT_HINT)
        arguments = {name: one for name, one in op.inputs.items() if one is not None}
        if unknown := sorted(set(arguments) - rule.parameters):
            raise TargetError(f"op {name!r} of type {op.op_type} has an unknown input {unknown[0]!r}", _REPORT_HINT)
        if op.op_type.startswith("constexpr_"):
            self._expand(op, rule, arguments)
            return None
        return self._make_step(op, name, rule, arguments)

    def _make_step(self, op: Any, name: str, rule: Rule, arguments: dict[str, object]) -> Step:
        constants: dict[str, object] = {}
        sources: dict[str, Source] = {}
        for parameter, argument in arguments.items():
            if isinstance(argument, list | tuple):
                sources[parameter] = [self._slots[x] if x in self._slots else self._find_tensor(x) for x in argument]
            elif argument in self._slots:
                sources[parameter] = self._slots[argument]
            elif parameter in rule.tensor_parameters:
                constants[parameter] = self._find_tensor(argument)
            else:
                constants[parameter] = _to_plain(self._constants[argument])
        return Step(
            op_type=op.op_type,
            name=name,
            rule=rule,
            constants=constants,
            sources=sources,
            plain=frozenset(sources) - rule.tensor_parameters,
            outputs=tuple(self._add_value(var) for var in op.outputs),
        )

    def _add_value(self, var: Any) -> Value:
        slot = self._slots[var] = len(self._slots)
        shape = tuple(int(size) if isinstance(size, int | np.integer) else None for size in var.shape)
        return Value(slot=slot, name=var.name, shape=shape, mil_dtype=_name_dtype(var))

    def _find_tensor(self, var: Any) -> Tensor:
        if var not in self._tensors:
            self._tensors[var] = _to_tensor(self._constants[var])
        return self._tensors[var]

    def _expand(self, op: Any, rule: Rule, arguments: dict[str, object]) -> None:
        """Keep the values of a compressed constant, rounded to its type: for a device they are its weights as well."""
        values = {
            name: self._read_part(var, is_tensor=name in rule.tensor_parameters) for name, var in arguments.items()
        }
        (var,) = op.outputs
        try:
            result = rule.function(**values)
        except RULE_ERRORS as error:
            raise TargetError(
                f"constant {var.name!r} of type {op.op_type} cannot be expanded: {error}", _REPORT_HINT
            ) from error
        assert isinstance(result, Tensor)
        if tuple(result.shape) != tuple(var.shape):
            raise TargetError(
                f"constant {var.name!r} of type {op.op_type} has shape {tuple(result.shape)}, "
                f"the program says {tuple(var.shape)}",
                _REPORT_HINT,
            )
        self._tensors[var] = result.half().float() if _name_dtype(var) == "fp16" else result

    def _read_part(self, var: Any, *, is_tensor: bool) -> Any:
        """An input of a compressed constant: another one, expanded before it, or plain data that nothing else needs."""
        if var in self._tensors:
            return self._tensors[var]
        return _to_tensor(self._constants[var]) if is_tensor else _to_plain(self._constants[var])


def _plan_releases(steps: tuple[Step, ...], kept: set[int]) -> None:
    """Note at each step which slots no later one reads, so that their memory is freed during a run."""
    seen = set(kept)
    for step in reversed(steps):
        for slot in (*_list_slots(step), *(value.slot for value in step.outputs)):
            if slot not in seen:
                seen.add(slot)
                step.releases.append(slot)


def _list_slots(step: Step) -> Iterator[int]:
    for source in step.sources.values():
        yield from (one for one in (source if isinstance(source, list) else [source]) if isinstance(one, int))


def _name_dtype(var: Any) -> str:
    from coremltools.converters.mil.mil import types

    name = str(types.builtin_to_string(var.dtype))
    if name not in TORCH_DTYPES:
        raise TargetError(f"value {var.name!r} has the unknown dtype {name}", _REPORT_HINT)
    return name


def _to_plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _to_tensor(value: Any) -> Tensor:
    array = np.asarray(value)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    elif array.dtype in (np.uint16, np.uint32):
        array = array.astype(np.int32 if array.dtype == np.uint16 else np.int64)
    return torch.from_numpy(np.array(array, order="C", copy=None if array.flags.writeable else True))
