"""The types of options: seconds, bytes, numbers, each perhaps `none`."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:  # click 8.1 has no parameters for it
    ParamType = click.ParamType

_NONE = "none"
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)


class _Quantity(ParamType):
    units: dict[str, Any]

    def __init__(self, *, none: bool = False) -> None:
        self.none = none

    def number(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        if isinstance(value, bool):
            self.fail(f"`{str(value).lower()}` is not {self.what()}", param, ctx)
        if isinstance(value, (int, float)):
            number = float(value)
        elif self.none and value == _NONE:
            return None
        else:
            found = _NUMBER.fullmatch(str(value).strip())
            if found is None or found[2].lower() not in self.units:
                self.fail(f"`{value}` is not {self.what()}", param, ctx)
            number = float(found[1]) * float(self.units[found[2].lower()])
        if not math.isfinite(number) or number < 0:
            self.fail(f"`{value}` is not {self.what()}", param, ctx)
        return number

    def what(self) -> str:
        return f"{self.example}, or `none`" if self.none else self.example

    example: str


class Seconds(_Quantity):
    """Seconds as a float: `10`, `1.5`, `500ms`, `5m`."""

    name = "seconds"
    units = _SECONDS
    example = "a number of seconds (`10`, `500ms`, `5m`)"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        return self.number(value, param, ctx)


class Bytes(_Quantity):
    """Bytes as an int: `65536`, `64KiB`, `1GiB`."""

    name = "bytes"
    units = _BYTES
    example = "a number of bytes (`65536`, `64KiB`, `1GiB`)"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        number = self.number(value, param, ctx)
        if number is not None and not number.is_integer():
            self.fail(f"`{value}` is not {self.what()}", param, ctx)
        return None if number is None else int(number)


class Mode(ParamType):
    """The mode of a file: `660`, `0660`."""

    name = "mode"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        # a number of a file would be ambiguous: TOML has octal ones, too
        if not isinstance(value, str) or re.fullmatch("0?[0-7]{3}", value) is None:
            self.fail(f"`{value}` is not a mode in octal digits, as a text (`660`)", param, ctx)
        return int(value, 8)


class Count(ParamType):
    """A whole number, from `least`."""

    name = "number"

    def __init__(self, least: int = 0, most: int | None = None, *, none: bool = False) -> None:
        self.least = least
        self.most = most
        self.none = none

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if self.none and value == _NONE:
            return None
        text = str(value).strip()
        if isinstance(value, (bool, float)) or not (text.isascii() and text.isdigit()):
            self.fail(f"`{value}` is not {self.what()}", param, ctx)
        number = int(text)
        if number < self.least or (self.most is not None and number > self.most):
            self.fail(f"`{value}` is not {self.what()}", param, ctx)
        return number

    def what(self) -> str:
        between = f"a whole number from {self.least}"
        if self.most is not None:
            between += f" to {self.most}"
        return f"{between}, or `none`" if self.none else between
