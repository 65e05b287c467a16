"""What a guest prints: line by line, attributed, never lost and never mixed."""

from __future__ import annotations

import asyncio
import codecs
import concurrent.futures
import contextvars
import gc
import gzip
import io
import logging
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import wasgi
from tests.conftest import PROBES, AppMaker, get, only, until


def test_lines_go_to_a_logger(app: AppMaker, generation: str, caplog: pytest.LogCaptureFixture) -> None:
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
    assert (record.wasgi_stream, record.wasgi_component) == ("stderr", PROBES[generation].name)
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


def test_a_sink_is_no_coroutine_function(app: AppMaker) -> None:
    """Nobody would await it."""

    class File:
        async def write(self, text: str) -> None: ...

    async def sink(line: str) -> None: ...

    for given in (File(), sink):
        with pytest.raises(TypeError, match="`stderr` must not be a coroutine function"):
            app(stderr=given)


class TestFilesThatTakeNoText:
    """Refused when the app is made: later, each line would be lost."""

    @pytest.mark.parametrize("name", ["stdout", "stderr"])
    def test_binary_ones(self, app: AppMaker, tmp_path: Path, name: str) -> None:
        path = tmp_path / "lines"
        with (
            path.open("wb") as buffered,
            path.open("wb", buffering=0) as raw,
            tempfile.TemporaryFile() as temporary,
            tempfile.NamedTemporaryFile() as named,
            tempfile.SpooledTemporaryFile() as spooled,
            gzip.open(path, "wb") as packed,
        ):
            for file in (buffered, raw, temporary, named, spooled, packed, io.BytesIO()):
                with pytest.raises(TypeError, match=f"`{name}` must be a text file, not a binary one; hint: "):
                    app(**{name: file})

    @pytest.mark.parametrize("name", ["stdout", "stderr"])
    def test_closed_ones(self, app: AppMaker, tmp_path: Path, name: str) -> None:
        file = (tmp_path / "lines").open("w")
        file.close()
        with pytest.raises(ValueError, match=f"`{name}` is a file that is closed"):
            app(**{name: file})

    @pytest.mark.parametrize("name", ["stdout", "stderr"])
    def test_those_to_read(self, app: AppMaker, tmp_path: Path, name: str) -> None:
        path = tmp_path / "lines"
        path.touch()
        with (
            path.open() as file,
            pytest.raises(ValueError, match=f"`{name}` is a file that cannot be written to; hint"),
        ):
            app(**{name: file})

    def test_all_others_are_taken(self, app: AppMaker, tmp_path: Path) -> None:
        class Duck:
            mode = "wb"
            encoding = "utf-8"

            def __init__(self) -> None:
                self.text = ""

            def write(self, text: str) -> None:
                self.text += text

        duck, path = Duck(), tmp_path / "lines"
        with (
            path.open("w") as plain,
            codecs.open(str(path), "w", "utf-8") as coded,
            tempfile.TemporaryFile("w") as temporary,
            tempfile.NamedTemporaryFile("w") as named,
            tempfile.SpooledTemporaryFile(mode="w") as spooled,
            gzip.open(path, "wt") as packed,
        ):
            for file in (plain, coded, temporary, named, spooled, packed, io.StringIO(), sys.stdout, duck):
                app(stdout=file)
            app(stdout=duck).handle(get("/stdio?n=1&tag=t")).wait()
        assert "t out 0\n" in duck.text


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


def test_a_chatty_guest_leaves_threads_for_others(app: AppMaker) -> None:
    """Its sink is slow; the lines that wait for it are one thread's work."""
    leave = threading.Event()

    def slow(line: str) -> None:
        leave.wait(10)

    chatty = app(stdout=slow)
    thread = threading.Thread(target=lambda: chatty.handle(get("/chatter?n=3000")).read())
    thread.start()
    other = app(outgoing=lambda request: wasgi.Response(body=b"up"))
    for _ in range(50):
        assert other.handle(get("/fetch?url=http://up/")).text == "up"
    assert thread.is_alive()
    leave.set()
    thread.join()


async def test_one_that_prints_without_end_leaves_the_sink_to_the_apps_others(app: AppMaker) -> None:
    arrived = asyncio.Event()
    loop, lines = asyncio.get_running_loop(), [0]

    def slow(line: str) -> None:
        if line.startswith("other out"):
            loop.call_soon_threadsafe(arrived.set)
        lines[0] += 1
        time.sleep(0.0005)  # its guest is faster

    made = app(stdout=slow, limits=wasgi.Limits(timeout=None))
    endless = asyncio.ensure_future(made.handle_async(get("/hostile/print")))
    while lines[0] < 100:
        await asyncio.sleep(0.001)
    other = asyncio.ensure_future(made.handle_async(get("/stdio?n=1&tag=other")))
    try:
        await asyncio.wait_for(arrived.wait(), 30)
        assert (await asyncio.wait_for(other, 30)).status == 200
        assert not endless.done()
    finally:
        endless.cancel()
        other.cancel()


async def test_a_sink_may_wait_for_the_loop_that_waits_for_it(app: AppMaker) -> None:
    loop, here = asyncio.get_running_loop(), threading.current_thread()
    seen: list[str] = []

    async def note(line: str) -> None:
        seen.append(line)

    def sink(line: str) -> None:
        if threading.current_thread() is here:
            seen.append(line)
        else:
            asyncio.run_coroutine_threadsafe(note(line), loop).result(10)

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        return wasgi.Response(body=b"up")

    for _ in range(20):
        response = await app(stdout=sink, outgoing=upstream).handle_async(get("/print-and-fetch?url=http://up/"))
        assert await response.aread() == b"up"
    assert seen == ["before the request"] * 20


def test_exit_with_a_sink_that_is_slower_than_its_guest(probe_path: Path) -> None:
    script = """
import sys, threading, time, wasgi
app = wasgi.App(sys.argv[1], stdout=lambda line: time.sleep(0.001))
request = wasgi.Request("GET", "http://guest.local/chatter?n=8000")
threading.Thread(target=app.handle, args=[request], daemon=True).start()
while not wasgi.stats().exchanges:
    pass
print("leaving")
"""
    done = subprocess.run([sys.executable, "-c", script, str(probe_path)], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


class TestLongLines:
    """A line is cut where it is longer than 64 KiB; its pieces joined give its text."""

    @pytest.mark.parametrize("text", ["€", "é", "x€", "🦀", "ab🦀"])
    @pytest.mark.parametrize("stream", ["stdout", "stderr"])
    def test_pieces_joined_give_the_text(self, app: AppMaker, text: str, stream: str) -> None:
        lines: list[Any] = []
        made = app(**{stream: lines.append})
        made.handle(get(f"/long-line?text={text}&times=90000&to={stream}")).wait()
        assert "".join(lines) == text * 90_000
        assert len(lines) > 1
        assert [line.cut for line in lines] == [True] * (len(lines) - 1) + [False]

    def test_a_file_has_the_line_whole(self, app: AppMaker) -> None:
        out = io.StringIO()
        app(stdout=out).handle(get("/long-line?text=€&times=90000")).wait()
        assert out.getvalue() == "€" * 90_000 + "\n"

    def test_one_that_is_not_longer_is_whole(self, app: AppMaker) -> None:
        lines: list[Any] = []
        app(stdout=lines.append).handle(get(f"/long-line?text=x&times={64 << 10}")).wait()
        assert lines == ["x" * (64 << 10)]
        assert not lines[0].cut

    def test_an_error_tells_the_beginning_of_last_words_that_are_long(self, app: AppMaker) -> None:
        with pytest.raises(wasgi.TrapError) as raised:
            app(stderr=lambda line: None).handle(get("/long-line?text=€&times=20000&to=stderr&then=trap"))
        assert raised.value.stderr == ["€" * 341 + "… (58977 bytes more)"]
        assert len(str(raised.value)) < 2000


@only("0.2", "a stream says nothing of how much it takes")
def test_what_each_stream_is_permitted_to_write_it_may_write(app: AppMaker) -> None:
    """However much the others write meanwhile: a permit is a reservation."""
    out: list[str] = []
    err: list[str] = []
    response = app(stdout=out.append, stderr=err.append).handle(get("/permits"))
    body = response.read()
    response.wait()
    assert set(body.decode()) == {"\n"}
    assert (len(out), len(err)) == (2 * 4096, 4096)


class TestNobodyElseWaits:
    """A guest that prints waits for its sink; the event loop does not, and neither do others."""

    @pytest.mark.parametrize("way", ["callable", "file", "handler"])
    async def test_a_sink_that_blocks_leaves_the_event_loop_free(self, app: AppMaker, way: str) -> None:
        leave = threading.Event()
        threads: list[threading.Thread] = []

        def block() -> None:
            threads.append(threading.current_thread())
            assert leave.wait(30)

        class File(io.StringIO):
            def write(self, text: str) -> int:
                block()
                return len(text)

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                block()

        log, handler = logging.getLogger("wasgi.guest"), Handler()
        options: dict[str, Any] = {
            "callable": {"stdout": lambda line: block(), "stderr": lambda line: block()},
            "file": {"stdout": File(), "stderr": File()},
            "handler": {},
        }
        if way == "handler":
            log.addHandler(handler)
        try:
            printing = asyncio.ensure_future(app(**options[way]).handle_async(get("/stdio?n=1&tag=t")))
            while not threads:
                await asyncio.sleep(0)
            other = await app(outgoing=lambda request: wasgi.Response(body=b"up")).handle_async(
                get("/fetch?url=http://up/")
            )
            assert await other.aread() == b"up"
            assert not printing.done()
            leave.set()
            assert (await printing).status == 200
        finally:
            leave.set()
            log.removeHandler(handler)
        assert threading.current_thread() not in threads

    async def test_many_sinks_that_block_leave_threads_for_others(self, app: AppMaker) -> None:
        leave = threading.Event()
        blocked: list[str] = []

        def sink(line: str) -> None:
            blocked.append(line)
            leave.wait(30)

        apps = [app(stdout=sink) for _ in range(40)]
        printing = [asyncio.ensure_future(made.handle_async(get("/stdio?n=1&tag=t"))) for made in apps]
        while len(blocked) < len(apps):
            await asyncio.sleep(0.001)
        other = app(outgoing=lambda request: wasgi.Response(body=b"up"))
        assert await (await other.handle_async(get("/fetch?url=http://up/"))).aread() == b"up"
        leave.set()
        await asyncio.gather(*printing)

    async def test_a_reader_waits_for_the_lines_that_there_were_when_it_came(self, app: AppMaker) -> None:
        """Not for those that come meanwhile: a guest may print for ever."""
        go_on = threading.Event()
        lines: list[str] = []

        def sink(line: str) -> None:
            lines.append(line)
            if len(lines) > 1:
                assert go_on.wait(30)

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response()

        response = await app(stdout=sink, outgoing=upstream).handle_async(get("/work-after?url=http://up/"))
        assert await response.aread() == b"done already"
        go_on.set()

    async def test_handle_in_a_coroutine_runs_no_sink_on_its_thread(self, app: AppMaker) -> None:
        threads: list[threading.Thread] = []
        app(stdout=lambda line: threads.append(threading.current_thread())).handle(get("/stdio?n=3&tag=t"))
        assert threads
        assert threading.current_thread() not in threads

    async def test_a_sink_may_call_its_own_app(self, app: AppMaker) -> None:
        answers: list[str] = []

        def sink(line: str) -> None:
            if line == "t out 0":
                answers.append(made.handle(get("/stdio?n=1&tag=inner")).text)
            elif line == "t err 0":

                async def call() -> str:
                    return (await (await made.handle_async(get("/stdio?n=1&tag=inner"))).aread()).decode()

                answers.append(asyncio.run(call()))
            else:
                answers.append(line)

        made = app(stdout=sink, stderr=sink)
        await made.handle_async(get("/stdio?n=1&tag=t"))
        assert answers.count("printed") == 2
        assert answers.count("inner out 0") == 2

    async def test_a_sink_sees_its_callers_context(self, app: AppMaker) -> None:
        seen: set[str] = set()
        made = app(stdout=lambda line: seen.add(user.get()), outgoing=lambda request: wasgi.Response())

        async def call(name: str) -> None:
            user.set(name)
            await made.handle_async(get("/stdio?n=1&tag=t"))
            await (await made.handle_async(get("/print-and-fetch?url=http://up/"))).aread()

        await asyncio.gather(*(call(name) for name in ("ada", "bob")))
        assert seen == {"ada", "bob"}

    def test_ctrl_c_in_a_sink_is_the_callers(self, app: AppMaker) -> None:
        def sink(line: str) -> None:
            # where the guest has gone on elsewhere its lines are told on a thread of ours, which hears no Ctrl-C
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt

        made = app(stdout=sink)
        with pytest.raises(KeyboardInterrupt):
            for _ in range(1000):
                made.handle(get("/stdio?n=1&tag=t"))


user: contextvars.ContextVar[str] = contextvars.ContextVar("user")


def test_an_app_with_a_sink_goes_before_its_response(app: AppMaker) -> None:
    """The collector has seen the sink as nobody's, though the response could still call it."""
    lines: list[str] = []

    class Holder:
        app: wasgi.App

    def respond() -> wasgi.Response:
        holder = Holder()

        def sink(line: str) -> None:
            assert holder.app is not None
            lines.append(line)

        holder.app = app(stdout=sink, outgoing=lambda request: wasgi.Response(body=b"up"))
        return holder.app.handle(get("/slow-body?ms=50"))

    response = respond()
    gc.collect()
    assert response.read() == b"firstlast"
