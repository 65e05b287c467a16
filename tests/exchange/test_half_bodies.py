"""A body that its guest drops unfinished is corrupted (`wasi:http`, `outgoing-body.finish`).

Nobody takes it for a whole one, though its guest lives on.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

import wasgi
from tests.conftest import AppMaker, get
from tests.peers import Peer

ORDERS = ["", "&early=1"]


@pytest.mark.parametrize("order", ORDERS)
class TestOfARequest:
    def test_a_function(self, app: AppMaker, order: str) -> None:
        seen: list[Any] = []

        def upstream(request: wasgi.Request) -> wasgi.Response:
            try:
                seen.append(request.read())
            except wasgi.BodyError as error:
                seen.append(error.received)
            return wasgi.Response(202)

        assert app(outgoing=upstream).handle(get(f"/half?method=POST&url=http://up/{order}")).text == "Ok(202)"
        assert seen == [10]

    async def test_a_coroutine_function(self, app: AppMaker, order: str) -> None:
        seen: list[Any] = []

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            try:
                seen.append(await request.aread())
            except wasgi.BodyError as error:
                seen.append(error.received)
            return wasgi.Response(202)

        made = app(outgoing=upstream)
        response = await asyncio.wait_for(made.handle_async(get(f"/half?method=POST&url=http://up/{order}")), 30)
        assert await response.aread() == b"Ok(202)"
        assert seen == [10]

    def test_another_component(self, app: AppMaker, order: str) -> None:
        assert app(outgoing=app()).handle(get(f"/half?method=POST&url=http://up/collect{order}")).text == "Ok(400)"

    @pytest.mark.parametrize("length", ["", "&header=content-length:20"])
    def test_an_http_1_server(self, app: AppMaker, order: str, length: str) -> None:
        received: list[bytes] = []
        over = threading.Event()

        def behave(connection: socket.socket) -> None:
            while piece := connection.recv(65536):
                received.append(piece)
            over.set()

        with Peer(behave) as peer:
            made = app(outgoing=wasgi.Network([peer.url]))
            answer = made.handle(get(f"/half?method=POST&url={peer.url}/{length}{order}")).text
            assert answer.startswith("Err(")
            if peer.accepted:
                assert over.wait(30)
        assert not b"".join(received).endswith(b"0\r\n\r\n")

    def test_an_http_2_server(self, app: AppMaker, order: str) -> None:
        received: list[bytes] = []

        def behave(connection: socket.socket) -> None:
            connection.sendall(b"\0\0\0\x04\0\0\0\0\0")  # SETTINGS
            while piece := connection.recv(65536):
                received.append(piece)

        with Peer(behave) as peer:
            made = app(outgoing=wasgi.Network([peer.url], h2c=True))
            assert made.handle(get(f"/half?method=POST&url={peer.url}/{order}")).text.startswith("Err(")
        frames = b"".join(received)[24:]
        while len(frames) >= 9:
            length, kind, flags = int.from_bytes(frames[:3], "big"), frames[3], frames[4]
            assert not (kind in (0, 1) and flags & 1), "END_STREAM"
            frames = frames[9 + length :]
