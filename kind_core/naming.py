"""What people write, in any alphabet, as names of files that every system keeps and tells apart.

Windows and macOS take `A` for `a`, macOS takes a letter and its accent for one accented letter, and Windows keeps `CON`
for itself: names are told apart by `fold_text` alone. `name_file` of a text in ASCII is what it always was.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import lru_cache

# Bytes of UTF-8. A file name may have 255: the rest is for endings, for temporary names beside it and for long folders.
MAX_STEM_BYTES = 100
_DIGEST_LETTERS = 8
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?=\.|$)")  # on Windows, with any ending
# Letters and marks that show nothing: joiners, fillers, variation selectors (Unicode's Default_Ignorable_Code_Point).
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)


def clean_text(text: str) -> str:
    """`text` as it is compared and written (NFC); what was no UTF-8 in a file name becomes U+FFFD."""
    return unicodedata.normalize("NFC", "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text))


@lru_cache(maxsize=1 << 14)  # every name of a checkpoint is compared with every query
def fold_text(text: str) -> str:
    """What texts have in common that some file system, or a reader in a hurry, takes for the same: NFKC, no case."""
    for form in ("NFD", "NFKC", "NFKC"):
        text = unicodedata.normalize(form, text.casefold())
    return text


def is_letter(char: str) -> bool:
    """Whether a character can be seen in a file name and means nothing to a shell or a path: letters, digits, emoji."""
    if char.isascii():
        return char.isalnum()
    code, category = ord(char), unicodedata.category(char)
    if category == "Cn":  # a later Unicode may know it as a letter
        return code & 0xFFFE != 0xFFFE and not 0xFDD0 <= code <= 0xFDEF
    return category[0] in "LMNS" and _INVISIBLE.match(char) is None


def slugify(text: str, others: str, gap: str) -> str:
    """`text` with `gap` for all but letters and `others` (ASCII), none at its ends; may be empty."""
    text = _INVISIBLE.sub("", clean_text(text))
    letters = (char if is_letter(char) or char in others else " " for char in text)
    slug = clean_text(gap.join("".join(letters).split()))
    return slug.strip(gap + others)


def shorten(stem: str, text: str, limit: int = MAX_STEM_BYTES) -> str:
    """`stem` where it fits into `limit` bytes, otherwise its beginning and a digest of `text`, which it was made of."""
    data = stem.encode()
    if len(data) <= limit:
        return stem
    start = data[: limit - _DIGEST_LETTERS - 1].decode(errors="ignore").rstrip("_.-")
    return f"{start}-{digest_text(text)}"


def digest_text(text: str, letters: int = _DIGEST_LETTERS) -> str:
    """The first `letters` hexadecimal digits of the sha256 of a text."""
    return hashlib.sha256(clean_text(text).encode()).hexdigest()[:letters]


def avoid_reserved(stem: str) -> str:
    """`stem` as Windows takes it: `con` and its like get an underscore."""
    return _RESERVED.sub(r"\1_", stem, count=1) if _RESERVED.match(stem) else stem


def name_file(text: str) -> str:
    """`text` as the stem of a visible file name, in small letters and dashes; never empty, at most 100 bytes.

    Two texts may share one: `C++` and `C#`.
    """
    slug = slugify(text.lower(), "", "-")
    return shorten(avoid_reserved(slug) if slug else f"class-{digest_text(text)}", text)
