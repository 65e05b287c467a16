"""The numbers of handles are those of a fresh instance, whatever earlier exchanges have made, dropped and forgotten."""

from __future__ import annotations

import pytest

import wasgi
from tests.conftest import GENERATIONS
from tests.guest.isolated.asking import MODES, ask, expected, request
from tests.guest.isolated.conftest import AppMaker


@pytest.mark.parametrize(
    ("before", "body"),
    [
        ("/nowhere", None),
        ("/handles?n=50", None),
        ("/echo", b"x" * 100_000),
        ("/collect", b"x" * 100_000),
        ("/keep?in=field", None),
        ("/fetch?url=a/b&n=3", None),
        ("/sleep?ms=1", None),
    ],
)
def test_they_are_those_of_a_fresh_instance(
    app: AppMaker, mode: str, keeper: wasgi.Component, before: str, body: bytes | None
) -> None:
    pristine = ask(wasgi.App(keeper), "/handles?n=5")
    made = app(outgoing=lambda _: wasgi.Response(body="ok"), stdout=print, stderr=print)
    for n in range(3):
        ask(made, before, method="POST", body=body)
        after = ask(made, "/handles?n=5")
        assert (after.text, after.entry) == (pristine.text, pristine.entry)
        assert [after.reused] == expected(mode, 2 * n + 1), "and it was put back"


def test_they_would_differ(keeper: wasgi.Component) -> None:
    pristine = ask(wasgi.App(keeper), "/handles?n=5")
    with wasgi.App(keeper, reuse=MODES["reused"]()) as made:
        ask(made, "/forget?n=20")
        after = ask(made, "/handles?n=5")
    assert after.reused == 1
    assert after.text != pristine.text


LEFT = {
    "0.2": {
        "fields",
        "timer",
        "stdout",
        "headers",
        "response",
        "request",
        "options",
        "finished",
        "body",
        "incoming",
        "trailers",
    },
    "0.3": {"fields", "headers", "response", "request", "options", "reader", "stream", "future", "set"},
}
"""What the keeper of each generation can leave behind."""
NOT_TAKEN = {
    "0.2": {"body", "incoming"},
    "0.3": {"request", "response", "reader", "stream", "future", "set"},
}
"""What ends an instance: a body that breaks off or is there still, and what is no resource."""


def kinds(generation: str) -> list[str]:
    """Each, and several at once, in both orders."""
    each = sorted(LEFT[generation])
    taken = [kind for kind in each if kind not in NOT_TAKEN[generation] and kind != "trailers"]
    several = [taken, taken[::-1], taken * 3, [*taken, *sorted(NOT_TAKEN[generation])]]
    return [*each, *map(",".join, several)]


@pytest.mark.parametrize(
    ("generation", "what"), [(generation, what) for generation in GENERATIONS for what in kinds(generation)]
)
def test_those_that_are_left_behind(keepers: dict[str, wasgi.Component], mode: str, generation: str, what: str) -> None:
    pristine = ask(wasgi.App(keepers[generation]), "/handles?n=5")
    is_kept = NOT_TAKEN[generation].isdisjoint(what.split(","))
    with wasgi.App(keepers[generation], reuse=MODES[mode]()) as made:
        for n in range(3):
            assert ask(made, f"/leave?what={what}", method="POST", body=b"abc").text == "left"
            after = ask(made, "/handles?n=5")
            assert (after.text, after.entry) == (pristine.text, pristine.entry)
            if is_kept:
                assert [after.reused] == expected(mode, 2 * n + 1)
            else:
                assert after.reused == 0


@pytest.mark.parametrize("left", ["/forget?n=1", "/forget?n=20", "/print?line=a&n=3", "/stream?n=3&bytes=10000&ms=1"])
def test_whatever_is_left_behind_and_by_whom(app: AppMaker, mode: str, keeper: wasgi.Component, left: str) -> None:
    pristine = ask(wasgi.App(keeper), "/handles?n=5")
    made = app(stdout=print, stderr=print)
    for n in range(3):
        ask(made, left)
        after = ask(made, "/handles?n=5")
        assert (after.text, after.entry) == (pristine.text, pristine.entry)
        assert [after.reused] == expected(mode, 2 * n + 1)


def test_what_a_guest_forgets_does_not_pile_up(app: AppMaker, mode: str) -> None:
    """Neither against the bound on handles nor in the host's memory."""
    made = app(limits=wasgi.Limits(handles=200))
    answers = [ask(made, "/forget?n=20") for _ in range(100)]
    assert {answer.text for answer in answers} == {"forgotten"}
    assert [answer.reused for answer in answers] == expected(mode, *range(100))


def test_more_than_are_taken_end_their_instance(app: AppMaker, keeper: wasgi.Component) -> None:
    pristine = ask(wasgi.App(keeper), "/handles?n=5")
    made = app()
    for _ in range(3):
        ask(made, "/forget?n=200")
        after = ask(made, "/handles?n=5")
        assert (after.text, after.reused) == (pristine.text, 0)


def test_an_answer_of_an_upstream_that_is_forgotten(app: AppMaker) -> None:
    """Behind its handles something may go on, so its instance may be put back or dropped."""
    made = app(outgoing=lambda _: wasgi.Response(body="ok"))
    entries = set()
    for _ in range(5):
        entries.add(ask(made, "/fetch?url=a/&forget=1").entry)
        entries.add(ask(made, "/nowhere").entry)
    assert len(entries) == 1


def warmed(target: str) -> wasgi.Reuse:
    """The first of the warm-ups is tried once more after them: it must change nothing that they keep."""
    return wasgi.Reuse(isolated=True, requests=None, idle=None, warm=[request("/nowhere"), request(target)])


@pytest.mark.parametrize("target", ["/print?line=a&n=1", "/shelf?secret=aa"])
def test_those_of_the_snapshot_stay(keeper: wasgi.Component, target: str) -> None:
    """And others have the numbers that they have after a warm-up, whatever was left behind in between."""
    with wasgi.App(keeper, reuse=warmed(target), stdout=print, stderr=print) as made:
        first = ask(made, "/handles?n=5")
        for n, left in enumerate(["/print?line=b&n=2", "/forget?n=3", "/leave?what=headers,options,fields"]):
            assert ask(made, left).reused == 2 * n + 1
            after = ask(made, "/handles?n=5")
            assert (after.text, after.entry, after.reused) == (first.text, first.entry, 2 * n + 2)


def test_what_was_put_into_one_of_the_snapshots_is_not_seen(keeper: wasgi.Component) -> None:
    """The host does not put it back: the instance goes."""
    with wasgi.App(keeper, reuse=warmed("/shelf?secret=aa")) as made:
        first = ask(made, "/shelf")
        assert (ask(made, "/shelf").text, ask(made, "/shelf").reused) == (first.text, 2)
        for change in ("/shelf?secret=bb", "/shelf?renew=1&secret=bb", "/shelf?renew=1&secret=aa", "/shelf?renew=1"):
            assert ask(made, change).text == first.text
            after = ask(made, "/shelf")
            assert (after.text, after.reused) == (first.text, 0), change
            assert ask(made, "/shelf").reused == 1


def test_it_would_be_seen(keeper: wasgi.Component) -> None:
    with wasgi.App(keeper, reuse=MODES["reused"]()) as made:
        ask(made, "/shelf?secret=bb")
        assert ask(made, "/shelf").text != ask(wasgi.App(keeper), "/shelf").text


@pytest.mark.parametrize(
    ("generation", "what"), [("0.2", "timer"), ("0.2", "response"), ("0.3", "set"), ("0.3", "stream")]
)
def test_a_warm_up_that_leaves_what_nobody_can_put_back(
    keepers: dict[str, wasgi.Component], generation: str, what: str
) -> None:
    made = wasgi.App(keepers[generation], reuse=warmed(f"/leave?what={what}"))
    with made, pytest.raises(wasgi.errors.NoResponseError, match="keeps a handle after them"):
        ask(made, "/nowhere")


def test_a_warm_up_that_changes_what_it_keeps(keeper: wasgi.Component) -> None:
    """It is found out when it is tried once more."""
    warm = request("/shelf?secret=aa")
    made = wasgi.App(keeper, reuse=wasgi.Reuse(isolated=True, warm=warm))
    with made, pytest.raises(wasgi.errors.NoResponseError, match=r"tried once more.*changed or dropped a handle"):
        ask(made, "/nowhere")
