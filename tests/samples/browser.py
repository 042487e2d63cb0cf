"""A headless Chromium and the page of `kind-run serve`, as a user meets it."""

from __future__ import annotations

import gzip
import io
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from kind_runtimes.serve import open_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserType, Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
TIMEOUT_MS = 60_000


@contextmanager
def launched(chromium: BrowserType, *arguments: str) -> Iterator[Browser]:
    """The browser of the system, which asks nothing of the network by itself."""
    browser = chromium.launch(executable_path=CHROMIUM, args=[*_ARGUMENTS, *arguments])
    yield browser
    browser.close()


@contextmanager
def serving(bundle: Path) -> Iterator[str]:
    """The address of a server of `bundle`, which ends with the block."""
    with open_server(bundle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serving_folders(folders: Path) -> Iterator[str]:
    """The address of a plain server of files, as static hosts are: every folder is a page of one origin."""
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *arguments: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folders))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def write_page(folder: Path, bundle: Path) -> None:
    """The page with a bundle in a folder of its own, for a plain server of files."""
    shutil.copytree(str(files("kind_runtimes") / "web"), folder)
    for packed in list(folder.rglob("*.gz")):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    shutil.copytree(bundle, folder / "bundle")


class Sample:
    """The page, by what a user sees: roles, labels and words, so that a screen reader finds the same."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.set_default_timeout(TIMEOUT_MS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.draw_button = page.get_by_role("button", name="Draw", exact=True)
        self.stop_button = page.get_by_role("button", name="Stop")
        self.seed = page.get_by_role("textbox", name="Seed")
        self.classes = page.get_by_label("Class", exact=True)
        self.status = page.get_by_role("status").first
        self.problem = page.get_by_role("alert")

    def open(self, url: str) -> Sample:
        """Open the page, and wait until it is ready or says what is wrong."""
        self.page.goto(url)
        self.wait("Ready.")
        return self

    def wait(self, words: str) -> None:
        """Wait for a status, or a problem."""
        self.page.locator(f"#status:has-text('{words}'), #problem:visible").first.wait_for()

    def draw(self, seed: int) -> np.ndarray:
        """Draw with a seed; the picture is the file that the page saves, uint8 (height, width, 3)."""
        self.seed.fill(str(seed))
        self.draw_button.click()
        self.wait(f"seed {seed}: drawn in")
        assert not self.problem.is_visible(), self.problem.inner_text()
        return self.save()

    def save(self) -> np.ndarray:
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name="Save PNG").click()
        with Image.open(io.BytesIO(Path(download.value.path()).read_bytes())) as picture:
            assert picture.format == "PNG"
            return np.asarray(picture.convert("RGB"))
