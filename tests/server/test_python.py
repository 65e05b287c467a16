"""Apps with Python in them, behind the native server: upstreams, sinks, `on_finish`, and what is logged."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

import wasgi
from tests.conftest import AppMaker, get, until
from tests.server.conftest import Client, Serve, once


def asked(server: wasgi.Server, target: str) -> tuple[int, bytes]:
    status, _, body = once(server, f"GET {target} HTTP/1.1\r\nhost: guest.local\r\n\r\n")
    return status, body


async def awaits(request: wasgi.Request) -> wasgi.Response:
    await asyncio.sleep(0.01)
    return wasgi.Response(200, body=f"{request.method} {request.url}")


def blocks(request: wasgi.Request) -> wasgi.Response:
    return wasgi.Response(200, body=f"{request.method} {request.url}")


@pytest.mark.parametrize("upstream", [awaits, blocks])
def test_upstreams(app: AppMaker, serve: Serve, upstream: Callable[..., Any]) -> None:
    server = serve(app(outgoing=upstream))
    assert asked(server, "/fetch?url=http://up/x") == (200, b"GET http://up/x")


def test_many_at_once(app: AppMaker, serve: Serve) -> None:
    server = serve(app(outgoing=awaits, limits=wasgi.Limits(queue=1000)))
    wrong: list[object] = []

    def ask() -> None:
        with Client(server) as client:
            for number in range(20):
                status, _, body = client.ask(f"/fetch?url=http://up/{number}").answer()
                if (status, body) != (200, f"GET http://up/{number}".encode()):
                    wrong.append((status, body))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_app_is_the_upstream_of_another(app: AppMaker, serve: Serve) -> None:
    server = serve(app(outgoing=app()))
    assert asked(server, "/fetch?url=http://up/hello") == (200, b"Hello, World!")


def test_a_client_that_leaves_cancels_the_upstream(app: AppMaker, serve: Serve) -> None:
    began, cancelled = threading.Event(), threading.Event()

    async def hangs(request: wasgi.Request) -> wasgi.Response:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError("unreachable")

    served = app(outgoing=hangs, limits=wasgi.Limits(timeout=None))
    client = Client(serve(served)).ask("/fetch?url=http://up/")
    assert began.wait(30)
    client.socket.close()
    assert cancelled.wait(30)
    until(lambda: served.exchanges == 0)


def test_on_finish(app: AppMaker, serve: Serve) -> None:
    told: list[wasgi.Exchange] = []
    server = serve(app(on_finish=told.append))
    assert [asked(server, target)[0] for target in ("/hello", "/trap", "/code?name=DNS-timeout")] == [200, 500, 504]
    until(lambda: len(told) == 3)
    assert [(one.status, type(one.error).__name__) for one in told] == [
        (200, "NoneType"),
        (None, "TrapError"),
        (None, "DnsTimeout"),
    ]
    assert told[0].url == "http://guest.local/hello"


@pytest.mark.parametrize("how", ["at once", "late"])
def test_lines_of_guests(app: AppMaker, serve: Serve, how: str) -> None:
    lines: list[Any] = []
    server = serve(app(stdout=lines.append, stderr=lines.append))
    # a guest that waits has its lines delivered as they come
    target = "/stdio?n=2&tag=t" if how == "at once" else "/print-and-fetch?url=http://up/&line=x"
    asked(server, target)
    until(lambda: len(lines) >= (5 if how == "at once" else 1))
    assert {line.exchange for line in lines} == {lines[0].exchange}
    if how == "at once":
        assert sorted(lines) == ["no newline at the end", "t err 0", "t err 1", "t out 0", "t out 1"]


def test_a_sink_that_raises_stops_nobody(app: AppMaker, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda raised: seen.append(raised.exc_value))

    def raises(line: str) -> None:
        raise RuntimeError(line)

    server = serve(app(stdout=raises))
    for _ in range(2):
        assert asked(server, "/stdio?n=1&tag=t")[0] == 200
    until(lambda: len(seen) >= 4)


def test_failures_are_logged(app: AppMaker, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wasgi.server")
    served = app()
    server = serve(served)
    asked(server, "/trap")
    with Client(server) as client:
        client.ask("/unfinished").rest()

    def records() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name == "wasgi.server"]

    until(lambda: len(records()) == 2)
    trapped, broke = records()
    assert trapped.levelname == "ERROR"
    assert trapped.exc_info is not None
    assert isinstance(trapped.exc_info[1], wasgi.TrapError)
    assert trapped.__dict__["wasgi_app"] == served._label
    assert trapped.__dict__["wasgi_exchange"] > 0
    assert trapped.getMessage().startswith("GET '/trap' is answered with 500: TrapError: ")
    assert "broke off" in broke.getMessage()


def test_the_same_app_by_the_server_and_by_hand(app: AppMaker, serve: Serve) -> None:
    served = app()
    server = serve(served)
    assert asked(server, "/hello")[1] == served.handle(get("/hello")).read()
    served.close()
    assert asked(server, "/hello")[0] == 503
