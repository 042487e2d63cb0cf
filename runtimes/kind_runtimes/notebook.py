"""How a bundle shows itself: one line in a terminal, a table with its preview in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kind_core.console import clean, count_of
from kind_core.console.notebook import name_classes, render_picture, render_table

if TYPE_CHECKING:
    from kind_runtimes.bundle import Bundle

_PREVIEW_WIDTH = 384


def describe_bundle(bundle: Bundle) -> str:
    """One line."""
    manifest = bundle.manifest
    names = name_classes([info.name for info in manifest.classes])
    steps = count_of(manifest.sampling.steps, "step")
    return clean(f"Bundle({names}; {', '.join(manifest.targets)}; {steps}; {bundle.path})")


def render_bundle(bundle: Bundle) -> str:
    """HTML: its classes, every target with precision, size and closeness, and the preview."""
    manifest = bundle.manifest
    files, sampling = manifest.data["files"], manifest.sampling
    rows = {
        "classes": name_classes([info.name for info in manifest.classes]),
        "sampling": f"{count_of(sampling.steps, f'{sampling.sampler} step')}, guidance {manifest.guidance_scale:g}",
    }
    for name, target in manifest.targets.items():
        size = sum(entry["size_bytes"] for file, entry in files.items() if file.startswith(f"{name}/"))
        psnr_db = manifest.data["targets"][name]["parity"]["trajectory_psnr_db"]
        rows[name] = f"{target.precision}, {size / 1e6:.2f} MB, {psnr_db:.0f} dB against the eager model"
    if manifest.packs:
        rows["packs"] = name_classes([pack.info.name for pack in manifest.packs])
    table, preview = render_table(bundle.path.name, rows), bundle.path / "preview.png"
    if not preview.is_file():
        return table
    return table + render_picture(preview.read_bytes(), "drawn by the exported programs", _PREVIEW_WIDTH)
