"""What there is in WASI 0.3 alone: streams that are handed on, results of transmission, writes and calls that are
called off, tasks that stand, back-pressure. Each is a route `/only/…` of the probe of 0.3."""

from __future__ import annotations

import ast
import asyncio
import itertools
import threading
from pathlib import Path
from typing import Any

import pytest

import wasgi
from tests.conftest import PROBE_P3, AppMaker, get, post, until
from tests.peers import Peer, answers
from wasgi import errors

pytestmark = pytest.mark.usefixtures("nothing_is_left")

PIECES = [b"0123456789" * 1000, b"abcdefghij" * 1000]
WHOLE = b"".join(PIECES)
TRAILERS = {"x-checksum": "abc"}


@pytest.fixture(scope="module")
def probe() -> wasgi.Component:
    return wasgi.Component(PROBE_P3)


def request(target: str, **options: Any) -> wasgi.Request:
    return post(target, iter(PIECES), trailers=TRAILERS, **options)


def pairs(headers: wasgi.Headers | None) -> list[tuple[str, str]]:
    return [] if headers is None else list(headers.items())


def up(asked: wasgi.Request) -> wasgi.Response:
    """Gives back what it is sent."""
    content = asked.read()
    return wasgi.Response(201, body=content, headers={"x-method": asked.method}, trailers=asked.trailers)


def refuses(asked: wasgi.Request) -> wasgi.Response:
    raise errors.ConnectionRefused


READ = [0, 4, 12_000]


class TestStreamsThatAreHandedOn:
    @pytest.mark.parametrize("read", READ)
    def test_the_request_is_the_response(self, app: AppMaker, read: int) -> None:
        response = app().handle(request(f"/only/forward?read={read}"))
        assert response.read() == WHOLE[read:]
        assert response.headers["x-read"] == WHOLE[:read].decode()
        assert pairs(response.trailers) == list(TRAILERS.items())

    def test_with_trailers_of_the_guests_own(self, app: AppMaker) -> None:
        response = app().handle(request("/only/forward?own=1"))
        assert response.read() == WHOLE
        assert pairs(response.trailers) == [("x-own", "nothing")]

    @pytest.mark.parametrize("read", READ)
    def test_the_request_goes_to_an_upstream(self, app: AppMaker, read: int) -> None:
        seen: list[str] = []

        def upstream(asked: wasgi.Request) -> wasgi.Response:
            seen.append(asked.headers["x-read"])
            return up(asked)

        response = app(outgoing=upstream).handle(request(f"/only/forward-to?read={read}&method=POST&url=http://up/"))
        assert response.read() == WHOLE[read:]
        assert seen == [WHOLE[:read].decode()]
        assert pairs(response.trailers) == list(TRAILERS.items())

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_a_request_is_sent_on_as_it_is(self, app: AppMaker, method: str) -> None:
        """The guest has its scheme, its authority and its path, and so has the upstream."""
        seen: list[wasgi.Request] = []

        def upstream(asked: wasgi.Request) -> wasgi.Response:
            seen.append(asked)
            return up(asked)

        url, headers = "http://guest.local:8080/only/send-on?a=b", {"x-own": "1"}
        body = iter(PIECES) if method == "POST" else None
        response = app(outgoing=upstream).handle(wasgi.Request(method, url, headers=headers, body=body))
        assert (response.status, response.headers["x-method"]) == (201, method)
        assert response.read() == (WHOLE if body else b"")
        assert (seen[0].method, seen[0].url, seen[0].headers["x-own"]) == (method, url, "1")

    @pytest.mark.parametrize(("route", "own"), [("/only/answer-on", None), ("/only/hand-on", "1")])
    def test_a_response_is_answered_with(self, app: AppMaker, route: str, own: str | None) -> None:
        def upstream(asked: wasgi.Request) -> wasgi.Response:
            return wasgi.Response(202, headers={"x-up": "1"}, body=iter(PIECES), trailers=TRAILERS)

        response = app(outgoing=upstream).handle(get(f"{route}?url=http://up/"))
        assert (response.status, response.read()) == (202, WHOLE)
        assert (response.headers.get("x-handed-on"), response.headers.get("x-up")) == (own, None if own else "1")
        assert pairs(response.trailers) == list(TRAILERS.items())

    @pytest.mark.parametrize("route", ["/only/answer-on", "/only/hand-on"])
    def test_an_error_is_answered_with(self, app: AppMaker, route: str) -> None:
        with pytest.raises(errors.ConnectionRefused):
            app(outgoing=refuses).handle(get(f"{route}?url=http://up/"))

    @pytest.mark.parametrize("route", ["/only/answer-on", "/only/hand-on"])
    @pytest.mark.parametrize("options", ["", "&between-bytes-ms=60000"])
    @pytest.mark.parametrize("ends", [True, False])
    def test_what_comes_over_a_connection_is_read_on_any_thread(
        self, app: AppMaker, route: str, options: str, ends: bool
    ) -> None:
        """On a caller's, too, the connection goes back into its pool, and timers are set."""
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n"
        parts = (head, *PIECES) if ends else (head, PIECES[0])
        with Peer(answers(*parts)) as peer:
            made = app(outgoing=wasgi.Network([peer.url]))
            for _ in range(20):
                response = made.handle(get(f"{route}?url={peer.url}{options}"))
                if ends:
                    assert response.read() == WHOLE
                else:
                    assert next(iter(response)) in PIECES[0]
                    response.close()
            del made, response

    async def test_and_by_any_event_loop(self, app: AppMaker) -> None:
        with Peer(answers(b"HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n", *PIECES)) as peer:
            made = app(outgoing=wasgi.Network([peer.url]))
            for _ in range(20):
                response = await made.handle_async(get(f"/only/answer-on?url={peer.url}&between-bytes-ms=60000"))
                assert await response.aread() == WHOLE
            del made, response


class TestWhatBecameOfAMessage:
    def test_a_response(self, app: AppMaker) -> None:
        lines: list[str] = []
        response = app(stdout=lines.append).handle(get("/only/sent?bytes=100000"))
        assert response.read() == b"x" * 100_000
        response.wait()
        assert lines == ["written: Ok(()), sent: Ok(())"]

    def test_a_response_that_nobody_gives(self, app: AppMaker) -> None:
        """It is told something, and does not wait for ever."""
        assert app().handle(get("/only/response-dropped")).text.startswith(("Ok(", "Err("))

    def test_a_request(self, app: AppMaker) -> None:
        said = app(outgoing=up).handle(get("/only/request-sent?bytes=100000&method=POST&url=http://up/")).text
        assert said == "Ok(201), written: Ok(()), sent: Ok(())"

    def test_a_request_that_is_refused(self, app: AppMaker) -> None:
        said = app(outgoing=refuses).handle(get("/only/request-sent?bytes=1000&method=POST&url=http://up/")).text
        assert said.startswith("Err(ErrorCode::ConnectionRefused), ")
        assert said.endswith(", sent: Err(ErrorCode::ConnectionRefused)")

    @pytest.mark.parametrize("size", [10, 100_000])
    def test_a_request_that_its_handler_says_was_not_handled(self, app: AppMaker, size: int) -> None:
        """That has answered all the same."""
        target = "/only/not-handled?name=connection-terminated"
        assert app().handle(post(target, b"x" * size)).text == "said so"
        asks = f"/only/request-sent?bytes={size}&method=POST&url=http://up{target}"
        assert app(outgoing=app()).handle(get(asks)).text.startswith("Ok(200), ")


class TestEndsOfBodies:
    def test_a_writer_that_leaks(self, app: AppMaker) -> None:
        """Nobody will write again: it does not last until a time limit ends it."""
        with pytest.raises(wasgi.BodyError, match="after 7 bytes: the guest did not finish it") as raised:
            app(limits=wasgi.Limits(timeout=None)).handle(get("/only/leak-writer")).read()
        assert raised.value.received == 7

    @pytest.mark.parametrize("name", ["connection-terminated", "HTTP-protocol-error", "none"])
    @pytest.mark.parametrize("length", ["", "5", "7"])
    def test_a_stream_that_ends_well_and_trailers_that_do_not(self, app: AppMaker, name: str, length: str) -> None:
        with pytest.raises(wasgi.BodyError) as raised:
            app().handle(get(f"/only/broken-trailers?name={name}&length={length}")).read()
        assert raised.value.received == 5

    @pytest.mark.parametrize(
        ("then", "error"),
        [("trap", wasgi.TrapError), ("exit", wasgi.GuestExitError), ("spin", wasgi.GuestTimeoutError)],
    )
    def test_a_guest_that_dies(self, app: AppMaker, then: str, error: type[Exception]) -> None:
        """While its body is open, or after it."""
        limits = wasgi.Limits(timeout=0.5)
        with pytest.raises(wasgi.BodyError) as raised:
            app(limits=limits).handle(get(f"/only/midway?ms=5&then={then}")).read()
        assert isinstance(raised.value.__cause__, error)
        response = app(limits=limits).handle(get(f"/only/then-later?ms=5&then={then}"))
        assert response.read() == b"done already"
        with pytest.raises(error):
            response.wait()

    def test_a_guest_that_lives(self, app: AppMaker) -> None:
        assert app().handle(get("/only/midway?ms=5")).read() == b"partial"
        response = app().handle(get("/only/then-later?ms=5"))
        assert response.read() == b"done already"
        response.wait()


class TestWrites:
    def test_of_nothing(self, app: AppMaker) -> None:
        """They make no chunk, which would be the end of a body that is framed by hand."""
        chunks = list(app().handle(get("/only/empty-writes")))
        assert b"" not in chunks
        assert b"".join(chunks) == b"firstlast"

    def test_of_nothing_to_an_upstream(self, app: AppMaker) -> None:
        seen: list[bytes] = []

        def upstream(asked: wasgi.Request) -> wasgi.Response:
            seen.extend(asked)
            return wasgi.Response(body=b"up")

        asks = get("/only/empty-writes-to?method=POST&url=http://up/")
        assert app(outgoing=upstream).handle(asks).text == "up"
        assert b"" not in seen
        assert b"".join(seen) == b"firstlast"

    def test_one_of_much(self, app: AppMaker) -> None:
        """What is taken of it is a piece, as of a write of WASI 0.2: a guest cannot have its host keep the whole."""
        lines: list[str] = []
        size = 10_000_000
        response = app(stdout=lines.append).handle(get(f"/only/one-write?bytes={size}"))
        assert sum(map(len, response)) == size
        response.wait()
        takes = ast.literal_eval(lines[0])
        assert sum(takes) == size
        assert max(takes) <= 16 << 10

    def test_that_are_called_off(self, app: AppMaker) -> None:
        """No byte is there twice, and none is lost that was taken."""
        lines: list[str] = []
        response = app(stdout=lines.append).handle(get("/only/cancel-writes?n=26"))
        content = response.read()
        response.wait()
        assert lines == [f"taken: {len(content)}"]
        runs = [(letter, len(list(run))) for letter, run in itertools.groupby(content)]
        assert [letter for letter, _ in runs] == sorted({letter for letter, _ in runs})
        assert max(length for _, length in runs) <= 1000


class TestRequestsThatAreCalledOff:
    async def test_a_coroutine_function_is_cancelled(self, app: AppMaker) -> None:
        cancelled = asyncio.Event()

        async def upstream(asked: wasgi.Request) -> wasgi.Response:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            return wasgi.Response()

        response = await app(outgoing=upstream).handle_async(get("/only/cancel-send?ms=1&url=http://up/"))
        assert await response.aread() == b"called off"
        await asyncio.wait_for(cancelled.wait(), 30)

    def test_one_that_was_answered_before(self, app: AppMaker) -> None:
        made = app(outgoing=lambda asked: wasgi.Response(201))
        assert made.handle(get("/only/cancel-send?ms=60000&url=http://up/")).text == "201"


class TestWaits:
    @pytest.mark.parametrize("target", ["/only/waits-for-itself", "/only/trailers-first?url=http://up/"])
    def test_for_what_cannot_come_last_until_the_time_limit(self, app: AppMaker, target: str) -> None:
        """A future of its own that nobody writes; trailers that nobody takes before the request is sent."""
        with pytest.raises(wasgi.GuestTimeoutError):
            app(limits=wasgi.Limits(timeout=0.1), outgoing=up).handle(get(target))

    @pytest.mark.parametrize("how", ["call", "wait", "yield", "poll"])
    def test_in_which_the_whole_task_stands(self, app: AppMaker, how: str) -> None:
        """A call that is no `async` one, a set of waitables, a thread that yields, a poll of WASI 0.2."""
        assert app().handle(get(f"/only/block?how={how}&ms=5")).text == "stood"
        with pytest.raises(wasgi.GuestTimeoutError):
            app(limits=wasgi.Limits(timeout=0.1)).handle(get(f"/only/block?how={how}&ms=60000"))

    @pytest.mark.parametrize("how", ["call", "wait", "yield", "poll"])
    async def test_that_stand_hold_nobody_else(self, app: AppMaker, how: str) -> None:
        made = app(limits=wasgi.Limits(timeout=None))
        standing = asyncio.ensure_future(made.handle_async(get(f"/only/block?how={how}&ms=60000")))
        while not wasgi.stats().exchanges:
            await asyncio.sleep(0)
        for _ in range(5):
            assert await (await made.handle_async(get("/hello"))).aread() == b"Hello, World!"
        standing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await standing


class TestInstances:
    def test_one_that_takes_no_other_request_for_a_while(self, app: AppMaker) -> None:
        """Others are served meanwhile; and it is used again when it has room."""
        made = app(reuse=wasgi.Reuse())
        full = threading.Thread(target=lambda: made.handle(get("/only/full?ms=300")).wait())
        full.start()
        until(lambda: wasgi.stats().exchanges == 1)
        while full.is_alive():
            assert made.handle(get("/hello")).text == "Hello, World!"
        full.join()
        fresh = app(reuse=wasgi.Reuse())
        first = fresh.handle(get("/only/full?ms=1"))
        assert first.text == "had room again"
        first.wait()  # its instance is kept when its guest has ended
        response = fresh.handle(get("/hello"))
        assert response.text == "Hello, World!"
        assert response.report is not None
        assert response.report.reused == 1
        made.close()
        fresh.close()

    def test_requests_that_meet(self, app: AppMaker) -> None:
        """Alone, each has met itself: an instance counts those that it has had."""
        with app(reuse=wasgi.Reuse()) as made:
            for word in ("one", "other"):
                assert made.handle(get(f"/only/meet?n=1&word={word}")).text == word


class TestLines:
    async def test_halves_of_two_guests_are_not_joined(self, app: AppMaker) -> None:
        lines: list[str] = []
        made = app(stdout=lines.append)

        async def printed(tag: str) -> None:
            response = await made.handle_async(get(f"/only/print?n=20&ms=1&tag={tag}"))
            assert await response.aread() == b"printed"
            await response.finished()

        await asyncio.gather(printed("one"), printed("other"))
        for tag in ("one", "other"):
            own = [line for line in lines if line.startswith(f"{tag} ")]
            assert own == [f"{tag} {n}" for n in range(20)] + [f"{tag} end"]
        assert len(lines) == 42

    def test_what_was_printed_before_a_trap(self, app: AppMaker) -> None:
        """The last line has no end."""
        lines: list[str] = []
        with pytest.raises(wasgi.TrapError):
            app(stdout=lines.append).handle(get("/only/print?n=2&tag=t&then=trap"))
        assert lines == ["t 0", "t 1", "t end"]


class TestOptions:
    def test_none(self, app: AppMaker) -> None:
        assert app().handle(get("/only/options")).text == "[None, None, None]"

    def test_a_callers(self, app: AppMaker) -> None:
        given = wasgi.Timeouts(connect=1, first_byte=2, between_bytes=3)
        assert app().handle(get("/only/options", timeouts=given)).text == "[Some(1000), Some(2000), Some(3000)]"

    def test_another_guests(self, app: AppMaker) -> None:
        asks = "/fetch?connect-ms=10000&first-byte-ms=20000&between-bytes-ms=30000&url=http://up/only/options"
        assert app(outgoing=app()).handle(get(asks)).text == "[Some(10000), Some(20000), Some(30000)]"


@pytest.mark.parametrize(
    "reuse",
    [wasgi.Reuse(), wasgi.Reuse(isolated=True), wasgi.Reuse(concurrent=4)],
    ids=["reused", "isolated", "shared"],
)
class TestFilesThatTheHostGoesOnWith:
    """A guest may give the stream of a file to the host, and return: that ends with the exchange whose it was."""

    def test_into_stdout(self, probe: wasgi.Component, reuse: wasgi.Reuse, tmp_path: Path) -> None:
        (tmp_path / "secrets").write_text("a secret of the first\n" * 200_000)
        told: list[Any] = []
        dirs = {"/data": wasgi.Dir(tmp_path)}
        with wasgi.App(probe, reuse=reuse, dirs=dirs, stdout=told.append) as made:
            first = made.handle(get("/only/leave-file?path=/data/secrets"))
            assert first.read() == b"left"
            assert first.report is not None
            for _ in range(3):
                assert made.handle(get("/sleep?ms=50")).read() == b"slept"
        assert {line.exchange for line in told} <= {first.report.exchange}

    def test_into_itself(self, probe: wasgi.Component, reuse: wasgi.Reuse, tmp_path: Path) -> None:
        """It would never end."""
        file = tmp_path / "file"
        file.write_bytes(bytes(65536))
        dirs = {"/data": wasgi.Dir(tmp_path, write=True)}
        with wasgi.App(probe, reuse=reuse, dirs=dirs) as made:
            assert made.handle(get("/only/leave-file?path=/data/file&to=/data/file")).read() == b"left"
            sizes = []
            for _ in range(3):
                assert made.handle(get("/sleep?ms=50")).read() == b"slept"
                sizes.append(file.stat().st_size)
            # the last piece was on its way to the disk, perhaps
            assert sizes[1:] == sizes[:1] * 2

    def test_one_that_is_read_to_its_end_leaves_its_instance_as_it_was(
        self, probe: wasgi.Component, reuse: wasgi.Reuse, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("content")
        with wasgi.App(probe, reuse=reuse, dirs={"/data": wasgi.Dir(tmp_path)}) as made:
            reused = []
            for _ in range(3):
                response = made.handle(get("/read-file?path=/data/file"))
                assert response.read() == b"content"
                assert response.report is not None
                reused.append(response.report.reused)
                until(lambda: wasgi.stats().exchanges == 0)
            assert reused == [0, 1, 2]
