"""`App(on_finish=)`: each exchange is told of once, whatever it was and however it ended."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import gc
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import wasgi
from tests import asgi_driver
from tests.asgi_driver import Server, http_scope
from tests.conftest import AppMaker, get, post, until
from tests.processes import run
from wasgi.httpx import Transport


class Told:
    """What an `on_finish` is told."""

    def __init__(self) -> None:
        self.exchanges: list[wasgi.Exchange] = []
        self.threads: set[str] = set()

    def __call__(self, exchange: wasgi.Exchange) -> None:
        self.threads.add(threading.current_thread().name)
        self.exchanges.append(exchange)

    def one(self) -> wasgi.Exchange:
        """The only one, when it has come."""
        until(lambda: bool(self.exchanges))
        assert len(self.exchanges) == 1
        return self.exchanges[0]

    def outcome(self) -> tuple[int | None, type | None]:
        exchange = self.one()
        return exchange.status, None if exchange.error is None else type(exchange.error)


@pytest.fixture
def told() -> Told:
    return Told()


def test_what_an_exchange_is(app: AppMaker, probe_name: str, told: Told) -> None:
    response = app(on_finish=told).handle(get("/status?code=201"))
    assert response.report is not None
    exchange = told.one()
    assert (exchange.method, exchange.url) == ("GET", "http://guest.local/status?code=201")
    assert (exchange.status, exchange.error) == (201, None)
    assert exchange.component == probe_name
    assert exchange.app.startswith(f"{probe_name}#")
    assert exchange.id == exchange.report.exchange == response.report.exchange
    assert exchange.report.memory > 0
    assert not exchange.report.running
    assert repr(exchange) == f"<wasgi.Exchange {exchange.id} GET 'http://guest.local/status?code=201' 201>"
    assert all(name.startswith("wasgi-thread-") for name in told.threads)


def test_it_must_be_callable_and_no_coroutine_function(app: AppMaker) -> None:
    async def later(exchange: wasgi.Exchange) -> None: ...

    with pytest.raises(TypeError, match="`on_finish` must be callable, or None, not int"):
        app(on_finish=3)
    with pytest.raises(TypeError, match="`on_finish` must not be a coroutine function"):
        app(on_finish=later)


class TestOnceHoweverItEnds:
    @pytest.mark.parametrize(
        ("target", "limits", "status", "error"),
        [
            ("/hello", {}, 200, None),
            ("/trap", {}, None, wasgi.TrapError),
            ("/exit?code=3", {}, None, wasgi.GuestExitError),
            ("/silent", {}, None, wasgi.NoResponseError),
            ("/code?name=DNS-timeout", {}, None, wasgi.errors.DnsTimeout),
            ("/spin", {"timeout": 0.02}, None, wasgi.GuestTimeoutError),
            ("/sleep?ms=60000", {"timeout": 0.02}, None, wasgi.GuestTimeoutError),
            ("/trap-midway?bytes=10", {}, 200, wasgi.TrapError),
            ("/alloc?mib=12", {"memory": 8 << 20}, None, wasgi.MemoryLimitError),
            ("/length?declared=100&written=100", {"response_body": 10}, None, wasgi.errors.HttpResponseBodySize),
        ],
    )
    @pytest.mark.parametrize("way", ["handle", "handle_async"])
    def test_of_its_own(
        self,
        app: AppMaker,
        told: Told,
        target: str,
        limits: dict[str, Any],
        status: int | None,
        error: type[BaseException] | None,
        way: str,
    ) -> None:
        made = app(on_finish=told, limits=wasgi.Limits(**limits))

        def handle() -> None:
            made.handle(get(target)).read()

        async def handle_async() -> None:
            await (await made.handle_async(get(target))).aread()

        with contextlib.suppress(wasgi.WasgiError):
            handle() if way == "handle" else asyncio.run(handle_async())
        made.close()
        assert told.outcome() == (status, error)

    def test_its_response_is_dropped(self, app: AppMaker, told: Told) -> None:
        response = app(on_finish=told).handle(get("/endless"))
        assert not told.exchanges
        del response
        gc.collect()
        assert told.outcome() == (200, wasgi.WasgiError)

    async def test_its_caller_is_cancelled(self, app: AppMaker, told: Told) -> None:
        task = asyncio.ensure_future(app(on_finish=told).handle_async(get("/sleep?ms=60000")))
        while not wasgi.stats().exchanges:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(told.outcome) == (None, wasgi.WasgiError)

    def test_its_request_is_past_a_limit(self, app: AppMaker, told: Told) -> None:
        made = app(on_finish=told, limits=wasgi.Limits(request_body=3))
        with pytest.raises(wasgi.errors.HttpRequestBodySize):
            made.handle(post("/echo", b"four"))
        assert told.outcome() == (None, wasgi.errors.HttpRequestBodySize)

    def test_its_request_was_consumed_before(self, app: AppMaker, told: Told) -> None:
        request = post("/echo", iter([b"four"]))
        request.read()
        with pytest.raises(wasgi.BodyError):
            app(on_finish=told).handle(request)
        exchange = told.one()
        assert isinstance(exchange.error, wasgi.BodyError)
        assert exchange.report.memory == 0

    def test_its_callers_body_raises(self, app: AppMaker, told: Told) -> None:
        def body() -> Iterator[bytes]:
            yield b"one"
            raise LookupError("of the caller's")

        with pytest.raises(LookupError):
            app(on_finish=told).handle(post("/collect", body()))
        assert told.outcome() == (None, LookupError)

    def test_its_app_closes(self, app: AppMaker, told: Told) -> None:
        made = app(on_finish=told)
        response = made.handle(get("/endless"))
        made.close(timeout=0)
        assert [exchange.status for exchange in told.exchanges] == [200]
        assert isinstance(told.one().error, wasgi.AppClosedError)
        response.close()

    def test_one_that_waited_in_the_queue(self, app: AppMaker, told: Told) -> None:
        made = app(on_finish=told, limits=wasgi.Limits(concurrency=1, queue=8))
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: made.handle(get("/hello")).text, range(8))) == {"Hello, World!"}
        made.close()
        assert len({exchange.id for exchange in told.exchanges}) == len(told.exchanges) == 8

    def test_refused_ones_are_no_exchanges(self, app: AppMaker, told: Told) -> None:
        made = app(on_finish=told, limits=wasgi.Limits(concurrency=1, queue=0))
        with made.handle(get("/endless")), pytest.raises(wasgi.OverloadedError):
            made.handle(get("/hello"))
        made.close()
        with pytest.raises(wasgi.AppClosedError):
            made.handle(get("/hello"))
        assert [exchange.url for exchange in told.exchanges] == ["http://guest.local/endless"]


class TestEveryDoor:
    async def test_asgi(self, app: AppMaker, told: Told) -> None:
        made = app(on_finish=told)
        await asgi_driver.get(made, "/hello")
        await asgi_driver.get(made, "/trap")
        await made.aclose()
        assert [(exchange.url, exchange.status) for exchange in told.exchanges] == [
            ("http://guest.local/hello", 200),
            ("http://guest.local/trap", None),
        ]

    async def test_asgi_whose_client_leaves(self, app: AppMaker, told: Told) -> None:
        server = Server(http_scope("/slow-body?ms=60000"))
        serving = asyncio.ensure_future(app(on_finish=told)(server.scope, server.receive, server.send))
        await server.sent.wait()
        server.hang_up()
        await serving
        assert await asyncio.to_thread(told.outcome) == (200, wasgi.WasgiError)
        assert str(told.one().error) == "the exchange was cancelled: its caller or client has gone"

    async def test_asgi_below_a_mount(self, app: AppMaker, told: Told) -> None:
        for root_path in ("strip", "keep"):
            made = app(on_finish=told, root_path=root_path)
            server = Server(http_scope("/plugins/hello", root_path="/plugins"))
            await made(server.scope, server.receive, server.send)
            await made.aclose()
        assert [exchange.url for exchange in told.exchanges] == [
            "http://guest.local/hello",
            "http://guest.local/plugins/hello",
        ]

    def test_wsgi(self, app: AppMaker, told: Told) -> None:
        from wsgiref.util import setup_testing_defaults

        environ: dict[str, Any] = {"PATH_INFO": "/hello"}
        setup_testing_defaults(environ)
        answer: Any = app(on_finish=told).wsgi(environ, lambda status, headers: None)
        assert b"".join(answer) == b"Hello, World!"
        answer.close()
        assert told.one().status == 200

    def test_httpx(self, app: AppMaker, told: Told) -> None:
        transport: Any = Transport(app(on_finish=told))
        with httpx2.Client(transport=transport) as client:
            assert client.get("http://guest.local/hello").status_code == 200
        assert told.one().url == "http://guest.local/hello"

    def test_as_an_upstream(self, app: AppMaker, told: Told) -> None:
        inner = app(on_finish=told)
        assert app(outgoing=inner).handle(get("/fetch?url=http://inner/hello")).text == "Hello, World!"
        assert told.one().url == "http://inner/hello"


def test_one_for_several_components_tells_them_apart(
    app: AppMaker, probe_name: str, hello: wasgi.Component, told: Told
) -> None:
    apps = [app(on_finish=told), app(on_finish=told), wasgi.App(hello, on_finish=told)]
    for made in apps:
        made.handle(get("/hello")).close()
        made.close()
    assert [exchange.component for exchange in told.exchanges] == [probe_name, probe_name, "hello.wasm"]
    assert [exchange.app for exchange in told.exchanges] == [made._label for made in apps]
    assert len({exchange.app for exchange in told.exchanges}) == 3


class TestItsThread:
    async def test_one_that_blocks_holds_up_nobody(self, app: AppMaker) -> None:
        leave, begun = threading.Event(), threading.Event()

        def block(exchange: wasgi.Exchange) -> None:
            begun.set()
            leave.wait(30)

        apps = [app(on_finish=block) for _ in range(40)]
        for made in apps:
            for _ in range(3):
                assert await (await made.handle_async(get("/hello"))).aread() == b"Hello, World!"
        other = app(outgoing=lambda request: wasgi.Response(body=b"up"))
        assert await (await other.handle_async(get("/fetch?url=http://up/"))).aread() == b"up"
        assert begun.is_set()
        leave.set()
        for made in apps:
            await made.aclose()

    def test_one_call_at_a_time_in_order(self, app: AppMaker) -> None:
        under_way: list[int] = []
        ids: list[int] = []

        def tell(exchange: wasgi.Exchange) -> None:
            under_way.append(exchange.id)
            assert len(under_way) == 1
            ids.append(exchange.id)
            under_way.pop()

        made = app(on_finish=tell)
        for _ in range(200):
            made.handle(get("/hello")).wait()  # the order is that of the ends
        made.close()
        assert ids == sorted(ids)
        assert len(ids) == 200

    def test_what_is_too_much_is_dropped_and_counted(self, app: AppMaker) -> None:
        leave = threading.Event()
        ids: list[int] = []

        def slow(exchange: wasgi.Exchange) -> None:
            assert leave.wait(30)
            ids.append(exchange.id)

        before = wasgi.stats().dropped
        made = app(on_finish=slow)
        for _ in range(1100):
            made.handle(get("/hello")).close()
        until(lambda: wasgi.stats().dropped - before == 1100 - 1024 - 1)
        leave.set()
        made.close()
        assert len(ids) == 1025

    def test_an_exception_is_logged(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        def fails(exchange: wasgi.Exchange) -> None:
            raise LookupError("of on_finish")

        with app(on_finish=fails) as made:
            assert made.handle(get("/hello")).text == "Hello, World!"
        (record,) = (record for record in caplog.records if record.name == "wasgi")
        assert record.getMessage() == "`on_finish` failed"
        assert record.exc_info is not None
        assert record.exc_info[0] is LookupError

    async def test_it_sees_its_callers_context(self, app: AppMaker) -> None:
        seen: set[str] = set()
        made = app(on_finish=lambda exchange: seen.add(user.get()))

        async def call(name: str) -> None:
            user.set(name)
            await made.handle_async(get("/hello"))

        await asyncio.gather(*(call(name) for name in ("ada", "bob")))
        await made.aclose()
        assert seen == {"ada", "bob"}

    def test_it_may_call_and_close_its_app(self, app: AppMaker) -> None:
        urls: list[str] = []

        def tell(exchange: wasgi.Exchange) -> None:
            urls.append(exchange.url.rpartition("/")[2])
            if exchange.url.endswith("/hello"):
                made.handle(get("/head")).close()
                made.close()

        made = app(on_finish=tell)
        made.handle(get("/hello")).close()
        until(lambda: urls == ["hello", "head"])


user: contextvars.ContextVar[str] = contextvars.ContextVar("user")


class TestTheEnd:
    def test_close_returns_when_all_was_told(self, app: AppMaker, told: Told) -> None:
        made = app(on_finish=told)
        for _ in range(50):
            made.handle(get("/hello")).close()
        made.close()
        assert len(told.exchanges) == 50

    def test_close_does_not_wait_for_ever(self, app: AppMaker) -> None:
        leave = threading.Event()
        made = app(on_finish=lambda exchange: leave.wait(60))
        made.handle(get("/hello")).close()
        made.close(timeout=0.1)
        leave.set()

    def test_the_exit_of_the_process(self, probe_path: Path) -> None:
        script = """
import sys, time, wasgi
def tell(exchange):
    time.sleep(0.01)
    print(exchange.status, exchange.url)
app = wasgi.App(sys.argv[1], on_finish=tell)
for number in range(5):
    response = app.handle(wasgi.Request("GET", f"http://guest.local/hello?{number}"))
    response.read()
    response.wait()  # they are told of in the order in which their guests end
"""
        done = run(script, str(probe_path))
        assert done.stdout.splitlines() == [f"200 http://guest.local/hello?{number}" for number in range(5)]
        assert (done.returncode, done.stderr) == (0, "")

    def test_one_that_runs_when_the_process_exits(self, probe_path: Path) -> None:
        script = """
import sys, wasgi
app = wasgi.App(sys.argv[1], on_finish=lambda exchange: print(exchange.status, repr(exchange.error)))
kept = app.handle(wasgi.Request("GET", "http://guest.local/slow-body?ms=60000"))
"""
        done = run(script, str(probe_path))
        assert done.stdout == "200 WasgiError('the process is exiting')\n", done.stderr

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_child_tells_of_its_own_exchanges_only(self, probe_path: Path) -> None:
        script = """
import os, sys, threading, wasgi
leave = threading.Event()
def tell(exchange):
    leave.wait(30)
    print(os.getpid() == parent, exchange.url, flush=True)
parent = os.getpid()
app = wasgi.App(sys.argv[1], on_finish=tell)
get = lambda target: wasgi.Request("GET", f"http://guest.local{target}")
kept = app.handle(get("/slow-body?ms=60000"))
app.handle(get("/hello?parent")).read()
child = os.fork()
leave.set()
if child == 0:
    app.handle(get("/hello?child")).read()
    kept.close()
    app.close()
    os._exit(0)
os.waitpid(child, 0)
kept.close()
app.close()
"""
        done = run(script, str(probe_path))
        lines = sorted(done.stdout.splitlines())
        base = "http://guest.local"
        assert lines == [
            f"False {base}/hello?child",
            f"True {base}/hello?parent",
            f"True {base}/slow-body?ms=60000",
        ], done.stderr

    def test_an_app_that_its_on_finish_refers_to_is_collected(self, app: AppMaker) -> None:
        class Holder:
            app: wasgi.App

        def make() -> weakref.ref[Holder]:
            holder = Holder()
            holder.app = app(on_finish=lambda exchange: holder)
            holder.app.handle(get("/hello")).close()
            holder.app.close()
            return weakref.ref(holder)

        holder = make()

        def gone() -> bool:
            gc.collect()
            return holder() is None

        until(gone)
