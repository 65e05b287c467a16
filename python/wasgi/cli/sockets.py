"""Listening sockets that several processes share: their parent binds them, by the rules of `wasgi.Server`."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from wasgi.cli.failures import UNUSABLE, USAGE, Failure

_ATTEMPTS = 20
"""How often a port is chosen until all addresses of a name have it free."""


@dataclass
class Bound:
    """A bind with its sockets."""

    sockets: list[socket.socket] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    """Where a browser finds it."""
    owned: tuple[str, int, int] | None = None
    """The file of a Unix socket that this process made: its path, device and inode."""

    def close(self) -> None:
        """Closes the sockets. A socket's file goes, if it is still the one that was made."""
        for one in self.sockets:
            one.close()
        if self.owned is not None:
            path, *made = self.owned
            with contextlib.suppress(OSError):
                there = os.lstat(path)
                if [there.st_dev, there.st_ino] == made:
                    os.unlink(path)


@dataclass(frozen=True)
class Listening:
    """How sockets listen."""

    backlog: int = 1024
    reuse_port: bool = False
    scheme: str = "http"


def bind(text: str, how: Listening) -> Bound:
    """Binds `HOST:PORT`, `[V6]:PORT`, `unix:PATH` or `fd:N`, and listens.

    Raises:
        Failure: It is none of these, or cannot be bound.
    """
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"), how.backlog)
    if text.startswith("fd:"):
        return _inherited(text, how.scheme)
    host, port = address(text)
    return _tcp(text, host, port, how)


def address(text: str) -> tuple[str, int]:
    """The host and the port of `HOST:PORT`.

    Raises:
        Failure: It is not one.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise Failure(f"`{text}` is not HOST:PORT", USAGE, hint="an IPv6 address stands in brackets: [::1]:8000")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise Failure(f"`{text}` is not HOST:PORT, unix:PATH or fd:N", USAGE)
    return host, int(port)


def joined(host: str, port: int) -> str:
    """`HOST:PORT`, with the brackets of an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tcp(text: str, host: str, port: int, how: Listening) -> Bound:
    try:
        # a name with a hyphen at its end, say, fails in the codec
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise Failure(f"`{text}` cannot be bound: no address of `{host}` is known", UNUSABLE) from exc
    addresses = list(dict.fromkeys((family, where) for family, _, _, _, where in found))
    attempts = _ATTEMPTS if port == 0 else 1
    while True:
        attempts -= 1
        try:
            sockets = _all_of(addresses, how)
        except OSError as exc:
            # all addresses have the same port: one that the system chose for the first may be taken at the second
            if attempts > 0 and exc.errno == errno.EADDRINUSE:
                continue
            raise Failure(f"`{text}` cannot be bound: {exc.strerror}", UNUSABLE, hint=_hint(exc)) from exc
        return Bound(sockets, [url_of(one.getsockname(), how.scheme) for one in sockets])


def _hint(error: OSError) -> str | None:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; --port 0 takes a free port"
    if error.errno == errno.EACCES:
        return "ports below 1024 need CAP_NET_BIND_SERVICE, or a socket of systemd's"
    return None


def _all_of(addresses: Sequence[tuple[int, tuple[Any, ...]]], how: Listening) -> list[socket.socket]:
    """Listens at each address, or at none; an address of a family that the machine does not have is left out."""
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, where in addresses:
            # the first one's port is that of all
            port = sockets[0].getsockname()[1] if sockets else where[1]
            try:
                sockets.append(_listening(family, (where[0], port, *where[2:]), how))
            except OSError as exc:
                if exc.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                missing = exc
        if not sockets and missing is not None:
            raise missing
    except BaseException:
        for one in sockets:
            one.close()
        raise
    return sockets


def _listening(family: int, where: tuple[Any, ...], how: Listening) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `::` is every address, of IPv4, too
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, where[0] != "::")
        if how.reuse_port:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(where)
        one.listen(how.backlog)
        one.setblocking(False)
    except BaseException:
        one.close()
        raise
    return one


def url_of(where: object, scheme: str) -> str:
    """A URL that opens what listens at an address: `0.0.0.0` is no host to ask for."""
    if not isinstance(where, tuple):
        path = where.decode(errors="replace") if isinstance(where, bytes) else str(where)
        return f"unix:{path}"
    host, port = where[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{scheme}://{host}:{port}/"


def _unix(path: str, backlog: int) -> Bound:
    if not path or "\0" in path:
        raise Failure(f"`unix:{path}` has no path", USAGE)
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise Failure(f"`unix:{path}` cannot be bound: {exc.strerror}", UNUSABLE) from exc
    else:
        if not stat.S_ISSOCK(there.st_mode):
            raise Failure(f"`unix:{path}` cannot be bound: there is a file that is not a socket", UNUSABLE)
        if _is_alive(path):
            raise Failure(f"`unix:{path}` cannot be bound: another program listens there", UNUSABLE)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # the umask makes its mode, so that it is never wider than it should be
        one.bind(path)
        made = os.lstat(path)
        one.listen(backlog)
        one.setblocking(False)
    except OSError as exc:
        one.close()
        raise Failure(f"`unix:{path}` cannot be bound: {exc.strerror or exc}", UNUSABLE) from exc
    return Bound([one], [f"unix:{path}"], (path, made.st_dev, made.st_ino))


def _is_alive(path: str) -> bool:
    """Whether somebody listens: what cannot be told counts as alive."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def fill_standard_descriptors() -> None:
    """Opens nothing as stdin, stdout or stderr where the starter has closed them.

    Otherwise a socket would get the number of one of them: it would be printed to, and no worker could inherit it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(number)


def keep_from_children(binds: Sequence[str]) -> None:
    """Inherited sockets end with this process: the processes that it starts do not get them.

    Raises:
        Failure: One of them is not open.
    """
    for text in binds:
        if text.startswith("fd:"):
            try:
                os.set_inheritable(descriptor(text), False)
            except (OSError, OverflowError) as exc:
                reason = exc.strerror if isinstance(exc, OSError) else "there is no such descriptor"
                raise Failure(f"`{text}` cannot be used: {reason}", UNUSABLE) from exc


def descriptor(text: str) -> int:
    """The number of `fd:N`.

    Raises:
        Failure: It is no number, or no socket that listens.
    """
    number = text.removeprefix("fd:")
    if not (number.isascii() and number.isdigit()):
        raise Failure(f"`{text}` is not fd:N", USAGE)
    return int(number)


def _inherited(text: str, scheme: str) -> Bound:
    number = descriptor(text)
    try:
        # what it is, the kernel says; and whether it listens already: then `listen` is not called again
        one = socket.socket(fileno=os.dup(number))
        listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as exc:
        raise Failure(f"`{text}` cannot be used: {exc.strerror}", UNUSABLE) from exc
    if not listens:
        one.close()
        raise Failure(f"`{text}` cannot be used: it is not a socket that listens", UNUSABLE)
    one.setblocking(False)
    return Bound([one], [url_of(one.getsockname(), scheme)])


def of_systemd() -> list[str]:
    """The sockets that systemd passes to this process, as `fd:N`. The variables are removed: they are for no other."""
    count, process = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_PID", "")
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"):
        os.environ.pop(name, None)
    if process != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []
    return [f"fd:{number}" for number in range(3, 3 + int(count))]
