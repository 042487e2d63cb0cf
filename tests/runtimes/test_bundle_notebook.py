"""How bundles show themselves in a terminal and in a notebook."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from kind_runtimes.bundle import Bundle, open_bundle
from small_bundles import write_placeholders


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    write_placeholders(tmp_path / "panda.kind")
    return open_bundle(tmp_path / "panda.kind")


def test_a_bundle_is_one_line(bundle: Bundle) -> None:
    text = f"Bundle(giant panda, lesser panda; coreml, onnx, executorch; 4 steps; {bundle.path})"
    assert repr(bundle) == text


def test_a_notebook_shows_targets_and_the_preview(bundle: Bundle) -> None:
    html = bundle._repr_html_()
    assert "<caption>panda.kind</caption>" in html
    for text in ("giant panda, lesser panda", "4 dpmpp steps, guidance 1.5", "fp16, 0.01 MB, 0 dB"):
        assert text in html
    preview = base64.b64encode((bundle.path / "preview.png").read_bytes()).decode()
    assert f"data:image/png;base64,{preview}" in html
    (bundle.path / "preview.png").unlink()
    assert "<img" not in bundle._repr_html_()
