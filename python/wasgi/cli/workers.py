"""Processes that serve the same sockets: they are started, watched, replaced and ended by their parent."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from wasgi import _wasgi
from wasgi.cli import signals
from wasgi.cli.failures import FAILED, Failure
from wasgi.cli.output import tell
from wasgi.cli.settings import Orders, Settings
from wasgi.cli.sockets import failures_of_binding
from wasgi.cli.targets import routes
from wasgi.cli.worker_state import Slot, Worker, how_it_ended, pause_after

GRACE = 5.0
"""Seconds that a worker may take beyond its time to drain."""
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
YOUNG = 10.0
"""Seconds: a worker that dies sooner is followed by another one after a pause."""
HOPELESS = 60.0
"""Seconds without any worker that is ready; then the server ends."""


@dataclass
class Supervisor:
    """The parent.

    Args:
        settings: What the workers are told: their binds are descriptors.
        names: What the user sees of the binds.
        binds: As they were given.
        listeners: Their sockets, which the workers inherit.
        has_python: Whether Python code makes some of the apps: it is loaded by new processes only.
    """

    settings: Settings
    names: Sequence[str]
    health: Sequence[str]
    listeners: Sequence[_wasgi.Listeners]
    binds: Sequence[str] = ()
    has_python: bool = False
    slots: list[Slot] = field(default_factory=list)
    leaving: list[Worker] = field(default_factory=list)
    """Workers that were told to stop, and have not ended."""
    stopped_by: int | None = None
    """The signal."""
    started: bool = False
    """All workers have been ready once."""
    last_ready: float = 0.0
    """When a worker was seen to be ready last, where none is now."""
    killed: bool = False
    hurried: bool = False
    """It was told to stop twice."""
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def run(self) -> int:
        """Starts the workers, and keeps them until it is told to stop.

        Returns:
            The exit code.

        Raises:
            Failure: The first start of a worker failed, or none is ready for long.
        """
        self.slots = [Slot(number) for number in range(1, (self.settings.workers or 1) + 1)]
        ending = signals.ignored_at_the_end(lambda: self.stopped_by is not None)
        with ending, self.selector as selector, self._signals(selector):
            try:
                # the first one alone: it compiles what the others find in the cache
                self.slots[0].start_at = time.monotonic()
                while not self._is_over():
                    for key, _ in selector.select(self._wait()):
                        if isinstance(key.data, Worker):
                            self._hear(key.data)
                        else:
                            with contextlib.suppress(BlockingIOError):
                                os.read(key.fd, 4096)
                    self._advance(time.monotonic())
            except BaseException:
                self._kill()
                raise
        if self.killed:
            return FAILED
        return 0

    @contextlib.contextmanager
    def _signals(self, selector: selectors.BaseSelector) -> Iterator[None]:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        selector.register(reader, selectors.EVENT_READ)
        previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.getsignal(number) for number in _HANDLED}
        for number in (signal.SIGTERM, signal.SIGINT):
            if handlers[number] is not signal.SIG_IGN:
                signal.signal(number, lambda number, _frame: self._stop(number))
        signals.on_hangup(lambda: self._pass_on(signal.SIGHUP), lambda: self._stop(signal.SIGHUP))
        signals.on_reopen(lambda: self._pass_on(signal.SIGUSR1))
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            reader.close()
            writer.close()

    def _workers(self) -> list[Worker]:
        pairs = [(slot.current, slot.successor) for slot in self.slots]
        return [worker for pair in pairs for worker in pair if worker is not None] + self.leaving

    def _is_over(self) -> bool:
        return self.stopped_by is not None and not self._workers()

    def _wait(self) -> float | None:
        """Seconds until something is due."""
        due = [worker.deadline for worker in self.leaving if worker.deadline is not None]
        if self.stopped_by is None:
            due += [slot.start_at for slot in self.slots if slot.start_at is not None]
            if self.started and not self._is_ready():
                due.append(self.last_ready + HOPELESS)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _is_ready(self) -> bool:
        return any(slot.current is not None and slot.current.ready is not None for slot in self.slots)

    # Signals. They come between any two lines of the loop, on its thread.

    def _stop(self, number: int) -> None:
        if self.stopped_by is None:
            self.stopped_by = number
            return
        # whoever asks twice does not want to wait: a worker ends at once then, and logs what it cuts off. Not SIGTERM
        # once more, for two that follow each other closely are one; SIGINT is ignored where this process was started so
        hurry = signal.SIGTERM if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else signal.SIGINT
        for worker in self._workers():
            worker.signal(signal.SIGKILL if self.hurried else hurry)
            worker.deadline = time.monotonic() + GRACE
        self.hurried = True

    def _pass_on(self, number: signal.Signals) -> None:
        for worker in self._workers():
            worker.pending.add(number)

    # What is due.

    def _advance(self, now: float) -> None:
        if self.stopped_by is not None:
            self._let_all_go(now)
        else:
            self._tell_workers()
            self._start(now)
            self._recycle(now)
        for worker in self.leaving:
            if worker.deadline is not None and now >= worker.deadline:
                tell(f"wasgi: {worker} has not ended in time, and is killed")
                self.killed = True
                worker.deadline = None
                worker.signal(signal.SIGKILL)

    def _let_all_go(self, now: float) -> None:
        # otherwise connections would wait here that no worker accepts any more
        for one in self.listeners:
            one.close()
        for slot in self.slots:
            slot.start_at = None
            for worker in (slot.current, slot.successor):
                if worker is not None:
                    self._let_go(worker, now)
            slot.current = slot.successor = None

    def _let_go(self, worker: Worker, now: float) -> None:
        drain = float(self.settings.options.get("drain_timeout", 30.0))
        worker.deadline = now + GRACE + (0.0 if self.hurried else drain)
        worker.signal(signal.SIGTERM)
        self.leaving.append(worker)

    def _tell_workers(self) -> None:
        for worker in self._workers():
            while worker.pending and worker.ready is not None:
                number = worker.pending.pop()
                if number == signal.SIGHUP and self.has_python:
                    worker.wants_to_go = worker.wants_to_go or "SIGHUP"
                else:
                    worker.signal(number)

    def _start(self, now: float) -> None:
        for slot in self.slots:
            if slot.start_at is None or now < slot.start_at:
                continue
            slot.start_at = None
            try:
                worker = self._spawn(slot.number, now)
            except OSError as exc:
                if not self.started:
                    raise Failure(f"a worker cannot be started: {exc.strerror}") from exc
                tell(f"wasgi: a worker cannot be started: {exc.strerror}")
                self._try_again(slot, now)
                continue
            if slot.current is None:
                slot.current = worker
            else:
                slot.successor = worker
        if self.started and not self._is_ready() and now >= self.last_ready + HOPELESS:
            raise Failure(f"no worker has been ready for {HOPELESS:.0f} s")

    def _recycle(self, now: float) -> None:
        """Replaces one worker at a time: the next one when the last has ended."""
        if self.leaving or any(slot.successor is not None for slot in self.slots):
            return
        for slot in self.slots:
            if slot.current is not None and slot.current.wants_to_go is not None and slot.start_at is None:
                tell(f"wasgi: {slot.current} is replaced: {slot.current.wants_to_go}")
                slot.start_at = now
                self._start(now)
                return

    def _spawn(self, number: int, now: float) -> Worker:
        reader, writer = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "wasgi.cli.worker"],
                stdin=subprocess.PIPE,
                pass_fds=[*(number for one in self.listeners for number in one.descriptors), writer],
                # Ctrl-C reaches the parent alone
                process_group=0,
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        worker = Worker(number, process, reader, now)
        self.selector.register(reader, selectors.EVENT_READ, worker)
        assert process.stdin is not None
        # the pipe stays open: its end tells the worker that its parent has gone
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(pickle.dumps(Orders(self.settings, os.getpid(), writer)))
            process.stdin.flush()
        return worker

    # What workers report.

    def _hear(self, worker: Worker) -> None:
        try:
            data = os.read(worker.reports, 65536)
        except OSError:
            data = b""
        if not data:
            self._ended(worker, time.monotonic())
            return
        *lines, worker.unread = (worker.unread + data).split(b"\n")
        for line in lines:
            report: dict[str, Any] = json.loads(line)
            match report.pop("event"):
                case "ready":
                    self._is_up(worker, report["lines"], time.monotonic())
                case "recycle":
                    worker.wants_to_go = report["reason"]
                case "failed":
                    worker.failed = Failure(report["message"], report["code"], hint=report["hint"])

    def _is_up(self, worker: Worker, lines: list[str], now: float) -> None:
        worker.ready = self.last_ready = now
        slot = self._slot_of(worker)
        if slot is None:
            return
        if slot.successor is worker:
            if slot.current is not None:
                self._let_go(slot.current, now)
            slot.current, slot.successor = worker, None
        if self.started:
            return
        if worker.number == 1:
            for other in self.slots[1:]:
                other.start_at = now
        if all(slot.current is not None and slot.current.ready is not None for slot in self.slots):
            self.started = True
            self._announce(lines)

    def _announce(self, lines: list[str]) -> None:
        import wasgi
        from wasgi.cli.serving import banner

        count = len(self.slots)
        workers = f"{count} worker{'s' if count > 1 else ''}: processes {', '.join(self._pids())}"
        tell(banner(wasgi.__version__, [*lines, workers], self.names, self.binds, self.health))

    def _pids(self) -> list[str]:
        return [str(slot.current.process.pid) for slot in self.slots if slot.current is not None]

    def _slot_of(self, worker: Worker) -> Slot | None:
        return next((slot for slot in self.slots if worker in (slot.current, slot.successor)), None)

    def _ended(self, worker: Worker, now: float) -> None:
        self.selector.unregister(worker.reports)
        os.close(worker.reports)
        if worker.process.stdin is not None:
            with contextlib.suppress(OSError):
                worker.process.stdin.close()
        code = worker.process.wait()
        if worker in self.leaving:
            self.leaving.remove(worker)
            return
        slot = self._slot_of(worker)
        if slot is None:
            return
        if self._is_ready():
            # up to now: this one may be the last that was
            self.last_ready = now
        if slot.current is worker:
            # the one that is starting, if there is one, takes its place
            slot.current, slot.successor = slot.successor, None
        else:
            slot.successor = None
        if self.stopped_by is not None:
            return
        if not self.started:
            raise worker.failed or Failure(f"{worker} {how_it_ended(code)} before it was ready")
        young = worker.ready is None or now - worker.ready < YOUNG
        slot.failures = slot.failures + 1 if young else 0
        why = f": {worker.failed}" if worker.failed is not None else ""
        if slot.current is not None and slot.current.ready is None:
            tell(f"wasgi: {worker} {how_it_ended(code)}{why}; its successor is starting")
            return
        pause = self._try_again(slot, now)
        tell(f"wasgi: {worker} {how_it_ended(code)}{why}; another one starts {f'in {pause:g} s' if pause else 'now'}")

    def _try_again(self, slot: Slot, now: float) -> float:
        pause = pause_after(max(0, slot.failures - 1))
        slot.start_at = now + pause
        return pause

    def _kill(self) -> None:
        for worker in self._workers():
            worker.signal(signal.SIGKILL)
            with contextlib.suppress(OSError):
                worker.process.wait()


def supervise(settings: Settings) -> int:
    """Binds, and serves from processes.

    Returns:
        The exit code.

    Raises:
        Failure: Something cannot be used; then nothing is left of what was begun.
    """
    listeners: list[_wasgi.Listeners] = []

    def listen(addresses: Sequence[str]) -> _wasgi.Listeners:
        with failures_of_binding(settings.origins):
            listeners.append(_wasgi.Listeners(list(addresses), **how))
        return listeners[-1]

    # where they are not given, the defaults are those of the server
    how = {name: value for name, value in settings.options.items() if name in ("backlog", "reuse_port", "socket_mode")}
    try:
        bound = listen(settings.binds)
        health = None if settings.health is None else _one(listen, settings.health)
        table = routes(settings.targets, settings.routes)
        supervisor = Supervisor(
            settings=dataclasses.replace(
                settings,
                binds=[f"fd:{number}" for number in bound.descriptors],
                health=None if health is None else f"fd:{health.descriptors[0]}",
            ),
            names=bound.urls(settings.tls is not None),
            binds=settings.binds,
            health=[] if health is None else health.addresses,
            listeners=listeners,
            has_python=any(target.python is not None for target in table.values()),
        )
        return supervisor.run()
    finally:
        for one in listeners:
            one.close()


def _one(listen: Callable[[Sequence[str]], _wasgi.Listeners], address: str) -> _wasgi.Listeners:
    """Listens at the first address of a name: a server has one socket for its health."""
    found = listen([address])
    if len(found.descriptors) == 1:
        return found
    first = found.addresses[0]
    found.close()
    return listen([first])
