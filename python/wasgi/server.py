"""`Server`: the native HTTP server."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from wasgi import _wasgi, errors

if TYPE_CHECKING:
    from wasgi.app import App


class ServerStats(NamedTuple):
    """The numbers of a `Server`."""

    connections: int
    """Open connections."""
    accepted: int
    """Connections accepted since the server was made."""
    requests: int
    """Requests since the server was made, refused ones included."""
    swapped: int
    """Apps that `Server.swap` has replaced and that still have exchanges under way."""


@dataclasses.dataclass(frozen=True)
class Tls:
    """A server's certificate, and whose certificates it wants to see.

    Args:
        certificate: A file in PEM: the server's certificate, and those between it and an authority.
        key: A file in PEM: the certificate's key.
        client_ca: A file in PEM: the authorities of clients' certificates. None: clients are not asked for one.
        client_certificates: Whether a client without a certificate is refused (``"required"``) or served
            (``"optional"``).

    Raises:
        ValueError: `client_certificates` is something else.
    """

    certificate: str | os.PathLike[str]
    key: str | os.PathLike[str]
    client_ca: str | os.PathLike[str] | None = None
    client_certificates: Literal["required", "optional"] = "required"

    def __post_init__(self) -> None:
        if self.client_certificates not in ("required", "optional"):
            raise ValueError(f'`client_certificates` must be "required" or "optional": {self.client_certificates!r}')

    def _files(self) -> tuple[str, str, str | None, bool]:
        authorities = None if self.client_ca is None else os.fspath(self.client_ca)
        return os.fspath(self.certificate), os.fspath(self.key), authorities, self.client_certificates == "required"


class Server(_wasgi.Server):
    """A native HTTP server for apps: HTTP/1.1 and HTTP/2 by hyper, with no Python between the client and the guest.

    Python code runs only where an app has it: a Python upstream, a sink, ``on_finish``. The options ``root_path``,
    ``forwarded`` and ``debug`` of an `App` hold here as under ASGI; ``on_request`` and ``on_error`` are for ASGI and
    WSGI, and an app that has them is refused.

    The server listens as soon as it is made, and serves with `serve`, `serve_async` or `start`.

    Args:
        app: An `App`, or a mapping of routes to apps. A route is the beginning of a path (``/api``), or an origin with
            or without one (``https://shop.local``, ``//shop.local/x``). The longest one that fits counts, and one with
            a host before one without.
        bind: An address, or several: ``127.0.0.1:8000``, ``[::1]:8000``, ``localhost:8000`` (all addresses of the
            name), ``unix:/run/x.sock``, ``fd:3`` (a socket that listens already).
        static: Folders whose files are served, by their routes: ``{"/assets": "./dist"}``. Ranges and conditional
            requests are answered; hidden files and links out of the folder are not found.
        tls: The certificate and its key; None: no TLS. Files that change are loaded again within seconds; a pair that
            cannot be used leaves the former one in use.
        header_timeout: Seconds from accept to the end of the first head, through the PROXY header and TLS; and for
            each later head from its first byte. None: no limit.
        body_timeout: Seconds between two bytes of a body, of a request or a response. None: no limit.
        idle_timeout: Seconds for which a connection may be idle. None: no limit.
        drain_timeout: Seconds that exchanges under way may take when the server closes, or after `swap`.
        connections: The most open connections. More wait to be accepted.
        streams: The most concurrent streams of a connection of HTTP/2.
        header_bytes: The most bytes of a request's head, of HTTP/1 and HTTP/2 alike; a larger one is answered with 431.
        backlog: How many connections may wait to be accepted.
        reuse_port: Whether other servers of the same user may listen at the same addresses (``SO_REUSEPORT``), if all
            of them say so. The kernel gives each connection to one of them. Of TCP.
        trusted: The proxies whose ``forwarded`` and ``x-forwarded-*`` fields are believed: addresses, networks
            (``10.0.0.0/8``), ``unix``, ``*``.
        proxy_protocol: Whether connections begin with a PROXY header (v1 or v2). Only those of ``trusted`` peers may.
        health: An address of its own for ``/live`` and ``/ready``.
        socket_mode: The mode of a Unix socket's file. None: the umask says it.
        access_log: Where each request has a line: a path, or ``-`` for stdout; None: nowhere. `reopen` opens it again.
        access_format: ``common``, ``combined``, ``json``, or a template of atoms as gunicorn names them:
            ``%(h)s "%(r)s" %(s)s %(B)s %(D)s``.
        request_ids: Whether guests get an ``x-request-id`` and a ``traceparent`` where the client has sent none.
        threads: How many threads serve connections. None: as many as there are processors.

    Raises:
        OSError: An address or a certificate cannot be used. Nothing listens then.
        TypeError: An option of the wrong type.
        ValueError: An option of the wrong value.

    Example:
        >>> server = wasgi.Server(wasgi.App("hello.wasm"), bind="127.0.0.1:8000")
        >>> server.serve()  # until SIGTERM or SIGINT
    """

    drain_timeout: float
    """Seconds that exchanges under way may take."""
    _folders: list[tuple[str, str]]
    _apps: list[tuple[str, App]]

    def __new__(
        cls,
        app: App | Mapping[str, App],
        *,
        bind: str | Sequence[str] = "127.0.0.1:8000",
        static: Mapping[str, str | os.PathLike[str]] | None = None,
        tls: Tls | None = None,
        header_timeout: float | None = 10.0,
        body_timeout: float | None = 30.0,
        idle_timeout: float | None = 75.0,
        drain_timeout: float = 30.0,
        connections: int = 10_000,
        streams: int = 100,
        header_bytes: int = 65_536,
        backlog: int = 1024,
        reuse_port: bool = False,
        trusted: Sequence[str] = (),
        proxy_protocol: bool = False,
        health: str | None = None,
        socket_mode: int | None = None,
        access_log: str | os.PathLike[str] | None = None,
        access_format: str = "combined",
        request_ids: bool = False,
        threads: int | None = None,
    ) -> Self:
        addresses = [bind] if isinstance(bind, str) else bind
        if not isinstance(addresses, Sequence) or not all(isinstance(address, str) for address in addresses):
            raise TypeError(f"`bind` must be an address like `127.0.0.1:8000`, or several, not {bind!r}")
        if not addresses:
            raise ValueError("`bind` must name one address at least")
        for name, seconds in (
            ("header_timeout", header_timeout),
            ("body_timeout", body_timeout),
            ("idle_timeout", idle_timeout),
        ):
            if seconds is not None and not (_is_number(seconds) and 0 < seconds < _LONGEST):
                raise ValueError(f"`{name}` must be a number of seconds above 0, or None: {seconds}")
        if not (_is_number(drain_timeout) and 0 <= drain_timeout < _LONGEST):
            raise ValueError(f"`drain_timeout` must be a number of seconds, 0 or more: {drain_timeout}")
        for name, number, least in (
            ("connections", connections, 1),
            ("streams", streams, 1),
            ("header_bytes", header_bytes, 1024),
            ("backlog", backlog, 1),
            ("threads", 1 if threads is None else threads, 1),
        ):
            if not least <= number < 1 << 24:
                raise ValueError(f"`{name}` must be {least} or more, not {number}")
        if tls is not None and not isinstance(tls, Tls):
            raise TypeError(f"`tls` must be a wasgi.Tls, or None, not {type(tls).__name__}")
        if isinstance(trusted, str):
            raise TypeError("`trusted` must be a sequence of str, not one str")
        folders = [(route, os.fspath(folder)) for route, folder in (static or {}).items()]
        table = _table(app)
        server = super().__new__(
            cls,
            table,
            folders,
            bind=list(addresses),
            health=health,
            backlog=backlog,
            reuse_port=reuse_port,
            socket_mode=socket_mode,
            header_timeout=header_timeout,
            body_timeout=body_timeout,
            idle_timeout=idle_timeout,
            drain_timeout=drain_timeout,
            connections=connections,
            streams=streams,
            header_bytes=header_bytes,
            trusted=list(trusted),
            proxy_protocol=proxy_protocol,
            threads=threads,
            tls=None if tls is None else tls._files(),
            access_log=access_log,
            access_format=access_format,
            request_ids=request_ids,
        )
        server.drain_timeout = drain_timeout
        server._folders = folders
        server._apps = table
        return server

    def start(self) -> None:
        """Serves from now on, on threads of its own; does not wait.

        Raises:
            AppClosedError: An app is closed.
            WasgiError: The process gets no more threads, or an app cannot be made ready; the server has ended then. Or
                the server is closed: make another one.
        """
        self._refuse_if_closed()
        self._start_ready()

    def serve(self, *, on_start: Callable[[], object] | None = None) -> None:
        """Serves until the server is closed, and blocks; the GIL is released.

        On the main thread SIGTERM and SIGINT close it: exchanges under way may end within `drain_timeout`, and a second
        signal ends them at once.

        Args:
            on_start: Called when the server serves, and a signal would end it well. If it raises, or the handler of
                another signal, the server ends at once.

        Raises:
            AppClosedError: An app is closed.
            WasgiError: The process gets no more threads, an app cannot be made ready, or the server is closed.
        """
        self._refuse_if_closed()
        with self._signals():
            self._start_ready()
            try:
                if on_start is not None:
                    on_start()
                self._wait()
            finally:
                if not self.closing:
                    self._close(0)

    async def serve_async(self) -> None:
        """Serves until the server is closed. Cancelling the task ends all exchanges at once.

        Raises:
            AppClosedError: An app is closed.
            WasgiError: As of `serve`.
        """
        self._refuse_if_closed()
        with self._signals():
            self._start_ready()
            try:
                await self._wait_async()
            finally:
                if not self.closing:
                    self._close(0)

    def swap(self, app: App | Mapping[str, App]) -> None:
        """Has requests that come from now on served by other apps.

        Those under way go on in the old ones, for as long as `drain_timeout`; then they are stopped. The old apps are
        not closed.

        Raises:
            AppClosedError: An app is closed.
            WasgiError: An app cannot be made ready. In both cases the old ones go on serving. Or the server is closed.
        """
        self._refuse_if_closed()
        table = _table(app)
        _make_ready(table)
        self._swap(table, self._folders)

    def close(self, timeout: float | None = None) -> None:
        """Takes no more connections, lets exchanges under way end, and waits until nothing is left of the server.

        Args:
            timeout: Seconds that they may take; then they are stopped. None: `drain_timeout`. Of several calls the
                shortest time counts.

        Raises:
            ValueError: `timeout` is below 0.
        """
        self._close(self._bound(timeout))
        self._wait()

    async def aclose(self, timeout: float | None = None) -> None:
        """Like `close`, for a task of an asyncio event loop."""
        self._close(self._bound(timeout))
        await self._wait_async()

    def _refuse_if_closed(self) -> None:
        if self.closing:
            raise errors.WasgiError("the server is closed; hint: make another `wasgi.Server`")

    def _start_ready(self) -> None:
        _make_ready(self._apps)
        self._apps = []
        self._start()

    def _bound(self, timeout: float | None) -> float:
        if timeout is None:
            return self.drain_timeout
        if not timeout >= 0:
            raise ValueError(f"`timeout` must be a number of seconds, 0 or more: {timeout}")
        return timeout

    @property
    def stats(self) -> ServerStats:
        """What the server has counted."""
        return ServerStats(*self._stats())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<wasgi.Server {' '.join(self.addresses)}>"

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT close the server: the first one lets exchanges end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def close(number: int, frame: FrameType | None) -> None:
            self._close(0 if self.closing else self.drain_timeout)

        before: dict[signal.Signals, Any] = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            # one that the process was started to ignore (`nohup`, `&`) is meant for others
            if signal.getsignal(number) is not signal.SIG_IGN:
                # one that C code has installed is None, and cannot be set again
                before[number] = signal.signal(number, close) or signal.SIG_DFL
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


_LONGEST = float(1 << 31)


def _is_number(given: object) -> bool:
    return isinstance(given, (int, float)) and not isinstance(given, bool)


def _table(app: App | Mapping[str, App]) -> list[tuple[str, App]]:
    table = list(app.items()) if isinstance(app, Mapping) else [("/", app)]
    for route, served in table:
        if not isinstance(served, _wasgi.App):
            raise TypeError(f"a server serves `wasgi.App`s, not {type(served).__name__} (at {route!r})")
        for name in ("on_request", "on_error"):
            if getattr(served, name) is not None:
                raise ValueError(
                    f"`{name}` of the app at {route!r} would never be called: it is for ASGI and WSGI servers; "
                    "hint: mount the app in an ASGI application"
                )
    return table


def _make_ready(table: list[tuple[str, App]]) -> None:
    """Makes the instances that are to wait for their first exchange (`Reuse.ready`)."""
    for served in {id(served): served for _, served in table}.values():
        served._make_ready()


def serve(app: App | Mapping[str, App], **options: Any) -> None:
    """Serves apps until SIGTERM or SIGINT: short for ``wasgi.Server(app, ...).serve()``.

    Args:
        app: As of `Server`.
        options: Those of `Server`, and ``host`` and ``port`` for one address.
    """
    Server(app, **_with_bind(options)).serve()


async def serve_async(app: App | Mapping[str, App], **options: Any) -> None:
    """Like `serve`, for a task of an asyncio event loop."""
    await Server(app, **_with_bind(options)).serve_async()


def _with_bind(options: dict[str, Any]) -> dict[str, Any]:
    host, port = options.pop("host", None), options.pop("port", None)
    if host is None and port is None:
        return options
    if "bind" in options:
        raise TypeError("`bind` says all that `host` and `port` say: give one or the other")
    host = "127.0.0.1" if host is None else os.fspath(host)
    return {**options, "bind": joined(host, 8000 if port is None else port)}


def joined(host: str, port: int) -> str:
    """``HOST:PORT``, with the brackets of an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
