"""`wasgi serve` as a process, and its workers: signals, reloads, deaths."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.load import Load
from tests.conftest import HELLO, PROBE, until

COMMAND = [sys.executable, "-m", "wasgi", "serve"]


# started in the background, a process may have inherited that SIGINT is ignored
HEARS_SIGINT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Served:
    """A server in a process of its own; what it says is in a file."""

    def __init__(self, folder: Path, *arguments: str, port: int = 0, alone: bool = False) -> None:
        self.said = folder / "stderr"
        with self.said.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", HEARS_SIGINT, *COMMAND, *arguments, "--port", str(port)],
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                start_new_session=alone,
            )

    def __str__(self) -> str:
        return self.said.read_text()

    def until(self, pattern: str) -> re.Match[str]:
        found: list[re.Match[str]] = []

        def said() -> bool:
            match = re.search(pattern, str(self))
            found.extend([match] if match else [])
            return match is not None or self.process.poll() is not None

        until(said)
        assert found, str(self)
        return found[0]

    @property
    def url(self) -> str:
        return self.until(r"serves at (http://\S+)\n")[1]

    def workers(self) -> list[int]:
        return [int(number) for number in self.until(r"workers?: processes ([\d, ]+)")[1].split(",")]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@contextlib.contextmanager
def serving(folder: Path, *arguments: str, port: int = 0, alone: bool = False) -> Iterator[Served]:
    """`alone`: in a session without a terminal."""
    served = Served(folder, *arguments, port=port, alone=alone)
    try:
        yield served
    finally:
        with contextlib.suppress(ProcessLookupError):
            served.process.kill()
        served.process.wait()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as response:
        return str(response.read().decode())


def is_listening(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), 10).close()
    except OSError:
        return False
    return True


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # a zombie that nobody has waited for, for its parent has gone, too
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def has_stopped(process: int) -> bool:
    """Whether all of its threads have."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)


def children(process: int) -> list[int]:
    """Those that live."""
    found = []
    for one in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = one.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == process and state != "Z":
                found.append(int(one.parent.name))
    return found


@pytest.fixture
def component(tmp_path: Path) -> Path:
    return Path(shutil.copy(HELLO, tmp_path / "hello.wasm"))


class TestOneProcess:
    def test_says_what_is_served_where_and_with_what(self, tmp_path: Path, component: Path) -> None:
        with serving(tmp_path, "hello.wasm", "--env", "TOKEN=secret") as served:
            assert get(served.url) == "Hello, World!"
            said = str(served)
            assert "hello.wasm (WASI 0.2)" in said
            assert "256 MiB of memory, 30 s for an exchange" in said
            assert "no network; no files; variables: TOKEN" in said
            assert "secret" not in said
            assert served.end() == 0

    def test_has_as_many_descriptors_as_it_may(self, tmp_path: Path, component: Path) -> None:
        with serving(tmp_path, "hello.wasm") as served:
            get(served.url)
            limits = resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)
            assert limits[0] == limits[1]
            assert served.end() == 0

    def test_hangup_loads_again(self, tmp_path: Path, component: Path) -> None:
        with serving(tmp_path, "hello.wasm", alone=True) as served:
            assert get(served.url) == "Hello, World!"
            component.write_bytes(b"no component")
            served.process.send_signal(signal.SIGHUP)
            served.until("not loaded, the old one goes on: .*not a component")
            assert get(served.url) == "Hello, World!"
            shutil.copy(PROBE, component)
            served.process.send_signal(signal.SIGHUP)
            served.until("loaded again: hello.wasm")
            assert served.end() == 0

    def test_changed_files_are_loaded(self, tmp_path: Path, component: Path) -> None:
        with serving(tmp_path, "hello.wasm", "--reload") as served:
            assert get(served.url) == "Hello, World!"
            # as vim saves: another file in its place
            new = Path(shutil.copy(PROBE, tmp_path / "new"))
            new.replace(component)
            served.until("loaded again: hello.wasm")
            assert served.end() == 0

    def test_a_target_that_is_no_component_binds_nothing(self, tmp_path: Path, component: Path) -> None:
        component.write_bytes(b"")
        with serving(tmp_path, "hello.wasm") as served:
            assert served.process.wait(30) == 3
            assert str(served).count("\n") == 1
            assert "an empty file" in str(served)

    def test_stderr_whose_reader_has_gone(self, tmp_path: Path, component: Path) -> None:
        port = free_port()
        reader, writer = os.pipe()
        os.close(reader)
        command = [*COMMAND, "hello.wasm", "--port", str(port)]
        process = subprocess.Popen(command, stderr=writer, stdout=writer, cwd=tmp_path)
        os.close(writer)
        assert answers_and_ends(process, port) == 0

    def test_a_blocked_or_ignored_sigterm_ends_it(self, tmp_path: Path, component: Path) -> None:
        script = (
            "import os, signal, sys\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "os.execv(sys.executable, [sys.executable, '-m', 'wasgi', 'serve', 'hello.wasm', '--port', '0'])\n"
        )
        said = tmp_path / "stderr"
        with said.open("wb") as stderr:
            process = subprocess.Popen([sys.executable, "-c", script], stderr=stderr, cwd=tmp_path)
        try:
            until(lambda: "serves at" in said.read_text() or process.poll() is not None)
            found = re.search(r"serves at (\S+)", said.read_text())
            assert found is not None
            assert get(found[1]) == "Hello, World!"
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("arguments", [[], ["--workers", "2"]], ids=["one process", "workers"])
class TestAnyNumberOfProcesses:
    @pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
    def test_a_log_that_was_moved(
        self, number: signal.Signals, arguments: list[str], tmp_path: Path, component: Path
    ) -> None:
        log, old = tmp_path / "log", tmp_path / "log.1"
        with serving(tmp_path, "hello.wasm", "--access-log", "log", *arguments, alone=True) as served:
            get(f"{served.url}/first")
            until(lambda: "GET /first" in log.read_text())
            log.rename(old)
            served.process.send_signal(number)
            until(log.exists)
            # each process opens it for itself
            until(lambda: all(is_open(log, process) and not is_open(old, process) for process in processes(served)))
            get(f"{served.url}/second")
            until(lambda: "GET /second" in log.read_text())
            assert "/second" not in old.read_text()
            assert served.end() == 0

    def test_folders_of_files_stay_when_components_are_loaded_again(
        self, arguments: list[str], tmp_path: Path, component: Path
    ) -> None:
        (tmp_path / "dist").mkdir()
        (tmp_path / "dist" / "a.txt").write_text("a file")
        with serving(tmp_path, "hello.wasm", "--static", "/assets=dist", *arguments, alone=True) as served:
            assert "files of dist at /assets" in served.until(r"serves at (?:.|\n)*no environment")[0]
            assert get(f"{served.url}/assets/a.txt") == "a file"
            served.process.send_signal(signal.SIGHUP)
            until(lambda: str(served).count("loaded again") == max(1, len(arguments)))
            assert get(f"{served.url}/assets/a.txt") == "a file"
            assert get(f"{served.url}/") == "Hello, World!"
            assert served.end() == 0

    @pytest.mark.parametrize(("host", "told"), [("0.0.0.0", True), ("127.0.0.1", False)])
    def test_who_listens_on_all_interfaces_is_told(
        self, arguments: list[str], host: str, told: bool, tmp_path: Path, component: Path
    ) -> None:
        with serving(tmp_path, "hello.wasm", "--host", host, *arguments) as served:
            said = served.until(r"serves at (?:.|\n)*no environment")[0]
            assert ("it listens on all interfaces" in said) is told
            assert served.end() == 0

    def test_its_health_is_at_one_address(self, arguments: list[str], tmp_path: Path, component: Path) -> None:
        with serving(tmp_path, "hello.wasm", "--health", "localhost:0", *arguments) as served:
            address = served.until(r"health: (\S+)\n")[1]
            with urllib.request.urlopen(f"http://{address}/ready", timeout=20) as response:
                assert response.status == 200
            assert served.end() == 0

    def test_a_unix_socket_has_its_mode(self, arguments: list[str], tmp_path: Path, component: Path) -> None:
        said = tmp_path / "stderr"
        command = [*COMMAND, "hello.wasm", "--bind", "unix:x.sock", "--socket-mode", "620", *arguments]
        with said.open("wb") as stderr:
            process = subprocess.Popen(command, stderr=stderr, cwd=tmp_path)
        try:
            until(lambda: "x.sock" in said.read_text() or process.poll() is not None)
            assert (tmp_path / "x.sock").stat().st_mode & 0o777 == 0o620
        finally:
            process.terminate()
        assert process.wait(30) == 0
        assert not (tmp_path / "x.sock").exists()


def processes(served: Served) -> list[int]:
    """Those that serve."""
    return children(served.process.pid) or [served.process.pid]


def is_open(path: Path, process: int) -> bool:
    return any(os.path.realpath(one) == str(path) for one in Path(f"/proc/{process}/fd").iterdir())


TAKES_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if "nohup" in sys.argv[1]:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-m", "wasgi", "serve", "hello.wasm", "--port", "0", *sys.argv[2:]])
"""


@pytest.mark.parametrize("arguments", [[], ["--workers", "1"]], ids=["one process", "workers"])
@pytest.mark.parametrize("how", ["plain", "nohup"])
def test_its_terminal_goes(how: str, arguments: list[str], tmp_path: Path, component: Path) -> None:
    """A server in front of a terminal ends with it; one under nohup does not, and still loads again when it is told."""
    ours, its = os.openpty()
    said = tmp_path / "stderr"
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", TAKES_TERMINAL, how, *arguments],
            stdin=its,
            stderr=stderr,
            start_new_session=True,
            cwd=tmp_path,
        )
    os.close(its)
    try:
        until(lambda: "serves at" in said.read_text() or process.poll() is not None)
        found = re.search(r"serves at (\S+)", said.read_text())
        assert found is not None, said.read_text()
        assert get(found[1]) == "Hello, World!"
        os.close(ours)
        if how == "plain":
            assert process.wait(30) == 0
        else:
            until(lambda: not has_terminal(process.pid))
            assert get(found[1]) == "Hello, World!"
            process.terminate()
            assert process.wait(30) == 0
        assert "loaded again" not in said.read_text()
    finally:
        process.kill()
        process.wait()


def has_terminal(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[4] != "0"


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def answers_and_ends(process: subprocess.Popen[bytes], port: int) -> int:
    """Its exit code, when it has answered and was told to end."""
    try:
        until(lambda: listens(port) or process.poll() is not None)
        assert get(f"http://127.0.0.1:{port}/") == "Hello, World!"
    finally:
        process.terminate()
    return process.wait(30)


class TestWorkers:
    def test_serve_the_same_socket(self, tmp_path: Path, component: Path) -> None:
        with serving(tmp_path, "hello.wasm", "--workers", "2") as served:
            workers = served.workers()
            assert len(set(workers)) == 2
            assert served.process.pid not in workers
            assert get(served.url) == "Hello, World!"
            for idle in workers:
                os.kill(idle, signal.SIGSTOP)
                until(functools.partial(has_stopped, idle))
                assert get(served.url) == "Hello, World!"
                os.kill(idle, signal.SIGCONT)
            assert served.end() == 0
            assert not any(is_alive(worker) for worker in workers)

    def test_one_that_is_killed_is_replaced(self, tmp_path: Path, component: Path) -> None:
        with serving(tmp_path, "hello.wasm", "--workers", "1") as served:
            (worker,) = served.workers()
            os.kill(worker, signal.SIGKILL)
            served.until(r"worker 1 \(process \d+\) was killed by SIGKILL; another one starts now")
            assert get(served.url) == "Hello, World!"
            assert worker not in children(served.process.pid)
            assert served.end() == 0

    def test_one_that_dies_young_again_is_replaced_after_a_pause(self, tmp_path: Path, component: Path) -> None:
        with serving(tmp_path, "hello.wasm", "--workers", "1") as served:
            (worker,) = served.workers()
            os.kill(worker, signal.SIGKILL)
            served.until("another one starts now")
            until(lambda: bool(children(served.process.pid)))
            assert get(served.url) == "Hello, World!"
            (second,) = children(served.process.pid)
            os.kill(second, signal.SIGKILL)
            served.until("another one starts in 0.5 s")
            assert get(served.url) == "Hello, World!"

    @pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
    def test_they_go_with_their_parent(self, tmp_path: Path, component: Path) -> None:
        with serving(tmp_path, "hello.wasm", "--workers", "2") as served:
            workers = served.workers()
            served.process.kill()
            until(lambda: not any(is_alive(worker) for worker in workers))

    def test_a_first_start_that_fails_ends_the_server(self, tmp_path: Path, component: Path) -> None:
        component.write_bytes(b"\0asm\x01\0\0\0")
        with serving(tmp_path, "hello.wasm", "--workers", "2") as served:
            assert served.process.wait(30) == 3
            assert str(served).count("\n") == 1
            assert "a core WebAssembly module" in str(served)

    def test_a_port_that_is_taken(self, tmp_path: Path, component: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with serving(tmp_path, "hello.wasm", "--workers", "2", port=port) as served:
                assert served.process.wait(30) == 3
                assert str(served).startswith(f"wasgi: 127.0.0.1:{port} is in use; hint: ")
                assert str(served).count("\n") == 1

    def test_hangup_loads_again_in_each(self, tmp_path: Path, component: Path) -> None:
        with serving(tmp_path, "hello.wasm", "--workers", "2", alone=True) as served:
            workers = served.workers()
            shutil.copy(PROBE, component)
            served.process.send_signal(signal.SIGHUP)
            until(lambda: str(served).count("loaded again") == 2)
            assert all(is_alive(worker) for worker in workers)
            assert served.end() == 0

    def test_hangup_replaces_those_that_run_python(self, tmp_path: Path, component: Path) -> None:
        (tmp_path / "shop.py").write_text("import wasgi\n\ndef app():\n    return wasgi.App('hello.wasm')\n")
        with serving(tmp_path, "shop:app", "--workers", "2", alone=True) as served:
            workers = served.workers()
            served.process.send_signal(signal.SIGHUP)
            served.until(r"worker 2 \(process \d+\) is replaced: SIGHUP")
            until(lambda: not any(is_alive(worker) for worker in workers))
            assert get(served.url) == "Hello, World!"
            assert served.end() == 0

    def test_they_are_replaced_when_they_have_handled_enough(self, tmp_path: Path, component: Path) -> None:
        with serving(tmp_path, "hello.wasm", "--workers", "1", "--worker-requests", "5") as served:
            (worker,) = served.workers()
            for _ in range(6):
                assert get(served.url) == "Hello, World!"
            served.until(r"is replaced: it has handled \d requests")
            until(lambda: not is_alive(worker))
            assert get(served.url) == "Hello, World!"
            assert served.end() == 0

    def test_ctrl_c_reaches_the_parent_alone(self, tmp_path: Path, component: Path) -> None:
        with serving(tmp_path, "hello.wasm", "--workers", "2", alone=True) as served:
            for worker in served.workers():
                assert os.getpgid(worker) != os.getpgid(served.process.pid)
            assert served.end(signal.SIGINT) == 0

    def test_inherited_sockets(self, tmp_path: Path, component: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as given:
            number, port = given.fileno(), given.getsockname()[1]
            said = tmp_path / "stderr"
            command = [*COMMAND, "hello.wasm", "--workers", "1", "--fd", str(number)]
            with said.open("wb") as stderr:
                process = subprocess.Popen(command, pass_fds=[number], stderr=stderr, cwd=tmp_path)
        try:
            until(lambda: f"serves at http://127.0.0.1:{port}\n" in said.read_text() or process.poll() is not None)
            assert get(f"http://127.0.0.1:{port}/") == "Hello, World!"
        finally:
            process.terminate()
        assert process.wait(30) == 0, said.read_text()

    def test_whose_parent_has_no_stdio(self, tmp_path: Path, component: Path) -> None:
        """Its sockets do not take the place of stdin, stdout and stderr."""
        port = free_port()
        command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *COMMAND, "hello.wasm", "--workers", "1"]
        process = subprocess.Popen([*command, "--port", str(port)], cwd=tmp_path)
        assert answers_and_ends(process, port) == 0

    def test_a_unix_socket_goes_with_its_server(self, tmp_path: Path, component: Path) -> None:
        said = tmp_path / "stderr"
        command = [*COMMAND, "hello.wasm", "--workers", "1", "--bind", "unix:x.sock"]
        with said.open("wb") as stderr:
            process = subprocess.Popen(command, stderr=stderr, cwd=tmp_path)
        try:
            until(lambda: "x.sock" in said.read_text() or process.poll() is not None)
            assert (tmp_path / "x.sock").is_socket(), said.read_text()
            again = subprocess.run(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
            assert again.returncode == 3
            assert "x.sock is in use; hint: another program listens there" in again.stderr
            assert (tmp_path / "x.sock").is_socket()
        finally:
            process.terminate()
        assert process.wait(30) == 0
        assert not (tmp_path / "x.sock").exists()


@pytest.mark.parametrize("arguments", [[], ["--workers", "2"]], ids=["one process", "workers"])
class TestUnderLoad:
    """What happens to a server is not noticed by its clients."""

    def test_loading_again(self, arguments: list[str], tmp_path: Path, component: Path) -> None:
        with serving(tmp_path, "hello.wasm", *arguments, alone=True) as served, Load(f"{served.url}/hello") as load:
            for other in (PROBE, HELLO, PROBE):
                so_often = str(served).count("loaded again") + max(1, len(arguments))
                shutil.copy(other, component)
                served.process.send_signal(signal.SIGHUP)
                until(functools.partial(lambda times: str(served).count("loaded again") == times, so_often))
                load.goes_on()
            load.stop()
            assert not load.wrong
            assert not load.broken
            assert served.end() == 0

    def test_a_file_that_changes(self, arguments: list[str], tmp_path: Path, component: Path) -> None:
        with serving(tmp_path, "hello.wasm", "--reload", *arguments) as served, Load(f"{served.url}/hello") as load:
            Path(shutil.copy(PROBE, tmp_path / "new")).replace(component)
            until(lambda: str(served).count("loaded again") == max(1, len(arguments)))
            load.goes_on()
            load.stop()
            assert get(f"{served.url}/status?code=200") == "as asked"
            assert not load.wrong
            assert not load.broken
            assert served.end() == 0

    def test_its_end(self, arguments: list[str], tmp_path: Path, component: Path) -> None:
        """Each client is told to go with an answer, or finds nobody; nobody waits in vain."""
        with serving(tmp_path, "hello.wasm", *arguments) as served, Load(f"{served.url}/hello") as load:
            served.process.terminate()
            load.join()
            assert not load.wrong
            assert not load.broken
            assert load.told_to_go > 0
            assert load.told_to_go + load.refused == 4
            assert served.process.wait(30) == 0

    def test_its_end_while_guests_work(self, arguments: list[str], tmp_path: Path, component: Path) -> None:
        shutil.copy(PROBE, component)
        with (
            serving(tmp_path, "hello.wasm", *arguments) as served,
            Load(f"{served.url}/sleep?ms=300", b"slept") as load,
        ):
            before = load.answers
            served.process.terminate()
            load.stop()
            assert not load.wrong
            assert not load.broken
            assert load.answers > before
            assert served.process.wait(30) == 0


@pytest.mark.parametrize("arguments", [[], ["--workers", "2"]], ids=["one process", "workers"])
class TestToldToStopTwice:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
    def test_it_ends_at_once_and_logs_what_it_cuts_off(
        self, number: signal.Signals, arguments: list[str], tmp_path: Path, component: Path
    ) -> None:
        """Long before what is under way, or its time to drain, is over."""
        shutil.copy(PROBE, component)
        log = tmp_path / "log"
        options = ["--access-log", str(log), "--access-format", "%(s)s %(outcome)s %(U)s", "--drain-timeout", "300"]
        with (
            serving(tmp_path, "hello.wasm", "--timeout", "300", *options, *arguments, alone=True) as served,
            urllib.request.urlopen(f"{served.url}/slow-body?ms=300000", timeout=20) as response,
        ):
            assert response.read(5) == b"first"
            served.process.send_signal(number)
            until(lambda: not is_listening(served.url))
            assert served.end(number) == 0
        assert log.read_text() == "200 the server ended /slow-body\n"

    def test_again_and_again(self, arguments: list[str], tmp_path: Path, component: Path) -> None:
        """Signals that come on its way out change nothing."""
        with serving(tmp_path, "hello.wasm", *arguments, alone=True) as served:
            assert get(served.url) == "Hello, World!"
            while served.process.poll() is None:
                served.process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    served.process.wait(0.01)
            assert served.process.returncode == 0


class TestWorkersUnderLoad:
    def test_one_that_is_killed(self, tmp_path: Path, component: Path) -> None:
        """Its connections break, at most one of each client; all others have their answers."""
        with serving(tmp_path, "hello.wasm", "--workers", "2") as served, Load(f"{served.url}/hello") as load:
            os.kill(served.workers()[0], signal.SIGKILL)
            served.until("another one starts now")
            load.goes_on()
            until(lambda: len(children(served.process.pid)) == 2)
            load.goes_on()
            load.stop()
            assert not load.wrong
            assert set(load.broken.values()) <= {1}
            assert served.end() == 0

    def test_they_are_replaced(self, tmp_path: Path, component: Path) -> None:
        arguments = ["--workers", "2", "--worker-requests", "200"]
        with serving(tmp_path, "hello.wasm", *arguments) as served:
            workers = served.workers()
            with Load(f"{served.url}/hello", come_back=True) as load:
                until(lambda: not any(is_alive(worker) for worker in workers))
                load.goes_on()
                load.stop()
            assert not load.wrong
            assert not load.broken
            assert served.end() == 0


AS_IT_STARTS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Signals:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            sys.meta_path.remove(self)
            for number in sys.argv[2].split(","):
                signal.raise_signal(int(number))
sys.meta_path.insert(0, Signals())
from wasgi.cli import main
sys.exit(main(sys.argv[3:]))
"""


class TestSignalsWhileItStarts:
    """They come when a module is about to be imported."""

    @pytest.mark.parametrize("module", ["click", "wasgi.cli.serve", "wasgi.cli.serving"])
    def test_ctrl_c(self, module: str, component: Path) -> None:
        script = [sys.executable, "-c", AS_IT_STARTS, module, str(int(signal.SIGINT))]
        command = [*script, "serve", "hello.wasm", "--port", "0"]
        done = subprocess.run(command, cwd=component.parent, capture_output=True, text=True, timeout=50)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "")

    @pytest.mark.parametrize("module", ["click", "wasgi.cli.serving"])
    def test_those_that_load_again(self, module: str, tmp_path: Path, component: Path) -> None:
        numbers = f"{int(signal.SIGUSR1)},{int(signal.SIGHUP)}"
        command = [sys.executable, "-c", AS_IT_STARTS, module, numbers, "serve", "hello.wasm", "--port", "0"]
        said = tmp_path / "stderr"
        with said.open("wb") as stderr:
            process = subprocess.Popen(command, stderr=stderr, cwd=tmp_path, start_new_session=True)
        try:
            until(lambda: "loaded again: hello.wasm" in said.read_text() or process.poll() is not None)
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("arguments", [[], ["--workers", "2"]], ids=["one process", "workers"])
class TestThatCannotStart:
    """It ends with one line."""

    def ended(self, folder: Path, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [*COMMAND, "--port", "0", *arguments], cwd=folder, capture_output=True, text=True, timeout=50
        )
        # a worker's guests print to the stderr that they share
        return done.returncode, "".join(one for one in done.stderr.splitlines(True) if one.startswith("wasgi:"))

    def test_a_warm_up_that_fails(self, arguments: list[str], tmp_path: Path) -> None:
        (tmp_path / "shop.py").write_text(
            "import wasgi\nwarm = [wasgi.Request('GET', 'http://a/trap')]\n"
            f"app = wasgi.App({str(PROBE)!r}, reuse=wasgi.Reuse(isolated=True, warm=warm, ready=1))\n"
        )
        code, line = self.ended(tmp_path, "shop:app", *arguments)
        assert code == 3
        # there is no option for it
        assert line.startswith("wasgi: `shop:app`: a warm-up request (`Reuse.warm`) failed: the guest trapped")
        assert line.count("\n") == 1

    def test_an_app_that_is_closed(self, arguments: list[str], tmp_path: Path) -> None:
        (tmp_path / "shop.py").write_text(f"import wasgi\napp = wasgi.App({str(HELLO)!r})\napp.close()\n")
        assert self.ended(tmp_path, "shop:app", *arguments) == (3, "wasgi: `shop:app` is an App that is closed\n")

    def test_more_threads_than_there_are(self, arguments: list[str], tmp_path: Path, component: Path) -> None:
        (tmp_path / "wasgi.toml").write_text("[serve]\nthreads = 9999\n")
        command = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *COMMAND, "hello.wasm", "--port", "0", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50)
        assert done.returncode == 1
        assert done.stderr.startswith("wasgi: cannot start the server: ")
        assert done.stderr.endswith("; hint: fewer --threads\n")
        assert done.stderr.count("\n") == 1
