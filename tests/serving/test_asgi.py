"""An App as an ASGI application, against a server that checks every message."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wasgi
from tests.asgi_driver import Message, Server, get, http_scope, post
from tests.conftest import ROOT, AppMaker, until
from tests.py.test_roundtrips import ALWAYS, fields
from wasgi.serving import answers


async def settled() -> None:
    """Waits until no guest is left."""
    while wasgi.stats().exchanges:
        await asyncio.sleep(0)


def seen(body: bytes) -> dict[str, str]:
    """What the guest saw of its request."""
    return dict(line.split(": ", 1) for line in body.decode().splitlines())


async def test_an_answer_is_two_messages(app: AppMaker) -> None:
    """And where the guest is done at once, nothing is received for it; on a busy machine some are not."""
    received, messages = set(), set()
    for _ in range(100):
        server = Server(http_scope("/hello"))
        answer = await server.run(app())
        messages.add(len(answer.messages))
        assert (answer.status, answer.body) == (200, b"Hello, World!")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        received.add(server.received)
    assert 0 in received
    assert min(messages) == 2


class TestScope:
    async def test_the_request(self, app: AppMaker) -> None:
        headers = [(b"host", b"example.com:8080"), (b"x-one", b"1"), (b"X-Two", b"\xe9"), (b"x-one", b"2")]
        answer = await get(app(), "/inspect?a=%20&b=c", headers=headers, scheme="https", method="PATCH")
        assert answer.body.decode().splitlines() == [
            "method: Method::Patch",
            "scheme: Some(Scheme::Https)",
            'authority: Some("example.com:8080")',
            'path: Some("/inspect?a=%20&b=c")',
            "header x-one: 1",
            "header x-one: 2",
            "header x-two: \\xe9",
        ]

    @pytest.mark.parametrize(
        ("raw", "path"),
        [
            (b"/inspect/%2F%41", "/inspect//A"),
            (b"/inspect/caf%C3%A9", "/inspect/café"),
            (b"/inspect//double", "/inspect//double"),
            (b"/inspect/%00", "/inspect/\x00"),
            (b"/inspect/../up", "/inspect/../up"),
            (b"/inspect/;p=1,2&a$!", "/inspect/;p=1,2&a$!"),
        ],
    )
    async def test_the_path_byte_for_byte(self, app: AppMaker, raw: bytes, path: str) -> None:
        def rename(scope: Any, request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response(body=request.path)

        answer = await get(app(on_request=rename), "/", path=path, raw_path=raw)
        assert answer.body == raw

    @pytest.mark.parametrize("changes", [{"raw_path": None}, {}])
    async def test_without_a_raw_path(self, app: AppMaker, changes: dict[str, Any]) -> None:
        scope = http_scope("/", path="/café %/x", **changes)
        if not changes:
            del scope["raw_path"]
        echo = app(on_request=lambda scope, request: wasgi.Response(body=request.path))
        assert (await Server(scope).run(echo)).body == b"/caf%C3%A9%20%25/x"

    @pytest.mark.parametrize(
        ("server", "scheme", "authority"),
        [
            (("192.0.2.2", 80), "http", "192.0.2.2"),
            (("192.0.2.2", 8080), "http", "192.0.2.2:8080"),
            (("2001:db8::1", 443), "https", "[2001:db8::1]"),
            (("2001:db8::1", 80), "https", "[2001:db8::1]:80"),
            (None, "http", "localhost"),
            (("/run/socket", None), "http", "localhost"),
        ],
    )
    async def test_without_a_host(self, app: AppMaker, server: Any, scheme: str, authority: str) -> None:
        answer = await get(app(), "/inspect", headers=[], server=server, scheme=scheme)
        assert seen(answer.body)["authority"] == f'Some("{authority}")'

    @pytest.mark.parametrize("host", [b"a b", b"user@host", b"host:99999", b"\xff"])
    async def test_a_host_that_is_none(self, app: AppMaker, host: bytes) -> None:
        assert (await get(app(), "/hello", headers=[(b"host", host)])).status == 400

    async def test_two_hosts(self, app: AppMaker) -> None:
        answer = await get(app(), "/hello", headers=[(b"host", b"a"), (b"host", b"a")])
        assert (answer.status, json.loads(answer.body)["title"]) == (400, "Bad Request")

    async def test_hop_by_hop_headers_stay_out(self, app: AppMaker) -> None:
        headers = [
            (b"host", b"guest.local"),
            (b"connection", b"keep-alive, X-Mine"),
            (b"keep-alive", b"1"),
            (b"te", b"trailers"),
            (b"upgrade", b"h2c"),
            (b"proxy-authorization", b"secret"),
            (b"x-mine", b"1"),
            (b"x-yours", b"1"),
        ]
        lines = (await get(app(), "/inspect", headers=headers)).body.decode().splitlines()
        assert [line for line in lines if line.startswith("header")] == ["header x-yours: 1"]

    async def test_connect_is_not_for_guests(self, app: AppMaker) -> None:
        assert (await get(app(), "/hello", method="CONNECT")).status == 501

    async def test_asterisk(self, app: AppMaker) -> None:
        echo = app(on_request=lambda scope, request: wasgi.Response(body=request.path))
        assert (await get(echo, "*", method="OPTIONS")).body == b"*"


class TestMounts:
    @pytest.mark.parametrize(
        ("root", "path", "raw", "seen_path"),
        [
            ("/plugins/hello", "/plugins/hello/a", b"/plugins/hello/a", b"/a"),
            ("/plugins/hello/", "/plugins/hello/a", b"/plugins/hello/a", b"/a"),
            ("/plugins", "/plugins", b"/plugins", b"/"),
            ("/plugins", "/plugins/", b"/plugins/", b"/"),
            ("/caf\u00e9", "/caf\u00e9/a/b", b"/caf%c3%A9/a%2Fb", b"/a%2Fb"),
            ("/a b", "/a b/c", b"/a%20b/c", b"/c"),
            # not below it: as a server has it that tells the prefix of its proxy, which it has not seen
            ("/plugins", "/pluginsmore", b"/pluginsmore", b"/pluginsmore"),
            ("/proxy", "/a", b"/a", b"/a"),
            ("", "/a", b"/a", b"/a"),
        ],
    )
    async def test_the_path_below(self, app: AppMaker, root: str, path: str, raw: bytes, seen_path: bytes) -> None:
        prefixes: list[str | None] = []

        def look(scope: Any, request: wasgi.Request) -> wasgi.Response:
            prefixes.append(request.headers.get("x-forwarded-prefix"))
            return wasgi.Response(body=request.path)

        answer = await get(app(on_request=look), "/", path=path, raw_path=raw, root_path=root)
        assert answer.body == seen_path
        assert (prefixes == [None]) == (root == ""), "whoever took the prefix off, the guest is told of it"
        kept = await get(app(on_request=look, root_path="keep"), "/", path=path, raw_path=raw, root_path=root)
        assert kept.body == raw
        assert prefixes[1] is None

    async def test_a_mount_behind_a_proxy_that_the_path_says_nothing_of(self, app: AppMaker) -> None:
        """As Starlette mounts under servers that tell a proxy's prefix in `root_path` only."""
        scope = {"root_path": "/proxy/mount", "app_root_path": "/proxy", "raw_path": b"/mount/inspect"}
        answer = seen((await get(app(), "/mount/inspect", **scope)).body)
        assert answer["path"] == 'Some("/inspect")'
        assert answer["header x-forwarded-prefix"] == "/proxy/mount"

    async def test_the_prefix_is_handed_on(self, app: AppMaker) -> None:
        answer = await get(app(), "/caf\u00e9/inspect", root_path="/caf\u00e9", raw_path=b"/caf%C3%A9/inspect")
        assert seen(answer.body)["header x-forwarded-prefix"] == "/caf%C3%A9"

    async def test_what_a_client_claims_is_not(self, app: AppMaker) -> None:
        forged = [(b"host", b"guest.local"), *((b"x-forwarded-" + name, b"forged") for name in FORWARDED)]
        lines = (await get(app(), "/inspect", headers=[*forged, (b"forwarded", b"forged")])).body.decode()
        assert "forged" not in lines
        assert "x-forwarded" not in lines
        known = seen((await get(app(forwarded=True), "/inspect", headers=forged, scheme="https")).body)
        assert known["header x-forwarded-for"] == "192.0.2.1"
        assert known["header x-forwarded-proto"] == "https"
        assert known["header x-forwarded-host"] == "guest.local"
        assert "forged" not in str(known)


FORWARDED = [b"for", b"proto", b"host", b"prefix"]


class TestStreams:
    async def test_a_body_is_read_as_the_guest_reads(self, app: AppMaker) -> None:
        answer = await post(app(), "/echo", *(b"%d" % n * 5000 for n in range(10)))
        assert answer.body == b"".join(b"%d" % n * 5000 for n in range(10))

    async def test_full_duplex(self, app: AppMaker) -> None:
        server = Server(http_scope("/echo", method="POST", headers=CHUNKED), b"0", complete=False)
        task = asyncio.create_task(server.run(app()))
        for n in range(1, 5):
            while server.answer.body != b"".join(b"%d" % m for m in range(n)):
                server.sent.clear()
                await server.sent.wait()
            server.incoming.put_nowait({"type": "http.request", "body": b"%d" % n, "more_body": n < 4})
        assert (await task).body == b"01234"

    async def test_events_arrive_one_by_one(self, app: AppMaker) -> None:
        server = Server(http_scope("/slow-body?ms=100"))
        task = asyncio.create_task(server.run(app()))
        await server.sent.wait()
        while not server.answer.body:
            await asyncio.sleep(0)
        assert server.answer.body == b"first", "the head and the first chunk go out at once"
        assert (await task).body == b"firstlast"

    async def test_a_guest_that_does_not_read_is_not_fed_without_end(self, app: AppMaker) -> None:
        asked, goes_on = asyncio.Event(), asyncio.Event()

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            asked.set()
            await goes_on.wait()
            return wasgi.Response(body=b"waited")

        scope = http_scope("/fetch?url=http://up/", method="POST", headers=CHUNKED)
        server = Server(scope, *[b"x" * 10_000] * 100)
        task = asyncio.create_task(server.run(app(outgoing=upstream)))
        await asked.wait()
        for _ in range(1000):
            await asyncio.sleep(0)
        assert server.received <= 8, "while the guest waits; what is left when it has ended is thrown away"
        goes_on.set()
        assert b"waited" in (await task).body

    async def test_the_guest_is_as_fast_as_its_reader(self, app: AppMaker) -> None:
        server = Server(http_scope("/stream?chunks=1000&bytes=4096"))
        reader, sent = asyncio.Event(), 0

        async def slow(message: Any) -> None:
            nonlocal sent
            sent += len(message.get("body", b""))
            if sent > 100_000:
                await reader.wait()

        task = asyncio.create_task(app()(server.scope, server.receive, slow))
        while sent <= 100_000:
            await asyncio.sleep(0)
        assert sent < 300_000
        assert wasgi.stats().exchanges == 1
        reader.set()
        await task
        assert sent == 4_096_000

    async def test_trailers(self, app: AppMaker) -> None:
        headers = [(b"host", b"guest.local"), (b"te", b"trailers")]
        answer = await get(app(), "/trailers?announced=yes", headers=headers, extensions={"http.response.trailers": {}})
        assert (answer.body, answer.trailers) == (b"body", [(b"x-checksum", b"abc"), (b"x-checksum", b"def")])
        without: list[dict[str, Any]] = [{"headers": headers}, {"extensions": {"http.response.trailers": {}}}]
        for changes in without:
            answer = await get(app(), "/trailers?announced=yes", **changes)
            assert (answer.body, answer.trailers) == (b"body", [])

    @pytest.mark.parametrize(("path", "method"), [("/head", "HEAD"), ("/hello", "HEAD"), ("/no-body", "GET")])
    async def test_answers_without_a_body(self, app: AppMaker, path: str, method: str) -> None:
        answer = await get(app(), path, method=method)
        assert answer.body == b""
        assert answer.headers.get("content-length") == ("1234" if path == "/head" else None)

    async def test_work_after_the_answer_goes_on(self, app: AppMaker) -> None:
        done = asyncio.Event()

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            await asyncio.sleep(0.01)
            done.set()
            return wasgi.Response()

        assert (await get(app(outgoing=upstream), "/work-after?url=http://up/")).body == b"done already"
        await asyncio.wait_for(done.wait(), 10)
        await settled()


CHUNKED = [(b"host", b"guest.local"), (b"transfer-encoding", b"chunked")]


class TestReceiving:
    """What a server or a middleware gives, and when."""

    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_a_receive_that_repeats_the_body_and_never_waits(self, app: AppMaker, method: str) -> None:
        """As middleware replaces it that has read the body. The loop must go on."""
        headers = CHUNKED if method == "POST" else [(b"host", b"guest.local")]
        server = Server(http_scope("/sleep?ms=50", method=method, headers=headers))

        async def repeat() -> Message:
            return {"type": "http.request", "body": b"it", "more_body": False}

        await asyncio.wait_for(app()(server.scope, repeat, server.send), 10)
        assert server.state == "end"

    async def test_a_receive_that_has_it_all_does_not_hold_the_loop(self, app: AppMaker) -> None:
        left = 100

        async def receive() -> Message:
            nonlocal left
            left -= 1
            return {"type": "http.request", "body": b"x" * 65536, "more_body": left > 0}

        turns = 0

        async def count() -> None:
            nonlocal turns
            while left > 0:
                turns += 1
                await asyncio.sleep(0)

        def elsewhere(scope: Any, request: wasgi.Request) -> wasgi.Request:
            return wasgi.Request("GET", "http://guest.local/sleep?ms=200")

        counting = asyncio.create_task(count())
        server = Server(http_scope("/", method="POST", headers=CHUNKED))
        await app(on_request=elsewhere)(server.scope, receive, server.send)
        await counting
        assert turns > 50

    @pytest.mark.parametrize(("sent", "complete"), [(1000, True), (1000, False), (200_000, False)])
    async def test_a_guest_that_reads_after_its_answer(self, app: AppMaker, sent: int, complete: bool) -> None:
        """It has what had come; nothing keeps it, or a task of ours, when no more can."""
        server = Server(http_scope("/answer-then-read", method="POST", headers=CHUNKED), b"x" * sent, complete=complete)
        await server.run(app())
        await settled()
        while asyncio.all_tasks() != {asyncio.current_task()}:
            await asyncio.sleep(0.001)

    async def test_it_is_not_received_for_an_exchange_that_is_over(self, app: AppMaker) -> None:
        server = Server(http_scope("/answer-then-read", method="POST", headers=CHUNKED), b"x", complete=False)
        await server.run(app())
        received = server.received
        await settled()
        await asyncio.sleep(0)
        assert server.received == received

    @pytest.mark.parametrize("given", ["request", "response"])
    async def test_a_disconnect_behind_an_upload_that_nobody_reads(self, app: AppMaker, given: str) -> None:
        stream = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                stream.set()
                await asyncio.sleep(0)

        def instead(scope: Any, request: wasgi.Request) -> Any:
            if given == "request":
                return wasgi.Request("GET", "http://guest.local/endless")
            return wasgi.Response(body=endless())

        parts = [b"x" * 65536] * 3
        server = Server(http_scope("/", method="POST", headers=CHUNKED), *parts, complete=False)
        task = asyncio.create_task(app(on_request=instead)(server.scope, server.receive, server.send))
        await server.sent.wait()
        server.hang_up()
        await asyncio.wait_for(task, 10)
        await settled()

    async def test_a_path_that_middleware_has_changed(self, app: AppMaker) -> None:
        echo = app(on_request=lambda scope, request: wasgi.Response(body=request.path))
        for path, raw, root, expected in (
            ("/hello", b"/inspect", "", b"/hello"),
            ("/a/b", b"/a%2Fb", "", b"/a%2Fb"),
            ("/a/b", b"/%61/b?q", "", b"/%61/b"),
            ("/inspect", b"/mount/inspect", "/mount", b"/inspect"),
            ("/caf\ufffd", b"/caf%E9", "", b"/caf%E9"),
        ):
            assert (await get(echo, "/", path=path, raw_path=raw, root_path=root)).body == expected
        assert (await get(echo, "/", path="/\ud800", raw_path=b"")).status == 400

    async def test_a_length_beside_chunks_says_nothing(self, app: AppMaker) -> None:
        answer = await post(app(), "/inspect", b"x", headers=[(b"content-length", b"99")])
        assert "header content-length" not in seen(answer.body)


class TestDisconnects:
    async def test_while_on_error_thinks(self, app: AppMaker) -> None:
        begun = asyncio.Event()

        async def think(scope: Any, error: Exception) -> None:
            begun.set()
            await asyncio.Event().wait()

        server = Server(http_scope("/code?name=internal-error"))
        task = asyncio.create_task(app(on_error=think)(server.scope, server.receive, server.send))
        await asyncio.wait_for(begun.wait(), 10)
        server.hang_up()
        await asyncio.wait_for(task, 10)

    async def test_on_request_that_gives_something_else(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        assert (await get(app(on_request=lambda scope, request: "no"), "/hello")).status == 500
        assert "`on_request` must return a Request, a Response or None, not str" in caplog.text

    async def test_on_request_that_swallows_it(self, app: AppMaker) -> None:
        begun = asyncio.Event()

        async def think(scope: Any, request: wasgi.Request) -> None:
            begun.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

        server = Server(http_scope("/endless"))
        task = asyncio.create_task(app(on_request=think)(server.scope, server.receive, server.send))
        await asyncio.wait_for(begun.wait(), 10)
        server.hang_up()
        await asyncio.wait_for(task, 10)
        assert task.cancelling() == 0
        assert server.answer.messages == []

    async def test_a_head_keeps_no_guest(self, app: AppMaker) -> None:
        for path in ("/endless", "/slow-body?ms=60000", "/trap-midway?bytes=10"):
            await asyncio.wait_for(get(app(), path, method="HEAD"), 10)
            await settled()

    @pytest.mark.parametrize(
        "path", ["/sleep?ms=60000", "/fetch?url=http://up/", "/endless", "/spin", "/slow-body?ms=60000"]
    )
    async def test_the_guest_stops(self, app: AppMaker, path: str) -> None:
        called, cancelled = asyncio.Event(), asyncio.Event()

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            called.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError("unreachable")

        server = Server(http_scope(path))
        task = asyncio.create_task(app(outgoing=upstream)(server.scope, server.receive, server.send))
        while not wasgi.stats().exchanges:
            await asyncio.sleep(0)
        if "fetch" in path:
            await asyncio.wait_for(called.wait(), 10)
        server.hang_up()
        await asyncio.wait_for(task, 10)
        await settled()
        if "fetch" in path:
            await asyncio.wait_for(cancelled.wait(), 10)

    @pytest.mark.parametrize("path", ["/collect", "/echo", "/sleep?ms=60000"])
    async def test_in_the_midst_of_the_request(self, app: AppMaker, path: str) -> None:
        """Whether the guest reads its request or not."""
        server = Server(http_scope(path, method="POST", headers=CHUNKED), b"half of it", complete=False)
        task = asyncio.create_task(app()(server.scope, server.receive, server.send))
        while not wasgi.stats().exchanges:
            await asyncio.sleep(0)
        server.hang_up()
        await asyncio.wait_for(task, 10)
        await settled()
        assert server.state != "end"

    async def test_a_cancelled_task(self, app: AppMaker) -> None:
        server = Server(http_scope("/sleep?ms=60000"))
        task = asyncio.create_task(app()(server.scope, server.receive, server.send))
        while not wasgi.stats().exchanges:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await settled()

    async def test_a_disconnect_after_the_answer_stops_no_work(self, app: AppMaker) -> None:
        """Servers say `http.disconnect` when the answer is complete, too."""
        done = asyncio.Event()

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            await asyncio.sleep(0.02)
            done.set()
            return wasgi.Response()

        server = Server(http_scope("/work-after?url=http://up/"))

        async def send(message: Any) -> None:
            await server.send(message)
            if not message.get("more_body", True):
                server.hang_up()
                await asyncio.sleep(0.005)

        await app(outgoing=upstream)(server.scope, server.receive, send)
        await asyncio.wait_for(done.wait(), 10)

    async def test_a_receive_that_fails_is_a_disconnect(self, app: AppMaker) -> None:
        async def receive() -> Any:
            raise OSError("the connection is gone")

        server = Server(http_scope("/sleep?ms=60000"))
        await asyncio.wait_for(app()(server.scope, receive, server.send), 10)
        await settled()

    async def test_a_send_that_fails_stops_the_guest(self, app: AppMaker) -> None:
        server = Server(http_scope("/endless"))

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                raise OSError("the client has gone")

        with pytest.raises(OSError, match="the client has gone"):
            await app()(server.scope, server.receive, send)
        await settled()


class TestOutcomes:
    @pytest.mark.parametrize(
        ("path", "status", "title"),
        [
            ("/trap", 500, "Internal Server Error"),
            ("/silent", 500, "Internal Server Error"),
            ("/exit?code=1", 500, "Internal Server Error"),
            ("/spin", 504, "Gateway Timeout"),
            ("/code?name=internal-error", 502, "Bad Gateway"),
            ("/code?name=HTTP-response-timeout", 504, "Gateway Timeout"),
            ("/code?name=loop-detected", 508, "Loop Detected"),
            ("/status?code=103", 502, "Bad Gateway"),
        ],
    )
    async def test_a_guest_without_an_answer(
        self, app: AppMaker, path: str, status: int, title: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.ERROR, "wasgi.asgi"):
            answer = await get(app(limits=wasgi.Limits(timeout=0.2)), path)
        assert answer.status == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert json.loads(answer.body) == {"type": "about:blank", "title": title, "status": status}
        assert f"is answered with {status}" in caplog.messages[0]

    async def test_a_log_line_is_one_line(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.ERROR, "wasgi.asgi"):
            trap = wasgi.Request("GET", "http://guest.local/trap")
            await get(app(on_request=lambda scope, request: trap), "/trap", path="/x\nforged", raw_path=b"/x%0Aforged")
        assert caplog.messages[0].startswith(r"GET '/x\nforged' is answered with 500")

    async def test_debug_tells(self, app: AppMaker) -> None:
        said = json.loads((await get(app(debug=True), "/trap")).body)
        assert said["detail"].startswith("TrapError: the guest trapped")
        assert any("named_function_that_traps" in frame for frame in said["backtrace"])
        assert said["stderr"] == ["last words"]

    async def test_overload(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(concurrency=1))
        async with await made.handle_async(wasgi.Request("GET", "http://guest.local/endless")):
            answer = await get(made, "/hello")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        await settled()

    async def test_limits_of_the_request(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(request_body=10, fields=1000))
        assert (await get(made, "/hello", headers=[(b"host", b"a"), (b"x", b"y" * 2000)])).status == 431
        assert (await post(made, "/collect", b"x" * 11)).status == 413
        headers = [(b"host", b"a"), (b"content-length", b"11")]
        server = Server(http_scope("/ignore-body", method="POST", headers=headers), b"x" * 11)
        assert (await server.run(made)).status == 413

    @pytest.mark.parametrize("path", ["/trap-midway?bytes=100", "/dropped", "/length?declared=10&written=5"])
    async def test_an_answer_that_breaks_off_raises(self, app: AppMaker, path: str) -> None:
        server = Server(http_scope(path))
        with pytest.raises(wasgi.BodyError):
            await app()(server.scope, server.receive, server.send)
        assert server.state == "body", "it must not look complete"

    async def test_each_error_code_has_a_status(self) -> None:
        table = {code: answers.status_of_code(code) for code in wasgi.errors.ERROR_CODES}
        assert len(table) == 39
        assert set(table.values()) == {400, 411, 413, 414, 431, 502, 504, 508}
        assert all(code.startswith("HTTP-request") for code, status in table.items() if status < 500)
        documented = re.findall(r"^\| `([\w-]+)` \| (\d+)", (ROOT / "docs" / "servers.md").read_text(), re.MULTILINE)
        assert {code: int(status) for code, status in documented} == table

    async def test_on_error(self, app: AppMaker) -> None:
        errors: list[Exception] = []

        async def answer(scope: Any, error: Exception) -> wasgi.Response | None:
            errors.append(error)
            return wasgi.Response(418, body=scope["path"]) if isinstance(error, wasgi.TrapError) else None

        made = app(on_error=answer)
        trapped = await get(made, "/trap")
        assert (trapped.status, trapped.body) == (418, b"/trap")
        assert (await get(made, "/silent")).status == 500
        assert [type(error) for error in errors] == [wasgi.TrapError, wasgi.NoResponseError]
        assert (await get(app(on_error=lambda scope, error: None), "/trap")).status == 500


class TestOnRequest:
    async def test_it_adds_headers(self, app: AppMaker) -> None:
        def tenant(scope: Any, request: wasgi.Request) -> None:
            request.headers["x-tenant"] = scope["state"]["tenant"]

        answer = await get(app(on_request=tenant), "/inspect", state={"tenant": "acme"})
        assert seen(answer.body)["header x-tenant"] == "acme"

    async def test_it_answers_by_itself(self, app: AppMaker) -> None:
        async def auth(scope: Any, request: wasgi.Request) -> wasgi.Response | None:
            await asyncio.sleep(0)
            return wasgi.Response(401) if "authorization" not in request.headers else None

        made = app(on_request=auth)
        assert (await get(made, "/hello")).status == 401
        assert (await get(made, "/hello", headers=[(b"host", b"a"), (b"authorization", b"x")])).status == 200
        until(lambda: wasgi.stats().exchanges == 0)

    async def test_it_gives_another_request(self, app: AppMaker) -> None:
        def elsewhere(scope: Any, request: wasgi.Request) -> wasgi.Request:
            return wasgi.Request(request.method, "http://guest.local/hello")

        assert (await get(app(on_request=elsewhere), "/trap")).body == b"Hello, World!"

    @pytest.mark.parametrize("kind", ["bytes", "async", "blocking"])
    async def test_its_answers_stream_too(self, app: AppMaker, kind: str) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        def blocking() -> Iterator[bytes]:
            yield b"a"
            yield b"b"

        bodies: dict[str, Any] = {"bytes": b"ab", "async": chunks, "blocking": blocking}
        body = bodies[kind] if kind == "bytes" else bodies[kind]()
        assert (await get(app(on_request=lambda scope, request: wasgi.Response(body=body)), "/")).body == b"ab"

    @pytest.mark.parametrize("status", [204, 304])
    async def test_answers_without_a_body(self, app: AppMaker, status: int) -> None:
        def given(scope: Any, request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response(status, headers={"content-length": "5", "x-a": "1"}, body=iter([b"x"]))

        answer = await get(app(on_request=given), "/")
        assert answer.messages[0]["headers"] == [(b"x-a", b"1")]

    @pytest.mark.parametrize("status", [101, 600, 799])
    async def test_statuses_that_no_answer_has(self, app: AppMaker, status: int) -> None:
        assert (await get(app(on_request=lambda scope, request: wasgi.Response(status)), "/")).status == 502

    async def test_its_trailers_frame_nothing(self, app: AppMaker) -> None:
        trailers = {"X-Sum": "1", "Content-Length": "5", "Transfer-Encoding": "chunked"}
        given = wasgi.Response(body=b"x", trailers=trailers)
        extensions: dict[str, Any] = {"http.response.trailers": {}}
        headers = [(b"host", b"a"), (b"te", b"trailers")]
        made = app(on_request=lambda scope, request: given)
        answer = await get(made, "/", extensions=extensions, headers=headers)
        assert answer.trailers == [(b"x-sum", b"1")]

    async def test_its_failure_is_one(self, app: AppMaker) -> None:
        def fails(scope: Any, request: wasgi.Request) -> None:
            raise KeyError("mine")

        assert (await get(app(on_request=fails), "/hello")).status == 500

    @pytest.mark.parametrize(("option", "error"), [({"root_path": "x"}, ValueError), ({"on_error": 1}, TypeError)])
    def test_wrong_options(self, app: AppMaker, option: dict[str, Any], error: type[Exception]) -> None:
        with pytest.raises(error, match=f"`{next(iter(option))}` must be"):
            app(**option)


class TestOtherScopes:
    async def test_lifespan(self, app: AppMaker) -> None:
        made = app()
        for _ in range(2):  # tests run it more than once
            incoming, sent = asyncio.Queue[Any](), list[Any]()

            async def send(message: Any, sent: list[Any] = sent) -> None:
                sent.append(message)

            task = asyncio.create_task(made({"type": "lifespan", "asgi": {}}, incoming.get, send))
            incoming.put_nowait({"type": "lifespan.startup"})
            while not sent:
                await asyncio.sleep(0)
            assert (await get(made, "/hello")).status == 200
            incoming.put_nowait({"type": "lifespan.shutdown"})
            await task
            assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
            assert made.closed
            assert (await get(made, "/hello")).status == 503

    async def test_websockets_are_refused(self, app: AppMaker) -> None:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await app()({"type": "websocket", "path": "/"}, receive, send)
        assert [message["type"] for message in sent] == ["websocket.close"]

    async def test_others_are_an_error(self, app: AppMaker) -> None:
        with pytest.raises(NotImplementedError, match="'smtp'"):
            await app()({"type": "smtp"}, asyncio.Queue[Any]().get, asyncio.Queue[Any]().put)


segments = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)


@ALWAYS
@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PURGE", "HEAD"]),
    segments,
    st.binary(max_size=20),
    st.sampled_from(["http", "https", "h2c"]),
    st.sampled_from(["", "/mount", "/m\u00e9", "/a/b"]),
    st.sampled_from(["1.0", "1.1", "2", "3"]),
    fields,
    st.binary(max_size=40),
)
def test_any_scope_is_answered_to_the_letter(
    shared_app: wasgi.App,
    method: str,
    path: str,
    query: bytes,
    scheme: str,
    root: str,
    version: str,
    headers: list[tuple[str, str]],
    host: bytes,
) -> None:
    raw = [(b"host", host)] if host else []
    raw += [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = http_scope("/", method=method, path=f"{root}/{path}", query_string=query, scheme=scheme, root_path=root)
    scope |= {"http_version": version, "headers": raw}
    del scope["raw_path"]
    answer = asyncio.run(Server(scope).run(shared_app))
    assert answer.status in (200, 400, 404, 500)
