"""Apps that share a `wasgi.Network`, and with it its connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

import wasgi
from tests.conftest import AppMaker, get, until
from tests.peers import HELLO, Peer, head_of
from wasgi import errors
from wasgi.outgoing import route
from wasgi.testing import AsyncClient

pytestmark = pytest.mark.usefixtures("nothing_is_left")

LATE = 60.0
"""Seconds of what is to come much later than what a test waits for."""


class Clerk:
    """A peer that answers each request for `/held` when it is told to, and others at once."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.held = 0
        self.goes_on = threading.Semaphore(0)

    def behave(self, connection: socket.socket) -> None:
        while True:
            path = head_of(connection).split(b" ")[1].decode()
            self.asked.append(path)
            if path.startswith("/held"):
                self.held += 1
                self.goes_on.acquire()
                self.held -= 1
            connection.sendall(HELLO)


async def ask(app: wasgi.App, url: str) -> str:
    async with await app.handle_async(get(f"/fetch-or-code?url={url}")) as response:
        return (await response.aread()).decode()


@contextlib.asynccontextmanager
async def asking(app: wasgi.App, url: str, times: int) -> AsyncIterator[list[asyncio.Task[str]]]:
    tasks = [asyncio.create_task(ask(app, url)) for _ in range(times)]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def becomes(clerk: Clerk, held: int) -> None:
    await asyncio.to_thread(until, lambda: clerk.held == held)


@pytest.mark.parametrize("option", ["max_connections", "max_connections_per_host"])
async def test_an_app_leaves_places_to_others(app: AppMaker, option: str) -> None:
    """Though nobody gives any back."""
    clerk = Clerk()
    with Peer(clerk.behave) as peer:
        places: dict[str, Any] = {"max_connections": 20} | {option: 8}
        network = wasgi.Network([peer.url], connect_timeout=LATE, **places)
        greedy, modest = app(outgoing=network), app(outgoing=network)
        async with asking(greedy, f"{peer.url}/held", 64):
            await becomes(clerk, 6)
            for _ in range(3):
                assert await asyncio.wait_for(ask(modest, peer.url), 30) == "hello"
            assert clerk.held == 6
        clerk.goes_on.release(64)


async def test_also_by_way_of_routes(app: AppMaker) -> None:
    clerk = Clerk()
    with Peer(clerk.behave) as peer:
        network = wasgi.Network([peer.url], connect_timeout=LATE, max_connections=2)
        greedy = app(outgoing=route({"*": network}))
        modest = app(outgoing=route({"https://a.example": network, "*": route({"127.0.0.1": network})}))
        async with asking(greedy, f"{peer.url}/held", 4):
            await becomes(clerk, 1)
            assert await asyncio.wait_for(ask(modest, peer.url), 30) == "hello"
            assert clerk.held == 1
        clerk.goes_on.release(4)


async def test_one_app_alone_has_all_places(app: AppMaker) -> None:
    """A client that tests it is none of its own, nor a second place in a route, nor an app that is gone."""
    clerk = Clerk()
    with Peer(clerk.behave) as peer:
        network = wasgi.Network([peer.url], connect_timeout=LATE, max_connections=3)
        app(outgoing=network)
        made = app(outgoing=route({"https://a.example": network, "*": network}))
        async with AsyncClient(made) as client:
            async with asking(made, f"{peer.url}/held", 4):
                await becomes(clerk, 3)
                clerk.goes_on.release(4)
            assert (await client.get(f"/fetch-or-code?url={peer.url}/")).text == "hello"


async def test_who_waits_comes_next_whose_app_has_fewest(app: AppMaker) -> None:
    clerk = Clerk()
    with Peer(clerk.behave) as peer:
        network = wasgi.Network([peer.url], connect_timeout=LATE, max_connections=1)
        first, second = app(outgoing=network), app(outgoing=network)
        async with asking(first, f"{peer.url}/held?first", 8), asking(second, f"{peer.url}/held?second", 1):
            await becomes(clerk, 1)
            await asyncio.to_thread(until, lambda: wasgi.stats().outgoing == 9)
            clerk.goes_on.release(9)
            await asyncio.to_thread(until, lambda: len(clerk.asked) == 9)
        assert clerk.asked.index("/held?second") == 1


async def test_whoever_waits_for_too_long_is_told_so(app: AppMaker) -> None:
    clerk = Clerk()
    with Peer(clerk.behave) as peer:
        network = wasgi.Network([peer.url], connect_timeout=0.5, max_connections=2)
        greedy, modest = app(outgoing=network), app(outgoing=network)
        async with asking(greedy, f"{peer.url}/held", 2) as tasks:
            done, _ = await asyncio.wait(tasks, timeout=30, return_when=asyncio.FIRST_COMPLETED)
            assert [type(task.exception()) for task in done] == [errors.ConnectionLimitReached]
            assert await ask(modest, peer.url) == "hello"
        clerk.goes_on.release(2)
