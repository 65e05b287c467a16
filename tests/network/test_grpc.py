"""A guest that speaks gRPC, through `wasgi.Network` to a server of grpcio: HTTP/2, `te: trailers`, and trailers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import grpc
import pytest
import trustme

import wasgi
from tests.conftest import AppMaker, post

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack("!BI", 0, len(message)) + message for message in messages)


class Handlers(grpc.GenericRpcHandler):
    """Bytes in, bytes out: no protocol buffers are needed for what is tested here."""

    def service(self, call: Any) -> Any:
        def echo(request: bytes, context: Any) -> bytes:
            context.set_trailing_metadata([("x-seen", "yes")])
            return request

        def fail(request: bytes, context: Any) -> bytes:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
            raise AssertionError

        def count(request: bytes, context: Any) -> Iterator[bytes]:
            return (b"%d" % number for number in range(int(request)))

        def join(requests: Iterator[bytes], context: Any) -> bytes:
            return b",".join(requests)

        match call.method:
            case "/test.Test/Echo":
                return grpc.unary_unary_rpc_method_handler(echo)
            case "/test.Test/Fail":
                return grpc.unary_unary_rpc_method_handler(fail)
            case "/test.Test/Count":
                return grpc.unary_stream_rpc_method_handler(count)
            case "/test.Test/Join":
                return grpc.stream_unary_rpc_method_handler(join)
        return None


@pytest.fixture(params=["h2c", "tls"])
def server(
    request: pytest.FixtureRequest, authority: trustme.CA, trusted: bytes
) -> Iterator[tuple[str, wasgi.Network]]:
    """Its URL, and a network that reaches it."""
    with ThreadPoolExecutor(4) as pool:
        made = grpc.server(pool, handlers=[Handlers()])
        if request.param == "h2c":
            url = f"http://127.0.0.1:{made.add_insecure_port('127.0.0.1:0')}"
            network = wasgi.Network([url], h2c=True)
        else:
            certificate = authority.issue_cert("127.0.0.1")
            chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
            credentials = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
            url = f"https://127.0.0.1:{made.add_secure_port('127.0.0.1:0', credentials)}"
            network = wasgi.Network([url], ca=trusted)
        made.start()
        yield url, network
        made.stop(0).wait(30)


def call(app: wasgi.App, url: str, method: str, body: bytes) -> wasgi.Response:
    fields = quote("content-type:application/grpc\nte:trailers")
    return app.handle(post(f"/proxy?url={url}/test.Test/{method}&header={fields}", body))


def status_of(response: wasgi.Response) -> str:
    """In the trailers, or in the head of a response that is nothing but trailers."""
    fields = response.trailers if response.trailers is not None else response.headers
    return fields["grpc-status"]


def test_calls(app: AppMaker, server: tuple[str, wasgi.Network]) -> None:
    url, network = server
    made = app(outgoing=network)
    for method, sent, received in [
        ("Echo", [b"hello"], [b"hello"]),
        ("Echo", [b"x" * 1_000_000], [b"x" * 1_000_000]),
        ("Count", [b"3"], [b"0", b"1", b"2"]),
        ("Join", [b"a", b"b", b"c"], [b"a,b,c"]),
    ]:
        response = call(made, url, method, framed(*sent))
        assert response.headers["content-type"] == "application/grpc"
        assert response.read() == framed(*received)
        assert status_of(response) == "0"


def test_what_the_server_adds(app: AppMaker, server: tuple[str, wasgi.Network]) -> None:
    url, network = server
    response = call(app(outgoing=network), url, "Echo", framed(b"hello"))
    response.read()
    assert response.trailers is not None
    assert response.trailers["x-seen"] == "yes"


@pytest.mark.parametrize(("method", "status"), [("Fail", "5"), ("NoSuchMethod", "12")])
def test_a_status_without_a_message(app: AppMaker, server: tuple[str, wasgi.Network], method: str, status: str) -> None:
    url, network = server
    response = call(app(outgoing=network), url, method, framed(b"x"))
    assert response.read() == b""
    assert status_of(response) == status
