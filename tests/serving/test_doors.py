"""Answers through every door of an App (ASGI, WSGI, clients, in process): HEAD, what has no body, lengths, failures."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import socket
import threading
import wsgiref.simple_server
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

import wasgi
import wasgi.httpx
from tests.asgi_driver import Server, get, http_scope
from tests.conftest import PROBE_P3, AppMaker, until
from tests.serving.test_wsgi import call, environ

Fields = list[tuple[str, str]]
Answer = tuple[int, Fields, bytes]


def through_asgi(app: wasgi.App, method: str, path: str) -> Answer:
    answer = asyncio.run(get(app, path, method=method))
    return answer.status, list(answer.headers.items()), answer.body


def through_wsgi(app: wasgi.App, method: str, path: str) -> Answer:
    """Under the standard library's validator."""
    status, headers, body = call(app, environ(path, REQUEST_METHOD=method))
    return int(status[:3]), headers, body


def through_a_client(app: wasgi.App, method: str, path: str) -> Answer:
    transport: Any = wasgi.httpx.Transport(app)
    with httpx2.Client(transport=transport) as client:
        response = client.request(method, f"http://guest.local{path}")
        return response.status_code, response.headers.multi_items(), response.content


def through_an_async_client(app: wasgi.App, method: str, path: str) -> Answer:
    async def ask() -> Answer:
        transport: Any = wasgi.httpx.AsyncTransport(app)
        async with httpx2.AsyncClient(transport=transport) as client:
            response = await client.request(method, f"http://guest.local{path}")
            return response.status_code, response.headers.multi_items(), response.content

    return asyncio.run(ask())


def in_process(app: wasgi.App, method: str, path: str) -> Answer:
    response = app.handle(wasgi.Request(method, f"http://guest.local{path}"))
    return response.status, list(response.headers.items()), response.read()


Door = Callable[[wasgi.App, str, str], Answer]
SERVERS = [through_asgi, through_wsgi]
CLIENTS = [through_a_client, through_an_async_client]


def doors(*of: Door) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("door", of, ids=lambda door: door.__name__)


@doors(*SERVERS, *CLIENTS, in_process)
@pytest.mark.parametrize(
    "path",
    [
        "/hello",
        "/stream?chunks=3&bytes=10",
        "/reply?body=abc",
        "/reply?body=abc&header=content-length:3%0Acontent-type:text/html",
        "/reply?body=abc&header=x-a:1%0Ax-a:2%0Aset-cookie:a=1",
        "/reply?code=404&body=abc",
        "/reply?code=204&header=x-a:1",
        "/reply?code=304&header=etag:x",
    ],
)
def test_head_gives_the_fields_of_get(app: AppMaker, door: Door, path: str) -> None:
    status, fields, _ = door(app(), "GET", path)
    head = door(app(), "HEAD", path)
    assert head[:2] == (status, fields)
    if door is not in_process:
        assert head[2] == b""


@doors(*SERVERS, *CLIENTS, in_process)
def test_writes_of_nothing_are_nothing(door: Door) -> None:
    status, _, body = door(wasgi.App(PROBE_P3), "GET", "/only/empty-writes")
    assert (status, body) == (200, b"firstlast")


def test_no_message_of_asgi_is_empty_before_the_last() -> None:
    messages = asyncio.run(get(wasgi.App(PROBE_P3), "/only/empty-writes")).messages
    assert all(message["body"] for message in messages[1:-1])


@doors(*SERVERS)
@pytest.mark.parametrize("path", ["/trap", "/code?name=connection-refused", "/status?code=103"])
def test_head_gives_the_fields_of_a_failure(app: AppMaker, door: Door, path: str) -> None:
    status, fields, body = door(app(), "GET", path)
    assert ("content-length", str(len(body))) in fields
    assert door(app(), "HEAD", path) == (status, fields, b"")


@doors(*SERVERS)
@pytest.mark.parametrize("body", [b"text", "text", b""])
def test_head_gives_the_fields_of_an_answer_of_the_hosts(app: AppMaker, door: Door, body: Any) -> None:
    made = app(on_request=lambda scope, request: wasgi.Response(headers={"x-a": "1"}, body=body))
    status, fields, content = door(made, "GET", "/")
    assert ("content-length", str(len(body))) in fields
    assert content == b"text"[: len(body)]
    expected = [pair for pair in fields if body or pair[0] != "content-length"]
    assert door(made, "HEAD", "/") == (status, expected, b""), "an empty body to HEAD says nothing of the one to GET"


class TestLengths:
    @doors(*SERVERS)
    @pytest.mark.parametrize("path", ["/reply", "/reply?body=", "/reply?code=404", "/headers"])
    def test_that_of_an_empty_body_is_told(self, app: AppMaker, door: Door, path: str) -> None:
        _, fields, body = door(app(), "GET", path)
        assert [value for name, value in fields if name == "content-length"] == ["0"]
        assert body == b""
        assert "content-length" not in dict(door(app(), "HEAD", path)[1])

    @doors(*SERVERS)
    @pytest.mark.parametrize("code", [204, 304])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_where_there_is_no_body_there_is_none(self, app: AppMaker, door: Door, code: int, method: str) -> None:
        for more in ("", "&body=", "&header=content-length:0&body="):
            _, fields, body = door(app(), method, f"/reply?code={code}{more}")
            assert "content-length" not in dict(fields)
            assert body == b""

    @doors(*SERVERS)
    def test_one_that_is_told_is_not_told_again(self, app: AppMaker, door: Door) -> None:
        fields = door(app(), "GET", "/reply?header=content-length:0")[1]
        assert [value for name, value in fields if name == "content-length"] == ["0"]

    @doors(*SERVERS)
    def test_trailers_leave_no_place_for_one(self, app: AppMaker, door: Door) -> None:
        assert "content-length" not in dict(door(app(), "GET", "/trailers")[1])

    async def test_an_empty_body_before_trailers_has_none(self, app: AppMaker) -> None:
        trailers = {"x-a": "1"}
        made = app(on_request=lambda scope, request: wasgi.Response(trailers=trailers))
        extensions: dict[str, Any] = {"http.response.trailers": {}}
        answer = await get(made, "/", headers=[(b"host", b"a"), (b"te", b"trailers")], extensions=extensions)
        assert "content-length" not in answer.headers
        assert answer.trailers == [(b"x-a", b"1")]

    @doors(*SERVERS, *CLIENTS)
    @pytest.mark.parametrize("header", ["", "&header=content-length:3"])
    def test_a_reset_has_no_content(self, app: AppMaker, door: Door, header: str) -> None:
        status, fields, body = door(app(), "GET", f"/reply?code=205&body=abc{header}")
        assert (status, body) == (205, b"")
        assert [value for name, value in fields if name == "content-length"] == ["0"]

    async def test_the_head_does_not_wait_for_the_body(self, app: AppMaker) -> None:
        server = Server(http_scope("/slow-body?ms=60000"))
        task = asyncio.create_task(app()(server.scope, server.receive, server.send))
        await server.sent.wait()
        assert "content-length" not in server.answer.headers
        server.hang_up()
        await task


class TestWsgiValidator:
    """`wsgiref.validate` has no complaint, and neither has its server."""

    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
    @pytest.mark.parametrize(
        "path",
        [
            "/hello",
            "/echo",
            "/reply",
            "/reply?body=",
            "/reply?body=abc",
            "/reply?code=204",
            "/reply?code=204&header=content-type:text/html%0Acontent-length:3&body=abc",
            "/reply?code=205&body=abc",
            "/reply?code=304&header=content-type:text/html%0Aetag:x%0Acontent-length:3",
            "/reply?code=599",
            "/reply?header=status:500%0Atrailers:x%0Atrailer:x%0Ate:x%0Ax-a:1",
            "/trap",
            "/silent",
            "/code?name=HTTP-response-timeout",
            "/no-such-route",
        ],
    )
    def test_no_complaint(self, app: AppMaker, method: str, path: str) -> None:
        body = b"hello" if method == "POST" else b""
        status, _, _ = call(app(), environ(path, body, REQUEST_METHOD=method))
        assert status[:3] in ("200", "204", "205", "304", "404", "500", "504", "599")

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("path", ["/endless", "/slow-body?ms=60000", "/trap-midway?bytes=10"])
    def test_none_where_it_is_closed_early(self, app: AppMaker, method: str, path: str) -> None:
        validated: Any = wsgiref.validate.validator(app().wsgi)
        answer = validated(environ(path, REQUEST_METHOD=method), lambda status, headers: lambda data: None)
        assert (next(iter(answer), b"") == b"") == (method == "HEAD")
        answer.close()
        until(lambda: wasgi.stats().exchanges == 0)

    def test_a_guest_that_answers_head_with_a_body_may_end(self, app: AppMaker) -> None:
        """Closing the answer ends a guest that has not ended its body, not one that works on."""
        lines: list[str] = []
        closed = threading.Event()

        def upstream(request: wasgi.Request) -> wasgi.Response:
            assert closed.wait(30)
            return wasgi.Response()

        given = environ("/work-after?url=http://up/", REQUEST_METHOD="HEAD")
        answer: Any = app(outgoing=upstream, stdout=lines.append).wsgi(given, lambda *args: None)
        assert list(answer) == [b""]
        answer.close()
        closed.set()
        until(lambda: lines == ["worked on"])


class TestOnError:
    @doors(*SERVERS)
    @pytest.mark.parametrize("status", [100, 101, 199, 600, 999])
    def test_its_answer_is_checked(self, app: AppMaker, door: Door, status: int) -> None:
        made = app(on_error=lambda scope, error: wasgi.Response(status))
        assert door(made, "GET", "/trap")[0] == 502

    @doors(*SERVERS)
    @pytest.mark.parametrize("given", ["text", 500, {"status": 500}])
    def test_what_is_no_answer_is_none(self, app: AppMaker, door: Door, given: Any) -> None:
        assert door(app(on_error=lambda scope, error: given), "GET", "/trap")[0] == 500

    @doors(*SERVERS)
    def test_its_failure_is_one(self, app: AppMaker, door: Door, caplog: pytest.LogCaptureFixture) -> None:
        def fails(scope: Any, error: Exception) -> None:
            raise KeyError("mine")

        with caplog.at_level(logging.ERROR):
            assert door(app(on_error=fails), "GET", "/trap")[0] == 500
        assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
        assert "KeyError" in caplog.messages[1]


class TestConnections:
    @doors(*SERVERS)
    def test_fields_of_a_connection_are_not_the_answers(self, app: AppMaker, door: Door) -> None:
        headers = [
            ("connection", "close, X-Mine"),
            ("keep-alive", "1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-mine", "1"),
            ("x-yours", "2"),
        ]
        made = app(on_request=lambda scope, request: wasgi.Response(headers=headers, body=b"x"))
        names = [name for name, _ in door(made, "GET", "/")[1]]
        assert sorted(set(names) - {"content-type"}) == ["content-length", "x-yours"]


@pytest.fixture
def plain(app: AppMaker) -> Iterator[int]:
    """The port of the standard library's server."""

    class Quiet(wsgiref.simple_server.WSGIRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    with wsgiref.simple_server.make_server("127.0.0.1", 0, app().wsgi, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


class TestWsgiUploads:
    @pytest.mark.parametrize(
        ("coding", "status"),
        [("chunked", 411), ("Chunked", 411), ("gzip, chunked", 501), ("gzip", 501), ("identity", 501)],
    )
    @pytest.mark.parametrize("method", ["POST", "GET"])
    def test_one_that_the_server_does_not_decode_is_refused(
        self, app: AppMaker, coding: str, status: int, method: str
    ) -> None:
        told: list[str] = []
        for length in ("", "15"):
            given = environ("/collect", REQUEST_METHOD=method, HTTP_TRANSFER_ENCODING=coding, CONTENT_LENGTH=length)
            assert b'"status"' in b"".join(app().wsgi(given, lambda status, headers: told.append(status)))
        assert [status[:3] for status in told] == [str(status)] * 2

    def test_one_of_which_it_has_only_taken_the_chunks_off_is_refused(self, app: AppMaker) -> None:
        told: list[str] = []
        given = environ("/collect", b"hello", HTTP_TRANSFER_ENCODING="gzip, chunked") | {"wsgi.input_terminated": True}
        b"".join(app().wsgi(given, lambda status, headers: told.append(status)))
        assert told[0][:3] == "501"

    def test_one_that_it_has_decoded_is_read_to_its_end(self, app: AppMaker) -> None:
        given = environ("/collect", b"hello", HTTP_TRANSFER_ENCODING="chunked")
        for length in ("", "3", "99", "x"):
            given["wsgi.input"].seek(0)
            given |= {"wsgi.input_terminated": True, "CONTENT_LENGTH": length}
            assert b"".join(app().wsgi(given, lambda *args: None)) == b"5 bytes: hello"

    @pytest.mark.parametrize(
        ("framing", "body", "status", "said"),
        [
            ("transfer-encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", "411 Length Required", '"status": 411'),
            ("content-length: 5", "hello", "200 OK", "5 bytes: hello"),
        ],
    )
    def test_under_the_server_of_the_standard_library(
        self, plain: int, framing: str, body: str, status: str, said: str
    ) -> None:
        with socket.create_connection(("127.0.0.1", plain), timeout=30) as connection:
            connection.sendall(f"POST /collect HTTP/1.1\r\nhost: guest.local\r\n{framing}\r\n\r\n{body}".encode())
            with connection.makefile("rb") as answer:
                whole = answer.read().decode()
        assert whole.startswith(f"HTTP/1.0 {status}\r\n")
        assert said in whole

    @pytest.mark.parametrize("path", ["/reply?code=204&header=content-type:a/b", "/reply?header=trailers:x", "/reply"])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_answers_under_it(self, plain: int, path: str, method: str) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", plain, timeout=30)) as connection:
            connection.request(method, path)
            response = connection.getresponse()
            assert response.status in (200, 204)
            assert response.read() == b""
