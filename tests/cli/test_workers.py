"""The parent of workers, by itself: its workers are no processes here, and it is told what time it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from wasgi.cli.failures import Failure
from wasgi.cli.grants import Grants
from wasgi.cli.settings import Settings
from wasgi.cli.worker_state import Slot, Worker
from wasgi.cli.workers import HOPELESS, Supervisor

LATER = 1000.0


class FakeProcess:
    """A process that was killed."""

    stdin = None
    pid = 1

    def wait(self) -> int:
        return -9


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """One whose two workers have been ready for long."""
    made = Supervisor(Settings((), (), Grants(), (), workers=2), names=[], health=[], listeners=[])

    def spawn(number: int, now: float) -> Worker:
        reader, writer = os.pipe()
        os.close(writer)
        process: Any = FakeProcess()
        worker = Worker(number, process, reader, now)
        made.selector.register(reader, 1, worker)
        return worker

    monkeypatch.setattr(made, "_spawn", spawn)
    made.slots = [Slot(number, spawn(number, 0.0)) for number in (1, 2)]
    made.started = True
    for slot in made.slots:
        assert slot.current is not None
        slot.current.ready = made.last_ready = 1.0
    with made.selector:
        yield made
    for worker in made._workers():
        os.close(worker.reports)


def end(supervisor: Supervisor, slot: Slot, now: float) -> None:
    assert slot.current is not None
    supervisor._ended(slot.current, now)


def test_all_that_die_at_once_are_replaced(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    """However long ago they became ready."""
    for slot in supervisor.slots:
        end(supervisor, slot, LATER)
    supervisor._advance(LATER)
    assert all(slot.current is not None and slot.current.ready is None for slot in supervisor.slots)
    assert capsys.readouterr().err.count("another one starts now") == 2


def test_it_ends_when_none_has_become_ready_since_the_last_one_died(supervisor: Supervisor) -> None:
    for slot in supervisor.slots:
        end(supervisor, slot, LATER)
    supervisor._advance(LATER)
    # one that dies before it is ready gives the others no more time
    end(supervisor, supervisor.slots[0], LATER + HOPELESS - 1)
    supervisor._advance(LATER + HOPELESS - 1)
    with pytest.raises(Failure, match="no worker has been ready for 60 s"):
        supervisor._advance(LATER + HOPELESS)
