"""Responses to a server: which of them are sent as they are, and what is sent when the guest has no response."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from wasgi import _messages, errors
from wasgi._wasgi import Request, Response, _status_of_code
from wasgi.serving.requests import BadRequestError

if TYPE_CHECKING:
    from wasgi.serving.options import ServedApp


status_of_code = _status_of_code
"""The status for a guest's error-code: 4xx for the client's mistakes, otherwise 508, 504 or 502."""


def only_final(response: Response) -> Response:
    """The response, if its status is final.

    Raises:
        HttpProtocolError: It is an interim response (RFC 9110, 15.2), or not a status at all.
        TypeError: It is not a `Response`.
    """
    if not isinstance(response, Response):
        raise TypeError(f"a response must be a wasgi.Response, not {type(response).__name__}")
    if not 200 <= response.status < 600:
        response.close()
        raise errors.HttpProtocolError
    return response


def instead_of(request: Request, given: object) -> Request | Response:
    """What `on_request` has given: a response, to be sent; or the guest's request, which None leaves as it was.

    Raises:
        TypeError: It is something else.
    """
    if given is None:
        return request
    if isinstance(given, Response):
        return only_final(_messages.fresh(given))
    if isinstance(given, Request):
        return given
    raise TypeError(f"`on_request` must return a Request, a Response or None, not {type(given).__name__}")


def headers_of(response: Response) -> list[tuple[bytes, bytes]]:
    """The fields of a response that are meant for the client, in lower case."""
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
    """Adds a ``content-length`` where the length is known before the body is sent.

    For a guest's body only if it is empty: otherwise the field would depend on the guest's speed. Not for an empty
    response to HEAD, since the response to GET may have a body.

    Args:
        headers: The fields, to be changed.
        method: The request's method.
        status: The response's status.
        ready: The chunks that are there, as `take_ready` gives them.
        by_guest: Whether the response is the guest's.
    """
    if ready is None or not ready[1] or status in (204, 205, 304):
        return
    length = len(ready[0])
    if (length and by_guest) or (not length and method == "HEAD"):
        return
    if not any(name == b"content-length" for name, _ in headers):
        headers.append((b"content-length", b"%d" % length))


def status_of(error: BaseException) -> int:
    """The status of the response when the guest has none."""
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
    """A small response in JSON (RFC 9457). It has no details of the failure, unless `debug` is on."""
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


def log_served(
    app: str, method: str, target: str, status: int, midway: bool, error: BaseException, exchange: int | None
) -> None:
    """Logs a failure of the native server, which has worked out the status."""
    if midway:
        _log_server.error(
            "%s %r: the response with %d broke off: %s: %s",
            method,
            target,
            status,
            type(error).__name__,
            error,
            exc_info=error,
            extra=_of_exchange(app, exchange),
        )
        return
    _log(app, _log_server, method, target, status, error, exchange)


def log_failure(app: ServedApp, log: logging.Logger, method: str, path: str, error: BaseException) -> None:
    """Logs why the guest has no response: with the traceback, unless the client or the load is the cause."""
    _log(app._label, log, method, path, status_of(error), error, getattr(error, "exchange", None))


_log_server = logging.getLogger("wasgi.server")


def _of_exchange(app: str, exchange: int | None) -> dict[str, object]:
    return {"wasgi_app": app, "wasgi_component": app.rpartition("#")[0], "wasgi_exchange": exchange}


def _log(
    app: str,
    log: logging.Logger,
    method: str,
    path: str,
    status: int,
    error: BaseException,
    exchange: int | None,
) -> None:
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
        extra=_of_exchange(app, exchange),
    )
