"""A guest that sends a body and waits for the response at once, and an upstream that answers without reading it all.

Guests see the answer, whatever came first: the answer, or the end of the body (RFC 9112, 9.6: a server reads on).
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import httpx
import httpx2
import pytest

import wasgi
import wasgi.testing
from tests.conftest import COMPONENTS, HELLO, AppMaker, get, post, until

BIG = 300_000  # more than is kept of a body that nobody reads, and than lies in any buffer between
LONG = 66_000  # more than is kept; what an echo of it leaves in between fits the buffers
URL = "http://api.example/"

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def function(request: wasgi.Request) -> wasgi.Response:
    return wasgi.Response(200, body="early")


async def coroutine_function(request: wasgi.Request) -> wasgi.Response:
    return wasgi.Response(200, body="early")


def streams(request: wasgi.Request) -> wasgi.Response:
    return wasgi.Response(200, body=iter([b"ear", b"ly"]))


def begins_to_read(request: wasgi.Request) -> wasgi.Response:
    next(iter(request))
    return wasgi.Response(200, body="early")


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"ear", "more_body": True})
    await send({"type": "http.response.body", "body": b"ly"})


async def asgi_that_begins_to_read(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await asgi(scope, receive, send)


async def asgi_that_listens(scope: Any, receive: Any, send: Any) -> None:
    """As a framework does that wants to know when its client leaves: it listens while it answers."""
    listener = asyncio.create_task(receive())
    await asyncio.sleep(0)
    await asgi(scope, receive, send)
    while (await listener)["type"] == "http.request":
        listener = asyncio.create_task(receive())


def wsgi(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"ear", b"ly"]


def wsgi_with_length(environ: Any, start_response: Any) -> Iterator[bytes]:
    """As frameworks answer: an iterable of unknown kind, and a length."""
    start_response("200 OK", [("content-length", "5")])
    yield b"early"


def wsgi_that_begins_to_read(environ: Any, start_response: Any) -> Any:
    assert environ["wsgi.input"].read(1) == b"x"
    return wsgi(environ, start_response)


class Early(httpx2.BaseTransport):
    """Answers without reading."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=iter([b"ear", b"ly"]))


class EarlyAsync(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="early")


class BeginsToRead(httpx2.BaseTransport):
    """Lets go of the body midway, as a client does whose peer has closed."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        assert isinstance(request.stream, httpx2.SyncByteStream)
        for _ in request.stream:
            break
        return httpx2.Response(200, content=iter([b"ear", b"ly"]))


class BeginsToReadAsync(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        async for _ in request.stream:
            break
        return httpx.Response(200, content=EarlyStream())


class EarlyStream(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"early"


UPSTREAMS: dict[str, Callable[[], Any]] = {
    "function": lambda: function,
    "coroutine-function": lambda: coroutine_function,
    "stream": lambda: streams,
    "function-that-begins-to-read": lambda: begins_to_read,
    "route": lambda: wasgi.outgoing.route({"api.example": function}),
    "app": lambda: wasgi.App(HELLO),
    "asgi": lambda: wasgi.outgoing.asgi(asgi),
    "asgi-that-begins-to-read": lambda: wasgi.outgoing.asgi(asgi_that_begins_to_read),
    "asgi-that-listens": lambda: wasgi.outgoing.asgi(asgi_that_listens),
    "wsgi": lambda: wasgi.outgoing.wsgi(wsgi),
    "wsgi-with-length": lambda: wasgi.outgoing.wsgi(wsgi_with_length),
    "wsgi-that-begins-to-read": lambda: wasgi.outgoing.wsgi(wsgi_that_begins_to_read),
    "httpx-client": lambda: wasgi.outgoing.httpx(httpx2.Client(transport=Early())),
    "httpx-async-client": lambda: wasgi.outgoing.httpx(httpx.AsyncClient(transport=EarlyAsync())),
    "httpx-client-that-begins-to-read": lambda: wasgi.outgoing.httpx(httpx2.Client(transport=BeginsToRead())),
    "httpx-transport-that-begins-to-read": lambda: wasgi.outgoing.httpx(BeginsToReadAsync()),
}


def expected(name: str) -> str:
    return "200 Hello, World!" if name == "app" else "200 early"


def refuses(request: wasgi.Request) -> wasgi.Response:
    raise wasgi.errors.ConnectionRefused


def reads_and_refuses(request: wasgi.Request) -> wasgi.Response:
    chunks = iter(request)  # a traceback that somebody keeps has this in its frame
    next(chunks)
    raise wasgi.errors.ConnectionRefused


REFUSALS: dict[str, tuple[Callable[[], Any], str]] = {
    "nobody": (lambda: None, "HttpRequestDenied"),
    "policy": (lambda: wasgi.Network(["http://other.example"]), "HttpRequestDenied"),
    "route": (lambda: wasgi.outgoing.route({"other.example": function}), "DestinationNotFound"),
    "function": (lambda: refuses, "ConnectionRefused"),
    "function-that-begins-to-read": (lambda: reads_and_refuses, "ConnectionRefused"),
}


@pytest.fixture(scope="session")
def wstd() -> wasgi.Component:
    """A guest of the library that most guests in Rust are written with."""
    return wasgi.Component(COMPONENTS / "wstd.wasm")


def that_do_not_read(names: Iterable[str]) -> list[str]:
    """Those for whose answer a guest may wait before it writes."""
    return [name for name in names if not name.endswith("begins-to-read")]


@pytest.mark.parametrize("size", [1, 10_000, BIG])
class TestTheAnswerIsSeen:
    @pytest.mark.parametrize("name", UPSTREAMS)
    def test_by_a_guest_that_sends_and_waits_at_once(self, wstd: wasgi.Component, name: str, size: int) -> None:
        app = wasgi.App(wstd, outgoing=UPSTREAMS[name]())
        for _ in range(20):
            response = app.handle(get(f"/fetch?url={URL}&bytes={size}"))
            assert (response.status, response.text) == (200, expected(name))

    @pytest.mark.parametrize("name", that_do_not_read(UPSTREAMS))
    def test_by_a_guest_that_writes_when_the_answer_has_come(self, app: AppMaker, name: str, size: int) -> None:
        response = app(outgoing=UPSTREAMS[name]()).handle(get(f"/late-body?method=POST&url={URL}&n={size}"))
        assert response.text == f"{expected(name)}, written: Ok(()), finished: Ok(())"


@pytest.mark.parametrize("size", [1, BIG])
class TestTheRefusalIsSeen:
    @pytest.mark.parametrize("name", REFUSALS)
    def test_by_a_guest_that_sends_and_waits_at_once(self, wstd: wasgi.Component, name: str, size: int) -> None:
        make, code = REFUSALS[name]
        app = wasgi.App(wstd, outgoing=make())
        for _ in range(20):
            response = app.handle(get(f"/fetch?url={URL}&bytes={size}"))
            assert (response.status, response.text) == (502, f"ErrorCode::{code}")

    @pytest.mark.parametrize("name", that_do_not_read(REFUSALS))
    def test_by_a_guest_that_writes_when_the_answer_has_come(self, app: AppMaker, name: str, size: int) -> None:
        make, code = REFUSALS[name]
        response = app(outgoing=make()).handle(get(f"/late-body?method=POST&url={URL}&n={size}"))
        assert response.text == f"ErrorCode::{code}, written: Ok(()), finished: Ok(())"


class TestTheOrderIsForced:
    def test_the_answer_is_there_before_the_body_ends(self, wstd: wasgi.Component) -> None:
        answered = threading.Event()

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            task = asyncio.current_task()
            assert task is not None
            task.add_done_callback(lambda _: answered.set())
            return wasgi.Response(200, body="early")

        def body() -> Iterator[bytes]:
            yield b"begins"
            assert answered.wait(30)
            for _ in range(100):
                yield b"x" * 4096

        response = wasgi.App(wstd, outgoing=upstream).handle(post(f"/forward?url={URL}", body()))
        assert (response.status, response.text) == (200, "200 early")

    def test_the_body_ends_before_the_answer(self, wstd: wasgi.Component) -> None:
        def upstream(request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response(200, body=f"read {len(request.read())}")

        response = wasgi.App(wstd, outgoing=upstream).handle(post(f"/forward?url={URL}", b"x" * BIG))
        assert (response.status, response.text) == (200, f"200 read {BIG}")


class TestARequestThatIsKept:
    """By a test that looks at it afterwards, say, or by a traceback."""

    def test_its_guest_finishes_and_the_answer_is_seen(self, wstd: wasgi.Component) -> None:
        kept = []

        def upstream(request: wasgi.Request) -> wasgi.Response:
            kept.append(request)
            return wasgi.Response(200, body="early")

        app = wasgi.App(wstd, outgoing=upstream)
        assert app.handle(get(f"/fetch?url={URL}&bytes={BIG}")).text == "200 early"
        assert len(kept) == 1

    def test_a_body_up_to_64_kib_can_be_read_afterwards(self, wstd: wasgi.Component) -> None:
        kept = []

        def upstream(request: wasgi.Request) -> wasgi.Response:
            kept.append(request)
            return wasgi.Response(200, body="early")

        wasgi.App(wstd, outgoing=upstream).handle(get(f"/fetch?url={URL}&bytes={64 << 10}")).read()
        assert kept[0].read() == b"x" * (64 << 10)

    def test_a_longer_one_says_that_it_was_thrown_away(self, wstd: wasgi.Component) -> None:
        kept = []

        def upstream(request: wasgi.Request) -> wasgi.Response:
            kept.append(request)
            return wasgi.Response(200, body="early")

        wasgi.App(wstd, outgoing=upstream).handle(get(f"/fetch?url={URL}&bytes={BIG}")).read()
        with pytest.raises(wasgi.BodyError, match="responded without reading it"):
            kept[0].read()

    def test_whoever_has_begun_to_read_gets_it_all(self, wstd: wasgi.Component) -> None:
        read: list[int] = []

        def upstream(request: wasgi.Request) -> wasgi.Response:
            chunks = iter(request)
            first = next(chunks)
            reader = threading.Thread(target=lambda: read.append(len(first) + sum(len(chunk) for chunk in chunks)))
            reader.start()
            return wasgi.Response(202, body="will be read")

        app = wasgi.App(wstd, outgoing=upstream)
        assert app.handle(get(f"/fetch?url={URL}&bytes={BIG}")).text == "202 will be read"
        until(lambda: bool(read))
        assert read == [BIG]

    def test_a_response_that_is_made_of_it_gets_it_all(self, app: AppMaker) -> None:
        def upstream(request: wasgi.Request) -> wasgi.Response:
            def body() -> Iterator[bytes]:
                yield b"echo: "
                yield from request

            return wasgi.Response(200, body=body())

        echoed = app(outgoing=upstream).handle(post(f"/proxy?url={URL}", b"x" * LONG)).read()
        assert echoed == b"echo: " + b"x" * LONG


class TestBothAreLong:
    """A response that is streamed, and a request that is not read: as over a connection, both lie in between."""

    def test_a_response_that_is_the_request_itself(self, app: AppMaker, wstd: wasgi.Component) -> None:
        def echo(request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response(200, body=request)

        async def awaited(request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response(200, body=request)

        for upstream in (echo, awaited):
            for size in (1, 20_000, BIG):
                assert app(outgoing=upstream).handle(post(f"/proxy?url={URL}", b"x" * size)).read() == b"x" * size
            response = wasgi.App(wstd, outgoing=upstream).handle(get(f"/fetch?url={URL}&bytes={BIG}"))
            assert response.text == "200 " + "x" * BIG

    def test_another_component_that_echoes(self, app: AppMaker, wstd: wasgi.Component) -> None:
        inner = app()
        response = wasgi.App(wstd, outgoing=inner).handle(get(f"/fetch?url=http://api.example/echo&bytes={BIG}"))
        assert response.text == "200 " + "x" * BIG

    @pytest.mark.parametrize("kind", ["function", "coroutine", "asgi", "wsgi"])
    def test_a_stream_to_a_guest_that_writes_first(self, wstd: wasgi.Component, kind: str) -> None:
        chunks = [b"y" * 4096] * 64

        def function(request: wasgi.Request) -> wasgi.Response:
            def body() -> Iterator[bytes]:
                yield request.method.encode()  # which keeps the request
                yield from chunks

            return wasgi.Response(200, body=body())

        async def coroutine(request: wasgi.Request) -> wasgi.Response:
            return function(request)

        async def asgi(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for chunk in [b"POST", *chunks]:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body"})

        def wsgi(environ: Any, start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [])
            yield from [b"POST", *chunks]

        upstreams: dict[str, Any] = {
            "function": function,
            "coroutine": coroutine,
            "asgi": wasgi.outgoing.asgi(asgi),
            "wsgi": wasgi.outgoing.wsgi(wsgi),
        }
        response = wasgi.App(wstd, outgoing=upstreams[kind]).handle(get(f"/fetch?url={URL}&bytes={BIG}"))
        assert response.text == "200 POST" + "y" * 4096 * 64


class TestReadersThatStop:
    def test_one_that_has_begun_and_is_kept(self, wstd: wasgi.Component) -> None:
        kept = []

        def upstream(request: wasgi.Request) -> wasgi.Response:
            chunks = iter(request)
            next(chunks)
            kept.append(chunks)
            return wasgi.Response(413, body="too much")

        assert wasgi.App(wstd, outgoing=upstream).handle(get(f"/fetch?url={URL}&bytes={BIG}")).text == "413 too much"

    async def test_one_that_has_given_up_waiting(self, app: AppMaker) -> None:
        kept = []

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            chunks = aiter(request)
            kept.append(chunks)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(chunks)  # nothing comes before the answer
            return wasgi.Response(413, body="too much")

        response = await app(outgoing=upstream).handle_async(get(f"/late-body?method=POST&url={URL}&n={BIG}"))
        assert await response.aread() == b"413 too much, written: Ok(()), finished: Ok(())"


def test_a_wsgi_application_runs_to_its_end(wstd: wasgi.Component) -> None:
    """PEP 3333: a server goes on until nothing comes, whatever the length says."""
    ran = []

    def site(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("content-length", "5")])
        yield b"early"
        ran.append("to its end")

    app = wasgi.App(wstd, outgoing=wasgi.outgoing.wsgi(site))
    assert app.handle(get(f"/fetch?url={URL}&bytes={BIG}")).text == "200 early"
    until(lambda: ran == ["to its end"])


async def test_echoes_by_the_piece_lose_no_turn(app: AppMaker) -> None:
    """The request is read on in the background until its upstream reads: neither takes what is the other's."""

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        async def body() -> AsyncIterator[bytes]:
            async for chunk in request:
                yield chunk

        return wasgi.Response(200, body=body())

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(12):
            await asyncio.sleep(0)
            yield b"x" * 4096

    guests = app(outgoing=upstream, limits=wasgi.Limits(timeout=10))

    async def worker() -> None:
        for _ in range(150):
            response = await guests.handle_async(post(f"/proxy?method=POST&url={URL}", pieces()))
            assert len(await response.aread()) == 12 * 4096

    await asyncio.gather(*(worker() for _ in range(6)))


class TestLimitsHold:
    def test_a_guest_that_writes_without_end_ends_with_its_time(self, app: AppMaker) -> None:
        guests = app(outgoing=function, limits=wasgi.Limits(timeout=0.5))
        with pytest.raises(wasgi.GuestTimeoutError):
            guests.handle(get(f"/late-body?method=POST&url={URL}&n={1 << 62}"))

    def test_cancelling_ends_it(self, app: AppMaker) -> None:
        async def main() -> None:
            seen = asyncio.Event()

            async def upstream(request: wasgi.Request) -> wasgi.Response:
                seen.set()
                return wasgi.Response(200)

            guests = app(outgoing=upstream)
            task = asyncio.create_task(guests.handle_async(get(f"/late-body?method=POST&url={URL}&n={1 << 62}")))
            await seen.wait()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        asyncio.run(main())
        until(lambda: wasgi.stats().exchanges == 0)

    def test_little_memory_is_used(self, app: AppMaker) -> None:
        """What is thrown away lies nowhere; an upstream that keeps its request does not keep all of its body."""
        kept = []

        def upstream(request: wasgi.Request) -> wasgi.Response:
            kept.append(request)
            return wasgi.Response(200)

        guests = app(outgoing=upstream)
        guests.handle(get(f"/late-body?method=POST&url={URL}&n=4096")).read()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        guests.handle(get(f"/late-body?method=POST&url={URL}&n={1 << 28}")).read()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB


@contextlib.contextmanager
def server(then: str, answer: bytes) -> Iterator[str]:
    """A server that answers each request when it has its head; then it reads on to the end, closes, or does nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += connection.recv(65536)
                    connection.sendall(answer)
                    if then == "reads on":
                        while connection.recv(65536):
                            pass
                    elif then == "does nothing":
                        held.append(connection.dup())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in held:
            connection.close()


ANSWERS = {
    "length": b"content-length: 5\r\n\r\nearly",
    "chunks": b"transfer-encoding: chunked\r\n\r\n5\r\nearly\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("then", ["reads on", "closes"])
@pytest.mark.parametrize("framing", ANSWERS)
@pytest.mark.parametrize("size", [1, BIG, 5_000_000])
def test_the_answer_of_a_server_is_seen(wstd: wasgi.Component, then: str, framing: str, size: int) -> None:
    """Also where its connection fails while the guest still writes."""
    with server(then, b"HTTP/1.1 200 OK\r\nconnection: close\r\n" + ANSWERS[framing]) as url:
        app = wasgi.App(wstd, outgoing=wasgi.Network([url], allow_private=True))
        for _ in range(20):
            assert app.handle(get(f"/fetch?url={url}&bytes={size}")).text == "200 early"


@pytest.mark.parametrize("framing", ANSWERS)
def test_a_server_that_refuses_is_not_sent_the_rest(wstd: wasgi.Component, framing: str) -> None:
    """It reads no more and keeps the connection: the answer is seen, and nothing waits for it."""
    with server("does nothing", b"HTTP/1.1 413 Content Too Large\r\n" + ANSWERS[framing]) as url:
        app = wasgi.App(wstd, outgoing=wasgi.Network([url], allow_private=True))
        for _ in range(3):
            assert app.handle(get(f"/fetch?url={url}&bytes=20000000")).text == "413 early"


@pytest.mark.parametrize("size", [1, BIG])
async def test_the_answer_is_seen_where_the_caller_awaits_it(wstd: wasgi.Component, size: int) -> None:
    app = wasgi.App(wstd, outgoing=coroutine_function)

    async def ask() -> str:
        response = await app.handle_async(get(f"/fetch?url={URL}&bytes={size}"))
        await response.aread()
        return str(response.text)

    assert await asyncio.gather(*(ask() for _ in range(20))) == ["200 early"] * 20


async def test_an_async_response_may_read_the_request_to_its_end(app: AppMaker) -> None:
    async def upstream(request: wasgi.Request) -> wasgi.Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"echo: "
            async for chunk in request:
                yield chunk

        return wasgi.Response(200, body=body())

    response = await app(outgoing=upstream).handle_async(post(f"/proxy?url={URL}", b"x" * LONG))
    assert await response.aread() == b"echo: " + b"x" * LONG


class TestMocks:
    @pytest.mark.parametrize("size", [1, BIG])
    def test_answer_before_the_body_comes(self, app: AppMaker, wstd: wasgi.Component, size: int) -> None:
        upstream = wasgi.testing.Upstream()
        upstream.post(URL).respond(413, text="too much").early()
        response = app(outgoing=upstream).handle(get(f"/late-body?method=POST&url={URL}&n={size}"))
        assert response.text == "413 too much, written: Ok(()), finished: Ok(())"
        response = wasgi.App(wstd, outgoing=upstream).handle(get(f"/fetch?url={URL}&bytes={size}"))
        assert response.text == "413 too much"
        assert [call.request.content for call in upstream.calls] == [b"", b""]
        upstream.check()

    @pytest.mark.parametrize("size", [1, BIG])
    def test_fail_before_the_body_comes(self, app: AppMaker, size: int) -> None:
        upstream = wasgi.testing.Upstream()
        upstream.post(URL).raises("connection-refused").early()
        response = app(outgoing=upstream).handle(get(f"/late-body?method=POST&url={URL}&n={size}"))
        assert response.text == "ErrorCode::ConnectionRefused, written: Ok(()), finished: Ok(())"

    def test_give_the_request_on_as_it_comes(self, app: AppMaker) -> None:
        upstream = wasgi.testing.Upstream()
        upstream.post(URL).answers(function).early()
        response = app(outgoing=upstream).handle(get(f"/late-body?method=POST&url={URL}&n={BIG}"))
        assert response.text == "200 early, written: Ok(()), finished: Ok(())"

    def test_read_the_body_first_otherwise(self, wstd: wasgi.Component) -> None:
        upstream = wasgi.testing.Upstream()
        upstream.post(URL).respond(413, text="too much").then.respond(200).early()
        app = wasgi.App(wstd, outgoing=upstream)
        assert app.handle(get(f"/fetch?url={URL}&bytes={BIG}")).text == "413 too much"
        assert upstream.calls[0].request.content == b"x" * BIG
        assert app.handle(get(f"/fetch?url={URL}&bytes={BIG}")).text == "200 "
        assert upstream.calls[1].request.content == b""

    def test_routes_that_come_first_are_asked_first(self, wstd: wasgi.Component) -> None:
        upstream = wasgi.testing.Upstream(allow_unused=True)
        upstream.post(URL, content=b"x").respond(200, text="the body")
        upstream.any().respond(413).early()
        app = wasgi.App(wstd, outgoing=upstream)
        assert app.handle(get(f"/fetch?url={URL}&bytes=1")).text == "200 the body"
        assert app.handle(get(f"/fetch?url={URL}&bytes=2")).text == "413 "

    def test_that_look_at_bodies_cannot(self) -> None:
        upstream = wasgi.testing.Upstream()
        for matcher in ({"content": b"x"}, {"json": 1}, {"data": {"a": 1}}, {"where": bool}):
            with pytest.raises(TypeError, match="looks at bodies"):
                upstream.post(URL, **matcher).respond(413).early()
