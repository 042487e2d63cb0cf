"""A saved .mlpackage: its inputs and outputs, and its MIL program read back from the files on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kind_core.errors import BundleError
from kind_core.files.json_files import read_json
from kind_core.files.regular_files import require_regular
from kind_runtimes.quiet import import_coremltools

_REWRITE_HINT = "export the program again"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Shape and numpy dtype of an input or output. `image` is its colour layout ("RGB", "BGR", "GRAYSCALE"), or ""."""

    shape: tuple[int, ...]
    dtype: str
    image: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreMLPackage:
    """One function of a saved package. Images have the shape (height, width, 3), or (height, width) if grey."""

    path: Path
    function: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    spec: Any  # the parsed coremltools.proto.Model_pb2.Model; weights stay on disk

    @classmethod
    def open(cls, path: str | Path, function: str | None = None) -> CoreMLPackage:
        """Read the package at `path`; `function` picks one of a multifunction package, else its default one.

        Raises BundleError where a file is missing, broken, or no ML program.
        """
        path = Path(path)
        spec = _parse_spec(path, _find_model_file(path))
        name = function or spec.description.defaultFunctionName or "main"
        if name not in spec.mlProgram.functions:
            known = ", ".join(sorted(spec.mlProgram.functions))
            raise BundleError(f"{path} has no function {name!r}", f"its functions are: {known}")
        # multifunction packages have one description for each
        description = next((one for one in spec.description.functions if one.name == name), spec.description)
        return cls(
            path=path,
            function=name,
            inputs={feature.name: _read_feature(path, feature) for feature in description.input},
            outputs={feature.name: _read_feature(path, feature) for feature in description.output},
            spec=spec,
        )

    def load_function(self) -> Any:
        """The MIL function (`coremltools.converters.mil.mil.Function`) with its weights, read anew from disk."""
        import_coremltools()
        from coremltools.converters.mil.frontend.milproto.load import load

        weights = self.path / "Data" / "com.apple.CoreML" / "weights"
        spec = type(self.spec)()
        spec.CopyFrom(self.spec)
        for name in set(spec.mlProgram.functions) - {self.function}:
            del spec.mlProgram.functions[name]  # its weights would be read as well
        try:
            program = load(spec, spec.specificationVersion, file_weights_dir=str(weights))
        except (RuntimeError, OSError, ValueError) as error:  # a weight file that is missing, empty or short
            raise BundleError(f"the program of {self.path} cannot be loaded: {error}", _REWRITE_HINT) from error
        return program.functions[self.function]


def _find_model_file(path: Path) -> Path:
    """The file that Manifest.json calls the root model."""
    manifest_path = path / "Manifest.json"
    try:
        manifest = read_json(manifest_path)
        entry = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
        return path / "Data" / str(entry["path"])
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"{path} is not an .mlpackage: it has no Manifest.json", "check the path") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{manifest_path} is not a package manifest: {error!r}", _REWRITE_HINT) from error


def _parse_spec(path: Path, model_file: Path) -> Any:
    proto = import_coremltools().proto
    from google.protobuf.message import DecodeError

    spec = proto.Model_pb2.Model()
    try:
        require_regular(model_file)
        spec.ParseFromString(model_file.read_bytes())
    except OSError as error:
        raise BundleError(f"{model_file} cannot be read: {error.strerror or error}", _REWRITE_HINT) from error
    except DecodeError as error:
        raise BundleError(f"{model_file} is not a Core ML model: {error}", _REWRITE_HINT) from error
    kind = spec.WhichOneof("Type")
    if kind != "mlProgram":
        raise BundleError(f"{path} holds a model of type {kind}, not an mlProgram", _REWRITE_HINT)
    return spec


def _read_feature(path: Path, feature: Any) -> TensorSpec:
    proto = import_coremltools().proto.FeatureTypes_pb2
    kind = feature.type.WhichOneof("Type")
    if kind == "imageType":
        image = feature.type.imageType
        layout = proto.ImageFeatureType.ColorSpace.Name(image.colorSpace)
        if layout in ("RGB", "BGR"):
            return TensorSpec(shape=(image.height, image.width, 3), dtype="uint8", image=layout)
        if layout == "GRAYSCALE":
            return TensorSpec(shape=(image.height, image.width), dtype="uint8", image=layout)
    elif kind == "multiArrayType":
        array = feature.type.multiArrayType
        dtype = proto.ArrayFeatureType.ArrayDataType.Name(array.dataType).lower()
        return TensorSpec(shape=tuple(array.shape), dtype="float64" if dtype == "double" else dtype)
    raise BundleError(f"{path}: {feature.name!r} is neither an array nor an 8-bit image", _REWRITE_HINT)
