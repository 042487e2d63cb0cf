"""Row-lazy AdamW and EMA: exact where a class is absent, ordinary where every class is there."""

from __future__ import annotations

import pytest
import torch
from tiny_training import TINY_DIT
from torch import Tensor

from kind_core.dit import KindDiT
from kind_train.run.optimizer import BETAS, EPS, DivertedAdamW
from tiny import tiny_model

BANK = "tailors.weight"
pytestmark = pytest.mark.usefixtures("one_thread")


def make_model() -> KindDiT:
    return tiny_model(TINY_DIT)


def draw_gradients(model: KindDiT, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}


def take_step(optimizer: DivertedAdamW, classes: Tensor, seed: int, *, max_norm: float = 1e9, lr: float = 1e-2) -> None:
    gradients = draw_gradients(optimizer.model, seed)
    rows = optimizer.gather(classes)
    rows.grad = gradients[BANK][classes].clone()
    for name, parameter in optimizer.learngene.items():
        parameter.grad = gradients[name].clone()
    optimizer.clip_gradients(rows, max_norm)
    optimizer.step(classes, rows, lr)


def row_state(optimizer: DivertedAdamW, row: int) -> dict[str, Tensor]:
    state = {k: v[row].clone() for k, v in optimizer.state_dict().items() if k.startswith("rows.")}
    return {**state, "weight": optimizer.model.tailors.weight.detach()[row].clone()}


def test_an_absent_class_keeps_every_bit() -> None:
    optimizer = DivertedAdamW(make_model(), weight_decay=0.1, ema_decay=0.9)
    for seed in range(3):
        take_step(optimizer, torch.arange(3), seed)  # momentum that an ordinary AdamW would go on spending
    before = [row_state(optimizer, row) for row in range(3)]
    for seed in range(3, 6):
        take_step(optimizer, torch.tensor([0, 2]), seed)
    after = [row_state(optimizer, row) for row in range(3)]
    assert set(before[1]) == {"weight", "rows.first", "rows.second", "rows.average", "rows.steps", "rows.log_decay"}
    for name, value in before[1].items():
        assert torch.equal(value, after[1][name]), name
        assert not torch.equal(before[0][name], after[0][name]), name
        assert not torch.equal(before[2][name], after[2][name]), name


def test_no_class_leaves_the_bank_and_moves_the_learngene() -> None:
    optimizer = DivertedAdamW(make_model())
    bank = optimizer.model.tailors.weight.detach().clone()
    learngene = optimizer.learngene["null_label_embedding"].detach().clone()
    nobody = torch.tensor([], dtype=torch.long)
    rows = optimizer.gather(nobody)
    for name, parameter in optimizer.learngene.items():
        parameter.grad = draw_gradients(optimizer.model, 0)[name]
    optimizer.clip_gradients(rows, 1.0)
    optimizer.step(nobody, rows, 1e-2)
    assert torch.equal(optimizer.model.tailors.weight, bank)
    assert not torch.equal(optimizer.learngene["null_label_embedding"], learngene)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("max_norm", [1e9, 0.5])
def test_with_every_class_in_every_batch_it_is_torch_adamw_and_an_ordinary_ema(
    weight_decay: float, max_norm: float
) -> None:
    model, reference = make_model(), make_model()
    optimizer = DivertedAdamW(model, weight_decay=weight_decay, ema_decay=0.6)
    adamw = torch.optim.AdamW(reference.parameters(), betas=BETAS, eps=EPS, weight_decay=weight_decay)
    average = {name: p.detach().clone() for name, p in reference.named_parameters()}
    for step in range(15):
        lr = 1e-2 / (step + 1)
        take_step(optimizer, torch.arange(3), step, max_norm=max_norm, lr=lr)
        adamw.param_groups[0]["lr"] = lr
        for name, gradient in draw_gradients(reference, step).items():
            reference.get_parameter(name).grad = gradient
        torch.nn.utils.clip_grad_norm_(reference.parameters(), max_norm)
        adamw.step()
        decay = min(0.6, (step + 1) / (step + 10))
        for name, parameter in reference.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * parameter.detach()
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), parameter, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(optimizer.averaged_state()[name], average[name], atol=1e-6, rtol=1e-5)


def test_the_lazy_average_is_the_eager_average_of_rows_that_stood_still() -> None:
    optimizer = DivertedAdamW(make_model(), ema_decay=0.95)
    eager = optimizer.model.tailors.weight.detach().double()
    visits = [[0, 1, 2], [0], [0, 1], [1], [1], [], [0], [1], [0, 2], [0], [0], [1]]
    for step, classes in enumerate(visits):
        take_step(optimizer, torch.tensor(classes, dtype=torch.long), step)
        decay = min(0.95, (step + 1) / (step + 10))
        eager = decay * eager + (1 - decay) * optimizer.model.tailors.weight.detach().double()
    lazy = optimizer.averaged_state()[BANK].double()
    torch.testing.assert_close(lazy, eager, atol=1e-6, rtol=1e-5)
    assert (lazy - optimizer.model.tailors.weight).abs().max() > 1e-3  # the average is not the weight itself


def test_a_tailor_that_joins_late_is_corrected_for_its_own_steps() -> None:
    """Each row is an AdamW of its own that was called when its class was there, whatever the others did."""
    optimizer = DivertedAdamW(make_model(), weight_decay=0.1)
    rows = [row.clone().requires_grad_() for row in optimizer.model.tailors.weight.detach()]
    own = [torch.optim.AdamW([row], lr=1e-2, betas=BETAS, eps=EPS, weight_decay=0.1) for row in rows]
    for step, classes in enumerate([[0], [0], [0, 1], [0], [1], [0, 2], [0], [2]]):
        take_step(optimizer, torch.tensor(classes), step)
        gradient = draw_gradients(optimizer.model, step)[BANK]
        for index in classes:
            rows[index].grad = gradient[index]
            own[index].step()
    torch.testing.assert_close(
        optimizer.model.tailors.weight.detach(), torch.stack(rows).detach(), atol=1e-6, rtol=1e-5
    )


def test_reading_the_average_changes_nothing() -> None:
    optimizer = DivertedAdamW(make_model(), ema_decay=0.9)
    take_step(optimizer, torch.tensor([1]), 0)
    before = {name: value.clone() for name, value in optimizer.state_dict().items()}
    optimizer.averaged_state()
    for name, value in optimizer.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_gathered_rows_collect_the_gradient_of_the_bank() -> None:
    model = make_model()
    optimizer = DivertedAdamW(model)
    latents, timesteps = torch.randn(4, 3, 8, 8), torch.tensor([10.0, 300.0, 600.0, 900.0])
    labels = torch.tensor([2, 0, 2, -1])
    model(latents, timesteps, labels, labels).square().mean().backward()
    whole = model.tailors.weight.grad
    classes = torch.tensor([0, 2])
    rows = optimizer.gather(classes)
    positions = torch.tensor([1, 0, 1, -1])
    model(latents, timesteps, positions, positions, rows).square().mean().backward()
    assert whole is not None
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad, whole[classes])
    assert rows.grad.abs().max() > 1e-4
    assert not whole[1].any()


def test_restored_state_continues_bit_for_bit() -> None:
    first, second = DivertedAdamW(make_model(), ema_decay=0.9), DivertedAdamW(make_model(), ema_decay=0.9)
    for seed in range(4):
        take_step(first, torch.tensor([seed % 3]), seed)
    saved = {name: value.clone() for name, value in first.state_dict().items()}
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(saved)
    for optimizer in (first, second):
        take_step(optimizer, torch.tensor([0, 1]), 9)
    assert set(first.state_dict()) == set(second.state_dict())
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    for name, value in first.averaged_state().items():
        assert torch.equal(value, second.averaged_state()[name]), name
