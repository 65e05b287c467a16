"""Who owns a guest, and what happens when its owner goes away."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import wasgi

from .conftest import HELLO, PROBE, AppMaker, get, post, until


class Hanging:
    """An upstream that never answers, and tells when it was called and when it was cancelled."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, request: wasgi.Request) -> wasgi.Response:
        self.called.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError("unreachable")


async def test_cancelling_the_task_stops_guest_and_upstream(app: AppMaker) -> None:
    upstream = Hanging()
    task = asyncio.create_task(app(outgoing=upstream).handle_async(get("/fetch?url=http://up/")))
    await upstream.called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(upstream.cancelled.wait(), 10)


async def test_a_timeout_of_the_callers_stops_guest_and_upstream(app: AppMaker) -> None:
    upstream = Hanging()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await app(outgoing=upstream).handle_async(get("/fetch?url=http://up/"))
    await asyncio.wait_for(upstream.cancelled.wait(), 10)


@pytest.mark.parametrize("how", ["close", "aclose", "with", "async with", "drop"])
async def test_a_response_that_is_given_up_stops_guest_and_upstream(app: AppMaker, how: str) -> None:
    hanging = Hanging()

    async def body() -> AsyncIterator[bytes]:
        yield b"begun"
        await hanging(get("/"))

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        return wasgi.Response(body=body())

    response = await app(outgoing=upstream).handle_async(get("/fetch?url=http://up/"))
    await hanging.called.wait()
    if how == "close":
        response.close()
    elif how == "aclose":
        await response.aclose()
    elif how == "with":
        with response:
            pass
    elif how == "async with":
        async with response as entered:
            assert entered is response
    else:
        del response
        gc.collect()
    await asyncio.wait_for(hanging.cancelled.wait(), 10)


async def test_a_request_body_is_closed_when_nobody_wants_it(app: AppMaker) -> None:
    closed = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
        finally:
            closed.set()

    response = await app().handle_async(post("/echo", body()))
    chunks = aiter(response)
    await anext(chunks)
    await response.aclose()
    await asyncio.wait_for(closed.wait(), 10)


def test_a_blocking_request_body_is_closed_when_nobody_wants_it(app: AppMaker) -> None:
    closed = threading.Event()

    def body() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
        finally:
            closed.set()

    with app().handle(post("/echo", body())) as response:
        next(iter(response))
    assert closed.wait(10)


@pytest.mark.parametrize("route", ["/collect", "/echo"])
def test_the_callers_own_exception_comes_back_as_it_is(app: AppMaker, route: str) -> None:
    class Own(Exception):
        pass

    own = Own("mine")

    def body() -> Iterator[bytes]:
        yield b"begun"
        raise own

    made = app()
    with pytest.raises(Own) as raised:
        made.handle(post(route, body())).read()
    assert raised.value is own
    assert made.handle(get("/hello")).status == 200


async def test_the_callers_own_exception_comes_back_as_it_is_async(app: AppMaker) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"begun"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await (await app().handle_async(post("/echo", body()))).aread()


def test_a_body_iterator_that_yields_text(app: AppMaker) -> None:
    chunks: Any = iter(["text"])
    with pytest.raises(TypeError, match="a body's chunks must be bytes, not str"):
        app().handle(post("/collect", chunks))


async def test_work_after_the_answer_goes_on(app: AppMaker) -> None:
    """The answer is complete and read; the guest finishes what it does, though its response is gone."""
    seen = asyncio.Event()

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        await asyncio.sleep(0.01)
        seen.set()
        return wasgi.Response()

    response = await app(outgoing=upstream).handle_async(get("/work-after?url=http://up/"))
    assert await response.aread() == b"done already"
    del response
    gc.collect()
    await asyncio.wait_for(seen.wait(), 10)


async def test_an_awaitable_that_is_never_awaited_starts_nothing(app: AppMaker) -> None:
    called: list[wasgi.Request] = []
    awaitable = app(outgoing=lambda request: called.append(request)).handle_async(get("/fetch?url=http://up/"))
    awaitable.close()
    with pytest.raises(RuntimeError, match="a second time"):
        await awaitable
    assert called == []


def run(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, timeout=50)


@pytest.mark.parametrize("route", ["/spin", "/sleep?ms=60000", "/fetch?url=http://up/"])
def test_ctrl_c_interrupts_a_blocking_call(route: str) -> None:
    script = """
import signal, sys, wasgi
# started in the background, a process may have inherited that SIGINT is ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
def upstream(request):
    import time
    time.sleep(40)
app = wasgi.App(sys.argv[1], outgoing=upstream, limits=wasgi.Limits(timeout=None))
try:
    print("ready", flush=True)
    app.handle(wasgi.Request("GET", "http://guest.local" + sys.argv[2]))
except KeyboardInterrupt:
    print("interrupted", app.handle(wasgi.Request("GET", "http://guest.local/hello")).text, flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(PROBE), route], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            timer = threading.Timer(1.0, process.send_signal, [signal.SIGINT])
            timer.start()
            assert process.stdout.readline() == "interrupted Hello, World!\n"
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_the_interpreter_exits_with_guests_in_flight() -> None:
    script = """
import sys, threading, wasgi
app = wasgi.App(sys.argv[1], outgoing=lambda request: threading.Event().wait(), limits=wasgi.Limits(timeout=None))
routes = ["/spin", "/sleep?ms=60000", "/fetch?url=http://up/"]
started = threading.Barrier(len(routes) + 1)
def work(route):
    started.wait()
    app.handle(wasgi.Request("GET", "http://guest.local" + route))
for route in routes:
    threading.Thread(target=work, args=[route], daemon=True).start()
started.wait()
kept = app.handle(wasgi.Request("GET", "http://guest.local/endless"))
print("leaving")
"""
    done = run(script, str(PROBE))
    assert (done.returncode, done.stdout) == (0, "leaving\n"), done.stderr


def test_a_forked_child_has_a_world_of_its_own() -> None:
    script = """
import os, sys, wasgi
app = wasgi.App(sys.argv[1], outgoing=lambda request: wasgi.Response(body=b"up"))
def call(route):
    return app.handle(wasgi.Request("GET", "http://guest.local" + route)).text
print(call("/hello"), call("/fetch?url=http://up/"), call("/sleep?ms=1"), flush=True)
child = os.fork()
print(call("/hello"), call("/fetch?url=http://up/"), call("/sleep?ms=1"), flush=True)
if child == 0:
    wasgi.Component(open(sys.argv[2], "rb").read())
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
    done = run(script, str(PROBE), str(HELLO))
    lines = done.stdout.splitlines()
    assert lines == ["Hello, World! up slept"] * 3 + ["7"], done.stderr


def test_importing_starts_nothing() -> None:
    script = """
import sys, threading
before = set(sys.modules)
import wasgi
import os
print(threading.active_count(), len(os.listdir("/proc/self/task")))
print("asyncio" in set(sys.modules) - before)
"""
    done = run(script)
    assert done.stdout == "1 1\nFalse\n"
    assert done.stderr == ""


def test_uvloop(app: AppMaker) -> None:
    import uvloop

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        await asyncio.sleep(0.001)
        return wasgi.Response(body=b"up")

    async def body() -> AsyncIterator[bytes]:
        yield b"one "
        await asyncio.sleep(0.001)
        yield b"two"

    async def main() -> tuple[bytes, bytes]:
        made = app(outgoing=upstream)
        fetched = await made.handle_async(get("/fetch?url=http://up/"))
        echoed = await made.handle_async(post("/echo", body()))
        return await fetched.aread(), await echoed.aread()

    for _ in range(2):
        loop = uvloop.new_event_loop()
        try:
            assert loop.run_until_complete(main()) == (b"up", b"one two")
        finally:
            loop.close()


async def test_outside_of_asyncio_there_is_a_clear_error(app: AppMaker) -> None:
    def work() -> None:
        awaitable = app(outgoing=lambda request: wasgi.Response()).handle_async(get("/hello"))
        with pytest.raises(RuntimeError, match="no running event loop"):
            awaitable.send(None)

    await asyncio.to_thread(work)


def test_a_file_stays_open_and_a_generator_is_closed_by_whoever_runs_it(app: AppMaker, tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(b"x" * 1_000_000)
    with (tmp_path / "upload").open("rb") as file:
        with app().handle(post("/echo", file)) as response:
            next(iter(response))
        assert not file.closed

    entered, leave, closed = threading.Event(), threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        try:
            yield b"first"
            entered.set()
            assert leave.wait(10)
            yield b"second"
        finally:
            closed.set()

    response = app().handle(post("/echo", slow()))
    chunks = iter(response)
    assert next(chunks) == b"first"
    assert entered.wait(10)
    response.close()
    leave.set()
    assert closed.wait(10)


def test_an_app_in_a_cycle_is_collected(probe: wasgi.Component) -> None:
    class Service:
        def __init__(self) -> None:
            self.app = wasgi.App(probe, outgoing=self.upstream, stdout=self.line)

        def upstream(self, request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response()

        def line(self, text: str) -> None:
            pass

    service = Service()
    assert service.app.handle(get("/fetch?url=http://up/")).status == 200
    gone = weakref.ref(service)
    del service

    def collected() -> bool:
        # what a thread without the GIL let go of is released when the native module is next called
        assert probe.digest
        gc.collect()
        return gone() is None

    until(collected)
