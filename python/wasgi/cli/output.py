"""Standard output and standard error, whatever they are: terminals, pipes whose readers have gone, nothing."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import IO, Any


def has_colours(stream: IO[str] | None) -> bool:
    """Whether a stream is a terminal whose user wants colours (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return is_terminal(stream)


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether somebody watches."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def styled(text: str, code: str, *, stream: IO[str] | None = None) -> str:
    """The text with an SGR code (`"1"` is bold), where the stream shows it; stdout if none is given."""
    return f"\x1b[{code}m{text}\x1b[0m" if has_colours(stream or sys.stdout) else text


def tell(text: str) -> None:
    """Writes to stderr: what the user is told beside the output. Nothing happens if nobody can read it."""
    from wasgi._native.output import escaped

    if sys.stderr is None:
        return
    lines = [escaped(line) for line in text.split("\n")]
    with contextlib.suppress(OSError, ValueError):
        # one write, so that the lines of several processes do not mix
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()


def warn(text: str) -> None:
    """Tells what is odd, and how the command goes on."""
    tell(f"wasgi: warning: {text}")


@contextlib.contextmanager
def whatever_stdout_encodes() -> Iterator[None]:
    """Escapes characters that stdout's encoding does not have: a path may contain any."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper) or stream.errors != "strict":
        yield
        return
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            stream.reconfigure(errors="strict")


@contextlib.contextmanager
def whole_stdout() -> Iterator[None]:
    """Prints all that is printed. Without buffers (PYTHONUNBUFFERED), Python forgets what the system does not take."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(stream.buffer, io.RawIOBase):
        yield
        return
    buffered = io.BufferedWriter(stream.buffer)
    sys.stdout = io.TextIOWrapper(
        buffered, encoding=stream.encoding, errors=stream.errors, line_buffering=True, write_through=True
    )
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.detach()
            buffered.detach()
        sys.stdout = stream


def write(data: bytes) -> None:
    """Writes bytes to stdout, all of them and at once; waits for the reader, also of a pipe that does not block.

    Raises:
        OSError: They cannot be written.
    """
    sys.stdout.flush()
    out: Any = sys.stdout.buffer
    out.flush()
    out = getattr(out, "raw", out)
    left = memoryview(data)
    while left:
        taken = out.write(left)
        if taken is None:
            select.select([], [out], [])
        else:
            left = left[taken:]


def give_stdout_up() -> None:
    """Discards output that cannot be written, so that the interpreter does not try again at exit."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """A spinner on stderr while something takes long; nothing where nobody watches."""
    if not has_colours(sys.stderr):
        yield
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(what)):
        yield
