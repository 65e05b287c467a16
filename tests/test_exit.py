"""The interpreter's end, by Ctrl-C or by itself, while Python code of the user's runs on threads of ours: no abort, and no noise."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from .conftest import PROBE

# how code blocks: `block()` says that it does, and never returns
BLOCKS = {
    "sleeps in a loop": "while True: time.sleep(0.001)",
    "sleeps": "time.sleep(3600)",
    "waits for a lock": "threading.Event().wait()",
    "is busy": "while True: pass",
    "is in C code without the GIL": "ctypes.CDLL(None).sleep(3600)",
    "is in C code that calls back": "sorted(range(10**9), key=lambda _: time.sleep(0.001))",
}

PRELUDE = """
import asyncio, atexit, ctypes, os, signal, sys, threading, time, wasgi
# started in the background, a process may have inherited that SIGINT is ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
probe, how = sys.argv[1:]
code = compile(how, "how", "exec")  # by which the interpreter does not forget that it was interrupted
def block():
    print("ready", flush=True)
    exec(code)
def iterate():
    yield b"x"
    block()
    yield b"y"
def close():
    try:
        while True:
            yield b"x" * 1000
    finally:
        block()
class Sink:
    def write(self, text):
        block()
class File:
    def read(self, size):
        block()
class Deleted:
    def __del__(self):
        block()
async def async_upstream(request):
    block()
async def async_iterate():
    yield b"x"
    block()
async def wait(request):
    print("ready", flush=True)
    await asyncio.Event().wait()
def app(**options):
    return wasgi.App(probe, limits=wasgi.Limits(timeout=None), **options)
def request(target, body=None):
    return wasgi.Request("POST" if body else "GET", "http://guest.local" + target, body=body)
fetch = request("/fetch?url=http://up/")
def never():
    while True:
        time.sleep(0.01)
"""

# where it does: calls that the main thread makes, and does not come back from
PLACES = {
    "an upstream": "app(outgoing=lambda request: block()).handle(fetch)",
    "the body of a request": "app().handle(request('/collect', iterate()))",
    "a file as the body of a request": "app().handle(request('/collect', File()))",
    "the body of a response": "app(outgoing=lambda request: wasgi.Response(body=iterate())).handle(fetch).read()",
    "a body read by an upstream": "app(outgoing=lambda request: wasgi.Response(body=wasgi.Request('GET', 'http://x/', body=iterate()).read())).handle(fetch)",
    "the end of a body": "response = app().handle(request('/echo', close())); next(iter(response)); response.close(); never()",
    "a sink": "app(stdout=lambda line: block(), outgoing=lambda request: wasgi.Response()).handle(request('/print-and-fetch?url=http://up/')); never()",
    "a file that is a sink": "app(stdout=Sink(), stderr=Sink()).handle(request('/stdio?n=3&tag=t')); never()",
    "`on_finish`": "app(on_finish=lambda exchange: block()).handle(request('/hello')).read(); never()",
    "a finalizer": "app(on_finish=lambda exchange: Deleted() and None).handle(request('/hello')).read(); never()",
    "a coroutine upstream": "app(outgoing=async_upstream).handle(fetch)",
    "an async body": "app().handle(request('/collect', async_iterate()))",
}


def python(code: str, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, str(PROBE), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> str:
    """What it has said on stderr by its end."""
    try:
        return process.communicate(timeout=50)[1]
    finally:
        process.kill()
        process.communicate()


def interrupted(code: str, how: str) -> tuple[int, str]:
    with python(code, how) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        stderr = end(process)
        return process.returncode, stderr


def is_only_an_interrupt(stderr: str) -> bool:
    return stderr.startswith("Traceback") and stderr.count("Traceback") == 1 and stderr.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize("how", BLOCKS)
@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c_ends_the_process(place: str, how: str) -> None:
    code, stderr = interrupted(PLACES[place], BLOCKS[how])
    assert is_only_an_interrupt(stderr), stderr
    assert code == -signal.SIGINT


ENDS = {
    "returns": ("", 0, ""),
    "`sys.exit`": ("sys.exit(3)", 3, ""),
    "`os._exit`": ("os._exit(3)", 3, ""),
    "raises": ("raise ZeroDivisionError", 1, "ZeroDivisionError"),
}


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("how", ["sleeps in a loop", "is busy", "sleeps"])
@pytest.mark.parametrize("place", PLACES)
def test_the_end_of_the_program_ends_the_process(place: str, how: str, ends: str) -> None:
    last, code, said = ENDS[ends]
    started = f"""
blocked = threading.Event()
def block(block=block):
    blocked.set()
    block()
def main():
    {PLACES[place]}
threading.Thread(target=main, daemon=True).start()
blocked.wait()
"""
    with python(started + last, BLOCKS[how]) as process:
        stderr = end(process)
        assert process.returncode == code
    assert stderr.strip().rpartition("\n")[2] == said, stderr
