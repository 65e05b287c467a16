"""One reading of URLs: what a guest asks for, what policies, routes and mocks compare it with, who is connected to."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import httpx
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

import wasgi
import wasgi.testing
from tests.asgi_driver import Server, http_scope
from tests.asgi_driver import get as served
from tests.conftest import AppMaker, get, only
from tests.peers import HELLO, Peer, answers, ask, head_of
from tests.py.test_roundtrips import ALWAYS
from tests.serving.test_wsgi import call as wsgi_call
from tests.serving.test_wsgi import environ
from wasgi import errors
from wasgi._wasgi import _normal_url
from wasgi.outgoing import asgi, call, route, wsgi
from wasgi.serving.wsgi import request_of

IN_A_PATH = "/!$&'()*+,;=:@~"
# what is no port: a sign, a letter, more than 16 bits
NO_PORTS = ["99999", "65616", "65536", "abc", "80x", "-1", "+80", "0x50", "8 0", "80:80", "18446744073709551696"]
# what `http::Uri` takes for a host, or a part of one
NO_HOSTS = [
    "[::1]a",
    "[::1]a:80",
    "a[::1]",
    "[1.2.3.4]",
    "[a]",
    "[::1%25]",
    "a:b",
    "user@a",
    "user:word@a",
    "@a",
    ":80",
    "",
]


def parts(app: wasgi.App, **parts: str) -> wasgi.Response:
    """A request of which the guest sets these parts."""
    return app.handle(get("/ask?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in parts.items())))


def path_of(request: wasgi.Request) -> wasgi.Response:
    return wasgi.Response(body=request.url)


class TestPort:
    @pytest.mark.parametrize("port", NO_PORTS)
    @pytest.mark.parametrize("rule", ["http://localhost", "*", "localhost:80"])
    def test_what_is_no_port_reaches_nobody(self, app: AppMaker, port: str, rule: str) -> None:
        asked: list[str] = []

        def upstream(request: wasgi.Request) -> wasgi.Response:
            asked.append(request.url)
            return wasgi.Response()

        for outgoing in (upstream, route({rule: upstream}), wasgi.Network([rule], allow_private=True)):
            with pytest.raises(errors.HttpRequestUriInvalid):
                ask(app(outgoing=outgoing), f"http://localhost:{port}/")
        assert asked == []

    @only("0.2", "`set-authority` refuses such a port")
    def test_it_is_said_what_is_wrong(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO), pytest.raises(errors.HttpRequestUriInvalid):
            ask(app(outgoing=path_of), "http://localhost:99999/")
        assert any("its port is not a number up to 65535" in message for message in caplog.messages)

    @pytest.mark.parametrize("port", ["", "80", "0080", "000000000080"])
    def test_any_spelling_of_the_schemes_own_port_is_that_port(self, app: AppMaker, generation: str, port: str) -> None:
        told = f":{port}" if port or generation == "0.2" else ""  # 0.3 has no word for an empty one
        for rule in ("http://a.test", "http://a.test:80", "http://a.test:", "a.test:80"):
            made = app(outgoing=route({rule: path_of}))
            assert ask(made, f"http://a.test:{port}/").text == f"http://a.test{told}/"

    def test_a_port_that_is_empty_is_connected_to_as_the_schemes_own(self, app: AppMaker) -> None:
        """Port 80 of an address that answers nobody: the policy has let it pass, and read it so."""
        with pytest.raises(errors.DestinationIpProhibited):
            ask(app(outgoing=wasgi.Network(["http://*:80"])), "http://127.0.0.1:/")


class TestHost:
    @pytest.mark.parametrize("authority", NO_HOSTS)
    def test_what_is_no_host_reaches_nobody(self, app: AppMaker, authority: str) -> None:
        asked: list[str] = []

        def upstream(request: wasgi.Request) -> wasgi.Response:
            asked.append(request.url)
            return wasgi.Response()

        for outgoing in (upstream, route({"*": upstream}), wasgi.Network(["*"], allow_private=True)):
            answer = parts(app(outgoing=outgoing), scheme="http", authority=authority, target="/")
            assert answer.text in ("set-authority refuses it", "ErrorCode::HttpRequestUriInvalid")
        assert asked == []
        with pytest.raises(ValueError, match="invalid URL"):
            wasgi.Request("GET", f"http://{authority}/")

    @pytest.mark.parametrize("authority", ["a b", "a/b", "a:x", "a:-1", "[::1", "::1", "a%", "a%zz", "ü", "a?b", "a#b"])
    def test_an_authority_that_is_none_is_refused_by_its_setter(self, app: AppMaker, authority: str) -> None:
        assert parts(app(outgoing=path_of), authority=authority).text == "set-authority refuses it"

    @pytest.mark.parametrize(
        ("given", "read"),
        [
            ("ex%61mple.com", "example.com"),
            ("a%2eb:81", "a.b:81"),
            ("b%C3%BCcher.example", "xn--bcher-kva.example"),
            ("a_b", "a_b"),
            ("a!$&'()*+,;=~-.b", "a!$&'()*+,;=~-.b"),
            ("[2001:DB8::1]:81", "[2001:DB8::1]:81"),
            ("[v1.a:b]", "[v1.a:b]"),
            ("[fe80::1%25eth0]:81", "[fe80::1%25eth0]:81"),
            ("EXAMPLE.com", "EXAMPLE.com"),
            ("example.com.", "example.com."),
        ],
    )
    def test_a_host_in_any_valid_spelling_is_asked(self, app: AppMaker, given: str, read: str) -> None:
        assert parts(app(outgoing=path_of), scheme="http", authority=given).text == f"http://{read}/"
        assert wasgi.Request("GET", f"http://{given}/").authority == read

    def test_an_encoded_host_is_the_one_that_the_policy_sees(self, app: AppMaker) -> None:
        network = wasgi.Network(["*"], deny=["secret.test"])
        assert parts(app(outgoing=network), authority="s%65cret.test").text == "ErrorCode::HttpRequestDenied"
        network = wasgi.Network(["*"], allow_private=True)
        assert parts(app(outgoing=network), authority="[::1%25lo]").text == "ErrorCode::HttpRequestDenied"
        network = wasgi.Network(["*"])
        assert parts(app(outgoing=network), authority="%31%32%37.0.0.1").text == "ErrorCode::DestinationIpProhibited"


class TestScheme:
    def test_capitals_are_the_same_scheme(self, app: AppMaker) -> None:
        assert parts(app(outgoing=path_of), scheme="HTTP", authority="a", target="/").text == "http://a/"
        assert parts(app(outgoing=path_of), scheme="hTTps", authority="a", target="/").text == "https://a/"
        made = wasgi.Request("GET", "HTTPS://a/b")
        assert (made.url, made.scheme) == ("https://a/b", "https")

    async def test_capitals_are_the_same_scheme_for_a_policy(self) -> None:
        with Peer(answers(HELLO)) as peer:
            network = wasgi.Network([peer.url])
            answer = await call(network, wasgi.Request("GET", peer.url.replace("http", "HTTP")))
            assert await answer.aread() == b"hello"

    @pytest.mark.parametrize("scheme", ["", "1a", "a b", "+a", "a:", "é"])
    def test_what_is_no_scheme_is_refused(self, app: AppMaker, scheme: str) -> None:
        assert parts(app(outgoing=path_of), scheme=scheme, authority="a").text == "set-scheme refuses it"
        with pytest.raises(ValueError, match="invalid URL"):
            wasgi.Request("GET", f"{scheme}://a/")

    def test_another_scheme_is_told(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            answer = parts(app(outgoing=path_of), scheme="ws", authority="a", target="/")
        assert answer.text == "ErrorCode::HttpProtocolError"
        assert any("its scheme is neither http nor https: ws" in message for message in caplog.messages)


# `Host` as RFC 9110, 7.2 and RFC 3986, 3.2.2 let it be written, and the authority that the guest sees
HOSTS = [
    (b"example.com:", "example.com:"),
    (b"example.com:00080", "example.com:00080"),
    (b"example.com:0", "example.com:0"),
    (b"EXAMPLE.com", "EXAMPLE.com"),
    (b"example.com.", "example.com."),
    (b"ex%61mple%2Ecom:81", "example.com:81"),
    (b"b%C3%BCcher.example", "xn--bcher-kva.example"),
    (b"my_host", "my_host"),
    (b"a!$&'()*+,;=~-b", "a!$&'()*+,;=~-b"),
    (b"*", "*"),
    (b"-", "-"),
    (b"1.2.3", "1.2.3"),
    (b"999.999.999.999", "999.999.999.999"),
    (b"[::1]", "[::1]"),
    (b"[2001:DB8::1]:8080", "[2001:DB8::1]:8080"),
    (b"[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]"),
    (b"[::1]:", "[::1]:"),
    (b"[v1.fe80:a+en1]", "[v1.fe80:a+en1]"),
    (b"[V7.x]:80", "[V7.x]:80"),
    (b"[fe80::1%25eth0]:80", "[fe80::1%25eth0]:80"),  # RFC 6874
    (b"x" * 300, "x" * 300),
]
# and as they do not
NO_SERVED_HOSTS = [
    *NO_HOSTS[:-1],
    *(f"a:{port}" for port in NO_PORTS),
    "a b",
    "a/b",
    "a?b",
    "a#b",
    "a\\b",
    "a%",
    "a%2",
    "a%zz",
]
NO_SERVED_HOSTS += [
    "a%00",
    "a%20b",
    "a%2Fb",
    "a%40b",
    "a%3A80",
    "é",
    "\xff",
    "<a>",
    "a|b",
    "a^b",
    '"a"',
    "[",
    "]",
    "[]",
    "[v1.]",
    "::1",
]


def authority_in(body: bytes) -> str:
    (line,) = (line for line in body.decode().splitlines() if line.startswith("authority: "))
    return line.removeprefix('authority: Some("').removesuffix('")')


class TestServed:
    @pytest.mark.parametrize(("host", "authority"), HOSTS)
    async def test_a_host_in_any_valid_spelling_is_served(self, app: AppMaker, host: bytes, authority: str) -> None:
        answer = await served(app(), "/inspect", headers=[(b"host", host)])
        assert (answer.status, authority_in(answer.body)) == (200, authority)
        status, _, body = wsgi_call(app(), environ("/inspect", HTTP_HOST=host.decode()))
        assert (status, authority_in(body)) == ("200 OK", authority)

    @pytest.mark.parametrize("host", NO_SERVED_HOSTS)
    async def test_what_is_no_host_is_a_bad_request(self, app: AppMaker, host: str) -> None:
        """RFC 9112, 3.2."""
        answer = await served(app(), "/inspect", headers=[(b"host", host.encode("latin-1"))])
        assert answer.status == 400
        assert wsgi_call(app(), environ("/inspect", HTTP_HOST=host))[0].startswith("400 ")

    async def test_a_target_in_absolute_form_has_its_own_authority(self, app: AppMaker) -> None:
        """RFC 9112, 3.2.2: whatever `Host` says."""
        scope = http_scope("/", headers=[(b"host", b"other")], path="http://real:81/inspect", query_string=b"a")
        scope["raw_path"] = b"http://real:81/inspect"
        answer = await Server(scope).run(app(forwarded=True))
        assert authority_in(answer.body) == "real:81"
        assert 'path: Some("/inspect?a")' in answer.body.decode()
        assert "x-forwarded-host: real:81" in answer.body.decode()

    @pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
    def test_a_wsgi_server_tells_an_absolute_form_beside_the_path(self, app: AppMaker, name: str) -> None:
        for raw, path, seen in (
            ("http://real:81/inspect?a", "/inspect", "/inspect?a"),
            ("HTTP://real:81/inspect/%2F?a", "/inspect//", "/inspect/%2F?a"),
            ("http://real:81?a", "/", "/?a"),
            ("http://real:81", "", "/?a"),
        ):
            given = environ(path, HTTP_HOST="other", QUERY_STRING="a")
            assert request_of(app(), given | {name: raw}).url == f"http://real:81{seen}"
        # middleware has changed the path
        assert request_of(app(), environ("/x", HTTP_HOST="other") | {name: "http://real:81/y"}).url == "http://other/x"
        given = environ("/x://y/z", HTTP_HOST="other")
        assert request_of(app(), given | {name: "/x://y/z"}).url == "http://other/x://y/z"

    async def test_a_request_for_all_of_a_server_has_a_url_that_is_one(self, app: AppMaker) -> None:
        """RFC 9112, 3.3: its path is empty."""
        urls: list[str] = []
        made = app(on_request=lambda _, request: urls.append(request.url))
        scope = http_scope("*", method="OPTIONS", headers=[(b"host", b"guest.local")])
        await Server(scope).run(made)
        assert urls == ["http://guest.local"]
        assert wasgi.Request("OPTIONS", urls[0]).path == "/"


# upstreams that answer with the URL that they were asked for


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    (host,) = (value for name, value in scope["headers"] if name == b"host")
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    url = scope["scheme"].encode() + b"://" + host + scope["raw_path"] + query
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": url})


def _wsgi(environ: Any, start: Any) -> list[bytes]:
    start("200 OK", [])
    path = quote(environ["PATH_INFO"].encode("latin-1"), safe=IN_A_PATH)
    query = environ["QUERY_STRING"]
    return [f"http://{environ['HTTP_HOST']}{path}{'?' if query else ''}{query}".encode()]


async def _awaited(request: wasgi.Request) -> wasgi.Response:
    return wasgi.Response(body=request.url)


def _mock() -> Any:
    mock = wasgi.testing.Upstream()
    mock.any().answers(path_of)
    return mock


@contextmanager
def _wired(upstream: Callable[[Peer], Any]) -> Iterator[tuple[Any, str]]:
    """An upstream on loopback."""

    def behave(connection: socket.socket) -> None:
        head = head_of(connection).decode("latin-1").split("\r\n")
        target = head[0].split(" ")[1]
        (host,) = (line[5:].strip() for line in head if line.lower().startswith("host:"))
        url = f"http://{host}{target}".encode("latin-1")
        connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(url) + url)

    with Peer(behave) as peer:
        yield upstream(peer), peer.authority


@contextmanager
def _as_it_is(upstream: Any) -> Iterator[tuple[Any, str]]:
    yield upstream, "up.test"


UPSTREAMS: dict[str, Callable[[], AbstractContextManager[tuple[Any, str]]]] = {
    "function": lambda: _as_it_is(path_of),
    "coroutine": lambda: _as_it_is(_awaited),
    "route": lambda: _as_it_is(route({"*": path_of})),
    "asgi": lambda: _as_it_is(asgi(_asgi)),
    "wsgi": lambda: _as_it_is(wsgi(_wsgi)),
    "httpx": lambda: _wired(lambda _: wasgi.outgoing.httpx(httpx.Client())),
    "httpx, async": lambda: _wired(lambda _: wasgi.outgoing.httpx(httpx.AsyncClient())),
    "httpx2": lambda: _wired(lambda _: wasgi.outgoing.httpx(httpx2.Client())),
    "httpx2, a transport": lambda: _wired(lambda _: wasgi.outgoing.httpx(httpx2.HTTPTransport())),
    "mock": lambda: _as_it_is(_mock()),
    "Network": lambda: _wired(lambda peer: wasgi.Network([peer.url])),
}

TARGETS = [
    ("/é?q=ü", "/%C3%A9?q=%C3%BC"),
    ("/日本/?名=値", "/%E6%97%A5%E6%9C%AC/?%E5%90%8D=%E5%80%A4"),
    ("/\U0001f600", "/%F0%9F%98%80"),
    ('/{"a"}', "/%7B%22a%22%7D"),
    ("/a?x={1}|`^", "/a?x=%7B1%7D%7C%60%5E"),
    ("/a\\b", "/a%5Cb"),
    ("/%2Fa%2fb", "/%2Fa%2fb"),
    ("/a'b(c)*!$&+=:@~;,", "/a'b(c)*!$&+=:@~;,"),
    ("/a?b='c'&d=(e)*!$+,;:@/?~", "/a?b='c'&d=(e)*!$+,;:@/?~"),
    ("//a//b/", "//a//b/"),
    ("/a?", "/a?"),
    ("/?a=1", "/?a=1"),
    ("?a=1", "/?a=1"),
    ("/a?x[]=1", "/a?x[]=1"),
    ("/a%41?q=%41%7e", "/a%41?q=%41%7e"),
    ("/a/../b/./c", "/a/../b/./c"),
    ("/100%", "/100%"),
    ("", "/"),
]


@pytest.mark.parametrize("kind", UPSTREAMS)
class TestUpstreams:
    @pytest.mark.parametrize(("target", "asked"), TARGETS)
    def test_each_is_asked_for_the_same_url(self, app: AppMaker, kind: str, target: str, asked: str) -> None:
        with UPSTREAMS[kind]() as (upstream, authority):
            answer = parts(app(outgoing=upstream), scheme="http", authority=authority, target=target)
            path, _, query = asked.partition("?")
            if kind == "wsgi":  # has the path decoded
                path = quote(unquote_to_bytes(path), safe=IN_A_PATH)
            if kind in ("asgi", "wsgi"):  # cannot tell an empty query
                asked = f"{path}?{query}" if query else path
            assert answer.text == f"http://{authority}{asked}"

    def test_a_path_that_is_left_out_is_the_root(self, app: AppMaker, kind: str) -> None:
        with UPSTREAMS[kind]() as (upstream, authority):
            assert parts(app(outgoing=upstream), scheme="http", authority=authority).text == f"http://{authority}/"

    def test_an_authority_that_is_left_out_is_told(
        self, app: AppMaker, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with UPSTREAMS[kind]() as (upstream, _), caplog.at_level(logging.INFO):
            answer = parts(app(outgoing=upstream), scheme="http", target="/")
        assert answer.text == "ErrorCode::HttpRequestUriInvalid"
        assert any("it has no authority" in message for message in caplog.messages)


def test_a_component_is_asked_for_the_same_url(app: AppMaker) -> None:
    for target, path in (("/inspect?é", "/inspect?%C3%A9"), ("/inspect?{", "/inspect?%7B")):
        answer = parts(app(outgoing=app()), scheme="http", authority="a", target=target)
        assert f'path: Some("{path}")' in answer.text


def test_a_url_that_is_too_long_when_it_is_encoded_is_told(app: AppMaker) -> None:
    made = app(outgoing=path_of)
    assert parts(made, authority="a", target="/é", times="10000").text == "ErrorCode::HttpRequestUriTooLong"
    assert len(parts(made, authority="a", target="/é", times="9000").text) == len("https://a") + 7 * 9000


# each with what is the same URL by RFC 3986, 6.2.2 and 6.2.3
SAME = [
    ("https://API.example.com:443/x", "https://api.example.com/x"),
    ("HTTPS://api.example.com/x", "https://api.example.com/x"),
    ("https://api.example.com:/x", "https://api.example.com/x"),
    ("http://api.example.com:80", "http://api.example.com/"),
    ("http://api.example.com:0080/", "http://api.example.com/"),
    ("http://api.example.com", "http://api.example.com/"),
    ("http://api.example.com?q=1", "http://api.example.com/?q=1"),
    ("https://api.example.com/%7euser/%41", "https://api.example.com/~user/A"),
    ("https://api.example.com/a%2fb", "https://api.example.com/a%2Fb"),
    ("https://api.example.com/x?q=%7e&r=%c3%a9", "https://api.example.com/x?q=~&r=%C3%A9"),
    ("https://api.example.com/é?q=é", "https://api.example.com/%C3%A9?q=%C3%A9"),
    ("https://%61pi.example.com/x", "https://api.example.com/x"),
    ("https://bücher.example/x", "https://xn--bcher-kva.example/x"),
    ("https://b%C3%BCcher.example/x", "https://xn--bcher-kva.example/x"),
    ("https://api.example.com./x", "https://api.example.com/x"),
    ("http://[0:0:0:0:0:0:0:1]:80/x", "http://[::1]/x"),
    ("http://[2001:DB8::1]/x", "http://[2001:db8::1]/x"),
    ("https://api.example.com/a/../x", "https://api.example.com/x"),
    ("https://api.example.com/./a/%2e%2E/x/.", "https://api.example.com/x/"),
    ("https://api.example.com/x y", "https://api.example.com/x%20y"),
    ("https://api.example.com/x#part", "https://api.example.com/x"),
]
# and what is not
OTHERS = [
    ("http://api.example.com/x", "https://api.example.com/x"),
    ("https://api.example.com:80/x", "https://api.example.com/x"),
    ("http://api.example.com:443/x", "http://api.example.com/x"),
    ("https://api.example.com/a%2Fb", "https://api.example.com/a/b"),
    ("https://api.example.com/X", "https://api.example.com/x"),
    ("https://api.example.com/x/", "https://api.example.com/x"),
    ("https://api.example.com//x", "https://api.example.com/x"),
    ("https://api.example.com/x?q=%26", "https://api.example.com/x?q=&"),
    ("https://api.example.com/x?Q=1", "https://api.example.com/x?q=1"),
    ("https://api.example.com/x?q=a%2Bb", "https://api.example.com/x?q=a+b"),
]


def asked(app: wasgi.App, url: str) -> wasgi.Response:
    """As a guest can write it: it may set no host that is not ASCII."""
    scheme, _, rest = url.replace("bücher", "b%C3%BCcher").replace(" ", "%20").partition("://")
    at = min(place for place in (rest.find("/"), rest.find("?"), len(rest)) if place >= 0)
    return parts(app, scheme=scheme, authority=rest[:at], target=rest[at:])


class TestSame:
    @pytest.mark.parametrize(("one", "other"), [*SAME, *(pair[::-1] for pair in SAME)])
    def test_equivalent_urls_are_one_to_a_mock(self, app: AppMaker, one: str, other: str) -> None:
        for wanted in (one, other):
            mock = wasgi.testing.Upstream()
            mock.get(wanted).respond(text="mocked")
            assert asked(app(outgoing=mock), one).text == "mocked"
            mock.check()

    @pytest.mark.parametrize(("one", "other"), [*OTHERS, *(pair[::-1] for pair in OTHERS)])
    def test_urls_that_mean_something_else_are_not(self, app: AppMaker, one: str, other: str) -> None:
        mock = wasgi.testing.Upstream()
        mock.get(other).respond(text="mocked")
        assert asked(app(outgoing=mock), one).text == "ErrorCode::DestinationNotFound"

    @pytest.mark.parametrize(
        ("pattern", "url"),
        [
            ("HTTPS://API.example.com:443/v1/**", "https://api.example.com/v1/a/b"),
            ("https://api.example.com/v1/*", "https://API.example.com:443/v1/%61"),
            ("https://api.example.com/%7e*", "https://api.example.com/~user"),
            ("https://*.Example.com:443", "https://api.example.com/"),
            ("https://*.example.com:8443/é/*", "https://api.example.com:8443/%c3%a9/x"),
            ("https://*.example.com/x?q=%7e*", "https://API.example.com/x?q=~1"),
            ("https://**", "https://API.example.com/x"),
            ("**/%7euser", "https://api.example.com/~user"),
            ("*://api.example.com/x", "http://API.example.com:80/x"),
        ],
    )
    def test_a_pattern_fits_a_url_in_any_spelling(self, app: AppMaker, pattern: str, url: str) -> None:
        mock = wasgi.testing.Upstream()
        mock.any(pattern).respond(text="mocked")
        assert asked(app(outgoing=mock), url).text == "mocked"

    def test_an_expression_finds_what_was_written_and_what_it_means(self, app: AppMaker) -> None:
        for expression in (r"^https://API\.", r"^https://api\.example\.com/~x$"):
            mock = wasgi.testing.Upstream()
            mock.any(re.compile(expression)).respond(text="mocked")
            assert asked(app(outgoing=mock), "https://API.example.com:443/%7ex").text == "mocked"

    @pytest.mark.parametrize(
        "url",
        ["", "/x", "api.example.com/x", "http://", "http://a:99999/", "http://u@a/", "http://a b/", "http://a/\ud800"],
    )
    def test_what_no_component_could_ask_for_is_refused_where_it_is_written(self, url: str) -> None:
        mock = wasgi.testing.Upstream()
        with pytest.raises(ValueError, match=r"not a URL that a component|surrogates not allowed"):
            mock.get(url)
        assert mock.routes == []

    def test_what_was_asked_is_kept_as_it_was_written(self, app: AppMaker) -> None:
        mock = wasgi.testing.Upstream()
        mock.get("https://api.example.com/~x").respond()
        asked(app(outgoing=mock), "https://API.example.com:443/%7ex")
        assert mock.calls[0].request.url == "https://API.example.com:443/%7ex"

    @pytest.mark.parametrize(("one", "other"), SAME)
    def test_equivalent_urls_are_one_to_a_cassette(self, app: AppMaker, one: str, other: str, tmp_path: Path) -> None:
        for place, (recorded, played) in enumerate(((one, other), (other, one))):
            path = tmp_path / f"{place}.json"
            recorder = wasgi.testing.Cassette(path, path_of)
            answer = asked(app(outgoing=recorder), recorded).text
            recorder.save()
            player = wasgi.testing.Cassette(path)
            assert asked(app(outgoing=player), played).text == answer
            assert player.complaints() == []

    @pytest.mark.parametrize(("one", "other"), OTHERS)
    def test_urls_that_mean_something_else_are_not_played(
        self, app: AppMaker, one: str, other: str, tmp_path: Path
    ) -> None:
        recorder = wasgi.testing.Cassette(tmp_path / "cassette.json", path_of)
        asked(app(outgoing=recorder), one)
        recorder.save()
        player = wasgi.testing.Cassette(tmp_path / "cassette.json")
        assert asked(app(outgoing=player), other).text == "ErrorCode::DestinationNotFound"

    @pytest.mark.parametrize(("one", "other"), [pair for pair in SAME if "/." not in pair[0]])
    def test_equivalent_urls_are_one_to_a_route_and_to_a_policy(self, app: AppMaker, one: str, other: str) -> None:
        for rule, url in ((one, other), (other, one)):
            rule = rule.partition("?")[0].partition("#")[0]
            assert asked(app(outgoing=route({rule: path_of})), url).status == 200
            denying = wasgi.Network(["*"], deny=[rule])
            assert asked(app(outgoing=denying), url).text == "ErrorCode::HttpRequestDenied"


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("http://a/", ("a", 80)),
        ("https://a/", ("a", 443)),
        ("http://a:/", ("a", 80)),
        ("https://a:0443/", ("a", 443)),
        ("http://a:8080/", ("a", 8080)),
        ("http://[::1]/", ("::1", 80)),
        ("http://[::1]:81/", ("::1", 81)),
        ("http://[::1]:/", ("::1", 80)),
    ],
)
def test_an_application_is_told_the_address_that_it_plays(app: AppMaker, url: str, server: tuple[str, int]) -> None:
    scopes: list[Any] = []
    environs: list[Any] = []

    async def play(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await _asgi(scope, receive, send)

    def play_wsgi(environ: Any, start: Any) -> list[bytes]:
        environs.append(environ)
        return _wsgi(environ, start)

    assert ask(app(outgoing=asgi(play, lifespan="off")), url).status == 200
    assert ask(app(outgoing=wsgi(play_wsgi)), url).status == 200
    assert scopes[0]["server"] == server
    assert (environs[0]["SERVER_NAME"], environs[0]["SERVER_PORT"]) == (server[0], str(server[1]))


@pytest.mark.parametrize("method", ["get", "Patch", "X-!#$%&'*+.^_`|~09"])
def test_methods_stay_as_they_are(app: AppMaker, method: str) -> None:
    """RFC 9110, 9.1: they are case-sensitive."""
    methods: list[str] = []

    def function(request: wasgi.Request) -> wasgi.Response:
        methods.append(request.method)
        return wasgi.Response()

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        methods.append(scope["method"])
        await _asgi(scope, receive, send)

    def wsgi_app(environ: Any, start: Any) -> list[bytes]:
        methods.append(environ["REQUEST_METHOD"])
        return _wsgi(environ, start)

    def behave(connection: socket.socket) -> None:
        methods.append(head_of(connection).decode().split(" ")[0])
        connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")

    with Peer(behave) as peer:
        upstreams = [
            function,
            asgi(asgi_app, lifespan="off"),
            wsgi(wsgi_app),
            wasgi.outgoing.httpx(httpx.Client()),
            wasgi.outgoing.httpx(httpx2.HTTPTransport()),
            wasgi.Network([peer.url]),
        ]
        for upstream in upstreams:
            answer = parts(app(outgoing=upstream), scheme="http", authority=peer.authority, method=method)
            assert answer.status == 200
    assert methods == [method] * len(upstreams)


@pytest.mark.parametrize("value", ["plain", "é", "日本", "a\tb", '"q, z"; x=y', "\x80\xff"])
def test_the_bytes_of_a_field_stay_as_they_are(app: AppMaker, value: str) -> None:
    """Both ways, through each upstream: of what is not ASCII nobody says what it means (RFC 9110, 5.5)."""
    raw = value.encode()
    asked: list[bytes] = []

    def function(request: wasgi.Request) -> wasgi.Response:
        asked.extend(value for name, value in request.headers.raw if name == b"x-field")
        return wasgi.Response(headers=[(b"x-field", asked[-1])])

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        asked.extend(value for name, value in scope["headers"] if name == b"x-field")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Field", asked[-1])]})
        await send({"type": "http.response.body"})

    def wsgi_app(environ: Any, start: Any) -> list[bytes]:
        asked.append(environ["HTTP_X_FIELD"].encode("latin-1"))
        start("200 OK", [("X-Field", environ["HTTP_X_FIELD"])])
        return []

    def behave(connection: socket.socket) -> None:
        lines = head_of(connection).split(b"\r\n")
        asked.extend(line[8:].strip() for line in lines if line.lower().startswith(b"x-field:"))
        head = b"HTTP/1.1 200 \xe9\r\nconnection: close\r\ncontent-length: 0\r\nx-field: "
        connection.sendall(head + asked[-1] + b"\r\n\r\n")

    with Peer(behave) as peer:
        upstreams = [
            function,
            asgi(asgi_app, lifespan="off"),
            wsgi(wsgi_app),
            wasgi.outgoing.httpx(httpx.Client()),
            wasgi.outgoing.httpx(httpx2.Client()),
            wasgi.Network([peer.url]),
        ]
        for upstream in upstreams:
            response = ask(app(outgoing=upstream), peer.url, header=f"x-field:{value}")
            assert [value for name, value in response.headers.raw if name == b"x-field"] == [raw]
    assert asked == [raw] * len(upstreams)


PARTS = st.text(st.sampled_from("aZ0:[]%4fv.@/?#\\-_~!é+ *&=1"), max_size=12)


@ALWAYS
@given(PARTS, PARTS, st.sampled_from(["http", "https", "HTTP"]))
def test_what_a_guest_may_ask_for_is_a_url(probe: wasgi.Component, authority: str, target: str, scheme: str) -> None:
    """The very one that `wasgi.Request` takes, with a host and a port."""
    urls: list[str] = []

    def upstream(request: wasgi.Request) -> wasgi.Response:
        urls.append(request.url)
        return wasgi.Response(body=request.url)

    made = wasgi.App(probe, outgoing=upstream)
    answer = parts(made, scheme=scheme, authority=authority, target=target)
    for url in urls:
        again = wasgi.Request("GET", url)
        assert again.url == url == answer.text
        assert again._address()[0]
        assert _normal_url(_normal_url(url) or "") == _normal_url(url)


@ALWAYS
@given(PARTS, PARTS)
def test_a_url_that_is_read_is_read_the_same_again(authority: str, target: str) -> None:
    try:
        made = wasgi.Request("GET", f"http://{authority}/{target}")
    except ValueError:
        return
    assert wasgi.Request("GET", made.url).url == made.url
    assert _normal_url(made.url) == _normal_url(f"http://{authority}/{target}")


class TestTexts:
    """That cross from Python to a guest."""

    @pytest.mark.parametrize("raised", [errors.InternalError("a\udcffb"), errors.DnsError("a\udcffb")])
    def test_what_is_no_unicode_is_replaced(self, app: AppMaker, raised: errors.ErrorCode) -> None:
        """`os.fsdecode` gives such texts, and the messages of an operating system's errors have them."""

        def upstream(request: wasgi.Request) -> wasgi.Response:
            raise raised

        answer = app(outgoing=upstream).handle(get("/fetch?url=http://a/"))
        assert re.search(rf"{type(raised).__name__}\(.*Some\(\"a\ufffd+b\"\)", answer.text)

    @pytest.mark.parametrize("status", ["2_00 OK", "+200 OK", "\uff12\uff10\uff10 OK", "20 OK", "2000 OK", "OK", ""])
    def test_a_status_that_is_none_is_a_failure(self, app: AppMaker, status: str) -> None:
        def application(environ: Any, start: Any) -> list[bytes]:
            start(status, [])
            return [b""]

        assert parts(app(outgoing=wsgi(application)), authority="a").text == (
            'ErrorCode::InternalError(Some("ValueError"))'
        )

    def test_an_a_label_that_is_none_is_no_url_to_a_client(self, app: AppMaker) -> None:
        upstream = wasgi.outgoing.httpx(httpx.MockTransport(lambda _: httpx.Response(200)))
        assert parts(app(outgoing=upstream), authority="xn--zz").text == "ErrorCode::HttpRequestUriInvalid"


@pytest.mark.parametrize("port", ["99999", "65616", "+80"])
def test_a_proxys_port_that_is_none_is_refused(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="port is not a number"):
        wasgi.Network(["*"], proxy=f"http://localhost:{port}")
    monkeypatch.setenv("http_proxy", f"http://user:word@localhost:{port}")
    with pytest.raises(ValueError, match="port is not a number"):
        wasgi.Network(["*"], trust_env=True)
