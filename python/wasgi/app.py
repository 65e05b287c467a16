"""`App`: a component with its options, and the ways to call it."""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Self

from wasgi import _wasgi

if TYPE_CHECKING:
    from wasgi._wasgi import (
        Component,
        Dir,
        Exchange,
        Limits,
        Reuse,
        Simulation,
        _Handler,
        _Sink,
        _Source,
        _Upstream,
    )
    from wasgi.serving.options import OnError, OnRequest

OnFinish = Callable[["Exchange"], object]


@functools.cache
def _asgi() -> ModuleType:
    """Imported at first use, because it imports asyncio; kept, since an import in a function costs 2 µs each time."""
    from wasgi.serving import asgi

    return asgi


class App(_wasgi.App):
    """A component with its options. Each exchange gets a fresh instance of it, unless ``reuse`` is given.

    Call it with `handle` or `handle_async`. It is also an ASGI 3 application: mount it, or give it to a server. There
    it streams both ways, cancels its guest when the client disconnects, and sends a small ``application/problem+json``
    (RFC 9457) when the guest has no response: 500 for a trap, 504 for a timeout, 503 when overloaded, 413 and 431 for a
    request that exceeds a limit, 502 for an error-code (some are 4xx or 504: the page on servers has the table). A
    response that fails midway raises in the server, which aborts the connection.

    Args:
        component: A `Component`, or what one is loaded from.
        handler: What answers the requests that middleware passes on: for components that import
            ``wasi:http/handler@0.3``, which need it. Another `App`, a function or a coroutine function from `Request`
            to `Response`, or an upstream of `wasgi.outgoing`, in process: it is not the network, so no policy and no
            limit of outgoing requests applies, and a `Network` is refused.
        outgoing: The upstream for the guest's outgoing requests: a function or coroutine function from `Request` to
            `Response`, another `App`, a `Network` (see `wasgi.outgoing` for more). A coroutine function runs as a task
            of the caller's event loop (or of a background loop if none runs), a function on a thread of wasgi; both see
            the caller's context variables. None: each request fails with `HTTP-request-denied`.
        env: The guest's environment; empty unless given.
        args: The guest's arguments; empty unless given.
        dirs: The directories that the guest sees, by the paths it sees them at: a `Dir`, or a path, then read-only.
        stdout: Where the guest's lines go: a callable that takes each line (a str with the attributes ``stream``,
            ``exchange`` and ``cut``), or a text file. None: the logger ``wasgi.guest``, stdout as INFO and stderr as
            WARNING; stderr, while no handler is configured. It never runs on a thread that runs an event loop.
        stderr: Likewise.
        limits: Resource limits of each guest: memory, time, fuel and more. None: the defaults of `Limits`.
        reuse: Reuse of instances, for components that are slow to instantiate; the next exchange then finds what the
            guest keeps in its memory. None: a fresh instance for each exchange.
        simulation: Deterministic time and randomness: `wasgi.testing.Simulation`. None: the machine's.
        root_path: What the guest sees below a mount: ``"strip"``: the path below it, with the mount's path in
            ``x-forwarded-prefix``; ``"keep"``: the whole path.
        forwarded: Whether the guest gets ``x-forwarded-for``, ``-proto`` and ``-host``: with the server's values, never
            the client's.
        on_request: Called with the ASGI scope (or WSGI environ) and the guest's request, before the guest; may be a
            coroutine function, except under WSGI. It may change the request's headers, return another request, or
            return a `Response` instead of the guest's.
        on_error: Called with the ASGI scope (or WSGI environ) and the exception when the guest has no response; may be
            a coroutine function, except under WSGI. It may return a `Response`; None: the default one.
        on_finish: Called with each finished `Exchange`, however it ended, on a thread of wasgi, one call at a time. At
            most 1024 exchanges wait for it; more are dropped (`Stats.dropped`). It must not be a coroutine function.
        debug: Whether error responses have details, with the guest's backtrace.

    Raises:
        ComponentError: The component cannot be loaded.
        MissingImportError: It has an import that is not provided.
        TypeError: An option of the wrong type.
        ValueError: An option of the wrong value, say a directory that does not exist.

    Example:
        >>> app = wasgi.App("hello.wasm")
        >>> app.handle(wasgi.Request("GET", "http://example.com/")).text
        'Hello, World!'
    """

    root_path: Literal["strip", "keep"]
    forwarded: bool
    on_request: OnRequest | None
    on_error: OnError | None
    debug: bool

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
        root_path: Literal["strip", "keep"] = "strip",
        forwarded: bool = False,
        on_request: OnRequest | None = None,
        on_error: OnError | None = None,
        on_finish: OnFinish | None = None,
        debug: bool = False,
    ) -> Self:
        app = super().__new__(
            cls,
            component,
            handler=handler,
            outgoing=outgoing,
            env=env,
            args=args,
            dirs=dirs,
            stdout=stdout,
            stderr=stderr,
            limits=limits,
            reuse=reuse,
            simulation=simulation,
            on_finish=on_finish,
        )
        if root_path not in ("strip", "keep"):
            raise ValueError(f'`root_path` must be "strip" or "keep": {root_path!r}')
        for name, callback in (("on_request", on_request), ("on_error", on_error)):
            if callback is not None and not callable(callback):
                raise TypeError(f"`{name}` must be callable, or None, not {type(callback).__name__}")
        for name, flag in (("forwarded", forwarded), ("debug", debug)):
            if not isinstance(flag, bool):  # `"no"` is true
                raise TypeError(f"`{name}` must be a bool, not {type(flag).__name__}")
        app.root_path = root_path
        app.forwarded = forwarded
        app.on_request = on_request
        app.on_error = on_error
        app.debug = debug
        return app

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Serves one scope of an ASGI server."""
        await _asgi().serve(self, scope, receive, send)

    @property
    def wsgi(self) -> Callable[[dict[str, Any], Callable[..., Any]], Any]:
        """This app as a WSGI application (PEP 3333)."""
        from wasgi.serving.wsgi import Wsgi

        return Wsgi(self)
