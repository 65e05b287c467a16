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
    "ComponentLimits",
    "Dir",
    "Exchange",
    "FeedHandle",
    "Limits",
    "LoopBridge",
    "Network",
    "OutgoingCall",
    "Report",
    "Request",
    "Response",
    "Reuse",
    "Route",
    "Simulation",
    "Stats",
    "Timeouts",
    "__version__",
    "_after_fork",
    "_after_fork_in_parent",
    "_before_fork",
    "_census",
    "_compile",
    "_is_first_import",
    "_normal_url",
    "_outline",
    "_read_component",
    "_request_of_server",
    "_restore_component",
    "_shut_down",
    "_wit",
    "stats",
]

class _File(Protocol):
    def read(self, size: int, /) -> bytes: ...

class _Writable(Protocol):
    def write(self, text: str, /) -> object: ...

__version__: str
"""The version of wasgi."""

_Headers: TypeAlias = Mapping[str, str] | Mapping[bytes, bytes] | Iterable[Pair]
_Body: TypeAlias = Buffer | str | _File | Iterable[Buffer] | AsyncIterable[Buffer] | Request | Response
_Source: TypeAlias = str | os.PathLike[str] | Buffer
_Sink: TypeAlias = Callable[[str], object] | _Writable
_Upstream: TypeAlias = Callable[[Request], Response | _Awaitable[Response]] | App | Route | Network

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
    def _next_within(self, seconds: float | None) -> bytes | None: ...
    def _let_end(self, *, wait: bool) -> None: ...
    def take_ready(self) -> tuple[bytes, bool] | None:
        """What there is without waiting, as of `AsyncChunks`."""

@final
class AsyncChunks(AsyncIterator[bytes]):
    """The chunks of a body, as they come. Dropping it before the end stops the guest that writes them."""

    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Coroutine[Any, Any, bytes]: ...
    def aclose(self) -> Coroutine[Any, Any, None]: ...
    def _let_end(self) -> Coroutine[Any, Any, None]: ...
    def ends_with_trailers(self) -> bool:
        """Whether it is known that trailers follow what there is."""
    def take_ready(self) -> tuple[bytes, bool] | None:
        """What there is without waiting: a chunk, and whether it was the last. None: the next one is to be awaited.

        Of an empty body, whose end is known, it is an empty chunk.
        """

@final
class Component:
    """A WebAssembly component that exports `wasi:http/incoming-handler@0.2`.

    Compiled once, on all cores and without the GIL; the machine code is kept on disk (in `WASGI_CACHE_DIR`, by default
    `wasgi` in the user's cache directory; empty: nowhere). What takes longer than a second is told to the logger
    ``wasgi`` (INFO). The same content is compiled and held once in a process, and by one process at a time. Immutable,
    safe to share between threads, hashable and equal by its content. It pickles as the path or the bytes that it was
    loaded from, with ``fuel`` and ``limits``.

    Args:
        source: The path of a plain file, or the bytes of a component, in binary or text form.
        fuel: Compile it for `Limits.fuel`, too. An `App` that needs it does so itself otherwise, and says so.
        limits: What it may cost to load. None: the defaults of `ComponentLimits`.

    Raises:
        InvalidComponentError: It is no component; the message says what it is instead.
        ComponentLimitError: It costs more than ``limits`` allow.
        UnsupportedComponentError: It is a component, but exports no HTTP handler that can be called.
        MissingImportError: It imports what is not provided.
        OSError: The file cannot be read.
        ValueError: A path that no file system has.

    Example:
        >>> component = wasgi.Component("hello.wasm")
        >>> component.wasi
        '0.2'
    """

    def __new__(cls, source: _Source, *, fuel: bool = False, limits: ComponentLimits | None = None) -> Self: ...
    @staticmethod
    def load_async(
        source: _Source, *, fuel: bool = False, limits: ComponentLimits | None = None
    ) -> Coroutine[Any, Any, Component]:
        """Like the constructor, for a task of an asyncio event loop, which it never holds.

        Cancelling the task gives the component up. What is being compiled in this process cannot be stopped: it goes
        on, and its machine code is kept for the next time; in a process of its own (`ComponentLimits.timeout` and
        ``memory``) it ends, if nobody else waits for the same.
        """
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
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: Any, /) -> Self: ...

@final
class ComponentLimits:
    """What a component may cost when it is loaded. ``None`` lifts a limit.

    The defaults let real components pass, those of Python and JavaScript with their interpreters inside, by a factor of
    four or more. What is counted is counted in the file, before anything is expanded or compiled, and refused if it is
    more than its limit: `ComponentLimitError`, with the limit's name, its value, and the number.

    Args:
        size: Bytes of the source.
        text: Bytes of a source in text form, which takes many times as much memory to parse.
        instances: Instances, of components and of core modules, that one instance of it is made of. Those inside that
            are instantiated many times count as often, and so do their memories, tables and globals.
        modules: Core modules.
        components: Components inside of it.
        memories: Linear memories.
        tables: Tables.
        globals: Globals.
        functions: Functions with a body, and one for each that is lifted or lowered between instances.
        types: Types, of components and of core modules, and declarations inside of types.
        names: Imports, exports, aliases, arguments, and parts of types: fields, cases, flags, parameters.
        nesting: Levels of components, of types, and of blocks in a function. None: 1,000 of components and types all
            the same, for the stack is finite.
        loops: Levels of loops in a function, whose number costs its square.
        code: Bytes of all function bodies.
        function_size: Bytes of one function body.
        locals: Locals of all functions.
        parameters: Parameters, or results, of one core function type; calls with hundreds of them compile for minutes.
        data: Bytes of data segments.
        elements: Items of element segments.
        timeout: Seconds that compiling may take. It is done in a process of its own then, which is ended.
        memory: Bytes of memory that compiling may take, in a process of its own likewise; what a Python process has
            from the start is not counted. Linux only.

    Raises:
        ValueError: A limit that is negative, or a time or memory that is zero.

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
    """What a guest may use up. ``None`` lifts a limit; the defaults suit a plug-in that nobody has looked at.

    A limit that a guest meets inside ends it with an exception of its own, whose ``limit`` is the value. Those of
    messages are wasi:http's own error-codes, with a note that names the limit. Those of outgoing requests are told to
    the guest as an error-code, and to the logger ``wasgi.outgoing``.

    Args:
        memory: Bytes: all linear memories of an instance, and what the host holds behind its handles (fields, the
            parts of requests, bodies of messages that are not sent, 64 KiB for each stream of a file), which is weighed
            for each megabyte that comes. A guest that asks for more memory is refused; if it ends because of that, or
            has the host hold more: `MemoryLimitError`.
        memory_per_app: The same of all exchanges of one `App` together, and of its instances that wait for one:
            whoever asks for more then is refused likewise.
        table_elements: Elements, all tables of an instance together; refused like memory: `TableLimitError`. A single
            table holds a million at the most, whatever the limit, where instances come from the pool.
        instances: Core instances that a component is made of: `InstanceLimitError`.
        handles: Handles of resources that a guest holds at once, its own resources included: `HandleLimitError`.
        files: Files and folders that an exchange has open at once, those that it reads by a stream or lists included;
            the guest gets ``quota``. The granted folders themselves do not count.
        files_per_app: The same of all exchanges of one `App` together.
        timeout: Seconds of the guest's own time: wall clock from its first instruction to its end, but for the time in
            which it waits for a chunk of its request that has not come, or for its reader to take a chunk of its
            response. Then `GuestTimeoutError`; a body that is being read breaks off with it as the cause.
        fuel: Units of wasmtime's fuel, about one for each instruction. Unlike time the same in every run, and slower to
            count; the component is compiled once more for it. `FuelExhaustedError`; `Report.fuel` says what was used.
        fields: Bytes of one set of fields: names, values, and about 70 bytes for each. A request with more is refused
            with ``HTTP-request-header-section-size``; a guest that makes more is ended with `FieldsLimitError`; one
            whose upstream answers with more gets ``HTTP-response-header-section-size``. Likewise for trailers. One host
            call takes 2 MiB of strings and lists at the most, or twice this if that is more.
        request_body: Bytes. A longer one is refused if it says so beforehand, else the exchange ends as soon as it is:
            ``HTTP-request-body-size``. A body that streams costs no memory, so there is no limit by default.
        response_body: Bytes, likewise: ``HTTP-response-body-size``, as the cause of a `BodyError` if the body had
            begun.
        outgoing: Requests that one exchange may send out; the guest gets ``HTTP-request-denied``.
        outgoing_concurrency: Requests of one exchange that are under way at once, until their responses have been read;
            the guest gets ``connection-limit-reached``.
        concurrency: Exchanges of one `App` at once. A guest counts until it has ended, which may be after its response
            has been read.
        queue: Exchanges that may wait for a place; without one, `OverloadedError`. It needs ``concurrency``.
        queue_timeout: Seconds that they wait; then `OverloadedError`.
        chunks: Writes of a guest, of at most 16 KiB each, that may lie between it and whoever reads its body; two more
            may be on their way.

    Raises:
        ValueError: A limit that is negative, or zero where that leaves nothing to run.
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
    """A directory of the host's that a guest may see.

    Args:
        path: The directory. Links in it do not lead out of it.
        write: Whether the guest may change it.

    Raises:
        ValueError: A path that no file system has.
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
    """On what terms the instances of an `App` have one exchange after another.

    For components that take long to instantiate. What a guest keeps in its memory meets its next exchange, whoever's
    that is: `wasgi.testing.check_isolation` shows what a component lets through. An exchange's time, fuel, outgoing
    requests, output and simulation are its own all the same, and what a guest has kept of an earlier one (its bodies,
    the requests that it has sent) leads nowhere.

    An instance is kept if its guest has answered and returned, has finished all bodies that it had begun, waits for no
    answer, and holds no more than three quarters of ``Limits.memory`` and ``Limits.handles``. At most half of the pool
    (512 instances in a process, mostly) wait at once, and fewer where those that run need the room: the one that has
    waited longest ends, whichever app's it is. `Stats.idle` counts them; `Report.reused` says of an exchange how many
    its instance had before.

    Not every toolchain's guests can have a second exchange. One that returns without an answer, though its instance had
    answered before, shows it: from then on its app keeps no instance, and the logger ``wasgi`` says so once.

    Args:
        requests: How many exchanges an instance has. None: as many as come.
        concurrent: How many at once: 1, since a guest of WASI 0.2 handles one request at a time.
        idle: Seconds that an instance waits for the next. None: until its app is closed.

    Raises:
        ValueError: A number that makes no sense.

    Example:
        >>> app = wasgi.App("plugin.wasm", reuse=wasgi.Reuse(requests=1000, idle=60))
    """

    def __new__(cls, *, requests: int | None = 128, concurrent: int = 1, idle: float | None = 10.0) -> Self: ...
    @property
    def requests(self) -> int | None: ...
    @property
    def concurrent(self) -> int: ...
    @property
    def idle(self) -> float | None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __replace__(self, **changes: Any) -> Self: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: Any, /) -> Self: ...

@disjoint_base
class App:
    """What `wasgi.App` adds ASGI and WSGI to; the arguments are described there."""

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
    def handle(self, request: Request) -> Response:
        """Calls the guest's `incoming-handler`, and blocks until it has set its response. The GIL is released.

        The body streams from the guest as the response is read; the guest may still be running. Ctrl-C interrupts the
        call and stops the guest.

        Args:
            request: A body that streams is consumed by the guest; one of bytes can be sent again.

        Returns:
            The response. It owns the guest: closing or dropping it before its body has ended stops the guest.

        Raises:
            GuestError: The guest trapped, exited, ran out of a limit, or never answered.
            ErrorCode: The guest answered with an error-code.
            OverloadedError: `Limits.concurrency` was reached, and the queue had no place or gave none in time.
            AppClosedError: The app was closed.
            BodyError: The request's body streams, and was consumed before.
            Exception: What the iterator of the request's body raised, as it is.
        """
    def handle_async(self, request: Request) -> Coroutine[Any, Any, Response]:
        """Like `handle`, for a task of an asyncio event loop, which it never blocks.

        The guest starts when this is awaited. Cancelling the task stops the guest and all that it waits for.
        """
    def close(self, timeout: float | None = 10.0) -> None:
        """Begins no more exchanges, and waits until those under way have ended, work after their responses included.

        ``with app:`` and ``async with app:`` do it when they are left.

        Args:
            timeout: Seconds; then what is left is stopped: `AppClosedError` for whoever waits for it. None: as long as
                it takes.
        """
    def aclose(self, timeout: float | None = 10.0) -> Coroutine[Any, Any, None]:
        """Like `close`, for a task of an asyncio event loop. It begins to close when this is awaited."""
    def _handle_within(self, request: Request, seconds: float | None) -> Response: ...
    def _warm(self) -> None: ...
    def _sibling(
        self,
        *,
        outgoing: _Upstream | None,
        stdout: _Sink | None,
        stderr: _Sink | None,
        reuse: Reuse | None,
        simulation: Simulation | None,
    ) -> App: ...
    @property
    def exchanges(self) -> int:
        """How many exchanges are under way: those whose guest has not ended."""
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

@final
class Simulation:
    """Deterministic time and randomness for a guest, for ``App(simulation=...)``: two runs give the same bytes.

    Each exchange begins with the same time and the same seed. Time is virtual: it stands still while the guest runs;
    when the guest and all mocks are idle, it jumps to the earliest deadline, so sleeping takes no time. Deadlines are
    the guest's timers, the timeouts of its request-options, and the delays and pauses of `wasgi.testing.Upstream`.
    While other code works on a request of the guest's (a function, the real network), the guest's timers take real
    time: it gives up no sooner than it would. A guest that waits for a file counts as idle.

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
    """The real network, natively, under a policy: an upstream for ``App(outgoing=...)`` and for routes.

    A request is checked before anything else; then its name is resolved, and each address is checked before it is
    connected to: what is not the public internet's (loopback, private, link-local, carrier-grade NAT, multicast,
    documentation, clouds' metadata) is blocked unless that address is allowed: by ``addresses``, by ``allow_private``,
    or by a pattern in ``allow`` that is the address; one with a name (``"http://localhost:8000"``) allows no such
    address. What the name does not pass is ``HTTP-request-denied`` for the guest, what the address does not pass
    ``destination-IP-prohibited``; the logger ``wasgi.outgoing`` says which rule it was, and what would allow it.
    Redirects are the guest's business.

    Connections are kept and shared by all guests of the apps that have this object: HTTP/1.1, or HTTP/2 where TLS
    agrees on it (ALPN). The address of a kept one is checked again for each request. The platform's certificates are
    trusted. Middleware in Python asks it by `wasgi.outgoing.call`.

    It is a value: compared by its settings, pickled with them (the keys and passwords among them, too), and changed by
    ``copy.replace`` (Python 3.13). Each has connections of its own; a copy is the same object.

    A kept connection that the peer has closed just when it was used again is replaced, if the request is one that may
    be sent twice (RFC 9110, 9.2.2) and has no body, or if nothing of it was sent. That is no retry. Nor is it when a
    peer of HTTP/2 says that it has not processed a request (GOAWAY, REFUSED_STREAM: RFC 9113, 8.7): that is sent again,
    whatever its method, with its body if no more than 64 KiB of it had been sent.

    Args:
        allow: Patterns of what may be asked (see `wasgi.outgoing.route`): ``"https://api.example.com"``,
            ``"http://*.internal:8080"``, ``"https://example.org/v1/*"``.
        deny: Patterns of what may not, whatever ``allow`` says.
        methods: The methods that may be used; None: all. They are case-sensitive: ``"GET"``.
        allow_private: Whether addresses that are not the public internet's may be reached.
        addresses: Addresses and networks (``"10.1.0.0/16"``) that may be reached whatever they are for. A pattern in
            ``allow`` that is an address allows that one, too.
        ca: Certificates of more authorities: a path, or bytes of PEM.
        only_ca: Whether these are the only ones.
        client_cert: A certificate chain for servers that ask for one: a path, or bytes of PEM.
        client_key: Its key, likewise.
        http2: Whether HTTP/2 is offered with TLS.
        h2c: Whether HTTP/2 is spoken without TLS, by prior knowledge (RFC 9113, 3.3): for gRPC inside a cluster.
        proxy: The URL of a proxy for all requests: ``http``, ``https``, ``socks5`` or ``socks5h``, with a user and a
            password if it wants them. It is asked for tunnels to addresses that were checked. Its own address is not
            checked. Where it cannot be used, nothing goes around it: ``destination-unavailable``, or
            ``configuration-error`` if it is a matter of passwords.
        no_proxy: What is reached without it: entries, or one str of them with commas or spaces between, as in
            ``NO_PROXY``. An entry is ``"*"``, a name (``"example.com"`` and ``".example.com"`` mean it and all below
            it, ``"*.example.com"`` all below it), an address or a network, each with a port or not
            (``"[::1]:8080"``), for one scheme or both (``"https://example.com"``).
        proxy_resolves: Whether the proxy resolves names (as ``socks5h`` always does). Then what is behind a name is
            its business: only addresses in URLs are checked.
        trust_env: Whether proxies are taken from the environment: ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY``,
            ``NO_PROXY``, in lower case (which comes first) or upper. Where ``REQUEST_METHOD`` is set, as in CGI
            scripts, ``HTTP_PROXY`` in upper case is passed over, since clients can set it.
        connect_timeout: Seconds for name, TCP and TLS together, and for the wait for a free connection, in all
            attempts: ``DNS-timeout``, ``connection-timeout``, ``connection-limit-reached``. The guest's own options can
            only shorten this and the next two.
        first_byte_timeout: Seconds from the connection to the head of the response, in all attempts:
            ``HTTP-response-timeout``. If the guest's own option is the shorter one, ``connection-read-timeout``, as
            through any upstream.
        between_bytes_timeout: Seconds between two chunks of a response: ``connection-read-timeout``; and for which the
            peer may leave unread what is written to it: ``connection-write-timeout``. (An upload that the flow control
            of HTTP/2 holds up is under ``timeout`` alone.)
        timeout: Seconds from the request to the end of its response, retries included: ``HTTP-response-timeout``.
        retries: How often a request is tried again, after 50 ms and twice as long each next time, within the limits of
            time: if it was not connected; or if its connection or stream was cut before the response, and the request
            may be sent twice and has no body. What a rule denies, or a certificate, is not tried again; nor is what
            took too long.
        idle_timeout: Seconds that a connection is kept that nobody uses.
        connection_lifetime: Seconds after which a connection is not used again, so that names are resolved anew; None:
            as long as it works.
        max_connections: Connections at once. One that is idle makes room for another host's; else a request waits for
            one, for as long as for connecting. Apps that share this network take turns, and none may have all of them.
        max_connections_per_host: Those to one host and port, no more than ``max_connections``; None: no other limit.
        response_fields: Bytes of a response's head, in however many fields: ``HTTP-response-header-section-size``; and
            of its trailers: ``HTTP-response-trailer-section-size``.
        response_body: Bytes of a response's body: ``HTTP-response-body-size``; None: any number.

    Raises:
        ValueError: A pattern, method, address, proxy (of the environment, too) or certificate is none, or would have no
            effect; a number is out of range.
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
    """Upstreams by where a request goes: see `wasgi.outgoing.route`."""

    def __new__(cls, table: Mapping[str, _Upstream]) -> Self: ...
    def find(self, request: Request) -> _Upstream | None:
        """The upstream that answers a request; None if no pattern fits it."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __copy__(self) -> Self: ...

@final
class Timeouts:
    """The timeouts of a request: those that a guest set in its `request-options`. In seconds; None where it set none.

    Args:
        connect: From the request to the connection.
        first_byte: From the connection to the head of the response.
        between_bytes: Between two chunks of the response.

    Raises:
        ValueError: A number of seconds that is none, or negative.
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
    """A request: for a guest's incoming handler, or one that a guest sends out.

    Args:
        method: Any token (RFC 9110, 9.1), as it is: methods are case-sensitive.
        url: Absolute. Characters that no URL holds are percent-encoded in its path and query, and a host that is
            percent-encoded is decoded; a fragment is left out.
        headers: A mapping or pairs. ``host`` and hop-by-hop fields do not reach a guest: the URL names the host.
        body: Bytes, str (as UTF-8), a file, an iterable or async iterable of bytes, or another message, whose body
            moves over. A body of known length gets a ``content-length``, unless there is one.
        trailers: Fields after the body.
        timeouts: What `wasgi.outgoing.call` allows it; a guest's own request has those of its `request-options`.

    Raises:
        ValueError: A URL without a host or with a port that is none, a method or a header that is not valid.
        TypeError: A body or headers of another type.

    One whose body is bytes, or that has none, can be sent as often as one likes, one whose body streams once. Requests
    are equal if all of them is; a body that streams is equal to itself only. One whose body is bytes, or was
    read, can be copied and pickled. ``copy.replace(request, url=...)`` (Python 3.13) makes another one, to which a body
    that streams moves over.
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
        """The fields after the body: of one that a guest sends, known when its body has ended."""
    def _discard_rest(self) -> None: ...
    def _address(self) -> tuple[str, int]: ...
    def _follow(self, other: Request) -> None: ...
    def _pause(self, seconds: float) -> Coroutine[Any, Any, None] | None: ...
    def _target(self) -> str: ...
    @property
    def timeouts(self) -> Timeouts:
        """What the guest allows its outgoing request; it is enforced."""
    def read(self) -> bytes:
        """The whole body; blocks.

        Raises:
            BodyError: The body broke off, or was consumed before.
        """
    def aread(self) -> Coroutine[Any, Any, bytes]:
        """The whole body. It is consumed when this is awaited.

        Raises:
            BodyError: The body broke off, or was consumed before.
        """
    def __iter__(self) -> Chunks: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    @property
    def content(self) -> bytes:
        """The whole body, as often as it is asked for; as for `text`, it is read if need be."""
    @property
    def text(self) -> str:
        """The body as text, by the charset of its content-type, or else as UTF-8; what does not fit is replaced.

        Reads the body if that has not been done. Where an event loop runs, that is a `BodyError` instead (``await
        aread()`` first), but for the response of a blocking `App.handle`, and for what is at hand.
        """
    def json(self) -> Any:
        """The body parsed as JSON (RFC 8259); as for `text`, it is read if need be.

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
    """What an exchange has cost so far."""

    @property
    def exchange(self) -> int:
        """Its number in this process; log records and printed lines have it, too."""
    @property
    def duration(self) -> float:
        """Seconds from the guest's start to its end."""
    @property
    def memory(self) -> int:
        """The most that it held, in bytes: linear memory, its instance, and what its handles had the host hold."""
    @property
    def outgoing(self) -> int:
        """How many requests it sent out."""
    @property
    def reused(self) -> int:
        """How many exchanges its instance had before: 0 for a fresh one."""
    @property
    def fuel(self) -> int | None:
        """How much fuel it used, under `Limits.fuel` and when it has ended; else None."""
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
    """An exchange that is over, for `App(on_finish=)`.

    Every exchange that was admitted is told of once: when its caller has the head of the response, or the reason why
    there is none, and nothing is left of its guest. Requests that were refused before are no exchanges: those that
    found no place (`OverloadedError`), whose app was closed, or that a server does not ask a guest (400, or what
    ``on_request`` answered).

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
        """Of the guest's request."""
    @property
    def url(self) -> str:
        """Of the guest's request: the whole URL, as the guest saw it."""
    @property
    def status(self) -> int | None:
        """Of the guest's response; None if the caller got none."""
    @property
    def error(self) -> BaseException | None:
        """What the caller was told instead of a response, or how the guest ended after it; None if it ended well.

        A guest that was stopped, because its caller or client went away, has a `WasgiError`.
        """
    @property
    def report(self) -> Report:
        """What it has cost."""

@final
class Response:
    """A response: a guest's, or one for a guest.

    It is a context manager, for ``with`` and ``async with``: leaving closes it. It is compared, copied and pickled as a
    `Request` is; a guest's takes its report along.

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
        """The whole body. It is consumed when this is awaited.

        Raises:
            BodyError: The body broke off, or was consumed before.
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

        What nobody has begun to read of the body is read and thrown away, since a guest cannot end before it is rid of
        it. Giving up waiting stops nothing.

        Returns:
            What the exchange has cost; None for a response that is no guest's.

        Raises:
            GuestError: How the guest ended, if it did not return: `TrapError`, `GuestTimeoutError` and the others.
            BodyError: What was thrown away of the body had broken off.
            WasgiError: The exchange was stopped: its caller or client has left.
        """
    def wait(self) -> Report | None:
        """Like `finished`, and blocks."""
    def close(self) -> None:
        """Stops the guest, its outgoing requests and its bodies, unless the body has ended."""
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
    """What there is in this process, and what there was: a look at its counters.

    When all work is done and no instance waits for more, all but ``threads``, ``dropped`` and ``outcomes`` are zero.
    """

    @property
    def exchanges(self) -> int:
        """Guests that exist."""
    @property
    def queued(self) -> int:
        """Exchanges that wait for a place (`Limits.queue`)."""
    @property
    def outgoing(self) -> int:
        """Requests of guests that are under way."""
    @property
    def calls(self) -> int:
        """Those of them that Python code answers, or will."""
    @property
    def feeds(self) -> int:
        """Bodies whose chunks Python code makes."""
    @property
    def idle(self) -> int:
        """Instances that wait for their next exchange (`Reuse`)."""
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
        """Bytes of linear memory that guests hold, and of the host's for their instances and behind their handles."""
    @property
    def threads(self) -> int:
        """Threads of ours: they are kept for the next exchange."""
    @property
    def dropped(self) -> int:
        """Exchanges that `App(on_finish=)` was not told of, because 1024 waited for it; since the process began."""
    @property
    def outcomes(self) -> dict[str, int]:
        """How exchanges have ended, each counted once.

        ``returned``, ``trapped``, ``exited``, ``timed_out``, ``limited``, ``stopped`` (by its caller, or with its app),
        ``failed`` (on the host's side).
        """

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

    def enter(self) -> None: ...
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
def _outline(source: bytes) -> tuple[list[str], list[str], str | None, list[str]]: ...
def _read_component(path: str | os.PathLike[str]) -> bytes: ...
def _restore_component(
    path: str, digest: str, fuel: bool = False, limits: ComponentLimits | None = None
) -> Component: ...
def _shut_down() -> None: ...
def _wit() -> list[tuple[str, str]]: ...
def stats() -> Stats:
    """Counts what there is now: see `Stats`. Cheap enough for a health check."""
