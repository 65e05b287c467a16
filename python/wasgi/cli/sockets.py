"""Descriptors that sockets are, or must not be. The binding itself is native: by the rules of `wasgi.Server`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence

from wasgi.cli.failures import UNUSABLE, USAGE, Failure


@contextlib.contextmanager
def failures_of_binding(origins: Mapping[str, str]) -> Iterator[None]:
    """What cannot be used ends the command.

    Args:
        origins: Where each address comes from: an option, a variable, the key of a file.

    Raises:
        Failure: In one line.
    """
    try:
        yield
    except ValueError as exc:
        message = str(exc)
        origin = next((where for text, where in origins.items() if message.startswith(f"`{text}` ")), None)
        raise Failure(message if origin is None else f"{origin}: {message}", USAGE) from exc
    except OSError as exc:
        raise Failure(str(exc), UNUSABLE) from exc


def check_addresses(origins: Mapping[str, str]) -> None:
    """Looks at how addresses are written, before anything is loaded.

    Args:
        origins: As of `failures_of_binding`.

    Raises:
        Failure: One of them is none.
    """
    from wasgi import _wasgi

    with failures_of_binding(origins):
        _wasgi._check_addresses(list(origins))


def of_systemd() -> list[str]:
    """The sockets that systemd passes to this process, as `fd:N`. The variables are removed: they are for no other.

    Raises:
        Failure: The variables are not as systemd sets them.
    """
    from wasgi import _wasgi

    with failures_of_binding({}):
        found = _wasgi._of_systemd()
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"):
        os.environ.pop(name, None)
    return found


def fill_standard_descriptors() -> None:
    """Opens nothing as stdin, stdout or stderr where the starter has closed them.

    Otherwise a socket would get the number of one of them: it would be printed to, and no worker could inherit it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(number)


def take_all_descriptors() -> None:
    """Raises the limit of open files as far as this user may: a connection takes two, and many systems give 1024."""
    try:
        import resource
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # where the hard limit is none, as on macOS, the system has one of its own
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def keep_from_children(binds: Sequence[str]) -> None:
    """Inherited sockets end with this process: the processes that it starts do not get them."""
    for number in _inherited(binds):
        # what is wrong with one, whoever serves it says
        with contextlib.suppress(OSError, OverflowError):
            os.set_inheritable(number, False)


def give_up(binds: Sequence[str]) -> None:
    """Closes inherited sockets: the server has them, too.

    While this process had them open, connections would wait that nobody accepts when the server drains.
    """
    for number in _inherited(binds):
        with contextlib.suppress(OSError):
            os.close(number)


def _inherited(binds: Sequence[str]) -> list[int]:
    numbers = [text.removeprefix("fd:") for text in binds if text.startswith("fd:")]
    return [int(number) for number in numbers if number.isascii() and number.isdigit()]
