"""Clients that would hold a server up, and users that do not take care."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from h2.events import DataReceived

import wasgi
from tests.conftest import ROOT, AppMaker, until
from tests.server.conftest import Client, Serve, once, seconds
from tests.server.test_http2 import Http2

PEM = Path(__file__).parent / "pem"


def test_a_client_of_http2_that_does_not_end_is_told_once_and_left(app: AppMaker, serve: Serve) -> None:
    """It acknowledges nothing, and so the end of its connection would never be agreed on (RFC 9113, 6.8)."""
    server = serve(app(), idle_timeout=0.2, body_timeout=None)
    client = Http2(server)
    with client:
        stream = client.request("/hello")
        while not client.has_ended(stream):
            client.listen()
        until(lambda: server.stats.connections == 0)


def test_a_client_of_http2_that_acknowledges_nothing_does_not_hold_up_the_end(app: AppMaker, serve: Serve) -> None:
    server = serve(app(), drain_timeout=600)
    with Http2(server) as client:
        assert client.finished(client.request("/hello"))[0] == 200
        closing = threading.Thread(target=server.close)
        closing.start()
        until(lambda: server.stats.connections == 0)
        closing.join()
        client.listen()
        assert client.goaways > 0


def test_a_client_of_http2_that_takes_its_time_gets_all_when_the_server_ends(app: AppMaker, serve: Serve) -> None:
    """The rest of an answer waits for its window when its guest has long ended."""
    server = serve(app(), drain_timeout=600)
    with Http2(server, initial_window_size=5) as client:
        stream = client.request("/hello")
        while not client.of(DataReceived, stream):
            client.listen(acknowledge=False)
        closing = threading.Thread(target=server.close)
        closing.start()
        until(lambda: server.closing)
        client.socket.settimeout(3)
        with pytest.raises(TimeoutError):
            while client.listen(acknowledge=False):
                pass
        client.socket.settimeout(20)
        client.h2.increment_flow_control_window(100, stream)
        client.flush()
        assert client.finished(stream)[2] == b"Hello, World!"
        closing.join()


def test_a_client_of_tls_that_takes_nothing_is_not_waited_for(app: AppMaker, serve: Serve) -> None:
    """The last word of TLS has to be taken, too."""
    served = app(limits=wasgi.Limits(timeout=None))
    server = serve(served, body_timeout=0.2, tls=wasgi.Tls(PEM / "server.pem", PEM / "server.key"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with Client(server) as client:
        client.socket = context.wrap_socket(client.socket)
        client.ask("/endless")
        until(lambda: server.stats.requests == 1)
        until(lambda: server.stats.connections == 0)
    until(lambda: served.exchanges == 0)


def test_the_extensions_of_chunks_have_no_limit_together(app: AppMaker, serve: Serve) -> None:
    chunk = b"4;chunk-signature=%s\r\nabcd\r\n" % (b"a" * 64)
    with Client(serve(app())) as client:
        client.ask("/echo", "transfer-encoding: chunked", method="POST", body=chunk * 400 + b"0;last\r\n\r\n")
        assert client.answer()[2] == b"abcd" * 400
        assert client.ask().answer()[0] == 200


def test_a_body_in_chunks_that_has_come_is_not_missed(app: AppMaker, serve: Serve) -> None:
    """A client that has sent all of it may shut its sending side down before the guest has read it."""
    with Client(serve(app())) as client:
        client.ask(
            "/sleep?ms=1200", "transfer-encoding: chunked", method="POST", body=b"1\r\na\r\n" * 500 + b"0\r\n\r\n"
        )
        assert client.shut().answer()[2] == b"slept"


def test_a_control_character_in_a_field_is_refused(app: AppMaker, serve: Serve) -> None:
    with Client(serve(app())) as client:
        status, fields, _ = client.ask("/hello", "x: a\x01b").answer()
        assert (status, fields["content-type"]) == (400, "application/problem+json")


def test_a_head_of_what_never_ends(app: AppMaker, serve: Serve) -> None:
    """The client gets no body, and its guest does not write for ever."""
    served = app(limits=wasgi.Limits(timeout=None))
    with Client(serve(served)) as client:
        assert client.ask("/endless", method="HEAD").head()[0] == 200
        until(lambda: served.exchanges == 0)
        assert client.ask().answer()[0] == 200


def test_each_listener_can_have_the_last_place(app: AppMaker, serve: Serve) -> None:
    server = serve(app(), bind=["127.0.0.1:0", "127.0.0.1:0"], connections=1)
    for address in [*server.addresses, *server.addresses]:
        with Client(address) as client:
            assert client.ask("/hello", "connection: close").answer()[0] == 200


def test_the_shortest_time_to_end_counts(app: AppMaker, serve: Serve) -> None:
    served = app(limits=wasgi.Limits(timeout=None))
    server = serve(served)
    with Client(server) as client:
        client.ask("/sleep?ms=60000")
        until(lambda: served.exchanges == 1)
        patient = threading.Thread(target=server.close, args=(60,))
        patient.start()
        until(lambda: server.closing)
        assert seconds(lambda: server.close(0.3)) < 30
        patient.join()


def test_a_time_to_end_that_is_none(app: AppMaker, serve: Serve) -> None:
    server = serve(app())
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            server.close(wrong)
    assert not server.closing
    assert once(server, "GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")[0] == 200


FORKS = """
import os, sys, wasgi
with wasgi.Server(wasgi.App(sys.argv[1]), bind="127.0.0.1:0", threads=1) as server:
    child = os.fork()
    if not child:
        server.close()
        print(server.closing, flush=True)
        del server
        os._exit(0)
    print(os.waitpid(child, 0)[1], server.closing, flush=True)
"""


def test_a_forked_child_closes_nothing_and_waits_for_nothing(probe_path: Path) -> None:
    """The threads that serve are its parent's."""
    program = [sys.executable, "-W", "ignore", "-c", FORKS, str(probe_path)]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    assert done.stdout.split("\n") == ["True", "0 False", ""]


EXITS = """
import socket, sys, threading, time, wasgi
served = wasgi.App(sys.argv[1], on_finish=lambda exchange: time.sleep(0.01))
server = wasgi.Server(served, bind="127.0.0.1:0", threads=1)
server.start()
host, _, port = server.addresses[0].rpartition(":")

def ask():
    while True:
        try:
            with socket.create_connection((host, int(port))) as client:
                client.sendall(b"GET /hello HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n")
                client.recv(4096)
        except OSError:
            time.sleep(0.001)

for _ in range(4):
    threading.Thread(target=ask, daemon=True).start()
while server.stats.requests < 200:
    time.sleep(0.001)
"""


def test_a_server_that_nobody_has_closed_ends_with_the_interpreter(probe_path: Path) -> None:
    """It takes no requests that nobody would serve any more."""
    program = [sys.executable, "-c", EXITS, str(probe_path)]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    assert "is answered with" not in done.stderr


def test_what_raises_ends_serving(app: AppMaker) -> None:
    server = wasgi.Server(app(), bind="127.0.0.1:0")

    def fails() -> None:
        raise RuntimeError("no place to register at")

    with pytest.raises(RuntimeError, match="register"):
        server.serve(on_start=fails)
    assert server.closing
    server.close()
    with pytest.raises(OSError, match="refused"):
        Client(server)


FAST: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as it is": ({}, {}),
    "instances that are reused": ({"reuse": wasgi.Reuse(requests=100)}, {}),
    "one thread": ({}, {"threads": 1}),
    "no timeouts": ({}, {"header_timeout": None, "body_timeout": None, "idle_timeout": None}),
    "a port that is shared": ({}, {"reuse_port": True}),
    "a log and ids": ({}, {"access_log": os.devnull, "request_ids": True}),
}


@pytest.mark.parametrize(("of_app", "of_server"), FAST.values(), ids=FAST.keys())
def test_no_option_removes_a_check(
    app: AppMaker, serve: Serve, of_app: dict[str, Any], of_server: dict[str, Any]
) -> None:
    server = serve(app(limits=wasgi.Limits(request_body=1000), **of_app), **of_server)
    host = "host: guest.local\r\n"
    checked = {
        f"POST /echo HTTP/1.1\r\n{host}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n": 400,
        f"POST /echo HTTP/1.1\r\n{host}content-length: 1\r\ncontent-length: 2\r\n\r\na": 400,
        "GET /hello HTTP/1.1\nhost: a\n\n": 400,
        "GET /hello HTTP/1.1\r\n\r\n": 400,
        f"GET https://guest.local/hello HTTP/1.1\r\n{host}\r\n": 421,
        f"GET /hello HTTP/1.1\r\n{host}x: {'y' * 70_000}\r\n\r\n": 431,
        f"POST /collect HTTP/1.1\r\n{host}content-length: 1001\r\n\r\n{'y' * 1001}": 413,
    }
    # twice: an instance that has served is one that could be reused
    for _ in range(2):
        assert once(server, f"GET /hello HTTP/1.1\r\n{host}\r\n")[0] == 200
        assert {sent: once(server, sent)[0] for sent in checked} == checked
