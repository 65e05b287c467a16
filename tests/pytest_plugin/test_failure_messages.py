"""What the pytest plug-in says of failures, whole: snapshots of the reports of tests that fail.

``pytest tests/pytest_plugin/test_failure_messages.py --snapshot-update`` writes them anew; read what has changed.
"""

from __future__ import annotations

import ast
import re

import pytest
from syrupy.assertion import SnapshotAssertion

from tests.conftest import COMPONENTS
from wasgi.testing import matching

pytest_plugins = ["pytester"]

UNMATCHED = {
    "no routes": "",
    "its method": 'upstream.post("https://api.test/users/1?a=1")',
    "its URL": 'upstream.get("https://api.test/users/2"); upstream.any("https://other.test/**")',
    "its query": 'upstream.get("https://api.test/users/1", query={"a": "2", "b": re.compile("x")})',
    "its fields": 'upstream.get(re.compile("/users/"), headers={"x-one": "2", "accept": re.compile("json")})',
    "its body": 'upstream.any("https://api.test/**", content=b"other")',
    "its JSON": 'upstream.any("https://api.test/**", json={"kind": "order", "of": [1, 2]})',
    "what a predicate says": 'upstream.any("https://api.test/**", where=lambda asked: asked.content == b"other")',
}

FAILURES = {
    "a route that was not used": """
        def test_it(upstream):
            upstream.get("https://api.test/users/*", query={"a": "1"}, headers={"accept": "text/html"})
            upstream.any("https://api.test/", content=b"x" * 20, json={"a": 1}).raises("DNS-timeout")
        """,
    "an assertion inside an answer": """
        def test_it(wasgi_app, upstream):
            def answer(request):
                assert request.headers["accept"] == "text/html"

            upstream.any().answers(answer)
            assert wasgi_app("probe.wasm").get("/fetch?url=https://api.test/&header=accept:x").status == 502
        """,
    "a predicate that fails": """
        def test_it(wasgi_app, upstream):
            upstream.any(where=lambda asked: asked.json()["kind"] == "order")
            assert wasgi_app("probe.wasm").get("/fetch?url=https://api.test/").status == 502
        """,
    "a function that fails": """
        import wasgi

        def answer(request):
            return wasgi.Response(body={"name": "Ada"}["nmae"])

        def test_it(wasgi_app):
            app = wasgi_app("probe.wasm", outgoing=answer)
            assert app.get("/fetch?url=https://api.test/").status == 502  # the component copes with it
        """,
    "an exchange that is left open": """
        import wasgi

        kept = []

        def test_it(wasgi_app):
            app = wasgi_app("probe.wasm")
            kept.append(app.app.handle(wasgi.Request("GET", "http://component.test/endless")))
        """,
    "a trap": """
        def test_it(wasgi_app):
            app = wasgi_app("probe.wasm")
            app.get("/stdio?n=1&tag=a")
            app.get("/trap")
        """,
    "an answer that breaks off": """
        def test_it(wasgi_app):
            wasgi_app("probe.wasm").get("/unfinished")
        """,
    "an error-code": """
        def test_it(wasgi_app, upstream):
            upstream.any().raises("connection-refused")
            wasgi_app("probe.wasm").get("/fetch-or-code?url=https://api.test/")
        """,
    "a status that is not the wanted one": """
        def test_it(wasgi_app, upstream):
            upstream.get("https://api.test/a").respond(503).then.respond(json={"up": True})
            app = wasgi_app("probe.wasm")
            assert app.get("/fetch?url=https://api.test/a").status == 200
        """,
    "a component that is not there": """
        def test_it(wasgi_app):
            wasgi_app("missing.wasm")
        """,
    "a fault that has another name": """
        def test_it(upstream):
            upstream.any().raises("connection-refuse")
        """,
    "a mark that says something else": """
        import pytest

        @pytest.mark.wasgi_upstream(strict=False)
        def test_it(upstream):
            pass
        """,
    "a cassette that nobody records": """
        import pytest

        @pytest.mark.wasgi_cassette
        def test_it(wasgi_app):
            pass
        """,
    "exchanges that see each other": """
        import wasgi

        def test_it(wasgi_app):
            wasgi.testing.check_isolation(wasgi_app("probe.wasm"), ["/remember?word=ada"])
        """,
}


def whole(result: pytest.RunResult, pytester: pytest.Pytester) -> str:
    """The report of the failures, without what differs from run to run and from machine to machine."""
    text = re.split(r"=+ (?:FAILURES|ERRORS) =+\n", result.stdout.str())[1]
    text = text.partition("=== short test summary info")[0]
    for before, after in [
        (str(COMPONENTS), "<components>"),
        (str(pytester.path), "<project>"),
        (re.escape(pytester.path.name), "<project>"),
        (r"\d+\.\d ms", "<time>"),
        (r"\d+ KiB", "<memory>"),
        (r"at 0x[0-9a-f]+", "at <address>"),
        (r"^-+ Captured log call -+\n(?:.*\n)*?(?=-)", ""),  # with Python's own traceback
        (r"^[ ~^]+$\n", ""),
        (r"^E    \+.*\n", ""),  # pytest's own words on values
        (r"[ \t]+$", ""),
    ]:
        text = re.sub(before, after, text, flags=re.MULTILINE)
    return text.rstrip("= \n")


@pytest.fixture(autouse=True)
def project(pytester: pytest.Pytester) -> None:
    pytester.makeini(
        f"""
        [pytest]
        addopts = -p no:randomly -p no:syrupy
        asyncio_default_fixture_loop_scope = function
        wasgi_components = {COMPONENTS}
        """
    )


def failure_of(pytester: pytest.Pytester, source: str) -> str:
    pytester.makepyfile(test_it=source)
    result = pytester.runpytest("--tb=short")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    return whole(result, pytester)


@pytest.mark.parametrize("name", UNMATCHED)
def test_a_request_that_no_route_fits(pytester: pytest.Pytester, snapshot: SnapshotAssertion, name: str) -> None:
    source = f"""
        import re

        def test_it(wasgi_app, upstream):
            upstream.allow_unused = True
            {UNMATCHED[name]}
            url = "/fetch?url=https://api.test/users/1%3Fa=1&header=x-one:1&body=not JSON".replace(" ", "%20")
            assert wasgi_app("probe.wasm").get(url).status == 502  # the component copes with it
        """
    assert failure_of(pytester, source) == snapshot


@pytest.mark.parametrize("name", FAILURES)
def test_what_a_failure_says(pytester: pytest.Pytester, snapshot: SnapshotAssertion, name: str) -> None:
    assert failure_of(pytester, FAILURES[name]) == snapshot


def test_a_cassette_that_has_changed(pytester: pytest.Pytester, snapshot: SnapshotAssertion) -> None:
    source = """
        import pytest
        import wasgi

        URL = "https://api.test/{path}"

        def real(request):
            return wasgi.Response(200, headers={{"content-type": "text/plain"}}, body=request.path)

        @pytest.mark.wasgi_cassette(upstream=real)
        def test_it(wasgi_app):
            app = wasgi_app("probe.wasm")
            app.get("/fetch?url=https://api.test/first&header=accept:{accept}")
            if {both}:
                app.get("/fetch?url=https://api.test/second")
        """
    pytester.makepyfile(test_it=source.format(path="a", accept="text/plain", both=True))
    assert pytester.runpytest().ret == pytest.ExitCode.OK
    assert failure_of(pytester, source.format(path="a", accept="text/html", both=False)) == snapshot


def test_a_build_tool_that_is_not_there(pytester: pytest.Pytester, snapshot: SnapshotAssertion) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest("-o", "wasgi_build=no-such-cargo build --release")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.str().strip() == snapshot


def test_a_build_that_fails(pytester: pytest.Pytester, snapshot: SnapshotAssertion) -> None:
    pytester.makepyfile("def test_it(): pass")
    pytester.makefile(".sh", build="echo 'compiling greeter'\necho 'error: no such crate' >&2\nexit 3\n")
    result = pytester.runpytest("-o", "wasgi_build=sh build.sh")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.str().strip() == snapshot


@pytest.mark.parametrize("text", ["€", "é", "🦀", "x€", "xy🦀"])
def test_a_body_is_cut_between_characters(text: str) -> None:
    shown = matching._short((text * 200).encode())
    cut = ast.literal_eval(shown.partition("…")[0])
    assert (text * 200).startswith(cut.decode())
    assert 196 < len(cut) <= 200
