"""What a guest prints: line by line, attributed, never lost and never mixed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import io
import logging
from typing import Any

import pytest

import wasgi

from .conftest import PROBE, AppMaker, get, until


def test_lines_go_to_a_logger(app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "wasgi.guest"):
        response = app().handle(get("/stdio?n=2&tag=t"))
        until(lambda: len(caplog.records) == 5)  # a line without newline ends with its guest
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert lines == [
        ("INFO", "t out 0"),
        ("WARNING", "t err 0"),
        ("INFO", "t out 1"),
        ("WARNING", "t err 1"),
        ("INFO", "no newline at the end"),
    ]
    record: Any = caplog.records[1]
    assert response.report is not None
    assert (record.wasgi_stream, record.wasgi_component) == ("stderr", PROBE.name)
    assert record.wasgi_exchange == response.report.exchange


def test_lines_go_to_a_callable(app: AppMaker) -> None:
    lines: list[Any] = []
    response = app(stdout=lines.append, stderr=lines.append).handle(get("/stdio?n=1&tag=t"))
    until(lambda: len(lines) == 3)
    assert lines == ["t out 0", "t err 0", "no newline at the end"]
    assert [line.stream for line in lines] == ["stdout", "stderr", "stdout"]
    assert response.report is not None
    assert {line.exchange for line in lines} == {response.report.exchange}


def test_lines_go_to_a_file(app: AppMaker) -> None:
    out, err = io.StringIO(), io.StringIO()
    response = app(stdout=out, stderr=err).handle(get("/stdio?n=1&tag=t"))
    until(lambda: "end" in out.getvalue())
    assert response.status == 200
    assert out.getvalue() == "t out 0\nno newline at the end\n"
    assert err.getvalue() == "t err 0\n"


@pytest.mark.parametrize("route", ["/trap", "/trap-midway?bytes=10"])
def test_nothing_is_lost_when_the_guest_dies(app: AppMaker, route: str) -> None:
    lines: list[str] = []
    made = app(stderr=lines.append)
    try:
        with pytest.raises(wasgi.BodyError):
            made.handle(get(route)).read()
    except wasgi.TrapError:
        pass
    until(lambda: len(lines) > 0)
    assert lines in (["last words"], ["trapping midway"])


def test_more_than_any_buffer_holds(app: AppMaker) -> None:
    lines: list[str] = []
    assert app(stdout=lines.append).handle(get("/chatter?n=20000")).text == "printed"
    assert [line.split()[1] for line in lines] == [str(n) for n in range(20_000)]


def test_lines_of_concurrent_exchanges_are_told_apart(app: AppMaker) -> None:
    lines: list[Any] = []
    made = app(stdout=lines.append, stderr=lines.append)

    def work(n: int) -> int:
        response = made.handle(get(f"/stdio?n=20&tag={n}"))
        assert response.report is not None
        return response.report.exchange

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        exchanges = list(pool.map(work, range(40)))
    until(lambda: len(lines) == 40 * 41)
    for n, exchange in enumerate(exchanges):
        own = [line for line in lines if line.exchange == exchange]
        expected = [f"{n} {stream} {i}" for i in range(20) for stream in ("out", "err")]
        assert own == [*expected, "no newline at the end"]


async def test_lines_come_while_the_guest_runs(app: AppMaker) -> None:
    loop = asyncio.get_running_loop()
    printed: asyncio.Event = asyncio.Event()

    def line(text: str) -> None:
        loop.call_soon_threadsafe(printed.set)

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        await asyncio.wait_for(printed.wait(), 10)
        return wasgi.Response()

    made = app(outgoing=upstream, stdout=line)
    response = await made.handle_async(get("/print-and-fetch?url=http://up/"))
    assert response.status == 200


def test_a_sink_that_fails_does_not_fail_the_exchange(app: AppMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", failures.append)

    def fails(line: str) -> None:
        raise RuntimeError(line)

    assert app(stdout=fails).handle(get("/stdio?n=1&tag=t")).text == "printed"
    until(lambda: len(failures) == 2)
    assert [str(failure.exc_value) for failure in failures] == ["t out 0", "no newline at the end"]


async def test_lines_come_when_the_response_is_gone(app: AppMaker) -> None:
    lines: list[str] = []
    asked, answer = asyncio.Event(), asyncio.Event()

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        asked.set()
        await answer.wait()
        return wasgi.Response()

    response = await app(outgoing=upstream, stdout=lines.append).handle_async(get("/work-after?url=http://up/"))
    assert await response.aread() == b"done already"
    await asked.wait()
    del response
    gc.collect()
    answer.set()
    await asyncio.to_thread(until, lambda: bool(lines))
    assert lines == ["worked on"]
