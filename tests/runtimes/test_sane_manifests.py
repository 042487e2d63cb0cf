"""A manifest that asks for more than any program: refused before anything is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kind_core.errors import BundleError
from kind_runtimes.bundle import open_bundle
from kind_runtimes.manifest import parse_manifest
from small_bundles import manifest_data, write_placeholders


def _parse(**changes: Any) -> None:
    parse_manifest(json.dumps(manifest_data(["onnx"], {}, **changes)), "manifest.json")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"steps": 10**18}, "has 1000000000000000000 steps, expected 10000 at most"),
        ({"steps": 20.0}, "steps 20.0 is not of type 'integer'"),
        ({"steps": 1e30}, "steps 1e.30 is not of type 'integer'"),
        ({"latents_shape": [1, 3, 10**9, 10**9]}, "beyond any program's"),
        ({"classes": [{"id": "a", "names": [7]}]}, "is not of type 'string'"),
        ({"classes": [{"id": "a" * 5000, "names": ["a"]}]}, "has 5000 bytes, expected 240 at most"),
        ({"guidance_interval": [0.9, 0.1]}, "guidance-interval is 0.9,0.1"),
        ({"guidance_scale": 10**400}, "a number of 401 digits"),
    ],
)
@pytest.mark.timeout(20)
def test_sizes_are_bounded(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        _parse(**changes)


@pytest.mark.parametrize("name", ["a\0b", "n" * 5000, "d/" * 10 + "n" * 300, "../x", "/etc/passwd"])
@pytest.mark.parametrize("place", ["files", "packs"])
def test_names_are_those_of_files_in_the_bundle(tmp_path: Path, name: str, place: str) -> None:
    write_placeholders(tmp_path)
    data = json.loads((tmp_path / "manifest.json").read_text())
    if place == "files":
        data["files"][name] = {"sha256": "0" * 64, "size_bytes": 1}
    else:
        data["packs"] = [{"id": "a", "names": ["a"], "file": name, "sha256": "0" * 64, "size_bytes": 1}]
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match="outside the bundle"):
        open_bundle(tmp_path)
