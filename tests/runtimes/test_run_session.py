"""A run from request to image: what is asked is checked before any work, what is drawn is what was asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kind_core.errors import BundleError, ClassNameError, ConfigError, KindError, OutputError, TargetError
from kind_core.pictures import make_grid
from kind_runtimes import draw as session
from kind_runtimes.bundle import Bundle
from kind_runtimes.draw import RunRequest, run_bundle
from kind_runtimes.generator import open_generator
from kind_runtimes.progress import Progress
from small_bundles import GUIDANCE, SHAPE, STEPS, write_manifest


@pytest.fixture
def request_of(small_bundle: Bundle, tmp_path: Path) -> Callable[..., RunRequest]:
    """A request for the giant panda into `out.png`; arguments are fields."""

    def make(**fields: Any) -> RunRequest:
        output = tmp_path / "out.png"
        defaults = {"bundle": small_bundle.path, "class_name": "panda", "output": output, "runtime": "onnx"}
        return RunRequest(**{**defaults, **fields})

    return make


def read_pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_image_is_the_grid_of_the_generators_pictures(
    request_of: Callable[..., RunRequest], small_bundle: Bundle, tmp_path: Path
) -> None:
    result = run_bundle(request_of(class_name="red panda", seed=7, count=3, guidance=0.75))
    generator = open_generator(small_bundle.path, small_bundle.manifest, "onnx")
    expected = make_grid([generator.picture(1, seed, 0.75) for seed in (7, 8, 9)], columns=2)
    np.testing.assert_array_equal(read_pixels(tmp_path / "out.png"), np.asarray(expected))
    assert (result.info.id, result.seeds, result.guidance) == ("n02509815", (7, 8, 9), 0.75)
    assert (result.path, result.runtime, result.engine) == (tmp_path / "out.png", "onnx", generator.step.engine)
    assert result.seconds > 0


def test_any_picture_of_a_batch_can_be_drawn_alone(request_of: Callable[..., RunRequest], tmp_path: Path) -> None:
    run_bundle(request_of(seed=7, count=2, columns=2))
    run_bundle(request_of(seed=8, output=tmp_path / "one.png"))
    size = SHAPE[-1]
    np.testing.assert_array_equal(read_pixels(tmp_path / "out.png")[:, -size:], read_pixels(tmp_path / "one.png"))


@pytest.mark.parametrize(
    ("count", "columns", "shape"), [(4, None, (2, 2)), (5, None, (2, 3)), (4, 4, (1, 4)), (2, 9, (1, 2))]
)
def test_the_grid_is_as_square_as_it_gets(
    request_of: Callable[..., RunRequest], tmp_path: Path, count: int, columns: int | None, shape: tuple[int, int]
) -> None:
    run_bundle(request_of(count=count, columns=columns))
    size = SHAPE[-1]
    assert read_pixels(tmp_path / "out.png").shape[:2] == tuple(n * size + (n - 1) * 2 for n in shape)


def test_what_was_not_asked_comes_from_the_bundle(request_of: Callable[..., RunRequest]) -> None:
    result = run_bundle(request_of(runtime=None))
    assert (result.seeds, result.guidance) == ((0,), GUIDANCE)
    assert result.info.name == "giant panda"
    assert "not 'lesser panda'" in result.note


def test_progress_goes_up_to_every_step_of_every_picture(request_of: Callable[..., RunRequest]) -> None:
    seen: list[Progress] = []
    run_bundle(request_of(count=2), seen.append)
    assert [p.done for p in seen] == [0, *range(1, 2 * STEPS + 1)]
    assert {p.total for p in seen} == {2 * STEPS}
    stages = list(dict.fromkeys(p.stage for p in seen))
    assert stages == ["opening the onnx programs", "picture 1 of 2", "picture 2 of 2"]


def test_the_only_class_need_not_be_named(copy_bundle: Callable[[], Path], tmp_path: Path) -> None:
    folder = copy_bundle()
    write_manifest(folder, ["onnx"], classes=[{"id": "n02509815", "names": ["red panda"]}])
    result = run_bundle(RunRequest(bundle=folder, output=tmp_path / "out.png"))
    assert (result.info.name, result.runtime) == ("red panda", "onnx")


def test_the_image_is_called_after_the_class(
    request_of: Callable[..., RunRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_bundle(request_of(output=None)).path == Path("giant-panda.png")
    assert (tmp_path / "giant-panda.png").is_file()


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"count": 0}, ConfigError, "count is 0, expected 1 to 10000"),
        ({"columns": -1}, ConfigError, "columns is -1, expected 1 to 10000"),
        ({"guidance": float("nan")}, ConfigError, "guidance is nan, expected a finite number"),
        ({"guidance": float("inf")}, ConfigError, "guidance is inf"),
        ({"guidance": 1000.0}, ConfigError, "up to 100"),
        ({"seed": -1}, ConfigError, "seed is -1"),
        ({"seed": 2**64 - 1, "count": 2}, ConfigError, f"seed is {2**64}"),
        ({"runtime": "tflite"}, TargetError, "unknown runtime 'tflite', expected one of onnx, executorch, coreml"),
        ({"class_name": "gaint panda"}, ClassNameError, "unknown class 'gaint panda', nearest: 'giant panda'"),
        ({"class_name": None}, ClassNameError, "no class was asked for"),
        ({"bundle": Path("nowhere.kind")}, BundleError, "there is no bundle nowhere.kind"),
        ({"output": Path("out")}, OutputError, "out has no ending, expected an image type"),
        ({"output": Path("out.kind")}, OutputError, "the ending '.kind'"),
    ],
)
def test_bad_input_is_named_before_any_work(
    request_of: Callable[..., RunRequest],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fields: dict[str, Any],
    error: type[KindError],
    message: str,
) -> None:
    monkeypatch.setattr(session, "open_generator", lambda *_: pytest.fail("programs were opened"))
    with pytest.raises(error) as caught:
        run_bundle(request_of(**fields))
    assert message in caught.value.message
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("out.png", {"count": 10_000, "scale": 64}),
        ("out.jpg", {"count": 200, "columns": 200, "scale": 64}),
        ("out.webp", {"count": 40, "columns": 1, "scale": 64}),
    ],
)
def test_an_image_that_no_file_of_its_type_holds_is_refused_before_it_is_drawn(
    request_of: Callable[..., RunRequest], tmp_path: Path, name: str, fields: dict[str, int]
) -> None:
    stages: list[Progress] = []
    with pytest.raises(OutputError, match=rf"{name} would have \d+ x \d+ pixels, expected \d+ a side") as caught:
        run_bundle(request_of(output=tmp_path / name, **fields), stages.append)
    assert "--scale" in caught.value.hint
    assert not stages
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("name", ["koala", None])
def test_an_error_about_the_class_lists_those_of_the_bundle(
    request_of: Callable[..., RunRequest], name: str | None
) -> None:
    with pytest.raises(ClassNameError) as caught:
        run_bundle(request_of(class_name=name))
    assert "the bundle holds giant panda, lesser panda" in caught.value.hint


def test_an_existing_image_stays_without_force(request_of: Callable[..., RunRequest], tmp_path: Path) -> None:
    (tmp_path / "out.png").write_text("precious")
    with pytest.raises(OutputError, match="already exists"):
        run_bundle(request_of())
    assert (tmp_path / "out.png").read_text() == "precious"
    with pytest.raises(OutputError, match="not a picture that this program drew"):
        run_bundle(request_of(force=True))
    assert (tmp_path / "out.png").read_text() == "precious"
    (tmp_path / "out.png").unlink()
    run_bundle(request_of())
    run_bundle(request_of(force=True))
    assert read_pixels(tmp_path / "out.png").shape == (16, 16, 3)


def test_a_folder_is_never_replaced(request_of: Callable[..., RunRequest], tmp_path: Path) -> None:
    folder = tmp_path / "folder.png"
    folder.mkdir()
    (folder / "precious").touch()
    with pytest.raises(OutputError, match="is a folder"):
        run_bundle(request_of(output=folder, force=True))
    assert (folder / "precious").exists()


def test_a_tampered_bundle_is_not_run(copy_bundle: Callable[[], Path], tmp_path: Path) -> None:
    folder = copy_bundle()
    file = folder / "onnx/step.onnx"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=r"step\.onnx has sha256"):
        run_bundle(RunRequest(bundle=folder, class_name="panda", output=tmp_path / "out.png"))
    assert not (tmp_path / "out.png").exists()


def test_a_bundle_that_makes_latents_says_so(copy_bundle: Callable[[], Path], tmp_path: Path) -> None:
    folder = copy_bundle()
    data = json.loads((folder / "manifest.json").read_text())
    del data["targets"]["onnx"]["programs"]["decode"]
    (folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match="no decode program"):
        run_bundle(RunRequest(bundle=folder, class_name="panda", runtime="onnx", output=tmp_path / "out.png"))


def test_numbers_that_are_not_finite_are_not_drawn(
    request_of: Callable[..., RunRequest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("kind_runtimes.generator.Generator.latents", lambda *_: np.full(SHAPE, np.nan, np.float32))
    with pytest.raises(ConfigError, match=r"seed 0 gives numbers that are not finite at guidance 1\.5"):
        run_bundle(request_of())
    assert not (tmp_path / "out.png").exists()


def test_nothing_is_left_of_an_interrupted_run(request_of: Callable[..., RunRequest], tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_bundle(request_of(), interrupt)
    assert list(tmp_path.iterdir()) == []
