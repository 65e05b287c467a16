"""Testing components: a client for them, and what plays the world around them.

With pytest, the fixtures ``wasgi_app`` and ``upstream`` make these; see the guide on testing. Without pytest::

    upstream = wasgi.testing.Upstream()
    upstream.get("https://api.example.com/users/1").respond(json={"name": "Ada"})
    with wasgi.testing.Client(wasgi.App("greeter.wasm", outgoing=upstream)) as client:
        assert client.get("/greet/1").text == "Hello, Ada"
    upstream.check()
"""

from __future__ import annotations

import contextlib
import json as _json
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar
from urllib.parse import urlencode, urljoin

from wasgi import errors
from wasgi._asked import Asked, told
from wasgi._cassette import Cassette
from wasgi._isolation import check_isolation
from wasgi._mock import Call, Fault, Route, Upstream
from wasgi._wasgi import Request, Response, World
from wasgi.headers import Headers

if TYPE_CHECKING:
    from wasgi.app import App

__all__ = [
    "Asked",
    "AsyncClient",
    "Call",
    "Cassette",
    "Client",
    "Event",
    "Exchange",
    "Fault",
    "Route",
    "Upstream",
    "World",
    "check_isolation",
    "events",
    "every_error_code",
]

__tracebackhide__ = True  # in pytest's reports: a test's own line is what is wanted there


def every_error_code() -> list[str]:
    """The names of wasi:http's 39 error-codes, for ``pytest.mark.parametrize`` and `Route.raises`."""
    return list(errors.ERROR_CODES)


@dataclass
class Exchange:
    """What a client has asked, for reports.

    Attributes:
        outcome: The response, or the exception; None while there is neither.
        seconds: Until then.
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
        outcome = told(self.outcome) if self.outcome is not None else "nothing yet"
        return f"{line} -> {outcome} ({self.seconds * 1e3:.1f} ms)"


_KEPT = 100
"""How many exchanges a client remembers."""


T = TypeVar("T")
"""What a verb gives: a response, or what is awaited for one."""


class _Base(Generic[T]):
    def __init__(self, app: App, *, base_url: str = "http://component.test", timeout: float | None = None) -> None:
        self.app = app
        self.base_url = base_url
        self.timeout = timeout
        self.exchanges: deque[Exchange] = deque(maxlen=_KEPT)

    def _request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | Iterable[tuple[str, Any]] | None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
        content: Any,
        json: Any,
        data: Mapping[str, Any] | None,
        trailers: Mapping[str, str] | None,
    ) -> Request:
        fields = Headers(headers or [])
        if sum(body is not None for body in (content, json, data)) > 1:
            raise TypeError("a request has one body: `content`, `json` or `data`")
        if json is not None:
            content = _json.dumps(json).encode()
            fields.setdefault("content-type", "application/json")
        elif data is not None:
            content = urlencode(data, doseq=True).encode()
            fields.setdefault("content-type", "application/x-www-form-urlencoded")
        whole = urljoin(self.base_url, url)
        if params:
            whole += ("&" if "?" in whole else "?") + urlencode(
                params if isinstance(params, Mapping) else list(params), doseq=True
            )
        return Request(method, whole, headers=fields.raw, body=content, trailers=trailers)

    @contextlib.contextmanager
    def _noted(self, request: Request) -> Iterator[Exchange]:
        exchange = Exchange(request.method, request.url)
        self.exchanges.append(exchange)
        begun = time.perf_counter()
        try:
            yield exchange
        except BaseException as error:
            exchange.outcome = error
            raise
        finally:
            exchange.seconds = time.perf_counter() - begun

    def _made(self, method: str, url: str, options: dict[str, Any]) -> Request:
        parts = [options.pop(name, None) for name in ("params", "headers", "content", "json", "data", "trailers")]
        if options:
            raise TypeError(f"`stream` takes no `{next(iter(options))}`")
        return self._request(method, url, *parts)

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        content: Any = None,
        json: Any = None,
        data: Mapping[str, Any] | None = None,
        trailers: Mapping[str, str] | None = None,
    ) -> T:
        """Sends a request.

        Args:
            method: Its method.
            url: Absolute, or relative to ``base_url``.
            params: Put behind the URL's query.
            headers: Its fields.
            content: Its body: whatever `wasgi.Request` takes.
            json: Or as JSON.
            data: Or as a form.
            trailers: The fields after the body.

        Raises:
            GuestError: The guest failed, before or after its answer.
            ErrorCode: The guest answered with one.
            BodyError: Its answer broke off.
            TimeoutError: It took longer than the client's ``timeout``.
        """
        return self._send(self._request(method, url, params, headers, content, json, data, trailers))

    def _send(self, request: Request) -> T:
        raise NotImplementedError

    def get(self, url: str, **options: Any) -> T:
        """Sends a GET request. See `request`."""
        return self.request("GET", url, **options)

    def head(self, url: str, **options: Any) -> T:
        """Sends a HEAD request. See `request`."""
        return self.request("HEAD", url, **options)

    def options(self, url: str, **options: Any) -> T:
        """Sends an OPTIONS request. See `request`."""
        return self.request("OPTIONS", url, **options)

    def post(self, url: str, **options: Any) -> T:
        """Sends a POST request. See `request`."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Any) -> T:
        """Sends a PUT request. See `request`."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Any) -> T:
        """Sends a PATCH request. See `request`."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Any) -> T:
        """Sends a DELETE request. See `request`."""
        return self.request("DELETE", url, **options)


class Client(_Base[Response]):
    """Asks a component, as a client of httpx's kind would, without a server and without ports.

    Responses are read whole, and their guests have ended; a guest that fails after its answer raises here. `stream`
    gives one that is not read yet.

    Args:
        app: The component, and its terms.
        base_url: What relative URLs are relative to.
        timeout: Seconds that the head of each response may take (with `AsyncClient`, all of it); None: as long as the
            app's `Limits` let it.

    Attributes:
        exchanges: What was asked lately, for reports.
    """

    def _send(self, request: Request) -> Response:
        with self._noted(request) as exchange:
            response = self.app._handle_within(request, self.timeout)
            exchange.outcome = response
            response.read()
            response.wait()
            return response

    @contextlib.contextmanager
    def stream(self, method: str, url: str, **options: Any) -> Iterator[Response]:
        """Sends a request; the response is there as soon as its head is, and is closed in the end."""
        request = self._made(method, url, options)
        with self._noted(request) as exchange:
            exchange.outcome = self.app._handle_within(request, self.timeout)
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

    async def _send(self, request: Request) -> Response:
        import asyncio

        with self._noted(request) as exchange:
            async with asyncio.timeout(self.timeout):
                response = await self.app.handle_async(request)
                exchange.outcome = response
                await response.aread()
                await response.finished()
            return response

    @contextlib.asynccontextmanager
    async def stream(self, method: str, url: str, **options: Any) -> AsyncIterator[Response]:
        """Sends a request; the response is there as soon as its head is, and is closed in the end."""
        import asyncio

        request = self._made(method, url, options)
        with self._noted(request) as exchange:
            async with asyncio.timeout(self.timeout):
                exchange.outcome = await self.app.handle_async(request)
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


@dataclass(frozen=True)
class Event:
    """A server-sent event (WHATWG HTML, 9.2).

    Attributes:
        event: Its type.
        data: Its lines, joined.
        id: The last id that was sent.
        retry: Milliseconds, if it says so.
    """

    event: str = "message"
    data: str = ""
    id: str = ""
    retry: int | None = None


@dataclass
class _EventLines:
    """The state of WHATWG HTML, 9.2.6."""

    event: str = ""
    data: list[str] = field(default_factory=list)
    id: str = ""
    retry: int | None = None

    def take(self, line: str) -> Event | None:
        if not line:
            data, event, retry = self.data, self.event or "message", self.retry
            self.data, self.event, self.retry = [], "", None
            return Event(event, "\n".join(data), self.id, retry) if data else None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self.event = value
            case "data":
                self.data.append(value)
            case "id" if "\0" not in value:
                self.id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry = int(value)
        return None


def events(response: Response) -> Iterator[Event]:
    """The events of a ``text/event-stream`` as they come: for `Client.stream`."""
    import codecs
    import io

    lines = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")("replace"), translate=True)
    state, rest = _EventLines(), ""
    for chunk in response:
        *whole, rest = (rest + lines.decode(chunk)).split("\n")
        for line in whole:
            if event := state.take(line):
                yield event
