"""What all Apps of a process share, the pool of instances and the event loop: none takes all of it."""

from __future__ import annotations

import asyncio
import collections
from pathlib import Path

import pytest

import wasgi
from tests.conftest import HELLO, AppMaker, bare_text, get, until
from tests.processes import run


def waiting(spare: str = "", instances: int = 0) -> bytes:
    """A component whose guests wait for a minute; beside its own core module it has so many instances of another."""
    around = """
      (import "wasi:io/poll@0.2.0" (instance $poll
        (export "pollable" (type $p (sub resource)))
        (export "[method]pollable.block" (func (param "self" (borrow $p))))))
      (alias export $poll "pollable" (type $pollable))
      (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
        (alias outer 1 $pollable (type $own)) (export "pollable" (type $q (eq $own)))
        (export "subscribe-duration" (func (param "when" u64) (result (own $q))))))
      (core func $subscribe (canon lower (func $clock "subscribe-duration")))
      (core func $block (canon lower (func $poll "[method]pollable.block")))"""
    declarations = """
        (import "" "subscribe" (func $subscribe (param i64) (result i32)))
        (import "" "block" (func $block (param i32)))"""
    return bare_text(
        "(call $block (call $subscribe (i64.const 60000000000)))",
        declarations,
        instances + 1,
        around,
        spare,
        '(with "" (instance (export "subscribe" (func $subscribe)) (export "block" (func $block))))',
    ).encode()


async def beside(components: list[wasgi.Component], exchanges: int) -> None:
    """Another App is served beside so many exchanges of each."""
    good = wasgi.App(HELLO)
    hostile = [wasgi.App(component, limits=wasgi.Limits(concurrency=None, timeout=None)) for component in components]
    tasks = [
        asyncio.ensure_future(app.handle_async(get("/sleep?ms=60000"))) for _ in range(exchanges) for app in hostile
    ]
    while wasgi.stats().exchanges < sum(not task.done() for task in tasks) or not wasgi.stats().exchanges:
        await asyncio.sleep(0.01)
    # those that begin when there is no room any more have ended by now
    held = -1
    while held != (held := wasgi.stats().exchanges):
        await asyncio.sleep(0.2)
    for _ in range(3):
        response = await good.handle_async(get("/"))
        assert await response.aread() == b"Hello, World!"
    refused = [task.exception() for task in tasks if task.done()]
    assert all(isinstance(error, wasgi.OverloadedError) for error in refused), refused[:3]
    print("served beside", held, "refused", len(refused))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


MADE_OF = {
    "memories": ("(memory 1)", 15),
    "tables": ("(table 1 funcref)", 15),
    "instances": ("", 200),
}


@pytest.mark.parametrize("what", MADE_OF)
def test_what_a_component_is_made_of_does_not_use_up_the_pool(what: str) -> None:
    script = f"""
import asyncio, sys
import wasgi
from tests.scheduler.test_shares import MADE_OF, beside, waiting
asyncio.run(beside([wasgi.Component(waiting(*MADE_OF[{what!r}]))], 300))
"""
    done = run(script)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "served beside 300 refused 0\n"


def test_apps_that_take_all_they_can_get_leave_room(probe_path: Path) -> None:
    script = f"""
import asyncio, sys
import wasgi
from tests.scheduler.test_shares import beside
asyncio.run(beside([wasgi.Component({str(probe_path)!r})] * 5, 300))
"""
    done = run(script)
    assert done.returncode == 0, done.stderr[-2000:]
    held = int(done.stdout.split()[2])
    # five with four times as many as are free: 20 of 21 parts
    assert 900 < held < 1024


def test_an_app_alone_has_most_of_the_pool(probe_path: Path) -> None:
    script = f"""
import asyncio, sys
import wasgi
from tests.scheduler.test_shares import beside
asyncio.run(beside([wasgi.Component({str(probe_path)!r})], 1100))
"""
    done = run(script)
    assert done.returncode == 0, done.stderr[-2000:]
    held = int(done.stdout.split()[2])
    assert 800 < held < 850


async def test_a_burst_of_requests_does_not_hold_the_loop(app: AppMaker) -> None:
    """What hundreds of requests at once ask of a coroutine function is begun a few in each round of the loop."""
    loop = asyncio.get_running_loop()
    rounds = 0
    begun: collections.Counter[int] = collections.Counter()
    counting: asyncio.Handle

    def count() -> None:
        nonlocal rounds, counting
        rounds += 1
        counting = loop.call_soon(count)

    async def up(request: wasgi.Request) -> wasgi.Response:
        begun[rounds] += 1
        return wasgi.Response(body=b"up")

    made = app(outgoing=up)
    counting = loop.call_soon(count)
    tasks = [asyncio.ensure_future(made.handle_async(get("/fetch-many?n=60&url=http://up/"))) for _ in range(8)]
    while wasgi.stats().exchanges < 8:
        await asyncio.sleep(0)
    until(lambda: wasgi.stats().calls == 8 * 60 - begun.total())  # the loop's thread waits: they all come at once
    for task in tasks:
        assert (await (await task).aread()).count(b"up") == 60
    counting.cancel()
    assert begun.total() == 480
    assert max(begun.values()) <= 16
