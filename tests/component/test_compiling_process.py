"""The process that compiles under `ComponentLimits(timeout=, memory=)`: how it is started, ended and spoken with."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import wasgi
from tests.component.test_loading import children, slow
from tests.conftest import ROOT, bare_text, until
from tests.processes import run
from wasgi import ComponentLimits

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="looks into /proc"
)

_number = itertools.count()


def small(body: str = "", more: str = "") -> bytes:
    """In no cache."""
    number = f"(func (i32.const {next(_number)}) drop {body}) (func (i32.const {os.getpid()}) drop)"
    return bare_text(around=f"(core module {more} {number})").encode()


def small_guest(declarations: str) -> bytes:
    """The same, which is instantiated with them."""
    return bare_text(
        declarations=f"{declarations} (func (i32.const {next(_number)}) drop i32.const {os.getpid()} drop)"
    ).encode()


def is_there(process: int) -> bool:
    """A process that has been killed stays until somebody asks for it."""
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_it_needs_no_threads() -> None:
    """There may be none to be had, though a process can be started."""
    done = run(f"""
import errno, os, sys
sys.path.insert(0, {str(ROOT)!r})
os.environ["WASGI_CACHE_DIR"] = ""
from tests.confinement import refuse
from tests.component.test_compiling_process import small
from tests.component.test_loading import children
import wasgi
CLONE_THREAD = 0x10000
refuse("clone", errno.EAGAIN, has=CLONE_THREAD)
refuse("clone3", errno.ENOSYS)
print(wasgi.Component(small(), limits=wasgi.ComponentLimits(timeout=600)).wasi)
try:
    wasgi.Component(small("i32.add"), limits=wasgi.ComponentLimits(timeout=600))
except wasgi.InvalidComponentError as error:
    print("type mismatch" in str(error))
print(children())
""")
    assert done.stdout.split("\n")[:3] == ["0.2", "True", "set()"], done.stderr
    assert "panicked" not in done.stderr


def test_where_none_can_be_started_it_is_said_with_the_limit() -> None:
    done = run(f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.confinement import refuse_threads
from tests.component.test_compiling_process import small
import wasgi
refuse_threads()
try:
    wasgi.Component(small(), limits=wasgi.ComponentLimits(timeout=600))
except wasgi.WasgiError as error:
    print(isinstance(error, wasgi.ComponentError), error)
""")
    assert done.stdout.startswith("False no process can be started"), (done.stdout, done.stderr)
    assert "`ulimit -u`" in done.stdout


def test_what_it_has_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter may be started by a script, which is what is known of it here."""
    started = tmp_path / "started"
    text = f"echo 'wasgi compiles'\nsleep 300 &\necho $! > {started}.new\nmv {started}.new {started}\nwait"
    monkeypatch.setattr(sys, "executable", program(tmp_path / "starts", text))
    with pytest.raises(wasgi.ComponentLimitError) as caught:
        wasgi.Component(small(), limits=ComponentLimits(timeout=2))
    assert caught.value.name == "timeout"
    until(lambda: not is_there(int(started.read_text())))


def test_one_that_is_ended_before_it_says_anything_is_told_with_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path / "ends", "kill -9 $$"))
    with pytest.raises(wasgi.WasgiError, match=r"Python interpreter .*SIGKILL"):
        wasgi.Component(small(), limits=ComponentLimits(timeout=600))


def test_its_last_words_are_told_without_notes_behind_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Rust's runtime writes them when it gets no memory."""
    words = ["memory allocation of 9 bytes failed", "note: run with `RUST_BACKTRACE=1` environment variable"]
    text = "\n".join(f"echo '{line}' >&2" for line in words)
    monkeypatch.setattr(sys, "executable", program(tmp_path / "aborts", f"{text}\nkill -6 $$"))
    with pytest.raises(wasgi.WasgiError, match=rf"SIGABRT.*: {words[0]}"):
        wasgi.Component(small(), limits=ComponentLimits(timeout=600))


def test_one_that_closes_its_stdout_and_goes_on_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path / "closes", "exec >&- 2>&-\nexec sleep 300"))
    before = children()
    with pytest.raises(wasgi.WasgiError, match="Python interpreter"):
        wasgi.Component(small(), limits=ComponentLimits(timeout=600))
    assert children() <= before


def test_one_that_floods_its_stderr_is_listened_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f'head -c 10000000 /dev/zero | tr "\\0" x >&2\nexec {sys.executable} "$@"'
    monkeypatch.setattr(sys, "executable", program(tmp_path / "floods", text))
    assert wasgi.Component(small(), limits=ComponentLimits(timeout=600)).wasi == "0.2"


@pytest.mark.parametrize(
    ("body", "more"), [("i32.add", ""), ("", "(type (struct (field i32)))")], ids=["invalid", "unsupported"]
)
def test_what_is_refused_is_refused_by_one_process(
    body: str, more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the error is the one of a component that is compiled here."""
    source = small(body, more)
    started = tmp_path / "started"
    monkeypatch.setattr(
        sys, "executable", program(tmp_path / "counts", f'echo x >> {started}\nexec {sys.executable} "$@"')
    )
    errors = []
    for limits in (ComponentLimits(timeout=600), ComponentLimits()):
        with pytest.raises(wasgi.ComponentError) as caught:
            wasgi.Component(source, limits=limits)
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]
    assert started.read_text() == "x\n"


def test_what_is_refused_is_looked_at_within_the_bounds_of_memory() -> None:
    """Whether it is valid by some proposal is asked in the process that has the bounds."""
    for memory in (1, 1 << 10, 1 << 16, 1 << 18, 1 << 20, 1 << 21, 1 << 22):
        # with a struct, which this engine does not offer, and much to validate before
        many = "".join(f"(func (i32.const {n}) drop)" for n in range(20_000))
        source = small(more=f"{many} (type (struct))")
        with pytest.raises((wasgi.ComponentLimitError, wasgi.UnsupportedComponentError)) as caught:
            wasgi.Component(source, limits=ComponentLimits(memory=memory))
        if isinstance(caught.value, wasgi.ComponentLimitError):
            assert caught.value.name == "memory"


def test_too_little_memory_is_told_as_that_whatever_part_it_misses() -> None:
    errors: list[tuple[str, float]] = []
    for size in range(10, 27):
        with contextlib.ExitStack() as stack:
            caught = stack.enter_context(
                pytest.raises(wasgi.ComponentLimitError, match=f"more than {1 << size} bytes .*: .")
            )
            wasgi.Component(slow(3_000), limits=ComponentLimits(memory=1 << size))
            stack.pop_all()
            break
        errors.append((caught.value.name, caught.value.limit))
    assert errors == [("memory", 1 << size) for size in range(10, 10 + len(errors))]
    assert 5 < len(errors) < 17


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGTERM])
@pytest.mark.parametrize("memory", [None, 4 << 30])
def test_a_signal_that_ends_it_is_named(number: signal.Signals, memory: int | None) -> None:
    """The system kills what takes too much memory, if its own is used up."""
    before = children()

    def end() -> None:
        until(lambda: bool(children() - before))
        (child,) = children() - before
        # when it compiles it has a bound of processor time
        until(lambda: not re.search(r"Max cpu time +unlimited", Path(f"/proc/{child}/limits").read_text()))
        os.kill(child, number)

    ending = threading.Thread(target=end)
    ending.start()
    try:
        with pytest.raises(wasgi.WasgiError, match=number.name) as caught:
            wasgi.Component(slow(200_000 - 10), limits=ComponentLimits(timeout=600, memory=memory))
    finally:
        ending.join()
    if memory is None or number != signal.SIGKILL:
        assert not isinstance(caught.value, wasgi.ComponentLimitError)
    else:
        assert isinstance(caught.value, wasgi.ComponentLimitError)
        assert (caught.value.name, caught.value.limit) == ("memory", memory)


@pytest.mark.parametrize("make", [lambda given: small_guest(given), lambda given: small(more=given)])
def test_a_component_that_does_not_fit_the_pool_is_compiled_once(
    make: Callable[[str], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By what is counted in it, instantiated or not; what is in it is told of once."""
    started = tmp_path / "started"
    text = f'echo x >> {started}\nexec {sys.executable} "$@"'
    monkeypatch.setattr(sys, "executable", program(tmp_path / "counts", text))
    wasgi.Component(small(), limits=ComponentLimits(timeout=600))
    wasgi.Component(make('(memory 1) (memory 1) (@custom ".debug_info" "x")'), limits=ComponentLimits(timeout=600))
    assert started.read_text() == "x\nx\n"
    assert len([message for message in caplog.messages if "debug information" in message]) == 1
    assert len([message for message in caplog.messages if "does not fit the pool" in message]) == 1
