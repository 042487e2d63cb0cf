"""A release: one version everywhere, and a workflow whose files and folders are there."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from test_commands import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def check(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / ".ci" / "check_release.py", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_file_names_the_version_of_the_changelog() -> None:
    latest = re.search(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert latest is not None
    assert check(latest[1]).stdout == f"{latest[1]} everywhere\n"
    assert check(latest[1], "--notes").stdout.startswith("- ")


def test_another_version_and_one_in_progress_are_refused() -> None:
    assert "CHANGELOG.md has no heading '## 9.9.9'" in check("9.9.9").stderr
    assert check("9.9.9").returncode == 1


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: str(file.stem))
def test_a_workflow_runs_what_is_there(file: object) -> None:
    text = (ROOT / str(file)).read_text()
    for job in yaml.safe_load(text)["jobs"].values():
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])
    for place in re.findall(r"(?:python|bash) (\.ci/\w[\w.]*)|-w (runtimes/js)\b|(samples/android/gradlew) ", text):
        assert (ROOT / "".join(place)).exists(), place


def test_a_release_publishes_the_wheel_the_npm_package_and_the_swift_package() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    assert {"build", "swift"} <= set(jobs["wheel"]["needs"]) & set(jobs["npm"]["needs"])
    said = {name: " ".join(step.get("run", step.get("uses", "")) for step in jobs[name]["steps"]) for name in jobs}
    assert "pypi-publish" in said["wheel"]
    assert "npm publish" in said["npm"]
    assert "swift build" in said["swift"]


def test_the_pythons_that_are_named_are_tried() -> None:
    named = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    tried = set(re.findall(r'"(3\.\d+)"', "".join(file.read_text() for file in WORKFLOWS)))
    assert named == tried
    readme = (ROOT / "README.md").read_text()
    assert all(version in readme for version in named)
