"""The pytest plug-in, by pytest runs of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import COMPONENTS, project_ini

pytest_plugins = ["pytester"]

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestExperimentalApiWarning")


@pytest.fixture(autouse=True)
def project(pytester: pytest.Pytester, components: Path) -> None:
    """A project whose components are ours."""
    pytester.makeini(project_ini("filterwarnings = error", components=components))


def run(pytester: pytest.Pytester, source: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(source)
    return pytester.runpytest(*options)


def test_a_component_and_what_is_around_it(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test_it(wasgi_app, upstream):
            upstream.get("https://api.example.com/users/1").respond(json={"name": "Ada"})
            app = wasgi_app("probe.wasm", env={"A": "b"})
            response = app.get("/fetch", params={"url": "https://api.example.com/users/1", "header": "accept:text/x"})
            assert response.status == 200
            assert response.json() == {"name": "Ada"}
            assert upstream.calls[0].request.headers["accept"] == "text/x"
            assert "A=b" in app.get("/env").text
        """,
    )
    result.assert_outcomes(passed=1)


def test_asynchronous_tests(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import asyncio

        async def test_it(wasgi_async_app, upstream):
            upstream.any().respond(text="up")
            app = wasgi_async_app("probe.wasm")
            responses = await asyncio.gather(*(app.get("/fetch?url=https://a/") for _ in range(3)))
            assert [response.text for response in responses] == ["up"] * 3
        """,
    )
    result.assert_outcomes(passed=1)


def test_asynchronous_tests_of_anyio(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import pytest

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_it(wasgi_async_app, upstream):
            upstream.any().respond(text="up")
            response = await wasgi_async_app("probe.wasm").get("/fetch?url=https://a/")
            assert response.text == "up"
        """,
        "-p",
        "no:asyncio",
        "-o",
        "filterwarnings=",
    )
    result.assert_outcomes(passed=1)


UNMATCHED = """
    def test_it(wasgi_app, upstream):
        upstream.get("https://api.example.com/users/1").respond()
        app = wasgi_app("probe.wasm")
        app.get("/fetch?url=https://api.example.com/users/1")
        assert app.get("/fetch?url=https://api.example.com/users/2").status == 502  # the component copes with it
"""


def test_a_request_that_no_route_fits_fails_the_test(pytester: pytest.Pytester) -> None:
    result = run(pytester, UNMATCHED)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "no route matches a request of the component: GET https://api.example.com/users/2",
            "the nearest route is: GET https://api.example.com/users/1",
            "  url",
            "    wanted  https://api.example.com/users/1",
            "    came    https://api.example.com/users/2",
            "*wasgi: exchanges*",
            "GET http://component.test/fetch?url=https://api.example.com/users/2 -> 502 in * ms, * KiB, 1 outgoing",
            "*wasgi: outgoing calls*",
            "GET https://api.example.com/users/1 -> 200",
            "GET https://api.example.com/users/2 -> no route matches it",
        ]
    )


def test_a_test_that_fails_itself_shows_what_no_route_fits(pytester: pytest.Pytester) -> None:
    """Which is why it has failed."""
    result = run(pytester, UNMATCHED.replace("502", "200"))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E * assert 502 == 200",
            "*wasgi: upstream*",
            "no route matches a request of the component: GET https://api.example.com/users/2",
            "the nearest route is: GET https://api.example.com/users/1",
            "    wanted  https://api.example.com/users/1",
            "    came    https://api.example.com/users/2",
        ]
    )


def test_a_test_that_fails_itself_shows_routes_that_were_not_used(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test_it(wasgi_app, upstream):
            upstream.get("https://api.example.com/users/1")
            assert wasgi_app("probe.wasm").get("/hello").status == 201
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*wasgi: upstream*", "a route was never used: GET https://api.example.com/users/1", "*wasgi: exchanges*"]
    )


def test_what_a_test_allows_is_no_complaint_of_one_that_fails_itself(pytester: pytest.Pytester) -> None:
    source = "    import pytest\n\n    @pytest.mark.wasgi_upstream(allow_unmatched=True)" + UNMATCHED.replace(
        "502", "200"
    )
    result = run(pytester, source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*wasgi: exchanges*"])
    result.stdout.no_fnmatch_line("*wasgi: upstream*")


def test_complaints_are_told_once(pytester: pytest.Pytester) -> None:
    result = run(pytester, UNMATCHED)
    told = [line for line in result.outlines if line.startswith("no route matches a request of the component")]
    assert len(told) == 1


def test_a_fixture_that_asks_a_component_shows_the_same(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import pytest

        @pytest.fixture
        def token(wasgi_app):
            response = wasgi_app("probe.wasm").get("/fetch?url=https://nowhere/")
            assert response.status == 200
            return response.text

        def test_it(token):
            pass
        """,
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "*wasgi: upstream*",
            "no route matches a request of the component: GET https://nowhere/ (there are no routes)",
            "*wasgi: exchanges*",
            "*wasgi: outgoing calls*",
        ]
    )


def test_a_route_that_was_not_used_fails_the_test(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test_it(upstream):
            upstream.post("https://api.example.com/", json={"a": 1})
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(['a route was never used: POST https://api.example.com/ with json {"a": 1}'])


def test_both_can_be_let_pass(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import pytest

        @pytest.mark.wasgi_upstream(allow_unmatched=True, allow_unused=True)
        def test_it(wasgi_app, upstream):
            upstream.get("https://unused/")
            assert wasgi_app("probe.wasm").get("/fetch?url=https://a/").status == 502
        """,
    )
    result.assert_outcomes(passed=1)


def test_a_mark_that_says_something_else(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import pytest

        @pytest.mark.wasgi_upstream(strict=False)
        def test_it(upstream):
            pass
        """,
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the mark `wasgi_upstream` takes no `strict`"])


def test_chained_components_ask_the_same_upstream(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import wasgi

        def test_it(wasgi_app, upstream):
            upstream.get("https://api.example.com/").respond(text="up")
            inner = wasgi_app("probe.wasm")
            outer = wasgi_app("probe.wasm", outgoing=wasgi.outgoing.route({"inner.test": inner.app, "*": upstream}))
            response = outer.get("/fetch", params={"url": "http://inner.test/fetch?url=https://api.example.com/"})
            assert response.text == "up"
            assert len(upstream.calls) == 1

        def test_two(wasgi_app, upstream):
            inner = wasgi_app("probe.wasm")
            outer = wasgi_app("probe.wasm", outgoing=inner.app)
            outer.get("/fetch", params={"url": "http://inner.test/fetch?url=https://nowhere/"})
        """,
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["no route matches a request of the component: GET https://nowhere/ (there are no routes)"]
    )


def test_an_exchange_that_is_left_open_fails_the_test(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import wasgi

        kept = []

        def test_it(wasgi_app):
            app = wasgi_app("probe.wasm")
            kept.append(app.app.handle(wasgi.Request("GET", "http://component.test/endless")))

        def test_after(wasgi_app):
            assert wasgi_app("probe.wasm").get("/hello").status == 200
        """,
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["exchanges were left open: 1 of probe.wasm; hint: read each response to its end, *"])


def test_what_a_failure_tells(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test_it(wasgi_app):
            app = wasgi_app("probe.wasm")
            app.get("/stdio")
            app.get("/trap")
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*wasgi: exchanges*",
            "GET http://component.test/stdio -> 200 in *",
            "GET http://component.test/trap -> TrapError: *",
            "*wasgi: guest's stdout*",
            "*wasgi: guest's stderr*",
            "*wasgi: backtrace of GET http://component.test/trap*",
            "*named_function_that_traps*",
        ]
    )


def test_a_trap_behind_a_body_that_broke_off_has_its_backtrace(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test_it(wasgi_app):
            wasgi_app("probe.wasm").get("/trap-midway?bytes=9000")
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "GET http://component.test/trap-midway?bytes=9000 -> BodyError: *",
            "*wasgi: backtrace of GET http://component.test/trap-midway?bytes=9000*",
            "*named_function_that_traps*",
        ]
    )


def test_a_test_that_passes_says_nothing(pytester: pytest.Pytester) -> None:
    result = run(pytester, 'def test_it(wasgi_app):\n    wasgi_app("probe.wasm").get("/stdio")\n')
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*wasgi: *")


def test_a_component_that_is_not_there(pytester: pytest.Pytester, components: Path) -> None:
    result = run(pytester, 'def test_it(wasgi_app):\n    wasgi_app("missing.wasm")\n')
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*FileNotFoundError: no component 'missing.wasm' in {components}, *"])


def test_components_are_loaded_once(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        f"""
        import pytest

        HELLO = {str(COMPONENTS / "hello.wasm")!r}

        @pytest.mark.parametrize("n", [1, 2])
        def test_it(wasgi_component, wasgi_app, n):
            assert wasgi_component("hello.wasm") is wasgi_component("hello.wasm")
            assert wasgi_app(wasgi_component("hello.wasm")).get("/").text == "Hello, World!"
            with open(HELLO, "rb") as file:
                assert wasgi_app(file.read()).get("/").status == 200
        """,
    )
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("", "timed out after 0.05 s (`wasgi_timeout`)"),
        (", timeout=0.02", "timed out after 0.02 s (`timeout`)"),
    ],
)
def test_a_timeout_says_whose_it_is(pytester: pytest.Pytester, options: str, text: str) -> None:
    result = run(
        pytester,
        f"""
        def test_blocking(wasgi_app):
            wasgi_app("probe.wasm"{options}).get("/sleep?ms=60000")

        async def test_asynchronous(wasgi_async_app):
            await wasgi_async_app("probe.wasm"{options}).get("/sleep?ms=60000")
        """,
        "-o",
        "wasgi_timeout=0.05",
    )
    result.assert_outcomes(failed=2)
    assert [line.split(maxsplit=1)[1] for line in result.outlines if line.startswith("E  ")] == [
        f"TimeoutError: {text}"
    ] * 2
    result.stdout.no_fnmatch_line("*contextlib*")


@pytest.mark.parametrize("wrong", ["-1", "float('nan')"])
def test_a_timeout_that_is_none_is_refused(pytester: pytest.Pytester, wrong: str) -> None:
    result = run(pytester, f'def test_it(wasgi_app):\n    wasgi_app("probe.wasm", timeout={wrong})\n')
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E * ValueError: `timeout` must be a number of seconds, zero or more: *"])


def test_no_timeout_at_all(pytester: pytest.Pytester) -> None:
    source = 'def test_it(wasgi_app):\n    wasgi_app("probe.wasm", timeout=None).get("/sleep?ms=60")\n'
    run(pytester, source, "-o", "wasgi_timeout=0.02").assert_outcomes(passed=1)


class TestBuild:
    def test_it_is_run_once_and_first(self, pytester: pytest.Pytester) -> None:
        command = f"{sys.executable} -c \"open('built', 'a').write('x')\""
        result = run(
            pytester,
            """
            import pathlib, pytest

            @pytest.mark.parametrize("n", [1, 2])
            def test_it(n):
                assert pathlib.Path("built").read_text() == "x"
            """,
            "-o",
            f"wasgi_build={command}",
        )
        result.assert_outcomes(passed=2)

    def test_it_fails_with_all_that_it_said(self, pytester: pytest.Pytester) -> None:
        command = f"{sys.executable} -c \"import sys; print('out'); sys.exit('no such crate')\""
        result = run(pytester, "def test_it(): pass", "-o", f"wasgi_build={command}")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["ERROR: `wasgi_build` failed with status 1: *", "*no such crate*"])
        assert "out" in result.stderr.str()


def test_the_report(pytester: pytest.Pytester) -> None:
    source = """
        def test_one(wasgi_app):
            for _ in range(3):
                wasgi_app("probe.wasm").get("/hello")

        def test_two(wasgi_app):
            wasgi_app("hello.wasm").get("/hello")
    """
    result = run(pytester, source, "--wasgi-report")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*wasgi: components*", "* 3 exchanges * KiB at most  probe.wasm"])
    result.stdout.fnmatch_lines(["* 1 exchanges * KiB at most  hello.wasm"])


def test_workers_of_xdist(pytester: pytest.Pytester) -> None:
    """One build, and one summary of all."""
    pytest.importorskip("xdist")
    command = f"{sys.executable} -c \"open('built', 'a').write('x')\""
    result = run(
        pytester,
        """
        import pytest

        @pytest.mark.parametrize("n", range(6))
        def test_it(wasgi_app, n):
            assert wasgi_app("hello.wasm").get("/").text == "Hello, World!"
        """,
        "-n2",
        "--wasgi-report",
        "-o",
        f"wasgi_build={command}",
    )
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["* 6 exchanges * hello.wasm"])
    assert (pytester.path / "built").read_text() == "x"


def test_doctests(pytester: pytest.Pytester) -> None:
    """What their components have asked fails them, too."""
    pytester.makepyfile(
        good='''
        def greet():
            """Greets.

            >>> app = getfixture("wasgi_app")("hello.wasm")
            >>> app.get("/").text
            'Hello, World!'
            """
        ''',
        bad='''
        def fetch():
            """Fetches what nobody answers.

            >>> app = getfixture("wasgi_app")("probe.wasm")
            >>> app.get("/fetch?url=https://nowhere/").status
            502
            """
        ''',
    )
    result = pytester.runpytest("--doctest-modules")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["no route matches a request of the component: GET https://nowhere/ *"])


@pytest.mark.parametrize("seed", [1, 2])
def test_in_any_order(pytester: pytest.Pytester, components: Path, seed: int) -> None:
    """pytest-randomly shuffles tests and seeds Python's generator before each; a component's simulation is its own."""
    pytester.makeini(f"[pytest]\nasyncio_default_fixture_loop_scope = function\nwasgi_components = {components}\n")
    result = run(
        pytester,
        """
        import pytest
        from wasgi.testing import Simulation

        seen = []

        @pytest.mark.parametrize("n", range(8))
        def test_it(wasgi_app, upstream, n):
            upstream.get(f"https://api.test/{n}").respond(text=str(n))
            app = wasgi_app("probe.wasm", simulation=Simulation(seed=7))
            assert app.get(f"/fetch?url=https://api.test/{n}").text == str(n)
            seen.append(app.get("/world").text)
            assert set(seen) == {seen[0]}

        def teardown_module():
            assert len(seen) == 8
        """,
        "-p",
        "randomly",
        f"--randomly-seed={seed}",
    )
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines([f"Using --randomly-seed={seed}"])


def test_it_can_be_turned_off(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\n")
    result = run(pytester, "def test_it(wasgi_app): pass", "-p", "no:wasgi", "-p", "no:asyncio")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'wasgi_app' not found"])


def test_it_imports_little_until_it_is_used() -> None:
    """No asyncio, and nothing of ours but the package and the plug-in."""
    script = (
        "import sys, pytest; before = set(sys.modules); import wasgi.pytest_plugin; print(*set(sys.modules) - before)"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in printed if name.partition(".")[0] == "wasgi"}
    package = {"wasgi", "wasgi._wasgi", "wasgi.app", "wasgi.errors", "wasgi.headers"}
    assert {"wasgi", "wasgi.pytest_plugin"} <= ours <= package | {"wasgi.pytest_plugin"}
    assert not {"asyncio", "wasgi.testing", "wasgi.outgoing", "ssl", "json"} & set(printed)
