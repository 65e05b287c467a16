"""Who gets the next turn: guests that compute beside guests that wait."""

import asyncio
import signal
from collections.abc import Generator
from typing import Any

import pytest

import wasgi
from tests.conftest import AppMaker, bare

PAGES = 1024  # 64 MiB
REQUEST = wasgi.Request("GET", "http://a/")
FILL = f"(memory.fill (i32.const 0) (i32.const 1) (i32.const {PAGES << 16}))"
COPY = f"(memory.copy (i32.const 1) (i32.const 0) (i32.const {(PAGES << 16) - 1}))"


@pytest.mark.timeout(20)  # all of it takes longer than that
@pytest.mark.parametrize("instruction", [FILL, COPY])
def test_code_without_loops_ends_at_its_time_limit(instruction: str) -> None:
    """It meets no epoch: its time is looked at after each instruction that the host carries out."""
    app = wasgi.App(bare(instruction * 6000, f"(memory {PAGES})"), limits=wasgi.Limits(timeout=0.1))
    with pytest.raises(wasgi.GuestTimeoutError):
        app.handle(REQUEST)


def test_code_without_loops_leaves_the_callers_thread() -> None:
    """Ctrl-C and deadlines are heard, because the guest goes on elsewhere."""

    class Heard(Exception):
        pass

    def hear(*_: object) -> None:
        raise Heard

    app = wasgi.App(bare(FILL * 4000, f"(memory {PAGES})"), limits=wasgi.Limits(timeout=None))
    before = signal.signal(signal.SIGALRM, hear)
    try:
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Heard):
                app.handle(REQUEST)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    app.close()


async def test_one_long_operation_keeps_its_apps_guests_off_event_loops() -> None:
    """It ends its turn as well, so that nothing interrupts it: it counts by what it took."""
    app = wasgi.App(bare(FILL, f"(memory {PAGES})"))
    here = 0
    for _ in range(20):
        waiting = app.handle_async(REQUEST).__await__()
        try:
            future = waiting.send(None)
        except wasgi.NoResponseError:
            here += 1  # it has run to its end on this thread
        else:
            with pytest.raises(wasgi.NoResponseError):
                await finish(waiting, future)
    assert here <= 3  # until one was measured


async def finish(waiting: Generator[Any, None, wasgi.Response], future: Any) -> wasgi.Response:
    """Awaits the rest of what has been begun by hand."""

    class Rest:
        def __await__(self) -> Generator[Any, None, wasgi.Response]:
            yield future
            return (yield from waiting)

    return await Rest()


async def test_a_guest_that_waits_is_answered_beside_one_that_nothing_interrupts(app: AppMaker) -> None:
    endless = wasgi.App(bare(FILL * 4000, f"(memory {PAGES})"), limits=wasgi.Limits(timeout=None))
    others = [asyncio.ensure_future(endless.handle_async(REQUEST)) for _ in range(8)]
    waits = app()
    for _ in range(20):
        response = await waits.handle_async(wasgi.Request("GET", "http://a/sleep?ms=1"))
        assert response.status == 200
    assert not any(other.done() for other in others)
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await endless.aclose()
    await waits.aclose()
    assert wasgi.stats().exchanges == 0
