"""The methods of peft, where it is installed; where it is not, what they say. CI runs this file in an environment of
its own with the extra `benchmark`: peft without transformers breaks diffusers' imports.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config, make_photos

from kind_core.checkpoint import load_checkpoint, save_checkpoint
from kind_core.config import ModelConfig, preset
from kind_core.costs.methods import dense_twin, find_cost
from kind_core.dit import KindDiT
from kind_core.errors import TargetError
from kind_train.methods import open_method
from kind_train.run.trainer import Trainer
from tiny import CLASSES, tiny_batch, tiny_model

NAMES = ("lora", "pissa", "dora", "loha", "oft", "boft")
HAS_PEFT = find_spec("peft") is not None
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    dit = dense_twin(TINY_DIT)
    config = ModelConfig(dit=dit, diffusion=TINY_DIFFUSION, classes=CLASSES[:3])
    save_checkpoint(tmp_path / "base", config, tiny_model(dit, seed=5))
    return tmp_path / "base"


@pytest.fixture(params=NAMES)
def trainer(request: pytest.FixtureRequest, base: Path, tmp_path: Path) -> Iterator[Trainer | str]:
    """A trainer of each method, or the error that stands in its place without peft."""
    options = make_config(
        tmp_path / "run", base=str(base), method=request.param, tailor_rank=2, ema_decay=1e-6, images=16
    )
    if HAS_PEFT:
        yield Trainer(options, make_photos(), make_photos(seed=1))
        return
    with pytest.raises(TargetError) as caught:
        Trainer(options, make_photos(), make_photos(seed=1))
    yield str(caught.value)


@torch.no_grad()
def answer(model: KindDiT, label: int) -> torch.Tensor:
    labels = torch.full((3,), label)
    return model(*tiny_batch(model.config, 3), labels, labels)  # type: ignore[no-any-return]


def test_it_starts_as_its_base_and_merges_to_itself(trainer: Trainer | str, base: Path, tmp_path: Path) -> None:
    if isinstance(trainer, str):
        assert "needs peft, which cannot be imported" in trainer
        assert "pip install 'kind-diffusion[benchmark]'" in trainer
        return
    torch.testing.assert_close(answer(trainer.model, -1), answer(load_checkpoint(base).model, -1), rtol=1e-5, atol=1e-5)
    before = answer(trainer.model, 1)
    trainer.run()
    adapted = answer(trainer.model, 1)
    assert not torch.allclose(adapted, before, atol=1e-3)
    merged = load_checkpoint(tmp_path / "run" / "best").model
    torch.testing.assert_close(answer(merged, 1), adapted, rtol=1e-4, atol=1e-5)


def test_a_resumed_run_is_the_same(trainer: Trainer | str) -> None:
    if isinstance(trainer, str):
        assert "needs peft" in trainer
        return
    trainer.run()
    resumed = Trainer(replace(trainer.config, images=24), make_photos(), make_photos(seed=1), resume=True)
    assert resumed.step == 4
    for key, value in trainer.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key


@pytest.mark.parametrize("name", NAMES)
def test_counts_hold_at_the_papers_size(name: str) -> None:
    """Without peft the formulas stand alone, held to the printed figures by the tests of the counters."""
    method, kind = open_method(name), replace(preset("kind-b/2")[0], num_classes=7, depth=1)
    counted = find_cost(name).trained(kind, 7)
    if not HAS_PEFT:
        assert counted > 0
        return
    model = KindDiT(dense_twin(kind))
    method.prepare(model, method.plan(dense_twin(kind), None))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if name == "oft":  # 21 blocks become 24 of 32 inputs, and of 128
        assert trained == 7 * 768 + 5 * 24 * 32 * 31 // 2 + 24 * 128 * 127 // 2
    elif name == "boft":  # without nvcc one butterfly factor in place of two
        assert trained in (counted, counted - sum(4 * into for _, into in kind.matrix_shapes.values()))
    else:
        assert trained == counted
