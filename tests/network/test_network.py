"""`wasgi.Network`: requests, connections, TLS, HTTP/2, limits of time and size."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme

import wasgi
from tests.conftest import AppMaker, get, post, until
from tests.peers import HELLO, ONE, OVER, Peer, answers, ask, head_of, once, reached, serving_as, stalls_after
from tests.processes import free_port, serving
from wasgi import errors
from wasgi.outgoing import call

pytestmark = pytest.mark.usefixtures("nothing_is_left")


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

    def test_what_comes_before_the_response_is_passed_over(self, app: AppMaker) -> None:
        """RFC 9110, 15.2."""
        hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        with Peer(answers(hints + HELLO)) as peer:
            response = ask(app(outgoing=wasgi.Network([peer.url])), peer.url)
            assert (response.status, response.text, "link" in response.headers) == (200, "hello", False)

    def test_who_takes_trailers_says_so_for_the_connection(self, app: AppMaker) -> None:
        """RFC 9110, 10.1.4."""
        heads: list[bytes] = []

        def behave(connection: socket.socket) -> None:
            heads.append(head_of(connection))
            connection.sendall(HELLO)

        with Peer(behave) as peer:
            assert ask(app(outgoing=wasgi.Network([peer.url])), peer.url, header="te:trailers").text == "hello"
        assert b"te: trailers\r\n" in heads[0]
        assert b"connection: te\r\n" in heads[0]

    @pytest.mark.parametrize("limit", [5, 4])
    def test_the_body_has_a_limit(self, app: AppMaker, limit: int) -> None:
        with Peer(answers(HELLO)) as peer:
            text = ask(app(outgoing=wasgi.Network([peer.url], response_body=limit)), peer.url).text
            assert text == ("hello" if limit == 5 else "[broken: Some(ErrorCode::HttpResponseBodySize(Some(5)))]")

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


LOCAL = ["127.0.0.1", "[::1]"]


class TestConnections:
    def test_they_are_kept_and_shared(self, app: AppMaker) -> None:
        with Peer(answers(HELLO)) as peer:
            network = wasgi.Network([peer.url], **ONE)
            for _ in range(5):
                assert ask(app(outgoing=network), peer.url).text == "hello"
            assert peer.accepted == 1
            assert ask(app(outgoing=wasgi.Network([peer.url])), peer.url).text == "hello"
            assert peer.accepted == 2, "another policy has its own"
            del network

    def test_one_guest_uses_it_again_and_again(self, app: AppMaker) -> None:
        with Peer(answers(HELLO)) as peer:
            made = app(outgoing=wasgi.Network([peer.url], **ONE))
            assert made.handle(get(f"/fetch-loop?n=500&url={peer.url}")).text == "2500"
            assert peer.accepted == 1

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
            made = app(outgoing=wasgi.Network([peer.url], max_connections=2, connect_timeout=0.2))
            with ask(made, peer.url), ask(made, peer.url), pytest.raises(errors.ConnectionLimitReached):
                ask(made, peer.url)
            until(lambda: reached(made, peer.url))

    def test_who_finds_none_free_waits_for_one(self, app: AppMaker) -> None:
        release = threading.Event()

        def behave(connection: socket.socket) -> None:
            head_of(connection)
            release.wait(30)
            connection.sendall(HELLO)
            answers(HELLO)(connection)

        with Peer(behave) as peer, ThreadPoolExecutor(3) as pool:
            made = app(outgoing=wasgi.Network([peer.url], max_connections=1))
            asked = [pool.submit(lambda: ask(made, peer.url).text) for _ in range(3)]
            until(lambda: wasgi.stats().outgoing == 3)
            release.set()
            assert [one.result(30) for one in asked] == ["hello"] * 3
            assert peer.accepted == 1

    def test_one_host_does_not_take_them_all(self, app: AppMaker) -> None:
        stalled = stalls_after(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhe")
        with Peer(stalled) as slow, Peer(answers(HELLO)) as quick:
            network = wasgi.Network(
                [slow.url, quick.url], max_connections=2, max_connections_per_host=1, connect_timeout=0.2
            )
            made = app(outgoing=network)
            with ask(made, slow.url):
                with pytest.raises(errors.ConnectionLimitReached):
                    ask(made, slow.url)
                assert ask(made, quick.url).text == "hello"

    def test_an_idle_one_makes_room(self, app: AppMaker) -> None:
        with Peer(answers(HELLO)) as one, Peer(answers(HELLO)) as other:
            made = app(outgoing=wasgi.Network([one.url, other.url], max_connections=1, connect_timeout=30))
            for _ in range(3):
                assert ask(made, one.url).text == ask(made, other.url).text == "hello"
            assert (one.accepted, other.accepted) == (3, 3)

    @pytest.mark.parametrize("option", ["idle_timeout", "connection_lifetime"])
    def test_they_end(self, app: AppMaker, option: str) -> None:
        ended = threading.Event()

        def behave(connection: socket.socket) -> None:
            with contextlib.suppress(ConnectionError):
                answers(HELLO)(connection)
            ended.set()

        with Peer(behave) as peer:
            limits: dict[str, Any] = {"idle_timeout": 0.1 if option == "idle_timeout" else 1.0, option: 0.1}
            made = app(outgoing=wasgi.Network([peer.url], **limits))
            assert ask(made, peer.url).text == "hello"
            assert ended.wait(30), "though nobody asks any more"
            assert ask(made, peer.url).text == "hello"
            assert peer.accepted == 2

    def test_one_that_was_allowed_for_one_path_is_not_for_another(self, app: AppMaker) -> None:
        """A kept connection's address is checked again for each request."""
        with Peer(answers(HELLO)) as peer:
            rules: dict[str, Any] = {"allow_private": True, "deny": [f"http://{ip}:{peer.port}/secret" for ip in LOCAL]}
            made = app(outgoing=wasgi.Network([f"http://localhost:{peer.port}"], **rules, **ONE))
            assert ask(made, f"http://localhost:{peer.port}/").text == "hello"
            with pytest.raises(errors.DestinationIpProhibited):
                ask(made, f"http://localhost:{peer.port}/secret")
            assert ask(made, f"http://localhost:{peer.port}/").text == "hello"
            assert peer.accepted == 1

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


class TestTls:
    def test_an_authority_of_ones_own(
        self, app: AppMaker, authority: trustme.CA, trusted: bytes, tmp_path: Path
    ) -> None:
        path = tmp_path / "ca.pem"
        path.write_bytes(trusted)
        with Peer(answers(HELLO), serving_as(authority.issue_cert("127.0.0.1"))) as peer:
            for options in ({"ca": trusted}, {"ca": path, "only_ca": True}):
                assert ask(app(outgoing=wasgi.Network([peer.url], **options)), peer.url).text == "hello"

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


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"allow": "https://a"}, TypeError, "`allow` must be a sequence"),
        ({"allow": ["ftp://a"]}, ValueError, "`allow` has an invalid pattern: `ftp://a`"),
        ({"deny": ["a.*"]}, ValueError, "`deny` has an invalid pattern"),
        ({"methods": ["G E T"]}, ValueError, "`methods` has an invalid method"),
        (
            {"methods": ["GET", "post"]},
            ValueError,
            "methods are case-sensitive, and `methods` has `post`; hint: `POST`",
        ),
        ({"methods": ["CONNECT"]}, ValueError, "`methods` has `CONNECT`"),
        ({"addresses": ["10.0.0.0/33"]}, ValueError, "`addresses` has neither"),
        ({"addresses": ["0.0.0.0"]}, ValueError, "`addresses` has an address that is never connected to"),
        ({"addresses": ["::/128"]}, ValueError, "`addresses` has an address that is never connected to"),
        ({"ca": b"nonsense"}, ValueError, "`ca` has no certificate"),
        ({"ca": 1}, TypeError, "`ca` must be a path"),
        ({"ca": "/no/such/file"}, FileNotFoundError, "No such file or directory: '/no/such/file'"),
        ({"client_cert": "/", "client_key": "/"}, IsADirectoryError, ": '/'"),
        (
            {"allow": ["10.0.0.0/8"]},
            ValueError,
            "`10.0.0.0/8`: it is a network of addresses.*; hint: `Network.addresses`",
        ),
        ({"only_ca": True}, ValueError, "`only_ca` needs `ca`"),
        ({"client_cert": b""}, ValueError, "go together"),
        ({"connect_timeout": 0}, ValueError, "`connect_timeout` must be"),
        ({"first_byte_timeout": -1}, ValueError, "`first_byte_timeout` must be"),
        ({"max_connections": 0}, ValueError, "`max_connections` must be"),
        ({"max_connections_per_host": 0}, ValueError, "`max_connections_per_host` must be"),
        ({"max_connections": 2, "max_connections_per_host": 3}, ValueError, "must not be above `max_connections`"),
        ({"allow": ["http://0.0.0.0:80"]}, ValueError, "`allow` has an address that is never connected to"),
        ({"allow": ["[::]"]}, ValueError, "`allow` has an address that is never connected to"),
        ({"timeout": 0}, ValueError, "`timeout` must be"),
        ({"timeout": 1.8e19}, ValueError, "`timeout` must be"),
        ({"retries": -1}, ValueError, "`retries` must be from 0 to 16"),
        ({"connection_lifetime": 0}, ValueError, "`connection_lifetime` must be"),
        ({"response_body": -1}, ValueError, "`response_body` must be a number of bytes"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        wasgi.Network(**{"allow": [], **options})


def test_it_shows_itself() -> None:
    assert repr(wasgi.Network(["https://a"])) == "wasgi.Network(allow=['https://a'])"


class TestPythonAsks:
    """By `wasgi.outgoing.call`: middleware over the network."""

    async def test_a_request(self) -> None:
        heads: list[bytes] = []

        def behave(connection: socket.socket) -> None:
            heads.append(head_of(connection))
            connection.sendall(HELLO)

        with Peer(behave) as peer:
            request = wasgi.Request("GET", f"{peer.url}/path", headers={"x-a": "b", "connection": "upgrade"})
            response = await call(wasgi.Network([peer.url]), request)
            assert (response.status, await response.aread(), response.report) == (200, b"hello", None)
            assert await response.finished() is None
        assert heads == [b"GET /path HTTP/1.1\r\nx-a: b\r\nhost: %s\r\n\r\n" % peer.authority.encode()]

    async def test_bodies_stream_both_ways(self) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"hello"

        def behave(connection: socket.socket) -> None:
            received = head_of(connection)
            while not received.endswith(b"0\r\n\r\n"):
                received += connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\nx-sum: 7\r\n\r\n")
            assert received.count(b"5\r\nhello\r\n") == 3

        with Peer(behave) as peer:
            response = await call(wasgi.Network([peer.url]), wasgi.Request("POST", peer.url, body=chunks()))
            assert [chunk async for chunk in response] == [b"he"]
            assert response.trailers is not None
            assert response.trailers["x-sum"] == "7"

    @pytest.mark.parametrize(
        ("method", "length", "body"),
        [("POST", "3", b"hello"), ("POST", "9", b"hello"), ("GET", "5", b""), ("GET", "+5", b"hello")],
    )
    async def test_a_length_that_is_not_the_bodys(self, method: str, length: str, body: bytes) -> None:
        """No part of it is left for the next request on the connection."""
        with Peer(answers(HELLO)) as peer:
            network = wasgi.Network([peer.url])
            request = wasgi.Request(method, peer.url, headers={"content-length": length}, body=body)
            with pytest.raises((errors.HttpRequestBodySize, errors.HttpProtocolError)):
                await call(network, request)
            response = await call(network, wasgi.Request("GET", peer.url))
            assert await response.aread() == b"hello"

    async def test_two_lengths(self) -> None:
        request = wasgi.Request("GET", "http://127.0.0.1:9", headers=[("content-length", "0"), ("content-length", "0")])
        with pytest.raises(errors.HttpProtocolError):
            await call(wasgi.Network(["http://127.0.0.1:9"]), request)

    async def test_the_policy_is_the_same(self, caplog: pytest.LogCaptureFixture) -> None:
        network = wasgi.Network(["http://127.0.0.1:9"])
        with caplog.at_level(logging.INFO, "wasgi.outgoing"), pytest.raises(errors.HttpRequestDenied):
            await call(network, wasgi.Request("GET", "http://example.com/"))
        assert "no pattern in `allow` matches it" in caplog.text

    async def test_a_body_that_breaks_off_says_why(self) -> None:
        with Peer(once(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhe")) as peer:
            response = await call(wasgi.Network([peer.url]), wasgi.Request("GET", peer.url))
            with pytest.raises(wasgi.BodyError) as raised:
                await response.aread()
            assert isinstance(raised.value.__cause__, errors.HttpResponseIncomplete)

    async def test_its_own_body_that_fails_comes_back(self) -> None:
        class OursError(Exception):
            pass

        def chunks() -> Iterator[bytes]:
            yield b"x"
            raise OursError

        with Peer(answers(HELLO)) as peer:

            def reads(connection: socket.socket) -> None:
                while connection.recv(65536):
                    pass

            peer.behave = reads
            with pytest.raises(OursError):
                await call(wasgi.Network([peer.url]), wasgi.Request("POST", peer.url, body=chunks()))

    async def test_cancelling_closes_the_connection(self) -> None:
        asked, closed = threading.Event(), threading.Event()

        def behave(connection: socket.socket) -> None:
            head_of(connection)
            asked.set()
            assert connection.recv(1) == b""
            closed.set()

        with Peer(behave) as peer:
            task = asyncio.ensure_future(call(wasgi.Network([peer.url]), wasgi.Request("GET", peer.url)))
            assert await asyncio.to_thread(asked.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(closed.wait, 30)

    async def test_middleware(self, app: AppMaker) -> None:
        """A guest's request, with something added, through the network; its body breaks off as the network's."""

        def with_token(upstream: Any) -> Any:
            async def send(request: wasgi.Request) -> wasgi.Response:
                request.headers["authorization"] = "Bearer secret"
                return await call(upstream, request)

            return send

        heads: list[bytes] = []

        def behave(connection: socket.socket) -> None:
            heads.append(head_of(connection))
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhe")

        with Peer(behave) as peer:
            made = app(outgoing=with_token(wasgi.Network([peer.url])))
            response = await made.handle_async(get(f"{OVER}{peer.url}/"))
            assert await response.aread() == b"he[broken: Some(ErrorCode::HttpResponseIncomplete)]"
        assert b"authorization: Bearer secret\r\n" in heads[0]


def peak_memory() -> int:
    """Of this process, in bytes; begun anew."""
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return peak


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from Linux's /proc")
class TestLargeBodies:
    """1 GiB through a guest and the network, in memory that does not grow with it."""

    SIZE = 1 << 30
    MOST = 64 << 20

    def test_down(self, app: AppMaker) -> None:
        chunk = b"x" * (1 << 20)

        def behave(connection: socket.socket) -> None:
            head_of(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % self.SIZE)
            for _ in range(self.SIZE >> 20):
                connection.sendall(chunk)

        with Peer(behave) as peer:
            made = app(outgoing=wasgi.Network([peer.url]), limits=wasgi.Limits(timeout=500))
            ask(made, f"{peer.url}/warm").close()
            peak_memory()
            before = peak_memory()
            received = sum(len(part) for part in ask(made, peer.url))
            assert received == self.SIZE
            assert peak_memory() - before < self.MOST

    def test_up(self, app: AppMaker) -> None:
        chunk = b"x" * (1 << 20)
        received = 0

        def behave(connection: socket.socket) -> None:
            nonlocal received
            with connection.makefile("rb") as sent:
                while sent.readline() != b"\r\n":
                    pass
                while size := int(sent.readline(), 16):
                    received += len(sent.read(size))
                    sent.readline()
            connection.sendall(HELLO)

        with Peer(behave) as peer:
            made = app(outgoing=wasgi.Network([peer.url]), limits=wasgi.Limits(timeout=500, request_body=None))
            peak_memory()
            before = peak_memory()
            response = made.handle(post(f"/proxy?url={peer.url}/", (chunk for _ in range(self.SIZE >> 20))))
            assert response.text == "hello"
            assert received == self.SIZE
            assert peak_memory() - before < self.MOST
