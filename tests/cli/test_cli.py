"""The command line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import wasgi
from tests.conftest import COMPONENTS, HAND, HELLO, PROBE, get
from wasgi.cli import main

WIT = Path(__file__).parents[2] / "wit"


def test_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    shown = capsys.readouterr().out
    for line in (
        "the guest prints: greeting Ada",
        "200 'Hello, Ada!'",
        "the guest requests: GET https://weather.example/v1/Lisbon",
        "200 'Lisbon: sunny, 24 °C'",
        "502 'Lisbon: nobody knows (ErrorCode::HttpRequestDenied)'",
        "wasgi.TrapError: the guest trapped:",
        "demo::split_the_bill",
        "and the next call: 200 'Hello, again!'",
    ):
        assert line in shown
    assert len(shown.splitlines()) < 48, "one screen"
    assert "\x1b" not in shown, "no colours where there is no terminal"


def test_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(PROBE)]) == 0
    shown = capsys.readouterr().out
    assert "a component of WASI 0.2, " in shown
    assert "handler   wasi:http/incoming-handler@0.2.12" in shown
    assert "WASI      0.2.12" in shown
    assert "exports   wasi:http/incoming-handler@0.2.12" in shown
    assert "wasi:http/outgoing-handler@0.2.12" in shown
    assert "outgoing requests: App(outgoing=...)" in shown
    assert "verdict   runs on this version" in shown


def test_inspect_for_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--json", str(PROBE)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["wasi"] == "0.2"
    assert found["handler"] == "wasi:http/incoming-handler@0.2.12"
    assert found["runs"] is True
    assert found["size"] == PROBE.stat().st_size
    assert found["missing"] == []


def test_inspect_one_of_0_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(COMPONENTS / "everything_p3.wasm")]) == 0
    shown = capsys.readouterr().out
    assert "a component of WASI 0.3, " in shown
    assert "handler   wasi:http/handler@0.3.0" in shown
    assert "WASI      0.2.12, 0.3.0" in shown
    assert "missing   " not in shown
    assert shown.count("outgoing requests: App(outgoing=...)") == 1
    assert "verdict   runs on this version" in shown


@pytest.mark.parametrize("name", ["command", "command_p3"])
def test_inspect_a_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(COMPONENTS / f"{name}.wasm")
    assert main(["inspect", path]) == 0
    out = capsys.readouterr().out
    assert "\n  command   wasi:cli/run@0." in out
    assert "\n  handler" not in out
    assert out.endswith("\n  verdict   `wasgi run` runs it\n")
    assert main(["inspect", "--json", path]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["handler"], told["runs"]) == (None, True)
    assert told["command"].startswith("wasi:cli/run@0.")


def test_inspect_one_that_passes_requests_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "middleware.wat"
    path.write_text('(component (import "wasi:http/handler@0.3.0" (instance)))')
    assert main(["inspect", str(path)]) == 3  # it has no handler of its own
    shown = capsys.readouterr().out
    assert "the next handler: App(handler=...)" in shown
    assert "missing   " not in shown


def test_inspect_a_guest_that_needs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(HAND)]) == 0
    assert "grants    none needed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("(component)", ["handler   none", "does not run"]),
        (
            '(component (instance $h) (export "wasi:http/handler@0.3.0" (instance $h)))',
            ["handler   wasi:http/handler@0.3.0", "WASI      0.3.0", "does not run", "cannot be linked"],
        ),
        (
            '(component (instance $h) (export "wasi:http/handler@0.3.0-draft" (instance $h)))',
            ["handler   none", "WASI      0.3.0-draft", "does not run", "a pre-release of WASI 0.3"],
        ),
        ('(component (import "acme:db/query@1.0.0" (instance)))', ["missing   acme:db/query@1.0.0: not provided"]),
    ],
)
def test_inspect_what_does_not_run(
    text: str, lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "guest.wat"
    path.write_text(text)
    assert main(["inspect", str(path)]) == 3
    shown = capsys.readouterr().out
    for line in lines:
        assert line in shown


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"\0asm\x01\0\0\0", "a core WebAssembly module"),
        (HELLO.read_bytes()[:5000], "a truncated component"),
    ],
)
def test_inspect_what_is_no_component(
    content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert main(["inspect", str(path)]) == 3
    assert message in capsys.readouterr().err


def test_inspect_and_an_app_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever keeps a component from being loaded, or its app from handling a request, is in the verdict, likewise."""
    hand = HAND.read_text()
    of_the_wrong_type = (
        hand.replace('(param "status-code" u16)', '(param "status-code" u64)')
        .replace("(func $set-status (param i32 i32) (result i32))", "(func $set-status (param i32 i64) (result i32))")
        .replace("(i32.const 299)", "(i64.const 299)")
    )
    candidates = [
        of_the_wrong_type,
        "(component)",
        '(component (instance $h) (export "wasi:http/incoming-handler@0.2.0" (instance $h)))',
        '(component (import "wasi:io/poll" (instance)) (instance $h)'
        ' (export "wasi:http/incoming-handler@0.2.0" (instance $h)))',
        '(component (import "wasi:io/poll@0.2.0-rc-2023-10-18" (instance)) (instance $h)'
        ' (export "wasi:http/incoming-handler@0.2.0" (instance $h)))',
        '(component (instance $h) (export "wasi:http/incoming-handler@0.2.0-rc-2023-12-05" (instance $h)))',
        '(component (instance $h) (export "wasi:http/handler@0.3.0" (instance $h)))',
        '(component (instance $h) (export "wasi:http/handler@0.3.0-rc-2026-03-15" (instance $h)))',
    ]
    for number, text in enumerate(candidates):
        path = tmp_path / f"{number}.wat"
        path.write_text(text)
        with pytest.raises(wasgi.ComponentError) as raised:
            wasgi.App(path).handle(get("/"))
        assert main(["inspect", str(path)]) == 3
        shown = capsys.readouterr().out
        assert "does not run" in shown
        assert str(raised.value).removeprefix(f"`{path}`: ") in shown  # the file is in its first line


def test_inspect_a_file_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "none")]) == 3
    assert "No such file" in capsys.readouterr().err


def test_wit_writes_out_the_folder(tmp_path: Path) -> None:
    assert main(["wit", str(tmp_path / "new")]) == 0
    written = {path.relative_to(tmp_path / "new"): path.read_text() for path in (tmp_path / "new").rglob("*.wit")}
    assert written == {path.relative_to(WIT): path.read_text() for path in WIT.rglob("*.wit")}


def test_wit_has_the_worlds_of_both_generations(tmp_path: Path) -> None:
    assert main(["wit", str(tmp_path)]) == 0
    world = (tmp_path / "world.wit").read_text()
    worlds = dict(re.findall(r"^world ([\w-]+) \{\n(.*?)^\}", world, re.MULTILINE | re.DOTALL))
    assert list(worlds) == ["http-handler", "http-proxy", "http-service", "http-middleware", "http-everything"]
    for name in ("http-handler", "http-proxy"):
        assert "export wasi:http/incoming-handler@0.2." in worlds[name]
        assert "@0.3" not in worlds[name]
    for name in ("http-service", "http-middleware"):
        assert "@0.2" not in worlds[name]
    assert "export wasi:http/handler@0.3." in worlds["http-service"]
    assert "import wasi:http/handler@0.3." in worlds["http-middleware"]


def test_wit_where_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["wit", str(tmp_path / "file")]) == 1
    assert "wasgi: " in capsys.readouterr().err


def test_the_command_is_installed() -> None:
    done = subprocess.run([Path(sys.executable).parent / "wasgi", "--help"], capture_output=True, text=True, check=True)
    assert "demo" in done.stdout


def test_the_demo_names_what_it_shows() -> None:
    """The code that the demo prints is the code of the API."""
    for name in ("Component", "App", "Request", "Response"):
        assert hasattr(wasgi, name)


COMMAND = [sys.executable, "-m", "wasgi"]


def test_the_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == f"wasgi {wasgi.__version__}"
    assert "WASI 0.2.12, 0.3.0" in others


def test_the_package_is_a_command() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"wasgi {wasgi.__version__}\n")


def shown_in_terminal(command: list[str], variables: dict[str, str]) -> bytes:
    """What a command writes to a terminal."""
    ours, its = os.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", **variables}
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment) as process:
        os.close(its)
        shown = b""
        # the end of a terminal that nobody has open any more is an error on Linux
        with contextlib.suppress(OSError):
            while chunk := os.read(ours, 65536):
                shown += chunk
        os.close(ours)
        assert process.wait() == 0
    return shown


ASCII = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}


class TestWhateverStdoutIs:
    def test_one_of_ascii(self) -> None:
        done = subprocess.run([*COMMAND, "demo"], capture_output=True, env=ASCII)
        assert (done.returncode, done.stderr) == (0, b"")
        shown = done.stdout.decode("ascii")
        assert "200 'Lisbon: sunny, 24  deg C'" in shown
        assert " us\n" in shown

    def test_a_path_that_ascii_does_not_have(self, tmp_path: Path) -> None:
        path = tmp_path / "gäst.wasm"
        path.write_bytes(HELLO.read_bytes())
        done = subprocess.run([*COMMAND, "inspect", path], capture_output=True, env=ASCII)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"g\\xe4st.wasm: a component" in done.stdout

    @pytest.mark.parametrize("arguments", [["demo"], ["inspect", str(HELLO)], ["wit", "out"]])
    def test_one_whose_reader_has_gone(self, arguments: list[str], tmp_path: Path) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, cwd=tmp_path)
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, b"")

    @pytest.mark.parametrize("arguments", [["demo"], ["inspect", str(HELLO)], ["wit", "out"]])
    def test_none(self, arguments: list[str], tmp_path: Path) -> None:
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, *arguments]
        done = subprocess.run(command, stderr=subprocess.PIPE, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
    def test_one_that_is_full(self) -> None:
        with open("/dev/full", "wb") as full:
            done = subprocess.run([*COMMAND, "inspect", HELLO], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert done.stderr == "wasgi: [Errno 28] No space left on device\n"

    def test_its_colours_are_a_terminals(self) -> None:
        for variables, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
            assert (b"\x1b[" in shown_in_terminal([*COMMAND, "serve", "--help"], variables)) is coloured

    def test_it_is_left_as_it_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["inspect", str(HELLO)]) == 0
        assert stream.errors == "strict"
