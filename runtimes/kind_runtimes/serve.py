"""A web server for one bundle and the page that runs it, for this machine.

The page lies in the package under `web/`, large files compressed as `<name>.gz`. Given out are its files and those that
the bundle's manifest lists, and nothing else of the disk. WebAssembly's threads need a page that is isolated from other
origins, which two headers ask for.
"""

from __future__ import annotations

import gzip
import mimetypes
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from importlib.resources.abc import Traversable
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kind_core.errors import OutputError, TargetError
from kind_runtimes.bundle import MANIFEST_NAME, open_bundle
from kind_runtimes.manifest import Manifest

BUNDLE_PATH = "bundle/"
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
# what the platform's own table may lack
_TYPES = {
    ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css",
    ".json": "application/json", ".webmanifest": "application/manifest+json", ".wasm": "application/wasm",
    ".svg": "image/svg+xml", ".png": "image/png",
}  # fmt: skip
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """A file that is given out."""

    file: Path | Traversable
    is_gzipped: bool = False


class BundleServer(ThreadingHTTPServer):
    """Listens from the start; `serve_forever` answers. `notes` are what a user should know of this address."""

    daemon_threads = True

    def __init__(self, entries: Mapping[str, _Entry], host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), partial(_Handler, entries))
        self._host = host

    @property
    def url(self) -> str:
        host = ("::1" if ":" in self._host else "127.0.0.1") if self._is_any else self._host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    @property
    def notes(self) -> tuple[str, ...]:
        if self._is_loopback:
            return ()
        return (
            f"every machine that reaches {self._host}:{self.server_port} can open it; over http browsers give those"
            " neither threads nor offline use: put https in front for that",
        )

    @property
    def allowed_hosts(self) -> frozenset[str] | None:
        """Names by which a request may ask; another web site cannot then reach a loopback server by a name of its own.

        None where the server is open to a network, whose names for it are not known.
        """
        return frozenset({"localhost", "127.0.0.1", "::1", self._host}) if self._is_loopback else None

    @property
    def _is_loopback(self) -> bool:
        return self._host == "localhost" or _is_address(self._host, "is_loopback")

    @property
    def _is_any(self) -> bool:
        return _is_address(self._host, "is_unspecified")


def open_server(bundle: Path, host: str, port: int, page: Traversable | None = None) -> BundleServer:
    """A server of a bundle whose files were checked; raises a KindError where it cannot be run or served.

    `page` is the folder of the page, the package's by default.
    """
    manifest = open_bundle(bundle).manifest
    manifest.target("onnx")
    entries = {**_page_entries(page or files("kind_runtimes") / "web"), **_bundle_entries(bundle, manifest)}
    try:
        return BundleServer(entries, host, port)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"cannot listen on {host}:{port}: {reason}", "choose another --port or --host") from error


def _page_entries(page: Traversable) -> dict[str, _Entry]:
    if not (page / "index.html").is_file():
        raise TargetError(f"there is no page in {page}", "install the package again, or build it: npm run build")
    found = dict(_walk(page, ""))
    entries = {name: _Entry(file=file) for name, file in found.items() if not name.endswith(".gz")}
    packed = {name: _Entry(file=file, is_gzipped=True) for name, file in found.items() if name.endswith(".gz")}
    entries |= {name.removesuffix(".gz"): entry for name, entry in packed.items()}
    return entries | {"": entries["index.html"]}


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found = []
    for item in folder.iterdir():
        name = f"{prefix}{item.name}"
        found += _walk(item, f"{name}/") if item.is_dir() else [(name, item)]
    return found


def _bundle_entries(bundle: Path, manifest: Manifest) -> dict[str, _Entry]:
    names = [MANIFEST_NAME, *manifest.files, *(pack.file for pack in manifest.packs)]
    return {f"{BUNDLE_PATH}{name}": _Entry(file=bundle / name) for name in names if (bundle / name).is_file()}


class _Handler(BaseHTTPRequestHandler):
    server: BundleServer
    server_version = "kind-run"
    sys_version = ""
    protocol_version = "HTTP/1.1"

    def __init__(self, entries: Mapping[str, _Entry], *arguments: object) -> None:
        self._entries = entries
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:  # the name that http.server calls
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the page reports what does not work."""

    def _answer(self, *, with_body: bool) -> None:
        allowed = self.server.allowed_hosts
        if allowed is not None and urlsplit(f"//{self.headers.get('Host', '')}").hostname not in allowed:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        name = unquote(urlsplit(self.path).path).removeprefix("/")
        entry = self._entries.get(name)
        if entry is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            content = entry.file.read_bytes()
        except OSError:
            self.send_error(HTTPStatus.GONE, f"{name} cannot be read any more")
            return
        self._send(name, content, entry, with_body=with_body)

    def _send(self, name: str, content: bytes, entry: _Entry, *, with_body: bool) -> None:
        is_packed = entry.is_gzipped and "gzip" in self.headers.get("Accept-Encoding", "")
        if entry.is_gzipped and not is_packed:
            content = gzip.decompress(content)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", _content_type(name or "index.html"))
        self.send_header("Content-Length", str(len(content)))
        if is_packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if with_body:
            for start in range(0, len(content), _CHUNK):
                self.wfile.write(content[start : start + _CHUNK])

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def handle(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # a tab that was closed in the middle
            super().handle()


def _content_type(name: str) -> str:
    suffix = Path(name).suffix
    return _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def _is_address(host: str, attribute: str) -> bool:
    try:
        return bool(getattr(ip_address(host), attribute))
    except ValueError:
        return False
