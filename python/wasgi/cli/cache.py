"""``wasgi cache``: the code cache, looked at and cleared. It is `src/engine/code_cache.rs` that fills it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from wasgi.cli.commands import Command, Example, Group, Lazy
from wasgi.cli.failures import FAILED, Failure

_ENTRY = re.compile(r"([0-9a-f]{64})-[0-9a-f]{16}\.code")
_PART = re.compile(r"[0-9a-f]{64}-[0-9a-f]{16}\.code\.\d+-[0-9a-f]{16}\.part")
_LEFT_OVER = 60
"""Seconds: between the making of a part and its locking, it looks like one that is left over."""
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Entry:
    """The machine code of a component, for one engine."""

    path: Path
    digest: str
    """Of the component, as it is compiled: another one for `Reuse.isolated`."""
    bytes: int
    used: float
    """When, within an hour; seconds since 1970."""


def folder() -> Path:
    """Where machine code is kept.

    Raises:
        Failure: Nowhere.
    """
    configured = os.environ.get("WASGI_CACHE_DIR")
    if configured == "":
        raise Failure("the code cache is off: `WASGI_CACHE_DIR` is empty", FAILED)
    if configured is not None:
        return Path(configured)
    # a relative path in these variables is ignored, as the XDG Base Directory Specification wants it
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():
        home = Path(os.path.expanduser("~"))
        if not home.is_absolute():
            raise Failure(
                "the code cache is off: neither `XDG_CACHE_HOME` nor `HOME` is an absolute path",
                FAILED,
                hint="`WASGI_CACHE_DIR` says where",
            )
        cache = home / ".cache"
    return cache / "wasgi"


def entries(directory: Path) -> list[Entry]:
    """The entries of a cache, by their names: nothing else is looked at. The last used come first."""
    found = [
        Entry(path, name[1], about.st_size, about.st_mtime)
        for path, about in _files(directory)
        if (name := _ENTRY.fullmatch(path.name)) is not None
    ]
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def _files(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The plain files of this user in a folder."""
    try:
        paths = sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in paths:
        with contextlib.suppress(OSError):
            about = path.lstat()
            if stat.S_ISREG(about.st_mode) and (not hasattr(os, "getuid") or about.st_uid == os.getuid()):
                yield path, about


def clear(directory: Path) -> tuple[int, int]:
    """Removes the entries, and what dead processes have left. What is not the cache's stays, whatever it is.

    Returns:
        How many files, and how many bytes.

    Raises:
        OSError: One cannot be removed.
    """
    files = size = 0
    for path, about in list(_files(directory)):
        if _ENTRY.fullmatch(path.name) or (_PART.fullmatch(path.name) and _is_left_over(path, about)):
            try:
                path.unlink()
            except FileNotFoundError:
                continue
            files += 1
            size += about.st_size
    return files, size


def _is_left_over(path: Path, about: os.stat_result) -> bool:
    """Whether nobody writes a part: its writer has it locked."""
    if time.time() - about.st_mtime < _LEFT_OVER:
        return False
    import fcntl

    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def most_bytes() -> int:
    """How large the cache may be."""
    text = os.environ.get("WASGI_CACHE_SIZE", "")
    return int(text) if text.isascii() and text.isdigit() else _MOST_BYTES


def _size(number: int) -> str:
    return f"{number / 2**20:.1f} MiB"


def _info(as_json: bool) -> None:
    directory = folder()
    found = entries(directory)
    total = sum(entry.bytes for entry in found)
    if as_json:
        shown = [{**asdict(entry), "path": str(entry.path)} for entry in found]
        about = {"directory": str(directory), "bytes": total, "most_bytes": most_bytes(), "entries": shown}
        print(json.dumps(about, indent=2))
        return
    print(f"{directory}")
    if not found:
        print("  no machine code")
        return
    print(f"  {len(found)} entr{'y' if len(found) == 1 else 'ies'}, {_size(total)} of at most {_size(most_bytes())}")
    last, first = (time.strftime("%Y-%m-%d", time.localtime(found[i].used)) for i in (0, -1))
    print(f"  last used between {first} and {last}")


def _clear() -> None:
    directory = folder()
    files, size = clear(directory)
    print(f"{directory}: {files} file{'' if files == 1 else 's'} removed, {_size(size)}")


info = Command(
    "info",
    callback=_info,
    help="Show where the code cache is, and how large.",
    params=[click.Option(["--json", "as_json"], is_flag=True, help="As one object of JSON.")],
)

clear_command = Command(
    "clear",
    callback=_clear,
    help="Remove the machine code. Processes that use it go on; the next one compiles again. "
    "Other files of the folder stay.",
)

command = Group(
    "cache",
    help="Show or clear the code cache: the machine code of the components that were compiled.",
    table={
        "info": Lazy("wasgi.cli.cache", "Show where it is, and how large.", "info"),
        "clear": Lazy("wasgi.cli.cache", "Remove the machine code.", "clear_command"),
    },
    examples=[Example("wasgi cache info", "the folder, its entries, their size")],
)
