"""What threads inherit from whichever thread starts them: blocked signals, priorities, CPUs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.conftest import PROBE
from tests.processes import run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have these for themselves on Linux")

TRAPS = """
import asyncio, os, signal, sys, threading, wasgi

def blocked():
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])

def traps(app, route):
    try:
        app.handle(wasgi.Request("GET", "http://guest.local" + route))
    except wasgi.TrapError as error:
        print(route, "trapped", flush=True)

ROUTES = ["/trap", "/out-of-bounds", "/panic", "/overflow?n=100000000"]

def all_traps(app):
    everything = blocked()
    for route in ROUTES:
        traps(app, route)
    assert blocked() == everything, "the caller's mask is another one"

def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
"""


def test_a_trap_where_all_signals_are_blocked(probe_path: Path) -> None:
    """As in all threads of uWSGI but the first."""
    done = run(
        TRAPS
        + """
app = wasgi.App(sys.argv[1])
def work():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    all_traps(app)
in_thread(work)
""",
        str(probe_path),
    )
    assert (done.returncode, done.stdout.count("trapped")) == (0, 4), done.stderr


def test_a_trap_on_threads_of_ours_that_were_started_where_all_signals_are_blocked(probe_path: Path) -> None:
    done = run(
        TRAPS
        + """
def work():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    app = wasgi.App(sys.argv[1], outgoing=lambda request: wasgi.Response(body=b"up"))
    app.handle(wasgi.Request("GET", "http://guest.local/sleep?ms=1"))
    async def main():
        for route in ROUTES * 5:
            try:
                await app.handle_async(wasgi.Request("GET", "http://guest.local" + route))
            except wasgi.TrapError:
                print("trapped", flush=True)
        # one that waits first, and goes on wherever it is woken
        response = await app.handle_async(wasgi.Request("GET", "http://guest.local/trap-midway?bytes=4000000"))
        try:
            await response.aread()
        except wasgi.BodyError as error:
            print("broke off", flush=True)
    asyncio.run(main())
in_thread(work)
""",
        str(probe_path),
    )
    assert (done.returncode, done.stdout.count("trapped"), done.stdout.count("broke off")) == (0, 20, 1), done.stderr


def test_a_fault_is_still_faulthandlers_where_signals_were_blocked(probe_path: Path) -> None:
    done = run(
        TRAPS
        + """
import ctypes, faulthandler
faulthandler.enable()
app = wasgi.App(sys.argv[1])
all_traps(app)
ctypes.string_at(0)
""",
        str(probe_path),
    )
    assert done.returncode < 0
    assert "Fatal Python error: Segmentation fault" in done.stderr


def threads_of_ours(setting: str, reading: str) -> list[str]:
    """What the main thread has, and then what threads of ours have that one with another setting has started."""
    done = run(
        TRAPS
        + f"""
def reading(thread):
    return {reading}
def work():
    {setting}
    app = wasgi.App(sys.argv[1], limits=wasgi.Limits(timeout=5))
    app.handle(wasgi.Request("GET", "http://guest.local/sleep?ms=20"))
    names = {{int(t): open(f"/proc/self/task/{{t}}/comm").read().strip() for t in os.listdir("/proc/self/task")}}
    ours = {{t: name for t, name in names.items() if name.startswith("wasgi-")}}
    assert any("ticker" in name for name in ours.values()), names
    print(*(reading(t) for t in [os.getpid(), *ours]), sep="\\n")
in_thread(work)
""",
        str(PROBE),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_priorities_are_the_main_threads() -> None:
    seen = threads_of_ours("os.setpriority(os.PRIO_PROCESS, 0, 7)", "os.getpriority(os.PRIO_PROCESS, thread)")
    if os.geteuid() == 0:  # others may not raise it again
        assert seen[0] in seen[1:]
        assert "7" not in seen


def test_a_real_time_policy_is_not_spread() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can have a real-time policy")
    setting = "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))"
    seen = threads_of_ours(setting, "os.sched_getscheduler(thread)")
    assert len(seen) > 2
    assert set(seen) == {str(os.SCHED_OTHER)}


def test_cpus_are_the_main_threads() -> None:
    every = os.sched_getaffinity(0)
    if len(every) < 2:
        pytest.skip("there is one CPU only")
    seen = threads_of_ours(
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})", "len(os.sched_getaffinity(thread))"
    )
    assert len(seen) > 2
    assert set(seen) == {str(len(every))}


def test_what_guests_give_back_is_dropped_by_threads_whose_priority_is_as_before() -> None:
    """Threads of guests that compute have a low one. What they start would inherit it, and cannot raise it."""
    done = run(
        """
import ctypes, os, sys, threading, time

def drop_capability(number):
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    for each in range(3):
        data[each] &= ~(1 << number)
    assert libc.capset(header, data) == 0
drop_capability(23)  # CAP_SYS_NICE, of this thread and all that it starts

import wasgi

def get(route):
    return wasgi.Request("GET", "http://guest.local" + route)

def named(name):
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/comm") as comm:
                if comm.read().startswith(name):
                    yield int(thread)
        except OSError:
            pass  # it has ended

app = wasgi.App(sys.argv[1], reuse=wasgi.Reuse())
for _ in range(4):  # no tick ends it: when it was measured, its guests run on threads of low priority
    try:
        app.handle(get("/hostile/fill?mib=100&n=2"))
    except wasgi.NoResponseError:
        pass

def has_dropped():  # by a thread that waits for more
    return len(list(named("wasgi-worker"))) > workers

app.handle(get("/sleep?ms=1"))
workers = len(list(named("wasgi-worker")))
while not has_dropped():
    while wasgi.stats().idle < 2 and not has_dropped():
        threads = [threading.Thread(target=app.handle, args=[get("/sleep?ms=50")]) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    try:
        app.handle(get("/silent"))  # one that had answered before ends without an answer: the others are given back
    except wasgi.NoResponseError:
        pass
threads = list(named("wasgi-worker"))
lowered = {os.getpriority(os.PRIO_PROCESS, thread) for thread in named("wasgi-compute")}
main = os.getpriority(os.PRIO_PROCESS, 0)
print({os.getpriority(os.PRIO_PROCESS, thread) - main for thread in threads}, all(nice > main for nice in lowered))
""",
        str(PROBE),
    )
    assert done.stdout == "{0} True\n", done.stderr
