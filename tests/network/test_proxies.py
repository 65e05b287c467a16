"""`wasgi.Network(proxy=...)`: tunnels, who resolves names, passwords, and that addresses are checked all the same."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trustme

import wasgi
from tests.conftest import AppMaker
from tests.network.test_network_http2 import Server
from tests.peers import HELLO, ONE, Peer, answers, ask, head_of, serving_as
from tests.processes import free_port
from tests.proxies import Asking, HttpProxy, SocksProxy, join
from wasgi import errors

pytestmark = pytest.mark.usefixtures("nothing_is_left")

KINDS = pytest.mark.parametrize(("kind", "scheme"), [(HttpProxy, "http"), (SocksProxy, "socks5")])


@KINDS
def test_a_tunnel(app: AppMaker, kind: type[Asking], scheme: str) -> None:
    with kind() as proxy, Peer(answers(HELLO)) as peer:
        made = app(outgoing=wasgi.Network([peer.url], proxy=f"{scheme}://{proxy.authority}", **ONE))
        for _ in range(3):
            assert ask(made, peer.url).text == "hello"
        assert proxy.asked == [peer.authority], "and it is kept"
        del made


@KINDS
def test_a_tunnel_with_tls(
    app: AppMaker, kind: type[Asking], scheme: str, authority: trustme.CA, trusted: bytes
) -> None:
    """The peer's certificate is checked, not the proxy's word."""
    with kind() as proxy, Peer(answers(HELLO), serving_as(authority.issue_cert("localhost"))) as peer:
        url = f"https://localhost:{peer.port}"
        options: dict[str, Any] = {"proxy": f"{scheme}://{proxy.authority}", "addresses": ["127.0.0.0/8"]}
        assert ask(app(outgoing=wasgi.Network([url], ca=trusted, **options)), url).text == "hello"
        with pytest.raises(errors.TlsCertificateError):
            ask(app(outgoing=wasgi.Network([url], **options)), url)
        assert set(proxy.asked) == {f"127.0.0.1:{peer.port}"}


def test_a_proxy_that_speaks_tls(app: AppMaker, authority: trustme.CA, trusted: bytes) -> None:
    secured = serving_as(authority.issue_cert("127.0.0.1"))
    with HttpProxy(tls=secured) as proxy, Peer(answers(HELLO)) as peer:
        made = app(outgoing=wasgi.Network([peer.url], ca=trusted, proxy=f"https://{proxy.authority}"))
        assert ask(made, peer.url).text == "hello"
        with pytest.raises(errors.DestinationUnavailable):
            ask(app(outgoing=wasgi.Network([peer.url], proxy=f"https://{proxy.authority}")), peer.url)


@KINDS
def test_addresses_are_checked_all_the_same(app: AppMaker, kind: type[Asking], scheme: str) -> None:
    """A proxy may reach what we may not: it is asked for addresses that have passed, and for no name."""
    with kind() as proxy, Peer(answers(HELLO)) as peer:
        made = app(outgoing=wasgi.Network(["*"], proxy=f"{scheme}://{proxy.authority}"))
        for host in ("localhost", "127.0.0.1", "[::1]", "169.254.169.254", "10.0.0.1"):
            with pytest.raises(errors.DestinationIpProhibited):
                ask(made, f"http://{host}:{peer.port}/")
        assert (proxy.asked, peer.accepted) == ([], 0)


@KINDS
def test_a_proxy_may_resolve(app: AppMaker, kind: type[Asking], scheme: str) -> None:
    """Then names are its business; addresses are ours still."""
    with kind() as proxy, Peer(answers(HELLO)) as peer:
        url = f"http://localhost:{peer.port}"
        made = app(outgoing=wasgi.Network(["*"], proxy=f"{scheme}://{proxy.authority}", proxy_resolves=True))
        if kind is HttpProxy:
            # without TLS the proxy reads the request itself (RFC 9112, 3.2.2)
            assert ask(made, f"{url}/path?query").text == "from the proxy"
            assert proxy.asked == [f"{url}/path?query"]
            assert f"host: localhost:{peer.port}" in proxy.heads[0]
        else:
            assert ask(made, url).text == "hello"
            assert proxy.asked == [f"localhost:{peer.port}"]
        with pytest.raises(errors.DestinationIpProhibited):
            ask(made, f"http://127.0.0.1:{peer.port}/")
        assert len(proxy.asked) == 1


def test_socks5h_resolves_by_its_name(app: AppMaker) -> None:
    with SocksProxy() as proxy, Peer(answers(HELLO)) as peer:
        url = f"http://localhost:{peer.port}"
        assert ask(app(outgoing=wasgi.Network([url], proxy=f"socks5h://{proxy.authority}")), url).text == "hello"
        assert proxy.asked == [f"localhost:{peer.port}"]


@KINDS
@pytest.mark.parametrize("user", ["ada:p%40ss", "ada:wrong", None])
def test_passwords(app: AppMaker, kind: type[Asking], scheme: str, user: str | None) -> None:
    with kind(user="ada:p@ss") as proxy, Peer(answers(HELLO)) as peer:
        credentials = f"{user}@" if user else ""
        network = wasgi.Network([peer.url], proxy=f"{scheme}://{credentials}{proxy.authority}")
        assert "p%40ss" not in repr(network)
        if user == "ada:p%40ss":
            assert ask(app(outgoing=network), peer.url).text == "hello"
        else:
            with pytest.raises(errors.ConfigurationError):
                ask(app(outgoing=network), peer.url)
            assert peer.accepted == 0


def test_a_password_that_is_wrong_is_no_answer_for_the_guest(app: AppMaker) -> None:
    with HttpProxy(user="ada:pass") as proxy:
        network = wasgi.Network(["*"], proxy=f"http://ada:wrong@{proxy.authority}", proxy_resolves=True)
        with pytest.raises(errors.ConfigurationError):
            ask(app(outgoing=network), "http://example.invalid/")


@pytest.mark.parametrize("url", ["htp://127.0.0.1:9", "http://pro xy:9", "http://[::1:9", "socks4://127.0.0.1"])
def test_an_environment_that_cannot_be_read_is_not_passed_over(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("https_proxy", url)
    with pytest.raises(ValueError, match="`trust_env`: the proxy cannot be used: `https_proxy`"):
        wasgi.Network(["*"], trust_env=True)


@pytest.mark.parametrize(("method", "length"), [("POST", True), ("PUT", True), ("PATCH", True), ("DELETE", False)])
def test_a_request_that_the_proxy_reads_is_framed_as_any(app: AppMaker, method: str, length: bool) -> None:
    with HttpProxy() as proxy:
        network = wasgi.Network(["*"], proxy=f"http://{proxy.authority}", proxy_resolves=True)
        assert ask(app(outgoing=network), "http://example.invalid/", method=method).text == "from the proxy"
        assert ("content-length: 0\r\n" in proxy.heads[0]) == length
        assert "transfer-encoding" not in proxy.heads[0]


def test_a_password_goes_with_each_request_that_the_proxy_reads(app: AppMaker) -> None:
    with HttpProxy(user="ada:pass") as proxy:
        network = wasgi.Network(["*"], proxy=f"http://ada:pass@{proxy.authority}", proxy_resolves=True, **ONE)
        for _ in range(2):
            assert ask(app(outgoing=network), "http://example.invalid/").text == "from the proxy"
        assert all("proxy-authorization: Basic" in head for head in proxy.heads)
        assert (len(proxy.heads), proxy.accepted) == (2, 1)


@pytest.mark.parametrize(
    ("kind", "refusal", "code"),
    [
        (HttpProxy, b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n", "destination-unavailable"),
        (HttpProxy, b"HTTP/1.1 502 No\r\ncontent-length: 0\r\n\r\n", "destination-unavailable"),
        (HttpProxy, b"HTTP/1.1 504 No\r\ncontent-length: 0\r\n\r\n", "connection-timeout"),
        (HttpProxy, b"nonsense\r\n\r\n", "destination-unavailable"),
        (HttpProxy, b"", "destination-unavailable"),
        (HttpProxy, b"HTTP/1.1 200 Yes\r\n\r\nand already something", "destination-unavailable"),
        (HttpProxy, b"HTTP/1.1 403 No\r\ncontent-length: 900\r\n\r\n<html>", "destination-unavailable"),
        (HttpProxy, b"HTTP/1.1 407 No\r\nproxy-authenticate: Digest\r\n\r\n<html>", "configuration-error"),
        (HttpProxy, b"HTTP/1.1 103 Wait\r\n\r\nHTTP/1.1 407 No\r\n\r\n", "configuration-error"),
        (HttpProxy, b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "destination-unavailable"),
        (HttpProxy, b"HTTP/1.1 302 Found\r\nlocation: http://login/\r\n\r\n", "destination-unavailable"),
        (HttpProxy, b"HTTP/1.1 304 Not Modified\r\n\r\n", "destination-unavailable"),
        (HttpProxy, b"HTTP/1.1 100 Continue\r\n\r\n", "destination-unavailable"),
        (SocksProxy, b"\1", "destination-unavailable"),
        (SocksProxy, b"\2", "destination-unavailable"),
        (SocksProxy, b"\3", "destination-IP-unroutable"),
        (SocksProxy, b"\4", "destination-IP-unroutable"),
        (SocksProxy, b"\5", "connection-refused"),
        (SocksProxy, b"\6", "connection-timeout"),
        (SocksProxy, b"\x63", "destination-unavailable"),
    ],
)
def test_refusals(app: AppMaker, kind: type[Asking], refusal: bytes, code: str) -> None:
    scheme = "http" if kind is HttpProxy else "socks5"
    url = f"http://127.0.0.1:{free_port()}"
    with kind(refusal=refusal) as proxy, pytest.raises(errors.ErrorCode) as raised:
        ask(app(outgoing=wasgi.Network([url], proxy=f"{scheme}://{proxy.authority}")), url)
    assert raised.value.code == code


class TestAnswersToConnect:
    """RFC 9110, 9.3.6."""

    class Saying(HttpProxy):
        """Answers CONNECT so, and makes the tunnel."""

        def __init__(self, answer: bytes) -> None:
            super().__init__()
            self.answer = answer

        def proxy(self, connection: socket.socket) -> None:
            head = head_of(connection).decode()
            host, _, port = head.split(" ")[1].rpartition(":")
            self.reach(connection, host, int(port), lambda: connection.sendall(self.answer))

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 Connection established\r\n\r\n",
            b"HTTP/1.0 200 Connection established\r\n\r\n",
            b"HTTP/1.1 200\r\n\r\n",
            b"HTTP/1.1 200 OK\n\n",
            b"HTTP/1.1 201 Created\r\n\r\n",
            b"HTTP/1.1 202 Accepted\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 205 Reset Content\r\n\r\n",
            b"HTTP/1.1 206 Partial Content\r\n\r\n",
            b"HTTP/1.1 299 Whatever\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: nonsense\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nvia: a\r\n b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000 + b"\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ],
    )
    def test_any_of_2xx_is_a_tunnel(self, app: AppMaker, answer: bytes) -> None:
        with self.Saying(answer) as proxy, Peer(answers(HELLO)) as peer:
            network = wasgi.Network([peer.url], proxy=f"http://{proxy.authority}", connect_timeout=30, **ONE)
            made = app(outgoing=network)
            for _ in range(2):
                assert ask(made, peer.url).text == "hello"
            assert peer.accepted == 1
            del made, network

    @pytest.mark.parametrize(
        "answer", [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"]
    )
    def test_and_for_tls(self, app: AppMaker, authority: trustme.CA, trusted: bytes, answer: bytes) -> None:
        with self.Saying(answer) as proxy, Peer(answers(HELLO), serving_as(authority.issue_cert("127.0.0.1"))) as peer:
            network = wasgi.Network([peer.url], ca=trusted, proxy=f"http://{proxy.authority}", connect_timeout=30)
            assert ask(app(outgoing=network), peer.url).text == "hello"

    def test_a_server_of_http2_may_speak_first(self, app: AppMaker) -> None:
        """Its settings come with the proxy's answer (RFC 9113, 3.4)."""
        settings = b"\0\0\0\4\0\0\0\0\0"

        def behave(connection: socket.socket) -> None:
            head = head_of(connection).decode()
            host, _, port = head.split(" ")[1].rpartition(":")
            with socket.create_connection((host, int(port))) as other:
                proxy.connections.append(other)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + settings)
                join(connection, other)

        with Peer(behave) as proxy, Peer(Server()) as peer:
            network = wasgi.Network([peer.url], h2c=True, proxy=f"http://{proxy.authority}")
            assert ask(app(outgoing=network), peer.url).text == "hello"
            del network

    def test_an_answer_without_an_end_is_bounded(self, app: AppMaker) -> None:
        sent = 0

        def behave(connection: socket.socket) -> None:
            nonlocal sent
            head_of(connection)
            while True:
                connection.sendall(b"HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n")
                sent += 37

        with Peer(behave) as proxy:
            network = wasgi.Network(["http://127.0.0.1:9"], proxy=f"http://{proxy.authority}", connect_timeout=30)
            with pytest.raises(errors.DestinationUnavailable):
                ask(app(outgoing=network), "http://127.0.0.1:9")
        assert sent < 30_000_000


@KINDS
def test_a_proxy_that_is_not_there(app: AppMaker, kind: type[Asking], scheme: str) -> None:
    with Peer(answers(HELLO)) as peer:
        made = app(outgoing=wasgi.Network([peer.url], proxy=f"{scheme}://127.0.0.1:{free_port()}"))
        with pytest.raises(errors.DestinationUnavailable):
            ask(made, peer.url)
        assert peer.accepted == 0, "nothing goes around it"


def test_what_needs_no_proxy(app: AppMaker) -> None:
    with HttpProxy() as proxy, Peer(answers(HELLO)) as peer:
        made = app(outgoing=wasgi.Network([peer.url], proxy=f"http://{proxy.authority}", no_proxy=["127.0.0.0/8"]))
        assert ask(made, peer.url).text == "hello"
        assert (proxy.asked, peer.accepted) == ([], 1)


@pytest.mark.parametrize(
    ("entry", "is_direct"),
    [
        ("*", True),
        ("127.0.0.1", True),
        ("127.1", True),
        ("127.0.0.0/8", True),
        ("10.0.0.0/8", False),
        ("127.0.0.1:{port}", True),
        ("127.0.0.1:9", False),
        ("http://127.0.0.1", True),
        ("https://127.0.0.1", False),
        ("all://127.0.0.1", True),
        ("example.com, 127.0.0.1", True),
        ("example.com 127.0.0.1", True),
        ("::1,[::1]", False),
    ],
)
@pytest.mark.parametrize("given", ["list", "text", "environment"])
def test_each_form_of_what_needs_no_proxy(
    app: AppMaker, monkeypatch: pytest.MonkeyPatch, entry: str, is_direct: bool, given: str
) -> None:
    """That curl reads, or Python, or Go."""
    with HttpProxy() as proxy, Peer(answers(HELLO)) as peer:
        entry, url = entry.format(port=peer.port), f"http://{proxy.authority}"
        if given == "environment":
            for name in ("http_proxy", "all_proxy", "no_proxy"):
                monkeypatch.delenv(name, raising=False)
            monkeypatch.setenv("HTTP_PROXY", url)
            monkeypatch.setenv("NO_PROXY", entry)
            network = wasgi.Network([peer.url], trust_env=True)
        else:
            network = wasgi.Network([peer.url], proxy=url, no_proxy=[entry] if given == "list" else entry)
        assert ask(app(outgoing=network), peer.url).text == "hello"
        assert proxy.asked == ([] if is_direct else [peer.authority])


@pytest.mark.parametrize(
    "entry", [".localhost", "localhost", "LOCALHOST", "localhost.", "localhost:{port}", "*.localhost"]
)
def test_each_form_of_a_name_that_needs_no_proxy(app: AppMaker, entry: str) -> None:
    with HttpProxy() as proxy, Peer(answers(HELLO)) as peer:
        url = f"http://localhost:{peer.port}"
        options: dict[str, Any] = {"addresses": ["127.0.0.0/8", "::1"], "no_proxy": [entry.format(port=peer.port)]}
        network = wasgi.Network([url], proxy=f"http://{proxy.authority}", **options)
        assert ask(app(outgoing=network), url).text == "hello"
        assert bool(proxy.asked) == (entry == "*.localhost"), "that is what is below it"


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def nothing_is_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)

    def test_lower_case_comes_first_and_an_empty_one_is_none(
        self, app: AppMaker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As with curl and Python."""
        with HttpProxy() as proxy, HttpProxy() as other, Peer(answers(HELLO)) as peer:
            monkeypatch.setenv("HTTP_PROXY", f"http://{other.authority}")
            monkeypatch.setenv("http_proxy", proxy.authority)
            assert ask(app(outgoing=wasgi.Network([peer.url], trust_env=True)), peer.url).text == "hello"
            assert (len(proxy.asked), len(other.asked)) == (1, 0)
            monkeypatch.setenv("http_proxy", "")
            assert ask(app(outgoing=wasgi.Network([peer.url], trust_env=True)), peer.url).text == "hello"
            assert (len(proxy.asked), len(other.asked)) == (1, 1)

    def test_in_a_cgi_script_only_the_one_that_a_client_can_set_is_passed_over(
        self, app: AppMaker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """CVE-2016-5385."""
        with HttpProxy() as proxy, HttpProxy() as clients, Peer(answers(HELLO)) as peer:
            monkeypatch.setenv("REQUEST_METHOD", "GET")
            monkeypatch.setenv("HTTP_PROXY", f"http://{clients.authority}")
            monkeypatch.setenv("ALL_PROXY", f"http://{proxy.authority}")
            assert ask(app(outgoing=wasgi.Network([peer.url], trust_env=True)), peer.url).text == "hello"
            assert (len(proxy.asked), len(clients.asked)) == (1, 0)

    def test_what_cannot_be_read_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_PROXY", "localhost,<local>")
        with pytest.raises(
            ValueError, match="`trust_env`: the proxy cannot be used: `NO_PROXY`: `<local>`: it is neither"
        ):
            wasgi.Network(["*"], trust_env=True)


def test_the_environment(app: AppMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """When asked, and not otherwise."""
    with HttpProxy() as proxy, Peer(answers(HELLO)) as peer:
        for name in ("REQUEST_METHOD", "http_proxy", "all_proxy", "ALL_PROXY", "NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.authority}")
        assert ask(app(outgoing=wasgi.Network([peer.url])), peer.url).text == "hello"
        assert proxy.asked == []
        assert ask(app(outgoing=wasgi.Network([peer.url], trust_env=True)), peer.url).text == "hello"
        assert proxy.asked == [peer.authority]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert ask(app(outgoing=wasgi.Network([peer.url], trust_env=True)), peer.url).text == "hello"
        assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"proxy": "127.0.0.1:3128"}, "it is not a URL: it has no scheme; hint: put `http://` before it"),
        ({"proxy": "proxy.internal:3128"}, "hint: put `http://` before it"),
        ({"proxy": "user:secret@proxy.internal:3128"}, "^(?!.*secret).*hint: put `http://` before it"),
        ({"proxy": "ftp://127.0.0.1"}, "it is not a URL"),
        ({"proxy": "socks4://127.0.0.1"}, "proxies of the scheme `socks4` are not supported"),
        ({"proxy": "http://"}, "it is not a URL"),
        ({"proxy": "http://a", "trust_env": True}, "exclude each other"),
        ({"no_proxy": ["a"]}, "`no_proxy` needs `proxy`"),
        ({"proxy_resolves": True}, "`proxy_resolves` needs `proxy`"),
        ({"proxy": "http://a:99999"}, "its port is not a number"),
        ({"proxy": "http://a:0"}, "its port is not a number"),
        ({"proxy": "http://user:password@a:x"}, "it is not a URL|its port is not a number"),
        ({"proxy": "http://a/path"}, "it has a path or a query"),
        ({"proxy": "http://a?query"}, "it has a path or a query"),
        ({"proxy": "socks5://user@a"}, "its user and its password"),
        ({"proxy": "socks5://user:" + "x" * 256 + "@a"}, "its user and its password"),
        (
            {"proxy": "http://a", "no_proxy": ["192.168.*"]},
            r"`no_proxy` has an invalid entry: `192.168.\*`: it is neither",
        ),
        ({"proxy": "http://a", "no_proxy": ["<local>"]}, "`<local>`: it is neither"),
        ({"proxy": "http://a", "no_proxy": "a:99999"}, "`a:99999`: its port is not a number"),
        ({"proxy": "http://a", "no_proxy": [" "]}, "`no_proxy` has an empty entry"),
    ],
)
def test_wrong_options(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        wasgi.Network(["*"], **options)
