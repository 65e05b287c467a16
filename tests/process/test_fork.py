"""Forks at bad moments: locks that the fork's hook holds, and locks that other threads of the parent hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import HELLO
from tests.processes import run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PRELUDE = """
import asyncio, os, signal, sys, threading, time

def get(route):
    return wasgi.Request("GET", "http://guest.local" + route)

async def waits(awaitable):
    return await awaitable

def in_child(work):
    '''The exit code of a child that does this and no more; a signal's number below zero if it hangs.'''
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

FIRST_USES = {
    "handle": 'assert app.handle(get("/hello")).text == "Hello, World!"',
    "handle_async": 'assert asyncio.run(waits(app.handle_async(get("/hello")))).status == 200',
    "Network": """
try:
    asyncio.run(waits(wasgi.outgoing.call(network, get("/"))))
except wasgi.ErrorCode:
    pass""",
    "Component": "wasgi.Component(sys.argv[2])",
}


@pytest.mark.parametrize(
    ("use", "where"), [*((use, "another thread") for use in FIRST_USES), ("handle", "the thread that forks")]
)
def test_the_first_use_in_a_process_while_it_forks(use: str, where: str, probe_path: Path) -> None:
    """The hook before a fork holds the lock under which engines are made, and waits for the GIL."""
    done = run(
        PRELUDE
        + f"""
is_armed = False
def first_use():
    exec({FIRST_USES[use]!r}, globals())

def hook():
    '''Registered before wasgi's own, so that it is called after that.'''
    global is_armed, thread
    if is_armed:
        is_armed = False
        if {where!r} == "another thread":
            thread = threading.Thread(target=first_use)
            thread.start()
            time.sleep(0.2)  # it comes for the lock
        else:
            first_use()

thread = None
os.register_at_fork(before=hook)
import wasgi
app = wasgi.App(sys.argv[1])
network = wasgi.Network(allow=["http://nobody.invalid"])

def fork_in_a_process_without_engines():
    global is_armed
    is_armed = True
    assert in_child(lambda: None) == 0
    if thread is not None:
        thread.join()
    first_use()
print(in_child(fork_in_a_process_without_engines))
""",
        str(probe_path),
        str(HELLO),
    )
    assert done.stdout == "0\n", done.stderr


@pytest.mark.parametrize("end", ["close()", "read()", "wait()", "drop"])
def test_a_response_that_other_threads_of_the_parent_are_busy_with(end: str, probe_path: Path) -> None:
    """The guest writes and a thread reads, under locks that nobody gives back in the child."""
    done = run(
        PRELUDE
        + f"""
import wasgi
app = wasgi.App(sys.argv[1], limits=wasgi.Limits(timeout=None))
responses = [app.handle(get("/endless")) for _ in range(2)]
stop = threading.Event()

def read(response):
    for chunk in response:
        if stop.is_set():
            break

def child():
    for response in responses:
        try:
            {"pass" if end == "drop" else "response." + end}
        except wasgi.WasgiError:
            pass
    responses.clear()
    assert app.handle(get("/hello")).text == "Hello, World!"

threads = [threading.Thread(target=read, args=[response]) for response in responses]
for thread in threads:
    thread.start()
print(set(in_child(child) for _ in range(40)))
stop.set()
for thread in threads:
    thread.join()
""",
        str(probe_path),
    )
    assert done.stdout == "{0}\n", done.stderr


def test_what_waits_on_a_loop_of_the_parents_is_out_of_the_childs_reach(probe_path: Path) -> None:
    """Those under way and those in the queue: to go on with them, or to drop them, takes locks of the parent's."""
    done = run(
        PRELUDE
        + """
import wasgi
app = wasgi.App(sys.argv[1], limits=wasgi.Limits(timeout=None, concurrency=1, queue=1))

def child(tasks):
    told = []
    for task in tasks:
        try:
            task.get_coro().send(None)
        except wasgi.WasgiError as error:
            told.append("parent process" in str(error))
    assert told == [True, True], told
    tasks.clear()
    assert app.handle(get("/hello")).text == "Hello, World!"

async def main():
    tasks = [asyncio.ensure_future(app.handle_async(get("/sleep?ms=60000"))) for _ in range(2)]
    while wasgi.stats().queued < 1:
        await asyncio.sleep(0.001)
    print(in_child(lambda: child(tasks)))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
asyncio.run(main())
""",
        str(probe_path),
    )
    assert done.stdout == "0\n", done.stderr


def test_a_process_that_an_upstream_forks_ends_with_it(probe_path: Path) -> None:
    """Its only thread is one of ours, whose next jobs are the parent's."""
    done = run(
        PRELUDE
        + """
import wasgi
children = []

def upstream(request):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
    else:
        children.append(child)
    return wasgi.Response(body=b"up")

app = wasgi.App(sys.argv[1], outgoing=upstream)
print(app.handle(get("/fetch?url=http://up/")).text)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
""",
        str(probe_path),
    )
    assert done.stdout == "up\n[0]\n", done.stderr
