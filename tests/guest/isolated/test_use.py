"""How isolated reuse is asked for, and what it is beside everything else that an app has."""

from __future__ import annotations

import pickle
import re

import pytest

import wasgi
from tests.conftest import PROBE, PROBE_P3, get
from tests.guest.isolated import cells
from tests.guest.isolated.asking import MODES, ask, expected, seen
from tests.guest.isolated.conftest import AppMaker
from wasgi.testing import Client, Simulation, Upstream, check_isolation


def test_what_it_is() -> None:
    reuse = wasgi.Reuse(isolated=True)
    assert reuse.isolated
    assert not wasgi.Reuse().isolated
    assert reuse == wasgi.Reuse(isolated=True) != wasgi.Reuse()
    assert len({reuse, wasgi.Reuse(isolated=True), wasgi.Reuse()}) == 2
    assert pickle.loads(pickle.dumps(reuse)) == reuse
    assert "isolated=True" in repr(reuse)


def test_it_is_a_value_with_its_warm_ups() -> None:
    warmed = [wasgi.Reuse(isolated=True, warm=[get("/"), wasgi.Request("POST", "http://a/", body=b"x")]) for _ in "ab"]
    assert warmed[0] == warmed[1] == pickle.loads(pickle.dumps(warmed[0]))
    assert len(set(warmed)) == 1
    assert warmed[0] != wasgi.Reuse(isolated=True, warm=[get("/"), wasgi.Request("POST", "http://a/", body=b"y")])
    assert warmed[0] != wasgi.Reuse(isolated=True, warm=[get("/")]) != wasgi.Reuse(isolated=True)


def test_exchanges_at_once_are_not_isolated() -> None:
    with pytest.raises(ValueError, match="isolated"):
        wasgi.Reuse(isolated=True, concurrent=2)
    assert wasgi.Reuse(isolated=True, concurrent=1).concurrent == 1


def test_what_the_host_takes_for_a_moment_is_not_the_guests(keeper: wasgi.Component) -> None:
    """To put the numbers of handles back, as many are taken as the guest can have had: of many calls, many."""
    warm = [get("/world")] * 50
    with wasgi.App(keeper, reuse=wasgi.Reuse(isolated=True, warm=warm)) as app:
        assert [ask(app, "/world").reused for _ in range(3)] == [0, 1, 2]
    with wasgi.App(keeper, reuse=wasgi.Reuse(isolated=True), limits=wasgi.Limits(handles=32)) as app:
        assert [ask(app, "/world").reused for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("path", [PROBE, PROBE_P3], ids=["0.2", "0.3"])
def test_more_handles_than_can_be_numbered_anew(path: object) -> None:
    """Their instance is not put back; nothing traps."""
    component = wasgi.Component(path, isolated=True)  # type: ignore[arg-type]
    most = wasgi.Limits(handles=None, memory=None)
    with wasgi.App(component, limits=most, reuse=wasgi.Reuse(isolated=True)) as app:
        for _ in range(2):
            response = app.handle(get("/handles?n=40000"))
            assert response.text == "kept them"
            report = response.wait()
            assert report is not None
            assert report.reused == 0
    warmed = wasgi.App(component, limits=most, reuse=wasgi.Reuse(isolated=True, warm=get("/handles?n=40000")))
    with warmed, pytest.raises(wasgi.NoResponseError, match="a warm-up request"):
        warmed.handle(get("/hello"))


@pytest.mark.parametrize("path", [PROBE, PROBE_P3], ids=["0.2", "0.3"])
def test_a_guest_that_leaks_is_isolated(path: object) -> None:
    """`check_isolation` finds nothing where it finds something with plain reuse."""
    requests = ["/remember?word=ada", "/remember?word=bob", "/hello", "/trap", "/env"]
    component = wasgi.Component(path)  # type: ignore[arg-type]
    with wasgi.App(component, reuse=wasgi.Reuse()) as plain, pytest.raises(AssertionError, match="leaks state"):
        check_isolation(plain, requests)
    with wasgi.App(component, reuse=MODES["isolated"]()) as isolated:
        check_isolation(isolated, requests)
        words = [Client(isolated).get(f"/remember?word={word}") for word in "abc"]
        assert [response.text for response in words] == ["nothing"] * 3
        assert [response.report.reused for response in words if response.report] == [0, 1, 2]


def test_the_keeper_is_isolated(keeper: wasgi.Component) -> None:
    left = ["/print?line=a&n=1", "/leave?what=fields,headers", "/forget?n=3", "/handles?n=2"]
    requests = ["/handles?n=2", "/nowhere", "/trap", "/grow?pages=1", "/world", *left]
    with wasgi.App(keeper, reuse=wasgi.Reuse()) as plain, pytest.raises(AssertionError, match="leaks state"):
        check_isolation(plain, requests)
    with wasgi.App(keeper, reuse=MODES["isolated"]()) as isolated:
        check_isolation(isolated, requests)


def test_the_world_is_that_of_a_fresh_instance(app: AppMaker, mode: str) -> None:
    """Clocks, the monotonic one as well, random bytes, and what the guest's standard library seeds itself with."""
    made = app(simulation=Simulation(seed=3, now=7))
    first = ask(made, "/world")
    ask(made, "/sleep?ms=3600000")
    after = ask(made, "/world")
    assert after.text == first.text
    assert after.reused == expected(mode, 2)[0]


def test_no_two_exchanges_have_the_same_randomness(app: AppMaker) -> None:
    made = app()
    looks = [ask(made, "/world").text for _ in range(10)]
    numbers = [re.search(r"\[(.*)\] \((\d+), \(.*\), (\d+)\)", look) for look in looks]
    assert all(numbers)
    for group in (1, 2, 3):
        assert len({number[group] for number in numbers if number}) == 10


def test_each_exchange_has_limits_of_its_own(app: AppMaker, mode: str) -> None:
    upstream = Upstream()
    upstream.any()
    made = app(limits=wasgi.Limits(fuel=1_000_000_000, outgoing=1, timeout=5), outgoing=upstream)
    reports = [Client(made).get("/fetch?url=a/").report for _ in range(10)]
    assert [each.reused for each in reports if each] == expected(mode, *range(10))
    assert [each.outgoing for each in reports if each] == [1] * 10
    used = [each.fuel or 0 for each in reports if each]
    assert min(used) > 0
    assert max(used) - min(used) < min(used) / 20, "what puts it back is not charged to anybody"


def test_lines_are_those_of_their_exchange(app: AppMaker) -> None:
    lines: list[tuple[str, int]] = []

    def note(line: str) -> None:
        lines.append((line, line.exchange))  # type: ignore[attr-defined]

    made = app(stdout=note)
    numbers = []
    for word in "abc":
        response = Client(made).get(f"/print?line={word}&n=2")
        assert response.report is not None
        numbers.append(response.report.exchange)
    made.close()
    assert lines == [(f"{word} {n}", number) for word, number in zip("abc", numbers, strict=True) for n in (0, 1)]


def test_a_component_speaks_of_itself_as_it_is(keeper: wasgi.Component) -> None:
    """What isolated reuse needs of it is nobody's business."""
    before = (keeper.digest, keeper.exports, keeper.imports, repr(keeper), hash(keeper))
    with wasgi.App(keeper, reuse=MODES["isolated"]()) as made:
        assert seen(made, "/nowhere", "/nowhere") == [0, 1]
        assert (made.component.digest, made.component.exports) == before[:2]
    assert (keeper.digest, keeper.exports, keeper.imports, repr(keeper), hash(keeper)) == before
    assert pickle.loads(pickle.dumps(keeper)) == keeper


def test_a_trap_tells_the_same(mode: str) -> None:
    component = wasgi.Component(PROBE)
    with wasgi.App(component) as fresh, pytest.raises(wasgi.TrapError) as wanted:
        Client(fresh).get("/trap")
    with wasgi.App(component, reuse=MODES[mode]()) as made:
        Client(made).get("/hello")
        with pytest.raises(wasgi.TrapError) as raised:
            Client(made).get("/trap")

    def without_places(text: str) -> str:
        # the machine code is that of a larger component, whose places mean nothing to anybody
        return re.sub(r" \(at 0x[0-9a-f]+\)", "", text)

    assert str(raised.value) in (str(wanted.value), without_places(str(wanted.value)))
    assert [*map(without_places, raised.value.backtrace)] == [*map(without_places, wanted.value.backtrace)]
    assert raised.value.stderr == wanted.value.stderr


def test_where_it_cannot_be_done_instances_are_fresh(caplog: pytest.LogCaptureFixture) -> None:
    """And the log says why."""
    component = wasgi.Component(cells.text(cells.TABLES[:1]).encode(), isolated=True)
    with wasgi.App(component, reuse=MODES["isolated"]()) as made:
        for _ in range(3):
            response = made.handle(get("/ia"))
            response.wait()
            assert response.report is not None
            assert (response.status, response.report.reused) == (201, 0)
        assert wasgi.stats().idle == 0
    (warned,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "fresh instance" in warned
    assert "isolated" in warned
