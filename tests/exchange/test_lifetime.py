"""Who owns a guest, and what happens when its owner goes away."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import wasgi
from tests.conftest import AppMaker, get, post, until


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


def test_the_callers_own_exception_is_handed_out_once(app: AppMaker) -> None:
    """Kept, it would hold the frames that hold the response that keeps it."""

    class Own(Exception):
        pass

    answered = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"begun"
        answered.wait(10)
        raise Own("mine")

    def read(response: wasgi.Response) -> weakref.ref[Own]:
        try:
            response.read()
        except Own as error:
            return weakref.ref(error)
        raise AssertionError("nothing was raised")

    response = app().handle(post("/echo", body()))
    answered.set()
    own = read(response)
    until(lambda: gc.collect() >= 0 and own() is None)
    with pytest.raises(wasgi.WasgiError, match=r"the request's body raised Own\('mine'\)"):
        response.wait()


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


class TestFinished:
    """Work after the response, and how it ends."""

    @staticmethod
    async def end(response: wasgi.Response, how: str) -> wasgi.Report | None:
        return await (asyncio.to_thread(response.wait) if how == "wait" else response.finished())

    @pytest.mark.parametrize("how", ["wait", "finished"])
    async def test_the_guest_returned(self, app: AppMaker, how: str) -> None:
        response = await app().handle_async(get("/then?then=sleep&ms=50"))
        assert await response.aread() == b"done already"
        report = await self.end(response, how)
        assert report is not None
        assert not report.running
        assert report.duration >= 0.05

    @pytest.mark.parametrize("how", ["wait", "finished"])
    @pytest.mark.parametrize(
        ("then", "error"),
        [("trap", wasgi.TrapError), ("exit", wasgi.GuestExitError), ("spin", wasgi.GuestTimeoutError)],
    )
    async def test_the_guest_did_not(self, app: AppMaker, how: str, then: str, error: type[wasgi.GuestError]) -> None:
        response = await app(limits=wasgi.Limits(timeout=0.3)).handle_async(get(f"/then?then={then}"))
        assert await response.aread() == b"done already"
        with pytest.raises(error):
            await self.end(response, how)
        with pytest.raises(error):  # the fate is one
            await self.end(response, how)

    @pytest.mark.parametrize("how", ["wait", "finished"])
    async def test_what_nobody_reads_is_thrown_away(self, app: AppMaker, how: str) -> None:
        response = await app().handle_async(get("/stream?chunks=1000&bytes=4096"))
        assert await self.end(response, how) is not None
        with pytest.raises(wasgi.BodyError, match="consumed already"):
            response.read()
        response = await app().handle_async(get("/trailers"))
        await self.end(response, how)
        assert response.trailers is not None

    @pytest.mark.parametrize("how", ["wait", "finished"])
    async def test_what_is_thrown_away_must_be_whole(self, app: AppMaker, how: str) -> None:
        response = await app().handle_async(get("/dropped"))
        with pytest.raises(wasgi.BodyError, match="did not finish it"):
            await self.end(response, how)

    async def test_whoever_reads_goes_on_reading(self, app: AppMaker) -> None:
        response = await app().handle_async(get("/stream?chunks=100&bytes=4096"))
        chunks = aiter(response)
        received = len(await anext(chunks))
        waiting = asyncio.create_task(response.finished())
        async for chunk in chunks:
            received += len(chunk)
        assert received == 409_600
        assert await waiting is not None

    async def test_giving_up_stops_nothing(self, app: AppMaker) -> None:
        response = await app().handle_async(get("/slow-body?ms=300"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(response.finished(), 0.05)
        assert (await response.aread()).endswith(b"last")

    async def test_a_response_that_was_closed(self, app: AppMaker) -> None:
        response = await app().handle_async(get("/endless"))
        await response.aclose()
        with pytest.raises(wasgi.WasgiError, match="cancelled: its caller or client has gone"):
            await response.finished()

    async def test_a_response_that_is_no_guests(self) -> None:
        response = wasgi.Response()
        assert response.wait() is None
        assert await response.finished() is None

    async def test_who_waits_reads_on_where_another_gave_up(self, app: AppMaker) -> None:
        response = await app().handle_async(get("/stream?chunks=2000&bytes=60000"))
        first, second = asyncio.create_task(response.finished()), asyncio.create_task(response.finished())
        await asyncio.sleep(0.01)
        first.cancel()
        assert await asyncio.wait_for(second, 30) is not None

    async def test_asking_for_the_end_without_waiting_takes_nothing(self, app: AppMaker) -> None:
        response = await app().handle_async(get("/hello"))
        response.finished().close()
        assert await response.aread() == b"Hello, World!"

    def test_its_place_is_free_when_a_guest_has_ended(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(concurrency=1))
        for _ in range(300):
            made.handle(get("/stream?chunks=3&bytes=5000")).wait()
        assert wasgi.stats().exchanges == 0


class TestClose:
    def test_a_guest_whose_body_was_read_is_ended_too(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(timeout=None))
        response = made.handle(get("/then?then=sleep&ms=60000"))
        assert response.read() == b"done already"
        made.close(timeout=0.05)
        with pytest.raises(wasgi.AppClosedError):
            response.wait()
        assert wasgi.stats().exchanges == 0

    async def test_exchanges_drain(self, app: AppMaker) -> None:
        made = app()
        response = await made.handle_async(get("/slow-body?ms=200"))
        closing = asyncio.create_task(made.aclose())
        while not made.closed:
            await asyncio.sleep(0)
        with pytest.raises(wasgi.AppClosedError, match="the app is closed"):
            await made.handle_async(get("/hello"))
        with pytest.raises(RuntimeError):
            made.handle(get("/hello"))
        assert (await response.aread()).endswith(b"last")
        await closing
        await made.aclose()

    async def test_work_after_the_response_drains_too(self, app: AppMaker) -> None:
        seen = asyncio.Event()

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            await asyncio.sleep(0.1)
            seen.set()
            return wasgi.Response()

        async with app(outgoing=upstream) as made:
            assert await (await made.handle_async(get("/work-after?url=http://up/"))).aread() == b"done already"
        assert seen.is_set()
        assert wasgi.stats().exchanges == 0

    @pytest.mark.parametrize("route", ["/endless", "/then?then=sleep&ms=60000", "/then?then=spin"])
    def test_what_does_not_end_in_time_is_ended(self, app: AppMaker, route: str) -> None:
        made = app()
        response = made.handle(get(route))
        made.close(timeout=0.05)
        with pytest.raises(wasgi.WasgiError) as raised:
            response.wait()
        error = raised.value.__cause__ if isinstance(raised.value, wasgi.BodyError) else raised.value
        assert isinstance(error, wasgi.AppClosedError)

    def test_a_reader_is_told_why(self, app: AppMaker) -> None:
        made = app()
        response = made.handle(get("/endless"))
        made.close(timeout=0)
        with pytest.raises(wasgi.BodyError, match="the app is closed") as raised:
            response.read()
        assert isinstance(raised.value.__cause__, wasgi.AppClosedError)

    def test_with(self, app: AppMaker) -> None:
        with app() as made:
            assert isinstance(made, wasgi.App)
            assert made.handle(get("/hello")).text == "Hello, World!"
        assert made.closed

    async def test_whoever_is_queued_is_told_at_once(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(concurrency=1, queue=1))
        response = await made.handle_async(get("/endless"))
        queued = asyncio.create_task(made.handle_async(get("/hello")))
        while wasgi.stats().queued == 0:
            await asyncio.sleep(0)
        closing = asyncio.create_task(made.aclose())
        with pytest.raises(wasgi.AppClosedError):
            await queued
        await response.aclose()
        await closing

    async def test_giving_up_waiting_leaves_it_closed(self, app: AppMaker) -> None:
        made = app()
        async with await made.handle_async(get("/endless")):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(made.aclose(timeout=None), 0.05)
            assert made.closed

    @pytest.mark.parametrize("wrong", [-1, float("nan")])
    def test_wrong_timeouts(self, app: AppMaker, wrong: float) -> None:
        made = app()
        with pytest.raises(ValueError, match="`timeout` must be"):
            made.close(timeout=wrong)
        assert not made.closed


async def test_a_reader_of_a_fast_guest_lets_others_have_the_loop(app: AppMaker) -> None:
    """Reading a body whole must not hold the event loop for as long as the guest keeps up."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    response = await app().handle_async(get("/stream?chunks=500&bytes=65536"))
    await response.aread()
    task.cancel()
    assert turns > 10


@pytest.mark.parametrize("reads", [False, True])
async def test_an_async_body_that_nobody_wants_any_more_is_closed_to_the_end(app: AppMaker, reads: bool) -> None:
    closed: list[str] = []

    class Endless:
        def __aiter__(self) -> Endless:
            return self

        async def __anext__(self) -> bytes:
            await asyncio.sleep(0)
            return b"x" * 20_000

        async def aclose(self) -> None:
            closed.append("begun")
            for _ in range(50):
                await asyncio.sleep(0)
            closed.append("ended")

    made = app()
    for _ in range(50):
        response = await made.handle_async(post("/echo", Endless()))
        if reads:
            await anext(aiter(response))
        await response.aclose()
    await made.aclose()
    await asyncio.to_thread(until, lambda: len(closed) == 100)
    assert closed.count("ended") == 50
