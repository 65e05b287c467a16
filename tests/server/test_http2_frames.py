"""What clients of HTTP/2 must not send, frame by frame, and what RFC 9113 and RFC 7541 have a server do about it.

The cases are those of h2spec 2.6.0, which takes any end of the connection for right. Here, where h2 ends a connection
though a stream error would do (RFC 9113, 5.4.1, allows that), the case says so.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import hpack
import pytest

import wasgi
from tests.conftest import PROBE, until
from tests.server.conftest import Client

PEM = Path(__file__).parent / "pem"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 1, 1, 4, 8, 32
PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 1, 3, 5, 6
REFUSED_STREAM, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 7, 9, 11
LARGEST = 2**31 - 1
FIRST_FRAME = 1 << 14
"""The size of a frame that each endpoint has to take, and that larger ones need a setting for (RFC 9113, 4.2)."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def setting(name: int, value: int) -> bytes:
    return frame(SETTINGS, 0, 0, name.to_bytes(2) + value.to_bytes(4))


def grow(stream: int, by: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, by.to_bytes(4))


def block(*fields: tuple[str, str], method: str = "POST", path: str = "/collect", without: str = "") -> bytes:
    """A field block that is the same in each connection: its fields go into no table."""
    pseudo = {":method": method, ":path": path, ":scheme": "http", ":authority": "guest.local"}
    return literally(*((name, value) for name, value in pseudo.items() if name != without), *fields)


def literally(*pairs: tuple[str, str]) -> bytes:
    def string(text: str) -> bytes:
        assert len(text) < 127
        return bytes([len(text)]) + text.encode()

    return b"".join(b"\0" + string(name) + string(value) for name, value in pairs)


def head(stream: int, flags: int = END_HEADERS, fields: bytes = block()) -> bytes:
    return frame(HEADERS, flags, stream, fields)


OPEN = head(1)
"""A request whose body is still to come."""
SENT = head(1, END_HEADERS | END_STREAM, block(method="GET", path="/sleep?ms=60000"))
"""A whole request that is not answered yet."""
RESET = frame(RST_STREAM, 0, 1, bytes(4))
PRIORITY_OF_ITSELF = b"\0\0\0\1\x10"


class Ends(int):
    """The connection ends with this code, or with `PROTOCOL_ERROR`, which h2 0.4 has for most."""


class Resets(int):
    """The stream is reset with this code, and the connection goes on."""


class Raw(Client):
    """A connection of HTTP/2 without any rules."""

    def __init__(self, server: wasgi.Server, preface: bytes = PREFACE) -> None:
        super().__init__(server)
        if server.urls[0].startswith("https"):
            context = ssl.create_default_context(cafile=PEM / "ca.pem")
            context.check_hostname = False
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket)
        self.settings: dict[int, int] = {}
        self.decoder = hpack.Decoder()
        self.heads: dict[int, dict[str, str]] = {}
        self.send(preface)
        if preface is PREFACE:
            self.send(frame(SETTINGS, 0, 0))

    def frame(self) -> tuple[int, int, int, bytes] | None:
        """The next one; none: the connection has ended."""
        while len(self.read) < 9 or len(self.read) < 9 + int.from_bytes(self.read[:3]):
            try:
                more = self.socket.recv(65536)
            except (ConnectionResetError, ssl.SSLEOFError):
                return None
            if not more:
                return None
            self.read += more
        size = int.from_bytes(self.read[:3])
        (kind, flags), stream = self.read[3:5], int.from_bytes(self.read[5:9])
        payload, self.read = self.read[9 : 9 + size], self.read[9 + size :]
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, size, 6):
                self.settings[int.from_bytes(payload[at : at + 2])] = int.from_bytes(payload[at + 2 : at + 6])
        if kind == HEADERS:
            self.heads[stream] = {str(name): str(value) for name, value in self.decoder.decode(payload)}
        return kind, flags, stream, payload

    def until_frame(self, wanted: Callable[[int, int, int], bool]) -> bytes:
        """The payload of the first that is wanted."""
        while came := self.frame():
            kind, flags, stream, payload = came
            assert kind != GOAWAY or wanted(kind, flags, stream), f"the connection ends: {payload!r}"
            if wanted(kind, flags, stream):
                return payload
        raise AssertionError("the connection ended")

    def is_reset(self, stream: int) -> int:
        """With that code."""
        payload = self.until_frame(lambda kind, _, of: kind == RST_STREAM and of == stream)
        return int.from_bytes(payload)

    def is_ended(self) -> int:
        """With that code."""
        code = int.from_bytes(self.until_frame(lambda kind, *_: kind == GOAWAY)[4:8])
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
            while self.frame():
                pass
        return code

    def answers(self, stream: int) -> bytes:
        """The body of an answer with status 200."""
        body, came = b"", (HEADERS, 0)

        def is_of_stream(kind: int, flags: int, of: int) -> bool:
            nonlocal came
            came = kind, flags
            return kind in (HEADERS, DATA) and of == stream

        self.until_frame(is_of_stream)
        assert self.heads[stream][":status"] == "200"
        while not came[1] & END_STREAM:
            payload = self.until_frame(is_of_stream)
            body += payload if came[0] == DATA else b""
        return body

    def goes_on(self) -> None:
        """It still serves."""
        self.send(head(4001, END_HEADERS | END_STREAM, block(method="GET", path="/hello")))
        assert self.answers(4001) == b"Hello, World!"


def made(**options: object) -> Iterator[wasgi.Server]:
    with wasgi.App(PROBE) as app, wasgi.Server(app, bind="127.0.0.1:0", threads=2, **options) as server:  # type: ignore[arg-type]
        yield server
        server.close(0)


@pytest.fixture(scope="module")
def server() -> Iterator[wasgi.Server]:
    yield from made()


@pytest.fixture(scope="module")
def secured() -> Iterator[wasgi.Server]:
    yield from made(tls=wasgi.Tls(PEM / "server.pem", PEM / "server.key"))


@pytest.fixture
def client(server: wasgi.Server) -> Iterator[Raw]:
    with Raw(server) as client:
        yield client


WRONG: dict[str, tuple[bytes, Ends | Resets]] = {
    # RFC 9113, 4
    "4.2: DATA that is too large": (OPEN + frame(DATA, 0, 1, bytes(FIRST_FRAME + 1)), Ends(FRAME_SIZE_ERROR)),
    "4.2: HEADERS that are too large": (head(1, fields=block() + bytes(FIRST_FRAME)), Ends(FRAME_SIZE_ERROR)),
    "4.3: a block that cannot be decoded": (head(1, fields=b"\xff\xff\xff\xff\xff"), Ends(COMPRESSION_ERROR)),
    "4.3: PRIORITY in a block": (
        head(1, 0) + frame(PRIORITY, 0, 1, b"\0\0\0\0\xff"),
        Ends(PROTOCOL_ERROR),
    ),
    "4.3: HEADERS of another stream in a block": (head(1, 0) + head(3), Ends(PROTOCOL_ERROR)),
    # 5.1: what its streams may get in each state
    "5.1: DATA, idle": (frame(DATA, END_STREAM, 1, b"test"), Ends(PROTOCOL_ERROR)),
    "5.1: RST_STREAM, idle": (RESET, Ends(PROTOCOL_ERROR)),
    "5.1: WINDOW_UPDATE, idle": (grow(1, 100), Ends(PROTOCOL_ERROR)),
    "5.1: CONTINUATION, idle": (frame(CONTINUATION, END_HEADERS, 1, block()), Ends(PROTOCOL_ERROR)),
    "5.1: DATA, half-closed": (SENT + frame(DATA, END_STREAM, 1, b"test"), Ends(STREAM_CLOSED)),
    "5.1: HEADERS, half-closed": (SENT + head(1, END_HEADERS | END_STREAM), Ends(STREAM_CLOSED)),
    "5.1: CONTINUATION, half-closed": (
        SENT + frame(CONTINUATION, END_HEADERS, 1, block()),
        Ends(STREAM_CLOSED),
    ),
    "5.1: DATA, closed by the client": (OPEN + RESET + frame(DATA, 0, 1, b"test"), Resets(STREAM_CLOSED)),
    "5.1: HEADERS, closed by the client": (OPEN + RESET + head(1), Ends(STREAM_CLOSED)),
    "5.1: CONTINUATION, closed by the client": (
        OPEN + RESET + frame(CONTINUATION, END_HEADERS, 1, block()),
        Ends(STREAM_CLOSED),
    ),
    "5.1.1: an even number": (head(2), Ends(PROTOCOL_ERROR)),
    "5.1.1: a number that is smaller than the last": (head(5) + head(3), Ends(PROTOCOL_ERROR)),
    "5.3.1: HEADERS that depend on themselves": (
        head(1, END_HEADERS | PRIORITIZED, PRIORITY_OF_ITSELF + block()),
        Resets(PROTOCOL_ERROR),
    ),
    "5.3.1: PRIORITY that depends on itself": (
        OPEN + frame(PRIORITY, 0, 1, PRIORITY_OF_ITSELF),
        Resets(PROTOCOL_ERROR),
    ),
    "5.5: an unknown frame in a block": (head(1, 0) + frame(0xFF, 0, 0, b"test"), Ends(PROTOCOL_ERROR)),
    # 6: each kind of frame
    "6.1: DATA of no stream": (frame(DATA, 0, 0, b"test"), Ends(PROTOCOL_ERROR)),
    "6.1: DATA with more padding than it has": (OPEN + frame(DATA, PADDED, 1, b"\x06test"), Ends(PROTOCOL_ERROR)),
    "6.2: HEADERS of no stream": (head(0), Ends(PROTOCOL_ERROR)),
    "6.2: HEADERS with more padding than they have": (
        head(1, END_HEADERS | PADDED, b"\xff" + block()),
        Ends(PROTOCOL_ERROR),
    ),
    "6.3: PRIORITY of no stream": (frame(PRIORITY, 0, 0, b"\0\0\0\1\0"), Ends(PROTOCOL_ERROR)),
    "6.3: PRIORITY of four bytes": (OPEN + frame(PRIORITY, 0, 1, b"\0\0\0\3"), Ends(FRAME_SIZE_ERROR)),
    "6.4: RST_STREAM of no stream": (frame(RST_STREAM, 0, 0, bytes(4)), Ends(PROTOCOL_ERROR)),
    "6.4: RST_STREAM of three bytes": (OPEN + frame(RST_STREAM, 0, 1, bytes(3)), Ends(FRAME_SIZE_ERROR)),
    "6.5: SETTINGS that acknowledge with content": (frame(SETTINGS, ACK, 0, b"\0"), Ends(FRAME_SIZE_ERROR)),
    "6.5: SETTINGS of a stream": (frame(SETTINGS, 0, 1, b"\0\3\0\0\0\x64"), Ends(PROTOCOL_ERROR)),
    "6.5: SETTINGS of three bytes": (frame(SETTINGS, 0, 0, b"\0\3\0"), Ends(FRAME_SIZE_ERROR)),
    "6.5.2: ENABLE_PUSH of 2": (setting(2, 2), Ends(PROTOCOL_ERROR)),
    "6.5.2: INITIAL_WINDOW_SIZE of 2^31": (setting(4, LARGEST + 1), Ends(FLOW_CONTROL_ERROR)),
    "6.5.2: MAX_FRAME_SIZE below 2^14": (setting(5, FIRST_FRAME - 1), Ends(PROTOCOL_ERROR)),
    "6.5.2: MAX_FRAME_SIZE above 2^24-1": (setting(5, 1 << 24), Ends(PROTOCOL_ERROR)),
    "6.6: PUSH_PROMISE": (OPEN + frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\3" + block()), Ends(PROTOCOL_ERROR)),
    "6.7: PING of a stream": (frame(PING, 0, 1, bytes(8)), Ends(PROTOCOL_ERROR)),
    "6.7: PING of six bytes": (frame(PING, 0, 0, bytes(6)), Ends(FRAME_SIZE_ERROR)),
    "6.8: GOAWAY of a stream": (frame(GOAWAY, 0, 1, bytes(8)), Ends(PROTOCOL_ERROR)),
    "6.9: WINDOW_UPDATE by nothing": (grow(0, 0), Ends(PROTOCOL_ERROR)),
    "6.9: WINDOW_UPDATE of a stream by nothing": (OPEN + grow(1, 0), Ends(PROTOCOL_ERROR)),
    "6.9: WINDOW_UPDATE of three bytes": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), Ends(FRAME_SIZE_ERROR)),
    "6.9.1: a window above 2^31-1": (grow(0, LARGEST) * 2, Ends(FLOW_CONTROL_ERROR)),
    "6.9.1: a stream's window above 2^31-1": (OPEN + grow(1, LARGEST) * 2, Resets(FLOW_CONTROL_ERROR)),
    "6.9.2: a stream's window above 2^31-1 by a setting": (
        OPEN + grow(1, LARGEST - 65_535) + setting(4, LARGEST),
        Ends(FLOW_CONTROL_ERROR),
    ),
    "6.10: CONTINUATION and something else": (head(1, 0) + frame(DATA, 0, 1, b"test"), Ends(PROTOCOL_ERROR)),
    "6.10: CONTINUATION of no stream": (
        head(1, 0) + frame(CONTINUATION, END_HEADERS, 0, block()),
        Ends(PROTOCOL_ERROR),
    ),
    "6.10: CONTINUATION after a whole block": (
        OPEN + frame(CONTINUATION, END_HEADERS, 1, block()),
        Ends(PROTOCOL_ERROR),
    ),
    "6.10: CONTINUATION after the last one": (
        head(1, 0) + frame(CONTINUATION, END_HEADERS, 1) * 2,
        Ends(PROTOCOL_ERROR),
    ),
    "6.10: CONTINUATION after DATA": (
        OPEN + frame(DATA, 0, 1, b"test") + frame(CONTINUATION, END_HEADERS, 1, block()),
        Ends(PROTOCOL_ERROR),
    ),
    # 8: messages that are malformed (8.1.1)
    "8.1: a second head that does not end the stream": (OPEN + head(1), Resets(PROTOCOL_ERROR)),
    "8.1.1: less than content-length": (
        head(1, fields=block(("content-length", "5"))) + frame(DATA, END_STREAM, 1, b"test"),
        Resets(PROTOCOL_ERROR),
    ),
    "8.1.1: more than content-length": (
        head(1, fields=block(("content-length", "5"))) + frame(DATA, 0, 1, b"test") + frame(DATA, END_STREAM, 1, b"ed"),
        Resets(PROTOCOL_ERROR),
    ),
    "8.2.1: capitals in a name": (head(1, fields=block(("X-Test", "ok"))), Ends(PROTOCOL_ERROR)),
    "8.2.2: connection": (head(1, fields=block(("connection", "keep-alive"))), Resets(PROTOCOL_ERROR)),
    "8.2.2: te": (head(1, fields=block(("te", "trailers, deflate"))), Resets(PROTOCOL_ERROR)),
    "8.3: an unknown pseudo-field": (head(1, fields=block((":test", "ok"))), Ends(PROTOCOL_ERROR)),
    "8.3: a pseudo-field of responses": (head(1, fields=block((":status", "200"))), Resets(PROTOCOL_ERROR)),
    "8.3: a pseudo-field after others": (
        head(1, fields=block(("x-test", "ok"), (":path", "/"), without=":path")),
        Resets(PROTOCOL_ERROR),
    ),
    "8.3.1: an empty path": (head(1, fields=block(path="")), Resets(PROTOCOL_ERROR)),
    "8.3.1: no method": (head(1, fields=block(without=":method")), Resets(PROTOCOL_ERROR)),
    "8.3.1: no scheme": (head(1, fields=block(without=":scheme")), Resets(PROTOCOL_ERROR)),
    "8.3.1: no path": (head(1, fields=block(without=":path")), Resets(PROTOCOL_ERROR)),
    "8.3.1: two methods": (head(1, fields=literally((":method", "GET")) + block()), Resets(PROTOCOL_ERROR)),
    "8.3.1: two schemes": (head(1, fields=literally((":scheme", "http")) + block()), Resets(PROTOCOL_ERROR)),
    "8.3.1: two paths": (head(1, fields=literally((":path", "/")) + block()), Resets(PROTOCOL_ERROR)),
    # RFC 7541
    "hpack 2.3.3: an index that is not in the tables": (head(1, fields=block() + b"\xc6"), Ends(COMPRESSION_ERROR)),
    "hpack 2.3.3: a name that is not in the tables": (
        head(1, fields=block() + b"\x7f\x07\x05empty"),
        Ends(COMPRESSION_ERROR),
    ),
    "hpack 4.2: a new size at the end of a block": (head(1, fields=block() + b"\x20"), Ends(COMPRESSION_ERROR)),
    "hpack 5.2: padding of more than 7 bits": (
        head(1, fields=block() + b"\0\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),
        Ends(COMPRESSION_ERROR),
    ),
    "hpack 5.2: padding of zeros": (
        head(1, fields=block() + b"\0\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"),
        Ends(COMPRESSION_ERROR),
    ),
    "hpack 5.2: EOS in a string": (
        head(1, fields=block() + b"\0\x85\xf2\xb2\x4a\x84\xff\x86\x49\x51\xff\xff\xff\xfa"),
        Ends(COMPRESSION_ERROR),
    ),
    "hpack 6.1: index 0": (head(1, fields=block() + b"\x80"), Ends(COMPRESSION_ERROR)),
    "hpack 6.3: a table that is larger than allowed": (
        head(1, fields=b"\x3f\xe1\xff\x03" + block()),
        Ends(COMPRESSION_ERROR),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong(client: Raw, case: str) -> None:
    sent, expected = WRONG[case]
    client.send(sent)
    if isinstance(expected, Ends):
        assert client.is_ended() in (expected, PROTOCOL_ERROR)
    else:
        assert client.is_reset(1) == expected
        client.goes_on()


RARE = {
    "4.1: an unknown kind of frame": frame(0x16, 0, 0, b"test"),
    "4.1: flags that a frame does not have": frame(PING, 0x16, 0, bytes(8)),
    "4.1: the bit that is reserved": frame(PING, 0, 1 << 31, bytes(8)),
    "5.1: PRIORITY, idle": frame(PRIORITY, 0, 1, b"\0\0\0\0\xff"),
    "5.1: WINDOW_UPDATE, half-closed": SENT + grow(1, 100),
    "5.1: PRIORITY, half-closed": SENT + frame(PRIORITY, 0, 1, b"\0\0\0\0\xff"),
    "5.1: RST_STREAM, half-closed": SENT + RESET,
    "5.1: PRIORITY, closed": SENT + RESET + frame(PRIORITY, 0, 1, b"\0\0\0\0\xff"),
    "5.1: WINDOW_UPDATE, closed": SENT + RESET + grow(1, 100),
    "6.1: DATA with padding": OPEN + frame(DATA, PADDED, 1, b"\x06test" + bytes(6)),
    "6.2: HEADERS with padding and priority": head(
        1, END_HEADERS | PADDED | PRIORITIZED, b"\x06\x80\0\0\x05\xff" + block() + bytes(6)
    ),
    "6.5: an unknown setting": setting(0xFF, 1),
    "6.7: an answer to no PING": frame(PING, ACK, 0, b"invalid!"),
    "6.10: a head in pieces": head(1, 0, block()[:1])
    + frame(CONTINUATION, 0, 1, block()[1:9])
    + frame(CONTINUATION, END_HEADERS, 1, block()[9:]),
    "7: RST_STREAM with an unknown code": OPEN + frame(RST_STREAM, 0, 1, b"\0\0\0\xff"),
    "hpack 4.2: two new sizes at the begin of a block": head(1, fields=b"\x20\x3f\xe1\x1f" + block()),
}


@pytest.mark.parametrize("case", RARE)
def test_what_is_rare(client: Raw, case: str) -> None:
    client.send(RARE[case] + frame(PING, 0, 0, b"answered"))
    assert client.until_frame(lambda kind, flags, _: kind == PING and flags == ACK) in (b"answered", bytes(8))
    client.goes_on()


def test_trailers_with_a_pseudo_field(client: Raw) -> None:
    """They are malformed (RFC 9113, 8.1). h2 0.4 drops such fields and keeps the others, so no guest sees one."""
    trailers = literally((":path", "/other"), ("x-checksum", "1"))
    echo = head(1, fields=block(path="/echo"))
    client.send(echo + frame(DATA, 0, 1, b"test") + head(1, END_HEADERS | END_STREAM, trailers))
    assert client.answers(1) == b"test"
    assert client.heads[1] == {"x-checksum": "1"}


def test_trailers_are_of_the_message_alone(client: Raw) -> None:
    """RFC 9110, 6.5.1. A client of HTTP/2 fails a response whose trailers have more."""
    trailers = literally(("x-checksum", "1"), ("content-length", "3"), ("trailer", "x-checksum"), ("host", "a"))
    client.send(head(1, fields=block(path="/echo")) + frame(DATA, 0, 1, b"test"))
    client.send(head(1, END_HEADERS | END_STREAM, trailers))
    assert client.answers(1) == b"test"
    assert client.heads[1] == {"x-checksum": "1"}


def test_a_stream_beyond_the_limit_is_refused(client: Raw) -> None:
    """RFC 9113, 5.1.2. One that is refused may be sent again (8.7)."""
    client.until_frame(lambda kind, flags, _: kind == SETTINGS and not flags & ACK)
    streams = range(1, 2 * client.settings[3] + 2, 2)
    asked = block(method="GET", path="/sleep?ms=60000")
    client.send(b"".join(head(stream, END_HEADERS | END_STREAM, asked) for stream in streams))
    assert client.is_reset(streams[-1]) == REFUSED_STREAM
    client.send(RESET)
    client.goes_on()


@pytest.mark.parametrize("before", [0, 3])
def test_the_first_window_may_change_under_way(client: Raw, before: int) -> None:
    """RFC 9113, 6.9.2. It may even become less than nothing."""
    asked = head(1, END_HEADERS | END_STREAM, block(method="GET", path="/hello"))

    def data() -> bytes:
        return client.until_frame(lambda kind, *_: kind == DATA)

    client.send(setting(4, before) + asked)
    sent = data() if before else b""
    assert len(sent) == before
    client.send(setting(4, 1) + grow(1, 3 if before else 1))
    sent += data()
    assert sent == b"Hello, World!"[: before + 1] if before else b"He"
    client.send(setting(4, 65_535))
    while len(sent) < 13:
        sent += data()
    assert sent == b"Hello, World!"
    client.goes_on()


def test_a_window_that_is_too_large_after_the_answer(client: Raw) -> None:
    """A stream whose answer has been sent has no window any more."""
    client.send(head(1, fields=block(path="/hello")))
    assert client.answers(1) == b"Hello, World!"
    client.send(grow(1, LARGEST) * 2)
    client.goes_on()


def test_a_preface_that_is_none(server: wasgi.Server, secured: wasgi.Server) -> None:
    """It ends a connection that is of HTTP/2 by ALPN. Any other may be of HTTP/1.1, which has a word for it."""
    with Raw(secured, b"INVALID CONNECTION PREFACE\r\n\r\n") as client:
        while client.frame():
            assert not client.heads
    with Raw(server, b"INVALID CONNECTION PREFACE\r\n\r\n") as client:
        assert client.rest().startswith(b"HTTP/1.1 400 Bad Request\r\n")


FLOODS = {
    "streams that are reset": b"".join(
        head(stream, END_HEADERS | END_STREAM) + frame(RST_STREAM, 0, stream, b"\0\0\0\x08")
        for stream in range(1, 20_001, 2)
    ),
    "streams that are malformed": b"".join(
        head(stream, END_HEADERS | END_STREAM, block(("te", "gzip"))) for stream in range(1, 20_001, 2)
    ),
    "a head that does not end": head(1, 0) + frame(CONTINUATION, 0, 1, block() * 100) * 2_000,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_floods_that_end_their_connection(server: wasgi.Server, flood: str) -> None:
    with Raw(server) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.send(FLOODS[flood])
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, AssertionError):
            assert client.is_ended() in (ENHANCE_YOUR_CALM, PROTOCOL_ERROR)
        until(lambda: server.stats.connections == 0)


ANSWERED = {"PING": frame(PING, 0, 0, bytes(8)), "SETTINGS": setting(4, 65_535)}


@pytest.mark.parametrize("flood", ANSWERED)
def test_what_has_to_be_answered_is_not_read_before_the_answers_are(server: wasgi.Server, flood: str) -> None:
    """A client that sends it and takes no answers stops itself: nothing piles up here."""
    with Raw(server) as client:
        client.socket.settimeout(2)
        with pytest.raises(TimeoutError):
            for _ in range(4_000):
                client.send(ANSWERED[flood] * 1_000)
        with Raw(server) as other:
            other.goes_on()
