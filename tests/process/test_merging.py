"""Where the kernel merges pages of the process with others (KSM), a fresh instance finds nothing of an earlier one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import run

KSM = Path("/sys/kernel/mm/ksm")
QUICK = {"pages_to_scan": "20000", "sleep_millisecs": "5", "use_zero_pages": "1", "run": "1"}

# Guests that fill with zeros what their component has data in, and stay for a while, in which those pages are merged.
GUESTS = """
import ctypes, logging, sys, threading
import wasgi
from tests.conftest import bare, get

logging.basicConfig(level="INFO", format="%(levelname)s %(message)s", stream=sys.stdout)
PR_SET_MEMORY_MERGE = 67

def merges():
    assert ctypes.CDLL(None).prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) == 0

app = wasgi.App(bare('''(local $n i32)
    (local.set $n (i32.const 65536))
    (loop $page
      (if (i32.ne (i32.load (local.get $n)) (i32.const 0x61616161)) (then unreachable))
      (br_if $page (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 4096))) (i32.const 2162688))))
    (memory.fill (i32.const 65536) (i32.const 0) (i32.const 2097152))
    (local.set $n (i32.const 600000000))
    (loop $again
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br_if $again (local.get $n)))
''', '(memory 40) (data (i32.const 65536) "%s")' % ("a" * 2097152)))

def zeros():
    with open("/proc/self/ksm_stat") as stat:
        return next(int(line.split()[1]) for line in stat if line.startswith("ksm_zero_pages"))

def exchange():
    # says how it ended; returns whether pages of zeros were merged meanwhile
    def handle():
        try:
            app.handle(get("/"))
        except wasgi.GuestError as error:
            print("ended", type(error).__name__)
    thread, merged = threading.Thread(target=handle), False
    thread.start()
    while thread.is_alive():
        merged |= zeros() > 400  # of its 512 pages
        thread.join(0.005)
    return merged

def exchanges():
    print("merged", any(exchange() for _ in range(30)))
    for _ in range(4):
        exchange()  # one of them is in the same slot
"""


@pytest.fixture
def merging() -> Iterator[None]:
    if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
        pytest.skip("merging is the whole machine's; run `pytest -n 0 tests/process`")
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can switch on merging")
    if not (KSM / "use_zero_pages").exists() or not Path("/proc/self/ksm_stat").exists():
        pytest.skip("this kernel does not merge pages, or does not tell")
    before = {name: (KSM / name).read_text() for name in QUICK}
    try:
        for name, value in QUICK.items():
            (KSM / name).write_text(value)
        yield
    finally:
        (KSM / "run").write_text("2")  # what was merged is taken apart
        for name, value in before.items():
            (KSM / name).write_text(value)


@pytest.mark.usefixtures("merging")
@pytest.mark.parametrize("since", ["before the engine", "after the engine"])
def test_a_fresh_instance_finds_nothing_of_an_earlier_one(since: str) -> None:
    begin = "merges()" if since == "before the engine" else "exchange()\nmerges()"
    done = run(f"{GUESTS}\n{begin}\nexchanges()\n")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "merged True" in lines
    assert {line for line in lines if line.startswith("ended")} == {"ended NoResponseError"}
    assert sum("merged with others of the same content (KSM)" in line for line in lines) == 1
