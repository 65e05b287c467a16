"""Context variables of an exchange: which exchange Python code takes part in, and how deep it is nested."""

from __future__ import annotations

import contextvars

exchange: contextvars.ContextVar[tuple[str, str, int] | None] = contextvars.ContextVar("wasgi.exchange", default=None)
"""The exchange that the running code takes part in: its component, its app and its number. Set by the native module."""

depth: contextvars.ContextVar[int] = contextvars.ContextVar("wasgi.depth", default=0)
"""How many components have called one another in a chain to come here. The native module refuses deep chains."""


def log_extra() -> dict[str, object] | None:
    """The ``extra`` of log records; None outside of any exchange."""
    current = exchange.get()
    return None if current is None else extra_of(*current)


def extra_of(component: str, app: str, number: int) -> dict[str, object]:
    """The ``extra`` of log records that belong to an exchange."""
    return {"wasgi_component": component or None, "wasgi_app": app or None, "wasgi_exchange": number or None}
