"""What Python gives as a body (an iterator, a generator, an async iterable) is closed exactly once, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import wasgi
from tests.conftest import AppMaker, get, post, until

pytestmark = pytest.mark.usefixtures("nothing_is_left")


class Blocking:
    """An iterator that can be closed, as responses of HTTP clients are."""

    def __init__(self, chunks: int = 3, fails: bool = False) -> None:
        self.left = chunks
        self.fails = fails
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.left == 0:
            raise (ConnectionResetError("gone") if self.fails else StopIteration)
        self.left -= 1
        return b"x" * 1000

    def close(self) -> None:
        self.closed += 1


class Async:
    def __init__(self, chunks: int = 3, fails: bool = False) -> None:
        self.left = chunks
        self.fails = fails
        self.closed = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        if self.left == 0:
            raise (ConnectionResetError("gone") if self.fails else StopAsyncIteration)
        self.left -= 1
        return b"x" * 1000

    async def aclose(self) -> None:
        self.closed += 1


KINDS = pytest.mark.parametrize("kind", [Blocking, Async])
ENDLESS = 1 << 40


async def closes(source: Any) -> None:
    """Waits until it has been closed, then for what would close it again."""
    while source.closed == 0:
        await asyncio.sleep(0.001)
    for _ in range(100):
        await asyncio.sleep(0)
    assert source.closed == 1


@KINDS
async def test_read_to_its_end(app: AppMaker, kind: Any) -> None:
    source = kind()
    response = await app().handle_async(post("/collect", source))
    await response.aread()
    await closes(source)


@KINDS
async def test_that_fails(app: AppMaker, kind: Any) -> None:
    source = kind(fails=True)
    with pytest.raises(ConnectionResetError, match="gone"):
        await app().handle_async(post("/collect", source))
    await closes(source)


@pytest.mark.parametrize(
    ("chunks", "fails", "error"),
    [(3, False, None), (3, True, ConnectionResetError), (ENDLESS, False, asyncio.CancelledError)],
)
async def test_that_its_own_maker_awaits(chunks: int, fails: bool, error: type[BaseException] | None) -> None:
    source = Async(chunks, fails)
    task = asyncio.create_task(wasgi.Response(body=source).aread())
    while source.left == chunks:
        await asyncio.sleep(0)
    if chunks == ENDLESS:
        task.cancel()
    with pytest.raises(error) if error else contextlib.nullcontext():
        assert len(await task) == 3000
    await closes(source)


@KINDS
async def test_that_its_guest_never_reads(app: AppMaker, kind: Any) -> None:
    source = kind(ENDLESS)
    response = await app().handle_async(post("/ignore-body", source))
    await response.aread()
    await closes(source)
    assert source.left == ENDLESS


@KINDS
async def test_that_its_guest_gives_up_before_the_loop_has_had_a_step(app: AppMaker, kind: Any) -> None:
    source = kind(ENDLESS)
    steps = app().handle_async(post("/body-or-timer?ms=0", source)).__await__()  # asks for a chunk; the timer is first
    try:
        first = next(steps)
    except StopIteration as done:
        response = done.value
    else:
        until(lambda: wasgi.stats().exchanges == 0)  # the guest gives up elsewhere, while this loop does nothing
        response = await go_on(first, steps)
    assert response.status == 200
    del response
    await closes(source)


@types.coroutine
def go_on(first: Any, steps: Any) -> Any:
    """Awaits the rest of what has had its first step."""
    yield first
    return (yield from steps)


@KINDS
async def test_that_its_guest_gives_up_midway(app: AppMaker, kind: Any) -> None:
    source = kind(ENDLESS)
    response = await app().handle_async(post("/echo", source))
    async for _ in response:
        break
    await response.aclose()
    await closes(source)


@KINDS
async def test_of_an_exchange_that_is_cancelled(app: AppMaker, kind: Any) -> None:
    source = kind(ENDLESS)
    task = asyncio.create_task(app().handle_async(post("/collect", source)))
    while source.left == ENDLESS:
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await closes(source)


@KINDS
async def test_of_an_exchange_that_is_refused(app: AppMaker, kind: Any) -> None:
    source = kind(ENDLESS)
    guests = app(limits=wasgi.Limits(fields=10))
    with pytest.raises(wasgi.errors.ErrorCode):
        await guests.handle_async(post("/collect", source, headers={"name": "x" * 100}))
    await closes(source)


@KINDS
async def test_of_an_upstreams_response_that_is_read(app: AppMaker, kind: Any) -> None:
    source = kind()

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        return wasgi.Response(200, body=source)

    response = await app(outgoing=upstream).handle_async(get("/fetch?url=http://api.example/"))
    assert len(await response.aread()) == 3000
    await closes(source)


@KINDS
async def test_of_an_upstreams_response_that_nobody_waits_for(app: AppMaker, kind: Any) -> None:
    source = kind(ENDLESS)

    def upstream(request: wasgi.Request) -> wasgi.Response:
        return wasgi.Response(200, body=source)

    response = await app(outgoing=upstream).handle_async(get("/fetch?url=http://api.example/"))
    async for _ in response:
        break
    await response.aclose()
    await closes(source)


@KINDS
def test_of_a_blocking_call(app: AppMaker, kind: Any) -> None:
    source = kind(ENDLESS)
    app().handle(post("/ignore-body", source)).read()
    until(lambda: source.closed == 1)


async def test_an_iterable_whose_iterator_cannot_be_made_is_a_failure(app: AppMaker) -> None:
    class Broken:
        def __aiter__(self) -> AsyncIterator[bytes]:
            raise ConnectionResetError("no iterator")

    with pytest.raises(ConnectionResetError, match="no iterator"):
        await app().handle_async(post("/collect", Broken()))
