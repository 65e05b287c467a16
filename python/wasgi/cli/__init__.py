"""The command ``wasgi``."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from wasgi import _wasgi
from wasgi.errors import ComponentError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: The arguments, without the command's name; those of the process if None.

    Returns:
        The exit status: 0, or 1 if what was asked for failed, or if an inspected component does not run.
    """
    parser = argparse.ArgumentParser(
        prog="wasgi", description="Run WebAssembly components that speak wasi:http from Python."
    )
    parser.add_argument("--version", action="version", version=f"wasgi {_wasgi.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="show what it does, on a bundled component")
    inspecting = commands.add_parser(
        "inspect", help="show what a component is and needs, and whether it runs (also by the exit status)"
    )
    inspecting.add_argument("file", type=Path)
    writing = commands.add_parser("wit", help="write out the WIT to build a component against")
    writing.add_argument("directory", type=Path)
    options = parser.parse_args(argv)
    with _whatever_stdout_encodes():
        try:
            status = _run(options)
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:
            # the reader has closed the pipe (`wasgi demo | head -1`)
            _give_stdout_up()
            return 0
        except (OSError, ComponentError) as exc:
            _give_stdout_up()
            print(f"wasgi: {exc}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            _give_stdout_up()
            return 130
    return status


def _run(options: argparse.Namespace) -> int:
    if options.command == "demo":
        from wasgi.cli.demo import demo

        demo()
    elif options.command == "inspect":
        from wasgi.cli.inspect import inspect

        lines, runs = inspect(options.file)
        print("\n".join(lines))
        return 0 if runs else 1
    else:
        from wasgi.cli.wit import write_wit

        for path in write_wit(options.directory):
            print(path)
    return 0


@contextlib.contextmanager
def _whatever_stdout_encodes() -> Iterator[None]:
    """Escapes characters that stdout's encoding does not have: a path may contain any."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper) or stream.errors != "strict":
        yield
        return
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            stream.reconfigure(errors="strict")


def _give_stdout_up() -> None:
    """Discards output that cannot be written, so that the interpreter does not try again at exit."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
