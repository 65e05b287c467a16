"""The code cache: what is run is what was written, by this user, for this component. No load waits for it."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import HELLO, PROBE
from tests.processes import told

SCRIPT = """
import logging, os, sys, wasgi
logging.basicConfig(format="%(message)s")
if sys.argv[2:]:
    os.umask(int(sys.argv[2], 8))
print(wasgi.App(sys.argv[1]).handle(wasgi.Request("GET", "http://a/hello")).text)
"""


def load(
    directory: Path,
    component: Path = HELLO,
    umask: str = "",
    limit: Callable[[], None] | None = None,
    **environment: str,
) -> str:
    """Loads a component and runs it; gives what was logged."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(component), *([umask] if umask else [])],
        env={**os.environ, "WASGI_CACHE_DIR": str(directory), **environment},
        capture_output=True,
        text=True,
        timeout=50,
        preexec_fn=limit,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Hello, World!\n"
    return told(done.stderr)


def entries(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.code"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with one entry in it."""
    assert load(tmp_path / "cache") == ""
    assert len(entries(tmp_path / "cache")) == 1
    return tmp_path / "cache"


def test_a_flipped_bit_is_found(cache: Path) -> None:
    [entry] = entries(cache)
    whole = entry.read_bytes()
    random.seed(7)
    # in each part of the header, and anywhere in the code
    places = [0, 15, 16, 47, 48, 55, 56, 87, 88, len(whole) - 1, *(random.randrange(88, len(whole)) for _ in range(4))]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.randrange(8)
        entry.write_bytes(damaged)
        logged = load(cache)
        assert logged.count("\n") == 1
        assert f"`{entry}` in the code cache is not used and is replaced" in logged
        assert entry.read_bytes() == whole
    assert load(cache) == ""


@pytest.mark.parametrize("length", [0, 1, 87, 88, 1000, -1])
def test_a_truncated_entry_is_found(cache: Path, length: int) -> None:
    [entry] = entries(cache)
    whole = entry.read_bytes()
    entry.write_bytes(whole[:length])
    assert "is replaced: it " in load(cache)
    assert entry.read_bytes() == whole


def test_a_longer_entry_is_found(cache: Path) -> None:
    [entry] = entries(cache)
    whole = entry.read_bytes()
    entry.write_bytes(whole + b"more")
    assert "it does not have the length that was written" in load(cache)
    assert entry.read_bytes() == whole


def test_another_components_entry_is_not_run(cache: Path) -> None:
    [entry] = entries(cache)
    whole = entry.read_bytes()
    assert load(cache, PROBE) == ""
    [other] = (path for path in entries(cache) if path != entry)
    shutil.copyfile(other, entry)
    assert "it is another component's" in load(cache)
    assert entry.read_bytes() == whole


@pytest.mark.parametrize("kind", ["pipe", "link", "dangling", "folder", "device", "hard link", "writable", "socket"])
def test_what_is_no_plain_file_is_neither_read_nor_waited_for(
    cache: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [entry] = entries(cache)
    kept = tmp_path / "kept"
    entry.rename(kept)
    match kind:
        case "pipe":
            os.mkfifo(entry)
        case "link":
            entry.symlink_to(kept)
        case "dangling":
            entry.symlink_to(tmp_path / "nothing")
        case "folder":
            entry.mkdir()
        case "device":
            if os.geteuid() != 0:
                pytest.skip("only root can make a device")
            os.mknod(entry, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
        case "hard link":
            entry.hardlink_to(kept)
        case "writable":
            shutil.copyfile(kept, entry)
            entry.chmod(0o666)
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                monkeypatch.chdir(cache)  # a socket's path is short
                bound.bind(entry.name)
    assert "in the code cache is not used and is replaced: " in load(cache)
    assert entry.is_file()
    assert not entry.is_symlink()
    assert entry.stat().st_mode & 0o777 == 0o600
    assert load(cache) == ""
    assert not (tmp_path / "nothing").exists()


def test_an_entry_that_changes_while_it_is_in_use_changes_nothing(cache: Path) -> None:
    script = """
import sys, wasgi
app = wasgi.App(sys.argv[1])
with open(sys.argv[2], "r+b") as file:
    file.write(bytes(1 << 20))
    file.truncate(0)
print(app.handle(wasgi.Request("GET", "http://a/hello")).text)
"""
    [entry] = entries(cache)
    done = subprocess.run(
        [sys.executable, "-c", script, str(HELLO), str(entry)],
        env={**os.environ, "WASGI_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, entry.stat().st_size) == (0, "Hello, World!\n", 0)


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_a_lock_that_is_no_plain_file_is_not_waited_for(cache: Path, tmp_path: Path, kind: str) -> None:
    [lock] = (cache / "locks").iterdir()
    lock.unlink()
    match kind:
        case "pipe":
            os.mkfifo(lock)
        case "link":
            lock.symlink_to(tmp_path / "made")
        case "folder":
            lock.mkdir()
    assert load(cache) == ""
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("umask", ["000", "022", "077", "277", "777"])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: str) -> None:
    directory = tmp_path / "a" / "b"
    assert load(directory, umask=umask) == ""
    for path in [tmp_path / "a", directory, directory / "locks"]:
        assert path.stat().st_mode & 0o7777 == 0o700
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert {path.stat().st_mode & 0o7777 for path in files} == {0o600}


def test_a_folder_that_others_may_read_has_private_entries(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    directory.mkdir()
    directory.chmod(0o755)
    assert load(directory, umask="000") == ""
    assert {path.stat().st_mode & 0o077 for path in directory.rglob("*")} == {0}


@pytest.mark.parametrize("level", [".", "cache", "cache/locks"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_to_or_replace_is_not_used(tmp_path: Path, level: str, mode: int) -> None:
    top = tmp_path / "top"
    (top / "cache" / "locks").mkdir(parents=True)
    (top / level).chmod(mode)
    logged = load(top / "cache")
    assert logged.startswith("the code cache is off: ")
    assert "others may write to " in logged
    assert list((top / "cache").iterdir()) == [top / "cache" / "locks"]


def test_a_sticky_folder_may_be_above_it(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    top.chmod(0o1777)
    assert load(top / "cache") == ""
    assert len(entries(top / "cache")) == 1


def test_a_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    top = tmp_path / "top"
    (top / "cache").mkdir(parents=True)
    os.chown(top, 12345, -1)
    assert f"`{top}`, in which it is, belongs to another user" in load(top / "cache")
    os.chown(top / "cache", 12345, -1)
    assert "it belongs to another user" in load(top / "cache")


def test_what_dead_processes_have_left_is_taken_away(cache: Path) -> None:
    [entry] = entries(cache)
    old, new = (cache / f"{entry.name}.{number}.part" for number in ("1-0", "2-0"))
    for path in (old, new):
        path.write_bytes(b"half an entry")
        path.chmod(0o600)
    os.utime(old, (time.time() - 3600,) * 2)
    entry.unlink()
    assert load(cache) == ""
    assert entry.exists()
    assert not old.exists()
    assert new.exists()  # its writer may be about to lock it


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_what_cannot_be_written_is_told_once_and_leaves_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    logged = load(directory, limit=small_files)
    assert logged.count("machine code cannot be cached in ") == 1
    assert "File too large" in logged
    assert [path.name for path in directory.iterdir()] == ["locks"]
    assert load(directory) == ""
    assert len(entries(directory)) == 1


@pytest.mark.parametrize("locks", [True, False])
def test_a_cache_that_cannot_be_written_to_is_read(cache: Path, locks: bool) -> None:
    """As in an image of a container."""
    if not locks:
        shutil.rmtree(cache / "locks")
    if os.geteuid() != 0:
        cache.chmod(0o500)

    def read_only() -> None:
        if os.geteuid() != 0:
            return
        libc = ctypes.CDLL(None, use_errno=True)
        folder, remount = os.fsencode(cache), 0x20 | 0x1000 | 0x1  # MS_REMOUNT | MS_BIND | MS_RDONLY
        assert libc.unshare(0x20000) == 0  # CLONE_NEWNS
        assert libc.mount(b"none", b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
        assert libc.mount(folder, folder, None, 0x1000, None) == 0
        assert libc.mount(None, folder, None, remount, None) == 0

    before = sorted(path.stat().st_ino for path in cache.rglob("*"))
    assert load(cache, limit=read_only) == ""
    assert sorted(path.stat().st_ino for path in cache.rglob("*")) == before
    logged = load(cache, PROBE, limit=read_only)
    assert logged.count("machine code cannot be cached in ") == 1


def test_entries_that_were_not_used_for_longest_go_first(cache: Path) -> None:
    [hello] = entries(cache)
    os.utime(hello, (time.time() - 90_000,) * 2)
    size = hello.stat().st_size
    assert load(cache) == ""  # a use
    assert time.time() - hello.stat().st_mtime < 3600
    unused = cache / f"{'0' * 64}-{'0' * 16}.code"
    unused.write_bytes(bytes(size))
    os.utime(unused, (time.time() - 80_000,) * 2)
    # the one that is written may stay, whatever its size, and as much of the others as fits with it
    load(cache, PROBE)
    [probe] = (path for path in entries(cache) if path not in (hello, unused))
    most = str(size + probe.stat().st_size)
    probe.unlink()
    load(cache, PROBE, WASGI_CACHE_SIZE=most)
    assert entries(cache) == sorted([hello, probe])
    probe.unlink()
    load(cache, PROBE, WASGI_CACHE_SIZE="1")
    assert entries(cache) == [probe]


def test_a_size_that_is_no_number_is_told(cache: Path) -> None:
    assert "`WASGI_CACHE_SIZE` is ignored: not a number of bytes: 1 GB" in load(cache, WASGI_CACHE_SIZE="1 GB")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a file system in which nobody makes a folder")
def test_a_folder_that_nobody_can_make_is_told() -> None:
    """Of one whose parent is there, `mkdir` says there that something is missing."""
    assert "the code cache is off: `/proc/no-folder/below`" in load(Path("/proc/no-folder/below"))
