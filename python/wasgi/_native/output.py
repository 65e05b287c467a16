"""Lines that guests print, and log records: where they go, and what of them is safe to show."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

from wasgi._native.context import extra_of

_logs = {
    "stdout": (logging.getLogger("wasgi.guest"), logging.INFO),
    "stderr": (logging.getLogger("wasgi.guest"), logging.WARNING),
    "outgoing": (logging.getLogger("wasgi.outgoing"), logging.WARNING),
    "host": (logging.getLogger("wasgi"), logging.WARNING),
    "news": (logging.getLogger("wasgi"), logging.INFO),
}
"""The logger and level of each stream of a guest."""


class Line(str):
    """A line that a guest printed, without its newline.

    Attributes:
        stream: ``"stdout"`` or ``"stderr"``.
        exchange: The number of the exchange, as in `Response.report`.
        cut: Whether the line was longer than 64 KiB, and goes on in the next one of its stream.
    """

    __slots__ = ("cut", "exchange", "stream")

    stream: str
    exchange: int
    cut: bool

    def __new__(cls, text: str, stream: str, exchange: int, cut: bool) -> Line:
        line = super().__new__(cls, text)
        line.stream = stream
        line.exchange = exchange
        line.cut = cut
        return line

    def __getnewargs__(self) -> tuple[str, str, int, bool]:  # type: ignore[override]
        return str(self), self.stream, self.exchange, self.cut


# Control characters move a terminal's cursor: an untrusted guest could forge lines of others.
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x09}
# Nor may a guest's line contain a line separator, or change the direction of the text.
_ESCAPED |= {code: f"\\u{code:04x}" for code in (0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))}


def escaped(text: str) -> str:
    """A guest's line as a single line that no terminal interprets: control characters are escaped."""
    return text.translate(_ESCAPED)


class _ToStderr(logging.Handler):
    """Writes to whatever `sys.stderr` is at that time, with the component's name before the message."""

    _formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        if (stderr := sys.stderr) is None:
            return
        try:
            component = getattr(record, "wasgi_component", None)
            text = f"{component}: {record.getMessage()}" if component else record.getMessage()
            lines = [text]
            if record.exc_info:
                lines += self._formatter.formatException(record.exc_info).splitlines()
            stderr.write("".join(escaped(line) + "\n" for line in lines))
            stderr.flush()
        except Exception:
            self.handleError(record)


_to_stderr = _ToStderr()


def _has_level(log: logging.Logger) -> bool:
    """Whether the user has set a level on the logger or on one above. The root's default level does not count."""
    above: logging.Logger | None = log
    while above is not None and above is not logging.root:
        if above.level:
            return True
        above = above.parent
    return False


def log_line(text: str, stream: str, component: str, app: str, exchange: int) -> None:
    """Logs a guest's line (stdout as INFO, stderr as WARNING), or a message of its host."""
    log, level = _logs[stream]
    extra = extra_of(component, app, exchange)
    extra["wasgi_stream"] = stream if stream in ("stdout", "stderr") else "host"
    say(log, level, escaped(text), extra)


def is_unheard(stream: str) -> bool:
    """Whether no handler would emit a line of this stream. The native module then needs no thread to log it."""
    return _is_unheard(*_logs[stream])


def _is_unheard(log: logging.Logger, level: int) -> bool:
    if log.hasHandlers() or _has_level(log) or log.manager.disable >= level:
        return not log.isEnabledFor(level)
    return log.disabled  # it goes to stderr


def say(
    log: logging.Logger,
    level: int,
    text: str,
    extra: dict[str, object] | None,
    error: BaseException | None = None,
) -> None:
    """Logs a message. While no handler is configured it goes to stderr, with the component's name.

    `logging`'s own fallback would show warnings only, and not name the component.
    """
    if _is_unheard(log, level):
        return
    if log.hasHandlers():
        log.log(level, "%s", text, exc_info=error, extra=extra)
        return
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    record = log.makeRecord(log.name, level, "", 0, "%s", (text,), exc_info, extra=extra)
    if log.filter(record):
        _to_stderr.handle(record)


def check_text_file(name: str, file: Any) -> None:
    """Refuses a file that lines cannot be written to. Without this check each line would be lost later.

    Raises:
        TypeError: It is a binary file.
        ValueError: It is closed, or not writable.
    """
    mode = getattr(file, "mode", None)
    is_binary = isinstance(mode, str) and "b" in mode and getattr(file, "encoding", None) is None
    if isinstance(file, io.RawIOBase | io.BufferedIOBase) or is_binary:
        raise TypeError(f'`{name}` must be a text file, not a binary one; hint: `open(..., "a", encoding="utf-8")`')
    if getattr(file, "closed", None) is True:
        raise ValueError(f"`{name}` is a file that is closed")
    writable = getattr(file, "writable", None)
    if callable(writable) and writable() is False:
        raise ValueError(f'`{name}` is a file that cannot be written to; hint: open it in mode "a" or "w"')
