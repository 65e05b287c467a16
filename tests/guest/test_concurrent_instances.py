"""`Reuse(concurrent=)`: several exchanges in one instance of WASI 0.3, each with what is its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import wasgi
from tests.conftest import PROBE, PROBE_P3, get, post, until

pytestmark = pytest.mark.usefixtures("nothing_is_left")


class Crowd:
    """An app whose upstream answers when it is told to: each request of a guest's waits there, beside others."""

    def __init__(self, **options: Any) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.asked: dict[str, asyncio.Event] = {}
        self.cancelled: list[str] = []
        self.lines: list[Any] = []
        reuse = options.pop("reuse", wasgi.Reuse(concurrent=8))
        self.app = wasgi.App(
            PROBE_P3, outgoing=self.answer, stdout=self.lines.append, stderr=self.lines.append, reuse=reuse, **options
        )

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    def was_asked(self, name: str) -> asyncio.Event:
        return self.asked.setdefault(name, asyncio.Event())

    async def answer(self, request: wasgi.Request) -> wasgi.Response:
        name = request.path.removeprefix("/")
        self.was_asked(name).set()
        try:
            await self.gate(name).wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        return wasgi.Response(body=name.encode())

    async def begin(self, name: str, route: str = "/fetch?", **options: Any) -> asyncio.Task[wasgi.Response]:
        """An exchange whose guest waits for the upstream when this returns."""
        request = get(f"{route}url=http://up/{name}", **options)
        task = asyncio.ensure_future(self.app.handle_async(request))
        asked = asyncio.ensure_future(self.was_asked(name).wait())
        await asyncio.wait([task, asked], return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        return task

    def instances(self) -> int:
        return wasgi.stats().slots

    async def __aenter__(self) -> Crowd:
        return self

    async def __aexit__(self, *_: object) -> None:
        for gate in self.gates.values():
            gate.set()
        await self.app.aclose()


async def soon(condition: Callable[[], bool]) -> None:
    """Waits for what another thread, or another task, is about to do."""
    while not condition():
        await asyncio.sleep(0.001)


async def outcome(task: asyncio.Task[wasgi.Response]) -> tuple[bytes, wasgi.Report]:
    response = await task
    body = await response.aread()
    await response.finished()
    assert response.report is not None
    return body, response.report


async def test_exchanges_share_an_instance_and_each_gets_its_own_answer() -> None:
    before = wasgi.stats().slots
    async with Crowd() as crowd:
        tasks = [await crowd.begin(str(number)) for number in range(8)]
        assert crowd.instances() - before == 1
        for number in reversed(range(8)):
            crowd.gate(str(number)).set()
        found = [await outcome(task) for task in tasks]
        assert [body for body, _ in found] == [str(number).encode() for number in range(8)]
        assert [report.reused for _, report in found] == list(range(8))
        assert [report.outgoing for _, report in found] == [1] * 8


async def test_one_more_than_may_share_it_gets_another_instance() -> None:
    before = wasgi.stats().slots
    async with Crowd(reuse=wasgi.Reuse(concurrent=2)) as crowd:
        tasks = [await crowd.begin(str(number)) for number in range(5)]
        assert crowd.instances() - before == 3
        for number in range(5):
            crowd.gate(str(number)).set()
        assert sorted([(await outcome(task))[1].reused for task in tasks]) == [0, 0, 0, 1, 1]


async def test_an_instance_has_so_many_exchanges_in_all() -> None:
    before = wasgi.stats().slots
    async with Crowd(reuse=wasgi.Reuse(concurrent=8, requests=3)) as crowd:
        tasks = [await crowd.begin(str(number)) for number in range(4)]
        assert crowd.instances() - before == 2
        for number in range(4):
            crowd.gate(str(number)).set()
        assert [(await outcome(task))[1].reused for task in tasks] == [0, 1, 2, 0]
        until(lambda: wasgi.stats().idle == 1)  # the first has had three


async def test_the_next_exchange_finds_the_instance_when_all_have_left() -> None:
    async with Crowd() as crowd:
        for number in range(3):
            task = await crowd.begin(str(number))
            crowd.gate(str(number)).set()
            assert (await outcome(task))[1].reused == number
            until(lambda: wasgi.stats().idle == 1)


async def test_lines_that_are_printed_alternately_are_told_apart() -> None:
    async with Crowd() as crowd:
        tasks = [await crowd.begin(str(number), "/print-and-fetch?") for number in range(4)]
        await soon(lambda: len({line.exchange for line in crowd.lines if line == "before the request"}) == 4)
        for number in range(4):
            crowd.gate(str(number)).set()
        reports = [(await outcome(task))[1] for task in tasks]
        assert {line.exchange for line in crowd.lines} == {report.exchange for report in reports}


async def test_a_trap_ends_all_of_the_instance_and_says_whose_it_was() -> None:
    async with Crowd() as crowd:
        tasks = [await crowd.begin(str(number)) for number in range(3)]
        culprit = await crowd.begin("trap", "/fetch-and-trap?ms=0&")
        with pytest.raises(wasgi.TrapError, match="unreachable") as trapped:
            await culprit
        assert trapped.value.culprit is None
        assert trapped.value.backtrace
        for task in tasks:
            with pytest.raises(wasgi.TrapError, match=r"the guest trapped: .*unreachable") as told:
                await task
            assert told.value.culprit == trapped.value.exchange
            assert told.value.exchange != trapped.value.exchange
            assert not told.value.backtrace
        await soon(lambda: sorted(crowd.cancelled)[:3] == ["0", "1", "2"])
        crowd.gate("next").set()
        assert (await outcome(await crowd.begin("next")))[1].reused == 0


async def test_an_exit_ends_all_of_the_instance_and_says_whose_it_was() -> None:
    async with Crowd() as crowd:
        other = await crowd.begin("other")
        with pytest.raises(wasgi.GuestExitError) as exited:
            await crowd.app.handle_async(get("/exit?code=1"))
        assert exited.value.code == 1
        with pytest.raises(wasgi.TrapError, match="exited with code 1") as told:
            await other
        assert told.value.culprit == exited.value.exchange


async def test_a_body_whose_guest_shares_the_instance_with_one_that_traps_breaks_off() -> None:
    async with Crowd() as crowd:
        response = await crowd.app.handle_async(get("/then-fetch?ms=0&url=http://up/body"))
        await crowd.was_asked("body").wait()
        with pytest.raises(wasgi.TrapError):
            await crowd.app.handle_async(get("/trap"))
        with pytest.raises(wasgi.BodyError) as broken:
            await response.aread()
        assert isinstance(broken.value.__cause__, wasgi.TrapError)
        assert broken.value.__cause__.culprit is not None


async def test_one_that_is_cancelled_leaves_the_others_alone_and_the_instance_goes_with_them() -> None:
    before = wasgi.stats().slots
    async with Crowd() as crowd:
        stays = await crowd.begin("stays")
        goes = await crowd.begin("goes")
        goes.cancel()
        with pytest.raises(asyncio.CancelledError):
            await goes
        await soon(lambda: crowd.cancelled == ["goes"])
        # nobody joins any more
        other = await crowd.begin("other")
        assert crowd.instances() - before == 2
        for name in ("stays", "other"):
            crowd.gate(name).set()
        assert (await outcome(stays))[0] == b"stays"
        assert (await outcome(other))[1].reused == 0
        until(lambda: wasgi.stats().idle == 1)


@pytest.mark.parametrize("reads", [False, True])
async def test_the_body_of_a_request_is_let_go_of_when_its_exchange_is_cancelled(reads: bool) -> None:
    begun, closed = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            begun.set()
            yield b"first"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with Crowd() as crowd:
        stays = await crowd.begin("stays")
        route = "/collect?" if reads else "/fetch?url=http://up/goes"
        goes = asyncio.ensure_future(crowd.app.handle_async(post(route, body())))
        await (begun if reads else crowd.was_asked("goes")).wait()
        goes.cancel()
        with pytest.raises(asyncio.CancelledError):
            await goes
        if reads:
            await closed.wait()
        crowd.gate("stays").set()
        assert (await outcome(stays))[0] == b"stays"


async def test_one_that_times_out_leaves_the_others_alone() -> None:
    async with Crowd(limits=wasgi.Limits(timeout=0.3)) as crowd:
        first = await crowd.begin("first")
        with pytest.raises(wasgi.GuestTimeoutError):
            await first
        await soon(lambda: crowd.cancelled == ["first"])
    async with Crowd(limits=wasgi.Limits(timeout=1)) as crowd:
        first = await crowd.begin("first")
        await asyncio.sleep(0.5)
        second = await crowd.begin("second")
        with pytest.raises(wasgi.GuestTimeoutError):
            await first
        crowd.gate("second").set()
        assert (await outcome(second))[0] == b"second"


@pytest.mark.parametrize("how", ["call", "wait"])
@pytest.mark.parametrize("gives_up", [False, True])
async def test_nobody_waits_for_ever_for_one_that_is_over_and_lets_nobody_in(how: str, gives_up: bool) -> None:
    app = wasgi.App(PROBE_P3, reuse=wasgi.Reuse(concurrent=8), limits=wasgi.Limits(timeout=0.3))
    blocks = asyncio.ensure_future(app.handle_async(get(f"/only/block?how={how}&ms=60000")))
    await asyncio.to_thread(until, lambda: wasgi.stats().slots == 1)
    others = [asyncio.ensure_future(app.handle_async(get("/hello"))) for _ in range(3)]
    if gives_up:
        await asyncio.to_thread(until, lambda: app.exchanges == 4)
        blocks.cancel()
    ended = await asyncio.wait_for(asyncio.gather(blocks, *others, return_exceptions=True), 30)
    assert isinstance(ended[0], asyncio.CancelledError if gives_up else wasgi.GuestTimeoutError)
    assert all(isinstance(one, wasgi.GuestTimeoutError | wasgi.TrapError | wasgi.Response) for one in ended[1:]), ended
    await app.aclose()


@pytest.mark.parametrize("reuse", [wasgi.Reuse(), wasgi.Reuse(concurrent=4)], ids=["one", "four"])
def test_an_instance_whose_guest_lets_nobody_in_any_more_is_not_kept(reuse: wasgi.Reuse) -> None:
    app = wasgi.App(PROBE_P3, reuse=reuse, limits=wasgi.Limits(concurrency=1, queue=1))
    for route, told in (("/only/full?stays=1", "had room again"), ("/hello", "Hello, World!")):
        response = app.handle(get(route))
        assert response.text == told
        report = response.wait()
        assert report is not None
        assert report.reused == 0


async def test_the_time_that_a_guest_computes_is_not_the_others() -> None:
    """Nothing else of a store goes on while one of its guests computes: that is no time of those who wait meanwhile."""
    async with Crowd(limits=wasgi.Limits(timeout=1)) as crowd:
        waits = await crowd.begin("waits")
        spins = asyncio.ensure_future(crowd.app.handle_async(get("/spin")))
        with pytest.raises(wasgi.GuestTimeoutError):
            await spins
        # it never gives the store back, so the instance ends: not because the other one's time was up
        with pytest.raises(wasgi.TrapError, match="computing") as told:
            await waits
        assert told.value.culprit is not None


async def test_fuel_is_each_exchanges_own() -> None:
    async with Crowd(limits=wasgi.Limits(fuel=50_000_000)) as crowd:
        tasks = [await crowd.begin(str(number)) for number in range(3)]
        works = await crowd.app.handle_async(get("/work?n=1"))
        await works.aread()
        await works.finished()
        for number in range(3):
            crowd.gate(str(number)).set()
        used = [(await outcome(task))[1].fuel for task in tasks]
        assert works.report is not None
        assert works.report.fuel is not None
        assert works.report.fuel > 1_000_000
        assert all(fuel is not None and 0 < fuel < 1_000_000 for fuel in used)


async def test_who_runs_out_of_fuel_ends_the_instance() -> None:
    async with Crowd(limits=wasgi.Limits(fuel=5_000_000)) as crowd:
        other = await crowd.begin("other")
        with pytest.raises(wasgi.FuelExhaustedError):
            await crowd.app.handle_async(get("/spin"))
        with pytest.raises(wasgi.TrapError, match=r"Limits\.fuel"):
            await other


async def test_outgoing_requests_are_counted_and_limited_for_each() -> None:
    async with Crowd(limits=wasgi.Limits(outgoing=1)) as crowd:
        tasks = [await crowd.begin(str(number)) for number in range(3)]
        for number in range(3):
            crowd.gate(str(number)).set()
        assert [(await outcome(task))[1].outgoing for task in tasks] == [1, 1, 1]


async def test_bodies_stream_both_ways_at_once() -> None:
    sizes = [1 << 20, 3 << 20, 100]

    def chunks(size: int) -> Callable[[], AsyncIterator[bytes]]:
        async def made() -> AsyncIterator[bytes]:
            for at in range(0, size, 50_000):
                yield bytes([size % 251]) * min(50_000, size - at)

        return made

    async with Crowd() as crowd:
        waits = await crowd.begin("waits")

        async def echo(size: int) -> bytes:
            response = await crowd.app.handle_async(post("/echo", chunks(size)()))
            body = await response.aread()
            await response.finished()
            return body

        found = await asyncio.gather(*(echo(size) for size in sizes))
        assert found == [bytes([size % 251]) * size for size in sizes]
        crowd.gate("waits").set()
        await outcome(waits)


async def test_work_after_the_response_is_waited_for() -> None:
    async with Crowd() as crowd:
        waits = await crowd.begin("waits")
        response = await crowd.app.handle_async(get("/work-after?url=http://up/after"))
        assert await response.aread() == b"done already"
        await crowd.was_asked("after").wait()
        assert response.report is not None
        assert response.report.running
        crowd.gate("after").set()
        await response.finished()
        assert [str(line) for line in crowd.lines if line.exchange == response.report.exchange] == ["worked on"]
        crowd.gate("waits").set()
        await outcome(waits)


async def test_closing_ends_all() -> None:
    crowd = Crowd()
    tasks = [await crowd.begin(str(number)) for number in range(3)]
    await crowd.app.aclose(timeout=0)
    for task in tasks:
        with pytest.raises(wasgi.AppClosedError):
            await task
    await soon(lambda: sorted(crowd.cancelled) == ["0", "1", "2"])


def test_blocking_calls_share_an_instance() -> None:
    import threading

    gate, asked = threading.Event(), threading.Semaphore(0)

    def answer(request: wasgi.Request) -> wasgi.Response:
        asked.release()
        gate.wait()
        return wasgi.Response(body=request.path.encode())

    before = wasgi.stats().slots
    with wasgi.App(PROBE_P3, outgoing=answer, reuse=wasgi.Reuse(concurrent=4)) as app:
        found: dict[int, bytes] = {}

        def ask(number: int) -> None:
            with app.handle(get(f"/fetch?url=http://up/{number}")) as response:
                found[number] = response.read()

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
            asked.acquire()
        # one that is asked before its own thread has handed the first over gets another instance
        assert wasgi.stats().slots - before < 4
        gate.set()
        for thread in threads:
            thread.join()
        assert found == {number: f"/{number}".encode() for number in range(4)}


def test_a_component_of_0_2_takes_one_request_at_a_time() -> None:
    with pytest.raises(ValueError, match=r"must be 1 for a component of WASI 0\.2"):
        wasgi.App(PROBE, reuse=wasgi.Reuse(concurrent=2))


@pytest.mark.parametrize("number", [0, -1, 129])
def test_the_number_has_bounds(number: int) -> None:
    with pytest.raises(ValueError, match=r"`concurrent` must be 1 to 128"):
        wasgi.Reuse(concurrent=number)


INNER = """
  (core module $m
    (func (export "begin") (result i32) unreachable)
    (func (export "on") (param i32 i32 i32) (result i32) unreachable))
  (core instance $i (instantiate $m))
  (func $f async (canon lift (core func $i "begin") {options}))
  (export "f" (func $f))
"""


def composed(calls: str) -> wasgi.Component:
    inner = INNER.format(options='async (callback (core func $i "on"))')
    return wasgi.Component(
        f"""(component
          (component $inner {inner})
          (component $outer (import "f" (func $f async)) {calls})
          (instance $a (instantiate $inner))
          (instance $b (instantiate $outer (with "f" (func $a "f"))))
        )""".encode()
    )


def test_components_that_call_each_others_asynchronous_functions_have_one_at_a_time() -> None:
    """Whose the calls of the inner one are nobody can say, once the outer one has returned."""
    calls = composed("(core func $lowered (canon lower (func $f)))")
    assert calls.wasi == "0.3"
    wasgi.App(calls, reuse=wasgi.Reuse()).close()
    with pytest.raises(ValueError, match=r"`Reuse.concurrent` must be 1, not 2, .* hint: `App\(middleware, handler="):
        wasgi.App(calls, reuse=wasgi.Reuse(concurrent=2))
    wasgi.App(composed(""), reuse=wasgi.Reuse(concurrent=2)).close()
