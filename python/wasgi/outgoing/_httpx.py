"""A client or transport of httpx2 or httpx as upstream.

Neither library is required; which one a client belongs to is seen from its class.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, Self

from wasgi import _messages
from wasgi._wasgi import Request, Response
from wasgi.errors import HttpRequestUriInvalid

# Fields of a single connection: the client library makes its own
_NOT_PASSED = frozenset([b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"])


def upstream_of(client: Any) -> Callable[[Request], Any]:
    """The client or transport as upstream.

    Raises:
        TypeError: It is neither.
    """
    library = _library(client)
    if hasattr(client, "send") and hasattr(client, "build_request"):
        timeout = client.timeout.as_dict()
        make = _async_upstream if inspect.iscoroutinefunction(client.send) else _sync_upstream
        return make(library, timeout, lambda request: client.send(request, stream=True, follow_redirects=False))
    if hasattr(client, "handle_async_request"):
        return _async_upstream(library, {}, client.handle_async_request)
    if hasattr(client, "handle_request"):
        return _sync_upstream(library, {}, client.handle_request)
    raise TypeError(f"`httpx` takes a client or a transport of httpx2 or httpx, not {type(client).__name__}")


def _library(client: Any) -> ModuleType:
    names = [cls.__module__.partition(".")[0] for cls in type(client).__mro__]
    for name in [*names, "httpx2", "httpx"]:
        if name in ("httpx2", "httpx"):
            try:
                return importlib.import_module(name)
            except ModuleNotFoundError:
                continue
    raise TypeError("`httpx` needs httpx2 or httpx to be installed")


# With these methods an empty body is none: the client library would announce it as chunked.
_MOSTLY_BARE = ("DELETE", "GET", "HEAD", "OPTIONS", "TRACE")


def _request(library: ModuleType, timeout: Mapping[str, float | None], request: Request, content: Any) -> Any:
    headers = [(name, value) for name, value in request.headers.raw if name not in _NOT_PASSED]
    wanted = dict(timeout)
    if (connect := request.timeouts.connect) is not None:
        wanted["connect"] = min(connect, wanted.get("connect") or connect)
    try:
        made = library.Request(
            request.method, request.url, headers=headers, content=content, extensions={"timeout": wanted}
        )
    except UnicodeError as error:  # of idna: an invalid A-label
        raise HttpRequestUriInvalid from error
    made.method = request.method  # case-sensitive (RFC 9110, 9.1), and the library has changed it to capitals
    target = request._target().encode()
    if made.url.raw_path != target:  # the library removes dot segments, say
        made.extensions["target"] = target
    return made


class _Content:
    """The body of a guest's request, for a blocking client. What the client leaves unread is drained."""

    def __init__(self, request: Request, first: bytes = b"", rest: Iterator[bytes] | None = None) -> None:
        self.request = request
        self.first = first
        self.rest = rest

    def __iter__(self) -> Iterator[bytes]:
        try:
            if self.first:
                yield self.first
            yield from self.request if self.rest is None else self.rest
        finally:
            self.request._discard_rest()


class _AsyncContent:
    """Likewise, for an async client."""

    def __init__(self, request: Request, first: bytes = b"", rest: AsyncIterator[bytes] | None = None) -> None:
        self.request = request
        self.first = first
        self.rest = rest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            if self.first:
                yield self.first
            async for chunk in self.request if self.rest is None else self.rest:
                yield chunk
        finally:
            self.request._discard_rest()


def _response(method: str, answer: Any, body: Any) -> Response:
    headers = [(name.lower(), value) for name, value in answer.headers.raw]
    named = b",".join(value for name, value in headers if name == b"connection").lower().split(b",")
    left_out = {*_NOT_PASSED, *(name.strip() for name in named)}
    if any(name == b"transfer-encoding" for name, _ in headers):
        left_out.add(b"content-length")  # it is void then (RFC 9112, 6.3)
    if answer.is_stream_consumed and not _messages.is_bare(
        method, answer.status_code
    ):  # a hook of the client has read and decoded it
        left_out, body = left_out | {b"content-encoding", b"content-length"}, answer.content
    return Response(answer.status_code, headers=[pair for pair in headers if pair[0] not in left_out], body=body)


class _Chunks:
    """The body of a blocking client's response."""

    def __init__(self, answer: Any, request: Request) -> None:
        self.answer = answer
        self.request = request
        self.chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self.chunks is None:
            self.chunks = iter(self.answer.iter_raw())
        try:
            return next(self.chunks)
        except BaseException:  # its end, too
            self.request._discard_rest()
            raise

    def close(self) -> None:
        self.request._discard_rest()
        self.answer.close()


class _AsyncChunks:
    """The body of an async client's response."""

    def __init__(self, answer: Any, request: Request) -> None:
        self.answer = answer
        self.request = request
        self.chunks: AsyncIterator[bytes] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self.chunks is None:
            self.chunks = aiter(self.answer.aiter_raw())
        try:
            return await anext(self.chunks)
        except BaseException:  # its end, too
            self.request._discard_rest()
            raise

    async def aclose(self) -> None:
        self.request._discard_rest()
        await self.answer.aclose()


def _sync_upstream(library: ModuleType, timeout: Mapping[str, Any], ask: Callable[[Any], Any]) -> Callable[..., Any]:
    def send(request: Request) -> Response:
        content: _Content | None = _Content(request)
        if request.method in _MOSTLY_BARE:
            chunks = iter(request)
            first = next(chunks, None)
            content = None if first is None else _Content(request, first, chunks)
        answer = ask(_request(library, timeout, request, content))
        try:
            return _response(request.method, answer, _Chunks(answer, request))
        except BaseException:  # an invalid field, say
            answer.close()
            raise

    return send


def _async_upstream(library: ModuleType, timeout: Mapping[str, Any], ask: Callable[[Any], Any]) -> Callable[..., Any]:
    async def send(request: Request) -> Response:
        content: _AsyncContent | None = _AsyncContent(request)
        if request.method in _MOSTLY_BARE:
            chunks = aiter(request)
            first = await anext(chunks, None)
            content = None if first is None else _AsyncContent(request, first, chunks)
        answer = await ask(_request(library, timeout, request, content))
        try:
            return _response(request.method, answer, _AsyncChunks(answer, request))
        except BaseException:  # an invalid field, say
            await answer.aclose()
            raise

    return send
