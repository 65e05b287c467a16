"""A large body through an echo guest, in and out: how fast, and how much memory it takes.

    just bench-echo

Peak memory is the process's own (VmHWM), from just before the body to just after it.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import wasgi

GUEST = Path(__file__).parents[1] / "tests" / "guests" / "components" / "probe.wasm"
CHUNK = b"x" * (64 << 10)


def peak() -> int:
    """Bytes."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) << 10


def blocking(app: wasgi.App, size: int) -> int:
    def body() -> Iterator[bytes]:
        for _ in range(size // len(CHUNK)):
            yield CHUNK

    response = app.handle(wasgi.Request("POST", "http://example.com/echo", body=body()))
    return sum(map(len, response))


def awaited(app: wasgi.App, size: int) -> int:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(size // len(CHUNK)):
            yield CHUNK

    async def main() -> int:
        response = await app.handle_async(wasgi.Request("POST", "http://example.com/echo", body=body()))
        received = 0
        async for chunk in response:
            received += len(chunk)
        return received

    return asyncio.run(main())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--chunks", type=int, default=wasgi.Limits().chunks, help="`Limits.chunks`")
    options = parser.parse_args()
    size = options.mib << 20
    app = wasgi.App(GUEST, limits=wasgi.Limits(timeout=None, chunks=options.chunks))
    runs: list[tuple[str, Callable[[wasgi.App, int], int]]] = [("handle", blocking), ("handle_async", awaited)]
    for name, run in runs:
        run(app, 1 << 20)  # what is made once is made
        Path("/proc/self/clear_refs").write_text("5")
        before, begun = peak(), time.perf_counter()
        received = run(app, size)
        took = time.perf_counter() - begun
        assert received == size, f"{received} of {size} bytes came back"
        grown = (peak() - before) / (1 << 20)
        print(f"{name:14}{options.mib} MiB in and out: {options.mib / took:6.0f} MiB/s, peak memory +{grown:.1f} MiB")


if __name__ == "__main__":
    main()
