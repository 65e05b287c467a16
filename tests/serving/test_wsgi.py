"""An App as a WSGI application: by the letter, and under real servers."""

from __future__ import annotations

import io
import json
import logging
import threading
import urllib.error
import urllib.request
import wsgiref.simple_server
import wsgiref.util
import wsgiref.validate
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

import wasgi
from tests.conftest import AppMaker, until
from tests.processes import free_port, serving


def environ(target: str = "/", body: bytes = b"", **changes: str) -> dict[str, Any]:
    path, _, query = target.partition("?")
    made: dict[str, Any] = {"SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": query, "wsgi.input": io.BytesIO(body)}
    made |= {"HTTP_HOST": "guest.local", **changes}
    if body:
        made["CONTENT_LENGTH"] = str(len(body))
    if body and "REQUEST_METHOD" not in changes:
        made["REQUEST_METHOD"] = "POST"
    wsgiref.util.setup_testing_defaults(made)
    return made


def call(app: wasgi.App, given: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
    """One request, under the standard library's validator."""
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.append((status, headers))
        return lambda data: None

    answer = wsgiref.validate.validator(app.wsgi)(given, start_response)
    try:
        body = b"".join(answer)
    finally:
        answer.close()  # type: ignore[attr-defined]
    [(status, headers)] = started
    return status, headers, body


def test_hello(app: AppMaker) -> None:
    status, headers, body = call(app(), environ("/hello"))
    assert (status, body) == ("200 OK", b"Hello, World!")
    assert ("content-type", "text/plain; charset=utf-8") in headers


def test_the_request(app: AppMaker) -> None:
    given = environ("/inspect?a=%20", HTTP_X_ONE="é", CONTENT_TYPE="text/plain", REQUEST_METHOD="PATCH")
    lines = call(app(), given)[2].decode().splitlines()
    assert lines[:4] == [
        "method: Method::Patch",
        "scheme: Some(Scheme::Http)",
        'authority: Some("guest.local")',
        'path: Some("/inspect?a=%20")',
    ]
    assert sorted(lines[4:]) == ["header content-type: text/plain", "header x-one: \\xe9"]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"PATH_INFO": "/caf\xc3\xa9 x"}, "/caf%C3%A9%20x"),
        ({"PATH_INFO": "/a/b", "RAW_URI": "/a%2Fb?q"}, "/a%2Fb"),
        ({"PATH_INFO": "/a/b", "REQUEST_URI": "/a/b"}, "/a/b"),
        ({"PATH_INFO": "/changed", "RAW_URI": "/as-it-came"}, "/changed"),
        ({"SCRIPT_NAME": "/mount", "PATH_INFO": "/a"}, "/a"),
        ({"SCRIPT_NAME": "/mount", "PATH_INFO": ""}, "/"),
    ],
)
def test_paths(app: AppMaker, changes: dict[str, str], path: str) -> None:
    from wasgi.serving.wsgi import request_of

    request = request_of(app(), environ() | changes)
    assert request.path == path
    assert request.headers.get("x-forwarded-prefix") == changes.get("SCRIPT_NAME")
    if script := changes.get("SCRIPT_NAME"):
        assert request_of(app(root_path="keep"), environ() | changes).path == script + changes["PATH_INFO"]


def test_without_a_host_and_forwarded(app: AppMaker) -> None:
    from wasgi.serving.wsgi import request_of

    given = environ("/", SERVER_NAME="2001:db8::1", SERVER_PORT="8080", REMOTE_ADDR="192.0.2.1")
    del given["HTTP_HOST"]
    given["HTTP_X_FORWARDED_FOR"] = "forged"
    request = request_of(app(forwarded=True), given)
    assert request.authority == "[2001:db8::1]:8080"
    assert request.headers["x-forwarded-for"] == "192.0.2.1"
    assert "forged" not in str(request_of(app(), given).headers)


@pytest.mark.parametrize("size", [1, 100_000, 1_000_000])
def test_bodies(app: AppMaker, size: int) -> None:
    assert call(app(), environ("/echo", b"x" * size))[2] == b"x" * size


def test_a_body_that_is_terminated_by_its_server(app: AppMaker) -> None:
    given = environ("/echo", REQUEST_METHOD="POST") | {"wsgi.input": io.BytesIO(b"x" * 100_000)}
    given["CONTENT_LENGTH"] = ""
    assert b"".join(app().wsgi(given | {"wsgi.input_terminated": True}, lambda *args: None)) == b"x" * 100_000
    assert b"".join(app().wsgi(given, lambda *args: None)) == b"", "whose end nobody knows, nobody reads"


def test_the_answer_streams_and_close_stops_the_guest(app: AppMaker) -> None:
    answer: Any = app().wsgi(environ("/endless"), lambda *args: None)
    assert next(iter(answer))
    answer.close()
    until(lambda: wasgi.stats().exchanges == 0)


@pytest.mark.parametrize(("path", "method"), [("/head", "HEAD"), ("/no-body", "GET"), ("/status?code=304", "GET")])
def test_answers_without_a_body(app: AppMaker, path: str, method: str) -> None:
    given = environ(path, REQUEST_METHOD=method)
    answer = app().wsgi(given, lambda *args: None)
    assert b"".join(answer) == b""


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/trap", "500 Internal Server Error"),
        ("/code?name=connection-refused", "502 Bad Gateway"),
        ("/status?code=103", "502 Bad Gateway"),
    ],
)
def test_a_guest_without_an_answer(app: AppMaker, path: str, status: str) -> None:
    got, headers, body = call(app(), environ(path))
    assert got == status
    assert json.loads(body)["status"] == int(status[:3])
    assert ("content-type", "application/problem+json") in headers


def test_an_answer_that_breaks_off_raises(app: AppMaker) -> None:
    with pytest.raises(wasgi.BodyError):
        call(app(), environ("/trap-midway?bytes=10"))


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"HTTP_HOST": "a b"}, "400 Bad Request"),
        ({"CONTENT_LENGTH": "ten"}, "400 Bad Request"),
        ({"CONTENT_LENGTH": "-5"}, "400 Bad Request"),
        ({"CONTENT_LENGTH": "1_0"}, "400 Bad Request"),
        ({"REQUEST_METHOD": "CONNECT"}, "501 Not Implemented"),
    ],
)
def test_requests_that_are_none(app: AppMaker, changes: dict[str, str], status: str) -> None:
    answer = []
    app().wsgi(environ("/hello") | changes, lambda status, headers: answer.append(status))
    assert answer == [status]


def test_fields_of_a_connection_stay_out(app: AppMaker) -> None:
    given = environ("/inspect", HTTP_CONNECTION="x-mine, keep-alive", HTTP_X_MINE="1", HTTP_TE="trailers", HTTP_X_A="2")
    lines = call(app(), given)[2].decode().splitlines()
    assert [line for line in lines if line.startswith("header")] == ["header x-a: 2"]


def test_lengths_that_a_client_wrote_with_an_underscore(app: AppMaker) -> None:
    given = environ("/inspect", HTTP_CONTENT_LENGTH="5", HTTP_CONTENT_TYPE="text/html")
    assert b"content-" not in b"".join(app().wsgi(given, lambda *args: None))


def test_a_body_of_http_2_needs_no_length(app: AppMaker) -> None:
    given = environ("/collect", REQUEST_METHOD="POST", SERVER_PROTOCOL="HTTP/2") | {"wsgi.input": io.BytesIO(b"hello")}
    assert call(app(), given)[2] == b"5 bytes: hello"


def test_an_answer_that_nobody_can_wait_for(app: AppMaker) -> None:
    """Its body is an async iterable, and there is no loop."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    made = app(on_request=lambda given, request: wasgi.Response(body=chunks()))
    assert call(made, environ("/"))[0] == "500 Internal Server Error"


class Slow(io.BytesIO):
    """A body of which nothing comes before it is let."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.asked = threading.Event()
        self.let = threading.Event()
        self.reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        self.asked.set()
        assert self.let.wait(30)
        return super().read(size)


def test_nothing_is_read_after_the_answer_is_closed(app: AppMaker) -> None:
    """It would be the next request's. A read that is under way is waited for."""
    body = Slow(b"x" * 10)
    given = environ("/echo", REQUEST_METHOD="POST", CONTENT_LENGTH="10") | {"wsgi.input": body}
    answer: Any = app().wsgi(given, lambda *args: None)  # its head is there; the guest waits for the body
    assert body.asked.wait(30)
    closing = threading.Thread(target=answer.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    body.let.set()
    closing.join(30)
    assert not closing.is_alive()
    assert body.reads == 1


def test_slow_uploads_keep_no_others(app: AppMaker) -> None:
    """More of them than we have threads."""
    made, slow = app(), [Slow(b"x") for _ in range(20)]

    def upload(body: Slow) -> None:
        given = environ("/collect", REQUEST_METHOD="POST", CONTENT_LENGTH="1") | {"wsgi.input": body}
        answers.append(call(made, given)[2])

    answers: list[bytes] = []
    threads = [threading.Thread(target=upload, args=[body]) for body in slow]
    for thread in threads:
        thread.start()
    for body in slow:
        assert body.asked.wait(30)
    assert call(made, environ("/collect", b"quick"))[2] == b"5 bytes: quick"
    for body in slow:
        body.let.set()
    for thread in threads:
        thread.join(30)
    assert answers == [b"1 bytes: x"] * 20


def test_a_client_that_goes_in_its_upload_is_no_error_of_ours(app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
    given = environ("/collect", b"x" * 10) | {"CONTENT_LENGTH": "20"}
    with caplog.at_level(logging.INFO, "wasgi.wsgi"):
        status: list[str] = []
        app().wsgi(given, lambda told, headers: status.append(told))
    assert status == ["400 Bad Request"]
    assert [record.levelno for record in caplog.records] == [logging.INFO]


def test_a_server_that_will_not_start(app: AppMaker) -> None:
    def start_response(status: str, headers: Any) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        app().wsgi(environ("/endless"), start_response)
    until(lambda: wasgi.stats().exchanges == 0)


def test_on_request(app: AppMaker) -> None:
    """What stands for who may ask stands for WSGI, too."""

    def auth(given: Any, request: wasgi.Request) -> wasgi.Response | None:
        request.headers["x-user"] = given["REMOTE_USER"]
        return wasgi.Response(401, body="no") if given["REMOTE_USER"] == "eve" else None

    made = app(on_request=auth)
    assert b"header x-user: ada" in call(made, environ("/inspect", REMOTE_USER="ada"))[2]
    status, _, body = call(made, environ("/inspect", REMOTE_USER="eve"))
    assert (status, body) == ("401 Unauthorized", b"no")

    async def other(given: Any, request: wasgi.Request) -> None: ...

    assert call(app(on_request=other), environ("/hello"))[0].startswith("500"), (
        "nobody awaits it: it must not be passed"
    )


def test_on_request_that_gives_something_else(app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
    made = app(on_request=lambda given, request: "no")
    assert call(made, environ("/hello"))[0].startswith("500")
    assert "`on_request` must return a Request, a Response or None, not str" in caplog.text


def test_on_error(app: AppMaker) -> None:
    def answer(given: Any, error: Exception) -> wasgi.Response | None:
        return wasgi.Response(418, body=given["PATH_INFO"]) if isinstance(error, wasgi.TrapError) else None

    made = app(on_error=answer)
    assert call(made, environ("/trap"))[2] == b"/trap"
    assert call(made, environ("/silent"))[0].startswith("500")


def test_gunicorn_takes_a_name_of_a_module() -> None:
    """As the docs say; `module:app.wsgi` it does not."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["gunicorn", "tests.served_wsgi:wsgi", "-b", f"127.0.0.1:{port}"]
    with serving(command, lambda: httpx2.get(f"{url}/hello").status_code == 200):
        assert httpx2.post(f"{url}/collect", content=iter([b"he", b"llo"])).text == "5 bytes: hello"
        assert httpx2.get(f"{url}/reply").headers["content-length"] == "0"


@pytest.mark.slow
@pytest.mark.parametrize("http2", [False, True], ids=["http/1.1", "http/2"])
def test_hypercorn(http2: bool) -> None:
    """Which calls WSGI by ASGI: it knows nothing of how bodies end, and begins an answer with its first chunk."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["hypercorn", "wsgi:tests.served_wsgi:wsgi", "--bind", f"127.0.0.1:{port}"]
    with (
        httpx2.Client(base_url=url, http1=not http2, http2=http2, timeout=30) as client,
        serving(command, lambda: client.get("/hello").status_code == 200),
    ):
        assert client.head("/hello").status_code == 200
        assert client.get("/reply?code=204").status_code == 204
        assert client.get("/reply").headers["content-length"] == "0"
        assert client.post("/collect", content=b"hello").text == "5 bytes: hello"
        chunked = client.post("/collect", content=iter([b"he", b"llo"]))
        assert (chunked.status_code, chunked.text) == (200, "5 bytes: hello") if http2 else chunked.status_code == 411


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_gunicorn(worker: str) -> None:
    """With the app loaded before its workers are forked."""
    port = free_port()
    command = ["gunicorn", "tests.served_wsgi:application", "--preload", "-w", "2", "-k", worker, "--threads", "2"]
    url = f"http://127.0.0.1:{port}"
    with serving([*command, "-b", f"127.0.0.1:{port}"], lambda: httpx2.get(f"{url}/hello").status_code == 200):
        for _ in range(20):
            with urllib.request.urlopen(f"{url}/fetch?url=http://up/", timeout=30) as response:
                assert response.read() == b"up"
        upload = urllib.request.Request(f"{url}/echo", data=b"x" * 1_000_000)
        with urllib.request.urlopen(upload, timeout=30) as response:
            assert response.read() == b"x" * 1_000_000
        with pytest.raises(urllib.error.HTTPError, match="500"):
            urllib.request.urlopen(f"{url}/trap", timeout=30)
        for site in ("flask", "django"):
            inspected = httpx2.get(f"{url}/{site}/probe/inspect").text.splitlines()
            assert 'path: Some("/inspect")' in inspected
            assert f"header x-forwarded-prefix: /{site}/probe" in inspected
        assert httpx2.get(f"{url}/flask/own").text == "flask"
        assert httpx2.get(f"{url}/django/").text == "django"
        with httpx2.stream("GET", f"{url}/django/view/slow-body?ms=300") as response:
            chunks = response.iter_raw()
            assert next(chunks) == b"first"
            assert b"".join(chunks) == b"last"


def test_the_server_of_the_standard_library(app: AppMaker) -> None:
    class Quiet(wsgiref.simple_server.WSGIRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    with wsgiref.simple_server.make_server("127.0.0.1", 0, app().wsgi, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/hello", timeout=30) as response:
            assert response.read() == b"Hello, World!"
        thread.join()
