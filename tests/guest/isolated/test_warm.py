"""Warm-ups, and instances that are made ahead."""

from __future__ import annotations

import asyncio
import threading
import urllib.request
from collections.abc import MutableMapping

import pytest
from starlette.testclient import TestClient

import wasgi
from tests.conftest import HAND, get, until
from tests.guest.isolated.asking import ask
from wasgi.testing import Client, Upstream


def warmed(warm: object, **options: object) -> wasgi.Reuse:
    return wasgi.Reuse(isolated=True, requests=None, idle=None, warm=warm, **options)  # type: ignore[arg-type]


def test_each_exchange_begins_with_what_the_warm_ups_have_left(probe: wasgi.Component) -> None:
    warm = [get("/remember?word=a"), get("/remember?word=b")]
    with wasgi.App(probe, reuse=warmed(warm)) as app:
        client = Client(app)
        words = [client.get(f"/remember?word={word}") for word in "xyz"]
    assert [response.text for response in words] == ["b"] * 3
    assert [response.report.reused for response in words if response.report] == [0, 1, 2]


def test_what_a_fresh_instance_would_have_after_them(keeper: wasgi.Component) -> None:
    """Memory and the numbers of handles, in the first exchange as in the others."""
    with wasgi.App(keeper, reuse=warmed(get("/keep?in=data&secret=00"))) as app:
        entries = {(ask(app, "/handles?n=5").text, ask(app, "/nowhere").entry) for _ in range(5)}
    assert len(entries) == 1
    assert "counter=1" in entries.pop()[1], "one exchange came before"


def test_they_are_answered_by_the_upstreams_of_the_app(probe: wasgi.Component) -> None:
    upstream = Upstream()
    upstream.any()
    with wasgi.App(probe, outgoing=upstream, reuse=warmed([get("/fetch?url=http://a.test/")] * 2)) as app:
        answers = [ask(app, "/hello") for _ in range(3)]
    assert len(upstream.calls) == 3, "one to see that it answers once more"
    assert [answer.reused for answer in answers] == [0, 1, 2]


def test_what_they_print_is_the_first_exchanges(probe: wasgi.Component) -> None:
    lines: list[tuple[str, int]] = []

    def note(line: str) -> None:
        lines.append((str(line), line.exchange))  # type: ignore[attr-defined]

    with wasgi.App(probe, stdout=note, reuse=warmed(get("/stdio"))) as app:
        response = Client(app).get("/hello")
        Client(app).get("/hello")
    assert response.report is not None
    assert {number for _, number in lines} == {response.report.exchange}


def test_each_exchange_after_them_prints(probe: wasgi.Component) -> None:
    printed: set[int] = set()

    def note(line: str) -> None:
        printed.add(line.exchange)  # type: ignore[attr-defined]

    with wasgi.App(probe, stdout=note, reuse=warmed(get("/hello"))) as app:
        responses = [Client(app).get("/stdio") for _ in range(3)]
    assert sorted(printed) == [response.report.exchange for response in responses if response.report]


def test_each_instance_has_them(probe: wasgi.Component) -> None:
    with wasgi.App(probe, reuse=warmed(get("/remember?word=a"))) as app:
        answers: list[str] = []
        threads = [
            threading.Thread(target=lambda: answers.append(Client(app).get("/remember?word=x").text)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == ["a"] * 8


@pytest.mark.parametrize(
    ("target", "error"),
    [("/trap", wasgi.TrapError), ("/exit?code=3", wasgi.GuestExitError), ("/silent", wasgi.NoResponseError)],
)
def test_one_that_fails_fails_the_exchange(probe: wasgi.Component, target: str, error: type[Exception]) -> None:
    with wasgi.App(probe, reuse=warmed([get("/hello"), get(target)])) as app:
        for _ in range(2):
            with pytest.raises(error) as raised:
                Client(app).get("/hello")
            if error is not wasgi.GuestExitError:
                assert str(raised.value).startswith("a warm-up request (`Reuse.warm`) failed: ")
    until(lambda: wasgi.stats().slots == 0)


def test_a_guest_that_answers_once_only_is_found_out() -> None:
    handler = '(func (export "handle") (param $request i32) (param $out i32)\n      (local $response i32)'
    asked = "\n(if (global.get $asked) (then (return)))\n(global.set $asked (i32.const 1))"
    once = HAND.read_text().replace(handler, f"(global $asked (mut i32) (i32.const 0))\n{handler}{asked}")
    assert "$asked" in once
    component = wasgi.Component(once.encode())
    with wasgi.App(component, reuse=warmed(get("/"))) as app, pytest.raises(wasgi.WasgiError) as raised:
        Client(app).get("/")
    assert "warm" in str(raised.value)


def test_they_take_the_time_of_the_exchange(probe: wasgi.Component) -> None:
    limits = wasgi.Limits(timeout=0.2)
    with wasgi.App(probe, limits=limits, reuse=warmed(get("/spin"))) as app, pytest.raises(wasgi.GuestTimeoutError):
        Client(app).get("/hello")


def test_instances_that_are_made_ahead(keeper: wasgi.Component) -> None:
    made = wasgi.App(keeper, reuse=warmed(get("/nowhere"), ready=3))
    with wasgi.Server(made, bind="127.0.0.1:0") as server:
        assert wasgi.stats().idle == 3
        assert wasgi.stats().snapshots > 0
        with urllib.request.urlopen(server.urls[0] + "/nowhere") as response:
            assert response.read() == b"no such route"
        assert wasgi.stats().idle == 3
        other = wasgi.App(keeper, reuse=wasgi.Reuse(ready=2))
        server.swap(other)
        assert wasgi.stats().idle == 5
    made.close()
    other.close()
    until(lambda: wasgi.stats().slots == 0)
    assert wasgi.stats().snapshots == 0


def test_they_are_no_exchanges(probe: wasgi.Component) -> None:
    """Neither what is made ahead nor a warm-up counts as one, whatever comes of it."""
    before = wasgi.stats().outcomes
    made = wasgi.App(probe, reuse=warmed([get("/hello")] * 2, ready=2))
    with wasgi.Server(made, bind="127.0.0.1:0") as server:
        assert wasgi.stats().idle == 2
        assert wasgi.stats().outcomes == before
        with urllib.request.urlopen(server.urls[0] + "/hello") as response:
            response.read()
    failing = wasgi.App(probe, reuse=warmed(get("/trap"), ready=1))
    server = wasgi.Server(failing, bind="127.0.0.1:0")
    with pytest.raises(wasgi.TrapError):
        server.start()
    server.close()
    made.close()
    until(lambda: wasgi.stats().slots == 0)
    assert wasgi.stats().outcomes == {**before, "returned": before["returned"] + 1}


def test_a_lifespan_makes_them(probe: wasgi.Component) -> None:
    made = wasgi.App(probe, reuse=wasgi.Reuse(isolated=True, ready=2))
    with TestClient(made) as client:
        assert wasgi.stats().idle == 2
        assert client.get("/hello").status_code == 200
    until(lambda: wasgi.stats().slots == 0)


def test_a_warm_up_that_fails_is_an_error_of_the_start(probe: wasgi.Component) -> None:
    made = wasgi.App(probe, reuse=warmed(get("/trap"), ready=1))
    server = wasgi.Server(made, bind="127.0.0.1:0")
    with pytest.raises(wasgi.TrapError):
        server.start()
    server.close()
    sent: list[str] = []

    async def receive() -> dict[str, object]:
        return {"type": "lifespan.startup"}

    async def send(message: MutableMapping[str, object]) -> None:
        sent.append(f"{message['type']}: {message.get('message')}")

    with pytest.raises(wasgi.TrapError):
        asyncio.run(made({"type": "lifespan"}, receive, send))
    assert sent[0].startswith("lifespan.startup.failed: TrapError: a warm-up request (`Reuse.warm`) failed")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"warm": get("/")}, ValueError, "`warm` is for `isolated` instances"),
        ({"isolated": True, "warm": 7}, TypeError, "`warm` must be a wasgi.Request"),
        ({"isolated": True, "warm": ["/"]}, TypeError, "`warm` must be a wasgi.Request"),
        (
            {"isolated": True, "warm": wasgi.Request("POST", "http://a.test/", body=iter([b""]))},
            ValueError,
            "must be bytes or a str",
        ),
        ({"ready": -1}, ValueError, "`ready` must be from 0 to 512: -1"),
        ({"ready": 513}, ValueError, "`ready` must be from 0 to 512: 513"),
    ],
)
def test_what_makes_no_sense(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        wasgi.Reuse(**options)  # type: ignore[arg-type]


def test_it_is_a_value() -> None:
    one = get("/")
    assert wasgi.Reuse(isolated=True, warm=one) == wasgi.Reuse(isolated=True, warm=[one])
    assert wasgi.Reuse(isolated=True, warm=one).warm == (one,)
    assert wasgi.Reuse(isolated=True, warm=[]).warm is None
