"""Servers on loopback whose behaviour, good or bad, a test writes down byte by byte."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import quote

import trustme

import wasgi
from tests.conftest import get
from wasgi import errors

OVER = "/fetch-or-code?url="
ONE: dict[str, Any] = {"max_connections_per_host": 1}
"""For a `Network` that is to use its connection again: a request that comes before that is free waits for it, and makes
another only when it has ended. Without, it makes another at once."""
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


def ask(app: wasgi.App, url: str, **options: str) -> wasgi.Response:
    more = "".join(f"&{name.replace('_', '-')}={quote(value)}" for name, value in options.items())
    return app.handle(get(f"{OVER}{quote(url, safe='')}{more}"))


class Peer:
    """A server on loopback whose behaviour a test writes down: called for each connection, on a thread of its own."""

    def __init__(self, behave: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> None:
        self.behave = behave
        self.tls = tls
        self.connections: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.authority = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.authority}"
        self.threads = [threading.Thread(target=self.accept)]

    @property
    def accepted(self) -> int:
        return len(self.connections)

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections.append(connection)
                thread = threading.Thread(target=self.serve, args=[connection])
                self.threads.append(thread)
                thread.start()

    def serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if self.tls is None:
                self.behave(connection)
                return
            # of its own descriptor, so that ours stays one that can be shut
            with self.tls.wrap_socket(connection.dup(), server_side=True) as wrapped:
                self.behave(wrapped)

    def __enter__(self) -> Self:
        self.threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:  # those that the other side keeps
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(30)


def head_of(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionError
        received += chunk
    return received


def answers(*parts: bytes) -> Callable[[socket.socket], None]:
    """Each request on a connection with these bytes."""

    def behave(connection: socket.socket) -> None:
        while True:
            head_of(connection)
            for part in parts:
                connection.sendall(part)

    return behave


def once(*parts: bytes) -> Callable[[socket.socket], None]:
    """One request with these bytes; then the connection is closed."""

    def behave(connection: socket.socket) -> None:
        head_of(connection)
        for part in parts:
            connection.sendall(part)

    return behave


def stalls_after(*parts: bytes) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        once(*parts)(connection)
        connection.recv(1)  # until the other side gives up

    return behave


def resets(connection: socket.socket) -> None:
    head_of(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def reached(app: wasgi.App, url: str) -> bool:
    """Whether there is a place for a connection (again)."""
    try:
        app.handle(get(f"/fetch-in-turn?n=1&url={url}"))
        ask(app, url).close()
    except errors.ConnectionLimitReached:
        return False
    return True


def serving_as(certificate: trustme.LeafCert, *protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context
