"""Guidance of a class's own, `NAME=SCALE`, where photos teach a student: what is seldom recognised may take more."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kind_core.classes import ClassInfo, resolve_classes
from kind_core.errors import ConfigError


def parse_class_guidance(entries: Sequence[str]) -> dict[str, float]:
    """Scale by what a class is called; raises ConfigError where an entry is no `NAME=SCALE` or a name comes twice."""
    scales: dict[str, float] = {}
    for entry in entries:
        name, _, scale = entry.rpartition("=")
        try:
            number = float(scale)
        except ValueError:
            number = math.nan
        if not name or not math.isfinite(number):
            raise ConfigError(f"class_guidance is {entry!r}, expected NAME=SCALE, for example koala=2.5")
        if name in scales:
            raise ConfigError(f"class_guidance names {name!r} twice, expected one scale for a class")
        scales[name] = number
    return scales


def scale_of_each(entries: Sequence[str], classes: Sequence[ClassInfo], otherwise: float) -> tuple[float, ...]:
    """The guidance scale of each of `classes`; raises ClassNameError for a name that none or several of them fit."""
    scales = parse_class_guidance(entries)
    each = [otherwise] * len(classes)
    for found, scale in zip(resolve_classes(tuple(scales), classes, is_list=False), scales.values(), strict=True):
        each[found.index] = scale
    return tuple(each)
