"""One hello request three ways, in one run: the floor in plain Rust, `app.handle`, `await app.handle_async`.

Of either generation of WASI (`--generation 0.3`).

    just bench

Rounds of the three alternate. A figure is the median of its rounds, a ratio the median of each round's ratio to the
floor's: the machine's moods touch neighbours alike.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import time
from pathlib import Path

import wasgi

COMPONENTS = Path(__file__).parents[1] / "tests" / "guests" / "components"
GUESTS = {"0.2": COMPONENTS / "hello.wasm", "0.3": COMPONENTS / "hello_p3.wasm"}


def blocking(app: wasgi.App, requests: int) -> float:
    begun = time.perf_counter()
    for _ in range(requests):
        response = app.handle(wasgi.Request("GET", "http://example.com/hello?x=1"))
        assert response.read() == b"Hello, World!"
    return (time.perf_counter() - begun) * 1e6 / requests


async def awaited(app: wasgi.App, requests: int) -> float:
    begun = time.perf_counter()
    for _ in range(requests):
        response = await app.handle_async(wasgi.Request("GET", "http://example.com/hello?x=1"))
        assert await response.aread() == b"Hello, World!"
    return (time.perf_counter() - begun) * 1e6 / requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("floor", help="the built benches/floor.rs")
    parser.add_argument("--requests", type=int, default=2_000, help="requests a round")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--generation", choices=GUESTS, default="0.2", help="of WASI, that the guest speaks")
    options = parser.parse_args()
    guest = GUESTS[options.generation]
    app = wasgi.App(guest)
    times: dict[str, list[float]] = {"floor (plain Rust)": [], "app.handle": [], "await app.handle_async": []}
    command = [options.floor, str(guest), str(options.requests), options.generation]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as floor:
        assert floor.stdin is not None
        assert floor.stdout is not None
        for n in range(options.rounds + 1):
            floor.stdin.write("\n")
            floor.stdin.flush()
            figures = [
                float(floor.stdout.readline()),
                blocking(app, options.requests),
                asyncio.run(awaited(app, options.requests)),
            ]
            if n > 0:  # the first round warms up
                for name, figure in zip(times, figures, strict=True):
                    times[name].append(figure)
        floor.stdin.close()
    floors = times["floor (plain Rust)"]
    for name, figures in times.items():
        ratio = statistics.median(figure / base for figure, base in zip(figures, floors, strict=True))
        middle = statistics.median(figures)
        print(f"{name:24}{middle:8.1f} µs {ratio:8.2f} x   (rounds from {min(figures):.1f} to {max(figures):.1f} µs)")


if __name__ == "__main__":
    main()
