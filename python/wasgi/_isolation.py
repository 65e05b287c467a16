"""What a component keeps from one exchange and lets the next one see."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from wasgi import errors
from wasgi._asked import Asked
from wasgi._wasgi import Request, Response, Reuse, World

if TYPE_CHECKING:
    from wasgi import _wasgi
    from wasgi._bridge import Line
    from wasgi.app import App
    from wasgi.headers import Headers
    from wasgi.testing import AsyncClient, Client

_ROUNDS = 2
"""Each request follows on each other one then, itself and those behind it included."""


class _Observed:
    """An app whose exchanges are seen from all sides: what they answer, ask and print."""

    def __init__(self, app: App, reuse: Reuse | None) -> None:
        self._upstream = app.outgoing
        self._asked: list[Asked] = []
        self._printed: list[Line] = []
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
            self.reused += report.reused > 0
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
    """Shows what a component lets one exchange see of those before it on the same instance: for apps under `wasgi.Reuse`.

    Each request is sent to a fresh instance, and all of them, twice, to one that is reused. What the component answers,
    asks its upstream and prints must be the same. The app itself is left alone: its component runs under a
    `wasgi.testing.World` (its own, if it has one), so that clocks and randomness are the same each time; its upstream is
    asked, and must give the same answers each time.

    Args:
        app: An app, or a client of one.
        requests: Requests, or URLs to GET; relative ones are the component's.

    Raises:
        AssertionError: Something differs: the message is a diff. Or nothing could be told: fresh instances differ from each
            other, or no instance was kept.

    Example:
        >>> wasgi.testing.check_isolation(app, ["/login?as=ada", "/whoami"])
    """
    from wasgi.testing import AsyncClient, Client

    client = app if isinstance(app, Client | AsyncClient) else Client(app)
    wanted: list[Asked] = []
    for request in requests:
        made = client._request("GET", request, None, None, None, None, None, None) if isinstance(request, str) else request
        made.read()
        wanted.append(Asked.of_read(made))
    fresh = _Observed(client.app, None)
    seen = [fresh.look(request) for request in wanted]
    for request, before in zip(wanted, seen, strict=True):
        difference = _difference(before, fresh.look(request), "on a fresh instance", "on another fresh instance")
        if difference:
            raise AssertionError(
                f"the component's answers are not its alone: {request} differs on two fresh instances; hint: its upstream must "
                f"answer the same each time\n\n{difference}"
            )
    reused = _Observed(client.app, Reuse(requests=None, idle=None))
    found, earlier = [], list[str]()
    with reused.app:
        for _ in range(_ROUNDS):
            for request, before in zip(wanted, seen, strict=True):
                after = f"after {', '.join(earlier[-len(wanted) :])}" if earlier else "on a new one"
                difference = _difference(before, reused.look(request), "on a fresh instance", f"{request} {after}")
                if difference:
                    found.append(difference)
                earlier.append(str(request))
    if found:
        raise AssertionError("the component lets exchanges see what was before them\n\n" + "\n\n".join(found))
    if not reused.reused:
        raise AssertionError("nothing was checked: no instance served two of these requests (see `wasgi.Reuse`)")


def _difference(before: list[str], after: list[str], one: str, other: str) -> str:
    return "\n".join(difflib.unified_diff(before, after, one, other, lineterm="", n=1))
