"""``wasgi wit``: writes out the WIT that components are built against."""

from __future__ import annotations

from pathlib import Path

import click

from wasgi import _wasgi
from wasgi.cli.commands import Command, Example


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


def _write(directory: Path) -> None:
    for path in write_wit(directory):
        print(path)


command = Command(
    "wit",
    callback=_write,
    help="Write the WIT of the worlds that wasgi hosts into a directory. Files of the same names are replaced.",
    params=[click.Argument(["directory"], type=click.Path(path_type=Path))],
    examples=[Example("wasgi wit wit", "for cargo-component, componentize-py, jco and others")],
)
