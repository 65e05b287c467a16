"""Clients of a component: requests without a server and without ports."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypedDict, TypeVar, Unpack

from wasgi._wasgi import Request, Response
from wasgi.headers import Headers
from wasgi.testing.blocking import ASYNC_HINT, loop_runs_here, refuse_to_block
from wasgi.testing.content import NOTHING, Pairs, encode, join, no_others, one_body
from wasgi.testing.matching import one_line

if TYPE_CHECKING:
    from wasgi.app import App

__tracebackhide__ = True  # in pytest's reports: a test's own line is what is wanted there


@dataclass
class Exchange:
    """A request of a client and its outcome, for reports.

    Attributes:
        outcome: The response, or the exception; None while there is neither.
        seconds: The time until then.
    """

    method: str
    url: str
    outcome: Response | BaseException | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        line = f"{self.method} {self.url}"
        if isinstance(self.outcome, Response):
            report = self.outcome.report
            cost = f", {report.memory >> 10} KiB, {report.outgoing} outgoing" if report is not None else ""
            return f"{line} -> {self.outcome.status} in {self.seconds * 1e3:.1f} ms{cost}"
        outcome = one_line(self.outcome) if self.outcome is not None else "nothing yet"
        return f"{line} -> {outcome} ({self.seconds * 1e3:.1f} ms)"


_KEPT = 100
"""How many exchanges a client keeps for reports."""


class _Options(TypedDict, total=False):
    params: Pairs | str | bytes | None
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None
    content: Any
    json: Any
    data: Pairs | None
    trailers: Mapping[str, str] | Iterable[tuple[str, str]] | None


_HINTS = {
    "auth": '`headers={"authorization": ...}`',
    "body": "`content`, `json` or `data`",
    "cookies": '`headers={"cookie": ...}`',
    "files": "encode them, and give `content` and a `content-type`",
    "form": "`data`",
    "query": "`params`",
    "text": "`content`",
    "timeout": "the client has one",
}
"""What other clients call it."""


_EXPIRED = ("timed out waiting for the guest",)
"""The arguments of `App._handle_within`'s own TimeoutError. One that the request's body has raised has others."""


def _seconds(value: Any) -> float | None:
    """A client's timeout.

    Raises:
        TypeError: It is not a number.
        ValueError: It is below 0, or NaN.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"`timeout` must be a number of seconds, or None, not {type(value).__name__}")
    if not value >= 0:  # NaN neither
        raise ValueError(f"`timeout` must be a number of seconds, zero or more: {value}")
    return value


T = TypeVar("T")
"""What a verb gives: a response, or what is awaited for one."""


class _Base(Generic[T]):
    def __init__(self, app: App, *, base_url: str = "http://component.test", timeout: float | None = None) -> None:
        self.app = app
        self.base_url = base_url
        self.timeout = timeout
        self.exchanges: deque[Exchange] = deque(maxlen=_KEPT)

    @property
    def timeout(self) -> float | None:
        """Seconds that a response may take; None: as long as the app's `Limits` allow."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._timeout = _seconds(seconds)
        self._option = "timeout"

    def _timed_out(self) -> TimeoutError:
        return TimeoutError(f"timed out after {self._timeout:g} s (`{self._option}`)")

    @contextlib.contextmanager
    def _noted(self, request: Request) -> Iterator[Exchange]:
        exchange = Exchange(request.method, request.url)
        self.exchanges.append(exchange)
        begun = time.perf_counter()
        try:
            yield exchange
        except BaseException as error:
            exchange.outcome = error
            if isinstance(error, TimeoutError) and isinstance(self, Client) and loop_runs_here():
                error.add_note(f"an event loop could not run meanwhile, as this call blocks it; {ASYNC_HINT}")
            raise
        finally:
            exchange.seconds = time.perf_counter() - begun

    def _made(self, method: str, url: str, options: _Options) -> Request:
        no_others("a request", (name for name in options if name not in _Options.__annotations__), _HINTS)
        fields = Headers(options.get("headers") or [])
        content, json, data = (options.get(name) for name in ("content", "json", "data"))
        one_body("request", content=content is not None, json=json is not None, data=data is not None)
        body = encode(fields, content, NOTHING if json is None else json, data)
        whole = join(self.base_url, str(url), options.get("params"))
        return Request(method, whole, headers=fields.raw, body=body, trailers=options.get("trailers"))

    def request(self, method: str, url: str, **options: Unpack[_Options]) -> T:
        """Sends a request.

        Args:
            method: Its method.
            url: Absolute, or relative to ``base_url`` (RFC 3986, 5.2); a fragment is left out.
            **options: As httpx has them: ``params``, put behind the URL's query: a mapping (a list stands for several
                values, True for ``true``, None for nothing), pairs, or text. ``headers``: a mapping or pairs. One of
                three bodies: ``content``, whatever `wasgi.Request` takes, ``json``, or ``data``, a form as a mapping or
                pairs; the latter two add a ``content-type`` unless it is there. ``trailers``: fields after the body.

        Raises:
            GuestError: The guest failed, before or after its response.
            ErrorCode: The guest answered with one.
            BodyError: The response failed midway.
            TimeoutError: It took longer than the client's ``timeout``.
            TypeError: More than one body, or an unknown option.
            RuntimeError: A blocking client would block the event loop that its upstream or the body may need.
        """
        return self._send(self._made(method, url, options))

    def _send(self, request: Request) -> T:
        raise NotImplementedError

    def get(self, url: str, **options: Unpack[_Options]) -> T:
        """Sends a GET request. See `request`."""
        return self.request("GET", url, **options)

    def head(self, url: str, **options: Unpack[_Options]) -> T:
        """Sends a HEAD request. See `request`."""
        return self.request("HEAD", url, **options)

    def options(self, url: str, **options: Unpack[_Options]) -> T:
        """Sends an OPTIONS request. See `request`."""
        return self.request("OPTIONS", url, **options)

    def post(self, url: str, **options: Unpack[_Options]) -> T:
        """Sends a POST request. See `request`."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Unpack[_Options]) -> T:
        """Sends a PUT request. See `request`."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Unpack[_Options]) -> T:
        """Sends a PATCH request. See `request`."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Unpack[_Options]) -> T:
        """Sends a DELETE request. See `request`."""
        return self.request("DELETE", url, **options)


class Client(_Base[Response]):
    """A client of a component, in the style of httpx, without a server and without ports.

    Responses are read whole, and their guests have ended; a guest that fails after its response raises here. `stream`
    gives a response that is not read yet. The client blocks, also an event loop of its thread. So in asynchronous code
    it raises at once, unless its upstream cannot need that loop: a plain function (`wasgi.outgoing.wsgi` makes one), a
    `wasgi.Network`, or an `Upstream` without a cassette and with routes that it answers itself (`Route.respond` without
    a function, `Route.raises`). Use `AsyncClient` there.

    Args:
        app: The component, with its options.
        base_url: What relative URLs are relative to.
        timeout: Seconds that the head of each response may take (with `AsyncClient`, all of it); None: as long as the
            app's `Limits` allow.

    Attributes:
        exchanges: The last 100 exchanges, for reports.

    Raises:
        TypeError: The timeout is not a number.
        ValueError: It is below 0, or NaN.
    """

    def request(self, method: str, url: str, **options: Unpack[_Options]) -> Response:  # noqa: D102 -- see above
        refuse_to_block(self.app, options.get("content"))
        return super().request(method, url, **options)

    def _head(self, request: Request) -> Response:
        """The response, as soon as its head has come."""
        try:
            return self.app._handle_within(request, self.timeout)
        except TimeoutError as error:
            if error.args != _EXPIRED:
                raise
            raise self._timed_out() from None

    def _send(self, request: Request) -> Response:
        with self._noted(request) as exchange:
            response = self._head(request)
            exchange.outcome = response
            response.read()
            response.wait()
            return response

    @contextlib.contextmanager
    def stream(self, method: str, url: str, **options: Unpack[_Options]) -> Iterator[Response]:
        """Sends a request. Gives the response as soon as its head has come, and closes it in the end."""
        refuse_to_block(self.app, options.get("content"))
        request = self._made(method, url, options)
        with self._noted(request) as exchange:
            exchange.outcome = self._head(request)
            with exchange.outcome as response:
                yield response

    def close(self) -> None:
        """Closes the app."""
        self.app.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(_Base[Coroutine[Any, Any, Response]]):
    """`Client` for a task of an asyncio event loop, which it never blocks."""

    async def _within(self, awaited: Awaitable[Response]) -> Response:
        """Awaits for no longer than ``timeout``."""
        import asyncio

        try:
            async with asyncio.timeout(self.timeout) as patience:
                return await awaited
        except TimeoutError as error:
            if patience.expired() and isinstance(error.__cause__, asyncio.CancelledError):
                raise self._timed_out() from None
            raise

    async def _whole(self, request: Request, exchange: Exchange) -> Response:
        response = await self.app.handle_async(request)
        exchange.outcome = response
        await response.aread()
        await response.finished()
        return response

    async def _send(self, request: Request) -> Response:
        with self._noted(request) as exchange:
            return await self._within(self._whole(request, exchange))

    @contextlib.asynccontextmanager
    async def stream(self, method: str, url: str, **options: Unpack[_Options]) -> AsyncIterator[Response]:
        """Sends a request. Gives the response as soon as its head has come, and closes it in the end."""
        request = self._made(method, url, options)
        with self._noted(request) as exchange:
            exchange.outcome = await self._within(self.app.handle_async(request))
            async with exchange.outcome as response:
                yield response

    async def aclose(self) -> None:
        """Closes the app."""
        await self.app.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.aclose()
