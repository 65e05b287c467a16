"""Calling the user's functions: upstreams that answer a guest's request, and `on_finish`."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from wasgi import _wasgi
from wasgi._native.context import depth, extra_of
from wasgi._native.output import say

if TYPE_CHECKING:
    from wasgi._wasgi import Exchange, OutgoingCall

_log = logging.getLogger("wasgi")


def as_upstream(upstream: Any, option: str = "outgoing") -> tuple[Callable[..., Any], bool]:
    """What to call for a request of a guest, and whether that is a coroutine function.

    Raises:
        TypeError: It is not an upstream.
    """
    function = function_of(upstream, option)
    if not isinstance(upstream, _wasgi.App):
        _refuse_what_takes_no_request(upstream, option)
    return function


def function_of(upstream: Any, option: str) -> tuple[Callable[..., Any], bool]:
    """The same at each request: what can be called is taken for an upstream.

    Raises:
        TypeError: It cannot be called.
    """
    if isinstance(upstream, _wasgi.App):
        return upstream.handle_async, True
    if not callable(upstream):
        none = ", or None" if option in ("outgoing", "handler") else ""
        raise TypeError(f"`{option}` must be callable{none}, not {type(upstream).__name__}")
    return upstream, is_async(upstream)


def _refuse_what_takes_no_request(upstream: Any, option: str) -> None:
    """An application, say: each call would fail, and the guest would see an internal error."""
    if isinstance(upstream, type) and issubclass(upstream, _wasgi.Network | _wasgi.Route | _wasgi.App):
        raise TypeError(f"`{option}` must be an upstream, not the class {upstream.__name__} itself")
    try:
        # not the one of what a decorator has wrapped, which may take more
        signature = inspect.signature(upstream, follow_wrapped=False)
    except (TypeError, ValueError):
        return  # it does not tell
    try:
        signature.bind(None)
    except TypeError:
        pass
    else:
        return
    needed = [one for one in signature.parameters.values() if one.default is one.empty and one.kind in _POSITIONAL]
    what, hint = _APPLICATIONS.get(len(needed), (None, None))
    told = f", as {what} does; hint: `wasgi.outgoing.{hint}(application)`" if what else ""
    raise TypeError(f"`{option}` must take one argument, the request, but takes {len(needed)}{told}")


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_APPLICATIONS = {2: ("a WSGI application", "wsgi"), 3: ("an ASGI application", "asgi")}
"""By the number of their arguments."""


def is_async(function: Any) -> bool:
    """Whether calling it gives an awaitable."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return True
    owner = getattr(function, "__self__", None)
    return isinstance(owner, _wasgi.App) and getattr(function, "__name__", "") == "handle_async"


async def answer(call: OutgoingCall, awaitable: Awaitable[Any] | None = None) -> None:
    """Answers an outgoing request by a coroutine function, or by the awaitable that a plain function has returned."""
    depth.set(depth.get() + 1)  # in a copy of the caller's context
    try:
        response = await (call.upstream(call.request) if awaitable is None else awaitable)
    except BaseException as exc:
        call.fail(exc)
        if not isinstance(exc, Exception):
            raise
    else:
        call.answer(response)
    finally:
        del call  # the traceback of an exception that somebody keeps holds this frame


def answer_blocking(call: OutgoingCall) -> None:
    """Answers an outgoing request by a plain function, on a thread."""
    depth.set(depth.get() + 1)  # in a copy of the caller's context
    try:
        response = call.upstream(call.request)
    except BaseException as exc:
        call.fail(exc)
    else:
        if inspect.isawaitable(response):
            call.hand_to_loop(response)
        else:
            call.answer(response)
    finally:
        del call  # see `answer`


def tell_finished(on_finish: Callable[[Exchange], object], exchange: Exchange) -> None:
    """Calls `on_finish` for an exchange that is over; logs an exception of it."""
    try:
        given = on_finish(exchange)
        if inspect.iscoroutine(given):
            given.close()
            raise TypeError("`on_finish` must not give a coroutine: it runs on a thread")
    except Exception as exc:
        extra = extra_of(exchange.component, exchange.app, exchange.id)
        say(_log, logging.ERROR, "`on_finish` failed", extra, exc)
