"""One hello request four ways: the floor in plain Rust, wasgi's core from Rust, `app.handle`, `await app.handle_async`.

Of either generation of WASI (`--generation 0.3`), on a fresh instance each, or (`--reused`, of 0.3) on instances that
have 128 requests each, 16 at once where the caller asks for so many (`app.handle` does not).

    just bench

Rounds of the four alternate. A figure is the median of its rounds, a ratio the median of each round's ratio to the
floor's: the machine's moods touch neighbours alike. Beside the time that passes stands that of processors, all threads
together: who else computes meanwhile changes less of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import wasgi

COMPONENTS = Path(__file__).parents[1] / "tests" / "guests" / "components"
GUESTS = {"0.2": COMPONENTS / "hello.wasm", "0.3": COMPONENTS / "hello_p3.wasm"}
# as `wasmtime serve` has it, and the two programs in Rust
REQUESTS, AT_ONCE = 128, 16
FLOOR = "floor (plain Rust)"


def blocking(app: wasgi.App, requests: int) -> None:
    for _ in range(requests):
        response = app.handle(wasgi.Request("GET", "http://example.com/hello?x=1"))
        assert response.read() == b"Hello, World!"


async def awaited(app: wasgi.App, requests: int) -> None:
    for _ in range(requests):
        response = await app.handle_async(wasgi.Request("GET", "http://example.com/hello?x=1"))
        assert await response.aread() == b"Hello, World!"


async def at_once(app: wasgi.App, requests: int) -> None:
    await asyncio.gather(*(awaited(app, requests // AT_ONCE) for _ in range(AT_ONCE)))


def processor_time(process: int) -> float:
    # the number of its clock, as clock_getcpuclockid(3) gives it on Linux; 0 is this process
    return time.clock_gettime(~process << 3 | 2)


def measured(work: Callable[[], object], process: int, requests: int) -> tuple[float, float]:
    """Microseconds of a request: those that pass, and those of processors."""
    begun, used = time.perf_counter(), processor_time(process)
    work()
    return (time.perf_counter() - begun) * 1e6 / requests, (processor_time(process) - used) * 1e6 / requests


@contextlib.contextmanager
def program(path: Path, *options: str) -> Iterator[Callable[[], tuple[float, float]]]:
    """A round of a program that has one for each line that it reads."""
    with subprocess.Popen([path, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        given, told = process.stdin, process.stdout
        assert given is not None
        assert told is not None

        def one_round() -> None:
            given.write("\n")
            given.flush()
            assert told.readline()

        yield lambda: measured(one_round, process.pid, int(options[1]))
        given.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", type=Path, help="the folder of the built benches/floor.rs and benches/core.rs")
    parser.add_argument("--requests", type=int, default=2_048, help="requests a round")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--generation", choices=GUESTS, default="0.2", help="of WASI, that the guest speaks")
    parser.add_argument("--reused", action="store_true", help="instances have 128 requests each (of WASI 0.3)")
    options = parser.parse_args()
    guest, requests = GUESTS[options.generation], options.requests
    app = wasgi.App(guest, reuse=wasgi.Reuse(requests=REQUESTS, concurrent=AT_ONCE) if options.reused else None)
    several = at_once if options.reused else awaited
    given = (str(guest), str(requests), options.generation, "reused" if options.reused else "fresh")
    with program(options.programs / "floor", *given) as floor, program(options.programs / "core", *given) as core:
        ways: dict[str, Callable[[], tuple[float, float]]] = {
            FLOOR: floor,
            "the core (from Rust)": core,
            "app.handle": lambda: measured(lambda: blocking(app, requests), 0, requests),
            "await app.handle_async": lambda: measured(lambda: asyncio.run(several(app, requests)), 0, requests),
        }
        rounds = [{name: way() for name, way in ways.items()} for _ in range(options.rounds + 1)][
            1:
        ]  # the first warms up
    print(f"{'µs of a request':24}{'that pass':>34}{'of processors':>34}")
    for name in ways:
        print(f"{name:24}{figures(rounds, name, 0):>34}{figures(rounds, name, 1):>34}")


def figures(rounds: list[dict[str, tuple[float, float]]], name: str, kind: int) -> str:
    times = [each[name][kind] for each in rounds]
    ratio = statistics.median(each[name][kind] / each[FLOOR][kind] for each in rounds)
    return f"{statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f}) {ratio:.2f} x"


if __name__ == "__main__":
    main()
