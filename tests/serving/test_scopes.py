"""What servers tell of a request, in all the forms in which they do: scopes of ASGI, environs of WSGI."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import wasgi
from tests.asgi_driver import Server, get, http_scope
from tests.conftest import AppMaker
from tests.serving.test_wsgi import call, environ


def seen(body: bytes) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in body.decode().splitlines())


def fields(body: bytes) -> list[str]:
    return [line for line in body.decode().splitlines() if line.startswith("header")]


def path_of(app: AppMaker) -> wasgi.App:
    """An app that answers with its guest's path."""
    return app(on_request=lambda scope, request: wasgi.Response(body=request.url.partition("guest.local")[2]))


# servers' own addresses, and what is the authority of a request without `Host`
ADDRESSES = [
    (("192.0.2.2", 8080), "192.0.2.2:8080"),
    (["192.0.2.2", 8080], "192.0.2.2:8080"),
    (("192.0.2.2", "8080"), "192.0.2.2:8080"),
    (("192.0.2.2", "80"), "192.0.2.2"),
    (("192.0.2.2", 0), "192.0.2.2"),
    (("192.0.2.2", "http"), "192.0.2.2"),
    (("192.0.2.2", 99999), "192.0.2.2"),
    (("fe80::1%eth0", 8080), "[fe80::1]:8080"),
    (("/run/socket", None), "localhost"),
    (("socket", None), "localhost"),
    (("/run/socket", "0"), "localhost"),
    (("\0abstract", None), "localhost"),
    ((b"\0abstract", None), "localhost"),
    (("", 8080), "localhost"),
    (("", None), "localhost"),
    ((None, None), "localhost"),
    (("a b", 80), "localhost"),
    ((), "localhost"),
    ("", "localhost"),
    (None, "localhost"),
    (5, "localhost"),
]


class TestScopes:
    @pytest.mark.parametrize(("server", "authority"), ADDRESSES)
    @pytest.mark.parametrize("headers", [[], [(b"host", b"")]], ids=["no host", "an empty one"])
    async def test_a_request_without_a_host(self, app: AppMaker, server: Any, authority: str, headers: Any) -> None:
        answer = await get(app(), "/inspect", headers=headers, server=server, http_version="1.0")
        assert seen(answer.body)["authority"] == f'Some("{authority}")'

    @pytest.mark.parametrize(
        ("client", "told"),
        [
            (("192.0.2.1", 5000), "192.0.2.1"),
            (["192.0.2.1", "5000"], "192.0.2.1"),
            (("192.0.2.1", None), "192.0.2.1"),
            (("", "0"), None),
            (("", None), None),
            ((None, None), None),
            ((), None),
            ("", None),
            (None, None),
        ],
    )
    async def test_clients(self, app: AppMaker, client: Any, told: str | None) -> None:
        answer = await get(app(forwarded=True), "/inspect", client=client)
        assert seen(answer.body).get("header x-forwarded-for") == told

    @pytest.mark.parametrize(
        "key",
        [
            "asgi",
            "client",
            "extensions",
            "http_version",
            "query_string",
            "raw_path",
            "root_path",
            "scheme",
            "server",
            "state",
        ],
    )
    @pytest.mark.parametrize("is_there", [False, True], ids=["absent", "None"])
    async def test_keys_that_are_not_told(self, app: AppMaker, key: str, is_there: bool) -> None:
        scope = http_scope("/inspect")
        scope.pop(key, None)
        if is_there:
            scope[key] = None
        answer = await Server(scope).run(app(forwarded=True))
        assert (answer.status, seen(answer.body)["path"]) == (200, 'Some("/inspect")')

    @pytest.mark.parametrize("headers", [None, (), [], iter([])])
    async def test_no_fields(self, app: AppMaker, headers: Any) -> None:
        assert seen((await get(app(), "/inspect", headers=headers)).body)["authority"] == 'Some("192.0.2.2")'

    @pytest.mark.parametrize(
        "headers",
        [
            [[b"host", b"guest.local"], [b"x-a", b"1"], [b"content-length", b"4"]],
            iter([(b"host", b"guest.local"), (b"x-a", b"1"), (b"content-length", b"4")]),
            ((bytearray(b"Host"), memoryview(b"guest.local")), (b"X-A", memoryview(b"1")), (b"Content-Length", b"4")),
            [("host", "guest.local"), ("X-A", "1"), ("Content-Length", "4")],
        ],
        ids=["lists", "an iterator", "like bytes", "text"],
    )
    async def test_fields_of_other_types(self, app: AppMaker, headers: Any) -> None:
        answer = await Server(http_scope("/echo", method="POST", headers=headers), b"body").run(app())
        assert answer.body == b"body", "which is known to be there from the fields"
        inspected = await get(app(), "/inspect", headers=[*headers] or [("host", "guest.local"), ("x-a", "1")])
        assert "header x-a: 1" in fields(inspected.body)

    @pytest.mark.parametrize(
        "changes",
        [
            {"query_string": "q=1", "raw_path": "/a%2Fb"},
            {"query_string": memoryview(b"q=1"), "raw_path": bytearray(b"/a%2Fb")},
            {"query_string": b"q=1", "raw_path": b"/a%2Fb?q=1"},
        ],
    )
    async def test_targets_of_other_types(self, app: AppMaker, changes: Any) -> None:
        assert (await get(path_of(app), "/", path="/a/b", **changes)).body == b"/a%2Fb?q=1"

    @pytest.mark.parametrize("path", ["", None])
    async def test_an_empty_path(self, app: AppMaker, path: Any) -> None:
        assert (await get(path_of(app), "/", path=path, raw_path=b"", query_string=b"q")).body == b"/?q"

    @pytest.mark.parametrize("path", ["/x y", "http://other.example:99/x y"])
    async def test_a_target_in_absolute_form(self, app: AppMaker, path: str) -> None:
        """Which servers pass on by halves, or not. It outdoes `Host` (RFC 9112, 3.2.2)."""
        raw = b"http://other.example:99/x%20y"
        seen_by_guest: list[str] = []

        def look(scope: Any, request: wasgi.Request) -> wasgi.Response:
            seen_by_guest.append(request.url)
            return wasgi.Response()

        await get(app(on_request=look), "/", path=path, raw_path=raw, query_string=b"q")
        await get(app(on_request=look), "/", path="HTTP://other.example:99", raw_path=b"HTTP://other.example:99")
        await get(app(on_request=look), "/", path="http://other.example/a/b", raw_path=None)
        assert seen_by_guest == [
            "http://other.example:99/x%20y?q",
            "http://other.example:99/",
            "http://other.example/a/b",
        ]


class TestHttp2:
    """What HTTP/2 allows and others do not (RFC 9113, 8.2 and 8.3)."""

    @pytest.mark.parametrize("version", ["1.1", "2", "3"])
    async def test_cookies_are_one_field(self, app: AppMaker, version: str) -> None:
        crumbs = [(b"cookie", b"a=1"), (b"x-a", b"1"), (b"cookie", b"b=2"), (b"Cookie", b"c=3")]
        headers = [(b"host", b"guest.local"), *crumbs]
        answer = await get(app(), "/inspect", headers=headers, http_version=version)
        assert sorted(fields(answer.body)) == ["header cookie: a=1; b=2; c=3", "header x-a: 1"]

    @pytest.mark.parametrize("second", [b"guest.local", b"Guest.Local"])
    async def test_a_host_beside_its_authority(self, app: AppMaker, second: bytes) -> None:
        headers = [(b"host", b"guest.local"), (b"host", second)]
        assert (await get(app(), "/hello", headers=headers, http_version="2")).status == 200
        assert (await get(app(), "/hello", headers=headers, http_version="1.1")).status == 400

    async def test_another_host_than_its_authority(self, app: AppMaker) -> None:
        headers = [(b"host", b"guest.local"), (b"host", b"other.local")]
        assert (await get(app(), "/hello", headers=headers, http_version="2")).status == 400

    async def test_space_around_a_value_is_no_part_of_it(self, app: AppMaker) -> None:
        headers = [
            (b"host", b" guest.local\t"),
            (b"x-a", b"\t a b "),
            (b"x-b", b" "),
            (b"cookie", b" a=1 "),
            (b"cookie", b"b=2"),
        ]
        answer = await get(app(), "/inspect", headers=headers, http_version="2")
        assert sorted(fields(answer.body)) == ["header cookie: a=1; b=2", "header x-a: a b", "header x-b: "]
        assert seen(answer.body)["authority"] == 'Some("guest.local")'

    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS"])
    @pytest.mark.parametrize("version", ["2", "2.0", "3"])
    async def test_a_body_needs_no_length(self, app: AppMaker, method: str, version: str) -> None:
        server = Server(http_scope("/collect", method=method, http_version=version), b"he", b"llo")
        answer = await server.run(app())
        assert server.received >= 2
        assert answer.body == (b"" if method == "HEAD" else b"5 bytes: hello")

    @pytest.mark.parametrize("version", ["1", "1.0", "1.1", None])
    async def test_of_http_1_middleware_may_have_taken_it_away(self, app: AppMaker, version: str | None) -> None:
        scope = http_scope("/echo", method="POST", http_version=version)
        assert (await Server(scope, b"he", b"llo").run(app())).body == b"hello"

    async def test_a_coding_that_the_server_has_not_taken_off_is_refused(self, app: AppMaker) -> None:
        headers = [(b"host", b"guest.local"), (b"transfer-encoding", b"gzip, chunked")]
        server = Server(http_scope("/echo", method="POST", headers=headers), b"\x1f\x8b")
        assert (await server.run(app())).status == 501

    @pytest.mark.parametrize("target", ["/hello", "/stream?chunks=3&bytes=10", "/inspect", "/nothing"])
    async def test_trailers_are_announced_where_some_come(self, app: AppMaker, target: str) -> None:
        headers = [(b"host", b"guest.local"), (b"te", b"trailers")]
        scope = http_scope(target, http_version="2", headers=headers) | {"extensions": {"http.response.trailers": {}}}
        answer = await Server(scope).run(app())
        assert "trailers" not in answer.messages[0]
        assert answer.messages[-1] == {
            "type": "http.response.body",
            "body": answer.messages[-1]["body"],
            "more_body": False,
        }

    @pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "PURGE"])
    @pytest.mark.parametrize("framing", [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")])
    async def test_a_body_of_any_method(self, app: AppMaker, method: str, framing: Any) -> None:
        headers = [(b"host", b"guest.local"), framing]
        server = Server(http_scope("/collect", method=method, headers=headers), b"he", b"llo")
        answer = await server.run(app())
        assert server.received >= 2
        assert answer.body == (b"" if method == "HEAD" else b"5 bytes: hello")


class TestMounts:
    @pytest.mark.parametrize(
        ("target", "path"),
        [
            ("/m/x", "/x"),
            ("/m%2Fx", "/x"),
            ("/m%2fx%20y", "/x%20y"),
            ("/m/x%2Fy", "/x%2Fy"),
            ("/m%2Fx%2Fy%2fz", "/x%2Fy%2fz"),
            ("/%6D/x", "/x"),
            ("/m/", "/"),
            ("/m%2F", "/"),
            ("/m//x", "//x"),
            ("/m/%252Fx", "/%252Fx"),
            ("/tenants/acme/x", "/x"),
            ("/tenants/a%2Fb/x", "/b/x"),
            ("/tenants/a%2Fb%2Fx", "/b%2Fx"),
            ("/tenants/a%252Fb/x", "/x"),
            ("/tenants%2Fa/x", "/x"),
            ("/tenants/caf%C3%A9/x", "/x"),
            ("/tenants/caf%E9/x%E9", "/x%E9"),
            ("/tenants/a%20b/%61", "/%61"),
        ],
    )
    async def test_below_starlette(self, app: AppMaker, target: str, path: str) -> None:
        """The guest sees the path that is below `root_path` in `path`, in the spelling in which it came."""
        made = path_of(app)
        site = Starlette(routes=[Mount("/m", made), Mount("/tenants/{tenant}", made)])
        answer = await get(site, "/", path=unquote(target), raw_path=target.encode())
        assert answer.body.decode() == path
        nested = Starlette(routes=[Mount("/outer", site)])
        answer = await get(nested, "/", path=f"/outer{unquote(target)}", raw_path=f"/outer{target}".encode())
        assert answer.body.decode() == path

    async def test_a_path_told_without_what_is_above_it(self, app: AppMaker) -> None:
        scope = {"path": "/a/b", "raw_path": b"/mount/a%2Fb", "root_path": "/mount"}
        assert (await get(path_of(app), "/", **scope)).body == b"/a%2Fb"
        keep = app(root_path="keep", on_request=lambda scope, request: wasgi.Response(body=request.path))
        assert (await get(keep, "/", **scope)).body == b"/mount/a%2Fb"

    @pytest.mark.parametrize("root", ["mount", "mount/", "/mount/"])
    async def test_a_root_without_its_slash(self, app: AppMaker, root: str) -> None:
        answer = await get(app(), "/mount/inspect", root_path=root)
        assert seen(answer.body)["path"] == 'Some("/inspect")'
        assert seen(answer.body)["header x-forwarded-prefix"] == "/mount"

    @pytest.mark.parametrize(
        ("script", "path", "raw", "expected"),
        [
            ("/m", "/x/y", "/m/x%2Fy?q", "/x%2Fy"),
            ("/m", "/x", "/m%2Fx", "/x"),
            ("/m", "/x y", "http://guest.local/m/x%20y?q", "/x%20y"),
            ("/m", "", "/m", "/"),
            ("/m/", "x", "/m/x", "/x"),
            ("/caf\xc3\xa9", "/x", "/caf%C3%A9/x", "/x"),
            ("/m", "/changed", "/m/x", "/changed"),
            ("", "/x y", "http://guest.local/x%20y", "/x%20y"),
        ],
    )
    def test_below_a_dispatcher(self, app: AppMaker, script: str, path: str, raw: str, expected: str) -> None:
        given = environ() | {"SCRIPT_NAME": script, "PATH_INFO": path, "REQUEST_URI": raw}
        answer = b"".join(path_of(app).wsgi(given, lambda *args: None))
        assert answer.decode() == expected


class TestEnvirons:
    @pytest.mark.parametrize("script", ["/", "/m/", "//"])
    def test_a_mount_that_ends_with_a_slash(self, app: AppMaker, script: str) -> None:
        given = environ("/inspect") | {"SCRIPT_NAME": script}
        answer = b"".join(app().wsgi(given, lambda *args: None))
        assert seen(answer)["path"] == 'Some("/inspect")'

    @pytest.mark.parametrize(("length", "status"), [("9" * 5000, "413"), ("0" * 5000, "200"), ("1" * 21, "413")])
    def test_a_length_of_many_digits(self, app: AppMaker, length: str, status: str) -> None:
        told: list[str] = []
        given = environ("/ignore-body", REQUEST_METHOD="POST", CONTENT_LENGTH=length)
        b"".join(app().wsgi(given, lambda status, headers: told.append(status)))
        assert told[0][:3] == status

    @pytest.mark.parametrize(
        ("name", "port", "authority"),
        [
            ("192.0.2.2", "8080", "192.0.2.2:8080"),
            ("192.0.2.2", 8080, "192.0.2.2:8080"),
            ("192.0.2.2", "80", "192.0.2.2"),
            ("/run/socket", "", "localhost"),
            ("/run/socket", "0", "localhost"),
            ("", "", "localhost"),
            ("", "80", "localhost"),
            (None, None, "localhost"),
            ("192.0.2.2", "http", "192.0.2.2"),
        ],
    )
    @pytest.mark.parametrize("host", [None, ""])
    def test_a_request_without_a_host(self, app: AppMaker, name: Any, port: Any, authority: str, host: Any) -> None:
        given = environ("/inspect") | {"SERVER_NAME": name, "SERVER_PORT": port, "HTTP_HOST": host}
        answer = b"".join(app().wsgi(given, lambda *args: None))
        assert seen(answer)["authority"] == f'Some("{authority}")'

    @pytest.mark.parametrize(
        "key",
        [
            "CONTENT_LENGTH",
            "CONTENT_TYPE",
            "HTTP_X_A",
            "QUERY_STRING",
            "RAW_URI",
            "REMOTE_ADDR",
            "REQUEST_URI",
            "SCRIPT_NAME",
            "SERVER_NAME",
            "SERVER_PORT",
            "SERVER_PROTOCOL",
            "wsgi.input",
            "wsgi.input_terminated",
            "wsgi.url_scheme",
        ],
    )
    @pytest.mark.parametrize("is_there", [False, True], ids=["absent", "None"])
    def test_variables_that_are_not_told(self, app: AppMaker, key: str, is_there: bool) -> None:
        given = environ("/inspect")
        given.pop(key, None)
        if is_there:
            given[key] = None
        answer = seen(b"".join(app(forwarded=True).wsgi(given, lambda *args: None)))
        assert answer["path"] == 'Some("/inspect")'
        assert "header x-a" not in answer
        assert "header x-forwarded-for" not in answer

    def test_variables_of_other_types(self, app: AppMaker) -> None:
        given = environ("/echo", b"hello") | {"CONTENT_LENGTH": 5, "SERVER_PORT": 80, "RAW_URI": b"/echo"}
        assert b"".join(app().wsgi(given, lambda *args: None)) == b"hello"
        given = environ("/inspect") | {"HTTP_X_A": 5, "REMOTE_ADDR": ""}
        assert fields(b"".join(app().wsgi(given, lambda *args: None))) == ["header x-a: 5"]

    def test_a_target_in_absolute_form(self, app: AppMaker) -> None:
        given = environ("/inspect") | {"RAW_URI": "http://other.example:99/inspect?q"}
        assert seen(call(app(), given)[2])["authority"] == 'Some("other.example:99")'

    def test_a_body_that_nobody_gives(self, app: AppMaker) -> None:
        given = environ("/collect", b"hello") | {"wsgi.input": None}
        status: list[str] = []
        answer = b"".join(app().wsgi(given, lambda told, headers: status.append(told)))
        assert (status, json.loads(answer)["status"]) == (["500 Internal Server Error"], 500)
