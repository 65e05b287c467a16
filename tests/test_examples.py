"""Each example does what its comments say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HELLO, ROOT
from wasgi.testing import every_error_code

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example(path: Path) -> None:
    done = subprocess.run([sys.executable, path, HELLO], capture_output=True, text=True, timeout=50)
    expected = re.findall(r"# prints: (.*)", path.read_text())
    assert expected
    assert (done.returncode, done.stdout.splitlines()) == (0, expected), done.stderr


def run_tests_in(project: Path) -> str:
    """By a pytest run of its own, as its readme says."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--wasgi-report"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_component_in_rust_and_its_tests() -> None:
    said = run_tests_in(ROOT / "examples" / "greeter")
    assert f"{len(every_error_code()) + 12} passed" in said
    assert "greeter.wasm" in said


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_component_in_python_and_its_tests() -> None:
    """It is built first, by `wasgi_build`."""
    assert "6 passed" in run_tests_in(ROOT / "examples" / "dice")
