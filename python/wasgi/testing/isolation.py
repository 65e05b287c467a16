"""Isolation between requests: what a reused instance leaks from one exchange to another."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from wasgi import errors
from wasgi._wasgi import Request, Response, Reuse, Simulation
from wasgi.testing.client import AsyncClient, Client
from wasgi.testing.matching import Asked

if TYPE_CHECKING:
    from wasgi import _wasgi
    from wasgi._wasgi import _Upstream
    from wasgi.app import App
    from wasgi.headers import Headers

__tracebackhide__ = True  # in pytest's reports: a test's own line is what is wanted there


class _Observation:
    """All that can be observed of one exchange: its response, its outgoing requests, its output."""

    def __init__(self, upstream: _Upstream | None) -> None:
        self._upstream = upstream
        self._asked: list[Asked] = []
        self._answered: list[str] = []
        self.printed: list[Any] = []
        self.reused = 0
        self.failure: str | None = None

    async def answer(self, request: Request) -> Response:
        asked = await Asked.read(request)
        self._asked.append(asked)
        if self._upstream is None:
            raise errors.HttpRequestDenied
        return await asked.of(self._upstream)

    def send(self, app: _wasgi.App, request: Asked) -> None:
        content = bytearray()
        try:
            with app.handle(request.again()) as response:
                self._answered += [str(response.status), *_fields(response.headers)]
                self.reused = response.report.reused if response.report is not None else 0
                for chunk in response:
                    content += chunk
                response.wait()
                self._answered += _text(bytes(content))
                self._answered += _fields(response.trailers) if response.trailers is not None else []
        except (errors.WasgiError, OSError) as error:
            # what came before the failure has been observed
            self.failure = type(error).__name__
            self._answered += [*(_text(bytes(content))), f"{self.failure}: {error}"]

    def lines(self) -> list[str]:
        # concurrent requests may come in any order
        asked = sorted(self._asked, key=lambda asked: (asked.url, asked.method, asked.content))
        shown = [line for one in asked for line in (f"asked {one}", *_fields(one.headers), *_text(one.content))]
        return [*self._answered, *shown, *(f"{line.stream}: {line}" for line in self.printed)]


class _Observed:
    """An app whose exchanges are observed, under deterministic time and randomness."""

    def __init__(self, app: App, reuse: Reuse | None) -> None:
        self._upstream = app.outgoing
        self._seen = _Observation(self._upstream)
        self._app: _wasgi.App = app._sibling(
            outgoing=self._answer,
            stdout=lambda line: self._seen.printed.append(line),
            stderr=lambda line: self._seen.printed.append(line),
            reuse=reuse,
            simulation=app.simulation or Simulation(),
        )

    async def _answer(self, request: Request) -> Response:
        return await self._seen.answer(request)

    def look(self, request: Asked) -> _Observation:
        """Sends a request, and waits for the end of its guest."""
        self._seen = _Observation(self._upstream)
        self._seen.send(self._app, request)
        return self._seen

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
    that one. The component's responses, its outgoing requests and its output must be the same. The app itself is not
    used: its component runs under a `wasgi.testing.Simulation` (the app's, if it has one), so clocks and randomness are
    the same each time. The app's upstream is used, and must give the same responses each time.

    Args:
        app: An app, or a client of one.
        requests: Requests, or URLs to GET; relative ones are the component's. All pairs of these are tried.

    Raises:
        AssertionError: Something differs: the message is a diff. Or nothing could be compared: fresh instances differ
            from each other, or no instance was reused.

    Example:
        >>> wasgi.testing.check_isolation(app, ["/login?as=ada", "/whoami"])
    """
    client = app if isinstance(app, Client | AsyncClient) else Client(app)
    wanted = [_read(client._made("GET", request, {}) if isinstance(request, str) else request) for request in requests]
    if not wanted:
        raise AssertionError("nothing was checked: no requests were given")
    fresh = _on_fresh_instances(client.app, wanted)
    found: list[str] = []
    ends: dict[str, str] = {}
    checked = False
    for before in wanted:
        for request, alone in zip(wanted, fresh, strict=True):
            with _Observed(client.app, Reuse(requests=2, idle=None)) as observed:
                ended = observed.look(before)
                after = observed.look(request)
            if not after.reused and after.failure is None:
                ends[str(before)] = ended.failure or "it left a body or a request open"
                continue  # the first exchange has ended its instance
            checked = checked or after.reused > 0
            found += _difference(alone, after.lines(), f"{request} after {before}")
    if found:
        raise AssertionError("\n\n".join(["the component leaks state between exchanges", *found]))
    if not checked:
        how = "".join(f"\n  {request}: {end}" for request, end in ends.items())
        raise AssertionError(f"nothing was checked: each exchange has ended its instance (`wasgi.Reuse` says why){how}")


def _read(request: Request) -> Asked:
    request.read()
    return Asked.of_read(request)


def _on_fresh_instances(app: App, wanted: list[Asked]) -> list[list[str]]:
    """What is observed on fresh instances. It must be the same twice, or nothing can be compared with it."""
    with _Observed(app, None) as observed:
        seen = [observed.look(request).lines() for request in wanted]
        for request, fresh in zip(wanted, seen, strict=True):
            if difference := _difference(fresh, observed.look(request).lines(), "on another fresh instance"):
                raise AssertionError(
                    f"{request} differs on two fresh instances, so nothing can be told of reused ones; hint: its "
                    "upstream must answer the same each time, and the component wait for what it asks\n\n"
                    f"{difference[0]}"
                )
    return seen


def _difference(fresh: list[str], other: list[str], title: str) -> list[str]:
    """A diff; none if both are the same."""
    lines = list(difflib.unified_diff(fresh, other, "on a fresh instance", title, lineterm="", n=1))
    return ["\n".join(lines)] if lines else []
