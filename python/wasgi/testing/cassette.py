"""`wasgi.testing.Cassette`: record and replay of upstreams' responses."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import difflib
import json
import os
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasgi import _wasgi, errors
from wasgi._native import callbacks
from wasgi._wasgi import Request, Response, Simulation, _normal_url
from wasgi.headers import Headers
from wasgi.testing.matching import Asked
from wasgi.testing.placeholders import Collected, Replaced, placeholders
from wasgi.testing.redaction import BODY, FIELDS, QUERY, Message, Places, Rewriter

if TYPE_CHECKING:
    from wasgi._wasgi import _Upstream

_VERSION = 2
"""In version 1 the whole value of a field was `(not recorded)`: also schemes, names and attributes of cookies."""


@dataclass
class _Entry:
    """A recorded request with its response or error-code; neither while there is none yet."""

    method: str
    request: Message
    status: int = 0
    response: Message | None = None
    error: errors.ErrorCode | None = None
    is_played: bool = False

    def answer(self) -> Response:
        """The recorded response. Raises the recorded error-code."""
        if self.error is not None:
            raise type(self.error)(*self.error._payload())
        assert self.response is not None
        said = self.response
        return Response(self.status, headers=_pairs(said.headers), body=said.body, trailers=_pairs(said.trailers))

    def packed(self) -> dict[str, Any]:
        """The entry as JSON."""
        request, response = self.request, self.response
        written: dict[str, Any] = {
            "request": {
                "method": self.method,
                "url": request.url,
                "headers": request.headers,
                "body": _packed_body(request.body),
            }
        }
        if self.error is not None:
            written["error"] = {"code": self.error.code, "payload": list(self.error._payload())}
        elif response is not None:
            written["response"] = {
                "status": self.status,
                "headers": response.headers,
                "body": _packed_body(response.body),
                "trailers": response.trailers,
            }
        return written

    @classmethod
    def unpacked(cls, written: dict[str, Any]) -> _Entry:
        """An entry of JSON. Raises if it cannot be played."""
        asked = written["request"]
        request = Message(asked["url"], [[*pair] for pair in asked["headers"]], _unpacked_body(asked["body"]))
        entry = cls(asked["method"], request)
        if (error := written.get("error")) is not None:
            entry.error = errors.ERROR_CODES[error["code"]](*error["payload"])
            return entry
        said = written["response"]
        entry.status = said["status"]
        entry.response = Message("", said["headers"], _unpacked_body(said["body"]), said["trailers"])
        entry.answer()
        return entry


def _pairs(fields: list[list[str]] | None) -> Any:
    return None if fields is None else [(name, value) for name, value in fields]


def _same(one: Message, other: Message) -> bool:
    """Whether two requests are the same; URLs are compared in normal form (RFC 3986, 6.2.2 and 6.2.3)."""
    first, second = (
        dataclasses.replace(message, url=_normal_url(message.url) or message.url) for message in (one, other)
    )
    return first == second


class Cassette:
    """Records an upstream's responses, and replays them: for ``App(outgoing=..., simulation=cassette.world)``.

    A cassette is a JSON file: the requests, the response to each, and the time and seed of the recording. It is
    recorded if the file does not exist, and written by `save`. In replay, a request gets the response of the first
    equal request that was not replayed yet; URLs are compared in normal form (RFC 3986, 6.2.2 and 6.2.3). A request
    that was not recorded is `DestinationNotFound` for the component, and a complaint. Bodies are recorded whole,
    without their division into chunks.

    Secrets are not recorded: a placeholder of the same form stands for each, the same wherever the secret occurs. A
    scheme, the names and attributes of cookies, JSON and its numbers, a UUID and a JWT keep their form, so a component
    that parses a token or a cookie works in replay, too. In replay, secrets are not compared; the secrets that are sent
    replace their placeholders in the responses. If a request fits two recorded ones, the one with the same secrets as
    before is chosen.

    Args:
        path: The file.
        upstream: The upstream to record; None: replay only.
        record: Whether to record; None: if the file does not exist.
        secret: Names of fields whose values are secrets.
        secret_query: Likewise, of values in the query of a URL.
        secret_body: Likewise, of members of JSON at any depth, and of values in a form.

    Attributes:
        world: The time and seed of the recording, for ``App(simulation=...)``.
        recording: Whether it records.

    Raises:
        FileNotFoundError: The file does not exist.
        TypeError: The upstream is not one, or the names of secrets are not a list.
        ValueError: The file is not a cassette.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        upstream: _Upstream | None = None,
        *,
        record: bool | None = None,
        secret: Iterable[str] = FIELDS,
        secret_query: Iterable[str] = QUERY,
        secret_body: Iterable[str] = BODY,
    ) -> None:
        self.path = Path(path)
        if upstream is not None and not isinstance(upstream, _wasgi.Network | _wasgi.Route):
            callbacks.as_upstream(upstream)  # refuses what is not an upstream
        self.upstream = upstream
        self._places = Places.of(secret, secret_query, secret_body)
        self.recording = record if record is not None else upstream is not None and not self.path.exists()
        self._entries: list[_Entry] = []
        self._unknown: list[tuple[str, Message]] = []
        self._sent: dict[str, str] = {}
        """The secret that was sent, by the placeholder that was recorded."""
        if self.recording:
            if upstream is None:
                raise ValueError("to record a cassette, pass `upstream`")
            self.world = Simulation(seed=secrets.randbits(32), now=float(int(time.time())))
        else:
            self._load()

    def _load(self) -> None:
        try:
            read = json.loads(self.path.read_text("utf-8"))
            version = read["wasgi-cassette"]
            if version not in (1, _VERSION):
                raise ValueError(f"its version is {version}")
            if version == 1:
                self._places = dataclasses.replace(self._places, body=frozenset(), is_whole=True)
            self.world = Simulation(seed=read["world"]["seed"], now=read["world"]["now"])
            self._entries = [_Entry.unpacked(entry) for entry in read["exchanges"]]
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{self.path} is not a cassette: {why}") from error

    async def __call__(self, request: Request) -> Response:
        """Records a request, or plays its response."""
        asked = await Asked.read(request)
        sent = Message(asked.url, _fields(asked.headers), asked.content)
        if self.recording:
            return await self._record(asked, sent)
        found = [
            (self._conflicts(pairs), entry)
            for entry in self._entries
            if not entry.is_played and entry.method == asked.method
            if (pairs := self._matched(entry.request, sent)) is not None
        ]
        if not found:
            self._unknown.append((asked.method, sent))
            raise errors.DestinationNotFound
        _, entry = min(found, key=lambda one: one[0])  # the first one with the fewest conflicts
        entry.is_played = True
        if not self._places.is_whole:  # in version 1 all placeholders are the same
            self._sent.update(self._matched(entry.request, sent) or {})
        return self._as_sent(entry).answer()

    def _matched(self, recorded: Message, sent: Message) -> dict[str, str] | None:
        """The secret for each placeholder, if the requests differ in secrets only; otherwise None."""
        if [name for name, _ in recorded.headers] != [name for name, _ in sent.headers]:
            return None
        stands, came = Collected(), Collected()
        self._places.walk(recorded, stands)
        self._places.walk(sent, came)
        if len(stands.values) != len(came.values):
            return None
        pairs = dict(zip(stands.values, came.values, strict=True))
        # Put the secrets into the recorded request, or the placeholders into the sent one: replacements may be spelled
        # differently, and a short secret cannot be told from other text.
        known = self._sent | pairs
        if _same(self._places.walk(recorded, Replaced(known, in_order=came.values)), sent):
            return pairs
        back = {value: stand for stand, value in known.items() if len(value) > 1}
        return pairs if _same(self._places.walk(sent, Replaced(back, in_order=stands.values)), recorded) else None

    def _conflicts(self, pairs: dict[str, str]) -> int:
        """How many placeholders would stand for another secret than before."""
        back = {value: stand for stand, value in self._sent.items()}
        return sum(
            self._sent.get(stand, value) != value or back.get(value, stand) != stand for stand, value in pairs.items()
        )

    def _as_sent(self, entry: _Entry) -> _Entry:
        """The entry with the secrets that were sent in place of their placeholders."""
        if entry.response is None:
            return entry
        shown = {stand: value for stand, value in self._sent.items() if value.isprintable()}
        try:
            answer = dataclasses.replace(entry, response=self._places.walk(entry.response, Replaced(shown)))
            answer.answer()
        except ValueError:  # fields cannot contain it
            return entry
        return answer

    async def _record(self, asked: Asked, sent: Message) -> Response:
        entry = _Entry(asked.method, sent)
        self._entries.append(entry)  # in the order of the requests, not of the responses
        assert self.upstream is not None
        try:
            response = await asked.of(self.upstream)
            content = await response.aread()
        except errors.ErrorCode as error:
            entry.error = type(error)(*error._payload())
            raise
        except errors.BodyError as error:
            cause = (
                error.__cause__ if isinstance(error.__cause__, errors.ErrorCode) else errors.HttpResponseIncomplete()
            )
            entry.error = type(cause)(*cause._payload())
            raise cause from error
        trailers = response.trailers
        entry.status = response.status
        entry.response = Message(
            "",
            _fields(Headers(response.headers.raw)),
            content,
            _fields(Headers(trailers.raw)) if trailers is not None else None,
        )
        return Response(response.status, headers=response.headers.raw, body=content, trailers=trailers)

    def save(self) -> None:
        """Writes what was recorded. Does nothing if the cassette was played."""
        if not self.recording:
            return
        whole = [entry for entry in self._entries if entry.response is not None or entry.error is not None]
        written = {
            "wasgi-cassette": _VERSION,
            "world": {"seed": self.world.seed, "now": self.world.now},
            "exchanges": [entry.packed() for entry in self._without_secrets(whole)],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f".{secrets.token_hex(8)}.new")  # the cassette's own may have the most characters
        try:
            beside.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", "utf-8")
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)

    def _without_secrets(self, entries: list[_Entry]) -> list[_Entry]:
        """The entries with placeholders. A secret that a later message reveals is replaced in earlier ones, too."""
        found = Collected()
        for entry in entries:
            self._places.walk(entry.request, found)
            if entry.response is not None:
                self._places.walk(entry.response, found)
            if entry.error is not None:
                self._walk_error(entry.error, found)
        hidden = Replaced(placeholders(found.values), lambda value: not found.is_found_by_chance(value))
        written = []
        for entry in entries:
            response, error = entry.response, entry.error
            written.append(
                dataclasses.replace(
                    entry,
                    request=self._places.walk(entry.request, hidden),
                    response=self._places.walk(response, hidden) if response is not None else None,
                    error=self._walk_error(error, hidden) if error is not None else None,
                )
            )
        return written

    def _walk_error(self, error: errors.ErrorCode, by: Rewriter) -> errors.ErrorCode:
        payload = (self._places.plain(said, by) if isinstance(said, str) else said for said in error._payload())
        return type(error)(*payload)

    def complaints(self) -> list[str]:
        """What differs from the recording: requests that are new, and requests that were not sent again."""
        left = [entry for entry in self._entries if not entry.is_played]
        found = [self._changed(method, sent, left) for method, sent in self._unknown]
        if not found and not self.recording:
            found = [f"a recorded request was not sent: {one.method} {one.request.url}" for one in left]
        return found

    def _changed(self, method: str, sent: Message, left: list[_Entry]) -> str:
        came, shown = Collected(), dict[str, str]()
        self._places.walk(sent, came)
        for value in came.values:
            shown[value] = "(secret)"
        hidden = self._places.walk(sent, Replaced(shown, lambda value: not came.is_found_by_chance(value)))
        head = f"a request of the component is not in {self.path.name}: {method} {hidden.url}"
        if not left:
            return f"{head} (all its exchanges have been replayed)"

        def lines(method: str, request: Message) -> list[str]:
            fields = [f"{name}: {value}" for name, value in request.headers]
            body = _packed_body(request.body)
            return [
                f"{method} {request.url}",
                *fields,
                "",
                *(body if isinstance(body, str) else str(body)).splitlines(),
            ]

        now = lines(method, hidden)
        nearest = max(left, key=lambda one: difflib.SequenceMatcher(None, lines(one.method, one.request), now).ratio())
        # the same text for all secrets, since they are not compared
        stands = Collected()
        self._places.walk(nearest.request, stands)
        recorded = self._places.walk(
            nearest.request, Replaced(dict.fromkeys(stands.values, "(secret)"), lambda _: True)
        )
        diff = difflib.unified_diff(lines(nearest.method, recorded), now, "recorded", "sent", lineterm="")
        return "\n".join([f"{head}; hint: --wasgi-record=all records it again", *(f"  {line}" for line in diff)])


def _fields(headers: Headers) -> list[list[str]]:
    return [[name.decode("latin-1").lower(), value.decode("latin-1")] for name, value in headers.raw]


def _packed_body(content: bytes) -> Any:
    """A body as JSON: readable text if it is text, otherwise base64."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _unpacked_body(content: Any) -> bytes:
    """A body of JSON."""
    return content.encode() if isinstance(content, str) else base64.b64decode(content["base64"], validate=True)
