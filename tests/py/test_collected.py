"""What nobody refers to any more is collected, with the loop and the descriptors behind it; what is used is not."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import wasgi
from tests.conftest import AppMaker, get, post, until


class Token:
    """Something that can be watched."""

    other: Any


def collected(reference: weakref.ref[Any]) -> bool:
    gc.collect()
    return reference() is None


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def hangs(request: wasgi.Request) -> wasgi.Response:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def hanging_body() -> AsyncIterator[bytes]:
    yield b"x"
    await asyncio.Event().wait()


def nap(request: wasgi.Request) -> wasgi.Response:
    threading.Event().wait(0.2)
    return wasgi.Response()


WAITS: dict[str, Callable[[AppMaker], Any]] = {
    "for a guest that sleeps": lambda app: app().handle_async(get("/sleep?ms=60000")),
    "for a coroutine": lambda app: app(outgoing=hangs).handle_async(get("/fetch?url=http://up/")),
    "for a function": lambda app: app(outgoing=nap).handle_async(get("/fetch?url=http://up/")),
    "for its own body": lambda app: app().handle_async(post("/collect", hanging_body())),
    "for a body": lambda app: read(app().handle_async(get("/slow-body?ms=60000"))),
    "for a chunk": lambda app: iterate(app().handle_async(get("/slow-body?ms=60000"))),
    "for the end": lambda app: end(app().handle_async(get("/slow-body?ms=60000"))),
    "for the end of an app": lambda app: close(app()),
}


async def read(call: Any) -> None:
    await (await call).aread()


async def iterate(call: Any) -> None:
    async for _ in await call:
        pass


async def end(call: Any) -> None:
    await (await call).finished()


async def close(app: wasgi.App) -> None:
    response = await app.handle_async(get("/endless"))
    await app.aclose(timeout=None)
    await response.aclose()


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts descriptors in /proc")
@pytest.mark.parametrize("keeps", ["nothing", "its tasks"])
@pytest.mark.parametrize("wait", WAITS)
def test_nothing_is_left_of_a_loop_that_was_closed_while_a_task_waits(app: AppMaker, wait: str, keeps: str) -> None:
    made = app
    no_limit = wasgi.Limits(timeout=None)

    def run() -> tuple[weakref.ref[Any], weakref.ref[Any], list[Any]]:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)  # a task that was destroyed
        task = loop.create_task(WAITS[wait](lambda **options: made(limits=no_limit, **options)))
        loop.run_until_complete(asyncio.sleep(0.05))
        assert not task.done()
        kept = [task] if keeps == "its tasks" else []
        loop.close()
        return weakref.ref(loop), weakref.ref(task), kept

    def ended() -> bool:
        gc.collect()
        return wasgi.stats().exchanges == 0

    run()
    until(ended)
    before = descriptors()
    left = [run() for _ in range(5)]
    for _, _, kept in left:
        kept.clear()
    until(ended)
    for loop, task, _ in left:
        until(lambda: collected(loop) and collected(task))  # noqa: B023
    until(lambda: descriptors() <= before)
    assert wasgi.stats().calls == 0


def test_a_loop_that_was_used_and_closed(app: AppMaker) -> None:
    made = app(outgoing=hangs)

    def run() -> weakref.ref[Any]:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(made.handle_async(get("/slow-body?ms=5")))
        loop.close()
        return weakref.ref(loop)

    assert all(collected(loop) for loop in [run() for _ in range(3)])


def test_a_task_that_nobody_keeps_goes_on(app: AppMaker) -> None:
    """A loop keeps what waits in it, though tasks are to be kept by those who make them."""

    async def main() -> None:
        done = asyncio.Event()

        async def call() -> None:
            await app().handle_async(get("/sleep?ms=100"))
            done.set()

        asyncio.create_task(call())  # noqa: RUF006
        while not done.is_set():
            gc.collect()
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), 30))


def cycle(make: Callable[[Token], Any]) -> weakref.ref[Token]:
    token = Token()
    token.other = make(token)
    return weakref.ref(token)


def source(token: Token) -> Iterator[bytes]:
    yield b"x"
    yield token.other


def answering(token: Token) -> Callable[[wasgi.Request], wasgi.Response]:
    return lambda request: wasgi.Response(headers={"a": str(token)})


class Readable:
    def __init__(self, token: Token) -> None:
        self.token = token

    def read(self, size: int) -> bytes:
        return b""


def begun(chunks: Iterator[bytes]) -> Iterator[bytes]:
    next(chunks)
    return chunks


CYCLES: dict[str, Callable[[AppMaker, Token], Any]] = {
    "an upstream": lambda app, token: app(outgoing=lambda request: token),
    "a route": lambda app, token: app(outgoing=wasgi.outgoing.route({"*": answering(token)})),
    "a sink": lambda app, token: app(stdout=lambda line: token),
    "`on_finish`": lambda app, token: app(on_finish=lambda exchange: token),
    "a call that was never awaited": lambda app, token: app(outgoing=lambda request: token).handle_async(get("/")),
    "the request of such a call": lambda app, token: app().handle_async(post("/", source(token))),
    "an `aclose` that was never awaited": lambda app, token: app(outgoing=lambda request: token).aclose(),
    "an `async with` that was never awaited": lambda app, token: app(stdout=lambda line: token).__aenter__(),
    "a request": lambda app, token: wasgi.Request("POST", "http://x/", body=source(token)),
    "a file of a request": lambda app, token: wasgi.Request("POST", "http://x/", body=Readable(token)),
    "a response": lambda app, token: wasgi.Response(body=source(token)),
    "an iterator of a request": lambda app, token: iter(wasgi.Request("POST", "http://x/", body=source(token))),
    "an iterator in use": lambda app, token: begun(iter(wasgi.Request("POST", "http://x/", body=source(token)))),
    "an `aread` that was never awaited": lambda app, token: wasgi.Request(
        "POST", "http://x/", body=Async(token)
    ).aread(),
    "a response of a guest": lambda app, token: app(stdout=lambda line: token).handle(get("/hello")),
    "a response that was read": lambda app, token: whole(app(stdout=lambda line: token).handle(get("/hello"))),
    "a response of a guest that had to wait": lambda app, token: whole(
        app(stdout=lambda line: token, outgoing=lambda request: wasgi.Response(headers={"a": str(token)})).handle(
            get("/print-and-fetch?url=http://up/")
        )
    ),
    "an `aread` of a guest's": lambda app, token: app(stdout=lambda line: token).handle(get("/hello")).aread(),
    "a `finished` of a guest's": lambda app, token: app(stdout=lambda line: token).handle(get("/hello")).finished(),
    "an iterator of a guest's": lambda app, token: iter(app(stdout=lambda line: token).handle(get("/hello"))),
    "an async iterator of a guest's": lambda app, token: aiter(app(stdout=lambda line: token).handle(get("/hello"))),
    "its first step": lambda app, token: anext(aiter(app(stdout=lambda line: token).handle(get("/hello")))),
}


class Async:
    def __init__(self, token: Token) -> None:
        self.token = token

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b""


def whole(response: wasgi.Response) -> wasgi.Response:
    response.read()
    response.wait()
    return response


@pytest.mark.parametrize("kind", CYCLES)
def test_a_cycle_through(app: AppMaker, kind: str) -> None:
    reference = cycle(lambda token: CYCLES[kind](app, token))
    until(lambda: collected(reference))


def test_the_background_loop_has_one_queue_of_jobs(app: AppMaker) -> None:
    """Also when a coroutine that runs on it calls a guest: a second one would be two descriptors for good."""
    inner = app()

    async def calls_another(request: wasgi.Request) -> wasgi.Response:
        answer = await inner.handle_async(get("/hello"))
        loop: Any = asyncio.get_running_loop()
        watched = [key for key in loop._selector.get_map().values() if "LoopBridge" in repr(key.data)]
        return wasgi.Response(200, body=await answer.aread() + f" {len(watched)}".encode())

    outer = app(outgoing=calls_another)
    assert outer.handle(get("/fetch?url=http://up/")).read() == b"Hello, World! 1"
