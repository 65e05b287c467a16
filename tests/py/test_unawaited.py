"""A call that was never awaited is told of, as a coroutine's is."""

from __future__ import annotations

import asyncio
import gc
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import AppMaker, get
from tests.processes import run

WARNING = r"coroutine 'App\.handle_async' was never awaited"


def forget(awaitable: object) -> None:
    """Does not await it."""


def test_a_call_that_is_dropped(app: AppMaker) -> None:
    made = app()
    with pytest.warns(RuntimeWarning, match=WARNING):
        forget(made.handle_async(get("/hello")))


def test_one_whose_variable_goes(app: AppMaker) -> None:
    call = app().handle_async(get("/hello"))
    with pytest.warns(RuntimeWarning, match=WARNING):
        del call


def test_an_exception_on_its_way_stays_what_it_is(app: AppMaker) -> None:
    made = app()
    with pytest.warns(RuntimeWarning, match=WARNING), pytest.raises(ZeroDivisionError):
        print(made.handle_async(get("/hello")), 1 / 0)


def test_a_warning_that_is_an_error_raises_where_it_can(app: AppMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", told.append)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forget(app().handle_async(get("/hello")))
    assert [unraisable.exc_type for unraisable in told] == [RuntimeWarning]


class TestNothingIsSaid:
    @pytest.fixture(autouse=True)
    def _none(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
            gc.collect()

    async def test_of_one_that_is_awaited(self, app: AppMaker) -> None:
        assert (await app().handle_async(get("/hello"))).status == 200

    async def test_of_one_that_is_cancelled(self, app: AppMaker) -> None:
        begun = asyncio.ensure_future(app().handle_async(get("/sleep?ms=60000")))
        await asyncio.sleep(0)
        never_begun = asyncio.ensure_future(app().handle_async(get("/hello")))
        for task in (begun, never_begun):
            task.cancel()
        outcomes = await asyncio.gather(begun, never_begun, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 2

    def test_of_one_that_is_closed(self, app: AppMaker) -> None:
        app().handle_async(get("/hello")).close()

    async def test_of_a_reader_that_nobody_uses(self, app: AppMaker) -> None:
        response = await app().handle_async(get("/hello"))
        forget(response.aread())
        forget(response.aclose())
        forget(response.finished())
        await response.aread()

    async def test_of_an_app_that_is_an_upstream(self, app: AppMaker) -> None:
        response = await app(outgoing=app()).handle_async(get("/fetch?url=http://inner/hello"))
        assert await response.aread() == b"Hello, World!"


def test_nothing_is_said_when_the_process_exits(probe_path: Path) -> None:
    script = """
import sys, wasgi
app = wasgi.App(sys.argv[1])
call = app.handle_async(wasgi.Request("GET", "http://guest.local/hello"))
cycle = [call]
cycle.append(cycle)
"""
    done = run(script, str(probe_path))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_is_told(probe_path: Path) -> None:
    script = """
import sys, wasgi
def main():
    wasgi.App(sys.argv[1]).handle_async(wasgi.Request("GET", "http://guest.local/hello"))
main()
"""
    done = run(script, str(probe_path))
    assert "RuntimeWarning: coroutine 'App.handle_async' was never awaited" in done.stderr
