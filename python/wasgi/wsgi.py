"""An `App` as a WSGI application (PEP 3333)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from wasgi import errors
from wasgi._wasgi import Request, Response, _request_of_server
from wasgi.asgi import HOP_BY_HOP, problem, status_of

if TYPE_CHECKING:
    from wasgi.app import App

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

_log = logging.getLogger("wasgi.wsgi")

_CHUNK = 64 << 10


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _target(environ: Environ, *, strip: bool) -> bytes:
    """The path and query for the guest. A server that tells them as they came is believed if they mean the same."""
    script, path = (environ.get(name, "").encode("latin-1") for name in ("SCRIPT_NAME", "PATH_INFO"))
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    raw_path = raw.partition("?")[0].encode("latin-1", "replace")
    safe = "/:@!$&'()*+,;=~"
    if not script or not strip:
        whole = script + path
        target = raw_path if unquote_to_bytes(raw_path) == whole else quote(whole, safe=safe).encode()
    else:
        target = quote(path, safe=safe).encode()
    target = target or b"/"
    if query := environ.get("QUERY_STRING", ""):
        target += b"?" + query.encode("latin-1")
    return target


def _body(environ: Environ) -> Iterator[bytes] | None:
    """The request's body, read as the guest reads it."""
    stream = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH") or ""
    if length:
        left = int(length)

        def counted() -> Iterator[bytes]:
            nonlocal left
            while left > 0:
                chunk = stream.read(min(left, _CHUNK))
                if not chunk:
                    raise ConnectionError("the client has gone before its request's body was whole")
                left -= len(chunk)
                yield chunk

        return counted() if left else None
    if environ.get("wsgi.input_terminated"):
        return iter(lambda: stream.read(_CHUNK), b"")
    return None


def request_of(app: App, environ: Environ) -> Request:
    """The guest's request for an environ.

    Raises:
        ValueError: It cannot be one.
    """
    scheme: str = environ["wsgi.url_scheme"]
    authority = environ.get("HTTP_HOST")
    if not authority:
        name, port = environ["SERVER_NAME"], environ["SERVER_PORT"]
        authority = f"[{name}]" if ":" in name else name
        if port != {"http": "80", "https": "443"}.get(scheme):
            authority += f":{port}"
    headers: list[tuple[bytes, bytes]] = []
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            name = key[5:]
        elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            name = key
        else:
            continue
        raw = name.replace("_", "-").lower().encode("latin-1")
        if raw != b"host" and raw not in HOP_BY_HOP and not raw.startswith((b"x-forwarded-", b"forwarded")):
            headers.append((raw, value.encode("latin-1")))
    strip = app.root_path == "strip"
    if strip and (script := environ.get("SCRIPT_NAME", "").rstrip("/")):
        headers.append((b"x-forwarded-prefix", quote(script.encode("latin-1")).encode()))
    if app.forwarded:
        if client := environ.get("REMOTE_ADDR"):
            headers.append((b"x-forwarded-for", client.encode("latin-1", "replace")))
        headers.append((b"x-forwarded-proto", scheme.encode()))
        headers.append((b"x-forwarded-host", authority.encode("latin-1")))
    return _request_of_server(
        environ["REQUEST_METHOD"],
        scheme,
        authority,
        _target(environ, strip=strip),
        headers,
        _body(environ),
    )


class Wsgi:
    """What `App.wsgi` gives."""

    def __init__(self, app: App) -> None:
        self.app = app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request. The iterable streams from the guest; its ``close`` stops the guest."""
        try:
            request = request_of(self.app, environ)
        except ValueError as error:
            response = problem(400, error, debug=self.app.debug)
        else:
            try:
                response = self.app.handle(request)
                if response.status < 200:  # interim: see `wasgi.asgi`
                    response.close()
                    raise errors.HttpProtocolError
            except Exception as error:
                status = status_of(error)
                _log.error("%s %r is answered with %d", request.method, request.path, status, exc_info=error)
                response = problem(status, error, debug=self.app.debug)
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in response.headers.raw
            if name.lower() not in HOP_BY_HOP
        ]
        bare = environ["REQUEST_METHOD"] == "HEAD" or response.status in (204, 304)
        if not bare and "content-type" not in response.headers:
            # what a client may assume (RFC 9110, 8.3); servers and `wsgiref.validate` want it to be said
            headers.append(("content-type", "application/octet-stream"))
        start_response(f"{response.status} {_reason(response.status)}", headers)
        return _Answer(response, bare=bare)


class _Answer:
    """The body of an answer."""

    def __init__(self, response: Response, *, bare: bool) -> None:
        self.response = response
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
