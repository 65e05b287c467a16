"""What `wasgi.testing` takes for URLs and bodies, written as users of httpx do."""

from __future__ import annotations

import http
from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

import wasgi
import wasgi.httpx
from tests.conftest import AppMaker
from wasgi.outgoing import call
from wasgi.testing import AsyncClient, Client, Upstream


def seen_by_guest(text: str) -> dict[str, str]:
    """The lines of the route `/inspect`: the URL's parts and the fields."""
    return dict(line.partition(": ")[::2] for line in text.splitlines())


@pytest.fixture
def client(probe: wasgi.Component) -> Client:
    return Client(wasgi.App(probe))


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "params", "target"),
        [
            ("/inspect#frag", {"a": "1"}, "/inspect?a=1"),
            ("/inspect?b=2#frag", {"a": "1"}, "/inspect?b=2&a=1"),
            ("/inspect#frag?no=query", None, "/inspect"),
            ("/inspect#frag?no=query", {"a": "1"}, "/inspect?a=1"),
            ("/inspect?", {"a": "1"}, "/inspect?a=1"),
            ("/inspect?", None, "/inspect?"),
            ("/inspect?#frag", None, "/inspect?"),
            ("/inspect", {}, "/inspect"),
            ("/inspect", "", "/inspect"),
            ("/inspect", "a=1&b=%20", "/inspect?a=1&b=%20"),
            ("/inspect", "?a=1", "/inspect?a=1"),
            ("/inspect", b"a=1", "/inspect?a=1"),
            ("/inspect", [("a", 1), ("a", 2)], "/inspect?a=1&a=2"),
            ("/inspect", {"a": [1, "x", True]}, "/inspect?a=1&a=x&a=true"),
            ("/inspect", {"a": ("x", "y"), "b": []}, "/inspect?a=x&a=y"),
            ("/inspect", {"t": True, "f": False, "n": None, "x": 1.5}, "/inspect?t=true&f=false&n=&x=1.5"),
            ("/inspect", {"a b": "é&=#"}, "/inspect?a+b=%C3%A9%26%3D%23"),
            ("/inspect", httpx2.QueryParams([("a", "1"), ("a", "2")]), "/inspect?a=1&a=2"),
            ("inspect", {"a": 1}, "/inspect?a=1"),
            ("./inspect", None, "/inspect"),
            ("/a/../inspect", None, "/inspect"),
            ("http://component.test/a/../inspect", None, "/inspect"),
            ("http://component.test/a/./../inspect?a=../b", None, "/inspect?a=../b"),
            ("//component.test/a/b/../../inspect", None, "/inspect"),
            ("/inspect;p=1;?q", None, "/inspect;p=1;?q"),
            ("/inspect;", None, "/inspect;"),
            ("/inspect?a=../b", None, "/inspect?a=../b"),
            ("/inspect%23x", {"a": 1}, "/inspect%23x?a=1"),
            ("http://component.test/inspect#frag", {"a": 1}, "/inspect?a=1"),
            (httpx2.URL("http://component.test/inspect?b#frag"), {"a": 1}, "/inspect?b&a=1"),
        ],
    )
    def test_what_is_sent(self, client: Client, url: Any, params: Any, target: str) -> None:
        client.get(url, params=params)
        (exchange,) = client.exchanges
        assert exchange.url == f"http://component.test{target}"
        guests = client.request("GET", url, params=params)
        if target.partition("?")[0] == "/inspect":
            assert seen_by_guest(guests.text)["path"] == f'Some("{target}")'

    @pytest.mark.parametrize(
        ("base", "url", "whole"),
        [
            # RFC 3986, 5.4
            ("http://a/b/c/d;p?q", "g:h", None),
            ("http://a/b/c/d;p?q", "g", "http://a/b/c/g"),
            ("http://a/b/c/d;p?q", "./g", "http://a/b/c/g"),
            ("http://a/b/c/d;p?q", "g/", "http://a/b/c/g/"),
            ("http://a/b/c/d;p?q", "/g", "http://a/g"),
            ("http://a/b/c/d;p?q", "//g", "http://g/"),
            ("http://a/b/c/d;p?q", "?y", "http://a/b/c/d;p?y"),
            ("http://a/b/c/d;p?q", "g?y", "http://a/b/c/g?y"),
            ("http://a/b/c/d;p?q", "#s", "http://a/b/c/d;p?q"),
            ("http://a/b/c/d;p?q", "g#s", "http://a/b/c/g"),
            ("http://a/b/c/d;p?q", "g?y#s", "http://a/b/c/g?y"),
            ("http://a/b/c/d;p?q", ";x", "http://a/b/c/;x"),
            ("http://a/b/c/d;p?q", "g;x=1/../y", "http://a/b/c/y"),
            ("http://a/b/c/d;p?q", "", "http://a/b/c/d;p?q"),
            ("http://a/b/c/d;p?q", ".", "http://a/b/c/"),
            ("http://a/b/c/d;p?q", "..", "http://a/b/"),
            ("http://a/b/c/d;p?q", "../g", "http://a/b/g"),
            ("http://a/b/c/d;p?q", "../..", "http://a/"),
            ("http://a/b/c/d;p?q", "../../../../g", "http://a/g"),
            ("http://a/b/c/d;p?q", "/./g", "http://a/g"),
            ("http://a/b/c/d;p?q", "/../g", "http://a/g"),
            ("http://a/b/c/d;p?q", "http://b/x/../g", "http://b/g"),
            ("http://a/b/c/d;p?q", "http://b/x/.", "http://b/x/"),
            ("http://a/b/c/d;p?q", "http://b/..", "http://b/"),
            ("http://a/b/c/d;p?q", "http://b", "http://b/"),
            ("http://a/b/c/d;p?q", "//b/../g?y/../x", "http://b/g?y/../x"),
            ("http://a/b/c/d;p?q", "g.", "http://a/b/c/g."),
            ("http://a/b/c/d;p?q", "..g", "http://a/b/c/..g"),
            ("http://a/b/c/d;p?q", "./g/.", "http://a/b/c/g/"),
            ("http://a/b/c/d;p?q", "g?y/../x", "http://a/b/c/g?y/../x"),
            ("http://a", "g", "http://a/g"),
            ("http://a", "?y", "http://a/?y"),
            ("http://a?x=1#f", "g", "http://a/g"),
            ("http://a/b#f", "", "http://a/b"),
            ("spin://a/b", "/g", "spin://a/g"),
        ],
    )
    def test_what_relative_ones_are_relative_to(
        self, probe: wasgi.Component, base: str, url: str, whole: str | None
    ) -> None:
        client = Client(wasgi.App(probe), base_url=base)
        if whole is None:
            with pytest.raises(ValueError, match="must be absolute"):
                client.get(url)
        else:
            client.get(url)
            assert client.exchanges[0].url == whole

    @pytest.mark.parametrize("url", ["/a\nb", "/a\tb", "\x00/a", "/a\x7f"])
    def test_what_is_no_url_is_refused_and_not_mended(self, client: Client, url: str) -> None:
        with pytest.raises(ValueError, match="control character"):
            client.get(url)

    async def test_of_asynchronous_clients(self, probe: wasgi.Component) -> None:
        client = AsyncClient(wasgi.App(probe))
        await client.get("/inspect#frag", params={"a": "1"})
        async with client.stream("GET", "/inspect?#frag", params={"a": "2"}):
            pass
        assert [exchange.url for exchange in client.exchanges] == [
            "http://component.test/inspect?a=1",
            "http://component.test/inspect?a=2",
        ]

    @pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
    @pytest.mark.parametrize(
        ("url", "params", "target", "authority"),
        [
            ("/inspect#frag", {"a": "1"}, "/inspect?a=1", "guest.local"),
            ("/inspect?#frag", None, "/inspect?", "guest.local"),
            ("http://guest.local?a=1#frag", None, "/?a=1", "guest.local"),
            ("http://guest.local:8080/inspect;x?a=%2f#f", None, "/inspect;x?a=%2f", "guest.local:8080"),
            ("http://[::1]:8080/inspect", None, "/inspect", "[::1]:8080"),
            ("http://müller.example/inspect", None, "/inspect", "xn--mller-kva.example"),
            ("http://guest.local:80//double//slash/", None, "//double//slash/", "guest.local"),
            ("http://user:password@guest.local/inspect", None, "/inspect", "guest.local"),
            ("http://GUEST.local/%7e/é?é=ü", None, "/%7e/%C3%A9?%C3%A9=%C3%BC", "guest.local"),
            ("/inspect?b=2#frag", {"a": ["1", "2"]}, "/inspect?a=1&a=2", "guest.local"),
        ],
    )
    def test_of_transports(
        self, app: AppMaker, library: ModuleType, url: str, params: Any, target: str, authority: str
    ) -> None:
        with library.Client(transport=wasgi.httpx.Transport(app()), base_url="http://guest.local") as client:
            request = client.build_request("GET", url, params=params)
            made = wasgi.httpx._request(request, None)
            assert made.url == f"http://{authority}{target}"
            del request.headers["host"]
            assert wasgi.httpx._request(request, None).authority == authority


BODIES: list[tuple[dict[str, Any], bytes, str | None]] = [
    ({"content": b"x"}, b"x", None),
    ({"content": "é"}, "é".encode(), None),
    ({"content": bytearray(b"x")}, b"x", None),
    ({"content": [b"a", b"b"]}, b"ab", None),
    ({"content": b""}, b"", None),
    ({"json": {"a": [1, None, True]}}, b'{"a": [1, null, true]}', "application/json"),
    ({"json": []}, b"[]", "application/json"),
    ({"json": False}, b"false", "application/json"),
    ({"json": 0}, b"0", "application/json"),
    ({"data": {"a": "1 2", "b": ["x", "é"]}}, b"a=1+2&b=x&b=%C3%A9", "application/x-www-form-urlencoded"),
    ({"data": {"t": True, "n": None, "i": 1}}, b"t=true&n=&i=1", "application/x-www-form-urlencoded"),
    ({"data": [("a", 1), ("a", 2)]}, b"a=1&a=2", "application/x-www-form-urlencoded"),
    ({"data": {}}, b"", "application/x-www-form-urlencoded"),
    ({"json": {}, "headers": {"Content-Type": "application/x+json"}}, b"{}", "application/x+json"),
    ({}, b"", None),
    ({"content": None, "json": None, "data": None, "params": None, "headers": None}, b"", None),
]

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"content": b"", "json": 1}, TypeError, "a request has one body: not content and json"),
    ({"content": "", "data": {}}, TypeError, "one body: not content and data"),
    ({"json": {}, "data": {}}, TypeError, "one body: not json and data"),
    ({"json": float("nan")}, ValueError, "`json` has a value that JSON does not have"),
    ({"json": {1, 2}}, TypeError, "not JSON serializable"),
    ({"content": {"a": 1}}, TypeError, "hint: `json` or `data`"),
    ({"data": "a=1"}, TypeError, "hint: `content` is a body as it is"),
    ({"data": b"a=1"}, TypeError, "hint: `content` is a body as it is"),
    ({"data": {"a": {"b": 1}}}, TypeError, r"`data\['a'\]` must be text or a number"),
    ({"data": {"a": b"x"}}, TypeError, r"`data\['a'\]` must be text or a number"),
    ({"data": 1}, TypeError, "`data` must be a mapping or pairs"),
    ({"params": {"a": {1}}}, TypeError, r"`params\['a'\]` must be text or a number"),
    ({"params": ["a"]}, TypeError, "`params` must be a mapping or pairs"),
    ({"params": 1}, TypeError, "`params` must be a mapping or pairs"),
    ({"body": b"x"}, TypeError, "takes no `body`; hint: `content`, `json` or `data`"),
    ({"files": {}}, TypeError, "takes no `files`; hint: "),
    ({"query": {}}, TypeError, "takes no `query`; hint: `params`"),
    ({"cookies": {}}, TypeError, "takes no `cookies`; hint: `headers="),
    ({"follow_redirects": True}, TypeError, "takes no `follow_redirects`"),
]


class TestBodies:
    @pytest.mark.parametrize(("options", "body", "kind"), BODIES)
    def test_of_requests(self, client: Client, options: dict[str, Any], body: bytes, kind: str | None) -> None:
        assert client.post("/echo", **options).content == body
        seen = seen_by_guest(client.post("/inspect", **options).text)
        assert seen.get("header content-type") == kind

    @pytest.mark.parametrize(("options", "body", "kind"), BODIES)
    async def test_of_requests_of_asynchronous_clients(
        self, probe: wasgi.Component, options: dict[str, Any], body: bytes, kind: str | None
    ) -> None:
        client = AsyncClient(wasgi.App(probe))
        assert (await client.post("/echo", **options)).content == body
        async with client.stream("POST", "/echo", **options) as response:
            assert await response.aread() == body

    @pytest.mark.parametrize(("options", "error", "why"), WRONG)
    async def test_what_is_wrong_is_said_where_it_is_written(
        self, client: Client, options: dict[str, Any], error: type[Exception], why: str
    ) -> None:
        with pytest.raises(error, match=why):
            client.post("/echo", **options)
        with pytest.raises(error, match=why), client.stream("POST", "/echo", **options):
            pass
        with pytest.raises(error, match=why):
            await AsyncClient(client.app).post("/echo", **options)
        assert not client.exchanges

    @pytest.mark.parametrize(("options", "body", "kind"), BODIES[:14])
    async def test_of_answers(self, options: dict[str, Any], body: bytes, kind: str | None) -> None:
        upstream = Upstream()
        upstream.any().respond(201, **options)
        for _ in range(2):
            response = await call(upstream, wasgi.Request("GET", "https://a.test/"))
            assert (await response.aread(), response.headers.get("content-type")) == (body, kind)

    async def test_of_answers_only(self) -> None:
        upstream = Upstream()
        upstream.any().respond(json=None).then.respond(content=(chunk for chunk in (b"a", b"b"))).then.respond(
            stream=["é", bytearray(b"b"), 0]  # type: ignore[list-item]
        )
        answers = [await call(upstream, wasgi.Request("GET", "https://a.test/")) for _ in range(3)]
        assert [await answer.aread() for answer in answers] == [b"null", b"ab", "éb".encode()]

    @pytest.mark.parametrize(
        ("options", "error", "why"),
        [
            ({"content": b"", "data": {}}, TypeError, "a response has one body: not content and data"),
            ({"text": "", "json": None}, TypeError, "one body: not text and json"),
            ({"content": b"", "stream": []}, TypeError, "one body: not content and stream"),
            ({"content": {"a": 1}}, TypeError, "hint: `json` or `data`"),
            ({"content": 1}, TypeError, "`content` must be chunks of bytes, not int"),
            ({"content": [1]}, TypeError, "a chunk of `content` must be bytes, not int"),
            ({"content": [b"a", None]}, TypeError, "a chunk of `content` must be bytes, not NoneType"),
            ({"data": "a=1"}, TypeError, "hint: `content` is a body as it is"),
            ({"json": float("inf")}, ValueError, "`json` has a value that JSON does not have"),
            ({"text": b"x"}, TypeError, "`text` must be str, not bytes; hint: `content`"),
            ({"stream": b"abc"}, TypeError, "`stream` must be chunks of bytes, not bytes; hint: `content`"),
            ({"stream": "abc"}, TypeError, "`stream` must be chunks of bytes, not str; hint: `content`"),
            ({"stream": [True]}, TypeError, "must be bytes, or a number of seconds, not bool"),
            ({"stream": [-1]}, ValueError, "a pause must not be below 0"),
            ({"stream": [float("nan")]}, ValueError, "a pause must not be below 0"),
            ({"trailers": {"a b": "c"}}, ValueError, "invalid header name"),
            (
                {"body": b"x"},
                TypeError,
                "a response takes no `body`; hint: `content`, `text`, `html`, `json`, `data` or `stream`",
            ),
            ({"status_code": 201}, TypeError, "takes no `status_code`; hint: `status`"),
            ({"delay": 1}, TypeError, r"takes no `delay`; hint: `\.delays"),
            ({"typo": 1}, TypeError, "a response takes no `typo`$"),
            (
                {"status": "hello"},
                TypeError,
                "`status` must be a number, not str; hint: .*`content`, `text`, `html`, `json`",
            ),
            (
                {"status": {"a": 1}},
                TypeError,
                "`status` must be a number, not dict; hint: .*`content`, `text`, `html`, `json`",
            ),
            ({"status": None}, TypeError, "`status` must be a number, not NoneType"),
            ({"status": True}, TypeError, "`status` must be a number, not bool"),
        ],
    )
    def test_what_is_wrong_with_an_answer_is_said_where_it_is_written(
        self, options: dict[str, Any], error: type[Exception], why: str
    ) -> None:
        with pytest.raises(error, match=why):
            Upstream().any().respond(**options)

    def test_a_status_has_a_name(self) -> None:
        Upstream().any().respond(http.HTTPStatus.CREATED)

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"body": b"x"}, "a route takes no `body`; hint: `content`, `json` or `data`"),
            ({"text": "x"}, "a route takes no `text`; hint: `content`"),
            ({"typo": 1}, "a route takes no `typo`$"),
        ],
    )
    def test_so_is_what_a_route_does_not_take(self, options: dict[str, Any], why: str) -> None:
        upstream = Upstream()
        for verb in (upstream.post, upstream.any):
            with pytest.raises(TypeError, match=why):
                verb("https://a.test/", **options)
        assert not upstream.routes

    def test_a_stream_that_is_there_once(self) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"a"

        for name in ("content", "stream"):
            with pytest.raises(TypeError, match="must be there more than once; hint: `stream` takes a function"):
                Upstream().any().respond(**{name: chunks()})  # type: ignore[arg-type]

    async def test_a_function_that_gives_chunks(self) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"a"

        upstream = Upstream()
        upstream.any().respond(stream=chunks)
        for _ in range(2):
            assert await (await call(upstream, wasgi.Request("GET", "https://a.test/"))).aread() == b"a"

    @pytest.mark.parametrize(
        ("wrong", "error", "why"),
        [
            (lambda route: route.answers(wasgi.Response()), TypeError, "not a response; hint: `respond`"),
            (lambda route: route.answers({"a": 1}), TypeError, "must be callable"),
            (lambda route: route.delays("1"), TypeError, "`seconds` must be a number of seconds, not str"),
            (lambda route: route.delays(True), TypeError, "not bool"),
            (lambda route: route.delays(float("nan")), ValueError, "finite"),
            (lambda route: route.breaks_after(1.5), TypeError, "`size` must be a number of bytes, not float"),
            (lambda route: route.breaks_after(b"x"), TypeError, "`size` must be a number of bytes, not bytes"),
        ],
    )
    def test_other_words_of_a_route(self, wrong: Callable[[Any], Any], error: type[Exception], why: str) -> None:
        with pytest.raises(error, match=why):
            wrong(Upstream().any())

    @pytest.mark.parametrize("answer", [None, "text", b"", 200, {"a": 1}])
    async def test_an_answer_that_is_no_response(self, answer: Any) -> None:
        upstream = Upstream()
        upstream.any().answers(lambda request: answer)
        with pytest.raises(TypeError, match=r"an upstream must give a `wasgi\.Response`, not "):
            await call(upstream, wasgi.Request("GET", "https://a.test/"))
        assert "an upstream must give a `wasgi.Response`" in upstream.complaints()[0]
