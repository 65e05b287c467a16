"""Where the system refuses something: it is done without, and said; or there is an error that names it."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import HELLO, ROOT

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="the sandbox is Linux's seccomp"
)

BEGIN = """
import ctypes, errno, logging, os, resource, sys
from tests.confinement import *
import wasgi
logging.basicConfig(format="%(message)s")
def get(route="/hello"):
    return wasgi.Request("GET", "http://guest.local" + route)
def attempt(work):
    try:
        print(work())
    except BaseException as error:
        print(f"{type(error).__name__}: {error}")
"""
HELLO_IS_SAID = "print(wasgi.App(sys.argv[1]).handle(get()).text)"


def run(
    script: str, *, component: Path = HELLO, cache: Path | None = None, limit: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script, str(component)],
        env={**os.environ, "WASGI_CACHE_DIR": str(cache or "")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=55,
        preexec_fn=limit,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "panicked" not in done.stderr
    return done


def swaps() -> bool:
    return len(Path("/proc/swaps").read_text().splitlines()) > 1


class TestPagemapScan:
    """Why guests are reset in the slower way is told as it is."""

    @pytest.fixture(autouse=True)
    def without_swap(self) -> None:
        if swaps():
            pytest.skip("this machine swaps, and nothing else is looked at then")

    def test_refused(self) -> None:
        done = run('refuse("ioctl", argument=1, equals=PAGEMAP_SCAN)\n' + HELLO_IS_SAID)
        assert done.stdout == "Hello, World!\n"
        assert done.stderr.startswith(
            "the ioctl PAGEMAP_SCAN is refused: Operation not permitted (os error 1): guests "
        )

    def test_an_old_kernel(self) -> None:
        done = run('refuse("ioctl", errno.ENOTTY, argument=1, equals=PAGEMAP_SCAN)\n' + HELLO_IS_SAID)
        assert done.stdout == "Hello, World!\n"
        assert done.stderr.startswith("this kernel has no PAGEMAP_SCAN (Linux 6.7): guests ")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
    def test_another_user(self, probe_path: Path) -> None:
        """Which may be one that cannot read the standard library: what an exchange needs of it is imported before, and
        what one needs whose guest waits is more."""
        done = run(
            "component = open(sys.argv[1], 'rb').read()\nsys.path[:] = []\nos.setuid(65534)\n"
            "app = wasgi.App(component)\n"
            "print(app.handle(get()).text)\nprint(app.handle(get('/sleep?ms=20')).text)",
            component=probe_path,
        )
        assert done.stdout == "Hello, World!\nslept\n"
        assert done.stderr.startswith("`/proc/self/pagemap` cannot be opened: Permission denied (os error 13): guests ")
        assert "Linux 6.7" not in done.stderr

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide `/proc`")
    def test_proc_is_hidden(self) -> None:
        done = run(
            "libc = ctypes.CDLL(None)\n"
            "assert libc.unshare(0x20000) == 0\n"  # CLONE_NEWNS
            "assert libc.mount(b'none', b'/', None, 0x44000, None) == 0\n"  # MS_REC | MS_PRIVATE
            "assert libc.mount(b'none', b'/proc', b'tmpfs', 0, None) == 0\n" + HELLO_IS_SAID
        )
        assert done.stdout == "Hello, World!\n"
        assert done.stderr.startswith("`/proc/self/pagemap` cannot be opened: No such file or directory (os error 2): ")


class TestThreads:
    def test_none_can_be_started(self, tmp_path: Path) -> None:
        """The component is compiled on the calling thread; to run it takes a thread, and the error names the limit."""
        done = run(
            "refuse_threads()\n"
            "attempt(lambda: wasgi.Component(sys.argv[1]))\n"
            "attempt(lambda: wasgi.App(sys.argv[1]).handle(get()))\n"
            "attempt(lambda: wasgi.App(sys.argv[1]).handle(get('/hello?again')))",
            cache=tmp_path / "cache",
        )
        component, *errors = done.stdout.splitlines()
        assert component.startswith("<wasgi.Component hello.wasm ")
        assert len(errors) == 2
        for error in errors:
            assert error.startswith("WasgiError: no thread can be started for ")
            assert "`ulimit -u`, and `pids.max` of the control group" in error
        assert len(list((tmp_path / "cache").glob("*.code"))) == 1

    def test_no_more_can_be_started_after_the_first_app(self, probe_path: Path) -> None:
        done = run(
            "app = wasgi.App(sys.argv[1])\nprint(app.handle(get()).text)\n"
            "refuse_threads()\n"
            "attempt(lambda: app.handle(get()).text)\n"
            "attempt(lambda: wasgi.Component(b'(component)'))\n"
            "attempt(lambda: app.handle(get('/sleep?ms=1')).text)",
            component=probe_path,
        )
        hello, again, component, slept = done.stdout.splitlines()
        assert hello == "Hello, World!"
        assert component.startswith("<wasgi.Component ")
        # by the threads that there are, or not at all
        for answer, text in [(again, hello), (slept, "slept")]:
            assert answer == text or answer.startswith("WasgiError: no thread can be started for ")

    def test_what_is_compiled_on_one_thread_is_what_is_compiled_on_many(self, tmp_path: Path) -> None:
        run("refuse_threads()\nwasgi.Component(sys.argv[1])", cache=tmp_path / "one")
        run("wasgi.Component(sys.argv[1])", cache=tmp_path / "many")
        [one], [many] = ((tmp_path / name).glob("*.code") for name in ("one", "many"))
        assert one.name == many.name
        assert one.read_bytes() == many.read_bytes()


class TestSignalStacks:
    def test_are_refused(self) -> None:
        done = run('refuse("sigaltstack")\nattempt(lambda: wasgi.App(sys.argv[1]).handle(get()))')
        assert done.stdout.startswith(
            "WasgiError: stacks for signal handlers are refused, and no guest can run without: Operation not permitted "
        )


class TestMemory:
    def test_a_process_that_locks_all_its_memory(self) -> None:
        script = """
libc = ctypes.CDLL(None)
if libc.mlockall(3):  # MCL_CURRENT | MCL_FUTURE
    print("refused")
    sys.exit()
app = wasgi.App(sys.argv[1])
for _ in range(20):
    print(app.handle(get()).text)
resident = [line for line in open("/proc/self/status") if line.startswith("VmRSS")]
print(int(resident[0].split()[1]) // 1024)
"""
        done = run(script)
        if done.stdout == "refused\n":
            pytest.skip("this user may not lock memory")
        *answers, resident = done.stdout.splitlines()
        assert answers == ["Hello, World!"] * 20
        assert int(resident) < 3000
        assert "no pool of instances is set up" in done.stderr

    @pytest.mark.parametrize("gigabytes", [3, 4, 8])
    def test_few_addresses(self, gigabytes: int, probe_path: Path) -> None:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (gigabytes << 30, gigabytes << 30))

        script = """
app = wasgi.App(sys.argv[1])
print(app.handle(get()).text)
held = [app.handle(get("/endless")) for _ in range(10)]
print(app.handle(get("/alloc?mib=64")).text)
"""
        done = run(script, component=probe_path, limit=limit)
        assert done.stdout == "Hello, World!\n64\n"

    def test_what_the_system_refuses_is_no_trap(self, probe_path: Path) -> None:
        script = """
app = wasgi.App(sys.argv[1])
held = [app.handle(get("/endless"))]
refuse("mprotect", errno.ENOMEM)
for _ in range(3):  # slots of the pool, the first of which may have its memory already
    attempt(lambda: held.append(app.handle(get("/endless"))))
outcomes = wasgi.stats().outcomes
print(outcomes["failed"], outcomes["trapped"])
"""
        *answers, outcomes = run(script, component=probe_path).stdout.splitlines()
        refused = [answer for answer in answers if answer != "None"]
        assert refused
        for answer in refused:
            assert answer.startswith("WasgiError: the system has refused what the host needs: ")
            assert "`ulimit -v`" in answer
        assert outcomes == f"{len(refused)} 0"

    def test_small_files_only(self) -> None:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

        done = run(HELLO_IS_SAID, limit=limit)
        assert done.stdout == "Hello, World!\n"
        assert "files in memory may have 1000 bytes only (`ulimit -f`): each instance copies" in done.stderr

    def test_files_in_memory_are_refused(self, tmp_path: Path) -> None:
        for _ in range(2):  # compiled, and from the cache
            done = run('refuse("memfd_create")\n' + HELLO_IS_SAID, cache=tmp_path / "cache")
            assert done.stdout == "Hello, World!\n"
            assert "files in memory are refused (`memfd_create`: Operation not permitted" in done.stderr
        assert len(list((tmp_path / "cache").glob("*.code"))) == 1

    def test_code_that_was_made_in_memory_is_refused(self, tmp_path: Path) -> None:
        """As with `MemoryDenyWriteExecute=` of systemd."""
        script = (
            'refuse("mprotect", errno.EACCES, argument=2, has=PROT_EXEC)\nattempt(lambda: wasgi.Component(sys.argv[1]))'
        )
        for _ in range(2):
            done = run(script, cache=tmp_path / "cache")
            assert done.stdout.startswith("WasgiError: the system has refused what the host needs: ")
            assert "`MemoryDenyWriteExecute=` with systemd" in done.stdout
            run("wasgi.Component(sys.argv[1])", cache=tmp_path / "cache")
