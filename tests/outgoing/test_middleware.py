"""Middleware of WASI 0.3: it passes requests on to `handler=`, in process."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import threading
import urllib.parse
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI

import wasgi
from tests.conftest import MIDDLEWARE, get, post, until
from wasgi import errors

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def middleware() -> wasgi.Component:
    return wasgi.Component(MIDDLEWARE)


Does = Callable[..., wasgi.App]


@pytest.fixture
def does(middleware: wasgi.Component) -> Does:
    """Makes middleware that does this with each request."""

    def make(what: str, handler: Any, variables: dict[str, str] | None = None, **options: Any) -> wasgi.App:
        return wasgi.App(middleware, handler=handler, env={"DO": what, **(variables or {})}, **options)

    return make


@pytest.fixture
def inner(probe: wasgi.Component) -> wasgi.App:
    return wasgi.App(probe)


async def answer(app: wasgi.App, request: wasgi.Request, is_async: bool) -> wasgi.Response:
    """The response, read."""
    if is_async:
        response = await app.handle_async(request)
        await response.aread()
        return response

    def block() -> wasgi.Response:
        response = app.handle(request)
        response.read()
        return response

    return await asyncio.to_thread(block)


both = pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "async"])


class TestApp:
    def test_without_a_handler_it_says_what_is_missing(self, middleware: wasgi.Component) -> None:
        with pytest.raises(wasgi.MissingImportError, match=r"hint: `App\(handler=...\)`") as raised:
            wasgi.App(middleware)
        assert [name.split("@")[0] for name in raised.value.missing] == ["wasi:http/handler"]

    def test_a_handler_that_would_never_be_asked_is_refused(
        self, hello: wasgi.Component, probe: wasgi.Component
    ) -> None:
        for component in (hello, probe):
            with pytest.raises(ValueError, match=r"does not import `wasi:http/handler@0\.3`"):
                wasgi.App(component, handler=lambda request: wasgi.Response())

    def test_what_is_no_handler_is_a_type_error(self, middleware: wasgi.Component) -> None:
        network = wasgi.Network(allow=["*"])
        for wrong in (network, wasgi.outgoing.route({"a": wasgi.outgoing.route({"*": network})})):
            with pytest.raises(TypeError, match=r"must not be or have a `Network`; hint: `outgoing` takes one"):
                wasgi.App(middleware, handler=wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="`handler` must be callable, or None, not int"):
            wasgi.App(middleware, handler=1)  # type: ignore[arg-type]

    def test_it_has_what_it_was_given(self, middleware: wasgi.Component, inner: wasgi.App) -> None:
        def handler(request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response()

        assert wasgi.App(middleware, handler=handler).handler is handler
        assert inner.handler is None

    @both
    @pytest.mark.parametrize("kind", ["function", "coroutine", "app", "app of 0.2", "asgi", "wsgi", "httpx", "route"])
    async def test_any_upstream_handles_but_the_network(
        self, does: Does, inner: wasgi.App, probe: wasgi.Component, kind: str, is_async: bool
    ) -> None:
        httpx2 = pytest.importorskip("httpx2")
        api = FastAPI()

        @api.get("/hello")
        async def hello() -> str:
            return "Hello, World!"

        def wsgi_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [])
            return [b"Hello, World!"]

        async def coroutine(request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response(body="Hello, World!")

        kinds: dict[str, Any] = {
            "function": lambda request: wasgi.Response(body="Hello, World!"),
            "coroutine": coroutine,
            "app": inner,
            "app of 0.2": wasgi.App(probe),
            "asgi": wasgi.outgoing.asgi(api),
            "wsgi": wasgi.outgoing.wsgi(wsgi_app),
            "httpx": wasgi.outgoing.httpx(
                httpx2.MockTransport(lambda request: httpx2.Response(200, content=b"Hello, World!"))
            ),
            "route": wasgi.outgoing.route({"guest.local": inner}),
        }
        for what in ("", "fields", "count"):
            response = await answer(does(what, kinds[kind]), get("/hello"), is_async)
            assert response.status == 200
            assert response.text.strip('"') == "Hello, World!"

    async def test_no_policy_and_no_limit_of_outgoing_requests_applies(self, does: Does, inner: wasgi.App) -> None:
        outgoing: list[str] = []

        def send(request: wasgi.Request) -> wasgi.Response:
            outgoing.append(request.url)
            return wasgi.Response(204)

        limits = wasgi.Limits(outgoing=0, outgoing_concurrency=1)
        finished: list[wasgi.Exchange] = []
        variables = {"URL": "http://guest.local/sleep?ms=20", "OPTION": "5"}
        app = does("many", inner, variables, outgoing=send, limits=limits, on_finish=finished.append)
        assert (await answer(app, get("/"), True)).text == "200 200 200 200 200"
        assert outgoing == []
        until(lambda: bool(finished))
        assert finished[0].report.outgoing == 0

    async def test_the_client_has_its_own_upstream(
        self, does: Does, inner: wasgi.App, caplog: pytest.LogCaptureFixture
    ) -> None:
        asked: list[str] = []

        def send(request: wasgi.Request) -> wasgi.Response:
            asked.append(request.url)
            return wasgi.Response(204)

        variables = {"URL": "http://elsewhere.example/x"}
        app = does("client", inner, variables, outgoing=send)
        assert "header x-client: 204" in (await answer(app, get("/inspect"), True)).text
        assert asked == ["http://elsewhere.example/x"]
        with caplog.at_level(logging.WARNING):
            response = await answer(does("client", inner, variables), get("/inspect"), True)
        assert "header x-client: ErrorCode::HttpRequestDenied" in response.text, "`handler` is not asked"
        assert "its app has no upstream" in caplog.text

    async def test_an_isolation_check_has_it_too(self, does: Does, inner: wasgi.App) -> None:
        # one that has read what it passed a request on for: else its instance goes with the exchange
        wasgi.testing.check_isolation(does("report", inner), [get("/hello"), get("/inspect")])


class TestMessages:
    @both
    async def test_fields_are_added_both_ways(self, does: Does, inner: wasgi.App, is_async: bool) -> None:
        app = does("fields", does("fields", inner, {"NAME": "second"}), {"NAME": "first"})
        response = await answer(app, get("/inspect", headers={"x-a": "b"}), is_async)
        lines = response.text.splitlines()
        assert [line for line in lines if line.startswith("header")] == [
            "header x-a: b",
            "header x-middleware: first",
            "header x-middleware: second",
        ]
        assert response.headers.get_all("x-middleware") == ["second", "first"]

    @pytest.mark.parametrize("what", ["", "fields"])
    @pytest.mark.parametrize(
        "url",
        [
            "http://guest.local/inspect?q=1",
            "https://guest.local:8443/inspect",
            "https://[::1]:8080/inspect",
            "ftp://guest.local/inspect",
            "http://guest.local/inspect?{not}=%zz",
        ],
    )
    async def test_scheme_authority_and_target_are_passed_on(
        self, does: Does, inner: wasgi.App, url: str, what: str
    ) -> None:
        direct = (await answer(inner, wasgi.Request("GET", url), True)).text
        seen: list[str] = []

        async def watch(request: wasgi.Request) -> wasgi.Response:
            seen.append(request.url)
            return await inner.handle_async(request)

        lines = (await answer(does(what, watch), wasgi.Request("GET", url), True)).text.splitlines()
        assert [line for line in lines if "x-middleware" not in line] == direct.splitlines()
        assert seen == [wasgi.Request("GET", url).url]

    async def test_what_a_server_gets_is_passed_on(self, does: Does) -> None:
        """`OPTIONS *`, and a target that a URL should have encoded."""
        seen: list[tuple[str, str, str]] = []

        async def handler(request: wasgi.Request) -> wasgi.Response:
            seen.append((request.method, request.url, request._target()))
            return wasgi.Response(204)

        app = does("", does("", handler))
        for method, target in (("OPTIONS", b"*"), ("GET", b"/{a}"), ("GET", b"/")):
            sent: list[Any] = []

            async def receive() -> Any:
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: Any, sent: list[Any] = sent) -> None:
                sent.append(message)

            scope = {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": method,
                "scheme": "http",
                "path": target.decode(),
                "raw_path": target,
                "query_string": b"",
                "headers": [(b"host", b"[::1]:80")],
            }
            await app(scope, receive, send)
            assert sent[0]["status"] == 204
        assert seen == [
            ("OPTIONS", "http://[::1]:80", "*"),
            ("GET", "http://[::1]:80/{a}", "/{a}"),
            ("GET", "http://[::1]:80/", "/"),
        ]

    async def test_a_request_that_says_less_is_for_the_same_host(self, does: Does, inner: wasgi.App) -> None:
        text = (await answer(does("new", inner), wasgi.Request("PUT", "http://[::1]:8/inspect?a"), True)).text
        assert text.splitlines()[:4] == [
            "method: Method::Put",
            "scheme: Some(Scheme::Http)",
            'authority: Some("[::1]:8")',
            'path: Some("/inspect?a")',
        ]

    async def test_a_url_that_is_none_is_refused(
        self, does: Does, inner: wasgi.App, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(errors.HttpRequestUriInvalid):
            await does("url", inner, {"URL": "http://user@guest.local/"}).handle_async(get("/"))
        assert "a request that is passed on was refused: its URL is invalid" in caplog.text

    async def test_request_options_travel(self, does: Does) -> None:
        async def nobody(request: wasgi.Request) -> wasgi.Response:
            raise AssertionError

        last = does("answer", nobody)
        for app in (does("options", last, {"OPTION": "2000"}), does("options", does("", last), {"OPTION": "2000"})):
            text = (await answer(app, get("/"), True)).text
            assert "options: Some((Some(1000000), Some(2000000000), Some(3000000000)))" in text
        assert "options: None" in (await answer(does("", last), get("/"), True)).text
        given = wasgi.Timeouts(connect=1.5, between_bytes=0)
        for app in (last, does("", last), does("fields", last)):
            text = (await answer(app, get("/", timeouts=given), True)).text
            assert "options: Some((Some(1500000000), None, Some(0)))" in text

    @both
    async def test_request_options_limit_the_wait(self, does: Does, inner: wasgi.App, is_async: bool) -> None:
        app = does("options", inner, {"OPTION": "10"})
        with pytest.raises(errors.ConnectionReadTimeout):
            await answer(app, get("/sleep?ms=60000"), is_async)

    @both
    @pytest.mark.parametrize("what", ["", "fields", "count"])
    async def test_trailers_and_lengths_pass_both_ways(
        self, does: Does, inner: wasgi.App, what: str, is_async: bool
    ) -> None:
        app = does(what, inner)
        response = await answer(app, post("/echo", b"x" * 100_000, trailers={"x-sum": "7"}), is_async)
        assert response.content == b"x" * 100_000
        counted = {"x-request-bytes": "100000", "x-response-bytes": "100000"} if what == "count" else {}
        assert response.trailers is not None
        assert dict(response.trailers) == {"x-sum": "7", **counted}
        response = await answer(app, post("/inspect", b"x" * 7), is_async)
        assert "header content-length: 7" in response.text
        response = await answer(app, get("/length?declared=4000&written=4000"), is_async)
        assert response.headers["content-length"] == "4000"
        assert response.content == b"x" * 4000
        response = await answer(app, wasgi.Request("HEAD", "http://guest.local/head"), is_async)
        assert response.headers["content-length"] == "1234"
        assert response.content == b""

    @pytest.mark.parametrize("what", ["", "fields", "count"])
    async def test_bodies_stream_both_ways(self, does: Does, inner: wasgi.App, what: str) -> None:
        """A chunk of the response comes before the next one of the request is made."""
        came = asyncio.Queue[bytes]()

        async def chunks() -> AsyncIterator[bytes]:
            for n in range(5):
                yield b"%d" % n
                assert await came.get() == b"%d" % n

        response = await does(what, does(what, inner)).handle_async(post("/echo", chunks()))
        async for chunk in response:
            await came.put(chunk)

    @pytest.mark.parametrize("what", ["", "fields", "count"])
    async def test_nobody_writes_faster_than_is_read(self, does: Does, inner: wasgi.App, what: str) -> None:
        made = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal made
            while True:
                made += 1
                yield b"x" * 65536

        response = await does(what, inner).handle_async(post("/echo", endless()))
        chunks = aiter(response)
        for _ in range(4):
            assert await anext(chunks)
        for _ in range(200):
            await asyncio.sleep(0)
        assert made < 100
        await response.aclose()

    @both
    async def test_ten_megabytes(self, does: Does, inner: wasgi.App, is_async: bool) -> None:
        sent = bytes(range(256)) * 40_000
        response = await answer(does("count", does("fields", inner)), post("/echo", sent), is_async)
        assert hashlib.sha256(response.content).digest() == hashlib.sha256(sent).digest()

    @pytest.mark.parametrize("read", [0, 1, 4])
    @pytest.mark.parametrize("chunk", [3, 16 << 10])
    async def test_what_is_left_of_a_body_is_passed_on(self, does: Does, chunk: int, read: int) -> None:
        """A guest that has read the first bytes, or looked for any, passes on the others: none is lost."""
        sent = bytes(range(256)) * 400

        async def chunks() -> AsyncIterator[bytes]:
            for at in range(0, len(sent), chunk):
                yield sent[at : at + chunk]

        seen: list[str | None] = []

        async def watch(request: wasgi.Request) -> wasgi.Response:
            seen.append(request.headers.get("x-begin"))
            content = await request.aread()
            assert content == sent[min(read, chunk) :], "the request's"
            assert dict(request.trailers or {}) == {"x-sum": "7"}
            return wasgi.Response(body=chunks(), trailers={"x-sum": "8"})

        app = does("peek", watch, {"OPTION": str(read)})
        response = await app.handle_async(post("/", chunks(), trailers={"x-sum": "7"}))
        assert await response.aread() == sent[min(read, chunk) :], "the response's"
        assert dict(response.trailers or {}) == {"x-sum": "8"}


class TestErrors:
    @both
    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("DNS-error", errors.DnsError),
            ("HTTP-request-header-size", errors.HttpRequestHeaderSize),
            ("HTTP-response-header-size", errors.HttpResponseHeaderSize),
            ("TLS-alert-received", errors.TlsAlertReceived),
            ("loop-detected", errors.LoopDetected),
            ("internal-error", errors.InternalError),
        ],
    )
    async def test_an_error_code_comes_through(
        self, does: Does, inner: wasgi.App, name: str, kind: type[errors.ErrorCode], is_async: bool
    ) -> None:
        with pytest.raises(kind) as direct:
            await answer(inner, get(f"/code?name={name}"), is_async)
        for app in (does("", inner), does("count", does("fields", inner))):
            with pytest.raises(kind) as passed:
                await answer(app, get(f"/code?name={name}"), is_async)
            assert str(passed.value) == str(direct.value)

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            ("/trap", "InternalError"),
            ("/exit?code=3", "InternalError"),
            ("/silent", "InternalError"),
            ("/hello", "200, 13 bytes, Ok(false); sent: Ok(())"),
            ("/trailers", "200, 4 bytes, Ok(true); sent: Ok(())"),
            ("/unfinished", "200, 10 bytes, Err(ErrorCode::"),
            ("/dropped", "200, 10 bytes, Err(ErrorCode::"),
            ("/trap-midway?bytes=10", "200, 10 bytes, Err(ErrorCode::"),
        ],
    )
    async def test_what_the_handler_does_wrong_is_told(
        self, does: Does, inner: wasgi.App, path: str, said: str
    ) -> None:
        text = (await answer(does("report", inner), get(path), True)).text
        assert text.startswith((said, f"ErrorCode::{said}")), text

    async def test_a_handler_that_cannot_be_asked(self, does: Does, inner: wasgi.App) -> None:
        inner.close()
        text = (await answer(does("report", inner), get("/hello"), True)).text
        assert text.startswith("ErrorCode::InternalError"), text
        limits = wasgi.Limits(request_body=3)
        limited = wasgi.App(inner.component, limits=limits)
        text = (await answer(does("report", limited), post("/echo", b"1234"), True)).text
        assert text.startswith("ErrorCode::HttpRequestBodySize(Some(4))"), text

    async def test_a_request_that_breaks_off_breaks_off(self, does: Does) -> None:
        broken: list[BaseException] = []

        async def handler(request: wasgi.Request) -> wasgi.Response:
            try:
                await request.aread()
            except wasgi.BodyError as exc:
                broken.append(exc)
            return wasgi.Response(204)

        assert (await answer(does("break", handler), get("/"), True)).status == 204
        assert len(broken) == 1

    @both
    @pytest.mark.parametrize("what", ["trap-before", "trap-after"])
    async def test_a_trap_of_the_middleware(self, does: Does, inner: wasgi.App, what: str, is_async: bool) -> None:
        with pytest.raises(wasgi.TrapError, match="unreachable"):
            await answer(does(what, inner), get("/hello"), is_async)

    @both
    async def test_a_trap_midway_breaks_the_body(self, does: Does, inner: wasgi.App, is_async: bool) -> None:
        app = does("trap-midway", inner)
        with pytest.raises(wasgi.BodyError) as raised:
            await answer(app, get("/endless"), is_async)
        assert isinstance(raised.value.__cause__, wasgi.TrapError)


class TestChains:
    """An exchange in another one's host call: no store of WASI 0.3 may be entered while one is polled on the thread."""

    @both
    @pytest.mark.parametrize("path", ["/hello", "/sleep?ms=5", "/slow-body?ms=5", "/stream?chunks=50&bytes=9000"])
    @pytest.mark.parametrize("first", ["handler", "outgoing"])
    @pytest.mark.parametrize("second", ["handler", "outgoing"])
    async def test_three_apps(
        self, does: Does, inner: wasgi.App, first: str, second: str, path: str, is_async: bool
    ) -> None:
        def on(way: str, below: wasgi.App) -> wasgi.App:
            return does("count", below) if way == "handler" else wasgi.App(inner.component, outgoing=below)

        direct = (await answer(inner, get(path), is_async)).content
        app = on(first, on(second, inner))
        url = f"http://guest.local{path}"
        for _ in [way for way in (first, second) if way == "outgoing"]:
            url = f"http://guest.local/fetch-or-code?url={urllib.parse.quote(url, safe='')}"
        request = wasgi.Request("GET", url)
        for _ in range(3):
            response = await answer(app, request, is_async)
            assert response.content == direct
        responses = await asyncio.gather(*(answer(app, request, is_async) for _ in range(20)))
        assert {response.content for response in responses} == {direct}

    @both
    async def test_a_chain_that_meets_itself_is_a_loop(self, does: Does, is_async: bool) -> None:
        depth = 0

        async def again(request: wasgi.Request) -> wasgi.Response:
            nonlocal depth
            depth += 1
            return await app.handle_async(request)

        app: wasgi.App = does("", again)
        with pytest.raises(errors.LoopDetected):
            await answer(app, get("/"), is_async)
        assert depth == 16

    def test_a_blocking_chain_that_meets_itself_is_a_loop(self, does: Does) -> None:
        app: wasgi.App = does("fields", lambda request: app.handle(request))
        with pytest.raises(errors.LoopDetected):
            app.handle(get("/"))

    @both
    async def test_sixteen_are_a_chain(self, does: Does, inner: wasgi.App, is_async: bool) -> None:
        app = inner
        for _ in range(16):
            app = does("", app)
        assert (await answer(app, get("/hello"), is_async)).text == "Hello, World!"
        with pytest.raises(errors.LoopDetected):
            await answer(does("", app), get("/fetch?url=http://a/"), is_async)

    async def test_its_exchanges_may_reuse_instances(self, middleware: wasgi.Component, inner: wasgi.App) -> None:
        app = wasgi.App(middleware, handler=inner, env={"DO": "fields"}, reuse=wasgi.Reuse())
        for n in range(10):
            request = wasgi.Request("GET", f"http://host{n}/inspect")
            assert f'authority: Some("host{n}")' in (await answer(app, request, True)).text

    @pytest.mark.parametrize("what", ["", "count", "report"])
    async def test_cancelling_the_first_stops_them_all(self, does: Does, inner: wasgi.App, what: str) -> None:
        app = does(what, does(what, inner))
        task = asyncio.ensure_future(app.handle_async(get("/sleep?ms=60000")))
        while wasgi.stats().exchanges < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        while wasgi.stats().exchanges:
            await asyncio.sleep(0.001)

    @pytest.mark.parametrize("what", ["", "count"])
    async def test_closing_the_response_stops_them_all(self, does: Does, inner: wasgi.App, what: str) -> None:
        response = await does(what, does(what, inner)).handle_async(get("/endless"))
        assert await anext(aiter(response))
        await response.aclose()
        while wasgi.stats().exchanges:
            await asyncio.sleep(0.001)

    async def test_a_call_that_is_let_go_of_is_cancelled(self, does: Does) -> None:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def send(request: wasgi.Request) -> wasgi.Response:
            await begun.wait()
            return wasgi.Response(204)

        async def handler(request: wasgi.Request) -> wasgi.Response:
            begun.set()
            try:
                await asyncio.sleep(3600)
            finally:
                cancelled.set()
            return wasgi.Response()

        assert (
            await answer(does("forget", handler, {"URL": "http://a/"}, outgoing=send), get("/"), True)
        ).text == "forgotten"
        await asyncio.wait_for(cancelled.wait(), 30)

    async def test_a_handler_sees_the_callers_context(self, does: Does) -> None:
        threads: list[threading.Thread] = []

        async def handler(request: wasgi.Request) -> wasgi.Response:
            threads.append(threading.current_thread())
            return wasgi.Response(204)

        await answer(does("", handler), get("/"), True)
        assert threads == [threading.current_thread()]

    async def test_in_a_simulation(self, does: Does) -> None:
        async def handler(request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response(body=b"x" * 10)

        app = does("report", handler, simulation=wasgi.testing.Simulation())
        assert (await answer(app, get("/"), True)).text == "200, 10 bytes, Ok(false); sent: Ok(())"
