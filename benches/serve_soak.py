"""The server for a long time, with clients that hang up at random: memory, descriptors and stats must stay flat.

``python benches/serve_soak.py --minutes 10``. The server is a process of its own. Clients of HTTP/1 leave before,
within and after a head, a body or a response, by FIN or RST. Every few seconds they pause, and what is left is looked
at.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

PROBE = Path(__file__).parents[1] / "tests" / "guests" / "components" / "probe.wasm"

SERVER = """
import json, sys, wasgi
app = wasgi.App(sys.argv[1], limits=wasgi.Limits(queue=1000, timeout=5))
with wasgi.Server(app, bind="127.0.0.1:0", body_timeout=2, drain_timeout=0) as server:
    print(server.addresses[0], flush=True)
    for _ in sys.stdin:
        stats = wasgi.stats()
        stats = {name: getattr(stats, name) for name in sys.argv[2:]}
        of_server = server.stats
        print(json.dumps({**stats, "connections": of_server.connections, "requests": of_server.requests}), flush=True)
"""

REQUESTS = [
    b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /sleep?ms=20 HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /sleep?ms=3000 HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /slow-body?ms=500 HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /trap HTTP/1.1\r\nhost: a\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n" + b"x" * 200_000,
    b"POST /collect HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + b"5\r\nhello\r\n" * 200 + b"0\r\n\r\n",
    b"POST /hello HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhello",
    b"GET / HTTP/1.1\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloX",
]
NOW = ("exchanges", "queued", "outgoing", "calls", "feeds", "tasks")
"""What must be 0 when nobody asks, beside the server's connections."""
HELD = ("idle", "slots", "memories", "stacks", "memory", "threads", "dropped", "outcomes")


class Clients:
    """Threads that ask and leave, but for the pauses."""

    def __init__(self, address: str, number: int, seed: int) -> None:
        host, _, port = address.rpartition(":")
        self.address = host, int(port)
        self.goes = threading.Event()
        self.under_way = 0
        self.asked = 0
        self.lock = threading.Lock()
        for one in range(number):
            threading.Thread(target=self._run, args=(random.Random(seed + one),), daemon=True).start()

    def _run(self, rng: random.Random) -> None:
        while True:
            self.goes.wait()
            with self.lock:
                self.under_way += 1
            with contextlib.suppress(OSError):
                self._ask(rng)
            with self.lock:
                self.under_way -= 1

    def _ask(self, rng: random.Random) -> None:
        with socket.create_connection(self.address) as connection:
            connection.settimeout(rng.choice([0.01, 0.1, 1]))
            for _ in range(rng.randrange(1, 6)):
                self.asked += 1
                request = rng.choice(REQUESTS)
                whole = rng.random() < 0.6
                connection.sendall(request if whole else request[: rng.randrange(len(request))])
                if not whole or rng.random() < 0.3:
                    break
                if not connection.recv(rng.choice([1, 100, 65_536])):
                    break
            if rng.random() < 0.3:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            elif rng.random() < 0.3:
                connection.shutdown(socket.SHUT_WR)
                connection.recv(65_536)


def is_busy(stats: dict[str, Any]) -> bool:
    return any(stats[name] for name in (*NOW, "connections"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    command = [sys.executable, "-c", SERVER, str(PROBE), *NOW, *HELD]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asks, answers, folder = process.stdin, process.stdout, Path(f"/proc/{process.pid}")
        clients = Clients(answers.readline().strip(), chosen.clients, chosen.seed)

        def stats() -> dict[str, Any]:
            asks.write("\n")
            asks.flush()
            found: dict[str, Any] = json.loads(answers.readline())
            return found

        begun, rounds = time.monotonic(), list[tuple[float, float, int, dict[str, Any]]]()
        while (elapsed := time.monotonic() - begun) < chosen.minutes * 60:
            clients.goes.set()
            time.sleep(5)
            clients.goes.clear()
            deadline = time.monotonic() + 30
            while clients.under_way or is_busy(stats()):
                assert time.monotonic() < deadline, f"left over: {stats()}"
                time.sleep(0.05)
            memory = int((folder / "statm").read_text().split()[1]) * resource.getpagesize() / 2**20
            descriptors = len(list((folder / "fd").iterdir()))
            rounds.append((elapsed, memory, descriptors, stats()))
            print(
                f"{elapsed:6.0f} s  {clients.asked:9} asked  {memory:7.1f} MiB  {descriptors} descriptors", flush=True
            )
        asks.close()
    warm = rounds[len(rounds) // 3 :]
    slope = statistics.linear_regression([one[0] for one in warm], [one[1] for one in warm]).slope
    rise = slope * (warm[-1][0] - warm[0][0])
    files = sorted({one[2] for one in warm})
    last = {name: value for name, value in warm[-1][3].items() if name not in ("outcomes", "requests")}
    print(f"{clients.asked} asked, memory {warm[0][1]:.1f} to {warm[-1][1]:.1f} MiB, fitted rise {rise:+.1f}")
    print(f"descriptors: {files}; stats: {last}; {warm[-1][3]['outcomes']}")
    assert rise < warm[0][1] / 10, "memory rises"
    assert len(files) == 1, "descriptors come and go"


if __name__ == "__main__":
    main()
