"""Testing components with Python: clients (`Client`, `AsyncClient`), a mock of their upstreams (`Upstream`, `Route`).

Also record and replay (`Cassette`), deterministic time and randomness (`Simulation`), server-sent events (`events`),
and a test of isolation between requests (`check_isolation`).

With pytest, the fixtures ``wasgi_app`` and ``upstream`` make clients and mocks; see the guide on testing. Without it::

    upstream = wasgi.testing.Upstream()
    upstream.get("https://api.example.com/users/1").respond(json={"name": "Ada"})
    with wasgi.testing.Client(wasgi.App("greeter.wasm", outgoing=upstream)) as client:
        assert client.get("/greet/1").text == "Hello, Ada"
    upstream.check()
"""

from __future__ import annotations

from wasgi import errors
from wasgi._wasgi import Simulation
from wasgi.testing.cassette import Cassette
from wasgi.testing.client import AsyncClient, Client, Exchange
from wasgi.testing.failures import Fault
from wasgi.testing.isolation import check_isolation
from wasgi.testing.matching import Asked
from wasgi.testing.route import Call, Route
from wasgi.testing.sse import Event, Events, events
from wasgi.testing.upstream import Upstream

__all__ = [
    "Asked",
    "AsyncClient",
    "Call",
    "Cassette",
    "Client",
    "Event",
    "Events",
    "Exchange",
    "Fault",
    "Route",
    "Simulation",
    "Upstream",
    "check_isolation",
    "events",
    "every_error_code",
]


def every_error_code() -> list[str]:
    """The names of wasi:http's 39 error-codes, for ``pytest.mark.parametrize`` and `Route.raises`."""
    return list(errors.ERROR_CODES)
