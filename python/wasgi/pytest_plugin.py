"""The pytest plug-in: fixtures for components, and what a failure's report says of them.

Loaded by pytest where wasgi is installed (``-p no:wasgi`` turns it off). It imports no more than `wasgi` itself until a
fixture is used.
"""

from __future__ import annotations

import gc
import re
import shlex
import subprocess
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import wasgi

if TYPE_CHECKING:
    from wasgi.testing import AsyncClient, Cassette, Client, Upstream

MARKS = (
    "wasgi_upstream(allow_unmatched=False, allow_unused=False): what the fixture `upstream` lets pass",
    "wasgi_cassette(upstream=None, path=None, secret=..., secret_query=()): what no route of `upstream` fits is"
    " recorded, or played back",
)
_LINES = 500
"""How many lines of each test's guests are kept for its report."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options."""
    group = parser.getgroup("wasgi", "WebAssembly components")
    group.addoption("--wasgi-report", action="store_true", help="print what the tests' components have cost")
    group.addoption(
        "--wasgi-record",
        choices=("once", "none", "all"),
        default="once",
        help="whether tests with the mark wasgi_cassette record: if there is no cassette yet, never, or anew",
    )
    parser.addini("wasgi_components", "the folder that components are named from", type="paths", default=[])
    parser.addini("wasgi_build", "a command that builds the components, run once before the tests", default="")
    parser.addini("wasgi_timeout", "seconds that a component may take for a response", default="30")


@dataclass
class _Costs:
    """What exchanges of one component have cost."""

    exchanges: int = 0
    seconds: float = 0.0
    memory: int = 0

    def add(self, exchanges: int, seconds: float, memory: int) -> None:
        self.exchanges += exchanges
        self.seconds += seconds
        self.memory = max(self.memory, memory)


@dataclass
class _Test:
    """What one test has made."""

    upstream: Upstream | None = None
    clients: list[tuple[str, Client | AsyncClient]] = field(default_factory=list)
    lines: deque[Any] = field(default_factory=lambda: deque(maxlen=_LINES))
    costs: dict[str, _Costs] = field(default_factory=dict)

    def open_exchanges(self) -> list[str]:
        """The apps that have exchanges under way, a moment after the test has ended."""
        deadline = time.monotonic() + 1.0
        if any(client.app.exchanges for _, client in self.clients):
            gc.collect()  # what only garbage holds is nobody's
        while True:
            left = [(name, client.app.exchanges) for name, client in self.clients if client.app.exchanges]
            if not left or time.monotonic() > deadline:
                return [f"{count} of {name}" for name, count in left]
            time.sleep(0.001)  # guests that are about to end

    def check(self) -> None:
        """Fails the test for what its own assertions have not seen."""
        __tracebackhide__ = True
        complaints = self.upstream.complaints() if self.upstream is not None else []
        if left := self.open_exchanges():
            complaints.append(
                f"exchanges were left open: {', '.join(left)}; hint: read each response to its end, or close it"
            )
        if complaints:
            pytest.fail("\n\n".join(complaints), pytrace=False)
        if self.upstream is not None and self.upstream.cassette is not None:
            self.upstream.cassette.save()  # of tests that pass only

    def sections(self) -> Iterator[tuple[str, str]]:
        """For the report of a failure."""
        asked = [str(exchange) for _, client in self.clients for exchange in client.exchanges]
        if asked:
            yield "wasgi: exchanges", "\n".join(asked)
        for stream in ("stdout", "stderr"):
            lines = [line for line in self.lines if line.stream == stream]
            if lines:
                yield f"wasgi: guest's {stream}", "\n".join(lines)
        if self.upstream is not None and self.upstream.calls:
            yield "wasgi: outgoing calls", "\n".join(map(str, self.upstream.calls))
        for _, client in self.clients:
            for exchange in client.exchanges:
                if isinstance(exchange.outcome, wasgi.TrapError) and exchange.outcome.backtrace:
                    frames = exchange.outcome.backtrace
                    yield f"wasgi: backtrace of {exchange.method} {exchange.url}", "\n".join(map(str, frames))

    def count(self) -> None:
        """What the exchanges have cost, for the summary."""
        for name, client in self.clients:
            costs = self.costs.setdefault(name, _Costs())
            for exchange in client.exchanges:
                report = getattr(exchange.outcome, "report", None)
                costs.add(1, exchange.seconds, report.memory if report is not None else 0)


_test = pytest.StashKey[_Test]()
_components = pytest.StashKey[dict[str, wasgi.Component]]()


def _of(item: pytest.Item) -> _Test:
    return item.stash.setdefault(_test, _Test())


# once a run


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marks."""
    for mark in MARKS:
        config.addinivalue_line("markers", mark)
    config.stash[_components] = {}


def pytest_sessionstart(session: pytest.Session) -> None:
    """Builds the components."""
    config = session.config
    command = config.getini("wasgi_build")
    is_worker = hasattr(config, "workerinput")
    if not command or is_worker or config.option.collectonly:
        return
    built = subprocess.run(
        shlex.split(command), cwd=config.rootpath, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if built.returncode != 0:
        said = built.stdout.decode(errors="replace")
        raise pytest.UsageError(f"`wasgi_build` failed with status {built.returncode}: {command}\n{said}")


# fixtures


def _find(config: pytest.Config, source: str | Path) -> Path:
    """A component's file: by its name in `wasgi_components`, or relative to the root of the project."""
    __tracebackhide__ = True
    folders = [*config.getini("wasgi_components"), config.rootpath]
    for folder in folders:
        if (found := Path(folder) / source).is_file():
            return found
    where = ", ".join(str(folder) for folder in folders)
    raise FileNotFoundError(f"no component {str(source)!r} in {where}; hint: `wasgi_components` names its folder")


@pytest.fixture(scope="session")
def wasgi_component(pytestconfig: pytest.Config) -> Callable[..., wasgi.Component]:
    """Loads a component, once a run: by its file's name in the folder `wasgi_components`, or by its path.

    Compiled code is kept on disk, so the workers of pytest-xdist compile it once, too.
    """
    loaded = pytestconfig.stash[_components]

    def load(source: str | Path | bytes | wasgi.Component) -> wasgi.Component:
        __tracebackhide__ = True
        if isinstance(source, bytes | wasgi.Component):
            return wasgi.Component(source) if isinstance(source, bytes) else source
        name = str(source)
        if name not in loaded:
            loaded[name] = wasgi.Component(_find(pytestconfig, source))
        return loaded[name]

    return load


@pytest.fixture
def upstream(request: pytest.FixtureRequest) -> Upstream:
    """What is around the components that `wasgi_app` makes: their outgoing requests are answered by its routes.

    The test fails if a component has asked what no route fits, or if a route was not used: the mark ``wasgi_upstream``
    lets either pass.
    """
    from wasgi.testing import Upstream

    made = Upstream()
    for mark in request.node.iter_markers("wasgi_upstream"):
        for name, value in mark.kwargs.items():
            if name not in ("allow_unmatched", "allow_unused"):
                pytest.fail(f"the mark `wasgi_upstream` takes no `{name}`", pytrace=False)
            setattr(made, name, value)
    for mark in request.node.iter_markers("wasgi_cassette"):
        made.cassette = _cassette(request, **mark.kwargs)
        break  # the nearest
    _of(request.node).upstream = made
    return made


def _cassette(request: pytest.FixtureRequest, path: str | None = None, **options: Any) -> Cassette:
    """The cassette of a test: `cassettes/<module>/<test>.json` beside it, unless it is said."""
    from wasgi.testing import Cassette

    test = request.path
    name = re.sub(r"[^\w.\-\[\]]", "_", request.node.name)
    file = test.parent / (path if path is not None else Path("cassettes", test.stem, f"{name}.json"))
    mode = request.config.option.wasgi_record
    if mode == "none" or (mode == "once" and file.exists()):
        options["record"] = False
    elif mode == "all" or options.get("upstream") is not None:
        options["record"] = True
    else:
        pytest.fail(
            f"there is no cassette {file}, and nobody to record: "
            "`@pytest.mark.wasgi_cassette(upstream=wasgi.Network([...]))`",
            pytrace=False,
        )
    return Cassette(file, **options)


def _clients(
    kind: type[Any], request: pytest.FixtureRequest, load: Callable[..., wasgi.Component], upstream: Upstream
) -> Iterator[Callable[..., Any]]:
    """For the two fixtures: what makes clients, and closes them after the test."""
    test = _of(request.node)
    made: list[Client | AsyncClient] = []
    seconds = float(request.config.getini("wasgi_timeout"))

    def make(
        source: str | Path | bytes | wasgi.Component,
        *,
        base_url: str = "http://component.test",
        timeout: float | None = seconds,
        **options: Any,
    ) -> Any:
        __tracebackhide__ = True
        options.setdefault("outgoing", upstream)
        if upstream.cassette is not None:
            options.setdefault("world", upstream.cassette.world)
        options.setdefault("stdout", test.lines.append)
        options.setdefault("stderr", test.lines.append)
        client = kind(wasgi.App(load(source), **options), base_url=base_url, timeout=timeout)
        made.append(client)
        test.clients.append((source if isinstance(source, str) else getattr(source, "name", "a component"), client))
        return client

    yield make
    for client in made:
        client.app.close(0)


@pytest.fixture
def wasgi_app(
    request: pytest.FixtureRequest, wasgi_component: Callable[..., wasgi.Component], upstream: Upstream
) -> Iterator[Callable[..., Client]]:
    """Makes a client of a component: ``wasgi_app("greeter.wasm", env={...})``.

    Takes what `wasgi.App` takes, and ``base_url`` and ``timeout`` of `wasgi.testing.Client`. Outgoing requests are
    answered by the fixture `upstream` unless ``outgoing`` says otherwise; what guests print is in the report of a
    failure. Closed after the test, which fails if an exchange is still open.
    """
    from wasgi.testing import Client

    yield from _clients(Client, request, wasgi_component, upstream)


@pytest.fixture
def wasgi_async_app(
    request: pytest.FixtureRequest, wasgi_component: Callable[..., wasgi.Component], upstream: Upstream
) -> Iterator[Callable[..., AsyncClient]]:
    """`wasgi_app` for asynchronous tests: its clients are awaited. For pytest-asyncio, or anyio on asyncio."""
    from wasgi.testing import AsyncClient

    yield from _clients(AsyncClient, request, wasgi_component, upstream)


# each test


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fails a test that has passed, if its components have not."""
    result = yield
    if test := item.stash.get(_test, None):
        test.check()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tells of a failure what the components have done."""
    report = yield
    test = item.stash.get(_test, None)
    if test is None or call.when != "call":
        return report
    if report.failed:
        report.sections.extend(test.sections())
    test.count()
    # plain data, which pytest-xdist carries to where the summary is printed
    report.wasgi_costs = {name: vars(costs) for name, costs in test.costs.items()}  # type: ignore[attr-defined]
    return report


# what it has cost


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints what the components have cost."""
    if not config.option.wasgi_report:
        return
    total: dict[str, _Costs] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, costs in getattr(report, "wasgi_costs", {}).items():
                total.setdefault(name, _Costs()).add(**costs)
    terminalreporter.section("wasgi: components")
    if not total:
        terminalreporter.write_line("no component has answered anything")
    for name, costs in sorted(total.items(), key=lambda item: -item[1].seconds):
        mean = costs.seconds / costs.exchanges * 1e3 if costs.exchanges else 0.0
        terminalreporter.write_line(
            f"{costs.seconds:8.3f} s  {costs.exchanges:6d} exchanges  {mean:8.2f} ms each"
            f"  {costs.memory >> 10:7d} KiB at most  {name}"
        )
