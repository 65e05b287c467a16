"""Cassettes of tests: which file each test has, and whether it records or replays."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from wasgi.pytest_plugin.filenames import of_module, of_test

if TYPE_CHECKING:
    from wasgi.testing import Cassette

_tests = pytest.StashKey[dict[str, dict[str, None]]]()
"""The tests of each cassette, by its folded path: of the whole session."""


def note(config: pytest.Config, item: pytest.Item, mark: pytest.Mark) -> None:
    """Notes which cassette a test has."""
    path = mark.kwargs.get("path")
    if path is None or isinstance(path, str | os.PathLike):  # the fixture refuses others
        tests = config.stash.setdefault(_tests, {})
        tests.setdefault(_folded(_file_of(item, path)), {})[item.nodeid] = None


def _folded(path: Path) -> str:
    """The same text for all paths that are one file on some file system."""
    return unicodedata.normalize("NFC", os.path.normpath(path)).casefold()


def _file_of(item: pytest.Item, path: str | os.PathLike[str] | None) -> Path:
    """The cassette's file: `cassettes/<module>/<test>.json` beside the test, unless a path is given."""
    if path is not None:
        return item.path.parent / path
    names: list[str] = []
    for node in reversed(item.listchain()):
        if isinstance(node, pytest.File):
            break
        names.insert(0, node.name)
    return item.path.parent / "cassettes" / of_module(item.path.name) / f"{of_test(names)}.json"


_CASSETTE_OPTIONS = ("path", "upstream", "secret", "secret_query", "secret_body")


def cassette_of(request: pytest.FixtureRequest, options: dict[str, Any]) -> Cassette:
    """The cassette of a test, by the options of its mark; fails the test if there is none."""
    from wasgi.testing import Cassette

    for name in options:
        if name not in _CASSETTE_OPTIONS:
            hint = "; hint: the option `--wasgi-record` says whether to" if name == "record" else ""
            pytest.fail(f"the mark `wasgi_cassette` takes no `{name}`{hint}", pytrace=False)
    path = options.pop("path", None)
    if path is not None and not isinstance(path, str | os.PathLike):
        pytest.fail(f"`path` of `wasgi_cassette` must be a path, not {type(path).__name__}", pytrace=False)
    file = _file_of(request.node, path)
    tests = list(request.config.stash.get(_tests, {}).get(_folded(file), ()))
    if len(tests) > 1:
        pytest.fail(
            f"{file} is the cassette of several tests, {', '.join(tests[:2])}{', …' if tests[2:] else ''}; "
            "hint: without `path` each has its own",
            pytrace=False,
        )
    mode = request.config.option.wasgi_record
    if mode == "none" or (mode == "once" and file.exists()):
        options["record"] = False
    elif mode == "all" or options.get("upstream") is not None:
        options["record"] = True
    else:
        pytest.fail(
            f"there is no cassette {file}, and no upstream to record from: "
            f"`@pytest.mark.wasgi_cassette(upstream=wasgi.Network([...]))`{_earlier(request.node, path)}",
            pytrace=False,
        )
    if mode == "none" and not file.exists():
        pytest.fail(
            f"there is no cassette {file}, and `--wasgi-record=none` records none{_earlier(request.node, path)}",
            pytrace=False,
        )
    try:
        return Cassette(file, **options)
    except (OSError, TypeError, ValueError) as error:  # an invalid file, or an option of the wrong type
        why = str(error)
    pytest.fail(why, pytrace=False)  # here, outside of the handler, the failure has no context


def _earlier(item: pytest.Item, path: str | os.PathLike[str] | None) -> str:
    """A hint, if there is a cassette by the name of earlier releases, where tests of one name shared it."""
    name = re.sub(r"[^\w.\-\[\]]", "_", item.name)
    file = item.path.parent / "cassettes" / item.path.stem / f"{name}.json"
    if path is not None or len(file.name.encode()) > 255 or not file.exists():
        return ""
    return f"; hint: earlier releases called it {file.name}: rename it if it is this test's alone, or record anew"
