"""A file system that answers when it wants to: FUSE's protocol, as much of it as one folder with one file needs.

As a network file system does whose server is gone, it lets those wait who ask for what is in `hangs`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR = (
    1, 2, 3, 14, 15, 17, 18, 25, 26, 27, 28, 29,
)  # fmt: skip
DESTROY, READDIRPLUS = 38, 44
_ROOT, _FILE = 1, 2
CONTENT = b"what is in the file"


class SlowFiles:
    """`file` in a folder. Whoever asks for one of `hangs` waits, until `release` or the file system's end."""

    def __init__(self, mounted: Path) -> None:
        self.mounted = mounted
        self.hangs: set[int] = set()
        self.asked: list[int] = []
        self._waiting: list[tuple[int, int, int, bytes]] = []
        self._lock = threading.Lock()
        self._device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0".encode()
        self._libc = ctypes.CDLL(None, use_errno=True)
        if self._libc.mount(b"slow", os.fsencode(mounted), b"fuse", 0, options):
            number = ctypes.get_errno()
            os.close(self._device)
            raise OSError(number, os.strerror(number))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Those who still wait are told that it is gone."""
        self._libc.umount2(os.fsencode(self.mounted), 3)  # MNT_FORCE | MNT_DETACH
        self._thread.join(30)
        os.close(self._device)

    def release(self) -> None:
        """Nothing hangs any more, and whoever waits is answered."""
        with self._lock:
            self.hangs.clear()
            waiting, self._waiting = self._waiting, []
        for what in waiting:
            self._answer(*what)

    def _serve(self) -> None:
        while True:
            try:
                message = os.read(self._device, 1 << 17)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return  # unmounted
                continue
            _, what, number, node = struct.unpack_from("IIQQ", message)
            call = (what, number, node, message[40:])
            with self._lock:
                self.asked.append(what)
                if what in self.hangs:
                    self._waiting.append(call)
                    continue
            self._answer(*call)

    def _answer(self, what: int, number: int, node: int, given: bytes) -> None:
        if what == FORGET:
            return
        answer: bytes | int = b""
        if what == INIT:
            answer = struct.pack("IIIIHHIIHHI28x", 7, 31, 1 << 16, 0, 8, 8, 1 << 16, 1, 1, 0, 0)
        elif what == LOOKUP:
            found = (_ROOT, given) == (node, b"file\0")
            answer = struct.pack("QQQQII", _FILE, 0, 0, 0, 0, 0) + _attributes(_FILE) if found else errno.ENOENT
        elif what == GETATTR:
            answer = struct.pack("QII", 0, 0, 0) + _attributes(node)
        elif what in (OPEN, OPENDIR):
            answer = struct.pack("QII", 7, 0, 0)
        elif what == READ:
            _, offset, size = struct.unpack_from("QQI", given)
            answer = CONTENT[offset : offset + size]
        elif what in (READDIR, READDIRPLUS):
            answer = b""
        elif what not in (FLUSH, RELEASE, RELEASEDIR, DESTROY):
            answer = errno.ENOSYS
        code, content = (-answer, b"") if isinstance(answer, int) else (0, answer)
        with contextlib.suppress(OSError):  # whoever asked has gone
            os.write(self._device, struct.pack("IiQ", 16 + len(content), code, number) + content)


def _attributes(node: int) -> bytes:
    mode = 0o040755 if node == _ROOT else 0o100644
    return struct.pack("QQQQQQIIIIIIIIII", node, len(CONTENT), 1, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


@pytest.fixture
def slow_files(tmp_path: Path) -> Iterator[SlowFiles]:
    if sys.platform != "linux" or os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("only root can mount a file system of FUSE's")
    mounted = tmp_path / "slow"
    mounted.mkdir()
    try:
        files = SlowFiles(mounted)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    try:
        yield files
    finally:
        files.close()
