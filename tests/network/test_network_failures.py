"""What each failure of the network is to a guest: each by a peer that does it."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import pytest
import trustme

import wasgi
from tests.conftest import AppMaker, post
from tests.peers import HELLO, ONE, Peer, answers, ask, head_of, once, resets, serving_as, stalls_after
from tests.processes import free_port
from wasgi import errors

pytestmark = pytest.mark.usefixtures("nothing_is_left")

Behaviour = Callable[[socket.socket], None]
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n"
SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhe"


def reads_nothing(connection: socket.socket) -> None:
    """Until it is shut down."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    end = select.poll()
    end.register(connection, select.POLLHUP)
    end.poll()


def reads(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def speaks_h2(answer: Callable[[h2.connection.H2Connection, int], None]) -> Behaviour:
    """A peer of HTTP/2 that answers each request so."""

    def behave(connection: socket.socket) -> None:
        state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        state.initiate_connection()
        connection.sendall(state.data_to_send())
        with contextlib.suppress(h2.exceptions.ProtocolError):  # what comes after the end
            while received := connection.recv(65536):
                for event in state.receive_data(received):
                    if isinstance(event, h2.events.RequestReceived):
                        answer(state, event.stream_id)
                connection.sendall(state.data_to_send())

    return behave


def h2_resets(code: h2.errors.ErrorCodes) -> Behaviour:
    return speaks_h2(lambda state, stream: state.reset_stream(stream, code))


def h2_goes_away(state: h2.connection.H2Connection, stream: int) -> None:
    state.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, last_stream_id=0)


def h2_large_head(size: int) -> Behaviour:
    def answer(state: h2.connection.H2Connection, stream: int) -> None:
        # incompressible for HPACK as far as its size is counted: uncompressed
        state.send_headers(stream, [(":status", "200"), ("x", "y" * size)], end_stream=True)

    return speaks_h2(answer)


def h2_breaks_off(state: h2.connection.H2Connection, stream: int) -> None:
    state.send_headers(stream, [(":status", "200")])
    state.send_data(stream, b"he")
    state.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)


def h2_ends_without_an_end(state: h2.connection.H2Connection, stream: int) -> None:
    """RFC 9113, 8.1: only after its end may a stream be reset without an error."""
    state.send_headers(stream, [(":status", "200")])
    state.send_data(stream, b"he")
    state.reset_stream(stream, h2.errors.ErrorCodes.NO_ERROR)


def h2_closes(connection: socket.socket) -> None:
    def answer(state: h2.connection.H2Connection, stream: int) -> None:
        state.send_headers(stream, [(":status", "200")])
        state.send_data(stream, b"he")
        connection.sendall(state.data_to_send())
        connection.shutdown(socket.SHUT_WR)

    speaks_h2(answer)(connection)


def h2_wrong_length(state: h2.connection.H2Connection, stream: int) -> None:
    state.send_headers(stream, [(":status", "200"), ("content-length", "9")])
    state.send_data(stream, b"he", end_stream=True)


def h2_garbage(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@dataclass
class Case:
    """A peer, and the error-code that it causes: before the head, or in the body if that has begun."""

    code: str
    peer: Behaviour
    options: dict[str, Any] = field(default_factory=dict)
    body: str | None = None
    """What of it comes first."""
    send: bytes | None = None
    """Of a POST; None: a GET."""


CASES: dict[str, Case] = {
    # before the head is whole
    "says nothing": Case("HTTP-response-incomplete", once()),
    "half a head": Case("HTTP-response-incomplete", once(b"HTTP/1.1 200 O")),
    "resets": Case("connection-terminated", resets),
    "nonsense": Case("HTTP-protocol-error", once(b"nonsense\r\n\r\n")),
    "no length": Case("HTTP-protocol-error", once(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n")),
    "two lengths": Case(
        "HTTP-protocol-error", once(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nh")
    ),
    "large head": Case(
        "HTTP-response-header-section-size", once(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n")
    ),
    "small limit of the head": Case(
        "HTTP-response-header-section-size",
        once(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300 + b"\r\n\r\n"),
        {"response_fields": 200},
    ),
    "too many fields": Case(
        "HTTP-response-header-section-size", once(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 11_000 + b"\r\n")
    ),
    "no head comes": Case("HTTP-response-timeout", stalls_after(), {"first_byte_timeout": 0.2}),
    "no end comes of the head": Case(
        "HTTP-response-timeout", stalls_after(b"HTTP/1.1 200 OK\r\nx"), {"first_byte_timeout": 0.2}
    ),
    "the whole takes too long": Case("HTTP-response-timeout", stalls_after(), {"timeout": 0.2}),
    "switches protocols": Case(
        "HTTP-upgrade-failed", once(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
    ),
    "a coding of the transfer": Case(
        "HTTP-response-transfer-coding", once(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nxx")
    ),
    "another coding below the chunks": Case(
        "HTTP-response-transfer-coding", once(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
    ),
    "two codings in two lines": Case(
        "HTTP-response-transfer-coding",
        once(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n"),
    ),
    "reads nothing": Case(
        "connection-write-timeout", reads_nothing, {"between_bytes_timeout": 0.2}, send=b"x" * 30_000_000
    ),
    # in the body
    "short": Case("HTTP-response-incomplete", once(SIZED), body="he"),
    "no last chunk": Case("HTTP-response-incomplete", once(CHUNKED), body="he"),
    "bad chunk": Case("HTTP-protocol-error", once(CHUNKED, b"xyz\r\n"), body="he"),
    "stalls": Case("connection-read-timeout", stalls_after(SIZED), {"between_bytes_timeout": 0.2}, body="he"),
    "stalls for the whole time": Case("HTTP-response-timeout", stalls_after(SIZED), {"timeout": 0.3}, body="he"),
    "large body": Case(
        "HTTP-response-body-size", stalls_after(CHUNKED, b"1\r\nx\r\n"), {"response_body": 2}, body="he"
    ),
    # HTTP/2
    "h2 garbage": Case("HTTP-protocol-error", h2_garbage, {"h2c": True}),
    "h2 cancels": Case("connection-terminated", h2_resets(h2.errors.ErrorCodes.CANCEL), {"h2c": True}),
    "h2 fails": Case("connection-terminated", h2_resets(h2.errors.ErrorCodes.INTERNAL_ERROR), {"h2c": True}),
    "h2 refuses": Case("connection-terminated", h2_resets(h2.errors.ErrorCodes.REFUSED_STREAM), {"h2c": True}),
    "h2 wants HTTP/1.1": Case("HTTP-upgrade-failed", h2_resets(h2.errors.ErrorCodes.HTTP_1_1_REQUIRED), {"h2c": True}),
    "h2 finds fault": Case("HTTP-protocol-error", h2_resets(h2.errors.ErrorCodes.PROTOCOL_ERROR), {"h2c": True}),
    "h2 has enough": Case("connection-limit-reached", speaks_h2(h2_goes_away), {"h2c": True}),
    "h2 large head": Case(
        "HTTP-response-header-section-size", h2_large_head(12_000), {"h2c": True, "response_fields": 10_000}
    ),
    "h2 breaks off": Case("connection-terminated", speaks_h2(h2_breaks_off), {"h2c": True}, body="he"),
    "h2 ends without an end": Case(
        "HTTP-response-incomplete", speaks_h2(h2_ends_without_an_end), {"h2c": True}, body="he"
    ),
    "h2 loses its connection": Case("HTTP-response-incomplete", h2_closes, {"h2c": True}, body="he"),
    "h2 wrong length": Case("HTTP-response-body-size", speaks_h2(h2_wrong_length), {"h2c": True}, body=""),
    "h2 no head": Case("HTTP-response-timeout", speaks_h2(lambda *_: None), {"h2c": True, "first_byte_timeout": 0.2}),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_a_peer_that_misbehaves(app: AppMaker, case: Case) -> None:
    with Peer(case.peer) as peer:
        made = app(outgoing=wasgi.Network([peer.url], **case.options))
        if case.body is not None:
            came, _, told = ask(made, peer.url).text.partition("[broken: Some(ErrorCode::")
            assert (came, told.rstrip(")]").partition("(")[0].lower()) == (
                case.body,
                case.code.replace("-", "").lower(),
            )
            return
        with pytest.raises(errors.ErrorCode) as raised:
            if case.send is None:
                ask(made, peer.url)
            else:
                made.handle(post(f"/proxy?url={peer.url}/", case.send))
        assert raised.value.code == case.code


# connecting, and what needs more than a peer


def test_refused(app: AppMaker) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(errors.ConnectionRefused):
        ask(app(outgoing=wasgi.Network([url])), url)


def test_no_such_name(app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
    """Told as the system's resolver tells it to Python."""
    with pytest.raises(socket.gaierror) as theirs:
        socket.getaddrinfo("no-such-name.invalid", 80)
    with caplog.at_level(logging.INFO, "wasgi.outgoing"), pytest.raises(errors.DnsError) as raised:
        ask(app(outgoing=wasgi.Network(["*"])), "http://no-such-name.invalid")
    rcodes: dict[int | None, str] = {
        socket.EAI_NONAME: "NXDOMAIN",
        socket.EAI_AGAIN: "SERVFAIL",
        socket.EAI_NODATA: "NOERROR",
    }
    assert raised.value.rcode == rcodes.get(theirs.value.errno)
    assert "no-such-name.invalid" in caplog.text


def test_a_handshake_that_does_not_come(app: AppMaker) -> None:
    """TLS counts as connecting."""
    with Peer(reads) as peer:
        url = f"https://{peer.authority}"
        with pytest.raises(errors.ConnectionTimeout):
            ask(app(outgoing=wasgi.Network([url], connect_timeout=0.2)), url)
        with pytest.raises(errors.ConnectionTimeout):
            ask(app(outgoing=wasgi.Network([url], connect_timeout=60)), url, connect_ms="200")


@pytest.mark.parametrize("option", ["first_byte_ms", "between_bytes_ms"])
def test_a_guests_own_patience_is_shorter(app: AppMaker, option: str) -> None:
    behave = stalls_after() if option == "first_byte_ms" else stalls_after(SIZED)
    limits: dict[str, Any] = {"first_byte_timeout": 60, "between_bytes_timeout": 60}
    with Peer(behave) as peer:
        made = app(outgoing=wasgi.Network([peer.url], **limits))
        if option == "first_byte_ms":
            with pytest.raises(errors.ConnectionReadTimeout):
                ask(made, peer.url, first_byte_ms="200")
        else:
            assert "ConnectionReadTimeout" in ask(made, peer.url, between_bytes_ms="200").text


def test_the_first_byte_is_waited_for_since_the_connection(app: AppMaker, authority: trustme.CA) -> None:
    """A slow handshake is the connection's time."""
    context = serving_as(authority.issue_cert("127.0.0.1"))
    ready = threading.Event()

    def slowly(connection: socket.socket) -> None:
        ready.wait(0.5)
        with context.wrap_socket(connection.dup(), server_side=True) as wrapped:
            answers(HELLO)(wrapped)

    with Peer(slowly) as peer:
        url = f"https://{peer.authority}"
        network = wasgi.Network([url], ca=authority.cert_pem.bytes(), first_byte_timeout=0.4, connect_timeout=30)
        assert ask(app(outgoing=network), url).text == "hello"


@pytest.mark.parametrize("wrong", ["authority", "name", "expired", "not yet"])
def test_certificates_that_are_not_to_be_trusted(
    app: AppMaker, authority: trustme.CA, trusted: bytes, wrong: str
) -> None:
    import datetime

    def at(year: int) -> datetime.datetime:
        return datetime.datetime(year, 1, 1, tzinfo=datetime.UTC)

    certificate = {
        "authority": lambda: trustme.CA().issue_cert("127.0.0.1"),
        "name": lambda: authority.issue_cert("example.com"),
        "expired": lambda: authority.issue_cert("127.0.0.1", not_before=at(2020), not_after=at(2021)),
        "not yet": lambda: authority.issue_cert("127.0.0.1", not_before=at(2090), not_after=at(2091)),
    }[wrong]()
    with Peer(answers(HELLO), serving_as(certificate)) as peer, pytest.raises(errors.TlsCertificateError):
        ask(app(outgoing=wasgi.Network([peer.url], ca=trusted)), peer.url)


def test_a_server_without_tls(app: AppMaker) -> None:
    with Peer(lambda connection: connection.sendall(HELLO)) as peer:
        url = f"https://{peer.authority}"
        with pytest.raises(errors.TlsProtocolError):
            ask(app(outgoing=wasgi.Network([url])), url)


def test_a_server_that_ends_in_the_handshake(app: AppMaker) -> None:
    def takes_one_byte(connection: socket.socket) -> None:
        connection.recv(1)

    with Peer(takes_one_byte) as peer:
        url = f"https://{peer.authority}"
        with pytest.raises(errors.ConnectionTerminated):
            ask(app(outgoing=wasgi.Network([url])), url)


@pytest.mark.parametrize("protocols", [(), ("h2",)], ids=["HTTP/1.1", "HTTP/2"])
def test_an_alert(app: AppMaker, authority: trustme.CA, trusted: bytes, protocols: tuple[str, ...]) -> None:
    """After the handshake, as TLS 1.3 has it."""
    context = serving_as(authority.issue_cert("127.0.0.1"), *protocols)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    with Peer(answers(HELLO), context) as peer, pytest.raises(errors.TlsAlertReceived) as raised:
        ask(app(outgoing=wasgi.Network([peer.url], ca=trusted)), peer.url)
    assert raised.value.alert_id == 116, "certificate_required (RFC 8446, 6.2)"


def test_tls_that_is_too_old(app: AppMaker, authority: trustme.CA, trusted: bytes) -> None:
    """The peer speaks nothing newer than what the other side's suite refuses."""
    context = serving_as(authority.issue_cert("127.0.0.1"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA")
    with Peer(answers(HELLO), context) as peer, pytest.raises(errors.TlsAlertReceived) as raised:
        ask(app(outgoing=wasgi.Network([peer.url], ca=trusted)), peer.url)
    assert raised.value.alert_id == 40, "handshake_failure (RFC 5246, 7.2.2)"


def test_large_trailers(app: AppMaker) -> None:
    """Past the limit of the guest."""
    trailers = b"0\r\nx: " + b"y" * 5_000 + b"\r\n\r\n"
    with Peer(stalls_after(CHUNKED, trailers)) as peer:
        made = app(outgoing=wasgi.Network([peer.url]), limits=wasgi.Limits(fields=4_000))
        assert "HttpResponseTrailerSectionSize" in ask(made, peer.url).text


# every error-code that a client can cause is caused here, or where this says
ELSEWHERE = {
    "DNS-timeout": "src/dial.rs: no resolver of this machine can be made to hang",
    "DNS-error": test_no_such_name,
    "destination-not-found": "test_upstreams.py: no route fits",
    "destination-unavailable": "test_proxies.py",
    "destination-IP-prohibited": "test_network_policy.py",
    "destination-IP-unroutable": "test_proxies.py: one that a proxy has seen",
    "connection-refused": test_refused,
    "connection-timeout": test_a_handshake_that_does_not_come,
    "TLS-protocol-error": test_a_server_without_tls,
    "TLS-certificate-error": test_certificates_that_are_not_to_be_trusted,
    "TLS-alert-received": test_an_alert,
    "HTTP-request-denied": "test_network_policy.py",
    "HTTP-response-trailer-section-size": test_large_trailers,
    "configuration-error": "test_proxies.py: a password that is wrong",
    "loop-detected": "test_upstreams.py",
}
# the guest's own doing, or a server's word: no failure of a client
NOT_A_CLIENTS = {
    "HTTP-request-length-required",
    "HTTP-request-body-size",
    "HTTP-request-method-invalid",
    "HTTP-request-URI-invalid",
    "HTTP-request-URI-too-long",
    "HTTP-request-header-section-size",
    "HTTP-request-header-size",
    "HTTP-request-trailer-section-size",
    "HTTP-request-trailer-size",
    # sections are limited, not single fields
    "HTTP-response-header-size",
    "HTTP-response-trailer-size",
    # content is the guest's: nothing is decoded here
    "HTTP-response-content-coding",
    "internal-error",
}


def test_the_table_is_complete() -> None:
    caused = {case.code for case in CASES.values()} | set(ELSEWHERE)
    assert caused | NOT_A_CLIENTS == {leaf.code for leaf in errors.ErrorCode.__subclasses__() if leaf.code} | {
        leaf.code for middle in errors.ErrorCode.__subclasses__() for leaf in middle.__subclasses__()
    }
    assert not caused & NOT_A_CLIENTS


def wait_then_close(connection: socket.socket, seconds: float) -> None:
    """Takes what comes for so long; then it is gone."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        connection.settimeout(left)
        with contextlib.suppress(TimeoutError):
            if not connection.recv(65536):
                return


class TestRetries:
    def counting(self, failures: int, bad: Behaviour) -> tuple[Behaviour, list[int]]:
        seen: list[int] = []

        def behave(connection: socket.socket) -> None:
            seen.append(1)
            (bad if len(seen) <= failures else answers(HELLO))(connection)

        return behave, seen

    def test_what_may_pass_is_tried_again(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        behave, seen = self.counting(2, once())
        with Peer(behave) as peer, caplog.at_level(logging.INFO, "wasgi.outgoing"):
            assert ask(app(outgoing=wasgi.Network([peer.url], retries=2)), peer.url).text == "hello"
        assert len(seen) == 3
        assert sum("retrying" in message for message in caplog.messages) == 2

    def test_but_not_more_often(self, app: AppMaker) -> None:
        behave, seen = self.counting(9, once())
        with Peer(behave) as peer, pytest.raises(errors.HttpResponseIncomplete):
            ask(app(outgoing=wasgi.Network([peer.url], retries=2)), peer.url)
        assert len(seen) == 3

    def test_and_not_by_default(self, app: AppMaker) -> None:
        behave, seen = self.counting(1, once())
        with Peer(behave) as peer, pytest.raises(errors.HttpResponseIncomplete):
            ask(app(outgoing=wasgi.Network([peer.url])), peer.url)
        assert len(seen) == 1

    def test_nor_what_may_have_been_done(self, app: AppMaker) -> None:
        behave, seen = self.counting(1, once())
        with Peer(behave) as peer, pytest.raises(errors.HttpResponseIncomplete):
            ask(app(outgoing=wasgi.Network([peer.url], retries=2)), peer.url, method="POST", body="x")
        assert len(seen) == 1

    def test_a_connection_may_fail_whatever_it_is_for(
        self, app: AppMaker, authority: trustme.CA, trusted: bytes
    ) -> None:
        """Nothing of the request has been sent, its body included."""
        context = serving_as(authority.issue_cert("127.0.0.1"))

        def secured(connection: socket.socket) -> None:
            with context.wrap_socket(connection.dup(), server_side=True) as wrapped:
                received = head_of(wrapped)
                while not received.endswith(b"0\r\n\r\n"):
                    received += wrapped.recv(65536)
                wrapped.sendall(HELLO)

        attempts: list[int] = []

        def behave(connection: socket.socket) -> None:
            attempts.append(1)
            if len(attempts) > 2:
                secured(connection)

        with Peer(behave) as peer:
            url = f"https://{peer.authority}"
            made = app(outgoing=wasgi.Network([url], ca=trusted, retries=2))
            assert made.handle(post(f"/proxy?url={url}/", b"body")).text == "hello"
        assert len(attempts) == 3

    def test_connecting_has_one_bound_for_all_of_them(self, app: AppMaker) -> None:
        """The host's, or the guest's own, if that is shorter."""
        for limit, option in ((0.7, {}), (60, {"connect_ms": "700"})):
            with Peer(lambda connection: wait_then_close(connection, 0.3)) as peer:
                url = f"https://{peer.authority}"
                made = app(outgoing=wasgi.Network([url], connect_timeout=limit, retries=4))
                with pytest.raises((errors.ConnectionTimeout, errors.ConnectionTerminated)):
                    ask(made, url, **option)
                # of 0.3 s each, and pauses; 5 without a bound
                assert 1 <= peer.accepted <= 3

    def test_so_has_the_wait_for_the_head(self, app: AppMaker) -> None:
        for option, code in (
            ({}, errors.HttpResponseTimeout),
            ({"first_byte_ms": "700"}, errors.ConnectionReadTimeout),
        ):
            limit = 60 if option else 0.7
            with Peer(lambda connection: wait_then_close(connection, 0.3)) as peer:
                made = app(outgoing=wasgi.Network([peer.url], first_byte_timeout=limit, retries=4))
                with pytest.raises(code):
                    ask(made, peer.url, **option)
                assert 1 <= peer.accepted <= 3

    def test_what_is_left_of_the_time_is_not_waited_for(self, app: AppMaker) -> None:
        """The last failure is told as it was: no pause before another attempt fits in."""
        url = f"http://127.0.0.1:{free_port()}"
        with pytest.raises(errors.ConnectionRefused):
            ask(app(outgoing=wasgi.Network([url], connect_timeout=0.2, retries=16)), url)

    def test_no_policy_is_asked_twice(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "wasgi.outgoing"), pytest.raises(errors.DestinationIpProhibited):
            ask(app(outgoing=wasgi.Network(["*"], retries=2)), "http://127.0.0.1/")
        assert not any("retrying" in message for message in caplog.messages)


def test_a_slow_reader_is_none_that_does_not_read(app: AppMaker) -> None:
    """A socket can be written to again only when much of what lies in it has been read."""
    received = 0

    def behave(connection: socket.socket) -> None:
        nonlocal received
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        pause = threading.Event()
        while (chunk := connection.recv(65536))[-5:] != b"0\r\n\r\n":
            received += len(chunk)
            pause.wait(0.01)
        connection.sendall(HELLO)

    with Peer(behave) as peer:
        made = app(outgoing=wasgi.Network([peer.url], between_bytes_timeout=0.3))
        assert made.handle(post(f"/proxy?url={peer.url}/", b"x" * 6_000_000)).text == "hello"
    assert received > 5_900_000


def test_everybody_who_waits_for_a_handshake_is_told_so(app: AppMaker) -> None:
    with Peer(reads) as peer, ThreadPoolExecutor(4) as pool:
        url = f"https://{peer.authority}"
        made = app(outgoing=wasgi.Network([url], connect_timeout=0.3))
        asked = [pool.submit(ask, made, url) for _ in range(4)]
        assert {type(one.exception(30)) for one in asked} == {errors.ConnectionTimeout}


class TestKeptConnections:
    """One that the peer has closed just when it was used again: that is nobody's failure."""

    @staticmethod
    def closes_the_second(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(HELLO)
        head_of(connection)

    def test_a_request_that_does_nothing_twice_gets_another(self, app: AppMaker) -> None:
        with Peer(self.closes_the_second) as peer:
            made = app(outgoing=wasgi.Network([peer.url]))
            for _ in range(4):
                assert ask(made, peer.url).text == "hello"
            assert peer.accepted == 4

    def test_one_that_may_have_been_done_does_not(self, app: AppMaker) -> None:
        with Peer(self.closes_the_second) as peer:
            made = app(outgoing=wasgi.Network([peer.url], **ONE))
            assert ask(made, peer.url).text == "hello"
            # whether it has read the request before it closes is the peer's system's
            with pytest.raises((errors.HttpResponseIncomplete, errors.ConnectionTerminated)):
                ask(made, peer.url, method="POST", body="x")
            assert peer.accepted == 1

    def test_nor_one_that_the_peer_has_begun_to_answer(self, app: AppMaker) -> None:
        seen: list[bytes] = []

        def behave(connection: socket.socket) -> None:
            head_of(connection)
            connection.sendall(HELLO)
            seen.append(head_of(connection))
            connection.sendall(b"HTTP/1.1 20")

        with Peer(behave) as peer:
            made = app(outgoing=wasgi.Network([peer.url], **ONE))
            assert ask(made, peer.url).text == "hello"
            with pytest.raises(errors.HttpResponseIncomplete):
                ask(made, peer.url, method="DELETE")
            assert len(seen) == 1

    def test_nor_one_whose_stream_was_reset(self, app: AppMaker) -> None:
        streams: list[int] = []

        def answer(state: h2.connection.H2Connection, stream: int) -> None:
            streams.append(stream)
            if len(streams) > 1:
                state.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
                return
            state.send_headers(stream, [(":status", "200")])
            state.send_data(stream, b"hello", end_stream=True)

        with Peer(speaks_h2(answer)) as peer:
            made = app(outgoing=wasgi.Network([peer.url], h2c=True))
            assert ask(made, peer.url).text == "hello"
            with pytest.raises(errors.ConnectionTerminated):
                ask(made, peer.url, method="DELETE")
            assert len(streams) == 2

    def test_a_stream_that_was_refused_is_sent_again(self, app: AppMaker) -> None:
        """RFC 9113, 8.7: it was not processed."""
        refused: list[int] = []

        def answer(state: h2.connection.H2Connection, stream: int) -> None:
            if not refused:
                refused.append(stream)
                state.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
                return
            state.send_headers(stream, [(":status", "200")])
            state.send_data(stream, b"hello", end_stream=True)

        with Peer(speaks_h2(answer)) as peer:
            assert ask(app(outgoing=wasgi.Network([peer.url], h2c=True)), peer.url).text == "hello"
            assert len(refused) == 1
