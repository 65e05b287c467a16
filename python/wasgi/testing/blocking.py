"""Blocking calls where an event loop runs: they keep it from running what they wait for."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from wasgi import _bridge
from wasgi._wasgi import Network, Route

if TYPE_CHECKING:
    from wasgi.app import App

__tracebackhide__ = True  # in pytest's reports: a test's own line is what is wanted there


ASYNC_HINT = (
    "hint: in asynchronous tests take the fixture `wasgi_async_app` (`wasgi.testing.AsyncClient`), and await its calls"
)


def loop_runs_here() -> bool:
    """Whether this thread is in an event loop of asyncio."""
    asyncio = sys.modules.get("asyncio")  # whoever runs a loop has imported it
    return asyncio is not None and asyncio._get_running_loop() is not None


def refuse_to_block(app: App, content: Any = None) -> None:
    """Says at once that a blocking call cannot be waited for: it blocks the loop that is to run what it waits for.

    A coroutine may run on a loop of our own instead, but not what that waits for on this one.

    Raises:
        RuntimeError: So it is.
    """
    if loop_runs_here() and (isinstance(content, AsyncIterable) or _is_async(app.outgoing)):
        whose = "the request's body" if isinstance(content, AsyncIterable) else "its upstream"
        raise RuntimeError(
            f"a blocking `wasgi.testing.Client` would hold up the event loop that {whose} needs; {ASYNC_HINT}"
        )


def _is_async(upstream: Any) -> bool:
    """Whether it is a coroutine function that may wait for what runs on its caller's loop.

    Of a `Route` only its parts know: it may be. A mock waits for nobody but its own timers, which any loop has.
    """
    if upstream is None or isinstance(upstream, Network) or getattr(upstream, "_needs_no_loop", False):
        return False
    return isinstance(upstream, Route) or _bridge.as_upstream(upstream)[1]
