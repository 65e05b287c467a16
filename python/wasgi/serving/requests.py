"""A request as a server has read it: its target, and requests that no guest can receive."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, AnyStr

# RFC 3986, 3.3: the characters that a segment of a path may contain unescaped
IN_A_PATH = "/:@!$&'()*+,;=~"


class BadRequestError(Exception):
    """A request that no guest can receive, with the status of the response."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def check_coding(coding: str) -> None:
    """Refuses a transfer coding other than ``chunked``, which the server has removed.

    Raises:
        BadRequestError: There is another one (RFC 9112, 6.1).
    """
    if coding.strip().lower() != "chunked":
        raise BadRequestError(501, f"a body with an unsupported transfer coding: {coding[:40]!r}")


_SLASHES = re.compile(rb"/|%2[fF]")


def split_target(raw: bytes) -> tuple[bytes, bytes | None]:
    """The path of a request target, and the authority of one in absolute form.

    Some servers pass on the absolute form (RFC 9112, 3.2.2).
    """
    if raw[:1] == b"/" or not raw[:8].lower().startswith((b"http://", b"https://")):
        return raw, None
    authority, slash, path = raw.partition(b"://")[2].partition(b"/")
    return slash + path or b"/", authority


def below(root: AnyStr, raw: bytes, decode: Callable[[bytes], AnyStr]) -> bytes | None:
    """The raw path below a mount; None if the path is not below it.

    Each slash of a decoded path is one of the raw path's, plain or encoded. So the slash that ends the mount is found
    by counting. The guest's path begins with a plain slash there; what follows keeps its spelling.

    Args:
        root: The mount's path, decoded.
        raw: The whole path, as it came.
        decode: How the server decodes paths.
    """
    slashes = (root if isinstance(root, bytes) else root.encode("utf-8", "replace")).count(b"/")
    ends = _SLASHES.finditer(raw)
    end = next((found for number, found in enumerate(ends) if number == slashes), None)
    if decode(raw if end is None else raw[: end.start()]) != root:
        return None
    return b"/" if end is None else b"/" + raw[end.end() :]


def host_of(address: Any) -> str | None:
    """The host of a server's `(host, port)`; None if it has no host, as with a Unix socket."""
    try:
        host = address[0]
    except (TypeError, LookupError):
        return None
    return host if isinstance(host, str) and host and not isinstance(address, str) else None
