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
        "inspect", help="say what a component is, what it needs, and whether it runs (the exit status, too)"
    )
    inspecting.add_argument("file", type=Path)
    writing = commands.add_parser("wit", help="write out the WIT that a component can be built against")
    writing.add_argument("directory", type=Path)
    options = parser.parse_args(argv)
    with _whatever_stdout_encodes():
        try:
            status = _run(options)
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:
            # whoever read has what it wanted (`wasgi demo | head -1`)
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
        from wasgi._demo import demo

        demo()
    elif options.command == "inspect":
        lines, runs = inspect(options.file)
        print("\n".join(lines))
        return 0 if runs else 1
    else:
        for path in write_wit(options.directory):
            print(path)
    return 0


@contextlib.contextmanager
def _whatever_stdout_encodes() -> Iterator[None]:
    """What stdout's encoding does not have is escaped, for a path may have any character."""
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
    """What could not be written is not tried again when the interpreter exits."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def write_wit(directory: Path) -> list[Path]:
    """Writes the WIT of the hosted worlds into a directory, which is made if need be.

    Args:
        directory: Where to; files of the same names are replaced.

    Returns:
        The files written.

    Raises:
        OSError: A file that cannot be written.
    """
    written = []
    for name, content in _wasgi._wit():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        written.append(path)
    return written


_GRANTS = {
    "wasi:http/outgoing-handler": "outgoing requests: App(outgoing=...), else each is answered `HTTP-request-denied`",
    "wasi:filesystem/preopens": "files: App(dirs={...}), else it sees none",
    "wasi:cli/environment": "environment and arguments: App(env=..., args=...), else both are empty",
    "wasi:sockets/tcp": "sockets: never granted; only what it sends through wasi:http leaves",
}


def inspect(file: Path) -> tuple[list[str], bool]:
    """Says what a component is, and whether it runs: it is loaded, and not called.

    Args:
        file: A component, binary or text.

    Returns:
        Lines for a reader, and whether it runs.

    Raises:
        InvalidComponentError: It is no component; the message says what it is instead.
        ComponentLimitError: It is larger than the defaults of `ComponentLimits`.
        OSError: It cannot be read.
    """
    source = _wasgi._read_component(file)
    imports, exports, wasi, missing = _wasgi._outline(source)
    names = {name.partition("@")[0] for name in imports}
    versions = sorted(
        {name.partition("@")[2] for name in imports + exports if name.startswith("wasi:") and "@" in name}
    )
    lines = [f"{file}: a component, {len(source):,} bytes"]
    if wasi is None:
        lines.append("  handler   none: it exports no `wasi:http/incoming-handler@0.2`, so wasgi cannot call it")
    elif wasi == "0.2":
        lines.append("  handler   wasi:http 0.2 (`incoming-handler`)")
    else:
        lines.append("  handler   wasi:http 0.3 (`handler`): this version of wasgi hosts 0.2")
    lines.append(f"  WASI      {', '.join(versions) or 'none'}")
    lines += _listed("exports", exports)
    lines += _listed("imports", imports)
    grants = [grant for name, grant in _GRANTS.items() if name in names]
    lines += _listed("grants", grants or ["none needed"])
    if missing:
        lines += _listed("missing", [f"{name}: not provided by wasgi" for name in missing])
    # by what an App does, so that the two never differ; the machine code is kept for it
    try:
        _wasgi.Component(source)
    except ComponentError as exc:
        lines.append("  verdict   does not run on this version of wasgi:")
        lines.append(f"            {exc}")
        return lines, False
    lines.append("  verdict   runs on this version of wasgi")
    return lines, True


def _listed(title: str, items: Sequence[str]) -> list[str]:
    return [f"  {title if i == 0 else '':9} {item}" for i, item in enumerate(items or ["none"])]
