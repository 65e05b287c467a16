"""Some thousands of exchanges at random: each ends as it may, and nothing is left over. `tests.chaos` runs more."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_left_over(seed: int) -> None:
    """In a process of its own: its counters are those of these exchanges alone."""
    command = [sys.executable, "-m", "tests.chaos", "--exchanges", "3000", "--seed", str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(180)
def test_exchanges_that_share_instances_leave_nothing_over() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--exchanges", "3000", "--seed", "4"]
    command += ["--generation", "0.3", "--siblings", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(180)
def test_hostile_guests_leave_nothing_over() -> None:
    """Half of the exchanges are those of a tenant that means harm; the others end as they do without them."""
    command = [sys.executable, "-m", "tests.chaos", "--exchanges", "1500", "--seed", "3", "--hostile", "0.5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(240)
@pytest.mark.parametrize("checks", [False, True])
def test_exchanges_in_instances_that_are_put_back_are_those_of_fresh_ones(checks: bool) -> None:
    """Of this process and of children that it forks meanwhile; with all memory compared after each exchange, too."""
    command = [sys.executable, "-m", "tests.chaos", "--exchanges", "1500" if checks else "3000", "--seed", "5"]
    command += ["--isolated", "--forks", "3"]
    env = {**os.environ, "WASGI_CHECK_RESTORE": "1" if checks else "0"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=230, env=env)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(180)
def test_secrets_that_stay_are_found() -> None:
    """With instances that are reused as they are, the same exchanges find what others have left.

    Those that hide secrets and those that look for them alone: a report names the first twenty findings, and which they
    are is the machine's choice.
    """
    script = """
import wasgi
from tests import chaos
chaos.Chaos.reuse = lambda self, generation: wasgi.Reuse(requests=100)
chaos.ROUTES[:] = []
chaos.ISOLATED[:] = [way for way in chaos.ISOLATED if way.target.startswith(("/keep?in=body", "/find", "/nowhere"))]
chaos.run(1, 200, chaos.Options(hostile=0, isolated=True, forks=1))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert done.returncode == 1
    assert "/find?secret=" in done.stderr
    assert "found memory=" in done.stderr


@pytest.mark.timeout(180)
def test_a_finding_is_found() -> None:
    """The harness can fail: with an allowed outcome taken away it says which exchange ended otherwise."""
    script = """
import dataclasses
from tests import chaos
hello = next(way for way in chaos.ROUTES if way.target == "/hello")
chaos.ROUTES[:] = [dataclasses.replace(hello, ends=frozenset(), fates=frozenset())]
chaos.run(1, 50, chaos.Options(hostile=0))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert done.returncode == 1
    assert "/hello" in done.stderr
    assert "not one of []" in done.stderr
