"""The device table: every figure has a source, names find their chip, bad files are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kind_bench.forecasting.devices import describe_device, list_devices, load_device, parse_device
from kind_core.errors import DeviceError
from kind_runtimes.manifest import load_schema

GOOD = """
format_version = 1
name = "My board"
vendor = "mine"
form = "board"
memory_bandwidth_gbs = { value = 20, status = "derived", source = "a data sheet" }

[units.npu]
name = "An NPU"
rated_tops = { value = 6, status = "unconfirmed", source = "a web page", low = 4, high = 7 }
"""


def parse(text: str, **changes: Any) -> Any:
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    return parse_device(text, "my.toml", device_id="my")


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(load_schema("device"))


def test_every_shipped_figure_has_a_source_and_a_range() -> None:
    devices = list_devices()
    assert len(devices) >= 14
    for device in devices:
        figures = dict(device.figures())
        assert figures, device.id
        for place, figure in figures.items():
            assert 0 < figure.low <= figure.value <= figure.high, (device.id, place)
            assert figure.source.strip(), (device.id, place)


def test_no_two_devices_share_a_name() -> None:
    names = [name for device in list_devices() for name in {device.id, *device.aliases}]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("query", "device_id"),
    [
        ("a18", "apple-a18"),
        ("Apple A18", "apple-a18"),
        ("iPhone 16", "apple-a18"),
        ("snapdragon-8-gen-3", "snapdragon-8-gen-3"),
        ("Galaxy_S24", "snapdragon-8-gen-3"),
        ("galaxy-s25", "snapdragon-8-elite"),
        ("raspberry pi 5", "raspberry-pi-5"),
    ],
)
def test_names_products_and_spellings_find_the_chip(query: str, device_id: str) -> None:
    assert load_device(query).id == device_id


def test_the_papers_three_chips_carry_its_figures() -> None:
    sustained = {id_: load_device(id_).paper_sustained_gflops for id_ in ("a18", "kirin-9020", "snapdragon-8-gen-3")}
    assert {id_: figure and figure.value for id_, figure in sustained.items()} == {
        "a18": 1907, "kirin-9020": 1720, "snapdragon-8-gen-3": 2774,
    }  # fmt: skip


def test_an_unknown_device_is_told_the_nearest() -> None:
    with pytest.raises(DeviceError, match=r"unknown device 'snapdragon-8-gen-4', nearest: .*snapdragon-8-gen-3") as e:
        load_device("snapdragon-8-gen-4")
    assert "kind-bench devices" in e.value.hint
    with pytest.raises(DeviceError) as e:
        load_device("zzzz")
    assert e.value.message == "unknown device 'zzzz'"


def test_less_sure_figures_have_wider_ranges() -> None:
    widths = []
    for status in ("published", "measured", "derived", "unconfirmed"):
        figure = parse(GOOD, a=('"derived"', f'"{status}"')).memory_bandwidth_gbs
        widths.append(figure.high / figure.low)
    assert widths == sorted(set(widths))
    assert (parse(GOOD).units["npu"].rated_tops.low, parse(GOOD).units["npu"].rated_tops.high) == (4, 7)


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_users_own_file_is_read_by_its_path(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"mine{suffix}"
    file.write_text(GOOD if suffix == ".toml" else json.dumps(describe_device(parse(GOOD))))
    device = load_device(str(file))
    assert (device.id, device.name) == ("mine", "My board")
    assert device.units == parse(GOOD).units


def test_what_is_described_parses_to_the_same() -> None:
    for device in list_devices():
        text = json.dumps(describe_device(device))
        assert parse_device(text, "x.json", device_id=device.id, is_json=True) == device


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (', source = "a data sheet"', "", "my.toml: memory_bandwidth_gbs 'source' is a required property"),
        ('status = "derived"', 'status = "sure"', "my.toml: memory_bandwidth_gbs.status 'sure' is not one of"),
        ("value = 20", "value = -20", "my.toml: memory_bandwidth_gbs.value -20 is less than"),
        ("value = 20", "value = 90000", "my.toml: memory_bandwidth_gbs.value 90000 is greater than"),
        ("value = 20", "value = inf", "my.toml: memory_bandwidth_gbs.value inf is greater than"),
        ("value = 20", "value = nan", "my.toml: memory_bandwidth_gbs is nan, expected a finite number"),
        ("value = 6", "value = 6e12", "my.toml: units.npu.rated_tops.value 6000000000000.0 is greater than"),
        ("low = 4", "low = 9", "my.toml: units.npu.rated_tops has low, value, high"),
        ('name = "An NPU"', "", "my.toml: units.npu 'name' is a required property"),
        ("[units.npu]", "[units.tpu]", "my.toml: units Additional properties are not allowed"),
        ("rated_tops", "rated_flops", "my.toml: units.npu Additional properties are not allowed"),
        ("format_version = 1", "format_version = 2", "format_version 2, this program reads up to 1"),
        ("vendor =", "vendor", "my.toml is not TOML"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line_with_file_and_field(old: str, new: str, message: str) -> None:
    with pytest.raises(DeviceError) as e:
        parse(GOOD, a=(old, new))
    assert message in e.value.message
    assert "\n" not in e.value.message
    assert e.value.hint


def test_the_device_file_of_the_documentation_works() -> None:
    page = (Path(__file__).parents[2] / "docs" / "forecasts.md").read_text(encoding="utf-8")
    device = parse_device(page.partition("```toml\n")[2].partition("```")[0], "forecasts.md", device_id="my")
    assert set(device.units) == {"cpu", "npu"}


@pytest.mark.parametrize("query", ["nowhere/my.toml", "my.toml", "../x/y"])
def test_a_file_that_is_not_there(query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeviceError, match="cannot read the device file"):
        load_device(query)
