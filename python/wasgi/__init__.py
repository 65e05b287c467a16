"""Run WebAssembly components that speak ``wasi:http`` from Python."""

import atexit as _atexit

# the native module asks for it when a guest has to wait: the standard library may be out of reach by then (`setuid`)
import contextvars as _contextvars  # noqa: F401
import os as _os
import typing as _typing

from wasgi import errors
from wasgi._wasgi import (
    Component,
    ComponentLimits,
    Dir,
    Exchange,
    Limits,
    Network,
    Report,
    Request,
    Response,
    Reuse,
    Stats,
    Timeouts,
    _after_fork,
    _after_fork_in_parent,
    _before_fork,
    _is_first_import,
    _shut_down,
    stats,
)
from wasgi._wasgi import __version__ as __version__
from wasgi.app import App
from wasgi.errors import (
    AppClosedError,
    BodyError,
    ComponentError,
    ComponentLimitError,
    ErrorCode,
    FieldsLimitError,
    FuelExhaustedError,
    GuestError,
    GuestExitError,
    GuestTimeoutError,
    HandleLimitError,
    InstanceLimitError,
    InvalidComponentError,
    MemoryLimitError,
    MissingImportError,
    NoResponseError,
    OverloadedError,
    TableLimitError,
    TrapError,
    UnsupportedComponentError,
    WasgiError,
)
from wasgi.headers import Headers

__all__ = [
    "App",
    "AppClosedError",
    "BodyError",
    "Component",
    "ComponentError",
    "ComponentLimitError",
    "ComponentLimits",
    "Dir",
    "ErrorCode",
    "Exchange",
    "FieldsLimitError",
    "FuelExhaustedError",
    "GuestError",
    "GuestExitError",
    "GuestTimeoutError",
    "HandleLimitError",
    "Headers",
    "InstanceLimitError",
    "InvalidComponentError",
    "Limits",
    "MemoryLimitError",
    "MissingImportError",
    "Network",
    "NoResponseError",
    "OverloadedError",
    "Report",
    "Request",
    "Response",
    "Reuse",
    "Server",
    "ServerStats",
    "Stats",
    "TableLimitError",
    "Timeouts",
    "Tls",
    "TrapError",
    "UnsupportedComponentError",
    "WasgiError",
    "errors",
    "serve",
    "serve_async",
    "stats",
]
# not in it, for `from wasgi import *` must not hide anybody's httpx; but in `dir(wasgi)`
_LAZY = ("httpx", "outgoing", "testing")
_OF_SERVER = ("Server", "ServerStats", "Tls", "serve", "serve_async")

if _typing.TYPE_CHECKING:
    from wasgi import httpx as httpx
    from wasgi import outgoing as outgoing
    from wasgi import testing as testing
    from wasgi.server import Server as Server
    from wasgi.server import ServerStats as ServerStats
    from wasgi.server import Tls as Tls
    from wasgi.server import serve as serve
    from wasgi.server import serve_async as serve_async
else:

    def __getattr__(name: str) -> object:
        """Modules that are not imported until they are used: they bring asyncio, which would double the time."""
        if name in _LAZY:
            import importlib

            return importlib.import_module(f"wasgi.{name}")
        if name in _OF_SERVER:
            from wasgi import server

            return getattr(server, name)
        raise AttributeError(f"module 'wasgi' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LAZY, *_OF_SERVER})


if _is_first_import():
    _atexit.register(_shut_down)
    if hasattr(_os, "register_at_fork"):
        _os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
