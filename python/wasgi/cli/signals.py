"""Signals: what the starter of a process left, and what those who share its terminal get."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


def prepare() -> None:
    """Undoes what whoever started this process should not have left to it.

    A blocked SIGTERM could not stop it; an ignored SIGCHLD would hide how workers end. SIGINT stays ignored if it was:
    a shell starts `wasgi serve &` so, because Ctrl-C is meant for what runs in front.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(
            signal.SIG_UNBLOCK,
            {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD, signal.SIGQUIT},
        )


@contextlib.contextmanager
def ignored_at_the_end(is_ending: Callable[[], bool]) -> Iterator[None]:
    """For a process that ends after this: SIGTERM and SIGINT that come on its way out have no effect.

    Whoever handles them within restores what was there before, and the interpreter has the system's handlers back when
    it ends: each would kill a process that has done all that it was asked to.

    Args:
        is_ending: Whether what is within has come to its end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {}

    def handle(number: int, _frame: object) -> None:
        if not is_ending():
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        handler = signal.getsignal(number)
        if handler is not signal.SIG_IGN:
            before[number] = handler or signal.SIG_DFL
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if is_ending() else handler)


_held: set[int] = set()
"""What has come while it was held back."""


def _hold(number: int, _frame: object) -> None:
    _held.add(number)


@contextlib.contextmanager
def held_back(wanted: bool) -> Iterator[None]:
    """SIGHUP and SIGUSR1 do not end a server that starts: `on_hangup` and `on_reopen` say what becomes of them.

    Args:
        wanted: Whether this process becomes a server.
    """
    if not wanted or not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
        yield
        return
    had_terminal = has_terminal()

    def hold_hangup(number: int, frame: object) -> None:
        if had_terminal and not has_terminal():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        _hold(number, frame)

    _held.clear()
    mine = {signal.SIGHUP: hold_hangup, signal.SIGUSR1: _hold}
    before = {number: signal.getsignal(number) for number in mine}
    for number, handler in mine.items():
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in mine.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, before[number] or signal.SIG_DFL)


def on_hangup(reload: Callable[[], object], end: Callable[[], object]) -> None:
    """Says what SIGHUP does: it loads again; but if it tells that the terminal has gone, the server ends with it.

    Under `nohup` (SIGHUP is ignored when the process starts) the server goes on when its terminal goes.
    """
    if not hasattr(signal, "SIGHUP"):
        return
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    had_terminal = has_terminal()

    def handle(_number: int, _frame: object) -> None:
        if had_terminal and not has_terminal():
            if not ignored:
                end()
        else:
            reload()

    signal.signal(signal.SIGHUP, handle)
    if signal.SIGHUP in _held:
        _held.discard(signal.SIGHUP)
        reload()


def on_reopen(reopen: Callable[[], object]) -> None:
    """Says what SIGUSR1 does: a log that others have moved is opened anew, certificates are read anew."""
    if hasattr(signal, "SIGUSR1"):
        # one that was held back has moved nothing that is open
        signal.signal(signal.SIGUSR1, lambda _number, _frame: reopen())


def has_terminal() -> bool:
    """Whether this process has a terminal that is still there."""
    try:
        number = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return False
    os.close(number)
    return True


def keep_out_of_terminal() -> None:
    """For a process in the background of a terminal: what it prints must not stop it (`stty tostop`)."""
    if hasattr(signal, "SIGTTOU"):
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)


def die_with_parent(parent: int) -> None:
    """Has the kernel end this process when its parent does. Elsewhere than on Linux, `workers` has a pipe for it."""
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    # it may have gone before
    if os.getppid() != parent:
        os._exit(1)
