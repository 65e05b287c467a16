"""`App(reuse=wasgi.Reuse(...))`: instances that have one exchange after another, and what of one meets the next."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import wasgi
from tests.conftest import PROBE_P3, ROOT, AppMaker, get, only, post, until
from tests.processes import run
from wasgi.testing import Client, Simulation, Upstream


@pytest.fixture(autouse=True)
def nothing_waits() -> Iterator[None]:
    """Each test starts and ends with no instance that waits."""
    until(lambda: wasgi.stats().idle == 0)
    yield
    gc.collect()
    until(lambda: wasgi.stats().idle == 0 and wasgi.stats().memories == 0)


def report(app: wasgi.App, target: str = "/hello") -> wasgi.Report:
    report = Client(app).get(target).report
    assert report is not None
    return report


def test_an_instance_has_as_many_exchanges_as_it_may(app: AppMaker) -> None:
    with app(reuse=wasgi.Reuse(requests=3)) as made:
        assert [report(made).reused for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_without_it_instances_are_fresh(app: AppMaker) -> None:
    made = app()
    assert made.reuse is None
    assert [Client(made).get(f"/remember?word={word}").text for word in "abc"] == ["nothing"] * 3
    assert [report(made).reused for _ in range(3)] == [0, 0, 0]


def test_what_a_guest_keeps_meets_the_next(app: AppMaker) -> None:
    with app(reuse=wasgi.Reuse()) as made:
        assert [Client(made).get(f"/remember?word={word}").text for word in "abc"] == ["nothing", "a", "b"]


async def test_on_an_event_loop(app: AppMaker) -> None:
    async with app(reuse=wasgi.Reuse()) as made:
        for reused in range(3):
            response = await made.handle_async(get("/hello"))
            assert await response.aread() == b"Hello, World!"
            ended = await response.finished()
            assert ended is not None
            assert ended.reused == reused


def test_it_waits_no_longer_than_it_may(app: AppMaker) -> None:
    made = app(reuse=wasgi.Reuse(idle=0.05))
    report(made)
    assert wasgi.stats().idle == 1
    until(lambda: wasgi.stats().idle == 0 and wasgi.stats().memories == 0)
    until(lambda: wasgi.stats().tasks == 0)
    assert report(made).reused == 0, "and there is a new one"


def test_it_goes_with_its_app(app: AppMaker) -> None:
    made = app(reuse=wasgi.Reuse(idle=None))
    report(made)
    assert wasgi.stats().idle == 1
    made.close()
    assert (wasgi.stats().idle, wasgi.stats().memories) == (0, 0)
    until(lambda: wasgi.stats().tasks == 0)  # those of earlier tests
    other = app(reuse=wasgi.Reuse(idle=3600))
    assert wasgi.stats().tasks == 0
    report(other)
    until(lambda: wasgi.stats().tasks == 1)  # what ends it some time
    del other
    gc.collect()
    until(lambda: (wasgi.stats().idle, wasgi.stats().memories) == (0, 0))
    until(lambda: wasgi.stats().tasks == 0)


def test_one_that_runs_when_its_app_closes_is_not_kept(app: AppMaker) -> None:
    made = app(reuse=wasgi.Reuse(idle=None))
    response = made.handle(get("/slow-body?ms=100"))
    closing = threading.Thread(target=made.close)
    closing.start()
    assert response.read() == b"firstlast"
    closing.join()
    assert wasgi.stats().idle == 0


def test_each_at_once_has_its_own(app: AppMaker) -> None:
    threads = 4
    meeting = threading.Barrier(threads)

    def upstream(request: wasgi.Request) -> wasgi.Response:
        meeting.wait(30)
        return wasgi.Response(body=b"all are here")

    with app(reuse=wasgi.Reuse(), outgoing=upstream) as made, ThreadPoolExecutor(threads) as pool:
        for reused in range(3):
            reports = list(pool.map(lambda _: report(made, "/fetch?url=https://a/"), range(threads)))
            assert [each.reused for each in reports] == [reused] * threads
            assert wasgi.stats().idle == threads


def test_the_one_that_has_waited_least_is_next(app: AppMaker) -> None:
    with app(reuse=wasgi.Reuse()) as made:
        with made.handle(get("/slow-body?ms=30")) as one, made.handle(get("/slow-body?ms=30")) as two:
            for response in (one, two):
                response.read()
                response.wait()
        assert wasgi.stats().idle == 2
        assert [report(made).reused for _ in range(3)] == [1, 2, 3]


def test_a_guest_that_works_on_is_not_free_yet(app: AppMaker) -> None:
    release = threading.Event()

    def upstream(request: wasgi.Request) -> wasgi.Response:
        release.wait(30)
        return wasgi.Response()

    with app(reuse=wasgi.Reuse(), outgoing=upstream) as made:
        response = made.handle(get("/work-after?url=https://a/"))
        assert response.read() == b"done already"
        assert wasgi.stats().idle == 0
        assert report(made).reused == 0
        release.set()
        response.wait()
        assert wasgi.stats().idle == 2


@pytest.mark.parametrize(
    ("target", "limits"),
    [
        ("/trap", {}),
        ("/exit?code=0", {}),
        ("/silent", {}),
        ("/unfinished", {}),
        ("/sleep?ms=60000", {"timeout": 0.02}),
        ("/spin", {"timeout": 0.02}),
        ("/handles?n=100", {"handles": 128}),
        ("/alloc?mib=12", {"memory": 16 << 20}),
        ("/keep?what=out", {}),
        pytest.param("/keep?what=outgoing-response", {}, marks=only("0.2", "a response without its body is whole")),
    ],
)
def test_which_are_not_kept(app: AppMaker, target: str, limits: dict[str, float]) -> None:
    with app(reuse=wasgi.Reuse(), limits=wasgi.Limits(**limits)) as made:  # type: ignore[arg-type]
        assert report(made).reused == 0
        assert wasgi.stats().idle == 1
        try:
            with made.handle(get(target)) as response:
                response.read()
                response.wait()
        except wasgi.WasgiError:
            pass
        until(lambda: made.exchanges == 0)
        assert wasgi.stats().idle == 0
        assert report(made).reused == 0


def test_one_whose_caller_has_gone_is_not_kept(app: AppMaker) -> None:
    with app(reuse=wasgi.Reuse()) as made:
        made.handle(get("/endless")).close()
        until(lambda: made.exchanges == 0)
        assert wasgi.stats().idle == 0


KEPT = ["request", "body", "trailers", "response", "response-body"]
"""Handles that a guest may keep and have another exchange."""
LIVE = ["stream", "response-stream", "future"]
"""Those behind which something goes on: its instance goes with it."""


OF_STREAMS = only("0.2", "a body is its stream")


@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=OF_STREAMS if what.endswith("body") else ()) for what in [*KEPT, *LIVE]],
)
async def test_handles_that_a_guest_keeps_lead_nowhere(app: AppMaker, what: str) -> None:
    """Neither the bodies nor the requests of an exchange outlive it, whatever the guest has kept of it."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        if what == "future":
            await asyncio.sleep(3600)
        return wasgi.Response(body=endless())

    before = wasgi.stats()
    async with app(reuse=wasgi.Reuse(), outgoing=upstream) as made:
        response = await made.handle_async(post(f"/keep?what={what}&url=https://a/", endless()))
        assert await response.aread() == b"kept it"
        await response.finished()
        async with asyncio.timeout(30):
            # a test whose loop has closed may have left some of them for good
            while (stats := wasgi.stats()).outgoing or stats.calls + stats.feeds > before.calls + before.feeds:
                await asyncio.sleep(0.001)  # what makes the bodies runs on this loop
        assert wasgi.stats().idle == (what in KEPT)
        after = await made.handle_async(get("/hello"))
        assert await after.aread() == b"Hello, World!"


def test_each_exchange_has_limits_of_its_own(app: AppMaker) -> None:
    upstream = Upstream()
    upstream.any()
    limits = wasgi.Limits(fuel=2_000_000, outgoing=1, timeout=5)
    with app(reuse=wasgi.Reuse(), limits=limits, outgoing=upstream) as made:
        reports = [report(made, "/fetch?url=https://a/") for _ in range(20)]
    assert [each.reused for each in reports] == list(range(20))
    assert [each.outgoing for each in reports] == [1] * 20
    used = [each.fuel or 0 for each in reports]
    assert all(0 < one < 1_000_000 for one in used)
    assert max(used[2:]) < 2 * min(used[2:]), "each is charged what it has used itself"


def test_the_memory_that_it_has_already_counts(app: AppMaker) -> None:
    with app(reuse=wasgi.Reuse()) as made:
        reports = [report(made), report(made, "/alloc?mib=8"), report(made)]
    assert reports[0].memory < 8 << 20 < reports[1].memory == reports[2].memory


def test_lines_are_those_of_their_exchange(app: AppMaker) -> None:
    lines: list[tuple[str, int]] = []

    def note(line: str) -> None:
        lines.append((line, line.exchange))  # type: ignore[attr-defined]

    with app(reuse=wasgi.Reuse(), stdout=note, stderr=note) as made:
        one = report(made, "/stdio?n=1&tag=one")
        two = report(made, "/stdio?n=1&tag=two")
    assert two.reused == 1
    for tag, each in (("one", one), ("two", two)):
        wanted = [(f"{tag} out 0", each.exchange), (f"{tag} err 0", each.exchange)]
        assert sorted(line for line in lines if line[0].startswith(tag)) == sorted(wanted)
    assert [line for line in lines if line[0].startswith("no newline")] == [
        ("no newline at the end", one.exchange),
        ("no newline at the end", two.exchange),
    ]


def test_the_world_is_each_exchanges(app: AppMaker) -> None:
    """But for the monotonic clock, which does not go back."""
    with app(reuse=wasgi.Reuse(), simulation=Simulation(seed=7, now=5)) as made:
        looks = [[line.split() for line in Client(made).get("/world?ms=10").text.splitlines()] for _ in range(2)]
    monotonic = [[int(line[1]) for line in look[:2]] for look in looks]
    assert monotonic == [[0, 10_000_000], [10_000_000, 20_000_000]]
    for look in looks:
        del look[0][1], look[1][1]
    assert looks[0] == looks[1]


class Meeting:
    """Answers when so many have asked, so that all of them are there at once."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.complete = asyncio.Event()

    async def __call__(self, request: wasgi.Request) -> wasgi.Response:
        self.left -= 1
        if self.left == 0:
            self.complete.set()
        await self.complete.wait()
        return wasgi.Response()


async def all_at_once(app: AppMaker, size: int, **options: Any) -> wasgi.App:
    """An app that has had so many exchanges at once."""
    made = app(limits=wasgi.Limits(concurrency=None, timeout=60), outgoing=Meeting(size), **options)
    tasks = [asyncio.ensure_future(made.handle_async(get("/fetch?url=https://a/"))) for _ in range(size)]
    for response in await asyncio.gather(*tasks):
        await response.aread()
        await response.finished()
    return made


async def test_instances_that_wait_leave_room(app: AppMaker) -> None:
    """Half of the pool, 512 of 1024, is for those that run."""
    async with await all_at_once(app, 600, reuse=wasgi.Reuse(idle=None)):
        assert wasgi.stats().idle == 512
        until(lambda: wasgi.stats().memories == 512)  # those that are not kept are given back by other threads


async def test_the_oldest_makes_room(app: AppMaker) -> None:
    """For another app's that waits, and for those that run."""
    async with await all_at_once(app, 520, reuse=wasgi.Reuse(idle=None)):
        assert wasgi.stats().idle == 512
        with app(reuse=wasgi.Reuse()) as other:
            assert [report(other).reused for _ in range(3)] == [0, 1, 2]
            assert wasgi.stats().idle == 512
        await all_at_once(app, 800)
        assert 0 < wasgi.stats().idle < 512


def test_a_forked_child_has_instances_of_its_own(probe_path: Path) -> None:
    """Its parent's are not in its pool."""
    done = run(FORKS, str(probe_path))
    assert done.stdout.split() == ["both"], done.stderr


FORKS = """
import os, sys, time, wasgi
from wasgi.testing import Client

app = wasgi.App(sys.argv[1], reuse=wasgi.Reuse(idle=60))
client = Client(app)
assert [client.get(f"/remember?word={word}").text for word in "ab"] == ["nothing", "a"]
child = os.fork()
if child == 0:
    assert wasgi.stats().idle == 0
    assert [client.get(f"/remember?word={word}").text for word in "cd"] == ["nothing", "c"]
    del client, app
    while wasgi.stats().memories:
        time.sleep(0.001)  # until they are given back, or this test has taken too long
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert client.get("/remember?word=e").text == "b"
print("both")
"""


def test_what_it_is() -> None:
    reuse = wasgi.Reuse(requests=None, idle=1)
    assert repr(reuse) == "Reuse(requests=None, concurrent=1, idle=1.0, isolated=False, warm=None, ready=0)"
    assert repr(wasgi.Reuse()) == "Reuse(requests=128, concurrent=1, idle=10.0, isolated=False, warm=None, ready=0)"
    assert reuse == wasgi.Reuse(requests=None, idle=1.0) != wasgi.Reuse()
    assert len({reuse, wasgi.Reuse(requests=None, idle=1.0)}) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"requests": 0}, "`requests` must be a positive number of requests, or None: 0"),
        ({"idle": 0}, "`idle` must be a positive number of seconds, or None: 0"),
        ({"idle": float("nan")}, "`idle` must be a positive number of seconds, or None: NaN"),
        ({"concurrent": 0}, "`concurrent` must be 1 to 128, not 0"),
    ],
)
def test_numbers_that_make_no_sense(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wasgi.Reuse(**options)  # type: ignore[arg-type]


def test_an_instance_that_has_one_exchange_only_is_not_reused(caplog: pytest.LogCaptureFixture) -> None:
    """As those of StarlingMonkey: a component by hand that answers once and then never again."""
    text = (ROOT / "tests" / "guests" / "hand.wat").read_text()
    once = text.replace(
        '(func (export "handle") (param $request i32) (param $out i32)\n      (local $response i32)',
        "(global $asked (mut i32) (i32.const 0))\n"
        '(func (export "handle") (param $request i32) (param $out i32)\n      (local $response i32)\n'
        "(if (global.get $asked) (then (return)))\n(global.set $asked (i32.const 1))",
    )
    assert once != text
    component = wasgi.Component(once.encode())
    with wasgi.App(component, reuse=wasgi.Reuse()) as made:
        answers: list[int | None] = []
        for _ in range(6):
            try:
                response = made.handle(get("/"))
            except wasgi.NoResponseError:
                answers.append(None)
                continue
            ended = response.wait()
            assert ended is not None
            assert ended.reused == 0
            answers.append(response.status)
        assert answers == [299, None, 299, 299, 299, 299]
        assert wasgi.stats().idle == 0
    (record,) = [one for one in caplog.records if "`reuse` has no effect on this app any more" in one.getMessage()]
    assert (record.name, record.levelname) == ("wasgi", "WARNING")
    assert "`NoResponseError`" in record.getMessage()


def test_a_guest_that_answers_seldom_is_told_of_as_such(app: AppMaker) -> None:
    """A fresh instance without an answer says nothing of whether instances can be reused."""
    with app(reuse=wasgi.Reuse()) as made:
        with pytest.raises(wasgi.NoResponseError):
            made.handle(get("/silent"))
        for reused in range(3):
            ended = made.handle(get("/hello")).wait()
            assert ended is not None
            assert ended.reused == reused


@pytest.mark.parametrize("concurrent", [1, 4])
def test_one_that_grows_with_each_exchange_is_not_reused_for_ever(concurrent: int) -> None:
    """Streams that a guest of WASI 0.3 forgets stay in it. It goes before one of its exchanges fails."""
    limits = wasgi.Limits(handles=1000)
    with wasgi.App(PROBE_P3, reuse=wasgi.Reuse(requests=None, concurrent=concurrent), limits=limits) as made:
        earlier = []
        for _ in range(30):
            with made.handle(get("/only/leak?n=50")) as response:
                assert response.read() == b"leaked"
                response.wait()
            assert response.report is not None
            earlier.append(response.report.reused)
        assert 1 < max(earlier) < 10
        assert earlier.count(0) > 2, "fresh instances took their place"
