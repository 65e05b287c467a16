"""A large body through an echo guest by `wasgi serve`, beside `wasmtime serve`: MB/s, and the one by the other.

``python benches/serve_echo.py --wasmtime PROGRAM``. Turn by turn, so that both have the machine alike; the median
counts, and only the ratio of one run means anything.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PROBE = Path(__file__).parents[1] / "tests" / "guests" / "components" / "probe.wasm"
WASGI = str(Path(sys.executable).with_name("wasgi"))
PIECE = b"x" * (256 << 10)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A server, from when it accepts to the end of the block."""
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=nowhere, stderr=nowhere) as process:
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


def echoed(port: int, size: int) -> float:
    """MB/s of a body that goes in and comes out."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        begun = time.perf_counter()

        def sends() -> None:
            head = f"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n"
            connection.sendall(head.encode())
            for _ in range(size // len(PIECE)):
                connection.sendall(PIECE)

        sender = threading.Thread(target=sends)
        sender.start()
        buffer, received = bytearray(1 << 20), 0
        first = connection.recv(65_536)
        assert first.startswith(b"HTTP/1.1 200"), first[:200]
        while got := connection.recv_into(buffer):
            received += got
        sender.join()
        seconds = time.perf_counter() - begun
    # chunks have lines of their own
    assert received >= size - len(first), f"only {received} of {size} bytes came"
    return size / seconds / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wasmtime", metavar="PROGRAM")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    ports = free_port(), free_port()
    no_limit = ["--timeout", "none", "--body-timeout", "none"]
    served = [WASGI, "serve", str(PROBE), "--port", str(ports[0]), *no_limit]
    commands = {"wasgi serve": (served, ports[0])}
    if chosen.wasmtime is not None:
        address = f"127.0.0.1:{ports[1]}"
        beside = [chosen.wasmtime, "serve", "-S", "cli", "--addr", address, str(PROBE)]
        commands["wasmtime serve"] = beside, ports[1]
    with contextlib.ExitStack() as servers:
        for command, port in commands.values():
            servers.enter_context(running(command, port))
        for _, port in commands.values():
            echoed(port, 16 << 20)
        rounds = [
            {name: echoed(port, chosen.mib << 20) for name, (_, port) in commands.items()} for _ in range(chosen.rounds)
        ]
    medians = {name: statistics.median(one[name] for one in rounds) for name in commands}
    for name, median in medians.items():
        print(f"{name:15} {median:8.0f} MB/s of {chosen.mib} MiB; the rounds: {[round(one[name]) for one in rounds]}")
    if len(medians) == 2:
        print(f"wasgi serve is {medians['wasgi serve'] / medians['wasmtime serve']:.2f} times as fast")


if __name__ == "__main__":
    main()
