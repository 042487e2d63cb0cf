"""The page in the Python package is what its sources build."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def read_page(folder: Path) -> dict[str, bytes]:
    """Files by name, unpacked: another zlib packs otherwise."""
    contents = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    return {
        name.removesuffix(".gz"): gzip.decompress(content) if name.endswith(".gz") else content
        for name, content in contents.items()
    }


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("npm") is None or not (ROOT / "node_modules").is_dir(),
    reason="needs Node and its packages: npm ci in the root of the repository",
)
def test_the_page_of_the_package_is_built_from_its_sources(tmp_path: Path) -> None:
    subprocess.run(["npm", "run", "build", "-w", "runtimes/js"], cwd=ROOT, check=True, capture_output=True)
    build = ["npm", "run", "build:package", "-w", "samples/web", "--", "--outDir", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    built, shipped = read_page(tmp_path), read_page(Path(str(files("kind_runtimes") / "web")))
    assert sorted(built) == sorted(shipped), "npm run build:package -w samples/web"
    assert [name for name in built if built[name] != shipped[name]] == []


def test_no_file_of_the_page_is_large() -> None:
    page = Path(str(files("kind_runtimes") / "web"))
    sizes = {file.name: file.stat().st_size for file in page.rglob("*") if file.is_file()}
    assert sum(sizes.values()) < 4.5e6, sizes
