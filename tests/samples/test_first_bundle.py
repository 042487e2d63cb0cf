"""The notebook under samples/ runs from top to bottom, and what is stored in it is what it makes."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from notebook_cells import read_code_cells, run_cells
from PIL import Image

NOTEBOOK = Path(__file__).parents[2] / "samples" / "first_bundle.ipynb"


def stored_picture(cell: dict[str, object]) -> np.ndarray | None:
    """The picture in the outputs of a cell as the notebook holds it."""
    outputs: list[dict[str, dict[str, str]]] = cell["outputs"]  # type: ignore[assignment]
    for output in outputs:
        if "image/png" in output.get("data", {}):
            with Image.open(io.BytesIO(base64.b64decode("".join(output["data"]["image/png"])))) as picture:
                return np.asarray(picture).astype(float)
    return None


@pytest.mark.slow
def test_the_notebook_runs_and_makes_the_pictures_stored_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cells = read_code_cells(NOTEBOOK)
    num_pictures = 0
    for cell, shown in zip(cells, run_cells(cells), strict=True):
        stored = stored_picture(cell)
        assert (stored is not None) == isinstance(shown, Image.Image), "run the notebook again and save it"
        if stored is not None:
            error = np.sqrt(np.mean((stored - np.asarray(shown, float)) ** 2))
            assert 20 * np.log10(255 / max(error, 1e-6)) > 35, "".join(cell["source"])
            num_pictures += 1
    assert num_pictures == 3
    assert len(list(tmp_path.rglob("report.html"))) == 2, "the bundles lie elsewhere"


def test_every_cell_that_shows_something_has_its_output_stored() -> None:
    cells = read_code_cells(NOTEBOOK)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), "run it from the top"
    assert all(output["output_type"] != "error" for cell in cells for output in cell["outputs"])
    assert sum(bool(cell["outputs"]) for cell in cells) == 7


def test_no_output_names_a_folder_of_the_machine_that_ran_it() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "site-packages" not in text
    assert "/home/" not in text
