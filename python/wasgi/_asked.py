"""What a component has asked, as a test looks at it, and whether it is what a test wants.

Requests are compared as wasi:http has them (fields that stand several times, URLs as they are), which the mocks of
client libraries cannot: theirs see a client's own request objects.
"""

from __future__ import annotations

import difflib
import json as _json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl

from wasgi import outgoing
from wasgi._wasgi import Request, Response
from wasgi.headers import Headers

if TYPE_CHECKING:
    from wasgi._wasgi import _Upstream

Text = str | re.Pattern[str]
NOTHING: Any = object()


@dataclass(frozen=True)
class Asked:
    """A request that a component has sent, as a test looks at it: read to its end.

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
    """As it has come: its time, and what its sender allows it."""

    @classmethod
    async def read(cls, request: Request) -> Self:
        """A request as it has come, read to its end."""
        await request.aread()
        return cls.of_read(request)

    @classmethod
    def of_read(cls, request: Request) -> Self:
        """A request that has been read."""
        trailers = Headers(request.trailers.raw) if request.trailers is not None else None
        return cls(request.method, request.url, Headers(request.headers.raw), request.content, trailers, request)

    def again(self) -> Request:
        """The same request, once more."""
        request = Request(
            self.method, self.url, headers=self.headers.raw, body=self.content or None, trailers=self.trailers
        )
        if self._origin is not None:
            request._follow(self._origin)
        return request

    async def of(self, upstream: _Upstream) -> Response:
        """What an upstream answers to the same request."""
        return await outgoing.call(upstream, self.again())

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.content.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return _json.loads(self.content)

    @property
    def query(self) -> dict[str, list[str]]:
        """The values of each name in the URL's query."""
        return _query(self.url)

    def __str__(self) -> str:
        return f"{self.method} {self.url}"


def _query(url: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in parse_qsl(url.partition("?")[2], keep_blank_values=True):
        found.setdefault(name, []).append(value)
    return found


def _glob(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", pattern)
    wild = {"*": "[^/?]*", "**": ".*"}
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts), re.DOTALL)


def _fits(wanted: Text, value: str) -> bool:
    return wanted.search(value) is not None if isinstance(wanted, re.Pattern) else wanted == value


def _has(whole: Any, part: Any) -> bool:
    """Whether JSON has a part: the named members of objects, as deep as they go; all else as it is."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(name in whole and _has(whole[name], part[name]) for name in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) == len(part) and all(map(_has, whole, part))
    return type(whole) is type(part) and bool(whole == part)


@dataclass
class Wanted:
    """What a route asks of a request. Each mismatch is a name, what is wanted, and what came."""

    method: str | None
    url: Text | None
    query: Mapping[str, Text]
    headers: Mapping[str, Text]
    content: bytes | None
    json: Any
    where: Callable[[Asked], bool] | None

    def mismatches(self, asked: Asked) -> list[tuple[str, str, str]]:
        """None if it fits."""
        wrong: list[tuple[str, str, str]] = []
        if self.method is not None and self.method != asked.method:
            wrong.append(("method", self.method, asked.method))
        if self.url is not None and not self._fits_url(asked.url):
            wrong.append(("url", _shown(self.url), asked.url))
        for name, value in self.query.items():
            values = asked.query.get(name, [])
            if not any(_fits(value, one) for one in values):
                wrong.append((f"query {name!r}", _shown(value), ", ".join(map(repr, values)) or "nothing"))
        for name, value in self.headers.items():
            values = asked.headers.get_all(name)
            if not any(_fits(value, one) for one in values):
                wrong.append((f"header {name!r}", _shown(value), ", ".join(map(repr, values)) or "nothing"))
        if self.content is not None and self.content != asked.content:
            wrong.append(("content", repr(self.content), _short(asked.content)))
        if self.json is not NOTHING:
            try:
                if not _has(asked.json(), self.json):
                    wrong.append(("json", _json.dumps(self.json), _short(asked.content)))
            except ValueError:
                wrong.append(("json", _json.dumps(self.json), f"{_short(asked.content)}, which is no JSON"))
        if self.where is not None and not wrong and not self.where(asked):
            wrong.append(("where", getattr(self.where, "__name__", "a predicate"), "False"))
        return wrong

    def _fits_url(self, url: str) -> bool:
        if isinstance(self.url, re.Pattern):
            return self.url.search(url) is not None
        wanted = self.url or ""
        if "?" not in wanted:
            url = url.partition("?")[0]
        if "*" in wanted:
            return _glob(wanted).fullmatch(url) is not None
        return _rooted(wanted) == _rooted(url)

    def distance(self, asked: Asked) -> float:
        """How far a request is from what is wanted."""
        far = 0.0
        for name, wanted, came in self.mismatches(asked):
            weight = {"url": 4.0, "method": 1.0}.get(name, 0.5)
            far += weight * (1 - difflib.SequenceMatcher(None, wanted, came).ratio() / 2)
        return far

    def __str__(self) -> str:
        more = [f"query {name}={_shown(value)}" for name, value in self.query.items()]
        more += [f"header {name}: {_shown(value)}" for name, value in self.headers.items()]
        if self.content is not None:
            more.append(f"content {self.content!r}")
        if self.json is not NOTHING:
            more.append(f"json {_json.dumps(self.json)}")
        if self.where is not None:
            more.append(f"predicate {getattr(self.where, '__name__', '')}".rstrip())
        head = f"{self.method or 'any'} {_shown(self.url) if self.url is not None else 'URL'}"
        return f"{head} with {', '.join(more)}" if more else head


def told(error: BaseException) -> str:
    """An exception on one line."""
    first, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _rooted(url: str) -> str:
    """`http://a` and `http://a/` are one."""
    _, separator, rest = url.partition("://")
    return f"{url}/" if separator and "/" not in rest and "?" not in rest else url


def _shown(text: Text) -> str:
    return f"/{text.pattern}/" if isinstance(text, re.Pattern) else text


def _short(content: bytes) -> str:
    return repr(content) if len(content) <= 200 else f"{content[:200]!r}… ({len(content)} bytes)"
