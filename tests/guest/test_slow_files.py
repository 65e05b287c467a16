"""A file system that does not answer holds its guest's exchange until its time limit, and nobody else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.conftest import PROBES, ROOT
from tests.slow_files import (  # noqa: F401 - a fixture
    FLUSH,
    GETATTR,
    LOOKUP,
    OPEN,
    OPENDIR,
    READ,
    SlowFiles,
    slow_files,
)

# In a process of its own: this one serves the files, and whoever holds the interpreter there must not hold it here.
GUEST = """
import asyncio, sys, time
import wasgi

component, folder = sys.argv[1:]
limits = wasgi.Limits(timeout=1)
app = wasgi.App(component, dirs={"/slow": folder}, limits=limits)
other = wasgi.App(component, limits=limits)

def get(path):
    return wasgi.Request("GET", f"http://guest.local{path}")

def outcome(give):
    try:
        return give().text
    except wasgi.WasgiError as error:
        return type(error).__name__

def say(*what):
    print(*what, flush=True)

READ = "/read-file?path=/slow/file"
LIST = "/much?what=list"
say(outcome(lambda: app.handle(get(READ))))
sys.stdin.readline()
"""

ON_LOOP = (
    GUEST
    + """
async def main():
    slow = asyncio.create_task(app.handle_async(get(READ)))
    turns = 0
    while not slow.done():
        await asyncio.sleep(0.01)
        assert (await other.handle_async(get("/hello"))).status == 200
        turns += 1
    try:
        response = slow.result()
    except wasgi.WasgiError as error:
        say(type(error).__name__)
    else:
        say(await response.aread())
    say(turns > 3)

asyncio.run(main())
"""
)
BLOCKING = (
    GUEST
    + """
say(outcome(lambda: app.handle(get(READ))))
say(outcome(lambda: other.handle(get("/hello"))))
"""
)


class Guest:
    """One that has read the file once, and goes on when it is told."""

    def __init__(self, script: str, files: SlowFiles, generation: str) -> None:
        self.files = files
        command = [sys.executable, "-c", script + "\nsay('over')\n", str(PROBES[generation]), str(files.mounted)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Guest:
        assert self.line() == "what is in the file"
        return self

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def go_on(self) -> list[str]:
        """What it says until it is over."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return list(iter(self.line, "over"))

    def __exit__(self, *_: object) -> None:
        self.files.release()  # a process does not end before its system calls do
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0


GuestMaker = Callable[[str], Guest]


@pytest.fixture
def guest_of(slow_files: SlowFiles, generation: str) -> GuestMaker:  # noqa: F811
    return lambda script: Guest(script, slow_files, generation)


# GETATTR: the granted folder is looked at; FLUSH: a file is closed
@pytest.mark.parametrize("hangs", [GETATTR, LOOKUP, OPEN, READ])
def test_one_that_hangs_leaves_the_loop_to_others(slow_files: SlowFiles, guest_of: GuestMaker, hangs: int) -> None:  # noqa: F811
    with guest_of(ON_LOOP) as guest:
        slow_files.hangs.add(hangs)
        assert guest.go_on() == ["GuestTimeoutError", "True"]
        assert slow_files.asked.count(hangs) > 0


@pytest.mark.parametrize("hangs", [GETATTR, LOOKUP, OPEN, READ])
def test_a_guest_ends_at_its_time_limit(slow_files: SlowFiles, guest_of: GuestMaker, hangs: int) -> None:  # noqa: F811
    with guest_of(BLOCKING) as guest:
        slow_files.hangs.add(hangs)
        assert guest.go_on() == ["GuestTimeoutError", "Hello, World!"]


@pytest.mark.parametrize("script", [ON_LOOP, BLOCKING])
def test_a_folder_that_hangs(slow_files: SlowFiles, guest_of: GuestMaker, script: str) -> None:  # noqa: F811
    with guest_of(script.replace("get(READ)", "get(LIST)").replace("get(LIST)", "get(READ)", 1)) as guest:
        slow_files.hangs.add(OPENDIR)
        assert guest.go_on()[0] == "GuestTimeoutError"
        assert OPENDIR in slow_files.asked


@pytest.mark.parametrize("script", [ON_LOOP, BLOCKING])
def test_closing_a_file_holds_nobody(slow_files: SlowFiles, guest_of: GuestMaker, script: str) -> None:  # noqa: F811
    with guest_of(script) as guest:
        slow_files.hangs.add(FLUSH)
        assert "GuestTimeoutError" not in guest.go_on()
        assert FLUSH in slow_files.asked


def test_many_exchanges_on_one_that_hangs_leave_others_alone(slow_files: SlowFiles, guest_of: GuestMaker) -> None:  # noqa: F811
    script = (
        GUEST
        + """
async def main():
    slow = [asyncio.create_task(app.handle_async(get(READ))) for _ in range(40)]
    say((await other.handle_async(get("/hello"))).status)
    say({type(end).__name__ for end in await asyncio.gather(*slow, return_exceptions=True)})

asyncio.run(main())
"""
    )
    with guest_of(script) as guest:
        slow_files.hangs.add(GETATTR)
        assert guest.go_on() == ["200", "{'GuestTimeoutError'}"]


def test_an_app_can_use_files_again_when_they_answer_again(slow_files: SlowFiles, guest_of: GuestMaker) -> None:  # noqa: F811
    script = (
        GUEST
        + """
ends = []
async def main():
    slow = [asyncio.create_task(app.handle_async(get(READ))) for _ in range(40)]
    say({type(end).__name__ for end in await asyncio.gather(*slow, return_exceptions=True)})

asyncio.run(main())
say("over")
sys.stdin.readline()
say(outcome(lambda: app.handle(get(READ))))
"""
    )
    with guest_of(script) as guest:
        slow_files.hangs.add(LOOKUP)
        assert guest.go_on() == ["{'GuestTimeoutError'}"]
        slow_files.release()
        assert guest.go_on() == ["what is in the file"]
