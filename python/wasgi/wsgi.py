"""An `App` as a WSGI application (PEP 3333)."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from wasgi import _serving
from wasgi._serving import BadRequestError
from wasgi._wasgi import Request, Response, _request_of_server

if TYPE_CHECKING:
    from wasgi.app import App

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

_log = logging.getLogger("wasgi.wsgi")

_CHUNK = 64 << 10


def _target(environ: Environ, *, strip: bool) -> bytes:
    """The path and query for the guest. A server that tells them as they came is believed if they mean the same."""
    script, path = (environ.get(name, "").encode("latin-1") for name in ("SCRIPT_NAME", "PATH_INFO"))
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    raw_path = raw.partition("?")[0].encode("latin-1", "replace")
    base, absolute, rest = raw_path.partition(b"://")
    # RFC 9112, 3.2.2: an absolute one says whose it is, too
    below = b"/" + rest.partition(b"/")[2] if absolute and b"/" not in base else raw_path
    if not script or not strip:
        whole = script + path
        is_same = unquote_to_bytes(below) == (whole or b"/")
        target = raw_path if is_same else quote(whole, safe=_serving.IN_A_PATH).encode()
    else:
        target = quote(path, safe=_serving.IN_A_PATH).encode()
    target = target or b"/"
    if query := environ.get("QUERY_STRING", ""):
        target += b"?" + query.encode("latin-1")
    return target


class _Body:
    """The request's body, read as the guest reads it, on threads of ours: an iterator.

    The connection is the server's again once the answer is closed. So closing waits for a read that is under way, and
    there is none after it: it would take what belongs to the next request.
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
                raise BadRequestError(400, "the client has gone before its request's body was whole")
            if not chunk:
                raise StopIteration
            if self.left is not None:
                self.left -= len(chunk)
            return chunk

    def end(self) -> None:
        """Of the server's thread."""
        self.closed = True
        with self.reading:
            pass


def _body(environ: Environ) -> _Body | None:
    length = environ.get("CONTENT_LENGTH") or ""
    if length:
        if not (length.isascii() and length.isdigit()):
            raise BadRequestError(400, f"a content-length that is no number: {length!r}")
        return _Body(environ["wsgi.input"], int(length)) if int(length) else None
    return _Body(environ["wsgi.input"], None) if environ.get("wsgi.input_terminated") else None


def request_of(app: App, environ: Environ, body: _Body | None = None) -> Request:
    """The guest's request for an environ.

    Raises:
        BadRequestError: It cannot be one.
    """
    method = environ["REQUEST_METHOD"]
    if method == "CONNECT":
        raise BadRequestError(501, "a component opens no tunnel")
    strip = app.root_path == "strip"
    script = environ.get("SCRIPT_NAME", "").rstrip("/")
    port = environ["SERVER_PORT"]
    try:
        return _request_of_server(
            method,
            environ["wsgi.url_scheme"],
            (environ["SERVER_NAME"], int(port) if port else None),
            _target(environ, strip=strip),
            _fields(environ),
            body,
            forwarded=app.forwarded,
            client=environ.get("REMOTE_ADDR"),
            prefix=quote(script.encode("latin-1")).encode() if strip and script else None,
        )
    except ValueError as error:
        raise BadRequestError(400, str(error)) from error


def _fields(environ: Environ) -> Iterator[tuple[bytes, bytes]]:
    for key, value in environ.items():
        if key in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
            continue  # of a client that wrote them with an underscore
        if key.startswith("HTTP_"):
            key = key[5:]
        elif key not in ("CONTENT_TYPE", "CONTENT_LENGTH") or not value:
            continue
        yield key.replace("_", "-").lower().encode("latin-1"), value.encode("latin-1")


def _at_once(given: Any, name: str) -> Any:
    """What a callback has given; a coroutine has nobody to await it here."""
    if inspect.isawaitable(given):
        if inspect.iscoroutine(given):
            given.close()
        raise TypeError(f"`{name}` must not be a coroutine function under WSGI")
    return given


class Wsgi:
    """What `App.wsgi` gives."""

    def __init__(self, app: App) -> None:
        self.app = app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request. The iterable streams from the guest; its ``close`` stops the guest."""
        body: _Body | None = None
        try:
            try:
                body = _body(environ)
                response = self.respond(environ, body)
            except Exception as error:
                response = self.instead(environ, error)
            headers = [
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in _serving.headers_of(response)
            ]
            bare = _serving.is_bare(environ["REQUEST_METHOD"], response.status)
            if not bare and "content-type" not in response.headers:
                # what a client may assume (RFC 9110, 8.3); servers and `wsgiref.validate` want it to be said
                headers.append(("content-type", "application/octet-stream"))
            answer = _Answer(response, body, bare=bare)
        except BaseException:
            if body is not None:
                body.end()
            raise
        try:
            start_response(f"{response.status} {_serving.phrase_of(response.status)}", headers)
        except BaseException:
            answer.close()
            raise
        return answer

    def respond(self, environ: Environ, body: _Body | None) -> Response:
        """The guest's answer, or that of `on_request`."""
        app = self.app
        request = request_of(app, environ, body)
        if app.on_request is not None:
            given = _at_once(app.on_request(environ, request), "on_request")
            if isinstance(given, Response):
                return _serving.only_final(given)
            if given is not None:
                request = given
        return _serving.only_final(app.handle(request))

    def instead(self, environ: Environ, error: Exception) -> Response:
        """What the client gets when the guest has no answer."""
        _serving.log_failure(self.app, _log, environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), error)
        if self.app.on_error is not None and not isinstance(error, BadRequestError):
            given: Response | None = _at_once(self.app.on_error(environ, error), "on_error")
            if given is not None:
                return given
        return _serving.problem(error, debug=self.app.debug)


class _Answer:
    """The body of an answer."""

    def __init__(self, response: Response, body: _Body | None, *, bare: bool) -> None:
        self.response = response
        self.body = body
        self.chunks = iter(response)
        self.bare = bare

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.bare:
            raise StopIteration
        return next(self.chunks)

    def close(self) -> None:
        self.response.close()
        if self.body is not None:
            self.body.end()
