"""Rules of HTTP messages that hold in both directions: for what an app answers, and for what its upstreams answer."""

from __future__ import annotations

import copy
from typing import TypeVar

from wasgi import errors

_Message = TypeVar("_Message")


def is_bare(method: str, status: int) -> bool:
    """Whether a response has no body (RFC 9110, 6.4.1 and 15.3.6)."""
    return method == "HEAD" or status in (204, 205, 304)


def fresh(message: _Message) -> _Message:
    """An unread copy of a message whose body is bytes; a message that streams, as it is.

    A body of bytes is a value, so its message can be sent or answered with again and again.
    """
    try:
        return copy.copy(message)
    except (TypeError, errors.BodyError):
        return message
