"""Servers in this process, and clients that write what they like."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

import wasgi

Serve = Callable[..., wasgi.Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Makes servers that serve; the test's end ends them at once."""
    with contextlib.ExitStack() as servers:

        def make(app: Any, **options: Any) -> wasgi.Server:
            server = wasgi.Server(app, **{"bind": "127.0.0.1:0", "threads": 2, **options})
            servers.callback(server.close, 0)
            server.start()
            return server

        yield make


class Client:
    """A connection."""

    def __init__(self, server: wasgi.Server | str, timeout: float = 20) -> None:
        address = server if isinstance(server, str) else server.addresses[0]
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.connect(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            self.socket = socket.create_connection((host.strip("[]"), int(port)))
        self.socket.settimeout(timeout)
        self.read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes | str) -> Client:
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def ask(self, target: str = "/hello", *fields: str, method: str = "GET", body: bytes = b"") -> Client:
        lines = [f"{method} {target} HTTP/1.1", "host: guest.local", *fields]
        return self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def shut(self) -> Client:
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def reset(self) -> None:
        """Leaves as a process does that is killed."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def until(self, end: bytes) -> bytes:
        """What comes up to there."""
        while end not in self.read:
            more = self.socket.recv(65536)
            assert more, f"the connection ended before {end!r}: {self.read!r}"
            self.read += more
        before, _, self.read = self.read.partition(end)
        return before + end

    def rest(self) -> bytes:
        """What comes until the server has closed the connection."""
        while more := self.socket.recv(65536):
            self.read += more
        read, self.read = self.read, b""
        return read

    def head(self) -> tuple[int, dict[str, str]]:
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split(" ")[1]), fields

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """A whole answer, framed by its fields."""
        status, fields = self.head()
        while status == 100:  # what a client that sends nothing more may be asked with whether it is there
            status, fields = self.head()
        if "content-length" in fields:
            length = int(fields["content-length"])
            while len(self.read) < length:
                more = self.socket.recv(65536)
                assert more
                self.read += more
            body, self.read = self.read[:length], self.read[length:]
            return status, fields, body
        if fields.get("transfer-encoding") != "chunked":
            return status, fields, b"" if status in (204, 304) else self.rest()
        body = b""
        while size := int(self.until(b"\r\n").strip(), 16):
            while len(self.read) < size + 2:
                more = self.socket.recv(65536)
                assert more
                self.read += more
            body, self.read = body + self.read[:size], self.read[size + 2 :]
        self.until(b"\r\n")
        return status, fields, body


def once(server: wasgi.Server, data: bytes | str) -> tuple[int, dict[str, str], bytes]:
    """The answer to what a client sends that then closes its sending side."""
    with Client(server) as client:
        return client.send(data).shut().answer()


def seconds(call: Callable[[], object]) -> float:
    begun = time.monotonic()
    call()
    return time.monotonic() - begun
