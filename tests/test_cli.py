"""The command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import wasgi
from wasgi.cli import main

from .conftest import HAND, HELLO, PROBE

WIT = Path(__file__).parents[1] / "wit"


def test_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    shown = capsys.readouterr().out
    for line in (
        "the guest prints: greeting Ada",
        "200 'Hello, Ada!'",
        "the guest asks for: GET https://weather.example/v1/Lisbon",
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
    assert "handler   wasi:http 0.2" in shown
    assert "WASI      0.2.12" in shown
    assert "exports   wasi:http/incoming-handler@0.2.12" in shown
    assert "wasi:http/outgoing-handler@0.2.12" in shown
    assert "outgoing requests: App(outgoing=...)" in shown
    assert "verdict   runs on this version" in shown


def test_inspect_a_guest_that_needs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(HAND)]) == 0
    assert "grants    none needed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("(component)", ["handler   none", "does not run"]),
        (
            '(component (instance $h) (export "wasi:http/handler@0.3.0" (instance $h)))',
            ["wasi:http 0.3", "WASI      0.3.0", "does not run"],
        ),
        ('(component (import "acme:db/query@1.0.0" (instance)))', ["missing   acme:db/query@1.0.0: not provided"]),
    ],
)
def test_inspect_what_does_not_run(
    text: str, lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "guest.wat"
    path.write_text(text)
    assert main(["inspect", str(path)]) == 0
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
    assert main(["inspect", str(path)]) == 1
    assert message in capsys.readouterr().err


def test_inspect_a_file_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "none")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_wit_writes_out_the_folder(tmp_path: Path) -> None:
    assert main(["wit", str(tmp_path / "new")]) == 0
    written = {path.relative_to(tmp_path / "new"): path.read_text() for path in (tmp_path / "new").rglob("*.wit")}
    assert written == {path.relative_to(WIT): path.read_text() for path in WIT.rglob("*.wit")}


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
