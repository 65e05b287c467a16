"""Placeholders: what stands for secrets in a cassette, and the rewriters that collect and replace secrets."""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus, unquote

from wasgi.testing.redaction import KEY


@dataclass
class Collected:
    """A rewriter that collects secrets, in order, and changes nothing."""

    values: list[str] = field(default_factory=list)
    least: dict[str, int | None] = field(default_factory=dict)

    def secret(self, value: str, least: int | None) -> str:
        """Collects it."""
        self.values.append(value)
        known = self.least.get(value)
        self.least[value] = least if known is None or (least is not None and least < known) else known
        return value

    def plain(self, text: str) -> str:
        """Changes nothing."""
        return text

    def is_found_by_chance(self, value: str) -> bool:
        """Whether a secret is too short, or too plain, to be replaced wherever its text occurs."""
        least = self.least[value]
        if least is None or not any(map(str.isalnum, value)):
            return True
        is_word = not (any(map(str.isdigit, value)) and any(map(str.isalpha, value)))
        return len(value) < (least if is_word else KEY)


class Replaced:
    """A rewriter that replaces secrets.

    Args:
        texts: The replacement of each secret.
        elsewhere: Which secrets are replaced wherever their text occurs; None: all.
        in_order: The replacements at the places of secrets, in order; None: those of `texts`.
    """

    def __init__(
        self,
        texts: Mapping[str, str],
        elsewhere: Callable[[str], bool] | None = None,
        in_order: Iterable[str] | None = None,
    ) -> None:
        self._texts = texts
        self._in_order = iter(in_order) if in_order is not None else None
        spelled: dict[str, str] = {}
        for value, text in texts.items():
            if value != text and (elsewhere is None or elsewhere(value)):
                escaped = json.dumps(value)[1:-1]
                in_urls = (quote(value, safe=safe, errors="surrogatepass") for safe in ("/", ""))
                in_forms = quote_plus(value, errors="surrogatepass")
                for spelling in (value, *in_urls, in_forms, escaped):
                    spelled.setdefault(spelling, text)
                if len(value) >= 8 and value.endswith("="):  # base64: its padding may be omitted elsewhere
                    spelled.setdefault(value.rstrip("="), text.rstrip("="))
                decoded = unquote(value)
                if len(decoded.strip()) >= KEY:
                    spelled.setdefault(decoded, text)
        self._spelled = spelled
        longest_first = sorted(spelled, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_bounded, longest_first))) if spelled else None

    def secret(self, value: str, _: int | None) -> str:
        """Its replacement."""
        if self._in_order is not None:
            return next(self._in_order, value)
        return self._texts.get(value, value)

    def plain(self, text: str) -> str:
        """The text, with all secrets in it replaced."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self._spelled[match[0]], text)


def _bounded(text: str) -> str:
    """A pattern for a text; for a short one only where it is not part of a longer word."""
    is_long = len(text) >= 20
    before = r"(?<![A-Za-z0-9])" if text[0].isalnum() and not is_long else ""
    after = r"(?![A-Za-z0-9])" if text[-1].isalnum() and not is_long else ""
    return before + re.escape(text) + after


def placeholders(secrets: Iterable[str]) -> dict[str, str]:
    """A placeholder for each secret: in its form where a guest may parse that, otherwise ``wasgi-secret-1`` etc."""
    found: dict[str, str] = {}
    wanted = list(dict.fromkeys(secrets))
    taken = set(wanted)
    number = 0
    for value in wanted:
        if (whole := _basic(value, found)) is not None:
            found[value] = whole
            continue
        while True:
            number += 1
            text = _placeholder(value, number)
            if text not in taken:
                break
        taken.add(text)
        found[value] = text
    return found


def _basic(value: str, known: Mapping[str, str]) -> str | None:
    """Credentials of the scheme `Basic` (RFC 7617), made of the placeholders of user and password."""
    try:
        user, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError:
        return None
    if not colon or any(part and part not in known for part in (user, password)):
        return None
    whole = known.get(user, "") + colon + known.get(password, "")
    return base64.b64encode(whole.encode()).decode()


def _placeholder(value: str, number: int) -> str:
    name = f"wasgi-secret-{number}"
    if re.fullmatch(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", value):  # JSON may have it as a number
        return "9" * max(0, len(value) - len(str(number)), 6 - len(str(number))) + str(number)
    if re.fullmatch(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value):
        return str(uuid.UUID(int=number | 4 << 76 | 8 << 60))
    if re.fullmatch(r"(?:[0-9a-f]{2}){8,}", value):
        return f"{number:0{len(value)}x}"
    return _jwt(value, name) or name


def _jwt(value: str, name: str) -> str | None:
    """An unsigned token with the same claims about times and parties, which guests check (RFC 7519)."""
    parts = value.split(".")
    if len(parts) != 3:
        return None
    try:
        header, claims = (json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[:2])
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        return None
    kept = {claim: claims[claim] for claim in ("iss", "aud", "iat", "nbf", "exp") if claim in claims}
    return ".".join([parts[0], _base64url(json.dumps(kept | {"jti": name})), _base64url(name)])


def _base64url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
