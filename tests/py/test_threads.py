"""Which thread calls what: each row of the table in docs/logging.md."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

import wasgi
from tests import asgi_driver
from tests.conftest import ROOT, AppMaker, get, post, until

Call = Callable[[wasgi.App, wasgi.Request], bytes]


class Seen:
    """On which threads something has run, as the table names them."""

    def __init__(self) -> None:
        self.caller = threading.current_thread()
        self.names: set[str] = set()

    def __call__(self, *_: object) -> None:
        here = threading.current_thread()
        name = "caller" if here is self.caller else re.sub(r"\d+", "N", here.name)
        self.names.add(name)

    def when_there(self) -> set[str]:
        until(lambda: bool(self.names))
        return self.names


OURS = "wasgi-thread-N"
OWN_LOOP = "wasgi-loop"


def blocking(app: wasgi.App, request: wasgi.Request) -> bytes:
    return bytes(app.handle(request).read())


def awaited(app: wasgi.App, request: wasgi.Request) -> bytes:
    async def call() -> bytes:
        return bytes(await (await app.handle_async(request)).aread())

    return asyncio.run(call())


BOTH = pytest.mark.parametrize("call", [blocking, awaited])


@pytest.fixture
def seen() -> Seen:
    return Seen()


def on(call: Call, one: str, other: str) -> set[str]:
    return {one if call is blocking else other}


@BOTH
@pytest.mark.parametrize("way", ["callable", "file", "handler"])
@pytest.mark.parametrize("path", ["/stdio?n=3&tag=t", "/print-and-fetch?url=http://up/", "/trap-midway?bytes=10"])
def test_sinks(
    app: AppMaker,
    seen: Seen,
    call: Call,
    way: str,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class File:
        def write(self, text: str) -> None:
            seen()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen()

    options: dict[str, Any] = {
        "callable": {"stdout": seen, "stderr": seen},
        "file": {"stdout": File(), "stderr": File()},
    }
    if way == "handler":
        log = logging.getLogger("wasgi.guest")
        caplog.set_level(logging.INFO, "wasgi.guest")
        monkeypatch.setattr(log, "handlers", [Handler()])
        monkeypatch.setattr(log, "propagate", False)
    made = app(outgoing=lambda request: wasgi.Response(), **options.get(way, {}))
    try:
        call(made, get(path))
    except wasgi.BodyError:
        assert path.startswith("/trap-midway")
    names = seen.when_there()
    assert names <= {"caller", OURS} if call is blocking else names == {OURS}


@BOTH
def test_an_upstream_that_is_a_function(app: AppMaker, seen: Seen, call: Call) -> None:
    def upstream(request: wasgi.Request) -> wasgi.Response:
        seen()
        return wasgi.Response(body=b"up")

    assert call(app(outgoing=upstream), get("/fetch?url=http://up/")) == b"up"
    assert seen.names == {OURS}


@BOTH
def test_an_upstream_that_is_a_coroutine_function(app: AppMaker, seen: Seen, call: Call) -> None:
    async def upstream(request: wasgi.Request) -> wasgi.Response:
        seen()
        return wasgi.Response(body=b"up")

    assert call(app(outgoing=upstream), get("/fetch?url=http://up/")) == b"up"
    assert seen.names == on(call, OWN_LOOP, "caller")


@BOTH
def test_what_a_function_gives_to_be_awaited(app: AppMaker, seen: Seen, call: Call) -> None:
    async def answer() -> wasgi.Response:
        seen()
        return wasgi.Response(body=b"up")

    assert call(app(outgoing=lambda request: answer()), get("/fetch?url=http://up/")) == b"up"
    assert seen.names == on(call, OWN_LOOP, "caller")


@BOTH
@pytest.mark.parametrize("whose", ["request", "response"])
@pytest.mark.parametrize("kind", ["iterator", "file", "async iterator"])
def test_bodies(app: AppMaker, seen: Seen, call: Call, whose: str, kind: str) -> None:
    def iterator() -> Iterator[bytes]:
        for _ in range(3):
            seen()
            yield b"x"
        seen()

    async def async_iterator() -> AsyncIterator[bytes]:
        for _ in range(3):
            seen()
            yield b"x"
        seen()

    class File:
        left = 3

        def read(self, size: int) -> bytes:
            seen()
            self.left -= 1
            return b"x" if self.left >= 0 else b""

    body: Any = {"iterator": iterator, "file": File, "async iterator": async_iterator}[kind]()
    if whose == "request":
        assert call(app(), post("/echo", body)) == b"xxx"
    else:
        made = app(outgoing=lambda request: wasgi.Response(body=body))
        assert call(made, get("/fetch?url=http://up/")) == b"xxx"
    assert seen.names == ({OURS} if kind != "async iterator" else on(call, OWN_LOOP, "caller"))


@pytest.mark.parametrize("name", ["on_request", "on_error"])
class TestUnderAServer:
    async def test_a_function_under_asgi(self, app: AppMaker, seen: Seen, name: str) -> None:
        await asgi_driver.get(app(**{name: seen}), "/trap")
        assert seen.names == {"caller"}

    async def test_a_coroutine_function_under_asgi(self, app: AppMaker, seen: Seen, name: str) -> None:
        async def callback(*arguments: object) -> None:
            seen()

        await asgi_driver.get(app(**{name: callback}), "/trap")
        assert seen.names == {"caller"}

    def test_a_function_under_wsgi(self, app: AppMaker, seen: Seen, name: str) -> None:
        environ: dict[str, Any] = {"PATH_INFO": "/trap"}
        setup_testing_defaults(environ)
        app(**{name: seen}).wsgi(environ, lambda status, headers: None)
        assert seen.names == {"caller"}

    async def test_what_is_printed_under_asgi(self, app: AppMaker, seen: Seen, name: str) -> None:
        await asgi_driver.get(app(stdout=seen, stderr=seen, **{name: lambda *_: None}), "/stdio?n=1&tag=t")
        assert await asyncio.to_thread(seen.when_there) == {OURS}


@BOTH
def test_on_finish(app: AppMaker, seen: Seen, call: Call) -> None:
    with app(on_finish=seen) as made:
        call(made, get("/hello"))
    assert seen.names == {OURS}


def test_the_table_has_what_an_app_may_be_given() -> None:
    table = (ROOT / "docs" / "logging.md").read_text().partition("## Which thread calls what")[2]
    for name in ("stdout=", "stderr=", "outgoing=", "body=", "on_request=", "on_error=", "on_finish="):
        assert f"`{name}`" in table
