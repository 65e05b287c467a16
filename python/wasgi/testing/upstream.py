"""`wasgi.testing.Upstream`: a mock of the services around a component. It records the component's requests."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Never, TypedDict, Unpack

from wasgi import errors
from wasgi._wasgi import Request, Response, _normal_url
from wasgi.testing.content import NOTHING, no_others
from wasgi.testing.failures import failed, inject, is_failure
from wasgi.testing.matchers import Text, content_of, headers_of, json_of, method_of, named, pattern
from wasgi.testing.matching import Asked, RequestMatcher
from wasgi.testing.route import Call, Route, broken_off, pause

if TYPE_CHECKING:
    from wasgi.testing.cassette import Cassette

__tracebackhide__ = True  # in pytest's reports: a test's own line is what is wanted there

_REQUEST_HINTS = {
    "body": "`content`, `json` or `data`",
    "form": "`data`",
    "match": "`where`",
    "path": "`url`, which is whole: `**/path` for any host",
    "text": "`content`",
}
"""What other mocks call it."""


class _Matchers(TypedDict, total=False):
    query: Any
    params: Any
    headers: Any
    content: bytes | str | re.Pattern[Any] | None
    json: Any
    data: Any
    where: Callable[[Asked], bool] | None


@dataclass
class Upstream:
    """A mock of a component's upstreams: give it to ``App(outgoing=...)``, or use the fixture ``upstream``.

    Routes are tried in the order in which they were made; the first that matches answers. A request that no route
    matches is `DestinationNotFound` for the component and fails the test, whatever the component makes of it. So does a
    route that was never used.

    Attributes:
        calls: The requests and their outcomes, in order.
        allow_unmatched: Whether requests that no route matches are allowed.
        allow_unused: Whether routes may stay unused.
        allow_errors: Whether functions that answer or match may raise exceptions other than an `ErrorCode`.
        cassette: Answers the requests that no route matches, if there is one.

    Example:
        >>> upstream = wasgi.testing.Upstream()
        >>> upstream.get("https://api.example.com/users/1").respond(json={"name": "Ada"})
    """

    allow_unmatched: bool = False
    allow_unused: bool = False
    allow_errors: bool = False
    calls: list[Call] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    cassette: Cassette | None = None
    _failures: list[BaseException] = field(default_factory=list)

    def request(
        self,
        method: str | None,
        url: Text | None = None,
        *,
        query: Any = None,
        params: Any = None,
        headers: Any = None,
        content: bytes | str | re.Pattern[Any] | None = None,
        json: Any = NOTHING,
        data: Any = None,
        where: Callable[[Asked], bool] | None = None,
        **others: Never,
    ) -> Route:
        """Adds a route for the requests that match all that is given.

        Values of names (in ``query``, ``headers`` and ``data``, each a mapping or pairs) are text, numbers, booleans
        (``true`` and ``false``), enumerations' values, or regular expressions, which are searched for. The name may
        have more values than the given one; a list means all of them.

        Args:
            method: None: any.
            url: The whole URL; one without a query matches any query. ``*`` stands for anything but a slash, ``**`` for
                anything: ``"https://api.example.com/v1/**"``. URLs are compared in normal form (RFC 3986, 6.2.2 and
                6.2.3). A regular expression is searched for in the URL as it was sent, and in its normal form.
            query: Values of the URL's query; there may be more names.
            params: The same, as httpx calls it.
            headers: Likewise, of the fields.
            content: The body, or a regular expression.
            json: A part of the body as JSON: objects must have these members, at any depth. Numbers are compared by
                value; a regular expression is searched for in text; `unittest.mock.ANY` matches anything.
            data: Values of the body as a form.
            where: A predicate: a function of the request.
            **others: There are none.

        Raises:
            TypeError: A matcher that no request can match, or an unknown option.
            ValueError: A URL that no component could ask for.
        """
        no_others("a route", others, _REQUEST_HINTS)
        method = method_of(method)
        if isinstance(url, re.Pattern):
            pattern(url, "`url`")
        elif url is not None and not isinstance(url, str):
            raise TypeError(f"`url` must be str or a regular expression, not {type(url).__name__}; hint: its `str()`")
        elif url is not None and "*" not in url and _normal_url(url) is None:
            raise ValueError(
                f"`url` is not a URL that a component could request: {url!r}; hint: it is absolute, as in "
                "'http://example.com/x'; `**` stands for any characters"
            )
        if query is not None and params is not None:
            raise TypeError("`query` and `params` are the same: one of them")
        if where is not None and (not callable(where) or inspect.iscoroutinefunction(where)):
            raise TypeError(f"`where` must be a plain function, not {where!r}")
        wanted = RequestMatcher(
            method,
            url,
            named(query, "query") if params is None else named(params, "params"),
            headers_of(headers),
            content_of(content),
            json_of(json),
            where,
            named(data, "data"),
        )
        route = Route(wanted)
        self.routes.append(route)
        return route

    def any(self, url: Text | None = None, **options: Unpack[_Matchers]) -> Route:
        """Requests of any method; without a URL, all. See `request`."""
        return self.request(None, url, **options)

    def get(self, url: Text, **options: Unpack[_Matchers]) -> Route:
        """GET requests. See `request`."""
        return self.request("GET", url, **options)

    def head(self, url: Text, **options: Unpack[_Matchers]) -> Route:
        """HEAD requests. See `request`."""
        return self.request("HEAD", url, **options)

    def options(self, url: Text, **options: Unpack[_Matchers]) -> Route:
        """OPTIONS requests. See `request`."""
        return self.request("OPTIONS", url, **options)

    def post(self, url: Text, **options: Unpack[_Matchers]) -> Route:
        """POST requests. See `request`."""
        return self.request("POST", url, **options)

    def put(self, url: Text, **options: Unpack[_Matchers]) -> Route:
        """PUT requests. See `request`."""
        return self.request("PUT", url, **options)

    def patch(self, url: Text, **options: Unpack[_Matchers]) -> Route:
        """PATCH requests. See `request`."""
        return self.request("PATCH", url, **options)

    def delete(self, url: Text, **options: Unpack[_Matchers]) -> Route:
        """DELETE requests. See `request`."""
        return self.request("DELETE", url, **options)

    @property
    def _needs_no_loop(self) -> bool:
        """Whether its responses never wait for the caller's event loop."""
        return self.cassette is None and not any(
            answer.is_foreign for route in self.routes for answer in route._answers
        )

    async def __call__(self, request: Request) -> Response:
        """Answers a request of the component: ``App(outgoing=...)`` calls it."""
        asked = Asked.of_head(request)
        route = next((route for route in self.routes if not route.wanted.mismatches_of_head(asked)), None)
        is_early = route is not None and route._turn().is_early
        if not is_early:
            asked = await Asked.read(request)
        call = Call(asked, route)
        self.calls.append(call)
        try:
            if not is_early:
                route = next((route for route in self.routes if not route.wanted.mismatches(asked)), None)
            call.route = route
        except BaseException as error:  # raised by a predicate
            call.outcome = error
            self._note(error)
            raise
        if route is None:
            return await self._otherwise(asked, call)
        answer = route._turn()
        route.calls.append(call)
        try:
            if answer.delay:
                await pause(request, answer.delay)
            made = answer.make(asked, request)
            response = await made if inspect.isawaitable(made) else made
            if not isinstance(response, Response):
                raise TypeError(f"an upstream must give a `wasgi.Response`, not {type(response).__name__}")
        except BaseException as error:
            call.outcome = error
            if answer.is_foreign and (is_failure(error) or isinstance(error, errors.GuestError)):
                self._note(error)
            raise
        call.outcome = response.status
        return response if answer.breaks is None else broken_off(response, *answer.breaks)

    def _note(self, error: BaseException) -> None:
        if self.allow_errors:
            inject(error)  # so that it is not reported elsewhere
        self._failures.append(error)

    async def _otherwise(self, asked: Asked, call: Call) -> Response:
        try:
            if self.cassette is None:
                raise errors.DestinationNotFound
            response = await asked.of(self.cassette)
        except BaseException as error:
            call.outcome = error
            raise
        call.outcome = response.status
        return response

    def complaints(self) -> list[str]:
        """What fails the test: requests that no route matches, unused routes, failures of the test's own code."""
        found = [] if self.allow_errors else list(map(failed, self._failures))
        if self.cassette is not None:
            found += self.cassette.complaints()
        elif not self.allow_unmatched:
            unmatched = [
                call.request for call in self.calls if call.route is None and call.outcome not in self._failures
            ]
            found += [self._unmatched(asked) for asked in unmatched]
        if not self.allow_unused:
            found += [f"a route was never used: {route.wanted}" for route in self.routes if not route.called]
        return found

    def _unmatched(self, asked: Asked) -> str:
        lines = [f"no route matches a request of the component: {asked}"]
        if not self.routes:
            return f"{lines[0]} (there are no routes)"
        nearest = min(self.routes, key=lambda route: route.wanted.distance(asked))
        lines.append(f"the nearest route is: {nearest.wanted}")
        for name, wanted, came in nearest.wanted.mismatches(asked):
            lines += [f"  {name}", f"    wanted  {wanted}", f"    came    {came}"]
        return "\n".join(lines)

    def check(self) -> None:
        """Raises AssertionError with all `complaints`, if there are any."""
        found = self.complaints()
        if found:
            raise AssertionError("\n\n".join(found)) from next(iter(self._failures), None)
