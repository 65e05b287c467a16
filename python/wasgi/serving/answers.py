"""What being served means, whatever the server speaks: what answers when the guest has no answer.

`asgi.py` and `wsgi.py` are the two kinds of server.
"""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, AnyStr, TypeVar

from wasgi import errors
from wasgi._wasgi import Response

if TYPE_CHECKING:
    from wasgi.app import App

_Message = TypeVar("_Message")

# RFC 3986, 3.3: what a segment of a path holds as it is
IN_A_PATH = "/:@!$&'()*+,;=~"

_GATEWAY_TIMEOUTS = {
    "DNS-timeout",
    "HTTP-response-timeout",
    "connection-read-timeout",
    "connection-timeout",
    "connection-write-timeout",
}
_CLIENTS_FAULT = {
    "HTTP-request-URI-invalid": 400,
    "HTTP-request-URI-too-long": 414,
    "HTTP-request-body-size": 413,
    "HTTP-request-header-section-size": 431,
    "HTTP-request-header-size": 431,
    "HTTP-request-length-required": 411,
    "HTTP-request-method-invalid": 400,
    "HTTP-request-trailer-section-size": 431,
    "HTTP-request-trailer-size": 431,
}


class BadRequestError(Exception):
    """A request that no guest can be asked, with the status of its answer."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


# requests


def check_coding(coding: str) -> None:
    """Of a body whose server has taken the chunks off, at the most: no other coding of the transfer is known here.

    Raises:
        BadRequestError: There is one (RFC 9112, 6.1).
    """
    if coding.strip().lower() != "chunked":
        raise BadRequestError(501, f"a body with a transfer coding that nobody takes off: {coding[:40]!r}")


_SLASHES = re.compile(rb"/|%2[fF]")


def split_target(raw: bytes) -> tuple[bytes, bytes | None]:
    """A target's path, and the authority of one in absolute form (RFC 9112, 3.2.2), which some servers pass on."""
    if raw[:1] == b"/" or not raw[:8].lower().startswith((b"http://", b"https://")):
        return raw, None
    authority, slash, path = raw.partition(b"://")[2].partition(b"/")
    return slash + path or b"/", authority


def below(root: AnyStr, raw: bytes, decode: Callable[[bytes], AnyStr]) -> bytes | None:
    """The raw path below `root`, which stands decoded at the head of the path; None if it does not stand there.

    Each slash of a decoded path is one of the raw path's, as it is or encoded. So the one that ends a mount is found by
    counting; it is a slash for the guest as it was for whoever has mounted, and what comes after it keeps its spelling.
    """
    slashes = (root if isinstance(root, bytes) else root.encode("utf-8", "replace")).count(b"/")
    ends = _SLASHES.finditer(raw)
    end = next((found for number, found in enumerate(ends) if number == slashes), None)
    if decode(raw if end is None else raw[: end.start()]) != root:
        return None
    return b"/" if end is None else b"/" + raw[end.end() :]


def host_of(address: Any) -> str | None:
    """The host of a server's `(host, port)`; None if there is none, as of a Unix socket."""
    try:
        host = address[0]
    except (TypeError, LookupError):
        return None
    return host if isinstance(host, str) and host and not isinstance(address, str) else None


# answers

# Seconds and bytes that a guest has to end which writes a body that nobody may have.
GRACE = 1.0
WRITES = 1 << 20


def is_bare(method: str, status: int) -> bool:
    """Whether an answer has no body (RFC 9110, 6.4.1 and 15.3.6)."""
    return method == "HEAD" or status in (204, 205, 304)


def only_final(response: Response) -> Response:
    """Refuses interim answers (RFC 9110, 15.2), with which no exchange can end, and what is no status at all."""
    if not isinstance(response, Response):
        raise TypeError(f"an answer must be a wasgi.Response, not {type(response).__name__}")
    if not 200 <= response.status < 600:
        response.close()
        raise errors.HttpProtocolError
    return response


def headers_of(response: Response) -> list[tuple[bytes, bytes]]:
    """The fields of an answer that are meant for the client, in lower case."""
    headers = response._served_headers()
    if response.status in (204, 205, 304):
        # RFC 9110, 8.6: not with 204; with 304 it would be right, but servers wait for that many bytes
        headers = [pair for pair in headers if pair[0] != b"content-length"]
    if response.status == 205:
        headers.append((b"content-length", b"0"))  # RFC 9110, 15.3.6
    return headers


def tell_length(
    headers: list[tuple[bytes, bytes]], method: str, status: int, ready: tuple[bytes, bool] | None, *, by_guest: bool
) -> None:
    """Says how long a body is where that is known before it is sent: `ready` is what `take_ready` gave.

    Of a guest's body only that it is empty: else it would depend on the guest's speed whether the field is there. And
    not that of an answer to HEAD, for the one to GET may have another.
    """
    if ready is None or not ready[1] or status in (204, 205, 304):
        return
    length = len(ready[0])
    if (length and by_guest) or (not length and method == "HEAD"):
        return
    if not any(name == b"content-length" for name, _ in headers):
        headers.append((b"content-length", b"%d" % length))


# failures


def status_of_code(code: str) -> int:
    """The status that stands for a guest's error-code: what the client did wrong is 4xx, the rest a bad gateway."""
    if code in _CLIENTS_FAULT:
        return _CLIENTS_FAULT[code]
    if code == "loop-detected":
        return 508
    return 504 if code in _GATEWAY_TIMEOUTS else 502


def status_of(error: BaseException) -> int:
    """The status of the answer when a guest has none."""
    match error:
        case BadRequestError():
            return error.status
        case errors.ErrorCode():
            return status_of_code(error.code)
        case errors.GuestTimeoutError():
            return 504
        case errors.OverloadedError() | errors.AppClosedError():
            return 503
    return 500


def phrase_of(status: int) -> str:
    """The reason phrase of a status, known or not."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def fresh(message: _Message) -> _Message:
    """A message that was not used, of one whose body is known: that is a value, which may be given again and again."""
    try:
        return copy.copy(message)
    except (TypeError, errors.BodyError):
        return message


def problem(error: BaseException, *, debug: bool = False) -> Response:
    """A small answer in JSON (RFC 9457). It says nothing of the inside, unless asked."""
    status = status_of(error)
    said: dict[str, object] = {"type": "about:blank", "title": phrase_of(status), "status": status}
    if debug:
        said["detail"] = f"{type(error).__name__}: {error}"
        if backtrace := getattr(error, "backtrace", None):
            said["backtrace"] = backtrace
        if stderr := getattr(error, "stderr", None):
            said["stderr"] = stderr
    headers = {"content-type": "application/problem+json"}
    if status == 503:
        headers["retry-after"] = "1"
    return Response(status, headers=headers, body=json.dumps(said))


def log_failure(app: App, log: logging.Logger, method: str, path: str, error: BaseException) -> None:
    """Says why a guest has no answer: with the traceback if it is not the client's doing, or the load's."""
    status = status_of(error)
    expected = status < 500 or isinstance(error, BadRequestError | errors.OverloadedError | errors.AppClosedError)
    log.log(
        logging.INFO if expected else logging.ERROR,
        "%s %r is answered with %d: %s: %s",
        method,
        path,
        status,
        type(error).__name__,
        error,
        exc_info=None if expected else error,
        extra={
            "wasgi_app": app._label,
            "wasgi_component": app._label.rpartition("#")[0],
            "wasgi_exchange": getattr(error, "exchange", None),
        },
    )
