"""What an evaluation has seen so far, in a folder beside its report, from where a killed one goes on.

The folder is gone when the report is written. No torch is loaded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kind_core.errors import ConfigError, ResultsError
from kind_core.files.json_files import read_object
from kind_core.files.staging import claimed, folder_kind, staged
from kind_train.seen_files import SEEN_SUFFIX, SeenFiles, find_change

_IDENTITY_NAME = "evaluation.json"
_REPLACE = "replace it with --force"


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


def _require_identity(folder: Path) -> None:
    if not (folder / _IDENTITY_NAME).exists():
        raise ResultsError(f"it has no {_IDENTITY_NAME}")


SEEN = folder_kind(
    "what an evaluation saw",
    _require_identity,
    lambda name: name == _IDENTITY_NAME or ("/" not in name and name.endswith(SEEN_SUFFIX)),
    heart=_IDENTITY_NAME,
)
