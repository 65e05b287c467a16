"""`wasgi run` of components that are commands: real processes, with what their stdin, stdout and stderr may be."""

from __future__ import annotations

import hashlib
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

import pytest

from tests.conftest import COMPONENTS, HELLO, PROBE
from wasgi.cli import main

COMMAND = COMPONENTS / "command.wasm"
RUN = [sys.executable, "-m", "wasgi", "run"]

# Started in the background, a process may have inherited that SIGINT is ignored. One with a terminal of its own has it
# as the one that controls it.
HEARS_SIGINT = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
if os.isatty(0):
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""

_NAMES = ["command", "command_p3"]


@pytest.fixture(params=_NAMES)
def command(request: pytest.FixtureRequest) -> str:
    """One of each generation of WASI."""
    return str(COMPONENTS / f"{request.param}.wasm")


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([*RUN, *arguments], capture_output=True, timeout=60, **options)


def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    for stream in ("stdin", "stdout", "stderr"):
        options.setdefault(stream, subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", HEARS_SIGINT, *RUN, *arguments], **options)


def pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Its stdin and its stdout."""
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


class TestArguments:
    def test_all_that_follows_is_the_guests(self, command: str) -> None:
        done = run(command, "args", "-i", "--help", "POST", "--", "/path", "", "ä b")
        name = os.path.basename(command)
        assert done.stdout.decode().rstrip("\n").split("\n") == [
            *(name, "args", "-i", "--help", "POST", "--", "/path", "", "ä b")
        ]
        assert (done.returncode, done.stderr) == (0, b"")

    def test_after_two_dashes(self) -> None:
        done = run("--env", "A=1", str(COMMAND), "--", "args", "--env", "B=2")
        assert done.stdout == b"command.wasm\nargs\n--env\nB=2\n"
        assert run("--", str(COMMAND), "args", "--", "x").stdout == b"command.wasm\nargs\n--\nx\n"

    def test_those_of_the_option_come_first(self) -> None:
        assert run("--arg", "args", "--arg", "a", str(COMMAND), "b").stdout == b"command.wasm\nargs\na\nb\n"

    def test_options_behind_a_handler_are_wasgis(self) -> None:
        done = run(str(PROBE), "POST", "/echo", "--data", "text", "--fail")
        assert (done.returncode, done.stdout) == (0, b"text")
        done = run(str(HELLO), "GET", "/", "more")
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.startswith(b"wasgi: got unexpected extra argument (more); hint: ")

    def test_that_is_no_text(self) -> None:
        done = run(str(COMMAND), os.fsdecode(b"\xff"))
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr == b"wasgi: an argument is no text in UTF-8: '\\udcff'\n"

    @pytest.mark.parametrize("option", ["--include", "--report", "--fail", "--data=x", "--reuse=2", "-Hname: value"])
    def test_options_of_requests_are_refused(self, option: str) -> None:
        done = run(option, str(COMMAND), "args")
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.count(b"\n") == 1
        assert b"does not apply to" in done.stderr

    def test_the_environment_is_what_is_granted(self, command: str) -> None:
        environment = os.environ | {"B": "2"}
        assert run("--env", "A=1", "--env", "B", command, "env", env=environment).stdout == b"A=1\nB=2\n"
        assert run(command, "env").stdout == b""


class TestExitCode:
    @pytest.mark.parametrize(("arguments", "code"), [(["code", "0"], 0), (["code", "77"], 77), (["fail"], 1)])
    def test_is_the_guests(self, command: str, arguments: list[str], code: int) -> None:
        done = run(command, *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")

    def test_of_exit(self) -> None:
        # `std::process::exit` tells WASI 0.2 whether it is a success
        assert run(str(COMMAND), "exit", "0").returncode == 0
        assert run(str(COMMAND), "exit", "3").returncode == 1

    def test_of_a_trap(self, command: str) -> None:
        done = run(command, "panic")
        assert (done.returncode, done.stdout) == (1, b"")
        lines = done.stderr.splitlines()
        assert b"as asked" in lines
        assert lines[-1].startswith(b"wasgi: the guest trapped: ")

    @pytest.mark.parametrize("what", ["spin", "sleep"])
    def test_of_a_timeout(self, command: str, what: str) -> None:
        done = run("--timeout", "0.2", command, what, "100000")
        assert done.returncode == 1
        assert done.stdout in (b"spinning\n", b"sleeping\n")
        assert done.stderr == b"wasgi: the guest timed out after 0.2 s (`--timeout`)\n"

    def test_of_a_limit_of_memory(self) -> None:
        done = run("--memory", "16MiB", str(COMMAND), "fill")
        assert done.returncode == 1
        assert b"wasgi: the guest ran into its limit of 16777216 bytes (`--memory`)\n" in done.stderr

    def test_of_a_limit_of_fuel(self) -> None:
        done = run("--fuel", "10000000", str(COMMAND), "spin")
        assert done.returncode == 1
        assert b"wasgi: the guest ran into its limit of 10000000 units of fuel (`--fuel`)\n" in done.stderr

    def test_of_a_missing_import(self, tmp_path: Path) -> None:
        path = tmp_path / "lacks.wat"
        path.write_text(
            '(component (import "acme:db/query" (instance)) (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))'
        )
        done = run(str(path))
        assert (done.returncode, done.stdout) == (3, b"")
        assert done.stderr.count(b"\n") == 1
        assert b"imports what wasgi does not provide: `acme:db/query`" in done.stderr

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("wasi:cli/run@0.2.0", b"the component cannot be linked: "),
            ("wasi:cli/run@0.2.0-rc-2023-11-10", b"exports no HTTP handler: it exports `wasi:cli/run@0.2.0-rc-"),
        ],
    )
    def test_of_what_cannot_be_run(self, name: str, says: bytes, tmp_path: Path) -> None:
        path = tmp_path / "command.wat"
        path.write_text(f'(component (instance $i) (export "{name}" (instance $i)))')
        done = run(str(path))
        assert (done.returncode, done.stdout) == (3, b"")
        assert done.stderr.count(b"\n") == 1
        assert says in done.stderr

    def test_it_is_not_served(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["serve", command]) == 3
        assert capsys.readouterr().err.endswith("hint: it is a command (`wasi:cli/run`): `wasgi run` runs it\n")


class TestStreams:
    def test_bytes_are_passed_on_as_they_are(self, command: str) -> None:
        given = bytes(range(256)) * 1000 + b"\r\n no newline, \xff"
        done = run(command, "cat", input=given)
        assert (done.returncode, done.stdout, done.stderr) == (0, given, b"")

    def test_stdout_and_stderr_are_two(self, command: str) -> None:
        done = run(command, "print", "out", "\x1b[1merr")
        assert (done.stdout, done.stderr) == (b"out", b"\x1b[1merr")

    def test_each_piece_comes_through_at_once(self, command: str) -> None:
        with start(command, "cat") as process:
            into, out = pipes(process)
            for piece in (b"a", b"\0\n", b"no newline"):
                into.write(piece)
                into.flush()
                assert out.read(len(piece)) == piece
            into.close()
            assert out.read() == b""
        assert process.returncode == 0

    def test_stdin_is_left_to_others_until_the_guest_reads(self, command: str) -> None:
        reader, writer = os.pipe()
        os.write(writer, b"for somebody else")
        os.close(writer)
        done = run(command, "args", stdin=reader)
        assert done.returncode == 0
        assert os.read(reader, 100) == b"for somebody else"
        os.close(reader)

    def test_it_ends_though_its_stdin_goes_on(self) -> None:
        with start(str(COMMAND), "first") as process:
            into, out = pipes(process)
            into.write(b"xy")
            into.flush()
            assert out.read() == b"x"
            assert process.wait(30) == 0

    def test_a_large_stdin_waits_for_who_reads_stdout(self, command: str) -> None:
        piece = os.urandom(1 << 20)
        with start(command, "cat") as process:
            into, out = pipes(process)

            def write() -> None:
                with into:
                    for _ in range(64):
                        into.write(piece)

            writer = threading.Thread(target=write)
            writer.start()
            assert out.read(1) == piece[:1]
            writer.join(0.5)
            assert writer.is_alive(), "somebody keeps 64 MiB"
            digest = hashlib.sha256(piece[:1])
            while got := out.read(1 << 16):
                digest.update(got)
            writer.join()
        assert process.returncode == 0
        assert digest.digest() == hashlib.sha256(piece * 64).digest()

    def test_a_reader_that_goes_ends_it_silently(self, command: str) -> None:
        with start(command, "yes") as process:
            _, out = pipes(process)
            assert out.read(4) == b"y\ny\n"
            out.close()
            assert process.wait(30) == 0
            assert process.stderr is not None
            assert process.stderr.read() == b""

    def test_a_reader_that_has_gone(self, command: str) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([*RUN, command, "yes"], stdout=writer, stderr=subprocess.PIPE, timeout=60)
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, b"")

    @pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
    def test_that_are_closed(self, command: str, closed: str) -> None:
        script = f'"$@" {closed}'
        done = subprocess.run(["sh", "-c", script, "sh", *RUN, command, "cat"], input=b"text", capture_output=True)
        expected = b"text" if closed == "2>&-" else b""
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, b"")

    def test_a_file_and_a_socket(self, command: str, tmp_path: Path) -> None:
        path = tmp_path / "out"
        one, other = socket.socketpair()
        with one, other, path.open("wb") as out:
            one.sendall(b"x" * 10_000)
            one.shutdown(socket.SHUT_WR)
            subprocess.run([*RUN, command, "cat"], stdin=other.fileno(), stdout=out, check=True, timeout=60)
        assert path.read_bytes() == b"x" * 10_000

    def test_one_that_does_not_block(self, command: str) -> None:
        """Whoever has started the process may have set O_NONBLOCK for himself."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with start(command, "cat", stdout=writer) as process, open(reader, "rb") as out:
            os.close(writer)
            assert process.stdin is not None
            feeder = threading.Thread(
                target=lambda into: (into.write(b"x" * 500_000), into.close()), args=(process.stdin,)
            )
            feeder.start()
            assert out.read() == b"x" * 500_000
            feeder.join()
        assert process.returncode == 0


class Terminal:
    """A command with a terminal of its own."""

    def __init__(self, *arguments: str, **options: Any) -> None:
        self.master, slave = pty.openpty()
        streams = {"stdin": slave, "stdout": slave, "stderr": slave, **options}
        environment = os.environ | {"NO_COLOR": "1"}  # no spinner between what is echoed and what is written
        self.process = start(*arguments, start_new_session=True, env=environment, **streams)
        os.close(slave)

    def read(self) -> bytes:
        """What is shown until the last one has gone."""
        shown = b""
        while True:
            try:
                piece = os.read(self.master, 4096)
            except OSError:  # EIO: nobody has it any more
                piece = b""
            if not piece:
                os.close(self.master)
                return shown
            shown += piece

    def read_until(self, text: bytes) -> bytes:
        shown = b""
        while text not in shown:
            piece = os.read(self.master, 4096)
            assert piece, shown
            shown += piece
        return shown


class TestTerminal:
    def test_is_told(self) -> None:
        terminal = Terminal(str(COMMAND), "terminals")
        assert terminal.read().endswith(b"true true true\r\n")
        assert terminal.process.wait(30) == 0
        assert run(str(COMMAND), "terminals").stdout == b"false false false\n"
        assert run(str(COMPONENTS / "command_p3.wasm"), "terminals").stdout == b"false false"

    def test_each_stream_is_told_apart(self, command: str) -> None:
        terminal = Terminal(command, "terminals", stdout=subprocess.PIPE)
        assert terminal.process.stdout is not None
        with terminal.process.stdout as out:
            assert out.read().startswith(b"true false")
        terminal.read()
        assert terminal.process.wait(30) == 0

    def test_a_line_at_a_time(self, command: str) -> None:
        terminal = Terminal(command, "cat")
        os.write(terminal.master, b"one\n")
        assert terminal.read_until(b"one\r\none\r\n")  # the echo, and what the guest has written
        os.write(terminal.master, b"\x04")  # the end of the input
        terminal.read()
        assert terminal.process.wait(30) == 0

    @pytest.mark.parametrize("what", ["spin", "sleep", "cat"])
    def test_ctrl_c(self, command: str, what: str) -> None:
        terminal = Terminal(command, what, "100000")
        if what == "cat":
            os.write(terminal.master, b"x\n")
            terminal.read_until(b"x\r\nx\r\n")
        else:
            terminal.read_until(b"ing\r\n")
        os.write(terminal.master, b"\x03")
        terminal.read()
        assert terminal.process.wait(30) == 130


class TestInterrupt:
    @pytest.mark.parametrize("what", ["spin", "sleep"])
    def test_ends_it(self, command: str, what: str) -> None:
        with start(command, what, "100000") as process:
            _, out = pipes(process)
            assert out.readline() in (b"spinning\n", b"sleeping\n")
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
            assert process.stderr is not None
            assert process.stderr.read() == b""

    def test_while_nobody_reads_what_it_writes(self, command: str) -> None:
        with start(command, "yes") as process:
            _, out = pipes(process)
            assert out.read(2) == b"y\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130

    def test_sigterm_ends_the_process(self, command: str) -> None:
        with start(command, "sleep", "100000") as process:
            _, out = pipes(process)
            assert out.readline() == b"sleeping\n"
            process.terminate()
            assert process.wait(30) == -signal.SIGTERM


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class TestGrants:
    def test_requests(self, server: str) -> None:
        done = run("--allow", f"http://{server}", str(COMMAND), "get", server, "/")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"200 hello\n", b"")
        done = run(str(COMMAND), "get", server, "/")
        assert (done.returncode, done.stdout) == (0, b"ErrorCode::HttpRequestDenied\n")
        assert done.stderr.startswith(b"command.wasm: an outgoing request to ")
        assert done.stderr.endswith(f"; hint: `--allow http://{server}`\n".encode())

    def test_folders(self, tmp_path: Path) -> None:
        (tmp_path / "in").write_text("content")
        granted = f"{tmp_path}::/data"
        assert run("--dir", granted, str(COMMAND), "read", "/data/in").stdout == b"content\n"
        assert run(str(COMMAND), "read", str(tmp_path / "in")).stdout != b"content\n"
        assert run("--dir", granted, str(COMMAND), "write", "/data/out", "x").returncode == 1
        assert run("--dir", f"{granted}:w", str(COMMAND), "write", "/data/out", "x").returncode == 0
        assert (tmp_path / "out").read_text() == "x"

    def test_a_limit_of_time_in_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "wasgi.toml").write_text("[run]\ntimeout = 0.2\ninclude = true\n")
        done = run(str(COMMAND), "sleep", "100000", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, b"sleeping\n")
