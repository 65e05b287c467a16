"""What a guest sees of an upstream's answer: the host plays the server, whoever answers, and however careless."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import pytest

import wasgi
from tests.conftest import AppMaker, get, until
from wasgi import errors
from wasgi.testing import Upstream

Pairs = list[tuple[str, str]]


class Closing:
    """A body that says when it is let go."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = iter(chunks)
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self.chunks)

    def close(self) -> None:
        self.closed.set()


def function(app: AppMaker, status: int, headers: Pairs, body: bytes) -> Any:
    return lambda request: wasgi.Response(status, headers=headers, body=body)


def iterator(app: AppMaker, status: int, headers: Pairs, body: bytes) -> Any:
    return lambda request: wasgi.Response(status, headers=headers, body=iter([body[:1], body[1:]]))


def coroutine(app: AppMaker, status: int, headers: Pairs, body: bytes) -> Any:
    async def chunks() -> AsyncIterator[bytes]:
        yield body

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        return wasgi.Response(status, headers=headers, body=chunks())

    return upstream


def asgi(app: AppMaker, status: int, headers: Pairs, body: bytes) -> Any:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raw = [(name.encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body[:1], "more_body": True})
        await send({"type": "http.response.body", "body": body[1:]})

    return wasgi.outgoing.asgi(application, lifespan="off")


def wsgi(app: AppMaker, status: int, headers: Pairs, body: bytes) -> Any:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response(f"{status} As Told", headers)
        return [body[:1], body[1:]]

    return wasgi.outgoing.wsgi(application)


class Streamed(httpx2.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self.body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.body


def httpx(app: AppMaker, status: int, headers: Pairs, body: bytes) -> Any:
    answer = httpx2.MockTransport(lambda request: httpx2.Response(status, headers=headers, stream=Streamed(body)))
    return wasgi.outgoing.httpx(answer)


def httpx_that_was_read(app: AppMaker, status: int, headers: Pairs, body: bytes) -> Any:
    answer = httpx2.MockTransport(lambda request: httpx2.Response(status, headers=headers, content=body))
    return wasgi.outgoing.httpx(httpx2.Client(transport=answer))


def component(app: AppMaker, status: int, headers: Pairs, body: bytes) -> Any:
    lines = "%0A".join(f"{name}:{value}" for name, value in headers)
    target = f"http://guest.local/reply?code={status}&header={lines}&body={body.decode()}"
    inner = app()

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        return await inner.handle_async(wasgi.Request(request.method, target))

    return upstream


def mock(app: AppMaker, status: int, headers: Pairs, body: bytes) -> Any:
    made = Upstream()
    made.any("http://up/").respond(status, headers=headers, content=body)
    return made


def routed(app: AppMaker, status: int, headers: Pairs, body: bytes) -> Any:
    return wasgi.outgoing.route({"up": function(app, status, headers, body)})


def middleware(app: AppMaker, status: int, headers: Pairs, body: bytes) -> Any:
    below = coroutine(app, status, headers, body)

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        return await wasgi.outgoing.call(below, request)

    return upstream


Kind = Callable[[AppMaker, int, Pairs, bytes], Any]
IN_PROCESS = [function, iterator, coroutine, asgi, wsgi, httpx, httpx_that_was_read, mock, routed, middleware]
kinds = pytest.mark.parametrize("kind", [*IN_PROCESS, component], ids=lambda kind: kind.__name__)
careless = pytest.mark.parametrize("kind", IN_PROCESS, ids=lambda kind: kind.__name__)


def seen(app: AppMaker, upstream: Any, method: str = "GET") -> list[str]:
    """What the guest sees, a fact a line; fields in alphabetical order."""
    lines = app(outgoing=upstream).handle(get(f"/answer?method={method}&url=http://up/")).text.splitlines()
    return [lines[0], *sorted(lines[1:])]


@kinds
def test_the_answer_to_head_has_no_body_and_the_length_of_the_one_to_get(app: AppMaker, kind: Kind) -> None:
    upstream = kind(app, 200, [("content-length", "5"), ("x-a", "1")], b"12345")
    fields = ["header content-length: 5", "header x-a: 1"]
    assert seen(app, upstream) == ["status: 200", "body: 12345", *fields]
    assert seen(app, upstream, "HEAD") == ["status: 200", "body: ", *fields]


@kinds
@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_what_has_no_content_has_none(app: AppMaker, kind: Kind, status: int, method: str) -> None:
    upstream = kind(app, status, [("x-a", "1")], b"12345")
    lines = [line for line in seen(app, upstream, method) if status == 204 or "content-length" not in line]
    assert lines == [f"status: {status}", "body: ", "header x-a: 1"]


@kinds
@pytest.mark.parametrize(("status", "told"), [(204, []), (304, ["header content-length: 5"])])
def test_a_length_without_a_body(app: AppMaker, kind: Kind, status: int, told: list[str]) -> None:
    """Of 304 it is that of what was not sent; with 204 it must not be there (RFC 9110, 8.6)."""
    upstream = kind(app, status, [("content-length", "5")], b"12345")
    assert seen(app, upstream) == [f"status: {status}", "body: ", *told]


@kinds
def test_a_reset_has_no_content(app: AppMaker, kind: Kind) -> None:
    upstream = kind(app, 205, [("content-length", "5")], b"12345")
    assert seen(app, upstream) == ["status: 205", "body: ", "header content-length: 0"]


@careless
def test_fields_of_a_connection_are_not_the_answers(app: AppMaker, kind: Kind) -> None:
    headers = [
        ("connection", "keep-alive, X-Mine"),
        ("keep-alive", "1"),
        ("te", "trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("x-mine", "1"),
        ("x-yours", "2"),
    ]
    lines = [line for line in seen(app, kind(app, 200, headers, b"12345")) if "content-length" not in line]
    assert lines == ["status: 200", "body: 12345", "header x-yours: 2"]


@careless
def test_a_length_beside_chunks_says_nothing(app: AppMaker, kind: Kind) -> None:
    upstream = kind(app, 200, [("content-length", "99"), ("transfer-encoding", "chunked")], b"12345")
    lines = seen(app, upstream)
    assert lines[:2] == ["status: 200", "body: 12345"]
    assert lines[2:] in ([], ["header content-length: 5"])


@pytest.mark.parametrize("kind", [function, coroutine, asgi, wsgi, httpx, mock], ids=lambda kind: kind.__name__)
class TestLengths:
    @pytest.mark.parametrize("values", [["5", "5"], ["5, 5"], ["5,5", "5"]])
    def test_the_same_one_several_times_is_one(self, app: AppMaker, kind: Kind, values: list[str]) -> None:
        upstream = kind(app, 200, [("content-length", value) for value in values], b"12345")
        assert seen(app, upstream) == ["status: 200", "body: 12345", "header content-length: 5"]

    @pytest.mark.parametrize("values", [["5", "6"], ["5, 6"], ["5x"], ["+5"], ["-5"], [""], ["5,"], ["9" * 30]])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_what_is_none_is_an_error(self, app: AppMaker, kind: Kind, values: list[str], method: str) -> None:
        upstream = kind(app, 200, [("content-length", value) for value in values], b"12345")
        assert seen(app, upstream, method) == ["ErrorCode::HttpProtocolError"]

    @pytest.mark.parametrize("length", ["4", "6"])
    def test_another_one_than_the_bodys_is_an_error(self, app: AppMaker, kind: Kind, length: str) -> None:
        lines = seen(app, kind(app, 200, [("content-length", length)], b"12345"))
        assert lines[1].startswith("broken: Some(ErrorCode::HttpResponseBodySize(")


@pytest.mark.parametrize("kind", [function, coroutine, wsgi], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("status", [100, 101, 103])
def test_an_interim_answer_is_none(app: AppMaker, kind: Kind, status: int) -> None:
    with pytest.raises(errors.HttpProtocolError):
        app(outgoing=kind(app, status, [], b"")).handle(get("/fetch-or-code?url=http://up/"))


class TestKnownLengths:
    def test_that_of_a_body_that_is_there_is_told(self, app: AppMaker) -> None:
        assert seen(app, function(app, 200, [], b"12345"))[1:] == ["body: 12345", "header content-length: 5"]
        assert seen(app, function(app, 200, [], b""))[1:] == ["body: ", "header content-length: 0"]
        assert seen(app, function(app, 404, [], b""), "POST")[1:] == ["body: ", "header content-length: 0"]

    def test_that_of_a_stream_is_not_known(self, app: AppMaker) -> None:
        assert seen(app, iterator(app, 200, [], b"12345"))[1:] == ["body: 12345"]

    def test_none_is_made_up_for_head(self, app: AppMaker) -> None:
        """The answer to GET might have a body."""
        assert seen(app, function(app, 200, [], b""), "HEAD")[1:] == ["body: "]

    def test_a_component_that_asks_for_no_body(self, app: AppMaker) -> None:
        inner = app()

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            return await inner.handle_async(wasgi.Request(request.method, "http://guest.local/reply"))

        assert seen(app, upstream)[1:] == ["body: ", "header content-length: 0"]
        assert seen(app, upstream, "HEAD")[1:] == ["body: "]


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_body_that_nobody_may_have_is_let_go(app: AppMaker, method: str) -> None:
    """Once, and without being read."""
    body = Closing(b"x" * 10)
    made = app(outgoing=lambda request: wasgi.Response(200 if method == "HEAD" else 204, body=body))
    assert made.handle(get(f"/answer?method={method}&url=http://up/")).status == 200
    assert body.closed.wait(30)
    assert next(body) == b"x" * 10, "nobody has read it"


class TestAsgiApplications:
    async def test_an_application_may_write_a_body_that_nobody_may_have(self, app: AppMaker) -> None:
        """As under a server: it is thrown away, and the application goes on to its end."""
        done = asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            assert (await receive())["type"] == "http.request"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(10):
                await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            await send({"type": "http.response.body"})
            assert (await receive())["type"] == "http.disconnect"
            done.set()

        upstream = wasgi.outgoing.asgi(application, lifespan="off")
        response = await app(outgoing=upstream).handle_async(get("/answer?method=HEAD&url=http://up/"))
        assert await response.aread() == b"status: 200\nbody: "
        await asyncio.wait_for(done.wait(), 10)

    async def test_one_that_never_ends_is_ended(self, app: AppMaker) -> None:
        failed: list[BaseException] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            try:
                while True:
                    await send({"type": "http.response.body", "body": b"x", "more_body": True})
            except OSError as error:
                failed.append(error)

        upstream = wasgi.outgoing.asgi(application, lifespan="off")
        response = await app(outgoing=upstream).handle_async(get("/answer?method=HEAD&url=http://up/"))
        assert await response.aread() == b"status: 200\nbody: "
        while upstream.tasks:
            await asyncio.sleep(0.01)
        assert [str(error) for error in failed] == ["the client has gone"]

    async def test_a_body_that_is_no_bytes_is_its_failure(self, app: AppMaker) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": 5})

        upstream = wasgi.outgoing.asgi(application, lifespan="off")
        response = await app(outgoing=upstream).handle_async(get("/answer?url=http://up/"))
        assert b"broken: Some(ErrorCode::InternalError" in await response.aread()

    async def test_cookies_are_one_field(self, app: AppMaker) -> None:
        found: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            found.extend(value for name, value in scope["headers"] if name == b"cookie")
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        upstream = wasgi.outgoing.asgi(application, lifespan="off")
        await app(outgoing=upstream).handle_async(get("/answer?header=cookie:a=1%0Acookie:b=2&url=http://up/"))
        assert found == [b"a=1; b=2"]


def test_a_client_that_has_read_an_answer_to_head_keeps_its_fields(app: AppMaker) -> None:
    headers = [("content-encoding", "gzip"), ("content-length", "99")]
    lines = seen(app, httpx_that_was_read(app, 200, headers, b""), "HEAD")
    assert lines == ["status: 200", "body: ", "header content-encoding: gzip", "header content-length: 99"]


def test_a_component_that_answers_head_with_a_body_is_let_go(app: AppMaker) -> None:
    assert seen(app, component(app, 200, [], b"x" * 50_000), "HEAD")[1] == "body: "
    until(lambda: wasgi.stats().exchanges == 0 and wasgi.stats().outgoing == 0)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_component_that_is_done_with_its_answer_works_on(app: AppMaker, method: str) -> None:
    """Whoever asked it, and has its answer."""
    lines: list[str] = []
    answered = threading.Event()

    def last(request: wasgi.Request) -> wasgi.Response:
        assert answered.wait(30)
        return wasgi.Response()

    inner = app(outgoing=last, stdout=lines.append)

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        return await inner.handle_async(wasgi.Request(request.method, "http://guest.local/work-after?url=http://up/"))

    assert seen(app, upstream, method)[1] == ("body: done already" if method == "GET" else "body: ")
    answered.set()
    until(lambda: lines == ["worked on"])
