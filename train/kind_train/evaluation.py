"""What an evaluation is asked for, and what it has seen so far: in a folder beside its report, from where it goes on.

The folder is gone when the report is written. No torch is loaded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kind_core.config.checks import require_number
from kind_core.errors import ConfigError, ResultsError
from kind_core.files.json_files import read_object
from kind_core.files.staging import claimed, folder_kind, staged
from kind_core.samplers import ALL_STEPS, check_interval
from kind_train.seen_files import SEEN_SUFFIX, SeenFiles, find_change

_IDENTITY_NAME = "evaluation.json"
_REPLACE = "replace it with --force"


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawSettings:
    """How pictures are drawn; None is what the checkpoint or the bundle has. `device`: where a checkpoint runs."""

    seed: int = 0
    device: str = "cpu"
    steps: int | None = None
    guidance: float | None = None
    guidance_interval: tuple[float, float] = ALL_STEPS


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRequest(DrawSettings):
    """What to measure: a checkpoint, or a bundle in one of its runtimes.

    `data` were trained on, `val_data` were not; against statistics of real photos neither is read.
    `seed` to `guidance_interval` as of `DrawSettings`; `device`: where a checkpoint draws, its autoencoder decodes, and
    classifier and networks run.
    `count` pictures a class; `cross_count` for each pair of the cross-class check, of neighbours only or of all pairs.
    `classifier`: a file of `kind-train classifier`, which then judges in place of EfficientNet-Lite2.
    `inception_weights` and `dinov2` are the paths of `InceptionV3` and `DinoV2`; None looks into the caches of their
    libraries, "none" leaves them out.
    """

    data: Path | None = None
    val_data: Path | None = None
    checkpoint: Path | None = None
    bundle: Path | None = None
    runtime: str | None = None
    classes: tuple[str, ...] = ()
    count: int = 200
    cross_count: int = 50
    cross_matrix: bool = False
    classifier: Path | None = None
    inception_weights: str | None = None
    dinov2: str | None = None

    def __post_init__(self) -> None:
        check_interval(self.guidance_interval)
        if (self.checkpoint is None) == (self.bundle is None):
            raise ConfigError("expected one of --checkpoint and --bundle", "measure one after the other")
        if self.bundle is None and self.runtime is not None:
            raise ConfigError(f"runtime is {self.runtime!r}, but a checkpoint has none", "give --bundle")
        if self.bundle is not None and self.device != "cpu":
            raise ConfigError(f"device is {self.device!r}, but a bundle runs in its own runtime", "leave it out")
        if self.count < 2 or self.cross_count < 0:
            raise ConfigError(f"count is {self.count} and cross_count {self.cross_count}, expected 2 and 0 or more")
        require_drawing(self.seed, self.guidance)


def require_drawing(seed: int, guidance: float | None) -> None:
    """Raise ConfigError for a seed that no picture starts from, and for a guidance scale that is no number."""
    from kind_core.noise import picture_seed

    picture_seed(seed, 0)
    if guidance is not None:
        require_number("guidance", guidance)


def seen_folder(output: Path) -> Path:
    """Where it lies for the report `output`."""
    return output.with_name(f"{output.name}.seen")


def check_leftover(output: Path | None, *, resume: bool, force: bool) -> None:
    """Raise ConfigError where an interrupted evaluation lies beside `output` unasked, or none that `resume` wants."""
    if resume and force:
        raise ConfigError("--resume and --force exclude each other", "continue the evaluation, or replace it")
    if output is None:
        if resume:
            raise ConfigError("--resume without --output: what was seen is kept beside the report", "give --output")
        return
    folder = seen_folder(output)
    is_there = (folder / _IDENTITY_NAME).exists()
    if resume and not is_there:
        raise ConfigError(f"there is no evaluation to resume: {folder} is not there", "start without --resume")
    if is_there and not (resume or force):
        raise ConfigError(f"{folder} holds an interrupted evaluation", f"continue it with --resume or {_REPLACE}")


@dataclass(kw_only=True, slots=True)
class KeptEvaluation:
    """One evaluation and its folder. `tell` gets a line about what is not seen again."""

    folder: Path
    resume: bool
    force: bool
    tell: Callable[[str], None]
    is_begun: bool = field(default=False, init=False)

    def begin(self, identity: Mapping[str, object]) -> SeenFiles:
        """Open the folder; raises ConfigError where it is of an evaluation with another `identity`.

        That is everything which decides what is seen, as JSON takes it.
        """
        now = json.loads(json.dumps(identity))
        if self.resume:
            then = read_object(self.folder / _IDENTITY_NAME, ResultsError, _REPLACE)
            if (change := find_change(then, now)) is not None:
                raise ConfigError(
                    f"the evaluation in {self.folder} was begun with {change}", f"continue it with that, or {_REPLACE}"
                )
            self.tell(f"resumed: {self.num_seen} parts in {self.folder} are not made again")
        else:
            with staged(self.folder, SEEN, force=self.force) as place:
                place.mkdir()
                (place / _IDENTITY_NAME).write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
        self.is_begun = True
        return SeenFiles(self.folder)

    @property
    def num_seen(self) -> int:
        """Files of what was seen."""
        return sum(1 for _ in self.folder.glob(f"*{SEEN_SUFFIX}"))


@contextmanager
def kept_beside(
    output: Path, *, resume: bool, force: bool, tell: Callable[[str], None] = lambda line: None
) -> Iterator[KeptEvaluation]:
    """Keep what is seen until the body is done; where it fails the folder stays, unless there is nothing in it."""
    folder = seen_folder(output)
    with claimed(folder, SEEN):
        check_leftover(output, resume=resume, force=force)
        kept = KeptEvaluation(folder=folder, resume=resume, force=force, tell=tell)
        try:
            yield kept
        except BaseException:
            if kept.is_begun and not kept.num_seen:
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


SEEN = folder_kind(
    "what an evaluation saw",
    None,
    lambda name: name == _IDENTITY_NAME or ("/" not in name and name.endswith(SEEN_SUFFIX)),
    heart=_IDENTITY_NAME,
)
