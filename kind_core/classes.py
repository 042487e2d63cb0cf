"""Class names: from what a user types to one class of the checkpoint, without guessing in silence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

from kind_core.errors import ClassNameError


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassInfo:
    """One class of a checkpoint: a stable id (a WordNet id where there is one) and its names, the best one first."""

    id: str
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.id):
            raise ClassNameError(f"class id {self.id!r} is not a plain file name of letters, digits, '_', '-' and '.'")
        if not self.names:
            raise ClassNameError(f"class {self.id!r} has no name")

    @property
    def name(self) -> str:
        return self.names[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedClass:
    """The class found for a query; `note` says what was chosen where the query fits several."""

    index: int
    info: ClassInfo
    note: str = ""


# A bare noun that names two animals: people who type it mean the first.
_PREFERRED = {"panda": ("giant panda", "n02510455")}


@lru_cache(maxsize=1 << 14)  # every name of the checkpoint is compared with every query
def _normalise(text: str) -> str:
    return " ".join(re.sub(r"[_\-/,]+", " ", text.casefold()).split())


# Endings of a plural and of its singular, the likeliest first: shoes, buses, berries, wolves, knives.
_PLURALS = (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"))


def _singulars(word: str) -> list[str]:
    if word.endswith("ss"):
        return []
    return [word.removesuffix(s) + to for s, to in _PLURALS if word.endswith(s) and len(word) > len(s) + 1]


def _forms(text: str) -> list[str]:
    """`text` as it stands, then every singular that it may be the plural of."""
    plain = _normalise(text)
    *head, last = plain.split() or [""]
    return [plain, *(" ".join([*head, word]) for word in _singulars(last))]


def resolve_class(query: str, classes: Sequence[ClassInfo]) -> ResolvedClass:
    """Find the class that `query` names: its id, any of its names, or the last word(s) of one, whatever case or plural.

    Raises ClassNameError with the nearest names when none fits, or with the candidates when several fit equally well.
    """
    preferred = _resolve_preferred(query, classes)
    if preferred is not None:
        return preferred
    found = next(filter(None, _fits(query, classes)), [])
    if not found:
        message = f"unknown class {query!r}{_nearest(query, classes)}"
        raise ClassNameError(message, "kind-export classes lists them all")
    if len(found) > 1:
        names = ", ".join(f"{classes[i].name!r} ({classes[i].id})" for i in found)
        raise ClassNameError(f"class {query!r} fits several: {names}", "name one of them in full, or by its id")
    return ResolvedClass(index=found[0], info=classes[found[0]])


def resolve_classes(queries: Sequence[str], classes: Sequence[ClassInfo]) -> list[ResolvedClass]:
    """Resolve each query in order; raises ClassNameError when two of them name the same class."""
    resolved = [resolve_class(query, classes) for query in queries]
    seen: dict[int, str] = {}
    for query, result in zip(queries, resolved, strict=True):
        if result.index in seen:
            raise ClassNameError(
                f"{query!r} and {seen[result.index]!r} both name {result.info.name!r}", "name each class once"
            )
        seen[result.index] = query
    return resolved


def _resolve_preferred(query: str, classes: Sequence[ClassInfo]) -> ResolvedClass | None:
    name, class_id = next((_PREFERRED[form] for form in _forms(query) if form in _PREFERRED), ("", ""))
    if not name:
        return None
    found = dict.fromkeys(i for indices in _fits(query, classes) for i in indices)
    chosen = [i for i in found if classes[i].id == class_id or _is_name(name, classes[i])]
    if len(chosen) != 1 or len(found) == 1:
        return None
    others = ", ".join(repr(classes[i].name) for i in found if i != chosen[0])
    info = classes[chosen[0]]
    return ResolvedClass(index=chosen[0], info=info, note=f"{query!r} is taken as {info.name!r}, not {others}")


def _fits(query: str, classes: Sequence[ClassInfo]) -> Iterator[list[int]]:
    """The classes that `query` fits under one rule after the other, the strictest first; each list may be empty."""
    for rule in (_is_name, _is_singular, _is_tail):
        for form in _forms(query):
            yield [i for i, info in enumerate(classes) if rule(form, info)]


def _is_name(form: str, info: ClassInfo) -> bool:
    return form in map(_normalise, (info.id, *info.names))


def _is_singular(form: str, info: ClassInfo) -> bool:
    return any(form in _forms(name) for name in info.names)


def _is_tail(form: str, info: ClassInfo) -> bool:
    return bool(form) and any(_normalise(name).endswith(f" {form}") for name in info.names)


def _nearest(query: str, classes: Sequence[ClassInfo]) -> str:
    known: dict[str, list[str]] = {}  # what can be typed -> the classes it may mean
    for info in classes:
        for name in (*info.names, info.id):
            for word in (_normalise(name), *_normalise(name).split()):
                known.setdefault(word, []).append(info.name)
    close = get_close_matches(_normalise(query), known, n=3, cutoff=0.6)
    nearest = list(dict.fromkeys(name for word in close for name in known[word]))[:3]
    return f", nearest: {', '.join(map(repr, nearest))}" if nearest else ""
