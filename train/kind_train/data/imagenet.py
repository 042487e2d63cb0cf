"""The classes of ImageNet-1K (ILSVRC-2012), in the order of every classifier's outputs."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files


@cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """The (WordNet id, name) of ILSVRC-2012's 1000 classes; the position is the classifier's output index."""
    text = (files("kind_core") / "data" / "imagenet_1k.json").read_text(encoding="utf-8")
    return tuple((wnid, name) for wnid, name in json.loads(text))


@cache
def _index_of_wnid() -> dict[str, int]:
    return {wnid: index for index, (wnid, _) in enumerate(imagenet_classes())}


def imagenet_index(wnid: str) -> int | None:
    """The classifier's output index for a WordNet id, None for a class that is not in ImageNet-1K."""
    return _index_of_wnid().get(wnid)
