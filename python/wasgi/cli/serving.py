"""A server in this process: its apps, and loading them again."""

from __future__ import annotations

import importlib
import queue
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import wasgi
from wasgi.cli import signals
from wasgi.cli.failures import UNUSABLE, Failure, failure_of
from wasgi.cli.output import busy, tell
from wasgi.cli.reload import Watch, stamps
from wasgi.cli.settings import Settings
from wasgi.cli.sockets import failures_of_binding, give_up, keep_from_children
from wasgi.cli.targets import Target, routes

if TYPE_CHECKING:
    from wasgi.app import App


class Service:
    """What is served: loaded when it is made, and again when it is told to.

    Args:
        settings: What to serve, and how.

    Raises:
        Failure: Something of it cannot be used; then nothing is bound.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        keep_from_children(settings.addresses)
        # a signal handler may interrupt itself, and an `Event` would then wait for itself
        self._wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
        # before the log is opened: what is moved meanwhile is opened anew
        signals.on_reopen(lambda: self._wanted.put("reopen"))
        # before the targets are read: what changes meanwhile is loaded again
        self.watch = Watch(lambda: stamps(settings.targets, settings.routes))
        self.targets = self._find()
        self.apps = self._load(self.targets)
        self.server = self._make()
        give_up(settings.addresses)

    def _find(self) -> dict[str, Target]:
        return routes(self.settings.targets, self.settings.routes)

    def _load(self, targets: Mapping[str, Target]) -> dict[str, App]:
        apps = {}
        for pattern, target in targets.items():
            with busy(f"loading {target.text}"):
                apps[pattern] = target.load(self.settings.grants)
        return apps

    def _make(self) -> wasgi.Server:
        settings = self.settings
        options = dict(settings.options)
        if settings.tls is not None:
            tls = settings.tls
            options["tls"] = wasgi.Tls(
                tls.certificate, tls.key, client_ca=tls.client_ca, client_certificates=tls.client_certificates
            )
        with failures_of_binding(settings.origins):
            return wasgi.Server(
                table(self.apps),
                bind=list(settings.binds),
                health=settings.health,
                static=dict(settings.static),
                **options,
            )

    def serve(self, started: Callable[[], object]) -> None:
        """Serves until the server is told to stop.

        Args:
            started: Called when clients are served.

        Raises:
            Failure: It cannot start.
        """
        try:
            with signals.ignored_at_the_end(lambda: self.server.closing):
                self.server.serve(on_start=started)
        except wasgi.WasgiError as exc:
            failure = failure_of(exc)
            if failure.code == UNUSABLE:
                names = ", ".join(f"`{target.text}`" for target in self.targets.values())
                raise Failure(f"{names}: {failure.message}", UNUSABLE) from exc
            hint = "fewer --threads" if "threads" in self.settings.options else None
            raise Failure(failure.message, failure.code, hint=hint) from exc

    def hear_signals(self, end: Callable[[], object]) -> None:
        """From now on SIGHUP, and changes of files where that is wanted, load everything again.

        Both signals, SIGUSR1 and SIGHUP, have the log opened anew.

        Args:
            end: What ends the server when its terminal goes.
        """
        for name in ("logging", "wasgi._native.output"):
            importlib.import_module(name)  # when descriptors have run out, what says so can be loaded no more
        signals.on_hangup(lambda: self._wanted.put("reload"), end)
        threading.Thread(target=self._load_again, name="wasgi-reload", daemon=True).start()

    def _load_again(self) -> None:
        while True:
            try:
                self._load_if_wanted()
            except Exception as exc:  # descriptors have run out, say: the next signal finds this thread
                tell(f"wasgi: nothing is loaded again: {' '.join(str(exc).split()) or type(exc).__name__}")

    def _load_if_wanted(self) -> None:
        # twice a second: what an event would tell, from any file system
        try:
            wanted = self._wanted.get(timeout=0.5 if self.settings.reload else None)
        except queue.Empty:
            if self.watch.is_due():
                self.reload()
        else:
            self.server.reopen()
            if wanted == "reload":
                self.watch.take()
                self.reload()

    def reload(self) -> None:
        """Loads everything again; what cannot be loaded leaves the old one serving, and says why."""
        if self.server.closing:
            return
        try:
            targets = self._find()
            if not targets:
                return  # files are never old
            files = [target for target in targets.values() if target.python is None]
            if not files:
                tell("wasgi: nothing is loaded again: Python code is loaded once; hint: restart it, or its workers")
                return
            apps = self._load(targets)
            self.server.swap(table(apps))
        except Exception as exc:  # whatever it is, the old one serves
            tell(f"wasgi: not loaded, the old one goes on: {' '.join(str(exc).split()) or type(exc).__name__}")
            return
        self.targets, self.apps = targets, apps
        tell(f"wasgi: loaded again: {', '.join(target.text for target in files)}")

    def lines(self) -> list[str]:
        """What is served, and what the guests may do: for the user who has started it."""
        shown: list[str] = []
        for pattern, target in self.targets.items():
            wasi = self.apps[pattern].component.wasi
            place = "" if len(self.targets) == 1 and pattern == "/" else f" at {pattern}"
            shown.append(f"{target.text} (WASI {wasi}){place}")
        shown += [f"files of {folder} at {route}" for route, folder in self.settings.static.items()]
        if any(target.python is None for target in self.targets.values()):
            may = self.settings.grants.lines()
            shown.append(f"each guest has {may[0]}; {may[1]}")
            shown.append("; ".join(may[2:]))
        return shown


def table(apps: Mapping[str, App]) -> App | Mapping[str, App]:
    """What `wasgi.Server` takes: an app alone, or apps by route."""
    return apps["/"] if list(apps) == ["/"] else apps


def banner(
    version: str, lines: Sequence[str], urls: Sequence[str], binds: Sequence[str], health: Sequence[str] = ()
) -> str:
    """The first lines of a server.

    Args:
        version: This package's.
        lines: What is served.
        urls: Where it is reached from this machine.
        binds: What it listens at.
        health: Where the health is asked for.
    """
    shown = [f"wasgi {version} serves at {', '.join(urls)}"]
    if any(re.match(r"(0\.0\.0\.0|\[::\])(:|$)", bind) for bind in binds):
        shown.append("  it listens on all interfaces: whoever reaches this machine reaches it")
    if health:
        shown.append(f"  health: {', '.join(health)}")
    return "\n".join([*shown, *(f"  {line}" for line in lines)])
