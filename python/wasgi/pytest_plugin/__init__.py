"""The pytest plug-in: fixtures for components, and their sections in a failure's report.

pytest loads it where wasgi is installed (``-p no:wasgi`` turns it off). Until a fixture is used it imports little
besides `wasgi`: a run without components imports no asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import wasgi

if TYPE_CHECKING:
    from wasgi.pytest_plugin.exchanges import Costs, TestState
    from wasgi.testing import AsyncClient, Client, Upstream

MARKS = (
    "wasgi_upstream(allow_unmatched=False, allow_unused=False, allow_errors=False): what the fixture `upstream` allows",
    "wasgi_cassette(upstream=None, path=None, secret=..., secret_query=..., secret_body=...): requests that"
    " no route of `upstream` matches are recorded, or replayed",
)
_STAMP = "wasgi/build"
"""The key in pytest's cache: what the components were built of."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options."""
    group = parser.getgroup("wasgi", "WebAssembly components")
    group.addoption("--wasgi-report", action="store_true", help="print time and memory of the tests' components")
    group.addoption(
        "--wasgi-record",
        choices=("once", "none", "all"),
        default="once",
        help="when tests with the mark wasgi_cassette record: if there is no cassette yet, never, or always",
    )
    parser.addini("wasgi_components", "the folder of the components", type="paths", default=[])
    group.addoption(
        "--wasgi-no-build", action="store_true", help="do not run `wasgi_build`: test the components as they are"
    )
    parser.addini(
        "wasgi_build", "a command that builds the components, run before the tests if sources have changed", default=""
    )
    parser.addini(
        "wasgi_build_sources",
        "their sources, as globs; by default all files that git does not ignore",
        type="linelist",
        default=[],
    )
    parser.addini("wasgi_timeout", "the timeout of a response, in seconds", default="30")


_state = pytest.StashKey["TestState"]()
_is_built = pytest.StashKey[bool]()
_timeout = pytest.StashKey[float]()
_components = pytest.StashKey[dict[str, wasgi.Component]]()


def _state_of(item: pytest.Item) -> TestState:
    from wasgi.pytest_plugin.exchanges import TestState

    if (test := item.stash.get(_state, None)) is None:
        test = item.stash[_state] = TestState()
        wasgi.errors._observers.append(test.observe)
    return test


# once a run


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marks."""
    for mark in MARKS:
        config.addinivalue_line("markers", mark)
    config.stash[_components] = {}
    said = config.getini("wasgi_timeout")
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise pytest.UsageError(f"`wasgi_timeout` must be a number of seconds above 0: {said}")
    config.stash[_timeout] = seconds


def pytest_sessionstart(session: pytest.Session) -> None:
    """Builds the components, unless nothing has changed."""
    config = session.config
    command = config.getini("wasgi_build").strip()
    option = config.option
    is_dry = option.collectonly or getattr(option, "showfixtures", False) or getattr(option, "setupplan", False)
    if not command or option.wasgi_no_build or hasattr(config, "workerinput") or is_dry:
        return
    from wasgi.pytest_plugin.build import BuildError, Project, build

    project = Project(config.rootpath, config.getini("wasgi_components"), config.getini("wasgi_build_sources"))
    cache = getattr(config, "cache", None)  # None under `-p no:cacheprovider`
    stamped = cache.get(_STAMP, None) if cache is not None else None
    try:
        stamp = build(command, project, stamped)
    except BuildError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[_is_built] = stamp is not None and stamp == stamped
    if cache is not None and stamp != stamped:
        cache.set(_STAMP, stamp)


def pytest_report_header(config: pytest.Config) -> str | None:
    """A line that nothing was built, if so."""
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
    """A mock of the upstreams of the components that `wasgi_app` makes: its routes answer their outgoing requests.

    The test fails if no route fits a request of a component, if a route was not used, or if an upstream's own code has
    raised an exception other than an error-code. The mark ``wasgi_upstream`` allows each of these.
    """
    from wasgi.testing import Upstream

    made = Upstream()
    for mark in reversed(list(request.node.iter_markers("wasgi_upstream"))):  # the nearest mark wins
        for name, value in _options(mark).items():
            if name not in ("allow_unmatched", "allow_unused", "allow_errors"):
                pytest.fail(f"the mark `wasgi_upstream` takes no `{name}`", pytrace=False)
            setattr(made, name, value)
    if (mark := request.node.get_closest_marker("wasgi_cassette")) is not None:
        from wasgi.pytest_plugin.cassettes import cassette_of

        made.cassette = cassette_of(request, _options(mark))
    _state_of(request.node).upstream = made
    return made


def _options(mark: pytest.Mark) -> dict[str, Any]:
    if mark.args:
        pytest.fail(f"the mark `{mark.name}` takes its options by name, not {mark.args[0]!r}", pytrace=False)
    return dict(mark.kwargs)


@pytest.hookimpl(tryfirst=True)  # before tests are deselected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Notes which tests have which cassette: two tests must not share one."""
    for item in items:
        if (mark := item.get_closest_marker("wasgi_cassette")) is not None:
            from wasgi.pytest_plugin.cassettes import note

            note(config, item, mark)


def _clients(
    kind: type[Any], request: pytest.FixtureRequest, load: Callable[..., wasgi.Component], upstream: Upstream
) -> Iterator[Callable[..., Any]]:
    """Makes clients for the two fixtures, and closes them after the test."""
    test = _state_of(request.node)
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
            options.setdefault("simulation", upstream.cassette.world)
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

    Takes what `wasgi.App` takes, and ``base_url`` and ``timeout`` of `wasgi.testing.Client`. The fixture
    `upstream` handles outgoing requests unless ``outgoing`` is given; the report of a failure has the guests' output.
    The client is closed after the test, which fails if an exchange is still open.
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
    """Fails a test that has passed, if an upstream failed or an exchange is still open."""
    result = yield
    if test := item.stash.get(_state, None):
        test.check()
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Stops observing: exceptions of upstreams do not fail the test from now on."""
    if test := item.stash.get(_state, None):
        if test.observe in wasgi.errors._observers:
            wasgi.errors._observers.remove(test.observe)
        test.errors.clear()  # their tracebacks hold the frames of the test


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds what the components have done to the report of a failure."""
    report = yield
    test = item.stash.get(_state, None)
    if test is None or call.when == "teardown":
        return report
    if report.failed:  # also in a fixture that calls a component
        report.sections.extend(test.sections())
    if call.when == "setup":
        return report
    test.count()
    # plain data, which pytest-xdist can send to the process that prints the summary
    report.wasgi_costs = {name: vars(costs) for name, costs in test.costs.items()}  # type: ignore[attr-defined]
    return report


# the summary


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints what the components have cost."""
    if not config.option.wasgi_report:
        return
    from wasgi.pytest_plugin.exchanges import Costs

    total: dict[str, Costs] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, costs in getattr(report, "wasgi_costs", {}).items():
                total.setdefault(name, Costs()).add(**costs)
    terminalreporter.section("wasgi: components")
    if not total:
        terminalreporter.write_line("no component was called")
    for name, costs in sorted(total.items(), key=lambda item: -item[1].seconds):
        mean = costs.seconds / costs.exchanges * 1e3 if costs.exchanges else 0.0
        terminalreporter.write_line(
            f"{costs.seconds:8.3f} s  {costs.exchanges:6d} exchanges  {mean:8.2f} ms each"
            f"  {costs.memory >> 10:7d} KiB at most  {name}"
        )
