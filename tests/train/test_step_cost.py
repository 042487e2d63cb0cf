"""A step costs the same whatever the number of classes: only the rows of the batch are touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config, make_photos
from torch.utils._python_dispatch import TorchDispatchMode

from kind_core.classes import ClassInfo
from kind_train.run.trainer import Trainer
from kind_train.start.shape import Shape

pytestmark = pytest.mark.usefixtures("one_thread")


class CountElements(TorchDispatchMode):
    """Counts the numbers that operators read from and write to; views and writes into a part count what they touch."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        is_alias = any(out.alias_info and not out.alias_info.is_write for out in func._schema.returns)
        is_part = func.overloadpacket.__name__ in ("index", "index_put_", "_index_put_impl_", "index_select")
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, torch.Tensor) and not is_alias:
                values = args[2] if is_part and func.overloadpacket.__name__.endswith("_") else one
                self.total += values.numel()
        return result


def count_step(tmp_path: Path, num_classes: int) -> int:
    photos = make_photos(12)
    names = tuple(ClassInfo(id=f"class_{i}", names=(f"class {i}",)) for i in range(num_classes))
    photos = replace(photos, classes=names)
    shape = Shape(dit=TINY_DIT, diffusion=TINY_DIFFUSION)
    trainer = Trainer(make_config(tmp_path, batch_size=8), photos, photos, shape=shape)
    trainer.stepper.take(trainer.step)  # the first makes the moments
    trainer.step = 1
    with CountElements() as counted:
        trainer.stepper.take(trainer.step)
    return counted.total


def test_a_thousand_classes_cost_as_much_as_forty(tmp_path: Path) -> None:
    few, many = (count_step(tmp_path / str(n), n) for n in (40, 1000))
    assert many == pytest.approx(few, rel=0.01)
    # the counter would see a pass over the bank: it is larger than all that a step touches
    assert (
        1000
        * Trainer(
            make_config(tmp_path / "run"),
            make_photos(),
            make_photos(),
            shape=Shape(dit=TINY_DIT, diffusion=TINY_DIFFUSION),
        ).model.tailors.width
        > few
    )
