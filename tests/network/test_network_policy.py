"""What `wasgi.Network` lets a guest reach, and what not, whatever the guest writes."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest

import wasgi
from tests.conftest import AppMaker
from tests.peers import HELLO, Peer, answers, ask
from wasgi import errors

pytestmark = pytest.mark.usefixtures("nothing_is_left")


class Canary:
    """Listens on all of loopback; whoever gets there was let through."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.listener.setblocking(False)

    def __enter__(self) -> Canary:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()

    def was_reached(self) -> bool:
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True


# spellings of what is not the public internet, as a guest may write them; PORT is the canary's
INSIDE = """
127.0.0.1 127.1 127.0.1 127.0.0.1. 0177.0.0.1 0x7f.0.0.1 0x7f000001 2130706433 017700000001
127.0.0.01 0x7f.1 127.0x0.1 127.255.255.254 0.0.0.0 0 0x0 0.0.0.1 localhost LOCALHOST localhost.
LocalHost. [::1] [0:0:0:0:0:0:0:1] [0000::0001] [::] [::ffff:127.0.0.1] [::ffff:7f00:1]
[0:0:0:0:0:ffff:127.0.0.1] [::127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b:1::1]
[2002:7f00:1::] [2001::1] [fe80::1] [fc00::1] [fd00:ec2::254] [ff02::1] [2001:db8::1] [fec0::1]
[100::1] 10.0.0.1 10.255.255.255 0xa.0.0.1 172.16.0.1 172.31.255.255 192.168.0.1 3232235521
100.64.0.1 100.100.100.200 169.254.169.254 0xa9fea9fe 2852039166 0251.0376.0251.0376 169.254.0.1
168.63.129.16 [::ffff:169.254.169.254] 192.0.2.1 198.51.100.1 203.0.113.1 198.18.0.1 192.0.0.1
224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
""".split()  # noqa: SIM905 - a list of them would be a page
# what is no host, or tries to be two things at once
TRICKS = [
    "user@127.0.0.1",
    "example.com@127.0.0.1",
    "127.0.0.1%00.example.com",
    "127.0.0.1%2e",
    "[::1%25lo]",
    "[fe80::1%25eth0]",
    "[::1",
    "::1",
    "127.0.0.1:80:80",
    "127.0.0.1 .example.com",
    "127.0.0.1\t",
    "127.0.0.1\r\nx-injected: 1",
    "127.0.0.1#.example.com",
    "127.0.0.1?.example.com",
    "127.0.0.1\\.example.com",
    "\u2460\u2461\u2466.0.0.1",
    "127\u30020\u30020\u30021",
    "..",
    "",
]


class TestPolicy:
    @pytest.mark.parametrize("host", INSIDE)
    def test_what_is_not_the_public_internet_is_prohibited(self, app: AppMaker, host: str) -> None:
        made = app(outgoing=wasgi.Network(["*"], connect_timeout=2))
        with Canary() as canary:
            with pytest.raises(errors.DestinationIpProhibited):
                ask(made, f"http://{host}:{canary.port}/")
            assert not canary.was_reached()

    @pytest.mark.parametrize("host", TRICKS)
    def test_tricks_reach_nobody(self, app: AppMaker, host: str) -> None:
        """Some the guest's own interface refuses, some the policy."""
        made = app(outgoing=wasgi.Network(["*"], connect_timeout=2))
        with Canary() as canary:
            with pytest.raises(wasgi.ErrorCode) as raised:
                ask(made, f"http://{host}:{canary.port}/")
            assert not canary.was_reached()
        refused = {"HTTP-request-denied", "HTTP-request-URI-invalid", "destination-IP-prohibited", "DNS-error"}
        assert raised.value.code in refused

    def test_only_what_is_allowed_is_asked(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        with Peer(answers(HELLO)) as peer:
            rules: dict[str, Any] = {"deny": [f"{peer.url}/secret"], "methods": ["GET"]}
            network = wasgi.Network([f"{peer.url}/v1/*", f"{peer.url}/secret"], **rules)
            assert ask(app(outgoing=network), f"{peer.url}/v1/x").text == "hello"
            for path, options, rule in (
                ("/v2", {}, "no pattern in `allow` matches it"),
                ("/v1/../secret", {}, "in `deny` matches it"),
                ("/v1/%2e%2e/secret", {}, "in `deny` matches it"),
                ("/secret/x", {}, "in `deny` matches it"),
                ("//secret", {}, "in `deny` matches it"),
                ("/secret;a=b", {}, "in `deny` matches it"),
                ("/%2fsecret", {}, "in `deny` matches it"),
                ("/secret%00", {}, "in `deny` matches it"),
                ("/v1/../v1/x", {}, "in `deny` matches it"),
                ("/v1/x", {"method": "POST"}, "`methods`: POST"),
                ("/v1/x", {"header": "host:example.com"}, "`host` is not its URL's"),
            ):
                caplog.clear()
                made = app(outgoing=network)  # one that has said nothing yet
                with caplog.at_level(logging.INFO, "wasgi.outgoing"), pytest.raises(wasgi.ErrorCode) as raised:
                    ask(made, f"{peer.url}{path}", **options)
                if "header" in options and raised.value.code == "configuration-error":
                    continue  # the guest's own interface refuses to set it
                assert raised.value.code == "HTTP-request-denied"
                assert any("was denied" in message and rule in message for message in caplog.messages)
            assert peer.accepted == 1

    def test_an_address_that_is_denied_is_denied_by_any_name(self, app: AppMaker) -> None:
        with Peer(answers(HELLO)) as peer:
            rules: dict[str, Any] = {"allow_private": True, "deny": ["127.0.0.1", "[::1]"]}
            with pytest.raises(errors.DestinationIpProhibited):
                ask(app(outgoing=wasgi.Network(["*"], **rules)), f"http://localhost:{peer.port}/")
            assert peer.accepted == 0

    @pytest.mark.parametrize("host", ["0.0.0.0", "0", "[::]", "[::ffff:0.0.0.0]", "0x0"])
    def test_nobody_is_at_the_unspecified_address(self, app: AppMaker, host: str) -> None:
        """Linux would connect to loopback, whatever is denied there."""
        made = app(outgoing=wasgi.Network(["*"], allow_private=True, deny=["127.0.0.1", "[::1]", "localhost"]))
        with Canary() as canary:
            with pytest.raises(errors.DestinationIpProhibited):
                ask(made, f"http://{host}:{canary.port}/")
            assert not canary.was_reached()

    def test_a_way_around_by_a_translator_is_denied_too(self, app: AppMaker) -> None:
        made = app(outgoing=wasgi.Network(["*"], allow_private=True, deny=["10.1.2.3"]))
        for host in ("[64:ff9b::10.1.2.3]", "[2002:a01:203::1]"):
            with pytest.raises(errors.DestinationIpProhibited):
                ask(made, f"http://{host}/")

    def test_a_path_that_is_allowed_opens_no_other(self, app: AppMaker) -> None:
        """Of a private address, which "*" does not mean."""
        with Peer(answers(HELLO)) as peer:
            made = app(outgoing=wasgi.Network(["*", f"{peer.url}/public"]))
            assert ask(made, f"{peer.url}/public/x").text == "hello"
            with pytest.raises(errors.DestinationIpProhibited):
                ask(made, f"{peer.url}/admin")

    def test_an_address_is_said_to_be_what_it_is(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "wasgi.outgoing"), pytest.raises(errors.DestinationIpProhibited):
            ask(app(outgoing=wasgi.Network(["*"])), "http://169.254.169.254/latest/meta-data/")
        assert any("169.254.169.254:80 is a cloud's metadata" in message for message in caplog.messages)

    def test_redirects_are_the_guests_business(self, app: AppMaker) -> None:
        answer = b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"
        with Peer(answers(answer)) as peer:
            response = ask(app(outgoing=wasgi.Network([peer.url])), peer.url)
            assert (response.status, response.headers["location"]) == (302, "http://169.254.169.254/")

    def test_nothing_is_allowed_that_is_not_named(self, app: AppMaker) -> None:
        with Peer(answers(HELLO)) as peer, pytest.raises(errors.HttpRequestDenied):
            ask(app(outgoing=wasgi.Network([])), peer.url)
