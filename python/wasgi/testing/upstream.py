"""`wasgi.testing.Upstream`: plays what is around a component. Routes, answers, faults, and what was asked.

The faults are error-codes.
"""

from __future__ import annotations

import asyncio
import difflib
import inspect
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Never, Self, TypedDict, Unpack

from wasgi import _bridge, _wasgi, errors, outgoing
from wasgi._asked import Asked, Wanted, told
from wasgi._content import NOTHING, Pairs, chunks_of, encode, no_others, one_body, seconds_of
from wasgi._failures import described, inject, is_failure
from wasgi._matchers import Text, content_of, headers_of, json_of, method_of, named, pattern
from wasgi._wasgi import Request, Response, _normal_url
from wasgi.headers import Headers

if TYPE_CHECKING:
    from wasgi._cassette import Cassette
    from wasgi._wasgi import _Upstream

__tracebackhide__ = True  # in pytest's reports: a test's own line is what is wanted there

_RESPONSE_HINTS = {
    "body": "`content`, `text`, `html`, `json`, `data` or `stream`",
    "chunks": "`stream`",
    "delay": "`.delays(...)`, behind it",
    "exc": "`raises(...)`, in its place",
    "form": "`data`",
    "status_code": "`status`",
}
"""What other mocks call it."""
_REQUEST_HINTS = {
    "body": "`content`, `json` or `data`",
    "form": "`data`",
    "match": "`where`",
    "path": "`url`, which is whole: `**/path` for any host",
    "text": "`content`",
}

Fault = str | BaseException | type[BaseException]


def fault_of(fault: Fault) -> BaseException:
    """An exception, by the name of its error-code or as it is."""
    if isinstance(fault, str):
        try:
            return errors.ERROR_CODES[fault]()
        except KeyError:
            near = difflib.get_close_matches(fault, errors.ERROR_CODES, 1, 0)
            raise ValueError(f"no error-code is called {fault!r}; hint: {near[0]!r} is") from None
    if isinstance(fault, BaseException):
        return fault
    if isinstance(fault, type) and issubclass(fault, BaseException):
        return fault()
    raise TypeError(f"a fault must be the name of an error-code or an exception, not {type(fault).__name__}")


@dataclass
class Call:
    """A request and what it was answered with.

    Attributes:
        request: What was asked.
        route: Which `Route` answered; None if none did.
        outcome: The status, or the exception that was raised; None while there is no answer.
    """

    request: Asked
    route: Route | None
    outcome: int | BaseException | None = None

    def __str__(self) -> str:
        outcome = self.outcome
        if self.route is None and isinstance(outcome, errors.DestinationNotFound):
            return f"{self.request} -> nobody answers it"
        return f"{self.request} -> {told(outcome) if isinstance(outcome, BaseException) else outcome}"


@dataclass
class _Answer:
    """One answer of a route."""

    make: Callable[[Asked, Request], Any]
    is_foreign: bool = False
    """Whether it is the test's own code, whose failure is the test's."""
    delay: float = 0.0
    is_early: bool = False
    breaks: tuple[int, Fault] | None = None


class Route:
    """Some requests, and what they are answered with: 200 and nothing more, unless it is said. Made by `Upstream`.

    Attributes:
        wanted: What it asks of a request.
        calls: What it has answered, in order.
    """

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.calls: list[Call] = []
        self._answers: list[_Answer] = []
        self._next = True

    @property
    def called(self) -> bool:
        """Whether it has answered anything."""
        return bool(self.calls)

    @property
    def then(self) -> Self:
        """What is said next is the answer to the next request. The last answer is that to all that follow."""
        self._next = True
        return self

    def _answer(self, make: Callable[[Asked, Request], Any], *, is_foreign: bool = False) -> Self:
        if not self._next:
            self._answers.pop()
        self._answers.append(_Answer(make, is_foreign))
        self._next = False
        return self

    def _last(self) -> _Answer:
        if self._next:
            self.respond()
        return self._answers[-1]

    def respond(
        self,
        status: int = 200,
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        content: bytes | str | Iterable[bytes] | None = None,
        text: str | None = None,
        html: str | None = None,
        json: Any = NOTHING,
        data: Pairs | None = None,
        stream: Iterable[bytes | float] | Callable[[], Iterable[bytes] | AsyncIterable[bytes]] | None = None,
        trailers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        **others: Never,
    ) -> Self:
        """Answers with a response.

        Args:
            status: Its status.
            headers: Its fields; a content-type is added for ``text``, ``html``, ``json`` and ``data`` unless it is
                there.
            content: Its body, one of these six: bytes, str (as UTF-8) or chunks.
            text: As UTF-8.
            html: Likewise, as ``text/html``.
            json: As JSON; None is ``null``.
            data: As a form: a mapping or pairs.
            stream: Chunks; a number among them is a pause of so many seconds, of the `World`'s time if the app has one.
                Or a function that gives chunks.
            trailers: The fields after the body.
            **others: There are none.

        Raises:
            TypeError: More than one body, one of the wrong type, or another option.
            ValueError: The status is none or that of an interim response (1xx), a field is none, or a number that JSON
                has not.
        """
        no_others("a response", others, _RESPONSE_HINTS)
        if isinstance(status, bool) or not isinstance(status, int):
            raise TypeError(
                f"`status` must be a number, not {type(status).__name__}; hint: a body has a name: "
                f"{_RESPONSE_HINTS['body']}"
            )
        one_body(
            "response",
            content=content is not None,
            text=text is not None,
            html=html is not None,
            json=json is not NOTHING,
            data=data is not None,
            stream=stream is not None,
        )
        if isinstance(status, int) and 100 <= status < 200:
            raise ValueError(f"`status` must be that of a final response, not of an interim one: {status}")
        fields = Headers(headers or [])
        body: Any = None
        chunks: list[bytes | float] | Callable[[], Any] | None = None
        if stream is not None:
            chunks = stream if callable(stream) else chunks_of(stream, "stream")
        elif text is not None or html is not None:
            name, kind, said = ("text", "plain", text) if html is None else ("html", "html", html)
            if not isinstance(said, str):
                raise TypeError(f"`{name}` must be str, not {type(said).__name__}; hint: `content` takes bytes")
            body = said.encode()
            fields.setdefault("content-type", f"text/{kind}; charset=utf-8")
        else:
            body = encode(fields, content, json, data)
            if isinstance(body, str):
                body = body.encode()
            elif isinstance(body, bytearray | memoryview):
                body = bytes(body)
            elif body is not None and not isinstance(body, bytes):
                chunks, body = chunks_of(body, "content"), None
        # what is wrong with it is said here
        Response(status, headers=fields.raw, trailers=trailers)

        def make(_: Asked, request: Request) -> Response:
            made = body if chunks is None else chunks() if callable(chunks) else _paced(chunks, request)
            return Response(status, headers=fields.raw, body=made, trailers=trailers)

        return self._answer(make, is_foreign=callable(chunks))

    def raises(self, fault: Fault) -> Self:
        """Answers with a failure: an error-code by its name (``"connection-refused"``), or any exception."""
        fault_of(fault)

        def make(*_: object) -> Response:
            raise inject(fault_of(fault))

        return self._answer(make)

    def answers(self, upstream: _Upstream) -> Self:
        """Has another upstream answer: a function from `wasgi.Request` to `wasgi.Response`, an `App`, and so on."""
        if isinstance(upstream, Response):
            raise TypeError(
                "`answers` takes an upstream, not a response; hint: `respond`, or a function that makes one"
            )
        if not isinstance(upstream, _wasgi.Network | _wasgi.Route):
            _bridge.as_upstream(upstream)

        def make(asked: Asked, request: Request) -> Any:
            return outgoing.call(upstream, request) if answer.is_early else asked.of(upstream)

        self._answer(make, is_foreign=True)
        answer = self._answers[-1]
        return self

    def passes_through(self, network: _Upstream) -> Self:
        """Has the real thing answer: a `wasgi.Network`, whose own policy applies."""
        return self.answers(network)

    def breaks_after(self, size: int, fault: Fault = "HTTP-response-incomplete") -> Self:
        """The body of the answer fails when so many bytes of it have been given."""
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"`size` must be a number of bytes, not {type(size).__name__}")
        if size < 0:
            raise ValueError(f"`size` must not be below 0: {size}")
        fault_of(fault)
        self._last().breaks = (size, fault)
        return self

    def delays(self, seconds: float) -> Self:
        """The answer is given so many seconds after the request: of the `World`'s time, if the app has one."""
        self._last().delay = seconds_of(seconds, "`seconds`")
        return self

    def early(self) -> Self:
        """The answer is given when the head of the request has come: its body is not read.

        What the component still writes of it is thrown away, as by a server that answers early (RFC 9112, 9.6). An
        upstream that `answers` is given the request as it comes.

        Raises:
            TypeError: The route asks something of the body.
        """
        if not self.wanted.is_of_head:
            raise TypeError(f"a route that looks at bodies cannot answer before they come: {self.wanted}")
        self._last().is_early = True
        return self

    def _turn(self) -> _Answer:
        """The answer to the next request."""
        if not self._answers:
            self.respond()
        return self._answers[min(len(self.calls), len(self._answers) - 1)]

    def __repr__(self) -> str:
        return f"<wasgi.testing.Route {self.wanted}>"


def failed(error: BaseException) -> str:
    """A complaint about an exception."""
    return (
        f"the test's own upstream failed: {described(error)}\n"
        "  hint: a component is told of a `wasgi.ErrorCode`; `allow_errors=True` lets upstreams raise anything"
    )


async def _pause(request: Request, seconds: float) -> None:
    """Of the guest's time, which is its `World`'s, if it has one."""
    staged = request._pause(seconds)
    await (asyncio.sleep(seconds) if staged is None else staged)


async def _paced(chunks: Iterable[bytes | float], request: Request) -> AsyncIterator[bytes]:
    for chunk in chunks:
        if isinstance(chunk, int | float):
            await _pause(request, chunk)
        else:
            yield chunk


def _broken(response: Response, size: int, fault: Fault) -> Response:
    async def body() -> AsyncIterator[bytes]:
        left = size
        async for chunk in response:
            if len(chunk) > left:
                break
            left -= len(chunk)
            yield chunk
        else:
            chunk = b""
        if left and chunk:
            yield chunk[:left]
        raise inject(fault_of(fault))

    return Response(response.status, headers=response.headers.raw, body=body())


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
    """Plays what is around a component: give it to ``App(outgoing=...)``, or take the fixture ``upstream``.

    Routes are tried in the order in which they were made; the first that fits answers. A request that none fits is
    `DestinationNotFound` for the component, and a failure of the test, whatever the component makes of it; so is a
    route that was never used.

    Attributes:
        calls: What was asked, in order.
        allow_unmatched: Whether requests that no route fits are let pass.
        allow_unused: Whether routes need not be used.
        allow_errors: Whether functions that answer or match may raise what is no `ErrorCode`.
        cassette: Who answers what no route fits, if there is one.

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
        """Some requests: those that fit all that is said.

        Values of names (in ``query``, ``headers`` and ``data``, each a mapping or pairs) are text, numbers, booleans
        (``true`` and ``false``), enumerations' values, or regular expressions, which are searched for. There may be
        more values than the one that is said; a list says all.

        Args:
            method: None: any.
            url: The whole URL; one without a query fits whatever the query. ``*`` stands for anything but a slash,
                ``**`` for anything: ``"https://api.example.com/v1/**"``. However the same URL is spelt (RFC 3986, 6.2.2
                and 6.2.3), it is the same. A regular expression is searched for in the URL as it was sent, and in its
                normal form.
            query: Values of the URL's query; there may be more names.
            params: The same, as httpx calls it.
            headers: Likewise, of the fields.
            content: The body, or a regular expression.
            json: A part of the body as JSON: members of objects that it must have, as deep as they go. Numbers are
                compared by value; a regular expression is searched for in text; `unittest.mock.ANY` is anything.
            data: Values of the body as a form.
            where: A function that looks at the request.
            **others: There are none.

        Raises:
            TypeError: What cannot be compared with what a component sends, or another option.
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
                f"`url` is no URL that a component could ask for: {url!r}; hint: it is whole, as in "
                "'http://example.com/x'; `**` stands for any characters"
            )
        if query is not None and params is not None:
            raise TypeError("`query` and `params` are the same: one of them")
        if where is not None and (not callable(where) or inspect.iscoroutinefunction(where)):
            raise TypeError(f"`where` must be a plain function, not {where!r}")
        wanted = Wanted(
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
        """Whether its answers wait for nothing that its caller's event loop would have to run."""
        return self.cassette is None and not any(
            answer.is_foreign for route in self.routes for answer in route._answers
        )

    async def __call__(self, request: Request) -> Response:
        """Answers: what ``App(outgoing=...)`` calls."""
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
        except BaseException as error:  # of a predicate
            call.outcome = error
            self._note(error)
            raise
        if route is None:
            return await self._otherwise(asked, call)
        answer = route._turn()
        route.calls.append(call)
        try:
            if answer.delay:
                await _pause(request, answer.delay)
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
        return response if answer.breaks is None else _broken(response, *answer.breaks)

    def _note(self, error: BaseException) -> None:
        if self.allow_errors:
            inject(error)  # so that nobody else complains
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
        """What is wrong: requests that no route fits, routes that nothing has used, code of the test that failed."""
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
        lines = [f"the component asked for what no route answers: {asked}"]
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
