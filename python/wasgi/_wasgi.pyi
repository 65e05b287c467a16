"""The native module. `wasgi` exports what users need of it."""

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
from typing import Any, Literal, Protocol, Self, TypeAlias, final

from typing_extensions import Buffer, disjoint_base

from wasgi.headers import Headers, Pair

__all__ = [
    "App",
    "AsyncChunks",
    "Awaitable",
    "Chunks",
    "Component",
    "ComponentLimits",
    "Dir",
    "Exchange",
    "FeedHandle",
    "Limits",
    "Listeners",
    "LoopBridge",
    "Network",
    "OutgoingCall",
    "Report",
    "Request",
    "Response",
    "Reuse",
    "Route",
    "Server",
    "Simulation",
    "Stats",
    "Timeouts",
    "_Together",
    "__version__",
    "_after_fork",
    "_after_fork_in_parent",
    "_before_fork",
    "_census",
    "_check_addresses",
    "_compile",
    "_is_first_import",
    "_normal_url",
    "_of_systemd",
    "_outline",
    "_read_component",
    "_request_of_server",
    "_restore_component",
    "_run_command",
    "_shut_down",
    "_status_of_code",
    "_wasmtime_version",
    "_why_not_restorable",
    "_wit",
    "stats",
]

class _File(Protocol):
    def read(self, size: int, /) -> bytes: ...

class _Writable(Protocol):
    def write(self, text: str, /) -> object: ...

__version__: str
"""The version of wasgi."""
_wasmtime_version: str

_Headers: TypeAlias = Mapping[str, str] | Mapping[bytes, bytes] | Iterable[Pair]
_Body: TypeAlias = Buffer | str | _File | Iterable[Buffer] | AsyncIterable[Buffer] | Request | Response
_Source: TypeAlias = str | os.PathLike[str] | Buffer
_Sink: TypeAlias = Callable[[str], object] | _Writable
_Handler: TypeAlias = Callable[[Request], Response | _Awaitable[Response]] | App | Route
_Upstream: TypeAlias = _Handler | Network

@final
class Awaitable(Coroutine[Any, Any, Any]):
    """An awaitable that asyncio accepts like a coroutine; awaited once. Cancelling or closing it cancels the work."""

    def __await__(self) -> Generator[Any, Any, Any]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any) -> Any: ...
    def throw(self, exception: Any, value: Any = None, traceback: Any = None, /) -> Any: ...
    def close(self) -> None: ...

@final
class Chunks(Iterator[bytes]):
    """The chunks of a body, as they arrive. Dropping it before the end cancels the guest that writes them."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> bytes: ...
    def _next_within(self, seconds: float | None) -> bytes | None: ...
    def _let_end(self, *, wait: bool) -> None: ...
    def take_ready(self) -> tuple[bytes, bool] | None:
        """What is ready without waiting; see `AsyncChunks.take_ready`."""

@final
class AsyncChunks(AsyncIterator[bytes]):
    """The chunks of a body, as they arrive. Dropping it before the end cancels the guest that writes them."""

    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Coroutine[Any, Any, bytes]: ...
    def aclose(self) -> Coroutine[Any, Any, None]: ...
    def _let_end(self) -> Coroutine[Any, Any, None]: ...
    def ends_with_trailers(self) -> bool:
        """Whether trailers are known to follow the chunks that are ready."""
    def take_ready(self) -> tuple[bytes, bool] | None:
        """What is ready without waiting: a chunk, and whether it is the last. None: await the next one.

        For an empty body whose end is known, it is an empty chunk.
        """

@final
class Component:
    """A WebAssembly component.

    Any valid component can be loaded, whatever it imports and exports. An `App` of it needs all of its imports, and
    handles requests if it exports `wasi:http/incoming-handler@0.2` or `wasi:http/handler@0.3`.

    Compiled once, on all cores and without the GIL; the machine code is cached on disk (in `WASGI_CACHE_DIR`, by
    default `wasgi` in the user's cache directory; if empty, nowhere). The logger ``wasgi`` (INFO) reports a compilation
    that takes longer than a second. The same content is compiled and held once in a process, and by one process at a
    time. Immutable, safe to share between threads, hashable and equal by its content. It pickles as the path or the
    bytes that it was loaded from, with ``fuel``, ``isolated`` and ``limits``.

    Args:
        source: The path of a plain file, or the bytes of a component, in binary or text form.
        fuel: Compile it for `Limits.fuel`, too. Otherwise an `App` that needs it does so itself, and logs that.
        isolated: Compile it for `Reuse.isolated`, too; with ``fuel``: for both at once. Otherwise likewise.
        limits: Bounds on the cost of loading it. None: the defaults of `ComponentLimits`.

    Raises:
        InvalidComponentError: It is not a component; the message says what it is instead.
        ComponentLimitError: It exceeds ``limits``.
        UnsupportedComponentError: It needs a feature that the engine does not have, or a pre-release of WASI 0.3.
        OSError: The file cannot be read.
        ValueError: The path is invalid: it has a NUL.

    Example:
        >>> component = wasgi.Component("hello.wasm")
        >>> component.wasi
        '0.2'
        >>> component.handler
        'wasi:http/incoming-handler@0.2.12'
    """

    def __new__(
        cls, source: _Source, *, fuel: bool = False, isolated: bool = False, limits: ComponentLimits | None = None
    ) -> Self: ...
    @staticmethod
    def load_async(
        source: _Source, *, fuel: bool = False, isolated: bool = False, limits: ComponentLimits | None = None
    ) -> Coroutine[Any, Any, Component]:
        """Like the constructor, for a task of an asyncio event loop, which it never blocks.

        Cancelling the task returns at once. A compilation in this process cannot be cancelled: it continues in the
        background, and its machine code is cached for the next time. A compilation in a child process
        (`ComponentLimits.timeout` and ``memory``) is cancelled, unless another caller waits for it.
        """
    @property
    def imports(self) -> list[str]:
        """Its imports, like ``"wasi:http/types@0.2.12"``."""
    @property
    def exports(self) -> list[str]:
        """Its exports."""
    @property
    def wasi(self) -> Literal["0.2", "0.3"]:
        """The generation of WASI that it speaks. A component that exports the handlers of both speaks 0.3."""
    @property
    def handler(self) -> str | None:
        """The export that handles requests, like ``"wasi:http/handler@0.3.0"``. None: `App.handle` raises."""
    @property
    def restorable(self) -> bool | None:
        """Whether the host can put its instances back to what they were (`Reuse.isolated`).

        None: it was not compiled for that. `wasgi inspect` tells the reason.
        """
    @property
    def digest(self) -> str:
        """The SHA-256 of its binary form, in hexadecimal."""
    def _check(self) -> None:
        """Raises what keeps every `App` of it from handling requests."""
    def _check_command(self) -> None:
        """Raises what keeps it from being run as a command."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: Any, /) -> Self: ...

@final
class ComponentLimits:
    """Limits on the cost of loading an untrusted component. ``None`` lifts a limit.

    The defaults leave real components, with the interpreters of Python and JavaScript inside, a factor of four or more.
    Everything is counted in the file, before anything is expanded or compiled. A component that exceeds a limit raises
    `ComponentLimitError`, with the limit's name, its value, and the number that was found.

    Args:
        size: Bytes of the source.
        text: Bytes of a source in text form; parsing it takes many times as much memory.
        instances: Instances, of components and of core modules, in one instance of it. A part that is instantiated many
            times counts as often, and so do its memories, tables and globals.
        modules: Core modules.
        components: Components inside of it.
        memories: Linear memories.
        tables: Tables.
        globals: Globals.
        functions: Functions with a body, and one for each that is lifted or lowered between instances.
        types: Types, of components and of core modules, and declarations inside of types.
        names: Imports, exports, aliases, arguments, and parts of types: fields, cases, flags, parameters.
        nesting: Levels of components, of types, and of blocks in a function. Components and types never have more than
            1,000, even with None, because the stack is finite.
        loops: Levels of loops in a function; compile time grows with their square.
        code: Bytes of all function bodies.
        function_size: Bytes of one function body.
        locals: Locals of all functions.
        parameters: Parameters, or results, of one core function type; calls with hundreds of them compile for minutes.
        data: Bytes of data segments.
        elements: Items of element segments.
        timeout: Seconds for compiling, in a child process that is killed then.
        memory: Bytes of memory for compiling, in a child process likewise; what a Python process has from the start is
            not counted. Linux only.

    Raises:
        ValueError: A limit is negative, or a timeout or memory is zero.

    Example:
        >>> component = wasgi.Component(upload, limits=wasgi.ComponentLimits(timeout=10, memory=1 << 30))
    """

    def __new__(
        cls,
        *,
        size: int | None = 268435456,
        text: int | None = 16777216,
        instances: int | None = 1000,
        modules: int | None = 1000,
        components: int | None = 1000,
        memories: int | None = 100,
        tables: int | None = 1000,
        globals: int | None = 100000,  # noqa: A002
        functions: int | None = 200000,
        types: int | None = 100000,
        names: int | None = 200000,
        nesting: int | None = 4000,
        loops: int | None = 500,
        code: int | None = 134217728,
        function_size: int | None = 4194304,
        locals: int | None = 2000000,  # noqa: A002
        parameters: int | None = 80,
        data: int | None = 134217728,
        elements: int | None = 200000,
        timeout: float | None = None,
        memory: int | None = None,
    ) -> Self: ...
    @property
    def size(self) -> int | None: ...
    @property
    def text(self) -> int | None: ...
    @property
    def instances(self) -> int | None: ...
    @property
    def modules(self) -> int | None: ...
    @property
    def components(self) -> int | None: ...
    @property
    def memories(self) -> int | None: ...
    @property
    def tables(self) -> int | None: ...
    @property
    def globals(self) -> int | None: ...
    @property
    def functions(self) -> int | None: ...
    @property
    def types(self) -> int | None: ...
    @property
    def names(self) -> int | None: ...
    @property
    def nesting(self) -> int | None: ...
    @property
    def loops(self) -> int | None: ...
    @property
    def code(self) -> int | None: ...
    @property
    def function_size(self) -> int | None: ...
    @property
    def locals(self) -> int | None: ...
    @property
    def parameters(self) -> int | None: ...
    @property
    def data(self) -> int | None: ...
    @property
    def elements(self) -> int | None: ...
    @property
    def timeout(self) -> float | None: ...
    @property
    def memory(self) -> int | None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __replace__(self, **changes: Any) -> Self: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: Any, /) -> Self: ...

@final
class Limits:
    """Resource limits of a guest: memory, time, fuel, concurrency. ``None`` lifts a limit.

    The defaults suit an untrusted plug-in. A guest that exceeds a limit of its own resources ends with an exception
    whose ``limit`` is the value. Limits of messages raise wasi:http's own error-codes, with a note that names the
    limit. Limits of outgoing requests give the guest an error-code, and are logged by ``wasgi.outgoing``.

    Args:
        memory: Bytes: all linear memories of an instance, and the host's memory behind its handles (fields, the parts
            of requests, bodies of unsent messages, 64 KiB for each stream of a file), which is checked for each
            megabyte that is added. ``memory.grow`` beyond the limit fails. A guest that ends because of that, or whose
            handles take more, raises `MemoryLimitError`.
        memory_per_app: The same for all exchanges of one `App` together, and for its idle instances: the exchange that
            asks for more is refused likewise.
        table_elements: Elements of all tables of an instance together, refused like memory: `TableLimitError`. In the
            instance pool, a single table holds a million at most, whatever the limit.
        instances: Core instances in an instance of the component: `InstanceLimitError`.
        handles: Handles of resources that a guest holds at once, its own resources included: `HandleLimitError`.
        files: Files and folders that an exchange has open at once, those that it streams or lists included; the guest
            gets ``quota``. The granted folders themselves do not count.
        files_per_app: The same for all exchanges of one `App` together.
        timeout: Seconds of the guest's own time: wall-clock time from its first instruction to its end, without the
            time in which it waits for a chunk of its request, or (back-pressure) for the reader of its response. Then
            `GuestTimeoutError`; a body that is being read fails with it as the cause.
        fuel: Units of wasmtime's fuel, about one for each instruction. Unlike time, it is the same in every run, and
            slower to count; the component is compiled a second time for it. `FuelExhaustedError`; `Report.fuel` says
            how much was used.
        fields: Bytes of one set of fields: names, values, and about 70 bytes for each. A request with more is refused
            with ``HTTP-request-header-section-size``. A guest that makes more ends with `FieldsLimitError`. A guest
            whose upstream responds with more gets ``HTTP-response-header-section-size``. Likewise for trailers. One
            host call takes at most 2 MiB of strings and lists, or twice this limit if that is more.
        request_body: Bytes. A longer body is refused at once if its length is announced, otherwise the exchange ends
            when the limit is exceeded: ``HTTP-request-body-size``. A streamed body takes no memory, so there is no
            limit by default.
        response_body: Bytes, likewise: ``HTTP-response-body-size``, as the cause of a `BodyError` if the body has
            begun.
        outgoing: Requests that one exchange may send; the guest gets ``HTTP-request-denied``.
        outgoing_concurrency: Concurrent outgoing requests of one exchange, until their responses have been read; the
            guest gets ``connection-limit-reached``.
        concurrency: Concurrent exchanges of one `App`. A guest counts until it has ended, which may be after its
            response has been read.
        queue: Exchanges that may wait for their turn; beyond that, `OverloadedError`. It needs ``concurrency``.
        queue_timeout: Seconds that they wait; then `OverloadedError`.
        chunks: Back-pressure: writes of a guest, of at most 16 KiB each, that are buffered for the reader of its body;
            two more may be on their way.

    Raises:
        ValueError: A limit is negative, or zero where nothing could run.
    """

    def __new__(
        cls,
        *,
        memory: int | None = 268435456,
        memory_per_app: int | None = None,
        table_elements: int | None = 1000000,
        instances: int | None = 256,
        handles: int | None = 4096,
        files: int | None = 64,
        files_per_app: int | None = 256,
        timeout: float | None = 30.0,
        fuel: int | None = None,
        fields: int | None = 65536,
        request_body: int | None = None,
        response_body: int | None = None,
        outgoing: int | None = 1000,
        outgoing_concurrency: int | None = 64,
        concurrency: int | None = 256,
        queue: int = 0,
        queue_timeout: float | None = 10.0,
        chunks: int = 8,
    ) -> Self: ...
    @property
    def memory(self) -> int | None: ...
    @property
    def memory_per_app(self) -> int | None: ...
    @property
    def table_elements(self) -> int | None: ...
    @property
    def instances(self) -> int | None: ...
    @property
    def handles(self) -> int | None: ...
    @property
    def files(self) -> int | None: ...
    @property
    def files_per_app(self) -> int | None: ...
    @property
    def timeout(self) -> float | None: ...
    @property
    def fuel(self) -> int | None: ...
    @property
    def fields(self) -> int | None: ...
    @property
    def request_body(self) -> int | None: ...
    @property
    def response_body(self) -> int | None: ...
    @property
    def outgoing(self) -> int | None: ...
    @property
    def outgoing_concurrency(self) -> int | None: ...
    @property
    def concurrency(self) -> int | None: ...
    @property
    def queue(self) -> int: ...
    @property
    def queue_timeout(self) -> float | None: ...
    @property
    def chunks(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __replace__(self, **changes: Any) -> Self: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: Any, /) -> Self: ...

@final
class Dir:
    """A directory of the host that is granted to a guest.

    Args:
        path: The directory. Links in it do not lead out of it.
        write: Whether the guest may write to it.

    Raises:
        ValueError: The path is invalid: it has a NUL.
    """

    def __new__(cls, path: str | os.PathLike[str], *, write: bool = False) -> Self: ...
    @property
    def path(self) -> Path: ...
    @property
    def write(self) -> bool: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __replace__(self, **changes: Any) -> Self: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: Any, /) -> Self: ...

@final
class Reuse:
    """Reuse of instances: an instance of an `App` handles one exchange after another, or several at once.

    For components that are slow to instantiate. The next exchange, whoever's it is, finds what the guest keeps in its
    memory: `wasgi.testing.check_isolation` shows what a component leaks. Time, fuel, outgoing requests, output and
    simulation are still separate for each exchange. Handles that a guest keeps of an earlier exchange (of bodies, of
    requests that it sent) have no effect.

    An instance is kept if its guest has responded and returned, has finished all bodies that it began, waits for no
    response, and holds at most three quarters of ``Limits.memory`` and ``Limits.handles`` (streams, futures and tasks
    of WASI 0.3 count as handles). At most half of the instance pool (512 instances in a process, mostly) is idle at
    once, and less if running instances need the room: then the instance that has been idle for longest ends, whichever
    app's it is. `Stats.idle` counts idle instances; `Report.reused` is the number of earlier exchanges of an exchange's
    instance.

    Guests of some toolchains cannot handle a second exchange. The host detects this when an instance that has responded
    before returns without a response: from then on the app keeps no instance, and the logger ``wasgi`` says so once.

    With ``concurrent`` above 1 a guest of WASI 0.3 handles several requests at once, if its toolchain can (the
    documentation of toolchains says so for each): while one waits for an upstream or for its caller, others go on.
    Upstreams, output, bodies, time, simulation and reports are each exchange's own; memory and handles are the
    instance's. A guest that traps or exits ends all exchanges of its instance: `TrapError.culprit` is the exchange
    whose guest it was. When an exchange is cancelled or times out, its instance admits no others, and ends with those
    that are in it.

    With ``isolated`` each exchange finds its instance as it was before the first: the host puts the memories, the
    globals and the numbers of handles back to what they were after the instantiation, and drops what the guest has
    left behind. That costs a fraction of a fresh instance of a guest that brings its interpreter along. The
    documentation says what a guest could still observe. An instance whose memory has grown is not kept. Where a
    component or the system does not allow it (`wasgi inspect` says so of a component), each exchange gets a fresh
    instance, and the logger ``wasgi`` says why.

    Args:
        requests: The number of exchanges of an instance. None: unlimited.
        concurrent: Concurrent exchanges of an instance, at most 128. More than 1: of WASI 0.3 only.
        idle: Seconds that an instance waits for its next exchange. None: until its app is closed.
        isolated: Put an instance back to what it was after each exchange.
        warm: A `Request`, or several: each new instance handles them before its first exchange, and is put back to what
            it is after them. That makes exchanges faster, and what the guest drew by then (the seed of an interpreter's
            hashes) is the same in all exchanges of the instance. They are answered by the upstreams of the app, and
            count in the time of the first exchange; one that fails, fails that exchange.
        ready: Instances that are made ahead, 0 to 512: at the start of a server, of an ASGI server's lifespan, and at
            `Server.swap`. They wait for at most ``idle``. A warm-up that fails there is an error of the start.

    Raises:
        ValueError: A number is out of range, ``isolated`` is combined with ``concurrent``, or ``warm`` is not with
            ``isolated``, or has a body that streams.

    Example:
        >>> app = wasgi.App("plugin.wasm", reuse=wasgi.Reuse(requests=1000, idle=60))
    """

    def __new__(
        cls,
        *,
        requests: int | None = 128,
        concurrent: int = 1,
        idle: float | None = 10.0,
        isolated: bool = False,
        warm: Request | Iterable[Request] | None = None,
        ready: int = 0,
    ) -> Self: ...
    @property
    def requests(self) -> int | None: ...
    @property
    def concurrent(self) -> int: ...
    @property
    def idle(self) -> float | None: ...
    @property
    def isolated(self) -> bool: ...
    @property
    def warm(self) -> tuple[Request, ...] | None: ...
    @property
    def ready(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __replace__(self, **changes: Any) -> Self: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: Any, /) -> Self: ...

@disjoint_base
class App:
    """The base class of `wasgi.App`, which adds ASGI and WSGI and describes the arguments."""

    def __new__(
        cls,
        component: Component | _Source,
        *,
        handler: _Handler | None = None,
        outgoing: _Upstream | None = None,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] | None = None,
        dirs: Mapping[str, Dir | str | os.PathLike[str]] | None = None,
        stdout: _Sink | None = None,
        stderr: _Sink | None = None,
        limits: Limits | None = None,
        reuse: Reuse | None = None,
        simulation: Simulation | None = None,
        on_finish: Callable[[Exchange], object] | None = None,
    ) -> Self: ...
    @property
    def _label(self) -> str: ...
    @property
    def component(self) -> Component: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def reuse(self) -> Reuse | None: ...
    @property
    def simulation(self) -> Simulation | None: ...
    @property
    def outgoing(self) -> _Upstream | None: ...
    @property
    def handler(self) -> _Handler | None: ...
    def handle(self, request: Request) -> Response:
        """Calls the guest's handler, and blocks until it has set its response. The GIL is released.

        The body streams from the guest as the response is read; the guest may still be running. Ctrl-C interrupts the
        call and cancels the guest.

        Args:
            request: The guest consumes a streamed body; a request whose body is bytes can be sent again.

        Returns:
            The response. It owns the guest: closing or dropping it before its body has ended cancels the guest.

        Raises:
            UnsupportedComponentError: The component exports no HTTP handler.
            GuestError: The guest trapped, exited, exceeded a limit, or returned without a response.
            ErrorCode: The guest responded with an error-code.
            OverloadedError: `Limits.concurrency` was reached, and the queue was full or timed out.
            AppClosedError: The app was closed.
            BodyError: The request's body streams, and was consumed before.
            Exception: The exception of the iterator of the request's body, unchanged.
        """
    def handle_async(self, request: Request) -> Coroutine[Any, Any, Response]:
        """Like `handle`, for a task of an asyncio event loop, which it never blocks.

        The guest starts when this is awaited. Cancelling the task cancels the guest, its outgoing requests and bodies.
        """
    def close(self, timeout: float | None = 10.0) -> None:
        """Refuses new exchanges, and waits until those under way have ended, work after their responses included.

        Leaving ``with app:`` or ``async with app:`` does this.

        Args:
            timeout: Seconds; then the remaining exchanges are cancelled, with `AppClosedError` for their callers. None:
                no timeout.
        """
    def aclose(self, timeout: float | None = 10.0) -> Coroutine[Any, Any, None]:
        """Like `close`, for a task of an asyncio event loop. Closing begins when this is awaited."""
    def _handle_within(self, request: Request, seconds: float | None) -> Response: ...
    def _handle_together(self, requests: Sequence[Request]) -> list[_Together]: ...
    def _warm(self) -> None: ...
    def _make_ready(self) -> None: ...
    def _sibling(
        self,
        *,
        outgoing: _Upstream | None,
        stdout: _Sink | None,
        stderr: _Sink | None,
        reuse: Reuse | None,
        simulation: Simulation | None,
    ) -> App: ...
    def _name_flags(self) -> None:
        """Hints about what its guests are refused name flags of the command line, which has made it."""
    @property
    def exchanges(self) -> int:
        """The number of exchanges under way: those whose guest has not ended."""
    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None: ...
    def __aenter__(self) -> Coroutine[Any, Any, Self]: ...
    def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> Coroutine[Any, Any, None]: ...

@disjoint_base
class Server:
    """The base class of `wasgi.Server`, which reads the arguments and describes them."""

    def __new__(
        cls,
        table: Sequence[tuple[str, App]],
        folders: Sequence[tuple[str, str]],
        *,
        bind: Sequence[str],
        health: str | None,
        backlog: int,
        reuse_port: bool,
        socket_mode: int | None,
        header_timeout: float | None,
        body_timeout: float | None,
        idle_timeout: float | None,
        drain_timeout: float,
        connections: int,
        streams: int,
        header_bytes: int,
        trusted: Sequence[str],
        proxy_protocol: bool,
        threads: int | None,
        tls: tuple[str, str, str | None, bool] | None,
        access_log: str | os.PathLike[str] | None,
        access_format: str,
        request_ids: bool,
    ) -> Self: ...
    @property
    def addresses(self) -> list[str]:
        """Where it listens: ``127.0.0.1:8000``, ``[::1]:8000``, ``unix:/run/x.sock``; with the real port for 0."""
    @property
    def urls(self) -> list[str]:
        """URLs that open on this machine, one for each address."""
    @property
    def health(self) -> str | None:
        """The address at which ``/live`` and ``/ready`` are answered. None: `health` was not given."""
    @property
    def closing(self) -> bool:
        """Whether it takes no more connections."""
    def reopen(self) -> None:
        """Reads the certificates again at once, and opens the access log again: for files that others write or move."""
    def _start(self) -> None: ...
    def _swap(self, table: Sequence[tuple[str, App]], folders: Sequence[tuple[str, str]]) -> None: ...
    def _close(self, seconds: float) -> None: ...
    def _wait(self) -> None: ...
    def _wait_async(self) -> Awaitable: ...
    def _stats(self) -> tuple[int, int, int, int]: ...

@final
class Listeners:
    """Sockets that listen at addresses as `wasgi.Server` has them, and that nobody accepts from here.

    Raises:
        OSError: An address cannot be used. Nothing listens then.
        ValueError: An address is invalid.
    """

    def __new__(
        cls, bind: Sequence[str], *, backlog: int = 1024, reuse_port: bool = False, socket_mode: int | None = None
    ) -> Self: ...
    @property
    def descriptors(self) -> list[int]:
        """Their numbers, for ``fd:`` of a process that inherits them."""
    @property
    def addresses(self) -> list[str]:
        """Where they listen, with real ports."""
    def urls(self, tls: bool) -> list[str]:
        """URLs that open on this machine."""
    def close(self) -> None:
        """Closes them. The file of a Unix socket that was made here is removed."""

@final
class _Together:
    @property
    def number(self) -> int | None: ...
    def answer(self) -> Response: ...

@final
class Simulation:
    """Deterministic time and randomness for a guest, for ``App(simulation=...)``: two runs give the same bytes.

    Each exchange begins with the same time and the same seed. Time is virtual: it stands still while the guest runs;
    when the guest and all mocks are idle, it jumps to the earliest deadline, so sleeping takes no time. Deadlines are
    the guest's timers, the timeouts of its request-options, and the delays and pauses of `wasgi.testing.Upstream`.
    While other code works on a request of the guest (a function, the real network), the guest's timers take real time,
    so that its timeouts do not pass before that code can respond. A guest that waits for a file counts as idle.

    Args:
        seed: The seed of its random bytes, 0 to 2**64 - 1. The bytes are the same in all runs of one version of wasgi.
        now: The wall clock's time when a guest begins: seconds since 1970, UTC.

    Raises:
        ValueError: ``now`` is out of range.
        OverflowError: ``seed`` is.

    Example:
        >>> app = wasgi.App("plugin.wasm", simulation=wasgi.testing.Simulation(seed=7, now=1_700_000_000))
    """

    seed: int
    now: float

    def __new__(cls, *, seed: int = 0, now: float = 0.0) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __replace__(self, **changes: Any) -> Self: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: Any, /) -> Self: ...

@final
class Network:
    """The real network, under a policy, with a connection pool: an upstream for ``App(outgoing=...)`` and for routes.

    A request is checked against the rules first. Then its name is resolved, and each address is checked before the
    connection. Addresses that are not public (loopback, private, link-local, carrier-grade NAT, multicast,
    documentation, cloud metadata) are blocked, unless the address is allowed: by ``addresses``, by ``allow_private``,
    or by a pattern in ``allow`` that is the address; a pattern with a name (``"http://localhost:8000"``) allows no such
    address. URLs that no rule allows fail with ``HTTP-request-denied``, blocked addresses with
    ``destination-IP-prohibited``. The logger ``wasgi.outgoing`` names the rule and what would allow the request.
    Redirects are not followed.

    Connections are pooled and shared by all guests of the apps that have this object: HTTP/1.1, or HTTP/2 where TLS
    negotiates it (ALPN). The address of a pooled connection is checked again for each request. The platform's
    certificates are trusted. Middleware in Python calls it by `wasgi.outgoing.call`.

    It is a value: compared by its settings, pickled with them (keys and passwords included), and changed by
    ``copy.replace`` (Python 3.13). Each object has its own connection pool; a copy is the same object.

    If the peer closes a pooled connection just when it is used again, the request is sent on another connection: if it
    is idempotent (RFC 9110, 9.2.2) and has no body, or if nothing of it was sent. That does not count as a retry. Nor
    does a request that a peer of HTTP/2 reports as not processed (GOAWAY, REFUSED_STREAM: RFC 9113, 8.7): it is sent
    again, whatever its method, with its body if at most 64 KiB of it had been sent.

    Args:
        allow: Patterns of the allowed URLs (see `wasgi.outgoing.route`): ``"https://api.example.com"``,
            ``"http://*.internal:8080"``, ``"https://example.org/v1/*"``.
        deny: Patterns of the denied URLs; they take precedence over ``allow``.
        methods: The allowed methods; None: all. They are case-sensitive: ``"GET"``.
        allow_private: Whether addresses that are not public are allowed.
        addresses: Addresses and networks (``"10.1.0.0/16"``) that are allowed, public or not. A pattern in ``allow``
            that is an address allows that one, too.
        ca: Certificates of additional authorities: a path, or bytes of PEM.
        only_ca: Whether only these are trusted.
        client_cert: A certificate chain for servers that request one: a path, or bytes of PEM.
        client_key: Its key, likewise.
        http2: Whether HTTP/2 is offered with TLS.
        h2c: Whether HTTP/2 is spoken without TLS, by prior knowledge (RFC 9113, 3.3): for gRPC inside a cluster.
        proxy: The URL of a proxy for all requests: ``http``, ``https``, ``socks5`` or ``socks5h``, with a user and a
            password if it needs them. It opens tunnels to addresses that were checked. Its own address is not checked.
            If it cannot be used, requests fail: ``destination-unavailable``, or ``configuration-error`` if it rejects
            the password. They never bypass it.
        no_proxy: Hosts that are reached without it: entries, or one str of them, separated by commas or spaces, as in
            ``NO_PROXY``. An entry is ``"*"``, a name (``"example.com"`` and ``".example.com"`` mean it and its
            subdomains, ``"*.example.com"`` its subdomains), an address or a network, each with or without a port
            (``"[::1]:8080"``), for one scheme or both (``"https://example.com"``).
        proxy_resolves: Whether the proxy resolves names (as ``socks5h`` always does). Then addresses behind names are
            not checked, only addresses in URLs.
        trust_env: Whether proxies are taken from the environment: ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY``,
            ``NO_PROXY``, in lower case (which takes precedence) or upper. Where ``REQUEST_METHOD`` is set, as in CGI
            scripts, ``HTTP_PROXY`` in upper case is ignored, because clients can set it.
        connect_timeout: Seconds for name resolution, TCP and TLS together, and for the wait for a free connection, in
            all attempts: ``DNS-timeout``, ``connection-timeout``, ``connection-limit-reached``. The guest's own
            timeouts can only shorten this and the next two.
        first_byte_timeout: Seconds from the connection to the head of the response, in all attempts:
            ``HTTP-response-timeout``. If the guest's own timeout is shorter, ``connection-read-timeout``, as with any
            upstream.
        between_bytes_timeout: Seconds between two chunks of a response: ``connection-read-timeout``; and seconds in
            which the peer reads nothing of what is written to it: ``connection-write-timeout``. (For an upload that
            waits for the flow control of HTTP/2, only ``timeout`` counts.)
        timeout: Seconds from the request to the end of its response, retries included: ``HTTP-response-timeout``.
        retries: The number of retries of a request, after 50 ms and twice as long each next time, within the timeouts:
            if it was not connected; or if its connection or stream was cut before the response, and the request is
            idempotent and has no body. Denied requests, certificate errors and timeouts are not retried.
        idle_timeout: Seconds that an idle connection is kept.
        connection_lifetime: Seconds after which a connection is not used again, so that its name is resolved again;
            None: no limit.
        max_connections: The size of the connection pool. An idle connection makes room for another host's; otherwise a
            request waits for a connection, within ``connect_timeout``. Apps that share this network take turns, and
            none may have all connections.
        max_connections_per_host: Connections to one host and port, at most ``max_connections``; None: no other limit.
        response_fields: Bytes of a response's head, in however many fields: ``HTTP-response-header-section-size``; and
            of its trailers: ``HTTP-response-trailer-section-size``.
        response_body: Bytes of a response's body: ``HTTP-response-body-size``; None: no limit.

    Raises:
        ValueError: A pattern, method, address, proxy (also of the environment) or certificate is invalid, or would have
            no effect; a number is out of range.
        OSError: A file cannot be read.

    Example:
        >>> app = wasgi.App("plugin.wasm", outgoing=wasgi.Network(["https://api.example.com/v1/"]))
    """

    def __new__(
        cls,
        allow: Iterable[str],
        *,
        deny: Iterable[str] | None = None,
        methods: Iterable[str] | None = None,
        allow_private: bool = False,
        addresses: Iterable[str] | None = None,
        ca: str | os.PathLike[str] | bytes | None = None,
        only_ca: bool = False,
        client_cert: str | os.PathLike[str] | bytes | None = None,
        client_key: str | os.PathLike[str] | bytes | None = None,
        http2: bool = True,
        h2c: bool = False,
        proxy: str | None = None,
        no_proxy: str | Iterable[str] | None = None,
        proxy_resolves: bool = False,
        trust_env: bool = False,
        connect_timeout: float = 10.0,
        first_byte_timeout: float | None = None,
        between_bytes_timeout: float | None = None,
        timeout: float | None = None,
        retries: int = 0,
        idle_timeout: float = 30.0,
        connection_lifetime: float | None = 300.0,
        max_connections: int = 256,
        max_connections_per_host: int | None = None,
        response_fields: int = 65536,
        response_body: int | None = None,
    ) -> Self: ...
    def _answer(self, request: Request) -> Coroutine[Any, Any, Response]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __replace__(self, **changes: Any) -> Self: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: Any, /) -> Self: ...

@final
class Route:
    """A routing table of upstreams, by URL pattern: see `wasgi.outgoing.route`."""

    def __new__(cls, table: Mapping[str, _Upstream]) -> Self: ...
    def find(self, request: Request) -> _Upstream | None:
        """The upstream for a request; None if no pattern matches it."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __copy__(self) -> Self: ...

@final
class Timeouts:
    """The timeouts of a request in seconds: a guest's `request-options`. None: not set.

    Args:
        connect: From the request to the connection.
        first_byte: From the connection to the head of the response.
        between_bytes: Between two chunks of the response.

    Raises:
        ValueError: A number of seconds is negative or NaN.
    """

    def __new__(
        cls,
        *,
        connect: float | None = None,
        first_byte: float | None = None,
        between_bytes: float | None = None,
    ) -> Self: ...
    @property
    def connect(self) -> float | None: ...
    @property
    def first_byte(self) -> float | None: ...
    @property
    def between_bytes(self) -> float | None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __replace__(self, **changes: Any) -> Self: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: Any, /) -> Self: ...

@final
class Request:
    """A request: to a guest's incoming handler, or an outgoing request of a guest.

    Args:
        method: Any token (RFC 9110, 9.1), unchanged: methods are case-sensitive.
        url: Absolute. Characters that a URL must not contain are percent-encoded in its path and query, a
            percent-encoded host is decoded, and a fragment is removed.
        headers: A mapping or pairs. ``host`` and hop-by-hop fields do not reach a guest: the URL names the host.
        body: Bytes, str (as UTF-8), a file, an iterable or async iterable of bytes, or another message, whose body
            moves over. A body of known length gets a ``content-length``, unless there is one.
        trailers: Fields after the body.
        timeouts: Its timeouts in `wasgi.outgoing.call`; a guest's own request has those of its `request-options`. A
            guest of WASI 0.3 that handles the request finds them as its `request-options`.

    Raises:
        ValueError: The URL has no host or an invalid port, or a method or a header is invalid.
        TypeError: A body or headers of another type.

    A request whose body is bytes, or that has none, can be sent many times; a streamed body is sent once. Requests are
    equal if all their parts are; a streamed body is equal to itself only. A request whose body is bytes, or has been
    read, can be copied and pickled. ``copy.replace(request, url=...)`` (Python 3.13) makes a changed request; a
    streamed body moves to it.
    """

    def __new__(
        cls,
        method: str,
        url: str,
        *,
        headers: _Headers | None = None,
        body: _Body | None = None,
        trailers: _Headers | None = None,
        timeouts: Timeouts | None = None,
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
        """The fields after the body; for a guest's request, known when its body has ended."""
    def _discard_rest(self) -> None: ...
    def _address(self) -> tuple[str, int]: ...
    def _follow(self, other: Request) -> None: ...
    def _pause(self, seconds: float) -> Coroutine[Any, Any, None] | None: ...
    def _target(self) -> str: ...
    @property
    def timeouts(self) -> Timeouts:
        """The timeouts of the guest for its outgoing request; they are enforced."""
    def read(self) -> bytes:
        """The whole body; blocks.

        Raises:
            BodyError: The body failed midway, or was consumed before.
        """
    def aread(self) -> Coroutine[Any, Any, bytes]:
        """The whole body. It is consumed when this is awaited.

        Raises:
            BodyError: The body failed midway, or was consumed before.
        """
    def __iter__(self) -> Chunks: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    @property
    def content(self) -> bytes:
        """The whole body, as often as you like. Reads the body if necessary, like `text`."""
    @property
    def text(self) -> str:
        """The body as text, by the charset of its content-type, or else as UTF-8; invalid bytes are replaced.

        Reads the body if necessary. On a thread that runs an event loop, reading raises `BodyError` (``await aread()``
        first), except for the response of a blocking `App.handle`, and for a body that is already in memory.
        """
    def json(self) -> Any:
        """The body parsed as JSON (RFC 8259). Reads the body if necessary, like `text`.

        Raises:
            ValueError: It is not JSON.
        """
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __replace__(self, **changes: Any) -> Self: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: Any, /) -> Self: ...

@final
class Report:
    """The cost of an exchange so far: time, memory, fuel."""

    @property
    def exchange(self) -> int:
        """The number of the exchange in this process, as in log records and lines of stdout and stderr."""
    @property
    def duration(self) -> float:
        """Seconds from the guest's start to its end."""
    @property
    def memory(self) -> int:
        """Peak memory in bytes: linear memory, the host's memory for its instance and behind its handles."""
    @property
    def outgoing(self) -> int:
        """The number of outgoing requests."""
    @property
    def reused(self) -> int:
        """The number of earlier exchanges of its instance: 0 for a fresh one."""
    @property
    def fuel(self) -> int | None:
        """The fuel that it used, under `Limits.fuel` and when it has ended; else None."""
    @property
    def running(self) -> bool:
        """Whether the guest still runs."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: Any, /) -> Self: ...
    @staticmethod
    def _restore(
        exchange: int, duration: float, memory: int, outgoing: int, reused: int, fuel: int | None, running: bool
    ) -> Report: ...

@final
class Exchange:
    """A finished exchange, for `App(on_finish=)`.

    Each admitted exchange is reported once: when its caller has the head of the response, or the error instead, and
    nothing is left of its guest. Requests that were refused before are not exchanges: by overload (`OverloadedError`),
    by a closed app, or by the server (400, or a response of ``on_request``).

    Example:
        >>> def log(exchange: wasgi.Exchange) -> None:
        ...     print(exchange.method, exchange.url, exchange.status, exchange.report.duration)
        >>> app = wasgi.App("hello.wasm", on_finish=log)
    """

    @property
    def id(self) -> int:
        """Its number in this process: `Report.exchange`, and ``wasgi_exchange`` of log records."""
    @property
    def component(self) -> str:
        """The component's file name, or the beginning of its digest: ``wasgi_component`` of log records."""
    @property
    def app(self) -> str:
        """The component's name with the number of the app in this process: ``wasgi_app`` of log records."""
    @property
    def method(self) -> str:
        """The method of the guest's request."""
    @property
    def url(self) -> str:
        """The URL of the guest's request, as the guest saw it."""
    @property
    def status(self) -> int | None:
        """The status of the guest's response; None if the caller got no response."""
    @property
    def error(self) -> BaseException | None:
        """What the caller got instead of a response, or how the guest ended after it; None if it ended well.

        A guest that was cancelled, because its caller or client went away, has a `WasgiError`.
        """
    @property
    def report(self) -> Report:
        """The cost of the exchange."""

@final
class Response:
    """A response: of a guest, or to a guest's outgoing request.

    It is a context manager, for ``with`` and ``async with``: leaving closes it. It is compared, copied and pickled like
    a `Request`; a guest's response keeps its report.

    Args:
        status: From 100 to 999.
        headers: A mapping or pairs.
        body: As for `Request`.
        trailers: Fields after the body.

    Raises:
        ValueError: The status or a header is invalid.
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
    def _blocks(self) -> bool: ...
    @property
    def _closing(self) -> Callable[[], object] | None: ...
    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Headers:
        """The fields. Always the same object; names from a guest are lower-case."""
    @property
    def trailers(self) -> Headers | None:
        """The fields after the body; for a guest's response, known when its body has ended."""
    @property
    def report(self) -> Report | None:
        """The cost of the exchange; None if this is not a guest's response."""
    def read(self) -> bytes:
        """The whole body; blocks.

        Raises:
            BodyError: The body failed midway, or was consumed before.
        """
    def aread(self) -> Coroutine[Any, Any, bytes]:
        """The whole body. It is consumed when this is awaited.

        Raises:
            BodyError: The body failed midway, or was consumed before.
        """
    def __iter__(self) -> Chunks: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    @property
    def content(self) -> bytes:
        """The whole body; see `Request.content`."""
    @property
    def text(self) -> str:
        """The body as text; see `Request.text`."""
    def json(self) -> Any:
        """The body parsed as JSON; see `Request.json`."""
    def _served_headers(self) -> list[tuple[bytes, bytes]]: ...
    def finished(self) -> Coroutine[Any, Any, Report | None]:
        """Waits until the guest has ended: it may work on after its response.

        An unread body is drained, because the guest cannot return until it is consumed. Cancelling the wait does not
        cancel the guest.

        Returns:
            The cost of the exchange; None if this is not a guest's response.

        Raises:
            GuestError: How the guest ended, if it did not return: `TrapError`, `GuestTimeoutError` and the others.
            BodyError: The drained body failed midway.
            WasgiError: The exchange was cancelled: its caller or client has gone.
        """
    def wait(self) -> Report | None:
        """Like `finished`, but blocks."""
    def close(self) -> None:
        """Cancels the guest, its outgoing requests and its bodies, unless the body has ended."""
    def aclose(self) -> Coroutine[Any, Any, None]:
        """Like `close`, when it is awaited."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None: ...
    def __aenter__(self) -> Coroutine[Any, Any, Self]: ...
    def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> Coroutine[Any, Any, None]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __replace__(self, **changes: Any) -> Self: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: Any, /) -> Self: ...
    @staticmethod
    def _restore(settings: dict[str, Any], report: Report | None) -> Response: ...

@final
class Stats:
    """A snapshot of process-wide counters.

    When all work is done and no instance is idle, all but ``threads``, ``dropped`` and ``outcomes`` are zero.
    """

    @property
    def exchanges(self) -> int:
        """Guests that exist."""
    @property
    def queued(self) -> int:
        """Exchanges that wait in a queue (`Limits.queue`)."""
    @property
    def outgoing(self) -> int:
        """Outgoing requests under way."""
    @property
    def calls(self) -> int:
        """Outgoing requests that Python code handles, or will handle."""
    @property
    def feeds(self) -> int:
        """Bodies whose chunks Python code produces."""
    @property
    def idle(self) -> int:
        """Idle instances, which wait for their next exchange (`Reuse`)."""
    @property
    def tasks(self) -> int:
        """Tasks of the native runtime."""
    @property
    def slots(self) -> int:
        """Component instances in the pool."""
    @property
    def memories(self) -> int:
        """Linear memories in the pool."""
    @property
    def stacks(self) -> int:
        """Call stacks in the pool."""
    @property
    def memory(self) -> int:
        """Bytes of the guests' linear memory, and of the host's memory for their instances and behind their handles."""
    @property
    def snapshots(self) -> int:
        """Bytes of the snapshots to which instances are put back (`Reuse.isolated`)."""

    @property
    def threads(self) -> int:
        """Threads of wasgi, which are kept for the next exchange."""
    @property
    def dropped(self) -> int:
        """Exchanges that `App(on_finish=)` was not called for, because 1024 waited for it; since the process began."""
    @property
    def outcomes(self) -> dict[str, int]:
        """The number of exchanges by how they ended, each counted once.

        Commands count, too; warm-ups and instances that are made ahead (`Reuse`) do not.

        ``returned``, ``trapped``, ``exited``, ``timed_out``, ``limited``, ``stopped`` (cancelled by its caller, or with
        its app), ``failed`` (a failure of the host).
        """

@final
class LoopBridge:
    """The queue of jobs that Rust has for an event loop; the loop calls it when there are some."""

    @staticmethod
    def attach(event_loop: AbstractEventLoop) -> LoopBridge: ...
    def __call__(self) -> None: ...

@final
class OutgoingCall:
    """An outgoing request that Python code handles."""

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
    """The producer's side of a body whose chunks Python produces."""

    def enter(self) -> None: ...
    def leave(self) -> None: ...
    def wanted(self) -> Coroutine[Any, Any, bool]: ...
    def push(self, chunk: Buffer) -> None: ...
    def end(self) -> None: ...
    @property
    def gone(self) -> bool: ...
    def fail(self, error: BaseException) -> None: ...
    def next(self) -> None: ...

def _after_fork() -> None: ...
def _after_fork_in_parent() -> None: ...
def _before_fork() -> None: ...
def _is_first_import() -> bool: ...
def _normal_url(url: str, *, glob: bool = False) -> str | None: ...
def _request_of_server(
    method: str,
    scheme: str,
    server: Any,
    target: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    body: _Body | None,
    *,
    forwarded: bool | None = None,
    client: str | None = None,
    prefix: bytes | None = None,
    authority: bytes | None = None,
    multiplexed: bool = False,
) -> Request: ...
def _census(source: bytes) -> dict[str, int]: ...
def _compile() -> int: ...
def _status_of_code(code: str) -> int:
    """The status of the response when a guest has answered with an error-code."""

def _check_addresses(bind: Sequence[str]) -> None: ...
def _of_systemd() -> list[str]: ...
def _outline(source: bytes) -> tuple[list[str], list[str], str, str | None, list[str]]: ...
def _read_component(path: str | os.PathLike[str]) -> bytes: ...
def _restore_component(
    path: str, digest: str, fuel: bool = False, isolated: bool = False, limits: ComponentLimits | None = None
) -> Component: ...
def _run_command(app: App, args: list[str], streams: tuple[bool, bool, bool]) -> int: ...
def _shut_down() -> None: ...
def _why_not_restorable(source: bytes) -> str | None: ...
def _wit() -> list[tuple[str, str]]: ...
def stats() -> Stats:
    """A snapshot of the counters of this process: see `Stats`. Cheap enough for a health check."""
