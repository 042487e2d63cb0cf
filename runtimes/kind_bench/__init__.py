"""Measure bundles, count what their programs do and forecast it elsewhere; the command line is `kind-bench`.

    works = count_bundle(open_bundle(Path("panda.kind")))
    forecast(works["coreml"]["step"], load_device("a18"))

What runs a bundle is `kind_runtimes`, which imports none of this. Importing the package loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from kind_bench.counting import count_bundle, count_program
    from kind_bench.forecasting.devices import Device, list_devices, load_device
    from kind_bench.forecasting.forecast import Forecast, forecast, forecast_picture
    from kind_bench.results.results import Results, read_results

__all__ = [
    "Device",
    "Forecast",
    "Results",
    "count_bundle",
    "count_program",
    "forecast",
    "forecast_picture",
    "list_devices",
    "load_device",
    "read_results",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "counting": ["count_bundle", "count_program"],
        "forecasting.devices": ["Device", "list_devices", "load_device"],
        "forecasting.forecast": ["Forecast", "forecast", "forecast_picture"],
        "results.results": ["Results", "read_results"],
    },
)
