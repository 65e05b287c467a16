"""Processes of their own: scripts, and servers on free ports of the loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2

from tests.conftest import ROOT


def run(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    """`python -c script`, until it ends."""
    return subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, timeout=50)


def told(logged: str) -> str:
    """What was logged, but for how guests are reset on this machine: its kernel may be old."""
    return "".join(line for line in logged.splitlines(keepends=True) if "PAGEMAP_SCAN" not in line)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(
    command: list[str], answers: Callable[[], bool], *, cwd: Path = ROOT, output: Path = Path(os.devnull)
) -> Iterator[None]:
    """`python -m command`, until it is left; entered when it answers. What it writes to stderr goes to `output`."""
    with (
        output.open("wb") as stderr,
        subprocess.Popen([sys.executable, "-m", *command], cwd=cwd, stderr=stderr) as process,
    ):
        try:

            def ready() -> bool:
                assert process.poll() is None, f"{command[0]} has ended"
                with contextlib.suppress(httpx2.TransportError):
                    return answers()
                return False

            # for as long as the test may take: it may have a guest of 18 MB to compile
            while not ready():
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
