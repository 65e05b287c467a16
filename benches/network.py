"""What one outgoing request of a guest costs, by who answers it: one after the other, on loopback, in one run.

just bench-network        (needs wrk, whose one connection is the plain client beside it)
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import httpx2

import wasgi
from wasgi import outgoing

from .asgi import HELLO, load, serving

PROBE = HELLO.parent / "probe.wasm"
REQUESTS = 900  # `Limits.outgoing` is 1000


def seconds(upstream: Any, url: str) -> float:
    """For one request of a guest that sends many."""
    app = wasgi.App(PROBE, outgoing=upstream)
    request = wasgi.Request("GET", f"http://guest.local/fetch-in-turn?n={REQUESTS}&url={url}")
    begun = time.perf_counter()
    statuses = app.handle(request).text.split()
    taken = time.perf_counter() - begun
    assert statuses == ["200"] * REQUESTS
    return taken / REQUESTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with serving("plain") as url, httpx2.Client() as client:
        upstreams: dict[str, Any] = {
            "Network": wasgi.Network([url]),
            "httpx2": outgoing.httpx(client),
            "function": lambda request: wasgi.Response(body=b"Hello, World!"),
        }
        ways: dict[str, Callable[[], float]] = {"wrk": lambda: 1 / load(url, 1, 2)[0]}
        for name, upstream in upstreams.items():
            ways[name] = lambda upstream=upstream: seconds(upstream, url)  # type: ignore[misc]
        taken: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for name, way in ways.items():
                taken.setdefault(name, []).append(way())
    for name, found in taken.items():
        ratios = [one / two for one, two in zip(found, taken["wrk"], strict=True)]
        print(f"{name:10} {statistics.median(found) * 1e6:6.0f} µs a request, {statistics.median(ratios):.2f} x wrk")


if __name__ == "__main__":
    main()
