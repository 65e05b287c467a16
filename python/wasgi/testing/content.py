"""Bodies and URLs as users of httpx write them: ``content``, ``json``, ``data``, ``params``."""

from __future__ import annotations

import json as _json
import re
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from wasgi.headers import Headers

__tracebackhide__ = True  # in pytest's reports: a test's own line is what is wanted there

NOTHING: Any = object()
"""Not given, where None is a value."""

Pairs = Mapping[str, Any] | Iterable[tuple[str, Any]]
"""Names with values; a list or tuple stands for its name once for each value."""

_FORM = "application/x-www-form-urlencoded"


def one_body(what: str, **given: bool) -> None:
    """Refuses more than one body.

    Raises:
        TypeError: There are several.
    """
    names = [name for name, is_given in given.items() if is_given]
    if len(names) > 1:
        raise TypeError(f"a {what} has one body: not {' and '.join(names)}")


def no_others(what: str, given: Iterable[str], hints: Mapping[str, str]) -> None:
    """Refuses unknown options, with a hint for those that other libraries have.

    Raises:
        TypeError: There is one.
    """
    for name in given:
        hint = f"; hint: {hints[name]}" if name in hints else ""
        raise TypeError(f"{what} takes no `{name}`{hint}")


def primitive(value: Any, where: str) -> str:
    """A value in a query or form: booleans in lower case, None as nothing, as httpx has it.

    Raises:
        TypeError: It is a container or bytes.
    """
    match value:
        case str():
            return str.__str__(value)
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case bytes() | bytearray() | memoryview() | Mapping() | set() | frozenset() | list() | tuple():
            raise TypeError(f"{where} must be text or a number, or a list of these, not {type(value).__name__}")
    return str(value)


def pairs(given: Pairs, where: str) -> list[tuple[str, str]]:
    """Names with their values, in order.

    Raises:
        TypeError: It is neither a mapping nor pairs, or a value is not text.
    """
    items: Iterable[Any]
    if hasattr(given, "multi_items"):  # `QueryParams` of httpx, whose `items` have each name once
        items = given.multi_items()
    else:
        items = given.items() if isinstance(given, Mapping) else given
    found: list[tuple[str, str]] = []
    try:
        named = [(name, value) for name, value in items]
    except (TypeError, ValueError):
        raise TypeError(f"`{where}` must be a mapping or pairs of name and value, not {given!r}") from None
    for name, value in named:
        if not isinstance(name, str | int | float):
            raise TypeError(f"a name in `{where}` must be text, not {type(name).__name__}")
        values = value if isinstance(value, list | tuple) else [value]
        found += [(primitive(name, f"`{where}`"), primitive(one, f"`{where}[{name!r}]`")) for one in values]
    return found


def query_of(params: Pairs | str | bytes) -> str:
    """The query of a URL, without the question mark."""
    if isinstance(params, bytes):
        params = params.decode()
    return params.removeprefix("?") if isinstance(params, str) else urlencode(pairs(params, "params"))


def form_of(data: Any) -> bytes:
    """The body of a form."""
    if isinstance(data, str | bytes | bytearray):
        raise TypeError(
            f"`data` is a form, a mapping or pairs, not {type(data).__name__}; hint: `content` is a body as it is"
        )
    return urlencode(pairs(data, "data")).encode()


def json_of(value: Any) -> bytes:
    """The body of a JSON value.

    Raises:
        TypeError: JSON has no such value.
        ValueError: JSON has no such number (RFC 8259, 6).
    """
    try:
        return _json.dumps(value, allow_nan=False).encode()
    except ValueError as error:
        raise ValueError(f"`json` has a value that JSON does not have: {error}") from None


def encode(fields: Headers, content: Any, json: Any, data: Any) -> Any:
    """The one body that is given, with its content-type unless that is there."""
    if json is not NOTHING:
        fields.setdefault("content-type", "application/json")
        return json_of(json)
    if data is not None:
        fields.setdefault("content-type", _FORM)
        return form_of(data)
    if isinstance(content, Mapping):
        raise TypeError("`content` must be bytes, text or chunks, not a mapping; hint: `json` or `data`")
    return content


def chunks_of(content: Any, name: str) -> list[bytes | float]:
    """The chunks of a body that is sent once for each request, with pauses among them.

    Raises:
        TypeError: They are not chunks, or can be read only once.
        ValueError: A pause is not a time.
    """
    if isinstance(content, AsyncIterable):
        raise TypeError(f"`{name}` must be there more than once; hint: `stream` takes a function that gives chunks")
    if isinstance(content, str | bytes | bytearray | memoryview | Mapping) or not isinstance(content, Iterable):
        hint = "; hint: `content` is a body as a whole" if isinstance(content, str | bytes | bytearray) else ""
        raise TypeError(f"`{name}` must be chunks of bytes, not {type(content).__name__}{hint}")
    return [_chunk(one, name) for one in content]


def _chunk(one: Any, name: str) -> bytes | float:
    match one:
        case bytes() | bytearray() | memoryview():
            return bytes(one)
        case str():
            return one.encode()
        case int() | float() if name == "stream" and not isinstance(one, bool):
            return seconds_of(one, "a pause")
    pause = ", or a number of seconds" if name == "stream" else ""
    raise TypeError(f"a chunk of `{name}` must be bytes{pause}, not {type(one).__name__}")


def seconds_of(value: Any, name: str) -> float:
    """A number of seconds.

    Raises:
        TypeError: It is not a number.
        ValueError: It is below 0, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must not be below 0, and finite: {value}")
    return value


_REFERENCE = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*):)?(?://(?P<authority>[^/?#]*))?"
    r"(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#.*)?",
    re.DOTALL,
)
"""RFC 3986, appendix B."""


def join(base: str, url: str, params: Pairs | str | bytes | None = None) -> str:
    """A URL, resolved against a base (RFC 3986, 5.2), with more parameters after its query; without its fragment.

    Characters stay as they are (`urllib.parse.urljoin` drops some, and an empty query): `Request` refuses the invalid.
    """
    wanted = _REFERENCE.fullmatch(url)
    below = _REFERENCE.fullmatch(base)
    assert wanted is not None  # every part is optional
    assert below is not None
    scheme, authority, path, query = wanted["scheme"], wanted["authority"], wanted["path"], wanted["query"]
    if scheme is None:
        scheme = below["scheme"]
        if authority is None:
            authority = below["authority"]
            if not path:
                path = below["path"]
                query = below["query"] if query is None else query
            elif not path.startswith("/"):
                path = f"{below['path'].rpartition('/')[0]}/{path}"
    if wanted["path"] and path.startswith("/"):
        path = _without_dots(path)
    more = query_of(params) if params is not None else ""
    if more:
        query = f"{query}&{more}" if query else more
    whole = f"{scheme}:" if scheme is not None else ""
    whole += f"//{authority}" if authority is not None else ""
    return whole + path + (f"?{query}" if query is not None else "")


def _without_dots(path: str) -> str:
    """RFC 3986, 5.2.4."""
    if not any(part in (".", "..") for part in path.split("/")):
        return path
    kept: list[str] = []
    parts = path.split("/")
    for part in parts[1:]:
        if part == "..":
            kept = kept[:-1]
        elif part != ".":
            kept.append(part)
    if parts[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
