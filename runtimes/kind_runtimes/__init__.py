"""Run and time a bundle in its real runtime; the command line is `kind-run`.

    bundle = open_bundle(Path("panda.kind"))
    generator = open_generator(bundle.path, bundle.manifest, "onnx")
    pixels = generator.picture(class_index=0, seed=7)

Importing this package loads nothing heavy; a runtime comes with the first program that needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from kind_runtimes.bundle import Bundle, open_bundle
    from kind_runtimes.generator import Generator, open_generator
    from kind_runtimes.packs import Pack, read_pack

__all__ = [
    "Bundle",
    "Generator",
    "Pack",
    "open_bundle",
    "open_generator",
    "read_pack",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bundle": ["Bundle", "open_bundle"],
        "generator": ["Generator", "open_generator"],
        "packs": ["Pack", "read_pack"],
    },
)
