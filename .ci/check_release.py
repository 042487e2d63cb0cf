"""Hold a release to one version: `check_release.py 0.1.0`, and with `--notes` print what CHANGELOG.md says of it."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_KITS = Path("runtimes/kind_runtimes/kits")
# The file of each kit that says its version in what it measures, and how.
_KIT_VERSIONS = {
    _KITS / "ios/KindRuntime/Sources/KindRuntime/Benchmark.swift": r'"KindRuntime ([\d.]+)"',
    _KITS / "android/kind-runtime/src/main/kotlin/dev/kind/runtime/Benchmark.kt": r'"kind-runtime ([\d.]+)"',
}


def read_versions() -> dict[str, str]:
    """Each file that names a version of its own, and which."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    npm = json.loads((ROOT / "runtimes/js/package.json").read_text(encoding="utf-8"))
    found = {"pyproject.toml": project["version"], "runtimes/js/package.json": npm["version"]}
    for file, pattern in _KIT_VERSIONS.items():
        said = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"))
        found[file.as_posix()] = said[1] if said else "nothing"
    return found


def read_notes(version: str) -> str:
    """What CHANGELOG.md says under the heading of `version`; raises SystemExit where it is missing or in progress."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(version)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if found is None:
        raise SystemExit(f"CHANGELOG.md has no heading '## {version}': an unreleased one says '(in progress)'")
    return found[1].strip() + "\n"


def main(version: str, *options: str) -> None:
    """Say what differs from `version`."""
    notes = read_notes(version)
    others = {file: found for file, found in read_versions().items() if found != version}
    if others:
        raise SystemExit(f"the release is {version}, but {', '.join(f'{k} says {v}' for k, v in others.items())}")
    sys.stdout.write(notes if "--notes" in options else f"{version} everywhere\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
