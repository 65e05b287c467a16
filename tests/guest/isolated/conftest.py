from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import wasgi
from tests.conftest import GENERATIONS, until
from tests.guest.isolated.asking import KEEPERS, MODES

AppMaker = Callable[..., wasgi.App]


@pytest.fixture(scope="session")
def keepers() -> dict[str, wasgi.Component]:
    return {generation: wasgi.Component(path, isolated=True) for generation, path in KEEPERS.items()}


@pytest.fixture(params=GENERATIONS)
def keeper(request: pytest.FixtureRequest, keepers: dict[str, wasgi.Component]) -> wasgi.Component:
    return keepers[request.param]


@pytest.fixture(params=["fresh", "isolated"])
def mode(request: pytest.FixtureRequest) -> str:
    """Whatever holds for instances that are put back holds for fresh ones: that is what isolation means."""
    chosen: str = request.param
    return chosen


@pytest.fixture
def app(mode: str, keeper: wasgi.Component) -> Iterator[AppMaker]:
    """Makes apps of the keeper in that mode."""
    made: list[wasgi.App] = []

    def make(**options: Any) -> wasgi.App:
        made.append(wasgi.App(keeper, reuse=MODES[mode](), **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(autouse=True)
def nothing_waits() -> Iterator[None]:
    """Each test ends with no instance that waits."""
    yield
    gc.collect()
    until(lambda: wasgi.stats().idle == 0)
