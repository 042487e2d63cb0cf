"""Phones and tablets by the names people call them: which chip of the table is meant, and the nearest where none is."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache

from kind_bench.data_files import read_table


@dataclass(frozen=True, kw_only=True, slots=True)
class Product:
    """`chip` is the id of a device of the table, or the name of a chip that is not there."""

    name: str
    family: str
    chip: str
    year: int


@cache
def list_products() -> Mapping[str, Product]:
    """Every product by its name, in lower case with hyphens."""
    return {
        name: Product(name=name, family=family, chip=entry["chip"], year=entry["year"])
        for family, products in read_table("products").items()
        for name, entry in products.items()
    }


def find_nearest(name: str, chips: Collection[str]) -> Product | None:
    """The product with a chip among `chips` that is nearest in year to `name`, in its family; None without a family.

    A name that is no product either belongs to the family that it begins with, and is as old as its number says.
    """
    products = list_products()
    asked = products.get(name)
    families = {one.family for one in products.values() if one is asked or (asked is None and _is_of(name, one))}
    family = next(iter(families), None)
    if family is None:
        return None
    kin = [one for one in products.values() if one.family == family and one.chip in chips]
    year = asked.year if asked is not None else _guess_year(name, family)
    alike = {one: SequenceMatcher(None, name, one.name).ratio() for one in kin}
    return min(kin, key=lambda one: (abs(one.year - year), -alike[one], len(one.name)), default=None)


def _is_of(name: str, product: Product) -> bool:
    return name.startswith(f"{product.family}-") or name == product.family


def _guess_year(name: str, family: str) -> int:
    """The year of the product of the nearest number: that of pixel-12 is the last of the family's."""
    numbered = {one: _number(one.name) for one in list_products().values() if one.family == family}
    wanted = _number(name)
    return min(numbered, key=lambda one: (abs(numbered[one] - wanted), -one.year)).year


def _number(name: str) -> int:
    found = re.search(r"\d+", name)
    return int(found[0]) if found else 10**6  # without a number: the newest
