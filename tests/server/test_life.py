"""How a server begins, swaps its apps, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import wasgi
from tests.conftest import HELLO, ROOT, AppMaker, until
from tests.server.conftest import Client, Serve, once


def test_what_is_under_way_ends_and_nothing_begins(app: AppMaker, serve: Serve) -> None:
    served = app()
    server = serve(served)
    with Client(server) as busy, Client(server) as idle:
        assert idle.ask().answer()[0] == 200
        busy.ask("/sleep?ms=800")
        until(lambda: served.exchanges == 1)
        closing = threading.Thread(target=server.close)
        closing.start()
        status, fields, body = busy.answer()
        assert (status, fields["connection"], body) == (200, "close", b"slept")
        assert idle.rest() == b""
        closing.join()
    with pytest.raises(OSError, match="refused"):
        Client(server)


def test_a_client_that_was_refused_and_stays_holds_up_nothing(app: AppMaker, serve: Serve) -> None:
    server = serve(app())
    with Client(server) as client:
        assert client.send("GET / HTTP/1.1\r\n\r\n").answer()[0] == 400
        closing = threading.Thread(target=server.close)
        closing.start()
        closing.join(20)
        assert not closing.is_alive()


def test_a_client_that_has_sent_nothing_yet_is_answered(app: AppMaker, serve: Serve) -> None:
    server = serve(app())
    with Client(server) as kept, Client(server) as silent:
        assert kept.ask().answer()[0] == 200
        until(lambda: server.stats.connections == 2)
        closing = threading.Thread(target=server.close)
        closing.start()
        until(lambda: server.closing)
        for client in (silent, kept):
            status, fields, _ = client.ask().answer()
            assert (status, fields["connection"]) == (200, "close")
        closing.join()


def test_what_does_not_end_is_ended(app: AppMaker, serve: Serve) -> None:
    served = app(limits=wasgi.Limits(timeout=None))
    server = serve(served)
    with Client(server) as client:
        client.ask("/endless").until(b"\r\n\r\n")
        server.close(0.5)
    until(lambda: served.exchanges == 0)
    assert server.stats.connections == 0


def test_a_swap_takes_nothing_from_what_is_under_way(app: AppMaker, serve: Serve, hello: wasgi.Component) -> None:
    old = app()
    server = serve(old)
    with Client(server) as client, Client(server) as other:
        client.ask("/sleep?ms=500")
        until(lambda: old.exchanges == 1)
        server.swap(wasgi.App(hello))
        assert other.ask("/status?code=404").answer()[0] == 200  # `hello` has one answer for all
        assert client.answer()[2] == b"slept"


def test_what_a_swap_leaves_behind_is_ended_in_time(app: AppMaker, serve: Serve) -> None:
    old = app(limits=wasgi.Limits(timeout=None))
    server = serve(old, drain_timeout=0.5)
    with Client(server) as client:
        client.ask("/slow-body?ms=60000").until(b"\r\n\r\n")
        server.swap(app())
        until(lambda: old.exchanges == 0)
        assert not client.rest().endswith(b"0\r\n\r\n")
        until(lambda: server.stats.swapped == 0)


def test_an_address_that_is_taken(app: AppMaker, serve: Serve) -> None:
    server = serve(app())
    with pytest.raises(OSError, match="in use"):
        wasgi.Server(app(), bind=["127.0.0.1:0", server.addresses[0]])


def test_a_port_that_two_servers_share(app: AppMaker, serve: Serve) -> None:
    """Both on purpose: one of them alone does not have it."""
    first, second = app(), app()
    one = serve(first, reuse_port=True, health="127.0.0.1:0")
    address = one.addresses[0]
    with pytest.raises(OSError, match="in use"):
        wasgi.Server(app(), bind=address)
    other = serve(second, bind=address, health=one.health, reuse_port=True)
    assert (other.addresses, other.health) == (one.addresses, one.health)
    clients = [Client(address) for _ in range(100)]
    assert {client.ask().answer()[0] for client in clients} == {200}
    assert min(one.stats.requests, other.stats.requests) > 0
    for client in clients:
        client.socket.close()
    one.close()
    with Client(address) as client:
        assert client.ask().answer()[0] == 200


def test_an_app_that_is_closed_is_not_served(app: AppMaker, serve: Serve) -> None:
    closed = app()
    closed.close()
    server = wasgi.Server(closed, bind="127.0.0.1:0")
    with pytest.raises(wasgi.AppClosedError):
        server.serve()
    assert server.closing
    with pytest.raises(OSError, match="refused"):
        Client(server)
    open_one = serve(app())
    with pytest.raises(wasgi.AppClosedError):
        open_one.swap(closed)
    assert once(open_one, "GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")[0] == 200


def test_wrong_options(app: AppMaker) -> None:
    wrong: list[dict[str, Any]] = [
        {"bind": "127.0.0.1"},
        {"bind": []},
        {"trusted": ["example.com"]},
        {"header_timeout": 0},
        {"connections": 0},
        {"header_bytes": 5},
    ]
    for options in wrong:
        with pytest.raises(ValueError, match=r"."):
            wasgi.Server(app(), **{"bind": "127.0.0.1:0", **options})
    with pytest.raises(ValueError, match="never be called"):
        wasgi.Server(app(on_error=lambda scope, error: None), bind="127.0.0.1:0")
    with pytest.raises(TypeError):
        wasgi.Server("hello.wasm", bind="127.0.0.1:0")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [{"tls": "cert.pem"}, {"tls": ("cert.pem", "key.pem")}, {"bind": 8000}, {"bind": [8000]}, {"bind": b"127.0.0.1:0"}],
)
def test_options_of_another_type(options: dict[str, Any], app: AppMaker) -> None:
    (name,) = options
    with pytest.raises(TypeError, match=f"`{name}` must be "):
        wasgi.Server(app(), **{"bind": "127.0.0.1:0", **options})


@pytest.mark.parametrize("seconds", ["1", None, True])
def test_a_time_to_drain_that_is_no_number(seconds: Any, app: AppMaker) -> None:
    with pytest.raises(ValueError, match="`drain_timeout` must be a number of seconds"):
        wasgi.Server(app(), bind="127.0.0.1:0", drain_timeout=seconds)


async def test_one_that_is_closed_serves_no_more(app: AppMaker) -> None:
    server = wasgi.Server(app(), bind="127.0.0.1:0")
    server.close()
    with pytest.raises(wasgi.WasgiError, match=r"the server is closed; hint: make another `wasgi\.Server`"):
        server.start()
    with pytest.raises(wasgi.WasgiError, match="the server is closed"):
        server.serve()
    with pytest.raises(wasgi.WasgiError, match="the server is closed"):
        await server.serve_async()
    with pytest.raises(wasgi.WasgiError, match="the server is closed"):
        server.swap(app())


async def test_in_an_event_loop(app: AppMaker) -> None:
    server = wasgi.Server(app(), bind="127.0.0.1:0")
    serving = asyncio.create_task(server.serve_async())
    answer = await asyncio.to_thread(once, server, "GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
    assert answer[2] == b"Hello, World!"
    await server.aclose()
    await serving


async def test_a_task_that_is_cancelled_ends_its_server(app: AppMaker) -> None:
    served = app(limits=wasgi.Limits(timeout=None))
    server = wasgi.Server(served, bind="127.0.0.1:0")
    serving = asyncio.create_task(server.serve_async())
    with await asyncio.to_thread(Client, server) as client:
        client.ask("/endless")
        while served.exchanges == 0:
            await asyncio.sleep(0.001)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        await asyncio.to_thread(until, lambda: served.exchanges == 0)


# started in the background, a process may have inherited that SIGINT is ignored
PROGRAM = """
import signal, sys, wasgi
signal.signal(signal.SIGINT, signal.default_int_handler)
server = wasgi.Server(wasgi.App(sys.argv[1]), bind="127.0.0.1:0")
print(server.urls[0], flush=True)
server.serve()
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals(probe_path: Path, number: signal.Signals) -> None:
    """The first lets exchanges end, the second does not."""
    program = [sys.executable, "-c", PROGRAM, str(probe_path)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip().removeprefix("http://")
        with Client(address) as client:
            client.ask("/slow-body?ms=60000").until(b"\r\n\r\n")
            process.send_signal(number)
            with Client(address) as other:  # for a moment it still accepts
                assert other.ask().answer()[0] == 200
            assert process.poll() is None
            process.send_signal(number)
            assert process.stdout.read() == "ended\n"
            assert process.wait() == 0


def test_health(app: AppMaker, serve: Serve) -> None:
    served = app(limits=wasgi.Limits(concurrency=1))
    server = serve(served, health="127.0.0.1:0")
    assert server.health is not None

    def asked(path: str) -> int:
        connection = http.client.HTTPConnection(str(server.health))
        connection.request("GET", path)
        return connection.getresponse().status

    assert [asked("/live"), asked("/ready"), asked("/other")] == [200, 200, 404]
    with Client(server) as client:
        client.ask("/sleep?ms=60000")
        until(lambda: served.exchanges == 1)
        assert [asked("/live"), asked("/ready")] == [200, 503]
    until(lambda: served.exchanges == 0)
    with Client(server) as client:
        client.ask("/sleep?ms=1500")
        until(lambda: served.exchanges == 1)
        closing = threading.Thread(target=server.close)
        closing.start()
        until(lambda: server.closing)
        assert [asked("/live"), asked("/ready")] == [200, 503]
        closing.join()


def test_silent_clients_do_not_hold_up_health(app: AppMaker, serve: Serve) -> None:
    server = serve(app(), health="127.0.0.1:0")
    assert server.health is not None
    with contextlib.ExitStack() as silent:
        for _ in range(200):
            silent.enter_context(Client(server.health))
        # less than one of them may take
        with Client(server.health, timeout=4) as client:
            assert client.ask("/live").answer()[::2] == (200, b"alive\n")
        with Client(server.health, timeout=4) as client:
            assert client.ask("/ready", method="HEAD").rest().endswith(b"\r\n\r\n")


CROWDED = """
import logging, resource, sys, wasgi
logging.basicConfig(format="%(message)s", stream=sys.stdout)
app = wasgi.App(sys.argv[1])
server = wasgi.Server(app, bind="127.0.0.1:0", health="127.0.0.1:0", threads=1)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
with server:
    print(server.addresses[0], server.health, flush=True)
    sys.stdin.read()
    server.close(0)
"""


def test_descriptors_that_are_used_up(probe_path: Path) -> None:
    """Accepting pauses, and goes on by itself. Meanwhile who is connected is served, and health is answered."""
    program = [sys.executable, "-c", CROWDED, str(probe_path)]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(program, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process,
        contextlib.ExitStack() as clients,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        address, health = process.stdout.readline().split()

        def asked(path: str) -> int:
            connection = http.client.HTTPConnection(health, timeout=20)
            connection.request("GET", path)
            return connection.getresponse().status

        kept = clients.enter_context(Client(address))
        assert kept.ask().answer()[0] == 200
        others = [clients.enter_context(Client(address)).ask() for _ in range(100)]
        assert process.stdout.readline().startswith("no connections can be accepted: ")
        for _ in range(5):
            assert kept.ask().answer()[0] == 200
            assert [asked("/live"), asked("/ready")] == [200, 503]
        # some are served, and leave: others take their places
        for other in others:
            assert other.answer()[0] == 200
            other.socket.close()
        until(lambda: asked("/ready") == 200)
        assert kept.ask().answer()[0] == 200
        process.stdin.close()
        assert "no connections" not in process.stdout.read()
        assert process.wait() == 0


def test_as_many_connections_as_there_may_be(app: AppMaker, serve: Serve) -> None:
    server = serve(app(), connections=2)
    first, second = Client(server), Client(server)
    assert [client.ask().answer()[0] for client in (first, second)] == [200, 200]
    with Client(server) as third:
        third.ask()
        third.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            third.socket.recv(1)
        third.socket.settimeout(20)
        first.socket.close()
        assert third.answer()[0] == 200
    second.socket.close()


def test_a_socket_that_was_handed_over(app: AppMaker, serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = serve(app(), bind=f"fd:{listener.fileno()}")
        assert server.addresses[0] == f"127.0.0.1:{listener.getsockname()[1]}"
        assert once(server, "GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")[0] == 200


def test_routes(app: AppMaker, serve: Serve, hello: wasgi.Component, tmp_path: Path) -> None:
    server = serve({"/probe": app(), "//hello.local": wasgi.App(hello), "/probe/hello": wasgi.App(hello)})

    def asked(target: str, host: str = "a") -> tuple[int, bytes]:
        status, _, body = once(server, f"GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n")
        return status, body

    assert asked("/probe/status?code=201")[0] == 201
    assert asked("/%70robe/status?code=201")[0] == 201
    assert asked("/probe/hello/x") == (200, b"Hello, World!")
    assert asked("/probe%2Fstatus?code=201")[0] == 404
    assert asked("/probes")[0] == 404
    assert asked("/probes", "HELLO.local.") == (200, b"Hello, World!")
    assert asked("/probes", "hello.local:81") == (200, b"Hello, World!")
    for pattern, why in (("api", "no route"), ("/ü", "hint: `/%C3%BC`"), ("/a b", "hint: `/a%20b`")):
        with pytest.raises(ValueError, match=why):
            wasgi.Server({pattern: app()}, bind="127.0.0.1:0")
    assert HELLO.exists()


def test_static_files(app: AppMaker, serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "a.txt").write_text("0123456789")
    (folder / ".env").write_text("secret")
    (tmp_path / "outside").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "outside")
    server = serve({"/": app()}, static={"/assets": folder})

    def asked(target: str, fields: str = "", method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        return once(server, f"{method} {target} HTTP/1.1\r\nhost: a\r\n{fields}\r\n")

    status, headers, body = asked("/assets/a.txt")
    assert (status, body, headers["content-type"]) == (200, b"0123456789", "text/plain; charset=utf-8")
    assert asked("/assets/a.txt", "range: bytes=2-3\r\n")[::2] == (206, b"23")
    assert asked("/assets/a.txt", 'range: bytes=2-3\r\nif-range: "old"\r\n')[::2] == (200, b"0123456789")
    assert asked("/%61ssets/a.txt")[2] == b"0123456789"
    for missing in (".env", "link", "../outside", "%2e%2e/outside", "none"):
        assert asked(f"/assets/{missing}")[0] == 404
    assert asked("/hello")[2] == b"Hello, World!"
    server.swap(app())
    assert asked("/assets/a.txt")[2] == b"0123456789"
    with pytest.raises(OSError, match="nowhere"):
        wasgi.Server(app(), bind="127.0.0.1:0", static={"/x": tmp_path / "nowhere"})
