"""Guests of each toolchain, isolated: a thousand requests in a row, each answered as by a fresh instance."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

import wasgi
from tests import toolchains
from tests.conftest import COMPONENTS, ROOT, get, post, until
from tests.guest.isolated.asking import MODES
from tests.server.conftest import Client
from tests.test_toolchains import URL, all_but, component, of

BIG = 100_000
HAS_NO_CLIENT = "componentize-qjs"
REUSED = {
    # its memory has no room for a big body, so an exchange with one ends its instance
    "spin-sdk": 600,
    # its `/echo` passes its request's body on and returns, mostly before that has ended: its instance goes with it
    "componentize-py 0.3": 850,
    # it lets go of the streams of a body when it collects its garbage, so an exchange with one ends its instance
    "componentize-qjs": 550,
}
"""At least so many of a thousand; of others nearly all."""

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Seen:
    """What an exchange shows: its answer or its error, and what the guest has asked and printed."""

    answer: tuple[object, ...]
    asked: tuple[str, ...]
    printed: tuple[str, ...]


class World:
    def __init__(self, guest: wasgi.Component, reuse: wasgi.Reuse | None) -> None:
        self._asked: list[str] = []
        self._printed: dict[int | None, list[str]] = {}
        self.app = wasgi.App(guest, reuse=reuse, outgoing=self._answer, stdout=self._print, stderr=self._print)
        self.reused: list[int] = []

    def _answer(self, request: wasgi.Request) -> wasgi.Response:
        self._asked.append(f"{request.method} {request.url} {len(request.read())}")
        return wasgi.Response(203, body=b"of an upstream" * 100)

    def _print(self, line: str) -> None:
        self._printed.setdefault(line.exchange, []).append(line)  # type: ignore[attr-defined]

    def observe(self, requests: Iterable[wasgi.Request]) -> list[Seen]:
        answers = []
        with self.app:
            for request in requests:
                answers.append((*self._one(request), tuple(self._asked)))
                self._asked.clear()
        # closing has waited for the lines
        return [Seen(answer, asked, tuple(self._printed.get(number, ()))) for answer, number, asked in answers]

    def _one(self, request: wasgi.Request) -> tuple[tuple[object, ...], int | None]:
        try:
            with self.app.handle(request) as response:
                content = response.read()
                response.wait()
                assert response.report is not None
                self.reused.append(response.report.reused)
                return (response.status, *response.headers.raw, content), response.report.exchange
        except wasgi.WasgiError as error:
            return (type(error).__name__,), None


def requests(name: str) -> list[wasgi.Request]:
    """Those that have one outcome only, of a guest of that toolchain."""
    asking = [] if name == HAS_NO_CLIENT else [f"/fetch?url={URL}", f"/post?url={URL}&bytes={BIG}"]
    targets = ["/hello", "/print?line=words", "/nowhere", "/hello", "/sleep?ms=1", *asking]
    return [*gets(*targets), *(post(route, b"abcd" * (BIG // 4)) for route in ("/echo", "/upper"))]


def gets(*targets: str) -> list[wasgi.Request]:
    return [get(target) for target in targets]


def check_a_thousand(
    guest: wasgi.Component, made: list[wasgi.Request], reuse: wasgi.Reuse | None, most_fresh: int
) -> None:
    """Each of a thousand requests is answered as by a fresh instance, and no more than so many by one that is new."""
    fresh = World(guest, None).observe(made)
    isolated = World(guest, reuse)
    seen = isolated.observe(itertools.islice(itertools.cycle(made), 1000))
    for n, (one, wanted) in enumerate(zip(seen, itertools.cycle(fresh), strict=False)):
        assert one == wanted, f"request {n}"
    assert len(seen) == len(isolated.reused) == 1000
    assert sum(reused == 0 for reused in isolated.reused) <= most_fresh


@all_but()
def test_a_thousand_requests(name: str) -> None:
    check_a_thousand(component(name), requests(name), MODES["isolated"](), 1000 - REUSED.get(name, 900))


@of("spin-sdk", "componentize-py 0.2", "componentize-py 0.3")
def test_errors_in_between(name: str) -> None:
    """What fails ends its instance, and the next requests have another one."""
    made = gets("/hello", "/raise", "/hello", "/print?line=a")
    fresh = World(component(name), None).observe(made)
    seen = World(component(name), MODES["isolated"]()).observe(made * 20)
    assert seen == fresh * 20


@all_but()
def test_they_are_isolated(name: str) -> None:
    """Where plain reuse shows differences, or is not possible at all."""
    app = wasgi.App(component(name), reuse=MODES["isolated"](), outgoing=lambda _: wasgi.Response(body="ok"))
    wasgi.testing.check_isolation(app, ["/hello", "/print?line=a", "/sleep?ms=3", "/nowhere"])


def test_a_guest_of_wstd() -> None:
    guest = wasgi.Component(COMPONENTS / "wstd.wasm")
    made = gets("/fetch?url=http://a/&bytes=1000", "/nowhere", "/forward?url=http://b/")
    fresh = World(guest, None).observe(made)
    isolated = World(guest, MODES["isolated"]())
    assert isolated.observe(made * 334) == fresh * 334
    assert sum(reused > 0 for reused in isolated.reused) > 900


FRAMEWORKS = {"flask": toolchains.flask, "hono": toolchains.hono}


@functools.cache
def with_framework(name: str) -> wasgi.Component:
    return wasgi.Component(FRAMEWORKS[name](), isolated=True)


def of_framework() -> list[wasgi.Request]:
    form = wasgi.Headers({"content-type": "application/x-www-form-urlencoded"})
    pages = ["/", "/users/ann?a=b", "/page", "/page?rows=50&title=long", "/stream", "/seen/a", "/seen/b"]
    posted = [post("/form", b"name=ann&name=bob&x=%C3%A4", headers=form), post("/echo", b"abcd" * 2000)]
    return [*gets(*pages), *posted, *gets("/print?line=words", "/raise", "/nowhere", "/")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "grows"), [("flask", 2), ("hono", 0)])
def test_a_thousand_requests_of_a_framework(name: str, grows: int) -> None:
    """`grows`: so many kinds of them end their instance each time (those of Flask with a body)."""
    made = of_framework()
    check_a_thousand(with_framework(name), made, MODES["isolated"](), 1000 * grows // len(made) + 20)


@pytest.mark.slow
def test_a_thousand_requests_of_flask_warmed() -> None:
    """What it has compiled is there; what it has not asked for is as in a fresh instance."""
    warm = gets("/", "/page", "/users/warm")
    reuse = wasgi.Reuse(isolated=True, requests=None, idle=None, warm=warm)
    made = of_framework()
    check_a_thousand(with_framework("flask"), made, reuse, 1000 * 2 // len(made) + 20)


@pytest.mark.slow
def test_a_guest_that_has_written_as_much_as_it_announced_goes_on() -> None:
    """Behind the native server: its client has the answer before Python has ended the body, now and then."""
    before = wasgi.stats().outcomes
    with (
        wasgi.App(with_framework("flask"), reuse=MODES["isolated"]()) as app,
        wasgi.Server(app, bind="127.0.0.1:0", threads=2) as server,
        Client(server) as client,
    ):
        for _ in range(400):
            assert client.ask("/").answer()[2] == b"Hello, World, from Flask"
        until(lambda: app.exchanges == 0)
    after = wasgi.stats().outcomes
    assert {name: after[name] - before[name] for name in ("returned", "stopped")} == {"returned": 400, "stopped": 0}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "plainly"), [("flask", "leaks state"), ("hono", "respondWith can't be called twice")])
def test_a_framework_is_isolated(name: str, plainly: str) -> None:
    targets = ["/seen/a", "/seen/b", "/page", "/users/ann", "/raise", "/print?line=a", "/"]
    with wasgi.App(with_framework(name), reuse=wasgi.Reuse()) as plain, pytest.raises(AssertionError, match=plainly):
        wasgi.testing.check_isolation(plain, targets)
    with wasgi.App(with_framework(name), reuse=MODES["isolated"]()) as isolated:
        wasgi.testing.check_isolation(isolated, targets)


@pytest.mark.slow
def test_what_python_keeps() -> None:
    """Globals, classes, caches, modules, what it draws random numbers from: all as at the start, in each request."""
    guest = wasgi.Component(toolchains.python("http-handler", "keeping"))
    paths = [f"/{n % 7}" for n in range(1000)]

    def answers(reuse: wasgi.Reuse | None, paths: list[str]) -> list[str]:
        said = []
        with wasgi.App(guest, reuse=reuse, simulation=wasgi.testing.Simulation(seed=5)) as app:
            for path in paths:
                with app.handle(get(path)) as response:
                    said.append(response.read().decode())
                    response.wait()
        return said

    fresh = answers(None, paths[:7])
    assert all(one.startswith("1 ") for one in fresh)
    assert answers(MODES["isolated"](), paths) == (fresh * 143)[:1000]
    assert [one.split()[0] for one in answers(MODES["reused"](), paths[:3])] == ["1", "2", "3"]


RESEEDED = """

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.wasi_http_types import Fields, OutgoingBody, OutgoingResponse, ResponseOutparam

Recipe = IncomingHandler


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request, response_out):
        Recipe().handle(request, response_out)
        response = OutgoingResponse(Fields())
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(f"{random.random()}".encode())
        OutgoingBody.finish(body, None)
"""


@pytest.mark.slow
def test_the_recipe_for_random_in_python(tmp_path: Path) -> None:
    """That of docs/isolation.md, in a guest: what a warm-up has drawn its random numbers from is the same for all."""
    (recipe,) = re.findall(r"```python\n(import random\n.*?)```", (ROOT / "docs/isolation.md").read_text(), re.DOTALL)
    (tmp_path / "reseeded.py").write_text(recipe + RESEEDED)
    guests = [
        toolchains.python("http-handler", "keeping"),
        toolchains.python("http-handler", "reseeded", folder=tmp_path),
    ]
    numbers = []
    for guest in guests:
        # one at a time: the next exchange finds the same instance, however long it takes to put that back
        one = wasgi.Limits(concurrency=1, queue=1)
        reuse = wasgi.Reuse(isolated=True, requests=None, warm=get("/"))
        with wasgi.App(wasgi.Component(guest), limits=one, reuse=reuse) as app:
            numbers.append([app.handle(get("/")).read().split()[-1] for _ in range(10)])
    without, reseeded = numbers
    assert len(set(without)) == 1, "they would be the same"
    assert len(set(reseeded)) == 10
