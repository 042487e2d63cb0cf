"""Training without diversion from the start: every component of every class takes part for every image.

The paper has no such run; its ablation without gates (table 4, #3) adapts a trained learngene to new classes.

With all gates open for all images nothing tells a tailor from the learngene. Such a model is one of N_G + classes N_T
components that serve every class, with a label embedding for each; so that is what is trained and written, and all
that reads the checkpoint opens the gates that it was trained with. Which of its components are called the tailor of a
class is arbitrary: `part_tailors` says it by their order, to see what they draw when they are opened alone.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from kind_core.checkpoint import Checkpoint
from kind_core.config import ModelConfig
from kind_core.dit import KindDiT
from kind_core.errors import ConfigError


def open_gates(config: ModelConfig) -> ModelConfig:
    """The config of `config` with all gates open for every image; its provenance says so."""
    dit = config.dit
    if dit.learngene_rank is None or not any(dit.ranks):
        raise ConfigError("diversion is False, but the model has no tailors", "choose a preset with tailors: sample")
    training = (
        f"without diversion, the gates of all {dit.num_classes} classes open for every image: "
        f"{dit.learngene_rank} components and {sum(dit.ranks)} of classes, none of them a tailor"
    )
    opened = replace(dit, learngene_rank=dit.learngene_rank + sum(dit.ranks), tailor_rank=0, tailor_ranks=None)
    return replace(config, dit=opened, provenance=replace(config.provenance, training=training))


@torch.no_grad()
def part_tailors(checkpoint: Checkpoint, learngene_rank: int) -> Checkpoint:
    """A checkpoint of `open_gates` with its last components dealt to the classes again, in order.

    With all gates open it is the same model. Raises ConfigError where they cannot be dealt evenly.
    """
    whole, classes = checkpoint.config.dit, checkpoint.config.dit.num_classes
    rank, rest = divmod((whole.learngene_rank or 0) - learngene_rank, classes)
    if rank < 1 or rest or any(whole.ranks):
        raise ConfigError(
            f"learngene_rank {whole.learngene_rank} does not part into {learngene_rank} components "
            f"and as many for each of {classes} classes",
            "give the ranks of the preset that it was trained with",
        )
    config = replace(checkpoint.config, dit=replace(whole, learngene_rank=learngene_rank, tailor_rank=rank))
    state, model = checkpoint.model.learngene_state(), KindDiT(config.dit)
    for name, _, _ in config.dit.matrix_names():
        for factor, of_bank in zip("UsV", model.tailors.factors(model.tailors.weight, name), strict=True):
            components = state[f"{name}.{factor}"].movedim(-1, 0)  # (rank, features), of s (rank,)
            state[f"{name}.{factor}"] = components[:learngene_rank].movedim(0, -1)
            of_bank.copy_(components[learngene_rank:].reshape(of_bank.shape))
    model.load_state_dict(state, strict=False)
    model.tailors.label_embeddings().copy_(checkpoint.model.tailors.label_embeddings())
    return replace(checkpoint, config=config, model=model.eval())
