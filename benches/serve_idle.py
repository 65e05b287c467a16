"""Many connections that nothing happens on: what they cost the server, and whether it answers beside them.

``python benches/serve_idle.py --connections 10000`` runs `wasgi serve` in processes of its own. A connection takes two
descriptors of the server: where the limit of one process is too low (`ulimit -Hn`), two workers share them.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HELLO = Path(__file__).parents[1] / "tests" / "guests" / "components" / "hello.wasm"
WASGI = str(Path(sys.executable).with_name("wasgi"))
REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
PER_SOURCE = 5000
"""Connections from one address: a port of 28,000 is taken for each."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def processes(parent: int) -> list[Path]:
    """A server's folders in /proc: its own and those of its workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if parent in (int(folder.name), int((folder / "stat").read_text().rpartition(")")[2].split()[1])):
                found.append(folder)
    return found


def resident(parent: int) -> int:
    """Bytes of memory."""
    pages = sum(int((folder / "statm").read_text().split()[1]) for folder in processes(parent))
    return pages * resource.getpagesize()


@contextlib.contextmanager
def serving(port: int, workers: int) -> Iterator[int]:
    """`wasgi serve`, from when it answers to the end of the block."""
    options = ["--port", str(port), "--connections", "100000", "--header-timeout", "none", "--idle-timeout", "none"]
    command = [WASGI, "serve", str(HELLO), *options, "--drain-timeout", "0"]
    if workers > 1:
        command += ["--workers", str(workers)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            for _ in range(600):
                with contextlib.suppress(OSError):
                    asked(socket.create_connection(("127.0.0.1", port)))
                    break
                time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()


def asked(connection: socket.socket) -> float:
    """Seconds until the answer to one request is there."""
    begun = time.perf_counter()
    connection.sendall(REQUEST)
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    chosen = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    workers = 1 if hard > 2 * chosen.connections + 200 else 2
    port = free_port()
    with serving(port, workers) as server, contextlib.ExitStack() as open_ones:
        other = open_ones.enter_context(socket.create_connection(("127.0.0.1", port)))
        for _ in range(2000):  # what the first requests take once
            asked(other)
        before = resident(server)
        connections = []
        for number in range(chosen.connections):
            source = (f"127.0.0.{2 + number // PER_SOURCE}", 0)
            connection = socket.create_connection(("127.0.0.1", port), source_address=source)
            connections.append(open_ones.enter_context(connection))
        print(f"{chosen.connections} connections, {workers} process(es), {before / 2**20:.0f} MiB before")

        def tell(which: str) -> None:
            each = (resident(server) - before) / chosen.connections / 1024
            beside = statistics.median(asked(other) for _ in range(200)) * 1e3
            print(f"  {which}: {each:.2f} KiB each; a request beside them takes {beside:.2f} ms", flush=True)

        tell("silent")
        for connection in connections:
            asked(connection)
        tell("after a request each")
        for connection in connections[:: max(1, len(connections) // 100)]:
            asked(connection)
        print("  those that were asked again have answered")


if __name__ == "__main__":
    main()
