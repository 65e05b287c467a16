"""What else may play the upstream: routes, ASGI and WSGI applications, clients of httpx2 and httpx, chains."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import gzip
import io
import re
import socket
import ssl
import threading
import weakref
import wsgiref.validate
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import flask
import httpx
import httpx2
import pytest
from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import StreamingResponse

import wasgi
from tests.conftest import ROOT, AppMaker, get, post, until
from wasgi import errors
from wasgi._native import failures
from wasgi.outgoing import call, route
from wasgi.outgoing._wsgi import MOST_WRITTEN

OVER = "/fetch-or-code?url="


def says(text: str) -> Callable[[wasgi.Request], wasgi.Response]:
    return lambda request: wasgi.Response(body=f"{text} {request.url}")


def says_async(text: str) -> Any:
    async def send(request: wasgi.Request) -> wasgi.Response:
        return wasgi.Response(body=f"{text} {request.url}")

    return send


class TestRoute:
    def test_each_request_goes_to_the_upstream_that_fits_best(self, app: AppMaker) -> None:
        made = app(
            outgoing=route(
                {
                    "auth.local": says("auth"),
                    "*.local": says_async("local"),
                    "https://api.example.com/v1/": says("v1"),
                    "https://api.example.com": route({"*/deep": says("deep"), "*": says_async("api")}),
                    "guest.local": app(),
                }
            )
        )
        for url, text in {
            "http://auth.local:99/x": "auth http://auth.local:99/x",
            "http://AUTH.local./x": "auth http://AUTH.local./x",
            "http://x.local/": "local http://x.local/",
            "https://api.example.com/v1/a": "v1 https://api.example.com/v1/a",
            "https://api.example.com/deep/a": "deep https://api.example.com/deep/a",
            "https://api.example.com/a": "api https://api.example.com/a",
            "http://guest.local/hello": "Hello, World!",
        }.items():
            assert made.handle(get(OVER + url)).text == text
        for url in (
            "http://api.example.com/",
            "https://api.example.com:444/",
            "http://local/",
            "https://api.example.com//v1",
        ):
            with pytest.raises(errors.DestinationNotFound):
                made.handle(get(OVER + url))

    @pytest.mark.parametrize(
        ("table", "why"),
        [
            ({"a": says(""), "A.": says("")}, "`A.` is given twice: `a`"),
            ({"http://*.b": says(""), "a.b": says("")}, "neither is more specific"),
            ({"ftp://a": says("")}, "`ftp://a`: its scheme must be http or https"),
        ],
    )
    def test_what_is_no_route_says_why(self, table: dict[str, Any], why: str) -> None:
        with pytest.raises(ValueError, match="invalid route: ") as raised:
            route(table)
        assert why in str(raised.value)

    @pytest.mark.parametrize("table", [{"a": 1}, {1: says("")}, [("a", says(""))]])
    def test_what_is_no_table_is_a_type_error(self, table: Any) -> None:
        with pytest.raises(TypeError):
            route(table)

    def test_it_shows_itself_and_is_collected(self, app: AppMaker) -> None:
        class Upstream:
            def __call__(self, request: wasgi.Request) -> wasgi.Response:
                return wasgi.Response()

            def __repr__(self) -> str:
                return "mine"

        upstream = Upstream()
        made = route({"a": upstream})
        assert repr(made) == "wasgi.outgoing.route({'a': mine})"
        upstream.cycle = app(outgoing=made)  # type: ignore[attr-defined]
        gone = weakref.ref(upstream)
        del upstream, made
        gc.collect()
        assert gone() is None


class TestMiddleware:
    @pytest.mark.parametrize("kind", ["function", "coroutine", "app", "route"])
    async def test_call_asks_any_upstream(self, app: AppMaker, kind: str) -> None:
        kinds: dict[str, Any] = {"function": says("it"), "coroutine": says_async("it"), "app": app()}
        below = kinds.get(kind) or route({"*": says("it")})
        seen: list[str] = []

        async def middleware(request: wasgi.Request) -> wasgi.Response:
            seen.append(request.url)
            response = await call(below, request)
            response.headers["x-seen"] = "yes"
            return response

        response = await app(outgoing=middleware).handle_async(get(OVER + "http://guest.local/inspect"))
        text = (await response.aread()).decode()
        assert seen == ["http://guest.local/inspect"]
        assert response.headers["x-seen"] == "yes"
        assert text.startswith("method: Method::Get" if kind == "app" else "it http://guest.local/inspect")

    async def test_call_knows_what_no_route_answers(self) -> None:
        with pytest.raises(errors.DestinationNotFound):
            await call(route({}), get("/"))


class TestChains:
    def test_a_loop_of_blocking_upstreams_is_detected(self, app: AppMaker) -> None:
        """More of them than there are threads."""
        depth = 0

        def again(request: wasgi.Request) -> wasgi.Response:
            nonlocal depth
            depth += 1
            return made.handle(get(OVER + "http://up/"))

        made = app(outgoing=again)
        with pytest.raises(errors.LoopDetected):
            made.handle(get(OVER + "http://up/"))
        assert depth == 16

    def test_more_of_them_than_can_wait_are_refused(self, app: AppMaker) -> None:
        """Threads that wait for threads: there must be one left, or an error."""
        inner = app(outgoing=says("it"), limits=wasgi.Limits(concurrency=None))
        outer = app(outgoing=lambda request: inner.handle(get(OVER + "http://up/")))
        answers: list[str] = []

        def ask() -> None:
            answers.append(outer.handle(get("/fetch-many?n=64&url=http://up/")).text)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(50)
        assert len(answers) == 8
        each = ",".join(answers).split(",")
        assert len(each) == 512
        assert all(one.startswith("it http://up/") or "OverloadedError" in one for one in each)

    async def test_a_loop_of_coroutines_is_detected(self, app: AppMaker) -> None:
        async def again(request: wasgi.Request) -> wasgi.Response:
            return await made.handle_async(get(OVER + "http://up/"))

        made = app(outgoing=again)
        with pytest.raises(errors.LoopDetected):
            await made.handle_async(get(OVER + "http://up/"))
        # what is beside one another is not deep
        flat = app(outgoing=app())
        for _ in range(40):
            assert (await flat.handle_async(get(OVER + "http://guest.local/hello"))).status == 200

    async def test_cancelling_the_first_stops_them_all(self, app: AppMaker) -> None:
        first = app(outgoing=app(outgoing=app()))
        inner = f"http://guest.local{OVER}http://guest.local/sleep?ms=60000"
        task = asyncio.ensure_future(first.handle_async(get(OVER + inner)))
        while wasgi.stats().exchanges < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        while wasgi.stats().exchanges:
            await asyncio.sleep(0.001)


api = FastAPI()


@api.get("/users/{number}")
async def user(number: int, request: Request) -> dict[str, Any]:
    return {"number": number, "host": request.url.netloc, "query": request.url.query, "x": request.headers.get("x-a")}


@api.post("/echo")
async def echo(request: Request) -> StreamingResponse:
    return StreamingResponse(request.stream(), headers={"x-up": "yes"})


later: list[str] = []


@api.get("/later")
async def answer_first(tasks: BackgroundTasks) -> str:
    tasks.add_task(later.append, "done")
    return "soon"


class TestAsgi:
    async def test_fastapi_plays_the_upstream(self, app: AppMaker) -> None:
        made = app(outgoing=wasgi.outgoing.asgi(api))
        response = await made.handle_async(get("/fetch?header=x-a:b&url=https://api.example.com/users/7?q=%2520"))
        assert await response.aread()
        assert response.json() == {"number": 7, "host": "api.example.com", "query": "q=%20", "x": "b"}
        missing = await made.handle_async(get("/fetch?url=https://api.example.com/none"))
        assert missing.status == 404

    def test_blocking_callers_too(self, app: AppMaker) -> None:
        made = app(outgoing=wasgi.outgoing.asgi(api))
        assert made.handle(get("/fetch?url=https://api.example.com/users/7")).json()["number"] == 7

    async def test_bodies_stream_both_ways(self, app: AppMaker) -> None:
        """And an answer is made no faster than it is read."""
        made = app(outgoing=wasgi.outgoing.asgi(api))
        response = await made.handle_async(post("/proxy?url=http://up/echo", b"x" * 3_000))
        assert await response.aread() == b"x" * 3_000
        assert response.headers["x-up"] == "yes"
        sent = 0

        async def endless(scope: Any, receive: Any, send: Any) -> None:
            nonlocal sent
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"y" * 65536, "more_body": True})
                sent += 1

        response = await app(outgoing=wasgi.outgoing.asgi(endless, lifespan="off")).handle_async(
            get("/fetch?url=http://up/")
        )
        chunks = aiter(response)
        assert await anext(chunks)
        assert sent < 40
        await response.aclose()

    async def test_the_lifespan_is_run_once(self, app: AppMaker) -> None:
        events: list[str] = []

        @contextlib.asynccontextmanager
        async def lifespan(api: FastAPI) -> AsyncIterator[dict[str, str]]:
            events.append("up")
            yield {"made": "once"}
            events.append("down")

        site = FastAPI(lifespan=lifespan)

        @site.get("/")
        async def home(request: Request) -> str:
            return str(request.state.made)

        upstream = wasgi.outgoing.asgi(site)
        made = app(outgoing=upstream)
        for _ in range(3):
            response = await made.handle_async(get("/fetch?url=http://up/"))
            assert await response.aread() == b'"once"'
        assert events == ["up"]
        await upstream.aclose()
        assert events == ["up", "down"]
        async with upstream:
            assert events == ["up", "down", "up"]
        assert events == ["up", "down", "up", "down"]

    async def test_one_that_nobody_closes_is_shut_down_when_it_is_gone(
        self, app: AppMaker, caplog: pytest.LogCaptureFixture
    ) -> None:
        events: list[str] = []
        ended = asyncio.Event()

        async def site(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                events.append((await receive())["type"])
                await send({"type": "lifespan.startup.complete"})
                events.append((await receive())["type"])
                await send({"type": "lifespan.shutdown.complete"})
                ended.set()
                return
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x"})

        before = asyncio.all_tasks()
        response = await app(outgoing=wasgi.outgoing.asgi(site)).handle_async(get("/fetch?url=https://a.example/"))
        await response.aread()
        del response
        while not ended.is_set():
            wasgi.stats()  # what threads of ours have let go of is given back when native code next runs under the GIL
            gc.collect()
            await asyncio.sleep(0.001)
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.001)
        assert events == ["lifespan.startup", "lifespan.shutdown"]
        assert caplog.text == ""

    def test_one_whose_loop_has_closed_says_nothing_either(
        self, app: AppMaker, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def site(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x"})

        async def ask() -> bytes:
            made = app(outgoing=wasgi.outgoing.asgi(site))
            return await (await made.handle_async(get("/fetch?url=https://a.example/"))).aread()

        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(ask()).endswith(b"x")
        loop.close()
        gc.collect()
        assert caplog.text == ""

    def test_each_loop_has_its_lifespan_when_the_last_one_has_closed(self, app: AppMaker) -> None:
        events: list[str] = []

        async def site(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                events.append((await receive())["type"])
                await send({"type": "lifespan.startup.complete"})
                await receive()
            else:
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body"})

        made = app(outgoing=wasgi.outgoing.asgi(site))

        async def once() -> int:
            return (await made.handle_async(get("/fetch?url=http://up/"))).status

        assert [asyncio.run(once()), asyncio.run(once())] == [204, 204]
        assert events == ["lifespan.startup"] * 2

    @pytest.mark.parametrize("mode", ["auto", "on"])
    async def test_an_application_whose_startup_fails(self, app: AppMaker, mode: Any) -> None:
        async def site(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.failed", "message": "no database"})

        with pytest.raises(errors.InternalError, match="RuntimeError"):
            await app(outgoing=wasgi.outgoing.asgi(site, lifespan=mode)).handle_async(get(OVER + "http://up/"))

    async def test_what_an_application_does_wrong(self, app: AppMaker) -> None:
        async def fails(scope: Any, receive: Any, send: Any) -> None:
            raise KeyError("mine")

        async def silent(scope: Any, receive: Any, send: Any) -> None:
            pass

        async def breaks_off(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"some", "more_body": True})

        for site, error in ((fails, errors.InternalError), (silent, errors.HttpResponseIncomplete)):
            with pytest.raises(error):
                await app(outgoing=wasgi.outgoing.asgi(site)).handle_async(get(OVER + "http://up/"))
        response = await app(outgoing=wasgi.outgoing.asgi(breaks_off)).handle_async(get(OVER + "http://up/"))
        assert await response.aread() == b"some[broken: Some(ErrorCode::HttpResponseIncomplete)]", "what the guest sees"

    async def test_a_guest_that_goes_away_is_a_disconnect(self, app: AppMaker) -> None:
        seen: list[Any] = []

        async def waits(scope: Any, receive: Any, send: Any) -> None:
            seen.append((await receive())["type"])
            seen.append((await receive())["type"])

        async def writes(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            try:
                while True:
                    await send({"type": "http.response.body", "body": b"y" * 65536, "more_body": True})
            except OSError as error:
                seen.append(str(error))

        async def stays(scope: Any, receive: Any, send: Any) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                seen.append("cancelled")

        for site, expected in (
            (waits, ["http.request", "http.disconnect"]),
            (writes, ["the client has gone"]),
            (stays, ["cancelled"]),
        ):
            seen.clear()
            upstream = wasgi.outgoing.asgi(site, lifespan="off")
            task = asyncio.ensure_future(app(outgoing=upstream).handle_async(get("/fetch?url=http://up/")))
            while not upstream.tasks or (site is waits and not seen):
                await asyncio.sleep(0.001)
            if site is writes:
                await (await task).aclose()
            else:
                task.cancel()
            while upstream.tasks:
                await asyncio.sleep(0.001)
            assert seen == expected

    async def test_work_after_the_answer_goes_on(self, app: AppMaker) -> None:
        later.clear()
        response = await app(outgoing=wasgi.outgoing.asgi(api)).handle_async(get("/fetch?url=http://up/later"))
        assert await response.aread() == b'"soon"'
        while later != ["done"]:
            await asyncio.sleep(0.001)

    @pytest.mark.parametrize(("options", "error"), [({"lifespan": "no"}, ValueError), ({"application": 1}, TypeError)])
    def test_wrong_options(self, options: dict[str, Any], error: type[Exception]) -> None:
        with pytest.raises(error, match=f"`{next(iter(options))}` must be"):
            wasgi.outgoing.asgi(**{"application": api, **options})


site = flask.Flask(__name__)


@site.route("/echo", methods=["GET", "POST"])
def flask_echo() -> flask.Response:
    body = flask.request.get_data()
    seen = f"{flask.request.method} {flask.request.url} {flask.request.headers.get('x-a')} "
    return flask.Response(seen.encode() + body, status=201, headers={"x-up": "yes"})


class TestWsgi:
    def test_write_without_end_is_ended(self, app: AppMaker) -> None:
        """Nobody takes what is written before the application returns, and nothing else would hold it back."""
        written = 0

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            nonlocal written
            write = start_response("200 OK", [])
            while True:
                write(b"x" * 65536)
                written += 65536

        made = app(outgoing=wasgi.outgoing.wsgi(application))
        assert made.handle(get("/fetch?url=http://up/")).text.startswith("ErrorCode::InternalError")
        assert written == MOST_WRITTEN
        until(lambda: wasgi.stats().calls == 0)

    def test_write_while_somebody_reads(self, app: AppMaker) -> None:
        """What has been read makes room."""

        def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            write = start_response("200 OK", [])
            for _ in range(40):
                write(b"x" * (1 << 20))
                yield b"y"

        made = app(outgoing=wasgi.outgoing.wsgi(application))
        with made.handle(get("/proxy?url=http://up/")) as response:
            assert sum(map(len, response)) == 40 * ((1 << 20) + 1)

    def test_flask_plays_the_upstream(self, app: AppMaker) -> None:
        made = app(outgoing=wasgi.outgoing.wsgi(site))
        response = made.handle(get("/fetch?header=x-a:b&url=https://api.example.com:8443/echo?q=1"))
        assert (response.status, response.headers["x-up"]) == (201, "yes")
        assert response.text == "GET https://api.example.com:8443/echo?q=1 b "
        assert made.handle(post("/proxy?url=http://up/echo", b"x" * 300_000)).text.endswith("x" * 300_000)

    def test_a_name_with_an_underscore_is_not_taken_for_another(self, app: AppMaker) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [])
            return [repr(environ.get("HTTP_X_USER")).encode()]

        made = app(outgoing=wasgi.outgoing.wsgi(application))
        assert made.handle(get("/fetch?url=http://up/&header=x_user:admin")).text == "None"
        assert made.handle(get("/fetch?url=http://up/&header=x-user:ada")).text == "'ada'"

    def test_to_the_letter(self, app: AppMaker) -> None:
        """Under the standard library's validator, which watches both sides."""

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            body = environ["wsgi.input"].read(5)
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"", body, environ["wsgi.input"].read(-1)]

        checked = wsgiref.validate.validator(application)
        made = app(outgoing=wasgi.outgoing.wsgi(checked))
        assert made.handle(post("/proxy?url=http://[::1]:80/a%2520b?c", b"0123456789")).text == "0123456789"

    def test_the_answer_streams_and_is_closed(self, app: AppMaker) -> None:
        made, closed = 0, threading.Event()

        def chunks() -> Iterator[bytes]:
            nonlocal made
            try:
                while True:
                    made += 1
                    yield b"y" * 65536
            finally:
                closed.set()

        def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [])
            return chunks()

        with app(outgoing=wasgi.outgoing.wsgi(application)).handle(get("/fetch?url=http://up/")) as response:
            assert next(iter(response))
            assert made < 40
        assert closed.wait(30)

    def test_what_an_application_may_do(self, app: AppMaker) -> None:
        def writes(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            write = start_response("200 OK", [])
            write(b"one ")
            write(b"two ")
            return [b"three"]

        def changes_its_mind(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [])
            try:
                raise KeyError
            except KeyError as error:
                start_response("503 No", [], (KeyError, error, error.__traceback__))
            return []

        def late(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            start_response("202 Fine", [])
            yield b"late"

        for application, status, body in (
            (writes, 200, "one two three"),
            (changes_its_mind, 503, ""),
            (late, 202, "late"),
        ):
            response = app(outgoing=wasgi.outgoing.wsgi(application)).handle(get(OVER + "http://up/"))
            assert (response.status, response.text) == (status, body)

    def test_what_an_application_does_wrong(self, app: AppMaker) -> None:
        def silent(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            return []

        def twice(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [])
            start_response("200 OK", [])
            return []

        def too_late(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [])
            yield b"x"
            error = KeyError()
            start_response("500 No", [], (KeyError, error, None))

        for application in (silent, twice):
            with pytest.raises(errors.InternalError):
                app(outgoing=wasgi.outgoing.wsgi(application)).handle(get(OVER + "http://up/"))
        response = app(outgoing=wasgi.outgoing.wsgi(too_late)).handle(get(OVER + "http://up/"))
        assert response.text.startswith("x[broken: Some(ErrorCode::InternalError")


LIBRARIES = [pytest.param(httpx2, id="httpx2"), pytest.param(httpx, id="httpx")]


@pytest.mark.parametrize("library", LIBRARIES)
class TestHttpx:
    @pytest.mark.parametrize("kind", ["client", "async client", "transport", "async transport"])
    def test_any_client_plays_the_upstream(self, app: AppMaker, library: Any, kind: str) -> None:
        def answer(request: Any) -> Any:
            text = f"{request.method} {request.url} {request.headers.get('x-a')} {request.headers.get('user-agent')} "
            headers = {"location": "/elsewhere", "x-up": "yes"}
            return library.Response(302, headers=headers, content=text.encode() + request.read())

        async def async_answer(request: Any) -> Any:
            await request.aread()
            return answer(request)

        mocks = {False: library.MockTransport(answer), True: library.MockTransport(async_answer)}
        clients: dict[str, Any] = {
            "client": library.Client(transport=mocks[False], follow_redirects=True),
            "async client": library.AsyncClient(transport=mocks[True], follow_redirects=True),
            "transport": Blocking(mocks[False]),
            "async transport": mocks[True],
        }
        made = app(outgoing=wasgi.outgoing.httpx(clients[kind]))
        response = made.handle(get("/fetch?header=x-a:b&url=https://api.example.com/v1?q=1"))
        assert response.status == 302, "redirects are the guest's business"
        assert response.headers["x-up"] == "yes"
        assert response.text == "GET https://api.example.com/v1?q=1 b None "
        sent = made.handle(post("/proxy?url=http://up/", b"x" * 300_000)).text
        assert sent.endswith(" " + "x" * 300_000)

    def test_a_real_connection(self, app: AppMaker, library: Any) -> None:
        with Answering(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-encoding: gzip\r\n\r\n12345") as server:
            with library.Client() as client:
                response = app(outgoing=wasgi.outgoing.httpx(client)).handle(get(f"/fetch?url={server.url}"))
                assert response.read() == b"12345", "as it came: decoding is the guest's business"
            assert b"transfer-encoding" not in server.received.lower()
            assert b"accept-encoding" not in server.received.lower(), "the guest takes what it says it takes"

    @pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
    def test_answers_stream_and_are_closed(self, app: AppMaker, library: Any, kind: str) -> None:
        closed, made = threading.Event(), 0

        class Endless(library.SyncByteStream, library.AsyncByteStream):  # type: ignore[misc]
            def __iter__(self) -> Iterator[bytes]:
                nonlocal made
                while True:
                    made += 1
                    yield b"y" * 65536

            async def __aiter__(self) -> AsyncIterator[bytes]:
                for chunk in self:
                    yield chunk

            def close(self) -> None:
                closed.set()

            async def aclose(self) -> None:
                closed.set()

        client = getattr(library, kind)(
            transport=library.MockTransport(lambda _: library.Response(200, stream=Endless()))
        )
        made_app = app(outgoing=wasgi.outgoing.httpx(client))
        with made_app.handle(get("/fetch?url=http://up/")) as response:
            assert next(iter(response))
            assert made < 40
        assert closed.wait(30)
        until(lambda: wasgi.stats().outgoing == 0)

    @pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
    def test_an_answer_that_the_guest_does_not_read_is_closed(self, app: AppMaker, library: Any, kind: str) -> None:
        closed = threading.Event()

        class Unread(library.SyncByteStream, library.AsyncByteStream):  # type: ignore[misc]
            def close(self) -> None:
                closed.set()

            async def aclose(self) -> None:
                closed.set()

        client = getattr(library, kind)(
            transport=library.MockTransport(lambda _: library.Response(200, stream=Unread()))
        )
        assert app(outgoing=wasgi.outgoing.httpx(client)).handle(get("/fetch-in-turn?n=1&url=http://up/")).text == "200"
        assert closed.wait(30)

    @pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
    def test_an_answer_that_is_none_is_closed(self, app: AppMaker, library: Any, kind: str) -> None:
        closed = threading.Event()

        class Stream(library.SyncByteStream, library.AsyncByteStream):  # type: ignore[misc]
            def close(self) -> None:
                closed.set()

            async def aclose(self) -> None:
                closed.set()

        def answer(request: Any) -> Any:
            return library.Response(200, headers=[(b"x", b"a\x01b")], stream=Stream())

        client = getattr(library, kind)(transport=library.MockTransport(answer))
        with pytest.raises(errors.InternalError):
            app(outgoing=wasgi.outgoing.httpx(client)).handle(get(OVER + "http://up/"))
        assert closed.wait(30)

    def test_an_answer_that_was_read_is_not_encoded_any_more(self, app: AppMaker, library: Any) -> None:
        packed = gzip.compress(b"text" * 100)

        def answer(request: Any) -> Any:
            return library.Response(200, headers={"content-encoding": "gzip"}, content=packed)

        client = library.Client(transport=library.MockTransport(answer))
        response = app(outgoing=wasgi.outgoing.httpx(client)).handle(get(OVER + "http://up/"))
        assert response.read() == b"text" * 100
        assert "content-encoding" not in response.headers

    def test_each_exception_of_the_library_has_its_error_code(self, app: AppMaker, library: ModuleType) -> None:
        found = {
            name
            for name, value in vars(library).items()
            if isinstance(value, type) and issubclass(value, Exception) and value.__module__.startswith("httpx")
        }
        assert len(found) > 25
        assert found <= set(failures._OF_HTTPX), "one that the table does not know"
        for name in sorted(found):
            expected = failures._OF_HTTPX[name] or errors.InternalError

            def fails(request: wasgi.Request, name: str = name) -> wasgi.Response:
                cls = getattr(library, name)
                raise cls.__new__(cls)

            with pytest.raises(expected):
                app(outgoing=fails).handle(get(OVER + "http://up/"))

    @pytest.mark.parametrize(
        ("cause", "code"),
        [
            (ConnectionRefusedError(), errors.ConnectionRefused),
            (socket.gaierror(-2, "unknown"), errors.DnsError),
            (ssl.SSLCertVerificationError(), errors.TlsCertificateError),
            (ssl.SSLError(), errors.TlsProtocolError),
            (OSError(), errors.DestinationUnavailable),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
    )
    def test_what_stopped_a_connection_is_told(self, app: AppMaker, library: Any, cause: Exception, code: Any) -> None:
        def fails(request: wasgi.Request) -> wasgi.Response:
            raise library.ConnectError("no") from cause

        with pytest.raises(code):
            app(outgoing=fails).handle(get(OVER + "http://up/"))

    def test_nobody_there(self, app: AppMaker, library: Any) -> None:
        with socket.socket() as unheard:
            unheard.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unheard.getsockname()[1]}/"
            with library.Client() as client, pytest.raises(errors.ConnectionRefused):
                app(outgoing=wasgi.outgoing.httpx(client)).handle(get(OVER + url))


def test_the_table_in_the_docs_is_the_table() -> None:
    lines = re.findall(r"^\| (.+) \| (.+) \|$", (ROOT / "docs" / "outgoing.md").read_text(), re.MULTILINE)
    known = failures._OF_HTTPX
    told = {name: codes for names, codes in lines for name in re.findall(r"`(\w+)`", names) if name in known}
    assert set(told) == {name for name, leaf in failures._OF_HTTPX.items() if leaf} - {
        "ProtocolError",
        "TimeoutException",
    }
    for name, codes in told.items():
        leaf = failures._OF_HTTPX[name]
        assert leaf is not None
        assert f"`{leaf.code}`" in codes


def test_what_is_no_client_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="takes a client or a transport"):
        wasgi.outgoing.httpx(object())


class Blocking:
    """A transport that can only block."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def handle_request(self, request: Any) -> Any:
        return self.transport.handle_request(request)


class Answering:
    """A server that reads one request's head and answers with these bytes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.received = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        self.thread = threading.Thread(target=self.serve)

    def serve(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            while b"\r\n\r\n" not in self.received:
                self.received += connection.recv(65536)
            connection.sendall(self.answer)

    def __enter__(self) -> Answering:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join()
        self.listener.close()


async def test_a_body_that_nobody_wants_any_more_is_no_failure(app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever makes it is cancelled, as a task is; its guest goes on, and nobody is told of a failure."""
    ended: list[str] = []

    async def halting(name: str) -> AsyncIterator[bytes]:
        try:
            yield b"one "
            await asyncio.sleep(3600)
        finally:
            ended.append(name)

    async def halting_at_once() -> AsyncIterator[bytes]:
        try:
            await asyncio.sleep(3600)
            yield b"never"
        finally:
            ended.append("request")

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        return wasgi.Response(body=halting("response"))

    made = app(outgoing=upstream)
    response = await made.handle_async(get("/fetch?url=https://a/&between-bytes-ms=20"))
    assert await response.aread() == b"one [broken: Some(ErrorCode::ConnectionReadTimeout)]"
    response = await made.handle_async(post("/let-go?ms=100", halting_at_once()))
    assert await response.aread() == b"Ok(0)"
    assert ended == ["response", "request"]
    assert caplog.records == []


class TestWhatIsNone:
    """It is refused where it is given: each request would fail."""

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            (FastAPI(), r"takes 3, as an ASGI application does; hint: `wasgi\.outgoing\.asgi\(application\)`"),
            (flask.Flask("x"), r"takes 2, as a WSGI application does; hint: `wasgi\.outgoing\.wsgi\(application\)`"),
            (lambda: None, "takes 0"),
            (wasgi.Network, "must be an upstream, not the class Network itself"),
            (wasgi.App, "must be an upstream, not the class App itself"),
            (3, "must be callable, or None, not int"),
        ],
        ids=["ASGI", "WSGI", "no argument", "Network", "App", "number"],
    )
    def test_of_an_app(self, given: Any, told: str, app: AppMaker) -> None:
        with pytest.raises(TypeError, match=rf"^`outgoing` .*{told}$"):
            app(outgoing=given)

    def test_what_a_decorator_has_wrapped_may_take_more(self, app: AppMaker) -> None:
        def answer(request: wasgi.Request, text: str) -> wasgi.Response:
            return wasgi.Response(body=text)

        def wrapped(request: wasgi.Request) -> wasgi.Response:
            return answer(request, "from the wrapper")

        functools.update_wrapper(wrapped, answer)
        assert app(outgoing=wrapped).handle(get("/fetch?url=https://a/")).text == "from the wrapper"
        assert app(outgoing=functools.partial(answer, text="x")).handle(get("/fetch?url=https://a/")).text == "x"

    @pytest.mark.parametrize("given", [None, 3, FastAPI()], ids=["None", "number", "ASGI"])
    def test_of_a_route(self, given: Any) -> None:
        with pytest.raises(TypeError, match=r"^`table\['a'\]` must "):
            route({"a": given})

    async def test_of_a_call(self) -> None:
        none: Any = None
        with pytest.raises(TypeError, match=r"^`upstream` must be callable, not NoneType$"):
            await call(none, get("https://a/"))


class Closes:
    """An iterator of chunks that blocks, and tells when it is closed."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = chunks
        self.closed = threading.Event()
        self.threads: set[int] = set()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.threads.add(threading.get_ident())
        return next(self.chunks)

    def close(self) -> None:
        self.closed.set()


class TestCallOfWhatBlocks:
    """Middleware is a coroutine function: it reads each response in an event loop, whatever the inner upstream is."""

    @pytest.mark.parametrize("is_async", [False, True])
    async def test_it_is_read_on_a_thread(self, is_async: bool) -> None:
        made: list[Closes] = []

        def blocks(_: wasgi.Request) -> wasgi.Response:
            made.append(Closes(iter([b"one ", b"", b"two"])))
            return wasgi.Response(201, headers={"x-a": "b"}, body=made[-1], trailers={"x-t": "u"})

        async def awaited(request: wasgi.Request) -> wasgi.Response:
            return blocks(request)

        upstream: Any = awaited if is_async else blocks
        response = await call(upstream, get("/"))
        assert (response.status, response.headers["x-a"], await response.aread()) == (201, "b", b"one two")
        assert response.trailers is not None
        assert response.trailers["x-t"] == "u"
        response = await call(upstream, get("/"))
        assert b"".join([chunk async for chunk in response]) == b"one two"
        assert not any(threading.get_ident() in one.threads for one in made)

    async def test_a_file(self) -> None:
        file = io.BytesIO(b"content" * 100_000)
        response = await call(lambda _: wasgi.Response(body=file), get("/"))
        assert await response.aread() == b"content" * 100_000
        assert not file.closed, "it is its owner's"

    async def test_wsgi_behind_middleware(self, app: AppMaker) -> None:
        async def shouts(request: wasgi.Request) -> wasgi.Response:
            response = await call(wasgi.outgoing.wsgi(site), request)
            return wasgi.Response(response.status, body=(await response.aread()).upper())

        response = await app(outgoing=shouts).handle_async(get("/fetch?url=http://up/echo"))
        assert await response.aread() == b"GET HTTP://UP/ECHO NONE "

    @pytest.mark.parametrize("read", [False, True])
    async def test_it_is_closed_when_the_guest_goes(self, app: AppMaker, read: bool) -> None:
        endless = Closes(iter(lambda: b"x" * 65536, None))

        async def through(request: wasgi.Request) -> wasgi.Response:
            return await call(lambda _: wasgi.Response(body=endless), request)

        made = app(outgoing=through)
        response = await made.handle_async(get("/proxy?url=http://up/"))
        if read:
            await anext(aiter(response))
        await response.aclose()
        assert await asyncio.to_thread(endless.closed.wait, 10)
        await made.aclose()

    async def test_a_source_that_hangs_keeps_no_other_thread(self) -> None:
        """Whoever gives it up does not wait for it; it is closed when it comes back."""
        asked, go_on = threading.Event(), threading.Event()

        def hangs() -> Iterator[bytes]:
            asked.set()
            go_on.wait()
            yield b"late"

        source = Closes(hangs())
        response = await call(lambda _: wasgi.Response(body=source), get("/"))
        body: Any = aiter(response)
        reading = asyncio.ensure_future(anext(body))
        await asyncio.to_thread(asked.wait)
        reading.cancel()
        await body.aclose()
        assert not source.closed.is_set()
        go_on.set()
        assert await asyncio.to_thread(source.closed.wait, 10)

    async def test_it_is_closed_when_it_fails(self) -> None:
        def fails() -> Iterator[bytes]:
            yield b"one"
            raise OSError("gone")

        source = Closes(fails())
        response = await call(lambda _: wasgi.Response(body=source), get("/"))
        with pytest.raises(OSError, match="gone"):
            await response.aread()
        assert source.closed.is_set()

    async def test_its_failure_breaks_the_body_off(self, app: AppMaker) -> None:
        def fails() -> Iterator[bytes]:
            yield b"one"
            raise errors.ConnectionTerminated

        async def through(request: wasgi.Request) -> wasgi.Response:
            return await call(lambda _: wasgi.Response(body=fails()), request)

        response = await app(outgoing=through).handle_async(get("/fetch?url=http://up/"))
        assert await response.aread() == b"one[broken: Some(ErrorCode::ConnectionTerminated)]"
