"""Where a component may come from: plain files. Nothing else is waited for."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import wasgi
from tests.conftest import HELLO, get
from wasgi.cli.inspect import inspect

WAYS = [wasgi.Component, wasgi.App, inspect]


@pytest.fixture(params=["pipe", "socket", "device", "link to a pipe"])
def odd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "odd"
    match request.param:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind("odd")
        case "device":
            return Path("/dev/zero")
        case "link to a pipe":
            os.mkfifo(tmp_path / "pipe")
            path.symlink_to(tmp_path / "pipe")
    return path


@pytest.mark.parametrize("load", WAYS)
def test_what_is_no_plain_file_is_refused_at_once(load: Callable[[Path], object], odd: Path) -> None:
    with pytest.raises(
        wasgi.InvalidComponentError, match=r"not a component but a (pipe|socket|device); hint: "
    ) as raised:
        load(odd)
    assert str(odd) in str(raised.value)


@pytest.mark.parametrize("load", WAYS)
def test_a_folder(load: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        load(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="that file is Linux's")
@pytest.mark.parametrize("load", WAYS)
def test_a_file_that_the_kernel_makes_up(load: Callable[[Path], object]) -> None:
    """It is read for as long as the kernel has something to say, and says that it is empty."""
    if os.geteuid() != 0:
        pytest.skip("only root can open it")
    with pytest.raises(wasgi.InvalidComponentError):
        load(Path("/proc/kmsg"))


def test_a_pickled_component_whose_file_has_become_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "hello.wasm"
    path.write_bytes(HELLO.read_bytes())
    pickled = pickle.dumps(wasgi.Component(path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(wasgi.InvalidComponentError, match="not a component but a pipe"):
        pickle.loads(pickled)


def test_a_link_to_a_plain_file(tmp_path: Path) -> None:
    path = tmp_path / "link"
    path.symlink_to(HELLO)
    assert wasgi.App(path).handle(get("/")).text == "Hello, World!"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such paths")
def test_an_open_file_by_its_path() -> None:
    """As `/dev/stdin` is, where a file was redirected to it."""
    with HELLO.open("rb") as file:
        assert wasgi.App(f"/dev/fd/{file.fileno()}").handle(get("/")).text == "Hello, World!"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such paths")
def test_what_is_piped_in() -> None:
    script = """
import sys, wasgi
try:
    wasgi.App("/dev/stdin")
except wasgi.InvalidComponentError as error:
    print(error)
print(wasgi.App(sys.stdin.buffer.read()).handle(wasgi.Request("GET", "http://a/")).text)
"""
    done = subprocess.run([sys.executable, "-c", script], input=HELLO.read_bytes(), capture_output=True, check=True)
    refused, hello = done.stdout.decode().splitlines()
    assert refused.startswith("`/dev/stdin`: not a component but a pipe; hint: ")
    assert hello == "Hello, World!"
