"""What serving needs of an app: its options for servers, and how it is called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from wasgi._wasgi import Request, Response

OnRequest = Callable[
    [MutableMapping[str, Any], "Request"], "Request | Response | Awaitable[Request | Response | None] | None"
]
OnError = Callable[[MutableMapping[str, Any], Exception], "Response | Awaitable[Response | None] | None"]


class ServedApp(Protocol):
    """An app behind a server. `wasgi.App` is one: its class documents the options, and its constructor sets them."""

    root_path: Literal["strip", "keep"]
    forwarded: bool
    on_request: OnRequest | None
    on_error: OnError | None
    debug: bool

    @property
    def _label(self) -> str: ...

    def _warm(self) -> None: ...

    def handle(self, request: Request, /) -> Response:
        """Calls the guest, blocking."""

    def handle_async(self, request: Request, /) -> Coroutine[Any, Any, Response]:
        """Calls the guest from an event loop."""

    def aclose(self) -> Coroutine[Any, Any, None]:
        """Refuses new exchanges, and waits for those under way."""
