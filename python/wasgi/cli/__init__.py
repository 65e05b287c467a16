"""The command ``wasgi``. It is imported before `main` can do anything about Ctrl-C: so it imports nothing itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: The arguments, without the command's name; those of the process if None.

    Returns:
        The exit code: see `failures`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        from wasgi.cli.signals import held_back

        # all but a server ends with its terminal, as the system wants it
        with held_back(arguments[:1] == ["serve"]):
            from wasgi.cli.root import run

            return run(arguments)
    except KeyboardInterrupt:
        return 130  # `failures.INTERRUPTED`: it may have come before that was imported
