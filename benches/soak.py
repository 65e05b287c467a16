"""Mixed load for a long time: memory and descriptors must stay where they are.

    just soak --minutes 10

Runs the exchanges of `tests.chaos` round by round. The first tenth warms up; after that the line that fits the memory
of each round best must not rise by more than a tenth of it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests import chaos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chaos.quiet()
    begun, rounds = time.monotonic(), list[tuple[float, float, int]]()
    exchanges, seed, around = 0, options.seed, chaos.Surroundings().__enter__()
    while (elapsed := time.monotonic() - begun) < options.minutes * 60:
        chaos.Chaos(seed, 5000, around, chaos.Options()).run()
        assert chaos.settle(lambda: not chaos.left_over()), chaos.left_over()
        exchanges, seed = exchanges + 5000, seed + 1
        rounds.append((elapsed, chaos.resident(), chaos.descriptors()))
        print(
            f"{elapsed:6.0f} s  {exchanges:9} exchanges  {rounds[-1][1]:7.1f} MiB  {rounds[-1][2]} descriptors",
            flush=True,
        )
    around.__exit__()
    warm = rounds[len(rounds) // 10 :]
    slope = statistics.linear_regression([elapsed for elapsed, _, _ in warm], [memory for _, memory, _ in warm]).slope
    rise = slope * (warm[-1][0] - warm[0][0])
    files = sorted({count for _, _, count in warm})
    print(f"{exchanges} exchanges: memory {warm[0][1]:.1f} to {warm[-1][1]:.1f} MiB, fitted rise {rise:+.1f}")
    print(f"descriptors: {files}")
    assert rise < warm[0][1] / 10, "memory rises"
    assert len(files) == 1, "descriptors come and go"


if __name__ == "__main__":
    main()
