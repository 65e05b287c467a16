"""Bodies whose chunks an async iterable gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wasgi._wasgi import FeedHandle


async def feed(handle: FeedHandle, source: AsyncIterable[Any]) -> None:
    """Gives a guest the chunks of an async iterable: the next one each time that the guest wants one."""
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
        may_wait = False  # the loop has closed, and this coroutine is closed with it
        raise
    except BaseException as exc:
        # once the guest wants no more, cancelling is our own way to end this task
        if not (handle.gone and isinstance(exc, asyncio.CancelledError)):
            handle.fail(exc)
        if not isinstance(exc, Exception):
            raise
    finally:
        handle.leave()
        del handle  # the traceback of an exception that somebody keeps holds this frame
        if may_wait:
            await close(iterator)


async def close(source: Any) -> None:
    """Closes an async iterable that is not read to its end; does nothing if it has no ``aclose``."""
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        await aclose()


async def gather(source: Any) -> bytes:
    """Reads the async iterable of a body to its end."""
    whole = b"".join([bytes(chunk) async for chunk in source.take()])
    source.keep(whole)
    return whole
