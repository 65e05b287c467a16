"""`wasgi.testing.Route`: the requests that a mock answers, and its responses and faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Never, Self

from wasgi import _wasgi, errors, outgoing
from wasgi._native import callbacks
from wasgi._wasgi import Request, Response
from wasgi.headers import Headers
from wasgi.testing.content import NOTHING, Pairs, chunks_of, encode, no_others, one_body, seconds_of
from wasgi.testing.failures import Fault, fault_of, inject
from wasgi.testing.matching import Asked, RequestMatcher, one_line

if TYPE_CHECKING:
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


@dataclass
class Call:
    """A request and its outcome.

    Attributes:
        request: The request.
        route: Which `Route` answered; None if none did.
        outcome: The status, or the exception that was raised; None while there is no answer.
    """

    request: Asked
    route: Route | None
    outcome: int | BaseException | None = None

    def __str__(self) -> str:
        outcome = self.outcome
        if self.route is None and isinstance(outcome, errors.DestinationNotFound):
            return f"{self.request} -> no route matches it"
        return f"{self.request} -> {one_line(outcome) if isinstance(outcome, BaseException) else outcome}"


@dataclass
class _Answer:
    """One response or fault of a route."""

    make: Callable[[Asked, Request], Any]
    is_foreign: bool = False
    """Whether it is the test's own code, whose failure is the test's."""
    delay: float = 0.0
    is_early: bool = False
    breaks: tuple[int, Fault] | None = None


class Route:
    """The response to the requests that match: 200 without a body, unless another is set. Made by `Upstream`.

    Attributes:
        wanted: What it matches.
        calls: The requests that it has answered, in order.
    """

    def __init__(self, wanted: RequestMatcher) -> None:
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
        """The response set next is for the next request. The last one is for all requests that follow."""
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
        """Sets the response.

        Args:
            status: Its status.
            headers: Its fields; a content-type is added for ``text``, ``html``, ``json`` and ``data`` unless it is
                there.
            content: Its body, one of these six: bytes, str (as UTF-8) or chunks.
            text: As UTF-8.
            html: Likewise, as ``text/html``.
            json: As JSON; None is ``null``.
            data: As a form: a mapping or pairs.
            stream: Chunks; a number among them is a pause of so many seconds, in virtual time if the app has a
                `Simulation`. Or a function that returns chunks.
            trailers: The fields after the body.
            **others: There are none.

        Raises:
            TypeError: More than one body, one of the wrong type, or an unknown option.
            ValueError: The status is invalid or interim (1xx), a field is invalid, or JSON has no such number.
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
        body = _body_of(fields, content, text, html, json, data, stream)
        # refuses invalid fields here, where they are written
        Response(status, headers=fields.raw, trailers=trailers)

        def make(_: Asked, request: Request) -> Response:
            made = _paced(body, request) if isinstance(body, list) else body() if callable(body) else body
            return Response(status, headers=fields.raw, body=made, trailers=trailers)

        return self._answer(make, is_foreign=callable(body))

    def raises(self, fault: Fault) -> Self:
        """Injects a fault: an error-code by its name (``"connection-refused"``), or any exception."""
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
            callbacks.as_upstream(upstream)

        def make(asked: Asked, request: Request) -> Any:
            return outgoing.call(upstream, request) if answer.is_early else asked.of(upstream)

        self._answer(make, is_foreign=True)
        answer = self._answers[-1]
        return self

    def passes_through(self, network: _Upstream) -> Self:
        """Has the real service answer: through a `wasgi.Network`, whose own policy applies."""
        return self.answers(network)

    def breaks_after(self, size: int, fault: Fault = "HTTP-response-incomplete") -> Self:
        """Injects a fault into the body of the response, after so many bytes."""
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"`size` must be a number of bytes, not {type(size).__name__}")
        if size < 0:
            raise ValueError(f"`size` must not be below 0: {size}")
        fault_of(fault)
        self._last().breaks = (size, fault)
        return self

    def delays(self, seconds: float) -> Self:
        """Delays the response by so many seconds: in virtual time, if the app has a `Simulation`."""
        self._last().delay = seconds_of(seconds, "`seconds`")
        return self

    def early(self) -> Self:
        """Responds as soon as the head of the request has come: its body is not read.

        What the component still writes of the body is discarded, as by a server that responds early (RFC 9112, 9.6). An
        upstream that `answers` gets the request while its body still streams.

        Raises:
            TypeError: The route matches the body.
        """
        if not self.wanted.is_of_head:
            raise TypeError(f"a route that looks at bodies cannot answer before they come: {self.wanted}")
        self._last().is_early = True
        return self

    def _turn(self) -> _Answer:
        """The response or fault for the next request."""
        if not self._answers:
            self.respond()
        return self._answers[min(len(self.calls), len(self._answers) - 1)]

    def __repr__(self) -> str:
        return f"<wasgi.testing.Route {self.wanted}>"


def _body_of(
    fields: Headers, content: Any, text: Any, html: Any, json: Any, data: Any, stream: Any
) -> bytes | list[bytes | float] | Callable[[], Any] | None:
    """The one body that is given, with its content-type: bytes, chunks and pauses, or a function that gives chunks."""
    if stream is not None:
        return stream if callable(stream) else chunks_of(stream, "stream")
    if text is not None or html is not None:
        name, kind, given = ("text", "plain", text) if html is None else ("html", "html", html)
        if not isinstance(given, str):
            raise TypeError(f"`{name}` must be str, not {type(given).__name__}; hint: `content` takes bytes")
        fields.setdefault("content-type", f"text/{kind}; charset=utf-8")
        return given.encode()
    match encode(fields, content, json, data):
        case None:
            return None
        case str() as body:
            return body.encode()
        case bytes() | bytearray() | memoryview() as body:
            return bytes(body)
        case body:
            return chunks_of(body, "content")


async def pause(request: Request, seconds: float) -> None:
    """Waits in the guest's time, which is virtual if its app has a `Simulation`."""
    staged = request._pause(seconds)
    await (asyncio.sleep(seconds) if staged is None else staged)


async def _paced(chunks: Iterable[bytes | float], request: Request) -> AsyncIterator[bytes]:
    for chunk in chunks:
        if isinstance(chunk, int | float):
            await pause(request, chunk)
        else:
            yield chunk


def broken_off(response: Response, size: int, fault: Fault) -> Response:
    """A response whose body fails after so many bytes."""

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
