"""What ends a connection of `wasgi.Network`: whatever its peer does, nothing is left when its request has ended."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trustme

import wasgi
from tests.conftest import AppMaker, get, post, until
from tests.network.test_network_odd_peers import asked_over_http2, frame
from tests.peers import HELLO, Peer, answers, ask, head_of, serving_as
from wasgi import errors
from wasgi.outgoing import call

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


def goes_on(*parts: bytes, with_: bytes, asked: Callable[[socket.socket], Any] = head_of) -> Behaviour:
    """And then goes on with this, by the byte."""

    def behave(connection: socket.socket) -> None:
        asked(connection)
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
    "an upload that is not read, with a body": Phase(
        narrow(goes_on(CHUNKED, with_=b"1\r\nx\r\n")), upload=True, head=True
    ),
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
    "h2: an upload that is not read, with a body": Phase(
        narrow(goes_on(H2_HEAD, with_=frame(0, 0, 1, b"x"), asked=asked_over_http2)), h2c=True, upload=True, head=True
    ),
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


class TestHoweverItEnds:
    """An upload to a peer that reads nothing."""

    @pytest.mark.parametrize("h2c", [False, True])
    @pytest.mark.parametrize("how", ["it traps", "its caller leaves", "its app closes", "it gives up waiting"])
    async def test_nothing_is_left(self, app: AppMaker, how: str, h2c: bool) -> None:
        phase = PHASES["h2: an upload that is not read" if h2c else "an upload that is not read"]
        with Peer(phase.peer) as peer:
            made = app(outgoing=phase.network(peer, max_connections=1))
            if how == "it traps":
                url = f"{phase.url(peer)}/&method=POST&body={'x' * 60000}&ms=200"
                with pytest.raises(wasgi.TrapError):
                    await made.handle_async(get(f"/fetch-and-trap?url={url}"))
            elif how == "it gives up waiting":
                url = f"{phase.url(peer)}/&method=POST&body={'x' * 60000}"
                response = await made.handle_async(get(f"/fetch-and-forget?url={url}"))
                assert await response.aread() == b"forgotten"
                del response
            else:
                task = asyncio.create_task(made.handle_async(phase.request(peer)))
                while peer.accepted == 0:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
                if how == "its app closes":
                    await made.aclose(0)
                    with pytest.raises(wasgi.WasgiError):
                        await task
                else:
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                del task
            if h2c:
                # no more was written than a buffer holds: the connection is one to go on with, and its network's
                del made
                gc.collect()
            await asyncio.to_thread(until_closed, peer)

    @pytest.mark.parametrize("protocols", [None, ["http/1.1"], ["h2"]])
    def test_an_idle_one_ends_with_its_network(
        self, app: AppMaker, authority: trustme.CA, protocols: list[str] | None
    ) -> None:
        """Though its peer does not see it go."""

        def behave(connection: socket.socket) -> None:
            if protocols == ["h2"]:
                asked_over_http2(connection)
                connection.sendall(H2_HEAD + frame(0, 1, 1, b"hello"))
            else:
                head_of(connection)
                connection.sendall(HELLO)
            stalls(connection)

        context = serving_as(authority.issue_cert("127.0.0.1"), *protocols) if protocols else None
        with Peer(behave, context) as peer:
            network = wasgi.Network([peer.url], ca=authority.cert_pem.bytes())
            made = app(outgoing=network)
            assert ask(made, peer.url).text == "hello"
            assert established(peer.port) == 1
            del network, made
            gc.collect()
            until_closed(peer)


class TestTheAnswerWins:
    @pytest.mark.parametrize("h2c", [False, True])
    def test_over_a_request_that_its_guest_does_not_finish(self, app: AppMaker, h2c: bool) -> None:
        """Once its head has come."""
        goes_on = threading.Event()

        def behave(connection: socket.socket) -> None:
            if h2c:
                asked_over_http2(connection)
                connection.sendall(H2_HEAD)
                assert goes_on.wait(30)
                connection.sendall(frame(0, 1, 1, b"hello"))
            else:
                head_of(connection)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
                assert goes_on.wait(30)
                connection.sendall(b"hello")
            drain(connection)

        with Peer(behave) as peer:
            made = app(outgoing=wasgi.Network([peer.url], h2c=h2c))
            with made.handle(get(f"/abandon?url={peer.url}/&method=POST")) as response:
                # its head is there: the guest has let go of its own body
                goes_on.set()
                assert response.text == "hello"


def told(app: wasgi.App, request: wasgi.Request) -> str:
    """The error-code that a guest's request ended with, before the head or in the body; or its text."""
    try:
        with app.handle(request) as response:
            return response.text.rpartition("ErrorCode::")[2].rstrip(")]")
    except errors.ErrorCode as error:
        return type(error).__name__


CONNECTED = [name for name in PHASES if "handshake" not in name and name != "CONNECT"]
ANSWERED = "an upload that is not read, with an answer"


class TestEveryTimeoutHolds:
    """Each is told as what it is, long before the guest's own time is over, whatever the peer reads meanwhile."""

    @staticmethod
    def app_of(app: AppMaker, network: wasgi.Network) -> wasgi.App:
        return app(outgoing=network, limits=wasgi.Limits(timeout=LATE))

    @pytest.mark.parametrize("name", PHASES)
    def test_that_of_the_whole(self, app: AppMaker, name: str) -> None:
        phase = PHASES[name]
        with Peer(phase.peer) as peer:
            made = self.app_of(app, phase.network(peer, timeout=0.7))
            # an answer that has come is one, though its peer has not taken all of the request
            expected = "hello" if name == ANSWERED else "HttpResponseTimeout"
            assert told(made, phase.request(peer)) == expected

    @pytest.mark.parametrize("name", [name for name in CONNECTED if not PHASES[name].head])
    @pytest.mark.parametrize("whose", ["the host's", "the guest's"])
    def test_that_of_the_first_byte(self, app: AppMaker, name: str, whose: str) -> None:
        phase = PHASES[name]
        with Peer(phase.peer) as peer:
            options = {"first_byte_timeout": 0.7} if whose == "the host's" else {}
            made = self.app_of(app, phase.network(peer, **options))
            request = phase.request(peer)
            if whose == "the guest's":
                request = request.__replace__(url=f"{request.url}&first-byte-ms=700")
            expected = "HttpResponseTimeout" if whose == "the host's" else "ConnectionReadTimeout"
            assert told(made, request) == expected

    @pytest.mark.parametrize("name", sorted(set(PHASES) - set(CONNECTED)))
    @pytest.mark.parametrize("whose", ["the host's", "the guest's"])
    def test_that_of_connecting(self, app: AppMaker, name: str, whose: str) -> None:
        phase = PHASES[name]
        with Peer(phase.peer) as peer:
            options = {"connect_timeout": 0.7} if whose == "the host's" else {}
            made = self.app_of(app, phase.network(peer, **options))
            request = phase.request(peer)
            if whose == "the guest's":
                request = request.__replace__(url=f"{request.url}&connect-ms=700")
            assert told(made, request) == "ConnectionTimeout"

    @pytest.mark.parametrize(
        "name",
        [
            "an upload that is not read",
            "an upload that is not read, with a body",
            "h2: an upload that is not read",
            "h2: an upload that is not read, with a body",
            "h2: an upload without a window",
        ],
    )
    def test_that_of_writing(self, app: AppMaker, name: str) -> None:
        phase = PHASES[name]
        with Peer(phase.peer) as peer:
            made = self.app_of(app, phase.network(peer, between_bytes_timeout=0.7))
            assert told(made, phase.request(peer)) == "ConnectionWriteTimeout"

    @pytest.mark.parametrize(
        "name",
        [
            "a body that does not come",
            "trailers",
            "h2: a body that does not come",
            "an upload that is not read, with a head",
            "h2: an upload without a window, with a head",
        ],
    )
    @pytest.mark.parametrize("whose", ["the host's", "the guest's"])
    def test_that_between_bytes(self, app: AppMaker, name: str, whose: str) -> None:
        phase = PHASES[name]
        with Peer(phase.peer) as peer:
            options = {"between_bytes_timeout": 0.7} if whose == "the host's" else {}
            made = self.app_of(app, phase.network(peer, **options))
            request = phase.request(peer)
            if whose == "the guest's":
                request = request.__replace__(url=f"{request.url}&between-bytes-ms=700")
            # neither side goes on: either may be found out first
            expected = {"ConnectionReadTimeout"} | ({"ConnectionWriteTimeout"} if phase.upload else set())
            assert told(made, request) in expected

    async def test_also_where_the_response_is_begun_and_left(self) -> None:
        """Nobody reads it just now: its writer has other things to do, and is told all the same."""
        closed = threading.Event()

        async def content() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
            finally:
                closed.set()

        with Peer(narrow(says(CHUNKED, b"5\r\nhello\r\n"))) as peer:
            network = wasgi.Network([peer.url], timeout=0.7)
            response = await call(network, wasgi.Request("POST", peer.url, body=content()))
            chunks = aiter(response)
            assert await anext(chunks) == b"hello"
            await asyncio.to_thread(until, closed.is_set)
            with pytest.raises(wasgi.BodyError) as raised:
                await anext(chunks)
            assert isinstance(raised.value.__cause__, errors.HttpResponseTimeout)


IDLE_FLOODS = {
    "PING": frame(6, 0, 0, b"x" * 8),
    "answers to PING": frame(6, 1, 0, b"x" * 8),
    "SETTINGS": frame(4, 0, 0, b""),
    "WINDOW_UPDATE": frame(8, 0, 0, b"\0\0\0\1"),
    "PRIORITY": frame(2, 0, 1, b"\0\0\0\0\0"),
    "RST_STREAM": frame(3, 0, 1, b"\0\0\0\0"),
    "an unknown type": frame(0xBE, 0, 0, b"x" * 100),
    "DATA": frame(0, 0, 1, b"x" * 100),
    "HEADERS": frame(1, 4, 1, b"\x88"),
}
BUSY_FLOODS = ["PING", "SETTINGS", "an unknown type", "PRIORITY"]
MOST = 16 << 20
"""More than lies in the buffers of a connection, far less than comes in a second."""


def floods_over_http2(flood: bytes, sent: list[int], answered: bool, done: threading.Event) -> Behaviour:
    """A peer that answers the first request, or not, and floods its connection; on others it answers."""

    def behave(connection: socket.socket) -> None:
        if sent:
            connection_of_hello(connection)
            return
        sent.append(0)
        asked_over_http2(connection)
        connection.sendall(frame(4, 0, 0, b""))
        if answered:
            connection.sendall(frame(1, 4, 1, b"\x88") + frame(0, 1, 1, b"hello"))
        reader = threading.Thread(target=drain, args=[connection])
        reader.start()
        try:
            while sent[0] < 4 * MOST:
                connection.sendall(flood * 100)
                sent[0] += len(flood) * 100
        finally:
            done.set()
            reader.join()

    return behave


def drain(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(65536):
            pass


def connection_of_hello(connection: socket.socket) -> None:
    asked_over_http2(connection)
    connection.sendall(frame(4, 0, 0, b"") + frame(1, 4, 1, b"\x88") + frame(0, 1, 1, b"hello"))
    drain(connection)


class TestFloods:
    @pytest.mark.parametrize("kind", IDLE_FLOODS)
    def test_on_an_idle_connection_end_it(self, app: AppMaker, kind: str) -> None:
        sent: list[int] = []
        done = threading.Event()
        with Peer(floods_over_http2(IDLE_FLOODS[kind], sent, True, done)) as peer:
            made = app(outgoing=wasgi.Network([peer.url], h2c=True))
            assert ask(made, peer.url).text == "hello"
            assert done.wait(30)
            assert sent[0] < MOST
            assert ask(made, peer.url, method="POST", body="x").text == "hello"
            assert peer.accepted == 2

    @pytest.mark.parametrize("kind", BUSY_FLOODS)
    def test_on_a_busy_one_end_it(self, app: AppMaker, kind: str) -> None:
        sent: list[int] = []
        done = threading.Event()
        with Peer(floods_over_http2(IDLE_FLOODS[kind], sent, False, done)) as peer:
            made = app(outgoing=wasgi.Network([peer.url], h2c=True))
            with pytest.raises(errors.HttpProtocolError):
                ask(made, peer.url)
            assert sent[0] < MOST
            assert ask(made, peer.url).text == "hello"

    async def test_pings_now_and_then_are_none(self) -> None:
        """More in all than may come at once."""
        goes_on = threading.Semaphore(1)

        def behave(connection: socket.socket) -> None:
            asked_over_http2(connection)
            connection.sendall(frame(4, 0, 0, b"") + frame(1, 4, 1, b"\x88"))
            reader = threading.Thread(target=drain, args=[connection])
            reader.start()
            for _ in range(60):
                assert goes_on.acquire(timeout=30)
                connection.sendall(frame(6, 0, 0, b"x" * 8) * 100 + frame(0, 0, 1, b"x"))
            connection.sendall(frame(0, 1, 1, b""))
            reader.join()

        with Peer(behave) as peer:
            response = await call(wasgi.Network([peer.url], h2c=True), wasgi.Request("GET", peer.url))
            received = b""
            async for chunk in response:
                received += chunk
                goes_on.release()
            assert received == b"x" * 60

    def test_what_lets_an_upload_go_on_is_none(self, app: AppMaker) -> None:
        """A peer may say after each small part of it that it has read that."""
        received = 0

        def behave(connection: socket.socket) -> None:
            nonlocal received
            state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
            state.initiate_connection()
            connection.sendall(state.data_to_send())
            while chunk := connection.recv(65536):
                for event in state.receive_data(chunk):
                    if isinstance(event, h2.events.DataReceived):
                        size = event.flow_controlled_length
                        received += size
                        for part in range(0, size, 256):
                            state.increment_flow_control_window(min(256, size - part))
                            state.increment_flow_control_window(min(256, size - part), event.stream_id)
                    if isinstance(event, h2.events.StreamEnded):
                        state.send_headers(event.stream_id, [(":status", "200")])
                        state.send_data(event.stream_id, b"hello", end_stream=True)
                connection.sendall(state.data_to_send())

        with Peer(behave) as peer:
            made = app(outgoing=wasgi.Network([peer.url], h2c=True))
            assert made.handle(post(f"/proxy?url={peer.url}/", b"x" * 2_000_000)).text == "hello"
            assert received == 2_000_000

    @pytest.mark.parametrize("unsolicited", [HELLO, b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"\0" * 1_000_000])
    def test_a_connection_that_says_something_unasked_is_not_used_again(
        self, app: AppMaker, unsolicited: bytes
    ) -> None:
        said = threading.Event()

        def behave(connection: socket.socket) -> None:
            head_of(connection)
            connection.sendall(HELLO)
            if peer.accepted == 1:
                with contextlib.suppress(OSError):
                    connection.sendall(unsolicited)
                said.set()
            drain(connection)

        with Peer(behave) as peer:
            made = app(outgoing=wasgi.Network([peer.url]))
            assert ask(made, peer.url).text == "hello"
            assert said.wait(30)
            assert ask(made, peer.url, method="POST", body="x").text == "hello"
            assert peer.accepted == 2

    def test_below_tls_end_it(self, app: AppMaker, authority: trustme.CA) -> None:
        """More tickets for sessions than anybody needs."""
        context = serving_as(authority.issue_cert("127.0.0.1"))
        context.num_tickets = 20_000
        with Peer(answers(HELLO), context) as peer:
            made = app(outgoing=wasgi.Network([peer.url], ca=authority.cert_pem.bytes()))
            with pytest.raises((errors.HttpProtocolError, errors.TlsProtocolError)):
                ask(made, peer.url)
