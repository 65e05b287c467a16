"""Bodies whose chunks an async iterable gives."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, Iterator
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from wasgi._wasgi import FeedHandle, Response


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
    """Reads the async iterable of a body to its end, and closes it."""
    iterator = aiter(source.take())
    may_wait = True
    try:
        whole = b"".join([bytes(chunk) async for chunk in iterator])
    except GeneratorExit:
        may_wait = False  # the loop has closed, and this coroutine is closed with it
        raise
    finally:
        if may_wait:
            await close(iterator)
    source.keep(whole)
    return whole


class OnThreads:
    """The body of a response, an iterator or a file, for an event loop. One thread at a time is in it."""

    def __init__(self, response: Response) -> None:
        self.response = response
        self.end = response._closing
        self.chunks: Iterator[bytes] | None = None
        self.turn = threading.Lock()
        self.is_wanted = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await asyncio.to_thread(self.next)
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)

    def next(self) -> bytes | None:
        chunk = None
        try:
            with self.turn:
                if self.is_wanted:
                    self.chunks = self.chunks or iter(self.response)
                    chunk = next(self.chunks, None)
        finally:
            if chunk is None or not self.is_wanted:  # it has ended or failed, or somebody closes it
                self.close()
        return chunk

    def close(self) -> None:
        """Closes the source; whoever is in it does so when it comes out, for as long as that takes."""
        self.is_wanted = False
        if self.turn.acquire(blocking=False):
            try:
                end, self.end = self.end, None
                if end is not None:
                    end()
            finally:
                self.turn.release()
