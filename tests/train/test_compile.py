"""`--compile` trains the same: one graph, whatever the number of classes in a batch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch

from kind_train.run.memory import checkpoint_activations
from tiny import tiny_batch, tiny_config, tiny_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"),
]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


# with activations computed twice the C++ alone takes minutes, and what can fail is the graph
@pytest.mark.parametrize(("backend", "is_twice"), [("inductor", False), ("aot_eager", True)])
def test_a_compiled_model_has_the_same_outputs_and_gradients(backend: str, is_twice: bool) -> None:
    model = tiny_model(tiny_config(depth=1)).train()
    if is_twice:
        checkpoint_activations(model)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for labels in (torch.tensor([0, 1, 1, -1]), torch.tensor([2, 0, 1, 2]), torch.tensor([0, -1, 0, 0])):
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
