"""Fields of a message: `Headers`."""

from __future__ import annotations

import codecs
import encodings.aliases
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
_VALUE = re.compile(rb"[\t \x21-\x7e\x80-\xff]*")  # RFC 9110, 5.5

Pair = tuple[str | bytes, str | bytes]
"""A field's name and value."""


def _name(name: str | bytes) -> bytes:
    if not isinstance(name, str | bytes):
        raise TypeError(f"a header's name must be str or bytes, not {type(name).__name__}")
    try:
        raw = name.encode("ascii") if isinstance(name, str) else bytes(name)
    except UnicodeEncodeError:
        raise ValueError(f"invalid header name: {name!r}") from None
    if not _TOKEN.fullmatch(raw):
        raise ValueError(f"invalid header name: {name!r}")
    return raw


def _value(name: bytes, value: str | bytes) -> bytes:
    if not isinstance(value, str | bytes):
        hint = "; hint: str() it" if isinstance(value, int | float) else ""
        raise TypeError(f"the value of header `{name.decode()}` must be str or bytes, not {type(value).__name__}{hint}")
    try:
        raw = value.encode("latin-1") if isinstance(value, str) else bytes(value)
    except UnicodeEncodeError:
        raise ValueError(f"the value of header `{name.decode()}` is not latin-1: {value!r}") from None
    if not _VALUE.fullmatch(raw):
        what = "a newline" if b"\n" in raw or b"\r" in raw else "a control character"
        raise ValueError(f"the value of header `{name.decode()}` contains {what}: {value!r}")
    return raw.strip(b" \t")


class Headers(MutableMapping[str, str]):
    """The fields of a message: ordered, with case-insensitive names that may repeat (RFC 9110, 5).

    As a mapping it has each name once; the values of a repeated name are joined by ``", "`` (RFC 9110, 5.3). For
    ``set-cookie`` that is wrong: use `get_all`. Text is latin-1, as in ASGI and WSGI.

    Args:
        headers: A mapping, or pairs of name and value, each str or bytes.

    Raises:
        ValueError: A name is not a token, or a value has a newline or a character that latin-1 has not.
        TypeError: A name or value is neither str nor bytes.

    Example:
        >>> headers = Headers([("Set-Cookie", "a=1"), ("set-cookie", "b=2")])
        >>> headers.get_all("SET-COOKIE")
        ['a=1', 'b=2']
    """

    __slots__ = ("_pairs",)

    def __init__(self, headers: Mapping[str, str] | Mapping[bytes, bytes] | Iterable[Pair] | None = None) -> None:
        pairs: Iterable[Pair]
        if headers is None:
            pairs = ()
        elif isinstance(headers, Headers):
            pairs = headers._pairs
        elif isinstance(headers, Mapping):
            pairs = list(headers.items())
        elif isinstance(headers, str | bytes):
            raise TypeError("headers must be a mapping or pairs, not " + type(headers).__name__)
        else:
            pairs = headers
        self._pairs: list[tuple[bytes, bytes]] = []
        for pair in pairs:
            try:
                name, value = pair
            except (TypeError, ValueError):
                raise TypeError(f"headers must be a mapping or pairs of name and value: {pair!r}") from None
            self.add(name, value)

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """A copy of all pairs as bytes, in order, with repeated names."""
        return list(self._pairs)

    def get_all(self, name: str) -> list[str]:
        """All values of a name; empty if there are none."""
        key = name.lower().encode("latin-1", "replace")
        return [value.decode("latin-1") for other, value in self._pairs if other.lower() == key]

    def copy(self) -> Headers:
        """An independent copy."""
        return Headers(self)

    __copy__ = copy

    def __reduce__(self) -> tuple[type[Headers], tuple[list[tuple[bytes, bytes]]]]:
        return Headers, (self.raw,)

    def add(self, name: str | bytes, value: str | bytes) -> None:
        """Adds a pair at the end; other values of the name are kept."""
        raw = _name(name)
        self._pairs.append((raw, _value(raw, value)))

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __setitem__(self, name: str, value: str) -> None:
        """Replaces all values of the name by one, at the place of the first."""
        raw = _name(name)
        pair = (raw, _value(raw, value))
        key = raw.lower()
        places = [i for i, (other, _) in enumerate(self._pairs) if other.lower() == key]
        if not places:
            self._pairs.append(pair)
            return
        self._pairs[places[0]] = pair
        for place in reversed(places[1:]):
            del self._pairs[place]

    def __delitem__(self, name: str) -> None:
        key = name.lower().encode("latin-1", "replace")
        kept = [(other, value) for other, value in self._pairs if other.lower() != key]
        if len(kept) == len(self._pairs):
            raise KeyError(name)
        self._pairs = kept

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __iter__(self) -> Iterator[str]:
        seen: set[bytes] = set()
        for name, _ in self._pairs:
            key = name.lower()
            if key not in seen:
                seen.add(key)
                yield name.decode("ascii")

    def __len__(self) -> int:
        return len({name.lower() for name, _ in self._pairs})

    def __eq__(self, other: object) -> bool:
        """Whether both have the same names with the same values; the order of different names does not matter.

        A plain mapping is equal if it has the joined values.
        """
        if isinstance(other, Headers):
            return self._grouped() == other._grouped()
        if isinstance(other, Mapping):
            folded = {name.lower() if isinstance(name, str) else name: value for name, value in other.items()}
            return {name.lower(): value for name, value in self.items()} == folded
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def _grouped(self) -> dict[bytes, list[bytes]]:
        groups: dict[bytes, list[bytes]] = {}
        for name, value in self._pairs:
            groups.setdefault(name.lower(), []).append(value)
        return groups

    def __repr__(self) -> str:
        pairs = [(name.decode("ascii"), value.decode("latin-1")) for name, value in self._pairs]
        return f"Headers({pairs!r})"


_PARAMETER = (  # RFC 9110, 5.6.6; compiled when first asked for
    r';[ \t]*([^;="\s]+)=(?:"((?:[^"\\]|\\.)*)"|([^;"]*))'
)
# Python's codecs that are not charsets of text: some fail even with "replace", and one (UTF-7) turns what looks
# harmless into markup.
_NO_CHARSETS = {"base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec"}
_NO_CHARSETS |= {"mbcs", "oem", "utf_7"}
# Only these: for any other name Python looks for a module and remembers the miss, so a peer could fill its memory.
_CHARSETS = set(encodings.aliases.aliases.values()) - _NO_CHARSETS
_CHARSETS |= {"cp720", "cp737", "cp856", "cp874", "cp875", "cp1006", "koi8_t", "koi8_u", "utf_8_sig"}


def _charset(content_type: str) -> str | None:
    """The codec of a content-type's charset, if it is one for text."""
    for name, quoted, token in re.findall(_PARAMETER, content_type):
        if name.lower() != "charset":
            continue
        label = (re.sub(r"\\(.)", r"\1", quoted) or token).strip().strip("'").lower()
        key = re.sub(r"[^a-z0-9]+", "_", label).strip("_")
        key = re.sub(r"^(?:x_)?(?:windows|cp|ibm)_?(\d+)$", r"cp\1", key)
        codec = encodings.aliases.aliases.get(key, key)
        return codec if codec in _CHARSETS else None
    return None


def _decode(whole: bytes, content_type: str) -> str:
    """Text by the charset of the content-type (RFC 9110, 8.3), or else as UTF-8; invalid bytes are replaced."""
    codec = _charset(content_type)
    if codec is not None:
        try:
            return codecs.lookup(codec).decode(whole, "replace")[0]
        except (LookupError, ValueError):
            pass
    return whole.decode("utf-8", "replace")
