"""The folder of a run: its options, its training state, and what of them must not change when it is resumed.

    options.yaml   held_out.json   metrics.jsonl   losses.png   state/   best/   last/   samples/

and where they are asked for, metrics.csv or tracker/.

`best` and `last` are checkpoints with the averaged weights; `state` holds what the next step needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any

from kind_core.checkpoint_config import is_checkpoint_file
from kind_core.errors import CheckpointError, ConfigError, OutputError
from kind_core.files.json_files import read_json
from kind_core.files.litter import is_bare
from kind_core.files.publishing import sync
from kind_core.files.staging import PART, check_output, check_unclaimed, folder_kind, recover, staged, write_whole
from kind_core.files.weight_files import is_pointer
from kind_train.config import GROWS, HELD_OUT_NAME, TAILORS, TrainConfig
from kind_train.config import OPTIONS_NAME as OPTIONS_NAME
from kind_train.data.captions.store_files import read_record
from kind_train.options_file import check_options
from kind_train.run.metrics import CSV_NAME, METRICS_NAME, TRACKER_NAME, read_metrics, trim_metrics

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LOSSES_NAME = "losses.png"
STATE_NAME = "state"
BEST_NAME = "best"
LAST_NAME = "last"
SAMPLES_NAME = "samples"
STATE_VERSION = 1

_NUMBERS_NAME = "state.json"
_TENSORS_NAME = "state.safetensors"
# States written before the last two were recorded have none of them.
_NUMBERS: dict[str, type | UnionType] = {
    "step": int,
    "best_loss": float,
    "held_out_loss": float | None,
    "mean_image_loss": float | None,
}


def _is_run_file(name: str) -> bool:
    """Whether a run writes a file of this name, relative to its folder."""
    folder, _, rest = name.partition("/")
    return (
        name in (OPTIONS_NAME, HELD_OUT_NAME, METRICS_NAME, CSV_NAME, LOSSES_NAME)
        or folder == TRACKER_NAME
        or (folder == STATE_NAME and _is_state_file(rest))
        or (folder in (BEST_NAME, LAST_NAME) and is_checkpoint_file(rest))
        or (folder == SAMPLES_NAME and rest.endswith(".png"))
    )


def _is_state_file(name: str) -> bool:
    return name in (_NUMBERS_NAME, _TENSORS_NAME)


RUN = folder_kind("a run", lambda folder: check_options(folder / OPTIONS_NAME), _is_run_file, heart=OPTIONS_NAME)
_STATE = folder_kind("a training state", None, _is_state_file)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingState:
    """A run between two steps. `identity` is what a resumed run must share: preset, classes, batch size, seed.

    The held-out losses are those of its last validation, which `last` tells; None where nothing was held out.
    """

    step: int
    best_loss: float
    identity: Mapping[str, object]
    tensors: dict[str, Tensor] = field(repr=False)
    held_out_loss: float | None
    mean_image_loss: float | None

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, by the rest of their names."""
        return {name.removeprefix(prefix): one for name, one in self.tensors.items() if name.startswith(prefix)}


def check_run_folder(folder: Path, *, resume: bool, force: bool) -> None:
    """Raise before any work is done when a run cannot start in `folder`, or cannot be resumed from it."""
    if resume and force:
        raise ConfigError("--resume and --force exclude each other", "continue the run, or replace it")
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, expected a folder", "choose another --output")
    check_unclaimed(folder, RUN)
    check_output(folder / OPTIONS_NAME, PART, force=True)
    for place in (folder.absolute().parent, folder / SAMPLES_NAME):
        recover(place)
    if resume:
        # one that was killed before its first state begins again: `best` may be there, which is written before it
        is_begun = (folder / OPTIONS_NAME).exists() and not (folder / LAST_NAME).exists()
        if not has_state(folder) and not is_begun:
            hint = "start it over with --force" if _has_weights(folder) else "start without --resume"
            raise CheckpointError(f"{folder} holds no training state to resume", hint)
        return
    if not folder.exists() or is_bare(folder):
        return
    misfit = RUN.find_misfit(folder)
    if misfit is not None:
        hint = "choose an empty or a new --output; --force replaces only a run"
        raise OutputError(f"{folder} holds other files than a run: {misfit}", hint)
    if not force and _has_weights(folder):
        raise ConfigError(f"{folder} already holds a run", "continue it with --resume or replace it with --force")


def has_state(folder: Path) -> bool:
    """Whether a run has been saved, so that it goes on from there."""
    return (folder / STATE_NAME).exists()


def _has_weights(folder: Path) -> bool:
    """Whether a run has trained anything: one that was killed before its first checkpoint has nothing to lose."""
    return any((folder / name).exists() for name in (STATE_NAME, BEST_NAME, LAST_NAME))


def start_run_folder(
    config: TrainConfig, *, resume: bool, force: bool, held_out: Mapping[str, object] | None = None
) -> None:
    """Make the run folder and write the options there, and how photos were held out where the run itself did that.

    An existing run is kept unless `force`; what one that was killed before its first state has measured is forgotten.
    """
    folder = Path(config.output)
    check_run_folder(folder, resume=resume, force=force)
    texts = {OPTIONS_NAME: config.to_yaml()}
    if held_out is not None:
        texts[HELD_OUT_NAME] = json.dumps(held_out, indent=2) + "\n"
    if force and folder.exists():
        with staged(folder, RUN, force=True) as new:
            new.mkdir()
            for name, text in texts.items():
                (new / name).write_text(text, encoding="utf-8")
        return
    if not has_state(folder):
        trim_metrics(folder, 0)
    for name, text in texts.items():
        write_whole(folder / name, text)


def identify_run(config: TrainConfig, classes: list[str]) -> dict[str, object]:
    """What decides the order of the photos and the meaning of the weights; `classes` are ids."""
    from kind_core.checkpoint import hash_learngene

    identity: dict[str, object] = {
        "preset": config.preset_name,
        "diversion": config.diversion,
        "factors": config.factors,
        "classes": classes,
        "batch_size": config.batch_size,
        "seed": config.seed,
    }
    if config.noise_schedule is not None:
        identity["noise_schedule"] = config.noise_schedule
    if config.size is not None:
        identity["size"] = config.size
    if config.teacher is not None:
        steps = ",".join(map(str, config.steps))
        identity |= {"teacher": hash_learngene(Path(config.teacher)), "steps": steps, "train": config.train}
        if config.train in GROWS:
            identity["accelerator_rank"] = config.accelerator_rank
    if config.method != TAILORS:
        identity["method"] = config.method
    if config.text_embeddings is not None:
        identity["text encoder"] = read_record(Path(config.text_embeddings)).sha256
    if config.match is not None:
        identity["match"] = hash_learngene(Path(config.match))
    return identity if config.base is None else identity | {"base": hash_learngene(Path(config.base))}


def write_state(folder: Path, state: TrainingState) -> None:
    """Write the training state of a run, whole or not at all; the previous one stays until the new one stands."""
    from kind_core.files.tensor_files import write_tensors

    numbers = {"format_version": STATE_VERSION, **{name: getattr(state, name) for name in _NUMBERS}, **state.identity}
    if (folder / METRICS_NAME).exists():
        sync(folder / METRICS_NAME)  # what a run goes on from there does not measure again
    with staged(folder / STATE_NAME, _STATE, force=True) as temporary:
        temporary.mkdir()
        write_tensors(temporary / _TENSORS_NAME, state.tensors)
        (temporary / _NUMBERS_NAME).write_text(json.dumps(numbers), encoding="utf-8")


def read_state(folder: Path, identity: Mapping[str, object], device: torch.device) -> TrainingState:
    """The training state of a run; raises ConfigError when it is not of this `identity`, as far as it says its own."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    place = folder / STATE_NAME
    numbers = _read_numbers(place)
    for name, now in identity.items():
        then = numbers.get(name, now)  # states written before a name was recorded do not tell
        if then != now:
            raise ConfigError(
                f"the run in {folder} was trained with {name} {_show(then)}, not {_show(now)}",
                "resume it with that, or train into another --output",
            )
    try:
        if is_pointer(place / _TENSORS_NAME):
            raise CheckpointError(f"{place / _TENSORS_NAME} is a Git LFS pointer", "git lfs pull brings the state")
        tensors = load_file(place / _TENSORS_NAME, device=str(device))
    except (SafetensorError, OSError) as error:
        raise _broken(place, error) from error
    return TrainingState(identity=identity, tensors=tensors, **{name: numbers.get(name) for name in _NUMBERS})


@contextmanager
def explained_misfit(folder: Path) -> Iterator[None]:
    """Say of a state in `folder` that a model cannot take what does not fit; raises CheckpointError."""
    try:
        yield
    except (RuntimeError, KeyError) as error:
        # load_state_dict lists every tensor, one a line; the first line that names one is enough
        reason = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
        raise CheckpointError(
            f"the training state in {folder} does not fit this model: {reason}",
            "resume with the classes and the preset it was trained with",
        ) from error


def read_step(folder: Path) -> int | None:
    """The step that a run would resume from; None without a state."""
    step: int | None = _read_numbers(folder / STATE_NAME)["step"] if has_state(folder) else None
    return step


def read_best_loss(folder: Path) -> float:
    """The held-out loss of the best checkpoint of a run without a state, by its metrics; infinite without one."""
    if not (folder / BEST_NAME).exists():
        return float("inf")
    losses = (record.get("held_out_loss") for _, record in read_metrics(folder))
    return min((loss for loss in losses if isinstance(loss, float)), default=float("inf"))


def _read_numbers(place: Path) -> Any:
    """The file of a state beside its tensors: `_NUMBERS`, of the types they have there, and the run's identity."""
    try:
        numbers = read_json(place / _NUMBERS_NAME)
    except (ValueError, OSError) as error:
        raise _broken(place, error) from error
    if not isinstance(numbers, dict):
        raise _broken(place, f"{_NUMBERS_NAME} holds a {type(numbers).__name__}")
    version = numbers.get("format_version", STATE_VERSION)
    if not isinstance(version, int) or version > STATE_VERSION:
        message = f"{place} has format_version {version!r}, this program reads up to {STATE_VERSION}"
        raise CheckpointError(message, "upgrade kind-diffusion")
    for name, kind in _NUMBERS.items():
        if not isinstance(numbers.get(name), kind):
            raise _broken(place, f"{_NUMBERS_NAME} has {name} {numbers.get(name)!r}")
    return numbers


def _broken(place: Path, reason: object) -> CheckpointError:
    message = f"the training state at {place} is broken: {' '.join(str(reason).split())}"
    return CheckpointError(message, "start the run over with --force")


def _show(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else repr(value)
