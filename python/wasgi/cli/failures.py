"""What ends a command: a line for the user, and an exit code."""

from __future__ import annotations

import re

from wasgi.errors import AppClosedError, ComponentError, GuestError, WasgiError

FAILED = 1
"""It did not run, or it failed."""
USAGE = 2
"""The command line, a variable or a configuration file is wrong."""
UNUSABLE = 3
"""A component, a certificate or a port cannot be used."""
INTERRUPTED = 130
"""Ctrl-C."""

EXIT_CODES = {
    0: "it did what was asked; a server that was told to stop has drained",
    FAILED: "it did not run, or it failed: the guest trapped, say",
    USAGE: "the command line, a variable or a configuration file is wrong",
    UNUSABLE: "a component, a certificate or a port cannot be used",
    INTERRUPTED: "Ctrl-C",
}


class Failure(Exception):
    """Ends the command.

    Args:
        message: What is wrong, in one line.
        code: The exit code.
        hint: What the user can do about it.
    """

    def __init__(self, message: str, code: int = FAILED, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}; hint: {self.hint}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (self.message, self.code, self.hint))


def _restore(message: str, code: int, hint: str | None) -> Failure:
    return Failure(message, code, hint=hint)


def in_options(text: str) -> str:
    """An error's words for a user of the command line: `Limits.queue_timeout` is an option there."""
    text = text.replace("`Network.addresses`", "`--address`")
    # of `Reuse` some are for Python alone
    option = r"(?<=`)(?:Limits\.|Reuse\.(?=isolated`|concurrent`))(\w+)(?=`)"
    return re.sub(option, lambda found: f"--{found[1].replace('_', '-')}", text)


def line_of(error: BaseException) -> str:
    """What an error says, in one line: of a text that cannot be parsed, where instead of what stands there."""
    text = in_options(str(error))
    line = text.partition("\n")[0]
    place = re.search(r"^ *--> .*?:(\d+):(\d+)$", text, re.MULTILINE)
    return line if place is None else f"{line} (line {place[1]}, column {place[2]})"


def failure_of(error: BaseException) -> Failure:
    """How an error ends a command that is to serve apps, or to load a component."""
    if isinstance(error, Failure):
        return error
    if not isinstance(error, WasgiError):
        return Failure(str(error), FAILED)
    unusable = isinstance(error, (ComponentError, GuestError, AppClosedError))
    return Failure(line_of(error), UNUSABLE if unusable else FAILED)


def unreadable(path: object, error: OSError) -> Failure:
    """A file that a command cannot do without, and that cannot be read."""
    return Failure(f"`{path}` cannot be read: {error.strerror or error}", UNUSABLE)


def nearest(name: str, names: list[str]) -> str | None:
    """A hint of the name that was probably meant."""
    import difflib

    found = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean `{found[0]}`?" if found else None
