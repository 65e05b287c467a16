"""Configuration files: `wasgi.toml`, or `[tool.wasgi]` of `pyproject.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wasgi.cli.failures import USAGE, Failure, nearest

OWN = "wasgi.toml"
PYPROJECT = "pyproject.toml"


@dataclass(frozen=True)
class Section:
    """What a file says of one command."""

    file: Path
    table: str
    """As it is written in the file: `serve`, or `tool.wasgi.serve`."""
    values: Mapping[str, Any]

    def where(self, key: str) -> str:
        """How an error names a key."""
        return f"`{key}` in [{self.table}] of `{self.file}`"


def read(command: str, commands: list[str], file: Path | None) -> Section | None:
    """The section of a command: of the given file, or else of the one in the current folder.

    Args:
        command: The command's name.
        commands: The names of all commands: other tables are not known.
        file: The value of `--config`.

    Raises:
        Failure: The file cannot be read, is not TOML, or has a table that is not a command's.
    """
    import tomllib

    if file is None:
        # like ruff's: the file of our own comes first, and then the other one is not read
        file = next((path for path in (Path(OWN), Path(PYPROJECT)) if path.is_file()), None)
        if file is None:
            return None
    try:
        content: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise Failure(f"`{file}` cannot be read: {exc.strerror}", USAGE) from exc
    except ValueError as exc:  # also text that is not UTF-8
        raise Failure(f"`{file}` is not TOML: {exc}", USAGE) from exc
    prefix = ""
    if file.name == PYPROJECT:
        prefix = "tool.wasgi."
        tool = content.get("tool", {})
        content = tool.get("wasgi", {}) if isinstance(tool, dict) else {}
        if not isinstance(content, dict):
            raise Failure(f"`tool.wasgi` of `{file}` is not a table", USAGE)
    for name, values in content.items():
        if name not in commands:
            hint = nearest(name, commands) or f"tables are named after commands: [{prefix}{command}]"
            raise Failure(f"unknown key `{prefix}{name}` in `{file}`", USAGE, hint=hint)
        if not isinstance(values, dict):
            raise Failure(f"`{prefix}{name}` in `{file}` is not a table", USAGE, hint=f"[{prefix}{name}]")
    return Section(file, f"{prefix}{command}", content[command]) if command in content else None


def plain(section: Section, key: str, value: Any, *, several: bool) -> Any:
    """A value as the flag would have it: texts, numbers and booleans, and lists of them where a flag may be repeated.

    A table is short for a list of `NAME=VALUE`.
    """
    if several:
        if isinstance(value, dict):
            value = [f"{name}={_single(section, key, item)}" for name, item in value.items()]
        items = value if isinstance(value, list) else [value]
        return [str(_single(section, key, item)) for item in items]
    return _single(section, key, value)


def _single(section: Section, key: str, value: Any) -> str | int | float | bool:
    if isinstance(value, (str, int, float)):
        if isinstance(value, str) and "\0" in value:
            raise Failure(f"{section.where(key)}: a text with a NUL", USAGE)
        return value
    raise Failure(f"{section.where(key)}: {_kind(value)} does not fit", USAGE)


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return "a table" if isinstance(value, dict) else f"`{value}`"
