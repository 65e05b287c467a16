"""Settings and messages are values: compared, hashed, copied with changes, pickled."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trustme

import wasgi
from tests.conftest import HELLO, AppMaker, get, post, until


def answer(request: wasgi.Request) -> wasgi.Response:
    return wasgi.Response(body=request.url)


VALUES = [
    wasgi.Limits(),
    wasgi.Limits(memory=1 << 20, timeout=None, fuel=5, queue=3, chunks=2),
    wasgi.ComponentLimits(),
    wasgi.ComponentLimits(size=None, globals=5, timeout=1.5, memory=1 << 30),
    wasgi.Reuse(),
    wasgi.Reuse(requests=None, idle=1.5),
    wasgi.Dir("data"),
    wasgi.Dir(Path("/tmp/gäste"), write=True),
    wasgi.Timeouts(),
    wasgi.Timeouts(connect=1.5, first_byte=0.0),
    wasgi.Network(["https://a.example"]),
    wasgi.Network(
        {"https://b.example": 1},
        deny=("https://b.example/x",),
        methods=iter(["GET"]),
        addresses=["10.1.0.0/16"],
        allow_private=True,
        proxy="http://user:secret@proxy.example:3128",
        no_proxy=["c.example"],
        http2=False,
        timeout=3,
        retries=2,
        max_connections_per_host=4,
        connection_lifetime=None,
    ),
    wasgi.outgoing.route({"https://a.example/": wasgi.Network(["https://a.example"]), "*": answer}),
    wasgi.testing.Simulation(),
    wasgi.testing.Simulation(seed=2**64 - 1, now=1.5),
    wasgi.Request("GET", "https://a.example/x?y=1"),
    wasgi.Request(
        "POST",
        "https://a.example/",
        headers=[("a", "1"), ("a", "2")],
        body="text",
        trailers={"x": "1"},
        timeouts=wasgi.Timeouts(connect=1),
    ),
    wasgi.Response(),
    wasgi.Response(404, headers=[("set-cookie", "a"), ("set-cookie", "b")], body=b"gone", trailers={"x": "1"}),
    wasgi.Headers([("a", "1"), ("a", "2")]),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
class TestEach:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_is_pickled(self, value: Any, protocol: int) -> None:
        restored = pickle.loads(pickle.dumps(value, protocol))
        assert type(restored) is type(value)
        assert restored == value
        assert repr(restored) == repr(value)

    @pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
    def test_is_copied(self, value: Any, duplicate: Callable[[Any], Any]) -> None:
        assert duplicate(value) == value

    def test_is_equal_to_itself_and_to_nothing_else(self, value: Any) -> None:
        assert [other for other in VALUES if other == value] == [value]
        assert value != "else"
        assert value == mock.ANY

    def test_equal_ones_have_one_hash(self, value: Any) -> None:
        if isinstance(value, wasgi.Headers):
            pytest.skip("its values change")
        assert hash(pickle.loads(pickle.dumps(value))) == hash(value)
        assert {value: 1}[copy.copy(value)] == 1


def replace(value: Any, **changes: Any) -> Any:
    """`copy.replace` of Python 3.13."""
    if sys.version_info >= (3, 13):
        return copy.replace(value, **changes)
    return value.__replace__(**changes)


@pytest.mark.parametrize(
    ("value", "changes", "expected"),
    [
        (wasgi.Limits(memory=1), {"timeout": None}, wasgi.Limits(memory=1, timeout=None)),
        (wasgi.Reuse(idle=1), {"requests": None}, wasgi.Reuse(requests=None, idle=1)),
        (wasgi.Dir("a"), {"write": True}, wasgi.Dir("a", write=True)),
        (wasgi.Timeouts(connect=1), {"first_byte": 2}, wasgi.Timeouts(connect=1, first_byte=2)),
        (
            wasgi.Network(["https://a"], retries=1),
            {"allow": ["https://b"]},
            wasgi.Network(["https://b"], retries=1),
        ),
        (wasgi.testing.Simulation(seed=1), {"now": 2.0}, wasgi.testing.Simulation(seed=1, now=2.0)),
        (
            wasgi.Request("GET", "http://a/", headers={"a": "1"}),
            {"method": "PUT", "url": "http://b/", "body": b"x"},
            wasgi.Request("PUT", "http://b/", headers={"a": "1"}, body=b"x"),
        ),
        (wasgi.Request("GET", "http://a/", body=b"x"), {"body": None}, wasgi.Request("GET", "http://a/")),
        (
            wasgi.Response(200, headers={"a": "1"}, body="x"),
            {"status": 404},
            wasgi.Response(404, headers={"a": "1"}, body="x"),
        ),
        (wasgi.Response(body="x"), {"headers": {"a": "1"}}, wasgi.Response(headers={"a": "1"}, body="x")),
    ],
)
def test_is_replaced_in_part(value: Any, changes: dict[str, Any], expected: Any) -> None:
    before = copy.copy(value)
    assert replace(value, **changes) == expected
    assert value == before


def test_what_is_replaced_is_checked() -> None:
    with pytest.raises(ValueError, match="`memory` must be a positive number"):
        replace(wasgi.Limits(), memory=0)
    for value in (wasgi.Limits(), wasgi.Request("GET", "http://a/"), wasgi.Response(), wasgi.Network([])):
        with pytest.raises(TypeError, match="nothing_such"):
            replace(value, nothing_such=1)
    with pytest.raises(ValueError, match="it must be absolute"):
        replace(wasgi.Request("GET", "http://a/"), url="/path")
    with pytest.raises(ValueError, match="invalid status"):
        replace(wasgi.Response(), status=99)


def test_another_body_has_its_own_length() -> None:
    request = wasgi.Request("PUT", "http://a/", headers={"Content-Length": "1", "a": "b"}, body=b"x")
    assert replace(request, body=b"longer").headers == {"a": "b"}
    assert replace(request, url="http://b/").headers == {"Content-Length": "1", "a": "b"}


def test_a_network_says_what_it_is_but_no_secret(authority: trustme.CA) -> None:
    client = authority.issue_cert("client")
    network = wasgi.Network(
        ["https://a"],
        proxy="http://user:secret@proxy.example:3128",
        client_cert=client.cert_chain_pems[0].bytes(),
        client_key=client.private_key_pem.bytes(),
        timeout=2,
    )
    shown = repr(network)
    assert "secret" not in shown
    assert "PRIVATE" not in shown
    assert "proxy='http://...@proxy.example:3128'" in shown
    assert "timeout=2.0" in shown
    assert pickle.loads(pickle.dumps(network)) == network


def test_a_copy_shares_the_connections() -> None:
    network = wasgi.Network(["https://a"])
    assert copy.copy(network) is network


def test_headers_are_copied_apart() -> None:
    headers = wasgi.Headers({"a": "1"})
    for copied in (copy.copy(headers), copy.deepcopy(headers), headers.copy()):
        copied["a"] = "2"
        assert headers == {"a": "1"}


def chunks() -> Iterator[bytes]:
    yield b"x"


@pytest.mark.parametrize(
    "make", [lambda body: wasgi.Request("GET", "http://a/", body=body), lambda body: wasgi.Response(body=body)]
)
class TestStreams:
    def test_cannot_be_copied_before_they_are_read(self, make: Callable[[Any], Any]) -> None:
        message = make(chunks())
        for act in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match=r"hint: `read\(\)`"):
                act(message)
        message.read()
        assert pickle.loads(pickle.dumps(message)).read() == b"x"
        assert copy.copy(message).read() == b"x"

    def test_are_equal_to_themselves_only(self, make: Callable[[Any], Any]) -> None:
        message = make(chunks())
        assert message == message
        assert message != make(chunks())

    def test_move_over_to_what_replaces_them(self, make: Callable[[Any], Any]) -> None:
        message = make(chunks())
        moved = replace(message, headers={"a": "1"})
        assert moved.read() == b"x"
        with pytest.raises(wasgi.BodyError, match="consumed"):
            copy.copy(message)


def test_a_request_that_does_not_stream_is_copied_though_it_was_sent(app: AppMaker) -> None:
    request = get("/hello")
    made = app()
    for _ in range(2):
        assert made.handle(copy.copy(request)).text == "Hello, World!"
    made.handle(request).read()
    assert made.handle(copy.copy(request)).text == "Hello, World!"
    sent = post("/echo", b"x")
    made.handle(sent).read()
    assert made.handle(copy.copy(sent)).read() == b"x"


def test_a_guests_response_travels_with_its_report(app: AppMaker) -> None:
    response = app().handle(get("/trailers"))
    with pytest.raises(TypeError, match="hint"):
        pickle.dumps(response)
    response.read()
    response.wait()
    restored = pickle.loads(pickle.dumps(response))
    assert restored == response
    assert restored.report == response.report
    assert restored.trailers == response.trailers
    assert restored.trailers
    assert copy.copy(response).report == response.report
    assert hash(restored.report) == hash(response.report)


def test_what_a_guest_allows_its_request_goes_on_with_it(app: AppMaker) -> None:
    asked: list[wasgi.Request] = []

    def upstream(request: wasgi.Request) -> wasgi.Response:
        asked.append(replace(request, url="https://b.example/"))
        return wasgi.Response()

    app(outgoing=upstream).handle(get("/fetch?url=https://a.example/&first-byte-ms=250")).read()
    assert asked[0].url == "https://b.example/"
    assert pickle.loads(pickle.dumps(replace(asked[0], body=None))).timeouts == asked[0].timeouts


def test_a_components_copy_is_the_same() -> None:
    component = wasgi.Component(HELLO)
    assert copy.copy(component) is component
    assert copy.deepcopy(component) is component
    assert component == mock.ANY


def test_a_guests_line_travels(app: AppMaker) -> None:
    lines: list[Any] = []
    app(stdout=lines.append).handle(get("/stdio")).read()
    until(lambda: bool(lines))
    restored = pickle.loads(pickle.dumps(lines[0]))
    assert (restored, restored.stream, restored.exchange) == (lines[0], "stdout", lines[0].exchange)


WRONG = [-1, -1.0, math.nan, math.inf, -math.inf]


class TestNumbers:
    """A number that makes no sense is refused wherever one is taken."""

    @pytest.mark.parametrize("number", WRONG)
    def test_seconds(self, number: float) -> None:
        for make in (
            lambda: wasgi.Limits(timeout=number),
            lambda: wasgi.Limits(queue_timeout=number),
            lambda: wasgi.Reuse(idle=number),
            lambda: wasgi.Timeouts(connect=number),
            lambda: wasgi.Network([], connect_timeout=number),
            lambda: wasgi.Network([], first_byte_timeout=number),
            lambda: wasgi.Network([], between_bytes_timeout=number),
            lambda: wasgi.Network([], timeout=number),
            lambda: wasgi.Network([], idle_timeout=number),
            lambda: wasgi.Network([], connection_lifetime=number),
            lambda: wasgi.testing.Simulation(now=number),
            lambda: wasgi.App(HELLO).close(number),
            lambda: wasgi.App(HELLO).aclose(number),
        ):
            with pytest.raises(ValueError, match="must be"):
                make()

    @pytest.mark.parametrize("number", [1e30, 1e10])
    def test_seconds_beyond_all_clocks(self, number: float) -> None:
        for make in (
            lambda: wasgi.Limits(timeout=number),
            lambda: wasgi.Reuse(idle=number),
            lambda: wasgi.Network([], timeout=number),
            lambda: wasgi.App(HELLO).close(number),
        ):
            with pytest.raises(ValueError, match="must be"):
                make()

    @pytest.mark.parametrize("number", [-1, math.nan])
    def test_a_time_to_wait(self, number: float) -> None:
        app = wasgi.App(HELLO)
        with pytest.raises(ValueError, match="a timeout must be"):
            app._handle_within(get("/"), number)
        response = app.handle(get("/"))
        with pytest.raises(ValueError, match="a timeout must be"):
            iter(response)._next_within(number)
        assert response.text == "Hello, World!"

    def test_counts(self) -> None:
        for name in ("memory", "instances", "handles", "fuel", "fields", "outgoing", "concurrency", "queue", "chunks"):
            for number in (-1, 2**63, -(2**70)):
                with pytest.raises(ValueError, match=r"must be|out of range"):
                    wasgi.Limits(**{name: number})
            with pytest.raises(TypeError):
                wasgi.Limits(**{name: 1.5})  # type: ignore[arg-type]
        for name in ("max_connections", "max_connections_per_host", "response_fields", "response_body", "retries"):
            for number in (-1, 2**63):
                with pytest.raises(ValueError, match=r"must|out of range"):
                    wasgi.Network([], **{name: number})  # type: ignore[arg-type]
        for number in (-1, 0, 2**63):
            with pytest.raises(ValueError, match=r"must be|out of range"):
                wasgi.Reuse(requests=number)

    @pytest.mark.parametrize("status", [-1, 0, 99, 1000, 70_000, 2**70])
    def test_a_status(self, status: int) -> None:
        with pytest.raises(ValueError, match=r"invalid status|out of range"):
            wasgi.Response(status)

    def test_a_bool_is_none(self) -> None:
        for make in (
            lambda: wasgi.Limits(memory=True),
            lambda: wasgi.Limits(timeout=True),
            lambda: wasgi.Reuse(requests=True),
            lambda: wasgi.Reuse(concurrent=True),
            lambda: wasgi.Network([], timeout=True),
            lambda: wasgi.Network([], retries=True),
            lambda: wasgi.testing.Simulation(seed=True),
            lambda: wasgi.Timeouts(connect=True),
            lambda: wasgi.Response(True),
            lambda: wasgi.App(HELLO).close(True),
        ):
            with pytest.raises(TypeError, match="expected a number, not a bool"):
                make()


class TestNuls:
    """What no file system and no environment holds is refused where it is given."""

    def test_paths(self) -> None:
        for make in (
            lambda: wasgi.Component("a\0b"),
            lambda: wasgi.App("a\0b"),
            lambda: wasgi.Dir("a\0b"),
            lambda: wasgi.Network([], ca="a\0b"),
            lambda: wasgi.Network([], client_cert="a\0b", client_key="c"),
            lambda: wasgi.App(HELLO, dirs={"/x": "a\0b"}),
            lambda: wasgi.App(HELLO, dirs={"/\0": "."}),
            lambda: wasgi.App(HELLO, args=["a\0b"]),
            lambda: wasgi.App(HELLO, env={"a": "\0"}),
        ):
            with pytest.raises(ValueError, match=r"NUL|`env` has an invalid|no such directory"):
                make()
