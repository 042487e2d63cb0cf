"""The manifest: what fits is parsed, what does not is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kind_core.classes import ClassInfo
from kind_core.errors import BundleError, TargetError
from kind_runtimes.manifest import Manifest, describe_program, load_schema, parse_manifest
from small_bundles import CLASSES, GUIDANCE, SHAPE, STEPS, manifest_data, program_specs

HASH = "a" * 64


def parse(**changes: Any) -> Manifest:
    data = manifest_data(["onnx", "coreml"], {"onnx/step.onnx": HASH}, **changes)
    return parse_manifest(json.dumps(data), "manifest.json")


def test_every_field_is_parsed() -> None:
    manifest = parse()
    assert manifest.classes == tuple(ClassInfo(id=i, names=names) for i, names in CLASSES)
    assert (manifest.sampling.steps, manifest.sampling.sampler, manifest.sampling.guidance_scale) == (
        STEPS,
        "dpmpp",
        GUIDANCE,
    )
    assert manifest.latents_shape == SHAPE
    assert manifest.sampling.initial_noise_scale == 2.0
    assert manifest.files == {"onnx/step.onnx": HASH}
    assert manifest.target("coreml").precision == "fp16"
    assert manifest.data["name"] == "small"


@pytest.mark.parametrize("target", ["onnx", "coreml"])
def test_programs_survive_the_way_through_the_document(target: str) -> None:
    assert parse().target(target).programs == program_specs(target)


@pytest.mark.parametrize("name", ["manifest", "report"])
def test_schemas_are_schemas(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(load_schema(name))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"steps": 0}, "$.steps"),
        ({"steps": "four"}, "$.steps"),
        ({"classes": []}, "$.classes"),
        ({"classes": [{"id": "n1", "names": []}]}, "$.classes[0].names"),
        ({"classes": [{"id": "../n1", "names": ["a"]}]}, "$.classes[0].id"),
        ({"initial_noise_scale": 0}, "$.initial_noise_scale"),
        ({"guidance_scale": None}, "$.guidance_scale"),
        ({"latents_shape": [1, 3, 0, 8]}, "$.latents_shape[2]"),
        ({"noise_generator": "mt19937"}, "$.noise_generator"),
        ({"targets": {}}, "$.targets"),
        ({"files": {"a": {"sha256": "abc", "size_bytes": 1}}}, "$.files.a.sha256"),
        ({"format_version": 0}, "$.format_version"),
        ({"format_version": "1"}, "$.format_version"),
        ({"source": {}}, "$.source"),
    ],
)
def test_a_field_that_does_not_fit_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse(**changes)
    assert caught.value.message.startswith(f"manifest.json: {field} ")
    assert "\n" not in caught.value.message


def test_an_unknown_target_is_named() -> None:
    target = manifest_data(["onnx"], {})["targets"]["onnx"]
    with pytest.raises(BundleError, match="tflite"):
        parse(targets={"tflite": target})


def test_a_target_without_step_program_is_refused() -> None:
    target = manifest_data(["onnx"], {})["targets"]["onnx"]
    del target["programs"]["step"]
    with pytest.raises(BundleError, match="'step' is a required property"):
        parse(targets={"onnx": target})


@pytest.mark.parametrize("field", sorted(load_schema("manifest")["required"]))
def test_a_missing_field_is_named(field: str) -> None:
    data = manifest_data(["onnx"], {})
    del data[field]
    with pytest.raises(BundleError, match=f"'{field}' is a required property"):
        parse_manifest(json.dumps(data), "manifest.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_have_are_refused(value: float) -> None:
    with pytest.raises(BundleError, match="is no JSON number"):
        parse(guidance_scale=value)


def test_a_target_that_is_not_there_is_told_with_what_is() -> None:
    with pytest.raises(TargetError, match="no executorch programs, only onnx, coreml") as caught:
        parse().target("executorch")
    assert caught.value.hint == "export with --target executorch"


def test_a_program_is_described_as_the_schema_wants_it() -> None:
    described = describe_program(program_specs("coreml")["decode"])
    assert described["outputs"] == [{"name": "image", "shape": list(SHAPE), "dtype": "image_rgb_uint8"}]
    assert described["file"] == "coreml/decode.mlpackage"


def test_a_check_parses_no_grammar_and_leaves_who_needs_it_the_format(tmp_path: Path) -> None:
    (tmp_path / "rfc3987_syntax.py").write_text("print('parsed')\n\n\ndef is_valid_syntax(*words):\n    return False\n")
    code = (
        "from kind_runtimes.manifest import find_misfit; print(bool(find_misfit({}, 'manifest'))); import jsonschema; "
        "validator = jsonschema.Draft202012Validator({'format': 'iri'}, format_checker=jsonschema.FormatChecker()); "
        "print(validator.is_valid('x'))"
    )
    path = os.pathsep.join((str(tmp_path), *sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "parsed", "False"]
