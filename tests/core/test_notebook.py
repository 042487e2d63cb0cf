"""How checkpoints show themselves in a terminal and in a notebook."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from kind_core.checkpoint import Checkpoint, load_checkpoint
from kind_core.classes import ClassInfo
from kind_core.config import Provenance
from kind_core.console.notebook import name_classes
from tiny import tiny_config, tiny_model, tiny_model_config


def pictures(html: str) -> list[np.ndarray]:
    """The pictures inside a page."""
    found = re.findall(r"data:image/png;base64,([^']+)'", html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


class Tags(HTMLParser):
    """Open tags must be closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names.add(tag)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_checkpoint_is_one_line(checkpoint_path: Path) -> None:
    text = repr(load_checkpoint(checkpoint_path))
    assert text == "Checkpoint(giant panda, lesser panda, lemon, seashore; 3 x 8 x 8; N_G 8, N_T 2)"


def test_a_notebook_shows_a_table_and_a_picture_a_class(checkpoint_path: Path) -> None:
    html = load_checkpoint(checkpoint_path)._repr_html_()
    assert Tags(html).names == {"table", "caption", "tr", "th", "td", "figure", "img", "figcaption"}
    assert "learngene 8, tailors 2" in html
    drawn = pictures(html)
    assert [one.shape for one in drawn] == [(8, 8, 3)] * 4
    assert not np.array_equal(drawn[0], drawn[1])


def test_a_large_model_or_latents_show_no_pictures(checkpoint_path: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    slow = replace(checkpoint.config, diffusion=replace(checkpoint.config.diffusion, steps=1000))
    large = replace(slow, dit=replace(slow.dit, depth=2000))
    assert pictures(replace(checkpoint, config=large)._repr_html_()) == []
    dit = tiny_config(in_channels=4)
    latents = Checkpoint(config=tiny_model_config(dit), model=tiny_model(dit), sha256="0" * 64)
    assert pictures(latents._repr_html_()) == []


def test_names_are_text_in_the_page(checkpoint_path: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path, [0])
    evil = ClassInfo(id="c0", names=("<script>alert(1)</script>'\"",))
    config = replace(checkpoint.config, classes=(evil,), provenance=Provenance(licence="<b>mine</b>"))
    html = replace(checkpoint, config=config)._repr_html_()
    assert {"script", "b"} & Tags(html).names == set()
    assert "alt='&lt;script&gt;alert(1)&lt;/script&gt;&#x27;&quot;'" in html


def test_many_names_are_cut() -> None:
    assert name_classes(["a", "b"]) == "a, b"
    assert name_classes([str(i) for i in range(9)]) == "0, 1, 2, 3, 4, 5 and 3 more"
