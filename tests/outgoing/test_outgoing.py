"""What a guest sends out, answered by Python."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import io
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest

import wasgi
from tests.conftest import AppMaker, get, post

URL = "https://api.example.com:8443/v1/users?id=7"


def ok(request: wasgi.Request) -> wasgi.Response:
    return wasgi.Response(201, headers={"X-Up": "yes"}, body=f"{request.method} {request.url}")


async def aok(request: wasgi.Request) -> wasgi.Response:
    await asyncio.sleep(0)
    return ok(request)


class Upstream:
    def __call__(self, request: wasgi.Request) -> wasgi.Response:
        return ok(request)

    async def method(self, request: wasgi.Request) -> wasgi.Response:
        return await aok(request)


class AsyncUpstream:
    async def __call__(self, request: wasgi.Request) -> wasgi.Response:
        return await aok(request)


def with_extra(extra: int, request: wasgi.Request) -> wasgi.Response:
    return ok(request)


async def async_with_extra(extra: int, request: wasgi.Request) -> wasgi.Response:
    return await aok(request)


def returns_an_awaitable(request: wasgi.Request) -> Any:
    return aok(request)


UPSTREAMS: list[Any] = [
    ok,
    aok,
    Upstream(),
    Upstream().method,
    AsyncUpstream(),
    functools.partial(with_extra, 1),
    functools.partial(async_with_extra, 1),
    lambda request: ok(request),
    returns_an_awaitable,
]


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_callables_of_every_kind_blocking(app: AppMaker, upstream: Any) -> None:
    response = app(outgoing=upstream).handle(get(f"/fetch?url={URL}"))
    assert response.status == 201
    assert response.headers["x-up"] == "yes"
    assert response.text == f"GET {URL}"
    assert response.report is not None
    assert response.report.outgoing == 1


@pytest.mark.parametrize("upstream", UPSTREAMS)
async def test_callables_of_every_kind_async(app: AppMaker, upstream: Any) -> None:
    response = await app(outgoing=upstream).handle_async(get(f"/fetch?url={URL}"))
    assert response.status == 201
    assert await response.aread() == f"GET {URL}".encode()


def test_the_upstream_sees_what_the_guest_sent(app: AppMaker) -> None:
    seen: dict[str, Any] = {}

    def upstream(request: wasgi.Request) -> wasgi.Response:
        seen.update(
            method=request.method,
            url=request.url,
            scheme=request.scheme,
            authority=request.authority,
            path=request.path,
            query=request.query,
            raw=request.headers.raw,
            body=request.read(),
            trailers=request.trailers,
        )
        return wasgi.Response(204)

    assert app(outgoing=upstream).handle(get(f"/fetch?url={URL}&method=PURGE&body=hello&header=X-A:1")).status == 204
    assert seen == {
        "method": "PURGE",
        "url": "https://api.example.com:8443/v1/users",  # the guest's own query ends at its first `?`
        "scheme": "https",
        "authority": "api.example.com:8443",
        "path": "/v1/users",
        "query": "",
        "raw": [(b"x-a", b"1")],
        "body": b"hello",
        "trailers": None,
    } | {"url": URL, "query": "id=7"}


def test_trailers_of_an_outgoing_request(app: AppMaker) -> None:
    seen: list[tuple[bytes, Any]] = []

    def upstream(request: wasgi.Request) -> wasgi.Response:
        body = request.read()
        seen.append((body, request.trailers))
        return wasgi.Response(body=b"ok", trailers={"x-back": "2"})

    response = app(outgoing=upstream).handle(post("/proxy?url=http://up/", b"abc", trailers={"x-sum": "1"}))
    assert response.read() == b"ok"
    assert seen == [(b"abc", {"x-sum": "1"})]
    assert response.trailers == {"x-back": "2"}


@pytest.mark.parametrize(
    "body",
    [b"content", "content", bytearray(b"content"), lambda: io.BytesIO(b"content"), lambda: iter([b"con", b"tent"])],
)
def test_bodies_of_an_answer(app: AppMaker, body: Any) -> None:
    made = app(outgoing=lambda request: wasgi.Response(body=body() if callable(body) else body))
    assert made.handle(get("/fetch?url=http://up/")).read() == b"content"


@pytest.mark.parametrize("upstream_is_async", [False, True])
def test_an_answer_may_be_an_async_iterable(app: AppMaker, upstream_is_async: bool) -> None:
    async def body() -> AsyncIterator[bytes]:
        for chunk in (b"con", b"tent"):
            await asyncio.sleep(0)
            yield chunk

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        return wasgi.Response(body=body())

    def blocking(request: wasgi.Request) -> wasgi.Response:
        return wasgi.Response(body=body())

    made = app(outgoing=upstream if upstream_is_async else blocking)
    assert made.handle(get("/fetch?url=http://up/")).read() == b"content"


def test_an_answer_streams_into_the_guest(app: AppMaker) -> None:
    back: list[bytes] = []
    came = threading.Semaphore(0)

    def body() -> Iterator[bytes]:
        for n in range(3):
            if n:
                assert came.acquire(timeout=10)
            yield b"%d" % n

    made = app(outgoing=lambda request: wasgi.Response(body=body()))
    for chunk in made.handle(get("/fetch?url=http://up/")):
        back.append(chunk)
        came.release()
    assert back == [b"0", b"1", b"2"]


def test_an_echo_through_both_directions(app: AppMaker) -> None:
    """Caller to guest to upstream and back, each side a stream."""
    content = bytes(range(256)) * 4000

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(content), 10_000):
            yield content[start : start + 10_000]

    made = app(outgoing=lambda request: wasgi.Response(body=io.BytesIO(b"".join(request))))
    assert made.handle(post("/proxy?url=http://up/", pieces())).read() == content

    async def echo(request: wasgi.Request) -> wasgi.Response:
        received = [chunk async for chunk in request]

        async def back() -> AsyncIterator[bytes]:
            for chunk in received:
                yield chunk

        return wasgi.Response(body=back())

    assert asyncio.run(read(app(outgoing=echo), post("/proxy?url=http://up/", pieces()))) == content


async def read(app: wasgi.App, request: wasgi.Request) -> bytes:
    response = await app.handle_async(request)
    body: bytes = await response.aread()
    return body


async def test_many_in_flight_at_once(app: AppMaker) -> None:
    """None is answered before all have come."""
    here = 0
    all_here = asyncio.Event()

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        nonlocal here
        here += 1
        if here == 10:
            all_here.set()
        await all_here.wait()
        return wasgi.Response(body=request.path)

    response = await app(outgoing=upstream).handle_async(get("/fetch-many?n=10&url=http://up/"))
    assert await response.aread() == b",".join(b"/%d" % n for n in range(10))


def test_blocking_upstreams_run_at_once(app: AppMaker) -> None:
    together = threading.Barrier(3)

    def upstream(request: wasgi.Request) -> wasgi.Response:
        together.wait(10)
        return wasgi.Response(body=request.path)

    response = app(outgoing=upstream).handle(get("/fetch-many?n=3&url=http://up/"))
    assert response.text == "/0,/1,/2"


@pytest.mark.parametrize("upstream", [None])
async def test_without_an_upstream_all_is_denied(app: AppMaker, upstream: Any) -> None:
    response = await app(outgoing=upstream).handle_async(get("/fetch?url=http://up/"))
    assert await response.aread() == b"ErrorCode::HttpRequestDenied"
    with pytest.raises(wasgi.errors.HttpRequestDenied):
        await app().handle_async(get("/fetch-or-code?url=http://up/"))


async def test_an_upstream_runs_as_a_task_of_the_callers_loop(app: AppMaker) -> None:
    seen: list[Any] = []

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
            seen.append((asyncio.get_running_loop(), isinstance(asyncio.current_task(), asyncio.Task)))
        return wasgi.Response()

    await app(outgoing=upstream).handle_async(get("/fetch?url=http://up/"))
    assert seen == [(asyncio.get_running_loop(), True)]


user: contextvars.ContextVar[str] = contextvars.ContextVar("user")


async def sees_user(request: wasgi.Request) -> wasgi.Response:
    return wasgi.Response(body=user.get("nobody"))


def sees_user_blocking(request: wasgi.Request) -> wasgi.Response:
    return wasgi.Response(body=user.get("nobody"))


@pytest.mark.parametrize("upstream", [sees_user, sees_user_blocking])
async def test_context_variables_are_the_callers(app: AppMaker, upstream: Any) -> None:
    made = app(outgoing=upstream)

    async def as_user(name: str) -> bytes:
        user.set(name)
        return await read(made, get("/fetch?url=http://up/"))

    names = [f"user-{n}" for n in range(20)]
    assert await asyncio.gather(*map(as_user, names)) == [name.encode() for name in names]
    assert (
        contextvars.copy_context().run(lambda: (user.set("main"), made.handle(get("/fetch?url=http://up/")).read())[1])
        == b"main"
    )
    assert await read(made, get("/fetch?url=http://up/")) == b"nobody"


def test_timeouts_of_the_guest_are_seen(app: AppMaker) -> None:
    seen = []

    def upstream(request: wasgi.Request) -> wasgi.Response:
        seen.append(request.timeouts)
        return wasgi.Response()

    made = app(outgoing=upstream)
    made.handle(get("/fetch?url=http://up/&connect-ms=1500&first-byte-ms=2000&between-bytes-ms=2500"))
    made.handle(get("/fetch?url=http://up/"))
    first, second = seen
    assert (first.connect, first.first_byte, first.between_bytes) == (1.5, 2.0, 2.5)
    assert (second.connect, second.first_byte, second.between_bytes) == (None, None, None)


async def test_the_first_byte_timeout_is_enforced(app: AppMaker) -> None:
    cancelled = asyncio.Event()

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return wasgi.Response()

    with pytest.raises(wasgi.errors.ConnectionReadTimeout):
        await app(outgoing=upstream).handle_async(get("/fetch-or-code?url=http://up/&first-byte-ms=30"))
    await asyncio.wait_for(cancelled.wait(), 10)


async def test_the_between_bytes_timeout_is_enforced(app: AppMaker) -> None:
    cancelled = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"begun"
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        return wasgi.Response(body=body())

    response = await app(outgoing=upstream).handle_async(get("/fetch?url=http://up/&between-bytes-ms=30"))
    assert await response.aread() == b"begun[broken: Some(ErrorCode::ConnectionReadTimeout)]"
    await asyncio.wait_for(cancelled.wait(), 10)


class TestFailures:
    """An upstream that fails: the guest is told, the log too, and the next call works."""

    @pytest.mark.parametrize("is_async", [False, True])
    def test_an_exception_is_an_internal_error_without_its_message(
        self, app: AppMaker, is_async: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fails(request: wasgi.Request) -> wasgi.Response:
            raise RuntimeError("secret of the host")

        async def afails(request: wasgi.Request) -> wasgi.Response:
            raise RuntimeError("secret of the host")

        made = app(outgoing=afails if is_async else fails)
        with caplog.at_level(logging.ERROR, "wasgi.outgoing"):
            response = made.handle(get("/fetch?url=http://up/"))
        assert response.text == 'ErrorCode::InternalError(Some("RuntimeError"))'
        (record,) = caplog.records
        assert record.exc_info is not None
        assert str(record.exc_info[1]) == "secret of the host"
        assert made.handle(get("/hello")).status == 200

    @pytest.mark.parametrize(
        ("exception", "code"),
        [
            (TimeoutError(), "ConnectionTimeout"),
            (ConnectionRefusedError(), "ConnectionRefused"),
            (ConnectionResetError(), "ConnectionTerminated"),
            (BrokenPipeError(), "ConnectionTerminated"),
            (ssl.SSLCertVerificationError("expired"), "TlsCertificateError"),
            (ssl.SSLError("wrong version"), "TlsProtocolError"),
            (
                socket.gaierror(-2, "Name or service not known"),
                'DnsError(DnsErrorPayload { rcode: Some("Name or service not known"), info-code: None })',
            ),
            (wasgi.errors.DnsTimeout(), "DnsTimeout"),
        ],
    )
    def test_builtin_exceptions_with_a_counterpart(self, app: AppMaker, exception: Exception, code: str) -> None:
        def fails(request: wasgi.Request) -> wasgi.Response:
            raise exception

        assert app(outgoing=fails).handle(get("/fetch?url=http://up/")).text == f"ErrorCode::{code}"

    @pytest.mark.parametrize("wrong", [None, "text", b"bytes", (200, b""), object()])
    @pytest.mark.parametrize("is_async", [False, True])
    def test_an_answer_of_the_wrong_type(
        self, app: AppMaker, wrong: Any, is_async: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def awrong(request: wasgi.Request) -> Any:
            return wrong

        made = app(outgoing=awrong if is_async else lambda request: wrong)
        assert made.handle(get("/fetch?url=http://up/")).text == 'ErrorCode::InternalError(Some("TypeError"))'
        assert "an upstream must return a wasgi.Response, not" in caplog.text

    def test_an_upstream_that_takes_no_argument(self, app: AppMaker) -> None:
        with pytest.raises(TypeError, match="`outgoing` must take one argument, the request, but takes 0"):
            app(outgoing=lambda: wasgi.Response())

    def test_one_that_does_not_tell_what_it_takes(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        class Secretive:
            __signature__ = "unknown"

            def __call__(self) -> wasgi.Response:
                return wasgi.Response()

        made: Any = app(outgoing=Secretive())
        assert made.handle(get("/fetch?url=http://up/")).text == 'ErrorCode::InternalError(Some("TypeError"))'
        assert "takes 1 positional argument but 2 were given" in caplog.text

    def test_an_answer_of_another_package_is_told_by_its_full_name(
        self, app: AppMaker, caplog: pytest.LogCaptureFixture
    ) -> None:
        made: Any = app(outgoing=lambda request: httpx2.Response(200))
        assert made.handle(get("/fetch?url=http://up/")).text == 'ErrorCode::InternalError(Some("TypeError"))'
        kind = f"{httpx2.Response.__module__}.Response"
        assert f"an upstream must return a wasgi.Response, not {kind}" in caplog.text

    @pytest.mark.parametrize("is_async", [False, True])
    def test_a_body_that_breaks_off(self, app: AppMaker, is_async: bool, caplog: pytest.LogCaptureFixture) -> None:
        def breaks() -> Iterator[bytes]:
            yield b"begun"
            raise RuntimeError("midway")

        async def abreaks() -> AsyncIterator[bytes]:
            yield b"begun"
            raise RuntimeError("midway")

        made = app(outgoing=lambda request: wasgi.Response(body=abreaks() if is_async else breaks()))
        text = made.handle(get("/fetch?url=http://up/")).text
        assert text == 'begun[broken: Some(ErrorCode::InternalError(Some("RuntimeError")))]'
        assert "midway" in caplog.text

    def test_a_body_of_the_wrong_chunks(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        chunks: Any = iter(["text"])
        text = app(outgoing=lambda request: wasgi.Response(body=chunks)).handle(get("/fetch?url=http://up/")).text
        assert text == '[broken: Some(ErrorCode::InternalError(Some("TypeError")))]'
        assert "a body's chunks must be bytes, not str" in caplog.text

    def test_an_upstream_that_never_answers(self, app: AppMaker) -> None:
        released = threading.Event()

        def never(request: wasgi.Request) -> wasgi.Response:
            released.wait(30)
            return wasgi.Response()

        made = app(outgoing=never, limits=wasgi.Limits(timeout=0.1))
        try:
            with pytest.raises(wasgi.GuestTimeoutError):
                made.handle(get("/fetch?url=http://up/"))
        finally:
            released.set()
        assert made.handle(get("/hello")).status == 200

    async def test_a_guest_that_loses_interest_cancels_the_upstream(self, app: AppMaker) -> None:
        cancelled = asyncio.Event()

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return wasgi.Response()

        with pytest.raises(wasgi.TrapError):
            await app(outgoing=upstream).handle_async(get("/fetch-and-trap?url=http://up/&ms=50"))
        await asyncio.wait_for(cancelled.wait(), 10)

    def test_a_request_that_the_guest_forgets(self, app: AppMaker) -> None:
        assert app(outgoing=ok).handle(get("/fetch-and-forget?url=http://up/")).text == "forgotten"

    async def test_the_upload_of_a_guest_that_dies_breaks_off(self, app: AppMaker) -> None:
        """The upstream must not take half an upload for a whole one."""
        seen: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        began = asyncio.Event()

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            try:
                async for _ in request:
                    began.set()
            except wasgi.BodyError as exc:
                seen.set_result(exc)
                raise
            seen.set_result(AssertionError("a clean end"))
            return wasgi.Response()

        async def upload() -> AsyncIterator[bytes]:
            yield b"begun"
            await began.wait()
            raise RuntimeError("the caller's own")

        with pytest.raises(RuntimeError, match="the caller's own"):
            await app(outgoing=upstream).handle_async(post("/proxy?url=http://up/", upload()))
        # the upstream is cancelled or sees the break, whichever comes first; it never sees a clean end
        await asyncio.sleep(0)
        if seen.done():
            assert isinstance(seen.result(), wasgi.BodyError | RuntimeError)


def test_a_component_answers_a_component(app: AppMaker, hello: wasgi.Component) -> None:
    inner = wasgi.App(hello)
    for upstream in (inner, inner.handle, inner.handle_async):
        outer = app(outgoing=upstream)
        assert outer.handle(get("/fetch?url=http://inner/")).text == "Hello, World!"
        assert asyncio.run(read(outer, get("/fetch?url=http://inner/"))) == b"Hello, World!"


def test_a_request_is_the_body_of_the_answer(app: AppMaker) -> None:
    made = app(outgoing=lambda request: wasgi.Response(body=request))
    assert made.handle(get("/fetch?url=http://up/&body=mirrored")).text == "mirrored"


def test_an_upstream_may_call_the_same_app(app: AppMaker) -> None:
    def upstream(request: wasgi.Request) -> wasgi.Response:
        return made.handle(get("/hello"))

    made = app(outgoing=upstream)
    assert made.handle(get("/fetch?url=http://self/")).text == "Hello, World!"


def test_middleware_is_a_function(app: AppMaker) -> None:
    def with_token(upstream: Any) -> Any:
        def middle(request: wasgi.Request) -> wasgi.Response:
            request.headers["authorization"] = "Bearer x"
            response: wasgi.Response = upstream(request)
            response.headers["via"] = "test"
            return response

        return middle

    def upstream(request: wasgi.Request) -> wasgi.Response:
        return wasgi.Response(body=json.dumps(dict(request.headers)))

    response = app(outgoing=with_token(upstream)).handle(get("/fetch?url=http://up/"))
    assert response.json() == {"authorization": "Bearer x"}
    assert response.headers["via"] == "test"


def test_a_scheme_that_is_none_of_http(app: AppMaker) -> None:
    assert app(outgoing=ok).handle(get("/fetch?url=ftp://up/")).text == "ErrorCode::HttpProtocolError"


def test_a_scheme_that_the_guest_leaves_out_is_https(app: AppMaker) -> None:
    assert app(outgoing=ok).handle(get("/fetch?url=none://up/x")).text == "GET https://up/x"


def test_slow_upstreams_do_not_hold_each_other_up(app: AppMaker) -> None:
    """One that hangs leaves threads for the others."""
    released = threading.Event()

    def upstream(request: wasgi.Request) -> wasgi.Response:
        if request.path == "/0":
            assert released.wait(30)
        else:
            released.set()
        return wasgi.Response(body=request.path)

    begun = time.monotonic()
    assert app(outgoing=upstream).handle(get("/fetch-many?n=2&url=http://up/")).text == "/0,/1"
    assert time.monotonic() - begun < 30


async def test_an_awaitable_that_comes_too_late_is_closed(app: AppMaker) -> None:
    """A plain callable gives a coroutine when its guest is gone: nobody waits for it, so it does not begin."""
    begun = threading.Event()
    leave = threading.Event()

    async def late() -> wasgi.Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    def upstream(request: wasgi.Request) -> Any:
        leave.wait(10)
        return late()

    with pytest.raises(wasgi.GuestTimeoutError):
        await app(outgoing=upstream, limits=wasgi.Limits(timeout=0.1)).handle_async(get("/fetch?url=http://up/"))
    while wasgi.stats().outgoing:
        await asyncio.sleep(0)  # its request ends on another thread
    leave.set()
    while wasgi.stats().calls:
        await asyncio.sleep(0)
    assert not begun.is_set()
