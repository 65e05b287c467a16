"""``wasgi wit``: writes out the WIT that components are built against."""

from __future__ import annotations

from pathlib import Path

from wasgi import _wasgi


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
