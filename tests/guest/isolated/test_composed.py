"""Components that are composed of others: each has memories, globals and handles of its own, and all are put back."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import wasgi
from tests.composing import plugged, wrapped
from tests.conftest import COMPONENTS
from tests.guest.isolated import cells
from tests.guest.isolated.asking import KEEPERS, MODES, SECRETS, ask, expected, found, keep, masked
from tests.guest.isolated.test_cells import LEFT, NO, PUT_BACK, YES, component, looks, status
from tests.guest.isolated.test_places import PLACES
from tests.guest.isolated.test_sequences import SECRET, Step, World, assert_reused, steps
from wasgi.testing import Simulation, check_isolation

WRAPPED = ("0.2, wrapped", "0.2, wrapped twice", "0.3, wrapped")
BEHIND = "0.3, behind middleware"
AppMaker = Callable[..., wasgi.App]


def made(name: str) -> bytes:
    keeper = KEEPERS[name[:3]].read_bytes()
    if name == BEHIND:
        everything, middleware = (
            (COMPONENTS / f"{part}.wasm").read_bytes() for part in ("everything_p3", "middleware")
        )
        return plugged(everything, middleware, keeper, "wasi:http/handler@0.3.0")
    return wrapped(wrapped(keeper)) if name.endswith("twice") else wrapped(keeper)


@pytest.fixture(scope="session")
def composed() -> dict[str, wasgi.Component]:
    return {name: wasgi.Component(made(name), isolated=True) for name in (*WRAPPED, BEHIND)}


@pytest.fixture(params=[*WRAPPED, BEHIND])
def inside(request: pytest.FixtureRequest, composed: dict[str, wasgi.Component]) -> wasgi.Component:
    return composed[request.param]


@pytest.fixture
def app(mode: str, inside: wasgi.Component) -> Iterator[AppMaker]:
    apps: list[wasgi.App] = []

    def make(**options: Any) -> wasgi.App:
        apps.append(wasgi.App(inside, reuse=MODES[mode](), **options))
        return apps[-1]

    yield make
    for each in apps:
        each.close()


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_is_not_found_by_the_next_exchange(app: AppMaker, mode: str, place: str) -> None:
    one, secret = app(), next(SECRETS)
    first = ask(one, "/find?secret=" + masked(secret))
    kept = keep(one, secret, place)
    after = ask(one, "/find?secret=" + masked(secret))
    assert (kept.text, after.text) == ("kept", "0 ")
    assert first.entry == kept.entry == after.entry
    assert [first.reused, kept.reused, after.reused] == expected(mode, 0, 1, 2)


def test_it_would_be_found(inside: wasgi.Component) -> None:
    with wasgi.App(inside, reuse=MODES["reused"]()) as one:
        secret = next(SECRETS)
        keep(one, secret, *PLACES)
        assert found(one, secret) > 0


def test_it_is_the_keeper(composed: dict[str, wasgi.Component], keepers: dict[str, wasgi.Component]) -> None:
    """Wherever it is, it finds itself as it does alone."""
    for name in WRAPPED:
        one, other = (wasgi.App(each, simulation=Simulation()) for each in (composed[name], keepers[name[:3]]))
        assert ask(one, "/digests").text == ask(other, "/digests").text


@pytest.mark.parametrize("before", ["/nowhere", "/handles?n=50", "/collect", "/keep?in=field", "/fetch?url=a/b&n=3"])
def test_handles_have_the_numbers_of_a_fresh_instance(
    app: AppMaker, mode: str, inside: wasgi.Component, before: str
) -> None:
    pristine = ask(wasgi.App(inside), "/handles?n=5")
    one = app(outgoing=lambda _: wasgi.Response(body="ok"), stdout=print, stderr=print)
    for n in range(3):
        ask(one, before, method="POST", body=b"x" * 100_000)
        after = ask(one, "/handles?n=5")
        assert (after.text, after.entry) == (pristine.text, pristine.entry)
        assert [after.reused] == expected(mode, 2 * n + 1), "and it was put back"


@pytest.mark.parametrize("left", ["/leave?what=fields,headers,options", "/forget?n=20", "/print?line=a&n=3"])
def test_handles_that_are_left_behind(app: AppMaker, mode: str, inside: wasgi.Component, left: str) -> None:
    pristine = ask(wasgi.App(inside), "/handles?n=5")
    one = app(stdout=print, stderr=print)
    for n in range(3):
        ask(one, left, method="POST", body=b"abc")
        after = ask(one, "/handles?n=5")
        assert (after.text, after.entry) == (pristine.text, pristine.entry)
        assert [after.reused] == expected(mode, 2 * n + 1)


def test_the_keeper_is_isolated(inside: wasgi.Component) -> None:
    left = ["/print?line=a&n=1", "/leave?what=fields,headers", "/forget?n=3", "/handles?n=2"]
    requests = ["/handles?n=2", "/nowhere", "/trap", "/grow?pages=1", "/world", *left]
    with wasgi.App(inside, reuse=wasgi.Reuse()) as plain, pytest.raises(AssertionError, match="leaks state"):
        check_isolation(plain, requests)
    with wasgi.App(inside, reuse=MODES["isolated"]()) as isolated:
        check_isolation(isolated, requests)


@pytest.mark.parametrize("name", [*WRAPPED, BEHIND])
@given(sequence=st.lists(steps, min_size=2, max_size=12))
@example(sequence=[Step(f"/keep?in={','.join(PLACES)}&secret={masked(SECRET)}", (SECRET,) * 9), Step("/digests")] * 3)
@example(sequence=[Step("/nowhere"), Step("/stream?n=1000&bytes=5000", taken=1), Step("/nowhere"), Step("/nowhere")])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sequences_are_what_fresh_instances_show(
    composed: dict[str, wasgi.Component], name: str, sequence: list[Step]
) -> None:
    fresh, _ = World(composed[name], None).observe(*sequence)
    isolated, reused = World(composed[name], MODES["isolated"]()).observe(*sequence)
    for step, one, other in zip(sequence, isolated, fresh, strict=True):
        assert dataclasses.asdict(one) == dataclasses.asdict(other), step
    assert_reused(sequence, reused)


@pytest.mark.parametrize(
    "does", ["", "fields", "count", "peek", "options", "answer", "report", "break", "many", "forget"]
)
def test_whatever_the_middleware_does(composed: dict[str, wasgi.Component], mode: str, does: str) -> None:
    """It makes messages of its own, calls the other one several times at once, and lets go of calls."""
    env = {"DO": does, "OPTION": "5", "NAME": "m", "URL": "http://a.test/handles?n=3"}
    seen: list[list[tuple[int, str, str]]] = []
    for reuse in (MODES[mode](), None):
        with wasgi.App(composed[BEHIND], reuse=reuse, env=env, outgoing=lambda _: wasgi.Response(body="ok")) as one:
            seen.append([])
            for target in ("/handles?n=5", "/echo", "/handles?n=5", "/collect", "/handles?n=5"):
                try:
                    answer = ask(one, target, method="POST", body=b"abc" * 1000)
                    seen[-1].append((answer.status, answer.text, answer.entry))
                except wasgi.WasgiError as error:
                    # of an instrumented component no places are told
                    seen[-1].append((0, re.sub(r" \(at 0x[0-9a-f]+\)", "", str(error)), ""))
    assert seen[0] == seen[1]


def test_both_ends_of_a_call_are_put_back(mode: str) -> None:
    chained = component(cells.behind(cells.text(cells.RESTORED)))
    with wasgi.App(chained, reuse=MODES[mode]()) as one:
        answers = [status(one, target) for target in ("/xi", "/xk", "/xi", "/xh", "/xi", "/xh", "/xi")]
        assert [answer for answer, _ in answers] == [YES, NO, YES, 205, YES, 205, YES]
        assert [reused for _, reused in answers] == expected(mode, *range(7))
        assert looks(one, cells.RESTORED[0], cells.RESTORED)[0] == PUT_BACK
        assert looks(one, cells.MEMORIES[-1], cells.RESTORED)[0] == PUT_BACK
    with wasgi.App(chained, reuse=MODES["reused"]()) as one:
        answers = [status(one, target) for target in ("/xi", "/xk", "/xi", "/xh")]
        assert [answer for answer, _ in answers][:3] == [YES, NO, NO]
        assert answers[3][0] != 205 or status(one, "/xh")[0] != 205
        assert looks(one, cells.RESTORED[0], cells.RESTORED)[0] == LEFT


# leaves three handles behind; traps unless the next one has the number that it has in a fresh instance
NUMBERED = """
  (func $drop (drop (call $new-fields)) (drop (call $new-fields)) (drop (call $new-fields)))
  (func $use (if (i32.ne (call $new-fields) (i32.const 1)) (then unreachable)))"""


def test_handles_that_the_called_one_leaves_behind(mode: str) -> None:
    chained = component(cells.behind(cells.text((), extra=NUMBERED)))
    targets = ("/u", "/d", "/u", "/d", "/d", "/u", "/xh", "/u", "/xh")
    wanted = [NO, NO, NO, NO, NO, NO, 205, NO, 205]
    with wasgi.App(chained, reuse=MODES[mode]()) as one:
        answers = [status(one, target) for target in targets]
    assert [answer for answer, _ in answers] == wanted
    assert [reused for _, reused in answers] == expected(mode, *range(9))
    with wasgi.App(chained, reuse=MODES["reused"]()) as one:
        assert [status(one, target)[0] for target in ("/u", "/d", "/u")] == [NO, NO, 0]


@pytest.mark.parametrize("which", ["front", "back"])
def test_one_that_was_never_entered_is_as_it_was(mode: str, which: str) -> None:
    chained = component(cells.behind(cells.text(cells.RESTORED)))
    targets = ["/xk", "/xi"] if which == "front" else ["/k5", "/fa5", "/ia"]
    with wasgi.App(chained, reuse=MODES[mode]()) as one:
        answers = [status(one, target)[0] for target in targets * 3]
    assert answers == ([NO, YES] if which == "front" else [NO, NO, YES]) * 3


def test_a_trap_in_the_called_one_ends_both(mode: str) -> None:
    chained = component(cells.behind(cells.text(cells.RESTORED, extra="(func $drop unreachable) (func $use)")))
    with wasgi.App(chained, reuse=MODES[mode]()) as one:
        assert [status(one, target)[0] for target in ("/xk", "/d", "/xi", "/k5", "/d", "/ia")] == [
            NO,
            0,
            YES,
            NO,
            0,
            YES,
        ]


def test_handles_of_the_snapshot_that_could_change_places(mode: str) -> None:
    """Each has one from its start. The two could give each other what they have: such instances are fresh."""
    back = cells.text((), **cells.STARTED_WITH_A_HANDLE)  # type: ignore[arg-type]
    front = """(func $start (drop (call $new-fields))) (start $start)"""
    chained = component(cells.behind(back).replace("(global $kept", f"{front} (global $kept", 1))
    with wasgi.App(chained, reuse=MODES[mode]()) as one:
        assert [status(one, "/u") for _ in range(3)] == [(NO, 0)] * 3
    with wasgi.App(component(cells.behind(back)), reuse=MODES[mode]()) as one:
        assert [status(one, "/u") for _ in range(3)] == [(NO, reused) for reused in expected(mode, 0, 1, 2)]


def test_a_lent_handle(caplog: pytest.LogCaptureFixture) -> None:
    """How many there are of those nobody counts."""
    lending = cells.behind(cells.text(())).replace(
        "(instance $back (instantiate $back",
        """(component $lent
          (import "r" (type $r (sub resource)))
          (core module $m (func (export "f") (param i32)))
          (core instance $i (instantiate $m))
          (type $b (borrow $r))
          (func (param "b" $b) (canon lift (core func $i "f"))))
        (alias export $types "fields" (type $lent-fields))
        (instance (instantiate $lent (with "r" (type $lent-fields))))
        (instance $back (instantiate $back""",
        1,
    )
    with wasgi.App(wasgi.Component(lending.encode(), isolated=True), reuse=MODES["isolated"]()) as one:
        assert [status(one, "/xi") for _ in range(3)] == [(YES, 0)] * 3
    assert "lends another one handles" in caplog.text
