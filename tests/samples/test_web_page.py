"""The web page in headless Chromium: it draws Python's pictures, and what does not fit leaves a working page."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from browser import CHROMIUM, Sample, launched, serving, serving_folders, write_page

from js_bundles import write_bundles
from kind_core.files.hashing import hash_file
from kind_export.pipeline import export_bundle
from kind_export.request import ExportRequest
from kind_runtimes.bundle import open_bundle
from kind_runtimes.generator import open_generator
from kind_runtimes.manifest import check_schema
from kind_runtimes.packs import read_pack
from kind_samples import sample_checkpoint
from made_once import made_once

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

pytest.importorskip("playwright", reason="needs playwright: pip install 'kind-diffusion[browser]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH, which Debian has as a package"),
]
PARITY_DB = 35
STEP = "**/onnx/step.onnx"
# colours along the middle of the canvas that shows the picture
_SHOWN = """() => {
  const shown = document.getElementById("picture");
  const { data } = shown.getContext("2d").getImageData(0, shown.height / 2, shown.width, 1);
  return Array.from({ length: shown.width }, (_, i) => [...data.slice(4 * i, 4 * i + 3)]);
}"""
_PRESS_ESCAPE = "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "js-bundles", write_bundles)


@pytest.fixture(scope="module")
def panda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("panda") / "panda.kind"
    export_bundle(
        ExportRequest(
            classes=("panda",), targets=("onnx",), checkpoint=sample_checkpoint("photos-teacher"), output=bundle,
            steps=8,
        )
    )  # fmt: skip
    return bundle


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, launched(playwright.chromium) as opened:
        yield opened


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Sample]]:
    """Pages of a browser that was never here; without a service worker, so that requests can be answered wrongly."""
    contexts = []

    def make(**options: Any) -> Sample:
        contexts.append(browser.new_context(**{"service_workers": "block", **options}))
        return Sample(contexts[-1].new_page())

    yield make
    for context in contexts:
        context.close()


def psnr_db(actual: np.ndarray, expected: np.ndarray) -> float:
    error = np.sqrt(np.mean((actual.astype(float) - expected) ** 2))
    return float(20 * np.log10(255 / max(error, 1e-12)))


def draw_in_python(bundle: Path, class_index: int, seed: int) -> np.ndarray:
    return open_generator(bundle, open_bundle(bundle).manifest, "onnx").picture(class_index, seed)


def test_a_panda_is_the_panda_of_python(new_page: Callable[..., Sample], panda: Path) -> None:
    with serving(panda) as url:
        sample = new_page().open(url)
        assert sample.page.evaluate("crossOriginIsolated"), "no threads"
        picture = sample.draw(7)
    assert psnr_db(picture, draw_in_python(panda, 0, 7)) > PARITY_DB
    assert picture.std() > 20
    assert sample.errors == []


def test_classes_seeds_and_guidance_reach_the_model(new_page: Callable[..., Sample], bundles: Path) -> None:
    with serving(bundles / "plain.kind") as url:
        sample = new_page().open(url)
        sample.classes.select_option(label="seashore, coast")
        picture = sample.draw(2**40 + 3)
        assert psnr_db(picture, draw_in_python(bundles / "plain.kind", 1, 2**40 + 3)) > PARITY_DB
        sample.page.get_by_role("slider", name="Guidance").fill("0")
        assert psnr_db(sample.draw(2**40 + 3), picture) < PARITY_DB
        sample.page.get_by_role("button", name="Show seashore").last.click()
        assert (sample.save() == picture).all(), "an earlier picture comes back"


def test_any_guidance_scale_is_drawn_with_as_it_is(new_page: Callable[..., Sample], bundles: Path) -> None:
    with serving(bundles / "plain.kind") as url:
        sample = new_page().open(f"{url}?guidance=1.33")
        slider = sample.page.get_by_role("slider", name="Guidance")
        assert slider.input_value() == "1.33"
        assert sample.page.locator("#guidance-value").inner_text() == "1.33"
        slider.press("ArrowRight")
        assert slider.input_value() == "1.4"


def test_an_address_names_a_picture(new_page: Callable[..., Sample], bundles: Path) -> None:
    with serving(bundles / "plain.kind") as url:
        first = new_page().open(url)
        first.classes.select_option(label="seashore, coast")
        picture = first.draw(11)
        second = new_page()
        second.page.goto(first.page.url)
        second.wait("seed 11: drawn in")
        assert (second.save() == picture).all()


def test_a_class_of_the_address_is_found_as_kind_run_finds_it(new_page: Callable[..., Sample], bundles: Path) -> None:
    """By any name or its last words; another class, the first, was drawn in its place."""
    with serving(bundles / "plain.kind") as url:
        for name in ("n09428293", "COAST", "Seashore,_coast"):
            sample = new_page()
            sample.page.goto(f"{url}?class={name}&seed=11")
            sample.wait("seed 11: drawn in")
            assert sample.classes.input_value() == "n09428293", name
        unknown = new_page().open(f"{url}?class=zebra&seed=11")
        assert "unknown class 'zebra'" in unknown.problem.inner_text()
        assert unknown.status.inner_text() == "Ready.", "nothing is drawn"
        unknown.draw_button.click()
        assert unknown.classes.evaluate("select => select.validity.valueMissing")
        unknown.classes.select_option(label="seashore, coast")
        unknown.draw(11)
        assert (unknown.errors, unknown.problem.is_visible()) == ([], False)


def test_the_keyboard_is_enough(new_page: Callable[..., Sample], bundles: Path) -> None:
    with serving(bundles / "plain.kind") as url:
        sample = new_page().open(url)
        names = []
        for _ in range(8):
            sample.page.keyboard.press("Tab")
            names.append(sample.page.evaluate("document.activeElement.id"))
        assert names[:8] == ["class", "seed", "new-seed", "keep-seed", "guidance", "preview", "sharp", "draw"]
        sample.seed.fill("x")
        sample.page.keyboard.press("Enter")
        assert "whole number from 0 to 18446744073709551615" in sample.page.inner_text("#seed-error")
        assert sample.page.evaluate("document.activeElement.id") == "seed"
        sample.seed.fill("5")
        sample.page.keyboard.press("Enter")
        sample.wait("seed 5: drawn in")


def test_draw_draws_another_picture_unless_the_seed_is_kept(new_page: Callable[..., Sample], bundles: Path) -> None:
    with serving(bundles / "plain.kind") as url:
        sample = new_page().open(url)
        first = sample.draw(5)
        sample.page.click("#draw")
        sample.wait("drawn in")
        seed, second = sample.seed.input_value(), sample.save()
        assert seed != "5"
        assert (second != first).any()
        sample.page.check("#keep-seed")
        sample.page.click("#draw")
        sample.wait("drawn in")
        assert sample.seed.input_value() == seed
        assert (sample.save() == second).all()
        smooth = sample.page.evaluate(_SHOWN)
        sample.page.check("#sharp")
        squares = np.repeat(np.repeat(second, len(smooth) // len(second), axis=0), len(smooth) // len(second), axis=1)
        assert (np.array(sample.page.evaluate(_SHOWN)) == squares[len(smooth) // 2]).all()
        assert len({tuple(pixel) for pixel in smooth}) > 4 * len(second), "enlarged in squares"


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_nothing_sticks_out(new_page: Callable[..., Sample], bundles: Path, width: int) -> None:
    with serving(bundles / "base.kind") as url:
        sample = new_page(viewport={"width": width, "height": 700}).open(url)
        sample.draw(1)
        sample.page.get_by_text("Model, speed and measuring").click()
        right = sample.page.evaluate(
            "Math.max(...[...document.querySelectorAll('main *')].map((e) => e.getBoundingClientRect().right))"
        )
    assert right <= width - 15


@pytest.mark.parametrize("end", ["document.getElementById('draw').click()", _PRESS_ESCAPE], ids=["Stop", "Escape"])
def test_stop_ends_a_drawing_and_the_next_is_right(new_page: Callable[..., Sample], panda: Path, end: str) -> None:
    with serving(panda) as url:
        sample = new_page().open(url)
        # at once when step 2 is shown: a fast machine would be done before this process hears of it
        sample.page.evaluate(
            f"""const speed = document.getElementById('speed');
            new MutationObserver((_, observer) => {{
                if (speed.textContent.includes('step 2 of')) {{ observer.disconnect(); {end} }}
            }}).observe(speed, {{childList: true}})"""
        )
        sample.draw_button.click()
        sample.wait("Stopped after step")
        assert sample.page.get_by_role("button", name="Save PNG").is_disabled()
        assert psnr_db(sample.draw(3), draw_in_python(panda, 0, 3)) > PARITY_DB


def test_two_tabs_draw_at_once(browser: Browser, bundles: Path) -> None:
    context = browser.new_context()
    with serving(bundles / "plain.kind") as url:
        samples = [Sample(context.new_page()).open(url) for _ in range(2)]
        for seed, sample in enumerate(samples):
            sample.seed.fill(str(seed))
            # what Enter does, twice at once: the second, while it draws, starts no other but stops it
            sample.seed.evaluate("field => { field.form.requestSubmit(); field.form.requestSubmit(); }")
        for sample in samples:
            sample.wait("Stopped")
            sample.draw_button.click()
        for seed, sample in enumerate(samples):
            sample.page.bring_to_front()
            sample.wait(f"seed {seed}: drawn in")
            assert psnr_db(sample.save(), draw_in_python(bundles / "plain.kind", 0, seed)) > PARITY_DB
    context.close()


def test_a_tab_closed_in_the_middle_leaves_nothing_broken(browser: Browser, bundles: Path) -> None:
    context = browser.new_context(service_workers="block")
    with serving(bundles / "plain.kind") as url:
        closed = Sample(context.new_page())
        closed.page.route(STEP, lambda route: None)  # never answered
        closed.page.goto(url)
        closed.wait("Loading")
        closed.page.close()
        assert Sample(context.new_page()).open(url).draw(1).std() > 0
    context.close()


def test_it_works_without_its_server_after_one_visit(browser: Browser, bundles: Path) -> None:
    context = browser.new_context()
    with serving(bundles / "plain.kind") as url:
        sample = Sample(context.new_page()).open(url)
        sample.page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        picture = sample.draw(4)
        sample.page.get_by_text("Model, speed and measuring").click()
        assert "works: the model is kept on this device" in sample.page.inner_text("#facts")
    sample = Sample(context.new_page()).open(url)
    assert (sample.draw(4) == picture).all()
    assert sample.page.evaluate("crossOriginIsolated")
    context.close()


def test_pages_in_folders_of_one_origin_go_on_without_a_network(
    browser: Browser, bundles: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        write_page(tmp_path / name, bundles / "plain.kind")
    worker = tmp_path / "b" / "sw.js"  # of a newer build
    worker.write_text(re.sub(r"\b[0-9a-f]{16}\b", "0123456789abcdef", worker.read_text("utf-8"), count=1), "utf-8")
    context = browser.new_context()
    with serving_folders(tmp_path) as url:
        for name in ("a", "b"):
            sample = Sample(context.new_page()).open(f"{url}{name}/")
            sample.page.evaluate("navigator.serviceWorker.ready.then(() => true)")
            picture = sample.draw(4)
        assert len(sample.page.evaluate("caches.keys()")) == 3
    for name in ("a", "b"):
        assert (Sample(context.new_page()).open(f"{url}{name}/").draw(4) == picture).all()
    context.close()


def test_packs_are_attached_and_those_of_another_base_refused(new_page: Callable[..., Sample], bundles: Path) -> None:
    bundle = bundles / "base.kind"
    manifest = open_bundle(bundle).manifest
    generator = open_generator(bundle, manifest, "onnx")
    with serving(bundle) as url:
        sample = new_page().open(url)
        sample.classes.select_option(label="seashore, coast")
        expected = generator.with_pack(read_pack(bundle / "packs" / "seashore.pack")).picture(0, 2)
        assert psnr_db(sample.draw(2), expected) > PARITY_DB
        adder = sample.page.get_by_label("Add a class from a pack file")
        adder.set_input_files(bundles / "other.kind" / "packs" / "lemon.pack")
        sample.problem.wait_for()
        assert "lemon.pack is a pack for base" in sample.problem.inner_text()
        adder.set_input_files(bundle / "packs" / "lemon.pack")
        sample.wait("lemon was added.")
        expected = generator.with_pack(read_pack(bundle / "packs" / "lemon.pack")).picture(0, 2)
        assert psnr_db(sample.draw(2), expected) > PARITY_DB


def test_a_pack_that_was_not_shipped_is_named(new_page: Callable[..., Sample], bundles: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(bundles / "base.kind", tmp_path / "base.kind"))
    (bundle / "packs" / "seashore.pack").unlink()
    with serving(bundle) as url:
        sample = new_page().open(url)
        sample.classes.select_option(label="seashore, coast")
        sample.draw_button.click()
        sample.problem.wait_for()
        assert "has no file packs/seashore.pack" in sample.problem.inner_text()
        sample.classes.select_option(label="lemon")
        sample.draw(1)


def _cut(route: Route) -> None:
    route.fulfill(body=route.fetch().body()[:1000])


def _flip(route: Route) -> None:
    body = bytearray(route.fetch().body())
    body[len(body) // 2] ^= 1
    route.fulfill(body=bytes(body))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda route: route.fulfill(status=404), "has no file onnx/step.onnx"),
        (lambda route: route.fulfill(status=503), "the server answered 503"),
        (lambda route: route.abort(), "step.onnx cannot be reached"),
        (_cut, "onnx/step.onnx has 1000 bytes, the manifest expects"),
        (_flip, "onnx/step.onnx has sha256"),
    ],
    ids=["404", "503", "no connection", "truncated", "wrong hash"],
)
def test_a_bad_model_is_named_and_trying_again_works(
    new_page: Callable[..., Sample], bundles: Path, answer: Callable[[Route], None], message: str
) -> None:
    with serving(bundles / "plain.kind") as url:
        sample = new_page()
        sample.page.route(STEP, answer)
        sample.open(url)
        assert message in sample.problem.inner_text()
        assert sample.draw_button.is_disabled()
        sample.page.unroute(STEP)
        sample.page.get_by_role("button", name="Try again").click()
        sample.page.locator("#status:text-is('Ready.')").wait_for()
        assert not sample.problem.is_visible()
        assert psnr_db(sample.draw(1), draw_in_python(bundles / "plain.kind", 0, 1)) > PARITY_DB


def test_a_bundle_without_onnx_programs_says_so(new_page: Callable[..., Sample], bundles: Path) -> None:
    data = json.loads((bundles / "plain.kind" / "manifest.json").read_text())
    data["targets"] = {"coreml": data["targets"]["onnx"]}
    with serving(bundles / "plain.kind") as url:
        sample = new_page()
        sample.page.route("**/manifest.json", lambda route: route.fulfill(json=data))
        sample.open(url)
        text = sample.problem.inner_text()
    assert "the bundle holds no onnx programs, only coreml" in text
    assert "export with --target onnx" in text


def test_a_browser_without_webassembly_is_told(browser: Browser, bundles: Path) -> None:
    with launched(browser.browser_type, "--js-flags=--jitless") as old, serving(bundles / "plain.kind") as url:
        text = Sample(old.new_page()).open(url).problem.inner_text()
    assert "no WebAssembly" in text


def test_a_measurement_is_saved(new_page: Callable[..., Sample], bundles: Path) -> None:
    with serving(bundles / "interval.kind") as url:
        sample = new_page().open(url)
        sample.page.get_by_text("Model, speed and measuring").click()
        sample.page.get_by_role("button", name="Measure").click()
        sample.page.get_by_text("medians of 10 pictures").wait_for()
        with sample.page.expect_download() as download:
            sample.page.get_by_role("button", name="Save results as JSON").click()
        data = json.loads(Path(download.value.path()).read_text())
    check_schema(data, "results", "the page's results")
    assert data["bundle"]["manifest_sha256"] == hash_file(bundles / "interval.kind" / "manifest.json")
    (case,) = data["cases"]
    assert len(case["step_ms"]["samples"]) == len(case["step_unguided_ms"]["samples"]) == 20  # 2 of 4 steps each
    assert all(ms > 0 for ms in case["step_ms"]["samples"])
