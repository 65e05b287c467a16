"""The background event loop: it runs the user's coroutines for callers that run no loop of their own."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import sys
import threading
from typing import TYPE_CHECKING

from wasgi import _wasgi
from wasgi.errors import WasgiError

if TYPE_CHECKING:
    from wasgi._wasgi import LoopBridge

_loop: LoopBridge | None = None
_lock = threading.Lock()


def _after_fork() -> None:
    """A forked child starts anew: the loop's thread does not exist there, and a thread may have held the lock."""
    global _loop, _lock
    _loop, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def background_loop() -> LoopBridge:
    """The background event loop, on its own thread; started by the first call."""
    global _loop
    with _lock:
        if _loop is None:
            # in an empty context: a loop keeps the context that it was made in, which is that of the first caller
            _loop = contextvars.Context().run(_start)
        return _loop


def _start() -> LoopBridge:
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
        if thread.is_alive() and not sys.is_finalizing():  # else the thread would never get the GIL back
            loop.call_soon_threadsafe(_cancel_and_stop, loop)
            thread.join(1.0)

    atexit.register(stop)
    return bridge


def _cancel_and_stop(loop: asyncio.AbstractEventLoop) -> None:
    """Cancels all tasks, and stops the loop when they have ended."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    gathered = asyncio.gather(*tasks, return_exceptions=True)
    gathered.add_done_callback(lambda _: loop.stop())
