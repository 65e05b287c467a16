"""Isolation between requests: what a reused instance leaks from one exchange to another."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Self

from wasgi import errors
from wasgi._native import context
from wasgi._wasgi import Request, Response, Reuse, Simulation
from wasgi.testing.client import AsyncClient, Client
from wasgi.testing.matching import Asked

if TYPE_CHECKING:
    from wasgi import _wasgi
    from wasgi._wasgi import _Together, _Upstream
    from wasgi.app import App
    from wasgi.headers import Headers

__tracebackhide__ = True  # in pytest's reports: a test's own line is what is wanted there


class _Observation:
    """All that can be observed of one exchange: its response, its outgoing requests, its output."""

    def __init__(self) -> None:
        self._asked: list[Asked] = []
        self._answered: list[str] = []
        self.printed: list[Any] = []
        self.reused = 0
        self.failure: Exception | None = None

    async def answer(self, request: Request, upstream: _Upstream | None) -> Response:
        asked = await Asked.read(request)
        self._asked.append(asked)
        if upstream is None:
            raise errors.HttpRequestDenied
        return await asked.of(upstream)

    def read(self, begun: _Together) -> None:
        content = bytearray()
        try:
            with begun.answer() as response:
                self._answered += [str(response.status), *_fields(response.headers)]
                self.reused = response.report.reused if response.report is not None else 0
                for chunk in response:
                    content += chunk
                response.wait()
                self._answered += _text(bytes(content))
                self._answered += _fields(response.trailers) if response.trailers is not None else []
        except (errors.WasgiError, OSError) as error:
            # what came before the failure has been observed
            self.failure = error
            self._answered += [*(_text(bytes(content))), f"{type(error).__name__}: {error}"]

    @property
    def has_ended_its_instance(self) -> bool:
        """Whether it has failed in a way that no instance survives."""
        return isinstance(self.failure, errors.GuestError | errors.BodyError)

    @property
    def ended_its_instance(self) -> str | None:
        """Why its instance cannot have had another exchange, if that is so."""
        return type(self.failure).__name__ if isinstance(self.failure, errors.GuestError) else None

    def lines(self) -> list[str]:
        # concurrent requests may come in any order
        asked = sorted(self._asked, key=lambda asked: (asked.url, asked.method, asked.content))
        shown = [line for one in asked for line in (f"asked {one}", *_fields(one.headers), *_text(one.content))]
        return [*self._answered, *shown, *(f"{line.stream}: {line}" for line in self.printed)]


class _Observed:
    """An app whose exchanges are observed, under deterministic time and randomness."""

    def __init__(self, app: App, reuse: Reuse, exchanges: int) -> None:
        self._upstream = app.outgoing
        self._exchanges = exchanges
        self._had = 0
        self._needs_instance = True
        self._seen: defaultdict[int | None, _Observation] = defaultdict(_Observation)
        self._app: _wasgi.App = app._sibling(
            outgoing=self._answer,
            stdout=self._printed,
            stderr=self._printed,
            # made ahead, so that what a warm-up asks and prints is not its first exchange's
            reuse=reuse.__replace__(requests=exchanges, idle=None, ready=int(reuse.warm is not None)),
            simulation=app.simulation or Simulation(),
        )

    async def _answer(self, request: Request) -> Response:
        whose = context.exchange.get()
        return await self._seen[whose[2] if whose is not None else None].answer(request, self._upstream)

    def _printed(self, line: Any) -> None:
        self._seen[line.exchange].printed.append(line)

    def look(self, request: Asked) -> _Observation:
        """Sends a request, and waits for the end of its guest."""
        (seen,) = self.look_at_both(request)
        return seen

    def look_at_both(self, *requests: Asked) -> list[_Observation]:
        """The same with several at once: none of their guests has run before all have begun."""
        if self._needs_instance:
            self._app._make_ready()
        begun = self._app._handle_together([request.again() for request in requests])
        seen = [self._seen[one.number] for one in begun]
        # each is read while the other is: one may wait for the other's end
        with ThreadPoolExecutor(len(begun)) as threads:
            for read in [threads.submit(copy_context().run, one.read, of) for one, of in zip(seen, begun, strict=True)]:
                read.result()
        self._had += 1
        self._needs_instance = self._had % self._exchanges == 0 or any(one.has_ended_its_instance for one in seen)
        return seen

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._app.close()


def _fields(headers: Headers) -> list[str]:
    return [f"  {name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in headers.raw]


def _text(content: bytes) -> list[str]:
    return content.decode(errors="backslashreplace").splitlines()


def check_isolation(app: App | Client | AsyncClient, requests: Iterable[Request | str]) -> None:
    """Tests whether a component isolates its requests from one another: for apps under `wasgi.Reuse`.

    Each request is sent to a fresh instance, and after each other one (and itself) to an instance that has just served
    that one. If ``concurrent`` of the app's `Reuse` is above 1, each is also sent at once with each other one (and
    itself) to one instance. Where it has ``warm``, all instances are warmed: what an exchange finds after another one
    is compared with what it finds in a fresh instance after the same warm-ups. The component's responses, its outgoing
    requests and its output must be the same. The app itself is not used: its component runs under a
    `wasgi.testing.Simulation` (the app's, if it has one), so clocks and randomness are the same each time. The app's
    upstream is used, and must give the same responses each time.

    Args:
        app: An app, or a client of one.
        requests: Requests, or URLs to GET; relative ones are the component's. All pairs of these are tried.

    Raises:
        AssertionError: Something differs: the message is a diff. Or nothing could be compared: fresh instances differ
            from each other, or no instance was reused.
        WasgiError: A warm-up fails.

    Example:
        >>> wasgi.testing.check_isolation(app, ["/login?as=ada", "/whoami"])
    """
    client = app if isinstance(app, Client | AsyncClient) else Client(app)
    wanted = [_read(client._made("GET", request, {}) if isinstance(request, str) else request) for request in requests]
    if not wanted:
        raise AssertionError("nothing was checked: no requests were given")
    check = _Check(client.app, wanted)
    check.in_turn()
    if check.concurrent > 1:
        check.at_once()
    check.conclude()


class _Check:
    """What came of the pairs of these requests, so far."""

    def __init__(self, app: App, wanted: list[Asked]) -> None:
        self._app = app
        self.concurrent = app.reuse.concurrent if app.reuse is not None else 1
        self._isolated = app.reuse is not None and app.reuse.isolated
        fresh = self._on_fresh_instances(wanted)
        self._pairs = [
            (one, other) for one in zip(wanted, fresh, strict=True) for other in zip(wanted, fresh, strict=True)
        ]
        self._found: list[str] = []
        self._ends: dict[str, str] = {}
        self._checked = False

    def _observed(self, exchanges: int) -> _Observed:
        """An app whose instances have so many exchanges, on the terms of the given one."""
        return _Observed(self._app, self._app.reuse or Reuse(), exchanges)

    def _on_fresh_instances(self, wanted: list[Asked]) -> list[_Observation]:
        """What is observed on fresh instances. It must be the same twice, or nothing can be compared with it."""
        with self._observed(1) as observed:
            seen = [observed.look(request) for request in wanted]
            for request, fresh in zip(wanted, seen, strict=True):
                if difference := _difference(fresh, observed.look(request), "on another fresh instance"):
                    raise AssertionError(
                        f"{request} differs on two fresh instances, so nothing can be told of reused ones; hint: its "
                        "upstream must answer the same each time, and the component wait for what it asks\n\n"
                        f"{difference[0]}"
                    )
        return seen

    def in_turn(self) -> None:
        for (before, _), (request, alone) in self._pairs:
            with self._observed(2) as observed:
                ended = observed.look(before)
                after = observed.look(request)
            if not after.reused and after.failure is None:
                # the first exchange has ended its instance
                failed = type(ended.failure).__name__ if ended.failure is not None else None
                self._ends[str(before)] = failed or "it left a body or a request open"
                continue
            self._checked = self._checked or after.reused > 0
            self._found += _difference(alone, after, f"{request} after {before}")

    def at_once(self) -> None:
        for (one, one_alone), (other, other_alone) in self._pairs:
            if one_alone.ended_its_instance or other_alone.ended_its_instance:
                continue  # it takes the other one with it
            with self._observed(2) as observed:
                seen = observed.look_at_both(one, other)
            self._checked = self._checked or any(beside.reused for beside in seen)
            self._found += _difference(one_alone, seen[0], f"{one} beside {other}, which came second")
            self._found += _difference(other_alone, seen[1], f"{other} beside {one}, which came first")

    def conclude(self) -> None:
        if self._found:
            raise AssertionError("\n\n".join(["the component leaks state between exchanges", *self._found]))
        if not self._checked and self._isolated and self._app.component.restorable is False:
            raise AssertionError(
                "nothing was checked: instances of this component cannot be put back (`wasgi inspect` says why), so "
                "each request of the app gets a fresh one"
            )
        if not self._checked:
            how = "".join(f"\n  {request}: {end}" for request, end in self._ends.items())
            raise AssertionError(
                f"nothing was checked: each exchange has ended its instance (`wasgi.Reuse` says why){how}"
            )


def _read(request: Request) -> Asked:
    request.read()
    return Asked.of_read(request)


def _difference(fresh: _Observation, other: _Observation, title: str) -> list[str]:
    """A diff; none if both are the same."""
    lines = difflib.unified_diff(fresh.lines(), other.lines(), "on a fresh instance", title, lineterm="", n=1)
    return ["\n".join(found)] if (found := list(lines)) else []
