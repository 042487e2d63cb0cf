"""The device table as text for people."""

from __future__ import annotations

from collections.abc import Iterable

from kind_bench.forecasting.devices import Device, Figure
from kind_core.console import join_lines

_SHORT = {"published": "", "measured": " m", "derived": " d", "unconfirmed": " ?"}


def describe_devices(devices: Iterable[Device]) -> str:
    """One row a device: what is known, with marks for what is less sure."""
    lines = [f"{'name':<26}{'chip':<26}{'units':<14}{'GB/s':>8}{'floor GFLOPS':>14}  also called"]
    for device in devices:
        bandwidth, floor = _short(device.memory_bandwidth_gbs), _short(device.paper_sustained_gflops)
        units, aliases = ", ".join(device.units), ", ".join(device.aliases[:3])
        lines.append(f"{device.id:<26}{device.name:<26}{units:<14}{bandwidth:>8}{floor:>14}  {aliases}")
    return join_lines([*lines, "m measured by a third party, d derived, ? unconfirmed, - unknown: forecasts say so"])


def describe_figures(device: Device) -> str:
    """Every figure of a device with its range, status and source."""
    lines = [f"{device.name} ({device.id}), {device.form}, also called {', '.join(device.aliases) or 'nothing else'}"]
    lines += [f"  {key}: {unit.name}" for key, unit in device.units.items()]
    for place, figure in device.figures():
        span = f"{figure.low:.4g} to {figure.high:.4g}"
        lines.append(f"  {place:<28}{figure.value:>9g}  ({span}, {figure.status}: {figure.source})")
    return join_lines([*lines, *(f"  {note}" for note in device.notes)])


def _short(figure: Figure | None) -> str:
    return "-" if figure is None else f"{figure.value:g}{_SHORT[figure.status]}"
