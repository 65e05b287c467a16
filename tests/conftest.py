from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

import wasgi

ROOT = Path(__file__).parents[1]
GUESTS = ROOT / "tests" / "guests"
COMPONENTS = GUESTS / "components"
HELLO = COMPONENTS / "hello.wasm"
PROBE = COMPONENTS / "probe.wasm"
PROBES = {"0.2": PROBE, "0.3": COMPONENTS / "probe_p3.wasm"}
GENERATIONS = tuple(PROBES)
PROBE_P3 = PROBES["0.3"]
MIDDLEWARE = COMPONENTS / "middleware.wasm"
HAND = GUESTS / "hand.wat"


def get(target: str, **options: Any) -> wasgi.Request:
    """A GET of the guest's route."""
    return wasgi.Request("GET", f"http://guest.local{target}", **options)


def post(target: str, body: Any, **options: Any) -> wasgi.Request:
    return wasgi.Request("POST", f"http://guest.local{target}", body=body, **options)


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread is about to do."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture(scope="session")
def hello() -> wasgi.Component:
    return wasgi.Component(HELLO)


@pytest.fixture(scope="session", params=GENERATIONS)
def generation(request: pytest.FixtureRequest) -> str:
    """The generation of WASI that the probe speaks: tests with it, the probe or an app of it run over both."""
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="session")
def probe_path(generation: str) -> Path:
    """For tests that run in a process of their own."""
    return PROBES[generation]


@pytest.fixture(scope="session")
def probe_name(probe_path: Path) -> str:
    return probe_path.name


@pytest.fixture(scope="session")
def probe(probe_path: Path) -> wasgi.Component:
    return wasgi.Component(probe_path)


@pytest.fixture(scope="session")
def shared_app(probe: wasgi.Component) -> wasgi.App:
    """An app with nothing around it, for tests of many examples."""
    return wasgi.App(probe)


@pytest.fixture(scope="session")
def components(probe_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of components of a project whose `probe.wasm` speaks that generation."""
    folder = tmp_path_factory.mktemp("components")
    for path in COMPONENTS.glob("*.wasm"):
        (folder / path.name).symlink_to(probe_path if path == PROBE else path)
    return folder


def only(generation: str, reason: str) -> pytest.MarkDecorator:
    """For a test of what exists in one generation of WASI and not in the other."""
    return pytest.mark.generation(generation, reason=reason)


@pytest.fixture(autouse=True)
def skips_what_a_generation_does_not_have(request: pytest.FixtureRequest) -> None:
    """See `only`."""
    mark = request.node.get_closest_marker("generation")
    if mark is not None and "generation" in request.fixturenames:
        assert mark.kwargs["reason"]
        if request.getfixturevalue("generation") not in mark.args:
            pytest.skip(mark.kwargs["reason"])


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """Exchanges end with their test, whose counters are the process's. What was let go of may end a moment later."""
    yield
    if goes_on():
        gc.collect()
        until(lambda: not goes_on())


def goes_on() -> int:
    stats = wasgi.stats()
    return stats.exchanges + stats.queued + stats.outgoing + stats.calls + stats.feeds


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """For tests that must leave no exchange, no outgoing request and no connection: nothing that runs."""
    yield
    until(lambda: (stats := wasgi.stats()).exchanges == stats.outgoing == stats.tasks == 0)


AppMaker = Callable[..., wasgi.App]


@pytest.fixture
def app(probe: wasgi.Component) -> AppMaker:
    """Makes apps of the probe, the guest with one behaviour a route."""

    def make(**options: Any) -> wasgi.App:
        return wasgi.App(probe, **options)

    return make


def project_ini(*more: str, components: Path = COMPONENTS) -> str:
    """The settings of a project whose components are ours, for `pytester`."""
    lines = [
        "[pytest]",
        "addopts = --strict-markers -p no:randomly",
        "asyncio_mode = auto",
        "asyncio_default_fixture_loop_scope = function",
        f"wasgi_components = {components}",
        *more,
    ]
    return "\n".join(lines)


def bare(body: str, declarations: str = "", instances: int = 1, **options: Any) -> wasgi.Component:
    """A component by hand, whose handler does `body` and answers nothing. Has as many core instances as asked for."""
    return wasgi.Component(bare_text(body, declarations, instances).encode(), **options)


def bare_text(
    body: str = "", declarations: str = "", instances: int = 1, around: str = "", spare: str = "", given: str = ""
) -> str:
    """Its text: `around` is in the component, `spare` in the other modules, `given` is what the guest is made with."""
    more = "\n".join("(core instance (instantiate $spare))" for _ in range(instances - 1))
    return f"""
    (component
      (import "wasi:http/types@0.2.0" (instance $types
        (export "incoming-request" (type (sub resource)))
        (export "response-outparam" (type (sub resource)))))
      (alias export $types "incoming-request" (type $request))
      (alias export $types "response-outparam" (type $outparam))
      (core module $spare {spare})
      {more}
      {around}
      (core module $guest
        {declarations}
        (func $handle (export "handle") (param i32 i32) {body}))
      (core instance $guest (instantiate $guest {given}))
      (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
        (canon lift (core func $guest "handle")))
      (component $handler
        (import "request" (type $request (sub resource)))
        (import "outparam" (type $outparam (sub resource)))
        (import "handle" (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))))
        (export "handle" (func $handle)))
      (instance $handler (instantiate $handler
        (with "request" (type $request)) (with "outparam" (type $outparam)) (with "handle" (func $handle))))
      (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))
    """


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def trusted(authority: trustme.CA) -> bytes:
    pem: bytes = authority.cert_pem.bytes()
    return pem
