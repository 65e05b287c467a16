"""Where pages can be swapped out, too, a fresh instance finds nothing of an earlier one."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import HELLO
from tests.processes import run

# Guests that look for what an earlier one has left, and trap if there is anything; else they leave something, and stay
# for a while, in which their pages are swapped out.
GUESTS = '''
import ctypes, logging, sys, threading
import wasgi
from tests.conftest import bare, get

logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s %(message)s", stream=sys.stdout)
FILLED = """
    (if (i32.load (i32.const 131072)) (then unreachable))
    (if (i32.load (i32.const 589824)) (then unreachable))
    (memory.fill (i32.const 0) (i32.const 7) (i32.const 655360))
    (local.set $n (i32.const 60000000))
    (loop $again
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br_if $again (local.get $n)))
"""
TABLE = """
    (if (i32.eqz (ref.is_null (table.get (i32.const 9000)))) (then unreachable))
    (table.fill (i32.const 0) (ref.func $some) (i32.const 9999))
    (local.set $n (i32.const 60000000))
    (loop $again
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br_if $again (local.get $n)))
"""
memory = wasgi.App(bare("(local $n i32)" + FILLED, "(memory 10)"))
table = wasgi.App(bare("(local $n i32)" + TABLE, "(table 10000 funcref) (func $some) (elem declare func $some)"))

libc = ctypes.CDLL(None, use_errno=True)
libc.madvise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
MADV_PAGEOUT = 21

def page_out():
    with open("/proc/self/maps") as maps:
        lines = maps.read().splitlines()
    for line in lines:
        span, mode, _, _, inode, *_ = line.split()
        if mode.startswith("rw") and "[" not in line:
            start, end = (int(part, 16) for part in span.split("-"))
            libc.madvise(start, end - start, MADV_PAGEOUT)

def exchange(app):
    over = threading.Event()
    outcome = []
    def run():
        try:
            app.handle(get("/"))
        except wasgi.GuestError as error:
            outcome.append(type(error).__name__)
        over.set()
    thread = threading.Thread(target=run)
    thread.start()
    while not over.wait(0.005):
        page_out()
    thread.join()
    return outcome[0]

def rounds(app):
    print(*(exchange(app) for _ in range(12)))
'''


@pytest.fixture
def swap_on(tmp_path: Path) -> Iterator[Callable[[], None]]:
    if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
        pytest.skip("swap is the whole machine's, and other tests would see it; run `pytest -n 0 tests/process`")
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can switch on swap")
    if shutil.which("mkswap") is None:
        pytest.skip("there is no `mkswap`")
    path = tmp_path / "swap"
    path.touch(mode=0o600)
    with path.open("wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    subprocess.run(["mkswap", path], check=True, capture_output=True)
    switched: list[bool] = []

    def switch() -> None:
        done = subprocess.run(["swapon", path], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"swap cannot be switched on here: {done.stderr}")
        switched.append(True)

    try:
        yield switch
    finally:
        if switched:
            subprocess.run(["swapoff", path], check=True)


def in_two_parts(script: str, between: Callable[[], None]) -> tuple[list[str], list[str]]:
    """What a script prints before it says "ready" and waits, and what it prints after it was let go on."""
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        before = list(itertools.takewhile(lambda line: line != "ready\n", child.stdout))
        between()
        after, _ = child.communicate("\n", timeout=120)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 0
    return before, after.splitlines(keepends=True)


@pytest.mark.parametrize("guest", ["memory", "table"])
@pytest.mark.parametrize("since", ["before the engine", "after the engine"])
def test_a_fresh_instance_finds_nothing_of_an_earlier_one(swap_on: Callable[[], None], guest: str, since: str) -> None:
    if since == "before the engine":
        swap_on()
    script = GUESTS + f"\nrounds({guest})\nprint('ready', flush=True)\ninput()\nrounds({guest})\n"
    before, after = in_two_parts(script, swap_on if since == "after the engine" else lambda: None)
    outcomes = "".join([*before, *after])
    assert "TrapError" not in outcomes
    assert outcomes.count("NoResponseError") == 24


# An instance that is put back hides secrets, and looks for them, while its pages are swapped out.
PUT_BACK = (
    GUESTS
    + """
from tests.guest.isolated.asking import KEEPERS, MODES, SECRETS, ask, found, keep

app = wasgi.App(wasgi.Component(KEEPERS["0.2"]), reuse=MODES["isolated"](), stdout=print)
entries = set()

def looks():
    for secret in [next(SECRETS) for _ in range(5)]:
        kept = keep(app, secret, "data", "heap", "stack", "first-page", "last-page", "many-pages")
        page_out()
        after = ask(app, "/sleep?ms=20")
        page_out()
        entries.update((kept.entry, after.entry))
        print("found", found(app, secret), "reused", kept.reused)
    print("entries", len(entries))
"""
)


@pytest.mark.parametrize("since", ["before the engine", "after the engine"])
def test_an_instance_is_put_back_or_dropped(swap_on: Callable[[], None], since: str) -> None:
    """Once pages can be swapped out, no instance has another exchange."""
    if since == "before the engine":
        swap_on()
    script = PUT_BACK + "\nlooks()\nprint('ready', flush=True)\ninput()\nlooks()\n"
    parts = in_two_parts(script, swap_on if since == "after the engine" else lambda: None)
    told = [[line.split() for line in part if line.startswith(("found", "entries"))] for part in parts]
    for part in told:
        assert part[-1] == ["entries", "1"]
        assert [line[1] for line in part[:-1]] == ["0"] * 5
    before, after = ([int(line[3]) for line in part[:-1]] for part in told)
    assert after[1:] == [0] * 4
    assert before == ([0] * 5 if since == "before the engine" else [0, 3, 6, 9, 12])


# Where the system does not say whether there is swap, there is.
UNSURE = """
import logging, sys, time
import wasgi
from tests.confinement import refuse

logging.basicConfig(level="INFO", format="%(levelname)s %(message)s", stream=sys.stdout)
told = []
logging.getLogger("wasgi").addFilter(lambda record: told.append(record) or True)
request = wasgi.Request("GET", "http://guest.local/hello")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no PAGEMAP_SCAN")
class TestTheLine:
    """Most machines have swap: it is told, and it is no warning."""

    def test_at_the_start(self) -> None:
        done = run(
            UNSURE
            + "refuse('sysinfo')\nprint(wasgi.App(sys.argv[1]).handle(request).text)\nwasgi.Component(sys.argv[1])\n",
            str(HELLO),
        )
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stdout.splitlines() if "compiled" not in line]
        assert lines[-1] == "Hello, World!"
        assert [
            line for line in lines if line.startswith("INFO pages of this process can be swapped out, and PAGEMAP_SCAN")
        ]
        assert not [line for line in lines if line.startswith("WARNING")]

    def test_where_pagemap_scan_is_not_wanted(self) -> None:
        done = run(
            UNSURE
            + "import os\nos.environ['WASGI_PAGEMAP_SCAN'] = '0'\nprint(wasgi.App(sys.argv[1]).handle(request).text)\n",
            str(HELLO),
        )
        assert done.returncode == 0, done.stderr
        assert "INFO PAGEMAP_SCAN is not used (`WASGI_PAGEMAP_SCAN=0`): guests start slower" in done.stdout
        assert "WARNING" not in done.stdout

    def test_when_it_is_switched_on_later(self) -> None:
        done = run(
            UNSURE
            + """
app = wasgi.App(sys.argv[1])
app.handle(request)
before = len(told)
refuse("sysinfo")
deadline = time.monotonic() + 40
while len(told) == before and time.monotonic() < deadline:
    time.sleep(0.01)  # the ticker goes to sleep, and the next exchange looks
    try:
        assert app.handle(request).text == "Hello, World!"
    except wasgi.OverloadedError:
        pass  # it was about to begin
for record in told[before:]:
    print(record.levelname, record.getMessage())
""",
            str(HELLO),
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith("INFO pages of this process can now be swapped out")

    def test_whoever_configures_no_logging_does_not_see_it(self) -> None:
        script = UNSURE.replace("logging.basicConfig", "(lambda **_: None)") + "refuse('sysinfo')\n"
        done = run(script + "print(wasgi.App(sys.argv[1]).handle(request).text)", str(HELLO))
        assert (done.stdout, done.stderr) == ("Hello, World!\n", "")
