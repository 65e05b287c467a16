"""Server-sent events, parsed as browsers do (WHATWG HTML, 9.2.5 and 9.2.6)."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Self

from wasgi._wasgi import Response

_END_OF_LINE = re.compile(rb"[\r\n]")
_RETRY = re.compile(r"0*([0-9]{1,18})")
"""At most 18 digits, which fit 64 bits: nobody waits longer, and Python refuses to parse thousands of digits."""


@dataclass(frozen=True)
class Event:
    """A server-sent event (WHATWG HTML, 9.2).

    Attributes:
        event: Its type.
        data: Its lines, joined.
        id: The last id that was sent.
        retry: Milliseconds, if its own lines say so; `Events.retry` is that of the stream.
    """

    event: str = "message"
    data: str = ""
    id: str = ""
    retry: int | None = None


@dataclass
class _Fields:
    """The buffers of WHATWG HTML, 9.2.6."""

    event: str = ""
    data: list[str] = field(default_factory=list)
    id: str = ""
    retry: int | None = None
    reconnection: int | None = None

    def take(self, line: str) -> Event | None:
        if not line:
            data, event, retry = self.data, self.event or "message", self.retry
            self.data, self.event, self.retry = [], "", None
            return Event(event, "\n".join(data), self.id, retry) if data else None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self.event = value
            case "data":
                self.data.append(value)
            case "id" if "\0" not in value:
                self.id = value
            case "retry" if digits := _RETRY.fullmatch(value):
                self.retry = self.reconnection = int(digits[1])
        return None


class _Parser:
    """Bytes in, events out.

    Lines are cut before they are decoded: no character of UTF-8 has the bytes of CR or LF in it. A CR ends its line at
    once, since the next byte may be long in coming; if that is an LF, it belongs to the CR.
    """

    def __init__(self) -> None:
        self.fields = _Fields()
        self.rest = bytearray()
        self.searched = 0
        self.after_cr = False
        self.is_first = True

    def feed(self, chunk: bytes) -> Iterator[Event]:
        if self.after_cr and chunk:
            self.after_cr = False
            chunk = chunk.removeprefix(b"\n")
        self.rest += chunk
        begin = 0
        while end := _END_OF_LINE.search(self.rest, max(begin, self.searched)):
            line = bytes(self.rest[begin : end.start()])
            begin = end.end()
            if end[0] == b"\r":
                if begin == len(self.rest):
                    self.after_cr = True
                elif self.rest[begin] == 0x0A:
                    begin += 1
            if event := self.fields.take(self._decoded(line)):
                yield event
        del self.rest[:begin]
        self.searched = len(self.rest)

    def _decoded(self, line: bytes) -> str:
        if self.is_first:
            self.is_first = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        return line.decode("utf-8", "replace")


class Events:
    """The events of a response, as they come. Made by `events`."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._parser = _Parser()
        self._ready: deque[Event] = deque()
        self._chunks: Iterator[bytes] | None = None
        self._awaited_chunks: AsyncIterator[bytes] | None = None

    @property
    def retry(self) -> int | None:
        """The stream's reconnection time, in milliseconds: the last that has come, with an event or without one."""
        return self._parser.fields.reconnection

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        if self._chunks is None:
            self._chunks = iter(self._response)
        while not self._ready:
            self._ready.extend(self._parser.feed(next(self._chunks)))
        return self._ready.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._awaited_chunks is None:
            self._awaited_chunks = aiter(self._response)
        while not self._ready:
            self._ready.extend(self._parser.feed(await anext(self._awaited_chunks)))
        return self._ready.popleft()


def events(response: Response) -> Events:
    """The events of a ``text/event-stream``, each as soon as it is complete: for ``stream`` of a client.

    Loop over them with ``for``, or with ``async for`` in asynchronous code. What the stream leaves unfinished at its
    end is no event.

    Example:
        >>> with app.stream("GET", "/ticks") as response:
        ...     [event.data for event in wasgi.testing.events(response)]
        ['1', '2']
    """
    return Events(response)
