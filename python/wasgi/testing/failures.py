"""Exceptions of upstreams: which of them mean that a test's own code has failed, and where."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import Iterator
from types import TracebackType

from wasgi import errors

_INJECTED = "_wasgi_injected"
_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_PACKAGES = os.path.join(_LIBRARY, "site-packages", "")


def inject(error: BaseException) -> BaseException:
    """Marks an exception that a test wants to be raised: it is not the test's failure."""
    error.__dict__[_INJECTED] = True
    return error


def is_failure(error: BaseException) -> bool:
    """Whether an exception of an upstream means that the test's own code has failed.

    Not if it was to be raised; nor what a client of httpx tells of its network (or of the mock of one); nor what a
    guest or its host has failed with, whom an upstream has asked or read from.
    """
    if isinstance(error, errors.WasgiError | asyncio.CancelledError) or _INJECTED in error.__dict__:
        return False
    is_of_client = any(cls.__module__.partition(".")[0] in ("httpx", "httpx2") for cls in type(error).__mro__)
    return not (is_of_client and errors._counterpart(error) is not None)


def described(error: BaseException) -> str:
    """An exception with the frames that are a test's own, and what it was raised because of."""
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
    """Whether it is neither ours nor Python's own."""
    return not file.startswith(_OURS) and (not file.startswith(_LIBRARY) or file.startswith(_PACKAGES))


def _shown(file: str) -> str:
    """A file's path, from the working directory if it is below that."""
    here = os.getcwd() + os.sep
    return file.removeprefix(here)
