"""Threads, tasks, apps and processes at once: no exchange finds another's secret, and each finds a fresh state."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import wasgi
from tests.conftest import until
from tests.guest.isolated.asking import KEEPERS, MODES, SECRETS, Answer, ask, expected, found, keep, masked, request
from tests.guest.isolated.conftest import AppMaker
from tests.guest.isolated.test_places import PLACES
from tests.processes import run

KEEP = ",".join(place for place in PLACES if place != "body")


def test_threads_over_two_apps(keepers: dict[str, wasgi.Component], mode: str) -> None:
    """Each thread keeps secrets of its own, and looks for all of them in whichever instance it gets."""
    apps = [wasgi.App(component, reuse=MODES[mode]()) for component in [*keepers.values()] * 2]
    entries = [ask(app, "/nowhere").entry for app in apps]
    secrets = [next(SECRETS) for _ in range(4)]
    together = threading.Barrier(4)

    def work(number: int) -> tuple[int, set[str], int]:
        together.wait()
        seen, wrong, reused = 0, set(), 0
        for n in range(30):
            which = (number + n) % len(apps)
            kept = keep(apps[which], secrets[number], *PLACES)
            answer = ask(apps[which], f"/find?secret={masked(secrets[n % 4])}")
            seen += int(answer.text.split()[0])
            wrong |= {kept.entry, answer.entry} - {entries[which]}
            reused += (kept.reused > 0) + (answer.reused > 0)
        return seen, wrong, reused

    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(work, range(4)))
    assert [(seen, wrong) for seen, wrong, _ in done] == [(0, set())] * 4
    if mode == "isolated":
        assert sum(reused for *_, reused in done) > 100
    for app in apps:
        app.close()


async def asked(app: wasgi.App, target: str) -> Answer:
    async with await app.handle_async(request(target)) as response:
        await response.aread()
        report = await response.finished()
        assert report is not None
        return Answer(response.status, response.text, response.headers["x-entry"], report.reused)


async def test_on_an_event_loop(app: AppMaker, mode: str) -> None:
    async def upstream(request: wasgi.Request) -> wasgi.Response:
        await asyncio.sleep(0.001)
        return wasgi.Response(body="ok")

    made, secrets = app(outgoing=upstream), [next(SECRETS) for _ in range(8)]
    entry = (await asked(made, "/nowhere")).entry

    async def one(number: int) -> list[Answer]:
        answers = [await asked(made, f"/keep?in=data,heap,stack,first-page&secret={masked(secrets[number])}")]
        answers.append(await asked(made, "/fetch?url=a/&n=2"))
        answers.extend([await asked(made, f"/find?secret={masked(secret)}") for secret in secrets])
        return answers

    answers = [answer for answers in await asyncio.gather(*map(one, range(8))) for answer in answers]
    assert {answer.entry for answer in answers} == {entry}
    assert {answer.text for answer in answers} == {"kept", "0 ", "200 ok\n200 ok\n"}
    if mode == "isolated":
        assert sum(answer.reused > 0 for answer in answers) > len(answers) / 2


async def test_an_instance_whose_exchange_goes_on_is_no_others(app: AppMaker, mode: str) -> None:
    """One that waits for its caller keeps its instance; the others have their own."""
    made, secret = app(stdout=lambda _: None), next(SECRETS)
    entry = (await asked(made, "/nowhere")).entry
    open_ = [await made.handle_async(request("/stream?n=100&bytes=4096")) for _ in range(3)]
    for _ in range(5):
        kept = await asked(made, f"/keep?in={','.join(PLACES[:10])}&secret={masked(secret)}")
        after = await asked(made, f"/find?secret={masked(secret)}")
        assert (kept.entry, after.entry, after.text) == (entry, entry, "0 ")
    for response in open_:
        assert await response.aread() == b"s" * 409_600
        await response.finished()
    assert (await asked(made, f"/find?secret={masked(secret)}")).entry == entry


async def test_a_task_that_is_cancelled(app: AppMaker) -> None:
    waits = asyncio.Event()

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        waits.set()
        await asyncio.sleep(3600)
        raise AssertionError

    made, secret = app(outgoing=upstream), next(SECRETS)
    entry = (await asked(made, f"/keep?in=data&secret={masked(secret)}")).entry
    for _ in range(3):
        waits.clear()
        task = asyncio.create_task(asked(made, "/fetch?url=a/"))
        await waits.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        after = await asked(made, f"/find?secret={masked(secret)}")
        assert (after.text, after.entry) == ("0 ", entry)


def test_an_exchange_that_begins_on_one_thread_and_ends_on_another(app: AppMaker, mode: str) -> None:
    """What a guest writes counts wherever it has its turns: the caller's thread, and those of the scheduler."""
    go = threading.Event()

    def body() -> Iterator[bytes]:
        yield secret
        go.wait(30)
        yield secret * 1000

    made, secret = app(stdout=lambda _: None), next(SECRETS)
    entry = keep(made, secret, *PLACES).entry
    for n in range(6):
        go.clear()
        with ThreadPoolExecutor(2) as threads:
            call = threads.submit(
                ask, made, f"/keep?in=body,{KEEP}&secret={masked(secret)}", method="POST", body=body()
            )
            until(lambda: made.exchanges == 1)
            go.set()
            assert call.result().entry == entry
            assert threads.submit(found, made, secret).result() == 0
        after = ask(made, f"/find?secret={masked(secret)}")
        assert (after.text, after.entry) == ("0 ", entry)
        assert [after.reused] == expected(mode, 3 * n + 3)


@pytest.mark.parametrize("generation", KEEPERS)
def test_a_forked_child(generation: str) -> None:
    """It has instances of its own, and its parent's go on."""
    done = run(FORKS, str(KEEPERS[generation]))
    assert done.stdout.split() == ["both"], done.stderr


FORKS = """
import os, sys, wasgi
from tests.guest.isolated.asking import MODES, SECRETS, ask, found, keep
from tests.guest.isolated.test_places import PLACES

app = wasgi.App(sys.argv[1], reuse=MODES["isolated"]())
secret, other = next(SECRETS), next(SECRETS)
first = keep(app, secret, *PLACES)
assert found(app, secret) == 0
for _ in range(3):
    child = os.fork()
    if child == 0:
        assert wasgi.stats().idle == 0
        kept = [keep(app, other, *PLACES) for _ in range(3)]
        assert [each.entry for each in kept] == [first.entry] * 3, kept
        assert [each.reused for each in kept] == [0, 1, 2], kept
        assert found(app, secret) == found(app, other) == 0
        os._exit(0)
    # both at once
    kept = [keep(app, secret, *PLACES) for _ in range(20)]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert {each.entry for each in kept} == {first.entry}
    assert min(each.reused for each in kept) > 0
    assert found(app, secret) == found(app, other) == 0
app.close()
print("both")
"""


def test_a_child_that_was_forked_before_anything(keepers: dict[str, wasgi.Component]) -> None:
    done = run(FORKED_FIRST, *map(str, KEEPERS.values()))
    assert done.stdout.split() == ["done"], done.stderr


FORKED_FIRST = """
import os, sys, wasgi
from tests.guest.isolated.asking import MODES, SECRETS, ask, found, keep
from tests.guest.isolated.test_places import PLACES

apps = [wasgi.App(path, reuse=MODES["isolated"]()) for path in sys.argv[1:]]
children = []
for _ in range(3):
    children.append(os.fork())
    if children[-1] == 0:
        for app in apps:
            secret = next(SECRETS)
            kept = [keep(app, secret, *PLACES) for _ in range(5)]
            assert len({each.entry for each in kept}) == 1
            assert [each.reused for each in kept] == [0, 1, 2, 3, 4]
            assert found(app, secret) == 0
        os._exit(0)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
print("done")
"""
