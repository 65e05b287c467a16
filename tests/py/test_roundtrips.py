"""What goes in comes out: requests, responses and headers of any content, by themselves and through a guest."""

from __future__ import annotations

import asyncio
import string
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import wasgi
from tests.conftest import get, post

# without a deadline and always the same examples: a busy machine fails no test
ALWAYS = settings(max_examples=100, deadline=None, derandomize=True, database=None)

TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
# what wasi:http keeps from guests, and what frames a message
RESERVED = {
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
names = st.text(TOKEN, min_size=1, max_size=20).filter(lambda name: name.lower() not in RESERVED)
# visible characters and those of obs-text, blanks within (RFC 9110, 5.5)
values = st.text(["\t", " ", *map(chr, range(0x21, 0x7F)), *map(chr, range(0x80, 0x100))], max_size=30).map(
    lambda value: value.strip(" \t")
)
fields = st.lists(st.tuples(names, values), max_size=8)
chunks = st.lists(st.binary(max_size=9000), max_size=5)
# text of any script
parts = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="#?"), max_size=20)


@ALWAYS
@given(fields)
def test_headers_keep_their_pairs(pairs: list[tuple[str, str]]) -> None:
    headers = wasgi.Headers(pairs)
    assert headers.raw == [(name.encode(), value.encode("latin-1")) for name, value in pairs]
    assert wasgi.Headers(headers.raw) == headers
    assert wasgi.Headers(headers) == headers
    for name in headers:
        assert headers.get_all(name.swapcase()) == [value for other, value in pairs if other.lower() == name.lower()]
        assert headers[name] == ", ".join(headers.get_all(name))
    assert len(headers) == len({name.lower() for name, _ in pairs}) == len(list(headers))


@ALWAYS
@given(fields, st.lists(st.tuples(st.sampled_from(["set", "add", "delete"]), names, values), max_size=10))
def test_headers_are_a_mapping(pairs: list[tuple[str, str]], steps: list[tuple[str, str, str]]) -> None:
    """Against a model: a dict of lists."""
    headers, model = wasgi.Headers(pairs), dict[str, list[str]]()
    for name, value in pairs:
        model.setdefault(name.lower(), []).append(value)
    known = [name for name, _ in pairs]
    for position, (step, new, value) in enumerate(steps):
        name = known[position] if position < len(known) else new
        if step == "set":
            headers[name] = value
            model[name.lower()] = [value]
        elif step == "add":
            headers.add(name, value)
            model.setdefault(name.lower(), []).append(value)
        elif name.lower() in model:
            del headers[name]
            del model[name.lower()]
        else:
            with pytest.raises(KeyError):
                del headers[name]
        assert {name.lower(): headers.get_all(name) for name in headers} == model


@ALWAYS
@given(st.binary(max_size=8), st.binary(max_size=8))
@example(b"x", b"a\nb")
@example(b"", b"")
@example(b"x y", b"")
@example(b"x", b"\xff\x80")
def test_headers_take_what_the_core_takes(shared_app: wasgi.App, name: bytes, value: bytes) -> None:
    """Python's check and the core's are of one mind: nothing passes the first and fails in the second."""
    try:
        headers = wasgi.Headers([(name, value)])
    except ValueError:
        return
    response = shared_app.handle(get("/hello", headers=headers))
    assert response.status == 200


@ALWAYS
@given(parts, parts)
def test_urls_are_read_the_same_again(path: str, query: str) -> None:
    request = wasgi.Request("GET", f"http://example.com/{path}?{query}")
    assert request.url == wasgi.Request("GET", request.url).url
    safe = "".join(chr(byte) for byte in range(0x21, 0x7F) if chr(byte) not in '"<>\\^`{|}')
    assert request.path == "/" + quote(path, safe=safe)
    assert request.query == quote(query, safe=safe)
    assert (request.scheme, request.authority) == ("http", "example.com")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("://host/", "scheme must begin with a letter"),
        ("1http://host/", "scheme must begin with a letter"),
        ("http://", "no host"),
        ("http://:80/", "no host"),
    ],
)
def test_urls_that_the_fuzzer_found(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        wasgi.Request("GET", url)


@pytest.mark.parametrize("length", ["+5", "-5", "5 5", "0x5", "", "99999999999999999999999"])
def test_a_length_that_is_no_number_announces_nothing(shared_app: wasgi.App, length: str) -> None:
    response = shared_app.handle(post("/collect", iter([b"12345"]), headers={"content-length": length}))
    assert response.text == "5 bytes: 12345"


@ALWAYS
@given(fields)
def test_a_guest_sees_the_fields_of_its_request(shared_app: wasgi.App, pairs: list[tuple[str, str]]) -> None:
    lines = shared_app.handle(get("/inspect", headers=pairs)).text.splitlines()
    seen = [line.removeprefix("header ") for line in lines if line.startswith("header ")]

    def shown(name: str, value: str) -> str:
        escaped = {"\t": "\\t", "\\": "\\\\", "'": "\\'", '"': '\\"'}
        text = "".join(escaped.get(c, c if 0x20 <= ord(c) < 0x7F else f"\\x{ord(c):02x}") for c in value)
        return f"{name.lower()}: {text}"

    assert sorted(seen) == sorted(shown(*pair) for pair in pairs)


@ALWAYS
@given(chunks, fields)
def test_bodies_and_trailers_through_a_guest(
    shared_app: wasgi.App, body: list[bytes], trailers: list[tuple[str, str]]
) -> None:
    response = shared_app.handle(post("/echo", iter(body), trailers=trailers))
    assert response.read() == b"".join(body)
    assert (response.trailers or wasgi.Headers()) == wasgi.Headers(trailers)


@ALWAYS
@given(chunks, fields)
def test_bodies_and_trailers_through_a_guest_async(
    shared_app: wasgi.App, body: list[bytes], trailers: list[tuple[str, str]]
) -> None:
    async def produce() -> AsyncIterator[bytes]:
        for chunk in body:
            yield chunk

    async def main() -> tuple[bytes, wasgi.Headers]:
        response = await shared_app.handle_async(post("/echo", produce(), trailers=trailers))
        return await response.aread(), response.trailers or wasgi.Headers()

    assert asyncio.run(main()) == (b"".join(body), wasgi.Headers(trailers))


@ALWAYS
@given(st.integers(200, 599), fields, chunks, fields)
def test_an_upstreams_answer_through_a_guest(
    probe: wasgi.Component,
    status: int,
    headers: list[tuple[str, str]],
    body: list[bytes],
    trailers: list[tuple[str, str]],
) -> None:
    def upstream(request: wasgi.Request) -> wasgi.Response:
        return wasgi.Response(status, headers=headers, body=iter(body), trailers=trailers)

    response = wasgi.App(probe, outgoing=upstream).handle(get("/fetch?url=http://up/"))
    assert response.status == status
    assert response.headers == wasgi.Headers(headers)
    if status not in (204, 304):
        assert response.read() == b"".join(body)
        assert (response.trailers or wasgi.Headers()) == wasgi.Headers(trailers)
