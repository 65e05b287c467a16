"""`wasgi run`, `wasgi compile` and `wasgi cache`."""

from __future__ import annotations

import io
import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HAND, HELLO, PROBE, until
from wasgi.cli import main
from wasgi.cli.run import target_of

COMMAND = [sys.executable, "-m", "wasgi", "run"]


def run(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, *arguments]
    if stdin is None:
        return subprocess.run(command, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    return subprocess.run(command, capture_output=True, timeout=60, input=stdin)


def full(pipe: int) -> bool:
    """Whether a pipe takes nothing more."""
    return not select.select([], [pipe], [], 0)[1]


@pytest.mark.parametrize(
    ("given", "method", "url"),
    [
        ((None, None, False), "GET", "http://localhost/"),
        ((None, None, True), "POST", "http://localhost/"),
        (("PUT", None, True), "PUT", "http://localhost/"),
        (("/x?y", None, False), "GET", "http://localhost/x?y"),
        (("https://shop.local/x", None, False), "GET", "https://shop.local/x"),
        (("DELETE", "shop.local/x", False), "DELETE", "http://shop.local/x"),
    ],
)
def test_method_and_url(given: tuple[str | None, str | None, bool], method: str, url: str) -> None:
    assert target_of(given[0], given[1], has_body=given[2]) == (method, url)


class TestRun:
    @pytest.mark.parametrize("allowed", [[], ["--allow", "https://b.test"]])
    def test_a_request_that_is_denied_is_one_that_a_flag_allows(self, allowed: list[str]) -> None:
        done = run(str(PROBE), *allowed, "/fetch?url=http://a.test/x")
        assert done.stdout == b"ErrorCode::HttpRequestDenied"
        assert done.stderr.startswith(b"probe.wasm: an outgoing request to `http://a.test` was denied")
        assert done.stderr.endswith(b"; hint: `--allow http://a.test`\n")

    def test_prints_the_body(self) -> None:
        done = run(str(HELLO))
        assert (done.returncode, done.stdout, done.stderr) == (0, b"Hello, World!", b"")

    def test_prints_the_fields(self) -> None:
        done = run(str(HELLO), "-i", "--report")
        assert done.stdout == b"200 OK\ncontent-type: text/plain; charset=utf-8\n\nHello, World!"
        assert re.fullmatch(rb"200: [\d.]+ ms, [\d.]+ MiB of memory, 0 outgoing requests\n", done.stderr)

    @pytest.mark.parametrize("url", ["/inspect?a=/", "https://other:8/inspect?a=//b", "other/inspect"])
    def test_a_host_field_is_the_host(self, url: str) -> None:
        done = run(str(PROBE), "-H", "Host: shop.local:99", url)
        assert b'authority: Some("shop.local:99")' in done.stdout
        assert f'path: Some("{url[url.index("/inspect") :]}")'.encode() in done.stdout

    @pytest.mark.parametrize(
        ("fields", "why"),
        [
            (["Host: a", "host: b"], "--header: there are two hosts, `a` and `b`"),
            (["Host:"], "--header: `` is not a host"),
            (["Host: a/b"], "--header: `a/b` is not a host"),
            (["Host: a b"], "its host is neither a name nor an address"),
        ],
    )
    def test_a_host_field_that_is_none(self, fields: list[str], why: str) -> None:
        done = run(str(HELLO), *(part for field in fields for part in ("-H", field)))
        assert done.returncode == 2
        assert why in done.stderr.decode()

    @pytest.mark.parametrize(
        ("arguments", "stdin"),
        [
            (["POST", "/echo", "--data", "the body"], None),
            (["POST", "/echo", "--data", "@-"], b"the body"),
            (["/echo", "--data", "@file"], None),
        ],
    )
    def test_sends_a_body(
        self, arguments: list[str], stdin: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("file").write_text("the body")
        done = run(str(PROBE), *arguments, stdin=stdin)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"the body", b"")

    def test_reads_stdin_for_a_method_that_has_a_body_and_says_so(self) -> None:
        done = run(str(PROBE), "POST", "/echo", stdin=b"the body")
        assert done.stdout == b"the body"
        assert done.stderr == b"wasgi: the body of the POST is read from stdin; hint: --data '' for none\n"

    def test_leaves_stdin_alone_for_others(self) -> None:
        script = 'while read line; do "$@" >/dev/null; echo "$line"; done'
        done = subprocess.run(
            ["sh", "-c", script, "sh", *COMMAND, str(HELLO)], input=b"1\n2\n", stdout=subprocess.PIPE, timeout=60
        )
        assert done.stdout == b"1\n2\n"

    def test_does_not_wait_for_a_stdin_that_nobody_closes(self) -> None:
        reader, writer = os.pipe()
        try:
            done = subprocess.run([*COMMAND, str(HELLO)], stdin=reader, stdout=subprocess.PIPE, timeout=60)
        finally:
            os.close(reader)
            os.close(writer)
        assert done.stdout == b"Hello, World!"

    def test_a_reader_that_has_gone(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([*COMMAND, str(HELLO)], stdout=writer, stderr=subprocess.PIPE, timeout=60)
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, b"")

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_a_pipe_that_does_not_block(self, unbuffered: str) -> None:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        process = subprocess.Popen(
            [*COMMAND, str(PROBE), "/stream?chunks=100&bytes=4000"],
            stdout=writer,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
        # it has no room for the whole: all that is read later must have been written again
        until(lambda: full(writer) or process.poll() is not None)
        os.close(writer)
        with open(reader, "rb") as pipe:
            assert len(pipe.read()) == 400_000
        assert process.wait(30) == 0

    def test_a_disk_that_is_full(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a buffer, the system takes a part, and refuses the rest when it is asked again."""
        taken: list[bytes] = []

        class Full(io.RawIOBase):
            def writable(self) -> bool:
                return True

            def write(self, data: Any) -> int:
                if taken:
                    raise OSError(28, "No space left on device")
                taken.append(bytes(data[:10]))
                return 10

        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(Full(), write_through=True))  # type: ignore[type-var]
        assert main(["run", str(HELLO)]) == 1
        assert taken == [b"Hello, Wor"]
        taken.clear()
        assert main(["cache", "info", "--json"]) == 1

    def test_json(self) -> None:
        done = run(str(PROBE), "/echo", "--json", '{"a": 1}')
        assert done.stdout == b'{"a": 1}'
        assert run(str(PROBE), "/echo", "--json", "{").returncode == 2

    def test_a_guest_that_fails(self, tmp_path: Path) -> None:
        path = tmp_path / "trap.wat"
        path.write_text(re.sub(r"\(call \$set-status ", "(unreachable) (call $set-status ", HAND.read_text(), count=1))
        done = run(str(path))
        assert done.returncode == 1
        assert done.stderr.startswith(b"wasgi: ")

    @pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--fail"], 1)])
    def test_a_status_that_is_an_error(self, arguments: list[str], code: int) -> None:
        assert run(str(PROBE), "/nothing/such", *arguments).returncode == code

    def test_a_text_that_is_no_component_is_told_in_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "bad.wat"
        path.write_text("(component\n (core module (func unreachble)))")
        done = run(str(path))
        assert done.returncode == 3
        assert done.stderr.endswith(b"unknown operator or unexpected token (line 2, column 21)\n")
        assert done.stderr.count(b"\n") == 1

    def test_what_is_no_target(self, tmp_path: Path) -> None:
        assert run(str(tmp_path / "none.wasm")).returncode == 3
        shutil.copy(HELLO, tmp_path)
        done = run(str(tmp_path))
        assert done.returncode == 2
        assert b"is a folder; hint: one of its files" in done.stderr


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("WASGI_CACHE_DIR", str(folder))
    return folder


class TestCache:
    def compiled(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "wasgi", "compile", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def test_is_filled_in_silence(self, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        done = self.compiled(str(HELLO))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert len(list(cache.glob("*.code"))) == 1
        assert main(["cache", "info"]) == 0
        assert "  1 entry, " in capsys.readouterr().out
        assert main(["cache", "info", "--json"]) == 0
        about = json.loads(capsys.readouterr().out)
        assert about["directory"] == str(cache)
        assert about["bytes"] == about["entries"][0]["bytes"] > 0

    @pytest.mark.parametrize(
        ("flags", "options"),
        [(["--fuel"], ["--fuel", "1000000000"]), (["--isolated"], ["--isolated"])],
        ids=["fuel", "isolated"],
    )
    def test_has_all_that_is_run_on_these_terms(self, flags: list[str], options: list[str], cache: Path) -> None:
        assert self.compiled(str(HELLO), *flags).returncode == 0
        before = list(cache.glob("*.code"))
        assert run(str(HELLO), *options).stdout == b"Hello, World!"
        assert list(cache.glob("*.code")) == before

    def test_is_cleared_of_what_is_its_own(self, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.compiled(str(HELLO)).returncode == 0
        (entry,) = cache.glob("*.code")
        (cache / "mine.code").write_text("")
        (cache / "notes.txt").write_text("")
        (cache / f"{'0' * 64}-{'0' * 16}.code").symlink_to(cache / "notes.txt")
        (cache / f"{'1' * 64}-{'0' * 16}.code").mkdir()
        fresh = cache / f"{entry.name}.12-{'0' * 16}.part"
        left = cache / f"{entry.name}.13-{'0' * 16}.part"
        for part in (fresh, left):
            part.write_text("")
        long_ago = time.time() - 3600
        os.utime(left, (long_ago, long_ago))
        assert main(["cache", "clear"]) == 0
        assert "2 files removed" in capsys.readouterr().out
        assert not entry.exists()
        assert not left.exists()
        assert {"mine.code", "notes.txt", fresh.name, "locks"} <= {path.name for path in cache.iterdir()}
        assert len(list(cache.iterdir())) == 6

    @pytest.mark.parametrize(("text", "most"), [("4096", 4096), ("1MiB", 2**20), ("", 2**30)])
    def test_its_size(
        self, text: str, most: int, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("WASGI_CACHE_SIZE", text)
        assert main(["cache", "info", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["most_bytes"] == most
        monkeypatch.setenv("WASGI_CACHE_SIZE", "much")
        assert main(["cache", "info"]) == 2
        assert capsys.readouterr().err.startswith("wasgi: variable `WASGI_CACHE_SIZE`: `much` is not a number of bytes")

    def test_that_is_not_there(self, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["cache", "info"]) == 0
        assert main(["cache", "clear"]) == 0
        assert "0 files removed" in capsys.readouterr().out

    def test_that_is_off(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("WASGI_CACHE_DIR", "")
        assert main(["compile", str(HELLO)]) == 1
        assert "the code cache is off" in capsys.readouterr().err

    def test_where_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from wasgi.cli.cache import folder

        monkeypatch.delenv("WASGI_CACHE_DIR", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        monkeypatch.setenv("HOME", "/home/ada")
        assert folder() == Path("/home/ada/.cache/wasgi")
        monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
        assert folder() == Path("/var/cache/wasgi")

    def test_what_cannot_be_compiled(self, cache: Path) -> None:
        done = self.compiled(str(HELLO), "none.wasm")
        assert done.returncode == 3
        assert done.stderr.count("\n") == 1
