"""Proxies on loopback: of HTTP (RFC 9110, 9.3.6) and of SOCKS 5 (RFC 1928, RFC 1929)."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable

from tests.peers import Peer, head_of

HELLO_FROM_PROXY = b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\nfrom the proxy"


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            sink.sendall(chunk)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def join(one: socket.socket, other: socket.socket) -> None:
    back = threading.Thread(target=pump, args=[other, one])
    back.start()
    pump(one, other)
    back.join()


class Asking(Peer):
    """Records what it is asked for, and asks `decide` whether to do it: what it gives is the refusal."""

    def __init__(
        self, refusal: bytes | None = None, tls: ssl.SSLContext | None = None, user: str | None = None
    ) -> None:
        self.asked: list[str] = []
        self.heads: list[str] = []
        self.refusal = refusal
        self.user = user
        super().__init__(self.proxy, tls)

    def proxy(self, connection: socket.socket) -> None:
        raise NotImplementedError

    def reach(self, connection: socket.socket, host: str, port: int, ready: Callable[[], None]) -> None:
        with socket.create_connection((host, port)) as other:
            self.connections.append(other)
            ready()
            join(connection, other)


class HttpProxy(Asking):
    def proxy(self, connection: socket.socket) -> None:
        while True:
            head = head_of(connection).decode()
            self.heads.append(head)
            method, goal, _ = head.split("\r\n", 1)[0].split(" ")
            self.asked.append(goal)
            if self.user is not None:
                expected = "Basic " + base64.b64encode(self.user.encode()).decode()
                if f"proxy-authorization: {expected}" not in head:
                    connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
                    return
            if self.refusal is not None:
                connection.sendall(self.refusal)
                return
            if method == "CONNECT":
                host, _, port = goal.rpartition(":")
                self.reach(
                    connection, host.strip("[]"), int(port), lambda: connection.sendall(b"HTTP/1.1 200 Yes\r\n\r\n")
                )
                return
            connection.sendall(HELLO_FROM_PROXY)


class SocksProxy(Asking):
    scheme = "socks5"

    def exactly(self, connection: socket.socket, length: int) -> bytes:
        received = b""
        while len(received) < length:
            chunk = connection.recv(length - len(received))
            if not chunk:
                raise ConnectionError
            received += chunk
        return received

    def proxy(self, connection: socket.socket) -> None:
        _, methods = self.exactly(connection, 2)
        offered = self.exactly(connection, methods)
        wanted = 0 if self.user is None else 2
        if wanted not in offered:
            connection.sendall(b"\5\xff")
            return
        connection.sendall(bytes([5, wanted]))
        if self.user is not None:
            _, length = self.exactly(connection, 2)
            name = self.exactly(connection, length)
            password = self.exactly(connection, self.exactly(connection, 1)[0])
            is_right = b"%s:%s" % (name, password) == self.user.encode()
            connection.sendall(b"\1\0" if is_right else b"\1\1")
            if not is_right:
                return
        _, _, _, kind = self.exactly(connection, 4)
        if kind == 3:
            host = self.exactly(connection, self.exactly(connection, 1)[0]).decode()
        else:
            family, length = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, self.exactly(connection, length))
        (port,) = struct.unpack("!H", self.exactly(connection, 2))
        self.asked.append(f"{host}:{port}")
        if self.refusal is not None:
            connection.sendall(b"\5" + self.refusal + b"\0\1\0\0\0\0\0\0")
            return
        self.reach(connection, host, port, lambda: connection.sendall(b"\5\0\0\1\0\0\0\0\0\0"))
