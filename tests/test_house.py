"""The house: in which order its folders import one another, and that no import leads back.

For each language there is an order, a function that reads its files, and one that reads their imports; the rest is
shared.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

ROOT = Path(__file__).parents[1]

# Each folder (or file of the top level) imports only those above it, and files of its own; see ARCHITECTURE.md.
PYTHON = {
    "headers": "fields of a message",
    "errors": "the tree of exceptions",
    "_wasgi": "the native module, as its stub has it",
    "_messages": "rules of HTTP messages that hold in both directions",
    "_native": "what the native module calls: the user's functions, bodies, output, a loop in the background",
    "serving": "an app behind a server of ASGI or WSGI",
    "app": "`App`: the native one with its options for servers",
    "httpx": "an app as a transport of httpx2 and httpx",
    "outgoing": "upstreams: routes, applications, clients",
    "testing": "clients, mocks, record and replay, isolation",
    "": "what users import",
    "cli": "the command",
    "__main__": "`python -m wasgi`",
    "pytest_plugin": "fixtures, and the report of a failure",
}


@dataclass(frozen=True)
class Import:
    """One file imports another: both as paths from the root of their house, without suffix."""

    importer: str
    imported: str
    where: str

    def __str__(self) -> str:
        return f"{self.where}: `{self.importer or '__init__'}` imports `{self.imported or '__init__'}`"


def folder_of(room: str) -> str:
    """The folder of a file, or a file of the top level itself."""
    return room.partition("/")[0]


def out_of_order(imports: list[Import], order: Mapping[str, str]) -> list[str]:
    """The imports that lead to a folder further below, each with its file and line."""
    place = {folder: number for number, folder in enumerate(order)}
    return [str(one) for one in imports if place[folder_of(one.importer)] < place[folder_of(one.imported)]]


def circles(imports: list[Import]) -> list[str]:
    """Imports that lead back to their importer, each with the lines of the whole circle."""
    by_importer: dict[str, list[Import]] = {}
    for one in imports:
        by_importer.setdefault(one.importer, []).append(one)

    def way(begin: str, end: str) -> list[Import] | None:
        seen, ways = {begin}, [(begin, list[Import]())]
        for room, path in ways:
            for one in by_importer.get(room, []):
                if one.imported == end:
                    return [*path, one]
                if one.imported not in seen:
                    seen.add(one.imported)
                    ways.append((one.imported, [*path, one]))
        return None

    found = {frozenset(path): path for one in imports if (path := way(one.importer, one.importer)) is not None}
    return ["\n  ".join(map(str, path)) for path in found.values()]


# Python


PACKAGE = "wasgi"
NATIVE_IMPORT = re.compile(r'\bimport\((?:intern!\(py, )?"wasgi\.([\w.]+)"')


def rooms_of_python(root: Path) -> dict[str, Path]:
    """The files of a package: `testing/client` for a module, `testing` for a package's `__init__`."""
    files = [*root.rglob("*.py"), *root.rglob("*.pyi")]
    return {
        "/".join(part for part in path.relative_to(root).with_suffix("").parts if part != "__init__"): path
        for path in files
    }


def imports_of_python(root: Path) -> Iterator[Import]:
    """Each import within the package: at run time, in functions, and under `TYPE_CHECKING`.

    That importing a module runs the `__init__` of the packages around it is not counted: otherwise no package could
    import its own modules.
    """
    rooms = rooms_of_python(root)
    for importer, path in rooms.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
                # a name of a package is a module of it, or else what its `__init__` has
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                package, *parts = name.split(".")
                if package != PACKAGE:
                    continue
                room = "/".join(parts)
                imported = room if room in rooms else room.rpartition("/")[0]
                assert imported in rooms, f"{path}:{node.lineno}: {name} is not there"
                if imported != importer:
                    yield Import(importer, imported, f"{path}:{node.lineno}")


@pytest.fixture(scope="module")
def of_python() -> list[Import]:
    return list(imports_of_python(ROOT / "python" / PACKAGE))


def test_each_python_file_has_its_place(of_python: list[Import]) -> None:
    folders = {folder_of(room) for room in rooms_of_python(ROOT / "python" / PACKAGE)}
    assert folders == set(PYTHON)
    assert {one.importer for one in of_python} >= {"testing/client", "serving/asgi", "app", "outgoing", "", "_wasgi"}


def test_python_imports_what_stands_before_it(of_python: list[Import]) -> None:
    assert out_of_order(of_python, PYTHON) == []


def test_no_python_import_leads_back(of_python: list[Import]) -> None:
    assert circles(of_python) == []


def test_the_native_module_imports_what_is_there() -> None:
    """It imports Python modules by name, when it first needs them."""
    rooms = rooms_of_python(ROOT / "python" / PACKAGE)
    found = set()
    for path in (ROOT / "src").rglob("*.rs"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for name in NATIVE_IMPORT.findall(line):
                assert name.replace(".", "/") in rooms, f"{path}:{number}: wasgi.{name} is not there"
                found.add(name)
    assert {"errors", "headers", "_native.callbacks"} <= found


class TestItself:
    """What breaks the order is found, with its place."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        (tmp_path / "outer").mkdir()
        (tmp_path / "inner").mkdir()
        (tmp_path / "__init__.py").write_text("")
        (tmp_path / "inner" / "__init__.py").write_text("from wasgi.inner import one\n")
        (tmp_path / "inner" / "one.py").write_text("A = 1\n")
        (tmp_path / "outer" / "__init__.py").write_text("from wasgi.inner.one import A\nimport wasgi.inner.one\n")
        return tmp_path

    ORDER: ClassVar = {"inner": "", "outer": "", "": ""}

    def test_an_order_that_is_kept(self, root: Path) -> None:
        imports = list(imports_of_python(root))
        assert {(one.importer, one.imported) for one in imports} == {("inner", "inner/one"), ("outer", "inner/one")}
        assert out_of_order(imports, self.ORDER) == []
        assert circles(imports) == []

    @pytest.mark.parametrize(
        "code",
        [
            "\nfrom wasgi import outer",
            "\nimport wasgi.outer",
            "\nfrom wasgi.outer import A",
            "if TYPE_CHECKING:\n    from wasgi import outer",
            "def later():\n    from wasgi import outer",
        ],
    )
    def test_an_import_that_breaks_the_order(self, root: Path, code: str) -> None:
        path = root / "inner" / "one.py"
        path.write_text(code)
        imports = list(imports_of_python(root))
        assert out_of_order(imports, self.ORDER) == [f"{path}:2: `inner/one` imports `outer`"]
        (circle,) = circles(imports)
        assert f"{path}:2: " in circle

    def test_a_circle_within_a_folder(self, root: Path) -> None:
        (root / "inner" / "one.py").write_text("from wasgi.inner import A\n")
        imports = list(imports_of_python(root))
        assert out_of_order(imports, self.ORDER) == []
        (circle,) = circles(imports)
        assert circle.count("\n") == 1

    def test_a_name_that_is_not_there(self, root: Path) -> None:
        (root / "inner" / "one.py").write_text("from wasgi.gone.away import A\n")
        with pytest.raises(AssertionError, match=r"one.py:1: wasgi.gone.away.A is not there"):
            list(imports_of_python(root))
