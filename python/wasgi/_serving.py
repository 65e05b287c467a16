"""What being served means, whatever the server speaks: which fields a guest is given, and who answers in its place.

`asgi.py` and `wsgi.py` are the two kinds of server.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from http import HTTPStatus

from wasgi import errors
from wasgi._wasgi import Response

Pairs = list[tuple[bytes, bytes]]

# Of one connection, not of the message (RFC 9110, 7.6.1; RFC 9113, 8.2.2). `te` is: `trailers` may be asked for.
HOP_BY_HOP = frozenset(
    [
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ]
)
# What anybody could have written: handed on only as this server itself knows it.
_FORWARDED = frozenset(
    [b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-prefix", b"x-forwarded-proto"]
)

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


def authority_of(scheme: str, name: str, port: object) -> str:
    """A server's own address as an authority, without the port that the scheme implies."""
    authority = f"[{name}]" if ":" in name else name
    if port is None or str(port) == {"http": "80", "https": "443"}.get(scheme):
        return authority
    return f"{authority}:{port}"


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Pairs:
    """The fields of a request (names in lower case) that are meant for the guest."""
    kept: Pairs = []
    named: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            named.update(token.strip().lower() for token in value.split(b","))
        elif name not in HOP_BY_HOP and name not in _FORWARDED:
            kept.append((name, value))
    return [pair for pair in kept if pair[0] not in named] if named else kept


def forwarded_by(client: object, scheme: str, authority: str) -> Pairs:
    """Who asks, and for what, as the server knows it."""
    pairs = [(b"x-forwarded-proto", scheme.encode()), (b"x-forwarded-host", authority.encode("latin-1"))]
    if client:
        pairs.insert(0, (b"x-forwarded-for", str(client).encode("latin-1", "replace")))
    return pairs


# answers


def is_bare(method: str, status: int) -> bool:
    """Whether an answer has no body (RFC 9110, 6.4.1)."""
    return method == "HEAD" or status in (204, 304)


def only_final(response: Response) -> Response:
    """Refuses interim answers (RFC 9110, 15.2): none can end with one, and no server sends it as one."""
    if response.status < 200:
        response.close()
        raise errors.HttpProtocolError
    return response


def headers_of(response: Response) -> Pairs:
    """The fields of an answer that are meant for the client; names in lower case."""
    lower = ((name.lower(), value) for name, value in response._raw_headers())
    return [(name, value) for name, value in lower if name not in HOP_BY_HOP]


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


def log_failure(log: logging.Logger, method: str, path: str, error: BaseException) -> None:
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
    )
