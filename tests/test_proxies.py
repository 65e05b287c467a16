"""`wasgi.Network(proxy=...)`: tunnels, who resolves names, passwords, and that addresses are checked all the same."""

from __future__ import annotations

from typing import Any

import pytest
import trustme

import wasgi
from wasgi import errors

from .conftest import AppMaker
from .peers import HELLO, Peer, answers, ask, serving_as
from .processes import free_port
from .proxies import Asking, HttpProxy, SocksProxy

pytestmark = pytest.mark.usefixtures("nothing_is_left")

KINDS = pytest.mark.parametrize(("kind", "scheme"), [(HttpProxy, "http"), (SocksProxy, "socks5")])


@KINDS
def test_a_tunnel(app: AppMaker, kind: type[Asking], scheme: str) -> None:
    with kind() as proxy, Peer(answers(HELLO)) as peer:
        made = app(outgoing=wasgi.Network([peer.url], proxy=f"{scheme}://{proxy.authority}"))
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


def test_a_password_goes_with_each_request_that_the_proxy_reads(app: AppMaker) -> None:
    with HttpProxy(user="ada:pass") as proxy:
        network = wasgi.Network(["*"], proxy=f"http://ada:pass@{proxy.authority}", proxy_resolves=True)
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
        ({"proxy": "127.0.0.1:3128"}, "it is no URL"),
        ({"proxy": "ftp://127.0.0.1"}, "it is no URL"),
        ({"proxy": "socks4://127.0.0.1"}, "no proxies of the kind `socks4`"),
        ({"proxy": "http://"}, "it is no URL"),
        ({"proxy": "http://a", "trust_env": True}, "exclude each other"),
        ({"no_proxy": ["a"]}, "`no_proxy` needs `proxy`"),
    ],
)
def test_wrong_options(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        wasgi.Network(["*"], **options)
