"""What one tenant feels of another that means harm: latencies of an App beside exchanges of another one.

Measured on one event loop: how late it wakes (lag), and how long these take: hello, a guest that sleeps 10 ms, an
outgoing request by `Network` and one by a coroutine. First alone, then beside 2, 8 and 64 exchanges of a hostile guest,
each of which is begun anew when it ends. A cell is marked (!) where the lag's p99 is over 5 ms, a median more than 1 ms
or a p99 more than 5 ms over what it is alone.

    just bench-hostile                                    (the whole table)
    just bench-hostile --how fill --how random --beside 8

One table is printed, in milliseconds, with how many hostile exchanges were begun in each row; `--json` writes all
numbers to a file. The server that `Network` asks is a process of its own, on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import wasgi

PROBE = Path(__file__).parents[1] / "tests" / "guests" / "components" / "probe.wasm"
SERVER = """
import asyncio, sys

class Hello(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.seen = transport, b""

    def data_received(self, data):
        self.seen += data
        while b"\\r\\n\\r\\n" in self.seen:
            _, self.seen = self.seen.split(b"\\r\\n\\r\\n", 1)
            self.transport.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nup")

async def main():
    server = await asyncio.get_running_loop().create_server(Hello, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
HOW = {
    "spin": "/spin",
    "fill": "/hostile/fill?mib={mib}",
    "random": "/hostile/random?bytes={random}",
    "print": "/hostile/print",
    "chunks": "/hostile/chunks",
    "stream": "/endless",
    "allocate": "/hostile/allocate?mib={mib}",
}
"""What the hostile guest is asked."""
AIMS = {"lag": 5.0, "p50": 1.0, "p99": 5.0}
"""Milliseconds: the lag, and how much more than alone a latency may be."""


def get(target: str) -> wasgi.Request:
    return wasgi.Request("GET", f"http://guest.local{target}")


@dataclass
class Cell:
    """What was measured while something went on; times in milliseconds."""

    how: str
    beside: int
    taken: dict[str, list[float]] = field(default_factory=dict)
    starts: int = 0
    ends: dict[str, int] = field(default_factory=dict)

    def quantile(self, name: str, q: float) -> float:
        """Infinite if nothing was measured."""
        found = sorted(self.taken.get(name, []))
        return found[min(int(len(found) * q), len(found) - 1)] if found else float("inf")

    def misses(self, name: str, alone: Cell) -> list[str]:
        """Which aims are missed."""
        if name == "lag":
            return ["p99"] if self.quantile(name, 0.99) > AIMS["lag"] else []
        return [
            word
            for word, q in (("p50", 0.5), ("p99", 0.99))
            if self.quantile(name, q) > alone.quantile(name, q) + AIMS[word]
        ]


async def lag(taken: list[float]) -> None:
    """How much later than asked for the loop wakes. A long stall counts for each wake that was missed in it."""
    while True:
        due = time.perf_counter() + 0.002
        await asyncio.sleep(0.002)
        late = (time.perf_counter() - due) * 1e3
        while True:
            taken.append(late)
            if late < 2:
                break
            late -= 2


async def ask(app: wasgi.App, target: str, content: bytes, taken: list[float]) -> None:
    """One after the other, with a pause in between that is no multiple of anything."""
    while True:
        begun = time.perf_counter()
        try:
            response = await app.handle_async(get(target))
            assert await response.aread() == content
        except asyncio.CancelledError:
            # it has taken at least so long when the measuring ends
            waited = (time.perf_counter() - begun) * 1e3
            if waited > max(taken, default=0):
                taken.append(waited)
            raise
        taken.append((time.perf_counter() - begun) * 1e3)
        await asyncio.sleep(0.0037)


async def harm(app: wasgi.App, target: str, cell: Cell) -> None:
    """One exchange after the other; what it answers is read to its end."""
    while True:
        cell.starts += 1
        try:
            response = await app.handle_async(get(target))
            async for _ in response:
                pass
            end = "answered"
        except wasgi.WasgiError as error:
            end = type(error).__name__
        cell.ends[end] = cell.ends.get(end, 0) + 1
        # one that fails at once would hold the loop by itself
        await asyncio.sleep(0)


async def measure(cell: Cell, seconds: float, ways: dict[str, Callable[[list[float]], Awaitable[None]]]) -> None:
    tasks = [asyncio.ensure_future(way(cell.taken.setdefault(name, []))) for name, way in ways.items()]
    failed, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in failed:
        task.result()


@contextlib.asynccontextmanager
async def hostile(cell: Cell, app: wasgi.App, target: str) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(harm(app, target, cell)) for _ in range(cell.beside)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        deadline = time.monotonic() + 30
        while app.exchanges and time.monotonic() < deadline:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)


def available() -> int:
    """MiB of memory that nobody uses."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) >> 10
    return 4096


def most_random() -> int:
    """How many bytes of randomness one call may ask for."""
    app, size = wasgi.App(PROBE), 64 << 20
    while size > 1:
        with contextlib.suppress(wasgi.WasgiError):
            app.handle(get(f"/hostile/random?n=1&bytes={size}")).read()
            return size
        size //= 2
    return size


@contextlib.contextmanager
def server() -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


async def up(request: wasgi.Request) -> wasgi.Response:
    return wasgi.Response(body=b"up")


async def run(options: argparse.Namespace, url: str) -> list[Cell]:
    component = wasgi.Component(PROBE)
    random = most_random()
    good = wasgi.App(component, outgoing=up)
    network = wasgi.App(component, outgoing=wasgi.Network([url]))
    ways: dict[str, Callable[[list[float]], Awaitable[None]]] = {
        "lag": lag,
        "hello": lambda taken: ask(good, "/hello", b"Hello, World!", taken),
        "sleep": lambda taken: ask(good, "/sleep?ms=10", b"slept", taken),
        "network": lambda taken: ask(network, f"/fetch?url={url}/", b"up", taken),
        "coroutine": lambda taken: ask(good, "/fetch?url=http://up/", b"up", taken),
    }
    await measure(Cell("warm", 0), 0.5, ways)
    cells = []
    alone = Cell("alone", 0)
    await measure(alone, options.seconds, ways)
    cells.append(alone)
    for how in options.how or HOW:
        for beside in options.beside or [2, 8, 64]:
            # all of them together leave half of the machine's memory
            mib = min(250, max(1, available() // 2 // beside))
            limits = wasgi.Limits(timeout=options.timeout)
            app = wasgi.App(component, stdout=lambda line: None, limits=limits)
            cell = Cell(how if mib == 250 or "{mib}" not in HOW[how] else f"{how} {mib}", beside)
            async with hostile(cell, app, HOW[how].format(mib=mib, random=random)):
                await asyncio.sleep(options.settle)
                await measure(cell, options.seconds, ways)
            await app.aclose(1)
            gc.collect()
            cells.append(cell)
            print(line(cell, alone), flush=True)
    return cells


COLUMNS = ("lag", "hello", "sleep", "network", "coroutine")


def line(cell: Cell, alone: Cell) -> str:
    parts = [f"{cell.how:>12}", f"{cell.beside:>3}"]
    for name in COLUMNS:
        misses = cell.misses(name, alone) if cell is not alone else []
        numbers = [] if name == "lag" else [("p50", cell.quantile(name, 0.5))]
        numbers.append(("p99", cell.quantile(name, 0.99)))
        parts.append(" ".join(f"{number:8.2f}{'!' if word in misses else ' '}" for word, number in numbers))
    return " |".join(parts) + (f" | {cell.starts}" if cell is not alone else " |")


def table(cells: list[Cell]) -> str:
    alone = cells[0]
    head = [f"{'beside':>12}", f"{'n':>3}", f"{'loop lag':>9}"]
    head += [f"{name:>19}" for name in ("hello", "sleep 10 ms", "Network", "coroutine")]
    under = [" " * 12, "   ", f"{'p99':>8} ", *[f"{'p50':>8} {'p99':>9} "] * 4]
    lines = [" |".join([*head, " begun"]), " |".join([*under, ""])]
    lines += [line(cell, alone) for cell in cells]
    missed = [(cell, name) for cell in cells[1:] for name in COLUMNS if cell.misses(name, alone)]
    lines.append(f"{len(missed)} of {len(COLUMNS) * (len(cells) - 1)} cells miss their aim")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--how", action="append", choices=list(HOW), help="this row only; may be given again")
    parser.add_argument("--beside", action="append", type=int, help="so many hostile exchanges only; likewise")
    parser.add_argument("--seconds", type=float, default=5, help="how long each cell is measured")
    parser.add_argument("--settle", type=float, default=0.5, help="seconds before that")
    parser.add_argument("--timeout", type=float, default=30.0, help="`Limits.timeout` of the hostile guests")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    options = parser.parse_args()
    logging.getLogger("wasgi").setLevel(logging.CRITICAL)
    with server() as url:
        cells = asyncio.run(run(options, url))
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, milliseconds; ! misses its aim\n{table(cells)}")
    if options.json:
        found = [
            {
                "how": cell.how,
                "beside": cell.beside,
                "begun": cell.starts,
                "ends": cell.ends,
                "ms": {
                    name: {
                        "count": len(taken),
                        "p50": cell.quantile(name, 0.5),
                        "p99": cell.quantile(name, 0.99),
                        "max": max(taken, default=None),
                        "mean": statistics.fmean(taken) if taken else None,
                    }
                    for name, taken in cell.taken.items()
                },
            }
            for cell in cells
        ]
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
