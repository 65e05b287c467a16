"""The file of a test's cassette: one for each test, whatever it is called, on every file system."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasgi.pytest_plugin.filenames import of_module, of_test

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestExperimentalApiWarning")

LONG = "x" * 300
NAMES = [
    ["test_it"],
    ["TestA", "test_it"],
    ["TestB", "test_it"],
    ["Testa", "test_it"],
    ["TestA", "TestB", "test_it"],
    ["TestA.TestB", "test_it"],
    ["TestA.test_it"],
    ["test_it[a/b]"],
    ["test_it[a_b]"],
    ["test_it[a?b]"],
    ["test_it[a\\b]"],
    ["test_it[a:b]"],
    ["test_it[a b]"],
    ["test_it[A_b]"],
    ["test_it[../../x]"],
    ["test_it[]"],
    ["test_it[é]"],
    [unicodedata.normalize("NFD", "test_it[é]")],
    ["test_it[\ufb01]"],
    ["test_it[fi]"],
    ["test_it[\ud800]"],
    ["test_it[\0]"],
    ["test_it[a.]"],
    ["test_it[a]."],
    ["test_it[a] "],
    [f"test_it[{LONG}a]"],
    [f"test_it[{LONG}b]"],
    [f"test_it[{'é' * 200}]"],
    ["con"],
    ["CON"],
    ["nul.txt"],
    ["aux.test_it"],
    ["aux", "test_it"],
    ["com1"],
    ["lpt9.x.y"],
    [".hidden"],
    ["..", "x"],
    ["."],
    [""],
    ["", "test_it"],
    ["-x"],
    ["~x"],
    ["test_it-0123456789ab"],
]


def on_any_system(name: str) -> str:
    """What a file system makes of it that folds case and normalises."""
    return unicodedata.normalize("NFKD", name).casefold()


def is_name_of_a_file(name: str) -> bool:
    """On Linux, macOS and Windows, in an encrypted folder, with an ending."""
    device = name.split(".")[0].lower()
    return (
        0 < len(name.encode()) <= 130
        and name.isascii()
        and name.isprintable()
        and not set(name) & set('<>:"/\\|?*')
        and not name.startswith((".", "-", " "))
        and device not in ("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)))
    )


class TestNames:
    def test_each_has_its_own(self) -> None:
        found = [on_any_system(of_test(names)) for names in NAMES]
        assert len(set(found)) == len(NAMES)

    @pytest.mark.parametrize("names", NAMES)
    def test_each_can_be_one(self, names: list[str]) -> None:
        assert is_name_of_a_file(of_test(names))

    def test_what_is_made_of_another_name_is_not_the_same(self) -> None:
        for names in NAMES:
            made = of_test(names)
            assert names == [made] or on_any_system(of_test([made])) != on_any_system(made)

    @given(st.lists(st.lists(st.text(), min_size=1, max_size=3), min_size=2, max_size=20, unique_by=tuple))
    def test_of_any_names(self, many: list[list[str]]) -> None:
        found = [of_test(names) for names in many]
        assert len(set(map(on_any_system, found))) == len(many)
        assert all(map(is_name_of_a_file, found))

    @pytest.mark.parametrize("name", ["test_it", "test_it[1-a.b]", "test_it_2", "test_it[a-b]"])
    def test_plain_ones_are_themselves(self, name: str) -> None:
        assert of_test([name]) == name

    def test_others_can_be_recognised(self) -> None:
        assert of_test(["TestA", "test_it[a/b]"]).startswith("TestA.test_it[a_b]-")

    def test_of_modules(self) -> None:
        names = ["test_a.py", "test_a.txt", "test_a.txt.py", "test_a.b.py", "test_A.py", "test_é.py"]
        found = [of_module(name) for name in names]
        assert len(set(found)) == len(names)
        assert found[0] == "test_a"


@pytest.fixture
def run(pytester: pytest.Pytester, components: Path) -> Callable[..., pytest.RunResult]:
    pytester.makeini(
        "[pytest]\naddopts = -p no:randomly\nasyncio_default_fixture_loop_scope = function\n"
        f"wasgi_components = {components}\npython_classes = Test* Shared\n"
        "disable_test_id_escaping_and_forfeit_all_rights_to_community_support = True\n"
    )

    def run(source: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_api=source)
        return pytester.runpytest(*options)

    return run


PREAMBLE = """
import pytest
import wasgi

def real(request):
    return wasgi.Response(body=request.path)

cassette = pytest.mark.wasgi_cassette(upstream=real)

def fetch(wasgi_app, path):
    assert wasgi_app("probe.wasm").get(f"/fetch?url=https://api.test/{path}").text == f"/{path}"
"""

TESTS = """
class Shared:
    @cassette
    def test_it(self, wasgi_app):
        fetch(wasgi_app, type(self).__name__)

class TestA(Shared):
    pass

class TestB(Shared):
    class TestC(Shared):
        pass

class Testa(Shared):
    pass

@cassette
def test_it(wasgi_app):
    fetch(wasgi_app, "function")

@cassette
@pytest.mark.parametrize("n", range(9), ids=["a/b", "a_b", "a?b", "A_b", "é", "e\\u0301", "", "x" * 300, "../up"])
def test_ids(wasgi_app, n):
    fetch(wasgi_app, n)
"""


class TestMark:
    def test_each_test_has_its_own(self, run: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
        count = 6 + 9
        run(PREAMBLE + TESTS).assert_outcomes(passed=count)
        folder = pytester.path / "cassettes" / "test_api"
        files = sorted(folder.rglob("*"))
        assert len({on_any_system(file.name) for file in files}) == count
        assert folder / "test_it.json" in files
        asked = [exchange["request"]["url"] for file in files for exchange in json.loads(file.read_text())["exchanges"]]
        assert len(set(asked)) == len(asked) == count
        run(PREAMBLE + TESTS, "--wasgi-record=none").assert_outcomes(passed=count)
        assert sorted(folder.rglob("*")) == files

    def test_whatever_runs_it(self, run: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
        """From another folder, by its name, or by a worker of pytest-xdist."""
        run(PREAMBLE + TESTS).assert_outcomes(passed=15)
        marked = 'pytestmark = pytest.mark.xdist_group("g")\n' + TESTS
        run(PREAMBLE + marked, "--wasgi-record=none", "-n2", "--dist=loadgroup").assert_outcomes(passed=15)
        test = f"{pytester.path / 'test_api.py'}::TestB::TestC::test_it"
        options = ["--wasgi-record=none", "--rootdir", str(pytester.path.parent), "-c", str(pytester.path / "tox.ini")]
        pytester.runpytest(*options, test).assert_outcomes(passed=1)

    def test_a_text_with_doctests_beside_a_module(
        self, run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
    ) -> None:
        pytester.maketxtfile(test_api=">>> 1\n1\n")
        pytester.makeconftest(
            PREAMBLE
            + """
@pytest.fixture(autouse=True)
def fetched(request, wasgi_app):
    fetch(wasgi_app, request.path.suffix[1:])

def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(cassette)
"""
        )
        run("def test_api(): pass\n").assert_outcomes(passed=2)
        assert len(list((pytester.path / "cassettes").rglob("*.json"))) == 2

    @pytest.mark.parametrize(
        "tests",
        [
            """
@pytest.mark.wasgi_cassette(upstream=real, path="one.json")
@pytest.mark.parametrize("n", [1, 2])
def test_it(wasgi_app, n):
    fetch(wasgi_app, n)
""",
            """
@pytest.mark.wasgi_cassette(upstream=real, path="one.json")
class TestIt:
    def test_1(self, wasgi_app):
        fetch(wasgi_app, 1)

    def test_2(self, wasgi_app):
        fetch(wasgi_app, 2)
""",
            """
@pytest.mark.wasgi_cassette(upstream=real, path="one.json")
def test_1(wasgi_app):
    fetch(wasgi_app, 1)

@pytest.mark.wasgi_cassette(upstream=real, path="x/../One.json")
def test_2(wasgi_app):
    fetch(wasgi_app, 2)
""",
            """
@cassette
def test_1(wasgi_app):
    fetch(wasgi_app, 1)

@pytest.mark.wasgi_cassette(upstream=real, path="cassettes/test_api/test_1.json")
def test_2(wasgi_app):
    fetch(wasgi_app, 2)
""",
        ],
        ids=["parameters", "a class", "another spelling", "another's own"],
    )
    def test_a_path_is_that_of_one_test(
        self, run: Callable[..., pytest.RunResult], pytester: pytest.Pytester, tests: str
    ) -> None:
        result = run(PREAMBLE + tests)
        result.assert_outcomes(errors=2)
        result.stdout.fnmatch_lines(["*.json is the cassette of several tests, *1*, *2*; hint: without `path` *"])
        assert not list(pytester.path.rglob("*.json"))

    def test_a_path_of_ones_own(self, run: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
        test = """
@pytest.mark.wasgi_cassette(upstream=real, path="kept/one.json")
def test_it(wasgi_app):
    fetch(wasgi_app, 1)
"""
        for _ in range(2):
            run(PREAMBLE + test).assert_outcomes(passed=1)
        assert (pytester.path / "kept" / "one.json").is_file()

    def test_one_of_an_earlier_name_is_told_of(
        self, run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
    ) -> None:
        folder = pytester.path / "cassettes" / "test_api"
        folder.mkdir(parents=True)
        (folder / "test_it.json").write_text("{}")
        result = run(
            PREAMBLE + "class TestA:\n    @cassette\n    def test_it(self, wasgi_app): pass\n", "--wasgi-record=none"
        )
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(
            ["*there is no cassette *TestA.test_it-*; hint: earlier releases called it test_it.json*"]
        )


def test_names_that_are_too_long_for_the_system_are_none(tmp_path: Path) -> None:
    (tmp_path / f"{of_test([LONG])}.json").write_text("")
