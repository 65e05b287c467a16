"""When to load again: files are polled, and loaded when they stand still."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from wasgi.cli.targets import is_component

Stamps = dict[str, tuple[int, int, int] | None]
"""The time of change, the size and the inode of each file; None for one that is not there."""


def stamps(targets: Sequence[str], routes: Sequence[tuple[str, str]]) -> Stamps:
    """What tells a change of the components: by name, so that a file that was put in another's place is seen."""
    paths: list[Path] = []
    for text in [*targets, *(text for _, text in routes)]:
        path = Path(text)
        try:
            paths += [one for one in sorted(path.iterdir()) if is_component(one)] if path.is_dir() else [path]
        except OSError:
            paths.append(path)
    return {str(path): _stamp(path) for path in paths}


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


PATIENCE = 20
"""How many looks a file may be missing: a build deletes what it is about to write."""


class Watch:
    """Looks at files, again and again.

    Args:
        look: Gives the present stamps.
    """

    def __init__(self, look: Callable[[], Stamps]) -> None:
        self._look = look
        self._loaded = self._last = look()
        self._still = 0

    def take(self) -> None:
        """What is there now is being loaded, whatever comes of it."""
        self._loaded = self._last = self._look()

    def is_due(self) -> bool:
        """Whether to load: something differs from what was loaded last, and nothing has changed since the last look.

        A file that has gone is waited for, but not for ever: then loading says what is missing.
        """
        now = self._look()
        self._still = self._still + 1 if now == self._last else 0
        self._last = now
        if now == self._loaded or self._still < (PATIENCE if self._has_lost(now) else 1):
            return False
        self._loaded = now
        return True

    def _has_lost(self, now: Stamps) -> bool:
        """Whether a file is missing that was there when they were loaded."""
        return any(stamp is None and self._loaded.get(path) is not None for path, stamp in now.items())
