"""Redaction: where secrets are in a message.

`Places.walk` calls a `Rewriter` for each secret of a message, and for each text between them. `placeholders` has two:
one collects secrets, one replaces them. All else keeps its form: the scheme of an ``authorization``, names and
attributes of cookies, names in queries and bodies; JSON stays JSON.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import functools
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, quote_plus, unquote_plus

FIELDS = ("authorization", "cookie", "proxy-authorization", "set-cookie", "x-api-key")
QUERY = (
    "access_token",
    "api_key",
    "apikey",
    "client_secret",
    "password",
    "sig",
    "signature",
    "token",
)
BODY = ("access_token", "api_key", "apikey", "client_secret", "id_token", "password", "refresh_token", "token")

# How long a secret must be to be replaced elsewhere in the messages, too: shorter text occurs there by chance. A cookie
# may be the name of a language or a colour, so words must be longer there than values with digits.
KEY = 4
_COOKIE = 6
_USER = None  # a name is not a secret: it is replaced beside its password only


class Rewriter(Protocol):
    """What a walk calls with the parts of a message: it returns what replaces them."""

    def secret(self, value: str, least: int | None) -> str:
        """A secret, not empty; `least` is how long it must be to be replaced elsewhere; None: never."""

    def plain(self, text: str) -> str:
        """Text between secrets."""


@dataclass
class Message:
    """A request or response, as it is recorded.

    Attributes:
        url: The URL of a request; empty for a response.
        headers: Names in lower case, and values.
        body: The whole body.
        trailers: None if there were none.
    """

    url: str
    headers: list[list[str]]
    body: bytes
    trailers: list[list[str]] | None = None

    def header(self, name: str) -> str:
        """The first value of a field; empty if there is none."""
        return next((value for other, value in self.headers if other == name), "")


@dataclass(frozen=True)
class Places:
    """Where secrets are: the names of fields, of values in a query, of members in JSON, and of values in forms.

    Attributes:
        is_whole: Whether a field's whole value is the secret, as in the first version of cassettes.
    """

    fields: frozenset[str]
    query: frozenset[str]
    body: frozenset[str]
    is_whole: bool = False

    @classmethod
    def of(cls, fields: Iterable[str], query: Iterable[str], body: Iterable[str]) -> Places:
        """Makes the places of names in any case."""

        def lower(names: Iterable[str]) -> frozenset[str]:
            found = None if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
            if found is None or not all(isinstance(name, str) for name in found):
                raise TypeError(f"names of secrets must be a list: {names!r}")
            return frozenset(name.lower() for name in found)

        return cls(lower(fields), lower(query), lower(body))

    def walk(self, message: Message, by: Rewriter) -> Message:
        """Rewrites a message, with a ``content-length`` that fits the new body."""
        url = self._url(message.url, by)
        headers = [[name, self._field(name, value, by)] for name, value in message.headers]
        body = self._encoded_body(message, by)
        trailers = message.trailers
        if trailers is not None:
            trailers = [[name, self._field(name, value, by)] for name, value in trailers]
        for pair, (name, value) in zip(headers, message.headers, strict=True):
            if name == "content-length" and value == str(len(message.body)):
                pair[1] = str(len(body))
        return Message(url, headers, body, trailers)

    # fields

    def _field(self, name: str, value: str, by: Rewriter) -> str:
        if name not in self.fields:
            is_url = name in ("location", "content-location", "referer")
            return self._url(value, by) if is_url else self.plain(value, by)
        if not value:
            return value
        if self.is_whole:
            return by.secret(value, KEY)
        if name == "cookie":
            return "".join(
                part if is_between else _cookie(part, by)
                for is_between, part in _alternating(re.split(r"(;[ \t]*)", value))
            )
        if name == "set-cookie":
            pair, semicolon, attributes = value.partition(";")
            return _cookie(pair, by) + semicolon + by.plain(attributes)
        scheme = _SCHEME.fullmatch(value)
        if scheme is not None and (name.endswith("authorization") or scheme[1].lower() in _SCHEMES):
            return scheme[1] + scheme[2] + _credentials(scheme[1].lower(), scheme[3], by)
        return by.secret(value, KEY)

    # URLs and forms

    def plain(self, text: str, by: Rewriter) -> str:
        """Text that is nobody's secret but for the queries of URLs in it: presigned ones, links to the next page."""
        parts = []
        end = 0
        for match in _in_queries(self.query).finditer(text):
            parts += [
                by.plain(text[end : match.start(1)]),
                _value(match[1], lambda value: by.secret(value, KEY), quote),
            ]
            end = match.end(1)
        return "".join([*parts, by.plain(text[end:])])

    def _url(self, url: str, by: Rewriter) -> str:
        url, hash_mark, fragment = url.partition("#")
        base, mark, query = url.partition("?")
        # fragments contain tokens, too (RFC 6749, 4.2.2)
        query, fragment = (_pairs(part, self.query, by, quote) for part in (query, fragment))
        return by.plain(base) + mark + query + hash_mark + fragment

    # bodies

    def _encoded_body(self, message: Message, by: Rewriter) -> bytes:
        """The body. One that was compressed is compressed again."""
        coding = message.header("content-encoding").strip().lower()
        unpack, pack = _CODINGS.get(coding, (bytes, bytes))
        try:
            plain = unpack(message.body)
        except (OSError, EOFError, zlib.error):
            return message.body
        rewritten = self._body(plain, message.header("content-type").lower(), by)
        return message.body if rewritten == plain else pack(rewritten)

    def _body(self, content: bytes, kind: str, by: Rewriter) -> bytes:
        mark, encoding, text = _decoded(content)
        rewritten = self._text(text, kind, by)
        return content if rewritten == text else mark + rewritten.encode(encoding, "replace")

    def _text(self, text: str, kind: str, by: Rewriter) -> str:
        """A body by its content, since content-types are often wrong: for JSON `fetch` says text/plain, curl a form."""
        if ("json" in kind or not kind or text.lstrip()[:1] in ("{", "[")) and _is_json(text):
            return "".join(_json(text, self, by))
        parts = []
        end = 0
        for line in _JSON_LINE.finditer(text):
            if _is_json(line[1]):
                parts += [self.plain(text[end : line.start(1)], by), *_json(line[1], self, by)]
                end = line.end(1)
        if parts:
            return "".join([*parts, self.plain(text[end:], by)])
        if "x-www-form-urlencoded" in kind or ("json" not in kind and self._is_form(text)):
            form = text.rstrip("\r\n")
            return _pairs(form, self.body, by, quote_plus) + text[len(form) :]
        return self.plain(text, by)

    def _is_form(self, text: str) -> bool:
        """Whether an unlabelled text is a form: it has the form of one, and the name of a secret."""
        if _FORM.fullmatch(text) is None:
            return False
        return any(unquote_plus(part.partition("=")[0]).lower() in self.body for part in text.split("&"))


@functools.cache
def _in_queries(names: frozenset[str]) -> re.Pattern[str]:
    """Finds the values of these names in queries of URLs, wherever those stand: in HTML and in source text, too."""
    if not names:
        return re.compile(r"(?!)")
    found = "|".join(re.escape(name) for name in sorted(names))
    ends = r"\s\"'<>&#\\"
    value = rf"([^{ends}]+?)(?=[.,;:!?)\]}}]*(?:[{ends}]|$))"
    return re.compile(rf"(?:[?&#]|&amp;|\\u0026)(?:{found})={value}", re.IGNORECASE)


_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before that of UTF-16, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_FORM = re.compile(r"[^\s=&]+=[^\s&]*(?:&[^\s&]*)*[\r\n]*")
_JSON_LINE = re.compile(r"^(?:\x1e|data:)?[ \t]*([{\[].*[}\]])[ \t]*\r?$", re.MULTILINE)
"""Of JSON lines, of a JSON text sequence (RFC 7464) and of server-sent events."""


def _decoded(content: bytes) -> tuple[bytes, str, str]:
    """The byte-order mark, the encoding and the text of a body; Latin-1 if nothing else fits."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            try:
                return mark, encoding, content[len(mark) :].decode(encoding)
            except UnicodeDecodeError:
                break
    if b"\0" in content[:4]:  # JSON in UTF-16 or UTF-32 begins with ASCII
        encoding = json.detect_encoding(content)
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            text = ""
        if text.lstrip()[:1] in ("{", "[", '"'):
            return b"", encoding, text
    try:
        return b"", "utf-8", content.decode()
    except UnicodeDecodeError:
        return b"", "latin-1", content.decode("latin-1")


_SCHEME = re.compile(r"([A-Za-z][\w!#$%&'*+.^`|~-]*)([ \t]+)(\S.*)", re.DOTALL)
_SCHEMES = ("basic", "bearer", "digest", "token")
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_PARAMETER = r'[\w!#$%&\'*+.^`|~-]+[ \t]*=[ \t]*(?:"(?:[^"\\]|\\.)*"|[^\s",]+)'
_PARAMETERS = re.compile(rf"{_PARAMETER}(?:[ \t]*,[ \t]*{_PARAMETER})*")
_ONE_PARAMETER = re.compile(r'([\w!#$%&\'*+.^`|~-]+)([ \t]*=[ \t]*"?)((?<=")(?:[^"\\]|\\.)*|[^\s",]+)')
_NO_PASSWORDS = ("", "api_token", "x", "x-oauth-basic")
"""Passwords that stand for none: the user is the key then."""
_PUBLIC = ("algorithm", "charset", "nc", "qop", "realm", "signedheaders", "uri", "userhash")
"""Parameters of credentials that are not secret."""


def _alternating(parts: list[str]) -> Iterator[tuple[bool, str]]:
    for place, part in enumerate(parts):
        yield place % 2 == 1, part


def _cookie(pair: str, by: Rewriter) -> str:
    name, sign, value = pair.partition("=")
    if not sign:
        name, value = "", pair  # a cookie without a name
    bare = value.strip()
    bare = bare[1:-1] if len(bare) > 1 and bare[0] == bare[-1] == '"' else bare
    return name + sign + (value.replace(bare, by.secret(bare, _COOKIE), 1) if bare else value)


def _credentials(scheme: str, given: str, by: Rewriter) -> str:
    if scheme == "basic":
        try:
            user, _, password = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return by.secret(given, KEY)
        is_key = password.lower() in _NO_PASSWORDS
        if user:
            by.secret(user, KEY if is_key else _USER)
        if password:
            by.secret(password, _USER if is_key else KEY)
        return by.secret(given, KEY)  # its placeholder is made of theirs
    if _TOKEN68.fullmatch(given) or not _PARAMETERS.fullmatch(given):
        return by.secret(given, KEY)

    def one(match: re.Match[str]) -> str:
        name, sign, value = match.groups()
        if not value:
            return match[0]
        return name + sign + (by.plain(value) if name.lower() in _PUBLIC else by.secret(value, KEY))

    return _ONE_PARAMETER.sub(one, given)


def _pairs(text: str, names: frozenset[str], by: Rewriter, encode: Callable[[str], str]) -> str:
    """A query or a form. Values that change are encoded; all else stays as it is."""
    parts = []
    for part in text.split("&"):
        name, sign, value = part.partition("=")
        is_secret = value and unquote_plus(name).lower() in names
        rewrite = (lambda plain: by.secret(plain, KEY)) if is_secret else by.plain
        parts.append(name + sign + _value(value, rewrite, encode))
    return "&".join(parts)


def _value(value: str, rewrite: Callable[[str], str], encode: Callable[[str], str]) -> str:
    """A value of a query or a form, encoded anew if it changes."""
    plain = unquote_plus(value)
    rewritten = rewrite(plain)
    return value if rewritten == plain else encode(rewritten)


def _deflated(content: bytes) -> bytes:
    try:
        return zlib.decompress(content)
    except zlib.error:
        return zlib.decompress(content, -zlib.MAX_WBITS)  # without the header of zlib, as many servers send it


_CODINGS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "gzip": (gzip.decompress, lambda content: gzip.compress(content, mtime=0)),
    "x-gzip": (gzip.decompress, lambda content: gzip.compress(content, mtime=0)),
    "deflate": (_deflated, zlib.compress),
}


# JSON is rewritten token by token: all else stays as it is.


_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|[{}\[\],:]|[^"{}\[\],:0-9-]+|-', re.DOTALL)


_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _json(text: str, places: Places, by: Rewriter) -> Iterator[str]:
    # for each container: whether it is an object, whether it is secret, and the field whose values it contains
    within = [(False, False, "")]
    is_name = is_secret = False
    header = ""
    for match in _JSON_TOKEN.finditer(text):
        token = match[0]
        is_object, is_secret_around, header_around = within[-1]
        match token[0]:
            case "{" | "[":
                header = header if token == "[" else ""
                within.append((token == "{", is_secret, header))
                is_name = token == "{"
            case "}" | "]":
                within.pop()
                is_name, (_, is_secret, header) = False, within[-1]
            case ",":
                is_name, is_secret, header = is_object, is_secret_around, header_around
            case '"' if is_name:
                name = json.loads(token)
                is_name, is_secret, header = False, is_secret_around or name.lower() in places.body, name.lower()
                token = _json_string(token, name, by.plain(name))
            case '"':
                value = json.loads(token)
                if is_secret and value:
                    rewritten = by.secret(value, KEY)
                else:  # an echo of a request has its fields as members
                    is_echo = header in places.fields and not places.is_whole
                    rewritten = places._field(header, value, by) if is_echo else places.plain(value, by)
                token = _json_string(token, value, rewritten)
            case _ if _NUMBER.fullmatch(token):
                rewritten = by.secret(token, KEY) if is_secret else by.plain(token)
                token = rewritten if is_secret or _NUMBER.fullmatch(rewritten) else token
        yield token


def _json_string(token: str, value: str, rewritten: str) -> str:
    return token if value == rewritten else json.dumps(rewritten, ensure_ascii=token.isascii())
