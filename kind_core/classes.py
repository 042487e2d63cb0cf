"""Class names: from what a user types to one class of the checkpoint, without guessing in silence.

This is for what people type; what programs write is matched by id, in `class_ids`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache

from kind_core.errors import ClassNameError
from kind_core.naming import clean_text, fold_text, is_letter

MAX_ID_BYTES = 240  # with `.safetensors` behind it a file name


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassInfo:
    """One class of a checkpoint: a stable id (a WordNet id where there is one) and its names, the best one first."""

    id: str
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not _is_id(self.id):
            raise ClassNameError(f"class id {self.id!r} is not a plain file name of letters, digits, '_', '-' and '.'")
        if len(self.id.encode()) > MAX_ID_BYTES:
            raise ClassNameError(
                f"class id {self.id!r} has {len(self.id.encode())} bytes, expected {MAX_ID_BYTES} at most"
            )
        if not all(isinstance(name, str) for name in self.names):
            raise ClassNameError(f"class {self.id!r} has names {list(self.names)!r}, expected texts")
        if not self.names or not self.names[0].strip():
            raise ClassNameError(f"class {self.id!r} has no name")

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def full_name(self) -> str:
        """All names, as a folder of the class is called."""
        return ", ".join(self.names)


def read_class(data: object) -> ClassInfo:
    """A class as metadata of a file hold it, an id and a list of names; raises ClassNameError for anything else."""
    names = data.get("names") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(names, list):  # one name is not its letters
        raise ClassNameError(f"class {data!r:.60} is none, expected an id and a list of names")
    return ClassInfo(id=data.get("id", ""), names=tuple(names))


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedClass:
    """The class found for a query; `note` says what was chosen where the query fits several."""

    index: int
    info: ClassInfo
    note: str = ""
    query: str = ""


def _is_id(text: str) -> bool:
    """Letters of any alphabet in their usual form (NFC): another spelling would be another file, or the same."""
    is_spelled = all(is_letter(char) or char in "_.-" for char in text) and unicodedata.is_normalized("NFC", text)
    return is_spelled and text[:1] not in ("", "_", ".", "-")


# A bare noun that names two animals: people who type it mean the first.
_PREFERRED = {"panda": ("giant panda", "n02510455")}


@lru_cache(maxsize=1 << 14)  # every name of the checkpoint is compared with every query
def normalise_name(text: str) -> str:
    """A name as it is compared kindly: without case, separators and ways to write the same letter."""
    return " ".join(re.sub(r"[_\-/,]+", " ", fold_text(text)).split())


# Endings of a plural and of its singular, the likeliest first: shoes, buses, berries, wolves, knives.
_PLURALS = (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"))


def _singulars(word: str) -> list[str]:
    if word.endswith("ss"):
        return []
    return [word.removesuffix(s) + to for s, to in _PLURALS if word.endswith(s) and len(word) > len(s) + 1]


def _forms(text: str) -> list[str]:
    """`text` as it stands, then every singular that it may be the plural of."""
    plain = normalise_name(text)
    *head, last = plain.split() or [""]
    return [plain, *(" ".join([*head, word]) for word in _singulars(last))]


def resolve_class(query: str, classes: Sequence[ClassInfo]) -> ResolvedClass:
    """Find the class that `query` names: its id, one of its names, or all of them with commas between, to the letter;
    then any of these or the last word(s) of a name, whatever case, separators or plural.

    Raises ClassNameError with the nearest names when none fits, or with the candidates when several fit equally well.
    """
    exact = _resolve_exact(query, classes)
    if exact is not None:
        return exact
    preferred = _resolve_preferred(query, classes)
    if preferred is not None:
        return preferred
    found = next(filter(None, _fits(query, classes)), [])
    if not found:
        message = f"unknown class {query!r}{_nearest(query, classes)}"
        raise ClassNameError(message, "kind-export classes, with the same --checkpoint or --sample, lists them all")
    if len(found) > 1:
        names = ", ".join(f"{classes[i].name!r} ({classes[i].id})" for i in found)
        raise ClassNameError(f"class {query!r} fits several: {names}", "name one of them in full, or by its id")
    return ResolvedClass(index=found[0], info=classes[found[0]])


def resolve_classes(
    queries: Sequence[str], classes: Sequence[ClassInfo], *, is_list: bool = True
) -> list[ResolvedClass]:
    """Resolve each query in order; raises ClassNameError when two of them name the same class.

    `is_list`: they may have been parted at commas. What was a name with commas is then one query again where it is all
    names of a class, as the folder 'tench, Tinca tinca'.
    """
    queries = _join_parted(queries, classes) if is_list else queries
    resolved = [replace(resolve_class(query, classes), query=query) for query in queries]
    seen: dict[int, str] = {}
    for query, result in zip(queries, resolved, strict=True):
        if result.index in seen:
            raise ClassNameError(
                f"{query!r} and {seen[result.index]!r} both name {result.info.name!r}", "name each class once"
            )
        seen[result.index] = query
    return resolved


def _resolve_exact(query: str, classes: Sequence[ClassInfo]) -> ResolvedClass | None:
    """The one class that is called so letter by letter: ids go before names, a name before all names together."""
    text = clean_text(query)
    ids, names = [(info.id,) for info in classes], [tuple(map(clean_text, info.names)) for info in classes]
    for called in (ids, names, [(", ".join(parts),) for parts in names]):
        found = [index for index, texts in enumerate(called) if text in texts]
        if len(found) == 1:
            return ResolvedClass(index=found[0], info=classes[found[0]])
    return None


def _join_parted(queries: Sequence[str], classes: Sequence[ClassInfo]) -> list[str]:
    """The queries, those that follow each other joined where together they are all names of a class."""
    full = {normalise_name(info.full_name) for info in classes if len(info.names) > 1}
    joined: list[str] = []
    start = 0
    while start < len(queries):
        ends = range(len(queries), start + 1, -1)
        end = next((end for end in ends if normalise_name(", ".join(queries[start:end])) in full), start + 1)
        if end > start + 1:
            _refuse_several(queries[start:end], classes)
        joined.append(", ".join(queries[start:end]))
        start = end
    return joined


def _refuse_several(parts: Sequence[str], classes: Sequence[ClassInfo]) -> None:
    """Raise ClassNameError where all names of one class are names of several, too."""
    exact = [_resolve_exact(part, classes) for part in parts]
    if len({found.index for found in exact if found is not None}) > 1:
        together = ", ".join(parts)
        raise ClassNameError(
            f"{together!r} may be one class or {len(parts)}", "ask by ids; kind-export classes lists them"
        )


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
    return form in map(normalise_name, (info.id, *info.names, info.full_name))


def _is_singular(form: str, info: ClassInfo) -> bool:
    return any(form in _forms(name) for name in info.names)


def _is_tail(form: str, info: ClassInfo) -> bool:
    return bool(form) and any(normalise_name(name).endswith(f" {form}") for name in info.names)


def _nearest(query: str, classes: Sequence[ClassInfo]) -> str:
    known: dict[str, list[str]] = {}  # what can be typed -> the classes it may mean
    for info in classes:
        for name in (*info.names, info.id):
            for word in (normalise_name(name), *normalise_name(name).split()):
                known.setdefault(word, []).append(info.name)
    close = get_close_matches(normalise_name(query), known, n=3, cutoff=0.6)
    nearest = list(dict.fromkeys(name for word in close for name in known[word]))[:3]
    return f", nearest: {', '.join(map(repr, nearest))}" if nearest else ""
