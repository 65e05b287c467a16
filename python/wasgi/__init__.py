"""Run WebAssembly components that speak ``wasi:http`` from Python."""

import atexit as _atexit
import os as _os

from wasgi import errors
from wasgi._wasgi import App, Component, Dir, Limits, Report, Request, Response, Timeouts, _after_fork, _shut_down
from wasgi.errors import (
    BodyError,
    ComponentError,
    ErrorCode,
    FuelExhaustedError,
    GuestError,
    GuestExitError,
    GuestTimeoutError,
    InvalidComponentError,
    MemoryLimitError,
    MissingImportError,
    NoResponseError,
    OverloadedError,
    TrapError,
    UnsupportedComponentError,
    WasgiError,
)
from wasgi.headers import Headers

__all__ = [
    "App",
    "BodyError",
    "Component",
    "ComponentError",
    "Dir",
    "ErrorCode",
    "FuelExhaustedError",
    "GuestError",
    "GuestExitError",
    "GuestTimeoutError",
    "Headers",
    "InvalidComponentError",
    "Limits",
    "MemoryLimitError",
    "MissingImportError",
    "NoResponseError",
    "OverloadedError",
    "Report",
    "Request",
    "Response",
    "Timeouts",
    "TrapError",
    "UnsupportedComponentError",
    "WasgiError",
    "errors",
]

_atexit.register(_shut_down)
if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(after_in_child=_after_fork)
