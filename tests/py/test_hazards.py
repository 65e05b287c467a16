"""Python's own hazards: forks, exits, signals, loops that come and go. Most run in a process of their own."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import wasgi
from tests.conftest import HELLO, PROBE, AppMaker, get, post, until
from tests.processes import run


@pytest.mark.parametrize("route", ["/spin", "/sleep?ms=60000", "/fetch?url=http://up/"])
def test_ctrl_c_interrupts_a_blocking_call(route: str, probe_path: Path) -> None:
    script = """
import signal, sys, wasgi
# started in the background, a process may have inherited that SIGINT is ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
def upstream(request):
    import time
    time.sleep(40)
app = wasgi.App(sys.argv[1], outgoing=upstream, limits=wasgi.Limits(timeout=None))
try:
    print("ready", flush=True)
    app.handle(wasgi.Request("GET", "http://guest.local" + sys.argv[2]))
except KeyboardInterrupt:
    print("interrupted", app.handle(wasgi.Request("GET", "http://guest.local/hello")).text, flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(probe_path), route], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            timer = threading.Timer(1.0, process.send_signal, [signal.SIGINT])
            timer.start()
            assert process.stdout.readline() == "interrupted Hello, World!\n"
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_the_interpreter_exits_with_guests_in_flight(probe_path: Path) -> None:
    script = """
import sys, threading, wasgi
app = wasgi.App(sys.argv[1], outgoing=lambda request: threading.Event().wait(), limits=wasgi.Limits(timeout=None))
routes = ["/spin", "/sleep?ms=60000", "/fetch?url=http://up/"]
started = threading.Barrier(len(routes) + 1)
def work(route):
    started.wait()
    app.handle(wasgi.Request("GET", "http://guest.local" + route))
for route in routes:
    threading.Thread(target=work, args=[route], daemon=True).start()
started.wait()
kept = app.handle(wasgi.Request("GET", "http://guest.local/endless"))
print("leaving")
"""
    done = run(script, str(probe_path))
    assert (done.returncode, done.stdout) == (0, "leaving\n"), done.stderr


def test_the_first_callers_context_is_let_go(probe_path: Path) -> None:
    """Whatever was made for the first call stays; what that caller had in its context does not."""
    script = """
import contextvars, gc, sys, time, weakref
import wasgi

class Credentials: pass

mine = contextvars.ContextVar("mine")
app = wasgi.App(sys.argv[1], outgoing=lambda request: wasgi.Response(body=iter([b"up"])))

def call():
    credentials = Credentials()
    mine.set(credentials)
    request = wasgi.Request("POST", "http://guest.local/proxy?url=https://a/", body=iter([b"x"]))
    with app.handle(request) as response:
        assert response.read() == b"up"
        response.wait()
    return weakref.ref(credentials)

kept = contextvars.copy_context().run(call)
deadline = time.monotonic() + 20
while kept() is not None and time.monotonic() < deadline:
    gc.collect()
    time.sleep(0.001)
print("kept" if kept() is not None else "let go")
"""
    done = run(script, str(probe_path))
    assert done.stdout.split() == ["let", "go"], done.stderr


def test_a_forked_child_has_a_world_of_its_own(probe_path: Path) -> None:
    script = """
import os, sys, wasgi
app = wasgi.App(sys.argv[1], outgoing=lambda request: wasgi.Response(body=b"up"))
def call(route):
    return app.handle(wasgi.Request("GET", "http://guest.local" + route)).text
print(call("/hello"), call("/fetch?url=http://up/"), call("/sleep?ms=1"), flush=True)
child = os.fork()
print(call("/hello"), call("/fetch?url=http://up/"), call("/sleep?ms=1"), flush=True)
if child == 0:
    wasgi.Component(open(sys.argv[2], "rb").read())
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
    done = run(script, str(probe_path), str(HELLO))
    lines = done.stdout.splitlines()
    assert lines == ["Hello, World! up slept"] * 3 + ["7"], done.stderr


def test_importing_starts_nothing() -> None:
    script = """
import sys, threading
before = set(sys.modules)
import wasgi
import os
print(threading.active_count(), len(os.listdir("/proc/self/task")))
print("asyncio" in set(sys.modules) - before)
"""
    done = run(script)
    assert done.stdout == "1 1\nFalse\n"
    assert done.stderr == ""


def test_uvloop(app: AppMaker) -> None:
    import uvloop

    async def upstream(request: wasgi.Request) -> wasgi.Response:
        await asyncio.sleep(0.001)
        return wasgi.Response(body=b"up")

    async def body() -> AsyncIterator[bytes]:
        yield b"one "
        await asyncio.sleep(0.001)
        yield b"two"

    async def main() -> tuple[bytes, bytes]:
        made = app(outgoing=upstream)
        fetched = await made.handle_async(get("/fetch?url=http://up/"))
        echoed = await made.handle_async(post("/echo", body()))
        return await fetched.aread(), await echoed.aread()

    for _ in range(2):
        loop = uvloop.new_event_loop()
        try:
            assert loop.run_until_complete(main()) == (b"up", b"one two")
        finally:
            loop.close()


async def test_outside_of_asyncio_there_is_a_clear_error(app: AppMaker) -> None:
    def work() -> None:
        awaitable = app(outgoing=lambda request: wasgi.Response()).handle_async(get("/hello"))
        with pytest.raises(RuntimeError, match="no running event loop"):
            awaitable.send(None)

    await asyncio.to_thread(work)


PRELUDE = """
import asyncio, faulthandler, os, signal, sys, threading, wasgi
PROBE, HELLO = sys.argv[1:3]
def get(route):
    return wasgi.Request("GET", "http://guest.local" + route)
"""


Check = Callable[..., str]


@pytest.fixture
def check(probe_path: Path) -> Check:
    """Runs a script, whose output and end are to be these. Returns what it wrote to stderr."""

    def check(script: str, expected: list[str], *, code: int = 0) -> str:
        done = run(PRELUDE + script, str(probe_path), str(HELLO))
        assert (done.stdout.splitlines(), done.returncode) == (expected, code), done.stderr
        return done.stderr

    return check


class TestFork:
    def test_multiprocessing_fork(self, check: Check) -> None:
        check(
            """
import multiprocessing
app = wasgi.App(PROBE)
def work(n):
    return app.handle(get(f"/sleep?ms={n}")).text + app.handle(get("/hello")).text
work(1)
with multiprocessing.get_context("fork").Pool(3) as pool:
    print(set(pool.map(work, range(20))))
print(work(1))
""",
            ["{'sleptHello, World!'}", "sleptHello, World!"],
        )

    def test_multiprocessing_spawn(self, check: Check) -> None:
        """A component travels by pickle; an app is made anew."""
        check(
            """
import concurrent.futures, multiprocessing
def main():
    component = wasgi.Component(PROBE)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for digest in pool.map(getattr, [component] * 4, ["digest"] * 4):
            print(digest == component.digest)
if __name__ == "__main__":
    main()
""",
            ["True"] * 4,
        )

    def test_workers_that_are_forked_before_they_serve(self, check: Check) -> None:
        """As gunicorn does with an application that is loaded first, and again when a worker dies."""
        check(
            """
app = wasgi.App(PROBE, outgoing=lambda request: wasgi.Response(body=b"up"), limits=wasgi.Limits(concurrency=1, queue=1))
kept = app.handle(get("/endless"))  # the only place is taken in the parent, not in its children
def worker(code):
    if os.fork() == 0:
        async def main():
            return await (await app.handle_async(get("/fetch?url=http://up/"))).aread()
        assert asyncio.run(main()) == b"up"
        assert app.handle(get("/sleep?ms=1")).text == "slept"
        sys.exit(code)
for code in (1, 2):
    worker(code)
codes = sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2))
worker(3)
print(codes, os.waitstatus_to_exitcode(os.wait()[1]))
kept.close()
""",
            ["[1, 2] 3"],
        )

    def test_a_response_of_the_parents_is_out_of_the_childs_reach(self, check: Check) -> None:
        check(
            """
app = wasgi.App(PROBE)
response, other = app.handle(get("/slow-body?ms=500")), app.handle(get("/slow-body?ms=500"))
child = os.fork()
if child == 0:
    for read in (response.read, other.wait, other.close):
        try:
            read()
        except wasgi.WasgiError as error:
            print(type(error).__name__, "parent process" in str(error), flush=True)
    del response, other
    print(app.handle(get("/hello")).text, flush=True)
    sys.exit(0)
os.waitpid(child, 0)
print(response.text, other.text)
""",
            ["BodyError True", "WasgiError True", "Hello, World!", "firstlast firstlast"],
        )

    def test_a_child_of_a_threaded_parent_in_the_midst_of_work(self, check: Check) -> None:
        check(
            """
app = wasgi.App(PROBE, outgoing=lambda request: wasgi.Response(body=b"up"))
stop = threading.Event()
def work():
    while not stop.is_set():
        app.handle(get("/fetch?url=http://up/")).read()
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
codes = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        text = app.handle(get("/fetch?url=http://up/")).text
        counted = wasgi.stats()
        os._exit(0 if text == "up" and counted.calls == 0 else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
for thread in threads:
    thread.join()
print(codes)
""",
            [str([0] * 10)],
        )


@pytest.mark.parametrize(
    "name",
    [
        "contextvars.copy_context",
        "weakref.WeakKeyDictionary",
        "asyncio.get_running_loop",
        "wasgi.headers.Headers",
    ],
)
def test_a_fork_while_another_thread_looks_for_what_is_looked_for_once(check: Check, name: str) -> None:
    """The child looks for it itself: nobody ends there what that thread has begun."""
    module, attribute = name.rsplit(".", 1)
    check(
        f"""
import types
app = wasgi.App(PROBE, outgoing=lambda request: wasgi.Response())
async def work():
    response = await app.handle_async(get("/fetch?url=http://up/"))
    response.headers
    try:
        await app.handle_async(get("/trap"))
    except wasgi.TrapError:
        return response.status
first = threading.Thread(target=lambda: asyncio.run(work()))
asked, go_on, given = threading.Event(), threading.Event(), sys.modules["{module}"]
class Asked(types.ModuleType):
    def __getattr__(self, name):
        if name == "{attribute}" and threading.current_thread() is first:
            asked.set()
            go_on.wait()
        return getattr(given, name)
sys.modules["{module}"] = Asked("{module}")
first.start()
asked.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if asyncio.run(work()) == 200 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
go_on.set()
first.join()
""",
        ["0"],
    )


def test_a_fork_while_another_thread_makes_an_engine(check: Check) -> None:
    """Whatever lock that thread holds, it does not exist in the child."""
    check(
        """
import time
codes = set()
for delay in (0, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016):
    if os.fork() == 0:  # a process whose first engines these are
        if delay > 0.002:
            wasgi.Component(HELLO)
        making = threading.Thread(target=lambda: wasgi.App(HELLO, limits=wasgi.Limits(fuel=1000)))
        making.start()
        time.sleep(delay)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if wasgi.App(PROBE).handle(get("/hello")).text == "Hello, World!" else 1)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256)
    codes.add(os.waitstatus_to_exitcode(os.wait()[1]))
print(codes)
""",
        ["{0}"],
    )


def test_a_fork_while_other_threads_load_and_drop_components() -> None:
    """wasmtime lists machine code under a lock of the process's. A child finds it open."""
    script = """
code = open(PROBE, "rb").read()
stop = threading.Event()
def load():
    while not stop.is_set():
        wasgi.Component(code)
threads = [threading.Thread(target=load) for _ in range(3)]
for thread in threads:
    thread.start()
codes = set()
for _ in range(100):
    if os.fork() == 0:
        signal.alarm(20)
        wasgi.Component(code)
        os._exit(0)
    codes.add(os.waitstatus_to_exitcode(os.wait()[1]))
stop.set()
for thread in threads:
    thread.join()
print(codes)
"""
    done = run(PRELUDE + script, str(PROBE), str(HELLO))
    assert (done.stdout, done.returncode) == ("{0}\n", 0), done.stderr


TRAPS = {
    "unreachable": "unreachable",
    "divide by zero": "(drop (i32.div_s (i32.const 1) (i32.const 0)))",
    "integer overflow": "(drop (i32.div_s (i32.const -2147483648) (i32.const -1)))",
    "invalid conversion to integer": "(drop (i32.trunc_f32_s (f32.const nan)))",
    "out of bounds memory access": "(drop (i32.load (i32.const -8)))",
    "call stack exhausted": "(call $handle (i32.const 0) (i32.const 0))",
    "uninitialized element": "(call_indirect (i32.const 1))",
    "out of bounds table access": "(drop (table.get (i32.const 99)))",
}


class TestForeignSignalHandlers:
    """Handlers that others install when the engine exists must not turn a guest's trap into the process's death."""

    SCRIPT = """
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(PROBE))) + "/../..")
from tests.conftest import bare
from tests.py.test_hazards import TRAPS
def trap():
    for words, body in TRAPS.items():
        app = wasgi.App(bare(body, "(memory 1) (table 2 funcref)"))
        try:
            app.handle(get("/"))
        except wasgi.TrapError as error:
            assert words in str(error), (words, error)
    app = wasgi.App(PROBE)
    for route in ("/trap", "/out-of-bounds", "/overflow?n=10000000"):
        # once on this thread, once on one of the runtime's, where a guest that has waited goes on
        for request in (get(route), get("/fetch-and-trap?ms=5&url=http://up/")):
            try:
                app.handle(request).read()
            except (wasgi.TrapError, wasgi.BodyError):
                pass
            else:
                print("no trap")
wasgi.App(PROBE).handle(get("/hello"))
"""

    def test_faulthandler(self, check: Check) -> None:
        """On, off, on again, and traced to a file: each time guests trap, and the process lives."""
        check(
            self.SCRIPT
            + """
for _ in range(3):
    faulthandler.enable()
    trap()
    faulthandler.disable()
    trap()
faulthandler.enable(file=open(os.devnull, "w"))
trap()
print("alive")
""",
            ["alive"],
        )

    def test_faulthandler_that_was_there_first(self, probe_path: Path) -> None:
        done = run(
            "import faulthandler\nfaulthandler.enable()\n" + PRELUDE + self.SCRIPT + "trap()\nprint('alive')\n",
            str(probe_path),
            str(HELLO),
        )
        assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr

    @pytest.mark.parametrize("name", ["SIGSEGV", "SIGILL", "SIGFPE", "SIGBUS"])
    def test_handlers_of_others(self, name: str, check: Check) -> None:
        """By Python's own `signal`, and by C: one with information on the fault, and the system's default."""
        check(
            self.SCRIPT
            + f"""
import ctypes
signal.signal(signal.{name}, lambda *args: print("python's"))
trap()
ended = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: os._exit(5))
libc = ctypes.CDLL(None)
libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.signal(signal.{name}, ctypes.cast(ended, ctypes.c_void_p))
trap()
libc.signal(signal.{name}, None)
trap()
print("alive")
""",
            ["alive"],
        )

    @pytest.mark.parametrize("when", ["before", "after", "never"])
    def test_a_real_fault_still_ends_the_process(self, when: str, check: Check) -> None:
        stderr = check(
            ("faulthandler.enable()\n" if when == "before" else "")
            + self.SCRIPT
            + ("faulthandler.enable()\n" if when == "after" else "")
            + """
trap()
import ctypes
print("now", flush=True)
ctypes.string_at(0)
""",
            ["now"],
            code=-signal.SIGSEGV,
        )
        assert stderr.count("Fatal Python error: Segmentation fault") == (0 if when == "never" else 1), stderr

    def test_a_real_fault_after_a_handler_was_switched_off(self, check: Check) -> None:
        """`faulthandler.disable()` puts back what it found, ours, which asks it once more: it does nothing any more."""
        stderr = check(
            self.SCRIPT
            + """
trap()
faulthandler.enable()
trap()
faulthandler.disable()
import ctypes
print("now", flush=True)
ctypes.string_at(0)
""",
            ["now"],
            code=-signal.SIGSEGV,
        )
        assert "Fatal Python error" not in stderr

    def test_a_fault_signal_that_somebody_sends(self, check: Check) -> None:
        stderr = check(
            self.SCRIPT
            + "faulthandler.enable()\ntrap()\nprint('now', flush=True)\nos.kill(os.getpid(), signal.SIGFPE)\n",
            ["now"],
            code=-signal.SIGFPE,
        )
        assert stderr.count("Fatal Python error: Floating") == 1, stderr

    def test_a_python_handler_is_still_called(self, check: Check) -> None:
        check(
            self.SCRIPT
            + """
seen = []
signal.signal(signal.SIGFPE, lambda number, frame: seen.append(number))
trap()
assert seen == []
os.kill(os.getpid(), signal.SIGFPE)
print(seen == [signal.SIGFPE])
""",
            ["True"],
        )


class TestLoops:
    def test_two_loops_in_two_threads(self, app: AppMaker) -> None:
        async def upstream(request: wasgi.Request) -> wasgi.Response:
            await asyncio.sleep(0)
            return wasgi.Response(body=threading.current_thread().name.encode())

        made = app(outgoing=upstream)
        seen: dict[str, set[bytes]] = {}

        async def main() -> set[bytes]:
            async def one() -> bytes:
                return await (await made.handle_async(get("/fetch?url=http://up/"))).aread()

            return set(await asyncio.gather(*(one() for _ in range(50))))

        def work() -> None:
            seen[threading.current_thread().name] = asyncio.run(main())

        threads = [threading.Thread(target=work, name=name) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == {"one": {b"one"}, "two": {b"two"}}

    def test_loops_one_after_the_other(self, app: AppMaker) -> None:
        async def upstream(request: wasgi.Request) -> wasgi.Response:
            await asyncio.sleep(0)
            return wasgi.Response(body=b"up")

        made = app(outgoing=upstream)

        async def main() -> bytes:
            return await (await made.handle_async(get("/fetch?url=http://up/"))).aread()

        assert [asyncio.run(main()) for _ in range(5)] == [b"up"] * 5

    def test_a_hook_whose_loop_has_closed(self, app: AppMaker) -> None:
        """The guest goes on after its caller's loop is gone, and asks for what only that loop could answer."""

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response(body=b"up")

        made = app(outgoing=upstream, limits=wasgi.Limits(timeout=None))
        loop = asyncio.new_event_loop()
        response = loop.run_until_complete(made.handle_async(get("/then-fetch?ms=100&url=http://up/")))
        loop.close()
        assert response.text == "InternalError: the event loop that should answer has closed"

    def test_a_hook_that_is_under_way_when_its_loop_closes(self, app: AppMaker) -> None:
        called = threading.Event()

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            called.set()
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

        made = app(outgoing=upstream, limits=wasgi.Limits(timeout=None))
        loop = asyncio.new_event_loop()

        async def main() -> wasgi.Response:
            response = await made.handle_async(get("/then-fetch?ms=0&url=http://up/"))
            while not called.is_set():
                await asyncio.sleep(0)
            return response

        response = loop.run_until_complete(main())
        # closed with a task that nobody has cancelled: `asyncio.run` would have
        pending = asyncio.all_tasks(loop)
        loop.close()
        assert response.text == "InternalError: the event loop that should answer has closed"
        for task in pending:
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    def test_a_body_whose_loop_has_closed(self, app: AppMaker) -> None:
        entered = threading.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b"begun"
            entered.set()
            await asyncio.Event().wait()

        made = app(limits=wasgi.Limits(timeout=None))
        loop = asyncio.new_event_loop()

        async def main() -> wasgi.Response:
            response = await made.handle_async(post("/echo", body()))
            while not entered.is_set():
                await asyncio.sleep(0)
            return response

        response = loop.run_until_complete(main())
        pending = asyncio.all_tasks(loop)
        loop.close()
        with pytest.raises(wasgi.BodyError, match="the event loop that should answer has closed"):
            response.read()
        for task in pending:
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    def test_a_response_may_be_read_where_no_loop_runs_any_more(self, app: AppMaker) -> None:
        response = asyncio.run(app().handle_async(get("/slow-body?ms=50")))
        assert response.text == "firstlast"

    def test_trio_is_told_what_to_do(self, app: AppMaker) -> None:
        import trio

        async def main() -> str:
            with pytest.raises(RuntimeError, match=r"under trio in a thread: `await trio.to_thread.run_sync"):
                await app().handle_async(get("/hello"))
            assert wasgi.stats().exchanges == 0, "no guest has run for nothing"
            response = await trio.to_thread.run_sync(app().handle, get("/slow-body?ms=20"))
            return await trio.to_thread.run_sync(lambda: response.text)

        assert trio.run(main) == "firstlast"

    def test_anyio_on_asyncio(self, app: AppMaker) -> None:
        import anyio

        async def main() -> None:
            async def one(route: str) -> None:
                response = await app().handle_async(get(route))
                assert (await response.aread()).startswith(b"first")

            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(one, "/slow-body?ms=20")
            with anyio.move_on_after(0.05) as scope:
                await one("/slow-body?ms=60000")
            assert scope.cancelled_caught

        anyio.run(main)
        until(lambda: wasgi.stats().exchanges == 0)


def test_sub_interpreters_are_refused(check: Check) -> None:
    check(
        """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
other = interpreters.create()
try:
    failure = interpreters.run_string(other, "import wasgi")
except Exception as error:
    failure = error
print("wasgi works in one interpreter of a process" in str(failure))
print(wasgi.App(PROBE).handle(get("/hello")).text)
""",
        ["True", "Hello, World!"],
    )


def test_exit_with_work_after_a_response_and_open_apps(check: Check) -> None:
    check(
        """
app = wasgi.App(PROBE, limits=wasgi.Limits(timeout=None, concurrency=2, queue=5))
app.handle(get("/then?then=spin")).read()
app.handle(get("/then?then=sleep&ms=60000")).read()
for method in (app.handle, app.close):
    threading.Thread(target=method, args=[get("/hello")] if method == app.handle else [None], daemon=True).start()
while wasgi.stats().queued == 0 and not app.closed:
    pass
print("leaving")
""",
        ["leaving"],
    )


def test_a_hook_that_calls_the_same_app_again(app: AppMaker) -> None:
    def upstream(request: wasgi.Request) -> wasgi.Response:
        depth = int(request.path.strip("/"))
        if depth == 0:
            return wasgi.Response(body=b"bottom")
        return made.handle(get(f"/fetch?url=http://up/{depth - 1}"))

    made = app(outgoing=upstream)
    assert made.handle(get("/fetch?url=http://up/3")).text == "bottom"


@pytest.mark.parametrize("attempt", range(3))
def test_exit_while_daemon_threads_ask_guests_all_the_time(attempt: int, probe_path: Path) -> None:
    """Before Python 3.14 the interpreter ends them where they stand, in frames of Rust, too."""
    script = """
import sys, threading, wasgi

app = wasgi.App(sys.argv[1], stdout=lambda line: None)
def ask(route):
    while True:
        app.handle(wasgi.Request("GET", f"http://guest.local{route}")).read()

for number in range(12):
    route = ["/hello", "/sleep?ms=5", "/chatter?n=50"][number % 3]
    threading.Thread(target=ask, args=[route], daemon=True).start()
while not wasgi.stats().exchanges:
    pass
print("leaving")
"""
    done = subprocess.run([sys.executable, "-c", script, str(probe_path)], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")
