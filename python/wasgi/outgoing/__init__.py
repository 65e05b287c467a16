"""What may answer the requests that a guest sends out, besides a function.

Other applications, clients, and several of them by turns: each is an upstream, for ``App(outgoing=...)``. So is any
function or coroutine function from `Request` to `Response`, and any `App`. Middleware is a function that takes an
upstream and gives one; it asks the one below by `call`::

    def with_token(upstream):
        async def send(request):
            request.headers["authorization"] = "Bearer secret"
            return await wasgi.outgoing.call(upstream, request)
        return send

    app = wasgi.App("plugin.wasm", outgoing=with_token(wasgi.outgoing.asgi(fake_api)))
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import io
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import unquote_to_bytes

from wasgi import _bridge
from wasgi._asgi_upstream import Asgi
from wasgi._serving import fresh, is_bare
from wasgi._wasgi import Network, Request, Response, Route
from wasgi.errors import DestinationNotFound, HttpRequestUriInvalid

if TYPE_CHECKING:
    from wasgi._wasgi import _Upstream

__all__ = ["asgi", "call", "httpx", "route", "wsgi"]


async def call(upstream: _Upstream, request: Request) -> Response:
    """Has an upstream of any kind answer a request: what middleware calls.

    A coroutine function is awaited, an `App` handles it, a `Network` sends it under its policy, a plain function runs
    on a thread. A message that was read, or whose body is bytes, is handed on as a copy that was not: constants can be
    sent and answered with again and again.

    Raises:
        DestinationNotFound: A `route` has no upstream for the request.
        ErrorCode: What else a guest would be told.
    """
    if isinstance(upstream, Route):
        found = upstream.find(request)
        if found is None:
            raise DestinationNotFound
        return await call(found, request)
    request = fresh(request)
    if isinstance(upstream, Network):
        return await upstream._answer(request)
    function, is_async = _bridge.as_upstream(upstream)
    answer = function(request) if is_async else await asyncio.to_thread(function, request)
    response: Response = await answer if inspect.isawaitable(answer) else answer
    return fresh(response)


def route(table: Mapping[str, _Upstream]) -> Route:
    """Sends each request to the upstream whose pattern fits it best.

    A pattern is ``"*"``, or ``[scheme://]host[:port][/path]``. A host that begins with ``*.`` means all below it.
    Without a scheme both are meant; without a port the scheme's own, or any port if there is no scheme. A path means
    itself and what is below it; a request whose path has dot segments, plain or encoded, fits no pattern with a path.
    Hosts are compared as IDNA A-labels, addresses by value, paths whatever of them is percent-encoded. The most
    special pattern is meant; a request that none fits, or that some server could read as one for a more special
    pattern, is answered with ``destination-not-found``.

    Args:
        table: Upstreams by pattern.

    Raises:
        ValueError: A pattern is none; or two mean the same; or some request fits two of which neither is the more
            special.

    Example:
        >>> wasgi.outgoing.route({"auth.local": auth_app, "https://api.example.com/v1/": fake, "*": refuse})
    """
    return Route(table)


def asgi(application: Callable[..., Any], *, lifespan: Literal["auto", "on", "off"] = "auto") -> Asgi:
    """An ASGI application answers, in process: FastAPI plays ``api.example.com``.

    Bodies stream both ways. Its lifespan is started at the first request, on that request's event loop, and ended by
    ``aclose``, by leaving ``async with``, or when nobody has it any more. A guest that goes away is an
    ``http.disconnect``; an application that has not ended a second after that is cancelled. An exception of the
    application is ``internal-error`` for the guest. What it writes where there is no body (in answer to HEAD, with 204,
    205 and 304) is thrown away, for a second.

    Args:
        application: An ASGI 3 application.
        lifespan: ``"auto"``: if the application has one; ``"on"``: a failure of it is an error; ``"off"``: never.
    """
    return Asgi(application, lifespan)


def wsgi(application: Callable[..., Any]) -> Callable[[Request], Response]:
    """A WSGI application (PEP 3333) answers, in process, on one of our threads. Bodies stream both ways."""

    def send(request: Request) -> Response:
        answer = _WsgiAnswer(application, request)
        return Response(answer.status, headers=answer.headers, body=answer)

    return send


class _Input(io.RawIOBase):
    """A request's body as ``wsgi.input``."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.chunks: Iterator[bytes] | None = None  # made when the application first reads
        self.left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.chunks is None:
            self.chunks = iter(self.request)
        while not self.left:
            chunk = next(self.chunks, None)
            if chunk is None:
                return 0
            self.left = memoryview(chunk)
        count = min(len(buffer), len(self.left))
        buffer[:count] = self.left[:count]
        self.left = self.left[count:]
        return count


def _environ(request: Request) -> dict[str, Any]:
    host, port = request._address()
    made: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(request.path).decode("latin-1"),
        "QUERY_STRING": request.query or "",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": request.authority,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": io.BufferedReader(_Input(request)),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.headers.raw:
        if b"_" in name:
            continue  # it would be taken for the one with a hyphen
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        text = value.decode("latin-1")
        separator = "; " if key == "HTTP_COOKIE" else ","
        made[key] = f"{made[key]}{separator}{text}" if key in made and key != "HTTP_HOST" else text
    return made


class _WsgiAnswer:
    """What a WSGI application answers. Begun at once: it says its status at the latest with its first chunk."""

    def __init__(self, application: Callable[..., Any], request: Request) -> None:
        self.request = request
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.started: tuple[str, list[tuple[str, str]]] | None = None
        self.written: list[bytes] = []
        self.gone_out = False
        self.iterable: Iterable[bytes] = application(_environ(request), self.start)
        self.chunks: Iterator[bytes] = iter(())
        try:
            self.chunks = iter(self.iterable)
            while self.started is None or not any(self.written):
                chunk = next(self.chunks, None)
                if chunk is None:
                    break
                self.written.append(chunk)
            if self.started is None:
                raise RuntimeError("a WSGI application ended without calling `start_response`")
        except BaseException:
            self.close()
            raise
        status, self.headers = self.started
        self.gone_out = True
        self.status = int(status.split(" ", 1)[0])
        if isinstance(self.iterable, list | tuple):
            self.written += self.chunks
            self.close()
        elif [str(sum(map(len, self.written)))] == [v for name, v in self.headers if name.lower() == "content-length"]:
            # all of its answer has come; what it does after that goes on when the guest has read it
            self.request._discard_rest()

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self.gone_out:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.started is not None:
            raise AssertionError("`start_response` was called twice")
        code = status.partition(" ")[0]
        if not (len(code) == 3 and code.isascii() and code.isdigit()):  # `int` would take "2_00", too
            raise ValueError(f"a WSGI application's status must begin with three digits: {status!r}")
        self.started = (status, list(headers))
        return self.written.append

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.written:
            return self.written.pop(0)
        try:
            chunk = next(self.chunks)
        except BaseException:  # its end, too
            self.close()
            raise
        self.written.append(chunk)  # after what `write` was given
        return self.written.pop(0)

    def close(self) -> None:
        """Once, however it ends (PEP 3333: "Buffering and Streaming")."""
        iterable, self.iterable = self.iterable, ()
        self.chunks = iter(())
        close = getattr(iterable, "close", None)
        try:
            if close is not None:
                close()
        finally:
            self.request._discard_rest()  # as a server does with what its application has not read


# httpx

# Of one connection; the client library makes its own
_NOT_PASSED = frozenset([b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"])


def httpx(client: Any) -> Callable[[Request], Any]:
    """A client or transport of httpx2 or httpx answers, blocking or async: so do its mocks, proxies and caches.

    Redirects are the guest's business: none is followed. Bodies stream both ways, encoded as they come. A client's own
    timeouts and authentication apply, the latter wherever a guest asks: put it behind a `route`. Of its headers and
    cookies none is sent, but what servers set stays in its jar: give it a client of its own. Exceptions are error-codes
    by the table of `wasgi.errors`.

    Args:
        client: A ``Client``, an ``AsyncClient``, or a transport. It stays open.

    Raises:
        TypeError: It is none of these.
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


# These have a body only if the guest has written one; without, it must not be announced as chunked.
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
    except UnicodeError as error:  # of idna: an A-label that is none
        raise HttpRequestUriInvalid from error
    made.method = request.method  # RFC 9110, 9.1: not the same in capitals
    target = request._target().encode()
    if made.url.raw_path != target:  # it takes dot segments out, say
        made.extensions["target"] = target
    return made


class _Content:
    """The body of a guest's request, for a blocking client. A client that lets go of it lets the guest finish it."""

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
        left_out.add(b"content-length")  # it says nothing then (RFC 9112, 6.3)
    if answer.is_stream_consumed and not is_bare(method, answer.status_code):  # by somebody who has decoded it
        left_out, body = left_out | {b"content-encoding", b"content-length"}, answer.content
    return Response(answer.status_code, headers=[pair for pair in headers if pair[0] not in left_out], body=body)


class _Chunks:
    """The body of a blocking client's answer."""

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
    """The body of an async client's answer."""

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
        except BaseException:  # say, of fields that are none
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
        except BaseException:  # say, of fields that are none
            await answer.aclose()
            raise

    return send
