"""The examples in other languages that the documents show."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_KITS = ROOT / "runtimes" / "kind_runtimes" / "kits"
_FOLDERS = (ROOT / "docs", ROOT / "samples", _KITS)


@dataclass(frozen=True)
class Snippet:
    """One example: the page and line where it begins, and its code."""

    page: str
    line: int
    code: str

    @property
    def name(self) -> str:
        """A name that an identifier may hold."""
        return re.sub(r"\W", "_", f"{self.page}_{self.line}")


def list_pages() -> list[Path]:
    """README, guides and the notes of kits and samples."""
    return [ROOT / "README.md", *(page for folder in _FOLDERS for page in sorted(folder.rglob("*.md")))]


def find_blocks(language: str) -> list[Snippet]:
    """Every code block of `language`, indented ones too."""
    pattern = re.compile(rf"^([ \t]*)```{language}\n(.*?)^\1```$", re.M | re.S)
    return [
        Snippet(_name(page), text[: found.start()].count("\n") + 1, textwrap.dedent(found[2]))
        for page in list_pages()
        for text in [page.read_text(encoding="utf-8")]
        for found in pattern.finditer(text)
    ]


def find_spans(folder: str, pattern: str) -> list[Snippet]:
    """The code between single backticks on pages under `folder` that `pattern` matches as a whole."""
    return [
        Snippet(_name(page), number, span)
        for page in list_pages()
        if _name(page).startswith(folder)
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", line)
        if re.fullmatch(pattern, span)
    ]


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()
