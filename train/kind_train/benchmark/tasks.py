"""The tasks of a suite: data sets that everything is adapted to, each by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kind_core.class_ids import choose_classes
from kind_core.classes import ClassInfo
from kind_core.console.commands import split_names
from kind_core.errors import ConfigError, DataError
from kind_core.naming import MAX_STEM_BYTES, fold_text
from kind_train.data.sources import open_source
from kind_train.options_file import read_yaml
from kind_train.places import is_cache, require_data

_FIELDS = {"data", "val_data", "classes"}
_NAMED = 5  # classes in a line
_LEAST = 2  # photos a class: a covariance needs them
_HINT = "write `NAME: {data: PATH, val_data: PATH, classes: [NAME, ...]}` lines, of which data alone is needed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """Photos at `data`, those of `classes` (ids); `val_data` are held out, else a share of `data` is."""

    name: str
    data: str
    val_data: str | None
    classes: tuple[str, ...]

    @property
    def real_data(self) -> str:
        """The photos that pictures are compared with."""
        return self.val_data or self.data


def read_tasks(
    file: Path | None,
    data: str | None,
    val_data: str | None,
    size: int | None,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[Task, ...]:
    """The tasks of a YAML file, or of one data set, whose classes are parted in tasks of `size`.

    Where no classes are named they are those that the data has photos of; others of its names are told.
    Raises ConfigError for what is no task, DataError where a task has not enough photos.
    """
    if file is None:
        assert data is not None, "neither a file of tasks nor data"
        return _part(data, val_data, size, tell)
    if val_data is not None or size is not None:
        raise ConfigError("--val-data and --task-size go with --data", f"write them into {file}")
    return tuple(_make_task(name, fields, file, tell) for name, fields in read_task_file(file).items())


def _part(data: str, val_data: str | None, size: int | None, tell: Callable[[str], None]) -> tuple[Task, ...]:
    ids = _require_photos("all", data, val_data, (), tell)
    if size is not None and not 1 <= size <= len(ids):
        raise ConfigError(f"task_size is {size}, expected 1 to {len(ids)}, the classes of {data}")
    step = size or len(ids)
    parts = [ids[first : first + step] for first in range(0, len(ids), step)]
    names = [f"task-{number:02d}" for number in range(1, len(parts) + 1)] if len(parts) > 1 else ["task"]
    return tuple(
        Task(name=name, data=data, val_data=val_data, classes=part) for name, part in zip(names, parts, strict=True)
    )


def read_task_file(file: Path) -> Mapping[str, object]:
    """The tasks of a YAML file as they stand there; raises ConfigError for what is none."""
    tasks = read_yaml(file, "lines that name tasks")
    if not tasks:
        raise ConfigError(f"{file} holds no tasks", _HINT)
    _require_names(tasks, file)
    return tasks


def _require_names(tasks: Iterable[object], file: Path) -> None:
    """Raise ConfigError for what cannot be the name of a folder of runs, here or on another system."""
    seen: dict[str, str] = {}
    for name in tasks:
        is_named = isinstance(name, str) and name.replace("-", "").replace("_", "").isalnum()
        if not isinstance(name, str) or not is_named or len(name.encode()) > MAX_STEM_BYTES:
            message = f"{file}: {name!r:.60} is no name of a task, expected letters and digits"
            raise ConfigError(message, f"{MAX_STEM_BYTES} bytes at most, with - and _ between")
        other = seen.setdefault(fold_text(name), name)
        if other != name:
            raise ConfigError(f"{file}: tasks {other!r} and {name!r} are one folder on Windows and macOS", "rename one")


def _make_task(name: str, fields: object, file: Path, tell: Callable[[str], None]) -> Task:
    if not isinstance(fields, dict) or not set(fields) <= _FIELDS or "data" not in fields:
        raise ConfigError(f"{file}: {name!r} is no task", _HINT)
    data, val_data, classes = fields["data"], fields.get("val_data"), fields.get("classes", [])
    classes = split_names((classes,)) if isinstance(classes, str) else classes
    is_right = isinstance(data, str) and isinstance(val_data, str | None) and isinstance(classes, list | tuple)
    if not is_right or not all(isinstance(one, str) for one in classes):
        raise ConfigError(f"{file}: task {name!r} has a value that is no text, expected paths and names", _HINT)
    ids = _require_photos(name, data, val_data, tuple(classes), tell)
    return Task(name=name, data=data, val_data=val_data, classes=ids)


def _require_photos(
    task: str, data: str, val_data: str | None, classes: tuple[str, ...], tell: Callable[[str], None]
) -> tuple[str, ...]:
    """The ids of the classes; raises DataError where one has too few photos, before any of them is read."""
    ids: tuple[str, ...] = ()
    for path in (data,) if val_data is None else (data, val_data):
        infos, labels = look_into(path)
        counts = Counter(labels)
        kept = choose_classes(ids or classes, infos) or sorted(counts)
        if not ids and not classes and len(kept) < len(infos):
            empty = [repr(info.name) for label, info in enumerate(infos) if label not in counts]
            tell(
                f"left out, {path} has names of them but no photos: {', '.join(empty[:_NAMED])}"
                + (", ..." if len(empty) > _NAMED else "")
            )
        for label in kept:
            if counts[label] < _LEAST:
                raise DataError(
                    f"task {task!r}: {path} holds {counts[label]} photos of {infos[label].name!r}, "
                    f"expected {_LEAST} or more",
                    "add photos, or leave the class out of the task",
                )
        ids = tuple(infos[label].id for label in kept)
    return ids


def list_held(path: str) -> tuple[str, ...]:
    """The ids of the classes that `path` has photos of, in their order; it may have names of others."""
    infos, labels = look_into(path)
    return tuple(infos[label].id for label in sorted({*labels}))


def look_into(path: str) -> tuple[Sequence[ClassInfo], Sequence[int]]:
    """Classes and labels of photos, or of a cache of latents; no photo is read."""
    if is_cache(path):
        from kind_train.data.latents import open_cache

        latents = open_cache(Path(path))
        return latents.classes, latents.labels.tolist()
    require_data(path)
    source = open_source(path)
    return source.classes, source.labels
