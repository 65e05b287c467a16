"""What a sandbox refuses: system calls that fail from now on, for the calling process and its threads (seccomp)."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

_NUMBERS = {
    "x86_64": {
        "clone": 56,
        "clone3": 435,
        "ioctl": 16,
        "memfd_create": 319,
        "mprotect": 10,
        "sigaltstack": 131,
        "sysinfo": 99,
    },
    "aarch64": {
        "clone": 220,
        "clone3": 435,
        "ioctl": 29,
        "memfd_create": 279,
        "mprotect": 226,
        "sigaltstack": 132,
        "sysinfo": 179,
    },
}

PAGEMAP_SCAN = 0xC0606610
PROT_EXEC = 4

_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUALS, _HAS_BITS, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000


def refuse(
    call: str, number: int = errno.EPERM, *, argument: int = 0, equals: int | None = None, has: int | None = None
) -> None:
    """Has a system call fail, always or where one of its arguments is (or has the bits of) so many."""
    code = _NUMBERS[platform.machine()][call]
    look: list[tuple[int, int, int, int]] = []
    value = equals if equals is not None else has
    if value is not None:
        test = _EQUALS if equals is not None else _HAS_BITS
        look = [(_LOAD, 0, 0, 16 + 8 * argument), (test, 0, 1, value)]
    program = [
        (_LOAD, 0, 0, 0),
        (_EQUALS, 0, len(look) + 1, code),
        *look,
        (_RETURN, 0, 0, _FAIL | number),
        (_RETURN, 0, 0, _ALLOW),
    ]
    instructions = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(instructions)
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _FILTER, ctypes.c_char_p(header), 0, 0):
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed))


def refuse_threads() -> None:
    """As where the limit of processes is reached."""
    refuse("clone", errno.EAGAIN)
    refuse("clone3", errno.ENOSYS)
