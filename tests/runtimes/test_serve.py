"""`kind-run serve`: what it gives out, to whom, and what it does not."""

from __future__ import annotations

import gzip
import http.client
import shutil
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from kind_core.errors import BundleError, OutputError, TargetError
from kind_runtimes.bundle import Bundle
from kind_runtimes.cli import main
from kind_runtimes.serve import BundleServer, open_server
from small_bundles import write_manifest


@dataclass(frozen=True, kw_only=True)
class Site:
    """A server that is running."""

    server: BundleServer

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=20)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response, body


@contextmanager
def _running(server: BundleServer) -> Iterator[Site]:
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Site(server=server)
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def site(small_bundle: Bundle) -> Iterator[Site]:
    with _running(open_server(small_bundle.path, "127.0.0.1", 0)) as opened:
        yield opened


def _wasm(site: Site) -> str:
    """The path of the largest file of the page, which lies compressed in the package."""
    worker = site.get("/sw.js")[1].decode()
    return "/" + next(part for part in worker.split('"') if part.endswith(".wasm"))


def _send_raw(site: Site, request: bytes) -> bytes:
    """What comes back until the connection ends, or rests for a second."""
    answer = b""
    with socket.create_connection(("127.0.0.1", site.server.server_port), timeout=1) as connection:
        with suppress(TimeoutError, ConnectionError):
            connection.sendall(request)
        with suppress(TimeoutError, ConnectionError):
            while part := connection.recv(1 << 16):
                answer += part
    return answer


def test_the_page_and_the_bundle_are_there_with_the_headers_of_isolation(site: Site, small_bundle: Bundle) -> None:
    for path, kind in {
        "/": "text/html", "/index.html": "text/html", "/?class=x&seed=7": "text/html", "/sw.js": "text/javascript",
        "/app.webmanifest": "application/manifest+json", "/bundle/manifest.json": "application/json",
        "/bundle/onnx/step.onnx": "application/octet-stream",
    }.items():  # fmt: skip
        response, body = site.get(path)
        assert (response.status, response.headers["Content-Type"]) == (200, kind), path
        assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert len(body) == int(response.headers["Content-Length"]) > 0
    assert site.get("/bundle/onnx/step.onnx")[1] == (small_bundle.path / "onnx" / "step.onnx").read_bytes()


def test_a_packed_file_is_smaller_and_the_same(site: Site) -> None:
    plain, packed = site.get(_wasm(site)), site.get(_wasm(site), Accept_Encoding="gzip")
    assert plain[0].headers["Content-Type"] == packed[0].headers["Content-Type"] == "application/wasm"
    assert gzip.decompress(packed[1]) == plain[1]
    assert len(packed[1]) < len(plain[1]) / 3


def test_head_tells_the_length_alone(site: Site) -> None:
    response, body = site.get("/bundle/manifest.json", method="HEAD")
    assert (response.status, body) == (200, b"")
    assert int(response.headers["Content-Length"]) == len(site.get("/bundle/manifest.json")[1])


@pytest.mark.parametrize(
    "path",
    ["/bundle/secret.txt", "/bundle/../outside.txt", "/bundle/%2e%2e/outside.txt", "/../serve.py", "//etc/passwd",
     "/bundle/", "/bundle/onnx", "/bundle/..%5coutside.txt", "/bundle/report.html"],
)  # fmt: skip
def test_nothing_else_of_the_disk_is_given_out(small_bundle: Bundle, tmp_path: Path, path: str) -> None:
    bundle = Path(shutil.copytree(small_bundle.path, tmp_path / "copy.kind"))
    for file in (tmp_path / "outside.txt", bundle / "secret.txt", bundle / "report.html"):
        file.write_text("secret")
    with _running(open_server(bundle, "127.0.0.1", 0)) as opened:
        response, body = opened.get(path)
    assert response.status == 404
    assert b"secret" not in body


@pytest.mark.parametrize("accepted", ["gzip", "gzip, br", "br;q=1.0, GZIP;q=0.5", "*", "x-gzip", "*;q=0, gzip;q=1"])
def test_large_files_are_sent_packed_where_that_is_taken(site: Site, accepted: str) -> None:
    response, body = site.get(_wasm(site), Accept_Encoding=accepted)
    assert (response.headers["Content-Encoding"], response.headers["Vary"]) == ("gzip", "Accept-Encoding")
    assert gzip.decompress(body).startswith(b"\0asm")


@pytest.mark.parametrize(
    "accepted",
    ["", "br", "gzip;q=0", "gzip;q=0, identity", "gzip ; Q = 0", "*;q=0", "gzip;q=0, *", "identity", "gzipped"],
)
def test_large_files_are_sent_plain_where_that_is_not(site: Site, accepted: str) -> None:
    response, body = site.get(_wasm(site), Accept_Encoding=accepted)
    assert (response.headers["Content-Encoding"], response.headers["Vary"]) == (None, "Accept-Encoding")
    assert body.startswith(b"\0asm")


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=5-", 5, None),
        ("bytes=-7", -7, None),
        ("bytes=3-999999999", 3, None),
        ("bytes=0-", 0, None),
    ],
)
@pytest.mark.parametrize("path", ["/bundle/manifest.json", "wasm"])
def test_a_part_of_a_file_is_that_part(site: Site, path: str, asked: str, start: int, stop: int | None) -> None:
    path = _wasm(site) if path == "wasm" else path
    whole = site.get(path)[1]
    response, body = site.get(path, Range=asked, Accept_Encoding="gzip")
    assert response.status == 206
    assert body == whole[start:stop]
    first = start % len(whole)
    assert response.headers["Content-Range"] == f"bytes {first}-{first + len(body) - 1}/{len(whole)}"


@pytest.mark.parametrize(
    "asked", ["bytes=9-5", "bytes=0-1,4-5", "lines=0-9", "bytes=a-b", "bytes=-", "bytes=" + "9" * 99]
)
def test_what_is_no_range_gets_the_whole_file(site: Site, asked: str) -> None:
    response, body = site.get("/bundle/manifest.json", Range=asked)
    assert (response.status, body) == (200, site.get("/bundle/manifest.json")[1])


def test_a_part_behind_the_end_is_refused_with_the_size(site: Site) -> None:
    size = len(site.get("/bundle/manifest.json")[1])
    for asked in (f"bytes={size}-", f"bytes={size + 5}-{size + 9}", "bytes=-0"):
        response, body = site.get("/bundle/manifest.json", Range=asked)
        assert (response.status, body, response.headers["Content-Range"]) == (416, b"", f"bytes */{size}")


def test_parts_are_of_get_alone_and_of_no_other_version(site: Site) -> None:
    size = len(site.get("/bundle/manifest.json")[1])
    response, body = site.get("/bundle/manifest.json", method="HEAD", Range="bytes=0-9")
    assert (response.status, body, int(response.headers["Content-Length"])) == (200, b"", size)
    assert site.get("/bundle/manifest.json", Range="bytes=0-9", If_Range='"old"')[0].status == 200


def test_only_names_of_this_machine_reach_a_loopback_server(site: Site) -> None:
    for host in ("127.0.0.1", "localhost:80", "[::1]:8000", "LOCALHOST", "localhost:"):
        assert site.get("/", Host=host)[0].status == 200, host


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "", "evil.com@localhost", "localhost@evil.com", "[::1]evil",
     "[::1]:80@x", "localhost/evil", "localhost#evil.com", "evil.com#@localhost", "localhost:80:evil", "[::1", "::1",
     "localhost evil.com", "localhost,evil.com", "user:localhost@localhost", "localhost\\evil.com", "0x7f.1",
     "localhost."],
)  # fmt: skip
def test_any_other_host_is_refused_with_the_option_that_allows_it(site: Site, host: str) -> None:
    response, body = site.get("/bundle/manifest.json", Host=host)
    assert response.status == 421
    assert b"start it with --host 0.0.0.0" in body
    assert repr(host)[1:-1].split("@")[0].encode() in body


def test_a_request_with_two_hosts_is_refused(site: Site) -> None:
    assert _send_raw(site, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.com\r\n\r\n").startswith(b"HTTP/1.1 421 ")
    assert _send_raw(site, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 421 ")


def test_a_name_is_no_markup_on_the_page_that_refuses_it(site: Site) -> None:
    assert b"<script>" not in site.get("/", Host="<script>alert(1)</script>")[1]


def test_a_server_for_every_machine_takes_every_name(small_bundle: Bundle) -> None:
    with _running(open_server(small_bundle.path, "0.0.0.0", 0)) as opened:
        assert opened.get("/", Host="my-space-8000.app.github.dev")[0].status == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: x\r\n" * 200 + b"\r\n", 431),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET //[ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 505),
        (b"\x16\x03\x01 not HTTP\r\n\r\n", 400),
    ],
    ids=["a large header", "many headers", "a long path", "no URL", "NUL", "another version", "TLS"],
)
def test_requests_that_are_too_large_or_none_are_refused(site: Site, request_bytes: bytes, status: int) -> None:
    answer = _send_raw(site, request_bytes)
    # where no version of HTTP can be told, there is the page alone
    assert answer.startswith(b"HTTP/1.1 %d " % status) or b"Error code: %d" % status in answer
    assert site.get("/")[0].status == 200


def test_a_body_is_not_taken_for_the_next_request(site: Site) -> None:
    hidden = b"GET /bundle/manifest.json HTTP/1.1\r\nHost: evil.com\r\n\r\n"
    head = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    assert _send_raw(site, head + hidden).count(b"HTTP/1.1 ") == 1


def test_clients_that_say_nothing_stop_nobody(site: Site) -> None:
    address = ("127.0.0.1", site.server.server_port)
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(300)]
        for connection in silent[:50]:
            connection.sendall(b"GET / HTTP/1.1\r\nX: ")  # and never the rest
        assert site.get("/bundle/manifest.json")[0].status == 200
        assert silent[0].recv(1) == b"", "the oldest made room"
        assert threading.active_count() < 200


def test_clients_that_take_nothing_hold_no_copy_each(site: Site) -> None:
    request, size = f"GET {_wasm(site)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), len(site.get(_wasm(site))[1])
    tracemalloc.start()
    with ExitStack() as stack:
        for _ in range(20):
            address = ("127.0.0.1", site.server.server_port)
            connection = stack.enter_context(socket.create_connection(address, timeout=20))
            connection.sendall(request)
            assert connection.recv(8) == b"HTTP/1.1"
        assert site.get("/")[0].status == 200
        assert tracemalloc.get_traced_memory()[1] < 2 * size
    tracemalloc.stop()


def test_nothing_can_be_written(site: Site) -> None:
    assert site.get("/bundle/manifest.json", method="PUT")[0].status == 501


def test_a_bundle_that_cannot_be_served_is_refused(
    small_bundle: Bundle, copy_bundle: Callable[[], Path], tmp_path: Path
) -> None:
    bundle = copy_bundle()
    (bundle / "onnx" / "step.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError, match="has sha256"):
        open_server(bundle, "127.0.0.1", 0)
    shutil.rmtree(bundle / "onnx")
    write_manifest(bundle, ["executorch"])
    with pytest.raises(TargetError, match="holds no onnx programs, only executorch"):
        open_server(bundle, "127.0.0.1", 0)
    with pytest.raises(TargetError, match="there is no page in"):
        open_server(small_bundle.path, "127.0.0.1", 0, page=tmp_path)


def test_a_port_that_is_taken_and_a_host_that_is_none_are_named(site: Site, small_bundle: Bundle) -> None:
    with pytest.raises(OutputError, match=rf"cannot listen on 127.0.0.1:{site.server.server_port}: Address already"):
        open_server(small_bundle.path, "127.0.0.1", site.server.server_port)
    with pytest.raises(OutputError, match=r"cannot listen on 203\.0\.113\.7:0"):
        open_server(small_bundle.path, "203.0.113.7", 0)


def test_a_server_open_to_the_network_says_so(small_bundle: Bundle) -> None:
    with open_server(small_bundle.path, "0.0.0.0", 0) as server:
        assert server.url == f"http://127.0.0.1:{server.server_port}/"
        assert "every machine that reaches" in server.notes[0]
        assert server.allowed_hosts is None
    with open_server(small_bundle.path, "127.0.0.1", 0) as server:
        assert server.notes == ()


def test_the_command_prints_the_address_and_ends_by_ctrl_c(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: BundleServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BundleServer, "serve_forever", interrupt)
    result = CliRunner().invoke(main, ["serve", str(small_bundle.path), "--port", "0"])
    assert result.exit_code == 0
    assert result.stdout.startswith("page  http://127.0.0.1:")
    assert result.stderr.splitlines() == ["press Ctrl-C to end", "ended"]


def test_the_command_reports_errors_in_a_line_and_a_hint(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["serve", str(tmp_path / "none.kind")])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == f"error: there is no bundle {tmp_path / 'none.kind'}"
