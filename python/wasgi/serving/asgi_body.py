"""The body of a request, between an ASGI server and the guest that reads it."""

from __future__ import annotations

import asyncio
import collections
import enum

# How much of a body is received before the guest reads it. An ASGI server reports a disconnect by the same `receive`
# that brings the body: without reading ahead, a guest that does not read could not be stopped.
_AHEAD = 64 << 10


class ClientDisconnectedError(Exception):
    """The client has gone before its request's body was complete."""


class _Phase(enum.Enum):
    """What becomes of the chunks that still come."""

    READING = "they are kept for the guest"
    DRAINING = "they are thrown away, since nobody reads them"
    COMPLETE = "none comes: the last one has come"
    BROKEN = "none comes: the client has gone, or the exchange is over"


# Python 3.11 takes 0.1 µs to look a member up.
_READING, _DRAINING, _COMPLETE, _BROKEN = _Phase


class RequestBody:
    """The chunks that the server has given and the guest has not read yet: at most 64 KiB and one chunk."""

    __slots__ = ("_came", "_chunks", "_size", "_taken", "phase")

    def __init__(self) -> None:
        self.phase = _READING
        self._chunks: collections.deque[bytes] = collections.deque()
        self._size = 0
        self._came = asyncio.Event()
        self._taken = asyncio.Event()

    # the server's side

    async def push(self, chunk: bytes, *, is_last: bool) -> None:
        """Takes a chunk, and waits until there is room for the next one."""
        is_read = self.phase is _READING
        if is_last:
            self.phase = _COMPLETE
        if not is_read:
            await asyncio.sleep(0)  # a `receive` that never waits must not block the loop
        elif chunk:
            self._chunks.append(chunk)
            self._size += len(chunk)
        self._came.set()
        while self._size >= _AHEAD:
            self._taken.clear()
            await self._taken.wait()

    def break_off(self) -> None:
        """No more chunks come. The guest reads those that are there, and gets an error unless the last one has come."""
        if self.phase is not _COMPLETE:
            self.phase = _BROKEN
        self._came.set()

    # the guest's side

    async def pull(self) -> bytes | None:
        """The next chunk; None at the end.

        Raises:
            ClientDisconnectedError: The body is incomplete.
        """
        while not self._chunks:
            if self.phase is _COMPLETE:
                return None
            if self.phase is _BROKEN:
                raise ClientDisconnectedError
            self._came.clear()
            await self._came.wait()
        chunk = self._chunks.popleft()
        self._size -= len(chunk)
        self._taken.set()
        return chunk

    def discard(self) -> None:
        """Nobody reads on. What still comes is drained, because the server reports a disconnect after it only."""
        if self.phase is _READING:
            self.phase = _DRAINING
        self._chunks.clear()
        self._size = 0
        self._taken.set()
