from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kind_core.config import DiTConfig
from kind_core.dit import KindDiT
from kind_core.tailors import TailorBank, class_shapes
from tiny import compose_dense, tiny_batch, tiny_config, tiny_model

RANKS = (2, 0, 1, 3)


def _multi_hot(classes: int, *rows: tuple[int, ...]) -> Tensor:
    gates = torch.zeros(len(rows), classes)
    for i, row in enumerate(rows):
        gates[i, list(row)] = 1
    return gates


def _run(model: KindDiT, gates: Tensor, labels: Tensor | None = None) -> Tensor:
    latents, timesteps = tiny_batch(model.config, gates.shape[0])
    labels = torch.zeros(gates.shape[0], dtype=torch.long) if labels is None else labels
    with torch.no_grad():
        return model(latents, timesteps, labels, gates)  # type: ignore[no-any-return]


@pytest.fixture(params=[None, RANKS], ids=["equal ranks", "ranks by class"])
def either_model(request: pytest.FixtureRequest) -> KindDiT:
    return tiny_model(tiny_config(tailor_ranks=request.param))


def test_every_gate_shows_in_the_output(model: KindDiT) -> None:
    # the guard of all the equalities here: a model that ignores its gates would pass them
    outputs = [_run(model, torch.tensor([gate])) for gate in (-1, 0, 1, 2, 3)]
    for i, first in enumerate(outputs):
        for second in outputs[:i]:
            assert (first - second).abs().max() > 1e-2


def test_long_gates_equal_multi_hot_gates(either_model: KindDiT) -> None:
    by_index = _run(either_model, torch.tensor([0, 3, -1, 2, 1, 4]))
    by_weight = _run(either_model, _multi_hot(4, (0,), (3,), (), (2,), (1,), ()))
    torch.testing.assert_close(by_index, by_weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("classes", [(), (0,), (1,), (1, 3), (0, 2), (0, 1, 2, 3)])
def test_open_gates_add_their_terms_to_the_learngene(either_model: KindDiT, classes: tuple[int, ...]) -> None:
    labels = torch.tensor([2, -1])
    gated = _run(either_model, _multi_hot(4, classes, classes), labels)
    composed = _run(compose_dense(either_model, classes), torch.zeros(2, 4), labels)
    torch.testing.assert_close(gated, composed, rtol=1e-5, atol=2e-5)


def test_a_gate_scales_its_term(model: KindDiT) -> None:
    half = _run(model, torch.tensor([[0.0, 0.5, 0.0, 0.0]]))
    with torch.no_grad():
        for name, _, _ in model.config.matrix_names():
            model.tailors.factors(model.tailors.weight[1], name)[1].mul_(0.5)
    torch.testing.assert_close(half, _run(model, torch.tensor([1])), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("removed", [0, 2])
def test_removing_a_tailor_changes_nothing_for_the_others(model: KindDiT, removed: int) -> None:
    others = torch.tensor([c for c in range(4) if c != removed] + [-1])
    before, own = _run(model, others, others), _run(model, torch.tensor([removed]))
    with torch.no_grad():
        model.tailors.weight[removed] = 0
    assert torch.equal(_run(model, others, others), before)
    assert (_run(model, torch.tensor([removed])) - own).abs().max() > 1e-2


def test_a_model_that_never_had_the_other_classes_is_the_same(either_model: KindDiT) -> None:
    kept, config = (3, 1), either_model.config
    ranks = tuple(config.ranks[c] for c in kept)
    subset = tiny_model(tiny_config(num_classes=2, tailor_ranks=ranks), seed=9)
    subset.load_state_dict(either_model.learngene_state(), strict=False)
    for index, c in enumerate(kept):
        subset.tailors.load_class(index, either_model.tailors.state_of(c))
    for index, c in enumerate(kept):
        full_choice, choice = torch.tensor([c]), torch.tensor([index])
        assert torch.equal(_run(subset, choice, choice), _run(either_model, full_choice, full_choice))


def _backward(model: KindDiT, labels: Tensor, gates: Tensor) -> None:
    latents, timesteps = tiny_batch(model.config, gates.shape[0])
    model(latents, timesteps, labels, gates).square().mean().backward()


def test_only_the_open_tailors_get_a_gradient(model: KindDiT) -> None:
    _backward(model, torch.tensor([1, 1, -1]), torch.tensor([1, 1, -1]))
    assert model.tailors.weight.grad is not None
    assert model.tailors.weight.grad[1].count_nonzero() == model.tailors.width
    assert not model.tailors.weight.grad[[0, 2, 3]].any()
    assert model.blocks[0].attn.q.U.grad.any()  # type: ignore[union-attr, operator]


def test_the_null_label_trains_the_learngene_alone(model: KindDiT) -> None:
    _backward(model, torch.tensor([-1, 4]), torch.tensor([-1, 4]))
    assert model.tailors.weight.grad is not None
    assert not model.tailors.weight.grad.any()
    assert model.null_label_embedding.grad is not None
    assert model.null_label_embedding.grad.any()


def test_padded_components_stay_zero_under_training() -> None:
    model = tiny_model(tiny_config(tailor_ranks=RANKS))
    start = model.tailors.weight.detach().clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0)
    for _ in range(2):
        optimizer.zero_grad()
        _backward(model, torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, 3]))
        optimizer.step()
    for c, rank in enumerate(RANKS):
        for name, _, _ in model.config.matrix_names():
            for before, after in zip(
                model.tailors.factors(start[c], name),
                model.tailors.factors(model.tailors.weight[c], name),
                strict=True,
            ):
                assert not after[rank:].any()
                assert bool(after[:rank].ne(before[:rank]).all())


def test_the_bank_starts_with_the_asked_ranks() -> None:
    bank = TailorBank(tiny_config(tailor_ranks=RANKS))
    assert bank.rank == 3
    for c, rank in enumerate(RANKS):
        for factor in bank.factors(bank.weight[c], "blocks.0.mlp.up"):
            assert bool(factor[:rank].ne(0).all())
            assert not factor[rank:].any()


@pytest.mark.parametrize("ranks", [(8, 8), (8, 0)])
def test_learngene_and_tailor_together_start_with_xaviers_variance(ranks: tuple[int, int]) -> None:
    config = tiny_config(hidden_size=128, depth=1, num_classes=2, learngene_rank=8, tailor_rank=8, tailor_ranks=ranks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = KindDiT(config)
    composed = compose_dense(model, [0]).state_dict()
    for name, in_features, out_features in config.matrix_names():
        xavier = 2 / (in_features + out_features)
        assert composed[f"{name}.weight"].var().item() == pytest.approx(xavier, rel=0.12), name


@pytest.mark.parametrize("ranks", [None, RANKS, (0, 0, 0, 0)])
def test_the_state_of_a_class_has_the_shapes_of_its_file_and_loads_back(
    ranks: tuple[int, ...] | None,
) -> None:
    config = tiny_config(tailor_ranks=ranks)
    bank, other = TailorBank(config), TailorBank(config)
    torch.nn.init.ones_(other.weight)  # what was there before, padding too, must not stay
    for c in range(config.num_classes):
        state = bank.state_of(c)
        assert {name: tuple(t.shape) for name, t in state.items()} == class_shapes(config, c)
        assert all(t.is_contiguous() for t in state.values())
        other.load_class(c, state)
    assert torch.equal(bank.weight, other.weight)


def test_the_state_of_a_class_is_a_copy(model: KindDiT) -> None:
    before = model.tailors.weight.detach().clone()
    for tensor in model.tailors.state_of(0).values():
        tensor.zero_()
    assert torch.equal(model.tailors.weight, before)


def test_a_fresh_tailor_touches_its_own_row_only(model: KindDiT) -> None:
    before = model.tailors.weight.detach().clone()
    model.tailors.init_class(2)
    changed = model.tailors.weight.detach().ne(before).any(dim=1)
    assert changed.tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    "config",
    [tiny_config(tailor_rank=0), tiny_config(learngene_rank=None, tailor_rank=0)],
    ids=["rank 0", "dense"],
)
def test_without_tailors_gates_do_nothing(config: DiTConfig) -> None:
    model = tiny_model(config)
    assert torch.equal(_run(model, torch.tensor([0, 1])), _run(model, torch.tensor([-1, -1])))
    assert model.tailors.width == config.hidden_size
