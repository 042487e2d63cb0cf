"""The form of each matrix: timed, set for every block, and part of the state of a run."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from tiny_training import make_config, make_photos

from kind_train.run import forms
from kind_train.run.forms import GROUPS, read_forms, set_forms, tune_forms
from kind_train.run.trainer import Trainer
from tiny import tiny_config, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


def test_forms_are_set_for_every_block() -> None:
    model = tiny_model()
    for wanted in ([1, 0, 0, 1], [0, 1, 1, 0]):
        set_forms(model, torch.tensor(wanted, dtype=torch.uint8))
        assert read_forms(model).tolist() == wanted
        for block in model.blocks:
            assert [block.get_submodule(names[-1]).is_thin for names in GROUPS] == [bool(one) for one in wanted]


def test_the_faster_form_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    times = iter([1.0, 2.0, 2.0, 1.0, 3.0, 1.0, 1.0, 1.0])  # thin, materialised, for each group
    monkeypatch.setattr(forms, "_time_form", lambda *args: next(times))
    tune_forms(model, 2, nullcontext)
    assert read_forms(model).tolist() == [1, 0, 0, 1]


def test_tuning_changes_neither_weights_nor_gradients() -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    times = tune_forms(model, 2, nullcontext)
    assert set(times) == {", ".join(names) for names in GROUPS}
    assert all(ms > 0 for pair in times.values() for ms in pair)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_dense_model_has_no_forms() -> None:
    model = tiny_model(tiny_config(learngene_rank=None, tailor_rank=0))
    assert tune_forms(model, 2, nullcontext) == {}
    assert read_forms(model).numel() == 0
    set_forms(model, read_forms(model))


@pytest.mark.usefixtures("tiny")
def test_a_resumed_run_keeps_its_forms(tmp_path: Path) -> None:
    trainer = Trainer(make_config(tmp_path), make_photos(), make_photos(seed=1))
    other = 1 - read_forms(trainer.model)
    set_forms(trainer.model, other)
    trainer.save()
    resumed = Trainer(make_config(tmp_path), make_photos(), make_photos(seed=1), resume=True)
    assert torch.equal(read_forms(resumed.model), other)
