"""The native module. What users need of it is exported by `wasgi`."""

import os
from asyncio import AbstractEventLoop
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from collections.abc import (
    Awaitable as _Awaitable,
)
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias, final

from typing_extensions import Buffer, disjoint_base

from wasgi.headers import Headers, Pair

__all__ = [
    "App",
    "AsyncChunks",
    "Awaitable",
    "Chunks",
    "Component",
    "Dir",
    "FeedHandle",
    "Limits",
    "LoopBridge",
    "OutgoingCall",
    "Report",
    "Request",
    "Response",
    "Timeouts",
    "_after_fork",
    "_outline",
    "_restore_component",
    "_shut_down",
    "_wit",
    "_work",
]

class _File(Protocol):
    def read(self, size: int, /) -> bytes: ...

class _Writable(Protocol):
    def write(self, text: str, /) -> object: ...

_Headers: TypeAlias = Mapping[str, str] | Mapping[bytes, bytes] | Iterable[Pair]
_Body: TypeAlias = Buffer | str | _File | Iterable[Buffer] | AsyncIterable[Buffer] | Request | Response
_Source: TypeAlias = str | os.PathLike[str] | Buffer
_Sink: TypeAlias = Callable[[str], object] | _Writable
_Upstream: TypeAlias = Callable[[Request], Response | _Awaitable[Response]] | App

@final
class Awaitable(Coroutine[Any, Any, Any]):
    """Something to await once, wherever asyncio takes a coroutine. Cancelling or closing it stops the work."""

    def __await__(self) -> Generator[Any, Any, Any]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any) -> Any: ...
    def throw(self, exception: Any, value: Any = None, traceback: Any = None, /) -> Any: ...
    def close(self) -> None: ...

@final
class Chunks(Iterator[bytes]):
    """The chunks of a body, as they come. Dropping it before the end stops the guest that writes them."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> bytes: ...

@final
class AsyncChunks(AsyncIterator[bytes]):
    """The chunks of a body, as they come. Dropping it before the end stops the guest that writes them."""

    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Coroutine[Any, Any, bytes]: ...
    def aclose(self) -> Coroutine[Any, Any, None]: ...

@final
class Component:
    """A WebAssembly component that exports `wasi:http/incoming-handler@0.2`.

    Compiled once, on all cores and without the GIL; the machine code is kept on disk (in `WASGI_CACHE_DIR`, by default
    `wasgi` in the user's cache directory; empty: nowhere). Immutable, safe to share between threads, hashable and equal
    by its content. It pickles as the path or the bytes that it was loaded from.

    Args:
        source: A path, or the bytes of a component, in binary or text form.

    Raises:
        InvalidComponentError: It is no component; the message says what it is instead.
        UnsupportedComponentError: It is a component, but exports no HTTP handler that can be called.
        MissingImportError: It imports what is not provided.
        OSError: The file cannot be read.

    Example:
        >>> component = wasgi.Component("hello.wasm")
        >>> component.wasi
        '0.2'
    """

    def __new__(cls, source: _Source) -> Self: ...
    @property
    def imports(self) -> list[str]:
        """What it imports, like ``"wasi:http/types@0.2.12"``."""
    @property
    def exports(self) -> list[str]:
        """What it exports."""
    @property
    def wasi(self) -> str:
        """The version of WASI that its handler speaks: ``"0.2"``."""
    @property
    def digest(self) -> str:
        """The SHA-256 of its binary form, in hexadecimal."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Limits:
    """What a guest may use up. ``None`` lifts a limit.

    Args:
        memory: Bytes, all linear memories of an instance together. A guest that asks for more is refused; if it ends
            because of that, the caller gets `MemoryLimitError`.
        timeout: Seconds of wall clock, from the guest's first instruction to its end; then `GuestTimeoutError`.
        concurrency: Exchanges of one `App` at once; one more raises `OverloadedError`.

    Raises:
        ValueError: A limit that is zero or negative.
    """

    def __new__(
        cls, *, memory: int | None = 268435456, timeout: float | None = 30.0, concurrency: int | None = 256
    ) -> Self: ...
    @property
    def memory(self) -> int | None: ...
    @property
    def timeout(self) -> float | None: ...
    @property
    def concurrency(self) -> int | None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Dir:
    """A directory of the host's that a guest may see.

    Args:
        path: The directory. Links in it do not lead out of it.
        write: Whether the guest may change it.
    """

    def __new__(cls, path: str | os.PathLike[str], *, write: bool = False) -> Self: ...
    @property
    def path(self) -> Path: ...
    @property
    def write(self) -> bool: ...

@disjoint_base
class App:
    """A component, and the terms on which its guests run. Each exchange gets a fresh instance.

    Args:
        component: A `Component`, or what one is loaded from.
        outgoing: Who answers the guest's outgoing requests: a function or coroutine function from `Request` to
            `Response`, or another `App`. A coroutine function runs as a task of the caller's event loop (of one of our
            own where none runs), anything else on a thread of ours; both see the caller's context variables. None: each
            request is denied with `HTTP-request-denied`.
        env: The guest's environment; empty unless given.
        args: The guest's arguments; empty unless given.
        dirs: The directories that the guest sees, by the paths it sees them at: a `Dir`, or a path, then read-only.
        stdout: Where the guest's lines go: a callable that takes each line (a str with the attributes ``stream`` and
            ``exchange``), or a text file. None: the logger ``wasgi.guest``, stdout as INFO and stderr as WARNING.
        stderr: Likewise.
        limits: What each guest may use up; `Limits` says the defaults.
        reuse: None, the only choice in this version: a fresh instance for each exchange.

    Raises:
        ComponentError: The component cannot be loaded.
        TypeError: An option of the wrong type.
        ValueError: An option of the wrong value, say a directory that does not exist.

    Example:
        >>> app = wasgi.App("hello.wasm")
        >>> app.handle(wasgi.Request("GET", "http://example.com/")).text
        'Hello, World!'
    """

    def __new__(
        cls,
        component: Component | _Source,
        *,
        outgoing: _Upstream | None = None,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] | None = None,
        dirs: Mapping[str, Dir | str | os.PathLike[str]] | None = None,
        stdout: _Sink | None = None,
        stderr: _Sink | None = None,
        limits: Limits | None = None,
        reuse: None = None,
    ) -> Self: ...
    @property
    def component(self) -> Component: ...
    @property
    def limits(self) -> Limits: ...
    def handle(self, request: Request) -> Response:
        """Calls the guest's `incoming-handler`, and blocks until it has set its response. The GIL is released.

        The body streams from the guest as the response is read; the guest may still be running. Ctrl-C interrupts the
        call and stops the guest.

        Args:
            request: Its body is consumed by the guest.

        Returns:
            The response. It owns the guest: closing or dropping it before its body has ended stops the guest.

        Raises:
            GuestError: The guest trapped, exited, ran out of a limit, or never answered.
            ErrorCode: The guest answered with an error-code.
            OverloadedError: `Limits.concurrency` was reached.
            BodyError: The request's body was consumed before.
            Exception: What the iterator of the request's body raised, as it is.
        """
    def handle_async(self, request: Request) -> Coroutine[Any, Any, Response]:
        """Like `handle`, for a task of an asyncio event loop, which it never blocks.

        The guest starts when this is awaited. Cancelling the task stops the guest and all that it waits for.
        """

@final
class Timeouts:
    """The timeouts that a guest set in its `request-options`, in seconds; None where it set none."""

    @property
    def connect(self) -> float | None: ...
    @property
    def first_byte(self) -> float | None: ...
    @property
    def between_bytes(self) -> float | None: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Request:
    """A request: for a guest's incoming handler, or one that a guest sends out.

    Args:
        method: Any token (RFC 9110, 9.1), as it is: methods are case-sensitive.
        url: Absolute. Characters that no URL holds are percent-encoded in its path and query; a fragment is left out.
        headers: A mapping or pairs. ``host`` and hop-by-hop fields do not reach a guest: the URL names the host.
        body: Bytes, str (as UTF-8), a file, an iterable or async iterable of bytes, or another message, whose body
            moves over. A body of known length gets a ``content-length``, unless there is one.
        trailers: Fields after the body.

    Raises:
        ValueError: A URL without a host, a method or a header that is not valid.
        TypeError: A body or headers of another type.
    """

    def __new__(
        cls,
        method: str,
        url: str,
        *,
        headers: _Headers | None = None,
        body: _Body | None = None,
        trailers: _Headers | None = None,
    ) -> Self: ...
    @property
    def method(self) -> str: ...
    @property
    def url(self) -> str:
        """The whole URL."""
    @property
    def scheme(self) -> str:
        """``"http"`` or ``"https"``."""
    @property
    def authority(self) -> str:
        """Host, and port if the URL has one."""
    @property
    def path(self) -> str:
        """The path, percent-encoded, at least ``"/"``."""
    @property
    def query(self) -> str:
        """The query without its ``?``; empty if there is none."""
    @property
    def headers(self) -> Headers:
        """The fields. Always the same object; changing it changes the request."""
    @property
    def trailers(self) -> Headers | None:
        """The fields after the body: of one that a guest sends, known when its body has ended."""
    @property
    def timeouts(self) -> Timeouts:
        """What the guest allows its outgoing request; it is enforced."""
    def read(self) -> bytes:
        """The whole body; blocks.

        Raises:
            BodyError: The body broke off, or was consumed before.
        """
    def aread(self) -> Coroutine[Any, Any, bytes]:
        """The whole body.

        Raises:
            BodyError: The body broke off, or was consumed before.
        """
    def __iter__(self) -> Iterator[bytes]: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    @property
    def text(self) -> str:
        """The body as text, by the charset of its content-type, or else as UTF-8; what does not fit is replaced.

        Reads the body if that has not been done. Where an event loop runs, that is a `BodyError` instead: ``await
        aread()`` first.
        """
    def json(self) -> Any:
        """The body parsed as JSON (RFC 8259); as for `text`, it is read if need be.

        Raises:
            ValueError: It is not JSON.
        """

@final
class Report:
    """What an exchange has cost so far."""

    @property
    def exchange(self) -> int:
        """Its number in this process; log records and printed lines have it, too."""
    @property
    def duration(self) -> float:
        """Seconds from the guest's start to its end."""
    @property
    def memory(self) -> int:
        """The most linear memory that it held, in bytes."""
    @property
    def outgoing(self) -> int:
        """How many requests it sent out."""
    @property
    def running(self) -> bool:
        """Whether the guest still runs."""

@final
class Response:
    """A response: a guest's, or one for a guest.

    It is a context manager, for ``with`` and ``async with``: leaving closes it.

    Args:
        status: From 100 to 999.
        headers: A mapping or pairs.
        body: As for `Request`.
        trailers: Fields after the body.

    Raises:
        ValueError: A status or a header that is not valid.
        TypeError: A body or headers of another type.
    """

    def __new__(
        cls,
        status: int = 200,
        *,
        headers: _Headers | None = None,
        body: _Body | None = None,
        trailers: _Headers | None = None,
    ) -> Self: ...
    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Headers:
        """The fields. Always the same object; names from a guest are lower-case."""
    @property
    def trailers(self) -> Headers | None:
        """The fields after the body: of a guest's response, known when its body has ended."""
    @property
    def report(self) -> Report | None:
        """What the exchange has cost; None if no guest made this response."""
    def read(self) -> bytes:
        """The whole body; blocks.

        Raises:
            BodyError: The body broke off, or was consumed before.
        """
    def aread(self) -> Coroutine[Any, Any, bytes]:
        """The whole body.

        Raises:
            BodyError: The body broke off, or was consumed before.
        """
    def __iter__(self) -> Iterator[bytes]: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    @property
    def text(self) -> str:
        """The body as text; see `Request.text`."""
    def json(self) -> Any:
        """The body parsed as JSON; see `Request.json`."""
    def close(self) -> None:
        """Stops the guest, its outgoing requests and its bodies, unless the body has ended."""
    def aclose(self) -> Coroutine[Any, Any, None]:
        """Like `close`."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None: ...
    def __aenter__(self) -> Coroutine[Any, Any, Self]: ...
    def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> Coroutine[Any, Any, None]: ...

@final
class LoopBridge:
    """The jobs that Rust has for an event loop; the loop calls it when there are some."""

    @staticmethod
    def attach(event_loop: AbstractEventLoop) -> LoopBridge: ...
    def __call__(self) -> None: ...

@final
class OutgoingCall:
    """An outgoing request on its way through Python."""

    @property
    def request(self) -> Request: ...
    @property
    def upstream(self) -> Callable[[Request], Any]: ...
    @property
    def wanted(self) -> bool: ...
    def answer(self, response: object) -> None: ...
    def fail(self, error: BaseException) -> None: ...
    def hand_to_loop(self, awaitable: _Awaitable[Any]) -> None: ...

@final
class FeedHandle:
    """The producer's side of a body that Python makes."""

    def wanted(self) -> Coroutine[Any, Any, bool]: ...
    def push(self, chunk: Buffer) -> None: ...
    def end(self) -> None: ...
    def fail(self, error: BaseException) -> None: ...
    def next(self) -> None: ...

def _after_fork() -> None: ...
def _outline(source: bytes) -> tuple[list[str], list[str], str | None, list[str]]: ...
def _restore_component(path: str, digest: str) -> Component: ...
def _shut_down() -> None: ...
def _wit() -> list[tuple[str, str]]: ...
def _work() -> None: ...
