"""Phones and tablets by product name: the chip that is meant, or the nearest of the family."""

from __future__ import annotations

import pytest

from kind_bench.forecasting.devices import list_devices, load_device
from kind_bench.forecasting.products import find_nearest, list_products
from kind_core.errors import DeviceError

CHIPS = {device.id for device in list_devices()}


@pytest.mark.parametrize("name", [name for name, product in list_products().items() if product.chip in CHIPS])
def test_a_product_is_its_chip(name: str) -> None:
    assert load_device(name).id == list_products()[name].chip
    assert load_device(name.replace("-", " ").title()) is load_device(name)


def test_aliases_of_the_table_say_the_same() -> None:
    for device in list_devices():
        for alias in device.aliases:
            product = list_products().get(alias)
            assert product is None or product.chip == device.id, alias


@pytest.mark.parametrize(
    ("name", "chip", "nearest"),
    [
        ("iphone-12", "Apple A14 Bionic", "iphone-13 (apple-a15, 2021)"),
        ("iphone-16-pro", "Apple A18 Pro", "iphone-16 (apple-a18, 2024)"),
        ("iPhone 17 Pro", "Apple A19 Pro", "iphone-17 (apple-a19, 2025)"),
        ("pixel-11", None, "pixel-10 (tensor-g5, 2025)"),
        ("ipad-pro-m5", "Apple M5", "ipad-pro-m4 (apple-m4, 2024)"),
        ("iphone-99", None, "iphone-17 (apple-a19, 2025)"),
        ("galaxy-s22", None, "galaxy-s23 (snapdragon-8-gen-2, 2023)"),
    ],
)
def test_another_product_names_the_nearest_of_its_family(name: str, chip: str | None, nearest: str) -> None:
    with pytest.raises(DeviceError, match="nearest of its family") as caught:
        load_device(name)
    assert caught.value.message.endswith(f"nearest of its family: {nearest}")
    assert (chip or "unknown device") in caught.value.message
    assert caught.value.hint is not None
    assert nearest.partition(" ")[0] in caught.value.hint


def test_what_is_of_no_family_has_no_nearest_product() -> None:
    assert find_nearest("toaster-3", CHIPS) is None
    assert all(2019 < product.year < 2030 for product in list_products().values())
