"""What an App costs under a server.

uvicorn with a plain ASGI hello, uvicorn with an App of the Rust hello guest (one worker, and two), and `wasmtime serve`
with the same guest where it is installed, each under the same load in turn.

just bench-asgi        (needs wrk; for wasmtime: cargo install wasmtime-cli)
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wasgi

ROOT = Path(__file__).parents[1]
HELLO = ROOT / "tests" / "guests" / "components" / "hello.wasm"
app = wasgi.App(HELLO)


async def plain(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, World!"})


UVICORN = [sys.executable, "-m", "uvicorn", "--log-level", "error", "--http", "httptools", "--loop", "uvloop"]
SERVERS = {
    "plain": [*UVICORN, "benches.asgi:plain", "--port"],
    "app": [*UVICORN, "benches.asgi:app", "--port"],
    "app, 2 workers": [*UVICORN, "benches.asgi:app", "--workers", "2", "--port"],
}
if wasmtime := shutil.which("wasmtime"):
    SERVERS["wasmtime serve"] = [wasmtime, "serve", "-Scli", str(HELLO), "--addr"]


@contextlib.contextmanager
def serving(name: str) -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    where = f"127.0.0.1:{port}" if name.startswith("wasmtime") else str(port)
    with subprocess.Popen(
        [*SERVERS[name], where], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
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
    rates: dict[tuple[str, int], list[float]] = {}
    slowest: dict[tuple[str, int], list[float]] = {}
    with contextlib.ExitStack() as stack:
        urls = {name: stack.enter_context(serving(name)) for name in SERVERS}
        for _ in range(options.rounds):
            for connections in (1, 32):
                for name, url in urls.items():
                    rate, slow = load(url, connections, options.seconds)
                    rates.setdefault((name, connections), []).append(rate)
                    slowest.setdefault((name, connections), []).append(slow)
    print("medians; x: to `wasmtime serve` and to the plain application, by the median of the rounds' ratios")
    for (name, connections), found in rates.items():
        line = f"{connections:2} connections: {name:15} {statistics.median(found):7.0f}/s"
        line += f", p99 {statistics.median(slowest[name, connections]):5.2f} ms"
        for other in ("wasmtime serve", "plain"):
            if other in urls and other != name:
                ratios = [one / two for one, two in zip(found, rates[other, connections], strict=True)]
                line += f", {statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})"
        print(line)


if __name__ == "__main__":
    main()
