"""Upstreams: they handle the outgoing requests of a guest, for ``App(outgoing=...)``.

Applications (`asgi`, `wsgi`), clients (`httpx`), and several upstreams behind a routing table (`route`). Any function
or coroutine function from `Request` to `Response` is an upstream, too, and so is any `App`. Middleware is a function
that takes an upstream and returns one; it calls the inner one by `call`::

    def with_token(upstream):
        async def send(request):
            request.headers["authorization"] = "Bearer secret"
            return await wasgi.outgoing.call(upstream, request)
        return send

    app = wasgi.App("plugin.wasm", outgoing=with_token(wasgi.outgoing.asgi(fake_api)))
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from wasgi import _messages
from wasgi._native import bodies, callbacks
from wasgi._wasgi import Network, Request, Response, Route
from wasgi.errors import DestinationNotFound
from wasgi.outgoing import _asgi, _httpx, _wsgi

if TYPE_CHECKING:
    from wasgi._wasgi import _Upstream

__all__ = ["asgi", "call", "httpx", "route", "wsgi"]


async def call(upstream: _Upstream, request: Request) -> Response:
    """Sends a request to an upstream of any kind: middleware calls this.

    A coroutine function is awaited, an `App` handles the request, a `Network` sends it under its policy, a plain
    function runs on a thread. A message that was read, or whose body is bytes, is passed on as an unread copy, so
    a constant message can be used many times. A response is read by ``aread`` and ``async for``, whatever its body is:
    an iterator or a file is read on a thread.

    Raises:
        DestinationNotFound: A `route` has no upstream for the request.
        TypeError: It is not an upstream.
        ErrorCode: Any other error-code that a guest would get.
    """
    if isinstance(upstream, Route):
        found = upstream.find(request)
        if found is None:
            raise DestinationNotFound
        return await call(found, request)
    request = _messages.fresh(request)
    if isinstance(upstream, Network):
        return await upstream._answer(request)
    function, is_async = callbacks.function_of(upstream, "upstream")
    answer = function(request) if is_async else await asyncio.to_thread(function, request)
    response: Response = await answer if inspect.isawaitable(answer) else answer
    response = _messages.fresh(response)
    if not isinstance(response, Response) or not response._blocks:
        return response  # what is no response, the guest's side says
    body = bodies.OnThreads(response)
    return Response(response.status, headers=response.headers.raw, body=body, trailers=response.trailers)


def route(table: Mapping[str, _Upstream]) -> Route:
    """Routes each request to the upstream with the most specific pattern that matches it.

    A pattern is ``"*"``, or ``[scheme://]host[:port][/path]``. ``*.example.com`` matches all subdomains.
    Without a scheme, both match; without a port the scheme's default port, or any port if there is no scheme. A path
    matches itself and what is below it; a request whose path has dot segments, plain or encoded, matches no pattern
    with a path. Hosts are compared as IDNA A-labels, addresses by value, paths after percent-decoding. The most
    specific pattern wins. A request that no pattern matches, or whose path some server could read as one for a more
    specific pattern, fails with ``destination-not-found``.

    Args:
        table: Upstreams by pattern.

    Raises:
        ValueError: A pattern is invalid; or two are equal; or some request matches two of which neither is more
            specific.
        TypeError: One of them is not an upstream.

    Example:
        >>> wasgi.outgoing.route({"auth.local": auth_app, "https://api.example.com/v1/": fake, "*": refuse})
    """
    if isinstance(table, Mapping):
        for pattern, upstream in table.items():
            if not isinstance(upstream, Network | Route):
                callbacks.as_upstream(upstream, f"table[{pattern!r}]")
    return Route(table)


def asgi(application: Callable[..., Any], *, lifespan: Literal["auto", "on", "off"] = "auto") -> _asgi.Asgi:
    """An ASGI application as upstream, in process: FastAPI plays ``api.example.com``.

    Bodies stream both ways. Its lifespan is started at the first request, on that request's event loop, and ended by
    ``aclose``, by leaving ``async with``, or when the upstream is garbage-collected. If the guest ends early, the
    application receives ``http.disconnect``, and is cancelled if it has not ended a second later. An exception of the
    application is ``internal-error`` for the guest. A body where there must be none (in response to HEAD, with 204, 205
    and 304) is discarded, for a second.

    Args:
        application: An ASGI 3 application.
        lifespan: ``"auto"``: if the application has one; ``"on"``: a failure of it is an error; ``"off"``: never.
    """
    return _asgi.Asgi(application, lifespan)


def wsgi(application: Callable[..., Any]) -> Callable[[Request], Response]:
    """A WSGI application (PEP 3333) as upstream, in process, on a thread of wasgi. Bodies stream both ways."""
    return _wsgi.upstream_of(application)


def httpx(client: Any) -> Callable[[Request], Any]:
    """A client or transport of httpx2 or httpx as upstream, blocking or async, with its mocks, proxies and caches.

    Redirects are not followed. Bodies stream both ways, with their content coding. The client's own timeouts and
    authentication apply, the latter to every URL that a guest requests: put it behind a `route`. The client's
    headers and cookies are not sent, but cookies that servers set stay in its jar: use a separate client. Exceptions
    become error-codes by the table of `wasgi.errors`.

    Args:
        client: A ``Client``, an ``AsyncClient``, or a transport. It stays open.

    Raises:
        TypeError: It is not one of these.
    """
    return _httpx.upstream_of(client)
