"""`wasgi.Limits`: each limit stops what it bounds, says so with an error of its own, and leaves the app as it was."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import wasgi
from tests.conftest import AppMaker, bare, bare_text, get, only, post, until
from wasgi.errors import (
    HttpRequestBodySize,
    HttpRequestHeaderSectionSize,
    HttpResponseBodySize,
)


@pytest.mark.parametrize("route", ["/spin", "/sleep?ms=60000"])
def test_time_limit(app: AppMaker, route: str) -> None:
    made = app(limits=wasgi.Limits(timeout=0.1))
    with pytest.raises(wasgi.GuestTimeoutError, match=r"0\.1 s \(`Limits.timeout`\)") as raised:
        made.handle(get(route))
    assert raised.value.limit == 0.1
    assert made.handle(get("/hello")).status == 200


async def test_time_limit_async(app: AppMaker) -> None:
    made = app(limits=wasgi.Limits(timeout=0.1))
    with pytest.raises(wasgi.GuestTimeoutError):
        await made.handle_async(get("/spin"))


def test_memory_limit(app: AppMaker) -> None:
    made = app(limits=wasgi.Limits(memory=16 << 20))
    with pytest.raises(wasgi.MemoryLimitError, match="16777216 bytes") as raised:
        made.handle(get("/alloc?mib=32"))
    assert raised.value.limit == 16 << 20
    assert isinstance(raised.value.__cause__, wasgi.TrapError)
    assert made.handle(get("/try-alloc?mib=32")).text == "refused"
    assert made.handle(get("/alloc?mib=4")).text == "4"


def test_a_guest_that_is_larger_than_its_limit_from_the_start(app: AppMaker) -> None:
    with pytest.raises(wasgi.MemoryLimitError):
        app(limits=wasgi.Limits(memory=65536)).handle(get("/hello"))


def test_overload(app: AppMaker) -> None:
    made = app(limits=wasgi.Limits(concurrency=1))
    with made.handle(get("/endless")), pytest.raises(wasgi.OverloadedError, match="all 1 concurrent exchanges"):
        made.handle(get("/hello"))

    def vacated() -> bool:
        try:
            return made.handle(get("/hello")).status == 200
        except wasgi.OverloadedError:
            return False

    until(vacated)  # the guest was stopped on another thread


def test_limits_say_what_they_are() -> None:
    assert repr(wasgi.Limits(memory=1 << 20, fuel=5, request_body=None)) == (
        "Limits(memory=1048576, memory_per_app=None, table_elements=1000000, instances=256, handles=4096, files=64, "
        "files_per_app=256, timeout=30.0, fuel=5, "
        "fields=65536, request_body=None, response_body=None, outgoing=1000, outgoing_concurrency=64, concurrency=256, "
        "queue=0, queue_timeout=10.0, chunks=8)"
    )
    assert wasgi.Limits(timeout=1) == wasgi.Limits(timeout=1.0)
    assert wasgi.Limits(timeout=1) != wasgi.Limits(timeout=2)
    assert len({wasgi.Limits(), wasgi.Limits(), wasgi.Limits(fuel=1)}) == 2


LIFTED = [
    "memory",
    "memory_per_app",
    "table_elements",
    "instances",
    "handles",
    "files",
    "files_per_app",
    "timeout",
    "fuel",
    "fields",
    "request_body",
    "response_body",
    "outgoing",
    "outgoing_concurrency",
    "concurrency",
    "queue_timeout",
]


@pytest.mark.parametrize("name", LIFTED)
def test_none_lifts_a_limit(app: AppMaker, name: str) -> None:
    limits: dict[str, Any] = {name: None}
    assert getattr(wasgi.Limits(**limits), name) is None
    made = app(limits=wasgi.Limits(**limits), outgoing=lambda request: wasgi.Response(body=b"up"))
    assert made.handle(get("/fetch?url=http://up/")).text == "up"


WRONG: list[tuple[str, Any]] = [
    *((name, -1) for name in [*LIFTED, "queue", "chunks"]),
    *(
        (name, 0)
        for name in (
            "memory",
            "memory_per_app",
            "instances",
            "handles",
            "timeout",
            "fuel",
            "fields",
            "outgoing_concurrency",
        )
    ),
    *((name, 0) for name in ("concurrency", "queue_timeout", "chunks")),
    ("timeout", float("nan")),
    ("timeout", float("inf")),
    ("chunks", 1025),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_values_are_refused(name: str, value: Any) -> None:
    limits: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        wasgi.Limits(**limits)


def test_a_queue_that_nobody_would_wait_in_is_refused() -> None:
    with pytest.raises(ValueError, match="`queue` needs `concurrency`"):
        wasgi.Limits(concurrency=None, queue=1)


def test_wrong_types_are_refused() -> None:
    with pytest.raises(TypeError):
        wasgi.Limits(memory="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        wasgi.Limits(queue=None)  # type: ignore[arg-type]


def call(component: wasgi.Component, **limits: Any) -> wasgi.Response:
    return wasgi.App(component, limits=wasgi.Limits(**limits)).handle(get("/"))


def own_resources(number: int) -> wasgi.Component:
    """A component that makes so many resources of its own."""
    text = bare_text(
        f"""
          (local $left i32)
          (local.set $left (i32.const {number}))
          (loop $again
            (drop (call $new (i32.const 1)))
            (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))""",
        '(import "own" "new" (func $new (param i32) (result i32)))',
        around="(type $own (resource (rep i32))) (core func $new (canon resource.new $own))",
        given='(with "own" (instance (export "new" (func $new))))',
    )
    return wasgi.Component(text.encode())


class TestStore:
    """What a guest meets inside its store."""

    def test_all_memories_of_an_instance_count_together(self) -> None:
        two = bare("(drop (memory.grow $one (i32.const 8)))", "(memory $one 8) (memory $two 8)")
        with pytest.raises(wasgi.NoResponseError):
            call(two, memory=24 << 16)
        with pytest.raises(wasgi.MemoryLimitError) as raised:
            call(bare("unreachable", "(memory $one 8) (memory $two 8)"), memory=15 << 16)
        assert raised.value.limit == 15 << 16

    def test_tables(self) -> None:
        grows = bare(
            "(if (i32.eq (table.grow (ref.null func) (i32.const 1000)) (i32.const -1)) (then unreachable))",
            "(table 10 funcref)",
        )
        with pytest.raises(wasgi.NoResponseError):  # it has grown
            call(grows, table_elements=1010)
        with pytest.raises(wasgi.NoResponseError):
            call(grows, table_elements=None)
        with pytest.raises(wasgi.TableLimitError, match=r"1009 table elements \(`Limits.table_elements`\)") as raised:
            call(grows, table_elements=1009)
        assert raised.value.limit == 1009
        assert isinstance(raised.value.__cause__, wasgi.TrapError)

    def test_a_table_that_is_larger_from_the_start(self) -> None:
        with pytest.raises(wasgi.TableLimitError):
            call(bare("", "(table 1000 funcref)"), table_elements=999)

    def test_instances(self) -> None:
        three = bare("", instances=3)
        with pytest.raises(wasgi.NoResponseError):
            call(three, instances=3)
        with pytest.raises(wasgi.InstanceLimitError, match=r"2 core instances \(`Limits.instances`\)") as raised:
            call(three, instances=2)
        assert raised.value.limit == 2

    def test_handles(self, app: AppMaker) -> None:
        assert app().handle(get("/handles?n=4000")).text == "kept them"
        with pytest.raises(wasgi.HandleLimitError, match=r"4096 handles \(`Limits.handles`\)") as raised:
            app().handle(get("/handles?n=5000"))
        assert raised.value.limit == 4096
        assert app(limits=wasgi.Limits(handles=None)).handle(get("/handles?n=5000")).text == "kept them"

    def test_handles_that_a_request_takes_itself(self, app: AppMaker) -> None:
        """Before its guest is called."""
        with pytest.raises(wasgi.HandleLimitError, match=r"limit of 1 handles \(`Limits.handles`\)"):
            app(limits=wasgi.Limits(handles=1)).handle(get("/hello"))

    @pytest.mark.parametrize("handles", [200_000, None])
    def test_no_limit_of_handles_but_the_one_that_was_asked_for(self, app: AppMaker, handles: int | None) -> None:
        """wasmtime has one of 100,000."""
        made = app(limits=wasgi.Limits(handles=handles))
        assert made.handle(get("/handles?n=150000")).text == "kept them"
        if handles is not None:
            with pytest.raises(wasgi.HandleLimitError, match=r"200000 handles \(`Limits.handles`\)"):
                made.handle(get("/handles?n=250000"))

    def test_without_a_limit_of_handles_that_of_memory_holds(self, app: AppMaker) -> None:
        with pytest.raises(wasgi.MemoryLimitError):
            app(limits=wasgi.Limits(handles=None, memory=64 << 20)).handle(get("/handles?n=2000000"))

    def test_a_guests_own_resources_are_handles(self) -> None:
        with pytest.raises(wasgi.HandleLimitError, match="4096 handles"):
            call(own_resources(5000))
        with pytest.raises(wasgi.NoResponseError):
            call(own_resources(4000))
        with pytest.raises(wasgi.NoResponseError):
            call(own_resources(150_000), handles=None)

    def test_fuel_is_the_same_in_every_run(self, app: AppMaker) -> None:
        def used(**options: Any) -> int:
            response = app(limits=wasgi.Limits(fuel=10**12), **options).handle(get("/work?n=5"))
            response.read()
            report = response.wait()
            assert report is not None
            assert report.fuel is not None
            return report.fuel

        first = used()
        assert first > 5_000_000
        assert used() == first
        with pytest.raises(wasgi.FuelExhaustedError, match=r"5000000 units of fuel \(`Limits.fuel`\)") as raised:
            app(limits=wasgi.Limits(fuel=5_000_000)).handle(get("/work?n=5"))
        assert raised.value.limit == 5_000_000
        assert isinstance(raised.value.__cause__, wasgi.TrapError)
        assert app(limits=wasgi.Limits(fuel=first)).handle(get("/work?n=5")).status == 200

    async def test_fuel_ends_a_guest_that_spins(self, app: AppMaker) -> None:
        with pytest.raises(wasgi.FuelExhaustedError):
            await app(limits=wasgi.Limits(fuel=100_000_000, timeout=None)).handle_async(get("/spin"))

    def test_without_a_limit_of_fuel_none_is_counted(self, app: AppMaker) -> None:
        report = app().handle(get("/hello")).wait()
        assert report is not None
        assert report.fuel is None

    def test_memory_comes_back(self, app: AppMaker) -> None:
        def left() -> tuple[int, ...]:
            stats = wasgi.stats()
            return stats.exchanges, stats.slots, stats.memories, stats.stacks, stats.memory

        made = app()
        for route in ("/alloc?mib=100", "/trap", "/overflow?n=10000000", "/handles?n=5000", "/out-of-bounds"):
            with contextlib.suppress(wasgi.GuestError):
                made.handle(get(route)).read()
        with made.handle(get("/endless")):
            assert all(left())
        until(lambda: not any(left()))


def paused(seconds: float, chunks: int = 3) -> Iterator[bytes]:
    for _ in range(chunks):
        time.sleep(seconds)
        yield b"x" * 10


class TestTime:
    """A guest's own time: that of whoever sends it a body or reads one is not."""

    def test_a_slow_upload_is_not_the_guests_time(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(timeout=0.5))
        assert made.handle(post("/collect", paused(0.3))).text.startswith("30 bytes")

    async def test_a_slow_upload_is_not_the_guests_time_async(self, app: AppMaker) -> None:
        async def slowly() -> AsyncIterator[bytes]:
            for _ in range(3):
                await asyncio.sleep(0.3)
                yield b"x" * 10

        made = app(limits=wasgi.Limits(timeout=0.5))
        response = await made.handle_async(post("/collect", slowly()))
        assert (await response.aread()).startswith(b"30 bytes")

    def test_what_the_guest_does_between_two_chunks_is_its_own_time(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(timeout=0.5))
        with pytest.raises(wasgi.GuestTimeoutError):
            made.handle(post("/read-slowly?ms=200", iter([b"x"] * 10)))
        assert made.handle(post("/read-slowly?ms=1", iter([b"x"] * 10))).text == "10"

    def test_a_slow_reader_is_not_the_guests_time(self, app: AppMaker) -> None:
        response = app(limits=wasgi.Limits(timeout=1.0)).handle(get("/stream?chunks=100&bytes=4096"))
        chunks = iter(response)
        received = len(next(chunks))
        time.sleep(1.5)
        assert received + sum(map(len, chunks)) == 409_600

    async def test_a_slow_reader_is_not_the_guests_time_async(self, app: AppMaker) -> None:
        response = await app(limits=wasgi.Limits(timeout=1.0)).handle_async(get("/stream?chunks=100&bytes=4096"))
        await asyncio.sleep(1.5)
        assert len(await response.aread()) == 409_600

    def test_a_reader_that_waits_for_a_guest_that_waits_gets_the_time_limit(self, app: AppMaker) -> None:
        response = app(limits=wasgi.Limits(timeout=0.3)).handle(get("/slow-body?ms=60000"))
        with pytest.raises(wasgi.BodyError) as raised:
            response.read()
        assert isinstance(raised.value.__cause__, wasgi.GuestTimeoutError)
        assert raised.value.received == 5

    def test_an_answer_that_nobody_reads_does_not_make_a_guests_waiting_anothers(self, app: AppMaker) -> None:
        """What it wrote fits in between, so that the guest waits for itself and not for the reader."""
        response = app(limits=wasgi.Limits(timeout=0.3)).handle(get("/then?then=sleep&ms=60000"))
        until(lambda: response.report is not None and not response.report.running)
        assert response.read() == b"done already"
        with pytest.raises(wasgi.GuestTimeoutError):
            response.wait()

    @pytest.mark.parametrize("then", ["sleep", "spin"])
    def test_a_guest_cannot_hide_behind_an_upload_that_has_come(self, app: AppMaker, then: str) -> None:
        """It looked for a chunk that was not there yet, never comes back for it, and takes its time."""
        made = app(limits=wasgi.Limits(timeout=0.3))
        with pytest.raises(wasgi.GuestTimeoutError):
            made.handle(post(f"/peek?then={then}&ms=60000", iter([b"x"])))

    def test_a_guest_that_spins_cannot_hide_behind_an_upload_that_does_not_come(self, app: AppMaker) -> None:
        never = threading.Event()

        def body() -> Iterator[bytes]:
            never.wait()
            yield b""

        try:
            with pytest.raises(wasgi.GuestTimeoutError):
                app(limits=wasgi.Limits(timeout=0.3)).handle(post("/peek?then=spin", body()))
        finally:
            never.set()

    def test_many_guests_that_spin_all_end(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(timeout=0.3))
        ended: list[type] = []

        def work() -> None:
            try:
                made.handle(get("/spin"))
            except wasgi.WasgiError as error:
                ended.append(type(error))

        threads = [threading.Thread(target=work) for _ in range(20)]
        for thread in threads:
            thread.start()
        assert made.handle(get("/hello")).status == 200
        for thread in threads:
            thread.join()
        assert ended == [wasgi.GuestTimeoutError] * 20


LARGE = {"x-large": "x" * 70_000}


class TestMessages:
    """What passes between a guest and others."""

    def test_the_fields_of_a_request(self, app: AppMaker) -> None:
        with pytest.raises(HttpRequestHeaderSectionSize) as raised:
            app().handle(get("/hello", headers=LARGE))
        assert raised.value.size is not None
        assert raised.value.size > 70_000
        assert raised.value.__notes__ == ["the limit is 65536 bytes (`Limits.fields`)"]
        assert app(limits=wasgi.Limits(fields=80_000)).handle(get("/hello", headers=LARGE)).status == 200

    def test_the_trailers_of_a_request(self, app: AppMaker) -> None:
        with pytest.raises(wasgi.errors.HttpRequestTrailerSectionSize) as raised:
            app().handle(post("/collect", b"x", trailers=LARGE))
        assert raised.value.__notes__ == ["the limit is 65536 bytes (`Limits.fields`)"]

    def test_the_fields_that_a_guest_makes(self, app: AppMaker, generation: str) -> None:
        assert app().handle(get("/fields?n=500")).text == "500 enough"
        if generation == "0.3":
            assert app().handle(get("/fields?n=1000000")).text.endswith("HeaderError::SizeExceeded")
        else:
            self.fields_trap(app)
        assert app(limits=wasgi.Limits(fields=1 << 20)).handle(get("/fields?n=2000")).text == "2000 enough"

    @staticmethod
    def fields_trap(app: AppMaker) -> None:
        """0.2 has no word for it."""
        with pytest.raises(wasgi.FieldsLimitError, match=r"65536 bytes of fields \(`Limits.fields`\)") as raised:
            app().handle(get("/fields?n=1000000"))
        assert raised.value.limit == 65536

    def test_the_fields_of_an_upstreams_answer(self, app: AppMaker) -> None:
        made = app(outgoing=lambda request: wasgi.Response(headers=LARGE))
        assert "HttpResponseHeaderSectionSize" in made.handle(get("/fetch?url=http://up/")).text

    def test_the_trailers_of_an_upstreams_answer(self, app: AppMaker) -> None:
        made = app(outgoing=lambda request: wasgi.Response(body=b"body", trailers=LARGE))
        response = made.handle(get("/fetch?url=http://up/"))
        assert "HttpResponseTrailerSectionSize" in response.text

    @pytest.mark.parametrize("route", ["/hello", "/collect"])
    def test_a_request_that_says_it_is_too_long(self, app: AppMaker, route: str) -> None:
        made = app(limits=wasgi.Limits(request_body=10))
        assert made.handle(post(route, b"x" * 10)).status == 200
        with pytest.raises(HttpRequestBodySize) as raised:
            made.handle(post(route, b"x" * 11))
        assert raised.value == HttpRequestBodySize(11)
        assert raised.value.__notes__ == ["the limit is 10 bytes (`Limits.request_body`)"]

    def test_a_request_that_becomes_too_long(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(request_body=10))
        assert made.handle(post("/collect", iter([b"x" * 5, b"x" * 5]))).text.startswith("10 bytes")
        with pytest.raises(HttpRequestBodySize) as raised:
            made.handle(post("/collect", iter([b"x" * 5, b"x" * 6])))
        assert raised.value == HttpRequestBodySize(11)
        answered = threading.Event()

        def body() -> Iterator[bytes]:
            yield b"x" * 5
            answered.wait()
            yield b"x" * 6

        response = made.handle(post("/echo", body()))
        answered.set()
        with pytest.raises(wasgi.BodyError) as broken:
            response.read()
        assert broken.value.__cause__ == HttpRequestBodySize(11)

    def test_a_request_that_nobody_reads_may_be_as_long_as_it_is(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(request_body=10))
        assert made.handle(post("/ignore-body", iter([b"x" * 100]))).text == "not read"

    def test_an_answer_that_says_it_is_too_long(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(response_body=10))
        assert made.handle(get("/length?declared=10&written=10")).read() == b"x" * 10
        with pytest.raises(HttpResponseBodySize) as raised:
            made.handle(get("/length?declared=11&written=11"))
        assert raised.value == HttpResponseBodySize(11)
        assert raised.value.__notes__ == ["the limit is 10 bytes (`Limits.response_body`)"]

    def test_an_answer_that_becomes_too_long(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(response_body=100_000))
        assert len(made.handle(get("/stream?chunks=10&bytes=10000")).read()) == 100_000
        with pytest.raises(wasgi.BodyError) as raised:
            made.handle(get("/stream?chunks=11&bytes=10000")).read()
        assert isinstance(raised.value.__cause__, HttpResponseBodySize)
        assert raised.value.received <= 100_000
        with pytest.raises(wasgi.BodyError):
            made.handle(get("/endless")).read()

    def test_a_request_shorter_or_longer_than_its_length(self, app: AppMaker) -> None:
        def collected(body: Any, length: int) -> str:
            return app().handle(post("/collect", body, headers={"content-length": str(length)})).text

        assert collected(iter([b"12345"]), 5) == "5 bytes: 12345"
        assert collected(iter([b"12345"]), 10) == "Some(ErrorCode::HttpRequestBodySize(Some(5)))"
        assert collected(iter([b"12345", b"6"]), 5) == "Some(ErrorCode::HttpRequestBodySize(Some(6)))"
        assert collected(b"12345", 10) == "Some(ErrorCode::HttpRequestBodySize(Some(5)))"

    def test_an_upstreams_answer_shorter_than_its_length(self, app: AppMaker) -> None:
        def upstream(request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response(headers={"content-length": "10"}, body=iter([b"12345"]))

        text = app(outgoing=upstream).handle(get("/fetch?url=http://up/&method=GET")).text
        assert text == "12345[broken: Some(ErrorCode::HttpResponseBodySize(Some(5)))]"

    def test_an_upstreams_answer_to_head_has_a_length_and_no_body(self, app: AppMaker) -> None:
        def upstream(request: wasgi.Request) -> wasgi.Response:
            assert request.method == "HEAD"
            return wasgi.Response(headers={"content-length": "10"})

        made = app(outgoing=upstream)
        response = made.handle(wasgi.Request("HEAD", "http://guest.local/fetch?url=http://up/&method=HEAD"))
        assert (response.status, response.read()) == (200, b"")

    def test_the_guests_answer_to_head_has_a_length_and_no_body(self, app: AppMaker) -> None:
        response = app().handle(wasgi.Request("HEAD", "http://guest.local/head"))
        assert response.headers["content-length"] == "1234"
        assert response.read() == b""
        with pytest.raises(wasgi.BodyError) as raised:
            app().handle(get("/head")).read()
        assert raised.value.__cause__ == HttpResponseBodySize(0)


class TestOutgoing:
    def test_how_many(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        made = app(outgoing=lambda request: wasgi.Response(), limits=wasgi.Limits(outgoing=2))
        with caplog.at_level(logging.WARNING, "wasgi.outgoing"):
            text = made.handle(get("/fetch-in-turn?n=4&url=http://up/")).text
        assert text.split() == ["200", "200", *["ErrorCode::HttpRequestDenied"] * 2]
        assert [record.message for record in caplog.records] == [
            "an outgoing request was denied: this exchange has sent 2 already (`Limits.outgoing`)"
        ] * 2
        assert made.handle(get("/fetch-in-turn?n=2&url=http://up/")).text == "200 200"

    def test_none_at_all(self, app: AppMaker) -> None:
        made = app(outgoing=lambda request: wasgi.Response(), limits=wasgi.Limits(outgoing=0))
        assert made.handle(get("/fetch-in-turn?n=1&url=http://up/")).text == "ErrorCode::HttpRequestDenied"

    async def test_how_many_at_once(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        async def upstream(request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response(body=b"up")

        made = app(outgoing=upstream, limits=wasgi.Limits(outgoing_concurrency=2))
        with caplog.at_level(logging.WARNING, "wasgi.outgoing"):
            response = await made.handle_async(get("/fetch-many?url=http://up/&n=4"))
            text = (await response.aread()).decode()
        assert text == "up,up,ErrorCode::ConnectionLimitReached,ErrorCode::ConnectionLimitReached"
        assert "this exchange has 2 under way (`Limits.outgoing_concurrency`)" in caplog.messages[0]
        response = await made.handle_async(get("/fetch-in-turn?n=6&url=http://up/"))
        assert await response.aread() == b"200 200 200 200 200 200"

    def test_a_guest_that_insists_does_not_fill_the_log(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        made = app(outgoing=lambda request: wasgi.Response(), limits=wasgi.Limits(outgoing=0))
        with caplog.at_level(logging.WARNING, "wasgi.outgoing"):
            made.handle(get("/fetch-in-turn?n=100&url=http://up/")).read()
        assert len(caplog.messages) == 10
        assert caplog.messages[-1].endswith("further messages suppressed")


class TestQueue:
    LIMITS = wasgi.Limits(concurrency=1, queue=1)

    def test_whoever_waits_gets_the_next_place(self, app: AppMaker) -> None:
        made = app(limits=self.LIMITS)
        first = made.handle(get("/endless"))
        answers: list[str] = []
        second = threading.Thread(target=lambda: answers.append(made.handle(get("/hello")).text))
        second.start()
        until(lambda: wasgi.stats().queued == 1)
        with pytest.raises(wasgi.OverloadedError, match=r"the 1 places in the queue \(`Limits.queue`\)"):
            made.handle(get("/hello"))
        first.close()
        second.join()
        assert answers == ["Hello, World!"]
        assert wasgi.stats().queued == 0

    async def test_whoever_waits_gets_the_next_place_async(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(concurrency=1, queue=100))
        first = await made.handle_async(get("/endless"))
        order: list[int] = []

        async def work(number: int) -> None:
            assert await (await made.handle_async(get("/hello"))).aread() == b"Hello, World!"
            order.append(number)

        tasks = [asyncio.create_task(work(number)) for number in range(10)]
        while wasgi.stats().queued < 10:
            await asyncio.sleep(0)
        await first.aclose()
        await asyncio.gather(*tasks)
        assert order == list(range(10)), "first come, first served"

    async def test_the_queue_has_a_time_limit(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(concurrency=1, queue=1, queue_timeout=0.05))
        async with await made.handle_async(get("/endless")):
            with pytest.raises(
                wasgi.OverloadedError, match=r"timed out after 0.05 s in the queue \(`Limits.queue_timeout`\)"
            ):
                await made.handle_async(get("/hello"))
            with pytest.raises(wasgi.OverloadedError):
                await asyncio.to_thread(made.handle, get("/hello"))
        assert wasgi.stats().queued == 0

    async def test_whoever_gives_up_leaves_the_queue(self, app: AppMaker) -> None:
        made = app(limits=self.LIMITS)
        async with await made.handle_async(get("/endless")):
            task = asyncio.create_task(made.handle_async(get("/hello")))
            while wasgi.stats().queued == 0:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert wasgi.stats().queued == 0

    async def test_an_overloaded_app_does_not_consume_the_request(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(concurrency=1))
        request = post("/collect", b"body")
        async with await made.handle_async(get("/endless")):
            with pytest.raises(wasgi.OverloadedError, match="there is no queue"):
                await made.handle_async(request)
        while wasgi.stats().exchanges:
            await asyncio.sleep(0)
        assert await (await made.handle_async(request)).aread() == b"4 bytes: body"


@pytest.mark.parametrize("chunks", [1, 2, 8, 40])
def test_no_more_chunks_lie_in_between_than_allowed(app: AppMaker, chunks: int) -> None:
    asked = received = 0

    def body() -> Iterator[bytes]:
        nonlocal asked
        for _ in range(200):
            asked += 1
            yield b"x" * 4096

    response = app(limits=wasgi.Limits(chunks=chunks)).handle(post("/echo", body()))
    until(lambda: asked > chunks)  # the guest runs ahead of its reader, but so far and no further
    for chunk in response:
        received += len(chunk)
        # besides: one that the guest holds, one that it asked for, one that was looked at, one that is being put in
        assert asked <= received // 4096 + chunks + 4
    assert received == 200 * 4096


class TestHostsMemory:
    """What a guest can have its host keep, outside of its own memory."""

    @only("0.2", "a stream takes what it has room for")
    def test_a_guest_that_does_not_ask_how_much_it_may_print(self, app: AppMaker) -> None:
        lines: list[str] = []

        def slow(line: str) -> None:
            if not lines:
                until(lambda: wasgi.stats().exchanges == 0)  # takes no second line before the guest has ended
            lines.append(line)

        with pytest.raises(wasgi.TrapError, match="exceeded what `check-write` permits"):
            app(stdout=slow).handle(get("/flood?n=4000&times=1000"))
        # those that wait to be fetched, and as many that have been: each no more than 256 KiB and what one write brings
        assert len(lines) <= 2 * 3 * 4000
        with pytest.raises(wasgi.TrapError, match="exceeded what `check-write` permits"):
            app(stdout=lines.append).handle(get("/flood?n=5000&times=1"))
        assert app(stdout=lines.append).handle(get("/flood?n=1000&times=1")).text == "written"

    def test_strings_of_a_request(self, app: AppMaker) -> None:
        assert app().handle(get("/long-method?n=4096&times=3")).text == "3"
        assert app().handle(get("/long-method?n=4097&times=3")).text == "0"

    def test_memory_that_was_not_got_is_not_counted(self) -> None:
        """The memory's own maximum is 2 pages; the guest asks for more than its limit in vain, and then gets one."""
        grow = "(drop (memory.grow (i32.const 500)))" * 9
        then = "(if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))"
        with pytest.raises(wasgi.NoResponseError):
            call(bare(grow + then, "(memory 1 2)"), memory=1000 << 16)

    def test_a_component_that_does_not_fit_the_pool_runs_on_fuel_too(self) -> None:
        tables = bare("", "(table 1 funcref)" * 9)
        for fuel in (None, 1000):
            with pytest.raises(wasgi.NoResponseError):
                call(tables, fuel=fuel)


def test_a_growth_that_no_index_could_name_takes_back_no_other() -> None:
    """It fails before the limiter is asked, which is told of the failure all the same."""
    body = """
        (drop (table.grow $one (ref.null func) (i64.const 600)))
        (drop (table.grow $one (ref.null func) (i64.const -1)))
        (drop (table.grow $two (ref.null func) (i64.const 600)))
        (if (i64.gt_u (i64.add (table.size $one) (table.size $two)) (i64.const 1024)) (then unreachable))"""
    component = bare(body, "(table $one i64 1 funcref) (table $two i64 1 funcref)")
    with pytest.raises(wasgi.NoResponseError):
        wasgi.App(component, limits=wasgi.Limits(table_elements=1024)).handle(get("/"))
