"""What a component may cost when it is loaded, and how its loading is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import wasgi
from tests import conftest
from tests.conftest import HELLO, PROBE, bare, get, until
from tests.processes import run
from wasgi import ComponentLimits, _wasgi

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="what /proc has")
LIMITS = [name for name in dir(ComponentLimits) if not name.startswith("_")]
COUNTED = [name for name in LIMITS if name not in ("timeout", "memory")]
NONE = ComponentLimits(**dict.fromkeys(COUNTED))


def bare_text(*args: Any, **options: Any) -> bytes:
    return conftest.bare_text(*args, **options).encode()


def leb(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def section(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + leb(len(content)) + content


EMPTY_COMPONENT = b"\0asm\x0d\0\x01\0"


def nested_types(depth: int, kind: int = 0x42) -> bytes:
    """A section with a type of instances (0x42) or of components (0x41) that are nested in each other."""
    return section(7, b"\x01" + bytes([kind, 1, 1]) * (depth - 1) + bytes([kind, 0]))


def nested_components(depth: int) -> bytes:
    inner = EMPTY_COMPONENT
    for _ in range(depth - 1):
        inner = EMPTY_COMPONENT + section(4, inner)
    return section(4, inner)


def twice_each(depth: int) -> str:
    """A component inside, of which each instance makes two of the next: 2 to the power of `depth` in all."""
    text = "(component $n (core module $m) (core instance (instantiate $m)))"
    for _ in range(depth):
        text = f"(component $n {text} (instance (instantiate $n)) (instance (instantiate $n)))"
    return text + "(instance (instantiate $n))"


@dataclasses.dataclass
class Case:
    """So many more of what a limit counts."""

    name: str
    more: int
    around: str


X = "x"
MANY = "(core instance (instantiate $many))"
BUILTINS = [
    "task.return",
    "backpressure.inc",
    "subtask.drop",
    "waitable-set.new",
    "stream.new $s",
    "stream.drop-readable $s",
    "stream.cancel-read $s",
]
CASES = [
    Case("instances", 7, "(core module $many)" + MANY * 7),
    Case("instances", 3 * 2**9 - 1, twice_each(9)),
    Case("modules", 7, "(core module)" * 7),
    Case("components", 7, "(component)" * 7),
    Case("memories", 7, "(core module (memory 0))" * 7),
    Case("memories", 14, "(core module $many (memory 0) (memory 0))" + MANY * 7),
    Case("tables", 7, "(core module (table 0 funcref))" * 7),
    Case("tables", 14, "(core module $many (table 0 funcref) (table 0 funcref))" + MANY * 7),
    Case("globals", 7, "(core module (global i32 (i32.const 0)))" * 7),
    Case("globals", 14, "(core module $many (global i32 (i32.const 0)) (global i64 (i64.const 0)))" + MANY * 7),
    Case("functions", 7, f"(core module {'(func)' * 7})"),
    Case("types", 7, "(core module" + "".join(f"(type (func (param {'i32 ' * n})))" for n in range(7)) + ")"),
    Case("types", 7, "(type u8)" * 7),
    Case(
        "names",
        7,
        f'(core module {"".join(f"""(import "a" "{n}" (func))""" for n in range(6))} (func) (export "x" (func 0)))',
    ),
    Case("code", 7 * 4, f"(core module {'(func nop nop)' * 7})"),
    Case("locals", 7_000, "(core module" + f"(func (local {'i64 ' * 1000}))" * 7 + ")"),
    Case("data", 700, "(core module (memory 1)" + f'(data (i32.const 0) "{X * 100}")' * 7 + ")"),
    Case("data", 7_000, f'(core module $many (memory 1) (data (i32.const 0) "{X * 1000}"))' + MANY * 7),
    Case(
        "elements", 70, f"(core module $many (table 9 funcref) (func) (elem (i32.const 0) func {'0 ' * 10}))" + MANY * 7
    ),
    Case("elements", 7, f"(core module (table 7 funcref) (func) (elem (i32.const 0) func {'0 ' * 7}))"),
    # what only WASI 0.3 has
    Case(
        "types",
        7,
        "(type (stream))(type (stream u8))(type (future))(type (future string))(type (func async))"
        + "(type (instance (type (future))))",
    ),
    Case("names", 7, "(type (func async " + "".join(f'(param "p{n}" u8)' for n in range(7)) + "))"),
    Case("functions", 7, "(type $s (stream u8))" + "".join(f"(core func (canon {builtin}))" for builtin in BUILTINS)),
]


class TestCounting:
    @pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.more}")
    def test_what_is_more_than_its_limit_is_refused_with_the_number(self, case: Case) -> None:
        source = bare_text(around=case.around)
        without = _wasgi._census(bare_text())[case.name]
        found = without + case.more
        with pytest.raises(wasgi.ComponentLimitError, match=f"`ComponentLimits.{case.name}`") as caught:
            wasgi.Component(source, limits=limited(**{case.name: found - 1}))
        assert (caught.value.name, caught.value.limit, caught.value.found) == (case.name, found - 1, found)
        assert f"{found:,}" in str(caught.value)
        assert wasgi.Component(source, limits=limited(**{case.name: found})).wasi in ("0.2", "0.3")

    @pytest.mark.parametrize(
        ("name", "around", "found"),
        [
            ("function_size", f"(core module (func {'nop ' * 1000}))", 1002),
            ("parameters", f"(core module (type (func (param {'i32 ' * 30}))))", 30),
            ("parameters", f"(core module (type (func (result {'i32 ' * 30}))))", 30),
            ("nesting", f"(core module (func {'block ' * 30}{'end ' * 30}))", 30),
            ("nesting", f"(core module (func {'i32.const 0 if ' * 30}{'end ' * 30}))", 30),
            ("nesting", f"(core module (func {'loop block ' * 15}{'end ' * 30}))", 30),
            ("loops", f"(core module (func {'loop block ' * 15}{'end ' * 30}))", 15),
        ],
    )
    def test_the_most_of_any_is_limited(self, name: str, around: str, found: int) -> None:
        source = bare_text(around=around)
        with pytest.raises(wasgi.ComponentLimitError) as caught:
            wasgi.Component(source, limits=limited(**{name: found - 1}))
        assert (caught.value.name, caught.value.found) == (name, found)
        assert wasgi.Component(source, limits=limited(**{name: found})).wasi == "0.2"

    @pytest.mark.parametrize("name", ["size", "text"])
    @pytest.mark.parametrize("as_file", [False, True])
    def test_the_source_itself_is_limited(self, name: str, as_file: bool, tmp_path: Path) -> None:
        source = bare_text()
        path = tmp_path / "bare.wat"
        path.write_bytes(source)
        with pytest.raises(wasgi.ComponentLimitError) as caught:
            wasgi.Component(path if as_file else source, limits=limited(**{name: len(source) - 1}))
        assert (caught.value.name, caught.value.found) == (name, len(source))
        assert ("bare.wat" in str(caught.value)) == as_file
        assert wasgi.Component(path if as_file else source, limits=limited(**{name: len(source)})).wasi == "0.2"

    @pytest.mark.parametrize(
        ("around", "name"),
        [
            (twice_each(20), "instances"),
            (twice_each(22), "instances"),
            (f"(core module $many {'(global i64 (i64.const 0))' * 5000})" + MANY * 240, "globals"),
            (f"(core module $many {'(memory 0)' * 100})" + MANY * 250, "memories"),
            (f"(core module (func {'loop ' * 50_000}{'end ' * 50_000}))", "nesting"),
            (f"(core module (func {'i32.const 0 if ' * 60_000}{'end ' * 60_000}))", "nesting"),
            (f"(core module (func {'loop ' * 3_000}{'end ' * 3_000}))", "loops"),
            ("(core module" + f"(func (local {'i64 ' * 50_000}))" * 50 + ")", "locals"),
            (f"(core module (type (func (param {'i32 ' * 1000}))))", "parameters"),
        ],
    )
    def test_what_would_take_too_long_is_refused_by_default(self, around: str, name: str) -> None:
        with pytest.raises(wasgi.ComponentLimitError) as caught:
            wasgi.Component(bare_text(around=around))
        assert caught.value.name == name
        with pytest.raises(wasgi.ComponentLimitError):
            wasgi.App(bare_text(around=around))

    def test_200_mib_of_data_are_more_than_the_default(self) -> None:
        data = section(11, leb(1) + b"\x01" + leb(200 << 20) + bytes(200 << 20))
        module = section(1, b"\0asm\x01\0\0\0" + section(12, leb(1)) + data)
        own = _wasgi._census(HELLO.read_bytes())["data"]
        with pytest.raises(wasgi.ComponentLimitError) as caught:
            wasgi.Component(HELLO.read_bytes() + module)
        assert (caught.value.name, caught.value.found) == ("data", (200 << 20) + own)

    def test_what_has_no_end_is_refused(self) -> None:
        """Instances are told apart by what is handed to them, so none is like another, and all are followed."""
        text = '(component $n (import "m" (core module $m)) (core instance (instantiate $m)))'
        for _ in range(25):
            one = '(instance (instantiate $n (with "m" (core module $m))))'
            text = f'(component $n (import "m" (core module $m)) {text} {one} {one})'
        source = bare_text(around=f'{text} (core module $m) (instance (instantiate $n (with "m" (core module $m))))')
        with pytest.raises(wasgi.ComponentLimitError) as caught:
            wasgi.Component(source)
        assert caught.value.name == "instances"

    def test_the_default_lets_real_components_pass_by_a_factor_of_four(self) -> None:
        from tests.conftest import ROOT

        built = [*(ROOT / ".cache" / "guests").glob("*.wasm"), HELLO, PROBE]
        for path in built:
            counted = _wasgi._census(path.read_bytes())
            counted |= {"size": path.stat().st_size, "nesting": max(counted["nesting"], counted["blocks"])}
            for name in set(COUNTED) - {"text"}:
                found = counted[name]
                assert found * 4 <= getattr(ComponentLimits(), name), (path.name, name, found)

    def test_none_lifts_each_limit(self) -> None:
        around = f"(core module (func {'loop ' * 600}{'end ' * 600}))"
        assert wasgi.Component(bare_text(around=around), limits=NONE).wasi == "0.2"

    def test_the_same_bytes_are_refused_whoever_has_loaded_them(self) -> None:
        source = bare_text(around="(core module (func block block end end))")
        kept = wasgi.Component(source)
        for name in ("nesting", "modules"):
            with pytest.raises(wasgi.ComponentLimitError):
                wasgi.Component(source, limits=limited(**{name: 1}))
        assert wasgi.Component(source) == kept

    def test_an_error_is_pickled(self) -> None:
        with pytest.raises(wasgi.ComponentLimitError) as caught:
            wasgi.Component(HELLO, limits=ComponentLimits(size=10))
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (str(copy), copy.name, copy.limit, copy.found) == (
            str(caught.value),
            "size",
            10,
            HELLO.stat().st_size,
        )

    def test_a_component_travels_with_its_limits(self, tmp_path: Path) -> None:
        source = bare_text(around=f"(core module (func {'loop ' * 600}{'end ' * 600}))")
        path = tmp_path / "deep.wat"
        path.write_bytes(source)
        for given in (source, path):
            loaded = wasgi.Component(given, limits=NONE)
            assert pickle.loads(pickle.dumps(loaded)) == loaded

    @pytest.mark.parametrize(
        ("name", "value"), [(name, -1) for name in COUNTED] + [("timeout", 0), ("timeout", float("nan")), ("memory", 0)]
    )
    def test_wrong_limits_are_refused(self, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=f"`{name}`"):
            ComponentLimits(**{name: value})


def limited(**limits: Any) -> ComponentLimits:
    """Nothing else is limited."""
    return ComponentLimits(**{**dict.fromkeys(COUNTED), **limits})


class TestNames:
    """A component's names are a stranger's text until they have been validated."""

    def exporting(self, *names: bytes) -> bytes:
        """A component that exports a type by each name, and no handler."""
        types = section(7, b"\x01\x7d")
        exports = b"".join(b"\0" + leb(len(name)) + name + b"\x03\0\0" for name in names)
        return EMPTY_COMPONENT + types + section(11, leb(len(names)) + exports)

    @pytest.mark.parametrize("name", [b"a\nERROR forged", b"\x1b[2J", "a\u2028b".encode()])
    def test_what_would_forge_a_line_is_escaped(self, name: bytes, tmp_path: Path) -> None:
        source = self.exporting(name)
        with pytest.raises(wasgi.ComponentError) as caught:
            wasgi.App(source).handle(get("/"))
        assert str(caught.value).isprintable()
        path = tmp_path / "forged.wasm"
        path.write_bytes(source)
        from wasgi.cli.inspect import inspect, lines

        assert all(part.isprintable() for line in lines(inspect(path)) for part in line.split("\n"))

    def test_long_lists_of_long_names_are_cut(self) -> None:
        with pytest.raises(wasgi.UnsupportedComponentError) as caught:
            wasgi.App(self.exporting(*(b"a%d-b" % n + b"b" * 5000 for n in range(1000)))).handle(get("/"))
        assert len(str(caught.value)) < 10_000
        with pytest.raises(wasgi.UnsupportedComponentError, match="and 980 more"):
            wasgi.App(self.exporting(*(b"a%d" % n for n in range(1000)))).handle(get("/"))


class TestNesting:
    """wasmparser, wasmtime and the parser of text recurse over what is nested."""

    @pytest.mark.parametrize("limits", [ComponentLimits(), NONE])
    @pytest.mark.parametrize("depth", [5_000, 300_000])
    @pytest.mark.parametrize("kind", [0x41, 0x42])
    def test_nested_types_are_refused_with_their_depth(self, kind: int, depth: int, limits: ComponentLimits) -> None:
        with pytest.raises(wasgi.ComponentLimitError) as caught:
            wasgi.Component(HELLO.read_bytes() + nested_types(depth, kind), limits=limits)
        assert (caught.value.name, caught.value.found) == ("nesting", depth)

    @pytest.mark.parametrize("limits", [ComponentLimits(), NONE])
    def test_nested_components_are_refused_with_their_depth(self, limits: ComponentLimits) -> None:
        with pytest.raises(wasgi.ComponentLimitError) as caught:
            wasgi.Component(HELLO.read_bytes() + nested_components(5_000), limits=limits)
        assert (caught.value.name, caught.value.found) == ("nesting", 5_000)

    def test_what_is_allowed_fits_the_stack_whoever_loads_it(self, tmp_path: Path) -> None:
        """On a thread whose own stack is as small as Python lets it be."""
        files = {
            "instances": HELLO.read_bytes() + nested_types(1000),
            "components": HELLO.read_bytes() + nested_types(1000, 0x41),
            "nested": HELLO.read_bytes() + nested_components(1000),
            "90": HELLO.read_bytes() + nested_components(90),
            "text": bare_text(around="(component" * 90 + ")" * 90),
            "type-text": bare_text(around="(type (component " * 45 + "))" * 45),
            "invalid": HELLO.read_bytes() + nested_types(1000)[:-1] + b"\x01",
        }
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        script = """
import pathlib, pickle, sys, threading, wasgi
from wasgi.cli.inspect import inspect
threading.stack_size(64 << 10)
limits = wasgi.ComponentLimits(nesting=None)
def load(path):
    try:
        component = wasgi.Component(path, limits=limits)
        pickle.loads(pickle.dumps(component))
        wasgi.Component(path.read_bytes(), limits=limits)
        print(path.name, "loads")
    except wasgi.ComponentError as exc:
        print(path.name, "is refused")
    try:
        inspect(path)
    except wasgi.ComponentError as exc:
        pass
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    thread = threading.Thread(target=load, args=[path])
    thread.start()
    thread.join()
print("lives")
"""
        done = run(script, str(tmp_path))
        assert done.stdout.endswith("lives\n"), (done.stdout, done.stderr[-500:])
        for name in ("90", "text"):
            assert f"{name} loads" in done.stdout, done.stdout

    @pytest.mark.parametrize("depth", [101, 100_000])
    @pytest.mark.parametrize("opening", ["(component ", "(core module (func (block ", "(type (component "])
    def test_deep_text_is_refused(self, opening: str, depth: int) -> None:
        text = "(component " + opening * depth + ")" * opening.count("(") * depth + ")"
        with pytest.raises(wasgi.ComponentError):
            wasgi.Component(text.encode())

    def test_damage_in_what_is_nested_ends_nothing(self) -> None:
        whole = HELLO.read_bytes() + nested_types(20) + nested_components(20)
        begin = len(HELLO.read_bytes())
        for at in range(begin, len(whole)):
            for value in (0x00, 0x01, 0x42, 0x7F, 0xFF):
                damaged = whole[:at] + bytes([value]) + whole[at + 1 :]
                with contextlib.suppress(wasgi.ComponentError):
                    wasgi.Component(damaged)


_number = count(int(time.time()) % 1_000_000 * 1000)


def slow(functions: int = 40_000) -> bytes:
    """A component that takes seconds to compile, and is in no cache."""
    number = next(_number)
    body = "".join(f"(func (i32.const {n}) drop)" for n in range(functions))
    return bare_text(
        around=f"(core module (func (i32.const {number}) drop) (func (i32.const {os.getpid()}) drop) {body})"
    )


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "compiled" in record.message]


class TestLoadAsync:
    async def test_loads_what_the_constructor_does(self, tmp_path: Path) -> None:
        assert await wasgi.Component.load_async(HELLO) == wasgi.Component(HELLO)
        assert await wasgi.Component.load_async(HELLO.read_bytes()) == wasgi.Component(HELLO)
        loaded = await wasgi.Component.load_async(str(HELLO), fuel=True, limits=NONE)
        response = await wasgi.App(loaded, limits=wasgi.Limits(fuel=10**9)).handle_async(get("/"))
        assert response.status == 200
        with pytest.raises(FileNotFoundError):
            await wasgi.Component.load_async(tmp_path / "nothing.wasm")
        with pytest.raises(wasgi.InvalidComponentError, match="JSON"):
            await wasgi.Component.load_async(b"{}")
        with pytest.raises(wasgi.ComponentLimitError):
            await wasgi.Component.load_async(HELLO, limits=ComponentLimits(size=1))

    async def test_the_loop_goes_on_meanwhile(self) -> None:
        loading = asyncio.ensure_future(wasgi.Component.load_async(slow()))
        turns = 0
        while not loading.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert turns > 20
        assert (await loading).wasi == "0.2"

    async def test_who_wants_the_same_shares_the_work_and_it_is_told_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "wasgi")
        source = slow(80_000)
        blocking = asyncio.to_thread(wasgi.Component, source)
        loaded = await asyncio.gather(blocking, *(wasgi.Component.load_async(source) for _ in range(5)))
        assert len({component.digest for component in loaded}) == 1
        begun, ended = lines_of(caplog)
        assert "is being compiled" in begun
        assert "has been compiled" in ended

    async def test_who_gives_up_is_let_go_at_once_and_others_are_not(self) -> None:
        source = slow()
        first = asyncio.ensure_future(wasgi.Component.load_async(source))
        second = asyncio.ensure_future(wasgi.Component.load_async(source))
        await asyncio.sleep(0.05)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await second).wasi == "0.2"

    async def test_a_timeout_of_asyncios_own_ends_the_wait(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await wasgi.Component.load_async(slow())

    async def test_many_at_once_use_few_threads(self) -> None:
        before = threads()
        loading = [
            asyncio.ensure_future(
                wasgi.Component.load_async(bare_text(around=f"(core module (func (i32.const {n}) drop))"))
            )
            for n in range(200)
        ]
        most = 0
        while not all(task.done() for task in loading):
            most = max(most, threads() - before)
            await asyncio.sleep(0.001)
        assert len({(await task).digest for task in loading}) == 200
        # those that load, the runtime's own and those of the compiler
        assert most < 40

    def test_who_forgets_to_await_it_is_told(self) -> None:
        with pytest.warns(RuntimeWarning, match=r"'Component.load_async' was never awaited"):
            wasgi.Component.load_async(HELLO)  # type: ignore[unused-coroutine]

    def test_ctrl_c_is_heard_at_once(self) -> None:
        script = """
import asyncio, signal, sys, time, wasgi
signal.signal(signal.SIGINT, signal.default_int_handler)
source = sys.stdin.buffer.read()
print("ready", flush=True)
begun = time.monotonic()
try:
    if sys.argv[1] == "async":
        asyncio.run(wasgi.Component.load_async(source))
    else:
        wasgi.Component(source)
    print("compiled")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
        # so long that it cannot be done when the signal comes
        source = slow(200_000 - 10)
        for how in ("async", "blocking"):
            with subprocess.Popen(
                [sys.executable, "-c", script, how],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=False,
                env={**os.environ, "WASGI_CACHE_DIR": ""},
            ) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(source)
                process.stdin.close()
                assert process.stdout.readline() == b"ready\n"
                time.sleep(0.5)
                process.send_signal(signal.SIGINT)
                assert process.stdout.readline() == b"interrupted\n"
                process.wait(30)


def threads() -> int:
    return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else threading.active_count()


def children() -> set[int]:
    """The processes that this one has started and that are not gone."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
            except OSError:
                continue
            parent = status.rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found.add(int(entry.name))
    return found


class TestProcess:
    """`ComponentLimits.timeout` and `memory`: it is compiled in a process of its own, which is ended."""

    @pytest.fixture(autouse=True)
    def none_is_left(self) -> Iterator[None]:
        before = children() if sys.platform == "linux" else set()
        yield
        if sys.platform == "linux":
            until(lambda: children() <= before)

    @pytest.mark.parametrize("fuel", [False, True])
    @pytest.mark.parametrize("declarations", ["", "(memory 1) (memory 1)"])
    def test_what_it_makes_runs_here(self, declarations: str, fuel: bool, caplog: pytest.LogCaptureFixture) -> None:
        """In the pool, or, with two memories, outside of it."""
        caplog.set_level(logging.WARNING, "wasgi")
        number = next(_number)
        component = bare(
            "", f"{declarations} (func (i32.const {number}) drop)", fuel=fuel, limits=ComponentLimits(timeout=600)
        )
        with pytest.raises(wasgi.NoResponseError):
            wasgi.App(component, limits=wasgi.Limits(fuel=10**6 if fuel else None)).handle(get("/"))
        assert any("does not fit the pool" in record.message for record in caplog.records) == bool(declarations)

    def test_its_time_is_limited(self) -> None:
        with pytest.raises(wasgi.ComponentLimitError, match=r"longer than 0.3 s") as caught:
            wasgi.Component(slow(200_000 - 10), limits=ComponentLimits(timeout=0.3))
        assert (caught.value.name, caught.value.limit, caught.value.found) == ("timeout", 0.3, None)

    @LINUX
    def test_its_memory_is_limited(self) -> None:
        with pytest.raises(wasgi.ComponentLimitError, match=r"more than 20000000 bytes") as caught:
            wasgi.Component(slow(100_000), limits=ComponentLimits(memory=20_000_000))
        assert (caught.value.name, caught.value.limit) == ("memory", 20_000_000)
        # more than what the process has free before its limit begins
        source = slow(3_000)
        with pytest.raises(wasgi.ComponentLimitError) as caught:
            wasgi.Component(source, limits=ComponentLimits(memory=1))
        assert caught.value.name == "memory"
        assert wasgi.Component(source, limits=ComponentLimits(memory=512 << 20)).wasi == "0.2"

    def test_what_is_wrong_is_told_as_if_it_were_compiled_here(self) -> None:
        limits = ComponentLimits(timeout=600)
        for source in (
            b"{}",
            bare_text(around="(core module (func i32.add))"),
            HELLO.read_bytes() + b"\x07\x03\x01\x42\x01",
        ):
            errors = []
            for given in (ComponentLimits(), limits):
                with pytest.raises(wasgi.ComponentError) as caught:
                    wasgi.Component(source, limits=given)
                errors.append((type(caught.value), str(caught.value)))
            assert errors[0] == errors[1]

    @LINUX
    async def test_who_gives_up_ends_it_unless_somebody_else_waits(self) -> None:
        before = children()
        source = slow(200_000 - 10)
        limits = ComponentLimits(timeout=600)

        async def goes_on_for_the_second(head_start: float) -> bool:
            first = asyncio.ensure_future(wasgi.Component.load_async(source, limits=limits))
            second = asyncio.ensure_future(wasgi.Component.load_async(source, limits=limits))
            while not children() - before:
                await asyncio.sleep(0.01)
            (child,) = children() - before
            await asyncio.sleep(head_start)
            first.cancel()
            await asyncio.sleep(0.3)
            goes_on = children() - before == {child}
            second.cancel()
            while children() - before:
                await asyncio.sleep(0.01)
            return goes_on

        # nothing tells when the second has come to wait, too: a busy machine takes its time
        for head_start in (0.1, 1, 5):
            if await goes_on_for_the_second(head_start):
                return
        pytest.fail("the compilation ended with the first who gave up")

    @LINUX
    async def test_it_inherits_nothing(self) -> None:
        before = children()
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        os.environ["SECRET_OF_THE_HOST"] = "1"
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            loading = asyncio.ensure_future(
                wasgi.Component.load_async(slow(200_000 - 10), limits=ComponentLimits(timeout=600))
            )
            while not children() - before:
                await asyncio.sleep(0.01)
            (child,) = children() - before
            process = Path(f"/proc/{child}")
            # once it compiles, it has been set up
            while "wasgi" not in (process / "maps").read_text():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            assert {entry.name for entry in (process / "fd").iterdir()} == {"0", "1", "2"}
            assert b"SECRET_OF_THE_HOST" not in (process / "environ").read_bytes()
            blocked = next(line for line in (process / "status").read_text().splitlines() if line.startswith("SigBlk"))
            assert int(blocked.split()[1], 16) == 0
            assert os.getpgid(child) == child
            loading.cancel()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
            del os.environ["SECRET_OF_THE_HOST"]
            os.close(reader)
            os.close(writer)

    @LINUX
    def test_it_ends_with_its_parent(self) -> None:
        script = """
import sys, wasgi
wasgi.Component(sys.stdin.buffer.read(), limits=wasgi.ComponentLimits(timeout=600))
"""
        with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            process.stdin.write(slow(200_000 - 10))
            process.stdin.close()
            found: list[int] = []

            def has_child() -> bool:
                listed = Path(f"/proc/{process.pid}/task")
                for task in listed.iterdir():
                    found[:] = map(int, (task / "children").read_text().split())
                    if found:
                        return True
                return False

            until(has_child)
            time.sleep(0.5)
            process.kill()
        until(lambda: not any(Path(f"/proc/{child}").exists() for child in found))

    def test_ctrl_c_ends_it(self) -> None:
        script = """
import os, signal, sys, threading, wasgi
signal.signal(signal.SIGINT, signal.default_int_handler)
source = sys.stdin.buffer.read()
threading.Timer(1, os.kill, [os.getpid(), signal.SIGINT]).start()
try:
    wasgi.Component(source, limits=wasgi.ComponentLimits(timeout=600))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
        with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            shown, _ = process.communicate(slow(200_000 - 10), timeout=60)
        assert shown == b"interrupted\n"

    @pytest.mark.parametrize("reaping", ["signal.signal(signal.SIGCHLD, signal.SIG_IGN)", "reap()"])
    def test_a_program_that_reaps_all_children_does_not_disturb(self, reaping: str) -> None:
        script = f"""
import os, signal, sys, threading, time, wasgi
def reap():
    def forever():
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                time.sleep(0.001)
    threading.Thread(target=forever, daemon=True).start()
{reaping}
source = sys.stdin.buffer.read()
print(wasgi.Component(source, limits=wasgi.ComponentLimits(timeout=600)).wasi)
"""
        done = subprocess.run([sys.executable, "-c", script], input=slow(10), capture_output=True, timeout=120)
        assert done.stdout == b"0.2\n", done.stderr

    @pytest.mark.parametrize("executable", ["", None, "/bin/cat", "/bin/false", "/nowhere/python"])
    def test_without_an_interpreter_it_says_so(self, executable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", executable)
        with pytest.raises(wasgi.WasgiError, match=r"(?i)python interpreter") as caught:
            wasgi.Component(slow(10), limits=ComponentLimits(timeout=600))
        assert not isinstance(caught.value, wasgi.ComponentError)

    @pytest.mark.skipif(sys.platform == "win32", reason="a script as a program")
    def test_what_greets_otherwise_is_not_listened_to(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = tmp_path / "chatters"
        program.write_text("#!/bin/sh\nwhile :; do echo I am no interpreter at all, and I go on; done\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        with pytest.raises(wasgi.WasgiError, match=r"(?i)python interpreter"):
            wasgi.Component(slow(10), limits=ComponentLimits(timeout=600))

    def test_a_frozen_program_is_told_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "frozen", True, raising=False)
        with pytest.raises(wasgi.WasgiError, match="frozen"):
            wasgi.Component(slow(10), limits=ComponentLimits(timeout=600))


class TestFuel:
    def test_an_app_whose_component_lacks_it_says_so_once(self, caplog: pytest.LogCaptureFixture) -> None:
        component = bare("", f"(func (i32.const {next(_number)}) drop)")
        for _ in range(2):
            wasgi.App(component, limits=wasgi.Limits(fuel=1000))
        (line,) = [record.message for record in caplog.records if "`Limits.fuel`" in record.message]
        assert "fuel=True" in line

    @pytest.mark.parametrize("load", [wasgi.Component, None])
    def test_what_was_compiled_for_it_is_not_compiled_again(
        self, load: Callable[..., wasgi.Component] | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = bare_text("", f"(func (i32.const {next(_number)}) drop)")
        if load is None:
            component = asyncio.run(wasgi.Component.load_async(source, fuel=True))
        else:
            component = load(source, fuel=True)
        app = wasgi.App(component, limits=wasgi.Limits(fuel=1000))
        with pytest.raises(wasgi.NoResponseError):
            app.handle(get("/"))
        assert not [record.message for record in caplog.records if "`Limits.fuel`" in record.message]

    def test_an_app_that_loads_it_itself_says_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        wasgi.App(bare_text("", f"(func (i32.const {next(_number)}) drop)"), limits=wasgi.Limits(fuel=1000))
        assert not [record.message for record in caplog.records if "`Limits.fuel`" in record.message]


class TestInstances:
    """What an instance costs the host is known before there is one."""

    def test_globals_count_as_memory(self) -> None:
        many = f"(core module $many {'(global (mut i64) (i64.const 0))' * 50_000})" + MANY * 40
        component = wasgi.Component(bare_text(around=many), limits=limited())
        with pytest.raises(wasgi.MemoryLimitError) as caught:
            wasgi.App(component, limits=wasgi.Limits(memory=16 << 20)).handle(get("/"))
        assert caught.value.limit == 16 << 20
        reports: list[wasgi.Report] = []
        app = wasgi.App(
            component,
            limits=wasgi.Limits(memory=64 << 20),
            on_finish=lambda exchange: reports.append(exchange.report),
        )
        with pytest.raises(wasgi.NoResponseError):
            app.handle(get("/"))
        until(lambda: bool(reports))
        # each global has 16 bytes
        assert 32_000_000 <= reports[0].memory < 64 << 20
        app.close()
        until(lambda: wasgi.stats().memory == 0)

    @pytest.mark.parametrize(
        "module",
        [
            f"(core module $many (func) (table 20000 funcref) (elem (i32.const 0) func {'0 ' * 20_000}))",
            f"(core module $many {''.join(f'(func (export {chr(34)}{n}{chr(34)}))' for n in range(20_000))})",
        ],
        ids=["elements", "exports"],
    )
    def test_function_references_count_as_memory(self, module: str) -> None:
        component = wasgi.Component(bare_text(around=module + MANY * 10), limits=limited())
        with pytest.raises(wasgi.MemoryLimitError):
            wasgi.App(component, limits=wasgi.Limits(memory=4 << 20)).handle(get("/"))

    @LINUX
    def test_memories_outside_of_the_pool_reserve_few_addresses(self, tmp_path: Path) -> None:
        path = tmp_path / "memories.wat"
        path.write_bytes(bare_text("loop br 0 end", f"(memory 0) (memory 0) {'(memory 0)' * 48}"))
        script = """
import asyncio, pathlib, sys, wasgi
def addresses():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmSize"))
    return int(line.split()[1]) << 10
async def main():
    app = wasgi.App(sys.argv[1], limits=wasgi.Limits(timeout=600))
    before = addresses()
    tasks = [asyncio.ensure_future(app.handle_async(wasgi.Request("GET", "http://a/"))) for _ in range(10)]
    while wasgi.stats().exchanges < 10:
        await asyncio.sleep(0.01)
    for _ in range(200):
        await asyncio.sleep(0.001)
    print(addresses() - before)
    for task in tasks:
        task.cancel()
asyncio.run(main())
"""
        done = run(script, str(path))
        # 500 memories; with 6 GiB each they would be 3 TiB
        assert int(done.stdout) < 8 << 30, done.stderr

    @LINUX
    def test_addresses_that_are_used_up_are_no_fault_of_the_guest(self, tmp_path: Path) -> None:
        path = tmp_path / "memories.wat"
        path.write_bytes(bare_text("", "(memory 1000) (memory 1000) (memory 1000)"))
        script = """
import resource, sys, wasgi
app = wasgi.App(sys.argv[1], limits=wasgi.Limits(memory=None))
try:
    app.handle(wasgi.Request("GET", "http://a/"))
except wasgi.NoResponseError:
    pass
line = next(line for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, ((int(line.split()[1]) << 10) + (16 << 20),) * 2)
try:
    app.handle(wasgi.Request("GET", "http://a/"))
except wasgi.WasgiError as exc:
    print(isinstance(exc, wasgi.GuestError), exc)
"""
        done = run(script, str(path))
        assert done.stdout.startswith("False"), (done.stdout, done.stderr)
        assert "address" in done.stdout or "memory" in done.stdout
