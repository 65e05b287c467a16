"""uvicorn with a plain ASGI hello, and uvicorn with an App of the Rust hello guest, under the same load in one run.

just bench-asgi        (needs wrk)
"""

from __future__ import annotations

import argparse
import contextlib
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wasgi

ROOT = Path(__file__).parents[1]
app = wasgi.App(ROOT / "tests" / "guests" / "components" / "hello.wasm")


async def plain(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, World!"})


@contextlib.contextmanager
def serving(name: str) -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    options = ["--port", str(port), "--log-level", "error", "--http", "httptools", "--loop", "uvloop"]
    command = [sys.executable, "-m", "uvicorn", f"benches.asgi:{name}", *options]
    with subprocess.Popen(command, cwd=ROOT) as process:
        url = f"http://127.0.0.1:{port}/"
        try:
            while True:
                with contextlib.suppress(OSError), urllib.request.urlopen(url) as response:
                    assert response.read() == b"Hello, World!"
                    break
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()


def load(url: str, connections: int, seconds: int) -> tuple[float, float]:
    """Requests a second, and the 99th percentile in milliseconds."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate, slow = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    assert rate is not None
    assert slow is not None
    return float(rate[1]), float(slow[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[slow[2]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with serving("plain") as one, serving("app") as other:
        for _ in range(options.rounds):
            for connections in (1, 32):
                (plain_rate, plain_slow), (rate, slow) = (
                    load(url, connections, options.seconds) for url in (one, other)
                )
                print(
                    f"{connections:2} connections: plain {plain_rate:7.0f}/s, p99 {plain_slow:5.2f} ms;"
                    f" app {rate:7.0f}/s ({rate / plain_rate:.2f} x), p99 {slow:5.2f} ms"
                )


if __name__ == "__main__":
    main()
