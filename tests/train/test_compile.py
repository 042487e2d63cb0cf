"""`--compile` trains the same: one graph, whatever the number of classes in a batch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config, make_photos

from kind_core.errors import ConfigError
from kind_train.device import require_arithmetic
from kind_train.run.memory import checkpoint_activations
from kind_train.run.trainer import Trainer
from kind_train.start.shape import Shape
from tiny import tiny_batch, tiny_config, tiny_model

compile_model = torch.compile
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"),
]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compiled anew, the C++ without optimisation: the same kernels, whose compiler is nobody's doubt here."""
    monkeypatch.setenv("TORCHINDUCTOR_DEBUG_COMPILE", "1")  # -O0, which takes a fraction of the time
    # and no symbols, which come with it and take a fifth of what is left
    monkeypatch.setattr("torch._inductor.cpp_builder._get_inductor_debug_symbol_cflags", lambda: ([], []))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


# of two classes a graph of its own, of three the one for any number; one class is a third, and its C++ no other
@pytest.mark.parametrize(
    ("backend", "is_twice", "batches"),
    [
        ("inductor", False, ([0, 1, 1, -1], [2, 0, 1, 2], [3, 2, 1, 0])),
        # with activations computed twice the C++ alone takes minutes, and what can fail is the graph
        ("aot_eager", True, ([0, 1, 1, -1], [2, 0, 1, 2], [0, -1, 0, 0])),
    ],
)
def test_a_compiled_model_has_the_same_outputs_and_gradients(
    backend: str, is_twice: bool, batches: tuple[list[int], ...]
) -> None:
    model = tiny_model(tiny_config(depth=1)).train()
    if is_twice:
        checkpoint_activations(model)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for labels in map(torch.tensor, batches):
        rows = model.tailors.weight.detach()[: int(labels.max()) + 1]
        answers = []
        for forward in (model, compiled):
            leaf = rows.clone().requires_grad_()
            output = forward(*tiny_batch(model.config, 4), labels, labels, leaf)
            output.square().mean().backward()
            gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            model.zero_grad()
            answers.append({"output": output.detach(), "rows": leaf.grad, **gradients})
        assert set(answers[0]) == set(answers[1])
        for name, value in answers[0].items():
            torch.testing.assert_close(answers[1][name], value, rtol=1e-3, atol=1e-4, msg=name)


def _losses(output: Path, precision: str, *, is_compiled: bool) -> list[float]:
    config = make_config(output, precision=precision, compile=is_compiled, images=8)
    losses: list[float] = []
    shape = Shape(dit=replace(TINY_DIT, depth=1), diffusion=TINY_DIFFUSION)
    trainer = Trainer(config, make_photos(), make_photos(4, seed=1), shape=shape)
    trainer.run(lambda progress: losses.append(progress.loss))
    return losses


# the C++ in fp32 is that of the model above: here the graphs of a run are enough
@pytest.mark.parametrize(
    ("precision", "backend", "tolerance"), [("fp32", "aot_eager", 1e-3), ("bf16", "inductor", 0.02)]
)
def test_a_compiled_run_has_the_losses_of_an_eager_one(
    precision: str, backend: str, tolerance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU with AMX bf16 is refused instead: there these losses differ."""
    if precision == "bf16" and torch.cpu.get_capabilities().get("amx_bf16"):
        with pytest.raises(ConfigError, match="--precision bf16 with --compile is wrong on this CPU"):
            require_arithmetic(precision, torch.device("cpu"), is_compiled=True)
        return
    given = []
    monkeypatch.setattr(torch, "compile", lambda model: given.append(model) or compile_model(model, backend=backend))
    eager, compiled = (_losses(tmp_path / str(one), precision, is_compiled=one) for one in (False, True))
    assert len(given) == 1
    assert len(eager) == 2  # the second is after an update
    assert compiled == pytest.approx(eager, rel=tolerance)
