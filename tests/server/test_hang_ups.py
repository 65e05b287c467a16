"""Clients that leave: their guests are stopped, in each state of a connection."""

from __future__ import annotations

import pytest

import wasgi
from tests.conftest import AppMaker, until
from tests.server.conftest import Client, Serve

STATES = {
    "a guest that waits": [("/sleep?ms=60000", (), b"")],
    "a body that the guest does not read": [("/sleep?ms=60000", ("content-length: 5",), b"hello")],
    "a body of which more has to come": [("/sleep?ms=60000", ("content-length: 9",), b"hello")],
    "a chunked body": [("/collect", ("transfer-encoding: chunked",), b"5\r\nhello\r\n")],
    "another request that waits": [("/sleep?ms=60000", (), b""), ("/hello", (), b"")],
    "a body that was not asked for": [("/sleep?ms=60000", ("expect: 100-continue", "content-length: 5"), b"")],
    "an answer that streams": [("/endless", (), b"")],
    "an answer that pauses": [("/slow-body?ms=60000", (), b"")],
}


@pytest.mark.parametrize("leaves", ["FIN", "RST"])
@pytest.mark.parametrize("requests", STATES.values(), ids=STATES.keys())
def test_a_guest_whose_client_has_left_is_stopped(
    app: AppMaker, serve: Serve, requests: list[tuple[str, tuple[str, ...], bytes]], leaves: str
) -> None:
    served = app(limits=wasgi.Limits(timeout=None))
    client = Client(serve(served))
    for target, fields, body in requests:
        client.ask(target, *fields, method="POST" if fields else "GET", body=body)
    until(lambda: served.exchanges == 1)
    if leaves == "RST":
        client.reset()
    else:
        client.socket.close()
    until(lambda: served.exchanges == 0)


def test_a_guest_whose_answer_is_sent_makes_room_soon(app: AppMaker, serve: Serve) -> None:
    """It may end its body, for a moment: whoever waits for its place would be told that the app is full."""
    served = app(limits=wasgi.Limits(timeout=None, concurrency=1, queue=1))
    server = serve(served)
    with Client(server) as client, Client(server) as other:
        assert client.ask("/slow-body?ms=60000", method="HEAD").head()[0] == 200
        client.reset()
        assert other.ask("/hello").answer()[0] == 200
