"""Exchanges at random: guests that answer, trap, spin, stall, stream and die, callers that read, give up, cancel and
wait, upstreams that answer, fail, hang and break off; from one event loop and several threads at once. Guests of both
generations of WASI run beside each other.

Each exchange has a plan, made from the seed and its number alone. It must end in an outcome that its plan allows, and
when all have ended nothing may be left over of them.

    python -m tests.chaos --exchanges 1000000 --seed 1

A share of them are hostile (`HOSTILE`): guests of another tenant, with a granted folder and the network, that take as
much as they can of one thing. They must not make the others fail, and leave nothing behind either: memory is looked at,
too.

    python -m tests.chaos --exchanges 100000 --hostile 0.2

Instances that are reused are put back to what they were with `--isolated`, and each exchange is to find a fresh one.
Then a third of the exchanges are those of the keepers (`tests/guests/keeper`), which hide secrets wherever they can and
look for those of others: each answer tells what its guest found when it began. With `--forks` some of them are a forked
child's.

    python -m tests.chaos --exchanges 100000 --isolated --forks 20
    WASGI_CHECK_RESTORE=1 python -m tests.chaos --exchanges 20000 --isolated

In an instance of WASI 0.3 that has siblings (`--siblings`), a guest that ends badly takes others with it. They end
as it does, or as they would alone; what they answer is their own.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import ctypes
import gc
import itertools
import logging
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wasgi
import wasgi.testing
from tests.conftest import GENERATIONS, PROBES
from tests.guest.isolated.asking import KEEPERS, masked
from tests.guest.isolated.test_places import PLACES

TASKS = 24
THREADS = 4
SIBLINGS = 1
"""How many exchanges an instance of WASI 0.3 that is reused has at once."""


@dataclass(frozen=True)
class Route:
    """A way in which a guest behaves."""

    weight: float
    target: str
    """What the guest is asked; ``{}`` becomes a way of the upstream's."""
    ends: frozenset[str]
    """How this may end for a caller that reads the whole answer."""
    content: bytes | None = None
    """What that caller reads then."""
    fates: frozenset[str] = frozenset({"ok"})
    """How this may end for a caller that waits for the guest's end."""
    body: str = ""
    """How the request's body is made."""
    strict: bool = False
    """Whether its app has a short time limit."""
    hostile: bool = False
    """Whether its app is the hostile tenant's."""
    fresh: bool = False
    """Whether its app must not reuse instances."""
    only: str = ""
    """The generation of WASI whose guest behaves so, if the other's behaves otherwise."""
    keeper: bool = False
    """Whether it is the keeper's, whose answer tells what it found."""


def route(weight: float, target: str, ends: str = "ok", content: bytes | None = None, **options: Any) -> Route:
    fates = options.pop("fates", ends if ends.startswith("BodyError") is False else "ok")
    return Route(weight, target, frozenset(ends.split()), content, frozenset(fates.split()), **options)


BODY = b"0123456789" * 500
WRITTEN = b", written: Ok(()), finished: Ok(())"
ROUTES = [
    route(20, "/hello", content=b"Hello, World!"),
    route(5, "/headers", content=b""),
    route(5, "/stream?chunks=20&bytes=3000"),
    route(3, "/endless", "gave-up", fates="gave-up"),
    route(3, "/trailers", content=b"body"),
    route(3, "/trap", "TrapError"),
    route(3, "/trap-midway?bytes=9000", "BodyError:TrapError", fates="TrapError"),
    route(2, "/out-of-bounds", "TrapError"),
    route(1, "/overflow?n=1000000", "TrapError"),
    route(2, "/panic", "TrapError"),
    route(2, "/exit?code=1", "GuestExitError"),
    route(2, "/silent", "NoResponseError"),
    route(1, "/alloc?mib=40", "MemoryLimitError"),
    route(1, "/handles?n=5000", "HandleLimitError"),
    route(2, "/code?name=connection-refused", "ConnectionRefused"),
    route(2, "/unfinished", "BodyError:None", fates="BodyError:None"),
    route(2, "/dropped", "BodyError:None", fates="BodyError:None", only="0.2"),
    route(2, "/dropped", "BodyError:InternalError", fates="BodyError:InternalError", only="0.3"),
    route(3, "/sleep?ms=3", content=b"slept"),
    route(3, "/slow-body?ms=2", content=b"firstlast"),
    route(0.4, "/spin", "GuestTimeoutError", strict=True),
    route(0.4, "/sleep?ms=60000", "GuestTimeoutError", strict=True),
    route(0.4, "/slow-body?ms=60000", "BodyError:GuestTimeoutError", fates="GuestTimeoutError", strict=True),
    route(2, "/then?then=sleep&ms=2", content=b"done already"),
    route(1, "/then?then=trap", content=b"done already", fates="TrapError"),
    route(0.4, "/then?then=spin", content=b"done already", fates="GuestTimeoutError", strict=True),
    route(8, "/echo", content=BODY, body="whole"),
    route(4, "/echo", content=BODY, body="chunks"),
    route(2, "/echo", "Own BodyError:Own", fates="Own BodyError:Own", body="fails"),
    route(2, "/collect", "Own", body="fails"),
    route(1, "/ignore-body", content=b"not read", body="endless"),
    route(6, "/fetch?url=http://up/answers", content=b"up"),
    route(3, "/fetch?url=http://up/streams", content=b"x" * 30_000),
    route(2, "/fetch?url=http://up/refuses", content=b"ErrorCode::ConnectionRefused"),
    route(2, "/fetch?url=http://up/fails", content=b'ErrorCode::InternalError(Some("RuntimeError"))'),
    route(2, "/fetch?url=http://up/breaks-off"),
    route(0.4, "/fetch?url=http://up/hangs", "GuestTimeoutError", strict=True),
    route(1, "/fetch?first-byte-ms=3&url=http://up/hangs", content=b"ErrorCode::ConnectionReadTimeout"),
    route(2, "/fetch-many?n=5&url=http://up/answers", content=b"up,up,up,up,up"),
    route(2, "/fetch-and-forget?url=http://up/hangs", content=b"forgotten"),
    route(1, "/fetch-and-trap?ms=1&url=http://up/hangs", "TrapError"),
    route(2, "/proxy?method=POST&url=http://up/echoes", content=BODY, body="chunks"),
    route(1, "/work-after?url=http://up/answers", content=b"done already"),
    route(0.5, "/fetch?url=http://up/calls-two", content=b"Hello, World!"),
    route(0.5, "/fetch?url=http://up/calls-three", content=b"Hello, World!"),
    # answers that come before the request has been written
    route(3, "/late-body?n=99999&method=POST&url=http://up/answers", content=b"200 up" + WRITTEN),
    route(2, "/late-body?n=99999&method=POST&url=http://up/streams", content=b"200 " + b"x" * 30_000 + WRITTEN),
    route(2, "/late-body?n=99999&method=POST&url=http://up/keeps", content=b"200 kept" + WRITTEN),
    route(2, "/late-body?n=99999&method=POST&url=http://up/refuses", content=b"ErrorCode::ConnectionRefused" + WRITTEN),
    route(2, "/late-body?n=99999&method=POST&url=http://up/early-mock", content=b"413 early" + WRITTEN),
    route(2, "/fetch?method=POST&body=x&url=http://up/mock", content=b"mocked"),
    route(1, "/fetch?url=http://up/slow-mock", content=b"slow"),
    route(2, "/proxy?method=POST&url=http://up/echoes-pieces", content=BODY, body="chunks"),
    route(1, "/proxy?method=POST&url=http://up/echoes-itself", content=BODY, body="chunks"),
    # answers that have no content, whatever their upstream gives
    route(2, "/fetch?method=HEAD&url=http://up/answers", content=b""),
    route(2, "/fetch?method=HEAD&url=http://up/streams", content=b""),
    route(0.5, "/fetch?method=HEAD&url=http://up/calls-two", content=b""),
    route(0.5, "/fetch?method=HEAD&url=http://up/calls-three", content=b""),
    # what a guest keeps of an exchange that its instance has before others
    route(1, "/keep?what=body", content=b"kept it", body="chunks"),
    route(1, "/keep?what=stream", content=b"kept it", body="endless"),
    route(1, "/keep?what=future&url=http://up/hangs", content=b"kept it"),
    route(1, "/keep?what=response-stream&url=http://up/streams", content=b"kept it"),
    route(1, "/keep?what=response-body&url=http://up/streams", content=b"kept it", only="0.2"),
    route(1, "/keep?what=out", "NoResponseError"),
]


def hostile(weight: float, target: str, ends: str = "ok", content: bytes | None = None, **options: Any) -> Route:
    return route(weight, target, ends, content, hostile=True, **options)


ANY_LIMIT = "MemoryLimitError HandleLimitError FieldsLimitError TrapError"
"""For guests that are past several limits: whichever they meet first."""
HOSTILE = [
    # the processor
    hostile(2, "/spin", "GuestTimeoutError", strict=True),
    hostile(2, "/hostile/fill?mib=20", "GuestTimeoutError", strict=True),
    hostile(2, "/hostile/fill?mib=20&n=3", content=b"done"),
    hostile(2, "/hostile/random?bytes=65536&n=10", content=b"done"),
    # one asks for more than there is at once, the other gets less than it asks for
    hostile(1, "/hostile/random?mib=40", ANY_LIMIT, only="0.2"),
    hostile(1, "/hostile/random?mib=40", "GuestTimeoutError", strict=True, only="0.3"),
    hostile(1, "/hostile/timers?n=1000&times=3", content=b"done"),
    hostile(1, "/hostile/timers?n=5000&times=1", ANY_LIMIT),
    # memory, the guest's and the host's
    hostile(3, "/hostile/allocate?mib=20", content=b"20971520"),
    hostile(1, "/hostile/allocate?mib=40", "MemoryLimitError"),
    hostile(3, "/hostile/look?mib=8", content=b"0", fresh=True),
    hostile(1, "/hostile/fields?n=20&bytes=600&each=90", content=b"done"),
    # one is ended, the other is told
    hostile(1, "/hostile/fields?n=1&bytes=600&each=200", "FieldsLimitError", only="0.2"),
    hostile(1, "/hostile/fields?n=1&bytes=600&each=200", content=b"done", only="0.3"),
    hostile(0.3, "/hostile/fields?n=5000&bytes=600&each=90", ANY_LIMIT),
    hostile(1, "/handles?n=5000", "HandleLimitError"),
    hostile(1, "/hostile/requests?n=20&bytes=4000", content=b"done"),
    hostile(1, "/hostile/requests?n=5000&bytes=4000", ANY_LIMIT),
    hostile(2, "/hostile/code?bytes=100000", "InternalError"),
    # lines and bodies
    hostile(2, "/hostile/print", "GuestTimeoutError", strict=True),
    hostile(2, "/hostile/print?n=2000", content=b"done"),
    # one writes more than it may, the other's stream takes what it has room for
    hostile(1, "/flood?n=5000&times=1", "TrapError", only="0.2"),
    hostile(1, "/flood?n=5000&times=1", content=b"written", only="0.3"),
    hostile(2, "/hostile/chunks", "BodyError:GuestTimeoutError", fates="GuestTimeoutError", strict=True),
    hostile(2, "/hostile/chunks?n=500", content=b"." * 500),
    hostile(2, "/hostile/empty-writes", "BodyError:GuestTimeoutError", fates="GuestTimeoutError", strict=True),
    hostile(2, "/hostile/empty-writes?n=3000", content=b""),
    hostile(2, "/endless", "BodyError:GuestTimeoutError", fates="GuestTimeoutError", strict=True),
    hostile(2, "/hostile/unread", content=b"not read", body="endless"),
    # requests
    hostile(2, "/hostile/abandon?n=5&url=http://up/hangs", content=b"done"),
    hostile(2, "/hostile/abandon?n=20&url=http://up/answers", content=b"done"),
    hostile(2, "/hostile/abandon?n=20&url={peer}/answers", content=b"done"),
    hostile(2, "/hostile/abandon?n=5&url={peer}/hangs", content=b"done"),
    hostile(1, "/hostile/responses?n=5&url=http://up/streams", content=b"5"),
    hostile(1, "/hostile/responses?n=5&url={peer}/answers", content=b"5"),
    hostile(1, "/hostile/unsent?n=5&method=POST&url=http://up/echoes", content=b"done"),
    hostile(1, "/hostile/unsent?n=5&method=POST&url={peer}/hangs", content=b"done"),
    hostile(1, "/fetch?url={peer}/hangs", "GuestTimeoutError", strict=True),
    hostile(2, "/fetch?url={peer}/answers", content=b"up"),
    # files
    hostile(2, "/hostile/open?path=file&n=20", content=b"20 enough"),
    hostile(2, "/hostile/list?n=5", content=b"5 enough"),
    # ends
    hostile(1, "/trap", "TrapError"),
    hostile(1, "/exit?code=1", "GuestExitError"),
    hostile(1, "/overflow?n=1000000", "TrapError"),
]


def keeper(weight: float, target: str, ends: str = "ok", content: bytes | None = None, **options: Any) -> Route:
    """In its target, `{secret}` becomes one of its number, and `{earlier}` one that an exchange before it had."""
    return route(weight, target, ends, content, keeper=True, **options)


OF_KEEPER = [place for place in PLACES if place not in ("body", "field")]
ISOLATED = [
    *(keeper(0.5, f"/keep?in={place}&secret={{secret}}", content=b"kept") for place in OF_KEEPER),
    keeper(5, f"/keep?in=body,{','.join(OF_KEEPER)}&secret={{secret}}", content=b"kept", body="chunks"),
    keeper(10, "/find?secret={earlier}", content=b"0 "),
    keeper(3, "/handles?n=3"),
    keeper(2, "/nowhere"),
    keeper(2, "/forget?n=3", content=b"forgotten"),
    keeper(2, "/leave?what=fields,headers,options", content=b"left"),
    keeper(1, "/leave?what=fields,response", content=b"left"),
    keeper(2, "/grow?pages=1"),
    keeper(2, "/sleep?ms=2", content=b"slept"),
    keeper(2, "/stream?n=20&bytes=5000&in=data,heap,stack&secret={secret}", content=b"s" * 100_000),
    keeper(3, "/echo", content=BODY, body="whole"),
    keeper(2, "/fetch?url=up/answers&n=2", content=b"200 up\n" * 2),
    keeper(1, "/fetch?url=up/answers&n=2&forget=1", content=b"200 up\n" * 2),
    keeper(2, "/print?line=words&n=3"),
    keeper(1, "/trap", "TrapError"),
    keeper(1, "/exit", "GuestExitError"),
    keeper(1, "/silent", "NoResponseError", only="0.2"),
    keeper(1, "/silent", "InternalError", only="0.3"),
    route(10, "/remember?word={secret}", content=b"nothing"),
]
"""Besides the others, where instances are put back."""
CALLS = {"calls-two": "0.2", "calls-three": "0.3"}
"""The ways of an upstream that asks another guest, and that guest's generation."""
ENDS_AN_INSTANCE = frozenset(
    {
        "TrapError",
        "GuestExitError",
        "NoResponseError",
        "GuestTimeoutError",
        "MemoryLimitError",
        "HandleLimitError",
        "FieldsLimitError",
    }
)
"""What an exchange may meet that has siblings, whatever it does itself."""
ACTS = ["read"] * 6 + ["chunks", "close", "drop", "wait", "cancel"]
"""What a caller does. Only a task can be cancelled; a thread reads instead."""


class Own(Exception):
    """A caller's own."""


def for_guest(target: str, body: Any = None) -> wasgi.Request:
    return wasgi.Request("POST" if body else "GET", f"http://guest.local{target}", body=body)


def chunks(how: str, content: bytes = BODY) -> Iterator[bytes]:
    for start in range(0, len(content), 700):
        yield content[start : start + 700]
        if how == "fails":
            raise Own
    while how == "endless":
        yield content


async def async_chunks(how: str, content: bytes = BODY) -> AsyncIterator[bytes]:
    for chunk in chunks(how, content):
        await asyncio.sleep(0)
        yield chunk


class Upstream:
    """Behaves as the path says; from a thread, or as a coroutine."""

    def __init__(self, components: dict[str, wasgi.Component]) -> None:
        # apps of its own, or the queue would wait for itself
        self.again = {way: wasgi.App(components[generation]) for way, generation in CALLS.items()}
        self.leave = threading.Event()
        self.kept: collections.deque[wasgi.Request] = collections.deque(maxlen=10)
        self.mock = wasgi.testing.Upstream()
        self.mock.any(re.compile("early-mock")).respond(413, text="early").early()
        self.mock.any(re.compile("slow-mock")).respond(stream=[b"sl", 0.001, b"ow"]).delays(0.001)
        self.mock.any(re.compile("mock")).respond(text="mocked")

    def mocked(self, request: wasgi.Request) -> Any:
        """What the mock answers, to be awaited. It forgets what it was asked, or its memory would grow."""
        for calls in (self.mock.calls, *(route.calls for route in self.mock.routes)):
            calls.clear()
        return self.mock(request)

    def blocking(self, request: wasgi.Request) -> wasgi.Response:
        way = request.path.strip("/0123456789")
        if way == "hangs":
            # a thread cannot be cancelled: it comes back by itself, when nobody waits any more
            self.leave.wait(0.05)
            raise wasgi.errors.ConnectionReadTimeout
        if way == "echoes":
            return wasgi.Response(body=request.read())
        if way == "echoes-pieces":
            return wasgi.Response(body=(chunk for chunk in request))
        if way.endswith("mock"):
            answer: wasgi.Response = self.mocked(request)  # a coroutine: a loop goes on with it
            return answer
        if way == "echoes-itself":
            return wasgi.Response(body=request)
        if way == "keeps":
            self.kept.append(request)
            return wasgi.Response(body=b"kept")
        if way in CALLS:
            return self.again[way].handle(wasgi.Request("GET", "http://guest.local/hello"))
        return self.answer(way, lambda: (b"x" * 1000 for _ in range(30)), lambda: chunks("fails"))

    async def awaited(self, request: wasgi.Request) -> wasgi.Response:
        way = request.path.strip("/0123456789")
        await asyncio.sleep(0)
        if way == "hangs":
            await asyncio.Event().wait()
        elif way == "echoes":
            return wasgi.Response(body=await request.aread())
        elif way == "echoes-pieces":
            return wasgi.Response(body=(chunk async for chunk in request))
        elif way.endswith("mock"):
            mocked: wasgi.Response = await self.mocked(request)
            return mocked
        elif way == "echoes-itself":
            return wasgi.Response(body=request)
        elif way == "keeps":
            self.kept.append(request)
            return wasgi.Response(body=b"kept")
        elif way in CALLS:
            return await self.again[way].handle_async(wasgi.Request("GET", "http://guest.local/hello"))

        async def streams() -> AsyncIterator[bytes]:
            for _ in range(30):
                yield b"x" * 1000
                await asyncio.sleep(0)

        return self.answer(way, streams, lambda: async_chunks("fails"))

    @staticmethod
    def answer(way: str, streams: Callable[[], Any], breaks_off: Callable[[], Any]) -> wasgi.Response:
        match way:
            case "streams":
                return wasgi.Response(body=streams())
            case "breaks-off":
                return wasgi.Response(body=breaks_off())
            case "refuses":
                raise wasgi.errors.ConnectionRefused
            case "fails":
                raise RuntimeError
        return wasgi.Response(body=b"up")


class Peer:
    """A server that answers, or does not, on a loop and a thread of its own; takes what a client sends, and no more."""

    def __enter__(self) -> str:
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", 0, limit=1 << 16))
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        host, port = self.server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # cancelled at the end: a task of asyncio's streams that ends by that is told of as a failure
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"/answers" in head.split(b"\r\n")[0]:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nup")
                else:
                    await reader.read()
        writer.close()

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            self.server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Surroundings:
    """What chaos needs around it: the guests, a peer on the loopback, and a folder to grant."""

    def __enter__(self) -> Surroundings:
        self.components = {generation: wasgi.Component(path) for generation, path in PROBES.items()}
        self.keepers = {generation: wasgi.Component(path) for generation, path in KEEPERS.items()}
        self.peer = Peer()
        self.url = self.peer.__enter__()
        self.folder = Path(tempfile.mkdtemp())
        (self.folder / "file").write_text("content")
        os.mkfifo(self.folder / "fifo")
        for number in range(200):
            (self.folder / f"entry-{number}").touch()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder)
        self.peer.__exit__()


@dataclass(frozen=True)
class Options:
    hostile: float = 0.02
    """The share of exchanges that are hostile."""
    generations: tuple[str, ...] = GENERATIONS
    siblings: int = SIBLINGS
    isolated: bool = False
    """Whether instances that are reused are put back to what they were."""
    forks: int = 0
    """How many children are forked meanwhile, which look what they find."""


class Finding(AssertionError):
    """Something that must not be."""


def name_of(error: BaseException) -> str:
    name = type(error).__name__
    return (
        f"{name}:{type(error.__cause__).__name__.removesuffix('Type')}" if isinstance(error, wasgi.BodyError) else name
    )


@dataclass(frozen=True)
class Plan:
    """Of one exchange."""

    number: int
    route: Route
    act: str
    generation: str
    app: wasgi.App
    request: wasgi.Request
    content: bytes | None
    """What a caller reads that reads the whole answer."""
    siblings: bool
    after_others: bool
    """Whether its instance may hold what hostile exchanges before it left there."""
    dice: random.Random


class Chaos:
    def __init__(self, seed: int, exchanges: int, around: Surroundings, options: Options) -> None:
        self.seed = seed
        self.around = around
        self.options = options
        self.exchanges = exchanges
        self.numbers = iter(range(exchanges))
        self.taking = threading.Lock()
        self.ends: collections.Counter[str] = collections.Counter()
        self.findings: list[str] = []
        self.upstream = Upstream(around.components)
        network = wasgi.Network([around.url])
        self.apps = {
            (generation, *kind): self.app(network, generation, *kind)
            for generation in options.generations
            for kind in itertools.product((False, True), repeat=4)
        }
        innocent = [*ROUTES, *ISOLATED] if options.isolated else ROUTES
        self.ways = {
            generation: {
                is_hostile: [route for route in routes if route.only in ("", generation)]
                for is_hostile, routes in ((False, innocent), (True, HOSTILE))
            }
            for generation in options.generations
        }
        self.keepers: dict[tuple[str, bool], wasgi.App] = {}
        self.fresh: dict[tuple[str, str], bytes] = {}
        self.entries: dict[str, str] = {}
        self.fork_each = exchanges // options.forks if options.forks else 0
        self.reused: collections.Counter[bool] = collections.Counter()
        if options.isolated:
            for generation, is_async in itertools.product(options.generations, (False, True)):
                self.keepers[generation, is_async] = self.keeper(generation, is_async, self.reuse(generation))
            self.ask_fresh()

    def keeper(self, generation: str, is_async: bool, reuse: wasgi.Reuse | None) -> wasgi.App:
        answers: Any = self.upstream.awaited if is_async else self.upstream.blocking
        limits = wasgi.Limits(timeout=60.0, concurrency=64, queue=1000)
        return wasgi.App(
            self.around.keepers[generation], outgoing=answers, limits=limits, reuse=reuse, stdout=lambda line: None
        )

    def ask_fresh(self) -> None:
        """What fresh instances of the keepers find, and what they answer where no other answer is said."""
        for generation in self.options.generations:
            with self.keeper(generation, False, None) as app:
                for chosen in ISOLATED:
                    if chosen.keeper and chosen.content is None and chosen.ends == {"ok"}:
                        with app.handle(for_guest(chosen.target)) as response:
                            self.fresh[generation, chosen.target] = response.read()
                            self.entries[generation] = response.headers["x-entry"]

    def reuse(self, generation: str) -> wasgi.Reuse:
        if self.options.isolated:
            return wasgi.Reuse(isolated=True, requests=100, idle=2.0)
        return wasgi.Reuse(requests=20, concurrent=self.options.siblings if generation == "0.3" else 1, idle=0.01)

    def app(
        self,
        network: wasgi.Network,
        generation: str,
        strict: bool,
        is_async: bool,
        is_reused: bool,
        is_hostile: bool,
    ) -> wasgi.App:
        answers: Any = self.upstream.awaited if is_async else self.upstream.blocking
        return wasgi.App(
            self.around.components[generation],
            outgoing=wasgi.outgoing.route({"up": answers, self.around.url: network}) if is_hostile else answers,
            limits=wasgi.Limits(timeout=0.03 if strict else 60.0, memory=32 << 20, concurrency=64, queue=1000),
            reuse=self.reuse(generation) if is_reused else None,
            dirs={"/data": wasgi.Dir(self.around.folder)} if is_hostile else None,
            stdout=(lambda line: None) if is_hostile and is_async else None,
        )

    def take(self) -> int | None:
        with self.taking:
            return next(self.numbers, None)

    def plan(self, number: int, is_async: bool) -> Plan:
        dice = random.Random(self.seed << 32 | number)
        generation = dice.choice(self.options.generations)
        ways = self.ways[generation][dice.random() < self.options.hostile]
        chosen = dice.choices(ways, [route.weight for route in ways])[0]
        act = dice.choice(ACTS)
        if act == "cancel" and not is_async:
            act = "read"
        if chosen.target == "/endless" and not chosen.strict and act in ("read", "chunks", "wait"):
            act = "close"
        is_reused = (dice.random() < 0.5 or self.options.isolated) and not chosen.fresh
        answers_async = is_async ^ (dice.random() < 0.3)
        if chosen.keeper:
            app = self.keepers[generation, answers_async]
        else:
            app = self.apps[generation, chosen.strict, answers_async, is_reused, chosen.hostile]
        # a body of its own, so that another's answer is seen to be another's
        own = b"%010d" % number * (len(BODY) // 10)
        body: Any = None
        if chosen.body == "whole":
            body = own
        elif chosen.body:
            body = async_chunks(chosen.body, own) if dice.random() < 0.5 else chunks(chosen.body, own)
        target = chosen.target.replace("{peer}", self.around.url)
        for name, n in (("{secret}", number), ("{earlier}", number - dice.randrange(1, 50))):
            target = target.replace(name, masked(b"secret-%010d" % n))
        request = for_guest(target, body)
        content = own if chosen.content is BODY else chosen.content
        content = self.fresh.get((generation, chosen.target), content)
        siblings = is_reused and generation == "0.3" and self.options.siblings > 1
        after_others = chosen.hostile and is_reused and not self.options.isolated
        return Plan(number, chosen, act, generation, app, request, content, siblings, after_others, dice)

    def judge(self, plan: Plan, end: str, content: bytes | None) -> None:
        """`content` is what a caller has read that has read all."""
        self.ends[end] += 1
        chosen, act = plan.route, plan.act
        allowed = set(chosen.fates if act == "wait" else chosen.ends)
        if chosen.strict:
            # on a busy machine before the answer, or between its head and its end
            allowed |= {"GuestTimeoutError", "BodyError:GuestTimeoutError"}
        if act == "cancel":
            allowed.add("CancelledError")
        if act in ("close", "drop"):
            allowed.add("gave-up")
        if plan.after_others:
            # the memory and the handles of an instance are those of all exchanges in it
            allowed |= {"MemoryLimitError", "HandleLimitError"}
            allowed |= {"BodyError:MemoryLimitError", "BodyError:HandleLimitError"}
        if plan.siblings:
            allowed |= ENDS_AN_INSTANCE | {f"BodyError:{name}" for name in ENDS_AN_INSTANCE}
        what = f"{plan.number}: {plan.generation} {chosen.target} {chosen.body} {act}"
        if end not in allowed:
            self.findings.append(f"{what}: {end}, not one of {sorted(allowed)}")
        elif content is not None and plan.content is not None and content != plan.content:
            self.findings.append(f"{what}: read {content[:100]!r}, {len(content)} bytes")

    def look(self, plan: Plan, response: wasgi.Response) -> None:
        """The guest has answered: it has found what a fresh instance finds."""
        if response.report:
            self.reused[response.report.reused > 0] += 1
        if not plan.route.keeper:
            return
        found, fresh = response.headers["x-entry"], self.entries[plan.generation]
        if found != fresh:
            self.findings.append(f"{plan.number}: {plan.generation} {plan.route.target}: found {found}, not {fresh}")

    def fork(self) -> None:
        """A child has instances of its own, and finds nobody's secrets in them."""
        child = os.fork()
        if child == 0:
            os._exit(self.in_child())
        ends: list[int] = []

        def has_ended() -> bool:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                ends.append(status)
            return bool(ends)

        if not settle(has_ended, 60):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            ends.append(-1)
        if ends != [0]:
            self.findings.append(f"the forked child {child} ended with {ends}")

    def in_child(self) -> int:
        wrong = 0
        for (generation, is_async), app in self.keepers.items():
            for target in ["/keep?in=data,heap,stack&secret=616263", "/nowhere", "/handles?n=3"] * 3:
                if not is_async:
                    with app.handle(for_guest(target)) as response:
                        content, found = response.read(), response.headers["x-entry"]
                    fresh = self.fresh.get((generation, target), b"kept"), self.entries[generation]
                    wrong += (content, found) != fresh
        return wrong

    def blocking(self, number: int) -> None:
        if self.fork_each and number % self.fork_each == self.fork_each - 1:
            self.fork()
        plan = self.plan(number, False)
        content = None
        try:
            response = plan.app.handle(plan.request)
            self.look(plan, response)
            if plan.act == "read":
                content = response.read()
            elif plan.act == "chunks":
                content = b"".join(response)
            elif plan.act == "wait":
                response.wait()
            elif plan.act == "close":
                with response:
                    next(iter(response), None)
            end = "ok" if plan.act in ("read", "chunks", "wait") else "gave-up"
        except Exception as error:
            end = name_of(error)
        self.judge(plan, end, content)

    async def awaited(self, number: int) -> None:
        plan = self.plan(number, True)
        act, dice = plan.act, plan.dice
        content: bytes | None = None

        async def work() -> str:
            nonlocal content
            response = await plan.app.handle_async(plan.request)
            self.look(plan, response)
            if act in ("read", "cancel"):
                content = await response.aread()
            elif act == "chunks":
                content = b"".join([chunk async for chunk in response])
            elif act == "wait":
                await response.finished()
            elif act == "close":
                async with response:
                    await anext(aiter(response), None)
            return "ok" if act in ("read", "chunks", "wait", "cancel") else "gave-up"

        try:
            if act == "cancel":
                task = asyncio.create_task(work())
                if dice.random() < 0.5:
                    for _ in range(dice.randrange(6)):
                        await asyncio.sleep(0)
                else:
                    await asyncio.sleep(dice.random() * 0.004)
                task.cancel()
                end = await task
            else:
                end = await work()
        except asyncio.CancelledError:
            end = "CancelledError"
        except Exception as error:
            end = name_of(error)
        self.judge(plan, end, content)

    async def tasks(self) -> None:
        async def worker() -> None:
            while (number := self.take()) is not None:
                await self.awaited(number)

        await asyncio.gather(*(worker() for _ in range(TASKS)))

    def thread(self) -> None:
        while (number := self.take()) is not None:
            self.blocking(number)

    def tell(self, seconds: float) -> None:
        """Says on stderr how far it is, so that a long run that stalls is seen to."""
        ended = sum(self.ends.values())
        print(f"{ended} of {self.exchanges} exchanges; {wasgi.stats()}", file=sys.stderr, flush=True)
        if ended < self.exchanges:
            timer = threading.Timer(seconds, self.tell, [seconds])
            timer.daemon = True
            timer.start()

    def run(self) -> None:
        threads = [threading.Thread(target=self.thread) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        asyncio.run(self.tasks())
        for thread in threads:
            thread.join()


def quiet() -> None:
    """What upstreams raise here is meant, and would fill the log."""
    logging.getLogger("wasgi").setLevel(logging.CRITICAL)


def left_over() -> dict[str, int]:
    """What must be zero when all is done."""
    gc.collect()
    stats = wasgi.stats()
    names = [
        "exchanges",
        "queued",
        "outgoing",
        "calls",
        "feeds",
        "idle",
        "tasks",
        "slots",
        "memories",
        "stacks",
        "memory",
        "snapshots",
    ]
    return {name: count for name in names if (count := getattr(stats, name))}


def descriptors() -> int:
    # A closed event loop takes the pipe that woke it with it. What a thread without the GIL let go of is released when
    # the native module is next called.
    wasgi.stats()
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def threads_of_the_process() -> int:
    return len(os.listdir("/proc/self/task"))


def settle(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def resident() -> float:
    """MiB that the process has of its machine, when what malloc keeps for itself is given back."""
    gc.collect()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    match = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) / 1024


def run(
    seed: int, exchanges: int, options: Options, say: Callable[[str], None] = lambda line: None
) -> collections.Counter[str]:
    """Runs so many exchanges; raises `Finding` if something was not as it must be.

    Returns:
        How they ended for their callers.
    """
    quiet()
    with Surroundings() as around:
        return run_in(around, seed, exchanges, options, say)


def run_in(
    around: Surroundings, seed: int, exchanges: int, options: Options, say: Callable[[str], None]
) -> collections.Counter[str]:
    # what is made once is made: slots of the pools keep some memory each, heavy guests leave holes in malloc's arenas
    Chaos(seed, max(500, min(exchanges // 5, 10_000)), around, options).run()
    settle(lambda: not left_over())
    files, threads, before = descriptors(), threads_of_the_process(), wasgi.stats().outcomes
    memory = resident()
    begun = time.monotonic()
    chaos = Chaos(seed, exchanges, around, options)
    if exchanges > 100_000:
        chaos.tell(60)
    chaos.run()
    took = time.monotonic() - begun
    findings = chaos.findings[:20]
    chaos.keepers.clear()
    chaos.apps.clear()  # and with them a `Network` that keeps connections
    if not settle(lambda: not left_over()):
        findings.append(f"left over: {left_over()}")
    if not settle(lambda: descriptors() <= files):
        findings.append(f"descriptors: {files} before, {descriptors()} after")
    if not settle(lambda: resident() < memory + 128, 5):
        findings.append(f"memory: {memory:.0f} MiB before, {resident():.0f} after")
    spare = wasgi.stats().threads
    if threads_of_the_process() > max(threads, spare + 80):
        findings.append(f"threads: {threads} before, {threads_of_the_process()} after")
    after = wasgi.stats().outcomes
    outcomes = {name: after[name] - before[name] for name in after}
    for app in chaos.upstream.again.values():
        if app.handle(wasgi.Request("GET", "http://guest.local/hello")).read() != b"Hello, World!":
            findings.append("the app does not serve any more")
    say(f"seed {seed}, WASI {' and '.join(options.generations)}, {options.siblings} in an instance")
    say(f"{exchanges} exchanges in {took:.0f} s, {exchanges / took:.0f} a second")
    say(f"for their callers: {dict(chaos.ends.most_common())}")
    say(f"outcomes: {outcomes}")
    say(f"left over: {left_over() or 'nothing'}; descriptors: {files} before, {descriptors()} after")
    say(f"memory: {memory:.0f} MiB before, {resident():.0f} after; threads: {threads}, {threads_of_the_process()}")
    if options.isolated:
        say(f"in instances that had exchanges before: {chaos.reused[True]}, in others: {chaos.reused[False]}")
        if chaos.reused[True] < exchanges / 5:
            findings.append(f"only {chaos.reused[True]} of {exchanges} exchanges had an instance that was put back")
    # what an upstream calls is an exchange, too; one that is cancelled before it began is none
    if sum(chaos.ends.values()) != exchanges:
        findings.append(f"{exchanges} exchanges ended {sum(chaos.ends.values())} times")
    if not 0.9 * exchanges < sum(outcomes.values()) < 1.1 * exchanges:
        findings.append(f"outcomes of {sum(outcomes.values())} guests for {exchanges} exchanges")
    if findings:
        raise Finding(f"seed {seed}, {exchanges} exchanges:\n" + "\n".join(findings))
    return chaos.ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exchanges", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--hostile",
        type=float,
        default=0.02,
        const=0.2,
        nargs="?",
        metavar="SHARE",
        help="how many of them are hostile: 0.02, or 0.2 if no share is named",
    )
    parser.add_argument("--generation", choices=[*GENERATIONS, "both"], default="both", help="of WASI")
    parser.add_argument("--siblings", type=int, default=SIBLINGS, help="exchanges of an instance of WASI 0.3 at once")
    parser.add_argument("--isolated", action="store_true", help="instances that are reused are put back")
    parser.add_argument("--forks", type=int, default=0, help="children that look what they find, with --isolated")
    chosen = parser.parse_args()
    generations = GENERATIONS if chosen.generation == "both" else (chosen.generation,)
    options = Options(chosen.hostile, generations, chosen.siblings, chosen.isolated, chosen.forks)
    run(chosen.seed, chosen.exchanges, options, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
