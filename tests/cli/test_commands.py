"""What all commands have: help, variables, configuration files, errors in one line."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

import wasgi
from tests.cli_docs import PAGE, page
from tests.conftest import HELLO
from wasgi.cli import main
from wasgi.cli.commands import Option
from wasgi.cli.failures import EXIT_CODES
from wasgi.cli.grants import _LIMIT_TYPES, QUEUE
from wasgi.cli.root import root

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(arguments: list[str], captured: Captured, code: int = 2) -> str:
    """The only line of a command that is refused."""
    assert main(arguments) == code
    out, err = captured.readouterr()
    assert out == ""
    assert err.startswith("wasgi: ")
    assert err.count("\n") == 1
    return err.removeprefix("wasgi: ").removesuffix("\n")


class TestHelp:
    def test_of_the_whole(self, capsys: Captured) -> None:
        assert main(["--help"]) == 0
        shown = capsys.readouterr().out
        for name in root.table:
            assert f"  {name} " in shown
        for code in EXIT_CODES:
            assert f"  {code} " in shown
        assert "wasgi serve hello.wasm" in shown

    def test_imports_no_command_and_no_rich(self) -> None:
        script = (
            "import sys\nfrom wasgi.cli import main\nmain(['--help'])\n"
            "print([n for n in sys.modules if n in ('asyncio', 'rich', 'tomllib') or n.startswith('wasgi.cli.')])"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        imported = done.stdout.splitlines()[-1]
        needed = ["signals", "root", "failures", "config", "output", "commands"]
        assert sorted(ast.literal_eval(imported)) == sorted(f"wasgi.cli.{name}" for name in needed)

    @pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["serve", "--help"], ["cache", "info"]])
    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_whose_reader_has_gone(self, arguments: list[str], unbuffered: str) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "wasgi", *arguments]
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment)
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, "")

    def test_the_package_needs_neither_click_nor_rich(self) -> None:
        script = (
            "import sys, wasgi\nwasgi.httpx, wasgi.outgoing, wasgi.testing\nprint({'click', 'rich'} & {*sys.modules})"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == "set()\n"

    @pytest.mark.parametrize("name", list(root.table))
    def test_of_each_command(self, name: str, capsys: Captured) -> None:
        assert main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert f"Usage: wasgi {name}" in shown
        assert max(map(len, shown.splitlines())) <= 120

    def test_of_no_command_is_a_mistake(self, capsys: Captured) -> None:
        assert main([]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "Usage: wasgi COMMAND" in err

    def test_each_option_of_a_server_is_explained_and_has_a_heading(self) -> None:
        command = root.get_command(click.Context(root), "serve")
        assert command is not None
        for param in command.params:
            if isinstance(param, Option):
                assert param.help, param.name
                assert param.section != "Options", param.name
                assert param.metavar or param.is_flag, param.name

    def test_the_limits_are_those_of_the_package(self) -> None:
        limits = wasgi.Limits()
        for name, (kind, _, text) in _LIMIT_TYPES.items():
            value = QUEUE if name == "queue" else getattr(limits, name)
            _, has_default, default = text.partition("[default: ")
            said = kind.convert(default.removesuffix("]"), None, None) if has_default else None
            assert said == value, name
        assert set(_LIMIT_TYPES) == {name for name in dir(limits) if not name.startswith("_")}


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["srve"], "no such command: `srve`; hint: did you mean `serve`?"),
            (["qqq"], "no such command: `qqq`; hint: wasgi --help"),
            (["serve", "--prot", "1"], "no such option: `--prot`; hint: did you mean `--port`?"),
            (["cache"], "missing command; hint: wasgi cache --help"),
            (["cache", "ifno"], "no such command: `ifno`; hint: did you mean `info`?"),
            (["inspect"], "missing argument 'FILE'; hint: wasgi inspect --help"),
            (["serve"], "there is nothing to serve; hint: wasgi serve hello.wasm"),
            (["serve", "--port", "x"], "--port: `x` is not a whole number from 0 to 65535"),
            (["serve", "--port", "65536"], "--port: `65536` is not a whole number from 0 to 65535"),
            (
                ["serve", "--idle-timeout", "1 week"],
                "--idle-timeout: `1 week` is not a number of seconds (`10`, `500ms`, `5m`), or `none`",
            ),
            (
                ["serve", "--memory", "1.5"],
                "--memory: `1.5` is not a number of bytes (`65536`, `64KiB`, `1GiB`), or `none`",
            ),
        ],
    )
    def test_of_the_command_line(self, arguments: list[str], line: str, capsys: Captured) -> None:
        assert refused(arguments, capsys) == line

    def test_control_characters_are_escaped(self, capsys: Captured) -> None:
        assert "\\x1b[31m" in refused(["\x1b[31m"], capsys)


class TestVariables:
    def test_an_error_names_the_variable(self, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
        monkeypatch.setenv("WASGI_SERVE_PORT", "http")
        line = refused(["serve", str(HELLO)], capsys)
        assert line == "variable `WASGI_SERVE_PORT`: `http` is not a whole number from 0 to 65535"

    def test_a_list_is_quoted_as_in_a_shell(self, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
        monkeypatch.setenv("WASGI_RUN_HEADER", "'x")
        line = refused(["run", str(HELLO)], capsys)
        assert line.startswith("variable `WASGI_RUN_HEADER`: No closing quotation; hint: ")

    def test_one_of_a_command_that_has_a_target_in_a_variable(
        self, monkeypatch: pytest.MonkeyPatch, capsys: Captured
    ) -> None:
        monkeypatch.setenv("WASGI_SERVE_TARGETS", "none.wasm")
        assert refused(["serve"], capsys, 3).startswith("`none.wasm` cannot be read: No such file or directory")


class TestFiles:
    def test_an_unknown_key(self, in_a_folder: Path, capsys: Captured) -> None:
        (in_a_folder / "wasgi.toml").write_text("[serve]\nheader_timeout = 3\n")
        line = refused(["serve", str(HELLO)], capsys)
        assert line == "unknown key `header_timeout` in [serve] of `wasgi.toml`; hint: did you mean `header-timeout`?"

    def test_an_unknown_table(self, in_a_folder: Path, capsys: Captured) -> None:
        (in_a_folder / "pyproject.toml").write_text("[tool.wasgi.server]\nport = 3\n")
        line = refused(["serve", str(HELLO)], capsys)
        assert line == "unknown key `tool.wasgi.server` in `pyproject.toml`; hint: did you mean `serve`?"

    def test_a_key_that_stands_above_the_tables(self, in_a_folder: Path, capsys: Captured) -> None:
        (in_a_folder / "wasgi.toml").write_text("port = 3\n")
        line = refused(["serve", str(HELLO)], capsys)
        assert line == "unknown key `port` in `wasgi.toml`; hint: tables are named after commands: [serve]"

    @pytest.mark.parametrize(
        ("content", "line"),
        [
            ("[serve]\nport = 'x'", "`port` in [serve] of `wasgi.toml`: `x` is not a whole number from 0 to 65535"),
            ("[serve]\nport = true", "`port` in [serve] of `wasgi.toml`: `True` is not a whole number"),
            ("[serve]\nport = [1]", "`port` in [serve] of `wasgi.toml`: a list does not fit"),
            ("[serve]\nenv = [[1]]", "`env` in [serve] of `wasgi.toml`: a list does not fit"),
            ("[serve]\nreload = 1979-05-27", "`reload` in [serve] of `wasgi.toml`: `1979-05-27` does not fit"),
            ("serve = 3", "`serve` in `wasgi.toml` is not a table"),
            ("[serve", "`wasgi.toml` is not TOML"),
        ],
    )
    def test_a_value_that_does_not_fit(self, content: str, line: str, in_a_folder: Path, capsys: Captured) -> None:
        (in_a_folder / "wasgi.toml").write_text(content)
        assert refused(["serve", str(HELLO)], capsys).startswith(line)

    def test_one_that_is_not_there(self, capsys: Captured) -> None:
        line = refused(["serve", str(HELLO), "--config", "none.toml"], capsys)
        assert line == "`none.toml` cannot be read: No such file or directory"

    def test_other_tools_have_theirs(self, in_a_folder: Path, capsys: Captured) -> None:
        (in_a_folder / "pyproject.toml").write_text("[project]\nname = 'x'\n[tool.ruff]\nline-length = 1\n")
        assert main(["run", str(HELLO)]) == 0


class TestCompletion:
    @pytest.mark.parametrize("shell", ["zsh", "fish"])
    def test_a_script(self, shell: str, capsys: Captured) -> None:
        assert main(["completion", shell]) == 0
        assert "_WASGI_COMPLETE" in capsys.readouterr().out

    def test_of_another_shell(self, capsys: Captured) -> None:
        assert "'tcsh' is not one of" in refused(["completion", "tcsh"], capsys)

    @pytest.mark.parametrize(
        ("words", "expected"), [("wasgi se", "plain,serve"), ("wasgi serve --header-t", "plain,--header-timeout")]
    )
    def test_of_words(self, words: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
        monkeypatch.setenv("_WASGI_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        assert main([]) == 0
        assert expected in capsys.readouterr().out.splitlines()


def test_the_page_has_each_option_as_it_is() -> None:
    assert PAGE.read_text() == page(PAGE.read_text()), "hint: python -m tests.cli_docs --write"
    assert PAGE.read_text().count("<!-- options of ") == 3
