"""What a component keeps from one exchange and lets the next one see."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from wasgi import errors
from wasgi._asked import Asked
from wasgi._wasgi import Request, Response, Reuse, World

if TYPE_CHECKING:
    from wasgi import _wasgi
    from wasgi.app import App
    from wasgi.headers import Headers
    from wasgi.testing import AsyncClient, Client

__tracebackhide__ = True  # in pytest's reports: a test's own line is what is wanted there

_ROUNDS = 2
"""Each request follows on each other one then, itself and those behind it included."""


class _Observed:
    """An app whose exchanges are seen from all sides: what they answer, ask and print."""

    def __init__(self, app: App, reuse: Reuse | None) -> None:
        self._upstream = app.outgoing
        self._asked: list[Asked] = []
        self._printed: list[Any] = []
        self.reused = 0
        self.app: _wasgi.App = app._sibling(
            outgoing=self._answer,
            stdout=self._printed.append,
            stderr=self._printed.append,
            reuse=reuse,
            world=app.world or World(),
        )

    async def _answer(self, request: Request) -> Response:
        asked = await Asked.read(request)
        self._asked.append(asked)
        if self._upstream is None:
            raise errors.HttpRequestDenied
        return await asked.of(self._upstream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.app.close()

    def look(self, request: Asked) -> list[str]:
        """All that an exchange shows, line by line."""
        self._asked.clear()
        self._printed.clear()
        try:
            with self.app.handle(request.again()) as response:
                response.read()
                report = response.wait()
        except (errors.WasgiError, OSError) as error:
            seen = [f"{type(error).__name__}: {error}"]
        else:
            self.reused += report is not None and report.reused > 0
            seen = [str(response.status), *_fields(response.headers), *_text(response.content)]
            seen += _fields(response.trailers) if response.trailers is not None else []
        # requests that are under way together may come in any order
        for asked in sorted(self._asked, key=lambda asked: (asked.url, asked.method, asked.content)):
            seen += [f"asked {asked}", *_fields(asked.headers), *_text(asked.content)]
        return seen + [f"{line.stream}: {line}" for line in self._printed]


def _fields(headers: Headers) -> list[str]:
    return [f"  {name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in headers.raw]


def _text(content: bytes) -> list[str]:
    return content.decode(errors="backslashreplace").splitlines()


def check_isolation(app: App | Client | AsyncClient, requests: Iterable[Request | str]) -> None:
    """Shows what a component lets one exchange see of those before it: for apps under `wasgi.Reuse`.

    Each request is sent to a fresh instance, and all of them, twice, to one that is reused. What the component answers,
    asks its upstream and prints must be the same. The app itself is left alone: its component runs under a
    `wasgi.testing.World` (the app's, if it has one), so clocks and randomness are the same each time. Its upstream is
    asked, and must give the same answers each time.

    Args:
        app: An app, or a client of one.
        requests: Requests, or URLs to GET; relative ones are the component's.

    Raises:
        AssertionError: Something differs: the message is a diff. Or nothing could be told: fresh instances differ from
            each other, or no instance was kept.

    Example:
        >>> wasgi.testing.check_isolation(app, ["/login?as=ada", "/whoami"])
    """
    from wasgi.testing import AsyncClient, Client

    client = app if isinstance(app, Client | AsyncClient) else Client(app)
    wanted = [_read(client._made("GET", request, {}) if isinstance(request, str) else request) for request in requests]
    if not wanted:
        raise AssertionError("nothing was checked: there are no requests")
    seen = _on_fresh_instances(client.app, wanted)
    with _Observed(client.app, Reuse(requests=None, idle=None)) as reused:
        found, earlier = [], list[str]()
        for request, fresh in [*zip(wanted, seen, strict=True)] * _ROUNDS:
            title = f"{request} after {', '.join(earlier[-len(wanted) :])}" if earlier else f"{request} on a new one"
            found += _difference(fresh, reused.look(request), title)
            earlier.append(str(request))
    if found:
        raise AssertionError("\n\n".join(["the component lets exchanges see what was before them", *found]))
    if not reused.reused:
        raise AssertionError(
            "nothing was checked: no instance had two of these exchanges, for none was kept (`wasgi.Reuse` says which "
            "are)"
        )


def _read(request: Request) -> Asked:
    request.read()
    return Asked.of_read(request)


def _on_fresh_instances(app: App, wanted: list[Asked]) -> list[list[str]]:
    """What is seen there, which must be the same twice for anything to be told by it."""
    with _Observed(app, None) as observed:
        seen = [observed.look(request) for request in wanted]
        for request, fresh in zip(wanted, seen, strict=True):
            if difference := _difference(fresh, observed.look(request), "on another fresh instance"):
                raise AssertionError(
                    f"{request} differs on two fresh instances, so nothing can be told of reused ones; hint: its "
                    f"upstream must answer the same each time\n\n{difference[0]}"
                )
    return seen


def _difference(fresh: list[str], other: list[str], title: str) -> list[str]:
    """A diff, or none."""
    lines = list(difflib.unified_diff(fresh, other, "on a fresh instance", title, lineterm="", n=1))
    return ["\n".join(lines)] if lines else []
