"""How long after its deadline a guest is stopped: one that spins, one that waits, and many that spin at once.

python benches/deadlines.py
"""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path

import wasgi

GUEST = Path(__file__).parents[1] / "tests" / "guests" / "components" / "probe.wasm"
LIMIT = 0.1


def late(app: wasgi.App, route: str) -> float:
    """Milliseconds."""
    begun = time.perf_counter()
    try:
        app.handle(wasgi.Request("GET", f"http://example.com{route}"))
    except wasgi.GuestTimeoutError:
        return (time.perf_counter() - begun - LIMIT) * 1e3
    raise AssertionError("it was not stopped")


def main() -> None:
    app = wasgi.App(GUEST, limits=wasgi.Limits(timeout=LIMIT))
    late(app, "/spin")
    for name, route, together in (("spins", "/spin", 1), ("waits", "/sleep?ms=60000", 1), ("spins", "/spin", 20)):
        delays: list[float] = []

        def work(route: str = route, delays: list[float] = delays) -> None:
            delays.append(late(app, route))

        for _ in range(20 if together == 1 else 3):
            threads = [threading.Thread(target=work) for _ in range(together)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        print(f"{together:3} that {name}: stopped {statistics.median(delays):5.1f} ms late, at most {max(delays):.1f}")


if __name__ == "__main__":
    main()
