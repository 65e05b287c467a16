"""Blocking calls on a thread that runs an event loop: they would block the loop that they wait for."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from wasgi._native import callbacks
from wasgi._wasgi import Network, Route

if TYPE_CHECKING:
    from wasgi.app import App

__tracebackhide__ = True  # in pytest's reports: a test's own line is what is wanted there


ASYNC_HINT = (
    "hint: in asynchronous tests take the fixture `wasgi_async_app` (`wasgi.testing.AsyncClient`), and await its calls"
)


def loop_runs_here() -> bool:
    """Whether an event loop of asyncio runs on this thread."""
    asyncio = sys.modules.get("asyncio")  # whoever runs a loop has imported it
    return asyncio is not None and asyncio._get_running_loop() is not None


def refuse_to_block(app: App, content: Any = None) -> None:
    """Refuses a blocking call that would wait for the event loop that it blocks.

    The coroutine itself could run on the background loop, but not the tasks of this loop that it waits for.

    Raises:
        RuntimeError: An event loop runs here, and the request's body or the upstream may need it.
    """
    if loop_runs_here() and (isinstance(content, AsyncIterable) or _is_async(app.outgoing)):
        whose = "the request's body" if isinstance(content, AsyncIterable) else "its upstream"
        raise RuntimeError(
            f"a blocking `wasgi.testing.Client` would hold up the event loop that {whose} needs; {ASYNC_HINT}"
        )


def _is_async(upstream: Any) -> bool:
    """Whether the upstream is a coroutine function that may wait for tasks of its caller's loop.

    A `Route` may contain one. A mock (`Upstream`) waits for its own timers only, which any loop has.
    """
    if upstream is None or isinstance(upstream, Network) or getattr(upstream, "_needs_no_loop", False):
        return False
    return isinstance(upstream, Route) or callbacks.as_upstream(upstream)[1]
