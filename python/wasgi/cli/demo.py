"""``wasgi demo``: one screen that shows what the package does, on a bundled component."""

from __future__ import annotations

import logging
import sys
import time
from importlib import resources

import wasgi
from wasgi.cli.commands import Command
from wasgi.cli.output import has_colours


def demo() -> None:
    """Loads the bundled component, calls it, handles and denies its outgoing requests, and lets it trap."""
    style = _Style()
    log, handler = logging.getLogger("wasgi"), _Shown(style)
    log.addHandler(handler)
    propagate, log.propagate = log.propagate, False
    try:
        _show(style)
    finally:
        log.removeHandler(handler)
        log.propagate = propagate


def _show(style: _Style) -> None:
    print(style.title("wasgi: WebAssembly components that speak wasi:http, run from Python"))
    component = _load(style)
    app = _call(style, component)
    _answer(style, component)
    _deny(style, app)
    _trap(style, component, app)
    style.print()


def _load(style: _Style) -> wasgi.Component:
    source = resources.files("wasgi").joinpath("demo.wasm").read_bytes()
    begun = time.perf_counter()
    component = wasgi.Component(source)
    millis = (time.perf_counter() - begun) * 1e3
    style.step("1. Load a component", 'component = wasgi.Component("demo.wasm")')
    style.shows(
        f"{len(source) // 1024} KiB of WebAssembly, WASI {component.wasi}, "
        f"ready in {millis:.0f} ms (the machine code is cached)"
    )
    return component


def _call(style: _Style, component: wasgi.Component) -> wasgi.App:
    app = wasgi.App(component, stdout=lambda line: style.shows(f"the guest prints: {line}"))
    style.step(
        "2. Call it with a request",
        "app = wasgi.App(component)",
        'app.handle(wasgi.Request("GET", "http://demo.local/greet?name=Ada"))',
    )
    response = app.handle(wasgi.Request("GET", "http://demo.local/greet?name=Ada"))
    style.shows(f"{response.status} {response.text.strip()!r}")
    report = response.report
    assert report is not None
    style.shows(f"a fresh instance, {report.memory // 1024} KiB of memory, {report.duration * 1e6:.0f} µs")
    return app


def _answer(style: _Style, component: wasgi.Component) -> None:
    style.step(
        "3. Answer its outgoing requests with a Python function",
        "def upstream(request):",
        '    return wasgi.Response(200, body="sunny, 24 °C")',
        "app = wasgi.App(component, outgoing=upstream)",
    )

    def upstream(request: wasgi.Request) -> wasgi.Response:
        style.shows(f"the guest requests: {request.method} {request.url}")
        return wasgi.Response(200, body="sunny, 24 °C")

    answered = wasgi.App(component, outgoing=upstream)
    response = answered.handle(wasgi.Request("GET", "http://demo.local/weather?city=Lisbon"))
    style.shows(f"{response.status} {response.text.strip()!r}")


def _deny(style: _Style, app: wasgi.App) -> None:
    style.step("4. Without one, outgoing requests are denied", "app = wasgi.App(component)")
    response = app.handle(wasgi.Request("GET", "http://demo.local/weather?city=Lisbon"))
    style.shows(f"{response.status} {response.text.strip()!r}")


def _trap(style: _Style, component: wasgi.Component, app: wasgi.App) -> None:
    style.step("5. A trap ends its own exchange only", 'app.handle(wasgi.Request("GET", "http://demo.local/crash"))')
    silent = wasgi.App(component, stderr=lambda line: None)
    try:
        silent.handle(wasgi.Request("GET", "http://demo.local/crash"))
    except wasgi.TrapError as trap:
        style.shows(f"wasgi.TrapError: {trap}")
        outermost = trap.backtrace[-2:]
        style.shows(f"    ... {len(trap.backtrace) - len(outermost)} frames of Rust's panic machinery")
        for frame in outermost:
            style.shows(f"    {frame}")
    response = app.handle(wasgi.Request("GET", "http://demo.local/greet?name=again"))
    style.shows(f"and the next call: {response.status} {response.text.strip()!r}")


class _Shown(logging.Handler):
    """Shows the host's log records as part of the demo."""

    def __init__(self, style: _Style) -> None:
        super().__init__(logging.WARNING)
        self.style = style

    def emit(self, record: logging.LogRecord) -> None:
        self.style.shows(f"the host logs: {record.getMessage()}")


_PLAIN = str.maketrans({"µ": "u", "°": " deg "})


class _Style:
    """Bold and colour where the output is a terminal; only characters that it can encode.

    Lines are printed between the steps, on the main thread: a closed pipe raises there, where the demo can end. The
    guest and the upstream may run on other threads, so they leave their lines here.
    """

    def __init__(self) -> None:
        self.colours = has_colours(sys.stdout)
        self.lines: list[str] = []
        try:
            "µ°".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
            self.plain = False
        except UnicodeEncodeError:
            self.plain = True

    def _wrap(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colours else text

    def title(self, text: str) -> str:
        return self._wrap("1", text)

    def step(self, title: str, *code: str) -> None:
        self.lines += ["", self._wrap("1;36", title), *(self._wrap("2", f"   >>> {line}") for line in code)]
        self.print()

    def shows(self, text: str) -> None:
        self.lines.append(f"   {text}")

    def print(self) -> None:
        lines, self.lines = self.lines, []
        for line in lines:
            print(line.translate(_PLAIN) if self.plain else line)
        if sys.stdout is not None:
            sys.stdout.flush()


command = Command("demo", callback=demo, help="Show on one screen what wasgi does, on a bundled component.")
