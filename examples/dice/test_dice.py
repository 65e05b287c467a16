"""The tests of a component in Python: by example, by property, and against its own OpenAPI description."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st

import wasgi
from wasgi.testing import Client, Simulation


@pytest.fixture(scope="module")
def dice(wasgi_component: Callable[[str], wasgi.Component]) -> Client:
    """One for all tests, since hypothesis asks it often."""
    return Client(wasgi.App(wasgi_component("dice.wasm")))


def test_the_dice_are_loaded_if_the_world_is(wasgi_app: Callable[..., Client]) -> None:
    texts = {wasgi_app("dice.wasm", simulation=Simulation(seed=7)).get("/roll?count=20").text for _ in range(3)}
    assert len(texts) == 1
    assert wasgi_app("dice.wasm", simulation=Simulation(seed=8)).get("/roll?count=20").text not in texts


def test_each_request_rolls_anew(wasgi_app: Callable[..., Client]) -> None:
    app = wasgi_app("dice.wasm")
    assert app.get("/roll?count=20").text != app.get("/roll?count=20").text


def test_what_rolls_tell_of_those_before(wasgi_app: Callable[..., Client]) -> None:
    """Python's generator goes on where it was, on an instance that is reused; nothing else meets the next request."""
    dice = wasgi_app("dice.wasm")
    wasgi.testing.check_isolation(dice, ["/roll?count=0", "/openapi.json", "/nowhere"])
    with pytest.raises(AssertionError, match="leaks state between exchanges"):
        wasgi.testing.check_isolation(dice, ["/roll?count=20"])


@given(count=st.integers(1, 100), sides=st.integers(2, 1000))
def test_any_dice(dice: Client, count: int, sides: int) -> None:
    answer = dice.get("/roll", params={"count": count, "sides": sides}).json()
    assert len(answer["rolls"]) == count
    assert all(1 <= roll <= sides for roll in answer["rolls"])
    assert answer["sum"] == sum(answer["rolls"])


@given(value=st.text() | st.integers(max_value=0).map(str))
def test_what_is_no_number_of_dice(dice: Client, value: str) -> None:
    if value.isascii() and value.isdigit() and 1 <= int(value) <= 100:
        return
    assert dice.get("/roll", params={"count": value}).status == 400


# It is built before the tests are collected; schemathesis asks it as the ASGI application that it is. Seconds that an
# answer may take: Python starts for each, on a busy machine.
PATIENCE = 60
dice_app = wasgi.App(Path(__file__).parent / "components" / "dice.wasm")
schema = schemathesis.openapi.from_asgi("/openapi.json", dice_app, timeout=PATIENCE)


@schema.parametrize()
def test_it_is_as_it_says(case: schemathesis.Case[Any]) -> None:
    case.call_and_validate(timeout=PATIENCE)
