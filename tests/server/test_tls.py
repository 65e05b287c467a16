"""TLS: which HTTP it is, clients' certificates, and files that change while the server runs."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import socket
import ssl
import threading
from pathlib import Path
from typing import cast

import httpx2
import pytest
import trustme

import wasgi
from tests.conftest import AppMaker, until
from tests.server.conftest import Client, Serve


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class Files:
    """A certificate and its key, as a deployment writes them."""

    def __init__(self, folder: Path, authority: trustme.CA) -> None:
        self.certificate, self.key, self.client_ca = folder / "tls.crt", folder / "tls.key", folder / "ca.crt"
        self.authority = authority
        self.write("guest.local")
        authority.cert_pem.write_to_path(self.client_ca)

    def write(self, name: str, *, key: bool = True) -> None:
        issued = self.authority.issue_cert(name)
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        if key:
            issued.private_key_pem.write_to_path(self.key)

    def tls(self, **options: object) -> wasgi.Tls:
        return wasgi.Tls(self.certificate, self.key, **options)  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Files:
    return Files(tmp_path, authority)


def context(authority: trustme.CA) -> ssl.SSLContext:
    made = ssl.create_default_context()
    authority.configure_trust(made)
    return made


def names(server: wasgi.Server, authority: trustme.CA) -> list[str]:
    """Of the certificate that the server shows."""
    checks = context(authority)
    checks.check_hostname = False
    host, _, port = server.addresses[0].rpartition(":")
    with socket.create_connection((host, int(port))) as plain, checks.wrap_socket(plain) as secured:
        shown = secured.getpeercert()
    assert shown is not None
    return [str(value) for _, value in cast("tuple[tuple[str, str], ...]", shown["subjectAltName"])]


@pytest.mark.parametrize(("http2", "version"), [(False, "HTTP/1.1"), (True, "HTTP/2")])
def test_alpn(app: AppMaker, serve: Serve, files: Files, authority: trustme.CA, http2: bool, version: str) -> None:
    server = serve(app(), tls=files.tls())
    assert server.urls[0].startswith("https://")
    with httpx2.Client(verify=context(authority), http2=http2, http1=not http2) as client:
        url = server.urls[0] + "/inspect"
        answer = client.get(url, headers={"host": "guest.local"}, extensions={"sni_hostname": "guest.local"})
    assert answer.http_version == version
    assert "scheme: Some(Scheme::Https)" in answer.text


def test_clients_certificates(app: AppMaker, serve: Serve, files: Files, authority: trustme.CA) -> None:
    server = serve(app(), tls=files.tls(client_ca=files.client_ca))
    extensions = {"sni_hostname": "guest.local"}
    with httpx2.Client(verify=context(authority)) as client, pytest.raises(httpx2.TransportError):
        client.get(server.urls[0] + "/hello", extensions=extensions)
    known = context(authority)
    authority.issue_cert("client.local").configure_cert(known)
    with httpx2.Client(verify=known) as client:
        assert client.get(server.urls[0] + "/hello", extensions=extensions).status_code == 200
    server = serve(app(), tls=files.tls(client_ca=files.client_ca, client_certificates="optional"))
    with httpx2.Client(verify=context(authority)) as client:
        assert client.get(server.urls[0] + "/hello", extensions=extensions).status_code == 200


def test_half_a_handshake_holds_up_nobody(app: AppMaker, serve: Serve, files: Files, authority: trustme.CA) -> None:
    server = serve(app(), tls=files.tls(), header_timeout=5)
    with contextlib.ExitStack() as clients:
        for _ in range(20):
            clients.enter_context(Client(server)).send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        assert names(server, authority) == ["guest.local"]


def test_a_handshake_that_does_not_go_on_is_closed(app: AppMaker, serve: Serve, files: Files) -> None:
    with Client(serve(app(), tls=files.tls(), header_timeout=0.3)) as client:
        assert client.send(b"\x16\x03\x01\x02\x00\x01").rest() == b""


def test_certificates_that_change(app: AppMaker, serve: Serve, files: Files, authority: trustme.CA) -> None:
    server = serve(app(), tls=files.tls())
    files.write("other.local")
    until(lambda: names(server, authority) == ["other.local"])
    files.write("third.local", key=False)  # the key is still the other's
    server.reopen()
    assert names(server, authority) == ["other.local"]
    files.write("fourth.local")
    server.reopen()
    assert names(server, authority) == ["fourth.local"]


def test_certificates_behind_a_link_that_is_swapped(
    app: AppMaker, serve: Serve, tmp_path: Path, authority: trustme.CA
) -> None:
    """As Kubernetes mounts a secret: a link to a folder is replaced."""
    for number, name in enumerate(("one.local", "two.local")):
        (tmp_path / str(number)).mkdir()
        Files(tmp_path / str(number), authority).write(name)
    current = tmp_path / "current"
    current.symlink_to("0")
    server = serve(app(), tls=wasgi.Tls(current / "tls.crt", current / "tls.key"))
    assert names(server, authority) == ["one.local"]
    (tmp_path / "next").symlink_to("1")
    (tmp_path / "next").rename(current)
    until(lambda: names(server, authority) == ["two.local"])


def test_files_that_are_not_there_yet_hold_up_nobody(
    app: AppMaker, serve: Serve, files: Files, authority: trustme.CA
) -> None:
    """The look at them waits, as on a file system that does not answer: here for whoever writes into a pipe."""
    key = files.key.read_bytes()
    files.key.unlink()
    os.mkfifo(files.key)
    writer = threading.Thread(target=lambda: files.key.write_bytes(key))
    writer.start()
    server = serve(app(), tls=files.tls())
    writer.join()
    os.utime(files.certificate)
    opened: list[int] = []

    def is_read() -> bool:
        with contextlib.suppress(OSError):
            opened.append(os.open(files.key, os.O_WRONLY | os.O_NONBLOCK))
        return bool(opened)

    until(is_read)
    try:
        assert names(server, authority) == ["guest.local"]
        closing = threading.Thread(target=server.close, args=[0])
        closing.start()
        closing.join(20)
        assert not closing.is_alive()
    finally:
        os.close(opened[0])


@pytest.mark.parametrize("breaks", ["", " ", "\\\\n"])
def test_what_is_wrong_with_a_key_is_said_without_the_key(app: AppMaker, files: Files, breaks: str) -> None:
    """Lines that were put together, as in variables of an environment."""
    pem = files.key.read_text()
    secret = base64.b64decode("".join(pem.splitlines()[1:-1]))[:12]
    files.key.write_text(pem.replace("\n", breaks))
    with pytest.raises(OSError, match="is not PEM") as of_server:
        wasgi.Server(app(), bind="127.0.0.1:0", tls=files.tls())
    chain = files.certificate.read_bytes()
    with pytest.raises(ValueError, match="is not PEM") as of_network:
        wasgi.Network(["https://a"], client_cert=chain, client_key=files.key.read_bytes())
    for raised in (of_server, of_network):
        said, error = "", cast("BaseException | None", raised.value)
        while error is not None:
            said, error = f"{said} {error!r}", error.__cause__
        found = bytes(int(number) for number in re.findall(r"\d+", said) if int(number) < 256)
        for kept in (said.encode(), found):
            assert pem.splitlines()[1][:12].encode() not in kept
            assert secret not in kept


@pytest.mark.parametrize("secured", [True, False])
def test_a_client_that_takes_no_answer_is_cut_off(
    app: AppMaker, serve: Serve, files: Files, authority: trustme.CA, secured: bool
) -> None:
    """TLS takes the answers, and the client does not take what TLS makes of them. Each guest has done its part."""
    server = serve(app(), tls=files.tls() if secured else None, body_timeout=0.5, idle_timeout=None)
    host, _, port = server.addresses[0].rpartition(":")
    checks = context(authority)
    checks.check_hostname = False
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(20)
        plain.connect((host, int(port)))
        wrapped = checks.wrap_socket(plain) if secured else plain
        with wrapped as client, pytest.raises((ConnectionError, ssl.SSLError)):
            while True:
                client.sendall(b"GET /hello HTTP/1.1\r\nhost: guest.local\r\n\r\n" * 100)


def test_wrong_files(app: AppMaker, files: Files, authority: trustme.CA) -> None:
    files.write("guest.local", key=False)
    for tls in (
        files.tls(),
        wasgi.Tls(files.certificate, files.certificate),
        wasgi.Tls(files.certificate, "/nowhere"),
        wasgi.Tls(files.certificate, files.key, client_ca=files.key),
    ):
        with pytest.raises(OSError, match=r"^[^\n]+$"):
            wasgi.Server(app(), bind="127.0.0.1:0", tls=tls)
    with pytest.raises(ValueError, match="client_certificates"):
        wasgi.Tls("a", "b", client_certificates="never")  # type: ignore[arg-type]
