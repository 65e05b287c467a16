"""What an exchange costs on a fresh instance, on a reused one, and on one that is put back in between: blocking calls.

The rounds are interleaved, so that whatever else the machine does is done to all. Of guests that cannot be reused, the
row says so. The upstream of what the components ask for is a function that answers with nothing.

just bench-isolated
just bench-isolated --url http://example.com/path --threads 1,2 guest.wasm
just bench-isolated --warm 1 --warm 10 flask hono

`python`, `flask`, `javascript` and `hono` are guests of the tests. `benches/serve.py` measures the same over HTTP,
beside `wasmtime serve`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import toolchains

import wasgi

from .asgi import HELLO

GUESTS = {
    "python": lambda: toolchains.python("http-handler", "app"),
    "flask": toolchains.flask,
    "javascript": toolchains.starlingmonkey,
    "hono": toolchains.hono,
}
Taken = dict[str, list[float]]


def exchange(app: wasgi.App, url: str) -> None:
    with app.handle(wasgi.Request("GET", url)) as response:
        response.read()
        response.wait()


def microseconds(app: wasgi.App, url: str, seconds: float) -> float:
    """Of one exchange, on this thread."""
    count, begun = 0, time.perf_counter()
    while (taken := time.perf_counter() - begun) < seconds:
        exchange(app, url)
        count += 1
    return taken / count * 1e6


def at_once(app: wasgi.App, url: str, seconds: float, threads: int) -> float:
    """Of one exchange of each thread, while the others have theirs."""
    with ThreadPoolExecutor(threads) as pool:
        return statistics.mean(pool.map(lambda _: microseconds(app, url, seconds), range(threads)))


def kinds(url: str, warm: list[int]) -> dict[str, wasgi.Reuse | None]:
    made = {
        "fresh": None,
        "reused": wasgi.Reuse(requests=None),
        "isolated": wasgi.Reuse(isolated=True, requests=None),
    }
    for times in warm:
        requests = [wasgi.Request("GET", url)] * times
        made[f"isolated, {times} warm"] = wasgi.Reuse(isolated=True, requests=None, warm=requests)
    return made


def measure(component: wasgi.Component, options: argparse.Namespace, threads: int) -> Taken:
    apps = {
        name: wasgi.App(component, reuse=reuse, outgoing=lambda _: wasgi.Response(), stdout=str, stderr=str)
        for name, reuse in kinds(options.url, options.warm).items()
    }
    for name, app in list(apps.items()):
        try:
            for _ in range(20):
                exchange(app, options.url)
        except wasgi.WasgiError as error:
            print(f"  {name}: {type(error).__name__}: {error}")
            del apps[name]
    taken: Taken = {name: [] for name in apps}
    for _ in range(options.rounds):
        for name, app in apps.items():
            taken[name].append(at_once(app, options.url, options.seconds, threads))
    for app in apps.values():
        app.close()
    return taken


def table(taken: Taken) -> None:
    median = {name: statistics.median(times) for name, times in taken.items()}
    least = {name: min(times) for name, times in taken.items()}
    print(f"  {'µs an exchange':<22}{'median':>9}{'minimum':>9}{'fresh/it':>10}{'by minima':>11}")
    for name in taken:
        ratios = f"{median['fresh'] / median[name]:>9.2f}x{least['fresh'] / least[name]:>10.2f}x"
        print(f"  {name:<22}{median[name]:>9.1f}{least[name]:>9.1f}{ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("components", nargs="*", default=[str(HELLO)])
    parser.add_argument("--url", default="http://example.com/")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each kind in each round")
    parser.add_argument("--threads", default="1,2", help="how many at once, one after the other")
    parser.add_argument(
        "--warm", type=int, action="append", default=[], help="isolated after so many warm-ups; may be repeated"
    )
    options = parser.parse_args()
    for name in options.components:
        path = GUESTS[name]() if name in GUESTS else Path(name)
        component = wasgi.Component(path, isolated=True)
        for threads in map(int, options.threads.split(",")):
            print(f"{path.name}, {threads} thread{'s' if threads > 1 else ''}")
            table(measure(component, options, threads))


if __name__ == "__main__":
    main()
