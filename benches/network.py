"""What one outgoing request of a guest costs, by who answers it: one after the other, on loopback, in one run.

Beside it a plain loop of hyper-util's client, `wasmtime serve` with the same guest where that is installed, and TLS
with connections that are kept and with one for each request.

just bench-network        (for wasmtime: cargo install wasmtime-cli)
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket
import ssl
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import trustme

import wasgi
from wasgi import outgoing

from .asgi import HELLO, ROOT, SERVERS, UVICORN, serving

PROBE = HELLO.parent / "probe.wasm"
REQUESTS = 900  # `Limits.outgoing` is 1000


async def closing(scope: Any, receive: Any, send: Any) -> None:
    """Says hello; closes the connection where it is asked at `/close`."""
    if scope["type"] != "http":
        return
    headers = [(b"connection", b"close")] if scope["path"] == "/close" else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, World!"})


def route(url: str) -> str:
    return f"/fetch-loop?n={REQUESTS}&url={url}"


def in_guest(upstream: Any, url: str) -> Callable[[], float]:
    """Seconds for one request of a guest that sends many."""
    app = wasgi.App(PROBE, outgoing=upstream)

    def seconds() -> float:
        begun = time.perf_counter()
        read = app.handle(wasgi.Request("GET", f"http://guest.local{route(url)}")).text
        taken = time.perf_counter() - begun
        assert read == str(REQUESTS * len("Hello, World!"))
        return taken / REQUESTS

    return seconds


def in_exchanges(upstream: Any, url: str) -> Callable[[], float]:
    """Seconds for one exchange whose guest sends one request."""
    app = wasgi.App(PROBE, outgoing=upstream)
    request = f"http://guest.local/fetch?url={url}"

    def seconds() -> float:
        begun = time.perf_counter()
        for _ in range(REQUESTS):
            assert app.handle(wasgi.Request("GET", request)).read() == b"Hello, World!"
        return (time.perf_counter() - begun) / REQUESTS

    return seconds


@contextlib.contextmanager
def plain_client(program: str, url: str) -> Iterator[Callable[[], float]]:
    with subprocess.Popen([program, url, str(REQUESTS)], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def seconds() -> float:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            return float(process.stdout.readline()) / 1e6

        yield seconds
        process.stdin.close()


@contextlib.contextmanager
def by_wasmtime(url: str) -> Iterator[dict[str, Callable[[], float]]]:
    if "wasmtime serve" not in SERVERS:
        yield {}
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [str(shutil.which("wasmtime")), "serve", "-Scli", str(PROBE), "--addr", f"127.0.0.1:{port}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:

        def ask(path: str) -> bytes:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as response:
                answer: bytes = response.read()
                return answer

        def seconds() -> float:
            begun = time.perf_counter()
            assert ask(route(url)) == str(REQUESTS * len("Hello, World!")).encode()
            return (time.perf_counter() - begun) / REQUESTS

        until(lambda: bool(ask("/hello")))
        yield {"wasmtime serve": seconds}
        process.terminate()


def until(answers: Callable[[], bool]) -> None:
    """Waits for a server."""
    while True:
        with contextlib.suppress(OSError):
            if answers():
                return
        time.sleep(0.05)


@contextlib.contextmanager
def with_tls() -> Iterator[tuple[str, bytes]]:
    """A server's URL, and whom to trust."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    with tempfile.TemporaryDirectory() as folder:
        key, chain = Path(folder, "key.pem"), Path(folder, "chain.pem")
        certificate.private_key_pem.write_to_path(str(key))
        chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        files = ["--ssl-keyfile", str(key), "--ssl-certfile", str(chain)]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        command = [*UVICORN, *files, "benches.network:closing", "--port", str(port)]
        context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
        with subprocess.Popen(command, cwd=ROOT) as process:
            try:
                url = f"https://127.0.0.1:{port}"
                until(lambda: bool(urllib.request.urlopen(url, context=context).read()))
                yield url, authority.cert_pem.bytes()
            finally:
                process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("client", help="the plain client's program")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(serving("plain"))
        secure, authority = stack.enter_context(with_tls())
        client = stack.enter_context(httpx2.Client())
        ways: dict[str, Callable[[], float]] = {"plain client": stack.enter_context(plain_client(options.client, url))}
        ways["Network"] = in_guest(wasgi.Network([url]), url)
        ways["Network, an exchange each"] = in_exchanges(wasgi.Network([url]), url)
        ways["function"] = in_guest(lambda request: wasgi.Response(body=b"Hello, World!"), url)
        ways["httpx2"] = in_guest(outgoing.httpx(client), url)
        ways |= stack.enter_context(by_wasmtime(url))
        ways["TLS, kept"] = in_guest(wasgi.Network([secure], ca=authority), secure)
        ways["TLS, a connection each"] = in_guest(wasgi.Network([secure], ca=authority), f"{secure}/close")
        taken: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for name, way in ways.items():
                taken.setdefault(name, []).append(way())
    for name, found in taken.items():
        ratios = [one / two for one, two in zip(found, taken["plain client"], strict=True)]
        median = statistics.median(found)
        print(f"{name:26} {median * 1e6:6.0f} µs a request, {statistics.median(ratios):5.2f} x the plain client")


if __name__ == "__main__":
    main()
