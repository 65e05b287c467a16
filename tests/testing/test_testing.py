"""`wasgi.testing`: the client, and what plays the upstream."""

from __future__ import annotations

import http
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import wasgi
from tests.conftest import until
from wasgi import errors, testing
from wasgi.outgoing import call


@pytest.fixture
def upstream() -> testing.Upstream:
    """Our own: its complaints are looked at, not made."""
    return testing.Upstream()


@pytest.fixture
def client(probe: wasgi.Component, upstream: testing.Upstream) -> testing.Client:
    return testing.Client(wasgi.App(probe, outgoing=upstream))


async def ask(upstream: testing.Upstream, method: str, url: str, **options: Any) -> wasgi.Response:
    return await call(upstream, wasgi.Request(method, url, **options))


URL = "https://api.example.com/users/1"


class TestMatching:
    @pytest.mark.parametrize(
        ("options", "fits"),
        [
            ({"url": URL}, True),
            ({"url": "https://api.example.com/users"}, False),
            ({"url": "https://api.example.com/users/*"}, True),
            ({"url": "https://api.example.com/*"}, False),
            ({"url": "https://api.example.com/**"}, True),
            ({"url": "https://*.example.com/users/1"}, True),
            ({"url": re.compile(r"/users/\d$")}, False),
            ({"url": re.compile(r"/users/\d\?")}, True),
            ({"url": f"{URL}?a=1&b=2&b=3"}, True),
            ({"url": f"{URL}?a=1"}, False),
            ({"query": {"a": "1"}}, True),
            ({"query": {"b": "3"}}, True),
            ({"query": {"b": re.compile("[45]")}}, False),
            ({"query": {"c": ""}}, False),
            ({"headers": {"X-Kind": "one"}}, True),
            ({"headers": {"x-kind": re.compile("^t")}}, True),
            ({"headers": {"x-kind": "three"}}, False),
            ({"content": b'{"name": "Ada", "tags": [{"a": 1, "b": 2}]}'}, True),
            ({"content": '{"name": "Ada"}'}, False),
            ({"json": {"name": "Ada"}}, True),
            ({"json": {"tags": [{"a": 1}]}}, True),
            ({"json": {"tags": []}}, False),
            ({"json": {"name": None}}, False),
            ({"where": lambda asked: asked.json()["name"] == "Ada"}, True),
            ({"where": lambda asked: False}, False),
            ({"method": "PUT"}, False),
        ],
    )
    async def test_what_fits(self, upstream: testing.Upstream, options: dict[str, Any], fits: bool) -> None:
        route = upstream.request(options.pop("method", "post"), options.pop("url", None), **options).respond(201)
        request = wasgi.Request(
            "POST",
            f"{URL}?a=1&b=2&b=3",
            headers=[("x-kind", "one"), ("x-kind", "two")],
            body=b'{"name": "Ada", "tags": [{"a": 1, "b": 2}]}',
        )
        if fits:
            assert (await call(upstream, request)).status == 201
            assert route.called
            upstream.check()
        else:
            with pytest.raises(errors.DestinationNotFound):
                await call(upstream, request)
            assert not route.called

    @pytest.mark.parametrize("wanted", ["https://a.example", "https://a.example/"])
    @pytest.mark.parametrize("asked", ["https://a.example", "https://a.example/", "https://a.example/?q=1"])
    async def test_an_empty_path_is_the_root(self, upstream: testing.Upstream, wanted: str, asked: str) -> None:
        upstream.get(wanted)
        assert (await ask(upstream, "GET", asked)).status == 200

    async def test_the_first_that_fits_answers(self, upstream: testing.Upstream) -> None:
        upstream.get(URL).respond(text="one")
        upstream.any().respond(text="any")
        assert [(await ask(upstream, method, URL)).text for method in ("GET", "POST")] == ["one", "any"]
        assert [call.route for call in upstream.calls] == upstream.routes

    async def test_true_is_not_one(self, upstream: testing.Upstream) -> None:
        upstream.post(URL, json={"flag": True})
        with pytest.raises(errors.DestinationNotFound):
            await ask(upstream, "POST", URL, body=b'{"flag": 1}')


class TestAnswers:
    async def test_html(self, upstream: testing.Upstream) -> None:
        upstream.get("https://a/html").respond(html="<p>né")
        upstream.get("https://a/more").respond(html="<p>", headers={"Content-Type": "application/xhtml+xml"})
        answer = await ask(upstream, "GET", "https://a/html")
        assert (answer.text, answer.headers["content-type"]) == ("<p>né", "text/html; charset=utf-8")
        answer = await ask(upstream, "GET", "https://a/more")
        assert answer.headers.get_all("content-type") == ["application/xhtml+xml"]

    async def test_kinds_of_bodies(self, upstream: testing.Upstream) -> None:
        upstream.get("https://a/json").respond(json={"a": [1]}, headers={"x-a": "b"})
        upstream.get("https://a/text").respond(404, text="né")
        upstream.get("https://a/content").respond(content=b"\0")
        upstream.get("https://a/stream").respond(stream=[b"a", 0, b"b"], trailers={"x-sum": "1"})
        answers = {
            name: await ask(upstream, "GET", f"https://a/{name}") for name in ("json", "text", "content", "stream")
        }
        assert answers["json"].json() == {"a": [1]}
        assert answers["json"].headers["content-type"] == "application/json"
        assert answers["json"].headers["x-a"] == "b"
        assert (answers["text"].status, answers["text"].text) == (404, "né")
        assert await answers["content"].aread() == b"\0"
        assert [chunk async for chunk in answers["stream"]] == [b"a", b"b"]
        assert answers["stream"].trailers is not None
        assert answers["stream"].trailers["x-sum"] == "1"

    async def test_sequences(self, upstream: testing.Upstream) -> None:
        upstream.get(URL).raises("connection-refused").then.respond(503).then.respond(200)
        with pytest.raises(errors.ConnectionRefused):
            await ask(upstream, "GET", URL)
        assert [(await ask(upstream, "GET", URL)).status for _ in range(3)] == [503, 200, 200]

    async def test_what_is_said_again_replaces(self, upstream: testing.Upstream) -> None:
        upstream.get(URL).respond(500).respond(200)
        assert (await ask(upstream, "GET", URL)).status == 200

    @pytest.mark.parametrize("code", testing.every_error_code())
    def test_every_error_code_reaches_the_component(
        self, client: testing.Client, upstream: testing.Upstream, code: str
    ) -> None:
        upstream.any().raises(code)
        with pytest.raises(errors.ErrorCode) as raised:
            client.get("/fetch-or-code?url=https://a.example/")
        assert raised.value.code == code
        assert isinstance(upstream.calls[0].outcome, errors.ErrorCode)
        upstream.check()

    def test_there_are_39(self) -> None:
        assert len(set(testing.every_error_code())) == 39

    @pytest.mark.parametrize(
        ("fault", "code"), [(TimeoutError, "connection-timeout"), (OSError("x"), "internal-error")]
    )
    def test_exceptions_are_faults_too(
        self, client: testing.Client, upstream: testing.Upstream, fault: Any, code: str
    ) -> None:
        upstream.any().raises(fault)
        with pytest.raises(errors.ErrorCode) as raised:
            client.get("/fetch-or-code?url=https://a.example/")
        assert raised.value.code == code
        upstream.check()

    def test_a_body_that_breaks(self, client: testing.Client, upstream: testing.Upstream) -> None:
        upstream.any("https://a/1").respond(text="hello").breaks_after(3)
        upstream.any("https://a/2").respond(stream=[b"he", b"llo"]).breaks_after(4, "connection-read-timeout")
        upstream.any("https://a/3").respond(text="hello").breaks_after(0)
        texts = [client.get(f"/fetch?url=https://a/{number}").text for number in (1, 2, 3)]
        assert texts == [
            "hel[broken: Some(ErrorCode::HttpResponseIncomplete)]",
            "hell[broken: Some(ErrorCode::ConnectionReadTimeout)]",
            "[broken: Some(ErrorCode::HttpResponseIncomplete)]",
        ]

    def test_delays(self, client: testing.Client, upstream: testing.Upstream) -> None:
        """A guest that is patient for less gives up."""
        upstream.any().delays(60)
        with pytest.raises(errors.ErrorCode) as raised:
            client.get("/fetch-or-code?url=https://a.example/&first-byte-ms=50")
        assert raised.value.code == "connection-read-timeout"

    async def test_others_answer(self, upstream: testing.Upstream, probe: wasgi.Component) -> None:
        upstream.get("https://function/").answers(lambda request: wasgi.Response(201, body=request.url))
        upstream.get("https://app/hello").answers(wasgi.App(probe))
        upstream.post("https://app/echo").passes_through(wasgi.App(probe))
        assert (await ask(upstream, "GET", "https://function/")).text == "https://function/"
        assert (await ask(upstream, "GET", "https://app/hello")).status == 200
        response = await ask(upstream, "POST", "https://app/echo", body=b"body")
        assert await response.aread() == b"body"

    @pytest.mark.parametrize(
        ("wrong", "error", "why"),
        [
            (lambda route: route.raises("connection-refsed"), ValueError, "hint: 'connection-refused' is"),
            (lambda route: route.raises(1), TypeError, "must be the name of an error-code"),
            (lambda route: route.respond(99), ValueError, "status"),
            (lambda route: route.respond(100), ValueError, "final response, not of an interim one: 100"),
            (lambda route: route.respond(101), ValueError, "final response, not of an interim one: 101"),
            (lambda route: route.respond(199), ValueError, "final response, not of an interim one: 199"),
            (lambda route: route.respond(http.HTTPStatus.EARLY_HINTS), ValueError, "not of an interim one: 103"),
            (lambda route: route.respond(html=b"a"), TypeError, "`html` must be str, not bytes"),
            (lambda route: route.respond(html="a", text="b"), TypeError, "one body: not text and html"),
            (lambda route: route.respond(text="a", json=1), TypeError, "one body: not text and json"),
            (lambda route: route.breaks_after(-1), ValueError, "must not be below 0"),
            (lambda route: route.delays(-1), ValueError, "must not be below 0"),
            (lambda route: route.respond(headers={"a b": "c"}), ValueError, "invalid header name"),
        ],
    )
    def test_what_is_wrong_is_said_where_it_is_written(
        self, upstream: testing.Upstream, wrong: Any, error: type[Exception], why: str
    ) -> None:
        with pytest.raises(error, match=why):
            wrong(upstream.any())


class TestComplaints:
    async def test_what_no_route_fits(self, upstream: testing.Upstream) -> None:
        upstream.get("https://api.example.com/users/1", headers={"accept": "application/json"}).respond()
        upstream.post("https://other.example.com/").respond()
        upstream.allow_unused = True
        with pytest.raises(errors.DestinationNotFound):
            await ask(upstream, "GET", "https://api.example.com/users/2")
        assert upstream.complaints() == [
            "no route matches a request of the component: GET https://api.example.com/users/2\n"
            "the nearest route is: GET https://api.example.com/users/1 with header accept: application/json\n"
            "  url\n"
            "    wanted  https://api.example.com/users/1\n"
            "    came    https://api.example.com/users/2\n"
            "  header 'accept'\n"
            "    wanted  application/json\n"
            "    came    nothing"
        ]
        with pytest.raises(AssertionError, match="no route matches"):
            upstream.check()
        upstream.allow_unmatched = True
        upstream.check()

    async def test_what_was_not_used(self, upstream: testing.Upstream) -> None:
        upstream.get(URL, json={"a": 1})
        assert upstream.complaints() == [f'a route was never used: GET {URL} with json {{"a": 1}}']
        upstream.allow_unused = True
        upstream.check()

    async def test_assertions_inside_the_upstream_are_the_tests(self, upstream: testing.Upstream) -> None:
        """Though the component is told of an internal-error only."""

        def answer(request: wasgi.Request) -> wasgi.Response:
            assert request.headers.get("authorization") == "Bearer x"
            return wasgi.Response()

        upstream.any().answers(answer)
        with pytest.raises(AssertionError):
            await ask(upstream, "GET", URL)
        with pytest.raises(AssertionError, match="the test's own upstream failed: AssertionError"):
            upstream.check()

    async def test_so_are_failures_of_predicates(self, upstream: testing.Upstream) -> None:
        upstream.any(where=lambda asked: asked.json()["name"] == "Ada")
        with pytest.raises(ValueError, match="Expecting value"):
            await ask(upstream, "GET", URL, body=b"no json")
        assert "the test's own upstream failed: json.decoder.JSONDecodeError" in upstream.complaints()[0]

    async def test_what_was_asked(self, upstream: testing.Upstream) -> None:
        route = upstream.post(URL).respond(201)
        await ask(upstream, "POST", f"{URL}?a=1&a=2", headers={"x-a": "b"}, body='{"a": 1}', trailers={"x-sum": "1"})
        (call,) = upstream.calls
        asked = call.request
        assert route.calls == [call]
        assert (asked.method, asked.query, asked.headers["x-a"], asked.json(), call.outcome) == (
            "POST",
            {"a": ["1", "2"]},
            "b",
            {"a": 1},
            201,
        )
        assert str(call) == f"POST {URL}?a=1&a=2 -> 201"


OVER = r"^timed out after 0\.05 s \(`timeout`\)$"


@pytest.mark.parametrize("kind", [testing.Client, testing.AsyncClient])
class TestTimeouts:
    @pytest.mark.parametrize(
        ("wrong", "error"),
        [(-1, ValueError), (-0.5, ValueError), (float("nan"), ValueError), ("5", TypeError), (True, TypeError)],
    )
    def test_what_is_no_time_is_refused_when_the_client_is_made(
        self, probe: wasgi.Component, kind: Any, wrong: Any, error: type[Exception]
    ) -> None:
        with pytest.raises(error, match="`timeout` must be a number of seconds"):
            kind(wasgi.App(probe), timeout=wrong)
        client = kind(wasgi.App(probe), timeout=1)
        with pytest.raises(error, match="`timeout` must be a number of seconds"):
            client.timeout = wrong
        assert client.timeout == 1

    @pytest.mark.parametrize("seconds", [None, 0, 0.5, float("inf")])
    def test_what_is_one(self, probe: wasgi.Component, kind: Any, seconds: float | None) -> None:
        assert kind(wasgi.App(probe), timeout=seconds).timeout == seconds


class TestClient:
    def test_requests(self, client: testing.Client) -> None:
        for body, expected, kind in (
            ({"content": b"x"}, b"x", None),
            ({"json": {"a": 1}}, b'{"a": 1}', "application/json"),
            ({"data": {"a": ["1", "2"]}}, b"a=1&a=2", "application/x-www-form-urlencoded"),
        ):
            assert client.post("/echo", **body).content == expected
            shown = client.post("/inspect", **body).text
            assert kind is None or kind in shown
        with pytest.raises(TypeError, match="one body"):
            client.post("/echo", content=b"", json=1)

    def test_urls(self, client: testing.Client) -> None:
        client.get("/hello?a=1", params={"b": 2})
        client.get("https://other.test/hello", params=[("a", 1), ("a", 2)])
        urls = [exchange.url for exchange in client.exchanges]
        assert urls == ["http://component.test/hello?a=1&b=2", "https://other.test/hello?a=1&a=2"]

    def test_methods(self, client: testing.Client) -> None:
        for method in ("get", "post", "put", "patch", "delete", "options"):
            assert f"Method::{method.title()}" in getattr(client, method)("/inspect").text
        assert client.head("/hello").status == 200

    def test_a_stream(self, client: testing.Client) -> None:
        with client.stream("POST", "/echo", content=iter([b"a", b"b"])) as response:
            assert b"".join(response) == b"ab"
        with pytest.raises(TypeError, match="takes no `body`"), client.stream("GET", "/", body=b""):  # type: ignore[call-arg]
            pass
        with client.stream("GET", "/endless") as response:
            pass
        until(lambda: client.app.exchanges == 0)

    def test_a_guest_that_fails_after_its_answer(self, client: testing.Client) -> None:
        with pytest.raises(wasgi.TrapError):
            client.get("/then?then=trap")
        assert isinstance(client.exchanges[-1].outcome, wasgi.TrapError)

    def test_its_patience(self, probe: wasgi.Component) -> None:
        client = testing.Client(wasgi.App(probe), timeout=0.05)
        with pytest.raises(TimeoutError, match=OVER):
            client.get("/sleep?ms=60000")
        assert isinstance(client.exchanges[0].outcome, TimeoutError)
        with pytest.raises(TimeoutError, match=OVER), client.stream("GET", "/sleep?ms=60000"):
            pass

    def test_the_guests_own_limit_keeps_its_name(self, probe: wasgi.Component) -> None:
        client = testing.Client(wasgi.App(probe, limits=wasgi.Limits(timeout=0.05)), timeout=30)
        with pytest.raises(wasgi.GuestTimeoutError, match=r"`Limits\.timeout`"):
            client.get("/sleep?ms=60000")

    def test_a_timeout_of_the_requests_body_comes_as_it_is(self, probe: wasgi.Component) -> None:
        def body() -> Iterator[bytes]:
            yield b"a"
            raise TimeoutError("of the disk")

        with pytest.raises(TimeoutError, match=r"^of the disk$"):
            testing.Client(wasgi.App(probe), timeout=30).post("/echo", content=body())

    def test_it_closes_its_app(self, probe: wasgi.Component) -> None:
        with testing.Client(wasgi.App(probe)) as client:
            assert client.get("/hello").status == 200
        with pytest.raises(wasgi.AppClosedError):
            client.get("/hello")


class TestAsyncClient:
    async def test_requests(self, probe: wasgi.Component, upstream: testing.Upstream) -> None:
        upstream.any().respond(text="up")
        async with testing.AsyncClient(wasgi.App(probe, outgoing=upstream)) as client:
            for method in ("get", "post", "put", "patch", "delete", "options"):
                assert f"Method::{method.title()}" in (await getattr(client, method)("/inspect")).text
            assert (await client.head("/hello")).status == 200
            assert (await client.get("/fetch", params={"url": "https://a/"})).text == "up"

            async def body() -> AsyncIterator[bytes]:
                yield b"a"

            async with client.stream("POST", "/echo", content=body()) as response:
                assert [chunk async for chunk in response] == [b"a"]

    async def test_its_patience(self, probe: wasgi.Component) -> None:
        client = testing.AsyncClient(wasgi.App(probe), timeout=0.05)
        with pytest.raises(TimeoutError, match=OVER):
            await client.get("/sleep?ms=60000")
        with pytest.raises(TimeoutError, match=OVER):
            async with client.stream("GET", "/sleep?ms=60000"):
                pass
        until(lambda: client.app.exchanges == 0)


class TestEvents:
    @pytest.mark.parametrize(
        ("chunks", "found"),
        [
            ([b"data: a\n\n"], [testing.Event(data="a")]),
            ([b"data: a\r", b"\n\r\ndata:b\r\rid: 7\n"], [testing.Event(data="a"), testing.Event(data="b")]),
            ([b"\xef\xbb\xbfevent: x\ndata: a\ndata:\ndata: b\n\n"], [testing.Event("x", "a\n\nb")]),
            (
                [b"id: 7\nretry: 10\ndata: a\n\n: comment\ndata: b\n\nretry: x\n\ndata: unfinished"],
                [testing.Event(data="a", id="7", retry=10), testing.Event(data="b", id="7")],
            ),
            ([b"data: \xc3", b"\xa9\n\n"], [testing.Event(data="é")]),
        ],
    )
    def test_they_are_read_as_browsers_do(self, chunks: list[bytes], found: list[testing.Event]) -> None:
        """WHATWG HTML, 9.2.6."""
        assert list(testing.events(wasgi.Response(body=iter(chunks)))) == found
