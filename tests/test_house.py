"""What holds the house together: one place for one thing, counted in the code itself."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "kind_core", "export/kind_export", "runtimes/kind_runtimes", "runtimes/kind_bench", "train/kind_train",
    "samples/kind_samples",
)  # fmt: skip


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the packages by its path."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def declares(tree: ast.Module, name: str) -> bool:
    """Whether a module has a parameter or a field called `name`."""
    names = [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    names += [node.target.id for node in ast.walk(tree) if isinstance(node, ast.AnnAssign | ast.NamedExpr)
              if isinstance(node.target, ast.Name)]  # fmt: skip
    return name in names


def test_the_guidance_interval_travels_in_one_object() -> None:
    files = [file for file, tree in modules().items() if declares(tree, "guidance_interval")]
    assert len(files) <= 5, files


def test_samplers_are_listed_once() -> None:
    lists = [
        file
        for file, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Tuple)
        and {"ddim", "dpmpp", "euler"} <= {one.value for one in node.elts if isinstance(one, ast.Constant)}
    ]
    assert lists == ["kind_core/samplers.py"]


def test_no_folder_is_a_heap() -> None:
    folders: dict[str, int] = {}
    for file in modules():
        folder = str(Path(file).parent)
        folders[folder] = folders.get(folder, 0) + 1
    ceilings = {"export/kind_export": 39, "train/kind_train": 32, "runtimes/kind_runtimes": 22, "kind_core": 29}
    assert {folder: count for folder, count in folders.items() if count > ceilings.get(folder, 20)} == {}
