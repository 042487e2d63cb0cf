"""What a saved package says of itself: images, functions, and files that are missing or broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from coreml_programs import run_one, save_module, save_program
from kind_core.errors import BundleError
from kind_runtimes.coreml.evaluator import Evaluator
from kind_runtimes.coreml.package import CoreMLPackage, TensorSpec
from kind_runtimes.quiet import import_coremltools


class HalfImage(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 0.5


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "linear.mlpackage"
    weight = np.ones((64, 64), np.float32)
    save_program(lambda mb, t: mb.linear(x=t.x, weight=weight), {"x": ((2, 64), "fp32")}, path)
    return path


def save_image_program(path: Path, layout: str, precision: str) -> CoreMLPackage:
    ct = import_coremltools()
    color = getattr(ct.colorlayout, layout)
    channels = 1 if layout == "GRAYSCALE" else 3
    save_module(
        HalfImage(),
        (torch.zeros(1, channels, 4, 6),),
        path,
        "iOS17",
        precision,
        inputs=[ct.ImageType(name="x", shape=(1, channels, 4, 6), color_layout=color)],
        outputs=[ct.ImageType(name="image", color_layout=color)],
    )
    return CoreMLPackage.open(path)


@pytest.mark.parametrize(("layout", "precision"), [("RGB", "FLOAT32"), ("RGB", "FLOAT16"), ("BGR", "FLOAT16")])
def test_images_are_pixels_outside_and_floats_inside(layout: str, precision: str, tmp_path: Path) -> None:
    package = save_image_program(tmp_path / "image.mlpackage", layout, precision)
    assert package.outputs == {"image": TensorSpec(shape=(4, 6, 3), dtype="uint8", image=layout)}
    evaluator = Evaluator(package)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    image = evaluator.run({"x": pixels})["image"]
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.rint(pixels / 2))
    raw = evaluator.run({"x": pixels}, raw_images=True)["image"]
    planes = (pixels / 2).transpose(2, 0, 1)[None]
    np.testing.assert_array_equal(raw, planes if layout == "RGB" else planes[:, ::-1])


def test_pixels_are_clipped(tmp_path: Path) -> None:
    evaluator = Evaluator(save_image_program(tmp_path / "image.mlpackage", "RGB", "FLOAT32"))
    x = np.zeros((1, 3, 4, 6), np.float32)
    x[0, 0], x[0, 1], x[0, 2] = -100, 1000, np.nan
    image = evaluator.run({"x": x})["image"]
    assert image[0, 0].tolist() == [0, 255, 0]


def test_grey_images_have_no_channels(tmp_path: Path) -> None:
    package = save_image_program(tmp_path / "image.mlpackage", "GRAYSCALE", "FLOAT32")
    assert package.outputs == {"image": TensorSpec(shape=(4, 6), dtype="uint8", image="GRAYSCALE")}
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    np.testing.assert_array_equal(run_one(Evaluator(package), x=pixels), np.rint(pixels / 2))


def test_function_of_a_multifunction_package(tmp_path: Path) -> None:
    ct = import_coremltools()
    descriptor = ct.utils.MultiFunctionDescriptor()
    for name, amount in (("one", 1.0), ("two", 2.0)):
        path = tmp_path / f"{name}.mlpackage"
        save_program(lambda mb, t, y=amount: mb.add(x=t.x, y=y), {"x": ((4,), "fp32")}, path, "iOS18")
        descriptor.add_function(str(path), "main", name)
    descriptor.default_function_name = "two"
    ct.utils.save_multifunction(descriptor, str(tmp_path / "both.mlpackage"))
    for function, expected in (("one", 1), ("two", 2), (None, 2)):
        package = CoreMLPackage.open(tmp_path / "both.mlpackage", function)
        assert package.inputs == {"x": TensorSpec(shape=(4,), dtype="float32")}
        result = run_one(Evaluator(package), x=np.zeros(4, np.float32))
        np.testing.assert_array_equal(result, np.full(4, expected))
    with pytest.raises(BundleError, match="has no function 'three'") as caught:
        CoreMLPackage.open(tmp_path / "both.mlpackage", "three")
    assert "one, two" in caught.value.hint


def test_missing_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"missing\.mlpackage is not an \.mlpackage"):
        CoreMLPackage.open(tmp_path / "missing.mlpackage")


@pytest.mark.parametrize("size_bytes", [None, 0, 1000])
def test_missing_or_short_weights_are_named(size_bytes: int | None, linear: Path, tmp_path: Path) -> None:
    path = shutil.copytree(linear, tmp_path / "broken.mlpackage")
    weights = path / "Data/com.apple.CoreML/weights/weight.bin"
    content = weights.read_bytes()
    weights.unlink()
    if size_bytes is not None:
        weights.write_bytes(content[:size_bytes])
    package = CoreMLPackage.open(path)
    with pytest.raises(BundleError, match=r"program of .*broken\.mlpackage cannot be loaded"):
        Evaluator(package)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("Manifest.json", b"{}", r"Manifest\.json is not a package manifest"),
        ("Manifest.json", b"[", r"Manifest\.json is not a package manifest"),
        ("Data/com.apple.CoreML/model.mlmodel", b"not a model", r"model\.mlmodel is not a Core ML model"),
        ("Data/com.apple.CoreML/model.mlmodel", b"", "holds a model of type None, not an mlProgram"),
    ],
)
def test_broken_files_are_named(file: str, content: bytes, message: str, linear: Path, tmp_path: Path) -> None:
    path = shutil.copytree(linear, tmp_path / "broken.mlpackage")
    (path / file).write_bytes(content)
    with pytest.raises(BundleError, match=message):
        CoreMLPackage.open(path)
