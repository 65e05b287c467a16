"""Each example does what its comments say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from wasgi.testing import every_error_code

from .conftest import HELLO, ROOT

GREETER = ROOT / "examples" / "greeter"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example(path: Path) -> None:
    done = subprocess.run([sys.executable, path, HELLO], capture_output=True, text=True, timeout=50)
    expected = re.findall(r"# prints: (.*)", path.read_text())
    assert expected
    assert (done.returncode, done.stdout.splitlines()) == (0, expected), done.stderr


def test_the_project_with_tests() -> None:
    """By a pytest run of its own, as its readme says."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--wasgi-report"]
    done = subprocess.run(command, cwd=GREETER, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout
    tests = len(every_error_code()) + 11
    assert f"{tests} passed" in done.stdout
    assert "greeter.wasm" in done.stdout
