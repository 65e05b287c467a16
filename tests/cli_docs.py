"""The tables of options in `docs/cli.md` are what the commands say: `python -m tests.cli_docs --write`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from wasgi.cli.commands import Option
from wasgi.cli.failures import EXIT_CODES
from wasgi.cli.root import root

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
_PART = re.compile(r"(<!-- (options of (\w+)|exit codes) -->\n).*?(<!-- end -->)", re.DOTALL)


def rows_of(name: str) -> list[str]:
    """The options of a command, as rows of a table for each heading."""
    command = root.get_command(click.Context(root), name)
    assert command is not None
    ctx = click.Context(command, info_name=name)
    sections: dict[str, list[str]] = {}
    for param in command.params:
        if not isinstance(param, Option):
            continue
        record = param.get_help_record(ctx)
        assert record is not None
        text, _, default = record[1].partition("[default: ")
        flags = ", ".join(f"`{flag}`" for flag in record[0].split(", "))
        shown = default.rstrip("]").strip()
        row = f"| {flags} | {text.strip()} | {f'`{shown}`' if shown else ''} |".replace("  ", " ")
        sections.setdefault(param.section, []).append(row.replace("HOST[::GUEST][:w]|", "HOST[::GUEST][:w]"))
    rows = []
    for heading, found in sections.items():
        rows += ["", f"| {heading.lower()} | | default |", "| --- | --- | --- |", *found]
    return [*rows, ""]


def page(text: str) -> str:
    """The page with its tables as they should be."""

    def part(found: re.Match[str]) -> str:
        if found[3] is not None:
            rows = rows_of(found[3])
        else:
            codes = [f"| {code} | {what} |" for code, what in EXIT_CODES.items()]
            rows = ["", "| exit code | |", "| --- | --- |", *codes, ""]
        return f"{found[1]}{chr(10).join(rows)}\n{found[4]}"

    return _PART.sub(part, text)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.cli_docs --write")
    PAGE.write_text(page(PAGE.read_text()))
