"""A component as a transport of httpx2 or httpx: their clients call it instead of the network.

Neither library is required; which of them a request belongs to is seen from the request.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from wasgi import _messages, errors
from wasgi._wasgi import Request, Response, _request_of_server
from wasgi.serving import answers

if TYPE_CHECKING:
    from wasgi._wasgi import App

    # to a type checker a transport is one of whichever library it is given to, and of neither if that is not there
    _AnyLibrarys = Any
else:
    _AnyLibrarys = object

_CONNECT_TIMEOUTS = {"DNS-timeout", "connection-timeout"}
_READ_TIMEOUTS = {"HTTP-response-timeout", "connection-read-timeout"}
_PROTOCOL = {
    "HTTP-protocol-error",
    "HTTP-response-body-size",
    "HTTP-response-content-coding",
    "HTTP-response-header-section-size",
    "HTTP-response-header-size",
    "HTTP-response-incomplete",
    "HTTP-response-trailer-section-size",
    "HTTP-response-trailer-size",
    "HTTP-response-transfer-coding",
    "HTTP-upgrade-failed",
    "internal-error",
    "loop-detected",
}


def exception_name(error: BaseException) -> str:
    """The name of the client library's exception that means the same."""
    match error:
        case _InvalidRequest():
            return "LocalProtocolError"
        case errors.BodyError():
            return "ReadTimeout" if isinstance(error.__cause__, errors.GuestTimeoutError) else "ReadError"
        case errors.ErrorCode(code="connection-write-timeout"):
            return "WriteTimeout"
        case errors.ErrorCode():
            if error.code in _CONNECT_TIMEOUTS:
                return "ConnectTimeout"
            if error.code in _READ_TIMEOUTS:
                return "ReadTimeout"
            if error.code.startswith("HTTP-request"):
                return "LocalProtocolError"
            # no connection was made: a name was not found, a peer refused, TLS failed
            return "RemoteProtocolError" if error.code in _PROTOCOL else "ConnectError"
        case errors.OverloadedError():
            return "PoolTimeout"
        case errors.AppClosedError():
            return "ConnectError"
        case TimeoutError():  # the guest's time limit, or the client's own
            return "ReadTimeout"
    return "RemoteProtocolError"


class _InvalidRequest(ValueError):
    """A client's request that no guest can receive."""


def _library(request: Any) -> ModuleType:
    return importlib.import_module(type(request).__module__.partition(".")[0])


class _Remembered:
    """A client's request body. An exception of its iterator belongs to the caller, and comes back as it is."""

    def __init__(self, chunks: Any) -> None:
        self.chunks = chunks
        self.raised: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self.chunks
        except BaseException as error:
            self.raised = error
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self.chunks:
                yield chunk
        except BaseException as error:
            self.raised = error
            raise


def _raise(request: Any, error: BaseException) -> None:
    text = str(error)
    if type(error) is TimeoutError and (seconds := _timeout(request, "read")) is not None:
        text = f"timed out after {seconds:g} s (the client's `read` timeout)"
    raise getattr(_library(request), exception_name(error))(text, request=request) from error


# Exceptions of ours, and of the client's own timeout. One that a body of the caller's raises comes back as it is.
_OURS = (errors.WasgiError, TimeoutError, _InvalidRequest)


def _request(request: Any, stream: Any) -> Request:
    raw: list[tuple[bytes, bytes]] = [(bytes(name).lower(), bytes(value)) for name, value in request.headers.raw]
    url = request.url
    # the fields do not say whether there is a body: a request that is made with a stream may have none
    whole = isinstance(request.stream, _library(request).ByteStream)
    body = b"".join(request.stream) if whole else stream
    try:
        return _request_of_server(
            request.method,
            url.scheme,
            (url.raw_host.decode("ascii"), url.port or 0),  # `host` has international names decoded
            request.extensions.get("target", url.raw_path),
            raw,
            body,
        )
    except ValueError as error:
        raise _InvalidRequest(str(error)) from error


def _timeout(request: Any, name: str) -> float | None:
    seconds: float | None = request.extensions.get("timeout", {}).get(name)
    return seconds


def _response(request: Any, response: Response, stream: Any) -> Any:
    return _library(request).Response(
        response.status,
        headers=answers.headers_of(response),
        stream=stream,
        extensions={"http_version": b"HTTP/1.1", "wasgi_response": response},
    )


@functools.cache
def _sync_stream(base: type[Any]) -> type[Any]:
    class Stream(base):  # type: ignore[misc]
        def __init__(self, request: Any, response: Response) -> None:
            self.request = request
            self.response = response

        def __iter__(self) -> Iterator[bytes]:
            chunks, seconds = iter(self.response), _timeout(self.request, "read")
            if _messages.is_bare(self.request.method, self.response.status):
                chunks._let_end(wait=False)
                return
            try:
                while (chunk := chunks._next_within(seconds)) is not None:
                    yield chunk
            except _OURS as error:
                _raise(self.request, error)

        def close(self) -> None:
            self.response.close()

    return Stream


@functools.cache
def _async_stream(base: type[Any]) -> type[Any]:
    class Stream(base):  # type: ignore[misc]
        def __init__(self, request: Any, response: Response) -> None:
            self.request = request
            self.response = response

        async def __aiter__(self) -> AsyncIterator[bytes]:
            chunks, seconds = aiter(self.response), _timeout(self.request, "read")
            if _messages.is_bare(self.request.method, self.response.status):
                chunks._let_end()  # type: ignore[attr-defined]
                return
            try:
                while True:
                    async with asyncio.timeout(seconds):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return
                    yield chunk
            except _OURS as error:
                _raise(self.request, error)

        async def aclose(self) -> None:
            await self.response.aclose()

    return Stream


class Transport(_AnyLibrarys):  # type: ignore[misc]
    """A transport for ``httpx2.Client`` or ``httpx.Client``: an `App` handles the requests, in process.

    Bodies stream both ways; closing a response cancels its guest. The client's ``read`` timeout bounds the wait for the
    head (with the upload that comes before it) and for each chunk. Failures are the client library's own exceptions,
    with wasgi's as their cause: a timeout as ``ReadTimeout``, a trap as ``RemoteProtocolError``, a response that
    fails midway as ``ReadError``, an error-code as its counterpart. An exception of the caller's own body comes back as
    it is. The extension ``trace`` is told of ``wasgi.handle.started`` and ``.complete`` or ``.failed``.

    Args:
        app: The app that handles the requests. Closing the client does not close it.

    Example:
        >>> with httpx2.Client(transport=wasgi.httpx.Transport(app)) as client:
        ...     client.get("http://example.com/").text
        'Hello, World!'
    """

    def __init__(self, app: App) -> None:
        self.app = app

    def handle_request(self, request: Any) -> Any:
        """Sends a request of the client to the app."""
        trace: Callable[[str, dict[str, Any]], Any] = request.extensions.get("trace") or (lambda name, info: None)
        trace("wasgi.handle.started", {"request": request})
        body = _Remembered(request.stream)
        try:
            response = self.app._handle_within(_request(request, iter(body)), _timeout(request, "read"))
            answers.only_final(response)
        except _OURS as error:
            trace("wasgi.handle.failed", {"exception": error})
            if error is body.raised:
                raise
            _raise(request, error)
        trace("wasgi.handle.complete", {"return_value": response})
        return _response(request, response, _sync_stream(_library(request).SyncByteStream)(request, response))

    def close(self) -> None:
        """Closes nothing: the app stays open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncTransport(_AnyLibrarys):  # type: ignore[misc]
    """A transport for ``httpx2.AsyncClient`` or ``httpx.AsyncClient``, under asyncio; see `Transport`."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def handle_async_request(self, request: Any) -> Any:
        """Sends a request of the client to the app."""
        trace: Callable[[str, dict[str, Any]], Awaitable[Any]] | None = request.extensions.get("trace")
        if trace is not None:
            await trace("wasgi.handle.started", {"request": request})
        body = _Remembered(request.stream)
        try:
            async with asyncio.timeout(_timeout(request, "read")):
                response = await self.app.handle_async(_request(request, aiter(body)))
            answers.only_final(response)
        except _OURS as error:
            if trace is not None:
                await trace("wasgi.handle.failed", {"exception": error})
            if error is body.raised:
                raise
            _raise(request, error)
        if trace is not None:
            await trace("wasgi.handle.complete", {"return_value": response})
        return _response(request, response, _async_stream(_library(request).AsyncByteStream)(request, response))

    async def aclose(self) -> None:
        """Closes nothing: the app stays open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.aclose()
