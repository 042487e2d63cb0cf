"""`kind-run serve`: what it gives out, to whom, and what it does not."""

from __future__ import annotations

import http.client
import shutil
import threading
from collections.abc import Callable, Iterator
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


@pytest.fixture(scope="module")
def site(small_bundle: Bundle) -> Iterator[Site]:
    with open_server(small_bundle.path, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Site(server=server)
        server.shutdown()
        thread.join()


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


def test_every_file_of_the_page_is_given_out_as_it_was_built(site: Site) -> None:
    worker = site.get("/sw.js")[1].decode()
    wasm = next(part for part in worker.split('"') if part.endswith(".wasm"))
    plain, packed = site.get(f"/{wasm}"), site.get(f"/{wasm}", Accept_Encoding="gzip, br")
    assert plain[0].headers["Content-Type"] == packed[0].headers["Content-Type"] == "application/wasm"
    assert plain[0].headers["Content-Encoding"] is None
    assert packed[0].headers["Content-Encoding"] == "gzip"
    assert plain[1].startswith(b"\0asm")
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
    with open_server(bundle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        response, body = Site(server=server).get(path)
        server.shutdown()
        thread.join()
    assert response.status == 404
    assert b"secret" not in body


def test_only_names_of_this_machine_reach_a_loopback_server(site: Site) -> None:
    for host in ("127.0.0.1", "localhost:80", "[::1]:8000", "LOCALHOST"):
        assert site.get("/", Host=host)[0].status == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        assert site.get("/", Host=host)[0].status == 421, host


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
