"""`App(simulation=wasgi.testing.Simulation(...))`: deterministic time and randomness."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import wasgi
from tests.conftest import AppMaker, get, only, post
from wasgi.testing import Client, Simulation, Upstream


def look(app: wasgi.App, ms: int = 0) -> list[str]:
    return Client(app).get(f"/world?ms={ms}").text.splitlines()


def test_two_runs_are_one(app: AppMaker) -> None:
    simulations = [Simulation(seed=7, now=1_700_000_000.5), Simulation(seed=7, now=1_700_000_000.5)]
    runs = [look(app(simulation=simulation), 10) for simulation in simulations]
    again = app(simulation=simulations[0])
    assert runs[0] == runs[1] == look(again, 10) == look(again, 10), "and each guest finds it anew"


def test_the_clocks(app: AppMaker) -> None:
    before, after, _ = look(app(simulation=Simulation(now=1_700_000_000.5)), 86_400_000)
    assert before.split()[:2] == ["1700000000.500000000", "0"]
    assert after.split()[:2] == ["1700086400.500000000", "86400000000000"], "a day has passed, at once"


def test_randomness_is_the_seeds(app: AppMaker) -> None:
    one, two = (look(app(simulation=Simulation(seed=seed))) for seed in (1, 2))
    for line in range(3):
        assert one[line].split()[2:] != two[line].split()[2:] or one[line] != two[line]
    assert one[0].split()[2:] != one[1].split()[2:], "and goes on"


def test_without_it_the_world_is_the_machines(app: AppMaker) -> None:
    assert look(app()) != look(app())


@pytest.mark.parametrize(
    ("ms", "other", "first"), [(5000, 1000, "[1] at 1000000000"), (1000, 5000, "[0] at 1000000000")]
)
def test_the_first_timer_is_over_first(app: AppMaker, ms: int, other: int, first: str) -> None:
    made = app(simulation=Simulation())
    assert {Client(made).get(f"/first?ms={ms}&other-ms={other}").text for _ in range(20)} == {first}


@only("0.2", "a guest hears of its timers one after the other")
def test_timers_that_end_together(app: AppMaker) -> None:
    assert Client(app(simulation=Simulation())).get("/first?ms=1000&other-ms=1000").text == "[0, 1] at 1000000000"


@pytest.mark.parametrize(
    ("patience", "first"),
    [(3_600_000, "[0] at 60000000000"), (60_001, "[0] at 60000000000"), (59_999, "[1] at 59999000000")],
)
def test_delays_take_the_virtual_time(app: AppMaker, patience: int, first: str) -> None:
    """Whoever's time ends first, the guest's or the upstream's, is first, however long that is."""
    upstream = Upstream()
    upstream.any().delays(60)
    made = app(simulation=Simulation(), outgoing=upstream)
    url = f"/first?ms={patience}&other-ms=7200000&url=https://a/"
    assert [Client(made).get(url).text for _ in range(20)] == [first] * 20


def test_requests_that_wait_together(app: AppMaker) -> None:
    upstream = Upstream()
    upstream.get("https://a/0").respond(text="slow").delays(7200)
    upstream.get("https://a/1").respond(text="quick").delays(3600)
    upstream.get("https://a/2").respond(text="at once")
    made = app(simulation=Simulation(), outgoing=upstream)
    assert Client(made).get("/fetch-many?url=https://a/&n=3").text == "slow,quick,at once"


def test_pauses_take_the_virtual_time(app: AppMaker) -> None:
    upstream = Upstream()
    upstream.any().respond(stream=[b"one ", 3600.0, b"two ", 3600.0, b"three"])
    made = app(simulation=Simulation(), outgoing=upstream)
    assert Client(made).get("/fetch?url=https://a/").text == "one two three"


def test_limits_of_a_guest_are_the_virtual_time_too(app: AppMaker) -> None:
    upstream = Upstream()
    upstream.any("https://late/").delays(3600)
    upstream.any("https://halting/").respond(stream=[b"one ", 3600.0, b"two"])
    made = app(simulation=Simulation(), outgoing=upstream)
    client = Client(made)
    assert client.get("/fetch?url=https://late/&first-byte-ms=3600001").status == 200
    assert client.get("/fetch?url=https://late/&first-byte-ms=3599999").text == "ErrorCode::ConnectionReadTimeout"
    assert client.get("/fetch?url=https://halting/&between-bytes-ms=3600001").text == "one two"
    broken = client.get("/fetch?url=https://halting/&between-bytes-ms=3599999").text
    assert broken == "one [broken: Some(ErrorCode::ConnectionReadTimeout)]"


def test_a_guest_is_no_less_patient_with_others(app: AppMaker) -> None:
    """What it asks for comes in a moment, its timer would end in a minute: that is what happens."""
    asked = threading.Event()

    def answer(request: wasgi.Request) -> wasgi.Response:
        asked.set()
        return wasgi.Response(body="up")

    upstream = Upstream()
    upstream.any().answers(answer)
    made = app(simulation=Simulation(), outgoing=upstream)
    assert Client(made).get("/first?ms=60000&other-ms=60000&url=https://a/").text.startswith("[0] at ")
    assert asked.is_set()


async def test_on_an_event_loop(app: AppMaker) -> None:
    made = app(simulation=Simulation(now=5))
    response = await made.handle_async(wasgi.Request("GET", "http://guest.local/world?ms=1000"))
    assert (await response.aread()).startswith(b"5.000000000 0 ")


def test_what_it_is() -> None:
    simulation = Simulation(seed=7, now=1.5)
    assert repr(simulation) == "wasgi.testing.Simulation(seed=7, now=1.5)"
    assert simulation == Simulation(now=1.5, seed=7) != Simulation(seed=7)
    for now in (-1.0, 1e11, float("nan")):
        with pytest.raises(ValueError, match="`now` must be seconds since 1970"):
            Simulation(now=now)
    with pytest.raises(OverflowError):
        Simulation(seed=-1)


def seen(app: wasgi.App, target: str, times: int = 20, body: Callable[[], Any] | None = None) -> set[str]:
    """What a guest answers, time after time."""
    return {app.handle(post(target, body()) if body is not None else get(target)).text for _ in range(times)}


def test_equal_times(app: AppMaker) -> None:
    """The upstream is first."""
    upstream = Upstream()
    upstream.any().delays(60)
    made = app(simulation=Simulation(), outgoing=upstream)
    assert seen(made, "/first?ms=60000&other-ms=90000&url=https://a/") == {"[0] at 60000000000"}


@pytest.mark.parametrize("how", ["denied", "refused", "raises"])
def test_failures_come_before_any_time_passes(app: AppMaker, how: str) -> None:
    upstream = Upstream()
    upstream.any().raises("connection-refused")
    limits = wasgi.Limits(outgoing=0 if how == "refused" else 10)
    made = app(simulation=Simulation(), outgoing=None if how == "denied" else upstream, limits=limits)
    assert seen(made, "/first?ms=60000&other-ms=60000&url=https://a/", 40) == {"[0] at 0"}


def test_a_body_that_is_slow_to_come(app: AppMaker) -> None:
    """Whoever sends it works on it, for all that the guest can know."""

    def body() -> Iterator[bytes]:
        time.sleep(0.02)  # slow is what it is to be
        yield b"at last"

    made = app(simulation=Simulation())
    assert seen(made, "/body-or-timer?ms=60000", 10, body) == {"[0] at 0"}


def test_an_answer_that_nobody_has_looked_at_holds_up_nothing(app: AppMaker) -> None:
    upstream = Upstream()
    upstream.any().respond(503, text="come back later")
    made = app(simulation=Simulation(), outgoing=upstream, limits=wasgi.Limits(timeout=10))
    assert seen(made, "/keep-and-sleep?url=https://a/&ms=3600000") == {"slept until 3600000000000"}


@pytest.mark.parametrize("between", [50_000, 150_000])
def test_a_limit_that_nobody_looks_at_any_more(app: AppMaker, between: int) -> None:
    """It has passed when it has; the guest sleeps on."""
    upstream = Upstream()
    upstream.any().respond(stream=[7200.0, b"late"])
    made = app(simulation=Simulation(), outgoing=upstream, limits=wasgi.Limits(timeout=10))
    target = f"/keep-and-sleep?url=https://a/&ms=100000&look=1&between-bytes-ms={between}"
    assert seen(made, target) == {"slept until 100000000000"}


def test_a_guest_that_is_slow_to_send(app: AppMaker) -> None:
    """Whoever reads its request does nothing meanwhile."""
    upstream = Upstream()
    upstream.any().respond(text="all of it")
    made = app(simulation=Simulation(), outgoing=upstream, limits=wasgi.Limits(timeout=10))
    assert seen(made, "/send-slowly?url=https://a/&ms=3600000", 10) == {"200 at 3600000000000"}
    assert upstream.calls[0].request.content == b"firstlast"


def test_a_timer_that_is_kept_for_the_next_exchange(app: AppMaker) -> None:
    """On a reused instance: it ends when its time has come, not before."""
    with app(simulation=Simulation(), reuse=wasgi.Reuse()) as made:
        # a client waits for the guest's end, when its instance is free: the body's end comes before that
        assert [Client(made).get("/keep-timer?ms=100000").text for _ in range(2)] == ["kept", "100000000000"]


def test_waiting_takes_its_time_where_somebody_works(app: AppMaker) -> None:
    """As long as it says, and no longer: the two limits are far apart."""

    def answer(request: wasgi.Request) -> wasgi.Response:
        time.sleep(1.5)
        return wasgi.Response()

    made = app(simulation=Simulation(), outgoing=answer)
    assert seen(made, "/fetch?url=https://a/&first-byte-ms=1000", 1) == {"ErrorCode::ConnectionReadTimeout"}
    assert seen(made, "/fetch?url=https://a/&first-byte-ms=5000", 1) == {""}


def test_delays_behind_delays(app: AppMaker) -> None:
    """A mock that another one asks for its answer takes virtual time as well."""
    inner = Upstream()
    inner.any().delays(1800)
    outer = Upstream()
    outer.any().answers(inner).delays(1800)
    made = app(simulation=Simulation(), outgoing=outer)
    assert seen(made, "/first?ms=7200000&other-ms=7200000&url=https://a/", 5) == {"[0] at 3600000000000"}
