"""`wasgi_build`: run when what it builds of has changed, and clear when it cannot be run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import HELLO
from wasgi.pytest_plugin.build import BuildError, build
from wasgi.pytest_plugin.build import Project as Built

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestExperimentalApiWarning")

BUILD = """
import os, pathlib, shutil, sys
with open(os.environ["BUILDS"], "a") as log:
    log.write("x")
pathlib.Path("target").mkdir(exist_ok=True)
source = pathlib.Path("src/lib.rs").read_text()
if "error" in source:
    sys.exit("error: it does not compile")
shutil.copy(os.environ["COMPONENT"], "target/hello.wasm")
"""

TEST = """
def test_it(wasgi_app):
    assert wasgi_app("hello.wasm").get("/").status == 200
"""


class Project:
    """A project with a component, under git, whose build is counted."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.log = log
        self.command = f"{sys.executable} build.py"
        self.globs: list[str] = []
        self.stamp: object = None
        monkeypatch.setenv("BUILDS", str(log))
        monkeypatch.setenv("COMPONENT", str(HELLO))
        self.write("build.py", BUILD)
        self.write("src/lib.rs", "fn main() {}")
        self.write("test_it.py", TEST)
        self.write(".gitignore", "/target/\n__pycache__/\n*.log\n")
        self.ini()
        self.git("init", "-q")

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def ini(self, more: str = "") -> None:
        self.write(
            "pytest.ini",
            "[pytest]\naddopts = -p no:randomly\nasyncio_default_fixture_loop_scope = function\n"
            f"wasgi_components = target\nwasgi_build = {self.command}\n{more}",
        )

    def git(self, *words: str, cwd: Path | None = None) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.test", "-c", "protocol.file.allow=always"]
        subprocess.run(["git", *identity, *words], cwd=cwd or self.path, check=True, capture_output=True)

    def run(self, *options: str) -> pytest.RunResult:
        return self.pytester.runpytest(*options)

    def runs(self, *options: str) -> int:
        """How often a run of pytest builds, whose tests pass."""
        before = self.count()
        self.run(*options).assert_outcomes(passed=1)
        return self.count() - before

    def builds(self) -> int:
        """How often it is built, without pytest."""
        before = self.count()
        self.stamp = build(self.command, Built(self.path, [self.path / "target"], self.globs), self.stamp)
        return self.count() - before

    def count(self) -> int:
        return len(self.log.read_text()) if self.log.exists() else 0


@pytest.fixture
def project(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Project:
    return Project(pytester, monkeypatch, tmp_path_factory.mktemp("builds") / "log")


class TestWhenItIsRun:
    def test_once_while_nothing_changes(self, project: Project) -> None:
        assert [project.runs() for _ in range(3)] == [1, 0, 0]
        result = project.run()
        result.stdout.fnmatch_lines(["wasgi: `wasgi_build` was not run: nothing has changed"])

    def test_when_a_source_has_changed(self, project: Project) -> None:
        project.builds()
        project.write("src/lib.rs", "fn main() { }")
        assert [project.builds(), project.builds()] == [1, 0]

    def test_not_when_it_was_only_touched(self, project: Project) -> None:
        project.builds()
        os.utime(project.path / "src" / "lib.rs", (1, 1))
        assert project.builds() == 0

    def test_when_one_was_changed_in_the_same_moment_to_the_same_length(self, project: Project) -> None:
        project.builds()
        source = project.path / "src" / "lib.rs"
        times = source.stat()
        source.write_text("fn niam() {}")
        os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert project.builds() == 1

    @pytest.mark.parametrize("name", ["src/new.rs", "README.md", "a file with é\nand more"])
    def test_when_there_is_another_file(self, project: Project, name: str) -> None:
        project.builds()
        project.write(name, "")
        assert project.builds() == 1
        (project.path / name).unlink()
        assert project.builds() == 1

    @pytest.mark.parametrize("name", ["x.log", "target/other", "__pycache__/x.pyc", "src/__pycache__/y.pyc"])
    def test_not_when_it_is_ignored(self, project: Project, name: str) -> None:
        project.builds()
        project.write(name, "")
        assert project.builds() == 0

    def test_when_a_tracked_file_is_gone(self, project: Project) -> None:
        project.write("src/other.rs", "")
        project.git("add", ".")
        project.builds()
        (project.path / "src" / "other.rs").unlink()
        assert [project.builds(), project.builds()] == [1, 0]

    def test_when_a_tracked_file_that_is_ignored_has_changed(self, project: Project) -> None:
        project.write("kept.log", "a")
        project.git("add", "--force", ".")
        project.builds()
        project.write("kept.log", "b")
        assert project.builds() == 1

    def test_when_a_link_has_another_target(self, project: Project) -> None:
        link = project.path / "src" / "link.rs"
        link.symlink_to("lib.rs")
        project.builds()
        link.unlink()
        link.symlink_to("../src/lib.rs")
        assert project.builds() == 1

    def test_when_a_file_of_a_submodule_has_changed(self, project: Project, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.mkdir()
        project.git("init", "-q", cwd=other)
        (other / "lib.rs").write_text("a")
        project.git("add", ".", cwd=other)
        project.git("commit", "-qm", "a", cwd=other)
        project.git("submodule", "add", "-q", str(other), "sub")
        assert [project.builds(), project.builds()] == [1, 0]
        project.write("sub/lib.rs", "b")
        assert [project.builds(), project.builds()] == [1, 0]

    def test_when_a_component_is_not_there(self, project: Project) -> None:
        project.builds()
        (project.path / "target" / "hello.wasm").unlink()
        assert [project.builds(), project.builds()] == [1, 0]

    def test_when_a_component_is_another(self, project: Project) -> None:
        project.builds()
        project.write("target/hello.wasm", "(component)")
        assert [project.builds(), project.builds()] == [1, 0]

    def test_when_the_command_is_another(self, project: Project) -> None:
        project.builds()
        project.command += " more"
        assert [project.builds(), project.builds()] == [1, 0]

    def test_after_a_build_that_failed(self, project: Project) -> None:
        project.builds()
        project.write("src/lib.rs", "error")
        for _ in range(2):
            with pytest.raises(BuildError):
                project.builds()
        assert project.count() == 3
        project.write("src/lib.rs", "fn main() {}")
        assert project.builds() == 0, "the components are those of these sources"

    def test_when_pytests_cache_is_cleared(self, project: Project) -> None:
        project.runs()
        assert project.runs("--cache-clear") == 1

    def test_each_time_without_that_cache(self, project: Project) -> None:
        assert [project.runs("-p", "no:cacheprovider") for _ in range(2)] == [1, 1]

    def test_in_no_repository(self, project: Project) -> None:
        shutil.rmtree(project.path / ".git")
        assert [project.builds() for _ in range(2)] == [1, 0]
        for name in (".cache/x", "target/more", "node_modules/x", "src/__pycache__/x"):
            project.write(name, "")
        assert project.builds() == 0
        project.write("src/deep/new.rs", "")
        assert [project.builds(), project.builds()] == [1, 0]

    def test_each_time_where_there_are_too_many_files(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.rmtree(project.path / ".git")
        monkeypatch.setattr("wasgi.pytest_plugin.build._MOST", 3)
        assert [project.builds() for _ in range(2)] == [1, 1]

    def test_components_that_are_named_from_the_root(self, project: Project) -> None:
        options = ("-o", "wasgi_components=")
        project.write("test_it.py", TEST.replace("hello.wasm", "target/hello.wasm"))
        assert [project.runs(*options) for _ in range(2)] == [1, 0]
        (project.path / "target" / "hello.wasm").unlink()
        assert project.runs(*options) == 1

    def test_each_time_where_there_are_no_components(self, project: Project) -> None:
        project.write("test_it.py", "def test_it(): pass")
        project.write("build.py", BUILD + '\nos.unlink("target/hello.wasm")\n')
        assert [project.runs("-o", "wasgi_components=") for _ in range(2)] == [1, 1]

    def test_components_that_git_does_not_ignore_are_no_sources(self, project: Project) -> None:
        project.write(".gitignore", "__pycache__/\n")
        assert [project.builds() for _ in range(3)] == [1, 0, 0]

    def test_what_a_build_writes_beside_is_no_change(self, project: Project) -> None:
        project.write("build.py", BUILD + '\nopen("notes.txt", "w").write("built")\n')
        assert [project.builds() for _ in range(3)] == [1, 0, 0]

    def test_a_source_that_changes_while_it_builds_is_one(self, project: Project) -> None:
        """The build may have read it before."""
        project.write("build.py", BUILD + '\nopen("src/lib.rs", "w").write("newer")\n')
        assert [project.builds() for _ in range(3)] == [1, 1, 0]

    def test_not_to_look_at_tests(self, project: Project) -> None:
        for option in ("--collect-only", "--fixtures", "--setup-plan", "--markers", "--help"):
            project.run(option)
        assert project.count() == 0

    def test_not_if_it_is_not_wanted(self, project: Project) -> None:
        project.write("src/lib.rs", "error")
        project.write("target/hello.wasm", "(component)")
        project.write("test_it.py", "def test_it(): pass")
        assert project.runs("--wasgi-no-build") == 0


class TestSources:
    @pytest.mark.parametrize(
        ("globs", "changed", "builds"),
        [
            (["src"], "src/deep/er.rs", 1),
            (["src"], "test_more.txt", 0),
            (["src/*.rs"], "src/deep/er.rs", 0),
            (["src/**/*.rs"], "src/deep/er.rs", 1),
            (["src/lib.rs", "Cargo.toml"], "Cargo.toml", 1),
            (["../{name}/src"], "src/lib.rs", 1),
            (["src"], "src/__pycache__/x.pyc", 0),
            (["."], "target/hello.wasm.d", 1),
        ],
    )
    def test_those_that_are_named(self, project: Project, globs: list[str], changed: str, builds: int) -> None:
        project.write("Cargo.toml", "")
        project.globs = [pattern.replace("{name}", project.path.name) for pattern in globs]
        assert [project.builds(), project.builds()] == [1, 0]
        project.write(changed, "changed")
        assert [project.builds(), project.builds()] == [builds, 0]

    def test_without_git(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(project.path))
        project.globs = ["src"]
        assert [project.builds(), project.builds()] == [1, 0]

    def test_one_that_is_not_there_is_told_of(self, project: Project) -> None:
        project.ini("wasgi_build_sources =\n    src\n    scr/*.rs\n")
        result = project.run()
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["ERROR: `wasgi_build_sources` matches no file: scr/[*].rs"])


class TestFailures:
    @pytest.fixture
    def fails(self, project: Project) -> Callable[[str], str]:
        def fails(command: str) -> str:
            project.command = command
            with pytest.raises(BuildError) as raised:
                project.builds()
            assert "--wasgi-no-build" in str(raised.value)
            return str(raised.value)

        return fails

    @pytest.mark.parametrize("command", ["no-such-cargo build", "cargo 'build", "./src", "sh -c 'exit 3'", '""'])
    def test_they_are_usage_errors(self, project: Project, command: str) -> None:
        project.command = command
        project.ini()
        result = project.run()
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert result.stderr.str().startswith("ERROR: `wasgi_build` ")
        assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()

    def test_a_tool_that_is_not_there(self, fails: Callable[[str], str]) -> None:
        text = fails("no-such-cargo build --release")
        assert "`wasgi_build` cannot be run: there is no 'no-such-cargo' on the PATH: no-such-cargo build" in text
        assert "hint: install it" in text

    def test_one_that_is_no_program(self, fails: Callable[[str], str], project: Project) -> None:
        assert "Permission denied" in fails("./src/lib.rs")
        (project.path / "src" / "lib.rs").chmod(0o755)
        assert "Exec format error" in fails("./src/lib.rs")
        assert "`wasgi_build` cannot be run: " in fails("./src")
        assert "`wasgi_build` cannot be run: " in fails("./src/lib.rs/x")

    def test_what_is_no_command(self, fails: Callable[[str], str]) -> None:
        assert "`wasgi_build` is not a command: No closing quotation: cargo 'build" in fails("cargo 'build")
        assert "`wasgi_build` cannot be run" in fails('""')

    @pytest.mark.parametrize(
        ("command", "word"),
        [
            ("cd src && make", "'cd'"),
            ("true && touch made", "'&&'"),
            ("true || touch made", "'||'"),
            ("true | tee made", "'|'"),
            ("RUSTFLAGS=-g touch made", "'RUSTFLAGS=-g'"),
            ("export A=1", "'export'"),
        ],
    )
    def test_one_that_wants_a_shell(
        self, fails: Callable[[str], str], project: Project, command: str, word: str
    ) -> None:
        text = fails(command)
        assert f"`wasgi_build` is run without a shell, which {word} needs: {command}\n" in text
        assert f"hint: a shell runs it so: sh -c '{command}'\n" in text
        assert not (project.path / "made").exists()

    @pytest.mark.parametrize("command", ["false; true", "false a ; true", "ls > made", "ls $(true)", "false &"])
    def test_one_that_may_have_wanted_a_shell(self, fails: Callable[[str], str], command: str) -> None:
        text = fails(command)
        assert f"hint: a shell runs it so: sh -c '{command}'" in text

    def test_what_the_hint_says_is_run(self, project: Project) -> None:
        project.command = f"sh -c 'cd src && cd .. && A=1 {project.command} | cat; test -e target/hello.wasm'"
        assert project.builds() == 1

    def test_arguments_that_only_look_like_it(self, project: Project) -> None:
        project.write("build.py", BUILD + "sys.exit(0 if sys.argv[1:] == ['A=1', ';', 'a;b', 'cd'] else 'argv')\n")
        project.command += " A=1 ';' 'a;b' cd"
        assert project.builds() == 1

    def test_one_that_fails(self, fails: Callable[[str], str], project: Project) -> None:
        project.write("src/lib.rs", "error")
        text = fails(project.command)
        assert "`wasgi_build` failed with status 1: " in text
        assert "error: it does not compile" in text

    def test_one_that_is_ended(self, fails: Callable[[str], str]) -> None:
        assert "`wasgi_build` failed by signal 9: " in fails("sh -c 'kill -9 $$'")

    def test_one_that_asks_gets_no_answer(self, fails: Callable[[str], str]) -> None:
        assert "`wasgi_build` failed with status 1: " in fails("sh -c 'read answer'")


class TestOtherSettings:
    @pytest.mark.parametrize("value", ["soon", "", "-1", "0", "nan", "inf"])
    def test_a_timeout_that_is_no_time(self, project: Project, value: str) -> None:
        result = project.run("-o", f"wasgi_timeout={value}")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: `wasgi_timeout` must be a number of seconds above 0: {value}"])
