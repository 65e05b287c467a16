"""An `App` as an ASGI 3 application.

The protocol's types and outcomes in one place: `serve` is what `App.__call__` awaits. See the ASGI specification
(HTTP & WebSocket, and Lifespan) for the messages, and RFC 9110 for what they mean.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import inspect
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, unquote

from wasgi import _bridge, _serving, errors
from wasgi._serving import BadRequestError
from wasgi._wasgi import AsyncChunks, Request, Response, _request_of_server

if TYPE_CHECKING:
    from wasgi.app import App

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_log = logging.getLogger("wasgi.asgi")


class _ClientDisconnectedError(Exception):
    """The client has gone before its request's body was whole."""


async def serve(app: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Serves one scope of an ASGI server."""
    match scope["type"]:
        case "http":
            await _Exchange(app, scope, receive, send).serve()
        case "lifespan":
            await _lifespan(app, receive, send)
        case "websocket":
            # before it is accepted, closing refuses the handshake: the client gets 403
            message = await receive()
            if message["type"] == "websocket.connect":
                await send({"type": "websocket.close", "code": 1000, "reason": "components speak HTTP only"})
        case kind:
            raise NotImplementedError(f"wasgi serves no scope of type {kind!r}")


async def _lifespan(app: App, receive: Receive, send: Send) -> None:
    """Start-up makes what the first request of a process would have to wait for; shutdown drains.

    An app that was closed is opened again: tests run a lifespan several times.
    """
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                await asyncio.to_thread(app._warm)
            except Exception as error:
                _log.exception("start-up failed")
                await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
                return
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await app.aclose()
            await send({"type": "lifespan.shutdown.complete"})
            return


def _octets(value: Any) -> bytes:
    """What a server should have given as bytes."""
    if isinstance(value, str):
        return value.encode("latin-1")
    return b"" if value is None else bytes(memoryview(value))


def _decode(raw: bytes) -> str:
    """A raw path as servers decode it."""
    text = raw.decode("latin-1")
    return unquote(text) if "%" in text else text


def _root_of(scope: Scope) -> str:
    """What of the path is above this application."""
    root: str = scope.get("root_path") or ""
    if root:
        root = root.rstrip("/")
    return root if root[:1] in ("/", "") else f"/{root}"


def target_of(scope: Scope, *, strip: bool) -> tuple[bytes, bytes | None, bytes | None]:
    """The target for the guest, what of its path is above it, and the authority that the target has named."""
    root, path, raw = _root_of(scope), scope.get("path") or "", scope.get("raw_path")
    if type(raw) is not bytes:
        raw = _octets(raw)
    if b"?" in raw:
        raw = raw.partition(b"?")[0]
    authority = named = None
    if path[:1] != "/" or raw[:1] != b"/":
        raw, authority = _serving.split_target(raw)
        whole, named = _serving.split_target(path.encode())
        path, authority = whole.decode(), authority or named
    # as it came, if that still is what is asked for: middleware may have changed the path
    decoded = _decode(raw)
    is_below = False
    if raw and decoded == path:
        target = raw
    elif raw and root and decoded == root + path:
        # `path` without what is above it, as frameworks told it before ASGI said what it is
        target, is_below = (strip and _serving.below(root, raw, _decode)) or raw, True
    else:
        target, authority = quote(path, safe=_serving.IN_A_PATH).encode(), named
    if strip and root and not is_below:
        # what a proxy has taken off may stand in `root_path` only; what Starlette's mounts add is in the path, too
        for above in (root, root.removeprefix(scope.get("app_root_path") or "")):
            if above and (below := _serving.below(above, target, _decode)) is not None:
                target = below
                break
    if query := scope.get("query_string"):
        target += b"?" + _octets(query)
    return target, quote(root).encode() if strip and root else None, authority


def request_of(app: App, scope: Scope, fields: list[tuple[bytes, bytes]], body: AsyncIterator[bytes] | None) -> Request:
    """The guest's request for an HTTP scope.

    Raises:
        BadRequestError: It cannot be one.
    """
    method = scope["method"]
    if method == "CONNECT":
        raise BadRequestError(501, "a component opens no tunnel")
    try:
        target, prefix, authority = target_of(scope, strip=app.root_path == "strip")
        return _request_of_server(
            method,
            scope.get("scheme") or "http",
            scope.get("server"),
            target,
            fields,
            body,
            forwarded=app.forwarded,
            client=_serving.host_of(scope.get("client")) if app.forwarded else None,
            prefix=prefix,
            authority=authority,
            multiplexed=not _is_http1(scope),
        )
    except ValueError as error:
        raise BadRequestError(400, str(error)) from error


def _is_http1(scope: Scope) -> bool:
    """Whether it came by HTTP/1. Granian tells HTTP/1.0 as `1`."""
    version = scope.get("http_version")
    return version == "1.1" or not version or str(version)[0] == "1"


def fields_of(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The fields. A server may give any iterable of pairs, of anything like bytes."""
    fields = scope.get("headers") or ()
    if type(fields) is not list:
        fields = list(fields)
    for name, value in fields:
        if type(name) is not bytes or type(value) is not bytes:
            return [(_octets(name), _octets(value)) for name, value in fields]
    return fields


def _has_body(scope: Scope, fields: list[tuple[bytes, bytes]]) -> bool:
    """Whether a body may come, of whatever method (RFC 9112, 6.3).

    HTTP/2 needs no length for one (RFC 9113, 8.1), and of HTTP/1 middleware may have taken it away.

    Raises:
        BadRequestError: It has a coding that the server has not taken off.
    """
    has_length = False
    for name, value in fields:
        name = name.lower()
        if name == b"transfer-encoding":
            _serving.check_coding(value.decode("latin-1"))
            return True
        if name == b"content-length":
            has_length = True
            if value.strip() != b"0":
                return True
    return not has_length and (not _is_http1(scope) or scope["method"] not in _MOSTLY_BARE)


# Methods whose requests have no body, as a rule: nobody waits for one that nothing tells of.
_MOSTLY_BARE = frozenset(["GET", "HEAD", "OPTIONS", "TRACE", "DELETE"])


# How much of a body is taken from the server before the guest wants it. A client that goes away is told of by the same
# `receive` that brings the body: a guest that does not read could not be stopped if nothing were received ahead of it.
_AHEAD = 64 << 10


# A guest that is as fast as its server must not hold the event loop: after so many chunks others have their turn.
_MOST_AT_ONCE = 16


class _Body:
    """The request's body, as the guest reads it: an async iterator."""

    def __init__(self, exchange: _Exchange) -> None:
        self.exchange = exchange
        self.loop = asyncio.get_running_loop()

    def __del__(self) -> None:
        """Nobody can read on: say, `on_request` has given something else. On whatever thread."""
        if self.exchange.wanted and not self.exchange.over:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self.loop.call_soon_threadsafe(self.exchange.unwanted)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        exchange = self.exchange
        exchange.listen()
        while not exchange.chunks:
            if exchange.whole:
                raise StopAsyncIteration
            if exchange.gone:
                raise _ClientDisconnectedError
            exchange.came.clear()
            await exchange.came.wait()
        chunk = exchange.chunks.popleft()
        exchange.ahead -= len(chunk)
        exchange.room.set()
        return chunk

    async def aclose(self) -> None:
        self.exchange.unwanted()


class _Exchange:
    """One HTTP scope."""

    __slots__ = (
        "ahead",
        "answered",
        "app",
        "by_guest",
        "came",
        "chunks",
        "fields",
        "gone",
        "hung_up",
        "listener",
        "over",
        "receive",
        "refused",
        "room",
        "scope",
        "send",
        "task",
        "wanted",
        "whole",
    )

    def __init__(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        self.app = app
        self.scope = scope
        self.receive = receive
        self.send = send
        self.task: asyncio.Task[Any] | None = None
        self.listener: asyncio.Task[None] | None = None
        self.gone = False  # nothing comes any more: the client has hung up, or the exchange is over
        self.hung_up = False  # that is why our task was cancelled
        self.answered = False
        self.by_guest = False
        self.over = False
        self.fields = fields_of(scope)
        self.refused: BadRequestError | None = None
        try:
            self.wanted = _has_body(scope, self.fields)
        except BadRequestError as error:
            self.wanted, self.refused = False, error
        self.whole = not self.wanted
        if self.wanted:
            self.chunks: collections.deque[bytes] = collections.deque()
            self.ahead = 0
            self.came = asyncio.Event()
            self.room = asyncio.Event()

    async def serve(self) -> None:
        """Answers; silently gives up when the client has gone."""
        self.task = asyncio.current_task()
        try:
            await self.answer()
        except asyncio.CancelledError:
            if not self.hung_up or (self.task is not None and self.task.cancelling() > 1):
                raise
        except _ClientDisconnectedError:
            pass
        finally:
            if self.hung_up and self.task is not None:
                self.task.uncancel()
            self.over = True
            if self.listener is not None:
                self.listener.cancel()
            if not self.whole:
                # a guest that goes on reads what has come, and no more: servers tell nothing after the answer
                self.gone = True
                self.came.set()

    # the client's side

    def listen(self) -> None:
        """Begins to receive. A quick guest's exchange never does: it would cost a second task."""
        if self.listener is None and not self.over:
            self.listener = asyncio.get_running_loop().create_task(self.hear())

    async def hear(self) -> None:
        """Receives, a little ahead of the guest, until the client goes away or the exchange ends."""
        ended = False
        while True:
            try:
                message = await self.receive()
            except Exception:
                _log.debug("the server's `receive` failed", exc_info=True)
                message = {"type": "http.disconnect"}
            if message["type"] == "http.disconnect":
                self.hang_up()
                return
            if ended:
                return  # a `receive` that repeats the body, as middleware gives it that has read it: it tells no more
            ended = not message.get("more_body", False)
            if self.whole:
                continue  # of a request without a body
            self.whole = ended
            if not self.wanted:
                await asyncio.sleep(0)  # a `receive` that has it all must not hold the loop
            elif chunk := message.get("body", b""):
                self.chunks.append(chunk)
                self.ahead += len(chunk)
            self.came.set()
            while self.wanted and self.ahead >= _AHEAD:
                self.room.clear()
                await self.room.wait()

    def hang_up(self) -> None:
        """The client has gone: whatever is under way for it stops. Servers say it after the answer, too."""
        self.gone = True
        if not self.whole:
            self.came.set()
        if not self.answered and self.task is not None:
            self.hung_up = True
            self.task.cancel()

    def unwanted(self) -> None:
        """Nobody reads on: what still comes is thrown away, so that one hears of the client."""
        if self.wanted:
            self.wanted = False
            self.ahead = 0
            self.chunks.clear()
            self.room.set()

    # the guest's side

    async def answer(self) -> None:
        """Four outcomes: an answer, another one instead, a broken one, or none because the client has gone."""
        try:
            response = await self.respond()
        except (asyncio.CancelledError, _ClientDisconnectedError):
            raise
        except Exception as error:
            response = await self.instead(error)
        try:
            await asyncio.sleep(0)  # see `respond`
            try:
                chunks = aiter(response)
            except TypeError:  # a body that blocks
                chunks = _in_threads(response)
            try:
                await self.relay(response, chunks)
            finally:
                if not isinstance(chunks, AsyncChunks):  # of the user's, or of the threads': it ends here
                    await _bridge.close(chunks)
        finally:
            response.close()

    async def ask(self, callback: Callable[[Scope, Any], Any], argument: Any) -> Any:
        """What a callback of the user's gives. One that swallows its cancellation is not taken for a client."""
        given = callback(self.scope, argument)
        if inspect.isawaitable(given):
            self.listen()
            given = await given
            if self.hung_up:
                raise _ClientDisconnectedError
        return given

    async def respond(self) -> Response:
        app, scope = self.app, self.scope
        if self.refused is not None:
            raise self.refused
        request = request_of(app, scope, self.fields, _Body(self) if self.wanted else None)
        if app.on_request is not None:
            given = await self.ask(app.on_request, request)
            if isinstance(given, Response):
                return _serving.only_final(_serving.fresh(given))
            if given is not None:
                request = given
        # Requests that have come together go through the same code together: first all are read, then all guests run,
        # then all are answered. Each part finds its code and data in the processor's caches, where the next request's
        # other parts would have driven them out (measured with 32 connections: 1.25 to 1.5 times the requests).
        await asyncio.sleep(0)
        # a guest that waits for nothing is done before the loop has its next turn, and then nobody has to listen
        soon = asyncio.get_running_loop().call_soon(self.listen)
        try:
            response = await app.handle_async(request)
        finally:
            soon.cancel()
        self.by_guest = True
        return _serving.only_final(response)

    async def instead(self, error: Exception) -> Response:
        """What the client gets when the guest has no answer."""
        self.by_guest = False
        self.log_failure(error)
        if self.app.on_error is not None and not isinstance(error, BadRequestError):
            try:
                given: Response | None = await self.ask(self.app.on_error, error)
                if given is not None:
                    return _serving.only_final(_serving.fresh(given))
            except _ClientDisconnectedError:
                raise
            except Exception as failure:
                self.log_failure(failure)
                error = failure
        return _serving.problem(error, debug=self.app.debug)

    def log_failure(self, error: Exception) -> None:
        _serving.log_failure(self.app, _log, self.scope["method"], self.scope.get("path") or "", error)

    async def relay(self, response: Response, chunks: AsyncIterator[bytes]) -> None:
        """Sends an answer, as fast as the server takes it. One that breaks off raises: the connection is to be cut."""
        method = self.scope["method"]
        bare = _serving.is_bare(method, response.status)
        headers = _serving.headers_of(response)
        start: Message = {"type": "http.response.start", "status": response.status, "headers": headers}
        take_ready = getattr(chunks, "take_ready", _nothing_ready)
        ready = take_ready()
        # Announced, they have to come: Hypercorn ends no stream of HTTP/2 without them, and browsers ask for them, too.
        trailing = not bare and self.takes_trailers(headers) and _has_trailers(response, headers, chunks)
        if trailing:
            start["trailers"] = True
        if ready is not None and not trailing and not (ready[0] and self.by_guest):
            _serving.tell_length(headers, method, response.status, ready, by_guest=self.by_guest)
        # at once: whoever reads events wants to know that there will be some
        await self.send(start)
        if bare:
            await self.send_last(b"")
            if self.by_guest:
                await _let_end(chunks)
            return
        for turn in itertools.count(1):
            if turn % _MOST_AT_ONCE == 0:
                await asyncio.sleep(0)
            chunk, last = ready or (None, False)
            if last and not trailing:
                await self.send_last(chunk or b"")
                return
            if last and not chunk:
                break
            self.listen()
            if chunk is None and (chunk := await anext(chunks, None)) is None:
                break
            await self.send({"type": "http.response.body", "body": chunk, "more_body": True})
            if last:
                break
            ready = take_ready()
        await self.send_last(b"")
        if trailing:
            trailers = response.trailers.raw if response.trailers is not None else []
            kept = [(name.lower(), value) for name, value in trailers if name.lower() not in _NO_TRAILERS]
            await self.send({"type": "http.response.trailers", "headers": kept, "more_trailers": False})

    async def send_last(self, chunk: bytes) -> None:
        self.answered = True
        await self.send({"type": "http.response.body", "body": chunk, "more_body": False})

    def takes_trailers(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether server and client take trailers, and the framing has a place for them (RFC 9110, 6.5.1)."""
        if "http.response.trailers" not in (self.scope.get("extensions") or {}):
            return False
        if any(name == b"content-length" for name, _ in headers):
            return False
        te = b",".join(value for name, value in self.fields if name.lower() == b"te")
        return b"trailers" in te.lower()


# What frames or routes a message cannot come after it (RFC 9110, 6.5.1).
_NO_TRAILERS = {b"connection", b"content-length", b"host", b"keep-alive", b"te", b"trailer", b"transfer-encoding"}


def _has_trailers(response: Response, headers: list[tuple[bytes, bytes]], chunks: AsyncIterator[bytes]) -> bool:
    """Whether an answer says that it has trailers (RFC 9110, 6.6.2), or is known to have some. gRPC's always has."""
    if response.trailers is not None or (isinstance(chunks, AsyncChunks) and chunks.ends_with_trailers()):
        return True
    return any(
        name == b"trailer" or (name == b"content-type" and value.startswith(b"application/grpc"))
        for name, value in headers
    )


def _nothing_ready() -> tuple[bytes, bool] | None:
    return None


async def _let_end(chunks: AsyncIterator[bytes]) -> None:
    """Reads what a guest writes though nobody may have it, so that it can end; but not for ever."""
    left = _serving.WRITES
    try:
        async with asyncio.timeout(_serving.GRACE):
            async for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    return
    except (TimeoutError, errors.BodyError):
        _log.debug("a guest did not end after an answer without a body", exc_info=True)


async def _in_threads(response: Response) -> AsyncIterator[bytes]:
    """The chunks of an answer that blocks, say of a file: each is read on a thread."""
    iterator = iter(response)
    while (chunk := await asyncio.to_thread(next, iterator, None)) is not None:
        yield chunk
