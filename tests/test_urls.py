"""One reading of URLs: what a guest asks for, what a policy, a route or a mock is compared with, and who is connected to."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import httpx
import httpx2
import pytest

import wasgi
import wasgi.testing
from wasgi.outgoing import asgi, call, route, wsgi

from .conftest import AppMaker, get
from .peers import HELLO, Peer, answers, ask, head_of

IN_A_PATH = "/!$&'()*+,;=:@~"
# what is no port: a sign, a letter, more than 16 bits
NO_PORTS = ["99999", "65616", "65536", "abc", "80x", "-1", "+80", "0x50", "8 0", "80:80", "18446744073709551696"]
# what `http::Uri` takes for a host, or a part of one
NO_HOSTS = ["[::1]a", "[::1]a:80", "a[::1]", "[1.2.3.4]", "[a]", "[::1%25lo]", "a:b", "user@a", "user:word@a", "@a", ":80", ""]


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
            with pytest.raises(wasgi.errors.HttpRequestUriInvalid):
                ask(app(outgoing=outgoing), f"http://localhost:{port}/")
        assert asked == []

    def test_it_is_said_what_is_wrong(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO), pytest.raises(wasgi.errors.HttpRequestUriInvalid):
            ask(app(outgoing=path_of), "http://localhost:99999/")
        assert any("its port is no number up to 65535" in message for message in caplog.messages)

    @pytest.mark.parametrize("port", ["", "80", "0080", "000000000080"])
    def test_any_spelling_of_the_schemes_own_port_is_that_port(self, app: AppMaker, port: str) -> None:
        for rule in ("http://a.test", "http://a.test:80", "http://a.test:", "a.test:80"):
            made = app(outgoing=route({rule: path_of}))
            assert ask(made, f"http://a.test:{port}/").text == f"http://a.test:{port}/"

    def test_a_port_that_is_empty_is_connected_to_as_the_schemes_own(self, app: AppMaker) -> None:
        """Port 80 of an address that answers nobody: the policy has let it pass, and read it so."""
        with pytest.raises(wasgi.errors.DestinationIpProhibited):
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


def _client(library: Any) -> Any:
    def handle(request: Any) -> Any:
        url = b"http://" + request.headers["host"].encode() + request.url.raw_path
        return library.Response(200, content=url)

    return wasgi.outgoing.httpx(library.Client(transport=library.MockTransport(handle)))


def _transport(library: Any) -> Any:
    def handle(request: Any) -> Any:
        return library.Response(200, content=str(request.url).encode())

    return wasgi.outgoing.httpx(library.MockTransport(handle))


async def _awaited(request: wasgi.Request) -> wasgi.Response:
    return wasgi.Response(body=request.url)


def _mock() -> Any:
    mock = wasgi.testing.Upstream()
    mock.any().answers(path_of)
    return mock


@contextmanager
def _network(_: Any = None) -> Iterator[tuple[Any, str]]:
    def behave(connection: socket.socket) -> None:
        while True:
            head = head_of(connection).decode("latin-1").split("\r\n")
            target = head[0].split(" ")[1]
            (host,) = (line[5:].strip() for line in head if line.lower().startswith("host:"))
            url = f"http://{host}{target}".encode("latin-1")
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(url), url))

    with Peer(behave) as peer:
        yield wasgi.Network([peer.url]), peer.authority


@contextmanager
def _as_it_is(upstream: Any) -> Iterator[tuple[Any, str]]:
    yield upstream, "up.test"


UPSTREAMS: dict[str, Callable[[], AbstractContextManager[tuple[Any, str]]]] = {
    "function": lambda: _as_it_is(path_of),
    "coroutine": lambda: _as_it_is(_awaited),
    "route": lambda: _as_it_is(route({"*": path_of})),
    "asgi": lambda: _as_it_is(asgi(_asgi)),
    "wsgi": lambda: _as_it_is(wsgi(_wsgi)),
    "httpx": lambda: _as_it_is(_client(httpx)),
    "httpx2": lambda: _as_it_is(_client(httpx2)),
    "httpx transport": lambda: _as_it_is(_transport(httpx)),
    "httpx2 transport": lambda: _as_it_is(_transport(httpx2)),
    "mock": lambda: _as_it_is(_mock()),
    "Network": _network,
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
