"""The numbers of handles are those of a fresh instance, whatever earlier exchanges have made, dropped and forgotten."""

from __future__ import annotations

import re

import pytest

import wasgi
from tests.guest.isolated.asking import MODES, ask, expected
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


@pytest.mark.parametrize("left", ["/forget?n=1", "/forget?n=20", "/print?line=a&n=3", "/stream?n=3&bytes=10000&ms=1"])
def test_those_that_are_left_behind_keep_their_numbers(app: AppMaker, mode: str, left: str) -> None:
    """The host has let go of what was behind them; the others are in order, as documented (docs/isolation.md)."""
    made = app(stdout=print, stderr=print)
    for n in range(3):
        ask(made, left)
        after = ask(made, "/handles?n=5")
        numbers = [int(number) for number in re.findall(r"\d+", after.text)]
        assert numbers == sorted(set(numbers))
        assert [after.reused] == expected(mode, 2 * n + 1)


def test_what_a_guest_forgets_does_not_pile_up(app: AppMaker, mode: str) -> None:
    """Neither against the bound on handles nor in the host's memory: its instance ends in time."""
    made = app(limits=wasgi.Limits(handles=200))
    reused = []
    for _ in range(100):
        answer = ask(made, "/forget?n=20")
        assert answer.text == "forgotten"
        reused.append(answer.reused)
    assert max(reused) <= 8
    assert mode == "fresh" or max(reused) > 1


def test_an_answer_of_an_upstream_that_is_forgotten(app: AppMaker) -> None:
    """Behind its handles something may go on, so its instance may be put back or dropped."""
    made = app(outgoing=lambda _: wasgi.Response(body="ok"))
    entries = set()
    for _ in range(5):
        entries.add(ask(made, "/fetch?url=a/&forget=1").entry)
        entries.add(ask(made, "/nowhere").entry)
    assert len(entries) == 1
