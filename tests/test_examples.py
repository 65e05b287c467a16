"""Each example does what its comments say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import HELLO, ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example(path: Path) -> None:
    done = subprocess.run([sys.executable, path, HELLO], capture_output=True, text=True, timeout=50)
    expected = re.findall(r"# prints: (.*)", path.read_text())
    assert expected
    assert (done.returncode, done.stdout.splitlines()) == (0, expected), done.stderr
