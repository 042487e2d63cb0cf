"""The page on a phone: what is drawn is in sight where it is asked for; and what the address may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from browser import CHROMIUM, Sample, launched, serving

from js_bundles import write_bundles
from made_once import made_once

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, ViewportSize

pytest.importorskip("playwright", reason="needs playwright: pip install 'kind-diffusion[browser]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH, which Debian has as a package"),
]
_UPRIGHT: ViewportSize = {"width": 390, "height": 664}  # of a phone, without the bars of its browser
_LYING: ViewportSize = {"width": 750, "height": 342}


@pytest.fixture(name="url", scope="module")
def serve_bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(made_once(tmp_path_factory, "js-bundles", write_bundles) / "plain.kind") as url:
        yield url


@pytest.fixture(name="browser", scope="module")
def open_browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, launched(playwright.chromium) as opened:
        yield opened


def is_in_sight(element: Locator) -> bool:
    """Whether all of an element is between the upper and the lower end of the window."""
    return bool(
        element.evaluate("e => (({top, bottom}) => top >= 0 && bottom <= innerHeight)(e.getBoundingClientRect())")
    )


@pytest.mark.parametrize("viewport", [_UPRIGHT, _LYING], ids=["upright", "lying"])
def test_the_picture_is_in_sight_when_it_is_drawn(browser: Browser, url: str, viewport: ViewportSize) -> None:
    with browser.new_context(
        viewport=viewport, is_mobile=True, has_touch=True, service_workers="block", reduced_motion="reduce"
    ) as context:
        sample = Sample(context.new_page()).open(url)
        picture = sample.page.get_by_role("img")
        sample.page.get_by_label("Show sharp pixels").tap()
        sample.seed.evaluate("field => { field.value = '5' }")
        sample.page.evaluate("scrollTo(0, 240)")
        assert is_in_sight(sample.draw_button)
        sample.draw_button.tap()
        sample.wait("seed 5: drawn in")
        assert is_in_sight(picture)
        assert is_in_sight(sample.draw_button), "to draw another one"
        earlier = sample.page.get_by_role("button", name="Show lemon")
        earlier.scroll_into_view_if_needed()
        earlier.tap()
        sample.wait("drawn before")
        assert is_in_sight(picture)


@pytest.mark.parametrize(
    ("asked", "scale"),
    [
        ("12", "12"),
        ("-1.5", "-1.5"),
        ("100", "100"),
        ("words", "1.5"),
        ("", "1.5"),
        ("101", "1.5"),
        ("Infinity", "1.5"),
    ],
)
def test_guidance_of_the_address_is_drawn_with_or_the_own(browser: Browser, url: str, asked: str, scale: str) -> None:
    """Of words the middle of the slider was drawn with, of more than 8 that."""
    with browser.new_context(service_workers="block") as context:
        sample = Sample(context.new_page()).open(f"{url}?guidance={asked}")
        assert sample.page.get_by_role("slider", name="Guidance").input_value() == scale
        assert sample.page.locator("#guidance-value").inner_text() == scale


def test_no_class_is_chosen_for_one_that_is_not_there(browser: Browser, url: str) -> None:
    with browser.new_context(service_workers="block") as context:
        sample = Sample(context.new_page()).open(f"{url}?class=zebra")
        assert sample.classes.evaluate("select => select.selectedOptions[0].text") == "Choose a class"
        sample.classes.select_option(label="seashore, coast")
        sample.draw(1)
