"""The pytest plug-in: fixtures for components, and what a failure's report says of them.

Loaded by pytest where wasgi is installed (``-p no:wasgi`` turns it off). It imports no more than `wasgi` itself until a
fixture is used.
"""

from __future__ import annotations

import gc
import os
import re
import time
import unicodedata
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
    "wasgi_upstream(allow_unmatched=False, allow_unused=False, allow_errors=False): what the fixture `upstream` lets"
    " pass",
    "wasgi_cassette(upstream=None, path=None, secret=..., secret_query=..., secret_body=...): what no route of"
    " `upstream` fits is recorded, or played back",
)
_STAMP = "wasgi/build"
"""In pytest's cache: of what the components were built."""
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
    group.addoption(
        "--wasgi-no-build", action="store_true", help="test components as they are: `wasgi_build` is not run"
    )
    parser.addini(
        "wasgi_build", "a command that builds the components, run before the tests if sources have changed", default=""
    )
    parser.addini(
        "wasgi_build_sources",
        "what they are built of, as globs; if none are given, all files that git does not ignore",
        type="linelist",
        default=[],
    )
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
    errors: list[BaseException] = field(default_factory=list)
    """What upstreams have raised, functions and bodies of theirs."""
    is_told: bool = False
    """Whether the failure itself says so."""

    def observe(self, error: BaseException) -> None:
        """Takes an exception that a guest is told of."""
        self.errors.append(error)

    def failures(self) -> list[BaseException]:
        """What the test's own code has raised, and `upstream` does not know of."""
        from wasgi._failures import is_failure

        if self.upstream is None or self.upstream.allow_errors:
            return []
        known = {id(error) for error in self.upstream._failures}
        return [error for error in self.errors if id(error) not in known and is_failure(error)]

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
        if wasgi.errors._finishing:
            from wasgi._asgi_upstream import settle

            settle(1.0)
        failures = self.failures()
        for error in [*failures, *(self.upstream._failures if self.upstream is not None else [])]:
            if isinstance(error, pytest.skip.Exception | pytest.xfail.Exception):
                raise error
        complaints = [_told(error) for error in failures]
        complaints += self.upstream.complaints() if self.upstream is not None else []
        if left := self.open_exchanges():
            complaints.append(
                f"exchanges were left open: {', '.join(left)}; hint: read each response to its end, or close it"
            )
        if complaints:
            self.is_told = True
            pytest.fail("\n\n".join(complaints), pytrace=False)
        if self.upstream is not None and self.upstream.cassette is not None:
            self.upstream.cassette.save()  # of tests that pass only

    def sections(self) -> Iterator[tuple[str, str]]:
        """For the report of a failure."""
        # A test's own failure is often what came of these: a 502 in place of a 200, say. Before anything was asked
        # they would only name the routes, none of which could be used.
        has_asked = any(client.exchanges for _, client in self.clients)
        complaints: list[str] = []
        if self.upstream is not None and not self.is_told and (has_asked or self.upstream.calls):
            complaints = [*map(_told, self.failures()), *self.upstream.complaints()]
        if complaints:
            yield "wasgi: upstream", "\n\n".join(complaints)
        asked = [str(exchange) for _, client in self.clients for exchange in client.exchanges]
        if asked:
            yield "wasgi: exchanges", "\n".join(asked)
        from wasgi._bridge import shown

        for stream in ("stdout", "stderr"):
            lines = [line for line in self.lines if line.stream == stream]
            if lines:
                yield f"wasgi: guest's {stream}", "\n".join(map(shown, lines))
        if self.upstream is not None and self.upstream.allow_errors and self.upstream._failures:
            yield "wasgi: exceptions of upstreams", "\n".join(map(_described, self.upstream._failures))
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


def _told(error: BaseException) -> str:
    from wasgi._mock import failed

    return failed(error)


def _described(error: BaseException) -> str:
    from wasgi._failures import described

    return described(error)


_test = pytest.StashKey[_Test]()
_is_built = pytest.StashKey[bool]()
_timeout = pytest.StashKey[float]()
_of_cassette = pytest.StashKey[dict[str, dict[str, None]]]()
_components = pytest.StashKey[dict[str, wasgi.Component]]()


def _of(item: pytest.Item) -> _Test:
    if (test := item.stash.get(_test, None)) is None:
        test = item.stash[_test] = _Test()
        wasgi.errors._observers.append(test.observe)
    return test


# once a run


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marks."""
    for mark in MARKS:
        config.addinivalue_line("markers", mark)
    config.stash[_components] = {}
    config.stash[_of_cassette] = {}
    said = config.getini("wasgi_timeout")
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise pytest.UsageError(f"`wasgi_timeout` must be a number of seconds above 0: {said}")
    config.stash[_timeout] = seconds


def pytest_sessionstart(session: pytest.Session) -> None:
    """Builds the components, unless they are."""
    config = session.config
    command = config.getini("wasgi_build").strip()
    option = config.option
    is_dry = option.collectonly or getattr(option, "showfixtures", False) or getattr(option, "setupplan", False)
    if not command or option.wasgi_no_build or hasattr(config, "workerinput") or is_dry:
        return
    from wasgi._build import BuildError, Project, build

    project = Project(config.rootpath, config.getini("wasgi_components"), config.getini("wasgi_build_sources"))
    cache = getattr(config, "cache", None)  # none under `-p no:cacheprovider`
    stamped = cache.get(_STAMP, None) if cache is not None else None
    try:
        stamp = build(command, project, stamped)
    except BuildError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[_is_built] = stamp is not None and stamp == stamped
    if cache is not None and stamp != stamped:
        cache.set(_STAMP, stamp)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Says so if nothing was built."""
    return "wasgi: `wasgi_build` was not run: nothing has changed" if config.stash.get(_is_built, False) else None


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

    The test fails if a component has asked what no route fits, if a route was not used, or if an upstream's own code
    has raised what is no error-code: the mark ``wasgi_upstream`` lets each of these pass.
    """
    from wasgi.testing import Upstream

    made = Upstream()
    for mark in reversed(list(request.node.iter_markers("wasgi_upstream"))):  # the nearest has the last word
        for name, value in _options(mark).items():
            if name not in ("allow_unmatched", "allow_unused", "allow_errors"):
                pytest.fail(f"the mark `wasgi_upstream` takes no `{name}`", pytrace=False)
            setattr(made, name, value)
    if (mark := request.node.get_closest_marker("wasgi_cassette")) is not None:
        made.cassette = _cassette(request, _options(mark))
    _of(request.node).upstream = made
    return made


def _options(mark: pytest.Mark) -> dict[str, Any]:
    if mark.args:
        pytest.fail(f"the mark `{mark.name}` takes its options by name, not {mark.args[0]!r}", pytrace=False)
    return dict(mark.kwargs)


@pytest.hookimpl(tryfirst=True)  # before tests are deselected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Notes which tests have which cassette."""
    tests = config.stash[_of_cassette]
    for item in items:
        if (mark := item.get_closest_marker("wasgi_cassette")) is not None:
            path = mark.kwargs.get("path")
            if path is None or isinstance(path, str | os.PathLike):  # of others the fixture tells
                tests.setdefault(_folded(_file_of(item, path)), {})[item.nodeid] = None


def _folded(path: Path) -> str:
    """The same for two paths that are one file on some file system."""
    return unicodedata.normalize("NFC", os.path.normpath(path)).casefold()


def _file_of(item: pytest.Item, path: str | os.PathLike[str] | None) -> Path:
    """The cassette of a test: `cassettes/<module>/<test>.json` beside it, unless it is said."""
    from wasgi._filenames import of_module, of_test

    if path is not None:
        return item.path.parent / path
    names: list[str] = []
    for node in reversed(item.listchain()):
        if isinstance(node, pytest.File):
            break
        names.insert(0, node.name)
    return item.path.parent / "cassettes" / of_module(item.path.name) / f"{of_test(names)}.json"


_CASSETTE_OPTIONS = ("path", "upstream", "secret", "secret_query", "secret_body")


def _cassette(request: pytest.FixtureRequest, options: dict[str, Any]) -> Cassette:
    from wasgi.testing import Cassette

    for name in options:
        if name not in _CASSETTE_OPTIONS:
            hint = "; hint: the option `--wasgi-record` says whether to" if name == "record" else ""
            pytest.fail(f"the mark `wasgi_cassette` takes no `{name}`{hint}", pytrace=False)
    path = options.pop("path", None)
    if path is not None and not isinstance(path, str | os.PathLike):
        pytest.fail(f"`path` of `wasgi_cassette` must be a path, not {type(path).__name__}", pytrace=False)
    file = _file_of(request.node, path)
    tests = list(request.config.stash[_of_cassette].get(_folded(file), ()))
    if len(tests) > 1:
        pytest.fail(
            f"{file} is the cassette of several tests, {', '.join(tests[:2])}{', …' if tests[2:] else ''}; "
            "hint: without `path` each has its own",
            pytrace=False,
        )
    mode = request.config.option.wasgi_record
    if mode == "none" or (mode == "once" and file.exists()):
        options["record"] = False
    elif mode == "all" or options.get("upstream") is not None:
        options["record"] = True
    else:
        pytest.fail(
            f"there is no cassette {file}, and nobody to record: "
            f"`@pytest.mark.wasgi_cassette(upstream=wasgi.Network([...]))`{_earlier(request.node, path)}",
            pytrace=False,
        )
    if mode == "none" and not file.exists():
        pytest.fail(
            f"there is no cassette {file}, and `--wasgi-record=none` records none{_earlier(request.node, path)}",
            pytrace=False,
        )
    try:
        return Cassette(file, **options)
    except (OSError, TypeError, ValueError) as error:  # a file that is none, or an option of the wrong type
        why = str(error)
    pytest.fail(why, pytrace=False)  # out here it has no context to be shown


def _earlier(item: pytest.Item, path: str | os.PathLike[str] | None) -> str:
    """A hint, if there is a cassette as they were called when tests of one name had the same."""
    name = re.sub(r"[^\w.\-\[\]]", "_", item.name)
    file = item.path.parent / "cassettes" / item.path.stem / f"{name}.json"
    if path is not None or len(file.name.encode()) > 255 or not file.exists():
        return ""
    return f"; hint: earlier releases called it {file.name}: rename it if it is this test's alone, or record anew"


def _clients(
    kind: type[Any], request: pytest.FixtureRequest, load: Callable[..., wasgi.Component], upstream: Upstream
) -> Iterator[Callable[..., Any]]:
    """For the two fixtures: what makes clients, and closes them after the test."""
    test = _of(request.node)
    made: list[Client | AsyncClient] = []
    seconds = request.config.stash[_timeout]

    def make(
        source: str | Path | bytes | wasgi.Component,
        *,
        base_url: str = "http://component.test",
        **options: Any,
    ) -> Any:
        __tracebackhide__ = True
        said = {"timeout": options.pop("timeout")} if "timeout" in options else {}
        options.setdefault("outgoing", upstream)
        if upstream.cassette is not None:
            options.setdefault("world", upstream.cassette.world)
        options.setdefault("stdout", test.lines.append)
        options.setdefault("stderr", test.lines.append)
        client = kind(wasgi.App(load(source), **options), base_url=base_url, **said)
        if not said:
            client.timeout, client._option = seconds, "wasgi_timeout"
        made.append(client)
        is_path = isinstance(source, str | Path)
        test.clients.append((str(source) if is_path else getattr(source, "name", "a component"), client))
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


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """From now on, what upstreams raise is not the test's."""
    if test := item.stash.get(_test, None):
        if test.observe in wasgi.errors._observers:
            wasgi.errors._observers.remove(test.observe)
        test.errors.clear()  # their frames hold what the test has made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tells of a failure what the components have done."""
    report = yield
    test = item.stash.get(_test, None)
    if test is None or call.when == "teardown":
        return report
    if report.failed:  # in a fixture that asks a component, too
        report.sections.extend(test.sections())
    if call.when == "setup":
        return report
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
