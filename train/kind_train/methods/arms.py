"""What a distillation trains of a student, where that is not all of it."""

from __future__ import annotations

from kind_core.config import DiTConfig
from kind_core.dit import DivertedTransformer
from kind_train.config import ACCELERATOR, BOTH, TABLE, TAILORS
from kind_train.methods.grown import GrownMethod, grow
from kind_train.methods.method import Method, freeze


class TailorsAlone(Method):
    """The tailors and label embeddings; the learngene keeps its bits."""

    name, title = TAILORS, "tailors alone"
    needs_dense = False

    def prepare(self, model: DivertedTransformer, plan: DiTConfig) -> None:
        freeze(model)


class TableAlone(Method):
    """What an export bakes into the table of modulations; every matrix and every tailor keeps its bits."""

    name, title = TABLE, "table alone"
    needs_dense = False

    def prepare(self, model: DivertedTransformer, plan: DiTConfig) -> None:
        model.requires_grad_(False)
        _open_modulations(model)


class Accelerator(GrownMethod):
    """`rank` components in every matrix, behind those of the learngene; `with_table` the modulations, too.

    LCM-LoRA (https://arxiv.org/abs/2311.05556) in the form of a KIND model: a low-rank addition for every class, which
    serves tailors that it was not distilled with.
    """

    name, title = "accelerator", "accelerator"

    def __init__(self, rank: int, *, with_table: bool = False) -> None:
        self.rank, self.with_table = rank, with_table

    def prepare(self, model: DivertedTransformer, plan: DiTConfig) -> None:
        model.requires_grad_(False)
        if self.with_table:
            _open_modulations(model)
        grow(model, self.rank, as_lora=True)


def open_arm(name: str, accelerator_rank: int) -> Method | None:
    """What trains the arm `name` of `ARMS`; None where that is all of the student."""
    arms: dict[str, Method] = {
        TAILORS: TailorsAlone(),
        TABLE: TableAlone(),
        ACCELERATOR: Accelerator(accelerator_rank),
        BOTH: Accelerator(accelerator_rank, with_table=True),
    }
    return arms.get(name)


def _open_modulations(model: DivertedTransformer) -> None:
    for name, parameter in model.named_parameters():
        if name.startswith("timestep_embedder.") or ".adaln." in name:
            parameter.requires_grad_(True)
