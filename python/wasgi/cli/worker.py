"""``python -m wasgi.cli.worker``: a process that `wasgi serve --workers` has started."""

from __future__ import annotations

import functools
import json
import os
import pickle
import random
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from wasgi.cli import output, signals
from wasgi.cli.failures import Failure, failure_of
from wasgi.cli.settings import Orders, Recycling
from wasgi.errors import WasgiError

if TYPE_CHECKING:
    import wasgi


class Reports:
    """Lines of JSON to the parent; nothing happens if it has gone."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor

    def send(self, **report: Any) -> None:
        """Tells the parent."""
        line = json.dumps(report).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError:
            pass


def work(orders: Orders) -> int:
    """Serves until it is told to stop.

    Returns:
        The exit code.
    """
    from wasgi.cli.serving import Service

    reports = Reports(orders.reports)
    try:
        service = Service(orders.settings)
        lines = service.lines()

        def started() -> None:
            # its parent looks after the terminal
            service.hear_signals(lambda: None)
            reports.send(event="ready", lines=lines)

        recycling = orders.settings.recycling
        if recycling != Recycling():
            look = functools.partial(_look_at_itself, recycling, service.server, reports)
            threading.Thread(target=look, name="wasgi-age", daemon=True).start()
        service.serve(started)
    except (Failure, OSError, WasgiError) as exc:
        failure = failure_of(exc)
        reports.send(event="failed", message=failure.message, code=failure.code, hint=failure.hint)
        return failure.code
    return 0


def _look_at_itself(recycling: Recycling, server: wasgi.Server, reports: Reports) -> None:
    age = Age(recycling, random.uniform(1.0, 1.1))
    while (reason := age.over(memory(), server.stats.requests)) is None:
        time.sleep(0.5)
    reports.send(event="recycle", reason=reason)


class Age:
    """When a worker is to be replaced.

    Args:
        recycling: The bounds.
        more: By how much they are raised for this worker, so that not all of them reach theirs at once.
    """

    def __init__(self, recycling: Recycling, more: float) -> None:
        self._recycling = recycling
        self._more = more
        self._begun = time.monotonic()

    def over(self, memory: int, requests: int) -> str | None:
        """What is reached, if anything is."""
        bounds = self._recycling
        seconds = time.monotonic() - self._begun
        if bounds.lifetime is not None and seconds >= bounds.lifetime * self._more:
            return f"it is {seconds:.0f} s old"
        if bounds.requests is not None and requests >= bounds.requests * self._more:
            return f"it has handled {requests} requests"
        # not raised: it would be more than the user wants to give
        if bounds.memory is not None and memory >= bounds.memory:
            return f"it has {memory / 2**20:.0f} MiB of memory"
        return None


def memory() -> int:
    """Bytes of memory that this process has; the most that it had where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def _follow_parent(pipe: int) -> None:
    """Ends this process when its parent has gone: the other end of the pipe goes with it."""
    while os.read(pipe, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Reads its orders, and serves."""
    signals.keep_out_of_terminal()
    signals.on_reopen(lambda: None)  # until there is something to open
    orders: Orders = pickle.load(sys.stdin.buffer)
    signals.die_with_parent(orders.parent)
    threading.Thread(target=_follow_parent, args=(sys.stdin.fileno(),), name="wasgi-parent", daemon=True).start()
    with output.whatever_stdout_encodes():
        return work(orders)


if __name__ == "__main__":
    sys.exit(main())
