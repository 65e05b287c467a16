"""An `App` as an ASGI 3 application: `serve` is what `App.__call__` awaits.

See the ASGI specification (HTTP & WebSocket, and Lifespan) for the messages, and RFC 9110 for what they mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import inspect
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Self

from wasgi import _messages
from wasgi._native import bodies
from wasgi._wasgi import AsyncChunks, Response
from wasgi.errors import UnsupportedComponentError
from wasgi.serving import answers
from wasgi.serving.asgi_body import ClientDisconnectedError, RequestBody
from wasgi.serving.asgi_request import Scope, fields_of, has_body, request_of
from wasgi.serving.requests import BadRequestError

if TYPE_CHECKING:
    from wasgi.serving.options import ServedApp

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_log = logging.getLogger("wasgi.asgi")


async def serve(app: ServedApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Serves one scope of an ASGI server."""
    match scope["type"]:
        case "http":
            await _Exchange(app, scope, receive, send).serve()
        case "lifespan":
            await _lifespan(app, receive, send)
        case "websocket":
            # closing before accepting refuses the handshake: the client gets 403
            message = await receive()
            if message["type"] == "websocket.connect":
                await send({"type": "websocket.close", "code": 1000, "reason": "components serve HTTP only"})
        case kind:
            raise NotImplementedError(f"wasgi serves no scope of type {kind!r}")


async def _lifespan(app: ServedApp, receive: Receive, send: Send) -> None:
    """Start-up prepares what the first request would have to wait for; shutdown lets exchanges end.

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
                raise  # a server knows by now; `TestClient` of Starlette takes a return for a start
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await app.aclose()
            await send({"type": "lifespan.shutdown.complete"})
            return


class _BodyReader:
    """The request's body as the guest reads it: an async iterator. Dropping or closing it has the rest drained."""

    def __init__(self, exchange: _Exchange, body: RequestBody) -> None:
        self.exchange = exchange
        self.body: RequestBody | None = body
        self.loop = asyncio.get_running_loop()

    def __del__(self) -> None:
        """Nobody can read on: `on_request` has given another request, say. Runs on any thread."""
        if self.body is not None and self.exchange.phase is not _OVER:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self.loop.call_soon_threadsafe(self.body.discard)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        self.exchange.listen()
        chunk = await self.body.pull() if self.body is not None else None
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        body, self.body = self.body, None
        if body is not None:
            body.discard()


class _Phase(enum.Enum):
    """How far an exchange has come. Each phase is entered at most once, and `OVER` is the last."""

    OPEN = "the client waits for the end of the response"
    ANSWERED = "the end of the response is being sent: a disconnect stops nothing"
    DISCONNECTED = "the client has gone before that, and our task was cancelled"
    OVER = "`serve` has returned"


# Python 3.11 takes 0.1 µs to look a member up.
_OPEN, _ANSWERED, _DISCONNECTED, _OVER = _Phase


class _Exchange:
    """One HTTP scope."""

    __slots__ = ("app", "body", "fields", "listener", "phase", "receive", "refused", "scope", "send", "task")

    def __init__(self, app: ServedApp, scope: Scope, receive: Receive, send: Send) -> None:
        self.app = app
        self.scope = scope
        self.receive = receive
        self.send = send
        self.phase = _OPEN
        self.task: asyncio.Task[Any] | None = None
        self.listener: asyncio.Task[None] | None = None
        self.fields = fields_of(scope)
        self.body: RequestBody | None = None
        self.refused: BadRequestError | None = None
        try:
            if has_body(scope, self.fields):
                self.body = RequestBody()
        except BadRequestError as error:
            self.refused = error

    async def serve(self) -> None:
        """Sends a response, or gives up silently when the client has gone."""
        task = self.task = asyncio.current_task()
        try:
            await self.answer()
        except asyncio.CancelledError:
            if self.phase is not _DISCONNECTED or (task is not None and task.cancelling() > 1):
                raise
        except ClientDisconnectedError:
            pass
        finally:
            if self.phase is _DISCONNECTED and task is not None:
                task.uncancel()
            self.phase = _OVER
            if self.listener is not None:
                self.listener.cancel()
            if self.body is not None:
                # a guest that goes on reads what has come, and no more: servers give nothing after the response
                self.body.break_off()

    # the client's side

    def listen(self) -> None:
        """Starts to receive. The exchange of a quick guest never does: it would cost a second task."""
        if self.listener is None and self.phase is not _OVER:
            self.listener = asyncio.get_running_loop().create_task(self.hear())

    async def hear(self) -> None:
        """Receives, a little ahead of the guest, until the client disconnects or the exchange ends."""
        ended = False
        while True:
            try:
                message = await self.receive()
            except Exception:
                _log.debug("the server's `receive` failed", exc_info=True)
                message = {"type": "http.disconnect"}
            if message["type"] == "http.disconnect":
                self.disconnect()
                return
            if ended:
                return  # a `receive` that repeats the body, as of middleware that has read it, reports no disconnect
            ended = not message.get("more_body", False)
            if self.body is not None:
                await self.body.push(message.get("body", b""), is_last=ended)

    def disconnect(self) -> None:
        """The client has gone: all work for it stops. Servers report a disconnect after the response, too."""
        if self.body is not None:
            self.body.break_off()
        if self.phase is _OPEN and self.task is not None:
            self.phase = _DISCONNECTED
            self.task.cancel()

    # the guest's side

    async def answer(self) -> None:
        """Sends the guest's response, or the one instead; raises if it fails midway, or if the client has gone."""
        try:
            response, by_guest = await self.respond()
        except (asyncio.CancelledError, ClientDisconnectedError, UnsupportedComponentError):
            raise
        except Exception as error:
            response, by_guest = await self.instead(error), False
        try:
            await asyncio.sleep(0)  # see `respond`
            try:
                chunks = aiter(response)
            except TypeError:  # a body that blocks
                chunks = _in_threads(response)
            try:
                await self.relay(response, chunks, by_guest=by_guest)
            finally:
                if not isinstance(chunks, AsyncChunks):  # the user's iterator, or the one on threads
                    await bodies.close(chunks)
        finally:
            response.close()

    async def ask(self, callback: Callable[[Scope, Any], Any], argument: Any) -> Any:
        """The result of a user's callback. One that swallows its cancellation does not hide the disconnect."""
        given = callback(self.scope, argument)
        if inspect.isawaitable(given):
            self.listen()
            given = await given
            if self.phase is _DISCONNECTED:
                raise ClientDisconnectedError
        return given

    async def respond(self) -> tuple[Response, bool]:
        """The response of `on_request` or the guest, and whether it is the guest's."""
        app, scope = self.app, self.scope
        if self.refused is not None:
            raise self.refused
        request = request_of(app, scope, self.fields, _BodyReader(self, self.body) if self.body is not None else None)
        if app.on_request is not None:
            given = answers.instead_of(request, await self.ask(app.on_request, request))
            if isinstance(given, Response):
                return given, False
            request = given
        # Requests that have come together go through the same code together: first all are read, then all guests run,
        # then all responses are sent. Each part finds its code and data in the processor's caches, where the next
        # request's other parts would have evicted them (measured with 32 connections: 1.25 to 1.5 times the requests).
        await asyncio.sleep(0)
        # a guest that waits for nothing is done before the loop's next turn: then nobody has to listen
        soon = asyncio.get_running_loop().call_soon(self.listen)
        try:
            response = await app.handle_async(request)
        finally:
            soon.cancel()
        return answers.only_final(response), True

    async def instead(self, error: Exception) -> Response:
        """The response when the guest has none."""
        self.log_failure(error)
        if self.app.on_error is not None and not isinstance(error, BadRequestError):
            try:
                given: Response | None = await self.ask(self.app.on_error, error)
                if given is not None:
                    return answers.only_final(_messages.fresh(given))
            except ClientDisconnectedError:
                raise
            except Exception as failure:
                self.log_failure(failure)
                error = failure
        return answers.problem(error, debug=self.app.debug)

    def log_failure(self, error: Exception) -> None:
        answers.log_failure(self.app, _log, self.scope["method"], self.scope.get("path") or "", error)

    async def relay(self, response: Response, chunks: AsyncIterator[bytes], *, by_guest: bool) -> None:
        """Sends a response as fast as the server takes it. Raises if it fails midway: the server then aborts."""
        method = self.scope["method"]
        bare = _messages.is_bare(method, response.status)
        headers = answers.headers_of(response)
        start: Message = {"type": "http.response.start", "status": response.status, "headers": headers}
        take_ready = getattr(chunks, "take_ready", _nothing_ready)
        ready = take_ready()
        # Trailers that are announced must come: Hypercorn ends no stream of HTTP/2 without them, even for browsers.
        trailing = not bare and self.takes_trailers(headers) and _has_trailers(response, headers, chunks)
        if trailing:
            start["trailers"] = True
        if ready is not None and not trailing and not (ready[0] and by_guest):
            answers.tell_length(headers, method, response.status, ready, by_guest=by_guest)
        await self.send(start)  # at once: whoever reads server-sent events wants to know that there will be some
        if bare:
            await self.send_last(b"")
            if isinstance(chunks, AsyncChunks):
                await chunks._let_end()
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
            await self.send_trailers(response)

    async def send_last(self, chunk: bytes) -> None:
        if self.phase is _OPEN:
            self.phase = _ANSWERED
        await self.send({"type": "http.response.body", "body": chunk, "more_body": False})

    async def send_trailers(self, response: Response) -> None:
        trailers = response.trailers.raw if response.trailers is not None else []
        kept = [(name.lower(), value) for name, value in trailers if name.lower() not in _NO_TRAILERS]
        await self.send({"type": "http.response.trailers", "headers": kept, "more_trailers": False})

    def takes_trailers(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether server and client take trailers, and the framing has a place for them (RFC 9110, 6.5.1)."""
        if "http.response.trailers" not in (self.scope.get("extensions") or {}):
            return False
        if any(name == b"content-length" for name, _ in headers):
            return False
        te = b",".join(value for name, value in self.fields if name.lower() == b"te")
        return b"trailers" in te.lower()


# A guest that is as fast as its server must not block the event loop: after so many chunks others have their turn.
_MOST_AT_ONCE = 16

# Fields for framing or routing must not be trailers (RFC 9110, 6.5.1).
_NO_TRAILERS = {b"connection", b"content-length", b"host", b"keep-alive", b"te", b"trailer", b"transfer-encoding"}


def _has_trailers(response: Response, headers: list[tuple[bytes, bytes]], chunks: AsyncIterator[bytes]) -> bool:
    """Whether a response announces trailers (RFC 9110, 6.6.2), or is known to have some. One of gRPC always has."""
    if response.trailers is not None or (isinstance(chunks, AsyncChunks) and chunks.ends_with_trailers()):
        return True
    return any(
        name == b"trailer" or (name == b"content-type" and value.startswith(b"application/grpc"))
        for name, value in headers
    )


def _nothing_ready() -> tuple[bytes, bool] | None:
    return None


async def _in_threads(response: Response) -> AsyncIterator[bytes]:
    """The chunks of a response whose body blocks, say a file: each is read on a thread."""
    iterator = iter(response)
    while (chunk := await asyncio.to_thread(next, iterator, None)) is not None:
        yield chunk
