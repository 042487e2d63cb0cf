"""Classes added to a checkpoint: files are copied as they are, so what was there before keeps every bit."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kind_core.autoencoder import AUTOENCODER_NAME, copy_autoencoder, find_autoencoder
from kind_core.checkpoint import CHECKPOINT, tailor_path, write_config
from kind_core.checkpoint_config import (
    CONFIG_NAME,
    LEARNGENE_NAME,
    TAILORS_NAME,
    hash_learngene,
    read_any_config,
    read_config,
)
from kind_core.classes import ClassInfo, resolve_classes
from kind_core.config import ModelConfig
from kind_core.dit import DivertedTransformer
from kind_core.errors import CheckpointError, ConfigError
from kind_core.files.staging import PART, claimed, link_file, recover, staged
from kind_core.files.tensor_files import write_tensors
from kind_core.naming import fold_text


def extend_config(base: ModelConfig, classes: Sequence[ClassInfo], ranks: Sequence[int]) -> ModelConfig:
    """The config of `base` with `classes` behind its own; raises ConfigError when it knows one of them already."""
    require_new(base, classes)
    all_ranks = (*base.dit.ranks, *ranks)
    own = None if set(all_ranks) == {base.dit.tailor_rank} else all_ranks
    dit = replace(base.dit, num_classes=len(all_ranks), tailor_ranks=own)
    return replace(base, dit=dit, classes=(*base.classes, *classes))


def require_new(base: ModelConfig, classes: Sequence[ClassInfo]) -> None:
    """Raise ConfigError for the first of `classes` that a checkpoint has already."""
    known = {fold_text(info.id): info for info in base.classes}
    for info in classes:
        held = known.get(fold_text(info.id))
        if held is not None:
            raise ConfigError(
                f"the checkpoint has class {held.name!r} ({held.id}) already, expected new classes only, not "
                f"{info.name!r} ({info.id})",
                "leave it out with --classes, or train it with kind-train fit --start-from",
            )


def save_grown(
    path: Path, base: Path, addition: ModelConfig, model: DivertedTransformer, *, force: bool = False
) -> None:
    """Write the checkpoint at `base` with the classes of `addition`, whose tailors are those of `model`, added.

    Learngene and tailors of the base are its very files: linked where the file system can, otherwise copied.
    """
    config = _with_training(extend_config(read_any_config(base), addition.classes, addition.dit.ranks), addition)
    num_old = config.dit.num_classes - addition.dit.num_classes
    with staged(path, CHECKPOINT, force=force) as folder:
        (folder / TAILORS_NAME).mkdir(parents=True)
        link_file(base / LEARNGENE_NAME, folder / LEARNGENE_NAME)
        for info in config.classes[:num_old]:
            link_file(tailor_path(base, info.id), tailor_path(folder, info.id))
        for index, info in enumerate(addition.classes):
            write_tensors(tailor_path(folder, info.id), model.tailors.state_of(index))
        if config.autoencoder is not None:
            copy_autoencoder(find_autoencoder(base), folder / AUTOENCODER_NAME)
        write_config(folder / CONFIG_NAME, config)


def add_classes(base: Path, source: Path, classes: Sequence[str] = ()) -> tuple[ClassInfo, ...]:
    """Copy tailors of `source` into the checkpoint at `base`: those that it lacks, or the named ones.

    The two must share their learngene bit for bit, or the base is a student with the matrices of the source's, which
    serves whatever was adapted beside it. `config.json` is replaced last, so the checkpoint is whole at every
    moment. Returns what was added.
    """
    read_config(base)
    with claimed(base, CHECKPOINT):
        recover(base / TAILORS_NAME)
        return _add_classes(base, source, classes)


def _add_classes(base: Path, source: Path, classes: Sequence[str]) -> tuple[ClassInfo, ...]:
    ours, theirs = read_config(base), read_config(source)
    teachers = ours.diffusion.distillation and ours.diffusion.distillation.learngene
    if hash_learngene(source) not in (hash_learngene(base), teachers):
        raise CheckpointError(
            f"the learngene of {source} is not that of {base}, so its tailors do not fit",
            "add tailors to the very checkpoint that they were adapted on",
        )
    known = {info.id for info in ours.classes}
    chosen = [i for i, info in enumerate(theirs.classes) if info.id not in known]
    if classes:
        chosen = [found.index for found in resolve_classes(classes, theirs.classes)]
    infos = tuple(theirs.classes[i] for i in chosen)
    if not infos:
        raise ConfigError(f"{source} has no class that {base} lacks", "adapt it to other classes first")
    grown = _with_training(extend_config(ours, infos, [theirs.dit.ranks[i] for i in chosen]), theirs)
    for info in infos:
        # a file that config.json does not list is never read, whatever it is: one left behind is replaced
        with staged(tailor_path(base, info.id), PART, force=True) as file:
            shutil.copyfile(tailor_path(source, info.id), file)
    with staged(base / CONFIG_NAME, PART, force=True) as file:
        write_config(file, grown)
    return infos


def _with_training(config: ModelConfig, addition: ModelConfig) -> ModelConfig:
    """What is said of the training is that of the classes that were trained less far, and how each was trained."""
    config = replace(config, provenance=config.provenance.with_training(addition.provenance.training))
    if addition.training is None:
        return config
    return replace(config, training=addition.training.weaker(config.training))
