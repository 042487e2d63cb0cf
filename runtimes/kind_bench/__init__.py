"""Measure bundles, count what their programs do and forecast it elsewhere; the command line is `kind-bench`.

    works = count_bundle(open_bundle(Path("panda.kind")))
    forecast(works["coreml"]["step"], load_device("a18"))

What runs a bundle is `kind_runtimes`, which imports none of this. Importing the package loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kind_bench.counting import count_bundle, count_program
    from kind_bench.forecasting.devices import Device, list_devices, load_device
    from kind_bench.forecasting.forecast import Forecast, forecast, forecast_picture
    from kind_bench.results.results import Results, read_results

_HOMES = {
    "count_bundle": "counting", "count_program": "counting", "Device": "forecasting.devices",
    "list_devices": "forecasting.devices", "load_device": "forecasting.devices", "Forecast": "forecasting.forecast",
    "forecast": "forecasting.forecast", "forecast_picture": "forecasting.forecast", "Results": "results.results",
    "read_results": "results.results",
}  # fmt: skip

__all__ = [
    "Device", "Forecast", "Results", "count_bundle", "count_program", "forecast", "forecast_picture", "list_devices",
    "load_device", "read_results",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kind_bench' has no attribute {name!r}")
    return getattr(import_module(f"kind_bench.{_HOMES[name]}"), name)
