"""A saved Core ML program run op by op on any system, with the roundings that its types prescribe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kind_core.errors import TargetError
from kind_runtimes.coreml.package import CoreMLPackage, TensorSpec
from kind_runtimes.coreml.steps import RULE_ERRORS, Step, Value, bind_function

Array = np.ndarray[Any, np.dtype[Any]]
Arithmetic = Literal["saved", "fp32"]
_NUMPY_DTYPES = {"fp16": np.float16, "uint16": np.uint16, "uint32": np.uint32}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpValue:
    """One result of one op: the saved names of both, and the op's type."""

    op_type: str
    op_name: str
    name: str
    value: Array


class Evaluator:
    """Runs a package from what is saved, never from a converted model in memory.

    Each op computes in fp32, where a device may sum in fp16; the program's types say how its results are rounded.
    `arithmetic` "saved" rounds each result to fp16 where the program says fp16 (an overflow becomes infinite);
    "fp32" skips that, with weights as saved, which tells a wrong graph from rounding.
    """

    def __init__(self, package: CoreMLPackage, arithmetic: Arithmetic = "saved") -> None:
        if arithmetic not in ("saved", "fp32"):
            raise ValueError(f"arithmetic is {arithmetic!r}, not 'saved' or 'fp32'")
        self.package = package
        self.arithmetic = arithmetic
        self._program = bind_function(package.load_function())

    def run(self, inputs: Mapping[str, Array], *, raw_images: bool = False) -> dict[str, Array]:
        """The outputs by name. Images are (height, width, 3) uint8, or the program's own value if `raw_images`."""
        slots = self._place_inputs(inputs)
        for _ in self._execute(slots):
            pass
        outputs: dict[str, Array] = {}
        for name, place in self._program.outputs.items():
            value = place if isinstance(place, Tensor) else slots[place]
            assert value is not None  # outputs are never released
            layout = self.package.outputs[name].image
            # A copy: the value may be a view of a constant.
            array = self._to_numpy(value, self._program.output_dtypes[name]).copy()
            outputs[name] = _write_image(array, layout) if layout and not raw_images else array
        return outputs

    def values(self, inputs: Mapping[str, Array]) -> Iterator[OpValue]:
        """Run, giving each op's results in order as they come; they share memory, so do not write into them."""
        for step, results in self._execute(self._place_inputs(inputs)):
            for target, result in zip(step.outputs, results, strict=True):
                yield OpValue(
                    op_type=step.op_type,
                    op_name=step.name,
                    name=target.name,
                    value=self._to_numpy(result, target.mil_dtype),
                )

    def _execute(self, slots: list[Tensor | None]) -> Iterator[tuple[Step, list[Tensor]]]:
        for step in self._program.steps:
            results = self._run_step(step, slots)
            for target, result in zip(step.outputs, results, strict=True):
                slots[target.slot] = result
            yield step, results
            for slot in step.releases:
                slots[slot] = None

    def _run_step(self, step: Step, slots: list[Tensor | None]) -> list[Tensor]:
        arguments = dict(step.constants)
        for parameter, source in step.sources.items():
            if isinstance(source, int):
                arguments[parameter] = slots[source]
            else:
                arguments[parameter] = [slots[one] if isinstance(one, int) else one for one in source]
        for parameter in step.plain:
            arguments[parameter] = _to_plain(arguments[parameter])
        try:
            result = step.rule.function(**arguments)
            results = [result] if isinstance(result, Tensor) else list(result)
            settled = [_settle(one, to) for one, to in zip(results, step.outputs, strict=True)]
        except RULE_ERRORS as error:
            raise TargetError(
                f"{self.package.path}: op {step.name!r} of type {step.op_type} failed: {error}",
                "report it with the package, or mend its rule in runtimes/kind_runtimes/coreml/ops",
            ) from error
        if step.rule.moves:
            return settled
        return [self._round(one, to.mil_dtype) for one, to in zip(settled, step.outputs, strict=True)]

    def _round(self, value: Tensor, mil_dtype: str) -> Tensor:
        return value.half().float() if mil_dtype == "fp16" and self.arithmetic == "saved" else value

    def _place_inputs(self, inputs: Mapping[str, Array]) -> list[Tensor | None]:
        if set(inputs) != set(self._program.inputs):
            raise TargetError(
                f"{self.package.path}: the inputs are {sorted(inputs)}, expected {sorted(self._program.inputs)}",
                "give each input of the program once, by its name",
            )
        slots: list[Tensor | None] = [None] * self._program.num_slots
        for name, target in self._program.inputs.items():
            tensor = _read_input(name, np.asarray(inputs[name]), self.package.inputs[name], target)
            slots[target.slot] = self._round(tensor, target.mil_dtype)
        return slots

    def _to_numpy(self, value: Tensor, mil_dtype: str) -> Array:
        array: Array = value.contiguous().numpy()
        if mil_dtype == "fp16" and self.arithmetic == "fp32":
            return array
        return array.astype(_NUMPY_DTYPES.get(mil_dtype, array.dtype), copy=False)


def _settle(result: Tensor, target: Value) -> Tensor:
    """`result` in the type that the program gives it; a ValueError where the rule disagrees with the program."""
    if not target.fits(tuple(result.shape)):
        raise ValueError(f"its result has shape {tuple(result.shape)}, the program says {target.shape}")
    dtype = target.torch_dtype
    if result.dtype != dtype:
        if result.is_floating_point() or dtype.is_floating_point or torch.bool in (result.dtype, dtype):
            raise ValueError(f"its result is {result.dtype}, the program says {target.mil_dtype}")
        result = result.to(dtype)
    return result


def _read_input(name: str, array: Array, spec: TensorSpec, target: Value) -> Tensor:
    """The tensor of an input; a TargetError where its shape or kind of number is not the program's."""
    if spec.image and array.shape == spec.shape and array.dtype == np.uint8:
        array = _read_image(array, spec.image)
    if not target.fits(array.shape):
        raise TargetError(
            f"input {name!r} has shape {array.shape}, expected {spec.shape}", "reshape it before the call"
        )
    if array.dtype.kind == "f" and not target.torch_dtype.is_floating_point:
        raise TargetError(
            f"input {name!r} has dtype {array.dtype}, expected {spec.dtype}", "convert it before the call"
        )
    # A copy, so that no output can share memory with the caller's array.
    return torch.from_numpy(np.array(array, order="C")).to(target.torch_dtype)


def _to_plain(value: Any) -> Any:
    return [one.tolist() for one in value] if isinstance(value, list) else value.tolist()


def _write_image(value: Array, layout: str) -> Array:
    """Pixels (height, width, 3), or (height, width) if grey, of a value (1, channels, height, width) in 0..255."""
    # A pixel has no NaN: it becomes black
    rounded = np.rint(np.nan_to_num(value[0].astype(np.float32), nan=0.0))
    planes: Array = np.clip(rounded, 0, 255).astype(np.uint8)
    if layout == "GRAYSCALE":
        return planes.reshape(planes.shape[1:])
    return np.ascontiguousarray(_order_channels(planes, layout).transpose(1, 2, 0))


def _read_image(pixels: Array, layout: str) -> Array:
    """The program's value (1, channels, height, width) of an RGB or grey picture; the program itself scales it."""
    planes = pixels[None] if layout == "GRAYSCALE" else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(_order_channels(planes, layout)[None], dtype=np.float32)


def _order_channels(planes: Array, layout: str) -> Array:
    return planes[::-1] if layout == "BGR" else planes
