"""What one test has made: its clients and mock, what they report of a failure, and what fails the test."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

import wasgi

if TYPE_CHECKING:
    from wasgi.testing import AsyncClient, Client, Upstream

_LINES = 500
"""How many lines of each test's guests are kept for its report."""
_LINKS = 8
"""How far a chain of causes is followed: somebody's may be a circle."""


@dataclass
class Costs:
    """What the exchanges of one component have cost."""

    exchanges: int = 0
    seconds: float = 0.0
    memory: int = 0

    def add(self, exchanges: int, seconds: float, memory: int) -> None:
        """Adds the cost of other exchanges."""
        self.exchanges += exchanges
        self.seconds += seconds
        self.memory = max(self.memory, memory)


@dataclass
class TestState:
    """What one test has made."""

    __test__ = False  # pytest would collect it, by its name

    upstream: Upstream | None = None
    clients: list[tuple[str, Client | AsyncClient]] = field(default_factory=list)
    lines: deque[Any] = field(default_factory=lambda: deque(maxlen=_LINES))
    costs: dict[str, Costs] = field(default_factory=dict)
    errors: list[BaseException] = field(default_factory=list)
    """Exceptions of upstreams: of their functions and of their bodies."""
    is_told: bool = False
    """Whether the complaints are in the failure's own message."""

    def observe(self, error: BaseException) -> None:
        """Notes an exception of an upstream; see `wasgi._native.failures`."""
        self.errors.append(error)

    def failures(self) -> list[BaseException]:
        """Exceptions of the test's own code that the fixture `upstream` has not noted."""
        from wasgi.testing.failures import is_failure

        if self.upstream is None or self.upstream.allow_errors:
            return []
        known = {id(error) for error in self.upstream._failures}
        return [error for error in self.errors if id(error) not in known and is_failure(error)]

    def open_exchanges(self) -> list[str]:
        """The apps that have exchanges under way, a moment after the test has ended."""
        deadline = time.monotonic() + 1.0
        if any(client.app.exchanges for _, client in self.clients):
            gc.collect()  # responses in reference cycles
        while True:
            left = [(name, client.app.exchanges) for name, client in self.clients if client.app.exchanges]
            if not left or time.monotonic() > deadline:
                return [f"{count} of {name}" for name, count in left]
            time.sleep(0.001)  # guests that are about to end

    def check(self) -> None:
        """Fails the test for failures that its own assertions have not seen."""
        __tracebackhide__ = True
        if wasgi.errors._finishing:
            from wasgi.outgoing._asgi import settle

            settle(1.0)
        from wasgi.testing.failures import failed

        failures = self.failures()
        for error in [*failures, *(self.upstream._failures if self.upstream is not None else [])]:
            if isinstance(error, pytest.skip.Exception | pytest.xfail.Exception):
                raise error
        complaints = [failed(error) for error in failures]
        complaints += self.upstream.complaints() if self.upstream is not None else []
        if left := self.open_exchanges():
            complaints.append(
                f"exchanges were left open: {', '.join(left)}; hint: read each response to its end, or close it"
            )
        if complaints:
            self.is_told = True
            pytest.fail("\n\n".join(complaints), pytrace=False)
        if self.upstream is not None and self.upstream.cassette is not None:
            self.upstream.cassette.save()  # of tests that pass only

    def sections(self) -> Iterator[tuple[str, str]]:
        """The sections of a failure's report: titles and texts."""
        # These are often the cause of the test's own failure: a 502 in place of a 200, say. Before any request they
        # would only list the routes, all of them unused.
        from wasgi.testing.failures import described, failed

        has_asked = any(client.exchanges for _, client in self.clients)
        complaints: list[str] = []
        if self.upstream is not None and not self.is_told and (has_asked or self.upstream.calls):
            complaints = [*map(failed, self.failures()), *self.upstream.complaints()]
        if complaints:
            yield "wasgi: upstream", "\n\n".join(complaints)
        asked = [str(exchange) for _, client in self.clients for exchange in client.exchanges]
        if asked:
            yield "wasgi: exchanges", "\n".join(asked)
        from wasgi._native.output import escaped

        for stream in ("stdout", "stderr"):
            lines = [line for line in self.lines if line.stream == stream]
            if lines:
                yield f"wasgi: guest's {stream}", "\n".join(map(escaped, lines))
        if self.upstream is not None and self.upstream.allow_errors and self.upstream._failures:
            yield "wasgi: exceptions of upstreams", "\n".join(map(described, self.upstream._failures))
        if self.upstream is not None and self.upstream.calls:
            yield "wasgi: outgoing calls", "\n".join(map(str, self.upstream.calls))
        for _, client in self.clients:
            for exchange in client.exchanges:
                trap = _trap_behind(exchange.outcome)
                if trap is not None and trap.backtrace:
                    yield f"wasgi: backtrace of {exchange.method} {exchange.url}", "\n".join(map(str, trap.backtrace))

    def count(self) -> None:
        """Adds up what the exchanges have cost, for the summary."""
        for name, client in self.clients:
            costs = self.costs.setdefault(name, Costs())
            for exchange in client.exchanges:
                report = getattr(exchange.outcome, "report", None)
                costs.add(1, exchange.seconds, report.memory if report is not None else 0)


def _trap_behind(outcome: object) -> wasgi.TrapError | None:
    """The trap that an outcome is, or that it comes from: of a body that broke off, say."""
    for _ in range(_LINKS):
        if isinstance(outcome, wasgi.TrapError):
            return outcome
        outcome = getattr(outcome, "__cause__", None)
    return None
