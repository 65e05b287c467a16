"""Server-sent events, parsed as WHATWG HTML has it (9.2.5, 9.2.6)."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wasgi
from wasgi.testing import AsyncClient, Client, Event, Upstream, events

BOM = b"\xef\xbb\xbf"

STREAMS: list[tuple[bytes, list[Event]]] = [
    # ends of lines
    (b"data: x\n\n", [Event(data="x")]),
    (b"data: x\r\r", [Event(data="x")]),
    (b"data: x\r\n\r\n", [Event(data="x")]),
    (b"data: x\n\r", [Event(data="x")]),
    (b"data: x\r\n\r", [Event(data="x")]),
    (b"data: x\r\r\n", [Event(data="x")]),
    (b"data: a\rdata: b\ndata: c\r\n\n", [Event(data="a\nb\nc")]),
    (b"\n\r\r\n\ndata: x\n\n", [Event(data="x")]),
    # others than these end none
    ("data: a\x0bb\x0cc\x1cd\x85e\u2028f\n\n".encode(), [Event(data="a\x0bb\x0cc\x1cd\x85e\u2028f")]),
    # a mark at the beginning, once
    (BOM + b"data: x\n\n", [Event(data="x")]),
    (BOM + BOM + b"data: x\n\ndata: y\n\n", [Event(data="y")]),
    (b"\n" + BOM + b"data: x\n\n", []),
    (b"data: " + BOM + b"x\n\n", [Event(data="\ufeffx")]),
    # fields
    (b"data:x\n\n", [Event(data="x")]),
    (b"data:  x\n\n", [Event(data=" x")]),
    (b"data:\tx\n\n", [Event(data="\tx")]),
    (b"data: a:b\n\n", [Event(data="a:b")]),
    (b"data\n\n", [Event(data="")]),
    (b"data:\n\n", [Event(data="")]),
    (b"data\ndata\n\n", [Event(data="\n")]),
    (b"data: a\ndata:\ndata: b\n\n", [Event(data="a\n\nb")]),
    (b"Data: x\n\n", []),
    (b"data : x\n\n", []),
    (b" data: x\n\n", []),
    (b"other: x\ndata: y\nunknown\n\n", [Event(data="y")]),
    # comments
    (b": comment\ndata: x\n:\n\n", [Event(data="x")]),
    (b":\n\n:data: x\n\n", []),
    # types
    (b"event: ping\ndata: x\n\ndata: y\n\n", [Event("ping", "x"), Event(data="y")]),
    (b"event: a\nevent: b\ndata: x\n\n", [Event("b", "x")]),
    (b"event: a\nevent\ndata: x\n\n", [Event(data="x")]),
    (b"event: ping\n\ndata: x\n\n", [Event(data="x")]),
    # the last id
    (b"id: 1\ndata: x\n\ndata: y\n\n", [Event(data="x", id="1"), Event(data="y", id="1")]),
    (b"id: 1\n\ndata: x\n\n", [Event(data="x", id="1")]),
    (b"id: 1\ndata: x\n\nid\ndata: y\n\n", [Event(data="x", id="1"), Event(data="y")]),
    (b"id: 1\nid: 2\x003\ndata: x\n\n", [Event(data="x", id="1")]),
    (b"id: \xc3\xa9\ndata: x\n\n", [Event(data="x", id="é")]),
    # how long to wait
    (b"retry: 1000\ndata: x\n\n", [Event(data="x", retry=1000)]),
    (b"retry: 0010\ndata: x\n\n", [Event(data="x", retry=10)]),
    (b"retry: 10\nretry: x\nretry\ndata: x\n\n", [Event(data="x", retry=10)]),
    (b"retry: -1\ndata: x\n\n", [Event(data="x")]),
    (b"retry: 1.5\ndata: x\n\n", [Event(data="x")]),
    (b"retry:  1\ndata: x\n\n", [Event(data="x")]),
    (b"retry: 1_0\ndata: x\n\n", [Event(data="x")]),
    ("retry: ٣\ndata: x\n\n".encode(), [Event(data="x")]),
    (b"retry: " + b"9" * 5000 + b"\ndata: x\n\n", [Event(data="x")]),
    # the end
    (b"data: x", []),
    (b"data: x\n", []),
    (b"data: x\n\ndata: y\n", [Event(data="x")]),
    (b"data: x\n\ndata: y", [Event(data="x")]),
    (b"", []),
    # what is no UTF-8
    (b"data: \xff\xc3(\n\n", [Event(data="\ufffd\ufffd(")]),
    (b"data: \xe2\x82\n\n", [Event(data="\ufffd")]),
    (b"data: \xf0\x9f\x98\x80\n\n", [Event(data="😀")]),
]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(places), len(stream)]
    return [stream[begin:end] for begin, end in itertools.pairwise(edges)]


class TestGrammar:
    @pytest.mark.parametrize(("stream", "found"), STREAMS)
    def test_as_browsers_do(self, stream: bytes, found: list[Event]) -> None:
        assert list(events(wasgi.Response(body=iter([stream])))) == found

    @pytest.mark.parametrize(("stream", "found"), [one for one in STREAMS if len(one[0]) < 1000])
    def test_however_it_is_cut(self, stream: bytes, found: list[Event]) -> None:
        for size in (1, 2, 3):
            places = list(range(size, len(stream), size))
            assert list(events(wasgi.Response(body=iter(cut(stream, places))))) == found

    @given(
        st.lists(st.sampled_from([b"\r", b"\n", b"data", b":", b" ", b"id", b"\xc3", b"\xa9", BOM, b"x"])), st.data()
    )
    def test_cuts_change_nothing(self, parts: list[bytes], data: st.DataObject) -> None:
        stream = b"".join(parts)
        places = data.draw(st.lists(st.integers(0, len(stream))))
        whole = list(events(wasgi.Response(body=iter([stream]))))
        assert list(events(wasgi.Response(body=iter(cut(stream, places))))) == whole

    @pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n", b"\r\n\r"])
    def test_an_event_comes_before_the_next_byte_does(self, end: bytes) -> None:
        taken = []

        def chunks() -> Iterator[bytes]:
            for number in range(3):
                yield b"data: %d%s" % (number, end)
                taken.append(number)

        found = [(event.data, list(taken)) for event in events(wasgi.Response(body=chunks()))]
        assert found == [("0", []), ("1", [0]), ("2", [0, 1])]

    def test_a_long_line_of_small_chunks(self) -> None:
        chunks = [b"data: ", *[b"x" * 10] * 50_000, b"\n\n"]
        (event,) = events(wasgi.Response(body=iter(chunks)))
        assert len(event.data) == 500_000


class TestReconnectionTime:
    """Of the stream, not of an event (9.2.6): a block may have nothing else."""

    @pytest.mark.parametrize(
        ("stream", "retry"),
        [
            (b"retry: 1000\n\n", 1000),
            (b"retry: 1000\n\ndata: x\n\n", 1000),
            (b"retry: 1000\ndata: x\n\n", 1000),
            (b"retry: 1\n\nretry: 2\n\n", 2),
            (b"retry: 1\n\nretry: x\n\nretry:\n\n", 1),
            (b"retry: 5\n", 5),
            (b"retry: 5", None),
            (b"data: x\n\n", None),
        ],
    )
    def test_it(self, stream: bytes, retry: int | None) -> None:
        found = events(wasgi.Response(body=iter([stream])))
        assert found.retry is None
        for _ in found:
            pass
        assert found.retry == retry

    def test_no_event_comes_of_it(self) -> None:
        found = events(wasgi.Response(body=iter([b"retry: 1000\n\ndata: x\n\n"])))
        assert list(found) == [Event(data="x")]


class TestFromAComponent:
    STREAM = (b"id: 1\rdata: a\r", b"\rdata: b\r\n", b"\r\n")

    def test_as_they_come(self, probe: wasgi.Component) -> None:
        upstream = Upstream()
        upstream.any().respond(stream=self.STREAM, headers={"content-type": "text/event-stream"})
        client = Client(wasgi.App(probe, outgoing=upstream))
        with client.stream("GET", "/fetch?url=https://a.test/") as response:
            found = events(response)
            assert next(found) == Event(data="a", id="1")
            assert list(found) == [Event(data="b", id="1")]

    async def test_in_asynchronous_code(self, probe: wasgi.Component) -> None:
        upstream = Upstream()
        upstream.any().respond(stream=self.STREAM)
        client = AsyncClient(wasgi.App(probe, outgoing=upstream))
        async with client.stream("GET", "/fetch?url=https://a.test/") as response:
            assert [event.data async for event in events(response)] == ["a", "b"]

    async def test_what_the_body_raises_comes_through(self) -> None:
        async def body() -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            raise ZeroDivisionError

        found: list[Any] = []
        with pytest.raises(ZeroDivisionError):
            async for event in events(wasgi.Response(body=body())):
                found += [json.loads(event.data)]
        assert found == [1]
