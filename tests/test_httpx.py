"""A component as the transport of a client, of either library, blocking or not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

import wasgi
import wasgi.httpx
from tests.conftest import AppMaker, until

libraries = pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
both = pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "async"])

BASE = "http://guest.local"


async def ask(library: ModuleType, is_async: bool, app: wasgi.App, method: str, path: str, **options: Any) -> Any:
    """One request, read whole."""
    client_options = {"follow_redirects": True, **options.pop("client", {})}
    if is_async:
        async with library.AsyncClient(transport=wasgi.httpx.AsyncTransport(app), **client_options) as client:
            return await client.request(method, BASE + path, **options)

    def blocking() -> Any:
        with library.Client(transport=wasgi.httpx.Transport(app), **client_options) as client:
            return client.request(method, BASE + path, **options)

    return await asyncio.to_thread(blocking)


@libraries
@both
async def test_hello(library: ModuleType, is_async: bool, app: AppMaker) -> None:
    response = await ask(library, is_async, app(), "GET", "/hello")
    assert (response.status_code, response.text) == (200, "Hello, World!")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.extensions["wasgi_response"].report.memory > 0


@libraries
@both
async def test_the_request(library: ModuleType, is_async: bool, app: AppMaker) -> None:
    headers = [("x-a", "1"), ("x-a", "2")]
    response = await ask(library, is_async, app(), "PATCH", "/inspect?a=%20&b", headers=headers)
    lines = response.text.splitlines()
    assert lines[:4] == [
        "method: Method::Patch",
        "scheme: Some(Scheme::Http)",
        'authority: Some("guest.local")',
        'path: Some("/inspect?a=%20&b")',
    ]
    assert [line for line in lines if "x-a" in line] == ["header x-a: 1", "header x-a: 2"]


@libraries
@both
async def test_bodies(library: ModuleType, is_async: bool, app: AppMaker) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"a" * 10_000
        yield b"b" * 10_000

    async def async_chunks() -> AsyncIterator[bytes]:
        for chunk in chunks():
            yield chunk

    whole = b"a" * 10_000 + b"b" * 10_000
    for content in (whole, async_chunks() if is_async else chunks()):
        response = await ask(library, is_async, app(), "POST", "/echo", content=content)
        assert response.content == whole
    response = await ask(library, is_async, app(), "POST", "/echo", json={"a": 1})
    assert response.json() == {"a": 1}


@libraries
async def test_streams(library: ModuleType, app: AppMaker) -> None:
    transport = wasgi.httpx.AsyncTransport(app())
    async with library.AsyncClient(transport=transport) as client:
        async with client.stream("GET", f"{BASE}/slow-body?ms=100") as response:
            chunks = response.aiter_raw()
            assert await anext(chunks) == b"first"
            assert await anext(chunks) == b"last"
        async with client.stream("GET", f"{BASE}/endless") as response:
            await anext(response.aiter_raw())
            until(lambda: wasgi.stats().exchanges == 1)  # the one before is on its way out
    blocking = library.Client(transport=wasgi.httpx.Transport(app()))
    with blocking, blocking.stream("GET", f"{BASE}/endless") as response:
        assert next(response.iter_raw())
    until(lambda: wasgi.stats().exchanges == 0)


@libraries
@both
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/trap", "RemoteProtocolError"),
        ("/silent", "RemoteProtocolError"),
        ("/spin", "ReadTimeout"),
        ("/trap-midway?bytes=10", "ReadError"),
        ("/slow-body?ms=60000", "ReadTimeout"),
        ("/code?name=connection-refused", "ConnectError"),
        ("/code?name=DNS-timeout", "ConnectTimeout"),
        ("/code?name=connection-read-timeout", "ReadTimeout"),
        ("/code?name=connection-write-timeout", "WriteTimeout"),
        ("/code?name=HTTP-request-denied", "LocalProtocolError"),
        ("/code?name=HTTP-protocol-error", "RemoteProtocolError"),
    ],
)
async def test_failures(library: ModuleType, is_async: bool, app: AppMaker, path: str, name: str) -> None:
    made = app(limits=wasgi.Limits(timeout=0.2))
    with pytest.raises(getattr(library, name)) as raised:
        await ask(library, is_async, made, "GET", path)
    assert type(raised.value).__name__ == name
    assert isinstance(raised.value.__cause__, wasgi.WasgiError)
    assert str(raised.value.request.url) == BASE + path


def test_each_failure_has_a_counterpart() -> None:
    from wasgi.httpx import exception_name

    made: list[Exception] = [error() for error in wasgi.errors.ERROR_CODES.values()]
    made += [wasgi.OverloadedError("x"), wasgi.AppClosedError("x"), wasgi.TrapError("x"), wasgi.BodyError("x")]
    for error in made:
        for library in (httpx, httpx2):
            assert issubclass(getattr(library, exception_name(error)), library.TransportError)


@libraries
@both
@pytest.mark.parametrize("path", ["/sleep?ms=60000", "/slow-body?ms=60000"])
async def test_the_clients_own_timeout(library: ModuleType, is_async: bool, app: AppMaker, path: str) -> None:
    timeout = library.Timeout(5.0, read=0.1)
    with pytest.raises(library.ReadTimeout, match=r"^timed out after 0\.1 s \(the client's `read` timeout\)$"):
        await ask(library, is_async, app(), "GET", path, timeout=timeout)
    while wasgi.stats().exchanges:
        await asyncio.sleep(0)


@libraries
@both
@pytest.mark.parametrize(
    ("method", "path"),
    [("HEAD", "/hello"), ("HEAD", "/endless"), ("GET", "/status?code=204"), ("GET", "/status?code=304")],
)
async def test_answers_without_a_body(
    library: ModuleType, is_async: bool, app: AppMaker, method: str, path: str
) -> None:
    response = await ask(library, is_async, app(), method, path)
    assert response.content == b""
    while wasgi.stats().exchanges:
        await asyncio.sleep(0)


@libraries
@both
async def test_an_interim_answer_is_none(library: ModuleType, is_async: bool, app: AppMaker) -> None:
    with pytest.raises(library.RemoteProtocolError):
        await ask(library, is_async, app(), "GET", "/status?code=103")


@libraries
@both
@pytest.mark.parametrize("error", [KeyError, TimeoutError, wasgi.OverloadedError])
async def test_the_callers_own_exception_comes_back(
    library: ModuleType, is_async: bool, app: AppMaker, error: type[Exception]
) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"a"
        raise error("mine")

    async def async_chunks() -> AsyncIterator[bytes]:
        for chunk in chunks():
            yield chunk

    with pytest.raises(error, match="mine"):
        await ask(library, is_async, app(), "POST", "/collect", content=async_chunks() if is_async else chunks())


@libraries
@both
async def test_cookies_and_redirects(library: ModuleType, is_async: bool, app: AppMaker) -> None:
    """They are the client's business, and work as over the network."""

    def upstream(request: wasgi.Request) -> wasgi.Response:
        if request.path == "/start":
            return wasgi.Response(302, headers={"location": f"{BASE}/fetch?url=http://up/end", "set-cookie": "a=1"})
        return wasgi.Response(body=b"end")

    response = await ask(library, is_async, app(outgoing=upstream), "GET", "/fetch?url=http://up/start")
    assert (response.text, len(response.history)) == ("end", 1)
    assert response.request.headers["cookie"] == "a=1"


@libraries
@both
async def test_trace(library: ModuleType, is_async: bool, app: AppMaker) -> None:
    events: list[str] = []

    async def traced(name: str, info: dict[str, Any]) -> None:
        events.append(name)

    def note(name: str, info: dict[str, Any]) -> None:
        events.append(name)

    extensions = {"trace": traced if is_async else note}
    await ask(library, is_async, app(), "GET", "/hello", extensions=extensions)
    with pytest.raises(library.TransportError):
        await ask(library, is_async, app(), "GET", "/trap", extensions=extensions)
    assert events == [f"wasgi.handle.{what}" for what in ("started", "complete", "started", "failed")]


def test_starlettes_test_client(app: AppMaker) -> None:
    from starlette.testclient import TestClient

    with TestClient(app()) as client:
        assert client.get("/hello").text == "Hello, World!"
        assert client.post("/echo", content=b"body").content == b"body"
        assert client.get("/trap").status_code == 500


@libraries
@both
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST", "PURGE"])
async def test_a_body_that_no_field_tells_of(library: Any, is_async: bool, app: AppMaker, method: str) -> None:
    """As of a request that is made of a stream, or whose fields somebody has changed."""

    class Stream(library.SyncByteStream, library.AsyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            yield b"he"
            yield b"llo"

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in self:
                yield chunk

    made = library.Request(method, f"{BASE}/collect", stream=Stream())
    changed = library.Request(method, f"{BASE}/collect", content=b"hello")
    del changed.headers["content-length"]
    for request in (made, changed):
        if is_async:
            response = await wasgi.httpx.AsyncTransport(app()).handle_async_request(request)
            assert await response.aread() == b"5 bytes: hello"
        else:
            response = await asyncio.to_thread(wasgi.httpx.Transport(app()).handle_request, request)
            assert response.read() == b"5 bytes: hello"


@libraries
@both
async def test_a_request_without_a_host(library: ModuleType, is_async: bool, app: AppMaker) -> None:
    for url, authority in (("http://a.local/", "a.local"), ("https://a.local:8443/", "a.local:8443")):
        request = library.Request("GET", f"{url}inspect")
        del request.headers["host"]
        if is_async:
            response = await wasgi.httpx.AsyncTransport(app()).handle_async_request(request)
            await response.aread()
        else:
            response = await asyncio.to_thread(wasgi.httpx.Transport(app()).handle_request, request)
            response.read()
        assert f'authority: Some("{authority}")' in response.text


@libraries
@both
async def test_a_guest_that_answers_head_with_a_body_may_end(
    library: ModuleType, is_async: bool, app: AppMaker
) -> None:
    """What ends is one that has not ended its body, not one that works on."""
    lines: list[str] = []
    closed = threading.Event()

    def upstream(request: wasgi.Request) -> wasgi.Response:
        assert closed.wait(30)
        return wasgi.Response()

    made = app(outgoing=upstream, stdout=lines.append)
    response = await ask(library, is_async, made, "HEAD", "/work-after?url=http://up/")
    assert response.content == b""
    closed.set()
    await asyncio.to_thread(until, lambda: lines == ["worked on"])


@libraries
@both
@pytest.mark.parametrize("field", [("host", "a b"), ("host", "a.local:x"), ("x-a", "a\nb")])
async def test_a_request_that_cannot_be_sent(
    library: ModuleType, is_async: bool, app: AppMaker, field: tuple[str, str]
) -> None:
    told: list[str] = []

    async def trace_async(name: str, _: Any) -> None:
        told.append(name)

    request = library.Request("GET", f"{BASE}/hello")
    request.headers[field[0]] = field[1]
    request.extensions = {"trace": trace_async if is_async else lambda name, _: told.append(name)}
    with pytest.raises(library.LocalProtocolError) as raised:
        if is_async:
            await wasgi.httpx.AsyncTransport(app()).handle_async_request(request)
        else:
            wasgi.httpx.Transport(app()).handle_request(request)
    assert raised.value.request is request
    assert isinstance(raised.value.__cause__, ValueError)
    assert told == ["wasgi.handle.started", "wasgi.handle.failed"]
