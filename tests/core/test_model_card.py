"""A model card shows names and provenance as text: none of it becomes Markdown, HTML, YAML or a command."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from kind_core.checkpoint import load_checkpoint
from kind_core.classes import ClassInfo
from kind_core.config import Provenance
from kind_core.console import clean
from kind_core.model_card import escape_markdown, render_card

EVILS = (
    "<script>alert(1)</script>",
    "x\n# A heading of its own\nlicense: mit",
    "x\n---\nlicense: mit\n---\n",
    "a | cell | more",
    "[click](https://stranger.example) ![x](y)",
    "`code` **bold** _it_ ~~gone~~ &lt;b&gt;",
    "{{ config }} {% raw %}",
    "\x1b[31m\u202e",
)


@pytest.mark.parametrize("evil", EVILS)
def test_names_and_provenance_are_text(evil: str, checkpoint_path: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    plain = render_card(checkpoint, "org/model").count("\n")
    provenance = Provenance(data=evil, training="", licence=evil, author=evil)
    classes = (ClassInfo(id="c0", names=(evil,)), *checkpoint.config.classes[1:])
    card = render_card(
        replace(checkpoint, config=replace(checkpoint.config, classes=classes, provenance=provenance)), "org/model"
    )
    front, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", card, re.DOTALL).groups()  # type: ignore[union-attr]
    assert yaml.safe_load(front)["license"] == "other"
    assert card.count("\n") == plain + 2  # two lines of YAML: a licence, and its name
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", card)
    parts = _parse_rows(body)["author"]
    assert {one.type for one in parts} <= {"text", "text_special"}
    assert "".join(one.content for one in parts) == clean(evil).strip()


def _parse_rows(body: str) -> dict[str, list[Token]]:
    """The second cell of each row of the first table, as a reader of Markdown with tables, HTML and links sees it."""
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    cells = [token for token in reader.parse(body) if token.type == "inline"]
    return {one.content: other.children or [] for one, other in pairwise(cells)}


@pytest.mark.parametrize("text", ["golden retriever", "C++ (2. Teil)", "caf\u00e9 \u732b", "mug, blue"])
def test_ordinary_names_stay_as_they_are(text: str) -> None:
    assert escape_markdown(text) == text


@pytest.mark.parametrize("class_id", ["n02510455", 'a"; rm -rf ~; "', "it's $HOME `ls`", "\u732b"])
def test_an_id_is_one_word_of_the_commands(class_id: str, checkpoint_path: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    first = object.__new__(ClassInfo)
    object.__setattr__(first, "id", class_id)
    object.__setattr__(first, "names", ("x",))
    config = replace(checkpoint.config, classes=(first, *checkpoint.config.classes[1:]))
    card = render_card(replace(checkpoint, config=config), "org/model")
    (command,) = [line for line in card.splitlines() if line.startswith("kind-export ")]
    words = shlex.split(command)
    assert words[words.index("--classes") + 1] == class_id
    assert f"classes=[{json.dumps(class_id, ensure_ascii=not class_id.isalnum())}]" in card
