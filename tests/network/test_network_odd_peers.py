"""`wasgi.Network` and peers that are legal but odd, that send more than they may, or that go away."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import pytest

import wasgi
from tests.conftest import AppMaker, get, post, until
from tests.peers import HELLO, ONE, Peer, answers, ask, head_of, once, stalls_after
from wasgi import errors
from wasgi.outgoing import call

pytestmark = pytest.mark.usefixtures("nothing_is_left")

Behaviour = Callable[[socket.socket], None]
Answer = Callable[[h2.connection.H2Connection, int], None]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def speaks_h2(answer: Answer, seen: list[list[Any]] | None = None) -> Behaviour:
    """A peer of HTTP/2 that answers each request so, when it is whole; `seen` has the events of each connection."""

    def behave(connection: socket.socket) -> None:
        state = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, validate_outbound_headers=False)
        )
        state.initiate_connection()
        connection.sendall(state.data_to_send())
        events: list[Any] = []
        if seen is not None:
            seen.append(events)
        with contextlib.suppress(h2.exceptions.ProtocolError):
            while received := connection.recv(65536):
                for event in state.receive_data(received):
                    events.append(event)
                    if isinstance(event, h2.events.DataReceived):
                        state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    if isinstance(event, h2.events.StreamEnded):
                        answer(state, event.stream_id)
                connection.sendall(state.data_to_send())

    return behave


def says_hello(state: h2.connection.H2Connection, stream: int) -> None:
    state.send_headers(stream, [(":status", "200")])
    state.send_data(stream, b"hello", end_stream=True)


class TestOldButLegal:
    @pytest.mark.parametrize(
        ("lines", "value"),
        [
            (b"x: a\r\n b\r\n", "a b"),
            (b"x: a\r\n\tb\r\n", "a b"),
            (b"x: a \r\n   b\r\n", "a b"),
            (b"x: a\r\n b\r\n c\r\n", "a b c"),
            (b"x:\r\n a\r\n", "a"),
            (b"x: a\r\n \r\n", "a"),
            (b"x: a\n b\n", "a b"),
        ],
    )
    def test_a_value_may_be_folded(self, app: AppMaker, lines: bytes, value: str) -> None:
        """RFC 9112, 5.2: a fold is SP; what surrounds a value is no part of it (RFC 9110, 5.5)."""
        with Peer(answers(HEAD + lines + b"y: z\r\n\r\nhello")) as peer:
            response = ask(app(outgoing=wasgi.Network([peer.url])), peer.url)
            assert (response.headers.get_all("x"), response.headers["y"], response.text) == ([value], "z", "hello")

    @pytest.mark.parametrize(
        "head",
        [
            b"HTTP/1.1 200 OK\r\ncontent-length:\r\n 5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n \r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length : 5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n",
            b"HTTP/1.1 200 OK\ncontent-length: 5\n\n",
            b"HTTP/1.1 200\r\ncontent-length: 5\r\n\r\n",
            b"HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\n",
            b"HTTP/1.1 200 \xe9t\xe9\r\ncontent-length: 5\r\n\r\n",
            b"\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nempty:\r\ncontent-length: 5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nx: \xe9t\xe9\r\ncontent-length: 5\r\n\r\n",
            b"HTTP/1.1 999 Whatever\r\ncontent-length: 5\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\n",
        ],
    )
    def test_heads_that_browsers_take(self, app: AppMaker, head: bytes) -> None:
        with Peer(answers(head + b"hello")) as peer:
            made = app(outgoing=wasgi.Network([peer.url], **ONE))
            for _ in range(2):
                assert ask(made, peer.url).text == "hello"
            assert peer.accepted == 1, "and the connection is kept"

    def test_a_body_may_end_with_its_connection(self, app: AppMaker) -> None:
        for head in (
            b"HTTP/1.0 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        ):
            with Peer(once(head, b"hello")) as peer:
                assert ask(app(outgoing=wasgi.Network([peer.url])), peer.url).text == "hello"

    @pytest.mark.parametrize("coding", [b"Chunked", b"\r\n chunked", b" chunked \r\n ", b"\tchunked"])
    def test_chunked_in_other_spellings(self, app: AppMaker, coding: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding:" + coding + b"\r\n\r\n"
        with Peer(answers(head + b"005;x=y\r\nhello\r\n0\r\n\r\n")) as peer:
            assert ask(app(outgoing=wasgi.Network([peer.url])), peer.url).text == "hello"

    def test_chunks_outrank_a_length_which_is_not_passed_on(self, app: AppMaker) -> None:
        """RFC 9112, 6.3: and since somebody may want to smuggle, the connection is not used again."""
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n"
        with Peer(answers(head + b"5\r\nhello\r\n0\r\n\r\n")) as peer:
            made = app(outgoing=wasgi.Network([peer.url]))
            for _ in range(2):
                assert ask(made, peer.url).text == "hello"
            assert peer.accepted == 2

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n 0\r\n\r\nhello",  # "5 0"
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nx\r\ncontent-length: 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nx: \0\r\ncontent-length: 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 5\r\n\r\nhello",
            b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ],
    )
    def test_what_could_be_read_in_two_ways_is_refused(self, app: AppMaker, answer: bytes) -> None:
        with Peer(once(answer)) as peer, pytest.raises(errors.HttpProtocolError):
            ask(app(outgoing=wasgi.Network([peer.url])), peer.url)


class TestSizes:
    @pytest.mark.parametrize("count", [101, 500, 5000])
    async def test_as_many_fields_as_fit_are_passed_on(self, count: int) -> None:
        """The limit is one of bytes."""
        lines = b"".join(b"x%x: y\r\n" % number for number in range(count))
        with Peer(answers(HEAD + lines + b"\r\nhello")) as peer:
            response = await call(wasgi.Network([peer.url]), wasgi.Request("GET", peer.url))
            assert (len(response.headers), await response.aread()) == (count + 1, b"hello")

    async def test_also_where_the_limit_is_large(self) -> None:
        """More names than a map of fields holds are refused, and nothing panics."""
        for count, is_let in ((24_000, True), (40_000, False)):
            lines = b"".join(b"x%x: y\r\n" % number for number in range(count))
            with Peer(once(HEAD + lines + b"\r\nhello")) as peer:
                network = wasgi.Network([peer.url], response_fields=1 << 20)
                if is_let:
                    response = await call(network, wasgi.Request("GET", peer.url))
                    assert len(response.headers) == count + 1
                    assert await response.aread() == b"hello"
                else:
                    with pytest.raises(errors.HttpResponseHeaderSectionSize):
                        await call(network, wasgi.Request("GET", peer.url))

    def test_101_trailers_are_passed_on(self, app: AppMaker) -> None:
        trailers = b"".join(b"x%d: y\r\n" % number for number in range(101))
        with Peer(answers(CHUNKED + b"5\r\nhello\r\n0\r\n" + trailers + b"\r\n")) as peer:
            response = ask(app(outgoing=wasgi.Network([peer.url])), peer.url)
            assert response.text == "hello"
            assert response.trailers is not None
            assert len(response.trailers) == 101

    @pytest.mark.parametrize("trailers", [b"x: " + b"y" * 70_000 + b"\r\n", b"x: y\r\n" * 30_000])
    def test_trailers_beyond_the_limit(self, app: AppMaker, trailers: bytes) -> None:
        with Peer(once(CHUNKED + b"5\r\nhello\r\n0\r\n" + trailers + b"\r\n")) as peer:
            text = ask(app(outgoing=wasgi.Network([peer.url]), limits=wasgi.Limits(fields=None)), peer.url).text
            assert text.startswith("hello[broken: Some(ErrorCode::HttpResponseTrailerSectionSize")

    @pytest.mark.parametrize("length", [2**64 - 1, 2**64 - 2, 2**64, 10**30])
    def test_a_length_that_nobody_can_send(self, app: AppMaker, length: int) -> None:
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\nhello" % length
        with Peer(once(answer)) as peer, pytest.raises(errors.HttpProtocolError):
            ask(app(outgoing=wasgi.Network([peer.url])), peer.url)

    @pytest.mark.parametrize("limit", [9, 0])
    def test_the_limit_of_the_body_does_not_concern_an_answer_without_one(self, app: AppMaker, limit: int) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n"
        with Peer(answers(head)) as peer:
            made = app(outgoing=wasgi.Network([peer.url], response_body=limit))
            assert ask(made, peer.url, method="HEAD").text == ""


class TestFloods:
    """Each of them is bounded in bytes, and told as the peer's fault."""

    @staticmethod
    def endless(start: bytes, more: bytes) -> tuple[Behaviour, list[int]]:
        sent = [0]

        def behave(connection: socket.socket) -> None:
            head_of(connection)
            connection.sendall(start)
            while True:
                connection.sendall(more)
                sent[0] += len(more)

        return behave, sent

    @pytest.mark.parametrize("status", [b"100 Continue", b"103 Early Hints"])
    def test_of_interim_responses(self, app: AppMaker, status: bytes) -> None:
        behave, sent = self.endless(b"", b"HTTP/1.1 " + status + b"\r\nlink: </a>\r\n\r\n")
        with Peer(behave) as peer, pytest.raises(errors.HttpResponseHeaderSectionSize):
            ask(app(outgoing=wasgi.Network([peer.url])), peer.url)
        assert sent[0] < 30_000_000

    @pytest.mark.parametrize(
        ("start", "more"),
        [(CHUNKED, b"0" * 65536), (CHUNKED + b"5\r\nhello\r\n", b"0" * 65536), (CHUNKED, b"5;" + b"x" * 65536)],
    )
    def test_of_what_is_no_body(self, app: AppMaker, start: bytes, more: bytes) -> None:
        behave, sent = self.endless(start, more)
        with Peer(behave) as peer:
            text = ask(app(outgoing=wasgi.Network([peer.url])), peer.url).text
            assert "HttpProtocolError" in text
        assert sent[0] < 30_000_000

    def test_a_body_of_small_chunks_is_none(self, app: AppMaker) -> None:
        chunk = b"0" * 60 + b"1\r\nx\r\n"
        with Peer(answers(CHUNKED + chunk * 40_000 + b"0\r\n\r\n")) as peer:
            assert len(ask(app(outgoing=wasgi.Network([peer.url])), peer.url).read()) == 40_000

    def test_many_interim_responses_are_none(self, app: AppMaker) -> None:
        with Peer(answers(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000 + HELLO)) as peer:
            assert ask(app(outgoing=wasgi.Network([peer.url])), peer.url).text == "hello"

    @pytest.mark.parametrize("payload", [b"", b"\0\1x\x7f\xe9\x06" + b"y" * 1000])
    def test_of_continuations(self, app: AppMaker, payload: bytes) -> None:
        """RFC 9113, 6.10: a head that does not end."""

        def behave(connection: socket.socket) -> None:
            asked_over_http2(connection)
            connection.sendall(frame(4, 0, 0, b"") + frame(1, 0, 1, b"\x88"))
            while True:
                connection.sendall(frame(9, 0, 1, payload))

        with Peer(behave) as peer, pytest.raises(errors.HttpResponseHeaderSectionSize):
            ask(app(outgoing=wasgi.Network([peer.url], h2c=True)), peer.url)

    def test_of_empty_data(self, app: AppMaker) -> None:
        def behave(connection: socket.socket) -> None:
            asked_over_http2(connection)
            connection.sendall(frame(4, 0, 0, b"") + frame(1, 4, 1, b"\x88"))
            while True:
                connection.sendall(frame(0, 0, 1, b""))

        with Peer(behave) as peer:
            assert "HttpProtocolError" in ask(app(outgoing=wasgi.Network([peer.url], h2c=True)), peer.url).text

    def test_of_interim_responses_over_http2(self, app: AppMaker) -> None:
        sent = 0

        def behave(connection: socket.socket) -> None:
            nonlocal sent
            asked_over_http2(connection)
            connection.sendall(frame(4, 0, 0, b""))
            hint = frame(1, 4, 1, b"\x08\x03103")
            while True:
                connection.sendall(hint * 100)
                sent += 100 * len(hint)

        with Peer(behave) as peer, pytest.raises(errors.HttpResponseHeaderSectionSize):
            ask(app(outgoing=wasgi.Network([peer.url], h2c=True)), peer.url)
        assert sent < 30_000_000


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113, 4.1."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def asked_over_http2(connection: socket.socket) -> None:
    """Waits for the first request on a connection: before it has begun a stream, nothing may be said on that."""
    received = b""
    at = 24  # the preface (RFC 9113, 3.4)
    while True:
        while len(received) < at + 9 or len(received) < at + 9 + int.from_bytes(received[at : at + 3], "big"):
            chunk = connection.recv(65536)
            if not chunk:
                raise ConnectionError
            received += chunk
        if received[at + 3] == 1:
            return
        at += 9 + int.from_bytes(received[at : at + 3], "big")


def literal(name: bytes, value: bytes) -> bytes:
    """A field that is neither indexed nor Huffman-coded, which takes Python long (RFC 7541, 6.2.2)."""

    def string(text: bytes) -> bytes:
        length, coded = len(text), b"\x7f"
        if length < 127:
            return bytes([length]) + text
        length -= 127
        while length >= 128:
            coded += bytes([length % 128 + 128])
            length //= 128
        return coded + bytes([length]) + text

    return b"\0" + string(name) + string(value)


def in_frames(stream: int, block: bytes, end: bool) -> bytes:
    """HEADERS and CONTINUATION (RFC 9113, 6.2 and 6.10)."""
    pieces = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    frames = []
    for number, piece in enumerate(pieces):
        flags = (4 if number == len(pieces) - 1 else 0) | (1 if end and number == 0 else 0)
        frames.append(frame(9 if number else 1, flags, stream, piece))
    return b"".join(frames)


def large_fields(shape: str, size: int) -> bytes:
    match shape:
        case "one":
            return literal(b"x", b"y" * size)
        case "many":
            return b"".join(literal(b"x%d" % number, b"y" * 1000) for number in range(size // 1000))
        case _:  # by the index that the first gets (RFC 7541, 6.2.1 and 6.1)
            return b"\x40" + literal(b"x", b"y" * 1000)[1:] + b"\xbe" * (size // 1000 - 1)


class TestHttp2Sizes:
    @staticmethod
    def sends(*frames: bytes) -> Behaviour:
        def behave(connection: socket.socket) -> None:
            asked_over_http2(connection)
            connection.sendall(frame(4, 0, 0, b"") + b"".join(frames))
            while connection.recv(65536):
                pass

        return behave

    @pytest.mark.parametrize("size", [100_000, 200_000, 400_000, 1_000_000, 2_000_000, 8_000_000])
    @pytest.mark.parametrize("shape", ["one", "many", "repeated"])
    def test_a_head_beyond_the_limit(self, app: AppMaker, size: int, shape: str) -> None:
        block = b"\x88" + large_fields(shape, size)
        sends = self.sends(in_frames(1, block, True))
        with Peer(sends) as peer, pytest.raises(errors.HttpResponseHeaderSectionSize):
            ask(app(outgoing=wasgi.Network([peer.url], h2c=True)), peer.url)

    @pytest.mark.parametrize("size", [100_000, 200_000, 1_000_000, 2_000_000, 8_000_000])
    @pytest.mark.parametrize("shape", ["one", "many", "repeated"])
    def test_trailers_beyond_the_limit(self, app: AppMaker, size: int, shape: str) -> None:
        has_head = threading.Event()

        def behave(connection: socket.socket) -> None:
            asked_over_http2(connection)
            connection.sendall(frame(4, 0, 0, b"") + frame(1, 4, 1, b"\x88") + frame(0, 0, 1, b"hello"))
            assert has_head.wait(30)
            connection.sendall(in_frames(1, large_fields(shape, size), True))
            while connection.recv(65536):
                pass

        with Peer(behave) as peer:
            made = app(outgoing=wasgi.Network([peer.url], h2c=True), limits=wasgi.Limits(fields=None))
            response = ask(made, peer.url)
            has_head.set()
            assert response.text.startswith("hello[broken: Some(ErrorCode::HttpResponseTrailerSectionSize")

    def test_one_that_is_too_large_leaves_the_others_alone(self, app: AppMaker) -> None:
        held: list[int] = []

        def answer(state: h2.connection.H2Connection, stream: int) -> None:
            if not held:
                held.append(stream)
                state.send_headers(stream, [(":status", "200")])
                state.send_data(stream, b"hel")
                return
            large = [(f"x{number}", "y" * 1000) for number in range(150)]
            state.send_headers(stream, [(":status", "200"), *large], end_stream=True)
            state.send_data(held[0], b"lo", end_stream=True)

        with Peer(speaks_h2(answer)) as peer:
            made = app(outgoing=wasgi.Network([peer.url], h2c=True))
            with made.handle(get(f"/fetch-or-code?url={peer.url}")) as first:
                with pytest.raises(errors.HttpResponseHeaderSectionSize):
                    ask(made, peer.url)
                assert first.text == "hello"
            assert peer.accepted == 1

    @pytest.mark.parametrize("body", [b"he", b"hello, world"])
    @pytest.mark.parametrize("pieces", [1, 2])
    def test_a_body_that_is_not_as_long_as_announced(self, app: AppMaker, body: bytes, pieces: int) -> None:
        def answer(state: h2.connection.H2Connection, stream: int) -> None:
            state.send_headers(stream, [(":status", "200"), ("content-length", "5")])
            if pieces == 2:
                state.send_data(stream, body[:1])
            state.send_data(stream, body[pieces - 1 :], end_stream=True)

        with Peer(speaks_h2(answer)) as peer:
            text = ask(app(outgoing=wasgi.Network([peer.url], h2c=True)), peer.url).text
            assert "[broken: Some(ErrorCode::HttpResponseBodySize" in text

    def test_a_body_that_was_announced_and_does_not_come(self, app: AppMaker) -> None:
        """But for HEAD, whose answer says how long another's would be."""

        def answer(state: h2.connection.H2Connection, stream: int) -> None:
            state.send_headers(stream, [(":status", "200"), ("content-length", "5")], end_stream=True)

        with Peer(speaks_h2(answer)) as peer:
            made = app(outgoing=wasgi.Network([peer.url], h2c=True))
            assert ask(made, peer.url, method="HEAD").text == ""
            for _ in range(2):
                with pytest.raises(errors.HttpResponseBodySize):
                    ask(made, peer.url)

    def test_a_malformed_head_is_the_peers_fault(self, app: AppMaker) -> None:
        sends = self.sends(in_frames(1, b"\x88" + literal(b"connection", b"close"), True))
        with Peer(sends) as peer, pytest.raises(errors.HttpProtocolError):
            ask(app(outgoing=wasgi.Network([peer.url], h2c=True)), peer.url)


class TestUnprocessed:
    """What the peer says that it has not processed is sent again (RFC 9113, 6.8 and 8.7), and nothing else."""

    @staticmethod
    def goes_away(last: int, code: h2.errors.ErrorCodes = h2.errors.ErrorCodes.NO_ERROR) -> tuple[Answer, list[int]]:
        """At the second request of the first connection, with the last stream that it has processed."""
        streams: list[int] = []

        def answer(state: h2.connection.H2Connection, stream: int) -> None:
            streams.append(stream)
            if len(streams) == 2:
                state.close_connection(code, last_stream_id=last)
            else:
                says_hello(state, stream)

        return answer, streams

    @pytest.mark.parametrize("code", [h2.errors.ErrorCodes.NO_ERROR, h2.errors.ErrorCodes.ENHANCE_YOUR_CALM])
    @pytest.mark.parametrize("content", [None, b"content", b"x" * 30_000])
    def test_by_goaway(self, app: AppMaker, code: h2.errors.ErrorCodes, content: bytes | None) -> None:
        answer, streams = self.goes_away(1, code)
        seen: list[list[Any]] = []
        with Peer(speaks_h2(answer, seen=seen)) as peer:
            made = app(outgoing=wasgi.Network([peer.url], h2c=True))
            assert ask(made, peer.url).text == "hello"
            if content is None:
                assert ask(made, peer.url).text == "hello"
            else:
                assert made.handle(post(f"/proxy?url={peer.url}/", content)).text == "hello"
                received = [event.data for event in seen[1] if isinstance(event, h2.events.DataReceived)]
                assert b"".join(received) == content
            assert (streams, peer.accepted) == ([1, 3, 1], 2)

    def test_but_not_what_may_have_been_processed(self, app: AppMaker) -> None:
        answer, streams = self.goes_away(3)

        def behave(connection: socket.socket) -> None:
            def closing(state: h2.connection.H2Connection, stream: int) -> None:
                answer(state, stream)
                if stream == 3:
                    connection.sendall(state.data_to_send())
                    connection.shutdown(socket.SHUT_RDWR)

            speaks_h2(closing)(connection)

        with Peer(behave) as peer:
            made = app(outgoing=wasgi.Network([peer.url], h2c=True))
            assert ask(made, peer.url).text == "hello"
            with pytest.raises(errors.ConnectionTerminated):
                ask(made, peer.url, method="POST", body="x")
            assert streams == [1, 3]

    def test_nor_a_body_that_is_too_long_to_be_kept(self, app: AppMaker) -> None:
        answer, streams = self.goes_away(1)
        with Peer(speaks_h2(answer)) as peer:
            made = app(outgoing=wasgi.Network([peer.url], h2c=True))
            assert ask(made, peer.url).text == "hello"
            with pytest.raises(errors.ConnectionTerminated):
                made.handle(post(f"/proxy?url={peer.url}/", b"x" * 1_000_000))
            assert streams == [1, 3]

    def test_by_refused_stream_with_its_body(self, app: AppMaker) -> None:
        refused: list[int] = []
        seen: list[list[Any]] = []

        def answer(state: h2.connection.H2Connection, stream: int) -> None:
            if not refused:
                refused.append(stream)
                state.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
            else:
                says_hello(state, stream)

        with Peer(speaks_h2(answer, seen=seen)) as peer:
            made = app(outgoing=wasgi.Network([peer.url], h2c=True))
            assert made.handle(post(f"/proxy?url={peer.url}/", b"content")).text == "hello"
            received = [event.data for event in seen[0] if isinstance(event, h2.events.DataReceived)]
            assert b"".join(received) == b"content" * 2

    def test_a_connection_that_goes_away_gets_no_more_requests(self, app: AppMaker) -> None:
        """While one that it has begun is still answered."""
        first: list[tuple[h2.connection.H2Connection, int]] = []
        released = threading.Event()

        def behave(connection: socket.socket) -> None:
            def answer(state: h2.connection.H2Connection, stream: int) -> None:
                if first:
                    says_hello(state, stream)
                    return
                first.append((state, stream))
                state.send_headers(stream, [(":status", "200")])
                # by hand: the library of this peer sends nothing after its own
                connection.sendall(state.data_to_send() + frame(7, 0, 0, stream.to_bytes(4, "big") + bytes(4)))
                released.wait(30)
                state.send_data(stream, b"hello", end_stream=True)

            speaks_h2(answer)(connection)

        with Peer(behave) as peer:
            made = app(outgoing=wasgi.Network([peer.url], h2c=True))
            with made.handle(get(f"/fetch-or-code?url={peer.url}")) as response:
                for _ in range(3):
                    assert ask(made, peer.url, method="POST", body="x").text == "hello"
                released.set()
                assert response.text == "hello"
            assert peer.accepted == 2

    def test_all_that_are_under_way(self, app: AppMaker) -> None:
        """Many requests on a connection that goes away get one new connection."""
        together = threading.Barrier(9)
        lock = threading.Lock()
        counted = [0]

        def answer(state: h2.connection.H2Connection, stream: int) -> None:
            with lock:
                counted[0] += 1
            if counted[0] == 8:
                state.close_connection(last_stream_id=0)
            elif counted[0] > 8:
                says_hello(state, stream)

        with Peer(speaks_h2(answer)) as peer, ThreadPoolExecutor(8) as pool:
            made = app(outgoing=wasgi.Network([peer.url], h2c=True))

            def one() -> str:
                together.wait(30)
                return ask(made, peer.url, method="POST", body="x").text

            asked = [pool.submit(one) for _ in range(8)]
            together.wait(30)
            assert [each.result(30) for each in asked] == ["hello"] * 8


def test_a_hundred_requests_share_a_connection(app: AppMaker) -> None:
    """All of them before any has its answer."""
    waiting: list[int] = []

    def answer(state: h2.connection.H2Connection, stream: int) -> None:
        waiting.append(stream)
        if len(waiting) == 100:
            for each in waiting:
                says_hello(state, each)

    with Peer(speaks_h2(answer)) as peer, ThreadPoolExecutor(100) as pool:
        made = app(outgoing=wasgi.Network([peer.url], h2c=True))
        texts = [pool.submit(lambda: ask(made, peer.url).text) for _ in range(100)]
        assert [text.result(60) for text in texts] == ["hello"] * 100
        assert peer.accepted == 1


class TestFraming:
    """What a request says of its body (RFC 9110, 8.6)."""

    @staticmethod
    def recording(connection: socket.socket, heads: list[bytes]) -> None:
        while True:
            heads.append(head_of(connection))
            connection.sendall(HELLO)

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
    @pytest.mark.parametrize("kind", ["plain", "in two turns"])
    def test_a_method_that_has_a_body_says_that_there_is_none(self, app: AppMaker, method: str, kind: str) -> None:
        heads: list[bytes] = []
        with Peer(lambda connection: self.recording(connection, heads)) as peer:
            made = app(outgoing=wasgi.Network([peer.url]))
            if kind == "plain":
                assert ask(made, peer.url, method=method).text == "hello"
            else:
                assert made.handle(wasgi.Request(method, f"http://guest.local/proxy?url={peer.url}/")).text == "hello"
        assert b"content-length: 0\r\n" in heads[0]
        assert b"transfer-encoding" not in heads[0]

    @pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "PROPFIND"])
    def test_others_do_not(self, app: AppMaker, method: str) -> None:
        heads: list[bytes] = []
        with Peer(lambda connection: self.recording(connection, heads)) as peer:
            ask(app(outgoing=wasgi.Network([peer.url])), peer.url, method=method).close()
        assert b"content-length" not in heads[0]
        assert b"transfer-encoding" not in heads[0]

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "GET"])
    def test_over_http2(self, app: AppMaker, method: str) -> None:
        seen: list[list[Any]] = []
        with Peer(speaks_h2(says_hello, seen=seen)) as peer:
            assert ask(app(outgoing=wasgi.Network([peer.url], h2c=True)), peer.url, method=method).text == "hello"
        request = next(event for event in seen[0] if isinstance(event, h2.events.RequestReceived))
        assert dict(request.headers).get(b"content-length") == (None if method == "GET" else b"0")
        assert request.stream_ended is not None, "no frame of data comes"

    def test_a_length_of_the_guests_own_is_kept(self, app: AppMaker) -> None:
        heads: list[bytes] = []
        with Peer(lambda connection: self.recording(connection, heads)) as peer:
            made = app(outgoing=wasgi.Network([peer.url]))
            assert ask(made, peer.url, method="POST", header="content-length:0").text == "hello"
        assert heads[0].count(b"content-length: 0\r\n") == 1

    async def test_from_python(self) -> None:
        heads: list[bytes] = []
        with Peer(lambda connection: self.recording(connection, heads)) as peer:
            for body in (None, b"", ""):
                response = await call(wasgi.Network([peer.url]), wasgi.Request("POST", peer.url, body=body))
                assert await response.aread() == b"hello"
        assert [head.count(b"content-length: 0\r\n") for head in heads] == [1, 1, 1]


@pytest.mark.parametrize("limits", [{}, {"first_byte_timeout": 60}, {"timeout": 60}])
@pytest.mark.parametrize("h2c", [False, True])
def test_the_guests_own_first_byte_timeout_is_told_as_its_own(app: AppMaker, limits: dict[str, Any], h2c: bool) -> None:
    """As through a function: `connection-read-timeout`; the `Network`'s is `HTTP-response-timeout`."""
    with Peer(speaks_h2(lambda *_: None) if h2c else stalls_after()) as peer:
        made = app(outgoing=wasgi.Network([peer.url], h2c=h2c, **limits))
        with pytest.raises(errors.ConnectionReadTimeout):
            ask(made, peer.url, first_byte_ms="100")


def test_the_time_for_all_is_over_though_chunks_keep_coming(app: AppMaker) -> None:
    def behave(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with Peer(behave) as peer:
        made = app(outgoing=wasgi.Network([peer.url], timeout=1.5))
        received = b""
        for chunk in ask(made, peer.url):
            received = (received + chunk)[-100:]
        assert b"HttpResponseTimeout" in received


def test_a_limit_of_the_response_holds_for_the_answer_to_head(app: AppMaker) -> None:
    """Whatever the guest writes."""
    made = app(limits=wasgi.Limits(response_body=10))
    response = made.handle(wasgi.Request("HEAD", "http://guest.local/stream?chunks=100&bytes=4096"))
    with pytest.raises(wasgi.BodyError):
        response.read()
    until(lambda: wasgi.stats().exchanges == 0)
