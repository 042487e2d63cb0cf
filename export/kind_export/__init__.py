"""From a decomposed checkpoint to verified Core ML, ONNX and ExecuTorch programs; the command line is `kind-export`.

    result = export_bundle(ExportRequest(classes=("panda",), targets=("onnx",), checkpoint=Path("run/best")))

These names are what users may rely on; everything else may change. Importing the package loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from kind_export.budget import Budget
    from kind_export.pipeline import ExportResult, export_bundle
    from kind_export.report.collect import refresh_report
    from kind_export.request import ExportRequest

__all__ = ["Budget", "ExportRequest", "ExportResult", "export_bundle", "refresh_report"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "budget": ["Budget"],
        "pipeline": ["ExportResult", "export_bundle"],
        "report.collect": ["refresh_report"],
        "request": ["ExportRequest"],
    },
)
