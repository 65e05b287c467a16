"""The options of `wasgi serve`: what `wasgi.Server` gets of them."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import wasgi
from tests.conftest import HELLO, PROBE, PROBE_P3, until
from wasgi.cli import main
from wasgi.cli.serving import Service, banner
from wasgi.cli.settings import Settings
from wasgi.cli.targets import Target
from wasgi.cli.values import Bytes, Seconds

Captured = pytest.CaptureFixture[str]


class FakeServer:
    """A server that serves nothing, and remembers what it was made of."""

    made: list[FakeServer]
    fault: Exception | None = None

    def __init__(self, app: wasgi.App | Mapping[str, wasgi.App], **options: Any) -> None:
        self.app = app
        self.options = options
        self.urls = ["http://127.0.0.1:8000"]
        self.health = options["health"]
        self.served = self.closing = False
        if self.fault is not None:
            raise self.fault
        self.made.append(self)

    def serve(self, *, on_start: Callable[[], object]) -> None:
        on_start()
        self.served = True

    def swap(self, app: wasgi.App | Mapping[str, wasgi.App]) -> None:
        self.app = app


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeServer]:
    servers: list[FakeServer] = []
    monkeypatch.setattr(FakeServer, "made", servers, raising=False)
    monkeypatch.setattr(FakeServer, "fault", None)
    monkeypatch.setattr(wasgi, "Server", FakeServer)
    return servers


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wasgi.cli.signals.prepare", lambda: None)
    monkeypatch.setattr("wasgi.cli.signals.on_hangup", lambda reload, end: None)
    monkeypatch.setattr("wasgi.cli.signals.on_reopen", lambda reopen: None)
    shutil.copy(HELLO, "hello.wasm")
    return tmp_path


def serve(made: list[FakeServer], *arguments: str) -> FakeServer:
    assert main(["serve", *arguments]) == 0
    (server,) = made
    assert server.served
    return server


def refused(capsys: Captured, *arguments: str, code: int = 2) -> str:
    assert main(["serve", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    return err.removeprefix("wasgi: ").removesuffix("\n")


def app_of(server: FakeServer) -> wasgi.App:
    assert isinstance(server.app, wasgi.App)
    return server.app


class TestWhere:
    @pytest.mark.parametrize(
        ("arguments", "binds"),
        [
            ([], ["127.0.0.1:8000"]),
            (["--port", "0"], ["127.0.0.1:0"]),
            (["--host", "::1", "--port", "80"], ["[::1]:80"]),
            (["--host", "[::1]"], ["[::1]:8000"]),
            (["--bind", "[::1]:8000", "--bind", "unix:x.sock"], ["[::1]:8000", "unix:x.sock"]),
            (["--fd", "30", "--fd", "40"], ["fd:30", "fd:40"]),
            (["--bind", "127.0.0.1:1", "--fd", "30"], ["127.0.0.1:1", "fd:30"]),
        ],
    )
    def test_flags(
        self, arguments: list[str], binds: list[str], made: list[FakeServer], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("wasgi.cli.serving.keep_from_children", lambda binds: None)
        monkeypatch.setattr("wasgi.cli.serving.give_up", lambda binds: None)
        assert serve(made, "hello.wasm", *arguments).options["bind"] == binds

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["--bind", "x:1", "--port", "1"], "--bind and --port exclude each other; hint: --bind HOST:PORT"),
            (
                ["--bind", "::1:80"],
                "--bind: `::1:80` is no address to listen at: an address of IPv6 stands in brackets",
            ),
            (
                ["--bind", "127.0.0.1:0", "--bind", "localhost"],
                "--bind: `localhost` is no address to listen at: it has",
            ),
            (["--host", ""], "--host: `:8000` is no address to listen at: it has no host; hint: "),
            (["--port", "0", "--health", "9000"], "--health: `9000` is no address to listen at: it has no host"),
            (["--fd", "1" + "0" * 30], "--fd: `fd:1000000000000000000000000000000` is no address to listen at"),
        ],
    )
    @pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["one process", "workers"])
    def test_what_is_no_address(self, arguments: list[str], workers: list[str], line: str, capsys: Captured) -> None:
        assert refused(capsys, "hello.wasm", *arguments, *workers).startswith(line)

    def test_what_is_no_address_is_told_before_anything_is_loaded(
        self, monkeypatch: pytest.MonkeyPatch, capsys: Captured
    ) -> None:
        monkeypatch.setattr(Target, "load", lambda self, grants: pytest.fail("loaded"))
        assert refused(capsys, "hello.wasm", "--bind", "localhost").startswith("--bind: `localhost` is no address")

    def test_what_a_variable_says_is_no_address(self, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
        monkeypatch.setenv("WASGI_SERVE_BIND", "localhost")
        line = "variable `WASGI_SERVE_BIND`: `localhost` is no address to listen at"
        assert refused(capsys, "hello.wasm").startswith(line)

    def test_a_flag_counts_more_than_a_variable_and_that_more_than_a_file(
        self, made: list[FakeServer], monkeypatch: pytest.MonkeyPatch, folder: Path
    ) -> None:
        (folder / "wasgi.toml").write_text("[serve]\nport = 1\nbind = ['127.0.0.1:9']\n")
        monkeypatch.setenv("WASGI_SERVE_PORT", "2")
        assert serve(made, "hello.wasm", "--port", "3").options["bind"] == ["127.0.0.1:3"]
        made.clear()
        assert serve(made, "hello.wasm").options["bind"] == ["127.0.0.1:2"]
        made.clear()
        monkeypatch.setenv("WASGI_SERVE_PORT", "")
        (folder / "wasgi.toml").write_text("[serve]\nport = 1\n")
        assert serve(made, "hello.wasm").options["bind"] == ["127.0.0.1:1"]

    def test_what_kubernetes_sets_is_no_port(
        self, made: list[FakeServer], monkeypatch: pytest.MonkeyPatch, capsys: Captured
    ) -> None:
        monkeypatch.setenv("WASGI_SERVE_PORT", "tcp://10.43.0.1:8080")
        monkeypatch.setenv("WASGI_SERVE_PORT_8080_TCP_ADDR", "10.43.0.1")
        assert serve(made, "hello.wasm").options["bind"] == ["127.0.0.1:8000"]
        assert "warning: `WASGI_SERVE_PORT=tcp://10.43.0.1:8080` is ignored" in capsys.readouterr().err

    def test_sockets_of_systemd(self, made: list[FakeServer], monkeypatch: pytest.MonkeyPatch) -> None:
        kept: list[int] = []
        closed: list[str] = []
        monkeypatch.setattr(os, "set_inheritable", lambda number, inheritable: kept.append(number))
        monkeypatch.setattr("wasgi.cli.serving.give_up", closed.extend)
        monkeypatch.setenv("LISTEN_FDS", "2")
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        assert serve(made, "hello.wasm").options["bind"] == ["fd:3", "fd:4"]
        assert kept == [3, 4], "not for the processes that it starts"
        assert closed == ["fd:3", "fd:4"], "the server has them, too"
        assert "LISTEN_FDS" not in os.environ
        assert "LISTEN_PID" not in os.environ

    def test_sockets_of_another_process(self, made: list[FakeServer], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_PID", "1")
        assert serve(made, "hello.wasm").options["bind"] == ["127.0.0.1:8000"]
        assert "LISTEN_FDS" not in os.environ

    def test_what_systemd_does_not_set(self, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
        monkeypatch.setenv("LISTEN_FDS", "two")
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        assert refused(capsys, "hello.wasm").startswith("LISTEN_FDS is `two`, which is not a number")

    @pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["one process", "workers"])
    def test_a_descriptor_that_is_not_open(self, workers: list[str], capsys: Captured) -> None:
        line = refused(capsys, "hello.wasm", "--fd", "9999", *workers, code=3)
        assert line.startswith("fd:9999 is not open; hint: ")

    def test_one_that_cannot_be_bound(
        self, made: list[FakeServer], monkeypatch: pytest.MonkeyPatch, capsys: Captured
    ) -> None:
        monkeypatch.setattr(FakeServer, "fault", OSError(errno.EADDRINUSE, "`127.0.0.1:8000` is taken"))
        assert "`127.0.0.1:8000` is taken" in refused(capsys, "hello.wasm", code=3)
        assert made == []


class TestOptions:
    def test_those_that_are_not_given_are_the_servers(self, made: list[FakeServer]) -> None:
        options = serve(made, "hello.wasm").options
        assert options == {"bind": ["127.0.0.1:8000"], "health": None, "static": {}, "request_ids": True}
        assert app_of(made[0]).limits == wasgi.Limits(queue=1024)

    def test_all(self, made: list[FakeServer]) -> None:
        given = {
            "--header-timeout": "5",
            "--body-timeout": "none",
            "--idle-timeout": "2m",
            "--drain-timeout": "500ms",
            "--connections": "7",
            "--streams": "8",
            "--header-bytes": "32KiB",
            "--backlog": "9",
            "--trusted": "10.0.0.0/8",
            "--threads": "2",
            "--access-log": "-",
            "--access-format": "json",
            "--health": "127.0.0.1:9000",
            "--socket-mode": "660",
        }
        flat = [text for pair in given.items() for text in pair]
        options = serve(made, "hello.wasm", *flat, "--proxy-protocol", "--reuse-port", "--no-request-ids").options
        assert options == {
            "bind": ["127.0.0.1:8000"],
            "health": "127.0.0.1:9000",
            "header_timeout": 5.0,
            "body_timeout": None,
            "idle_timeout": 120.0,
            "drain_timeout": 0.5,
            "connections": 7,
            "streams": 8,
            "header_bytes": 32768,
            "backlog": 9,
            "trusted": ("10.0.0.0/8",),
            "proxy_protocol": True,
            "reuse_port": True,
            "threads": 2,
            "access_log": "-",
            "access_format": "json",
            "socket_mode": 0o660,
            "request_ids": False,
            "static": {},
        }

    def test_of_a_file(self, made: list[FakeServer], folder: Path) -> None:
        (folder / "other.toml").write_text(
            "[serve]\ntargets = ['hello.wasm']\nheader-timeout = 2.5\ntrusted = ['10.0.0.0/8', '::1']\n"
            "proxy-protocol = true\nheader-bytes = 1024\nenv = {A = 1, B = 'x y'}\nmemory = 'none'\n"
        )
        server = serve(made, "--config", "other.toml")
        assert server.options["header_timeout"] == 2.5
        assert server.options["trusted"] == ("10.0.0.0/8", "::1")
        assert server.options["proxy_protocol"] is True
        assert server.options["header_bytes"] == 1024
        assert app_of(server).limits.memory is None

    def test_of_variables(self, made: list[FakeServer], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WASGI_SERVE_TARGETS", "hello.wasm")
        monkeypatch.setenv("WASGI_SERVE_PROXY_PROTOCOL", "yes")
        monkeypatch.setenv("WASGI_SERVE_BIND", "127.0.0.1:1 127.0.0.1:2")
        monkeypatch.setenv("WASGI_SERVE_QUEUE", "3")
        server = serve(made)
        assert server.options["proxy_protocol"] is True
        assert server.options["bind"] == ["127.0.0.1:1", "127.0.0.1:2"]
        assert app_of(server).limits.queue == 3


class TestTls:
    def test_files(self, made: list[FakeServer]) -> None:
        server = serve(
            made, "hello.wasm", "--tls-certificate", "c", "--tls-key", "k", "--tls-client-ca", "a",
            "--tls-client-certificates", "optional",
        )  # fmt: skip
        tls = server.options["tls"]
        assert tls == wasgi.Tls("c", "k", client_ca="a", client_certificates="optional")

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["--tls-certificate", "c"], "--tls-certificate needs a key; hint: --tls-key FILE"),
            (["--tls-key", "k"], "--tls-key needs a certificate; hint: --tls-certificate FILE"),
            (["--tls-client-ca", "a"], "--tls-client-ca needs a certificate; hint: --tls-certificate FILE"),
        ],
    )
    def test_half_of_it(self, arguments: list[str], line: str, made: list[FakeServer], capsys: Captured) -> None:
        assert refused(capsys, "hello.wasm", *arguments) == line

    def test_one_that_cannot_be_used(self, folder: Path, capsys: Captured) -> None:
        (folder / "rubbish").write_text("rubbish")
        line = refused(
            capsys, "hello.wasm", "--port", "0", "--tls-certificate", "rubbish", "--tls-key", "rubbish", code=3
        )
        assert line.startswith("`rubbish` has no certificate")


class TestTargets:
    def test_several_are_served_by_name(self, made: list[FakeServer], folder: Path) -> None:
        shutil.copy(PROBE_P3, "pröbe.wasm")
        app = serve(made, "hello.wasm", "pröbe.wasm").app
        assert isinstance(app, Mapping)
        assert list(app) == ["/hello", "/pr%C3%B6be"]
        assert app["/pr%C3%B6be"].component.wasi == "0.3"

    def test_a_folder(self, made: list[FakeServer], folder: Path) -> None:
        (folder / "all").mkdir()
        shutil.copy(HELLO, "all/b.wasm")
        shutil.copy(HELLO, "all/a.wasm")
        for name in ("notes.txt", ".hidden.wasm"):
            (folder / "all" / name).write_text("")
        app = serve(made, "all").app
        assert isinstance(app, Mapping)
        assert list(app) == ["/a", "/b"]

    def test_routes(self, made: list[FakeServer]) -> None:
        app = serve(made, "hello.wasm", "--route", "/api=hello.wasm", "--route", "https://shop.local/x=hello.wasm").app
        assert isinstance(app, Mapping)
        assert list(app) == ["/", "/api", "https://shop.local/x"]

    @pytest.mark.parametrize(
        ("arguments", "line", "code"),
        [
            (["none"], "there is no `none`; hint: a .wasm or .wat file, a folder of them, or module:app", 3),
            (["."], None, 0),
            (["empty"], "there is no component in `empty`; hint: files that end with .wasm or .wat", 3),
            (["hello.wasm", "hello.wasm"], "`hello.wasm` and `hello.wasm` would both be served at /hello", 2),
            (["--route", "api=hello.wasm"], "--route: `api=hello.wasm` is not PATTERN=TARGET", 2),
            (["--route", "/api"], "--route: `/api` is not PATTERN=TARGET", 2),
            (["nothing_such:app"], "there is no module `nothing_such`", 3),
            (["json:nothing"], "`json` has no `nothing`", 3),
            (["json:codecs"], "`json:codecs` is not a wasgi.App, nor a function that returns one: module", 3),
            (["broken:app"], "`broken:app` cannot be loaded: ZeroDivisionError: division by zero (", 3),
            (["shop:app", "--env", "A=1"], "--env does not apply to `shop:app`; hint: its App has its options", 2),
            (["shop:app"], None, 0),
            (["shop:make"], None, 0),
            (["hello.wasm", "--worker-requests", "1"], "--worker-requests needs workers; hint: --workers N", 2),
            (
                ["hello.wasm", "--workers", "1", "--worker-lifetime", "0"],
                "--worker-lifetime must be a second or more",
                2,
            ),
            (["hello.wasm", "--allow", "ftp://x"], "", 2),
            (["hello.wasm", "--concurrent", "2"], "", 2),
        ],
    )
    def test_each_kind(
        self, arguments: list[str], line: str | None, code: int, made: list[FakeServer], folder: Path, capsys: Captured
    ) -> None:
        (folder / "empty").mkdir()
        (folder / "broken.py").write_text("app = 1 / 0")
        (folder / "shop.py").write_text("import wasgi\ndef make(): return wasgi.App('hello.wasm')\napp = make()\n")
        if line is None:
            serve(made, *arguments)
        else:
            assert refused(capsys, *arguments, code=code).startswith(line)
            assert made == []


class TestGrants:
    def test_what_is_granted_is_told(self, made: list[FakeServer], capsys: Captured, folder: Path) -> None:
        (folder / "data").mkdir()
        server = serve(
            made, "hello.wasm", "--dir", "data::/data:w", "--dir", "data", "--env", "A=1", "--arg", "x",
            "--allow", "https://api.example.com", "--memory", "64MiB", "--timeout", "2", "--reuse", "9",
        )  # fmt: skip
        app = app_of(server)
        assert app.limits == wasgi.Limits(memory=64 << 20, timeout=2, queue=1024)
        assert app.reuse == wasgi.Reuse(requests=9)
        assert app.outgoing == wasgi.Network(["https://api.example.com"])
        said = capsys.readouterr().err
        assert "each guest has 64 MiB of memory, 2 s for an exchange; an instance handles 9 exchanges" in said
        assert "network: https://api.example.com; folders: /data (data) to write to, data; variables: A" in said

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["--dir", "none"], "--dir: `none` is not a folder"),
            (["--env", "=x"], "--env: `=x` has no name"),
            (["--env", "WASGI_NOTHING_SUCH"], "--env: there is no variable `WASGI_NOTHING_SUCH`; hint: --env WASGI_"),
            (["--queue", "3", "--concurrency", "none"], ""),
            (["--socket-mode", "66"], "--socket-mode: `66` is not a mode in octal digits"),
        ],
    )
    def test_what_is_refused(self, arguments: list[str], line: str, made: list[FakeServer], capsys: Captured) -> None:
        assert refused(capsys, "hello.wasm", *arguments).startswith(line)
        assert made == []

    def test_addresses_behind_names(self, made: list[FakeServer], capsys: Captured) -> None:
        arguments = ["--allow", "http://db.internal", "--address", "10.1.0.0/16", "--address", "127.0.0.1"]
        network = app_of(serve(made, "hello.wasm", *arguments)).outgoing
        assert network == wasgi.Network(["http://db.internal"], addresses=["10.1.0.0/16", "127.0.0.1"])
        assert "network: http://db.internal (also at 10.1.0.0/16, 127.0.0.1);" in capsys.readouterr().err

    def test_a_blocked_address_is_told_with_the_flag_that_allows_it(self) -> None:
        command = [sys.executable, "-m", "wasgi", "run", str(PROBE), "/fetch?url=http://localhost:9/"]
        allowed = ["--allow", "http://localhost:9"]
        done = subprocess.run([*command, *allowed], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.stdout == "ErrorCode::DestinationIpProhibited"
        flag = re.search(r"; hint: `(--address \S+)`\n$", done.stderr)
        assert flag is not None, done.stderr
        allowed += [one for name in ("127.0.0.1", "::1") for one in ("--address", name)]
        assert flag[1].split()[1] in allowed
        done = subprocess.run([*command, *allowed], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert "Prohibited" not in done.stdout + done.stderr

    def test_what_is_denied_is_told_with_the_flag_that_allows_it(
        self, made: list[FakeServer], caplog: pytest.LogCaptureFixture
    ) -> None:
        app = app_of(serve(made, str(PROBE), "--allow", "https://b.test"))
        assert (
            app.handle(wasgi.Request("GET", "http://localhost/fetch?url=http://a.test/x")).text
            == "ErrorCode::HttpRequestDenied"
        )
        (said,) = [record.getMessage() for record in caplog.records if "was denied" in record.getMessage()]
        assert said.endswith("; hint: `--allow http://a.test`")

    def test_a_variable_is_passed_through(self, made: list[FakeServer], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TOKEN", "a=b")
        service: list[Settings] = []
        original = Service.__init__

        def spy(self: Service, settings: Settings) -> None:
            service.append(settings)
            original(self, settings)

        monkeypatch.setattr(Service, "__init__", spy)
        serve(made, "hello.wasm", "--env", "TOKEN", "--env", "X=1=2")
        assert service[0].grants.env == {"TOKEN": "a=b", "X": "1=2"}


def settings(**options: Any) -> Settings:
    from wasgi.cli.grants import Grants

    return Settings(targets=["hello.wasm"], routes=[], grants=Grants(), binds=["127.0.0.1:0"], **options)


class TestReload:
    def test_swaps(self, made: list[FakeServer], capsys: Captured) -> None:
        service = Service(settings())
        before = made[0].app
        service.reload()
        assert made[0].app is not before
        assert capsys.readouterr().err == "wasgi: loaded again: hello.wasm\n"

    def test_what_is_broken_leaves_the_old_one(self, made: list[FakeServer], folder: Path, capsys: Captured) -> None:
        service = Service(settings())
        before = made[0].app
        (folder / "hello.wasm").write_bytes(HELLO.read_bytes()[:1000])
        service.reload()
        assert made[0].app is before
        said = capsys.readouterr().err
        assert said.startswith("wasgi: not loaded, the old one goes on: `hello.wasm`: a truncated component")
        assert said.count("\n") == 1

    def test_one_that_fails_altogether_leaves_the_next_one(self, made: list[FakeServer], capsys: Captured) -> None:
        service = Service(settings())
        asked: list[int] = []

        def reopen() -> None:
            asked.append(len(asked))
            if len(asked) == 1:
                raise OSError("Too many open files")

        made[0].reopen = reopen  # type: ignore[attr-defined]
        for _ in range(2):
            service._wanted.put("reopen")
        threading.Thread(target=service._load_again, daemon=True).start()
        until(lambda: len(asked) == 2)
        assert capsys.readouterr().err == "wasgi: nothing is loaded again: Too many open files\n"


class TestFoldersOfFiles:
    def test_beside_components_and_alone(self, made: list[FakeServer], capsys: Captured) -> None:
        server = serve(made, "hello.wasm", "--static", "/assets=dist", "--static", "//shop.local=shop")
        assert server.options["static"] == {"/assets": "dist", "//shop.local": "shop"}
        assert "files of dist at /assets" in capsys.readouterr().err
        made.clear()
        assert serve(made, "--static", "/=dist").app == {}

    @pytest.mark.parametrize(
        ("given", "line"),
        [
            (["dist"], "--static: `dist` is not PATTERN=FOLDER; hint: "),
            (["/x=a", "/x=b"], "--static: `a` and `b` are both at /x"),
        ],
    )
    def test_what_is_refused(self, given: list[str], line: str, made: list[FakeServer], capsys: Captured) -> None:
        flat = [text for one in given for text in ("--static", one)]
        assert refused(capsys, "hello.wasm", *flat).startswith(line)
        assert made == []

    def test_one_that_is_not_there(self, capsys: Captured) -> None:
        assert "`nowhere`" in refused(capsys, "hello.wasm", "--port", "0", "--static", "/=nowhere", code=3)


class TestWithoutEffect:
    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["--access-format", "json"], "--access-format has no effect; hint: --access-log FILE"),
            (
                ["--proxy-protocol"],
                "--proxy-protocol has every client refused, for nobody is trusted to send that header; hint: --trusted",
            ),
            (
                ["--tls-client-certificates", "optional"],
                "--tls-client-certificates has no effect; hint: --tls-client-ca",
            ),
            (["--socket-mode", "660"], "--socket-mode has no effect; hint: --bind unix:PATH"),
        ],
    )
    def test_is_told(self, arguments: list[str], line: str, made: list[FakeServer], capsys: Captured) -> None:
        serve(made, "hello.wasm", *arguments)
        assert capsys.readouterr().err.startswith(f"wasgi: warning: {line}")

    def test_with_what_they_need(self, made: list[FakeServer], capsys: Captured) -> None:
        log = ["--access-log", "-", "--access-format", "json", "--proxy-protocol", "--trusted", "unix"]
        serve(made, "hello.wasm", *log, "--bind", "unix:x.sock", "--socket-mode", "660")
        assert "warning" not in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["--bind", "127.0.0.1:1", "--bind", "127.0.0.1:1"], "--bind: `127.0.0.1:1` is given twice"),
            (["--port", "1", "--health", "127.0.0.1:1"], "`127.0.0.1:1` is where requests are served, and cannot have"),
            ([""], "a TARGET is empty; hint: "),
        ],
    )
    def test_is_refused(self, arguments: list[str], line: str, made: list[FakeServer], capsys: Captured) -> None:
        assert refused(capsys, "hello.wasm", *arguments).startswith(line)
        assert made == []

    def test_free_ports_are_others_each_time(self, made: list[FakeServer]) -> None:
        serve(made, "hello.wasm", "--bind", "127.0.0.1:0", "--bind", "127.0.0.1:0", "--health", "127.0.0.1:0")

    @pytest.mark.parametrize("what", ["fastapi.FastAPI()", "wasgi.App('hello.wasm').wsgi", "lambda request: 1"])
    def test_what_is_no_app_is_not_called(self, what: str, folder: Path, capsys: Captured) -> None:
        (folder / "no_app.py").write_text(f"import fastapi, wasgi\napp = {what}\n")
        sys.modules.pop("no_app", None)
        line = refused(capsys, "no_app:app", code=3)
        assert line.startswith("`no_app:app` is not a wasgi.App, nor a function that returns one: ")
        assert line.endswith("; hint: an application that has an App in it is for a server of ASGI or WSGI")


@pytest.mark.parametrize(
    ("bind", "told"), [("0.0.0.0:0", True), ("[::]:0", True), ("127.0.0.1:0", False), ("[::1]:0", False)]
)
def test_all_interfaces_are_told(bind: str, told: bool) -> None:
    assert ("it listens on all interfaces" in banner("1", [], [], [bind])) is told


def test_each_option_is_one_of_the_servers() -> None:
    """With the same default, but for those that the command line documents."""
    from wasgi.cli import serve as command

    options = inspect.signature(wasgi.Server.__new__).parameters
    params = {param.name: param for param in command.command.params}
    for name in command._SERVER:
        default = params[name].to_info_dict()["default"]
        if isinstance(params[name].type, Seconds | Bytes):
            default = params[name].type.convert(default, None, None)
        elif params[name].multiple:
            default = ()
        assert (default or None) == (options[name].default or None), name
    others = {"bind", "static", "tls", "health", "request_ids", "app", "cls"}
    assert set(options) - set(command._SERVER) == others


class TestDescriptors:
    """Of sockets that this process has inherited, as `wasgi.Server` has adopted them."""

    def test_the_servers_is_the_only_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as given:
            inherited = os.dup(given.fileno())
            os.set_inheritable(inherited, True)
            service = Service(dataclasses.replace(settings(), binds=[f"fd:{inherited}"]))
            try:
                assert service.server.addresses == [f"127.0.0.1:{given.getsockname()[1]}"]
                with pytest.raises(OSError, match="Bad file descriptor"):
                    os.fstat(inherited)
            finally:
                service.server.close(0)

    def test_no_child_gets_it_while_the_components_are_loaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        inheritable: list[bool] = []
        with socket.create_server(("127.0.0.1", 0)) as given:
            inherited = os.dup(given.fileno())
            os.set_inheritable(inherited, True)
            original = Service._load

            def load(self: Service, targets: Mapping[str, Target]) -> dict[str, wasgi.App]:
                inheritable.append(os.get_inheritable(inherited))
                return original(self, targets)

            monkeypatch.setattr(Service, "_load", load)
            Service(dataclasses.replace(settings(), binds=[f"fd:{inherited}"])).server.close(0)
        assert inheritable == [False]

    def test_one_that_does_not_listen(self, folder: Path, capsys: Captured) -> None:
        with (folder / "file").open("w") as file:
            line = refused(capsys, "hello.wasm", "--fd", str(file.fileno()), code=3)
            assert line == f"fd:{file.fileno()} is not a socket"
