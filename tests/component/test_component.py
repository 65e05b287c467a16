"""Loading: what is a component, what is not, and what it is instead."""

from __future__ import annotations

import asyncio
import concurrent.futures
import fcntl
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import textwrap
import wsgiref.util
from collections.abc import MutableMapping
from pathlib import Path

import pytest

import wasgi
from tests import asgi_driver
from tests.component.test_loading import leb, section
from tests.conftest import COMPONENTS, HAND, HELLO, PROBE, bare, get
from tests.processes import told

CORE_MODULE = b"\0asm\x01\0\0\0"
EMPTY_COMPONENT = "(component)"


def test_says_what_it_is(hello: wasgi.Component) -> None:
    assert hello.wasi == "0.2"
    assert hello.handler == "wasi:http/incoming-handler@0.2.12"
    assert "wasi:http/incoming-handler@0.2.12" in hello.exports
    assert "wasi:http/types@0.2.12" in hello.imports
    assert len(hello.digest) == 64
    assert repr(hello).startswith("<wasgi.Component hello.wasm wasi=0.2 digest=")


@pytest.mark.parametrize("kind", [str, Path, lambda path: path.read_bytes(), lambda path: bytearray(path.read_bytes())])
def test_loads_from_paths_and_bytes(kind: type[str], hello: wasgi.Component) -> None:
    assert wasgi.Component(kind(HELLO)) == hello


def test_loads_the_text_form() -> None:
    component = wasgi.Component(HAND)
    assert wasgi.App(component).handle(get("/")).status == 299
    assert wasgi.Component(HAND.read_bytes()).digest == component.digest


def test_an_app_takes_what_a_component_takes() -> None:
    assert wasgi.App(str(HELLO)).handle(get("/")).text == "Hello, World!"
    assert wasgi.App(HELLO.read_bytes()).handle(get("/")).text == "Hello, World!"


def test_is_hashable_and_equal_by_its_content(hello: wasgi.Component, probe: wasgi.Component) -> None:
    again = wasgi.Component(HELLO.read_bytes())
    assert {hello: 1}[again] == 1
    assert hello != probe
    assert hello != "hello"


def test_is_immutable(hello: wasgi.Component) -> None:
    with pytest.raises(AttributeError):
        hello.digest = "other"  # type: ignore[misc]


@pytest.mark.parametrize("source", [HELLO, HELLO.read_bytes()])
def test_travels_by_pickle(source: Path | bytes) -> None:
    component = wasgi.Component(source)
    restored = pickle.loads(pickle.dumps(component))
    assert restored == component
    assert wasgi.App(restored).handle(get("/")).status == 200


def test_a_pickled_path_is_only_as_big_as_a_path() -> None:
    assert len(pickle.dumps(wasgi.Component(HELLO))) < 1000


def test_does_not_become_another_component_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "guest.wasm"
    path.write_bytes(HELLO.read_bytes())
    pickled = pickle.dumps(wasgi.Component(path))
    path.write_bytes(PROBE.read_bytes())
    with pytest.raises(wasgi.InvalidComponentError, match="has changed since the component was pickled"):
        pickle.loads(pickled)


def test_reaches_another_process() -> None:
    script = "import pickle, sys, wasgi; print(wasgi.App(pickle.load(sys.stdin.buffer)).handle(wasgi.Request('GET', 'http://a/')).text)"
    pickled = pickle.dumps(wasgi.Component(HELLO.read_bytes()))
    done = subprocess.run([sys.executable, "-c", script], input=pickled, capture_output=True, check=True)
    assert done.stdout.strip() == b"Hello, World!"


def test_loads_in_many_threads_at_once() -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(lambda _: wasgi.Component(HELLO), range(16)))
    assert len({component.digest for component in loaded}) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "not a component but an empty file"),
        (b"\0" * 100, "nothing but zeros"),
        (CORE_MODULE, "a core WebAssembly module; hint: wrap it with `wasm-tools component new`"),
        (b"\x7fELF\x02\x01\x01", "an ELF binary"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"\x1f\x8b\x08", "a gzip file; hint: unpack it"),
        (b"<!DOCTYPE html><p>404", "an HTML page"),
        (b"#!/bin/sh\n", "a script"),
        (b"just some text", "it starts neither as WebAssembly"),
        (b"(component (import", "not a valid component in text form"),
        (HELLO.read_bytes()[:5], "a truncated component: it ends after 5 bytes"),
        (HELLO.read_bytes()[:-10], "a truncated component"),
        (HELLO.read_bytes()[:1000], "a truncated component: it ends after 1000 bytes"),
        (HELLO.read_bytes() + b"junk", "4 bytes follow its last section, which ends after "),
        (HELLO.read_bytes() + b"\0" * 512, "512 bytes follow its last section"),
        (HELLO.read_bytes() + b"\xff" * 100, "100 bytes follow its last section"),
        (HELLO.read_bytes() + HELLO.read_bytes(), "bytes follow its last section"),
        (CORE_MODULE[:4] + b"\xff\xff\xff\xff", "not a valid component"),
    ],
)
def test_names_what_is_no_component(source: bytes, message: str) -> None:
    with pytest.raises(wasgi.InvalidComponentError) as raised:
        wasgi.Component(source)
    assert message in str(raised.value)
    assert isinstance(raised.value, ValueError)


def test_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.wasm"
    path.write_bytes(b"nonsense")
    with pytest.raises(wasgi.InvalidComponentError) as raised:
        wasgi.Component(path)
    assert str(raised.value).startswith(f"`{path}`: not a component: it starts neither")
    path.write_bytes(b'(component (import "acme:db/query@1.0.0" (instance)))')
    for component in (path, wasgi.Component(path)):
        with pytest.raises(wasgi.MissingImportError) as missing:
            wasgi.App(component)
        assert str(missing.value).startswith(f"`{path}`: the component imports what wasgi does not provide: `acme:db")


def test_survives_damage_anywhere() -> None:
    """A flipped byte gives an error or a component, never a crash."""
    whole = HELLO.read_bytes()
    chance = random.Random(1)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(8, len(whole))] = chance.randrange(256)
        try:
            wasgi.Component(bytes(damaged))
        except wasgi.ComponentError:
            refused += 1
    assert refused > 0


def importing(*names: str) -> bytes:
    """A guest of WASI 0.2 that imports an empty instance by each of these names."""
    imports = "".join(f'  (import "{name}" (instance))\n' for name in names)
    return HAND.read_text().replace("(component\n", f"(component\n{imports}", 1).encode()


def exporting(*names: str) -> bytes:
    """A component that exports an empty instance by each of these names."""
    exports = "".join(f'(export "{name}" (instance $i))' for name in names)
    return f"(component (instance $i) {exports})".encode()


class TestWithoutAHandler:
    """It is loaded, and has an App; whoever sends it a request is told."""

    @pytest.mark.parametrize(
        ("source", "why"),
        [
            (EMPTY_COMPONENT.encode(), "exports no HTTP handler: it exports nothing; hint: wasgi calls `wasi:http/inc"),
            (
                exporting("wasi:cli/run@0.2.3"),
                "exports no HTTP handler: it exports `wasi:cli/run@0.2.3`; hint: it is a command",
            ),
            (
                exporting("wasi:cli/run@0.3.0"),
                "exports no HTTP handler: it exports `wasi:cli/run@0.3.0`; hint: it is a command",
            ),
            (exporting("wasi:http/incoming-handler@0.2.0-rc-2023-12-05"), "is a pre-release (rc-2023-12-05)"),
            (exporting("wasi:http/handler"), "`wasi:http/handler` has no version"),
            (exporting("wasi:http/handler@0.4.0"), "`wasi:http/handler` as released in WASI 0.3, not 0.4.0"),
            (
                exporting("wasi:cli/run@0.3.0", "wasi:http/incoming-handler@0.2.0"),
                "is of WASI 0.3: it has to export `wasi:http/handler@0.3`, too",
            ),
        ],
    )
    def test_every_way_to_call_it_raises(self, source: bytes, why: str) -> None:
        component = wasgi.Component(source)
        assert component.handler is None
        app = wasgi.App(component)
        with pytest.raises(wasgi.UnsupportedComponentError) as blocking:
            app.handle(get("/"))
        assert why in str(blocking.value)

        async def calls() -> None:
            with pytest.raises(wasgi.UnsupportedComponentError, match="exports no HTTP handler"):
                await app.handle_async(get("/"))
            with pytest.raises(wasgi.UnsupportedComponentError, match="exports no HTTP handler"):
                await asgi_driver.get(app, "/")

        asyncio.run(calls())
        environ: dict[str, object] = {}
        wsgiref.util.setup_testing_defaults(environ)
        with pytest.raises(wasgi.UnsupportedComponentError, match="exports no HTTP handler"):
            app.wsgi(environ, lambda status, headers: None)
        assert app.exchanges == 0

    def test_a_server_does_not_start_with_it(self) -> None:
        sent: list[str] = []

        async def receive() -> dict[str, object]:
            return {"type": "lifespan.startup"}

        async def send(message: MutableMapping[str, object]) -> None:
            sent.append(f"{message['type']}: {message.get('message')}")

        with pytest.raises(wasgi.UnsupportedComponentError):
            asyncio.run(wasgi.App(EMPTY_COMPONENT.encode())({"type": "lifespan"}, receive, send))
        [told] = sent
        assert told.startswith("lifespan.startup.failed: UnsupportedComponentError: the component exports no HTTP")

    def test_under_a_limit_of_fuel(self) -> None:
        """There is nothing to compile for it."""
        app = wasgi.App(EMPTY_COMPONENT.encode(), limits=wasgi.Limits(fuel=1000))
        with pytest.raises(wasgi.UnsupportedComponentError, match="exports no HTTP handler"):
            app.handle(get("/"))

    def test_what_does_not_compile_is_still_refused(self) -> None:
        with pytest.raises(wasgi.InvalidComponentError, match="not a valid component: "):
            wasgi.Component(b'(component (import "a" (func)) (import "a" (func)))')


def test_lists_every_missing_import() -> None:
    component = wasgi.Component(importing("acme:db/query@1.0.0", "wasi:keyvalue/store@0.2.0"))
    assert component.handler == "wasi:http/incoming-handler@0.2.0"
    for limits in (None, wasgi.Limits(fuel=1000)):
        with pytest.raises(wasgi.MissingImportError) as raised:
            wasgi.App(component, limits=limits)
        assert raised.value.missing == ["acme:db/query@1.0.0", "wasi:keyvalue/store@0.2.0"]
        assert "`acme:db/query@1.0.0`" in str(raised.value)
        assert "hint:" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("wasi:io/poll@0.2.0-rc-2023-10-18", "`0.2.0-rc-2023-10-18` is a pre-release (rc-2023-10-18)"),
        ("wasi:io/poll@0.2.1-pre+build", "is a pre-release (pre)"),
        ("wasi:io/poll", "`wasi:io/poll` has no version"),
        ("wasi:io/poll@0.1.0", "`wasi:io/poll` as released in WASI 0.2, not 0.1.0"),
        ("wasi:io/poll@1.0.0", "`wasi:io/poll` as released in WASI 0.2, not 1.0.0"),
        ("wasi:io/poll@0.3.0", "`wasi:io/poll` as released in WASI 0.2, not 0.3.0"),
        ("wasi:cli/stdout@0.4.0", "`wasi:cli/stdout` as released in WASI 0.2 and 0.3, not 0.4.0"),
        ("wasi:http/client@0.2.0", "`wasi:http/client` as released in WASI 0.3, not 0.2.0"),
    ],
)
def test_an_interface_in_another_version(name: str, why: str) -> None:
    component = wasgi.Component(importing(name))
    with pytest.raises(wasgi.MissingImportError) as raised:
        wasgi.App(component)
    assert raised.value.missing == [name]
    assert why in str(raised.value)


def test_any_release_of_a_provided_interface() -> None:
    for version in ("0.2.0", "0.2.99", "0.2.3+build.1"):
        assert wasgi.App(wasgi.Component(importing(f"wasi:io/poll@{version}"))).handle(get("/")).status == 299


def test_an_import_of_the_wrong_type() -> None:
    text = HAND.read_text().replace('(param "status-code" u16)', '(param "status-code" u64)')
    text = text.replace(
        "(func $set-status (param i32 i32) (result i32))", "(func $set-status (param i32 i64) (result i32))"
    )
    text = text.replace("(i32.const 299)", "(i64.const 299)")
    component = wasgi.Component(text.encode())
    with pytest.raises(wasgi.UnsupportedComponentError, match=r"cannot be linked: .*set-status-code"):
        wasgi.App(component)


class TestOfWasi03:
    def test_one_that_imports_everything(self) -> None:
        component = wasgi.Component(COMPONENTS / "everything_p3.wasm")
        assert (component.wasi, component.handler) == ("0.3", "wasi:http/handler@0.3.0")
        assert {"wasi:http/client@0.3.0", "wasi:io/poll@0.2.12"} < set(component.imports)
        assert repr(component).startswith("<wasgi.Component everything_p3.wasm wasi=0.3 digest=")
        assert pickle.loads(pickle.dumps(component)) == component

    def test_it_finds_all_of_it(self) -> None:
        """The handler of the component is `unreachable`: so far it comes."""
        with pytest.raises(wasgi.TrapError, match="unreachable"):
            wasgi.App(COMPONENTS / "everything_p3.wasm").handle(get("/"))

    def test_what_passes_requests_on_needs_somebody_to_pass_them_to(self) -> None:
        component = wasgi.Component(b'(component (import "wasi:http/handler@0.3.1" (instance)))')
        with pytest.raises(
            wasgi.MissingImportError, match=r"hint: `App\(handler=...\)` answers the requests"
        ) as raised:
            wasgi.App(component)
        assert raised.value.missing == ["wasi:http/handler@0.3.1"]

    def test_it_is_compiled_in_a_child_process_as_well(self) -> None:
        limits = wasgi.ComponentLimits(timeout=600)
        assert wasgi.Component(COMPONENTS / "everything_p3.wasm", limits=limits).wasi == "0.3"

    @pytest.mark.parametrize(
        "text",
        [
            '(component (import "wasi:clocks/types@0.3.2" (instance)))',
            '(component (type (stream u8)) (import "acme:queue/in@0.1.0" (instance)))',
            '(component (import "f" (func async (param "a" string))))',
            "(component (core func (canon task.return)) (core func (canon backpressure.inc)))",
        ],
    )
    def test_what_has_something_of_it_is_of_it(self, text: str) -> None:
        component = wasgi.Component(text.encode())
        assert (component.wasi, component.handler) == ("0.3", None)

    def test_the_handler_of_both(self) -> None:
        source = exporting("wasi:http/incoming-handler@0.2.0", "wasi:http/handler@0.3.2")
        component = wasgi.Component(source)
        assert (component.wasi, component.handler) == ("0.3", "wasi:http/handler@0.3.2")

    @pytest.mark.parametrize("version", ["0.3.0-rc-2026-03-15", "0.3.0-draft", "0.3.1-rc.1+build"])
    @pytest.mark.parametrize(
        "text",
        [
            '(component (import "wasi:cli/types@VERSION" (instance)))',
            '(component (instance $i) (export "wasi:http/handler@VERSION" (instance $i)))',
            '(component (import "wasi:cli/types@0.3.0" (instance)) (import "wasi:http/types@VERSION" (instance)))',
        ],
    )
    def test_pre_releases_are_refused(self, text: str, version: str) -> None:
        with pytest.raises(wasgi.UnsupportedComponentError) as raised:
            wasgi.Component(text.replace("VERSION", version).encode())
        assert f"@{version}`), which is compatible with no other version" in str(raised.value)
        assert "hint: build it with a toolchain that emits WASI 0.3.0 or later" in str(raised.value)

    def test_pre_releases_are_refused_before_they_are_compiled(self) -> None:
        """Their binary form was another one: here a type that no release has."""
        empty = b"\0asm\x0d\0\x01\0"
        instance_type = section(7, b"\x01\x42\0")
        name = b"wasi:cli/types@0.3.0-rc-2025-09-16"
        imports = section(10, b"\x01\0" + leb(len(name)) + name + b"\x05\0")
        unknown = section(7, b"\x01\x2f")
        with pytest.raises(wasgi.UnsupportedComponentError, match=r"0\.3\.0-rc-2025-09-16"):
            wasgi.Component(empty + instance_type + imports + unknown)
        with pytest.raises(wasgi.InvalidComponentError, match="not a valid component: "):
            wasgi.Component(empty + unknown)


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        wasgi.Component(tmp_path / "none.wasm")
    assert raised.value.filename == str(tmp_path / "none.wasm")
    with pytest.raises(IsADirectoryError):
        wasgi.Component(tmp_path)


@pytest.mark.parametrize("source", [None, 1, 2.0, ["x"]])
def test_a_source_of_the_wrong_type(source: object) -> None:
    with pytest.raises(TypeError, match="a component is loaded from a path or from bytes"):
        wasgi.Component(source)  # type: ignore[arg-type]


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def in_a_process(script: str, **environment: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(script), str(PROBE)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestOneContent:
    """The same content is compiled once and held once in a process."""

    @LINUX
    def test_many_apps_share_its_code(self) -> None:
        shown = in_a_process(
            """
            import gc, sys, wasgi

            def code():
                with open("/proc/self/maps") as maps:
                    code = [line.split() for line in maps if line.split()[1] == "r-xp"]
                return sum(1 for line in code if len(line) == 5 or line[5].startswith("/memfd:"))

            data = open(sys.argv[1], "rb").read()
            text = b"(component)"
            before = code()
            apps = [wasgi.App(data)]
            one = code()
            apps += [wasgi.App(bytes(bytearray(data))) for _ in range(50)]
            apps += [wasgi.App(sys.argv[1]) for _ in range(50)]
            print(one > before, code() == one)
            apps.clear()
            gc.collect()
            print(code() == before)
            apps = [wasgi.App(data)]
            print(code() == one, apps[0].handle(wasgi.Request("GET", "http://a/hello")).text)
            """
        )
        assert shown == "True True\nTrue\nTrue Hello, World!\n"

    @LINUX
    def test_its_bytes_are_held_once(self) -> None:
        shown = in_a_process(
            """
            import resource, sys, wasgi

            data = open(sys.argv[1], "rb").read()
            apps = [wasgi.App(data)]
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            apps += [wasgi.App(bytes(bytearray(data))) for _ in range(200)]
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
            """
        )
        assert int(shown) < 20 * len(PROBE.read_bytes()) / 1024, "KiB for 200 apps"

    def test_what_was_loaded_from_bytes_is_pickled_as_bytes_and_from_a_path_as_that(self, tmp_path: Path) -> None:
        data, path = HELLO.read_bytes(), tmp_path / "hello.wasm"
        path.write_bytes(data)
        from_path, from_bytes = wasgi.Component(path), wasgi.Component(data)
        assert len(pickle.dumps(from_path)) < 1000
        assert data in pickle.dumps(from_bytes)
        path.unlink()
        assert pickle.loads(pickle.dumps(from_bytes)) == from_path
        assert wasgi.App(from_bytes, limits=wasgi.Limits(fuel=10**9)).handle(get("/")).status == 200

    def test_what_cannot_be_loaded_is_tried_anew(self) -> None:
        for _ in range(2):
            with pytest.raises(wasgi.InvalidComponentError):
                wasgi.Component(HELLO.read_bytes()[:-10])

    def test_a_forked_child_loads_its_own(self) -> None:
        shown = in_a_process(
            """
            import os, sys, wasgi

            data = open(sys.argv[1], "rb").read()
            app = wasgi.App(data)
            if (child := os.fork()) == 0:
                print(wasgi.App(data).handle(wasgi.Request("GET", "http://a/hello")).text, flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            """
        )
        assert shown == "Hello, World!\n"


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
class TestProcessesTakeTurns:
    """Those that start together do not all compile the same; what takes long is told."""

    LOAD = "import logging, sys, wasgi; logging.basicConfig(level='INFO'); wasgi.Component(sys.argv[1])"
    HOLD = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print('held', flush=True); sys.stdin.read()"
    )

    def test_one_waits_for_the_other_until_that_is_done_or_dead(self, tmp_path: Path) -> None:
        locks = tmp_path / "locks"
        locks.mkdir(parents=True)
        lock = locks / f"{wasgi.Component(HELLO).digest[:2]}.lock"
        with subprocess.Popen(
            [sys.executable, "-c", self.HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            environment = {**os.environ, "WASGI_CACHE_DIR": str(tmp_path)}
            command = [sys.executable, "-c", self.LOAD, str(HELLO)]
            with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as waiting:
                assert waiting.stderr is not None
                told = waiting.stderr.readline()
                assert told.startswith(
                    "INFO:wasgi:`hello.wasm` (0.1 MB) is being compiled; its machine code will be cached in "
                )
                assert waiting.poll() is None
                holder.kill()
                told = waiting.stderr.read()
                assert re.fullmatch(r"INFO:wasgi:`hello.wasm` has been compiled, in \d+\.\d s\n", told)
            assert waiting.returncode == 0

    def test_ctrl_c_is_heard_meanwhile(self, tmp_path: Path) -> None:
        locks = tmp_path / "locks"
        locks.mkdir(parents=True)
        with open(locks / f"{wasgi.Component(HELLO).digest[:2]}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # where these tests run in a shell's background, signals of the terminal are ignored
            hears = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
            command = [sys.executable, "-c", hears + self.LOAD, str(HELLO)]
            environment = {**os.environ, "WASGI_CACHE_DIR": str(tmp_path)}
            with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as waiting:
                assert waiting.stderr is not None
                assert "is being compiled" in waiting.stderr.readline()
                waiting.send_signal(signal.SIGINT)
                assert "KeyboardInterrupt" in waiting.stderr.read()
        assert waiting.returncode in (-signal.SIGINT, 130)


class TestCache:
    """The machine code on disk: in a private directory, and never the reason for a failure."""

    SCRIPT = (
        "import logging, sys, wasgi; logging.basicConfig(); "
        "print(wasgi.App(sys.argv[1]).handle(wasgi.Request('GET', 'http://a/')).text)"
    )

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-c", self.SCRIPT, str(HELLO)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "Hello, World!\n"
        done.stderr = told(done.stderr)
        return done

    def test_is_kept_privately(self, tmp_path: Path) -> None:
        directory = tmp_path / "some" / "cache"
        self.run(WASGI_CACHE_DIR=str(directory))
        assert directory.stat().st_mode & 0o777 == 0o700
        files = {file: file.stat().st_ino for file in directory.rglob("*.code")}
        assert files
        self.run(WASGI_CACHE_DIR=str(directory))
        assert {file: file.stat().st_ino for file in directory.rglob("*.code")} == files

    def test_can_be_switched_off(self, tmp_path: Path) -> None:
        done = self.run(WASGI_CACHE_DIR="", HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
        assert list(tmp_path.iterdir()) == []
        assert done.stderr == ""

    def test_a_place_where_nothing_can_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        done = self.run(WASGI_CACHE_DIR=str(tmp_path / "file" / "cache"))
        assert "the code cache is off" in done.stderr

    def test_a_place_where_others_can_write(self, tmp_path: Path) -> None:
        directory = tmp_path / "shared"
        directory.mkdir()
        directory.chmod(0o777)
        done = self.run(WASGI_CACHE_DIR=str(directory))
        assert "others may write to it; hint: chmod 700" in done.stderr
        assert list(directory.iterdir()) == []

    def test_a_relative_place_of_the_users_is_ignored(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """XDG Base Directory Specification: all paths set in these environment variables must be absolute."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("WASGI_CACHE_DIR", raising=False)
        done = self.run(XDG_CACHE_HOME="relative", HOME=str(tmp_path / "home"))
        assert done.stderr == ""
        assert [path.name for path in tmp_path.iterdir()] == ["home"]
        assert (tmp_path / "home" / ".cache" / "wasgi").is_dir()
        done = self.run(XDG_CACHE_HOME="", HOME=str(tmp_path / "home"))
        assert done.stderr == ""

    def test_no_place_at_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("WASGI_CACHE_DIR", raising=False)
        done = self.run(XDG_CACHE_HOME="./relative", HOME="also-relative")
        assert "the code cache is off: neither `XDG_CACHE_HOME` nor `HOME` is an absolute path" in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_place_of_its_own_may_be_relative(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert self.run(WASGI_CACHE_DIR="mine").stderr == ""
        assert (tmp_path / "mine").is_dir()

    def test_serves_several_processes_at_once(self, tmp_path: Path) -> None:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            done = list(pool.map(lambda _: self.run(WASGI_CACHE_DIR=str(tmp_path)), range(4)))
        assert [process.stderr for process in done] == [""] * 4


# What this engine is built without, each in a form that the proposal allows. Found out only when a guest runs it, it
# could end the process: of the first, wasmtime 48.0.8 aborts.
NOT_OFFERED = {
    "calls by a type that has subtypes": """
        (type $wide (sub (func))) (type $narrow (sub $wide (func)))
        (func $callee (type $narrow)) (table 1 funcref) (elem (i32.const 0) $callee)
        (func $x (call_indirect (type $wide) (i32.const 0)))""",
    "types that name each other": """
        (rec (type $one (func (param (ref null $other)))) (type $other (func (param (ref null $one)))))""",
    "structs": "(type $s (struct (field i32))) (func $x (drop (struct.new_default $s)))",
    "arrays": "(type $a (array i32)) (func $x (drop (array.new_default $a (i32.const 9))))",
    "small integers as references": "(func $x (drop (ref.i31 (i32.const 1))))",
    "a table of anything": "(table 1 anyref)",
    "a global of anything": "(global (ref null any) (ref.null any))",
    "casts": "(func $x (drop (ref.cast (ref null i31) (ref.null any))))",
    "references of the host's": "(table 1 externref)",
    "exceptions": "(tag $t) (func $x (throw $t))",
    "exceptions as references": "(func $x (drop (ref.null exn)))",
    "shared memory": "(memory 1 1 shared)",
    "atomic instructions": "(memory 1 1) (func $x (drop (i32.atomic.load (i32.const 0))))",
    "waiting for memory": """
        (memory 1 1) (func $x (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const 1))))""",
    "fences": "(func $x (atomic.fence))",
    "stack switching": """
        (type $f (func)) (type $c (cont $f)) (func $g) (elem declare func $g)
        (func $x (drop (cont.new $c (ref.func $g))))""",
    "wide arithmetic": """
        (func $x (i64.add128 (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1)) drop drop)""",
    "pages of another size": "(memory 1 (pagesize 1))",
}


@pytest.mark.parametrize("feature", NOT_OFFERED)
def test_what_the_engine_does_not_offer_is_refused_when_it_is_loaded(feature: str) -> None:
    with pytest.raises(wasgi.UnsupportedComponentError, match="a feature that this engine does not support: failed to"):
        bare("", NOT_OFFERED[feature])


@pytest.mark.parametrize(
    "declarations",
    [
        "(type $f (func)) (func $g (type $f)) (elem declare func $g) (func $x (call_ref $f (ref.func $g)))",
        "(type $f (func)) (func $g (type $f)) (table 1 (ref $f) (ref.func $g)) (func $x)",
        "(func $g) (func $x (return_call $g))",
        "(memory i64 1) (memory 1) (func $x)",
    ],
)
def test_what_it_offers_runs(declarations: str) -> None:
    with pytest.raises(wasgi.NoResponseError):
        wasgi.App(bare("(call $x)", declarations)).handle(get("/"))


def test_what_no_proposal_allows_is_invalid() -> None:
    with pytest.raises(wasgi.InvalidComponentError, match="type mismatch"):
        bare("(i32.add (i64.const 1) (i32.const 1)) drop")
