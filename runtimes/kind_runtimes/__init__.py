"""Run and time a bundle in its real runtime; the command line is `kind-run`.

    bundle = open_bundle(Path("panda.kind"))
    generator = open_generator(bundle.path, bundle.manifest, "onnx")
    pixels = generator.picture(class_index=0, seed=7)

Importing this package loads nothing heavy; a runtime comes with the first program that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kind_runtimes.bundle import Bundle, open_bundle
    from kind_runtimes.generator import Generator, open_generator

_HOMES = {"Bundle": "bundle", "Generator": "generator", "open_bundle": "bundle", "open_generator": "generator"}

__all__ = ["Bundle", "Generator", "open_bundle", "open_generator"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kind_runtimes' has no attribute {name!r}")
    return getattr(import_module(f"kind_runtimes.{_HOMES[name]}"), name)
