"""Exceptions of upstreams: the faults that a test injects, and the failures of its own code."""

from __future__ import annotations

import asyncio
import difflib
import os
import traceback
from collections.abc import Iterator
from types import TracebackType

from wasgi import errors
from wasgi._native import failures

__tracebackhide__ = True  # in pytest's reports: a test's own line is what is wanted there

_INJECTED = "_wasgi_injected"
_OURS = os.path.dirname(os.path.abspath(errors.__file__)) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_PACKAGES = os.path.join(_LIBRARY, "site-packages", "")

Fault = str | BaseException | type[BaseException]


def fault_of(fault: Fault) -> BaseException:
    """The exception that a fault means: by the name of its error-code, by its class, or itself."""
    if isinstance(fault, str):
        try:
            return errors.ERROR_CODES[fault]()
        except KeyError:
            near = difflib.get_close_matches(fault, errors.ERROR_CODES, 1, 0)
            raise ValueError(f"no error-code is called {fault!r}; hint: {near[0]!r} is") from None
    if isinstance(fault, BaseException):
        return fault
    if isinstance(fault, type) and issubclass(fault, BaseException):
        return fault()
    raise TypeError(f"a fault must be the name of an error-code or an exception, not {type(fault).__name__}")


def inject(error: BaseException) -> BaseException:
    """Marks an exception as a fault that the test injects: it is not a failure of the test."""
    error.__dict__[_INJECTED] = True
    return error


def is_failure(error: BaseException) -> bool:
    """Whether an exception of an upstream means that the test's own code has failed.

    Not an injected fault; nor an error of the network that a client of httpx reports (or its mock); nor the failure of
    another guest that the upstream has called.
    """
    if isinstance(error, errors.WasgiError | asyncio.CancelledError) or _INJECTED in error.__dict__:
        return False
    is_of_client = any(cls.__module__.partition(".")[0] in ("httpx", "httpx2") for cls in type(error).__mro__)
    return not (is_of_client and failures.counterpart(error) is not None)


def described(error: BaseException) -> str:
    """An exception and its causes, each with the frames of the test's own code."""
    lines = ["".join(traceback.format_exception_only(error)).rstrip(), *_frames(error.__traceback__)]
    seen = {id(error)}
    while cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        if id(cause) in seen:
            break
        seen.add(id(cause))
        lines += [
            f"because of {''.join(traceback.format_exception_only(cause)).rstrip()}",
            *_frames(cause.__traceback__),
        ]
        error = cause
    return "\n".join(lines)


def _frames(trace: TracebackType | None) -> Iterator[str]:
    for frame in traceback.extract_tb(trace):
        if _is_foreign(os.path.abspath(frame.filename)):
            yield f"  {_shown(frame.filename)}:{frame.lineno}: in {frame.name}"
            if frame.line:
                yield f"      {frame.line}"


def _is_foreign(file: str) -> bool:
    """Whether a file belongs neither to this package nor to Python."""
    return not file.startswith(_OURS) and (not file.startswith(_LIBRARY) or file.startswith(_PACKAGES))


def _shown(file: str) -> str:
    """A file's path, relative to the working directory if it is below that."""
    here = os.getcwd() + os.sep
    return file.removeprefix(here)


def failed(error: BaseException) -> str:
    """The complaint about a failure of the test's own code."""
    return (
        f"the test's own upstream failed: {described(error)}\n"
        "  hint: raise a `wasgi.ErrorCode` to give the component an error-code; `allow_errors=True` allows all"
    )
