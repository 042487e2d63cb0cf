"""Class names: from what a user types to one class of the checkpoint, without guessing in silence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from kind_core.errors import ClassNameError


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassInfo:
    """One class of a checkpoint: a stable id (a WordNet id where there is one) and its names, the preferred one first."""

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


def _normalise(text: str) -> str:
    return " ".join(re.sub(r"[_\-/,]+", " ", text.casefold()).split())


def _singular(word: str) -> str:
    for ending, to in (("ies", "y"), ("shes", "sh"), ("ches", "ch"), ("xes", "x"), ("sses", "ss"), ("oes", "o")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + to
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def _forms(text: str) -> set[str]:
    plain = _normalise(text)
    *head, last = plain.split() or [""]
    return {plain, " ".join([*head, _singular(last)])}


def resolve_class(query: str, classes: Sequence[ClassInfo]) -> ResolvedClass:
    """Find the class that `query` names: its id, any of its names, or the last word(s) of one, whatever case or plural.

    Raises ClassNameError with the nearest names when none fits, or with the candidates when several fit equally well.
    """
    forms = _forms(query)
    exact = [i for i, c in enumerate(classes) if forms & {c.id.casefold(), *(f for n in c.names for f in _forms(n))}]
    tails = [i for i, c in enumerate(classes) if any(_is_tail(form, name) for form in forms for name in c.names)]
    found = list(dict.fromkeys([*exact, *tails]))
    preferred = next((_PREFERRED[f] for f in forms if f in _PREFERRED), None)
    if preferred is not None and len(found) > 1:
        chosen = [i for i in found if classes[i].id == preferred[1] or preferred[0] in map(_normalise, classes[i].names)]
        if len(chosen) == 1:
            others = ", ".join(repr(classes[i].name) for i in found if i != chosen[0])
            return ResolvedClass(
                index=chosen[0],
                info=classes[chosen[0]],
                note=f"{query!r} is taken as {classes[chosen[0]].name!r}, not {others}",
            )
    found = exact or tails
    if not found:
        raise ClassNameError(f"unknown class {query!r}{_nearest(query, classes)}", "kind-export classes lists them all")
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


def _is_tail(form: str, name: str) -> bool:
    words = _normalise(name).split()
    return bool(form) and any(" ".join(words[i:]) == form for i in range(1, len(words)))


def _nearest(query: str, classes: Sequence[ClassInfo]) -> str:
    names = {_normalise(name): c.name for c in classes for name in (*c.names, c.id)}
    words = {word: c.name for c in classes for name in c.names for word in _normalise(name).split()}
    close = get_close_matches(_normalise(query), [*names, *words], n=3, cutoff=0.6)
    nearest = list(dict.fromkeys((names | words)[c] if c in words and c not in names else names[c] for c in close))
    return f", nearest: {', '.join(map(repr, nearest))}" if nearest else ""
