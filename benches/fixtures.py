"""What the fixtures cost a test: 1,000 tests of the hello guest with `wasgi_app`, and 1,000 with a bare call.

No other plug-in is loaded: each has hooks of its own around every fixture.

just bench-fixtures
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .asgi import HELLO

TESTS = 1000
SOURCE = f"""
import pytest
import wasgi

app = wasgi.App({str(HELLO)!r})

@pytest.mark.parametrize("n", range({TESTS}))
def test_bare(n):
    assert app.handle(wasgi.Request("GET", "http://component.test/")).text == "Hello, World!"

@pytest.mark.parametrize("n", range({TESTS}))
def test_client(wasgi_app, n):
    assert wasgi_app({str(HELLO)!r}).get("/").text == "Hello, World!"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_cost.py").write_text(SOURCE)
        for _ in range(options.rounds):
            for name in ("test_bare", "test_client"):
                command = [sys.executable, "-m", "pytest", "-q", "-p", "wasgi.pytest_plugin", "-k", name]
                alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
                begun = time.perf_counter()
                subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=alone)
                taken.setdefault(name, []).append(time.perf_counter() - begun)
    bare, client = (statistics.median(taken[name]) / TESTS * 1e3 for name in ("test_bare", "test_client"))
    more = f"{client:.2f} with the fixtures, {client - bare:.2f} more"
    print(f"a bare call {bare:.2f} ms a test, pytest's start included; {more}")


if __name__ == "__main__":
    main()
