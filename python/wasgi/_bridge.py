"""The Python half of the bridge: what the native module has run on an event loop or on one of its threads."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import functools
import inspect
import logging
import os
import threading
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from wasgi import _wasgi

if TYPE_CHECKING:
    from wasgi._wasgi import FeedHandle, LoopBridge, OutgoingCall

_guest_log = logging.getLogger("wasgi.guest")
_host_log = logging.getLogger("wasgi.outgoing")


# how many components have asked one another in a chain to come here
depth: contextvars.ContextVar[int] = contextvars.ContextVar("wasgi.depth", default=0)


def as_upstream(upstream: Any) -> tuple[Callable[..., Any], bool]:
    """What to call for an outgoing request, and whether that is a coroutine function."""
    if isinstance(upstream, _wasgi.App):
        return upstream.handle_async, True
    if not callable(upstream):
        raise TypeError(f"`outgoing` must be callable, or None, not {type(upstream).__name__}")
    function = upstream
    while isinstance(function, functools.partial):
        function = function.func
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
    owner = getattr(function, "__self__", None)
    if isinstance(owner, _wasgi.App) and getattr(function, "__name__", "") == "handle_async":
        is_async = True
    return upstream, is_async


async def answer(call: OutgoingCall, awaitable: Awaitable[Any] | None = None) -> None:
    """Has a coroutine function answer an outgoing request, or goes on with what a plain callable left to be awaited."""
    depth.set(depth.get() + 1)  # in a copy of the caller's context
    try:
        response = await (call.upstream(call.request) if awaitable is None else awaitable)
    except BaseException as exc:
        call.fail(exc)
        if not isinstance(exc, Exception):
            raise
    else:
        call.answer(response)
    finally:
        del call  # an exception that somebody keeps has this frame in its traceback


def answer_blocking(call: OutgoingCall) -> None:
    """Has a plain callable answer an outgoing request, on a thread."""
    depth.set(depth.get() + 1)  # in a copy of the caller's context
    try:
        response = call.upstream(call.request)
    except BaseException as exc:
        call.fail(exc)
    else:
        if inspect.isawaitable(response):
            call.hand_to_loop(response)
        else:
            call.answer(response)
    finally:
        del call  # see `answer`


async def feed(handle: FeedHandle, source: AsyncIterable[Any]) -> None:
    """Gives a guest the chunks of an async iterable, one each time it wants one."""
    handle.enter()
    iterator: Any = source
    try:
        iterator = aiter(source)
        while await handle.wanted():
            try:
                chunk = await anext(iterator)
            except StopAsyncIteration:
                handle.end()
                return
            handle.push(chunk)
    except BaseException as exc:
        # where nobody wants more, cancelling is our own way to say so
        if not (handle.gone and isinstance(exc, asyncio.CancelledError)):
            handle.fail(exc)
        if not isinstance(exc, Exception):
            raise
    finally:
        del handle  # see `answer`
        await close(iterator)


async def close(source: Any) -> None:
    """Lets go of an async iterable of which nobody reads any more."""
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        await aclose()


async def gather(source: Any) -> bytes:
    """Reads the async iterable of a body to its end."""
    whole = b"".join([bytes(chunk) async for chunk in source.take()])
    source.keep(whole)
    return whole


class Line(str):
    """A line that a guest printed, without its newline.

    Attributes:
        stream: ``"stdout"`` or ``"stderr"``.
        exchange: The number of the exchange, as in `Response.report`.
    """

    __slots__ = ("exchange", "stream")

    stream: str
    exchange: int

    def __new__(cls, text: str, stream: str, exchange: int) -> Line:
        line = super().__new__(cls, text)
        line.stream = stream
        line.exchange = exchange
        return line

    def __getnewargs__(self) -> tuple[str, str, int]:  # type: ignore[override]
        return str(self), self.stream, self.exchange


def log_line(text: str, stream: str, component: str, exchange: int) -> None:
    """Logs a guest's line: stdout as INFO, stderr as WARNING; or what its host has to say of it."""
    log = _host_log if stream == "host" else _guest_log
    level = logging.INFO if stream == "stdout" else logging.WARNING
    if log.isEnabledFor(level):
        extra = {"wasgi_stream": stream, "wasgi_component": component, "wasgi_exchange": exchange}
        log.log(level, "%s", text, extra=extra)


_own: LoopBridge | None = None
_own_lock = threading.Lock()


def _after_fork() -> None:
    """The parent's thread does not exist in a forked child, and a thread of the parent's may have held the lock."""
    global _own, _own_lock
    _own, _own_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def own_loop() -> LoopBridge:
    """The event loop of our own, on its own thread, for calls from where no loop runs; started when first asked for."""
    global _own
    with _own_lock:
        if _own is None:
            # in a context of its own: a loop keeps the one it was made in, which is that of whoever came first
            _own = contextvars.Context().run(_start_own_loop)
        return _own


def _start_own_loop() -> LoopBridge:
    loop = asyncio.new_event_loop()
    bridge = _wasgi.LoopBridge.attach(loop)
    running = threading.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.call_soon(running.set)
        loop.run_forever()
        loop.close()

    thread = threading.Thread(target=run, name="wasgi-loop", daemon=True)
    thread.start()
    running.wait()

    def stop() -> None:
        if thread.is_alive():
            loop.call_soon_threadsafe(_stop_soon, loop)
            thread.join(1.0)

    atexit.register(stop)
    return bridge


def _stop_soon(loop: asyncio.AbstractEventLoop) -> None:
    """Cancels what runs, then stops the loop."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    gathered = asyncio.gather(*tasks, return_exceptions=True)
    gathered.add_done_callback(lambda _: loop.stop())
