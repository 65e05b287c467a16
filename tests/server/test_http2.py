"""HTTP/2 by prior knowledge, with frames as clients write them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

import wasgi
from tests.conftest import AppMaker, until
from tests.server.conftest import Client, Serve


class Http2(Client):
    """A client of HTTP/2 that does what it is told."""

    def __init__(self, server: wasgi.Server, **settings: int) -> None:
        super().__init__(server)
        config = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings({h2.settings.SettingCodes[name.upper()]: value for name, value in settings.items()})
        self.events: list[Any] = []
        self.frames = b""
        self.goaways = 0
        self.flush()

    def flush(self) -> None:
        self.send(self.h2.data_to_send())

    def request(
        self,
        target: str,
        *fields: tuple[str, str],
        method: str = "GET",
        end: bool = True,
        scheme: str = "http",
        authority: str = "guest.local",
    ) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":path", target), (":scheme", scheme), (":authority", authority)]
        pairs = [(name, value) for name, value in pseudo if value]
        self.h2.send_headers(stream, [*pairs, *fields], end_stream=end)
        self.flush()
        return stream

    def listen(self, acknowledge: bool = True) -> bool:
        """Takes what comes; false at the connection's end."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        if not data:
            return False
        for event in self.h2.receive_data(self.without_goaways(data)):
            self.events.append(event)
            if acknowledge and isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()
        return True

    def without_goaways(self, data: bytes) -> bytes:
        """A client may use its streams after one (RFC 9113, 6.8); `h2` does not."""
        self.frames += data
        kept = b""
        while len(self.frames) >= 9 and len(self.frames) >= (size := 9 + int.from_bytes(self.frames[:3])):
            frame, self.frames = self.frames[:size], self.frames[size:]
            if frame[3] == 7:
                self.goaways += 1
            else:
                kept += frame
        return kept

    def of(self, kind: type[Any], stream: int) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind) and event.stream_id == stream]

    def has_ended(self, stream: int) -> bool:
        return bool(self.of(h2.events.StreamEnded, stream) or self.of(h2.events.StreamReset, stream))

    def finished(self, stream: int) -> tuple[int, dict[str, str], bytes]:
        while not self.has_ended(stream):
            assert self.listen()
        (head,) = self.of(h2.events.ResponseReceived, stream)
        fields = {name.decode(): value.decode() for name, value in head.headers}
        body = b"".join(event.data for event in self.of(h2.events.DataReceived, stream))
        return int(fields[":status"]), fields, body


@pytest.fixture
def served(app: AppMaker) -> wasgi.App:
    return app(limits=wasgi.Limits(timeout=None))


@pytest.fixture
def client(served: wasgi.App, serve: Serve) -> Iterator[Http2]:
    with Http2(serve(served)) as client:
        yield client


def test_streams_at_once(client: Http2) -> None:
    streams = [client.request(target) for target in ("/sleep?ms=300", "/hello", "/status?code=404")]
    assert [client.finished(stream)[0] for stream in streams] == [200, 200, 404]
    assert client.finished(streams[1])[2] == b"Hello, World!"


def test_what_the_guest_sees(client: Http2) -> None:
    stream = client.request("/inspect?a", ("host", "guest.local"), ("cookie", "a=1"), ("cookie", "b=2"))
    lines = client.finished(stream)[2].decode().split("\n")
    assert lines[1:] == [
        "scheme: Some(Scheme::Http)",
        'authority: Some("guest.local")',
        'path: Some("/inspect?a")',
        "header cookie: a=1; b=2",
    ]


@pytest.mark.parametrize(
    ("pseudo", "fields", "status"),
    [
        ({"authority": ""}, [("host", "guest.local")], 200),
        ({}, [("host", "other.local")], 400),
        ({"scheme": "https"}, [], 421),
        ({"authority": ""}, [("host", "guest%2elocal")], 400),
        ({}, [("cookie", "x" * 17_000)], 200),
        ({}, [("cookie", "x" * 70_000)], 431),
        ({}, [(f"x{i}", "y") for i in range(101)], 200),
        ({}, [(f"x{i}", "y") for i in range(300)], 431),
    ],
)
def test_requests_that_are_checked(
    client: Http2, pseudo: dict[str, Any], fields: list[tuple[str, str]], status: int
) -> None:
    assert client.finished(client.request("/hello", *fields, **pseudo))[0] == status


def test_a_tunnel_is_logged_with_where_to(served: wasgi.App, serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with Http2(serve(served, access_log=log, access_format="%(r)s %(s)s")) as client:
        assert client.finished(client.request("", method="CONNECT", scheme="", end=False))[0] == 501
    until(lambda: log.exists() and log.read_bytes() != b"")
    assert log.read_text() == "CONNECT guest.local HTTP/2.0 501\n"


@pytest.mark.parametrize("target", ["/status?code=204", "/status?code=304"])
def test_statuses_without_content(client: Http2, target: str) -> None:
    """Strict clients reset a stream with DATA there (RFC 9110, 15.3.5)."""
    stream = client.request(target)
    _, fields, _ = client.finished(stream)
    assert client.of(h2.events.DataReceived, stream) == []
    assert "content-length" not in fields


def test_head(client: Http2) -> None:
    stream = client.request("/length?declared=5&written=5", method="HEAD")
    status, fields, _ = client.finished(stream)
    assert (status, fields["content-length"]) == (200, "5")
    assert client.of(h2.events.DataReceived, stream) == []


def test_a_body_goes_both_ways(client: Http2) -> None:
    stream = client.request("/echo", method="POST", end=False)
    for part in (b"one", b"two"):
        client.h2.send_data(stream, part)
        client.flush()
        while not (came := client.of(h2.events.DataReceived, stream)) or came[-1].data != part:
            assert client.listen()
    client.h2.end_stream(stream)
    client.flush()
    assert client.finished(stream)[2] == b"onetwo"


def test_trailers(client: Http2) -> None:
    stream = client.request("/trailers", ("te", "trailers"))
    assert client.finished(stream)[0] == 200
    assert client.of(h2.events.TrailersReceived, stream)


@pytest.mark.parametrize("target", ["/trap-midway?bytes=100000", "/unfinished", "/length?declared=9&written=5"])
def test_an_answer_that_breaks_off_resets_its_stream(client: Http2, target: str) -> None:
    stream = client.request(target)
    while not client.has_ended(stream):
        assert client.listen()
    assert client.of(h2.events.StreamReset, stream)
    assert client.finished(client.request("/hello"))[0] == 200


@pytest.mark.parametrize("target", ["/sleep?ms=60000", "/endless", "/slow-body?ms=60000"])
def test_a_stream_that_is_reset_stops_its_guest(client: Http2, served: wasgi.App, target: str) -> None:
    stream = client.request(target)
    until(lambda: served.exchanges == 1)
    client.h2.reset_stream(stream)
    client.flush()
    until(lambda: served.exchanges == 0)
    assert client.finished(client.request("/hello"))[0] == 200


def test_a_client_that_leaves_stops_its_guests(client: Http2, served: wasgi.App) -> None:
    for _ in range(3):
        client.request("/sleep?ms=60000")
    until(lambda: served.exchanges == 3)
    client.socket.close()
    until(lambda: served.exchanges == 0)


def test_a_body_that_its_guest_does_not_read_holds_up_no_other_stream(client: Http2) -> None:
    """Each stream's window is a part of the connection's (RFC 9113, 5.2)."""
    waits = client.request("/sleep?ms=2500", method="POST", end=False)
    sent = 0
    while room := client.h2.local_flow_control_window(waits):
        part = min(room, 16384)
        client.h2.send_data(waits, bytes(part))
        client.flush()
        sent += part
        client.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while client.listen():
                pass
        client.socket.settimeout(20)
    assert sent >= 65_535
    other = client.request("/collect", method="POST", end=False)
    body = bytes(100_000)
    for at in range(0, len(body), 10_000):
        while client.h2.local_flow_control_window(other) < 10_000:
            assert client.listen()
        client.h2.send_data(other, body[at : at + 10_000], end_stream=at == 90_000)
        client.flush()
    assert client.finished(other)[2].startswith(b"100000 bytes")
    assert not client.has_ended(waits)


def test_a_client_that_takes_nothing_of_a_stream_loses_that_alone(served: wasgi.App, serve: Serve) -> None:
    with Http2(serve(served, body_timeout=0.5)) as client:
        stalled = client.request("/endless")
        until(lambda: served.exchanges == 1)
        while not client.has_ended(stalled):
            assert client.listen(acknowledge=False)
        until(lambda: served.exchanges == 0)
        client.h2.increment_flow_control_window(1 << 20)
        assert client.finished(client.request("/hello"))[0] == 200


def test_a_body_that_stops_coming(served: wasgi.App, serve: Serve) -> None:
    with Http2(serve(served, body_timeout=0.4)) as client:
        stream = client.request("/collect", method="POST", end=False)
        assert client.finished(stream)[0] == 408
        assert client.finished(client.request("/hello"))[0] == 200


def test_an_idle_connection_is_closed(served: wasgi.App, serve: Serve) -> None:
    with Http2(serve(served, idle_timeout=0.4)) as client:
        assert client.finished(client.request("/hello"))[0] == 200
        while client.listen():
            pass
        assert client.goaways


def test_streams_that_a_goaway_promises_are_served(served: wasgi.App, serve: Serve) -> None:
    """RFC 9113, 6.8."""
    server = serve(served)
    with Http2(server) as client:
        stream = client.request("/sleep?ms=700")
        until(lambda: served.exchanges == 1)
        closing = threading.Thread(target=server.close)
        closing.start()
        assert client.finished(stream)[2] == b"slept"
        while client.listen():
            pass
        assert client.goaways == 2
        closing.join()


CURL = shutil.which("curl")


@pytest.mark.skipif(CURL is None, reason="needs curl")
@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_curl_gets_the_answer_to_an_upload_that_is_refused(
    app: AppMaker, serve: Serve, tmp_path: Path, version: str
) -> None:
    """curl before 8 gives up at a reset that comes before it has sent all, allowed as it is (RFC 9113, 8.1)."""
    server = serve(app(limits=wasgi.Limits(request_body=1000)))
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(8 << 20))
    for _ in range(10):
        command: list[str | Path] = [str(CURL), "-s", version, "-o", tmp_path / "answer", "-w", "%{http_code}"]
        command += ["-T", upload, f"{server.urls[0]}/echo"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stdout) == (0, "413")


@pytest.mark.skipif(CURL is None, reason="needs curl")
@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_curl_echoes(app: AppMaker, serve: Serve, tmp_path: Path, version: str) -> None:
    """With `expect: 100-continue`, which curl sends for a body of this size."""
    server = serve(app())
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(range(256)) * (16 << 10))
    command: list[str | Path] = [
        str(CURL),
        "-s",
        version,
        "-H",
        "expect: 100-continue",
        "-o",
        tmp_path / "answer",
        "-T",
        upload,
    ]
    assert subprocess.run([*command, f"{server.urls[0]}/echo"], timeout=60).returncode == 0
    assert (tmp_path / "answer").read_bytes() == upload.read_bytes()
