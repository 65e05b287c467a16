"""Names of files that are made from names of tests: one for each, on every file system."""

from __future__ import annotations

import hashlib
import re

_PLAIN = re.compile(r"[a-z0-9_](?:[a-z0-9_.\-\[\]]{0,118}[a-z0-9_\-\]])?")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")
"""Devices, on Windows."""
_HASHED = re.compile(r".*-[0-9a-f]{12}")


def of_test(names: list[str]) -> str:
    """A file's name, without an ending, for what has these names, say of a class and a function in it.

    One plain name is its own. Others (they have capital letters, which are none on some file systems; or characters
    that not all have, or have in two ways; or are too long; or are devices' names; or look like what is made here) are
    shown as far as possible, and told apart by a hash.
    """
    whole = names[0]
    if len(names) == 1 and _PLAIN.fullmatch(whole) and not _RESERVED.fullmatch(whole) and not _HASHED.fullmatch(whole):
        return whole
    # each with its length, so that no two lists of names are one
    exact = b"".join(b"%d:%s" % (len(raw), raw) for name in names if (raw := name.encode("utf-8", "surrogatepass")))
    shown = re.sub(r"[^A-Za-z0-9_.\-\[\]]", "_", ".".join(names))[:100]
    if shown[:1] in ("", ".", "-") or _RESERVED.fullmatch(shown.lower()):
        shown = f"_{shown}"
    return f"{shown}-{hashlib.sha256(exact).hexdigest()[:12]}"


def of_module(name: str) -> str:
    """The name of a folder for a file with tests, beside that.

    The file's own system tells such names apart already. Others than Python's keep their ending: a module and a text
    with doctests may differ in that only.
    """
    stem = name.removesuffix(".py")
    return stem if stem != name and "." not in stem else name
