"""Which clock runs when, and what ends it."""

from __future__ import annotations

import contextlib
import time

import pytest

import wasgi
from tests.conftest import AppMaker, until
from tests.server.conftest import Client, Serve, seconds

BEGINNINGS = {
    "nothing": b"",
    "one byte": b"P",
    "half of HTTP/2's preface": b"PRI * HTTP/2.0\r\n",
    "half a head": b"GET / HTTP/1.1\r\nhost: gu",
}


@pytest.mark.parametrize("sent", BEGINNINGS.values(), ids=BEGINNINGS.keys())
def test_a_client_that_does_not_go_on_is_closed(app: AppMaker, serve: Serve, sent: bytes) -> None:
    with Client(serve(app(), header_timeout=0.3, idle_timeout=None)) as client:
        read = client.send(sent).rest()
    assert read == b"" or read.startswith(b"HTTP/1.1 408 ")


def test_such_clients_hold_up_nobody(app: AppMaker, serve: Serve) -> None:
    server = serve(app(), header_timeout=None)
    with contextlib.ExitStack() as clients:
        for number in range(50):
            sent = list(BEGINNINGS.values())[number % 4]
            clients.enter_context(Client(server)).send(sent)
        with Client(server) as client:
            assert client.ask().answer()[0] == 200


def test_a_later_head_has_its_time_from_its_first_byte(app: AppMaker, serve: Serve) -> None:
    with Client(serve(app(), header_timeout=0.4, idle_timeout=None)) as client:
        assert client.ask().answer()[0] == 200
        with pytest.raises(TimeoutError):  # idle: nothing ends it
            client.socket.settimeout(1)
            client.socket.recv(1)
        client.socket.settimeout(20)
        assert client.ask().answer()[0] == 200
        assert client.send(b"GET / HT").answer()[0] == 408
        assert client.rest() == b""


def test_an_idle_connection_is_closed(app: AppMaker, serve: Serve) -> None:
    with Client(serve(app(), idle_timeout=0.3)) as client:
        assert client.ask().answer()[0] == 200
        assert client.rest() == b""


def test_a_body_that_stops_coming(app: AppMaker, serve: Serve) -> None:
    served = app(limits=wasgi.Limits(timeout=None))
    with Client(serve(served, body_timeout=0.3)) as client:
        client.ask("/collect", "content-length: 10", method="POST", body=b"hello")
        status, fields, _ = client.answer()
        assert (status, fields["connection"]) == (408, "close")
    until(lambda: served.exchanges == 0)


def test_a_body_that_comes_slowly_and_steadily_is_taken(app: AppMaker, serve: Serve) -> None:
    """The time is between bytes, not for all of them."""
    with Client(serve(app(limits=wasgi.Limits(timeout=None)), body_timeout=1.5, header_timeout=1)) as client:
        client.ask("/collect", "content-length: 10", method="POST")
        for _ in range(10):
            time.sleep(0.3)
            client.send(b"x")
        assert client.answer()[0] == 200


def test_a_client_that_takes_nothing_is_cut_off(app: AppMaker, serve: Serve) -> None:
    served = app(limits=wasgi.Limits(timeout=None))
    with Client(serve(served, body_timeout=0.5)) as client:
        client.ask("/endless").until(b"\r\n\r\n")
        until(lambda: served.exchanges == 0)


def test_an_answer_that_pauses_lives(app: AppMaker, serve: Serve) -> None:
    """An event stream: the guest's time is not the client's."""
    with Client(serve(app(), body_timeout=0.3, idle_timeout=0.3)) as client:
        client.ask("/slow-body?ms=1500")
        assert seconds(lambda: client.until(b"last")) > 1
