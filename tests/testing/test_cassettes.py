"""Cassettes: what was around a component once, played back exactly; by the class, and by the plug-in's mark."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wasgi
from tests.conftest import AppMaker, get
from tests.peers import Peer, head_of
from wasgi import errors
from wasgi.outgoing import call
from wasgi.testing import Cassette

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestExperimentalApiWarning")


def numbered() -> Callable[[wasgi.Request], wasgi.Response]:
    """Answers differently each time."""
    count = 0

    def answer(request: wasgi.Request) -> wasgi.Response:
        nonlocal count
        count += 1
        if request.path == "/fail":
            raise errors.DnsError("NXDOMAIN", 3)
        headers = [("x-count", str(count)), ("set-cookie", "secret=1")]
        body = b"\xff\0" if request.path == "/binary" else f"answer {count} to {request.text}"
        return wasgi.Response(200 + count, headers=headers, body=body, trailers={"x-sum": "7"})

    return answer


async def told(response: wasgi.Response) -> tuple[Any, ...]:
    content = await response.aread()
    trailers = response.trailers.raw if response.trailers is not None else None
    return (response.status, response.headers["x-count"], content, trailers)


def request(path: str = "/", body: str = "x", **headers: str) -> wasgi.Request:
    return wasgi.Request("POST", f"https://api.example.com{path}", headers=headers, body=body)


class TestCassette:
    async def test_what_was_recorded_is_played(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "cassette.json"
        recorder = Cassette(path, numbered())
        assert recorder.recording
        first = [await told(await call(recorder, request(path))) for path in ("/", "/", "/binary")]
        with pytest.raises(errors.DnsError):
            await call(recorder, request("/fail"))
        recorder.save()
        player = Cassette(path)
        assert not player.recording
        assert (player.world, player.complaints()[0]) == (
            recorder.world,
            "a recorded request was not sent: POST https://api.example.com/",
        )
        assert [await told(await call(player, request(path))) for path in ("/", "/", "/binary")] == first
        with pytest.raises(errors.DnsError) as raised:
            await call(player, request("/fail"))
        assert (raised.value.rcode, raised.value.info_code) == ("NXDOMAIN", 3)
        assert player.complaints() == []

    async def test_it_can_be_read(self, tmp_path: Path) -> None:
        path = tmp_path / "cassette.json"
        recorder = Cassette(path, numbered())
        await call(recorder, request(body='{"a": "é"}', accept="text/plain"))
        recorder.save()
        written = json.loads(path.read_text("utf-8"))
        (exchange,) = written["exchanges"]
        assert exchange["request"] == {
            "method": "POST",
            "url": "https://api.example.com/",
            "headers": [["accept", "text/plain"]],
            "body": '{"a": "é"}',
        }
        assert exchange["response"]["status"] == 201
        assert exchange["response"]["body"] == 'answer 1 to {"a": "é"}'
        assert "é" in path.read_text("utf-8")
        assert os.listdir(tmp_path) == [path.name]

    async def test_secrets_are_not_written_down(self, tmp_path: Path) -> None:
        path = tmp_path / "cassette.json"
        recorder = Cassette(path, numbered(), secret_query=["key"])
        await call(recorder, request("/?key=hush&a=b", authorization="Bearer hush"))
        recorder.save()
        written = path.read_text("utf-8")
        assert "hush" not in written
        assert "secret=1" not in written
        assert "a=b" in written
        player = Cassette(path, secret_query=["key"])
        assert (await call(player, request("/?key=other&a=b", authorization="Bearer other"))).status == 201

    async def test_a_change_is_shown(self, tmp_path: Path) -> None:
        path = tmp_path / "cassette.json"
        recorder = Cassette(path, numbered())
        await call(recorder, request(body="one\ntwo", accept="text/plain"))
        recorder.save()
        player = Cassette(path)
        with pytest.raises(errors.DestinationNotFound):
            await call(player, request(body="one\nthree", accept="text/plain"))
        assert player.complaints() == [
            "a request of the component is not in cassette.json: POST https://api.example.com/; "
            "hint: --wasgi-record=all records it again\n"
            "  --- recorded\n  +++ sent\n  @@ -2,4 +2,4 @@\n   accept: text/plain\n   \n   one\n  -two\n  +three"
        ]

    async def test_more_than_was_recorded(self, tmp_path: Path) -> None:
        path = tmp_path / "cassette.json"
        recorder = Cassette(path, numbered())
        await call(recorder, request())
        recorder.save()
        player = Cassette(path)
        await call(player, request())
        with pytest.raises(errors.DestinationNotFound):
            await call(player, request())
        assert "(all its exchanges have been replayed)" in player.complaints()[0]

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "{}",
            "[]",
            '{"wasgi-cassette": 2}',
            '{"wasgi-cassette": 1, "world": {"seed": 1, "now": -1}, "exchanges": []}',
            '{"wasgi-cassette": 1, "world": {"seed": 1, "now": 1}, "exchanges": [{}]}',
            '{"wasgi-cassette": 1, "world": {"seed": 1, "now": 1}, "exchanges": [{"request": {"body": {}}}]}',
        ],
    )
    def test_what_is_no_cassette(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "cassette.json"
        path.write_text(content)
        with pytest.raises(ValueError, match=r"cassette\.json is not a cassette: "):
            Cassette(path)

    def test_what_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            Cassette(tmp_path / "missing.json")
        with pytest.raises(ValueError, match="to record a cassette, pass"):
            Cassette(tmp_path / "missing.json", record=True)

    def test_a_guest_is_the_same_each_time(self, app: AppMaker, tmp_path: Path) -> None:
        """Random bytes and times included."""
        path = tmp_path / "cassette.json"
        texts = []
        for upstream in (numbered(), None):
            cassette = Cassette(path, upstream)
            made = app(outgoing=cassette, simulation=cassette.world)
            texts.append((made.handle(get("/world")).text, made.handle(get("/fetch?url=https://a/&header=x:y")).text))
            cassette.save()
        assert texts[0] == texts[1]


TEST = """
    import pytest
    import wasgi

    @pytest.mark.wasgi_cassette(upstream=wasgi.Network(["{url}"]))
    def test_it(wasgi_app, upstream):
        upstream.get("https://mocked.example.com/").respond(text="mocked")
        app = wasgi_app("probe.wasm")
        assert app.get("/fetch?url=https://mocked.example.com/").text == "mocked"
        assert app.get("/fetch?url={url}/{path}").text == "hello"
        print("world", app.get("/world").text)
"""


def told_by(result: pytest.RunResult) -> list[str]:
    """The lines of the report of the one test whose fixture has failed."""
    lines = result.outlines
    begin = next(number for number, line in enumerate(lines) if "ERROR at setup of test_it" in line)
    end = next(number for number, line in enumerate(lines) if number > begin and line.startswith("==="))
    return lines[begin + 1 : end]


class TestMark:
    @pytest.fixture
    def run(self, pytester: pytest.Pytester, components: Path) -> Callable[..., pytest.RunResult]:
        pytester.makeini(f"[pytest]\nasyncio_default_fixture_loop_scope = function\nwasgi_components = {components}\n")

        def run(source: str, *options: str) -> pytest.RunResult:
            pytester.makepyfile(test_api=source)
            return pytester.runpytest("-rP", *options)

        return run

    @staticmethod
    def hello(connection: socket.socket) -> None:
        while True:
            head_of(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")

    def test_recorded_once_and_played_then(
        self, run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
    ) -> None:
        with Peer(self.hello) as peer:
            source = TEST.format(url=peer.url, path="a")
            worlds = []
            for _ in range(2):
                result = run(source)
                result.assert_outcomes(passed=1)
                worlds.append(next(line for line in result.outlines if line.startswith("world ")))
            assert (peer.accepted, worlds[0]) == (1, worlds[1])
            assert (pytester.path / "cassettes" / "test_api" / "test_it.json").is_file()
            run(source, "--wasgi-record=all").assert_outcomes(passed=1)
            assert peer.accepted == 2

    def test_a_change_fails_the_test(self, run: Callable[..., pytest.RunResult]) -> None:
        with Peer(self.hello) as peer:
            run(TEST.format(url=peer.url, path="a")).assert_outcomes(passed=1)
            result = run(TEST.format(url=peer.url, path="b").replace('== "hello"', "is not None"))
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            [
                "a request of the component is not in test_it.json: *",
                "  --- recorded",
                "  -GET */a",
                "  +GET */b",
            ]
        )

    def test_a_test_that_fails_itself_shows_the_change(self, run: Callable[..., pytest.RunResult]) -> None:
        with Peer(self.hello) as peer:
            run(TEST.format(url=peer.url, path="a")).assert_outcomes(passed=1)
            result = run(TEST.format(url=peer.url, path="b"))
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            [
                "*wasgi: upstream*",
                "a request of the component is not in test_it.json: *; hint: --wasgi-record=all records it again",
                "  --- recorded",
                "  -GET */a",
                "  +GET */b",
            ]
        )

    def test_a_test_that_fails_records_nothing(
        self, run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
    ) -> None:
        with Peer(self.hello) as peer:
            run(TEST.format(url=peer.url, path="a") + "        raise AssertionError\n").assert_outcomes(failed=1)
        assert not (pytester.path / "cassettes").exists()

    def test_where_nothing_may_be_recorded(
        self, run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
    ) -> None:
        result = run(TEST.format(url="http://127.0.0.1:9", path="a"), "--wasgi-record=none")
        result.assert_outcomes(errors=1)
        path = pytester.path / "cassettes" / "test_api" / "test_it.json"
        assert told_by(result) == [f"there is no cassette {path}, and `--wasgi-record=none` records none"]

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ("typo=1", "the mark `wasgi_cassette` takes no `typo`"),
            (
                "record=True",
                "the mark `wasgi_cassette` takes no `record`; hint: the option `--wasgi-record` says whether to",
            ),
            ("request=1", "the mark `wasgi_cassette` takes no `request`"),
            ("path=1", "`path` of `wasgi_cassette` must be a path, not int"),
            ("upstream=print, secret='authorization'", "names of secrets must be a list: 'authorization'"),
            ("upstream=print, secret_query=1", "names of secrets must be a list: 1"),
            ("upstream=print, secret_body=[1]", "names of secrets must be a list: [1]"),
        ],
    )
    def test_a_mark_that_is_wrong(self, run: Callable[..., pytest.RunResult], options: str, text: str) -> None:
        result = run(f"import pytest\n@pytest.mark.wasgi_cassette({options})\ndef test_it(upstream): pass\n")
        result.assert_outcomes(errors=1)
        assert told_by(result) == [text]

    def test_a_mark_whose_upstream_is_none(self, run: Callable[..., pytest.RunResult]) -> None:
        result = run("import pytest\n@pytest.mark.wasgi_cassette(upstream=3)\ndef test_it(upstream): pass\n")
        result.assert_outcomes(errors=1)
        assert "must be callable" in "".join(told_by(result))

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"no JSON", "Expecting value: line 1 column 1 (char 0)"),
            (b"{}", "it has no 'wasgi-cassette'"),
            (b"\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        ],
    )
    def test_a_file_that_is_no_cassette(
        self, run: Callable[..., pytest.RunResult], pytester: pytest.Pytester, content: bytes, why: str
    ) -> None:
        path = pytester.path / "x.json"
        path.write_bytes(content)
        result = run("import pytest\n@pytest.mark.wasgi_cassette(path='x.json')\ndef test_it(upstream): pass\n")
        result.assert_outcomes(errors=1)
        assert told_by(result) == [f"{path} is not a cassette: {why}"]

    def test_a_folder_is_none(self, run: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
        (pytester.path / "x.json").mkdir()
        result = run("import pytest\n@pytest.mark.wasgi_cassette(path='x.json')\ndef test_it(upstream): pass\n")
        result.assert_outcomes(errors=1)
        assert "Is a directory" in "".join(told_by(result))

    def test_nobody_to_record(self, run: Callable[..., pytest.RunResult]) -> None:
        result = run("import pytest\n@pytest.mark.wasgi_cassette\ndef test_it(upstream): pass\n")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*there is no cassette *test_it.json, and no upstream to record from: *"])
