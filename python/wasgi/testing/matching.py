"""The requests that a component has sent, and how a mock's routes match them.

Requests are compared as wasi:http has them (a field may occur several times); the mocks of client libraries see the
client's own request objects instead. URLs are compared as those of policies and routes are: in normal form.
"""

from __future__ import annotations

import difflib
import inspect
import json as _json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl

from wasgi import outgoing
from wasgi._wasgi import Request, Response, _normal_url
from wasgi.headers import Headers, _decode
from wasgi.testing.content import NOTHING
from wasgi.testing.matchers import (
    Text,
    Value,
    fits,
    fits_content,
    fits_field,
    has_part,
    parsed,
    shown,
    shown_json,
)

if TYPE_CHECKING:
    from wasgi._wasgi import _Upstream


@dataclass(frozen=True)
class Asked:
    """A request that a component has sent, read to its end.

    Attributes:
        headers: As the component has written them.
        content: Its body.
        trailers: None if there were none.
    """

    method: str
    url: str
    headers: Headers
    content: bytes
    trailers: Headers | None = None
    _origin: Request | None = field(default=None, repr=False, compare=False)
    """The request itself: it has the guest's virtual time and timeouts."""

    @classmethod
    async def read(cls, request: Request) -> Self:
        """Reads a request to its end."""
        await request.aread()
        return cls.of_read(request)

    @classmethod
    def of_head(cls, request: Request) -> Self:
        """A request whose body is not read."""
        return cls(request.method, request.url, Headers(request.headers.raw), b"", None, request)

    @classmethod
    def of_read(cls, request: Request) -> Self:
        """A request that has been read."""
        trailers = Headers(request.trailers.raw) if request.trailers is not None else None
        return cls(request.method, request.url, Headers(request.headers.raw), request.content, trailers, request)

    def again(self) -> Request:
        """A new request with the same content."""
        request = Request(
            self.method, self.url, headers=self.headers.raw, body=self.content or None, trailers=self.trailers
        )
        if self._origin is not None:
            request._follow(self._origin)
        return request

    async def of(self, upstream: _Upstream) -> Response:
        """Has an upstream answer the same request."""
        return await outgoing.call(upstream, self.again())

    @property
    def text(self) -> str:
        """The body as text, by the charset of its content-type, or else as UTF-8; invalid bytes are replaced."""
        return _decode(self.content, self.headers.get("content-type", ""))

    def json(self) -> Any:
        """The body as JSON."""
        return _json.loads(self.content)

    @property
    def query(self) -> dict[str, list[str]]:
        """The values of each name in the URL's query."""
        return _values(self.url.partition("?")[2])

    def __str__(self) -> str:
        return f"{self.method} {self.url}"


def _values(form: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in parse_qsl(form, keep_blank_values=True):
        found.setdefault(name, []).append(value)
    return found


def _differing(what: str, wanted: Mapping[str, Value], came: Mapping[str, list[str]]) -> Iterator[tuple[str, str, str]]:
    for name, value in wanted.items():
        values = came.get(name, [])
        if not fits(value, values):
            yield f"{what} {name!r}", shown(value), ", ".join(map(repr, values)) or "nothing"


def _glob(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", pattern)
    wild = {"*": "[^/?]*", "**": ".*"}
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts), re.DOTALL)


@dataclass
class RequestMatcher:
    """What a route matches: all that is given must fit. A mismatch is a name, the wanted value and the actual one."""

    method: str | None
    url: Text | None
    query: Mapping[str, Value]
    headers: Mapping[str, Value]
    content: bytes | re.Pattern[Any] | None
    json: Any
    where: Callable[[Asked], bool] | None
    data: Mapping[str, Value] = field(default_factory=dict)

    @property
    def is_of_head(self) -> bool:
        """Whether the head of a request decides."""
        return self.content is None and not self.data and self.json is NOTHING and self.where is None

    def mismatches(self, asked: Asked) -> list[tuple[str, str, str]]:
        """The mismatches; none if the request fits."""
        wrong = self.mismatches_of_head(asked)
        if self.content is not None and not fits_content(self.content, asked.content):
            wanted = repr(self.content) if isinstance(self.content, bytes) else shown(self.content)
            wrong.append(("content", wanted, _short(asked.content)))
        if self.data:
            wrong += _differing("data", self.data, _values(asked.content.decode("utf-8", "replace")))
        if self.json is not NOTHING:
            try:
                if not has_part(parsed(asked.content), self.json):
                    wrong.append(("json", shown_json(self.json), _short(asked.content)))
            except (ValueError, RecursionError):
                came = f"{_short(asked.content)}, which is not JSON"
                wrong.append(("json", shown_json(self.json), came))
        if self.where is not None and not wrong and not self._answer_of(self.where, asked):
            wrong.append(("where", getattr(self.where, "__name__", "a predicate"), "False"))
        return wrong

    def mismatches_of_head(self, asked: Asked) -> list[tuple[str, str, str]]:
        """The mismatches of the head, before the body has come."""
        wrong: list[tuple[str, str, str]] = []
        if self.method is not None and self.method != asked.method:
            wrong.append(("method", self.method, asked.method))
        if self.url is not None and not self._fits_url(asked.url):
            wrong.append(("url", shown(self.url), asked.url))
        wrong += _differing("query", self.query, asked.query)
        for name, value in self.headers.items():
            values = asked.headers.get_all(name)
            if not fits_field(name, value, values):
                wrong.append((f"header {name!r}", shown(value), ", ".join(map(repr, values)) or "nothing"))
        return wrong

    @staticmethod
    def _answer_of(where: Callable[[Asked], bool], asked: Asked) -> bool:
        answer = where(asked)
        if inspect.isawaitable(answer):  # an awaitable would be true whatever it gives
            if inspect.iscoroutine(answer):
                answer.close()
            raise TypeError("`where` must be a plain function: what it gave has to be awaited")
        return answer

    def _fits_url(self, url: str) -> bool:
        normal = _normal_url(url) or url
        if isinstance(self.url, re.Pattern):
            return self.url.search(url) is not None or self.url.search(normal) is not None
        if self.url is None:
            return True
        is_glob = "*" in self.url
        wanted = _normal_url(self.url, glob=is_glob) or self.url
        if "?" not in wanted:
            normal = normal.partition("?")[0]
        return _glob(wanted).fullmatch(normal) is not None if is_glob else wanted == normal

    def distance(self, asked: Asked) -> float:
        """How different a request is from what is wanted: for the nearest route in a complaint."""
        far = 0.0
        for name, wanted, came in self.mismatches(asked):
            weight = {"url": 4.0, "method": 1.0}.get(name, 0.5)
            far += weight * (1 - difflib.SequenceMatcher(None, wanted, came).ratio() / 2)
        return far

    def __str__(self) -> str:
        more = [f"query {name}={shown(value)}" for name, value in self.query.items()]
        more += [f"header {name}: {shown(value)}" for name, value in self.headers.items()]
        if self.content is not None:
            is_bytes = isinstance(self.content, bytes)
            more.append(f"content {self.content!r}" if is_bytes else f"content {shown(self.content)}")
        more += [f"data {name}={shown(value)}" for name, value in self.data.items()]
        if self.json is not NOTHING:
            more.append(f"json {shown_json(self.json)}")
        if self.where is not None:
            more.append(f"predicate {getattr(self.where, '__name__', '')}".rstrip())
        head = f"{self.method or 'any'} {shown(self.url) if self.url is not None else 'URL'}"
        return f"{head} with {', '.join(more)}" if more else head


def one_line(error: BaseException) -> str:
    """An exception and the first line of its message."""
    first, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _short(content: bytes) -> str:
    if len(content) <= 200:
        return repr(content)
    # at the end of a character, if it is UTF-8
    end = next((end for end in range(200, 196, -1) if content[end] & 0b1100_0000 != 0b1000_0000), 200)
    return f"{content[:end]!r}… ({len(content)} bytes)"
