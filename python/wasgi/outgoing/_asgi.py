"""An ASGI application as upstream: the server's side of ASGI, without sockets."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import enum
import functools
import logging
import time
import weakref
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import unquote

from wasgi import _messages, errors
from wasgi._native import context, failures, output
from wasgi._wasgi import Request, Response

_log = logging.getLogger("wasgi.outgoing")
_VERSIONS = {"version": "3.0", "spec_version": "2.4"}


# How much of a response is buffered for a guest that does not read it yet, as a connection would.
_AHEAD = 64 << 10

# The seconds between `http.disconnect` and cancelling an application that has not ended. Also the seconds in which it
# may write a body where there must be none, before it receives `http.disconnect`.
_GRACE = 1.0


def settle(seconds: float) -> None:
    """Waits until applications have ended that have sent their response; no longer than this, and once for each.

    An event loop that does not run, as that of an asynchronous test which has ended, is run meanwhile.
    """
    deadline = time.monotonic() + seconds
    while errors._finishing and (left := deadline - time.monotonic()) > 0:
        tasks = [task for ref in list(errors._finishing.values()) if (task := ref()) is not None and not task.done()]
        if any(task.get_loop().is_running() for task in tasks):
            time.sleep(0.001)
        elif waiting := [task for task in tasks if not task.get_loop().is_closed()]:
            loop = waiting[0].get_loop()
            try:
                loop.run_until_complete(
                    asyncio.wait([task for task in waiting if task.get_loop() is loop], timeout=left)
                )
            except RuntimeError:  # another one runs on this thread
                break
        else:
            break
    errors._finishing.clear()


def _fields(request: Request) -> list[tuple[bytes, bytes]]:
    """A request's fields as servers give them: with a single `cookie` (RFC 6265, 5.4; RFC 9113, 8.2.3)."""
    fields = [(b"host", request.authority.encode("ascii")), *request.headers.raw]
    cookies = [value for name, value in fields if name.lower() == b"cookie"]
    if len(cookies) > 1:
        fields = [pair for pair in fields if pair[0].lower() != b"cookie"]
        fields.append((b"cookie", b"; ".join(cookies)))
    return fields


class Asgi:
    """An ASGI application as upstream, with its lifespan. Made by `wasgi.outgoing.asgi`."""

    def __init__(self, application: Callable[..., Any], lifespan: Literal["auto", "on", "off"]) -> None:
        if not callable(application):
            raise TypeError(f"`application` must be an ASGI application, not {type(application).__name__}")
        if lifespan not in ("auto", "on", "off"):
            raise ValueError(f'`lifespan` must be "auto", "on" or "off": {lifespan!r}')
        self.application = application
        self.mode = lifespan
        self.lifespan: _Lifespan | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        # an event loop holds its tasks weakly: these keep them alive
        self.kept: list[_Lifespan] = []
        weakref.finalize(self, _let_go, self.kept, self.tasks)

    async def __call__(self, request: Request) -> Response:
        """Has the application answer a request."""
        state = await self._state()
        exchange = _Exchange(request, state)
        task = asyncio.create_task(exchange.run(self.application))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        exchange.task = task
        try:
            return await exchange.head()
        except BaseException:
            exchange.hang_up()
            raise

    async def _state(self) -> dict[str, Any]:
        """The state that the lifespan has set up; the first request starts it."""
        if self.mode == "off":
            return {}
        loop = asyncio.get_running_loop()
        if self.lifespan is None or (self.lifespan.loop is not loop and self.lifespan.loop.is_closed()):
            self.lifespan = _Lifespan(self.application, self.mode, loop)
            self.kept[:] = [lifespan for lifespan in self.kept if not lifespan.task.done()] + [self.lifespan]
        await self.lifespan.started()
        return dict(self.lifespan.state)

    async def aclose(self) -> None:
        """Cancels the application's requests, then ends its lifespan."""
        lifespan, self.lifespan = self.lifespan, None
        tasks = [task for task in self.tasks if not task.get_loop().is_closed()]
        for task in tasks:
            task.get_loop().call_soon_threadsafe(task.cancel)
        here = asyncio.get_running_loop()
        await asyncio.gather(*(task for task in tasks if task.get_loop() is here), return_exceptions=True)
        if lifespan is not None:
            await lifespan.end()

    async def __aenter__(self) -> Self:
        await self._state()
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _let_go(lifespans: list[_Lifespan], tasks: set[asyncio.Task[None]]) -> None:
    """Ends the tasks of an upstream that was garbage-collected without being closed. Nobody waits for them."""
    for task in [*tasks, *(lifespan.task for lifespan in lifespans)]:
        if not task.done():
            # its loop may close before it has ended: no warning then
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            loop = task.get_loop()
            with contextlib.suppress(RuntimeError):  # it has closed
                loop.call_soon_threadsafe(functools.partial(loop.call_later, _GRACE, task.cancel))
    for lifespan in lifespans:
        with contextlib.suppress(RuntimeError):
            lifespan.loop.call_soon_threadsafe(lifespan.shut_down)


class _Lifespan:
    """An application's lifespan, on the loop that it was started on."""

    def __init__(self, application: Callable[..., Any], mode: str, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.mode = mode
        self.state: dict[str, Any] = {}
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue(2)  # start-up and shutdown, all there are
        self.messages.put_nowait({"type": "lifespan.startup"})
        self.up: asyncio.Future[None] = loop.create_future()
        self.down: asyncio.Future[None] = loop.create_future()
        self.task = loop.create_task(self.run(application))

    async def run(self, application: Callable[..., Any]) -> None:
        scope = {"type": "lifespan", "asgi": _VERSIONS, "state": self.state}
        failure: BaseException | None = None
        try:
            await application(scope, self.messages.get, self.send)
        except Exception as error:
            # an exception before start-up means that the application has no lifespan
            failure = error if self.mode == "on" or self.up.done() else None
        finally:
            for future in (self.up, self.down):
                if future.done():
                    continue
                if failure is None:
                    future.set_result(None)
                else:
                    future.set_exception(failure)
                    future.exception()  # retrieved, since perhaps nobody waits for it

    async def send(self, message: dict[str, Any]) -> None:
        kind, _, outcome = message["type"].rpartition(".")
        future = self.up if kind == "lifespan.startup" else self.down
        if future.done():
            return
        if outcome == "complete":
            future.set_result(None)
        else:
            future.set_exception(RuntimeError(f"{kind} failed: {message.get('message', '')}"))
            future.exception()

    async def started(self) -> None:
        if self.loop is asyncio.get_running_loop():
            await asyncio.shield(self.up)
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.started(), self.loop))

    async def end(self) -> None:
        if self.loop.is_closed():
            return
        if self.loop is not asyncio.get_running_loop():
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.end(), self.loop))
            return
        if not self.task.done():
            self.shut_down()
            await self.down
            await self.task

    def shut_down(self) -> None:
        if not self.task.done():
            self.messages.put_nowait({"type": "lifespan.shutdown"})


class _Phase(enum.Enum):
    """What becomes of a response."""

    RUNNING = "the application is to send it, or the rest of it"
    COMPLETE = "the application has sent its end"
    GONE = "the guest wants no more of it, before its end"


class _Exchange:
    """One request to an application: an async iterator over the body of its response."""

    def __init__(self, request: Request, state: dict[str, Any]) -> None:
        self.request = request
        self.state = state
        self.chunks: AsyncIterator[bytes] | None = None  # made when the application first asks for the body
        self.body_was_read = False
        self.phase = _Phase.RUNNING
        self.started: dict[str, Any] | None = None
        self.ready: collections.deque[bytes] = collections.deque()
        self.ready_bytes = 0
        self.bare = False
        self.changed = asyncio.Event()
        self.failure: Exception | None = None
        self.task: asyncio.Task[None] | None = None

    def scope(self) -> dict[str, Any]:
        request = self.request
        return {
            "type": "http",
            "asgi": _VERSIONS,
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.scheme,
            "path": unquote(request.path),
            "raw_path": request.path.encode("ascii"),
            "query_string": (request.query or "").encode("ascii"),
            "root_path": "",
            "headers": _fields(request),
            "client": None,
            "server": request._address(),
            "state": self.state,
        }

    async def run(self, application: Callable[..., Any]) -> None:
        try:
            await application(self.scope(), self.receive, self.send)
        except Exception as error:
            if self.phase is _Phase.COMPLETE:
                failures.observe(error)
                output.say(
                    _log, logging.ERROR, "an ASGI application failed after its response", context.log_extra(), error
                )
            elif self.phase is _Phase.RUNNING:
                self.failure = error
        finally:
            if self.phase is not _Phase.COMPLETE and self.failure is None:
                self.failure = errors.HttpResponseIncomplete()
            errors._finishing.pop(id(self), None)
            self.end_request()
            self.changed.set()

    async def wait(self) -> None:
        self.changed.clear()
        await self.changed.wait()

    # the application's side

    async def receive(self) -> dict[str, Any]:
        if not self.body_was_read and self.phase is _Phase.RUNNING:
            if self.chunks is None:
                self.chunks = aiter(self.request)
            try:
                chunk = await anext(self.chunks, None)
            except errors.BodyError:
                if self.phase is _Phase.RUNNING:
                    self.phase = _Phase.GONE  # a body that fails midway is a client that has gone
            else:
                self.body_was_read = chunk is None
                return {"type": "http.request", "body": chunk or b"", "more_body": not self.body_was_read}
        while self.phase is _Phase.RUNNING:
            await self.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.check_guest()
        if message["type"] == "http.response.start":
            if self.started is not None:
                raise RuntimeError("an application sent `http.response.start` twice")
            self.started = message
            self.bare = _messages.is_bare(self.request.method, message["status"])
        elif message["type"] == "http.response.body":
            if self.started is None or self.phase is _Phase.COMPLETE:
                raise RuntimeError("an application sent a body outside of its response")
            chunk = bytes(memoryview(message.get("body", b"")))
            if chunk and self.bare:
                await asyncio.sleep(0)  # discarded; and an application that never waits must not block the loop
            elif chunk:
                while self.ready and self.ready_bytes + len(chunk) > _AHEAD:  # back-pressure: the guest reads first
                    await self.wait()
                    self.check_guest()
                self.ready.append(chunk)
                self.ready_bytes += len(chunk)
            if not message.get("more_body", False):
                self.phase = _Phase.COMPLETE
                if self.task is not None:
                    errors._finishing[id(self)] = weakref.ref(self.task)
                self.end_request()
        self.changed.set()

    def check_guest(self) -> None:
        """Raises, as a server's `send` does, when the guest has gone."""
        if self.phase is _Phase.GONE:
            raise OSError("the client has gone")

    def end_request(self) -> None:
        """The response is complete: the body that the application has not read is drained, as a server does."""
        self.request._discard_rest()

    # the guest's side

    async def head(self) -> Response:
        while self.started is None:
            if self.failure is not None:
                raise self.failure
            await self.wait()
        headers = [(bytes(name).lower(), bytes(value)) for name, value in self.started.get("headers", [])]
        if self.bare:
            # a body that it sends all the same is discarded, as servers do
            asyncio.get_running_loop().call_later(_GRACE, self.hang_up)
        return Response(self.started["status"], headers=headers, body=None if self.bare else self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self.ready:
            if self.phase is _Phase.COMPLETE:
                raise StopAsyncIteration
            if self.failure is not None:
                raise self.failure
            await self.wait()
        chunk = self.ready.popleft()
        self.ready_bytes -= len(chunk)
        self.changed.set()
        return chunk

    async def aclose(self) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        """Nobody reads the response, or the rest of it. The application's work after its response goes on."""
        if self.phase is _Phase.RUNNING:
            self.phase = _Phase.GONE
        self.changed.set()
        if self.phase is _Phase.GONE and self.task is not None and not self.task.done():
            self.task.get_loop().call_later(_GRACE, self.task.cancel)
