"""What the loggers are told, and what is seen of it while nobody has configured any."""

from __future__ import annotations

import array
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

import wasgi
from tests import asgi_driver
from tests.conftest import PROBE, AppMaker, get, until
from tests.processes import free_port, run, serving
from wasgi.outgoing import route

SCRIPT = """
import json, logging, sys, wasgi
{before}
app = wasgi.App(sys.argv[1])
app.handle(wasgi.Request("GET", "http://guest.local/stdio?n=1&tag=t")).wait()
app.handle(wasgi.Request("GET", "http://guest.local/fetch?url=https://api.example.com/x")).wait()
"""

PRINTED = "probe.wasm: t out 0\nprobe.wasm: t err 0\nprobe.wasm: no newline at the end\n"
DENIED = (
    "probe.wasm: an outgoing request to `https://api.example.com` was denied: its app has no upstream; hint: "
    '`App(..., outgoing=wasgi.Network(allow=["https://api.example.com"]))`, or a function that answers it\n'
)


class TestWhileNobodyHasConfiguredLogging:
    @pytest.mark.parametrize(
        ("before", "seen"),
        [
            ("", PRINTED + DENIED),
            ('logging.getLogger("wasgi").setLevel(logging.WARNING)', "probe.wasm: t err 0\n" + DENIED),
            ('logging.getLogger("wasgi.guest").setLevel(logging.ERROR)', DENIED),
            ('logging.getLogger("wasgi.guest").disabled = True', DENIED),
            ("logging.disable(logging.INFO)", "probe.wasm: t err 0\n" + DENIED),
            ('logging.getLogger("wasgi.guest").addFilter(lambda record: record.wasgi_stream == "stderr")',
             "probe.wasm: t err 0\n" + DENIED),
            ('logging.getLogger("other").addHandler(logging.StreamHandler())', PRINTED + DENIED),
            ("sys.stderr = None", ""),
        ],
    )  # fmt: skip
    def test_lines_go_to_stderr_with_their_component(self, before: str, seen: str) -> None:
        done = run(SCRIPT.format(before=before), str(PROBE))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", seen)

    @pytest.mark.parametrize(
        ("before", "seen"),
        [
            ('logging.basicConfig(format="%(message)s")', "t err 0\n" + DENIED.removeprefix("probe.wasm: ")),
            ('logging.getLogger("wasgi").addHandler(logging.NullHandler())', ""),
            (
                'logging.getLogger("wasgi.guest").addHandler(logging.NullHandler())',
                DENIED,
            ),
            (
                'logging.basicConfig(format="%(name)s %(message)s", level=logging.INFO)',
                PRINTED.replace("probe.wasm:", "wasgi.guest") + DENIED.replace("probe.wasm:", "wasgi.outgoing"),
            ),
        ],
    )
    def test_what_is_configured_is_left_alone(self, before: str, seen: str) -> None:
        done = run(SCRIPT.format(before=before), str(PROBE))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", seen)


def test_a_guest_moves_no_cursor_on_a_terminal() -> None:
    script = """
import sys, wasgi
app = wasgi.App(sys.argv[1])
app.handle(wasgi.Request("GET", "http://guest.local/long-line?text=a%1B[2J%0Db%09c%C2%9B1m€")).wait()
"""
    done = run(script, str(PROBE))
    assert done.stderr == "probe.wasm: a\\x1b[2J\\x0db\tc\\x9b1m€\n"


SERVERS: dict[str, list[str]] = {
    "uvicorn": ["uvicorn", "tests.served_printing:application", "--log-level", "error", "--port"],
    "granian": [
        "granian",
        "--interface",
        "asgi",
        "tests.served_printing:application",
        "--log-level",
        "error",
        "--port",
    ],
    "gunicorn": ["gunicorn", "tests.served_printing:wsgi", "--log-level", "error", "-b"],
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "uvicorn" else pytest.mark.slow) for name in SERVERS]
)
@pytest.mark.parametrize("logging_is", ["", "configured", "level"])
def test_lines_under_a_server(name: str, logging_is: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WASGI_TESTS_LOGGING", logging_is)
    port, output = free_port(), tmp_path / "stderr"
    command = [*SERVERS[name], f"127.0.0.1:{port}" if name == "gunicorn" else str(port)]
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:

        def answers() -> bool:
            return client.get("/hello").status_code == 200

        def lines() -> list[str]:
            return [line for line in output.read_text().splitlines() if re.search(r"t (out|err) 0|newline", line)]

        expected = {
            "": ["probe.wasm: t out 0", "probe.wasm: t err 0", "probe.wasm: no newline at the end"],
            "configured": ["wasgi.guest N t out 0", "wasgi.guest N t err 0", "wasgi.guest N no newline at the end"],
            "level": ["probe.wasm: t err 0"],
        }[logging_is]
        with serving(command, answers, output=output):
            assert client.get("/stdio?n=1&tag=t").text == "printed"
            until(lambda: len(lines()) == len(expected))
    assert [re.sub(r"^configured (\S+) \d+", r"\1 N", line) for line in lines()] == expected


class TestExtras:
    def test_a_guests_line(self, app: AppMaker, probe_name: str, caplog: pytest.LogCaptureFixture) -> None:
        made, other = app(), app()
        with caplog.at_level(logging.INFO, "wasgi.guest"):
            response = made.handle(get("/stdio?n=1&tag=t"))
            response.wait()
            other.handle(get("/stdio?n=1&tag=t")).wait()
        assert response.report is not None
        records: list[Any] = caplog.records
        assert len(records) == 6
        first = records[0]
        assert (first.wasgi_component, first.wasgi_stream) == (probe_name, "stdout")
        assert first.wasgi_exchange == response.report.exchange
        assert re.fullmatch(re.escape(probe_name) + r"#\d+", first.wasgi_app)
        assert len({record.wasgi_app for record in records}) == 2

    async def test_a_failure_under_a_server(
        self, app: AppMaker, probe_name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        seen: list[wasgi.Exchange] = []
        made = app(on_finish=seen.append)
        await asgi_driver.get(made, "/trap")
        await made.aclose()
        (record,) = (record for record in caplog.records if record.name == "wasgi.asgi")
        extras: Any = record
        assert (extras.wasgi_component, extras.wasgi_exchange) == (probe_name, seen[0].id)
        assert extras.wasgi_app.startswith(f"{probe_name}#")

    @pytest.mark.parametrize("way", ["function", "coroutine function"])
    def test_an_upstream_that_fails(
        self, app: AppMaker, probe_name: str, caplog: pytest.LogCaptureFixture, way: str
    ) -> None:
        def fails(request: wasgi.Request) -> wasgi.Response:
            raise LookupError("of the upstream's")

        async def fails_later(request: wasgi.Request) -> wasgi.Response:
            raise LookupError("of the upstream's")

        made = app(outgoing=fails if way == "function" else fails_later)
        response = made.handle(get("/fetch?url=http://up/"))
        assert response.report is not None
        (record,) = (record for record in caplog.records if record.name == "wasgi.outgoing")
        extras: Any = record
        assert (extras.wasgi_component, extras.wasgi_exchange) == (probe_name, response.report.exchange)

    def test_an_error_says_which_exchange_it_ended(self, app: AppMaker) -> None:
        seen: list[wasgi.Exchange] = []
        with app(on_finish=seen.append) as made:
            for route_ in ("/trap", "/silent", "/code?name=DNS-timeout"):
                with pytest.raises(wasgi.WasgiError) as raised:
                    made.handle(get(route_))
                until(lambda: len(seen) > 0)
                assert raised.value.exchange == seen.pop().id
        assert wasgi.WasgiError().exchange is None

    def test_they_are_plain_values(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        """So that records can be sent to other processes, or written as JSON."""
        app().handle(get("/fetch?url=https://a/")).wait()
        (record,) = caplog.records
        assert json.loads(json.dumps({name: value for name, value in vars(record).items() if "wasgi" in name}))


class TestRefusedRequests:
    """Each is told of, with what would allow it; the same not twice in a minute."""

    def said(self, caplog: pytest.LogCaptureFixture) -> list[str]:
        assert {record.name for record in caplog.records} <= {"wasgi.outgoing"}
        return [record.getMessage() for record in caplog.records]

    def ask(self, made: wasgi.App, url: str) -> str:
        with pytest.raises(wasgi.ErrorCode) as raised:
            made.handle(get(f"/fetch-or-code?url={url}"))
        return raised.value.code

    def test_without_an_upstream(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        made = app()
        for path in ("x?key=secret", "y"):
            self.ask(made, f"https://api.example.com:8443/{path}")
        assert self.said(caplog) == [
            "an outgoing request to `https://api.example.com:8443` was denied: its app has no upstream; hint: "
            '`App(..., outgoing=wasgi.Network(allow=["https://api.example.com:8443"]))`, or a function that answers it'
        ]
        self.ask(made, "http://other.example.com/")
        assert len(caplog.records) == 2

    def test_by_a_network(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        made = app(outgoing=wasgi.Network(["https://a.example"], deny=["a.example/secret"], methods=["POST"]))
        self.ask(made, "https://b.example/x?key=secret")
        denied = app(outgoing=wasgi.Network(["https://a.example"], deny=["a.example/secret"]))
        self.ask(denied, "https://b.example/x?key=secret")
        self.ask(denied, "https://a.example/secret?key=value")
        assert self.said(caplog) == [
            "an outgoing request to `https://b.example` was denied: its method is not in `methods`: GET",
            "an outgoing request to `https://b.example` was denied: no pattern in `allow` matches it; "
            'hint: `wasgi.Network(allow=[..., "https://b.example"])`',
            "an outgoing request to `https://a.example` was denied: `a.example/secret` in `deny` matches it",
        ]

    def test_what_allows_it_is_as_it_says(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        self.ask(app(outgoing=wasgi.Network([])), "http://127.0.0.1:9/")
        (allowed,) = re.findall(r'allow=\[\.\.\., "(.*?)"\]', self.said(caplog)[0])
        assert self.ask(app(outgoing=wasgi.Network([allowed])), "http://127.0.0.1:9/") == "connection-refused"

    def test_by_a_route(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        made = app(outgoing=route({"a.example": lambda request: wasgi.Response()}))
        assert self.ask(made, "https://b.example/x") == "destination-not-found"
        assert self.said(caplog) == [
            "an outgoing request to `https://b.example` has no route; hint: "
            '`route({..., "https://b.example": upstream})`, or `"*"` for all others'
        ]

    def test_many_are_told_on_so_often(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        made = app()
        for number in range(200):
            self.ask(made, f"https://a{number}.example/")
        assert len(caplog.records) == 33
        assert self.said(caplog)[-1] == (
            "further messages about refused outgoing requests suppressed: at most 32 different ones a minute"
        )

    def test_paths_are_not_told_apart(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        made = app(outgoing=wasgi.Network(["https://a.example/v1/"]))
        for number in range(100):
            self.ask(made, f"https://a.example/{number}")
        self.ask(made, "https://b.example/")
        assert [line.split("`")[1] for line in self.said(caplog)] == ["https://a.example", "https://b.example"]

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_by_its_address(self, app: AppMaker, caplog: pytest.LogCaptureFixture, host: str) -> None:
        made = app(outgoing=wasgi.Network(["*"]))
        for path in ("x?key=secret", "y"):
            assert self.ask(made, f"http://{host}:9/{path}") == "destination-IP-prohibited"
        (line,) = self.said(caplog)
        assert line.startswith(f"an outgoing request to `http://{host}:9` was blocked: its address is prohibited: ")
        assert " is loopback; hint: `wasgi.Network(..., addresses=[" in line
        assert line.endswith("`, or `allow_private=True` for all of them")
        (address,) = re.findall(r'addresses=\["(.*?)"\]', line)
        for allowed in (wasgi.Network(["*"], addresses=[address]), wasgi.Network(["*"], allow_private=True)):
            assert self.ask(app(outgoing=allowed), f"http://{host}:9/") == "connection-refused"

    @pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
    def test_an_address_that_nothing_would_allow_has_no_hint(
        self, app: AppMaker, caplog: pytest.LogCaptureFixture, host: str
    ) -> None:
        made = app(outgoing=wasgi.Network(["*"], allow_private=True, deny=["[::ffff:127.0.0.1]:9"]))
        self.ask(made, f"http://{host}:9/")
        (line,) = self.said(caplog)
        assert "hint" not in line


class TestWhatFailsWhileNobodyHasConfiguredLogging:
    """What fails beside a guest is told with its component, as its lines are."""

    SCRIPT = """
import sys, wasgi
def fails(*_):
    raise LookupError("first\\nsecond\\x1b[2J")
def get(target):
    return wasgi.Request("GET", f"http://guest.local{target}")
"""

    def test_an_upstream(self) -> None:
        done = run(
            self.SCRIPT + "wasgi.App(sys.argv[1], outgoing=fails).handle(get('/fetch?url=http://up/')).read()",
            str(PROBE),
        )
        lines = done.stderr.splitlines()
        assert lines[:2] == [
            "probe.wasm: an upstream failed; its guest is told `internal-error`",
            "Traceback (most recent call last):",
        ]
        assert lines[-2:] == ["LookupError: first", "second\\x1b[2J"]

    def test_on_finish(self) -> None:
        done = run(
            self.SCRIPT + "with wasgi.App(sys.argv[1], on_finish=fails) as app: app.handle(get('/hello')).read()",
            str(PROBE),
        )
        assert done.stderr.startswith("probe.wasm: `on_finish` failed\nTraceback")


@pytest.mark.parametrize("bad", ["\udc80", "a\ud800"])
def test_text_that_is_none_is_told_as_such(probe: wasgi.Component, bad: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        wasgi.App(probe, env={"NAME": bad})
    with pytest.raises(UnicodeEncodeError):
        wasgi.App(probe, args=[bad])
    with pytest.raises(TypeError, match="`env` must map str to str"):
        wasgi.App(probe, env={"NAME": 3})  # type: ignore[dict-item]


def test_what_a_path_raises_is_told_as_it_is(probe: wasgi.Component) -> None:
    class Broken(os.PathLike[str]):
        def __fspath__(self) -> str:
            raise LookupError("of the path's")

    with pytest.raises(LookupError):
        wasgi.Component(Broken())
    with pytest.raises(LookupError):
        wasgi.App(probe, dirs={"/data": Broken()})


def test_a_path_that_none_can_be_is_told_as_such() -> None:
    with pytest.raises(ValueError, match="NUL"):
        wasgi.Component("a\0b")


def test_a_buffer_is_its_bytes_whatever_its_items(app: AppMaker) -> None:
    items = array.array("H", [1, 2, 3])
    assert app().handle(wasgi.Request("POST", "http://a/echo", body=items)).content == items.tobytes()
    assert app().handle(wasgi.Request("POST", "http://a/echo", body=memoryview(b"abcd")[::2])).content == b"ac"
    released = memoryview(b"abc")
    released.release()
    with pytest.raises(ValueError, match="released"):
        wasgi.Request("POST", "http://a/echo", body=released)


def test_a_section_that_says_more_than_it_has_is_no_truncated_file() -> None:
    section = bytes([10, 1, 5])  # imports: one byte, which says that there are five
    with pytest.raises(wasgi.InvalidComponentError, match="not a valid component: unexpected end"):
        wasgi.Component(b"\0asm\x0d\0\1\0" + section)
