"""Grids and image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kind_core.classes import ClassInfo
from kind_core.errors import OutputError
from kind_core.pictures import check_format, choose_scale, enlarge, make_class_grid, make_grid, write_picture


def flat(value: int) -> np.ndarray:
    return np.full((4, 6, 3), value, np.uint8)


def test_pictures_lie_row_by_row_with_white_between() -> None:
    grid = np.asarray(make_grid([flat(10), flat(20), flat(30)], columns=2, gap=1))
    assert grid.shape == (2 * 4 + 1, 2 * 6 + 1, 3)
    assert (grid[:4, :6] == 10).all()
    assert (grid[:4, 7:] == 20).all()
    assert (grid[5:, :6] == 30).all()
    assert (grid[5:, 7:] == 255).all()
    assert (grid[4] == 255).all()
    assert (grid[:, 6] == 255).all()


def test_one_picture_is_itself() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(make_grid([picture], columns=8)), picture)


def test_a_written_png_has_the_same_pixels(tmp_path: Path) -> None:
    grid = make_grid([flat(10), flat(20)], columns=2)
    write_picture(tmp_path / "a.PNG", grid, force=False)
    with Image.open(tmp_path / "a.PNG") as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), np.asarray(grid))
    assert [p.name for p in tmp_path.iterdir()] == ["a.PNG"]


def test_an_existing_picture_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_picture(path, make_grid([flat(1)], columns=1), force=False)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="already exists"):
        write_picture(path, make_grid([flat(2)], columns=1), force=False)
    assert path.read_bytes() == before
    write_picture(path, make_grid([flat(2)], columns=1), force=True)
    assert path.read_bytes() != before


@pytest.mark.parametrize(
    ("name", "expected"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.webp", "WEBP"), ("a.bmp", "BMP")]
)
def test_the_ending_says_the_format(name: str, expected: str) -> None:
    assert check_format(Path(name)) == expected


# .cur is an image type that Pillow reads but does not write, .xbm one without colours
@pytest.mark.parametrize("name", ["panda", "panda.kind", "panda.png.txt", "a.cur", "a.xbm"])
def test_other_endings_are_refused(name: str) -> None:
    with pytest.raises(OutputError, match=r"expected an image type such as \.png"):
        check_format(Path(name))


def stripes(size: int = 4) -> np.ndarray:
    return np.where(np.arange(size)[:, None, None] % 2, 255, 0).astype(np.uint8) * np.ones((1, size, 3), np.uint8)


def test_pictures_are_enlarged_smoothly_or_sharply() -> None:
    sharp = np.asarray(enlarge(stripes(), 8, sharp=True))
    np.testing.assert_array_equal(sharp, stripes().repeat(8, axis=0).repeat(8, axis=1))
    smooth = np.asarray(enlarge(stripes(), 8))
    assert smooth.shape == sharp.shape
    assert len(np.unique(smooth)) > 8
    np.testing.assert_array_equal(np.asarray(enlarge(stripes(), 1)), stripes())


def test_pictures_of_a_grid_do_not_run_into_each_other() -> None:
    grid = np.asarray(make_grid([flat(10), flat(200)], columns=2, gap=3, scale=5))
    height, width, _ = flat(10).shape
    assert grid.shape == (5 * height, 10 * width + 3, 3)
    assert (grid[:, : 5 * width] == 10).all()
    assert (grid[:, 5 * width : 5 * width + 3] == 255).all()
    assert (grid[:, 5 * width + 3 :] == 200).all()


@pytest.mark.parametrize(("height", "expected"), [(32, 6), (192, 1), (100, 2), (512, 1)])
def test_small_pictures_are_enlarged_until_they_can_be_seen(height: int, expected: int) -> None:
    assert choose_scale(height, 192) == expected


def test_each_row_of_a_class_grid_stands_under_its_name() -> None:
    panda, cat, long = (
        ClassInfo(id=id, names=(name,)) for id, name in (("p", "giant panda"), ("neko", "猫"), ("l", "w" * 20_000))
    )
    rows = [(info, [stripes(), stripes()]) for info in (panda, cat, long)]
    grid = np.asarray(make_class_grid(rows, 64))
    lines = [grid[top : top + 30] for top in (0, 102, 204)]
    assert all((line < 128).any() for line in lines)
    alone = [np.asarray(make_class_grid([row], 64))[:30] for row in rows]
    for line, expected in zip(lines, alone, strict=True):
        np.testing.assert_array_equal(line, expected)
    by_id = make_class_grid([(ClassInfo(id="x", names=("neko",)), [stripes(), stripes()])], 64)
    np.testing.assert_array_equal(lines[1], np.asarray(by_id)[:30])  # the font has no such letter: its id
    assert (lines[2][:, -8:] == 255).all()
