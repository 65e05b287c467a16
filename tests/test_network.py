"""`wasgi.Network`: what it reaches and what not, its connections, and what each failure is to a guest."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
import trustme

import wasgi
from wasgi import errors
from wasgi.outgoing import call

from .conftest import AppMaker, get, post, until
from .processes import free_port, serving

OVER = "/fetch-or-code?url="
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

    def __enter__(self) -> Peer:
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


class TestRequests:
    def test_what_arrives_is_what_was_asked(self, app: AppMaker) -> None:
        heads: list[bytes] = []

        def behave(connection: socket.socket) -> None:
            heads.append(head_of(connection))
            connection.sendall(b"HTTP/1.1 201 Made\r\nX-Up: 1\r\nx-up: 2\r\ncontent-length: 2\r\n\r\nok")

        with Peer(behave) as peer:
            made = app(outgoing=wasgi.Network([peer.url]))
            response = ask(made, f"{peer.url}/a%20b?q=1", header="x-a:b")
        assert (response.status, response.text) == (201, "ok")
        assert response.headers.get_all("x-up") == ["1", "2"]
        lines = heads[0].decode().split("\r\n")
        assert lines[0] == "GET /a%20b?q=1 HTTP/1.1"
        assert sorted(lines[1:-2]) == [f"host: {peer.authority}", "x-a: b"]

    def test_bodies_stream_both_ways(self, app: AppMaker) -> None:
        def behave(connection: socket.socket) -> None:
            with connection.makefile("rb") as sent:
                while sent.readline() != b"\r\n":
                    pass
                connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                while size := int(sent.readline(), 16):
                    connection.sendall(b"%x\r\n" % size + sent.read(size + 2))
                connection.sendall(b"0\r\nx-sum: 7\r\n\r\n")

        with Peer(behave) as peer:
            made = app(outgoing=wasgi.Network([peer.url]))
            response = made.handle(post(f"/proxy?url={peer.url}/", b"x" * 1_000_000))
            assert response.read() == b"x" * 1_000_000
            assert response.trailers is not None
            assert response.trailers["x-sum"] == "7"

    @pytest.mark.parametrize("method", ["GET", "OPTIONS", "DELETE", "POST"])
    @pytest.mark.parametrize("body", [b"", b"hello"])
    def test_framing(self, app: AppMaker, method: str, body: bytes) -> None:
        """What a guest writes arrives, with whatever method; and nothing is announced that does not come."""
        heads: list[bytes] = []

        def behave(connection: socket.socket) -> None:
            received = head_of(connection)
            while b"chunked" in received and not received.endswith(b"0\r\n\r\n"):
                received += connection.recv(65536)
            heads.append(received)
            connection.sendall(HELLO)

        with Peer(behave) as peer:
            made = app(outgoing=wasgi.Network([peer.url]))
            request = wasgi.Request(method, f"http://guest.local/proxy?url={peer.url}/", body=body)
            assert made.handle(request).text == "hello"
        head, _, rest = heads[0].partition(b"\r\n\r\n")
        if body:
            assert rest == b"5\r\nhello\r\n0\r\n\r\n"
        elif method != "POST":
            assert (b"transfer-encoding" in head, rest) == (False, b"")

    async def test_it_needs_no_python(self, app: AppMaker) -> None:
        with Peer(answers(HELLO)) as peer:
            made = app(outgoing=wasgi.outgoing.route({peer.authority: wasgi.Network([peer.url])}))
            response = await made.handle_async(get(f"{OVER}{peer.url}/"))
            assert await response.aread() == b"hello"
            assert wasgi.stats().calls == 0

    def test_a_name(self, app: AppMaker) -> None:
        with Peer(answers(HELLO)) as peer:
            url = f"http://localhost:{peer.port}"
            assert ask(app(outgoing=wasgi.Network([url], allow_private=True)), url).text == "hello"
            assert ask(app(outgoing=wasgi.Network([url], addresses=["127.0.0.0/8", "::1"])), url).text == "hello"


class TestConnections:
    def test_they_are_kept_and_shared(self, app: AppMaker) -> None:
        with Peer(answers(HELLO)) as peer:
            network = wasgi.Network([peer.url])
            for _ in range(5):
                assert ask(app(outgoing=network), peer.url).text == "hello"
            assert peer.accepted == 1
            assert ask(app(outgoing=wasgi.Network([peer.url])), peer.url).text == "hello"
            assert peer.accepted == 2, "another policy has its own"
            del network

    def test_one_that_the_peer_closes_is_not_used_again(self, app: AppMaker) -> None:
        closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"
        for answer in (closing, b"HTTP/1.0 200 OK\r\n\r\nhello"):
            with Peer(once(answer)) as peer:
                made = app(outgoing=wasgi.Network([peer.url]))
                for _ in range(5):
                    assert ask(made, peer.url).text == "hello"
                assert peer.accepted == 5

    @pytest.mark.parametrize(
        "behave", [once(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhe"), once(b"nonsense\r\n\r\n")]
    )
    def test_one_that_broke_is_not_used_again(self, app: AppMaker, behave: Any) -> None:
        good = threading.Event()

        def either(connection: socket.socket) -> None:
            (answers(HELLO) if good.is_set() else behave)(connection)

        with Peer(either) as peer:
            made = app(outgoing=wasgi.Network([peer.url], max_connections=1))
            with contextlib.suppress(errors.ErrorCode):
                assert "broken" in ask(made, peer.url).text
            good.set()
            until(lambda: reached(made, peer.url))
            assert ask(made, peer.url).text == "hello"

    def test_there_are_no_more_than_allowed(self, app: AppMaker) -> None:
        with Peer(stalls_after(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhe")) as peer:
            made = app(outgoing=wasgi.Network([peer.url], max_connections=2))
            with ask(made, peer.url), ask(made, peer.url), pytest.raises(errors.ConnectionLimitReached):
                ask(made, peer.url)
            until(lambda: reached(made, peer.url))

    def test_a_guest_that_goes_away_closes_its_own(self, app: AppMaker) -> None:
        closed = threading.Event()

        def behave(connection: socket.socket) -> None:
            head_of(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhe")
            assert connection.recv(1) == b""
            closed.set()

        with Peer(behave) as peer:
            made = app(outgoing=wasgi.Network([peer.url]))
            with made.handle(get(f"/fetch?url={peer.url}")) as response:
                assert next(iter(response)) == b"he"
            assert closed.wait(30)

    def test_a_forked_child_has_its_own(self, app: AppMaker) -> None:
        with Peer(answers(HELLO)) as peer:
            made = app(outgoing=wasgi.Network([peer.url]))
            assert ask(made, peer.url).text == "hello"
            child = os.fork()
            if child == 0:
                code = 1
                with contextlib.suppress(BaseException):
                    code = 0 if ask(made, peer.url).text == "hello" else 2
                os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert ask(made, peer.url).text == "hello"
            assert peer.accepted == 2


def reached(app: wasgi.App, url: str) -> bool:
    """Whether there is a place for a connection (again)."""
    try:
        app.handle(get(f"/fetch-in-turn?n=1&url={url}"))
        ask(app, url).close()
    except errors.ConnectionLimitReached:
        return False
    return True


class TestFailures:
    """Each by a peer that does it."""

    @pytest.mark.parametrize(
        ("behave", "code"),
        [
            (lambda connection: None, (errors.HttpResponseIncomplete, errors.ConnectionTerminated)),
            (once(), errors.HttpResponseIncomplete),
            (once(b"HTTP/1.1 200 O"), errors.HttpResponseIncomplete),
            (resets, errors.ConnectionTerminated),
            (once(b"nonsense\r\n\r\n"), errors.HttpProtocolError),
            (once(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"), errors.HttpProtocolError),
            (once(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n"), errors.HttpResponseHeaderSectionSize),
        ],
        ids=["closes", "says nothing", "half a head", "resets", "nonsense", "no length", "large head"],
    )
    def test_before_the_head_is_whole(self, app: AppMaker, behave: Any, code: Any) -> None:
        with Peer(behave) as peer, pytest.raises(code):
            ask(app(outgoing=wasgi.Network([peer.url])), peer.url)

    @pytest.mark.parametrize(
        ("behave", "code"),
        [
            (once(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhe"), "HttpResponseIncomplete"),
            (once(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n"), "HttpResponseIncomplete"),
            (once(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\nxyz\r\n"), "HttpProtocolError"),
            (stalls_after(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhe"), "ConnectionReadTimeout"),
        ],
        ids=["short", "no last chunk", "bad chunk", "stalls"],
    )
    def test_in_the_body(self, app: AppMaker, behave: Any, code: str) -> None:
        with Peer(behave) as peer:
            made = app(outgoing=wasgi.Network([peer.url], between_bytes_timeout=0.2))
            assert ask(made, peer.url).text == f"he[broken: Some(ErrorCode::{code})]"

    def test_nobody_listens(self, app: AppMaker) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        with pytest.raises(errors.ConnectionRefused):
            ask(app(outgoing=wasgi.Network([url])), url)

    def test_no_such_name(self, app: AppMaker) -> None:
        with pytest.raises(errors.DnsError):
            ask(app(outgoing=wasgi.Network(["*"])), "http://no-such-name.invalid")

    def test_a_head_that_does_not_come(self, app: AppMaker) -> None:
        with Peer(stalls_after()) as peer:
            with pytest.raises(errors.HttpResponseTimeout):
                ask(app(outgoing=wasgi.Network([peer.url], first_byte_timeout=0.2)), peer.url)
            with pytest.raises(errors.ErrorCode) as raised:
                ask(app(outgoing=wasgi.Network([peer.url], first_byte_timeout=60)), peer.url, first_byte_ms="200")
            assert raised.value.code in ("HTTP-response-timeout", "connection-read-timeout"), (
                "the guest's own is shorter"
            )

    def test_a_handshake_that_does_not_come(self, app: AppMaker) -> None:
        """TLS counts as connecting."""

        def reads(connection: socket.socket) -> None:
            while connection.recv(65536):
                pass

        with Peer(reads) as peer:
            url = f"https://{peer.authority}"
            with pytest.raises(errors.ConnectionTimeout):
                ask(app(outgoing=wasgi.Network([url], connect_timeout=0.2)), url)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusted(authority: trustme.CA) -> bytes:
    pem: bytes = authority.cert_pem.bytes()
    return pem


def serving_as(certificate: trustme.LeafCert, *protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


class TestTls:
    def test_an_authority_of_ones_own(
        self, app: AppMaker, authority: trustme.CA, trusted: bytes, tmp_path: Path
    ) -> None:
        path = tmp_path / "ca.pem"
        path.write_bytes(trusted)
        with Peer(answers(HELLO), serving_as(authority.issue_cert("127.0.0.1"))) as peer:
            for options in ({"ca": trusted}, {"ca": path, "only_ca": True}):
                assert ask(app(outgoing=wasgi.Network([peer.url], **options)), peer.url).text == "hello"

    @pytest.mark.parametrize("wrong", ["authority", "name", "expired"])
    def test_certificates_that_are_not_to_be_trusted(
        self, app: AppMaker, authority: trustme.CA, trusted: bytes, wrong: str
    ) -> None:
        import datetime

        past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
        certificate = {
            "authority": lambda: trustme.CA().issue_cert("127.0.0.1"),
            "name": lambda: authority.issue_cert("example.com"),
            "expired": lambda: authority.issue_cert("127.0.0.1", not_before=past, not_after=past.replace(year=2021)),
        }[wrong]()
        with Peer(answers(HELLO), serving_as(certificate)) as peer, pytest.raises(errors.TlsCertificateError):
            ask(app(outgoing=wasgi.Network([peer.url], ca=trusted)), peer.url)

    def test_a_server_without_tls(self, app: AppMaker) -> None:
        with Peer(lambda connection: connection.sendall(HELLO)) as peer:
            url = f"https://{peer.authority}"
            with pytest.raises(errors.TlsProtocolError):
                ask(app(outgoing=wasgi.Network([url])), url)

    def test_a_client_without_tls(self, app: AppMaker, authority: trustme.CA) -> None:
        with Peer(answers(HELLO), serving_as(authority.issue_cert("127.0.0.1"))) as peer:
            url = f"http://{peer.authority}"
            with pytest.raises(errors.ErrorCode):
                ask(app(outgoing=wasgi.Network([url])), url)

    def test_a_server_that_asks_who_we_are(self, app: AppMaker, authority: trustme.CA, trusted: bytes) -> None:
        context = serving_as(authority.issue_cert("127.0.0.1"))
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
        ours = authority.issue_cert("client@example.com")
        known: dict[str, Any] = {
            "client_cert": b"".join(blob.bytes() for blob in ours.cert_chain_pems),
            "client_key": ours.private_key_pem.bytes(),
        }
        with Peer(answers(HELLO), context) as peer:
            assert ask(app(outgoing=wasgi.Network([peer.url], ca=trusted, **known)), peer.url).text == "hello"
            with pytest.raises(errors.TlsAlertReceived) as raised:
                ask(app(outgoing=wasgi.Network([peer.url], ca=trusted)), peer.url)
            assert raised.value.alert_id == 116, "certificate_required (RFC 8446, 6.2)"

    def test_http2(self, app: AppMaker, authority: trustme.CA, trusted: bytes, tmp_path: Path) -> None:
        """Against hypercorn, which agrees on it by ALPN."""
        certificate, port = authority.issue_cert("127.0.0.1"), free_port()
        certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
        certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        tls = ["--certfile", str(tmp_path / "cert.pem"), "--keyfile", str(tmp_path / "key.pem")]
        command = ["hypercorn", "tests.served_versions:application", "--bind", f"127.0.0.1:{port}", *tls]
        url = f"https://127.0.0.1:{port}"
        context = ssl.create_default_context(cadata=trusted.decode())
        with (
            httpx2.Client(verify=context) as client,
            serving(command, lambda: client.get(url, headers={"connection": "close"}).status_code == 200),
        ):
            for http2, version in ((True, "2"), (False, "1.1")):
                made = app(outgoing=wasgi.Network([url], ca=trusted, http2=http2))
                assert ask(made, f"{url}/version").text == version
                echoed = made.handle(post(f"/proxy?url={url}/echo", b"x" * 300_000))
                assert echoed.read() == b"x" * 300_000
            del made, echoed  # and with them the connections, for which hypercorn would wait


class Canary:
    """Listens on all of loopback; whoever gets there was let through."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.listener.setblocking(False)

    def __enter__(self) -> Canary:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()

    def was_reached(self) -> bool:
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True


# spellings of what is not the public internet, as a guest may write them; PORT is the canary's
INSIDE = """
127.0.0.1 127.1 127.0.1 127.0.0.1. 0177.0.0.1 0x7f.0.0.1 0x7f000001 2130706433 017700000001
127.0.0.01 0x7f.1 127.0x0.1 127.255.255.254 0.0.0.0 0 0x0 0.0.0.1 localhost LOCALHOST localhost.
LocalHost. [::1] [0:0:0:0:0:0:0:1] [0000::0001] [::] [::ffff:127.0.0.1] [::ffff:7f00:1]
[0:0:0:0:0:ffff:127.0.0.1] [::127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b:1::1]
[2002:7f00:1::] [2001::1] [fe80::1] [fc00::1] [fd00:ec2::254] [ff02::1] [2001:db8::1] [fec0::1]
[100::1] 10.0.0.1 10.255.255.255 0xa.0.0.1 172.16.0.1 172.31.255.255 192.168.0.1 3232235521
100.64.0.1 100.100.100.200 169.254.169.254 0xa9fea9fe 2852039166 0251.0376.0251.0376 169.254.0.1
168.63.129.16 [::ffff:169.254.169.254] 192.0.2.1 198.51.100.1 203.0.113.1 198.18.0.1 192.0.0.1
224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
""".split()  # noqa: SIM905 - a list of them would be a page
# what is no host, or tries to be two things at once
TRICKS = [
    "user@127.0.0.1",
    "example.com@127.0.0.1",
    "127.0.0.1%00.example.com",
    "127.0.0.1%2e",
    "[::1%25lo]",
    "[fe80::1%25eth0]",
    "[::1",
    "::1",
    "127.0.0.1:80:80",
    "127.0.0.1 .example.com",
    "127.0.0.1\t",
    "127.0.0.1\r\nx-injected: 1",
    "127.0.0.1#.example.com",
    "127.0.0.1?.example.com",
    "127.0.0.1\\.example.com",
    "\u2460\u2461\u2466.0.0.1",
    "127\u30020\u30020\u30021",
    "..",
    "",
]


class TestPolicy:
    @pytest.mark.parametrize("host", INSIDE)
    def test_what_is_not_the_public_internet_is_prohibited(self, app: AppMaker, host: str) -> None:
        made = app(outgoing=wasgi.Network(["*"], connect_timeout=2))
        with Canary() as canary:
            with pytest.raises(errors.DestinationIpProhibited):
                ask(made, f"http://{host}:{canary.port}/")
            assert not canary.was_reached()

    @pytest.mark.parametrize("host", TRICKS)
    def test_tricks_reach_nobody(self, app: AppMaker, host: str) -> None:
        """Some the guest's own interface refuses, some the policy."""
        made = app(outgoing=wasgi.Network(["*"], connect_timeout=2))
        with Canary() as canary:
            with pytest.raises(wasgi.ErrorCode) as raised:
                ask(made, f"http://{host}:{canary.port}/")
            assert not canary.was_reached()
        refused = {"HTTP-request-denied", "HTTP-request-URI-invalid", "destination-IP-prohibited", "DNS-error"}
        assert raised.value.code in refused

    def test_only_what_is_allowed_is_asked(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        with Peer(answers(HELLO)) as peer:
            rules: dict[str, Any] = {"deny": [f"{peer.url}/secret"], "methods": ["GET"]}
            made = app(outgoing=wasgi.Network([f"{peer.url}/v1/*", f"{peer.url}/secret"], **rules))
            assert ask(made, f"{peer.url}/v1/x").text == "hello"
            for path, options, rule in (
                ("/v2", {}, "nothing in `allow` fits it"),
                ("/v1/../secret", {}, "`deny` has"),
                ("/v1/%2e%2e/secret", {}, "`deny` has"),
                ("/secret/x", {}, "`deny` has"),
                ("//secret", {}, "`deny` has"),
                ("/secret;a=b", {}, "`deny` has"),
                ("/%2fsecret", {}, "`deny` has"),
                ("/secret%00", {}, "`deny` has"),
                ("/v1/../v1/x", {}, "`deny` has"),
                ("/v1/x", {"method": "POST"}, "`methods`: POST"),
                ("/v1/x", {"header": "host:example.com"}, "`host` is not its URL's"),
            ):
                caplog.clear()
                with caplog.at_level(logging.INFO, "wasgi.outgoing"), pytest.raises(wasgi.ErrorCode) as raised:
                    ask(made, f"{peer.url}{path}", **options)
                if "header" in options and raised.value.code == "configuration-error":
                    continue  # the guest's own interface refuses to set it
                assert raised.value.code == "HTTP-request-denied"
                assert any("was denied" in message and rule in message for message in caplog.messages)
            assert peer.accepted == 1

    def test_an_address_that_is_denied_is_denied_by_any_name(self, app: AppMaker) -> None:
        with Peer(answers(HELLO)) as peer:
            rules: dict[str, Any] = {"allow_private": True, "deny": ["127.0.0.1", "[::1]"]}
            with pytest.raises(errors.DestinationIpProhibited):
                ask(app(outgoing=wasgi.Network(["*"], **rules)), f"http://localhost:{peer.port}/")
            assert peer.accepted == 0

    def test_an_address_is_said_to_be_what_it_is(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "wasgi.outgoing"), pytest.raises(errors.DestinationIpProhibited):
            ask(app(outgoing=wasgi.Network(["*"])), "http://169.254.169.254/latest/meta-data/")
        assert any("169.254.169.254:80 is a cloud's metadata" in message for message in caplog.messages)

    def test_redirects_are_the_guests_business(self, app: AppMaker) -> None:
        answer = b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"
        with Peer(answers(answer)) as peer:
            response = ask(app(outgoing=wasgi.Network([peer.url])), peer.url)
            assert (response.status, response.headers["location"]) == (302, "http://169.254.169.254/")

    def test_nothing_is_allowed_that_is_not_named(self, app: AppMaker) -> None:
        with Peer(answers(HELLO)) as peer, pytest.raises(errors.HttpRequestDenied):
            ask(app(outgoing=wasgi.Network([])), peer.url)


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"allow": "https://a"}, TypeError, "`allow` must be a sequence"),
        ({"allow": ["ftp://a"]}, ValueError, "`allow` has no pattern: `ftp://a`"),
        ({"deny": ["a.*"]}, ValueError, "`deny` has no pattern"),
        ({"methods": ["G E T"]}, ValueError, "`methods` has no method"),
        ({"addresses": ["10.0.0.0/33"]}, ValueError, "`addresses` has neither"),
        ({"ca": b"nonsense"}, ValueError, "`ca` has no certificate"),
        ({"ca": 1}, TypeError, "`ca` must be a path"),
        ({"ca": "/no/such/file"}, OSError, "No such file"),
        ({"only_ca": True}, ValueError, "`only_ca` needs `ca`"),
        ({"client_cert": b""}, ValueError, "go together"),
        ({"connect_timeout": 0}, ValueError, "`connect_timeout` must be"),
        ({"first_byte_timeout": -1}, ValueError, "`first_byte_timeout` must be"),
        ({"max_connections": 0}, ValueError, "`max_connections` must be"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        wasgi.Network(**{"allow": [], **options})


async def test_it_shows_itself_and_answers_guests_only() -> None:
    network = wasgi.Network(["https://a"])
    assert repr(network) == "wasgi.Network(allow=['https://a'])"
    with pytest.raises(TypeError, match="answers guests only"):
        await call(network, get("/"))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    until(lambda: wasgi.stats().exchanges == 0 and wasgi.stats().outgoing == 0)
