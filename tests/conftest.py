from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wasgi

GUESTS = Path(__file__).parent / "guests"
COMPONENTS = GUESTS / "components"
HELLO = COMPONENTS / "hello.wasm"
PROBE = COMPONENTS / "probe.wasm"
HAND = GUESTS / "hand.wat"


def get(target: str, **options: Any) -> wasgi.Request:
    """A GET of the guest's route."""
    return wasgi.Request("GET", f"http://guest.local{target}", **options)


def post(target: str, body: Any, **options: Any) -> wasgi.Request:
    return wasgi.Request("POST", f"http://guest.local{target}", body=body, **options)


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread is about to do."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture(scope="session")
def hello() -> wasgi.Component:
    return wasgi.Component(HELLO)


@pytest.fixture(scope="session")
def probe() -> wasgi.Component:
    return wasgi.Component(PROBE)


AppMaker = Callable[..., wasgi.App]


@pytest.fixture
def app(probe: wasgi.Component) -> AppMaker:
    """Makes apps of the probe, the guest with one behaviour a route."""

    def make(**options: Any) -> wasgi.App:
        return wasgi.App(probe, **options)

    return make
