"""What says that files are the same: sha256 of their contents."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from kind_core.files.regular_files import require_regular


def hash_file(file: Path) -> str:
    """sha256 of a file, in hex; raises OSError when it cannot be read."""
    require_regular(file)
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_files(files: Sequence[Path]) -> str:
    """One sha256 of the contents of `files`, in order."""
    return hashlib.sha256("".join(hash_file(file) for file in files).encode()).hexdigest()
