"""Names of files for tests: a different one for each test, valid on every file system."""

from __future__ import annotations

import hashlib
import re

_PLAIN = re.compile(r"[a-z0-9_](?:[a-z0-9_.\-\[\]]{0,118}[a-z0-9_\-\]])?")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")
"""Names of devices, on Windows."""
_HASHED = re.compile(r".*-[0-9a-f]{12}")


def of_test(names: list[str]) -> str:
    """The file's name, without an extension, for a test with these names (of a class and its method, say).

    A single plain name is used as it is. Other names keep their valid characters and get a hash: those with capital
    letters (some file systems fold case), with characters that not every file system has or normalizes alike, too long
    ones, names of devices, and names that end like such a hash.
    """
    whole = names[0]
    if len(names) == 1 and _PLAIN.fullmatch(whole) and not _RESERVED.fullmatch(whole) and not _HASHED.fullmatch(whole):
        return whole
    # with lengths, so that no two lists of names give the same bytes
    exact = b"".join(b"%d:%s" % (len(raw), raw) for name in names if (raw := name.encode("utf-8", "surrogatepass")))
    shown = re.sub(r"[^A-Za-z0-9_.\-\[\]]", "_", ".".join(names))[:100]
    if shown[:1] in ("", ".", "-") or _RESERVED.fullmatch(shown.lower()):
        shown = f"_{shown}"
    return f"{shown}-{hashlib.sha256(exact).hexdigest()[:12]}"


def of_module(name: str) -> str:
    """The name of the folder for the tests of a file, beside that file.

    Names of files are unique already. Files other than Python's keep their extension: a module and a text with doctests
    may differ in it only.
    """
    stem = name.removesuffix(".py")
    return stem if stem != name and "." not in stem else name
