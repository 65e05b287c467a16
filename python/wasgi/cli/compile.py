"""``wasgi compile``: fills the code cache."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from wasgi.cli.cache import entries, folder
from wasgi.cli.commands import Argument, Command, Example, Option
from wasgi.cli.failures import FAILED, USAGE, Failure, unreadable
from wasgi.cli.output import busy, is_terminal, tell
from wasgi.cli.targets import find


@click.pass_context
def _compile(ctx: click.Context, /, files: tuple[str, ...], fuel: bool, isolated: bool, **_others: Any) -> None:
    import wasgi

    if not files:
        raise Failure("there is nothing to compile", USAGE, hint="wasgi compile hello.wasm")
    directory = folder()
    paths = [target.text for text in files for target in find(text) if target.python is None]
    for path in paths:
        begun = time.perf_counter()
        try:
            with busy(f"compiling {path} ({Path(path).stat().st_size / 1e6:.1f} MB)"):
                component = wasgi.Component(path, fuel=fuel, isolated=isolated)
        except OSError as exc:
            raise unreadable(path, exc) from exc
        if not any(entry.digest == component.digest for entry in entries(directory)):
            raise Failure(f"the machine code of `{path}` could not be kept in `{directory}`", FAILED)
        if is_terminal(sys.stderr):
            tell(f"{path}: in {directory}, after {time.perf_counter() - begun:.1f} s")


command = Command(
    "compile",
    callback=_compile,
    params=[
        Argument(["files"], key="files", nargs=-1, metavar="FILE..."),
        Option(["--fuel"], is_flag=True, help="Also for limits of fuel, which need machine code of their own."),
        Option(["--isolated"], is_flag=True, help="Also for `--isolated`; with --fuel, for both at once."),
    ],
    help=(
        "Compile components into the code cache, so that a server starts at once: the cache may be part of a "
        "container's image. A folder stands for its components."
    ),
    examples=[
        Example("wasgi compile *.wasm", "into the user's cache"),
        Example("WASGI_CACHE_DIR=/var/cache/wasgi wasgi compile app.wasm", "in a Dockerfile, by the user who serves"),
    ],
)
