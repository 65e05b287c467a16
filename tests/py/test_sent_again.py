"""Requests and responses whose body is bytes are values: they are sent as often as one likes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import pytest

import wasgi
from tests import asgi_driver
from tests.conftest import AppMaker, get, post
from wasgi import outgoing

BODIES = [None, b"", b"bytes", "text", bytearray(b"array")]
ONCE = r"consumed already; hint: it was one stream, which is read or sent once; make another request or response"


def chunks() -> Iterator[bytes]:
    yield b"one "
    yield b"two"


async def achunks() -> AsyncIterator[bytes]:
    yield b"one "
    yield b"two"


def content_of(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body or b"")


class TestARequest:
    @pytest.mark.parametrize("body", BODIES)
    def test_by_handle(self, app: AppMaker, body: Any) -> None:
        made, request = app(), post("/echo", body)
        assert [made.handle(request).read() for _ in range(3)] == [content_of(body)] * 3

    @pytest.mark.parametrize("body", BODIES)
    async def test_by_handle_async(self, app: AppMaker, body: Any) -> None:
        made, request = app(), post("/echo", body)

        async def call() -> bytes:
            return await (await made.handle_async(request)).aread()

        assert list(await asyncio.gather(call(), call(), call())) == [content_of(body)] * 3

    def test_from_many_threads(self, app: AppMaker) -> None:
        made, request = app(), post("/echo", b"x" * 100_000)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: made.handle(request).read(), range(40))) == {b"x" * 100_000}

    def test_it_says_its_length_and_its_trailers_each_time(self, app: AppMaker) -> None:
        made, request = app(), post("/inspect", b"four", trailers={"x-sum": "1"})
        first, second = (made.handle(request).text for _ in range(2))
        assert first == second
        assert "content-length" in first

    @pytest.mark.parametrize("read", [wasgi.Request.read, list, lambda request: request.text])
    def test_one_that_was_read_is_sent(self, app: AppMaker, read: Callable[[wasgi.Request], object]) -> None:
        request = post("/echo", b"x")
        read(request)
        assert app().handle(request).read() == b"x"

    def test_one_that_was_sent_is_read_copied_and_compared(self, app: AppMaker) -> None:
        request = post("/echo", b"x")
        app().handle(request).read()
        assert copy.copy(request) == request == post("/echo", b"x")
        assert request.read() == b"x"

    def test_one_that_is_the_body_of_another_keeps_its_own(self, app: AppMaker) -> None:
        inner = wasgi.Response(body=b"x")
        assert [app().handle(post("/echo", inner)).read() for _ in range(2)] == [b"x", b"x"]
        assert inner.read() == b"x"

    @pytest.mark.parametrize("body", [chunks, achunks])
    def test_one_that_streams_is_sent_once(self, app: AppMaker, body: Callable[[], Any]) -> None:
        request = post("/echo", body())
        assert app().handle(request).read() == b"one two"
        with pytest.raises(wasgi.BodyError, match=ONCE):
            app().handle(request)

    @pytest.mark.parametrize("kind", ["app", "function", "asgi", "wsgi", "httpx"])
    async def test_by_an_upstream_of_any_kind(self, app: AppMaker, kind: str) -> None:
        async def asgi(scope: Any, receive: Any, send: Any) -> None:
            body = (await receive())["body"]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

        def wsgi(environ: Any, start_response: Any) -> list[bytes]:
            start_response("200 OK", [])
            return [environ["wsgi.input"].read()]

        def answer(request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(200, content=request.read())

        upstream: Any = {
            "app": app(),
            "function": lambda request: wasgi.Response(body=request.read()),
            "asgi": outgoing.asgi(asgi),
            "wsgi": outgoing.wsgi(wsgi),
            "httpx": outgoing.httpx(httpx2.MockTransport(answer)),
        }[kind]
        request = post("/echo", b"x")

        async def middleware(_: wasgi.Request) -> wasgi.Response:
            return await outgoing.call(upstream, request)

        made = app(outgoing=middleware)
        for _ in range(2):
            assert await (await made.handle_async(get("/fetch?url=http://up/"))).aread() == b"x"

    async def test_one_that_middleware_has_read_is_handed_on(self, app: AppMaker) -> None:
        seen: list[bytes] = []
        inner = app()

        async def middleware(request: wasgi.Request) -> wasgi.Response:
            seen.append(await request.aread())
            return await outgoing.call(inner, request)

        made = app(outgoing=middleware)
        for _ in range(2):
            url = "/proxy?url=http://inner/echo"
            assert await (await made.handle_async(post(url, b"body"))).aread() == b"body"
        assert seen == [b"body", b"body"]


CONSTANT = wasgi.Response(201, headers={"x-constant": "1"}, body=b"constant")


class TestAResponse:
    @pytest.mark.parametrize("is_async", [False, True])
    def test_of_an_upstream(self, app: AppMaker, is_async: bool) -> None:
        async def upstream(request: wasgi.Request) -> wasgi.Response:
            return CONSTANT

        made = app(outgoing=upstream if is_async else lambda request: CONSTANT)
        assert [made.handle(get("/fetch?url=http://up/")).text for _ in range(3)] == ["constant"] * 3

    def test_that_middleware_reads_and_changes(self, app: AppMaker) -> None:
        async def middleware(request: wasgi.Request) -> wasgi.Response:
            response = await outgoing.call(lambda request: CONSTANT, request)
            assert await response.aread() == b"constant"
            response.headers["x-changed"] = "1"
            return wasgi.Response(body=response.content)

        made = app(outgoing=middleware)
        assert [made.handle(get("/fetch?url=http://up/")).text for _ in range(2)] == ["constant"] * 2
        assert "x-changed" not in CONSTANT.headers

    @pytest.mark.parametrize("hook", ["on_request", "on_error"])
    async def test_of_a_servers_callback(self, app: AppMaker, hook: str) -> None:
        made = app(**{hook: lambda scope, given: CONSTANT})
        for _ in range(2):
            answer = await asgi_driver.get(made, "/trap")
            assert (answer.status, answer.body) == (201, b"constant")

    @pytest.mark.parametrize("hook", ["on_request", "on_error"])
    def test_of_a_callback_under_wsgi(self, app: AppMaker, hook: str) -> None:
        from wsgiref.util import setup_testing_defaults

        made = app(**{hook: lambda environ, given: CONSTANT})
        for _ in range(2):
            environ: dict[str, Any] = {"PATH_INFO": "/trap"}
            setup_testing_defaults(environ)
            statuses: list[str] = []
            answer: Any = made.wsgi(environ, lambda status, headers, told=statuses: told.append(status))
            assert b"".join(answer) == b"constant"
            answer.close()
            assert statuses == ["201 Created"]

    def test_one_that_streams_is_sent_once(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        used = wasgi.Response(body=chunks())
        made = app(outgoing=lambda request: used)
        assert made.handle(get("/fetch?url=http://up/")).text == "one two"
        assert made.handle(get("/fetch?url=http://up/")).text == 'ErrorCode::InternalError(Some("BodyError"))'
        assert ONCE in caplog.text


class TestWhatWasReadAlready:
    """The hint names what has it still."""

    @pytest.mark.parametrize("first", [lambda response: response.text, lambda response: response.content])
    def test_content_has_it(self, app: AppMaker, first: Callable[[wasgi.Response], object]) -> None:
        response = app().handle(get("/hello"))
        first(response)
        with pytest.raises(wasgi.BodyError, match=r"hint: `content`, `text` and `json\(\)` have what it was"):
            response.read()
        assert response.content == b"Hello, World!"

    def test_of_one_that_was_iterated_nothing_is_left(self, app: AppMaker) -> None:
        response = app().handle(get("/hello"))
        list(response)
        with pytest.raises(wasgi.BodyError, match=ONCE):
            response.read()
