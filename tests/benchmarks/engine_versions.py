"""How close a bundle is to the eager model in the engine that is imported; exit code 1 below the gate.

`kind_runtimes.engines.versions` says which versions the kits allow; each was tried by this, on bundles of the sample:

    pip install --target old --no-deps onnxruntime==1.27.0
    PYTHONPATH=old python tests/benchmarks/engine_versions.py panda.kind panda-int8.kind

and with `--runtime litert` for LiteRT.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from kind_core.closeness import psnr_db
from kind_runtimes.bundle import open_bundle
from kind_runtimes.engines.versions import VERSIONS
from kind_runtimes.generator import open_generator


def measure(path: Path, runtime: str) -> dict[str, Any]:
    """The dB of the last latents of each class from seed 0, beside the gate."""
    manifest = open_bundle(path).manifest
    golden = load_file(path / "golden.safetensors")
    generator = open_generator(path, manifest, runtime)
    drawn = {info.name: generator.latents(i, 0) for i, info in enumerate(manifest.classes)}
    near = {name: round(psnr_db(golden[f"{i}.latents"][-1:], one), 2) for i, (name, one) in enumerate(drawn.items())}
    parity = manifest.data["targets"][runtime]["parity"]
    return {"bundle": path.name, "db": near, "gate_db": parity["threshold_db"]}


def is_below(measured: dict[str, Any]) -> bool:
    """Whether a class is not as close as the gate wants."""
    return min(measured["db"].values()) < measured["gate_db"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--runtime", choices=VERSIONS, default="onnx")
    given = parser.parse_args()
    package = VERSIONS[given.runtime].package
    machine = {package: version(package), "machine": platform.machine()}
    measured = [measure(path, given.runtime) for path in given.bundles]
    for one in measured:
        print(json.dumps(machine | one))
    sys.exit(any(map(is_below, measured)))


if __name__ == "__main__":
    main()
