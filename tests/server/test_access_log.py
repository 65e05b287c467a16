"""The access log: one line for what went over the wire, whatever a client writes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import wasgi
from tests.conftest import AppMaker, until
from tests.server.conftest import Client, Serve, once

HOST = "host: guest.local\r\n"


class Log:
    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self, number: int) -> list[str]:
        until(lambda: self.path.exists() and len(self.path.read_bytes().splitlines()) >= number)
        found = self.path.read_text().splitlines()
        assert len(found) == number, found
        return found

    def entries(self, number: int) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines(number)]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "access.log")


def test_the_combined_format(app: AppMaker, serve: Serve, log: Log) -> None:
    server = serve(app(), access_log=log.path)
    once(server, f'GET /hello?a=%0D HTTP/1.1\r\n{HOST}user-agent: a"b\r\nreferer: http://x/\r\n\r\n')
    (line,) = log.lines(1)
    assert line.startswith("127.0.0.1 - - [")
    assert line.endswith(r'"GET /hello?a=%0D HTTP/1.1" 200 13 "http://x/" "a\x22b"')


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET /\xe9 HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        (f"GET / HTTP/1.1\r\n{HOST}x: {'y' * 70_000}\r\n\r\n", 431),
        (f"GET /trap HTTP/1.1\r\n{HOST}\r\n", 500),
        (f"GET /status?code=304 HTTP/1.1\r\n{HOST}\r\n", 304),
        (f"GET /x HTTP/1.1\r\n{HOST}\x7fname: y\r\n\r\n", 400),
        (f"GET /length?declared=0&written=0 HTTP/1.1\r\n{HOST}\r\n", 200),
        (f"GET /reply?code=302&header=content-length:0&body= HTTP/1.1\r\n{HOST}\r\n", 302),
        (f"POST /collect HTTP/1.1\r\n{HOST}content-length: {2**64 - 1}\r\n\r\nabc", 400),
    ],
)
def test_each_answer_has_a_line(app: AppMaker, serve: Serve, log: Log, sent: str, status: int) -> None:
    server = serve(app(), access_log=log.path, access_format="json")
    assert once(server, sent)[0] == status
    assert [(entry["status"], entry.get("outcome")) for entry in log.entries(1)] == [(status, None)]


def test_a_refused_head_has_no_fields_that_it_did_not_send(app: AppMaker, serve: Serve, log: Log) -> None:
    server = serve(app(), access_log=log.path, access_format="%({host}i)s|%(s)s")
    assert once(server, "GET / HTTP/1.1\r\nx: y\r\n\r\n")[0] == 400
    assert log.lines(1) == ["-|400"]


def test_a_client_that_has_left(app: AppMaker, serve: Serve, log: Log) -> None:
    served = app(limits=wasgi.Limits(timeout=None))
    server = serve(served, access_log=log.path, access_format="json")
    client = Client(server).ask("/sleep?ms=60000")
    until(lambda: served.exchanges == 1)
    client.socket.close()
    (entry,) = log.entries(1)
    assert (entry["status"], entry["bytes"]) == (499, 0)


def test_a_client_that_does_not_send_what_the_rest_of_its_answer_is_made_of(
    app: AppMaker, serve: Serve, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """That is its fault, not the guest's."""
    caplog.set_level(logging.INFO, logger="wasgi.server")
    server = serve(app(), access_log=log.path, access_format="json", body_timeout=0.2)
    with Client(server) as client:
        client.ask("/echo", "content-length: 9", method="POST", body=b"ab")
        assert client.head()[0] == 200
        assert not client.rest().endswith(b"0\r\n\r\n")
    (entry,) = log.entries(1)
    assert (entry["status"], entry["outcome"]) == (200, "the request broke off")
    until(lambda: any("/echo" in record.getMessage() for record in caplog.records))
    (record,) = [record for record in caplog.records if "/echo" in record.getMessage()]
    assert (record.name, record.levelno) == ("wasgi.server", logging.INFO)
    assert "`body_timeout`" in record.getMessage()


@pytest.mark.parametrize(("target", "status"), [("/sleep?ms=60000", 503), ("/endless", 200)])
def test_what_the_end_of_the_server_cuts_off(app: AppMaker, serve: Serve, log: Log, target: str, status: int) -> None:
    """Its client has not left."""
    served = app(limits=wasgi.Limits(timeout=None))
    server = serve(served, access_log=log.path, access_format="json")
    with Client(server) as client:
        client.ask(target)
        until(lambda: served.exchanges == 1)
        if status == 200:
            client.until(b"\r\n\r\n")
        server.close(0)
        (entry,) = log.entries(1)
    assert (entry["status"], entry["outcome"]) == (status, "the server ended")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full is a file of Linux")
def test_a_log_that_loses_lines_is_told_at_once(app: AppMaker, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """By the logger that all else of the server is told by."""
    server = serve(app(), access_log="/dev/full")
    once(server, f"GET /hello HTTP/1.1\r\n{HOST}\r\n")
    until(lambda: bool(caplog.records))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("wasgi.server", logging.WARNING)
    assert record.getMessage().startswith("the access log cannot be written: ")


def test_no_client_writes_a_second_line(app: AppMaker, serve: Serve, log: Log) -> None:
    server = serve(app(), access_log=log.path)
    once(server, f"GET /%0d%0aFAKE HTTP/1.1\r\n{HOST}user-agent: a\tb\xff\x1b[31m\r\n\r\n")
    (line,) = log.lines(1)
    assert line.isascii()
    assert "\x1b" not in line


def test_ids_pass_or_are_made(app: AppMaker, serve: Serve, log: Log) -> None:
    server = serve(app(), access_log=log.path, access_format="json", request_ids=True)
    _, _, body = once(server, f"GET /inspect HTTP/1.1\r\n{HOST}\r\n")
    _, _, own = once(server, f"GET /inspect HTTP/1.1\r\n{HOST}x-request-id: mine\r\n\r\n")
    first, second = log.entries(2)
    assert f"header x-request-id: {first['request_id']}" in body.decode()
    assert f"header traceparent: {first['traceparent']}" in body.decode()
    assert "header x-request-id: mine" in own.decode()
    assert second["request_id"] == "mine"
    assert first["exchange"] != second["exchange"]


def test_a_log_that_is_moved_is_opened_anew(app: AppMaker, serve: Serve, log: Log) -> None:
    server = serve(app(), access_log=log.path)
    once(server, f"GET /hello HTTP/1.1\r\n{HOST}\r\n")
    log.lines(1)
    log.path.rename(log.path.with_suffix(".1"))
    server.reopen()
    once(server, f"GET /hello?second HTTP/1.1\r\n{HOST}\r\n")
    assert "/hello?second" in log.lines(1)[0]


def test_a_wrong_format(app: AppMaker) -> None:
    with pytest.raises(ValueError, match="%"):
        wasgi.Server(app(), bind="127.0.0.1:0", access_log="-", access_format="%(nothing)s")


def test_behind_a_proxy_that_is_trusted(app: AppMaker, serve: Serve, log: Log) -> None:
    server = serve(
        app(forwarded=True), access_log=log.path, access_format="json", trusted=["127.0.0.0/8", "10.0.0.0/8"]
    )
    fields = "x-forwarded-for: 6.6.6.6, 203.0.113.7:1234\r\nx-forwarded-for: 10.0.0.3\r\nx-forwarded-proto: https\r\n"
    _, _, body = once(server, f"GET /inspect HTTP/1.1\r\n{HOST}{fields}x-forwarded-host: shop.local\r\n\r\n")
    assert [line for line in body.decode().split("\n") if "forwarded" in line or ":" in line][1:] == [
        "scheme: Some(Scheme::Https)",
        'authority: Some("shop.local")',
        'path: Some("/inspect")',
        "header x-forwarded-for: 203.0.113.7",
        "header x-forwarded-proto: https",
        "header x-forwarded-host: shop.local",
    ]
    assert log.entries(1)[0]["client"] == "203.0.113.7"


def test_proxy_protocol(app: AppMaker, serve: Serve) -> None:
    options = {"proxy_protocol": True, "trusted": ["127.0.0.1"]}
    server = serve(app(forwarded=True), **options)
    request = f"GET /inspect HTTP/1.1\r\n{HOST}\r\n"
    _, _, body = once(server, f"PROXY TCP4 203.0.113.7 10.0.0.1 1234 80\r\n{request}")
    assert b"header x-forwarded-for: 203.0.113.7" in body
    version2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([203, 0, 113, 8, 10, 0, 0, 1, 4, 0, 0, 80])
    _, _, body = once(server, version2 + request.encode())
    assert b"header x-forwarded-for: 203.0.113.8" in body
    with Client(server) as client:
        assert client.send(request).answer()[0] == 400
    with Client(serve(app(), proxy_protocol=True)) as client:  # nobody is trusted
        assert client.send(f"PROXY TCP4 203.0.113.7 10.0.0.1 1234 80\r\n{request}").answer()[0] == 400
