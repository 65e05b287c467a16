"""A request of an ASGI server: the scope of a connection as a `Request` for the guest."""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from wasgi._wasgi import Request, _request_of_server
from wasgi.serving.requests import IN_A_PATH, BadRequestError, below, check_coding, host_of, split_target

if TYPE_CHECKING:
    from wasgi.serving.options import ServedApp

Scope = MutableMapping[str, Any]


def _octets(value: Any) -> bytes:
    """A value that should be bytes. Some servers give text, None or a memoryview."""
    if isinstance(value, str):
        return value.encode("latin-1")
    return b"" if value is None else bytes(memoryview(value))


def _decode(raw: bytes) -> str:
    """A raw path, decoded as servers decode it."""
    text = raw.decode("latin-1")
    return unquote(text) if "%" in text else text


def _root_of(scope: Scope) -> str:
    """The path of the mount that this application is below; empty if there is none."""
    root: str = scope.get("root_path") or ""
    if root:
        root = root.rstrip("/")
    return root if root[:1] in ("/", "") else f"/{root}"


def target_of(scope: Scope, *, strip: bool) -> tuple[bytes, bytes | None, bytes | None]:
    """The target for the guest, the mount's path for ``x-forwarded-prefix``, and the authority in the target, if any.

    Args:
        scope: The scope.
        strip: Whether the guest sees the path below the mount only.
    """
    root, path, raw = _root_of(scope), scope.get("path") or "", scope.get("raw_path")
    if type(raw) is not bytes:
        raw = _octets(raw)
    if b"?" in raw:
        raw = raw.partition(b"?")[0]
    authority = named = None
    if path[:1] != "/" or raw[:1] != b"/":
        raw, authority = split_target(raw)
        whole, named = split_target(path.encode())
        path, authority = whole.decode(), authority or named
    # the raw path, if it still says the same: middleware may have changed the decoded one
    decoded = _decode(raw)
    is_below = False
    if raw and decoded == path:
        target = raw
    elif raw and root and decoded == root + path:
        # `path` without the mount's path, as frameworks gave it before ASGI specified it
        target, is_below = (strip and below(root, raw, _decode)) or raw, True
    else:
        target, authority = quote(path, safe=IN_A_PATH).encode(), named
    if strip and root and not is_below:
        # a prefix that a proxy has removed may be in `root_path` only; that of Starlette's mounts is in the path, too
        for above in (root, root.removeprefix(scope.get("app_root_path") or "")):
            if above and (path_below := below(above, target, _decode)) is not None:
                target = path_below
                break
    if query := scope.get("query_string"):
        target += b"?" + _octets(query)
    return target, quote(root).encode() if strip and root else None, authority


def request_of(
    app: ServedApp, scope: Scope, fields: list[tuple[bytes, bytes]], body: AsyncIterator[bytes] | None
) -> Request:
    """The guest's request for an HTTP scope.

    Raises:
        BadRequestError: No guest can receive it.
    """
    method = scope["method"]
    if method == "CONNECT":
        raise BadRequestError(501, "a component cannot open a tunnel")
    try:
        target, prefix, authority = target_of(scope, strip=app.root_path == "strip")
        return _request_of_server(
            method,
            scope.get("scheme") or "http",
            scope.get("server"),
            target,
            fields,
            body,
            forwarded=app.forwarded,
            client=host_of(scope.get("client")) if app.forwarded else None,
            prefix=prefix,
            authority=authority,
            multiplexed=not _is_http1(scope),
        )
    except ValueError as error:
        raise BadRequestError(400, str(error)) from error


def _is_http1(scope: Scope) -> bool:
    """Whether the request came by HTTP/1. Granian gives ``"1"`` for HTTP/1.0."""
    version = scope.get("http_version")
    return version == "1.1" or not version or str(version)[0] == "1"


def fields_of(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The fields of a scope. A server may give any iterable of pairs, and anything like bytes in them."""
    fields = scope.get("headers") or ()
    if type(fields) is not list:
        fields = list(fields)
    for name, value in fields:
        if type(name) is not bytes or type(value) is not bytes:
            return [(_octets(name), _octets(value)) for name, value in fields]
    return fields


def has_body(scope: Scope, fields: list[tuple[bytes, bytes]]) -> bool:
    """Whether the request may have a body, whatever its method (RFC 9112, 6.3).

    With HTTP/2 a body needs no length (RFC 9113, 8.1), and with HTTP/1 middleware may have removed it.

    Raises:
        BadRequestError: It has a transfer coding that the server has not removed.
    """
    has_length = False
    for name, value in fields:
        name = name.lower()
        if name == b"transfer-encoding":
            check_coding(value.decode("latin-1"))
            return True
        if name == b"content-length":
            has_length = True
            if value.strip() != b"0":
                return True
    return not has_length and (not _is_http1(scope) or scope["method"] not in _MOSTLY_BARE)


# Requests of these methods rarely have a body: without a field that announces one, none is waited for.
_MOSTLY_BARE = frozenset(["GET", "HEAD", "OPTIONS", "TRACE", "DELETE"])
