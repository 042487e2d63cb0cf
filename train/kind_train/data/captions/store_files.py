"""How a cache of embedded captions lies on the disk. No torch is loaded.

text_embeddings.json   shards/00000/{words.safetensors, captions.json} ...
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kind_core.config.checks import is_whole
from kind_core.errors import DataError
from kind_core.files.json_files import read_object, read_texts
from kind_core.files.near_paths import suggest_path
from kind_core.files.shards import list_numbered
from kind_core.files.staging import folder_kind, write_whole

STORE_NAME = "text_embeddings.json"
SHARDS_NAME = "shards"
WORDS_NAME = "words.safetensors"
CAPTIONS_NAME = "captions.json"
FORMAT_VERSION = 1
AGAIN = "make it again: kind-train embed --force"


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderRecord:
    """Which text encoder embedded captions: `name` as a person knows it, `sha256` of its files.

    It gives up to `tokens` words of a caption, of `channels` numbers each.
    """

    name: str
    sha256: str
    channels: int
    tokens: int


def is_store(path: str | Path) -> bool:
    """Whether a cache of embedded captions lies at `path`."""
    return (Path(path) / STORE_NAME).is_file()


def read_record(folder: Path) -> EncoderRecord:
    """Which encoder made the cache at `folder`; raises DataError where there is none, or a newer or damaged one."""
    file = folder / STORE_NAME
    if not file.is_file():
        make = f"kind-train embed --data photos/ --text-encoder pixart/ --output {folder}"
        raise DataError(
            f"there are no embedded captions at {folder}: it has no {STORE_NAME}",
            f"make them: {make}{suggest_path(folder)}",
        )
    data = read_object(file, DataError, AGAIN)
    version, encoder = data.get("format_version"), data.get("encoder")
    if version != FORMAT_VERSION:
        raise DataError(f"{file} has format_version {version!r:.20}, this program reads {FORMAT_VERSION}", AGAIN)
    given: Mapping[str, Any] = encoder if isinstance(encoder, dict) else {}
    texts, numbers = ([given.get(name) for name in names] for names in (("name", "sha256"), ("channels", "tokens")))
    is_right = all(isinstance(text, str) for text in texts) and all(is_whole(number) for number in numbers)
    if not is_right or len(given) != len(fields(EncoderRecord)):
        raise DataError(f"{file} has encoder {encoder!r:.60}, expected name, sha256, channels and tokens", AGAIN)
    return EncoderRecord(**given)


def write_record(folder: Path, record: EncoderRecord) -> None:
    """Say which encoder the cache at `folder` is of."""
    data = {"format_version": FORMAT_VERSION, "encoder": asdict(record)}
    write_whole(folder / STORE_NAME, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def list_shards(folder: Path) -> list[Path]:
    """The shards of a cache in their order; raises DataError where one is missing."""
    place = folder / SHARDS_NAME
    return list_numbered(place, DataError, AGAIN) if place.is_dir() else []


def read_captions(shard: Path) -> list[str]:
    """The captions of a shard, in the order of its words."""
    return read_texts(shard / CAPTIONS_NAME, DataError, AGAIN)


def _is_store_file(name: str) -> bool:
    folder, _, rest = name.rpartition("/")
    return name == STORE_NAME or (folder.startswith(f"{SHARDS_NAME}/") and rest in (WORDS_NAME, CAPTIONS_NAME))


STORE = folder_kind("a cache of embedded captions", None, _is_store_file, heart=STORE_NAME)
SHARD = folder_kind("a shard", None, (WORDS_NAME, CAPTIONS_NAME).__contains__)
