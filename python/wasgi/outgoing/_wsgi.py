"""A WSGI application as upstream: the server's side of WSGI (PEP 3333), without sockets."""

from __future__ import annotations

import collections
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from wasgi._wasgi import Request, Response

MOST_WRITTEN = 16 << 20
"""Bytes that an application may give `write` before somebody takes them: nothing holds it back there."""


def upstream_of(application: Callable[..., Any]) -> Callable[[Request], Response]:
    """The application as upstream, on the calling thread."""

    def send(request: Request) -> Response:
        answer = _Answer(application, request)
        return Response(answer.status, headers=answer.headers, body=answer)

    return send


class _Input(io.RawIOBase):
    """A request's body as ``wsgi.input``."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.chunks: Iterator[bytes] | None = None  # made when the application first reads
        self.left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.chunks is None:
            self.chunks = iter(self.request)
        while not self.left:
            chunk = next(self.chunks, None)
            if chunk is None:
                return 0
            self.left = memoryview(chunk)
        count = min(len(buffer), len(self.left))
        buffer[:count] = self.left[:count]
        self.left = self.left[count:]
        return count


def _environ(request: Request) -> dict[str, Any]:
    host, port = request._address()
    made: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(request.path).decode("latin-1"),
        "QUERY_STRING": request.query or "",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": request.authority,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": io.BufferedReader(_Input(request)),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.headers.raw:
        if b"_" in name:
            continue  # in an environ it could not be told from the field with a hyphen
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        text = value.decode("latin-1")
        separator = "; " if key == "HTTP_COOKIE" else ","
        made[key] = f"{made[key]}{separator}{text}" if key in made and key != "HTTP_HOST" else text
    return made


class _Answer:
    """The response of a WSGI application. Its constructor reads the first chunk, with which the status is known."""

    def __init__(self, application: Callable[..., Any], request: Request) -> None:
        self.request = request
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.started: tuple[str, list[tuple[str, str]]] | None = None
        self.written: collections.deque[bytes] = collections.deque()
        self.held = 0  # bytes of `write`, since somebody has read on
        self.gone_out = False
        self.iterable: Iterable[bytes] = application(_environ(request), self.start)
        self.chunks: Iterator[bytes] = iter(())
        try:
            self.chunks = iter(self.iterable)
            while self.started is None or not any(self.written):
                chunk = next(self.chunks, None)
                if chunk is None:
                    break
                if chunk:
                    self.written.append(chunk)
            if self.started is None:
                raise RuntimeError("a WSGI application ended without calling `start_response`")
        except BaseException:
            self.close()
            raise
        status, self.headers = self.started
        self.gone_out = True
        self.status = int(status.split(" ", 1)[0])
        if isinstance(self.iterable, list | tuple):
            self.written += self.chunks
            self.close()
        elif [str(sum(map(len, self.written)))] == [v for name, v in self.headers if name.lower() == "content-length"]:
            # the response is complete; the application's further work goes on when the guest has read it
            self.request._discard_rest()

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self.gone_out:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.started is not None:
            raise AssertionError("`start_response` was called twice")
        code = status.partition(" ")[0]
        if not (len(code) == 3 and code.isascii() and code.isdigit()):  # `int` would take "2_00", too
            raise ValueError(f"a WSGI application's status must begin with three digits: {status!r}")
        self.started = (status, list(headers))
        return self.write

    def write(self, chunk: bytes) -> None:
        """Buffers a chunk, for applications that have nothing else (PEP 3333: its section of the callable)."""
        self.held += len(chunk)
        if self.held > MOST_WRITTEN:
            raise BufferError(
                f"a WSGI application gave `write` more than {MOST_WRITTEN >> 20} MiB that nobody has read yet; "
                "hint: let it return an iterable, which waits for its reader"
            )
        self.written.append(chunk)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.held = 0
        if self.written:
            return self.written.popleft()
        try:
            chunk = next(self.chunks)
        except BaseException:  # its end, too
            self.close()
            raise
        self.written.append(chunk)  # after what `write` was given
        return self.written.popleft()

    def close(self) -> None:
        """Closes the iterable, once, however the response ends (PEP 3333: "Buffering and Streaming")."""
        iterable, self.iterable = self.iterable, ()
        self.chunks = iter(())
        close = getattr(iterable, "close", None)
        try:
            if close is not None:
                close()
        finally:
            self.request._discard_rest()  # the body that the application has not read, as a server drains it
