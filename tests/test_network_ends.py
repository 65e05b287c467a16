"""What ends a connection of `wasgi.Network`: nothing is left of it, whatever its peer does, when its request has ended."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import wasgi
from wasgi import errors

from .conftest import AppMaker, get, post, until
from .peers import HELLO, Peer, head_of
from .test_network_odd_peers import asked_over_http2, frame

pytestmark = pytest.mark.usefixtures("nothing_is_left")

Behaviour = Callable[[socket.socket], None]
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LARGE = b"x" * 20_000_000
H2_HEAD = frame(4, 0, 0, b"") + frame(1, 4, 1, b"\x88")
LATE = 60.0
"""Seconds of what is to come much later than what a test waits for."""


def established(port: int) -> int:
    """Sockets of this process that are connected to a port of this machine, however far they have come."""
    inodes = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = 0
    with open("/proc/self/net/tcp") as table:
        for line in list(table)[1:]:
            fields = line.split()
            remote, inode = fields[2], fields[9]
            found += int(remote.rpartition(":")[2], 16) == port and inode in inodes
    return found


def until_closed(peer: Peer) -> None:
    """Our ends of its connections are gone."""
    until(lambda: established(peer.port) == 0)


def stalls(connection: socket.socket) -> None:
    """Reads nothing more and says nothing more, until both sides have ended the connection, or one by force."""
    end = select.poll()
    end.register(connection, select.POLLHUP)
    end.poll()


def narrow(behave: Behaviour) -> Behaviour:
    """With a buffer that is soon full of what is not read."""

    def narrowed(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        behave(connection)

    return narrowed


def greets_socks(connection: socket.socket) -> None:
    connection.recv(1)
    connection.sendall(b"\5")
    stalls(connection)


def dribbles(connection: socket.socket) -> None:
    """Reads an upload by the byte."""
    end = select.poll()
    end.register(connection, select.POLLHUP)
    while not end.poll(20):
        connection.recv(1)


def says(*parts: bytes) -> Behaviour:
    """As soon as there is a request; then nothing, and reads nothing."""

    def behave(connection: socket.socket) -> None:
        head_of(connection)
        for part in parts:
            connection.sendall(part)
        stalls(connection)

    return behave


def goes_on(*parts: bytes, with_: bytes) -> Behaviour:
    """And then goes on with this, by the byte."""

    def behave(connection: socket.socket) -> None:
        head_of(connection)
        for part in parts:
            connection.sendall(part)
        pause = threading.Event()
        while not pause.wait(0.02):
            connection.sendall(with_)

    return behave


def says_over_http2(*frames: bytes) -> Behaviour:
    def behave(connection: socket.socket) -> None:
        asked_over_http2(connection)
        for each in frames:
            connection.sendall(each)
        stalls(connection)

    return behave


class Phase:
    """How far a request has come when it is ended."""

    def __init__(
        self,
        peer: Behaviour,
        *,
        upload: bool = False,
        head: bool = False,
        h2c: bool = False,
        proxy: str | None = None,
        tls: bool = False,
    ) -> None:
        self.peer, self.upload, self.head, self.h2c, self.proxy, self.tls = peer, upload, head, h2c, proxy, tls

    def network(self, peer: Peer, **options: Any) -> wasgi.Network:
        if self.proxy is not None:
            options["proxy"] = f"{self.proxy}://{peer.authority}"
        options.setdefault("connect_timeout", LATE)
        return wasgi.Network([self.url(peer)], h2c=self.h2c, addresses=["127.0.0.1"], **options)

    def url(self, peer: Peer) -> str:
        if self.proxy is not None:
            return "http://127.0.0.1:9"
        return f"{'https' if self.tls else 'http'}://{peer.authority}"

    def request(self, peer: Peer, wanted: str = "proxy") -> wasgi.Request:
        if self.upload:
            return post(f"/proxy?url={self.url(peer)}/", LARGE)
        return get(f"/fetch-or-code?url={self.url(peer)}/")


PHASES = {
    "the TLS handshake": Phase(stalls, tls=True),
    "CONNECT": Phase(stalls, proxy="http", h2c=True),
    "the SOCKS handshake": Phase(stalls, proxy="socks5"),
    "the SOCKS handshake by the byte": Phase(greets_socks, proxy="socks5"),
    "an upload that is not read": Phase(narrow(stalls), upload=True),
    "an upload that is read by the byte": Phase(narrow(dribbles), upload=True),
    "an upload that is not read, with a head": Phase(narrow(says(CHUNKED)), upload=True, head=True),
    "an upload that is not read, with an answer": Phase(narrow(says(HELLO)), upload=True, head=True),
    "the head": Phase(says()),
    "half a head": Phase(says(b"HTTP/1.1 200 OK\r\nx")),
    "a head by the byte": Phase(goes_on(b"HTTP/1.1 200 OK\r\nx: ", with_=b"y")),
    "interim responses": Phase(goes_on(with_=b"HTTP/1.1 103 Early Hints\r\n\r\n")),
    "a body that does not come": Phase(says(CHUNKED), head=True),
    "a body that comes by the byte": Phase(goes_on(CHUNKED, with_=b"1\r\nx\r\n"), head=True),
    "trailers": Phase(says(CHUNKED, b"0\r\nx"), head=True),
    "trailers by the byte": Phase(goes_on(CHUNKED, b"0\r\nx: ", with_=b"y"), head=True),
    "h2: nothing is said": Phase(narrow(stalls), h2c=True),
    "h2: an upload that is not read": Phase(narrow(stalls), h2c=True, upload=True),
    "h2: an upload without a window": Phase(says_over_http2(frame(4, 0, 0, b"")), h2c=True, upload=True),
    "h2: an upload without a window, with a head": Phase(says_over_http2(H2_HEAD), h2c=True, upload=True, head=True),
    "h2: the head": Phase(says_over_http2(frame(4, 0, 0, b"")), h2c=True),
    "h2: a body that does not come": Phase(says_over_http2(H2_HEAD), h2c=True, head=True),
}
EVERY = [pytest.param(phase, id=name) for name, phase in PHASES.items()]
UNANSWERED = [pytest.param(phase, id=name) for name, phase in PHASES.items() if not phase.head]


@contextlib.contextmanager
def peer_of(phase: Phase) -> Iterator[Peer]:
    with Peer(phase.peer) as peer:
        yield peer


class TestNothingIsLeft:
    """Neither a socket nor a place among `max_connections`."""

    @pytest.mark.parametrize("phase", EVERY)
    async def test_of_a_guest_that_is_cancelled(self, app: AppMaker, phase: Phase) -> None:
        with peer_of(phase) as peer:
            network = phase.network(peer, max_connections=2)
            made = app(outgoing=network)
            for round_ in range(3):
                task = asyncio.create_task(self.read(made, phase.request(peer)))
                while peer.accepted <= (0 if phase.h2c else round_):
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)  # it comes as far as it can
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await asyncio.to_thread(until, lambda: wasgi.stats().exchanges == 0)
                if not phase.h2c:
                    await asyncio.to_thread(until_closed, peer)
            del network, made, task
            gc.collect()
            await asyncio.to_thread(until_closed, peer)

    @staticmethod
    async def read(app: wasgi.App, request: wasgi.Request) -> None:
        async with await app.handle_async(request) as response:
            await response.aread()
            await asyncio.sleep(LATE)  # one whose answer is over before it is cancelled

    @pytest.mark.parametrize("phase", EVERY)
    def test_of_a_guest_whose_time_is_over(self, app: AppMaker, phase: Phase) -> None:
        with peer_of(phase) as peer:
            network = phase.network(peer, max_connections=1)
            made = app(outgoing=network, limits=wasgi.Limits(timeout=0.5))
            with contextlib.suppress(wasgi.WasgiError):
                made.handle(phase.request(peer)).read()
            if not phase.h2c:
                until_closed(peer)
            del network, made
            gc.collect()
            until_closed(peer)
