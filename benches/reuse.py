"""What an exchange costs on a fresh instance, and on one that is reused: one thread, blocking calls.

The upstream of what the component asks for is a function that answers with nothing.

just bench-reuse
just bench-reuse plugin.wasm http://example.com/path
"""

from __future__ import annotations

import argparse
import statistics
import time

import wasgi

from .asgi import HELLO


def microseconds(app: wasgi.App, url: str, seconds: float) -> float:
    count, begun = 0, time.perf_counter()
    while (taken := time.perf_counter() - begun) < seconds:
        with app.handle(wasgi.Request("GET", url)) as response:
            response.read()
            response.wait()
        count += 1
    return taken / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("component", nargs="?", default=str(HELLO))
    parser.add_argument("url", nargs="?", default="http://example.com/")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    component = wasgi.Component(options.component)

    def app(reuse: wasgi.Reuse | None) -> wasgi.App:
        return wasgi.App(component, reuse=reuse, outgoing=lambda _: wasgi.Response(), stdout=print, stderr=print)

    kinds = {"fresh": app(None), "reused": app(wasgi.Reuse(requests=None))}
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(options.rounds):
        for name, made in kinds.items():
            taken[name].append(microseconds(made, options.url, options.seconds))
    fresh, reused = (statistics.median(times) for times in taken.values())
    print(f"fresh {fresh:.1f} µs an exchange, reused {reused:.1f}: {fresh / reused:.1f} times as many")


if __name__ == "__main__":
    main()
