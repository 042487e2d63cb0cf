"""The device table: what is known of each chip, from whom, and how sure it is.

One TOML file a chip in `devices/`, or a user's own file. A figure that is less sure counts as a wider range.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from kind_bench.forecasting.products import find_nearest, list_products
from kind_core.errors import DeviceError
from kind_core.files.json_files import parse_json
from kind_core.files.regular_files import read_text
from kind_runtimes.documents.device import CalibrationEntry, FigureEntry
from kind_runtimes.manifest import find_misfit, refuse_newer

FORMAT_VERSION = 1
UnitName = Literal["cpu", "gpu", "npu"]
Status = Literal["published", "measured", "derived", "unconfirmed"]
UNITS: tuple[UnitName, ...] = get_args(UnitName)

# How far from the truth a figure may be, either way; what conflicting sources say widens it further.
_FACTORS: Mapping[str, float] = {"published": 1.05, "measured": 1.1, "derived": 1.2, "unconfirmed": 1.5}


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A number with its source; `low` and `high` are how far off it may be."""

    value: float
    low: float
    high: float
    status: Status
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """A part of the chip that runs programs; None is what nobody says. Speeds are peaks, not what a model reaches.

    `family`: whose design it is, where that is not the chip's vendor: `adreno`, `mali`, `powervr`, `arm`.
    """

    name: str
    family: str | None = None
    fp32_gflops: Figure | None = None
    fp16_gflops: Figure | None = None
    int8_gops: Figure | None = None
    rated_tops: Figure | None = None
    dispatch_us: Figure | None = None
    call_ms: Figure | None = None
    cache_mb: Figure | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A chip. `calibration` is a device file's section as it was read, see `calibration.parse_calibration`."""

    id: str
    name: str
    vendor: str
    form: str
    year: int | None = None
    aliases: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    paper_sustained_gflops: Figure | None = None
    memory_bandwidth_gbs: Figure | None = None
    sustained_share: Figure | None = None
    units: Mapping[UnitName, Unit] = field(default_factory=dict)
    calibration: CalibrationEntry | None = None

    def family(self, unit: UnitName) -> str:
        """Whose design a unit is."""
        return self.units[unit].family or self.vendor

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """Every figure that is known, by its place in the file."""
        parts: dict[str, Device | Unit] = {"": self, **{f"units.{key}.": unit for key, unit in self.units.items()}}
        for prefix, part in parts.items():
            for one in fields(part):
                if isinstance(figure := getattr(part, one.name), Figure):
                    yield f"{prefix}{one.name}", figure


def load_device(query: str) -> Device:
    """A device by name, alias or product (`iphone-15-pro`), or from a file (`my.toml`, `my-calibrated.json`).

    Raises DeviceError with the nearest names, or naming the file and the field that does not fit.
    """
    path = Path(query)
    if path.suffix in (".toml", ".json") or "/" in query or "\\" in query:
        return read_device(path)
    names = _known_names()
    wanted = _normalise(query)
    product = list_products().get(wanted)
    if wanted not in names and product is not None and product.chip in _shipped_ids():
        return _load_shipped(product.chip)
    if wanted not in names:
        near = find_nearest(wanted, _shipped_ids())
        if near is not None:
            chip = f", whose chip, {product.chip}, is not in the table" if product is not None else ""
            raise DeviceError(
                f"unknown device {query!r}{chip}, nearest of its family: {near.name} ({near.chip}, {near.year})",
                f"take --device {near.name}, or a file of your own (.toml); kind-bench devices lists all",
            )
        close = list(dict.fromkeys(names[name] for name in get_close_matches(wanted, names, n=4, cutoff=0.6)))
        nearest = f", nearest: {', '.join(close[:3])}" if close else ""
        raise DeviceError(
            f"unknown device {query!r}{nearest}", "kind-bench devices lists them all; a file of your own ends in .toml"
        )
    return _load_shipped(names[wanted])


def list_devices() -> tuple[Device, ...]:
    """Every device that ships with the package, by id."""
    return tuple(_load_shipped(device_id) for device_id in _shipped_ids())


def read_device(path: Path) -> Device:
    """A device from a file; raises DeviceError naming the file and the field that does not fit."""
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else f"it is no text: {error}"
        raise DeviceError(f"cannot read the device file {path}: {reason}", "give --device a name or a file") from error
    return parse_device(text, str(path), device_id=path.stem, is_json=path.suffix == ".json")


def parse_device(text: str, where: str, *, device_id: str, is_json: bool = False) -> Device:
    """Check a device file's text against the schema and parse it."""
    try:
        data = parse_json(text) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # both decoders' errors are
        kind = "JSON" if is_json else "TOML"
        raise DeviceError(f"{where} is not {kind}: {error}", "mend the file or use a device of the table") from error
    refuse_newer(data, FORMAT_VERSION, where, DeviceError)
    if isinstance(data, dict):
        refuse_newer(data.get("calibration"), FORMAT_VERSION, f"{where}: calibration", DeviceError)
    _check(data, where)
    return Device(
        id=device_id,
        name=data["name"],
        vendor=data["vendor"],
        form=data["form"],
        year=data.get("year"),
        aliases=tuple(data.get("aliases", ())),
        notes=tuple(data.get("notes", ())),
        units={unit: _parse_unit(data["units"][unit]) for unit in UNITS if unit in data.get("units", {})},
        calibration=data.get("calibration"),
        **{name: _parse_figure(entry) for name, entry in data.items() if _is_figure(entry)},
    )


def describe_device(device: Device) -> dict[str, object]:
    """A device as its file writes it."""
    # low and high are part of what was parsed, so writing them keeps the range
    known = asdict(device, dict_factory=lambda pairs: {name: value for name, value in pairs if value is not None})
    del known["id"]
    return {"format_version": FORMAT_VERSION, **known}


_RANGE: tuple[Literal["low", "value", "high"], ...] = ("low", "value", "high")


def _check(data: object, where: str) -> None:
    misfit = find_misfit(data, "device")
    if misfit is not None:
        raise DeviceError(
            f"{where}: {misfit.removeprefix('$.')}",
            "every figure needs value, status and source; docs/forecasts.md shows a device file",
        )
    for place, entry in _figures_of(data):
        numbers = [entry[name] for name in _RANGE if name in entry]
        if not all(map(math.isfinite, numbers)):
            raise DeviceError(f"{where}: {place} is {entry['value']}, expected a finite number", "mend the file")
        if numbers != sorted(numbers):
            raise DeviceError(f"{where}: {place} has low, value, high {numbers} out of order", "mend the file")


def _figures_of(data: Any, place: str = "") -> Iterator[tuple[str, FigureEntry]]:
    for name, entry in data.items():
        here = f"{place}.{name}".lstrip(".")
        if _is_figure(entry):
            yield here, entry
        elif isinstance(entry, dict) and name != "calibration":
            yield from _figures_of(entry, here)


def _is_figure(entry: object) -> bool:
    return isinstance(entry, dict) and "value" in entry


def _parse_figure(entry: FigureEntry) -> Figure:
    value, factor = float(entry["value"]), _FACTORS[entry["status"]]
    return Figure(
        value=value,
        low=float(entry["low"]) if "low" in entry else value / factor,
        high=float(entry["high"]) if "high" in entry else value * factor,
        status=entry["status"],
        source=entry["source"],
    )


def _parse_unit(data: Any) -> Unit:
    figures = {name: _parse_figure(entry) for name, entry in data.items() if _is_figure(entry)}
    return Unit(name=data["name"], family=data.get("family"), **figures)


def _normalise(name: str) -> str:
    return "-".join(name.casefold().replace("_", " ").replace("-", " ").split())


@cache
def _shipped_ids() -> tuple[str, ...]:
    folder = files("kind_bench") / "devices"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


@cache
def _load_shipped(device_id: str) -> Device:
    text = (files("kind_bench") / "devices" / f"{device_id}.toml").read_text(encoding="utf-8")
    return parse_device(text, f"{device_id}.toml", device_id=device_id)


@cache
def _known_names() -> dict[str, str]:
    """What can be typed -> the id of the device."""
    return {
        _normalise(name): device.id for device in list_devices() for name in (device.id, device.name, *device.aliases)
    }
