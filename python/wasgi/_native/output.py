"""The Python half of the bridge: what the native module has run on an event loop or on one of its threads."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import functools
import inspect
import io
import logging
import os
import sys
import threading
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from wasgi import _wasgi
from wasgi.errors import WasgiError

if TYPE_CHECKING:
    from wasgi._wasgi import Exchange, FeedHandle, LoopBridge, OutgoingCall

_log = logging.getLogger("wasgi")
_logs = {
    "stdout": (logging.getLogger("wasgi.guest"), logging.INFO),
    "stderr": (logging.getLogger("wasgi.guest"), logging.WARNING),
    "outgoing": (logging.getLogger("wasgi.outgoing"), logging.WARNING),
    "host": (_log, logging.WARNING),
}


# in the context of code that takes part in an exchange: its component, its app and its number
_part: contextvars.ContextVar[tuple[str, str, int] | None] = contextvars.ContextVar("wasgi.exchange", default=None)


def part() -> dict[str, object] | None:
    """What log records have as ``extra`` where code takes part in an exchange."""
    taken = _part.get()
    return None if taken is None else _extra(*taken)


def _extra(component: str, app: str, exchange: int) -> dict[str, object]:
    return {"wasgi_component": component or None, "wasgi_app": app or None, "wasgi_exchange": exchange or None}


# how many components have asked one another in a chain to come here
depth: contextvars.ContextVar[int] = contextvars.ContextVar("wasgi.depth", default=0)


def as_upstream(upstream: Any) -> tuple[Callable[..., Any], bool]:
    """What to call for an outgoing request, and whether that is a coroutine function."""
    if isinstance(upstream, _wasgi.App):
        return upstream.handle_async, True
    if not callable(upstream):
        raise TypeError(f"`outgoing` must be callable, or None, not {type(upstream).__name__}")
    return upstream, is_async(upstream)


def is_async(function: Any) -> bool:
    """Whether calling it gives something to be awaited."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return True
    owner = getattr(function, "__self__", None)
    return isinstance(owner, _wasgi.App) and getattr(function, "__name__", "") == "handle_async"


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
    may_wait = True
    try:
        iterator = aiter(source)
        while await handle.wanted():
            try:
                chunk = await anext(iterator)
            except StopAsyncIteration:
                handle.end()
                return
            handle.push(chunk)
    except GeneratorExit:
        may_wait = False  # the loop is gone, and this with it
        raise
    except BaseException as exc:
        # where nobody wants more, cancelling is our own way to say so
        if not (handle.gone and isinstance(exc, asyncio.CancelledError)):
            handle.fail(exc)
        if not isinstance(exc, Exception):
            raise
    finally:
        del handle  # see `answer`
        if may_wait:
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
        cut: Whether the line was longer than 64 KiB, and goes on in the next one of its stream.
    """

    __slots__ = ("cut", "exchange", "stream")

    stream: str
    exchange: int
    cut: bool

    def __new__(cls, text: str, stream: str, exchange: int, cut: bool) -> Line:
        line = super().__new__(cls, text)
        line.stream = stream
        line.exchange = exchange
        line.cut = cut
        return line

    def __getnewargs__(self) -> tuple[str, str, int, bool]:  # type: ignore[override]
        return str(self), self.stream, self.exchange, self.cut


# What moves a terminal's cursor could forge lines of others; a guest may be anybody's.
_SHOWN = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x09}
# Nor may it begin a line, or turn the direction of what is shown.
_SHOWN |= {code: f"\\u{code:04x}" for code in (0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))}


def shown(text: str) -> str:
    """A line of a guest's on one line of ours, with nothing in it that a terminal obeys."""
    return text.translate(_SHOWN)


class _ToStderr(logging.Handler):
    """Whatever `sys.stderr` is when there is something to say, with the component's name."""

    _formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        if (stderr := sys.stderr) is None:
            return
        try:
            component = getattr(record, "wasgi_component", None)
            text = f"{component}: {record.getMessage()}" if component else record.getMessage()
            lines = [text]
            if record.exc_info:
                lines += self._formatter.formatException(record.exc_info).splitlines()
            stderr.write("".join(shown(line) + "\n" for line in lines))
            stderr.flush()
        except Exception:
            self.handleError(record)


_to_stderr = _ToStderr()


def _has_level(log: logging.Logger) -> bool:
    """Whether somebody has set a level, be it on a logger above. The root has one by default, which does not count."""
    above: logging.Logger | None = log
    while above is not None and above is not logging.root:
        if above.level:
            return True
        above = above.parent
    return False


def log_line(text: str, stream: str, component: str, app: str, exchange: int) -> None:
    """Logs a guest's line, stdout as INFO and stderr as WARNING, or what its host has to say of it."""
    log, level = _logs[stream]
    extra = _extra(component, app, exchange)
    extra["wasgi_stream"] = stream if stream in ("stdout", "stderr") else "host"
    say(log, level, shown(text), extra)


def is_unheard(stream: str) -> bool:
    """Whether nobody would see a guest's line, or its host's: no thread is asked to log it then."""
    return _is_unheard(*_logs[stream])


def _is_unheard(log: logging.Logger, level: int) -> bool:
    if log.hasHandlers() or _has_level(log) or log.manager.disable >= level:
        return not log.isEnabledFor(level)
    return log.disabled  # it goes to stderr


def say(
    log: logging.Logger,
    level: int,
    text: str,
    extra: dict[str, object] | None,
    error: BaseException | None = None,
) -> None:
    """Logs it. While nobody has configured a handler it goes to stderr, with the component's name.

    `logging` itself would show warnings only, and not say whose they are.
    """
    if _is_unheard(log, level):
        return
    if log.hasHandlers():
        log.log(level, "%s", text, exc_info=error, extra=extra)
        return
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    record = log.makeRecord(log.name, level, "", 0, "%s", (text,), exc_info, extra=extra)
    if log.filter(record):
        _to_stderr.handle(record)


def check_text_file(name: str, file: Any) -> None:
    """Refuses a file that a guest's lines, which are text, cannot be written to: later, each would be lost."""
    mode = getattr(file, "mode", None)
    is_binary = isinstance(mode, str) and "b" in mode and getattr(file, "encoding", None) is None
    if isinstance(file, io.RawIOBase | io.BufferedIOBase) or is_binary:
        raise TypeError(f'`{name}` must be a text file, not a binary one; hint: `open(..., "a", encoding="utf-8")`')
    if getattr(file, "closed", None) is True:
        raise ValueError(f"`{name}` is a file that is closed")
    writable = getattr(file, "writable", None)
    if callable(writable) and writable() is False:
        raise ValueError(f'`{name}` is a file that cannot be written to; hint: open it in mode "a" or "w"')


def tell(on_finish: Callable[[Exchange], object], exchange: Exchange) -> None:
    """Tells `on_finish` of an exchange that is over."""
    try:
        given = on_finish(exchange)
        if inspect.iscoroutine(given):
            given.close()
            raise TypeError("`on_finish` must not give a coroutine: it runs on a thread")
    except Exception as exc:
        extra = _extra(exchange.component, exchange.app, exchange.id)
        say(_log, logging.ERROR, "`on_finish` failed", extra, exc)


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
    try:
        thread.start()
    except RuntimeError as exc:
        loop.close()
        raise WasgiError(
            f"no thread can be started for an event loop: {exc}; hint: the limits of processes count threads, too "
            "(`ulimit -u`, and `pids.max` of the control group)"
        ) from exc
    running.wait()

    def stop() -> None:
        if thread.is_alive() and not sys.is_finalizing():  # else it would never get the GIL back
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
