"""Small saved Core ML packages for tests: from MIL ops, and from torch modules as an exporter makes them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kind_runtimes.coreml.evaluator import Evaluator
from kind_runtimes.coreml.package import CoreMLPackage
from kind_runtimes.quiet import import_coremltools

WIDTH, HEADS, GRID, PATCH, STEPS = 48, 3, 4, 2, 5


def save_program(
    build: Callable[..., Any],
    placeholders: Mapping[str, tuple[tuple[Any, ...], str]],
    path: Path,
    target: str = "iOS17",
    precision: str = "FLOAT32",
    **how: Any,
) -> CoreMLPackage:
    """The saved program of `build(mb, t)`, where `t` has the placeholders (shape, MIL dtype) by name."""
    ct = import_coremltools()
    from coremltools.converters.mil import mil

    inputs = {
        name: mil.Builder.placeholder(shape=shape, dtype=getattr(mil.types, dtype))
        for name, (shape, dtype) in placeholders.items()
    }
    program = mil.Program()
    with mil.Function(inputs, getattr(ct.target, target)) as function:
        built = build(mil.Builder, SimpleNamespace(**function.inputs))
        function.set_outputs(list(built) if isinstance(built, tuple | list) else [built])
        program.add_function("main", function)
    save_model(program, path, target, precision, **how)
    return CoreMLPackage.open(path)


def save_module(
    module: nn.Module, examples: tuple[Tensor, ...], path: Path, target: str, precision: str, **how: Any
) -> Any:
    """Save `module`; the converted model, still in memory."""
    exported = torch.export.export(module.eval(), examples).run_decompositions({})
    return save_model(exported, path, target, precision, **how)


def save_model(source: Any, path: Path, target: str, precision: str, **how: Any) -> Any:
    ct = import_coremltools()
    model = ct.convert(
        source,
        convert_to="mlprogram",
        minimum_deployment_target=getattr(ct.target, target),
        compute_precision=getattr(ct.precision, precision),
        **how,
    )
    model.save(str(path))
    return model


def count_ops(package: CoreMLPackage) -> Counter[str]:
    """How often each op type occurs in the package's function; constants are not counted."""
    function = package.spec.mlProgram.functions[package.function]
    operations = function.block_specializations[function.opset].operations
    return Counter(op.type for op in operations if op.type != "const")


def run_one(evaluator: Evaluator, **inputs: np.ndarray) -> np.ndarray:
    """The only output."""
    (output,) = evaluator.run(inputs).values()
    return output


def gelu_tanh(x: Tensor) -> Tensor:
    """Written out: coremltools 9.0 drops `approximate="tanh"` of an exported program (its pull request 2863)."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class Block(nn.Module):
    """A transformer block whose modulation (batch, 1, 6 width) comes from a table."""

    def __init__(self, fused_attention: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False, eps=1e-6)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.fused_attention = fused_attention

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.chunk(6, -1)
        x = x + gate_a * self.attend(self.norm(x) * (1 + scale_a) + shift_a)
        hidden = self.up(self.norm(x) * (1 + scale_m) + shift_m)
        return x + gate_m * self.down(gelu_tanh(hidden))

    def attend(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        heads = self.qkv(x).reshape(batch, tokens, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        q, k, v = heads.unbind(0)
        if self.fused_attention:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = torch.softmax(q @ k.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5, -1) @ v
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, WIDTH))


class SmallDiT(nn.Module):
    """Two blocks over a grid of patches; `step` (1,) int32 picks the modulations."""

    def __init__(self, fused_attention: bool = False) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.blocks = nn.ModuleList(Block(fused_attention) for _ in range(2))
        self.table = nn.Parameter(torch.randn(STEPS, 1, 2 * 6 * WIDTH))
        self.head = nn.Linear(WIDTH, PATCH * PATCH * 3)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        modulations = self.table.index_select(0, step).chunk(2, -1)
        for block, modulation in zip(self.blocks, modulations, strict=True):
            tokens = block(tokens, modulation)
        patches = self.head(tokens).reshape(x.shape[0], GRID, GRID, PATCH, PATCH, 3)
        size = GRID * PATCH
        return torch.einsum("nhwpqc->nchpwq", patches).reshape(x.shape[0], 3, size, size)
