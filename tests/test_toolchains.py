"""Guests of each toolchain, which all have the same routes, and what is peculiar to one: docs/toolchains.md."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import wasgi
from tests import toolchains
from tests.conftest import get, post
from wasgi.cli import main

BUILDERS: dict[str, Callable[[], Path]] = {
    "spin-sdk": toolchains.spin,
    "componentize-py 0.2": functools.partial(toolchains.python, "http-handler", "app"),
    "componentize-py 0.3": functools.partial(toolchains.python, "http-service", "app_p3"),
    "componentize-js": toolchains.starlingmonkey,
    "componentize-qjs": toolchains.quickjs,
}
COMMITTED = {"spin-sdk"}
BIG = 300_000
URL = "http://api.example/x"

pytestmark = pytest.mark.timeout(300)


def of(*names: str) -> pytest.MarkDecorator:
    """Runs a test with the guests of these toolchains; those that are not committed are slow to build."""
    slow = [pytest.param(name, marks=pytest.mark.slow) for name in names if name not in COMMITTED]
    return pytest.mark.parametrize("name", [*(name for name in names if name in COMMITTED), *slow])


def all_but(*names: str) -> pytest.MarkDecorator:
    assert set(names) <= set(BUILDERS)
    return of(*(name for name in BUILDERS if name not in names))


@functools.cache
def component(name: str) -> wasgi.Component:
    return wasgi.Component(BUILDERS[name]())


@pytest.fixture
def guest(name: str) -> wasgi.Component:
    return component(name)


@all_but()
def test_says_hello(guest: wasgi.Component, name: str) -> None:
    assert guest.wasi == ("0.2" if name in ("componentize-py 0.2", "componentize-js") else "0.3")
    response = wasgi.App(guest).handle(get("/hello"))
    assert (response.status, response.text[:12]) == (200, "Hello, World")
    assert wasgi.App(guest).handle(get("/nowhere")).status == 404


@all_but()
def test_prints(guest: wasgi.Component) -> None:
    lines: list[str] = []
    assert wasgi.App(guest, stdout=lines.append).handle(get("/print?line=abc")).text == "printed"
    assert lines == ["abc"]


@pytest.mark.parametrize("route", ["/echo", "/upper"])
@all_but()
async def test_streams_both_ways_at_once(guest: wasgi.Component, route: str) -> None:
    """Each chunk comes back before the next is sent."""
    back = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        for letter in b"abc":
            yield bytes([letter]) * 1000
            await back.wait()
            back.clear()

    response = await wasgi.App(guest).handle_async(post(route, body()))
    whole = b""
    async for chunk in response:
        whole += chunk
        if len(whole) % 1000 == 0:
            back.set()
    expected = b"a" * 1000 + b"b" * 1000 + b"c" * 1000
    assert whole == (expected.upper() if route == "/upper" else expected)


@pytest.mark.parametrize("route", ["/echo", "/upper"])
@all_but()
def test_streams_much(guest: wasgi.Component, route: str) -> None:
    content = b"abcdefgh" * (BIG // 8)
    response = wasgi.App(guest).handle(post(route, content))
    assert response.read() == (content.upper() if route == "/upper" else content)


@all_but("componentize-qjs")
def test_asks_an_upstream(guest: wasgi.Component) -> None:
    def upstream(request: wasgi.Request) -> wasgi.Response:
        return wasgi.Response(203, body=f"{request.method} {request.url} {len(request.read())}")

    app = wasgi.App(guest, outgoing=upstream)
    assert app.handle(get(f"/fetch?url={URL}")).text == f"203 GET {URL} 0"
    assert app.handle(get(f"/post?url={URL}&bytes={BIG}")).text == f"203 POST {URL} {BIG}"


@pytest.mark.parametrize("size", [1, BIG])
@all_but("componentize-qjs")
def test_an_answer_is_seen_that_comes_before_the_body_is_read(guest: wasgi.Component, size: int) -> None:
    app = wasgi.App(guest, outgoing=lambda request: wasgi.Response(413, body="too much"))
    for _ in range(5):
        assert app.handle(get(f"/post?url={URL}&bytes={size}")).text == "413 too much"


@pytest.mark.parametrize("size", [1, BIG])
@all_but("componentize-qjs")
def test_a_refusal_is_seen(guest: wasgi.Component, size: int) -> None:
    text = wasgi.App(guest).handle(get(f"/post?url={URL}&bytes={size}")).text
    assert text.startswith("error: ")
    assert "NetworkError" in text or "HttpRequestDenied" in text


@all_but()
def test_sleeps(guest: wasgi.Component) -> None:
    simulation = wasgi.testing.Simulation()
    response = wasgi.App(guest, simulation=simulation).handle(get("/sleep?ms=60000"))
    assert response.text == "slept"


@all_but("componentize-js")
def test_answers_with_an_error_code(guest: wasgi.Component) -> None:
    with pytest.raises(wasgi.errors.InternalError, match="on purpose"):
        wasgi.App(guest).handle(get("/fail"))


@all_but("componentize-js")
def test_its_exceptions_are_traps_that_say_why(guest: wasgi.Component) -> None:
    with pytest.raises(wasgi.TrapError) as raised:
        wasgi.App(guest).handle(get("/raise"))
    assert "on purpose" in "\n".join(raised.value.stderr)


@of("componentize-js")
def test_its_exceptions_are_a_500_without_a_body(guest: wasgi.Component) -> None:
    lines: list[str] = []
    response = wasgi.App(guest, stderr=lines.append).handle(get("/raise"))
    assert response.status == 500
    with pytest.raises(wasgi.BodyError, match="did not finish it"):
        response.read()
    assert "on purpose" in "\n".join(lines)


@of("spin-sdk", "componentize-py 0.2", "componentize-py 0.3")
async def test_an_exception_midway_breaks_the_body(guest: wasgi.Component) -> None:
    response = await wasgi.App(guest).handle_async(get("/raise-midway"))
    with pytest.raises(wasgi.BodyError) as raised:
        await response.aread()
    assert isinstance(raised.value.__cause__, wasgi.TrapError)
    assert "midway" in "\n".join(raised.value.__cause__.stderr)


@of("componentize-py 0.3")
def test_an_error_in_the_trailers_breaks_the_body(guest: wasgi.Component) -> None:
    response = wasgi.App(guest).handle(get("/break-midway"))
    with pytest.raises(wasgi.BodyError):
        response.read()


@of("componentize-js", "componentize-qjs")
async def test_an_exception_midway_goes_unnoticed(guest: wasgi.Component) -> None:
    """The guest itself ends its body as if that were whole, and goes on."""
    response = await wasgi.App(guest).handle_async(get("/raise-midway"))
    await response.aread()
    assert response.text == "some of it"
    await response.finished()


@all_but()
async def test_answers_many_at_once(guest: wasgi.Component) -> None:
    app = wasgi.App(guest)

    async def upper(n: int) -> str:
        response = await app.handle_async(post("/upper", f"request {n}".encode()))
        await response.aread()
        return str(response.text)

    assert await asyncio.gather(*(upper(n) for n in range(8))) == [f"REQUEST {n}" for n in range(8)]


@all_but("componentize-js")
async def test_its_instances_can_be_reused(guest: wasgi.Component) -> None:
    app = wasgi.App(guest, reuse=wasgi.Reuse(requests=100))
    for n in range(1, 30):
        response = await app.handle_async(post("/upper", b"x" * n))
        await response.aread()
        assert response.text == "X" * n
        await response.finished()
        assert response.report is not None
        assert response.report.reused == n - 1
    wasgi.testing.check_isolation(app, ["/hello", "/print?line=a", "/sleep?ms=3"])


@of("componentize-js")
def test_its_instances_serve_one_request(guest: wasgi.Component) -> None:
    app = wasgi.App(guest, reuse=wasgi.Reuse(requests=100))
    with pytest.raises(AssertionError, match="respondWith can't be called twice"):
        wasgi.testing.check_isolation(app, ["/hello"])


@of("componentize-py 0.2", "componentize-py 0.3")
def test_time_sleep_sleeps(guest: wasgi.Component) -> None:
    assert wasgi.App(guest, simulation=wasgi.testing.Simulation()).handle(get("/time-sleep?ms=60000")).text == "slept"


@of("componentize-py 0.3")
def test_asyncio_gathers(guest: wasgi.Component) -> None:
    app = wasgi.App(guest, outgoing=lambda request: wasgi.Response(body=request.authority))
    assert app.handle(get("/gather?url=http://a/&url=http://b/")).text == "200 a\n200 b"


@pytest.mark.parametrize("route", ["/asyncio-sleep?ms=1", "/asyncio-timeout"])
@of("componentize-py 0.3")
def test_asyncio_has_no_timers(guest: wasgi.Component, route: str) -> None:
    with pytest.raises(wasgi.TrapError) as raised:
        wasgi.App(guest).handle(get(route))
    assert "NotImplementedError" in "\n".join(raised.value.stderr)


@of("componentize-py 0.3")
async def test_a_guest_traps_when_it_ends_while_a_call_of_a_cancelled_task_is_under_way(guest: wasgi.Component) -> None:
    async def upstream(request: wasgi.Request) -> wasgi.Response:
        await asyncio.Event().wait()
        raise AssertionError

    response = await wasgi.App(guest, outgoing=upstream).handle_async(get(f"/cancel?url={URL}"))
    await response.aread()
    assert response.text == "cancelled"
    with pytest.raises(wasgi.TrapError, match="waitable_set_drop"):
        await response.finished()


@of("componentize-qjs")
def test_has_only_what_the_language_has(guest: wasgi.Component) -> None:
    app = wasgi.App(guest)
    has = {name: app.handle(get(f"/has?name={name}")).text for name in ("JSON", "Map", "atob", "performance")}
    assert set(has.values()) == {"true"}
    missing = ("console", "fetch", "setTimeout", "URL", "TextEncoder", "Request", "Response", "ReadableStream")
    assert {app.handle(get(f"/has?name={name}")).text for name in missing} == {"false"}


@pytest.mark.slow
def test_componentize_qjs_cannot_build_what_sends_requests() -> None:
    with pytest.raises(RuntimeError, match=r"`wasi:http/client@0\.3\.0`.*type mismatch with async"):
        toolchains.quickjs(world=toolchains.WORLD_OF_QJS.replace("export", "import wasi:http/client@0.3.0;\n  export"))


@pytest.mark.slow
def test_the_wit_that_the_command_writes_suits_the_tools_own_event_loop(tmp_path: Path) -> None:
    assert main(["wit", str(tmp_path / "wit")]) == 0
    component = wasgi.Component(toolchains.python("http-proxy", "polling", tmp_path / "wit"))
    app = wasgi.App(component, outgoing=lambda request: wasgi.Response(body=f"this is {request.authority}"))
    assert app.handle(get("/?host=a.example&host=b.example")).text == "this is a.example\nthis is b.example\n"


@of("spin-sdk", "componentize-py 0.3", "componentize-qjs")
async def test_its_instances_can_be_shared_by_requests_that_do_not_meet(guest: wasgi.Component) -> None:
    app = wasgi.App(guest, reuse=wasgi.Reuse(concurrent=4))

    async def ask(request: wasgi.Request) -> str:
        response = await app.handle_async(request)
        await response.aread()
        return str(response.text)

    for _ in range(3):
        sleeps = [ask(get(f"/sleep?ms={ms}")) for ms in (30, 20, 10)]
        uppers = [ask(post("/upper", f"request {n}".encode())) for n in range(5)]
        found = await asyncio.gather(*sleeps, *uppers)
        assert found == ["slept"] * 3 + [f"REQUEST {n}" for n in range(5)]
    await app.aclose()


@of("spin-sdk", "componentize-py 0.3", "componentize-qjs")
async def test_requests_that_wait_for_one_another_end_their_instance(guest: wasgi.Component) -> None:
    """No toolchain's guests can do that yet. None is given the other's answer."""
    async with wasgi.App(guest, reuse=wasgi.Reuse(concurrent=4)) as app:
        waits = asyncio.ensure_future(app.handle_async(get("/wait")))
        wakes = asyncio.ensure_future(app.handle_async(get("/wake")))
        outcomes = await asyncio.gather(waits, wakes, return_exceptions=True)
        assert isinstance(outcomes[0], wasgi.TrapError | wasgi.NoResponseError)
        if isinstance(outcomes[1], wasgi.Response):
            assert (await outcomes[1].aread()) in (b"woken", b"/wake")
        else:
            assert isinstance(outcomes[1], wasgi.TrapError)
