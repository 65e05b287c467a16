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


def loop_runs_here() -> bool:
    """Whether this thread is in an event loop of asyncio."""
    asyncio = sys.modules.get("asyncio")  # whoever runs a loop has imported it
    return asyncio is not None and asyncio._get_running_loop() is not None


def refuse_to_block(app: App, content: Any = None) -> None:
    """Says at once that a blocking call cannot end: what it waits for needs the loop that it blocks.

    Raises:
        RuntimeError: So it is.
    """
    if loop_runs_here() and (isinstance(content, AsyncIterable) or _needs_loop(app.outgoing)):
        whose = "the request's body" if isinstance(content, AsyncIterable) else "its upstream"
        raise RuntimeError(
            f"a blocking `wasgi.testing.Client` would hold up the event loop that {whose} needs; hint: in asynchronous "
            "tests take the fixture `wasgi_async_app` (`wasgi.testing.AsyncClient`), and await its calls"
        )


def _needs_loop(upstream: Any) -> bool:
    """Whether it is run by the caller's event loop. Of a `Route` only its parts know: it may be."""
    if upstream is None or isinstance(upstream, Network):
        return False
    return isinstance(upstream, Route) or _bridge.as_upstream(upstream)[1]
