"""Exceptions of a test's own upstreams fail the test, whatever the component made of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import project_ini

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestExperimentalApiWarning")


@pytest.fixture(autouse=True)
def project(pytester: pytest.Pytester, components: Path) -> None:
    pytester.makeini(project_ini(components=components))


PREAMBLE = """
import asyncio
import functools
import pytest
import wasgi
import httpx2

class Callable:
    def __call__(self, request):
        raise ValueError("own")

class Method:
    def answer(self, request):
        raise ValueError("own")

class Awaited:
    async def __call__(self, request):
        raise ValueError("own")

def function(request):
    raise ValueError("own")

async def coroutine(request):
    raise ValueError("own")

def late(request):
    async def answer():
        raise ValueError("own")
    return answer()

def with_more(more, request):
    raise ValueError("own")

def body(request):
    def chunks():
        yield b"a"
        raise ValueError("own")
    return wasgi.Response(body=chunks())

async def async_body(request):
    async def chunks():
        yield b"a"
        raise ValueError("own")
    return wasgi.Response(body=chunks())

async def asgi(scope, receive, send):
    raise ValueError("own")

def wsgi(environ, start_response):
    raise ValueError("own")

def handler(request):
    raise ValueError("own")
"""

UPSTREAMS = [
    "function",
    "coroutine",
    "late",
    "Callable()",
    "Method().answer",
    "Awaited()",
    "functools.partial(with_more, 1)",
    "lambda request: function(request)",
    "body",
    "async_body",
    "wasgi.outgoing.route({'*': function})",
    "wasgi.outgoing.route({'api.test': wasgi.outgoing.route({'*': coroutine}), '*': upstream})",
    "wasgi.outgoing.asgi(asgi, lifespan='off')",
    "wasgi.outgoing.wsgi(wsgi)",
    "wasgi.outgoing.httpx(httpx2.MockTransport(handler))",
    "wasgi.testing.Upstream(allow_unused=True, routes=[wasgi.testing.Upstream().any().answers(function)])",
]


def run(pytester: pytest.Pytester, source: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(test_it=PREAMBLE + source)
    return pytester.runpytest(*options)


FAILED = "the test's own upstream failed: ValueError: own"


def cases(lines: list[str]) -> str:
    """A test for each of some lines."""
    return "\n".join(
        f"""
def test_{number}(wasgi_app, upstream):
    app = wasgi_app("probe.wasm")
    {line}
    app.get("/fetch?url=https://api.test/")  # the component copes with it
"""
        for number, line in enumerate(lines)
    )


PLAIN = cases([f'app = wasgi_app("probe.wasm", outgoing={upstream})' for upstream in UPSTREAMS])
MOCKS = cases(
    [
        "upstream.any().answers(function)",
        "upstream.any().answers(coroutine)",
        "upstream.any().answers(late)",
        "upstream.any().answers(body)",
        "upstream.any().answers(wasgi.outgoing.wsgi(wsgi))",
        "upstream.any(where=lambda asked: function(asked)).respond()",
        "upstream.any().respond(stream=lambda: function(None))",
        "upstream.any().respond(stream=lambda: (function(None) for _ in 'a'))",
        "upstream.any().respond(204).then.answers(function); app.get('/fetch?url=https://api.test/')",
    ]
)


@pytest.mark.parametrize("source", [PLAIN, MOCKS], ids=["plain", "inside of a mock"])
def test_an_exception_of_an_upstream_fails_the_test(pytester: pytest.Pytester, source: str) -> None:
    result = run(pytester, source)
    count = source.count("def test_")
    result.assert_outcomes(failed=count)
    reports = re.split(r"^_+ test_\d+ _+$", result.stdout.str(), flags=re.MULTILINE)[1:]
    assert len(reports) == count
    for report in reports:
        own, _, more = report.partition("\n----")
        assert own.strip().startswith(f"{FAILED}\n")
        assert own.count(FAILED) == 1
        assert re.search(r"^  .*test_it\.py:\d+: in \w+\n      raise ValueError\(\"own\"\)$", own, re.MULTILINE)
        assert "wasgi/" not in own.replace("pytest-of", "")
        assert "`allow_errors=True`" in own
        assert "wasgi: outgoing calls" in more or source is PLAIN
        assert FAILED not in more.partition("short test summary")[0]


@pytest.mark.parametrize("source", [PLAIN, MOCKS], ids=["plain", "inside of a mock"])
def test_unless_it_asks_otherwise(pytester: pytest.Pytester, source: str) -> None:
    result = run(pytester, "pytestmark = pytest.mark.wasgi_upstream(allow_errors=True, allow_unused=True)\n" + source)
    result.assert_outcomes(passed=source.count("def test_"))


def test_error_codes_are_answers(pytester: pytest.Pytester) -> None:
    source = """
@pytest.mark.parametrize("is_mock", [False, True])
@pytest.mark.parametrize("raised", [{raised}])
def test_it(wasgi_app, upstream, raised, is_mock):
    def raising(request):
        raise raised
    if is_mock:
        upstream.any().answers(raising)
    wasgi_app("probe.wasm", outgoing=upstream if is_mock else raising).get("/fetch?url=https://api.test/")
"""
    answers = "wasgi.errors.ConnectionRefused(), wasgi.errors.InternalError('x'), httpx2.ConnectTimeout('x')"
    run(pytester, source.format(raised=answers)).assert_outcomes(passed=6)
    failures = "TimeoutError(), KeyError('x'), AssertionError(), httpx2.RequestNotRead()"
    run(pytester, source.format(raised=failures)).assert_outcomes(failed=8)


def test_faults_that_are_wanted_are_none(pytester: pytest.Pytester) -> None:
    source = """
@pytest.mark.parametrize("fault", [OSError("x"), RuntimeError, TimeoutError, "DNS-timeout"])
def test_it(wasgi_app, upstream, fault):
    upstream.get("https://api.test/1").raises(fault)
    upstream.get("https://api.test/2").respond(text="abc").breaks_after(1, fault)
    app = wasgi_app("probe.wasm", outgoing=wasgi.outgoing.route({"*": upstream}))
    assert app.get("/fetch?url=https://api.test/1").status == 502
    assert app.get("/fetch?url=https://api.test/2").text.startswith("a[broken")
"""
    run(pytester, source).assert_outcomes(passed=4)


def test_a_component_behind_another_may_fail(pytester: pytest.Pytester) -> None:
    source = """
def test_it(wasgi_app):
    app = wasgi_app("probe.wasm", outgoing=wasgi_app("probe.wasm").app)
    assert app.get("/fetch?url=http://inner.test/trap").status == 502
"""
    run(pytester, source).assert_outcomes(passed=1)


def test_words_of_pytest_keep_their_meaning(pytester: pytest.Pytester) -> None:
    source = """
@pytest.mark.parametrize("word", [pytest.fail, pytest.skip, pytest.xfail])
@pytest.mark.parametrize("is_mock", [False, True])
def test_it(wasgi_app, upstream, word, is_mock):
    def answer(request):
        word("because")
    if is_mock:
        upstream.any().answers(answer)
    app = wasgi_app("probe.wasm", outgoing=upstream if is_mock else answer)
    app.get("/fetch?url=https://api.test/")
"""
    run(pytester, source).assert_outcomes(failed=2, skipped=2, xfailed=2)


def test_causes_are_shown(pytester: pytest.Pytester) -> None:
    source = """
def answer(request):
    try:
        function(request)
    except ValueError as error:
        raise KeyError("other") from error

def test_it(wasgi_app):
    wasgi_app("probe.wasm", outgoing=answer).get("/fetch?url=https://api.test/")
"""
    result = run(pytester, source)
    result.stdout.fnmatch_lines(
        [
            "the test's own upstream failed: KeyError: 'other'",
            '      raise KeyError("other") from error',
            "because of ValueError: own",
            '      raise ValueError("own")',
        ]
    )


def test_a_test_that_has_failed_shows_them_too(pytester: pytest.Pytester) -> None:
    source = """
def test_it(wasgi_app):
    assert wasgi_app("probe.wasm", outgoing=function).get("/fetch?url=https://api.test/").status == 200
"""
    result = run(pytester, source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*wasgi: upstream*", FAILED, '      raise ValueError("own")'])


def test_a_test_that_has_failed_shows_those_that_it_allows(pytester: pytest.Pytester) -> None:
    source = """
@pytest.mark.wasgi_upstream(allow_errors=True)
def test_it(wasgi_app, upstream):
    upstream.any().answers(function)
    assert wasgi_app("probe.wasm").get("/fetch?url=https://api.test/").status == 200
"""
    result = run(pytester, source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*wasgi: exceptions of upstreams*", "ValueError: own", '      raise ValueError("own")']
    )
    result.stdout.no_fnmatch_line("*wasgi: upstream*")


def test_of_one_test_only(pytester: pytest.Pytester, probe_path: Path) -> None:
    source = """
def test_one(wasgi_app):
    wasgi_app("probe.wasm", outgoing=function).get("/fetch?url=https://api.test/")

def test_two(wasgi_app):
    wasgi_app("probe.wasm").get("/hello")

def test_three():
    app = wasgi.App(wasgi.Component(PROBE), outgoing=function)
    app.handle(wasgi.Request("GET", "http://a.test/fetch?url=https://api.test/")).read()
"""
    result = run(pytester, f"PROBE = {str(probe_path)!r}\n" + source)
    result.assert_outcomes(failed=1, passed=2)


def test_in_asynchronous_tests(pytester: pytest.Pytester) -> None:
    source = """
@pytest.mark.parametrize("outgoing", [function, coroutine, async_body])
async def test_it(wasgi_async_app, outgoing):
    await wasgi_async_app("probe.wasm", outgoing=outgoing).get("/fetch?url=https://api.test/")
"""
    run(pytester, source).assert_outcomes(failed=3)


class TestMarks:
    def test_the_nearest_has_the_last_word(self, pytester: pytest.Pytester) -> None:
        source = """
pytestmark = pytest.mark.wasgi_upstream(allow_errors=True)

def test_one(wasgi_app):
    wasgi_app("probe.wasm", outgoing=function).get("/fetch?url=https://api.test/")

@pytest.mark.wasgi_upstream(allow_errors=False)
def test_two(wasgi_app):
    wasgi_app("probe.wasm", outgoing=function).get("/fetch?url=https://api.test/")
"""
        run(pytester, source).assert_outcomes(passed=1, failed=1)

    @pytest.mark.parametrize("mark", ["wasgi_upstream(True)", "wasgi_cassette('x.json')"])
    def test_options_have_names(self, pytester: pytest.Pytester, mark: str) -> None:
        result = run(pytester, f"@pytest.mark.{mark}\ndef test_it(upstream): pass\n")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*takes its options by name, not *"])


class TestBlockingClients:
    """Where an event loop runs that they would block."""

    def test_say_at_once_what_to_do(self, pytester: pytest.Pytester) -> None:
        source = """
UPSTREAMS = {
    "a mock with the test's own function": lambda make, upstream: answers(upstream),
    "a coroutine function": lambda make, upstream: coroutine,
    "an awaited object": lambda make, upstream: Awaited(),
    "a partial one": lambda make, upstream: functools.partial(coroutine),
    "another component": lambda make, upstream: make("probe.wasm").app,
    "an ASGI application": lambda make, upstream: wasgi.outgoing.asgi(asgi),
    "a route": lambda make, upstream: wasgi.outgoing.route({"*": coroutine}),
}

def answers(upstream):
    upstream.any().answers(coroutine)
    upstream.allow_unused = True
    return upstream

@pytest.mark.parametrize("name", UPSTREAMS)
async def test_it(wasgi_app, upstream, name):
    app = wasgi_app("probe.wasm", outgoing=UPSTREAMS[name](wasgi_app, upstream), timeout=30)
    app.get("/fetch?url=https://api.test/")
"""
        result = run(pytester, source)
        result.assert_outcomes(failed=7)
        said = (
            "E *RuntimeError: a blocking `wasgi.testing.Client` would hold up the event loop that its upstream needs; "
        )
        result.stdout.fnmatch_lines([said + "hint: in asynchronous tests take the fixture `wasgi_async_app` *"] * 7)

    def test_of_a_mock_only_with_routes_that_it_does_not_answer_itself(self, pytester: pytest.Pytester) -> None:
        source = """
ITS_OWN = [
    lambda route: None,
    lambda route: route.respond(201, json={}, trailers={"a": "b"}).early(),
    lambda route: route.respond(stream=[b"a", 0, b"b"]).breaks_after(1),
    lambda route: route.raises("DNS-timeout"),
    lambda route: route.delays(0),
]
OTHERS = [
    lambda route: route.answers(lambda request: wasgi.Response()),
    lambda route: route.passes_through(wasgi.Network(["https://api.test"])),
    lambda route: route.respond(stream=lambda: [b"a"]),
    lambda route: route.respond().then.answers(function),
]

@pytest.mark.parametrize("say", ITS_OWN)
async def test_its_own(wasgi_app, upstream, say):
    say(upstream.any())
    wasgi_app("probe.wasm").get("/fetch?url=https://api.test/")

@pytest.mark.wasgi_upstream(allow_unused=True)
@pytest.mark.parametrize("say", OTHERS)
async def test_others(wasgi_app, upstream, say):
    say(upstream.any())
    with pytest.raises(RuntimeError, match="event loop that its upstream needs; hint: "):
        wasgi_app("probe.wasm").get("/fetch?url=https://api.test/")

@pytest.mark.wasgi_cassette(upstream=function)
async def test_a_cassette(wasgi_app):
    with pytest.raises(RuntimeError, match="event loop that its upstream needs; hint: "):
        wasgi_app("probe.wasm").get("/fetch?url=https://api.test/")
"""
        run(pytester, source).assert_outcomes(passed=10)

    def test_so_does_all_that_blocks(self, pytester: pytest.Pytester) -> None:
        source = """
async def chunks():
    yield b"a"

CALLS = [
    lambda app: app.post("/echo", content=chunks()),
    lambda app: app.stream("GET", "/fetch?url=https://api.test/").__enter__(),
    lambda app: wasgi.testing.Client(app.app).get("/hello"),
]

@pytest.mark.parametrize("call", CALLS)
async def test_it(wasgi_app, call):
    with pytest.raises(RuntimeError, match="event loop that .* needs; hint: "):
        call(wasgi_app("probe.wasm", outgoing=coroutine))

async def test_a_mock_needs_no_loop(wasgi_app, upstream):
    upstream.get("https://api.test/").respond(text="ok").delays(0.01)
    assert wasgi_app("probe.wasm").get("/fetch?url=https://api.test/").text == "ok"
"""
        run(pytester, source).assert_outcomes(passed=4)

    def test_a_time_that_is_over_has_the_hint(self, pytester: pytest.Pytester) -> None:
        """Of a server on the same loop nobody knows beforehand."""
        source = """
async def test_it(wasgi_app):
    async def serve(reader, writer):
        writer.write(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")
        writer.close()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        app = wasgi_app("probe.wasm", outgoing=wasgi.Network([url]), timeout=0.2)
        app.get("/fetch?url=" + url)

def test_else_not(wasgi_app):
    with pytest.raises(TimeoutError) as raised:
        wasgi_app("probe.wasm", timeout=0.2).get("/sleep?ms=60000")
    assert not hasattr(raised.value, "__notes__")
"""
        result = run(pytester, source)
        result.assert_outcomes(failed=1, passed=1)
        result.stdout.fnmatch_lines(
            ["E *TimeoutError: *", "E *hint: in asynchronous tests take the fixture `wasgi_async_app` *"]
        )

    def test_where_nobody_needs_the_loop_they_work(self, pytester: pytest.Pytester) -> None:
        source = """
def plain(request):
    return wasgi.Response(body=b"up")

@pytest.mark.parametrize("outgoing", [None, plain, wasgi.Network(["https://api.test"])])
async def test_it(wasgi_app, outgoing):
    app = wasgi_app("probe.wasm", outgoing=outgoing)
    assert app.post("/echo", content=[b"a"]).text == "a"
    if outgoing is plain:
        assert app.get("/fetch?url=https://api.test/").text == "up"

async def test_on_a_thread(wasgi_app, upstream):
    upstream.any().respond(text="up")
    app = wasgi_app("probe.wasm")
    assert (await asyncio.to_thread(app.get, "/fetch?url=https://api.test/")).text == "up"
    wasgi.testing.check_isolation(app, ["/hello"])
"""
        run(pytester, source).assert_outcomes(passed=4)


AFTER = """
import asyncio
import threading
import pytest
import wasgi

def make(how):
    async def background(scope, receive, send):
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body", "body": b""})
        if how == "later":
            await asyncio.sleep(0.05)
        if how == "on a thread":
            await asyncio.to_thread(threading.Event().wait, 0.05)
        raise ValueError("own")
    return wasgi.outgoing.asgi(background, lifespan="off")

each = pytest.mark.parametrize("how", ["at once", "later", "on a thread"])
"""


@pytest.mark.parametrize(
    ("more", "outcome"), [("", "failed"), ("@pytest.mark.wasgi_upstream(allow_errors=True)", "passed")]
)
def test_an_application_that_fails_after_its_answer(pytester: pytest.Pytester, more: str, outcome: str) -> None:
    result = run(
        pytester,
        AFTER
        + f"""
{more}
@each
def test_plain(wasgi_app, how):
    assert wasgi_app("probe.wasm", outgoing=make(how)).get("/fetch?url=https://api.test/").status == 204

{more}
@each
def test_of_a_mock(wasgi_app, upstream, how):
    upstream.any().answers(make(how))
    assert wasgi_app("probe.wasm").get("/fetch?url=https://api.test/").status == 204

{more}
@each
async def test_asynchronous(wasgi_async_app, how):
    assert (await wasgi_async_app("probe.wasm", outgoing=make(how)).get("/fetch?url=https://api.test/")).status == 204
""",
    )
    result.assert_outcomes(**{outcome: 9})
    assert result.stdout.str().count(f"E   {FAILED}") + result.stdout.str().count(f"\n{FAILED}") == (
        9 if outcome == "failed" else 0
    )


def test_an_application_that_goes_on_after_its_answer_holds_up_one_test(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
async def forever(scope, receive, send):
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body", "body": b""})
    await asyncio.Event().wait()

kept = wasgi.outgoing.asgi(forever, lifespan="off")

def test_one(wasgi_app):
    assert wasgi_app("probe.wasm", outgoing=kept).get("/fetch?url=https://api.test/").status == 204
    assert wasgi.errors._finishing

def test_two(wasgi_app):
    assert not wasgi.errors._finishing
    assert wasgi_app("probe.wasm").get("/hello").status == 200
""",
    )
    result.assert_outcomes(passed=2)
