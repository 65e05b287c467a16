"""An App under real servers, each in a process of its own, with real clients: the same table of cases for all."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.conftest import until
from tests.processes import free_port, serving

APPLICATION = "tests.served:application"
SERVERS: dict[str, list[str]] = {
    "uvicorn-h11": ["uvicorn", APPLICATION, "--http", "h11", "--log-level", "error", "--port"],
    "uvicorn-httptools": ["uvicorn", APPLICATION, "--http", "httptools", "--log-level", "error", "--port"],
    "hypercorn": ["hypercorn", APPLICATION, "--bind"],
    "hypercorn-h2": ["hypercorn", APPLICATION, "--bind"],
    "granian": ["granian", "--interface", "asgi", APPLICATION, "--log-level", "error", "--port"],
    "granian-h2": ["granian", "--interface", "asgi", APPLICATION, "--http", "2", "--log-level", "error", "--port"],
    "daphne": ["daphne", "-v", "0", APPLICATION, "-p"],
}


class Served:
    """A server that runs."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.is_h2 = name.endswith("h2")
        self.client = httpx2.Client(base_url=self.url, http1=not self.is_h2, http2=self.is_h2, timeout=30)

    def exchanges(self) -> int:
        count: int = self.client.get("/stats").json()["exchanges"]
        return count

    def idle(self) -> None:
        until(lambda: self.exchanges() == 0)

    @contextlib.contextmanager
    def raw(self, *lines: str, body: bytes = b"") -> Iterator[socket.socket]:
        """A connection on which this was sent."""
        if self.is_h2:
            pytest.skip("a raw HTTP/1.1 client, for the servers of HTTP/1.1")
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            yield connection


# a plain run stays fast with one kind of server; CI runs all
QUICK = ("uvicorn-h11", "uvicorn-httptools")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SERVERS],
)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    port = free_port()
    command = [*SERVERS[request.param], f"127.0.0.1:{port}" if "hypercorn" in request.param else str(port)]
    made = Served(request.param, port)
    with made.client, serving(command, lambda: made.client.get("/hello").status_code == 200):
        yield made


def test_hello(served: Served) -> None:
    response = served.client.get("/hello")
    assert (response.status_code, response.text) == (200, "Hello, World!")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.http_version == ("HTTP/2" if served.is_h2 else "HTTP/1.1")


def test_the_request_is_seen_whole(served: Served) -> None:
    response = served.client.get("/inspect?x=%20&y", headers=[("x-a", "1"), ("x-a", "2"), ("host", "example.com:99")])
    lines = response.text.splitlines()
    assert 'authority: Some("example.com:99")' in lines
    assert 'path: Some("/inspect?x=%20&y")' in lines
    assert [line for line in lines if "x-a" in line] == ["header x-a: 1", "header x-a: 2"]


@pytest.mark.parametrize("size", [0, 10, 100_000, 3_000_000])
def test_bodies_stream_through(served: Served, size: int) -> None:
    def chunks() -> Iterator[bytes]:
        for start in range(0, size, 50_000):
            yield b"x" * min(50_000, size - start)

    assert served.client.post("/echo", content=chunks()).content == b"x" * size
    if served.is_h2 and size == 0:
        # Hypercorn 0.18 drops the connection (KeyError in `H2Protocol._handle_events`) when an application answers
        # before the end of a request has come in a frame of its own, as it does here.
        return
    assert served.client.post("/collect", content=b"y" * size).text.startswith(f"{size} bytes")


def test_events_come_one_by_one(served: Served) -> None:
    served.idle()  # guests of the tests before it may go on after their responses
    with served.client.stream("GET", "/slow-body?ms=300") as response:
        chunks = response.iter_raw()
        assert next(chunks) == b"first"
        assert served.exchanges() == 1
        assert b"".join(chunks) == b"last"


def test_mounts(served: Served) -> None:
    assert served.client.get("/api/own").json() == {"fastapi": True}
    lines = served.client.get("/api/plugins/probe/inspect?q=1").text.splitlines()
    assert 'path: Some("/inspect?q=1")' in lines
    assert "header x-forwarded-prefix: /api/plugins/probe" in lines
    lines = served.client.get("/api/outer/inner/inspect").text.splitlines()
    assert 'path: Some("/inspect")' in lines
    assert "header x-forwarded-prefix: /api/outer/inner" in lines


@pytest.mark.parametrize(
    ("below", "path"),
    [("%2Finspect", "/inspect"), ("/inspect%2Fx%20y", "/inspect%2Fx%20y"), ("%2Finspect%2Fx", "/inspect%2Fx")],
)
def test_mounts_behind_an_encoded_slash(served: Served, below: str, path: str) -> None:
    response = served.client.get(f"/api/paths{below}?q=1")
    assert response.text == f"{path}?q=1"


def test_cookies_are_one_field(served: Served) -> None:
    headers = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]
    lines = served.client.get("/inspect", headers=headers).text.splitlines()
    assert [line for line in lines if "cookie" in line] == ["header cookie: a=1; b=2; c=3"]


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "POST"])
def test_a_body_without_a_length(served: Served, method: str) -> None:
    """Of HTTP/2 no field says that there is one."""
    response = served.client.request(method, "/collect", content=iter([b"he", b"llo"]))
    assert response.text == "5 bytes: hello"


def test_a_request_of_http_1_0_without_a_host(served: Served) -> None:
    with served.raw("GET /inspect HTTP/1.0") as connection, connection.makefile("rb") as answer:
        assert f'authority: Some("127.0.0.1:{served.port}")' in answer.read().decode()


def test_an_empty_body_has_a_length(served: Served) -> None:
    for path in ("/reply", "/headers"):
        assert served.client.get(path).headers["content-length"] == "0"
    assert "content-length" not in served.client.get("/reply?code=204").headers


def test_head_gives_the_fields_of_get(served: Served) -> None:
    for path in ("/hello", "/reply?body=abc&header=content-length:3%0Ax-a:1", "/trap"):
        found = []
        for method in ("GET", "HEAD"):
            response = served.client.request(method, path)
            # of the server's own making: the date, and how it frames what has no length
            own = ("date", "transfer-encoding", "content-length" if path == "/hello" else "")
            found.append([pair for pair in response.headers.multi_items() if pair[0] not in own])
        assert found[0] == found[1]


def test_middleware(served: Served) -> None:
    headers = {"accept-encoding": "gzip", "origin": "https://example.com"}
    response = served.client.get("/dressed/probe/stream?chunks=10&bytes=1000", headers=headers)
    assert response.headers["content-encoding"] == "gzip"
    assert response.headers["access-control-allow-origin"] == "https://example.com"
    assert len(response.content) == 10_000


def test_sessions(served: Served) -> None:
    """What a middleware knows of a user reaches the guest, and what a client says of itself does not."""
    with httpx2.Client(base_url=served.url, http1=not served.is_h2, http2=served.is_h2, timeout=30) as client:
        assert (
            "header x-user: nobody"
            in client.get("/dressed/known/inspect", headers={"x-user": "root"}).text.splitlines()
        )
        client.get("/dressed/login?user=ada")
        assert "header x-user: ada" in client.get("/dressed/known/inspect").text.splitlines()


def test_background_tasks(served: Served) -> None:
    """A component is asked after the answer that it has nothing to do with."""
    assert served.client.get("/api/later?text=soon").status_code == 200
    until(lambda: "soon" in served.client.get("/api/later?text=again").json())


def test_full_duplex(served: Served) -> None:
    """Each chunk is sent only when the one before has come back."""
    if served.name == "daphne":
        pytest.skip("daphne calls an application when the whole request is there")
    lines = ["POST /echo HTTP/1.1", "host: guest.local", "transfer-encoding: chunked"]
    with served.raw(*lines) as connection, connection.makefile("rb") as answer:
        for number in range(5):
            connection.sendall(b"6\r\nping %d\r\n" % number)
            while answer.readline().strip() != b"ping %d" % number:
                pass
        connection.sendall(b"0\r\n\r\n")
        assert answer.readline() == b"0\r\n"


# behind a proxy that takes a prefix off: each has its own way to be told of it
BEHIND = {
    "uvicorn": ["uvicorn", "tests.served:api", "--root-path", "/proxied", "--log-level", "error", "--port"],
    "hypercorn": ["hypercorn", "tests.served:api", "--root-path", "/proxied", "--bind"],
    "daphne": ["daphne", "-v", "0", "tests.served:api", "--root-path", "/proxied", "-p"],
    "granian": ["granian", "--interface", "asgi", "tests.served:api", "--url-path-prefix", "/proxied", "--port"],
}


@pytest.mark.parametrize(
    "server", [pytest.param(name, marks=[] if name == "uvicorn" else pytest.mark.slow) for name in BEHIND]
)
def test_behind_a_prefix(server: str) -> None:
    port = free_port()
    command = [*BEHIND[server], f"127.0.0.1:{port}" if server == "hypercorn" else str(port)]
    # granian sees requests that have the prefix; the others, what the proxy has left of them
    base = f"http://127.0.0.1:{port}" + ("/proxied" if server == "granian" else "")
    with (
        httpx2.Client(base_url=base, timeout=30) as client,
        serving(command, lambda: client.get("/own").status_code == 200),
    ):
        lines = client.get("/plugins/probe/inspect?q=1").text.splitlines()
        assert 'path: Some("/inspect?q=1")' in lines
        assert "header x-forwarded-prefix: /proxied/plugins/probe" in lines


def test_head_and_bare_statuses(served: Served) -> None:
    assert served.client.head("/hello").content == b""
    assert served.client.get("/no-body").status_code == 204
    assert served.client.get("/status?code=304").content == b""
    assert served.client.get("/hello").text == "Hello, World!", "the connection is still good"


def test_a_guest_without_an_answer(served: Served) -> None:
    response = served.client.get("/trap")
    assert response.status_code == 500
    assert response.json() == {"type": "about:blank", "title": "Internal Server Error", "status": 500}


@pytest.mark.parametrize("route", ["/trap-midway?bytes=5000", "/dropped"])
def test_an_answer_that_breaks_off_looks_broken(served: Served, route: str) -> None:
    with pytest.raises(httpx2.TransportError):
        served.client.get(route)
    assert served.client.get("/hello").status_code == 200


@pytest.mark.parametrize("route", ["/sleep?ms=60000", "/spin", "/endless", "/slow-body?ms=60000"])
def test_a_client_that_hangs_up_stops_the_guest(served: Served, route: str) -> None:
    with served.raw(f"GET {route} HTTP/1.1", "host: guest.local"):
        until(lambda: served.exchanges() == 1)
    served.idle()


@pytest.mark.parametrize("route", ["/collect", "/echo", "/sleep?ms=60000"])
def test_a_client_that_hangs_up_in_its_request_stops_the_guest(served: Served, route: str) -> None:
    lines = [f"POST {route} HTTP/1.1", "host: guest.local", "content-length: 100000"]
    with served.raw(*lines, body=b"x" * 1000):
        if served.name == "daphne":
            pytest.skip("daphne calls an application when the whole request is there")
        until(lambda: served.exchanges() == 1)
    served.idle()


def test_half_a_head_is_no_request(served: Served) -> None:
    with served.raw("GET /hello HTTP/1.1", "host: guest") as connection:
        connection.recv(1)
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(b"GET /hello HTT")
    assert served.client.get("/hello").status_code == 200
    served.idle()


def test_a_client_that_never_reads(served: Served) -> None:
    """The guest is held up, and no more than a little is kept for the client; when it hangs up, the guest ends."""
    with served.raw("GET /endless HTTP/1.1", "host: guest.local"):
        until(lambda: served.exchanges() == 1)
        assert served.client.get("/hello").text == "Hello, World!"
    served.idle()


def test_pipelined_requests(served: Served) -> None:
    request = ["GET /hello HTTP/1.1", "host: guest.local", ""]
    last = ["GET /hello HTTP/1.1", "host: guest.local", "connection: close"]
    with served.raw(*request, *request, *last) as connection:
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert received.count(b"Hello, World!") == 3


def test_a_client_of_the_standard_library(served: Served) -> None:
    if served.is_h2:
        pytest.skip("it speaks HTTP/1.1 only")
    with urllib.request.urlopen(f"{served.url}/hello", timeout=30) as response:
        assert response.read() == b"Hello, World!"


def test_curl(served: Served) -> None:
    options = ["--http2-prior-knowledge"] if served.is_h2 else []
    command = ["curl", "-sS", "--max-time", "30", *options, "-d", json.dumps({"a": 1}), f"{served.url}/echo"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ('{"a": 1}', 0), done.stderr


SOCKETS = {
    "uvicorn-h11": ["uvicorn", APPLICATION, "--http", "h11", "--log-level", "error", "--uds", "{}"],
    "uvicorn-httptools": ["uvicorn", APPLICATION, "--http", "httptools", "--log-level", "error", "--uds", "{}"],
    "hypercorn": ["hypercorn", APPLICATION, "--bind", "unix:{}"],
    "granian": ["granian", "--interface", "asgi", APPLICATION, "--log-level", "error", "--uds", "{}"],
    "daphne": ["daphne", "-v", "0", APPLICATION, "-u", "{}"],
    "gunicorn": ["gunicorn", "tests.served_wsgi:wsgi", "--bind", "unix:{}"],
    "granian-wsgi": ["granian", "--interface", "wsgi", "tests.served_wsgi:wsgi", "--log-level", "error", "--uds", "{}"],
}


@pytest.mark.parametrize(
    "server", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SOCKETS]
)
def test_a_unix_socket(server: str, tmp_path: Path) -> None:
    """Its path is no host: without `Host` the guest's authority is `localhost`."""
    path = str(tmp_path / "socket")

    def ask(*lines: str) -> str:
        with (
            contextlib.suppress(FileNotFoundError, ConnectionRefusedError),
            socket.socket(socket.AF_UNIX) as connection,
        ):
            connection.settimeout(30)
            connection.connect(path)
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            with connection.makefile("rb") as answer:
                return answer.read().decode()
        return ""

    with serving([word.format(path) for word in SOCKETS[server]], lambda: "Hello" in ask("GET /hello HTTP/1.0")):
        assert 'authority: Some("localhost")' in ask("GET /inspect HTTP/1.0")
        assert 'authority: Some("a.example:99")' in ask(
            "GET /inspect HTTP/1.1", "host: a.example:99", "connection: close"
        )
