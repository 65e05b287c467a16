"""Debug information made to harm whoever reads it: a trap tells what it can without, and costs no more than another."""

from __future__ import annotations

import logging
import os
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest

import wasgi
from tests.conftest import COMPONENTS, ROOT, bare, get

COMPILE_UNIT, SUBPROGRAM, INLINED, BLOCK, VARIABLE = 0x11, 0x2E, 0x1D, 0x0B, 0x34
NAME, STMT_LIST, LOW_PC, HIGH_PC, COMP_DIR, EXTERNAL, RANGES = 0x03, 0x10, 0x11, 0x12, 0x1B, 0x3F, 0x55
ADDR, DATA4, STRING, STRP, SEC_OFFSET, FLAG_PRESENT = 0x01, 0x06, 0x08, 0x0E, 0x17, 0x19
WHOLE = struct.pack("<II", 0, 0xFFFFFF)
"""A function's or unit's address, and its length."""


def table(*kinds: tuple[int, list[tuple[int, int]]]) -> bytes:
    """Abbreviations, numbered from 1; each may have children."""
    parts = [
        bytes([number, tag, 1]) + b"".join(bytes(pair) for pair in attributes) + b"\0\0"
        for number, (tag, attributes) in enumerate(kinds, 1)
    ]
    return b"".join(parts) + b"\0"


def unit(entries: bytes) -> bytes:
    """A unit of DWARF 4 whose abbreviations are the first."""
    content = struct.pack("<HIB", 4, 0, 4) + entries
    return struct.pack("<I", len(content)) + content


def lines(files: bytes, program: bytes = b"", folders: bytes = b"") -> bytes:
    """A table of lines of DWARF 4."""
    head = bytes([1, 1, 1, 0xFB, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1]) + folders + b"\0" + files + b"\0"
    content = struct.pack("<HI", 4, len(head)) + head + program
    return struct.pack("<I", len(content)) + content


PLACE = [(LOW_PC, ADDR), (HIGH_PC, DATA4)]
FUNCTION = (SUBPROGRAM, PLACE)


def nested() -> dict[str, bytes]:
    """A million inlined functions, each in the one before."""
    entries = b"\1" + WHOLE + b"\2" + WHOLE + b"\3" * 1_000_000 + b"\0" * 1_000_002
    return {"abbrev": table((COMPILE_UNIT, PLACE), FUNCTION, (INLINED, [])), "info": unit(entries)}


def nested_blocks() -> dict[str, bytes]:
    """The same of blocks."""
    entries = b"\1" + WHOLE + b"\2" + WHOLE + b"\3" * 1_000_000 + b"\0" * 1_000_002
    return {"abbrev": table((COMPILE_UNIT, PLACE), FUNCTION, (BLOCK, [])), "info": unit(entries)}


def shared_ranges() -> dict[str, bytes]:
    """100,000 functions with one list of 100,000 ranges: 300 GB."""
    entries = b"\1" + WHOLE + (b"\2" + struct.pack("<I", 0) + b"\0") * 100_000 + b"\0"
    return {
        "abbrev": table((COMPILE_UNIT, PLACE), (SUBPROGRAM, [(RANGES, SEC_OFFSET)])),
        "info": unit(entries),
        "ranges": struct.pack("<II", 1, 2) * 100_000 + b"\0" * 8,
    }


def shared_ranges_of_units() -> dict[str, bytes]:
    one = unit(b"\1" + struct.pack("<I", 0) + b"\0")
    return {
        "abbrev": table((COMPILE_UNIT, [(RANGES, SEC_OFFSET)])),
        "info": one * 30_000,
        "ranges": struct.pack("<II", 1, 2) * 100_000 + b"\0" * 8,
    }


def shared_lines() -> dict[str, bytes]:
    """20,000 units with one table of lines, whose head names 200,000 files."""
    one = unit(b"\1" + struct.pack("<I", 0) + b"\0")
    return {
        "abbrev": table((COMPILE_UNIT, [(STMT_LIST, SEC_OFFSET)])),
        "info": one * 20_000,
        "line": lines(b"a\0\0\0\0" * 200_000),
    }


def long_folder() -> dict[str, bytes]:
    """200,000 files in a folder whose name is a megabyte long: 200 GB of paths."""
    entries = b"\1" + WHOLE + struct.pack("<I", 0) + b"/" + b"d" * 1_000_000 + b"\0"
    return {
        "abbrev": table((COMPILE_UNIT, [*PLACE, (STMT_LIST, SEC_OFFSET), (COMP_DIR, STRING)])),
        "info": unit(entries + b"\0"),
        "line": lines(b"a\0\0\0\0" * 200_000),
    }


def long_folders() -> dict[str, bytes]:
    """The same with a folder of the table of lines."""
    return {
        "abbrev": table((COMPILE_UNIT, [*PLACE, (STMT_LIST, SEC_OFFSET)])),
        "info": unit(b"\1" + WHOLE + struct.pack("<I", 0) + b"\0"),
        "line": lines(b"a\0\1\0\0" * 200_000, folders=b"d" * 1_000_000 + b"\0"),
    }


def long_program() -> dict[str, bytes]:
    """3 million lines in one table, of a byte each."""
    program = b"\0\5\2" + struct.pack("<I", 0) + b"\x20" * 3_000_000 + b"\0\1\1"
    return {
        "abbrev": table((COMPILE_UNIT, [*PLACE, (STMT_LIST, SEC_OFFSET)])),
        "info": unit(b"\1" + WHOLE + struct.pack("<I", 0) + b"\0"),
        "line": lines(b"a\0\0\0\0", program),
    }


def long_names() -> dict[str, bytes]:
    """A function with 500,000 inlined ones, all of one name, of a megabyte."""
    entries = b"\1" + WHOLE + b"\2" + WHOLE + (b"\3" + struct.pack("<I", 0) + b"\0") * 500_000 + b"\0\0"
    return {
        "abbrev": table((COMPILE_UNIT, PLACE), FUNCTION, (INLINED, [(NAME, STRP)])),
        "info": unit(entries),
        "str": b"n" * 1_000_000 + b"\0",
    }


def shared_table() -> dict[str, bytes]:
    """100,000 units with one table of 50,000 abbreviations."""
    kinds = b"".join(
        bytes([number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14]) + b"\x0b\0\0\0"
        for number in range(2, 50_000)
    )
    return {
        "abbrev": table((COMPILE_UNIT, []))[:-1] + kinds + b"\0",
        "info": unit(b"\1\0") * 100_000,
    }


def many_attributes() -> dict[str, bytes]:
    """A hundred thousand entries of a byte each, which have a million flags of no bytes each."""
    flags = bytes([3, VARIABLE, 0]) + bytes([EXTERNAL, FLAG_PRESENT]) * 1_000_000 + b"\0\0"
    return {
        "abbrev": table((COMPILE_UNIT, PLACE), FUNCTION)[:-1] + flags + b"\0",
        "info": unit(b"\1" + WHOLE + b"\3" * 100_000 + b"\0"),
    }


def many_attributes_of_functions() -> dict[str, bytes]:
    """The same of what is not skipped."""
    flags = bytes([3, SUBPROGRAM, 0]) + bytes([EXTERNAL, FLAG_PRESENT]) * 1_000_000 + b"\0\0"
    return {
        "abbrev": table((COMPILE_UNIT, PLACE), FUNCTION)[:-1] + flags + b"\0",
        "info": unit(b"\1" + WHOLE + b"\3" * 100_000 + b"\0"),
    }


def many_attributes_of_units() -> dict[str, bytes]:
    """The same in units that have one such entry each."""
    flags = bytes([2, VARIABLE, 0]) + bytes([EXTERNAL, FLAG_PRESENT]) * 100_000 + b"\0\0"
    # whose tables are short, and end in the long one
    return {
        "abbrev": table((COMPILE_UNIT, []))[:-1] + flags + b"\0",
        "info": unit(b"\1" + b"\2" * 300 + b"\0") * 10_000,
    }


def ranges_of_each_unit() -> dict[str, bytes]:
    """30,000 units with a function each, whose ranges are those of all others: 100,000."""
    one = unit(b"\1" + b"\2" + struct.pack("<I", 0) + b"\0\0")
    return {
        "abbrev": table((COMPILE_UNIT, []), (SUBPROGRAM, [(RANGES, SEC_OFFSET)])),
        "info": one * 30_000,
        "ranges": struct.pack("<II", 1, 2) * 100_000 + b"\0" * 8,
    }


def names_of_each_unit() -> dict[str, bytes]:
    """30,000 units with a function each, whose name is that of all others: 4 MiB."""
    one = unit(b"\1" + b"\2" + struct.pack("<I", 0) + b"\0\0")
    return {
        "abbrev": table((COMPILE_UNIT, []), (SUBPROGRAM, [(NAME, STRP)])),
        "info": one * 30_000,
        "str": b"n" * (4 << 20) + b"\0",
    }


def files_of_each_unit() -> dict[str, bytes]:
    """10,000 units with a table of lines of their own each, whose folder is a string of a megabyte that all share."""
    heads, units = b"", b""
    for _ in range(10_000):
        units += unit(b"\1" + struct.pack("<II", len(heads), 0) + b"\0")
        heads += lines(b"a\0\0\0\0" * 8)
    return {
        "abbrev": table((COMPILE_UNIT, [(STMT_LIST, SEC_OFFSET), (COMP_DIR, STRP)])),
        "info": units,
        "line": heads,
        "str": b"d" * 1_000_000 + b"\0",
    }


HARMFUL = [
    many_attributes,
    many_attributes_of_functions,
    many_attributes_of_units,
    ranges_of_each_unit,
    names_of_each_unit,
    files_of_each_unit,
    nested,
    nested_blocks,
    shared_ranges,
    shared_ranges_of_units,
    shared_lines,
    long_folder,
    long_folders,
    long_program,
    long_names,
    shared_table,
]


def customs(sections: dict[str, bytes]) -> str:
    def quoted(content: bytes) -> str:
        return "".join(f"\\{byte:02x}" for byte in content)

    return " ".join(f'(@custom ".debug_{name}" "{quoted(content)}")' for name, content in sections.items())


def component(sections: dict[str, bytes]) -> wasgi.Component:
    return bare("unreachable", customs(sections), limits=wasgi.ComponentLimits(text=None))


@pytest.mark.parametrize("make", HARMFUL)
def test_harmful_debug_information_is_left_out(make: Callable[[], dict[str, bytes]]) -> None:
    """In a process of its own, with two gigabytes of memory: it ended there, or its memory did."""
    script = f"""
import logging, re, resource, sys
import wasgi
from tests.component import test_debug_info
from tests.conftest import get

logging.basicConfig(stream=sys.stdout, format="%(message)s")
app = wasgi.App(test_debug_info.component(test_debug_info.{make.__name__}()))
used = int(re.search(r"VmData:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + (1 << 30), -1))
try:
    app.handle(get("/"))
except wasgi.TrapError as error:
    print("trapped", error.backtrace)
"""
    command = [sys.executable, "-c", script]
    # without a cache: what is looked at is what is compiled
    surroundings = os.environ | {"WASGI_CACHE_DIR": ""}
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=50)
    said = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-2000:]
    assert said[-1].startswith("trapped ['handle (at 0x"), said
    assert any("the debug information of a component is ignored: " in line for line in said), said


def test_modules_share_what_looking_at_them_may_take() -> None:
    """150 modules with a million ranges to go through each."""
    script = """
import logging, sys
import wasgi
from tests.component import test_debug_info
from tests.conftest import bare_text

logging.basicConfig(stream=sys.stdout, format="%(message)s")
sections = test_debug_info.few_ranges()
customs = test_debug_info.customs(sections)
wasgi.Component(bare_text(around=f"(core module {customs})" * 150).encode())
"""
    surroundings = os.environ | {"WASGI_CACHE_DIR": ""}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("the debug information of a component is ignored: it would take too long") == 1


def few_ranges() -> dict[str, bytes]:
    """A unit that may have so many: 2,000 functions with a list of 500 ranges."""
    entries = b"\1" + WHOLE + (b"\2" + struct.pack("<I", 0) + b"\0") * 2000 + b"\0"
    return {
        "abbrev": table((COMPILE_UNIT, PLACE), (SUBPROGRAM, [(RANGES, SEC_OFFSET)])),
        "info": unit(entries),
        "ranges": struct.pack("<II", 1, 2) * 500 + b"\0" * 8,
    }


def test_what_compilers_make_is_read(caplog: pytest.LogCaptureFixture) -> None:
    source = (COMPONENTS / "lines.wasm").read_bytes()
    # by another content it is compiled anew
    changed = source + b"\0\x05\x04anew"
    with caplog.at_level(logging.INFO, "wasgi"), pytest.raises(wasgi.TrapError) as raised:
        wasgi.App(changed).handle(get("/"))
    assert any("tests/guests/lines/src/lib.rs:" in line for line in raised.value.backtrace)
    assert not [message for message in caplog.messages if "debug information" in message]


def test_a_little_of_it_is_read() -> None:
    """The tests' own DWARF is right: without harm it is read."""
    few = {
        "abbrev": table((COMPILE_UNIT, [*PLACE, (STMT_LIST, SEC_OFFSET)]), (SUBPROGRAM, [*PLACE, (NAME, STRING)])),
        "info": unit(b"\1" + WHOLE + struct.pack("<I", 0) + b"\2" + WHOLE + b"by_name\0\0\0"),
        "line": lines(b"file.c\0\0\0\0", b"\0\5\2" + struct.pack("<I", 0) + b"\x14" + b"\2\xff\x7f" + b"\x14\0\1\1"),
    }
    with pytest.raises(wasgi.TrapError) as raised:
        wasgi.App(component(few)).handle(get("/"))
    assert raised.value.backtrace == ["handle (file.c:3)"]
