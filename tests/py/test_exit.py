"""The interpreter's end, by Ctrl-C or by itself, while code of the user's runs on threads of ours: no abort."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import until
from tests.processes import told

# how code blocks: `block()` says that it does, and never returns
BLOCKS = {
    "sleeps in a loop": "while True: time.sleep(0.001)",
    "sleeps": "time.sleep(3600)",
    "waits for a lock": "threading.Event().wait()",
    "is busy": "while True: pass",
    "is in C code without the GIL": "ctypes.CDLL(None).sleep(3600)",
    "is in C code that calls back": "min(iter(int, 1), key=lambda _: time.sleep(0.001) or 0)",
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
prints = request("/print-and-fetch?url=http://up/")
def answer(request):
    return wasgi.Response()
def read(body):
    return wasgi.Response(body=wasgi.Request("GET", "http://x/", body=body).read())
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
    "a body that an upstream reads": "app(outgoing=lambda request: read(iterate())).handle(fetch)",
    "the end of a body": "got = app().handle(request('/echo', close())); next(iter(got)); got.close(); never()",
    "a sink": "app(stdout=lambda line: block(), outgoing=answer).handle(prints); never()",
    "a file that is a sink": "app(stdout=Sink(), stderr=Sink()).handle(request('/stdio?n=3&tag=t')); never()",
    "`on_finish`": "app(on_finish=lambda exchange: block()).handle(request('/hello')).read(); never()",
    "a finalizer": "app(on_finish=lambda exchange: Deleted() and None).handle(request('/hello')).read(); never()",
    "a coroutine upstream": "app(outgoing=async_upstream).handle(fetch)",
    "an async body": "app().handle(request('/collect', async_iterate()))",
}


Python = Callable[[str, str], subprocess.Popen[str]]


@pytest.fixture
def python(probe_path: Path) -> Python:
    def python(code: str, how: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, str(probe_path), how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return python


def end(process: subprocess.Popen[str]) -> str:
    """What it has said on stderr by its end."""
    try:
        return told(process.communicate(timeout=50)[1])
    finally:
        process.kill()
        process.communicate()


def is_asleep(process: subprocess.Popen[str]) -> bool:
    """Whether none of its threads runs. Elsewhere than on Linux that cannot be seen."""
    threads = Path(f"/proc/{process.pid}/task").glob("*/stat")
    try:
        return all(stat.read_text().rpartition(") ")[2].startswith("S") for stat in threads)
    except (FileNotFoundError, ProcessLookupError):
        return False  # one has ended meanwhile


def interrupted(python: Python, code: str, how: str) -> tuple[int, str]:
    with python(code, how) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if how == BLOCKS["sleeps"]:
            # Python forgets a signal that comes when `time.sleep` has looked for signals, and does not sleep yet
            until(lambda: is_asleep(process))
        process.send_signal(signal.SIGINT)
        stderr = end(process)
        return process.returncode, stderr


def is_only_an_interrupt(stderr: str) -> bool:
    return stderr.startswith("Traceback") and stderr.count("Traceback") == 1 and stderr.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize("how", ["sleeps in a loop", "is busy", "sleeps"])
@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c_ends_the_process(place: str, how: str, python: Python) -> None:
    code, stderr = interrupted(python, PLACES[place], BLOCKS[how])
    assert is_only_an_interrupt(stderr), stderr
    assert code == -signal.SIGINT


@pytest.mark.parametrize("how", sorted(BLOCKS))
def test_ctrl_c_ends_the_process_however_an_upstream_blocks(how: str, python: Python) -> None:
    code, stderr = interrupted(python, PLACES["an upstream"], BLOCKS[how])
    assert is_only_an_interrupt(stderr), stderr
    assert code == -signal.SIGINT


@pytest.mark.parametrize(
    "call", ["app(outgoing=wait).handle(fetch)", "asyncio.run(app(outgoing=wait).handle_async(fetch))"]
)
def test_nothing_is_said_of_a_coroutine_that_ctrl_c_cancels(call: str, python: Python) -> None:
    code, stderr = interrupted(python, call, "")
    assert "KeyboardInterrupt" in stderr
    assert "upstream" not in stderr.replace("outgoing", ""), stderr
    assert code == -signal.SIGINT


@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c_in_a_program_that_awaits(place: str, python: Python) -> None:
    """The calls block, but on another thread than the loop's."""
    function = f"def main():\n    {PLACES[place]}\n"
    code, stderr = interrupted(
        python,
        function + "threading.Thread(target=main, daemon=True).start()\nasyncio.run(asyncio.sleep(3600))",
        BLOCKS["sleeps in a loop"],
    )
    assert stderr.endswith("KeyboardInterrupt\n"), stderr
    assert code == -signal.SIGINT


ENDS = {
    "returns": ("", 0, ""),
    "`sys.exit`": ("sys.exit(3)", 3, ""),
    "`os._exit`": ("os._exit(3)", 3, ""),
    "raises": ("raise ZeroDivisionError", 1, "ZeroDivisionError"),
}


def ended(python: Python, place: str, how: str, ends: str) -> None:
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
        assert process.returncode == code, stderr
    assert stderr.strip().rpartition("\n")[2] == said, stderr


@pytest.mark.parametrize("how", ["sleeps in a loop", "is busy", "sleeps"])
@pytest.mark.parametrize("place", PLACES)
def test_the_end_of_the_program_ends_the_process(place: str, how: str, python: Python) -> None:
    ended(python, place, how, "returns")


@pytest.mark.parametrize("ends", ENDS)
def test_however_a_program_ends(ends: str, python: Python) -> None:
    ended(python, "an upstream", "sleeps in a loop", ends)


def test_a_program_ends_while_its_threads_make_requests_of_headers_and_bodies(python: Python) -> None:
    """Short calls into Python code under frames of ours, too: the interpreter may end a thread in any of them."""
    with python(
        """
class Fields(dict):
    def items(self):
        for item in super().items():
            sum(range(1000))
            yield item
def make():
    while True:
        made = wasgi.Request("POST", "http://x/", headers=Fields(a="b"), body=iter([b"x"] * 10))
        made.read()
        repr(made.headers)
for _ in range(8):
    threading.Thread(target=make, daemon=True).start()
time.sleep(0.2)
""",
        "",
    ) as process:
        stderr = end(process)
    assert (process.returncode, stderr) == (0, "")


def test_the_lines_that_follow_are_delivered_when_ctrl_c_ends_a_sink(python: Python) -> None:
    # The sink that Ctrl-C ends is one on the main thread: it delivers what a guest has printed that was done in its
    # first turn. A guest on a busy machine may need another, and its lines come on a thread of ours: then it is asked
    # once more.
    # Each line is printed in one piece, for two threads print.
    code = r"""
interrupted = None
def sink(line):
    global interrupted
    if interrupted is None and threading.current_thread() is threading.main_thread():
        interrupted = line.exchange
        print(f"{4 - int(line.split()[1])} follow\n", end="", flush=True)
        block()
    elif line.exchange == interrupted:
        print(f"{line}\n", end="", flush=True)
guest = app(stdout=sink, stderr=lambda line: None)
try:
    while True:
        guest.handle(request("/chatter?n=5"))
except KeyboardInterrupt:
    print("interrupted\n", end="", flush=True)
"""
    with python(code, BLOCKS["sleeps in a loop"]) as process:
        assert process.stdout is not None
        follow = int(process.stdout.readline().removesuffix(" follow\n"))
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=50)
    assert (process.returncode, stderr) == (0, "")
    lines = stdout.splitlines()
    assert "interrupted" in lines
    assert len(lines) == 1 + follow


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="the module of 3.11 to 3.13")
def test_a_sub_interpreter_that_imports_first_and_is_not_destroyed() -> None:
    script = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
other = interpreters.create()
interpreters.run_string(other, "import wasgi, wasgi._native.background_loop")
print("leaving")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


def test_a_package_that_is_imported_again_forks_and_exits(python: Python) -> None:
    with python(
        """
import importlib
app().handle(request("/hello"))
importlib.reload(wasgi)
for name in [name for name in sys.modules if name.partition(".")[0] == "wasgi"]:
    del sys.modules[name]
import wasgi
child = os.fork()
if child == 0:
    os._exit(0 if wasgi.App(probe).handle(wasgi.Request("GET", "http://x/hello")).status == 200 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""",
        "",
    ) as process:
        stderr = end(process)
    assert (process.returncode, stderr) == (0, "")


def test_an_import_while_the_interpreter_exits(probe_path: Path) -> None:
    script = """
import atexit, sys
def late():
    import wasgi
    print(wasgi.App(sys.argv[1]).handle(wasgi.Request("GET", "http://x/hello")).text)
atexit.register(late)
"""
    done = subprocess.run([sys.executable, "-c", script, str(probe_path)], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello, World!\n", "")
