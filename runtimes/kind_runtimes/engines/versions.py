"""Which versions of an engine run what was exported: those that the gates, the kits and the page take, in one table.

A bundle's manifest carries the oldest one that was tried. `tests/benchmarks/engine_versions.py` tries one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from kind_runtimes.engine_rows import ENGINES


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineVersions:
    """`gate` ran the gates before anything was published; `kits` are those of the apps that ship with this package.

    `oldest`: bundles of every precision were run in it and passed their gates; an app should take none that is older.
    """

    package: str
    gate: str
    oldest: str
    kits: Mapping[str, str] = field(default_factory=dict)


VERSIONS: Mapping[str, EngineVersions] = {
    "onnx": EngineVersions(
        package="onnxruntime",
        gate="1.31.1",
        oldest="1.27.0",
        kits={"android": "1.27.0", "web": "1.30.0", "node": "1.30.0"},
    ),
    "executorch": EngineVersions(package="executorch", gate="1.5.1", oldest="1.5.1"),
    "coreml": EngineVersions(package="coremltools", gate="9.0", oldest="9.0"),
    "litert": EngineVersions(package="ai_edge_litert", gate="2.3.0", oldest="2.1.0"),
    "diffusers": EngineVersions(package="diffusers", gate="0.42.1", oldest="0.42.1"),
}


def describe_versions(name: str) -> dict[str, str]:
    """What a manifest says of a target's engine: the version that ran the gates here, and the oldest that was tried."""
    package = ENGINES[name].package
    here, known = version(package), VERSIONS.get(name)
    return {"package": package, "gate": here, "oldest": here if known is None else known.oldest}
