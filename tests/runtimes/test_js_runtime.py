"""The JavaScript runtime draws this runtime's pictures: its own tests, on bundles that are made here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from js_bundles import write_bundles
from made_once import made_once

ROOT = Path(__file__).parents[2]
NEEDS_NODE = pytest.mark.skipif(
    shutil.which("npx") is None or not (ROOT / "node_modules").is_dir(),
    reason="needs Node and its packages: npm ci in the root of the repository",
)


@NEEDS_NODE
@pytest.mark.slow
def test_the_tests_of_the_javascript_runtime_pass(tmp_path_factory: pytest.TempPathFactory) -> None:
    bundles = made_once(tmp_path_factory, "js-bundles", write_bundles)
    done = subprocess.run(
        ["npx", "vitest", "run"],
        cwd=ROOT / "runtimes" / "js",
        env={**os.environ, "KIND_TEST_BUNDLES": str(bundles)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
