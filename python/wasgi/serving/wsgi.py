"""An `App` as a WSGI application (PEP 3333)."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from wasgi import _messages
from wasgi._wasgi import Request, Response, _request_of_server
from wasgi.errors import UnsupportedComponentError
from wasgi.serving import answers
from wasgi.serving.requests import IN_A_PATH, BadRequestError, below, check_coding, split_target

if TYPE_CHECKING:
    from wasgi.serving.options import ServedApp

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

_log = logging.getLogger("wasgi.wsgi")

_CHUNK = 64 << 10


def _text(environ: Environ, name: str) -> str:
    """A variable of the environ as text. It may be absent, None, or of another type."""
    value = environ.get(name)
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return "" if value is None else str(value)


def _target(environ: Environ, *, strip: bool) -> tuple[bytes, bytes | None]:
    """The target for the guest, and the authority in the target, if any.

    The raw target that a server gives is used if it means the same as the decoded path.
    """
    script, path = (_text(environ, name).encode("latin-1") for name in ("SCRIPT_NAME", "PATH_INFO"))
    script = script.rstrip(b"/")
    given = _text(environ, "RAW_URI") or _text(environ, "REQUEST_URI")
    raw, authority = split_target(given.partition("?")[0].encode("latin-1", "replace"))
    named = None
    if path[:1] != b"/":
        path, named = split_target(path)
    whole = script + path
    if unquote_to_bytes(raw) == (whole or b"/"):
        target = raw
    else:
        target, authority = quote(whole, safe=IN_A_PATH).encode(), named
    if strip and script:
        path_below = below(script.rstrip(b"/"), target, unquote_to_bytes)
        target = quote(path, safe=IN_A_PATH).encode() if path_below is None else path_below
    target = target or b"/"
    if query := _text(environ, "QUERY_STRING"):
        target += b"?" + query.encode("latin-1")
    return target, authority


class _Body:
    """The request's body, read as the guest reads it, on threads of ours: an iterator.

    The connection is the server's again once the response is closed. So closing waits for a read that is under way, and
    no read follows it: that would take bytes of the next request.
    """

    def __init__(self, stream: Any, left: int | None) -> None:
        self.stream = stream
        self.left = left
        self.reading = threading.Lock()
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self.reading:
            if self.closed or self.left == 0:
                raise StopIteration
            chunk: bytes = self.stream.read(_CHUNK if self.left is None else min(self.left, _CHUNK))
            if not chunk and self.left:
                raise BadRequestError(400, "the client disconnected before its request's body was complete")
            if not chunk:
                raise StopIteration
            if self.left is not None:
                self.left -= len(chunk)
            return chunk

    def end(self) -> None:
        """Ends reading. Called on the server's thread."""
        self.closed = True
        with self.reading:
            pass


def _body(environ: Environ) -> _Body | None:
    """The request's body, if there is one.

    Raises:
        BadRequestError: The server does not decode the body, or does not say where it ends.
    """
    length, coding = _text(environ, "CONTENT_LENGTH").strip(), _text(environ, "HTTP_TRANSFER_ENCODING")
    if coding and environ.get("wsgi.input_terminated"):
        check_coding(coding)
    if environ.get("wsgi.input_terminated") or _text(environ, "SERVER_PROTOCOL").startswith(("HTTP/2", "HTTP/3")):
        left = None  # the end of a body of HTTP/2 is marked, so it needs no length
    elif coding:
        # the standard library's server does not decode it, and an environ cannot say that a server does
        known = coding.strip().lower() == "chunked"
        raise BadRequestError(411 if known else 501, f"a body that its server does not decode: {coding!r}")
    elif not length:
        return None
    if length and not coding:  # a transfer coding overrides the length (RFC 9112, 6.3)
        if not (length.isascii() and length.isdigit()):
            raise BadRequestError(400, f"a content-length that is not a number: {length[:40]!r}")
        if len(length.lstrip("0")) > 20:  # more than 64 bits
            raise BadRequestError(413, "a content-length that is too large")
        left = int(length.lstrip("0") or "0")
        if not left:
            return None
    stream = environ.get("wsgi.input")
    if stream is None:
        if left is None:
            return None
        raise RuntimeError("the server gives no `wsgi.input` for the request's body")
    return _Body(stream, left)


def request_of(app: ServedApp, environ: Environ, body: _Body | None = None) -> Request:
    """The guest's request for an environ.

    Raises:
        BadRequestError: No guest can receive it.
    """
    method = environ["REQUEST_METHOD"]
    if method == "CONNECT":
        raise BadRequestError(501, "a component cannot open a tunnel")
    strip = app.root_path == "strip"
    script = _text(environ, "SCRIPT_NAME").rstrip("/")
    try:
        target, authority = _target(environ, strip=strip)
        return _request_of_server(
            method,
            _text(environ, "wsgi.url_scheme") or "http",
            (_text(environ, "SERVER_NAME"), _text(environ, "SERVER_PORT")),
            target,
            _fields(environ),
            body,
            forwarded=app.forwarded,
            client=_text(environ, "REMOTE_ADDR") or None,
            prefix=quote(script.encode("latin-1")).encode() if strip and script else None,
            authority=authority,
        )
    except ValueError as error:
        raise BadRequestError(400, str(error)) from error


def _fields(environ: Environ) -> Iterator[tuple[bytes, bytes]]:
    for key, value in environ.items():
        if key in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH") or value is None:
            continue  # the server passes these without `HTTP_`; so a client wrote them with an underscore
        if key.startswith("HTTP_"):
            name = key[5:]
        elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value != "":
            name = key
        else:
            continue
        yield name.replace("_", "-").lower().encode("latin-1"), _text(environ, key).encode("latin-1")


def _at_once(given: Any, name: str) -> Any:
    """The result of a callback; a coroutine is refused, since nothing awaits it under WSGI."""
    if inspect.isawaitable(given):
        if inspect.iscoroutine(given):
            given.close()
        raise TypeError(f"`{name}` must not be a coroutine function under WSGI")
    return given


class Wsgi:
    """An app as a WSGI application: `App.wsgi`."""

    def __init__(self, app: ServedApp) -> None:
        self.app = app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serves one request. The iterable streams from the guest; its ``close`` stops the guest."""
        body: _Body | None = None
        method = environ["REQUEST_METHOD"]
        try:
            try:
                body = _body(environ)
                response, by_guest = self.respond(environ, body)
                answer = _Answer(response, body, method, by_guest=by_guest)
            except UnsupportedComponentError:
                raise
            except Exception as error:
                answer = _Answer(self.instead(environ, error), body, method, by_guest=False)
        except BaseException:
            if body is not None:
                body.end()
            raise
        try:
            start_response(answer.status(), answer.headers())
        except BaseException:
            answer.close()
            raise
        return answer

    def respond(self, environ: Environ, body: _Body | None) -> tuple[Response, bool]:
        """The response of `on_request` or the guest, and whether it is the guest's."""
        app = self.app
        request = request_of(app, environ, body)
        if app.on_request is not None:
            given = answers.instead_of(request, _at_once(app.on_request(environ, request), "on_request"))
            if isinstance(given, Response):
                return given, False
            request = given
        return answers.only_final(app.handle(request)), True

    def instead(self, environ: Environ, error: Exception) -> Response:
        """The response when the guest has none."""
        self.log_failure(environ, error)
        if self.app.on_error is not None and not isinstance(error, BadRequestError):
            try:
                given: Response | None = _at_once(self.app.on_error(environ, error), "on_error")
                if given is not None:
                    return answers.only_final(_messages.fresh(given))
            except Exception as failure:
                self.log_failure(environ, failure)
                error = failure
        return answers.problem(error, debug=self.app.debug)

    def log_failure(self, environ: Environ, error: Exception) -> None:
        """Logs why the guest has no response."""
        answers.log_failure(self.app, _log, environ["REQUEST_METHOD"], _text(environ, "PATH_INFO"), error)


# Fields that WSGI servers reserve: a CGI's status, and `trailers`, which `wsgiref` takes for hop-by-hop
_NOT_PASSED = (b"status", b"trailers")


class _Answer:
    """The body of a response, as the server reads it."""

    def __init__(self, response: Response, body: _Body | None, method: str, *, by_guest: bool) -> None:
        self.response = response
        self.body = body
        self.method = method
        self.by_guest = by_guest
        self.chunks = iter(response)
        self.bare = _messages.is_bare(method, response.status)
        self.begun = False
        self.ready = self.chunks.take_ready()

    def status(self) -> str:
        """The status line, as `start_response` wants it."""
        return f"{self.response.status} {answers.phrase_of(self.response.status)}"

    def headers(self) -> list[tuple[str, str]]:
        """The fields of the response. HEAD gets those that GET would."""
        status = self.response.status
        headers = [pair for pair in answers.headers_of(self.response) if pair[0] not in _NOT_PASSED]
        answers.tell_length(headers, self.method, status, self.ready, by_guest=self.by_guest)
        if status in (204, 304):
            headers = [
                pair for pair in headers if pair[0] != b"content-type"
            ]  # `wsgiref.validate` refuses one without a body
        elif not any(name == b"content-type" for name, _ in headers):
            # what a client may assume (RFC 9110, 8.3); servers and `wsgiref.validate` require the field
            headers.append((b"content-type", b"application/octet-stream"))
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        ready, self.ready = self.ready, None
        begun, self.begun = self.begun, True
        chunk = None
        if not self.bare:
            chunk = ready[0] if ready is not None and ready[0] else next(self.chunks, None)
        if chunk is None and begun:
            raise StopIteration
        return chunk or b""  # at least one: Hypercorn 0.18 starts a response with its first chunk

    def close(self) -> None:
        """Ends the exchange, sent or not. Called on the server's thread."""
        if self.bare and self.by_guest:
            self.chunks._let_end(wait=True)
        self.response.close()
        if self.body is not None:
            self.body.end()
