"""Matchers of a mock's routes: values of queries, forms and fields, bodies, and parts of JSON.

A matcher that can match nothing is refused where it is written; otherwise the mistake would be found late.
"""

from __future__ import annotations

import datetime
import json as _json
import math
import re
import sys
import uuid
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from urllib.parse import parse_qsl

from wasgi.headers import Headers
from wasgi.testing.content import NOTHING

__tracebackhide__ = True  # in pytest's reports: a test's own line is what is wanted there

Text = str | re.Pattern[str]
Value = Text | float | Decimal | list[Any]
"""Of a name in a query, a form or fields: text, a regular expression, a number that may be written in several ways, or
a list of all the values that the name has."""

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?")
_PLAIN_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:[.eE].*)?")
_ANYTHING = re.compile("")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PART_OF_FIELD = re.compile(r'"(?:[^"\\]|\\.)*"|[^",]+|[",]', re.DOTALL)


def _is_any(value: Any) -> bool:
    """Whether it is `unittest.mock.ANY`."""
    mock = sys.modules.get("unittest.mock")
    return mock is not None and value is mock.ANY


def pattern(value: re.Pattern[Any], where: str) -> re.Pattern[str]:
    """A regular expression of text.

    Raises:
        TypeError: It is one of bytes.
    """
    if not isinstance(value.pattern, str):
        raise TypeError(f"{where} must be a regular expression of str, not of bytes")
    return value


def method_of(method: Any) -> str | None:
    """The method to match; None: any.

    Raises:
        TypeError: It is not text.
        ValueError: It is not a valid method (RFC 9110, 9.1).
    """
    if method is None:
        return None
    if not isinstance(method, str):
        raise TypeError(f"`method` must be str, or None for any, not {type(method).__name__}")
    if not _TOKEN.fullmatch(method):
        raise ValueError(f"`method` is not a valid method: {method!r}; hint: None is any")
    return method.upper()


def value_of(value: Any, where: str, charset: str = "utf-8") -> Value:
    """The matcher of a value: what the value is compared with."""
    if isinstance(value, list | tuple):
        return [_scalar(one, f"{where}[{place}]", charset) for place, one in enumerate(value)]
    return _scalar(value, where, charset)


def _scalar(value: Any, where: str, charset: str) -> Text | float | Decimal:
    if _is_any(value):
        return _ANYTHING
    match value:
        case Enum():
            return _scalar(value.value, where, charset)
        case str():
            return str.__str__(value)
        case re.Pattern():
            return pattern(value, where)
        case bytes() | bytearray():
            return bytes(value).decode(charset)
        case bool():
            return "true" if value else "false"  # as httpx writes them
        case int():
            return value
        case uuid.UUID() | PurePath():
            return str(value)
        case float() | Decimal():
            if not math.isfinite(value):
                raise ValueError(f"{where} must be finite: {value}")
            return value
        case None:
            hint = '"" for an empty value, [] for none'
        case datetime.date() | datetime.time():
            hint = "its `isoformat()`, or as the component writes it"
        case _:
            hint = "its text"
    raise TypeError(
        f"{where} must be text, a number, a regular expression or a list of these, not {type(value).__name__}; "
        f"hint: {hint}"
    )


def named(given: Any, where: str, charset: str = "utf-8") -> dict[str, Value]:
    """The matchers of named values. Of pairs, those of one name are all the values that the name must have."""
    items: Iterable[Any]
    if given is None:
        return {}
    if isinstance(given, str | bytes):
        if where == "headers":
            raise TypeError(f"`headers` must be a mapping or pairs, not {type(given).__name__}")
        text = given.decode() if isinstance(given, bytes) else given
        items = parse_qsl(text.removeprefix("?"), keep_blank_values=True)
    elif hasattr(given, "multi_items"):  # of httpx
        items = given.multi_items()
    elif isinstance(given, Headers):
        items = given.raw
    else:
        items = given.items() if isinstance(given, Mapping) else given
    found: dict[str, list[Any]] = {}
    try:
        listed = [(name, value) for name, value in items]
    except (TypeError, ValueError):
        raise TypeError(f"`{where}` must be a mapping or pairs of name and value, not {given!r}") from None
    for name, value in listed:
        key = _scalar(name, f"a name in `{where}`", charset)
        if isinstance(key, int):
            key = str(key)
        if not isinstance(key, str):
            raise TypeError(f"a name in `{where}` must be text, not {type(name).__name__}")
        found.setdefault(key.lower() if where == "headers" else key, []).append(value)
    return {
        name: value_of(values if len(values) > 1 else values[0], f"`{where}[{name!r}]`", charset)
        for name, values in found.items()
    }


def headers_of(given: Any) -> dict[str, Value]:
    """The matchers of fields. The values of fields have no surrounding whitespace (RFC 9110, 5.5)."""

    def stripped(value: Any) -> Any:
        if isinstance(value, list):
            return [stripped(one) for one in value]
        return value.strip(" \t") if isinstance(value, str) else value

    return {name: stripped(value) for name, value in named(given, "headers", "latin-1").items()}


def fits(wanted: Value, values: list[str]) -> bool:
    """Whether one of the values matches; for a list, whether all do."""
    if isinstance(wanted, list):
        return len(wanted) == len(values) and all(map(_is, wanted, values))
    return any(_is(wanted, one) for one in values)


def fits_field(name: str, wanted: Value, values: list[str]) -> bool:
    """Whether a field matches. Except for cookies, its values may be in one line or in several (RFC 9110, 5.3)."""
    if fits(wanted, values):
        return True
    if name == "set-cookie":
        return False
    members = [member for value in values for member in _members(value)]
    if isinstance(wanted, list):
        parts = [_members(one) if isinstance(one, str) else [one] for one in wanted]
        return fits([one for part in parts for one in part], members)
    return isinstance(wanted, str) and (len(values) > 1 or "," in wanted) and _members(wanted) == members


def _members(line: str) -> list[str]:
    """The members of a list in a field, separated by unquoted commas (RFC 9110, 5.6.1)."""
    found = [""]
    for part in _PART_OF_FIELD.findall(line):
        if part == ",":
            found.append("")
        else:
            found[-1] += part
    return [member.strip(" \t") for member in found]


def _is(wanted: Text | float | Decimal, value: str) -> bool:
    match wanted:
        case re.Pattern():
            return wanted.search(value) is not None
        case int():
            # with leading zeros it is not a number but a name
            is_plain = _NUMBER.fullmatch(value) is not None and _PLAIN_INTEGER.fullmatch(value) is not None
            return is_plain and Decimal(value) == wanted
        case float() | Decimal():
            return _NUMBER.fullmatch(value) is not None and Decimal(value) == Decimal(str(wanted))
    return wanted == value


def content_of(content: Any) -> bytes | re.Pattern[Any] | None:
    """The matcher of a body."""
    match content:
        case None | bytes() | re.Pattern():
            return content
        case _ if _is_any(content):
            return _ANYTHING
        case str():
            return content.encode()
        case bytearray() | memoryview():
            return bytes(content)
    hint = "; hint: `json` compares a part of it as JSON" if isinstance(content, Mapping | list | tuple) else ""
    raise TypeError(f"`content` must be bytes, text or a regular expression, not {type(content).__name__}{hint}")


def fits_content(wanted: bytes | re.Pattern[Any], content: bytes) -> bool:
    """Whether a body matches."""
    if isinstance(wanted, re.Pattern):
        text = content.decode("utf-8", "replace") if isinstance(wanted.pattern, str) else content
        return wanted.search(text) is not None
    return wanted == content


# JSON


def json_of(value: Any, where: str = "`json`") -> Any:
    """The matcher of JSON.

    Raises:
        TypeError: JSON has no such value.
        ValueError: JSON has no such number (RFC 8259, 6).
    """
    if value is NOTHING or _is_any(value):
        return value
    match value:
        case Enum():
            return json_of(value.value, where)
        case str():
            return str.__str__(value)
        case None | bool() | int():
            return value
        case float() | Decimal():
            if not math.isfinite(value):
                raise ValueError(f"{where} must be finite (RFC 8259, 6): {value}")
            return value
        case re.Pattern():
            return pattern(value, where)
        case Mapping():
            return {_member(name, where): json_of(one, f"{where}[{name!r}]") for name, one in value.items()}
        case list() | tuple():
            return [json_of(one, f"{where}[{place}]") for place, one in enumerate(value)]
        case datetime.date() | datetime.time():
            hint = "its `isoformat()`, or as the component writes it"
        case uuid.UUID() | PurePath():
            hint = "its `str()`"
        case bytes() | bytearray():
            hint = "`content` compares bytes"
        case set() | frozenset():
            hint = "a list, which has an order"
        case _:
            hint = "what `json.dumps` takes"
    raise TypeError(f"{where} has a type that JSON does not have: {type(value).__name__}; hint: {hint}")


def _member(name: Any, where: str) -> str:
    """The name of a member, as `json.dumps` writes it."""
    match name:
        case Enum():
            return _member(name.value, where)
        case str():
            return str.__str__(name)
        case None | bool() | int() | float():
            return _json.dumps(name)
    raise TypeError(f"a member's name in {where} must be text, not {type(name).__name__}")


def has_part(whole: Any, part: Any) -> bool:
    """Whether JSON has a part: objects must have the named members, at any depth; all else must be equal.

    Numbers are compared by value (RFC 8259, 6); ``true`` is not a number.
    """
    if _is_any(part):
        return True
    match part:
        case Mapping():
            return isinstance(whole, Mapping) and all(
                name in whole and has_part(whole[name], part[name]) for name in part
            )
        case list():
            return isinstance(whole, list) and len(whole) == len(part) and all(map(has_part, whole, part))
        case re.Pattern():
            return isinstance(whole, str) and part.search(whole) is not None
        case bool():
            return whole is part
        case int() | float() | Decimal():
            if isinstance(whole, bool) or not isinstance(whole, int | float | Decimal):
                return False
            # exactly, or as Python's floats
            is_double = isinstance(part, float) and not isinstance(whole, int)
            return _exact(whole) == _exact(part) or (is_double and float(whole) == part)
    return type(whole) is type(part) and bool(whole == part)


def parsed(content: bytes) -> Any:
    """Parses JSON, with exact numbers."""
    return _json.loads(content, parse_float=_decimal)


def _decimal(text: str) -> Decimal | float:
    try:
        return Decimal(text)
    except ArithmeticError:  # an exponent out of range
        return float(text)


def _exact(number: float | Decimal) -> Decimal | int:
    return Decimal(str(number)) if isinstance(number, float) else number


# for reports


def shown(value: Any) -> str:
    """A matcher of a value, as reports show it."""
    if value is _ANYTHING:
        return "(anything)"
    match value:
        case re.Pattern():
            return f"/{value.pattern}/" if isinstance(value.pattern, str) else repr(value.pattern)
        case list():
            return ", ".join(map(shown, value)) or "nothing"
    return str(value)


def shown_json(value: Any) -> str:
    """A matcher of JSON, as reports show it."""

    def other(one: Any) -> Any:
        if isinstance(one, Decimal):
            return float(one)
        return shown(one) if isinstance(one, re.Pattern) else "(anything)"

    return _json.dumps(value, default=other)
