"""A web server for one bundle and the page that runs it, for this machine.

The page lies in the package under `web/`, large files compressed as `<name>.gz`. Given out are its files and those that
the bundle's manifest lists, and nothing else of the disk. WebAssembly's threads need a page that is isolated from other
origins, which two headers ask for. However slow clients are, a new one is answered: the one that has waited longest
makes room.
"""

from __future__ import annotations

import gzip
import io
import mimetypes
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from importlib.resources.abc import Traversable
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from kind_core.errors import OutputError, TargetError
from kind_runtimes.bundle import MANIFEST_NAME, open_bundle
from kind_runtimes.http_headers import parse_host, parse_range, takes_gzip
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
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_CHUNK = 1 << 16
_MAX_CONNECTIONS = 128  # a browser opens six
_unpacking = threading.Lock()
_TIMEOUT_S = 30  # for the next bytes of a request, and for a client to take the next chunk


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """A file that is given out."""

    file: Path | Traversable
    is_gzipped: bool = False


class BundleServer(ThreadingHTTPServer):
    """Listens from the start; `serve_forever` answers. `notes` are what a user should know of this address."""

    daemon_threads = True
    request_queue_size = _MAX_CONNECTIONS

    def __init__(self, entries: Mapping[str, _Entry], host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._waiting: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__((host, port), partial(_Handler, entries))
        self._host = host

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own; where there are too many, the oldest is ended for it."""
        with self._lock:
            if len(self._waiting) >= _MAX_CONNECTIONS:
                oldest = min(self._waiting, key=self._waiting.__getitem__)
                del self._waiting[oldest]
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread ends as if the client had gone
            self._waiting[request] = time.monotonic()
        super().process_request(request, client_address)

    def note_request(self, request: socket.socket) -> None:
        """A connection asked for something just now."""
        with self._lock:
            if request in self._waiting:
                self._waiting[request] = time.monotonic()

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        with self._lock:
            self._waiting.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away or sent what is no HTTP is no news."""

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
        return frozenset({"localhost", "127.0.0.1", "::1", self._host.lower()}) if self._is_loopback else None

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
    timeout = _TIMEOUT_S

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
        self.server.note_request(self.connection)
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body, which would be read as the next request
        refused = self._refuse_host()
        if refused:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, explain=refused)
            return
        name = unquote(self.path.partition("?")[0].partition("#")[0]).removeprefix("/")
        entry = self._entries.get(name)
        if entry is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            file = entry.file.open("rb")
        except OSError:
            self.send_error(HTTPStatus.GONE, explain=f"{name} cannot be read any more")
            return
        with file:
            self._send(name, file, entry, with_body=with_body)

    def _refuse_host(self) -> str:
        """Why this request is for another server, in words for its page; empty where it is for this one."""
        allowed, hosts = self.server.allowed_hosts, self.headers.get_all("Host", [])
        if allowed is None or (len(hosts) == 1 and parse_host(hosts[0]) in allowed):
            return ""
        asked = " and ".join(map(repr, hosts)) or "no name"
        return (
            f"kind-run serve answers to {', '.join(sorted(allowed))} and was asked as {asked}. "
            "Behind a proxy (Codespaces, Jupyter) or for another machine start it with --host 0.0.0.0: "
            "then every name is answered, and every machine that reaches this one."
        )

    def _send(self, name: str, file: IO[bytes], entry: _Entry, *, with_body: bool) -> None:
        # parts are of GET alone, and If-Range cannot hold: no version of a file is told
        asked = self._header("Range") if self.command == "GET" and "If-Range" not in self.headers else ""
        is_packed = entry.is_gzipped and not asked and takes_gzip(self._header("Accept-Encoding"))
        if entry.is_gzipped and not is_packed:
            with _unpacking:
                file = io.BytesIO(_unpack(entry))
        size = file.seek(0, os.SEEK_END)
        part = parse_range(asked, size)
        span = range(size) if part is None else part
        is_there = part is None or len(part) > 0
        status = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
        self.send_response(status if is_there else HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
        self.send_header("Content-Type", _content_type(name or "index.html"))
        self.send_header("Content-Length", str(len(span)))
        self.send_header("Accept-Ranges", "bytes")
        if part is not None:
            self.send_header("Content-Range", f"bytes {f'{span[0]}-{span[-1]}' if is_there else '*'}/{size}")
        if entry.is_gzipped:
            self.send_header("Vary", "Accept-Encoding")
        if is_packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if with_body:
            self._copy(file, span)

    def _copy(self, file: IO[bytes], span: range) -> None:
        file.seek(span.start)
        left = len(span)
        while left and (chunk := file.read(min(_CHUNK, left))):
            self.wfile.write(chunk)
            left -= len(chunk)
        if left:
            self.close_connection = True  # the file was cut while it was read, which the client has to see

    def _header(self, name: str) -> str:
        return ", ".join(self.headers.get_all(name, []))

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def handle(self) -> None:
        with suppress(ConnectionError, TimeoutError):  # a tab that was closed in the middle, a client that stalls
            super().handle()


@cache
def _unpack(entry: _Entry) -> bytes:
    """What a compressed file of the page holds, once for all clients: a hundred slow ones would hold a copy each."""
    return gzip.decompress(entry.file.read_bytes())


def _content_type(name: str) -> str:
    suffix = Path(name).suffix
    return _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def _is_address(host: str, attribute: str) -> bool:
    try:
        return bool(getattr(ip_address(host), attribute))
    except ValueError:
        return False
