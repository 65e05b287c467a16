"""What a parent knows of its workers."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from dataclasses import dataclass, field

from wasgi.cli.failures import Failure

LONGEST_PAUSE = 30.0


def pause_after(failures: int) -> float:
    """Seconds until another worker is started, after so many that died young."""
    return 0.0 if failures == 0 else float(min(LONGEST_PAUSE, 0.5 * 2 ** min(failures - 1, 16)))


@dataclass
class Worker:
    """A process."""

    number: int
    process: subprocess.Popen[bytes]
    reports: int
    begun: float
    ready: float | None = None
    """When it was."""
    deadline: float | None = None
    """When it is killed, if it has been told to stop."""
    wants_to_go: str | None = None
    """Why it is to be replaced."""
    pending: set[signal.Signals] = field(default_factory=set)
    """Signals that it gets when it is ready."""
    failed: Failure | None = None
    """What it has reported."""
    unread: bytes = b""

    def signal(self, number: int) -> None:
        """Sends it a signal, if it is there."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def __str__(self) -> str:
        return f"worker {self.number} (process {self.process.pid})"


@dataclass
class Slot:
    """The place of one worker, and of the one that follows it."""

    number: int
    current: Worker | None = None
    successor: Worker | None = None
    """It is starting, while the present one still serves."""
    failures: int = 0
    start_at: float | None = None


def how_it_ended(code: int) -> str:
    """What became of a process, by its return code."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
