"""The house: in which order its folders import one another, and that no import leads back.

The order is that of the plan in ARCHITECTURE.md. For each language there is a function that names its files, and one
that reads their imports; the rest is shared.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

ROOT = Path(__file__).parents[1]
PLAN = (ROOT / "ARCHITECTURE.md").read_text().partition("## The plan\n")[2].partition("\n## ")[0]


def paths_in_plan(house: str) -> list[str]:
    """What the plan lists of a house, `src` or `python/wasgi`: `http/` for a folder, `http/url.rs` for a file."""
    table = PLAN.partition(f"### `{house}/`")[2].partition("\n### ")[0]
    names = re.findall(r"^\| (`[^|]+`) \| \S", table, re.MULTILINE)
    return [path for cell in names for path in re.findall(r"`([^`]+)`", cell)]


def order_of(house: str) -> list[str]:
    """The folders, and the files of the top level: each imports only those before it, and files of its own."""
    top = [path.removesuffix("/") for path in paths_in_plan(house) if "/" not in path.removesuffix("/")]
    stems = [path.partition(".")[0] for path in top]
    return ["" if stem in ("lib", "__init__") else stem for stem in stems]


@dataclass(frozen=True)
class Import:
    """One file imports another: both as paths from the root of their house, without suffix."""

    importer: str
    imported: str
    where: str

    def __str__(self) -> str:
        return f"{self.where}: `{self.importer or 'the root'}` imports `{self.imported or 'the root'}`"


def folder_of(room: str) -> str:
    """The folder of a file, or a file of the top level itself."""
    return room.partition("/")[0]


def out_of_order(imports: list[Import], order: Iterable[str]) -> list[str]:
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


# Rust


NOT_CODE = re.compile(
    r"""//[^\n]*                        # a comment to the end of its line
      | /\*.*?\*/                      # a comment in the line
      | \bb?r(\#*)".*?"\1              # a raw string
      | "(?:[^"\\]|\\.)*"              # a string
      | '(?:[^'\\\n]|\\[^']+|\\')'     # a character, not a lifetime
    """,
    re.DOTALL | re.VERBOSE,
)
ONLY_IN_TESTS = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\n]*\]\s*)*(use\b)?")
INLINE_MODULE = re.compile(r"\bmod (\w+) \{")
CHILD = re.compile(r"\bmod (\w+);")
USE = re.compile(r"\buse\s+([^;]+);")


def blank(code: str, begin: int, end: int) -> str:
    """The code without a part of it, whose lines stay."""
    return code[:begin] + re.sub(r"[^\n]", " ", code[begin:end]) + code[end:]


def end_of_item(code: str, begin: int) -> int:
    """Where an item ends: at its `;`, or with its block."""
    depth = 0
    for found in re.compile(r"[;{}]").finditer(code, begin):
        depth += {"{": 1, "}": -1, ";": 0}[found[0]]
        if depth <= 0:
            return found.end()
    return len(code)


def code_of(path: Path) -> str:
    """The code of a file, line for line: without comments, strings, and what only tests compile."""
    code = path.read_text()
    for found in NOT_CODE.finditer(code):
        code = blank(code, *found.span())
    while item := ONLY_IN_TESTS.search(code):
        end = code.index(";", item.end()) + 1 if item[1] else end_of_item(code, item.end())
        code = blank(code, item.start(), end)
    return code


def rooms_of_rust(root: Path) -> dict[str, Path]:
    """The files of the crate: `http/url` for a module, `http` for a folder's `mod.rs`, nothing for `lib.rs`."""
    files = [path for path in root.rglob("*.rs") if path.name != "tests.rs"]
    return {
        "/".join(part for part in path.relative_to(root).with_suffix("").parts if part not in ("mod", "lib")): path
        for path in files
    }


def leaves(tree: str, begin: int) -> Iterator[tuple[str, int]]:
    """The paths of a `use` that may have braces, each with its place: `a::{b, c::{d}}` has `a::b` and `a::c::d`."""
    prefixes = [""]
    for found in re.compile(r"([\w:*\s]*)([{},]|$)").finditer(tree):
        name = re.sub(r"\s+as\s+\w+|\s", "", found[1])
        if found[2] == "{":
            prefixes.append(prefixes[-1] + name)
        elif name:
            yield prefixes[-1] + name, begin + found.end(1) - len(found[1].lstrip())
        if found[2] == "}":
            prefixes.pop()


def paths_of_rust(code: str) -> Iterator[tuple[str, int]]:
    """Each path within the crate that the code names, in a `use` or where it stands, and its place in the code."""
    for found in USE.finditer(code):
        yield from leaves(found[1], found.start(1))
        code = blank(code, *found.span())
    first = "|".join(["crate", "super", "self", *CHILD.findall(code)])
    for found in re.finditer(rf"(?<!::)\b(?:{first})(?:::\w+)+", code):
        yield found[0], found.start()


def imports_of_rust(root: Path) -> Iterator[Import]:
    """Each path from one file of the crate into another.

    That a folder's `mod.rs` declares its modules is not counted: otherwise no folder could have any. A name that a file
    hands on (`pub use`) is that file's.
    """
    rooms = rooms_of_rust(root)
    for importer, path in rooms.items():
        code = code_of(path)
        own = importer.split("/") if importer else []
        children = CHILD.findall(code)
        inline = [(found[1], found.start(), end_of_item(code, found.start())) for found in INLINE_MODULE.finditer(code)]
        for name, place in paths_of_rust(code):
            first, *rest = name.split("::")
            here = own + [module for module, begin, end in inline if begin < place < end]
            if first == "crate":
                here = []
            elif first in ("self", "super"):
                here = here[: len(here) - [first, *rest].count("super")]
                rest = [part for part in rest if part != "super"]
            elif first in children:
                here = [*own, first]
            else:
                continue
            parts = [*here, *rest]
            imported = next(room for n in range(len(parts), -1, -1) if (room := "/".join(parts[:n])) in rooms)
            if imported != importer:
                yield Import(importer, imported, f"{path}:{code.count(chr(10), 0, place) + 1}")


def mentions(root: Path, crate: str) -> list[str]:
    """The lines of code that name a crate: each `path:line`, by the file's place in its house."""
    return [
        f"{path.relative_to(root)}:{number}"
        for path in sorted(rooms_of_rust(root).values())
        for number, line in enumerate(code_of(path).splitlines(), 1)
        if re.search(rf"\b{crate}\b", line)
    ]


# The house as it stands


SRC = ROOT / "src"
WASGI = ROOT / "python" / PACKAGE


@pytest.fixture(scope="module")
def of_rust() -> list[Import]:
    return list(imports_of_rust(SRC))


def test_each_rust_file_has_its_place(of_rust: list[Import]) -> None:
    assert {folder_of(room) for room in rooms_of_rust(SRC)} == set(order_of("src"))
    assert {one.importer for one in of_rust} >= {"app", "http/url_pattern", "network/pool", "py/executor/threads", ""}


def test_rust_imports_what_stands_before_it(of_rust: list[Import]) -> None:
    assert out_of_order(of_rust, order_of("src")) == []


def test_no_rust_import_leads_back(of_rust: list[Import]) -> None:
    assert circles(of_rust) == []


def test_only_the_folder_py_knows_python() -> None:
    found = mentions(SRC, "pyo3")
    assert found
    assert [line for line in found if not line.startswith(("py/", "lib.rs:"))] == []


RUST_TYPE = re.compile(
    r"(?P<attributes>(?:^[ \t]*(?:#\[|///)[^\n]*\n)*)"
    r"^[ \t]*(?:pub(?:\([^)]*\))? )?(?:struct|enum) (?P<name>\w+)[^\n{;(]*(?P<fields>\{[^\n]*\}\n|\{.*?^\}|\([^;]*\);)",
    re.DOTALL | re.MULTILINE,
)

# Only classes for Python have these, or a function while it runs.
OWNED_BY_CLASSES = {"Origin", "State", "Outgoing", "Sink", "All"}


def loose_references(text: str) -> list[str]:
    """Fields of Rust's own structs and enums that refer to Python, and that a thread without the GIL must not drop."""
    found = []
    for kind in RUST_TYPE.finditer(text):
        if "#[pyclass" in kind["attributes"] or kind["name"] in OWNED_BY_CLASSES:
            continue
        loose = [
            field.strip()
            for field in kind["fields"].splitlines()
            if re.search(r"\bPy<|\bPyErr\b|\bPyResult<", re.sub(r"Held<.*", "", field))
        ]
        found += [f"{kind['name']}: {field}" for field in loose]
    return found


def test_what_rust_holds_of_python_may_be_dropped_by_any_thread() -> None:
    """PyO3 lists what is dropped without the GIL, under a lock that a fork must not find taken (`py/held.rs`)."""
    for path in (SRC / "py").rglob("*.rs"):
        assert loose_references(path.read_text()) == [], path
    assert loose_references("struct A {\n    x: Py<PyAny>,\n    y: Held<Py<PyAny>>,\n}\n") == ["A: x: Py<PyAny>,"]
    assert loose_references("enum A {\n    X(PyErr),\n}\nstruct B(Option<PyResult<()>>);\n") == [
        "A: X(PyErr),",
        "B: (Option<PyResult<()>>);",
    ]
    assert loose_references("#[pyclass(frozen)]\npub struct A {\n    x: Py<PyAny>,\n}\n") == []


def test_nothing_of_pythons_is_left_half_made() -> None:
    """A forked child would wait for whoever makes it: see `py/once.rs`."""
    found = mentions(SRC, r"PyOnceLock|GILOnceCell|OnceExt|OnceLockExt|intern!|LazyLock|lazy_static")
    assert [line for line in found if not line.startswith("py/once.rs:")] == []


def test_the_gil_is_taken_and_given_back_in_one_place() -> None:
    """`py/held.rs` has to know who has it."""
    found = [*mentions(SRC, r"py\.detach"), *mentions(SRC, "Python::attach")]
    assert found
    assert [line for line in found if not line.startswith("py/held.rs:")] == []


def test_each_rust_folder_begins_with_its_purpose() -> None:
    for path in SRC.rglob("mod.rs"):
        assert path.read_text().startswith("//! "), f"{path}:1: what is this folder for?"


@pytest.fixture(scope="module")
def of_python() -> list[Import]:
    return list(imports_of_python(WASGI))


def test_each_python_file_has_its_place(of_python: list[Import]) -> None:
    assert {folder_of(room) for room in rooms_of_python(WASGI)} == set(order_of("python/wasgi"))
    assert {one.importer for one in of_python} >= {"testing/client", "serving/asgi", "app", "outgoing", "", "_wasgi"}


def test_python_imports_what_stands_before_it(of_python: list[Import]) -> None:
    assert out_of_order(of_python, order_of("python/wasgi")) == []


def test_no_python_import_leads_back(of_python: list[Import]) -> None:
    assert circles(of_python) == []


def test_the_native_module_imports_what_is_there() -> None:
    """It imports Python modules by name, when it first needs them."""
    rooms = rooms_of_python(WASGI)
    found = set()
    for path in SRC.rglob("*.rs"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for name in NATIVE_IMPORT.findall(line):
                assert name.replace(".", "/") in rooms, f"{path}:{number}: wasgi.{name} is not there"
                found.add(name)
    assert {"errors", "headers", "_native.callbacks"} <= found


def test_tests_stand_in_the_folders_of_what_they_test() -> None:
    """What is about the whole, or a file of the top level, stands at the top."""
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders - {*order_of("src"), *order_of("python/wasgi")} == set()


class TestOfPython:
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

    ORDER: ClassVar = ["inner", "outer", ""]

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


class TestOfRust:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for path, code in {
            "lib.rs": "mod inner;\nmod outer;\nuse pyo3::prelude::*;\n",
            "inner/mod.rs": "mod one;\nfn f() -> one::One {\n    one::One\n}\n",
            "inner/one.rs": "pub struct One;\n",
            "outer/mod.rs": "mod two;\npub use two::Two;\n",
            "outer/two.rs": "use std::fmt;\nuse crate::{\n    inner::{self, one::{One as A}},\n};\npub struct Two;\n",
        }.items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(code)
        return tmp_path

    ORDER: ClassVar = ["inner", "outer", ""]

    def test_an_order_that_is_kept(self, root: Path) -> None:
        imports = list(imports_of_rust(root))
        assert {(one.importer, one.imported, one.where.rpartition("/")[2]) for one in imports} == {
            ("inner", "inner/one", "mod.rs:2"),
            ("inner", "inner/one", "mod.rs:3"),
            ("outer", "outer/two", "mod.rs:2"),
            ("outer/two", "inner", "two.rs:3"),
            ("outer/two", "inner/one", "two.rs:3"),
        }
        assert out_of_order(imports, self.ORDER) == []
        assert circles(imports) == []

    @pytest.mark.parametrize(
        "code",
        [
            "\nuse crate::outer::Two;",
            "use std::fmt;\npub(crate) use crate::{outer::Two};",
            "const QUOTE: char = '\"';\nfn f(_: super::super::outer::Two) {}",
            "fn f<'a>(_: &'a str) {}\nfn g() { crate::outer::two::Two }",
            "mod inline {\n    use super::super::super::outer::Two; }",
            "#[cfg(test)] mod tests { fn f() {} }\nuse crate::outer;",
            '/* " */\nuse crate::outer::*; // "',
        ],
    )
    def test_an_import_that_breaks_the_order(self, root: Path, code: str) -> None:
        path = root / "inner" / "one.rs"
        path.write_text(code)
        (found,) = out_of_order(list(imports_of_rust(root)), self.ORDER)
        assert found.startswith(f"{path}:2: `inner/one` imports `outer")
        assert all(f"{path}:2: " in circle for circle in circles(list(imports_of_rust(root))))

    @pytest.mark.parametrize(
        "code",
        [
            "// use crate::outer::Two;",
            "/* use crate::outer::Two; */",
            'const A: &str = "\\" use crate::outer::Two; ";',
            'const A: &str = r#"" use crate::outer::Two; "#;',
            "#[cfg(test)]\n#[allow(dead_code)]\nmod tests {\n    fn f() {}\n    use crate::outer::Two;\n}",
            "#[cfg(test)]\nuse crate::{outer::Two};",
            "mod inline {\n    use super::One;\n}",
        ],
    )
    def test_what_is_no_import(self, root: Path, code: str) -> None:
        (root / "inner" / "one.rs").write_text(code)
        assert [one for one in imports_of_rust(root) if one.importer == "inner/one"] == []

    def test_a_circle_within_a_folder(self, root: Path) -> None:
        (root / "outer" / "two.rs").write_text("use super::Two;\n")
        imports = list(imports_of_rust(root))
        assert out_of_order(imports, self.ORDER) == []
        (circle,) = circles(imports)
        assert circle.count("\n") == 1

    def test_a_crate_that_is_named(self, root: Path) -> None:
        (root / "inner" / "one.rs").write_text("//! pyo3\nfn f() -> pyo3::Python {}\n")
        assert mentions(root, "pyo3") == ["inner/one.rs:2", "lib.rs:3"]
