"""What holds for one generation of WASI holds for the other: a test whose guest speaks one of them alone says why.

Tests with the fixture `generation`, or one that needs it, run over both. A test of what only one can have is marked
with `only`, and its reason. Whatever else names a guest of one generation stands in `ONE_GENERATION`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import wasgi
from tests import conftest
from tests.conftest import COMPONENTS, GENERATIONS

TESTS = Path(__file__).parent

ONE_GENERATION = {
    "cli/test_cli.py": "the command line: what it says of each generation, it is asked there by name",
    "cli/test_commands.py": "the command line: what a guest does is tested elsewhere over both",
    "cli/test_run.py": "the command line: what a guest does is tested elsewhere over both",
    "cli/test_run_command.py": "commands of both, which no other file has",
    "cli/test_serve.py": "the command line: what a guest does is tested elsewhere over both",
    "cli/test_serve_processes.py": "processes and signals: which guests they serve is all one",
    "component/test_compiling_process.py": "a component that is compiled elsewhere does not run",
    "component/test_component.py::TestOneContent::test_its_bytes_are_held_once": "no guest runs",
    "component/test_component.py::in_a_process": "what is read of a component as bytes, and what loading it costs",
    "component/test_component.py::test_does_not_become_another_component_on_the_way": "no guest runs",
    "component/test_costs_of_loading.py": "a component is loaded before anybody knows its generation",
    "component/test_debug_info.py": "names of functions are the module's, and are read before it is linked",
    "component/test_loading.py": "a component is loaded before anybody knows its generation",
    "component/test_sources_of_components.py": "bytes are read before anybody knows their generation",
    "engine/test_code_cache.py": "entries of the cache are code, of whichever engine",
    "guest/test_bodies_p3.py": "bodies are streams and futures in WASI 0.3 alone",
    "guest/test_concurrent_instances.py": "a guest of WASI 0.2 handles one request at a time",
    "server/test_http2_frames.py::made": "frames of HTTP/2 are the server's: which guest answers is all one",
    "serving/test_doors.py::test_no_message_of_asgi_is_empty_before_the_last": "WASI 0.3 alone has it",
    "serving/test_doors.py::test_writes_of_nothing_are_nothing": "WASI 0.3 alone has it",
    "guest/test_reuse.py::test_one_that_grows_with_each_exchange_is_not_reused_for_ever": (
        "WASI 0.3 alone has such handles"
    ),
    "guest/test_only_in_0_3.py": "what there is in WASI 0.3 alone",
    "process/test_inherited.py::test_what_guests_give_back_is_dropped_by_threads_whose_priority_is_as_before": (
        "which threads drop what is given back is one thing for all engines"
    ),
    "process/test_inherited.py::threads_of_ours": "how threads are started is one thing for all engines",
    "process/test_swap.py": "pages are those of a pool of memories, of which both engines have one of the same making",
    "py/test_hazards.py::test_a_fork_while_other_threads_load_and_drop_components": "no guest runs",
    "py/test_logging.py": "what is done with a line; that a guest's comes there, is tested there by `app`",
    "pytest_plugin/test_build.py": "guests are built, and do not run",
    "pytest_plugin/test_failure_messages.py": "the words are recorded, and tell of one guest's requests",
    "serving/test_uwsgi.py": "how uWSGI loads an application",
    "testing/test_isolation.py::test_a_leak_between_exchanges_that_overlap": "WASI 0.3 alone has them",
    "testing/test_isolation.py::together": "WASI 0.3 alone has exchanges that overlap in an instance",
    "test_examples.py": "the guests of the examples",
    "test_package.py": "the guest that is a part of the package",
    "test_plugins.py": "the guests of an example",
    "test_untrusted.py::test_cache_entries": "entries of the cache are code, of whichever engine",
    "guest/isolated/test_toolchains.py": "guests of each toolchain, of the generation that it makes",
    "guest/isolated/test_use.py::test_a_guest_that_leaks_is_isolated": "over both by its own parameter",
    "guest/isolated/test_use.py::test_more_handles_than_can_be_numbered_anew": "over both by its own parameter",
    "guest/isolated/test_use.py::test_a_trap_tells_the_same": "how a trap is told has no generation",
    "test_untrusted.py::test_cache_size": "entries of the cache are code, of whichever engine",
    "test_untrusted.py::test_loading_and_the_loop": "no guest runs",
}
"""Modules, and tests of a module, whose guests speak one generation alone; and why."""

OF_BOTH = {"generation", "probe", "probe_path", "probe_name", "app", "shared_app", "components"}
"""The fixtures whose tests run over both."""
PROBES = {"PROBE", "PROBE_P3"}
OTHERS = {"HELLO", "MIDDLEWARE", "HAND", "bare", "bare_text"}
FILES = {path.name for path in COMPONENTS.glob("*.wasm")}
PROBE_FILES = {path.name for path in conftest.PROBES.values()}


def name_of(node: ast.expr) -> str:
    """The last part of a name, or of what is called."""
    if isinstance(node, ast.Call):
        return name_of(node.func)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


class Module:
    """What a module of tests names."""

    def __init__(self, path: Path) -> None:
        self.name = path.relative_to(TESTS).as_posix()
        self.tree = ast.parse(path.read_text())
        self.imported = {
            alias.asname or alias.name
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom) and node.module == "tests.conftest"
            for alias in node.names
        }
        functions = [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        asked = {
            argument.arg
            for function in functions
            if function.name.startswith("test_") or "fixture" in map(name_of, function.decorator_list)
            for argument in function.args.args
        }
        marked = {
            argument.value
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call) and name_of(node) == "usefixtures"
            for argument in node.args
            if isinstance(argument, ast.Constant)
        }
        self.is_of_both = bool((asked | marked) & OF_BOTH)
        self.has_own_folder = "components" in asked
        self.probes: set[str] = set()
        """Where it names a probe of one generation: tests, functions around tests, or itself."""
        self.names_a_guest = "hello" in asked
        self.look(self.tree, "")

    def look(self, node: ast.AST, where: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = where
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{where}::{child.name}"
            if isinstance(child, ast.Name) and child.id in self.imported:
                self.names_a_guest |= child.id in OTHERS
                if child.id in PROBES:
                    self.probes.add(where)
            if isinstance(child, ast.Constant) and isinstance(child.value, str):
                self.names_a_guest |= any(name in child.value for name in FILES)
                if any(name in child.value for name in PROBE_FILES) and not self.has_own_folder:
                    self.probes.add(where)
            self.look(child, inner)

    def unlisted(self, listed: dict[str, str]) -> set[str]:
        if self.name in listed:
            return set()
        named = {self.name + where for where in self.probes} - set(listed)
        return named | ({self.name} if self.names_a_guest and not self.is_of_both else set())


def modules() -> list[Module]:
    return [Module(path) for path in sorted(TESTS.rglob("test_*.py")) if path != Path(__file__)]


def test_whoever_speaks_one_generation_says_why() -> None:
    unlisted = {name for module in modules() for name in module.unlisted(ONE_GENERATION)}
    assert unlisted == set(), "use the fixture `probe`, `app` or `probe_path`, or list it with its reason"


def test_nothing_is_listed_that_speaks_both() -> None:
    needed = {name for module in modules() for name in module.unlisted({})}
    assert set(ONE_GENERATION) <= needed | {name.split("::")[0] for name in needed}
    assert all(ONE_GENERATION.values())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from tests.conftest import PROBE\ndef test_it():\n    PROBE", {"::test_it"}),
        ("from tests.conftest import PROBE\nclass A:\n    def test_it(self, app):\n        PROBE", {"::A::test_it"}),
        ("def test_it(pytester):\n    'wasgi_app(\"probe.wasm\")'", {"", "::test_it"}),
        ("def test_it(pytester, components):\n    'wasgi_app(\"probe.wasm\")'", set()),
        ("def test_it(hello):\n    pass", {""}),
        ("def test_it(hello, app):\n    pass", set()),
        ("from tests.peers import HELLO\ndef test_it():\n    HELLO", set()),
    ],
)  # fmt: skip
def test_a_test_that_speaks_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, found: set[str]
) -> None:
    monkeypatch.setitem(globals(), "TESTS", tmp_path)
    (tmp_path / "test_it.py").write_text(source)
    [module] = modules()
    assert module.unlisted({}) == {f"test_it.py{where}" for where in found}


def test_the_fixtures_are_of_both() -> None:
    """And the probes are what they are taken for."""
    assert {generation: wasgi.Component(path).wasi for generation, path in conftest.PROBES.items()} == dict(
        zip(GENERATIONS, GENERATIONS, strict=True)
    )
