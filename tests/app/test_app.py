"""Calling a component: the same behaviour from blocking and from async code."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import io
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wasgi
from tests.conftest import AppMaker, get, only, post, until

Call = Callable[[wasgi.App, wasgi.Request], Awaitable[tuple[wasgi.Response, bytes]]]


async def blocking(app: wasgi.App, request: wasgi.Request) -> tuple[wasgi.Response, bytes]:
    def work() -> tuple[wasgi.Response, bytes]:
        response = app.handle(request)
        return response, response.read()

    return await asyncio.to_thread(work)


async def awaited(app: wasgi.App, request: wasgi.Request) -> tuple[wasgi.Response, bytes]:
    response = await app.handle_async(request)
    return response, await response.aread()


both = pytest.mark.parametrize("call", [blocking, awaited])


@both
async def test_answers(call: Call, app: AppMaker) -> None:
    response, body = await call(app(), get("/hello"))
    assert response.status == 200
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert body == b"Hello, World!"
    assert response.trailers is None


@both
async def test_the_guest_sees_the_whole_request(call: Call, app: AppMaker) -> None:
    request = wasgi.Request(
        "PUT",
        "https://example.com:8443/inspect?x=1&y=%20",
        headers=[("X-One", "1"), ("x-two", "é"), ("x-one", "2"), ("host", "other")],
        body="12345",
    )
    _, body = await call(app(), request)
    assert body.decode().splitlines() == [
        "method: Method::Put",
        "scheme: Some(Scheme::Https)",
        'authority: Some("example.com:8443")',
        'path: Some("/inspect?x=1&y=%20")',
        "header x-one: 1",
        "header x-one: 2",
        "header x-two: \\xe9",
        "header content-length: 5",
    ]


@both
async def test_headers_of_the_answer_keep_their_duplicates(call: Call, app: AppMaker) -> None:
    response, _ = await call(app(), get("/headers"))
    assert response.headers.get_all("set-cookie") == ["a=1", "b=2"]
    assert response.headers["x-one"] == "1"
    assert all(name == name.lower() for name, _ in response.headers.raw)


@both
@pytest.mark.parametrize(
    "status",
    [100, 204, 299, 404, 599, pytest.param(999, marks=only("0.2", "`set-status-code` takes 100 to 599"))],
)
async def test_statuses(call: Call, app: AppMaker, status: int) -> None:
    response, _ = await call(app(), get(f"/status?code={status}"))
    assert response.status == status


@both
async def test_an_answer_without_a_body(call: Call, app: AppMaker) -> None:
    response, body = await call(app(), get("/no-body"))
    assert (response.status, body) == (204, b"")


def chunks() -> Iterator[bytes]:
    for n in range(5):
        yield b"%d" % n * 1000


async def async_chunks() -> AsyncIterator[bytes]:
    for chunk in chunks():
        await asyncio.sleep(0)
        yield chunk


WHOLE = b"".join(chunks())
BODIES: list[Callable[[], Any]] = [
    lambda: WHOLE,
    lambda: WHOLE.decode(),
    lambda: bytearray(WHOLE),
    lambda: io.BytesIO(WHOLE),
    lambda: list(chunks()),
    chunks,
    async_chunks,
    lambda: wasgi.Response(body=chunks()),
]


@both
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("route", ["/echo", "/collect"])
async def test_bodies_of_every_form(call: Call, app: AppMaker, body: Callable[[], Any], route: str) -> None:
    _, content = await call(app(), post(route, body()))
    assert content == (WHOLE if route == "/echo" else b"%d bytes: " % len(WHOLE) + WHOLE)


@both
@pytest.mark.parametrize("body", [b"", None, [], [b"", b""]])
async def test_empty_bodies(call: Call, app: AppMaker, body: Any) -> None:
    _, content = await call(app(), post("/echo", body))
    assert content == b""


@both
async def test_a_large_body_comes_whole(call: Call, app: AppMaker) -> None:
    size = 5_000_000
    _, content = await call(app(), post("/echo", bytes(range(250)) * (size // 250)))
    assert content == bytes(range(250)) * (size // 250)
    _, content = await call(app(), get(f"/stream?chunks=100&bytes={size // 100}"))
    assert len(content) == size


@both
async def test_trailers_go_in_and_come_out(call: Call, app: AppMaker) -> None:
    request = post("/echo", b"body", trailers=[("x-sum", "1"), ("x-sum", "2")])
    response, content = await call(app(), request)
    assert content == b"body"
    assert response.trailers is not None
    assert response.trailers.get_all("x-sum") == ["1", "2"]
    response, _ = await call(app(), post("/echo", chunks(), trailers={"x-end": "yes"}))
    assert response.trailers == {"x-end": "yes"}


def test_trailers_are_known_when_the_body_has_ended(app: AppMaker) -> None:
    response = app().handle(get("/trailers"))
    assert response.trailers is None
    assert list(response) == [b"body"]
    assert response.trailers == {"x-checksum": "abc, def"}


def test_the_answer_streams(app: AppMaker) -> None:
    """Each chunk is made after the one before has come back: nothing waits for the whole."""
    back: list[bytes] = []
    asked = threading.Event()

    def dependent() -> Iterator[bytes]:
        for n in range(4):
            assert len(back) == n or asked.wait(10)
            asked.clear()
            yield b"%d" % n

    response = app().handle(post("/echo", dependent()))
    for chunk in response:
        back.append(chunk)
        asked.set()
    assert back == [b"0", b"1", b"2", b"3"]


async def test_the_answer_streams_async(app: AppMaker) -> None:
    back: asyncio.Queue[bytes] = asyncio.Queue()

    async def dependent() -> AsyncIterator[bytes]:
        yield b"0"
        for n in range(1, 4):
            assert await back.get() == b"%d" % (n - 1)
            yield b"%d" % n

    response = await app().handle_async(post("/echo", dependent()))
    async for chunk in response:
        back.put_nowait(chunk)
    assert await back.get() == b"3"


def test_a_guest_that_does_not_read_lets_the_producer_be(app: AppMaker) -> None:
    asked = []

    def producer() -> Iterator[bytes]:
        asked.append(1)
        yield b"x"

    assert app().handle(post("/ignore-body", producer())).text == "not read"
    assert asked == []


def test_a_reader_that_waits_holds_the_guest_up(app: AppMaker) -> None:
    """A guest that streams for ever makes only what is read, and a few chunks."""
    with app(limits=wasgi.Limits(timeout=None)).handle(get("/endless")) as response:
        chunks = iter(response)
        for _ in range(4):
            assert next(chunks)
        assert response.report is not None
        assert response.report.running
        assert response.report.memory < 4 << 20
    with pytest.raises(wasgi.BodyError, match="cancelled: its caller or client has gone"):
        for _ in chunks:
            pass


def test_a_reader_that_stops_stops_the_guest(app: AppMaker) -> None:
    response = app().handle(get("/endless"))
    for chunk in response:
        assert chunk
        break
    assert response.report is not None
    assert not response.report.running


@both
async def test_nothing_is_granted_unless_given(call: Call, app: AppMaker) -> None:
    _, body = await call(app(), get("/env"))
    assert body == b""
    response, body = await call(app(), get("/read-file?path=/etc/hostname"))
    assert response.status == 500


@both
async def test_environment_and_arguments(call: Call, app: AppMaker) -> None:
    made = app(env={"LOG": "debug", "NAME": "ü"}, args=["guest", "--x"])
    _, body = await call(made, get("/env"))
    assert body.decode().splitlines() == ["LOG=debug", "NAME=ü", "arg guest", "arg --x"]


def test_directories(app: AppMaker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    reading = app(dirs={"/data": wasgi.Dir(tmp_path)})
    assert reading.handle(get("/read-file?path=/data/file")).text == "content"
    assert reading.handle(get("/write-file?path=/data/new&content=x")).status == 500
    assert reading.handle(get("/read-file?path=/data/../secret")).status == 500
    assert not (tmp_path / "new").exists()
    writing = app(dirs={"/data": wasgi.Dir(str(tmp_path), write=True)})
    assert writing.handle(get("/write-file?path=/data/new&content=x")).status == 200
    assert (tmp_path / "new").read_text() == "x"
    plain = app(dirs={"/data": tmp_path})
    assert plain.handle(get("/read-file?path=/data/new")).text == "x"
    assert plain.handle(get("/write-file?path=/data/new&content=y")).status == 500


def test_a_link_does_not_lead_out_of_a_directory(app: AppMaker, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "granted").mkdir()
    (tmp_path / "granted" / "link").symlink_to(tmp_path / "secret")
    made = app(dirs={"/data": wasgi.Dir(tmp_path / "granted")})
    response = made.handle(get("/read-file?path=/data/link"))
    assert response.status == 500
    assert "secret" not in response.text


def test_a_directory_that_goes_away(app: AppMaker, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    made = app(dirs={"/data": wasgi.Dir(tmp_path / "data")})
    (tmp_path / "data").rmdir()
    with pytest.raises(wasgi.WasgiError, match="cannot open the granted directory"):
        made.handle(get("/hello"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"env": {"A=B": "x"}}, ValueError, "invalid name or value"),
        ({"env": {"A": 1}}, TypeError, "`env` must map str to str"),
        ({"args": "one"}, TypeError, "`args` must be a sequence of str"),
        ({"args": [1]}, TypeError, "`args` must be a sequence of str"),
        ({"dirs": {"/x": "/no/such/place"}}, ValueError, "no such directory"),
        ({"dirs": {"/x": __file__}}, ValueError, "not a directory"),
        ({"dirs": {"/x": 1}}, TypeError, "`dirs` must map"),
        ({"outgoing": "http://x"}, TypeError, "`outgoing` must be callable"),
        ({"reuse": 1}, TypeError, "not an instance of 'Reuse'"),
        ({"stdout": 1}, TypeError, "`stdout` must be None, a callable or a file"),
        ({"debug": "no"}, TypeError, "`debug` must be a bool, not str"),
        ({"forwarded": None}, TypeError, "`forwarded` must be a bool, not NoneType"),
    ],
)
def test_refuses_wrong_options(app: AppMaker, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        app(**options)


def test_refuses_a_request_of_another_type(app: AppMaker) -> None:
    with pytest.raises(TypeError):
        app().handle("http://example.com/")  # type: ignore[arg-type]


def test_a_request_that_streams_is_used_once(app: AppMaker) -> None:
    request = post("/echo", iter([b"x"]))
    assert app().handle(request).read() == b"x"
    with pytest.raises(wasgi.BodyError, match="consumed already"):
        app().handle(request)


def test_many_threads_at_once(app: AppMaker) -> None:
    made = app()

    def work(n: int) -> bytes:
        return made.handle(post("/echo", b"%d" % n)).read()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(500))) == [b"%d" % n for n in range(500)]


async def test_many_tasks_at_once(app: AppMaker) -> None:
    made = app()

    async def work(n: int) -> bytes:
        response = await made.handle_async(post("/echo", (chunk for chunk in [b"%d" % n])))
        body: bytes = await response.aread()
        return body

    assert await asyncio.gather(*map(work, range(200))) == [b"%d" % n for n in range(200)]


async def test_a_waiting_guest_leaves_the_loop_free(app: AppMaker) -> None:
    made = app()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    counting = asyncio.create_task(count())
    response = await made.handle_async(get("/sleep?ms=200"))
    assert await response.aread() == b"slept"
    counting.cancel()
    assert turns > 20


async def test_a_computing_guest_leaves_the_loop_free(app: AppMaker) -> None:
    made = app()
    await made.handle_async(get("/hello"))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    counting = asyncio.create_task(count())
    await made.handle_async(get("/work?n=100"))
    counting.cancel()
    assert turns > 5


def test_the_report(app: AppMaker) -> None:
    response = app().handle(get("/alloc?mib=8"))
    assert response.text == "8"
    # the body is whole before the guest has returned
    until(lambda: response.report is not None and not response.report.running)
    report = response.report
    assert report is not None
    assert 8 << 20 < report.memory < 16 << 20
    assert 0 < report.duration < 60
    assert (report.outgoing, report.running) == (0, False)
    assert report.exchange > 0


def test_an_exchange_has_state_of_its_own(app: AppMaker) -> None:
    """A guest that dirtied its memory leaves nothing to the next."""
    made = app()
    first = made.handle(get("/alloc?mib=4"))
    second = made.handle(get("/hello"))
    assert first.text == "4"
    assert first.report is not None
    assert second.report is not None
    assert second.report.memory < first.report.memory


async def test_loops_one_after_the_other(app: AppMaker) -> None:
    made = app(outgoing=answer_from_context)

    def work() -> list[str]:
        return [asyncio.run(fetch(made)) for _ in range(3)]

    assert await asyncio.to_thread(work) == ["none"] * 3


who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="none")


async def answer_from_context(request: wasgi.Request) -> wasgi.Response:
    return wasgi.Response(body=who.get())


async def fetch(app: wasgi.App) -> str:
    response = await app.handle_async(get("/fetch?url=http://up.local/"))
    await response.aread()
    return str(response.text)
