"""The package as a whole: complete, typed, and what its README says."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.resources
import inspect
import pydoc
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import wasgi
from tests.conftest import HELLO
from tests.native_docs import StubSignature, documented, stub_signatures
from tests.test_house import paths_in_plan
from wasgi import _wasgi

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())


def test_the_engine_is_the_one_that_is_locked() -> None:
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    assert [_wasgi._wasmtime_version] == [package["version"] for package in locked if package["name"] == "wasmtime"]


def test_all_is_sorted_and_whole() -> None:
    assert wasgi.__all__ == sorted(wasgi.__all__)
    # pytest rewrites the assertions of packages with a plug-in, and leaves names behind
    public = {name for name, value in vars(wasgi).items() if not name.startswith(("_", "@"))}
    modules = {"app", "cli", "headers", "httpx", "outgoing", "pytest_plugin", "server", "serving", "testing"}
    assert public - set(wasgi.__all__) <= modules
    for name in wasgi.__all__:
        assert hasattr(wasgi, name)


def test_exceptions_of_the_top_level_are_those_of_the_tree() -> None:
    top = {name for name in wasgi.__all__ if name.endswith("Error") or name == "ErrorCode"}
    codes = {leaf.__name__ for leaf in wasgi.errors.ERROR_CODES.values()}
    assert top == set(wasgi.errors.__all__) - codes - {"ERROR_CODES"}


def test_abi3_equals_requires_python() -> None:
    (feature,) = CARGO["dependencies"]["pyo3"]["features"]
    minor = re.fullmatch(r"abi3-py3(\d+)", feature)
    assert minor is not None
    assert PYPROJECT["project"]["requires-python"] == f">=3.{minor[1]}"


def test_the_version_is_cargos() -> None:
    assert importlib.metadata.version("wasgi") == CARGO["package"]["version"]


def test_is_typed() -> None:
    assert importlib.resources.files("wasgi").joinpath("py.typed").is_file()


def test_the_transports_need_no_import_of_their_own() -> None:
    script = "import wasgi; print(wasgi.httpx.Transport.__name__, hasattr(wasgi, 'nothing'))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "Transport False\n", done.stderr


@pytest.mark.parametrize(("house", "index"), [("src", "mod.rs"), ("python/wasgi", "__init__.py")])
def test_the_plan_lists_each_file_once(house: str, index: str) -> None:
    """By path; a folder stands for its `mod.rs` or `__init__.py`, save the root's. `tests.rs` go without saying."""
    root = ROOT / house
    files = [path for kind in ("*.rs", "*.py", "*.pyi") for path in root.rglob(kind) if path.name != "tests.rs"]
    paths = [
        f"{path.parent.relative_to(root)}/" if path.name == index and path.parent != root else path.relative_to(root)
        for path in files
    ]
    assert sorted(paths_in_plan(house)) == sorted(map(str, paths))


def test_each_dependency_is_explained() -> None:
    explained = (ROOT / "ARCHITECTURE.md").read_text()
    for name in CARGO["dependencies"]:
        assert f"`{name}`" in explained, f"{name} is not in ARCHITECTURE.md"


README = (ROOT / "README.md").read_text()


DOCS = README + "".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL))
def test_the_readmes_code_runs(code: str, tmp_path: Path) -> None:
    (tmp_path / "hello.wasm").write_bytes(HELLO.read_bytes())
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = re.findall(r"# prints: (.*)", code)
    assert done.stdout.splitlines() == expected


TESTS = [code for code in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL) if "\ndef test_" in code]
REAL = 'wasgi.Network(["https://api.example.com"])'


def names_of(code: str) -> str:
    return " ".join(re.findall(r"^def (\w+)", code, re.MULTILINE))


def test_each_guide_with_tests_is_run() -> None:
    assert {name for code in TESTS for name in names_of(code).split()} >= {
        "test_greets_by_name",
        "test_survives_faults",
        "test_gives_up_after_a_while",
        "test_exchanges_see_nothing_of_each_other",
        "test_greets_as_recorded",
    }


@pytest.mark.parametrize("code", TESTS, ids=names_of)
def test_the_docs_tests_pass(code: str, tmp_path: Path) -> None:
    """With the component of `examples/greeter`; what they would record of the network is recorded of a function."""
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nwasgi_components = {ROOT / 'examples/greeter/components'}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]

    def run(source: str, *options: str) -> None:
        (tmp_path / "test_docs.py").write_text(source)
        done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert " passed" in done.stdout

    if REAL in code:
        run(code.replace(REAL, 'lambda request: wasgi.Response(body=\'{"name": "Ada"}\')'))
        run(code, "--wasgi-record=none")
    else:
        run(code)


MYPY = [sys.executable, "-m", "mypy", "--strict", "--config-file="]


@pytest.fixture
def blocks(tmp_path: Path) -> Path:
    """A folder with each block of code in the README and the docs as a module."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)):
            (tmp_path / f"{path.stem.lower()}_{number}.py").write_text(code)
    return tmp_path


@pytest.mark.timeout(300)
def test_the_docs_code_has_the_types_that_mypy_wants(blocks: Path) -> None:
    done = subprocess.run([*MYPY, str(blocks)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_docs_code_has_the_types_that_pyright_wants(blocks: Path) -> None:
    command = [sys.executable, "-m", "basedpyright", "--level", "error", "--pythonpath", sys.executable, str(blocks)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=blocks)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "name", ["nothing_such", "outgoing.nothing_such", "testing.nothing_such", "httpx.nothing_such"]
)
def test_a_name_that_is_not_there_is_seen_by_type_checkers(name: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(f"import wasgi\n\nwasgi.{name}\n")
    done = subprocess.run([*MYPY, str(tmp_path / "wrong.py")], capture_output=True, text=True, cwd=ROOT)
    assert 'has no attribute "nothing_such"' in done.stdout


def test_the_readme_names_the_two_commands() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    commands = [line.split("#")[0].strip() for line in blocks[0].splitlines()]
    assert commands == ["uv run wasgi demo", "uv run pytest"]


def test_no_lock_of_pythons_is_tracked() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "uv.lock" in ignored


class TestHelp:
    """`help` and `inspect` know the native classes as the stubs do."""

    @pytest.mark.parametrize(("owner", "name", "doc"), list(documented()))
    def test_docstrings_are_those_of_the_stubs(self, owner: str | None, name: str, doc: str) -> None:
        native: Any = _wasgi
        for part in filter(None, (owner, name)):
            native = getattr(native, part)
        assert inspect.getdoc(native) == doc, "hint: python tests/native_docs.py --write"

    @pytest.mark.parametrize("signature", list(stub_signatures()), ids=lambda signature: signature.name)
    def test_signatures_are_those_of_the_stubs(self, signature: StubSignature) -> None:
        native: Any = _wasgi
        for part in signature.name.split("."):
            native = getattr(native, part)
        parameters = [
            parameter for parameter in inspect.signature(native).parameters.values() if parameter.name != "self"
        ]
        described = [(parameter.name, parameter.kind, parameter.default) for parameter in parameters]
        assert described == signature.parameters

    def test_what_a_user_asks_for_help_on(self) -> None:
        for name in wasgi.__all__:
            found = getattr(wasgi, name)
            assert inspect.getdoc(found), name
            if inspect.isclass(found) and not issubclass(found, BaseException):
                assert "Args" not in (inspect.getdoc(found) or "") or inspect.signature(found).parameters, name
        assert "memory=268435456" in str(inspect.signature(wasgi.Limits))
        assert "Calls the guest's handler" in pydoc.render_doc(wasgi.App)


def test_dir_lists_what_there_is() -> None:
    script = (
        "import wasgi, sys; print([name for name in dir(wasgi) if name[0] != '_']); print('asyncio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    names, asyncio_came = done.stdout.splitlines()
    assert set(ast.literal_eval(names)) >= {*wasgi.__all__, "httpx", "outgoing", "testing"}
    assert asyncio_came == "False"


def test_everything_that_dir_lists_is_there() -> None:
    for name in dir(wasgi):
        assert hasattr(wasgi, name), name


def test_a_star_import_hides_no_other_package() -> None:
    assert not {"httpx", "outgoing", "testing"} & set(wasgi.__all__)
    assert "httpx" in dir(wasgi)


def test_the_package_says_its_version() -> None:
    assert wasgi.__version__ == CARGO["package"]["version"]
