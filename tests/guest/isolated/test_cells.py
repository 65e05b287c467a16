"""What Rust's compiler cannot be told to use: globals of each type, memories, tables, segments, resources."""

from __future__ import annotations

import functools
from typing import Any

import pytest

import wasgi
from tests.conftest import get
from tests.guest.isolated import cells
from tests.guest.isolated.asking import MODES, expected
from tests.guest.isolated.cells import SECRET, Place

YES, NO = 201, 200


@functools.cache
def component(text: str) -> wasgi.Component:
    return wasgi.Component(text.encode())


def status(app: wasgi.App, target: str) -> tuple[int, int]:
    """The answer, and how many exchanges its instance had before. A trap is 0."""
    try:
        with app.handle(get(target)) as response:
            response.read()
            response.wait()
            assert response.report is not None
            return response.status, response.report.reused
    except wasgi.TrapError:
        return 0, 0


def looks(app: wasgi.App, place: Place, places: tuple[Place, ...]) -> tuple[list[int], list[int]]:
    """Whether the place is as it was, before and after a secret was kept there; whether that is found."""
    (letter,) = (letter for letter, each in cells.letters(places).items() if each == place)
    targets = [f"/i{letter}", f"/k{SECRET}", f"/i{letter}", f"/k{SECRET}", f"/f{letter}{SECRET}", f"/i{letter}"]
    seen = [status(app, target) for target in targets]
    return [answer for answer, _ in seen], [reused for _, reused in seen]


PUT_BACK = [YES, NO, YES, NO, NO, YES]
LEFT = [YES, NO, NO, NO, YES, NO]


def named(places: tuple[Place, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("place", places, ids=[place.name for place in places])


@named(cells.RESTORED)
def test_what_is_put_back(mode: str, place: Place) -> None:
    with wasgi.App(component(cells.text(cells.RESTORED)), reuse=MODES[mode]()) as app:
        answers, reused = looks(app, place, cells.RESTORED)
    assert answers == PUT_BACK
    assert reused == expected(mode, 0, 1, 2, 3, 4, 5)


@named((*cells.OTHERS, *cells.TABLES))
def test_what_need_not_be_put_back(mode: str, place: Place) -> None:
    """Whether such an instance is put back or dropped, nothing is found."""
    with wasgi.App(component(cells.text((place,))), reuse=MODES[mode]()) as app:
        assert looks(app, place, (place,))[0] == PUT_BACK


@named(cells.TABLES)
def test_what_cannot_be_put_back(place: Place) -> None:
    with wasgi.App(component(cells.text((place,))), reuse=MODES["isolated"]()) as app:
        assert looks(app, place, (place,))[1] == [0] * 6


@named((*cells.RESTORED, *cells.OTHERS, *cells.TABLES))
def test_it_would_be_found(place: Place) -> None:
    places = cells.RESTORED if place in cells.RESTORED else (place,)
    with wasgi.App(component(cells.text(places)), reuse=MODES["reused"]()) as app:
        assert looks(app, place, places)[0] == LEFT


@pytest.mark.parametrize("which", ["restored", "not"])
def test_a_module_that_is_instantiated_twice(mode: str, which: str) -> None:
    places = cells.RESTORED if which == "restored" else cells.OTHERS[:1]
    for place in places:
        with wasgi.App(component(cells.text(places, twice=True)), reuse=MODES[mode]()) as app:
            assert looks(app, place, places)[0] == PUT_BACK


def test_a_component_in_the_component(mode: str) -> None:
    with wasgi.App(component(cells.nested()), reuse=MODES[mode]()) as app:
        answers, reused = looks(app, cells.NESTED, (cells.NESTED,))
    assert answers == PUT_BACK
    assert reused == expected(mode, 0, 1, 2, 3, 4, 5)
    with wasgi.App(component(cells.nested()), reuse=MODES["reused"]()) as app:
        assert looks(app, cells.NESTED, (cells.NESTED,))[0] == LEFT


@pytest.mark.parametrize("what", cells.DROPPED)
def test_segments_that_are_dropped(mode: str, what: str) -> None:
    dropping = component(cells.text((), extra=cells.DROPPED[what]))
    with wasgi.App(dropping, reuse=MODES[mode]()) as app:
        assert [status(app, target)[0] for target in ("/u", "/d", "/u", "/u")] == [NO] * 4
    with wasgi.App(dropping, reuse=MODES["reused"]()) as app:
        assert [status(app, target)[0] for target in ("/u", "/d", "/u")] == [NO, NO, NO if what == "nothing" else 0]


OWN_RESOURCE: dict[str, Any] = cells.OWN_RESOURCE
STARTED_WITH_A_HANDLE: dict[str, Any] = cells.STARTED_WITH_A_HANDLE


def test_a_resource_of_the_guests_own(mode: str) -> None:
    """Its representation is a number of the guest's, which its handle keeps for it."""
    made = component(cells.text((), **OWN_RESOURCE))
    with wasgi.App(made, reuse=MODES[mode]()) as app:
        assert [status(app, target)[0] for target in ("/d", "/u", "/d", "/d", "/u")] == [NO, 0, NO, NO, 0]
    with wasgi.App(made, reuse=MODES["reused"]()) as app:
        assert [status(app, target)[0] for target in ("/d", "/u")] == [NO, NO]


def test_a_handle_from_before_the_first_exchange(mode: str) -> None:
    """An exchange that drops it does not take it away from those that follow."""
    made = component(cells.text((), **STARTED_WITH_A_HANDLE))
    with wasgi.App(made, reuse=MODES[mode]()) as app:
        used = [status(app, "/u") for _ in range(3)]
        assert used == [(NO, reused) for reused in expected(mode, 0, 1, 2)]
        assert [status(app, target)[0] for target in ("/d", "/u", "/d", "/d", "/u")] == [NO] * 5
    with wasgi.App(made, reuse=MODES["reused"]()) as app:
        assert [status(app, target)[0] for target in ("/u", "/d", "/u")] == [NO, NO, 0]
