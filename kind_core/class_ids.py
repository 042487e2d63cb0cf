"""Ids of classes: made of what a folder or a data set calls them, and matched letter by letter.

An id is a file name and never shared. Of a name in ASCII it is what it always was, while no other name gives the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from kind_core.classes import ClassInfo, normalise_name, resolve_classes
from kind_core.errors import ClassNameError
from kind_core.naming import (
    MAX_STEM_BYTES,
    avoid_reserved,
    clean_text,
    digest_text,
    fold_text,
    name_file,
    shorten,
    slugify,
)

_WORDNET = re.compile(r"(n\d{8})(?:[_ -](.+))?", re.ASCII | re.DOTALL)


def parse_class_name(name: str) -> ClassInfo:
    """`n02510455_giant_panda` -> id n02510455, 'giant panda'; a name without WordNet id becomes its own id.

    Several names of a class are parted by commas.
    """
    text = clean_text(name)
    match = _WORDNET.fullmatch(text)
    words = (match[2] or match[1]) if match else text
    names = tuple(" ".join(part.replace("_", " ").split()) for part in words.split(",") if part.strip(" _"))
    class_id = match[1] if match else _make_id(text)
    return ClassInfo(id=class_id, names=names or (class_id,))


def parse_class_names(names: Sequence[str]) -> tuple[ClassInfo, ...]:
    """The classes of a data set, no two with one id: where names would give one (`C++` and `C#`, `A` and `a`), the one
    that is spelled as the id keeps it, and the others get a digest of their name behind it.

    So an id depends on its own name and on those that it could be taken for, on no order. Raises ClassNameError where
    two names are one name: the same WordNet class, or the same letters.
    """
    infos = [parse_class_name(name) for name in names]
    _require_different(names, infos)
    texts = [clean_text(name) for name in names]
    ids = make_distinct([info.id for info in infos], texts)
    spelled = Counter(info.names for info in infos)
    return tuple(
        # `cat 1` and `cat_1` are both 'cat 1' otherwise
        ClassInfo(id=class_id, names=info.names if spelled[info.names] == 1 else (text, *info.names[1:]))
        for class_id, info, text in zip(ids, infos, texts, strict=True)
    )


def make_distinct(ids: Sequence[str], texts: Sequence[str]) -> list[str]:
    """`ids`, made of the different `texts`, told apart: see `parse_class_names`."""
    groups: dict[str, list[int]] = {}
    for place, class_id in enumerate(ids):
        groups.setdefault(fold_text(class_id), []).append(place)
    distinct, taken = list(ids), set(groups)
    for group in (places for places in groups.values() if len(places) > 1):
        exact = sorted((texts[place], place) for place in group if texts[place] == ids[place])
        for place in group:
            if not exact or place != exact[0][1]:
                distinct[place] = _add_digest(ids[place], texts[place], taken)
                taken.add(fold_text(distinct[place]))
    return distinct


def match_classes(wanted: Sequence[ClassInfo], held: Sequence[ClassInfo]) -> list[int]:
    """The places in `held` of the very classes that are `wanted`, by their ids and nothing else.

    Raises ClassNameError for one that is not there, and for `C++` where `C#` is: each alone has the id `C`.
    """
    places = {info.id: place for place, info in enumerate(held)}
    for info in wanted:
        if info.id not in places:
            raise ClassNameError(f"no class has the id {info.id!r} ({info.name})", "the ids must be the same")
        other = held[places[info.id]]
        full_names = {normalise_name(one.full_name) for one in (info, other) if _make_id(one.full_name) == info.id}
        if len(full_names) > 1:
            raise ClassNameError(
                f"{info.full_name!r} and {other.full_name!r} both have the id {info.id!r}",
                "rename one of the two so that they differ in a letter or a digit",
            )
    return [places[info.id] for info in wanted]


def choose_classes(asked: Sequence[str] | Sequence[ClassInfo], held: Sequence[ClassInfo]) -> list[int]:
    """The places in `held` of what is asked for: texts as they were typed, or classes that a model or a set has."""
    typed = [found.index for found in resolve_classes([one for one in asked if isinstance(one, str)], held)]
    return typed + match_classes([one for one in asked if isinstance(one, ClassInfo)], held)


def require_distinct(classes: Sequence[ClassInfo]) -> None:
    """Raise ClassNameError for two ids that some file system takes for one: their tailors would be one file."""
    seen: dict[str, str] = {}
    for info in classes:
        other = seen.setdefault(fold_text(info.id), info.id)
        if other != info.id:
            raise ClassNameError(
                f"class ids {other!r} and {info.id!r} are one file name on Windows and macOS",
                "give one of them another id: rename its tailor file and its entry in config.json",
            )


def name_class_file(info: ClassInfo, known: Sequence[ClassInfo], query: str = "") -> str:
    """The stem of a visible file name for a class: what it was asked by or its name, or its id where that says no less
    of another of the `known` classes."""
    stem = name_file(query or info.name)
    others = {name_file(text) for other in known if other.id != info.id for text in (other.name, other.id)}
    return info.id if fold_text(stem) in map(fold_text, others) else stem


def _make_id(name: str) -> str:
    """The id of a name by itself: letters of any alphabet, digits, `.` and `-`; all else becomes `_`."""
    text = clean_text(name)
    return shorten(avoid_reserved(slugify(text, ".-", "_") or "class"), text)


def _add_digest(class_id: str, text: str, taken: set[str]) -> str:
    """An id that nobody has: other names may end like a digest."""
    for letters in (8, 16, 32):
        digest = digest_text(text, letters)
        marked = f"{shorten(class_id, text, MAX_STEM_BYTES - letters - 1)}-{digest}"
        if fold_text(marked) not in taken:
            return marked
    raise ClassNameError(f"there is no id for the class {text!r}", "rename it")


def _require_different(names: Sequence[str], infos: Sequence[ClassInfo]) -> None:
    seen: dict[str, int] = {}
    for place, (name, info) in enumerate(zip(names, infos, strict=True)):
        key = info.id if _WORDNET.fullmatch(info.id) else clean_text(name)
        first = seen.setdefault(key, place)
        if first != place:
            is_spelled = clean_text(name) == clean_text(names[first]) and name != names[first]
            show = ascii if is_spelled else repr  # what differs cannot be seen
            raise ClassNameError(
                f"{show(names[first])} and {show(name)} are one class, {key!r}", "merge the two, or rename one of them"
            )
