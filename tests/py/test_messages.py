"""Request, Response and Headers by themselves."""

from __future__ import annotations

import asyncio
import encodings
import encodings.aliases
import io
import pkgutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping
from typing import Any

import pytest

import wasgi
from tests.conftest import AppMaker, get, post
from wasgi import headers

Message = Callable[..., Any]


def request(body: Any = None, **options: Any) -> wasgi.Request:
    return wasgi.Request("POST", "http://example.com/", body=body, **options)


def response(body: Any = None, **options: Any) -> wasgi.Response:
    return wasgi.Response(200, body=body, **options)


both = pytest.mark.parametrize("make", [request, response])


class TestHeaders:
    def test_is_a_mapping_in_order_and_without_case(self) -> None:
        headers = wasgi.Headers({"Content-Type": "text/plain", "X-A": "1"})
        assert isinstance(headers, MutableMapping)
        assert headers["content-TYPE"] == "text/plain"
        assert list(headers) == ["Content-Type", "X-A"]
        assert "x-a" in headers
        assert "x-b" not in headers
        assert not headers.__contains__(1)
        assert len(headers) == 2
        assert headers.get("x-b", "none") == "none"
        with pytest.raises(KeyError):
            headers["x-b"]

    def test_keeps_duplicates(self) -> None:
        headers = wasgi.Headers([("Set-Cookie", "a=1"), ("x", "1"), (b"set-cookie", b"b=2")])
        assert headers.get_all("SET-cookie") == ["a=1", "b=2"]
        assert headers["set-cookie"] == "a=1, b=2"
        assert list(headers) == ["Set-Cookie", "x"]
        assert len(headers) == 2
        assert headers.raw == [(b"Set-Cookie", b"a=1"), (b"x", b"1"), (b"set-cookie", b"b=2")]

    def test_changes(self) -> None:
        headers = wasgi.Headers([("a", "1"), ("b", "2"), ("A", "3")])
        headers["A"] = "4"
        assert headers.raw == [(b"A", b"4"), (b"b", b"2")]
        headers.add("b", "5")
        assert headers.get_all("b") == ["2", "5"]
        del headers["B"]
        assert headers.raw == [(b"A", b"4")]
        with pytest.raises(KeyError):
            del headers["b"]
        headers.update({"c": "6"})
        assert headers.pop("C") == "6"

    def test_equality(self) -> None:
        headers = wasgi.Headers([("a", "1"), ("B", "2")])
        assert headers == {"b": "2", "A": "1"}
        assert headers == wasgi.Headers([("b", "2"), ("a", "1")])
        assert headers != {"a": "1"}
        assert headers != [("a", "1"), ("B", "2")]
        assert wasgi.Headers([("a", "1"), ("a", "2")]) != wasgi.Headers([("a", "2"), ("a", "1")])

    def test_is_latin_1(self) -> None:
        headers = wasgi.Headers({"x": "café"})
        assert headers.raw == [(b"x", b"caf\xe9")]
        assert headers["x"] == "café"
        with pytest.raises(ValueError, match="is not latin-1"):
            headers["x"] = "☕"

    def test_space_around_a_value_is_no_part_of_it(self) -> None:
        assert wasgi.Headers({"x": " a b\t"})["x"] == "a b"

    @pytest.mark.parametrize("name", ["", "a b", "a:", "é", "a\n"])
    def test_refuses_a_name_that_is_no_token(self, name: str) -> None:
        with pytest.raises(ValueError, match="invalid header name"):
            wasgi.Headers({name: "x"})

    @pytest.mark.parametrize(
        ("value", "what"), [("a\nb", "a newline"), ("a\r", "a newline"), ("a\0", "a control character")]
    )
    def test_refuses_a_value_that_would_break_out(self, value: str, what: str) -> None:
        with pytest.raises(ValueError, match=f"the value of header `x` contains {what}"):
            wasgi.Headers({"x": value})

    @pytest.mark.parametrize("given", ["a: b", b"a", [("a",)], [1], [("a", "b", "c")]])
    def test_refuses_other_shapes(self, given: Any) -> None:
        with pytest.raises(TypeError, match="headers must be a mapping or pairs"):
            wasgi.Headers(given)

    def test_refuses_other_types(self) -> None:
        with pytest.raises(TypeError, match="the value of header `a` must be str or bytes, not int; hint: str"):
            wasgi.Headers({"a": 1})  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a header's name must be str or bytes"):
            wasgi.Headers([(1, "a")])  # type: ignore[list-item]

    def test_repr_gives_it_back(self) -> None:
        headers = wasgi.Headers([("a", "1"), ("a", "é")])
        assert eval(repr(headers), {"Headers": wasgi.Headers}) == headers

    def test_is_not_hashable(self) -> None:
        with pytest.raises(TypeError):
            hash(wasgi.Headers())


class TestRequest:
    def test_takes_its_url_apart(self) -> None:
        made = wasgi.Request("GET", "https://example.com:8443/a/b?x=1&y=%20#fragment")
        assert made.method == "GET"
        assert made.url == "https://example.com:8443/a/b?x=1&y=%20"
        assert (made.scheme, made.authority, made.path, made.query) == (
            "https",
            "example.com:8443",
            "/a/b",
            "x=1&y=%20",
        )

    @pytest.mark.parametrize(
        ("url", "path", "query"),
        [
            ("http://a", "/", ""),
            ("http://a?x=1", "/", "x=1"),
            ("http://a/b c/ü?q=ä b", "/b%20c/%C3%BC", "q=%C3%A4%20b"),
            ("http://a/%2F//..", "/%2F//..", ""),
            ("http://[::1]:80/", "/", ""),
        ],
    )
    def test_paths_and_queries(self, url: str, path: str, query: str) -> None:
        made = wasgi.Request("GET", url)
        assert (made.path, made.query) == (path, query)

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("/path", "it must be absolute"),
            ("example.com/path", "it must be absolute"),
            ("http:///path", "it has no host"),
            ("http://", "it has no host"),
            ("http://:80/", "it has no host"),
            ("http://user:password@example.com/", "it has credentials; hint: send an `authorization` header"),
            ("http://exämple.com/", "hint: encode it by IDNA"),
            ("http://a:99999/", "its port is not a number"),
            ("http://a/\r\nx", "it has a control character"),
            ("http://a b/", "invalid URL"),
        ],
    )
    def test_refuses_urls_that_address_nothing(self, url: str, why: str) -> None:
        with pytest.raises(ValueError, match=why):
            wasgi.Request("GET", url)

    @pytest.mark.parametrize("method", ["", "GE T", "GET\n", "gé"])
    def test_refuses_what_is_no_method(self, method: str) -> None:
        with pytest.raises(ValueError, match="invalid method"):
            wasgi.Request(method, "http://a/")

    def test_takes_any_method_that_is_a_token(self) -> None:
        assert wasgi.Request("PURGE", "http://a/").method == "PURGE"

    def test_has_no_timeouts_of_its_own(self) -> None:
        made = request()
        assert made.timeouts.connect is None
        assert repr(made.timeouts) == "Timeouts(connect=None, first_byte=None, between_bytes=None)"

    def test_repr(self) -> None:
        assert repr(wasgi.Request("GET", "http://a/b")) == "<wasgi.Request GET 'http://a/b'>"


class TestResponse:
    def test_status(self) -> None:
        assert wasgi.Response().status == 200
        assert wasgi.Response(404).status == 404
        assert repr(wasgi.Response(404)) == "<wasgi.Response 404>"
        for status in (99, 1000):
            with pytest.raises(ValueError, match="invalid status"):
                wasgi.Response(status)

    def test_has_no_report_when_nobody_answered(self) -> None:
        assert wasgi.Response().report is None

    def test_closes(self) -> None:
        with response(b"x") as made:
            assert made.read() == b"x"
        made = response(b"x")
        made.close()
        with pytest.raises(wasgi.BodyError):
            made.read()


@both
def test_headers_are_one_object(make: Message) -> None:
    made = make(headers={"a": "1"})
    made.headers["b"] = "2"
    assert made.headers is made.headers
    assert made.headers == {"a": "1", "b": "2"}
    assert make().headers == {}


@both
def test_a_header_with_a_newline(make: Message) -> None:
    with pytest.raises(ValueError, match="contains a newline"):
        make(headers={"a": "b\r\nc: d"})


def chunks() -> Iterator[bytes | bytearray]:
    yield b"one "
    yield b""
    yield bytearray(b"two")


class Stream:
    """An async iterable that is no generator."""

    async def __aiter__(self) -> AsyncIterator[bytes | bytearray]:
        for chunk in chunks():
            yield chunk


@both
@pytest.mark.parametrize(
    ("body", "content"),
    [
        (None, b""),
        (b"bytes", b"bytes"),
        ("text ü", "text ü".encode()),
        (bytearray(b"array"), b"array"),
        (memoryview(b"view"), b"view"),
        (lambda: io.BytesIO(b"file" * 50_000), b"file" * 50_000),
        (lambda: [b"a", b"b"], b"ab"),
        (chunks, b"one two"),
    ],
)
def test_bodies_that_are_read_back_blocking(make: Message, body: Any, content: bytes) -> None:
    def given() -> Any:
        return body() if callable(body) else body

    assert make(given()).read() == content
    assert b"".join(make(given())) == content
    assert make(given()).text == content.decode()


@both
@pytest.mark.parametrize(
    ("body", "content"), [(None, b""), (b"bytes", b"bytes"), ("text", b"text"), (Stream, b"one two")]
)
async def test_bodies_that_are_read_back_async(make: Message, body: Any, content: bytes) -> None:
    def given() -> Any:
        return body() if callable(body) else body

    assert await make(given()).aread() == content
    assert b"".join([bytes(chunk) async for chunk in make(given())]) == content
    made = make(given())
    await made.aread()
    assert made.text == content.decode()


@both
def test_a_body_is_consumed_once(make: Message) -> None:
    made = make(b"x")
    made.read()
    for again in (made.read, lambda: list(made), made.aread, lambda: aiter(made)):
        with pytest.raises(wasgi.BodyError, match="the body was consumed already"):
            again()
    assert made.text == "x"


@both
def test_text_and_json(make: Message) -> None:
    assert make(b"\xe9", headers={"content-type": "text/plain; charset=latin-1"}).text == "é"
    assert make(b"\xe9").text == "\ufffd"
    assert make(b"x", headers={"content-type": 'text/plain; charset="no-such"'}).text == "x"
    assert make('{"a": [1, null]}').json() == {"a": [1, None]}
    with pytest.raises(ValueError, match="Expecting value"):
        make("x").json()


@both
async def test_text_of_a_stream_never_blocks_the_loop(make: Message) -> None:
    with pytest.raises(wasgi.BodyError, match="hint: `await aread\\(\\)` first"):
        make(Stream()).text  # noqa: B018


@both
@pytest.mark.parametrize("body", [1, 1.5, object(), {"a": 1}])
def test_refuses_bodies_of_other_types(make: Message, body: Any) -> None:
    with pytest.raises(TypeError, match="a body must be bytes, str, a file, an iterable or an async iterable"):
        make(body)


@both
def test_chunks_must_be_bytes(make: Message) -> None:
    with pytest.raises(TypeError, match="a body's chunks must be bytes, not str; hint: encode"):
        make(iter(["text"])).read()


@both
def test_an_async_iterable_cannot_be_read_blocking(make: Message) -> None:
    with pytest.raises(TypeError, match="async iterable"):
        make(Stream()).read()
    with pytest.raises(TypeError, match="async iterable"):
        iter(make(Stream()))


@both
async def test_an_iterator_cannot_be_read_async(make: Message) -> None:
    with pytest.raises(TypeError, match="which blocks"):
        make(chunks()).aread()
    with pytest.raises(TypeError, match="which blocks"):
        aiter(make(chunks()))


@both
def test_trailers(make: Message) -> None:
    assert make().trailers is None
    made = make(trailers=[("x-sum", "1")])
    assert made.trailers == {"x-sum": "1"}


def test_a_message_is_the_body_of_another() -> None:
    inner = response(chunks())
    outer = request(inner)
    assert outer.read() == b"one two"
    with pytest.raises(wasgi.BodyError, match="consumed"):
        inner.read()


async def test_awaitables_are_coroutines_to_asyncio() -> None:
    first, second = await asyncio.gather(request(b"a").aread(), asyncio.create_task(response(b"b").aread()))
    assert (first, second) == (b"a", b"b")
    awaitable = request(b"a").aread()
    await awaitable
    with pytest.raises(RuntimeError, match="a second time"):
        await awaitable


def test_mapping_given_as_headers_is_copied() -> None:
    given: Mapping[str, str] = {"a": "1"}
    made = request(headers=given)
    made.headers["a"] = "2"
    assert given == {"a": "1"}


class TestText:
    """Text never raises, whatever the peer says of it."""

    LABELS = sorted(
        {module.name for module in pkgutil.iter_modules(encodings.__path__)}
        | set(encodings.aliases.aliases)
        | {label.replace("_", "-").upper() for label in encodings.aliases.aliases}
        | {"", "\xff", "utf-8\xe9", "utf_8;", "a" * 60_000, "x.y", "..", "os.path", "none", "windows-874", "a b"}
    )
    BODIES = (
        b"",
        b"plain",
        "caf\xe9 \u20ac".encode(),
        bytes(range(256)),
        b"\\",
        b"\\N{x}\\u12",
        b"+AD4-",
        b"xn--\xff",
        b"\x1b$B\xff",
    )

    @both
    def test_with_any_label(self, make: Message) -> None:
        for label in self.LABELS:
            for body in self.BODIES:
                made = make(body, headers={"content-type": f"text/plain; charset={label}"})
                assert isinstance(made.text, str), label

    @both
    @pytest.mark.parametrize(
        "label",
        [
            *("idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "utf-7", "u7", "base64", "hex"),
            *("rot13", "zlib", "bz2", "uu", "quopri", "mbcs", "oem", "charmap", "aliases", "no-such", "utf_8.x", ""),
            "a" * 60_000,
        ],
    )
    def test_what_is_no_charset_of_text_is_read_as_utf_8(self, make: Message, label: str) -> None:
        for body in (b"+AD4-\xc3\xa9\xff", b"\\u0041", b"uryyb"):
            made = make(body, headers={"content-type": f"text/plain; charset={label}"})
            assert made.text == body.decode("utf-8", "replace")

    @both
    @pytest.mark.parametrize(
        ("content_type", "text"),
        [
            ("text/plain; charset=iso-8859-1", "\xe9"),
            ("text/plain;CHARSET=LATIN1", "\xe9"),
            ("text/plain; format=flowed; charset=latin-1", "\xe9"),
            ('text/plain; charset="iso-8859-1"', "\xe9"),
            ('text/plain; charset="iso\\-8859-1"', "\xe9"),
            ("text/plain; charset='iso-8859-1'", "\xe9"),
            ("text/plain; charset=windows-1251", "\u0439"),
            ("text/plain; charset=x-cp1251", "\u0439"),
            ("text/plain; charset=windows-874", "\u0e49"),
            ("text/plain; charset=koi8-r", "\u0418"),
            ('text/plain; x="; charset=koi8-r"; charset=latin-1', "\xe9"),
            ("text/plain; xcharset=latin-1", "\ufffd"),
            ("text/plain; charset", "\ufffd"),
            ("charset=latin-1", "\ufffd"),
        ],
    )
    def test_charsets(self, make: Message, content_type: str, text: str) -> None:
        assert make(b"\xe9", headers={"content-type": content_type}).text == text

    @both
    def test_labels_of_a_peer_are_not_kept(self, make: Message) -> None:
        known = len(encodings._cache)
        for number in range(100):
            make(b"x", headers={"content-type": f"text/plain; charset=no-such-{number}"}).text  # noqa: B018
        assert len(encodings._cache) == known

    def test_a_guests_label_with_a_nul(self, app: AppMaker) -> None:
        with pytest.raises(ValueError, match="control character"):
            wasgi.Headers({"content-type": "text/plain; charset=a\0b"})
        assert headers._decode(b"\xc3\xa9", "text/plain; charset=utf-8\0") == "\xe9"
        assert headers._decode(b"\xc3\xa9", "text/plain; charset=\0") == "\xe9"

    @both
    @pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 200_000, b"\xff", b"\xff\xfe\x00", b"9" * 10_000, b""])
    def test_json_that_is_none_is_a_value_error(self, make: Message, body: bytes) -> None:
        with pytest.raises(ValueError):  # noqa: PT011
            make(body).json()


class TestWhereALoopRuns:
    """A notebook's cell, say: whoever has made a blocking call may be blocked by its response, too."""

    async def test_the_response_of_a_blocking_call_is_read_as_anywhere(self, app: AppMaker) -> None:
        assert app().handle(get("/hello")).text == "Hello, World!"
        assert app().handle(get("/hello")).content == b"Hello, World!"
        assert app().handle(post("/echo", '{"a": 1}')).json() == {"a": 1}

    async def test_an_async_upstream_and_an_async_body_do_not_hinder_it(self, app: AppMaker) -> None:
        async def upstream(request: wasgi.Request) -> wasgi.Response:
            await asyncio.sleep(0)
            return wasgi.Response(body=Stream())

        assert app(outgoing=upstream).handle(get("/fetch?url=https://a.example/")).text.endswith("one two")
        assert app().handle(post("/echo", Stream())).text == "one two"

    async def test_nor_does_handing_the_body_on(self, app: AppMaker) -> None:
        handed_on = wasgi.Response(body=app().handle(get("/hello")))
        assert handed_on.text == "Hello, World!"

    async def test_the_response_of_an_awaited_call_is_awaited(self, app: AppMaker) -> None:
        response = await app().handle_async(get("/hello"))
        for read in (lambda: response.text, lambda: response.content, response.json):
            with pytest.raises(wasgi.BodyError, match=r"hint: `await aread\(\)` first"):
                read()
        await response.aread()
        assert response.text == "Hello, World!"


class TestReadersThatNobodyUses:
    """What is made and never used takes nothing away."""

    @both
    def test_an_aread_that_nobody_awaits(self, make: Message) -> None:
        made = make(b"x")
        made.aread().close()
        del made
        made = make(b"x")
        first, second = made.aread(), made.aread()
        del first
        assert made.read() == b"x"
        with pytest.raises(wasgi.BodyError, match="consumed already"):
            asyncio.run(_await(second))

    @both
    async def test_an_aread_of_an_async_iterable_that_nobody_awaits(self, make: Message) -> None:
        made = make(Stream())
        made.aread().close()
        assert await made.aread() == b"one two"

    @both
    def test_iterators_that_nobody_asks(self, make: Message) -> None:
        made = make(b"x")
        first, second = iter(made), iter(made)
        aiter(made)
        assert next(first) == b"x"
        with pytest.raises(wasgi.BodyError, match="consumed already"):
            next(second)

    async def test_readers_of_a_guests_body(self, app: AppMaker) -> None:
        response = app().handle(get("/hello"))
        response.aread().close()
        del response
        response = app().handle(get("/hello"))
        iter(response)
        aiter(response)
        response.aclose().close()
        assert await response.aread() == b"Hello, World!"

    async def test_closing_an_iterator_that_nobody_has_asked_stops_the_guest(self, app: AppMaker) -> None:
        response = app().handle(get("/hello"))
        await aiter(response).aclose()  # type: ignore[attr-defined]
        with pytest.raises(wasgi.BodyError):
            response.read()

    async def test_an_app_closes_when_that_is_awaited(self, app: AppMaker) -> None:
        made = app()
        made.aclose().close()
        assert not made.closed
        await made.aclose()
        assert made.closed


async def _await(awaitable: Any) -> Any:
    return await awaitable
