"""HTTP/1 as clients write it that this server's users have: each row of what other servers were found to do wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import wasgi
from tests.conftest import AppMaker, until
from tests.server.conftest import Client, Serve, once

HOST = "host: guest.local\r\n"


@pytest.fixture
def server(app: AppMaker, serve: Serve) -> wasgi.Server:
    return serve(app())


def test_a_guest_answers(server: wasgi.Server) -> None:
    with Client(server) as client:
        for _ in range(2):
            status, fields, body = client.ask().answer()
            assert (status, body) == (200, b"Hello, World!")
            assert "date" in fields
            assert "connection" not in fields


def test_by_a_unix_socket(app: AppMaker, serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    server = serve(app(), bind=f"unix:{path}")
    assert server.addresses == [f"unix:{path}"]
    with Client(server) as client:
        assert client.ask().answer()[2] == b"Hello, World!"
    server.close()
    assert not path.exists()


def test_what_the_guest_sees(server: wasgi.Server) -> None:
    with Client(server) as client:
        client.ask(
            "/inspect?x=%2F&y", "x-a: 1", "X-A: 2", "connection: close, x-hop", "x-hop: 1", "x-forwarded-for: 1.2.3.4"
        )
        assert client.answer()[2].decode().split("\n") == [
            "method: Method::Get",
            "scheme: Some(Scheme::Http)",
            'authority: Some("guest.local")',
            'path: Some("/inspect?x=%2F&y")',
            "header x-a: 1",
            "header x-a: 2",
        ]


MALFORMED = {
    "both lengths": f"POST /echo HTTP/1.1\r\n{HOST}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": f"POST /echo HTTP/1.1\r\n{HOST}content-length: 1\r\ncontent-length: 2\r\n\r\na",
    "a length with a sign": f"POST /echo HTTP/1.1\r\n{HOST}content-length: +1\r\n\r\na",
    "LF alone": "GET /hello HTTP/1.1\nhost: guest.local\n\n",
    "LF alone after a field": "GET /hello HTTP/1.1\r\nhost: guest.local\n\r\n",
    "a folded field": f"GET /hello HTTP/1.1\r\n{HOST}x: a\r\n b\r\n\r\n",
    "space before a colon": f"GET /hello HTTP/1.1\r\n{HOST}content-length : 5\r\n\r\n",
    "no host": "GET /hello HTTP/1.1\r\n\r\n",
    "two hosts": f"GET /hello HTTP/1.1\r\n{HOST}{HOST}\r\n",
    "a host with a path": "GET /hello HTTP/1.1\r\nhost: guest.local/x\r\n\r\n",
    "a host with a user": "GET /hello HTTP/1.1\r\nhost: u@guest.local\r\n\r\n",
    "a host in another spelling": "GET /hello HTTP/1.1\r\nhost: guest%2elocal\r\n\r\n",
    "a target with a host in another spelling": f"GET http://guest%2elocal/hello HTTP/1.1\r\n{HOST}\r\n",
    "a fragment": f"GET /hello?a#b HTTP/1.1\r\n{HOST}\r\n",
    "LF alone in a chunk's line": f"POST /echo HTTP/1.1\r\n{HOST}transfer-encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    "a chunk that is too long": f"POST /echo HTTP/1.1\r\n{HOST}transfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
    "a chunk without a size": f"POST /echo HTTP/1.1\r\n{HOST}transfer-encoding: chunked\r\n\r\nx\r\nabc\r\n",
    "Latin-1 in the target": f"GET /\xe9 HTTP/1.1\r\n{HOST}\r\n",
    "no version": "GET /hello\r\n\r\n",
    "an asterisk": f"GET * HTTP/1.1\r\n{HOST}\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
}


def test_each_target_is_answered_by_a_guest_or_with_a_reason(app: AppMaker, serve: Serve) -> None:
    """None by hyper, which says nothing of it to anybody."""
    server = serve(app(), header_bytes=100_000)
    around = (
        "/hello{}",
        "/hello?{}",
        "/{}hello",
        "{}",
        "{}x",
        "http://{}/",
        "http://a{}/x",
        "{}:x",
        "http:{}",
        "a{}b/c",
    )
    targets = [form.format(chr(byte)) for byte in range(0x21, 0x7F) for form in around]
    for target in [*targets, "/" + "x" * 65_533, "/" + "x" * 65_534, "/" + "{" * 66_000]:
        status, fields, _ = once(server, f"GET {target} HTTP/1.1\r\n{HOST}\r\n")
        assert status in (200, 400, 404, 414, 421), target
        assert "content-type" in fields, target
    name = "x" * 65_536
    assert "content-type" in once(server, f"GET /hello HTTP/1.1\r\n{HOST}{name}: y\r\n\r\n")[1]


def test_trailers_have_limits_of_their_own(server: wasgi.Server) -> None:
    """Those of fields; and whoever exceeds them is told so, whatever comes behind."""
    for trailers in ("x: y\r\n" * 257, f"x: {'y' * 17_000}\r\n", f"x: {'y' * 70_000}\r\n"):
        for behind in ("", f"GET /hello HTTP/1.1\r\n{HOST}\r\n"):
            with Client(server) as client:
                client.ask("/collect", "transfer-encoding: chunked", method="POST", body=b"1\r\na\r\n")
                client.send(f"0\r\n{trailers}\r\n{behind}")
                status, fields, _ = client.answer()
                assert (status, fields["connection"]) == (400, "close")
                assert client.rest() == b""
    # what has come by then is refused before its guest begins
    body = b"0\r\n" + b"x: y\r\n" * 257 + b"\r\n"
    with Client(server) as client:
        assert client.ask("/hello", "transfer-encoding: chunked", method="POST", body=body).answer()[0] == 400
    with Client(server) as client:
        client.ask("/collect", "transfer-encoding: chunked", method="POST", body=b"0\r\n" + b"x: y\r\n" * 256 + b"\r\n")
        assert client.answer()[0] == 200


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_requests_are_answered_with_400(server: wasgi.Server, sent: str) -> None:
    """And nothing after them is read as a request (RFC 9112, 11.2)."""
    with Client(server) as client:
        status, fields, body = client.send(sent + f"GET /hello HTTP/1.1\r\n{HOST}\r\n").answer()
        assert (status, fields["content-type"]) == (400, "application/problem+json")
        assert json.loads(body)["status"] == 400
        if fields.get("connection") == "close":
            assert b"HTTP/1.1" not in client.rest()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (f"POST /echo HTTP/1.1\r\n{HOST}transfer-encoding: gzip, chunked\r\n\r\n", 501),
        (f"GET /hello HTTP/3.0\r\n{HOST}\r\n", 505),
        (f"CONNECT guest.local:80 HTTP/1.1\r\n{HOST}\r\n", 501),
        (f"OPTIONS * HTTP/1.1\r\n{HOST}\r\n", 204),
        (f"GET https://guest.local/hello HTTP/1.1\r\n{HOST}\r\n", 421),
        (f"GET /hello HTTP/1.1\r\n{HOST}cookie: {'x' * 17_000}\r\n\r\n", 200),
        (f"GET /hello HTTP/1.1\r\n{HOST}cookie: {'x' * 70_000}\r\n\r\n", 431),
        (f"GET /hello HTTP/1.1\r\n{HOST}" + "".join(f"x{i}: y\r\n" for i in range(101)) + "\r\n", 200),
        (f"GET /hello HTTP/1.1\r\n{HOST}" + "".join(f"x{i}: y\r\n" for i in range(300)) + "\r\n", 431),
        ("GET /hello HTTP/1.0\r\n\r\n", 200),
        (f"\r\nGET /hello HTTP/1.1\r\n{HOST}\r\n", 200),
    ],
)
def test_other_requests(server: wasgi.Server, sent: str, status: int) -> None:
    assert once(server, sent)[0] == status


def test_a_target_in_absolute_form_outdoes_the_host(server: wasgi.Server) -> None:
    """RFC 9112, 3.2.2."""
    _, _, body = once(server, f"GET http://other.local/inspect?a HTTP/1.1\r\n{HOST}\r\n")
    assert b'authority: Some("other.local")\npath: Some("/inspect?a")' in body


def test_a_url_in_a_query_is_no_target(server: wasgi.Server) -> None:
    for scheme in ("http", "https", "ftp"):
        status, _, body = once(server, f"GET /inspect?next={scheme}://other.local/x HTTP/1.1\r\n{HOST}\r\n")
        assert status == 200
        assert f'authority: Some("guest.local")\npath: Some("/inspect?next={scheme}://other.local/x")' in body.decode()


def test_requests_in_a_row_are_answered_in_their_order(server: wasgi.Server) -> None:
    with Client(server) as client:
        client.ask("/sleep?ms=50").ask("/hello").ask("/status?code=404")
        assert [client.answer()[0] for _ in range(3)] == [200, 200, 404]


def test_a_refused_head_has_no_content(server: wasgi.Server) -> None:
    """RFC 9110, 9.3.2."""
    with Client(server) as client:
        assert client.send("HEAD / HTTP/1.1\r\n\r\n").head()[0] == 400
        assert client.rest() == b""


def test_a_refused_request_among_others_has_its_place(server: wasgi.Server) -> None:
    with Client(server) as client:
        client.ask("/sleep?ms=50").send("GET / HTTP/1.1\r\n\r\n")
        assert [client.answer()[0] for _ in range(2)] == [200, 400]


def test_a_client_that_only_sends_its_request_gets_the_answer(server: wasgi.Server) -> None:
    """`printf … | nc`, also where the guest takes its time."""
    for target in ("/hello", "/sleep?ms=1200"):
        with Client(server) as client:
            client.ask(target).shut()
            status, _ = client.head()
            while status == 100:
                status, _ = client.head()
            assert status == 200


BODY = b"0123456789" * 1000


def test_a_body_goes_both_ways(server: wasgi.Server) -> None:
    with Client(server) as client:
        for framing in ("content-length", "chunked"):
            if framing == "chunked":
                client.ask("/echo", "transfer-encoding: chunked", method="POST")
                for at in range(0, len(BODY), 999):
                    part = BODY[at : at + 999]
                    client.send(b"%x;a=b\r\n%s\r\n" % (len(part), part))
                client.send(b"0\r\nx-trailer: 1\r\n\r\n")
            else:
                client.ask("/echo", f"content-length: {len(BODY)}", method="POST", body=BODY)
            assert client.answer()[2] == BODY


def test_full_duplex(server: wasgi.Server) -> None:
    """What has been sent comes back before the rest is sent."""
    with Client(server) as client:
        client.ask("/echo", "transfer-encoding: chunked", method="POST")
        for word in (b"one", b"two", b"three"):
            client.send(b"%x\r\n%s\r\n" % (len(word), word))
            client.until(word + b"\r\n")
        client.send(b"0\r\n\r\n").until(b"0\r\n\r\n")


def test_expect_100_continue(server: wasgi.Server) -> None:
    with Client(server) as client:
        client.ask("/echo", "expect: 100-continue", "content-length: 3", method="POST")
        assert client.head()[0] == 100
        assert client.send(b"abc").answer()[2] == b"abc"


def test_a_body_that_nobody_wants_is_not_asked_for(server: wasgi.Server) -> None:
    """The answer says that the connection ends: the client may send the body or not (RFC 9110, 10.1.1)."""
    with Client(server) as client:
        client.ask("/ignore-body", "expect: 100-continue", "content-length: 3", method="POST")
        status, fields, _ = client.answer()
        assert (status, fields["connection"]) == (200, "close")
        assert client.rest() == b""


def test_head_and_statuses_without_a_body(server: wasgi.Server) -> None:
    with Client(server) as client:
        status, fields = client.ask("/length?declared=5&written=5", method="HEAD").head()
        assert (status, fields.get("content-length")) == (200, "5")
        for code in (204, 304):
            status, fields, body = client.ask(f"/status?code={code}").answer()
            assert (status, body, fields.get("content-length"), fields.get("transfer-encoding")) == (
                code,
                b"",
                None,
                None,
            )
        assert client.ask().answer()[2] == b"Hello, World!"


def test_an_answer_that_is_shorter_than_announced_ends_its_connection(server: wasgi.Server) -> None:
    """The next one must not be taken for the rest of it."""
    with Client(server) as client:
        client.ask("/length?declared=9&written=5").ask()
        read = client.rest()
    assert b"Hello" not in read


@pytest.mark.parametrize("target", ["/trap-midway?bytes=100000", "/unfinished"])
def test_an_answer_that_breaks_off_is_cut(server: wasgi.Server, target: str) -> None:
    with Client(server) as client:
        assert not client.ask(target).rest().endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("target", "status"),
    [("/trap", 500), ("/silent", 500), ("/code?name=connection-refused", 502), ("/code?name=DNS-timeout", 504)],
)
def test_where_the_guest_has_no_answer(server: wasgi.Server, target: str, status: int) -> None:
    with Client(server) as client:
        found, fields, body = client.ask(target).answer()
        assert (found, json.loads(body)) == (
            status,
            {"type": "about:blank", "title": json.loads(body)["title"], "status": status},
        )
        assert fields["content-type"] == "application/problem+json"
        assert client.ask().answer()[0] == 200


def test_debug_tells_why(app: AppMaker, serve: Serve) -> None:
    with Client(serve(app(debug=True))) as client:
        body = json.loads(client.ask("/panic").answer()[2])
    assert "trapped" in body["detail"]
    assert any("no such thing" in line for line in body["stderr"])
    assert body["backtrace"]


def test_an_app_that_is_full_says_so_at_once(app: AppMaker, serve: Serve) -> None:
    served = app(limits=wasgi.Limits(concurrency=1))
    server = serve(served)
    with Client(server) as first, Client(server) as second:
        first.ask("/sleep?ms=60000")
        until(lambda: served.exchanges == 1)
        status, fields, _ = second.ask().answer()
        assert (status, fields["retry-after"]) == (503, "1")


def test_a_large_upload_that_is_refused_gets_its_answer(app: AppMaker, serve: Serve) -> None:
    """The kernel would reset the connection, and the client lose the answer (RFC 9112, 9.6)."""
    server = serve(app(limits=wasgi.Limits(request_body=1000)))
    for _ in range(10):
        with Client(server) as client:
            client.ask("/echo", f"content-length: {8 << 20}", method="POST")
            for _ in range(8):
                client.send(bytes(1 << 20))
            status, fields, _ = client.answer()
            assert (status, fields["connection"]) == (413, "close")
            assert client.shut().rest() == b""


def test_an_upload_that_its_guest_does_not_read_leaves_the_connection_usable(server: wasgi.Server) -> None:
    with Client(server) as client:
        for _ in range(3):
            client.ask("/ignore-body", "content-length: 200000", method="POST", body=bytes(200_000))
            assert client.answer()[2] == b"not read"


def test_trailers_that_are_announced_reach_a_client_that_takes_them(server: wasgi.Server) -> None:
    with Client(server) as client:
        client.ask("/trailers?announced", "te: trailers", "connection: te")
        read = client.until(b"\r\n\r\n") + client.until(b"\r\n\r\n")
    assert b"\r\n0\r\n" in read
