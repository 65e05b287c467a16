"""`wasgi.testing.Cassette`: what was around a component once, written down, and played back exactly."""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasgi import errors
from wasgi._asked import Asked
from wasgi._wasgi import Request, Response, World
from wasgi.headers import Headers

if TYPE_CHECKING:
    from wasgi._wasgi import _Upstream

SECRET = ("authorization", "cookie", "proxy-authorization", "set-cookie", "x-api-key")
"""Fields whose values are not written down."""
_VERSION = 1
_HIDDEN = "(not recorded)"


def _packed(content: bytes) -> Any:
    """Text where it is text, for people to read."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _unpacked(packed: Any) -> bytes:
    return packed.encode() if isinstance(packed, str) else base64.b64decode(packed["base64"], validate=True)


class Cassette:
    """Records what an upstream answers, and plays it back: for ``App(outgoing=..., world=cassette.world)``.

    A cassette is a file of JSON: the requests that were sent, what each was answered with, and the guest's world (the
    time of the recording, and a seed). It is recorded if there is no such file, and written by `save`. Played back, a
    request is answered with what the first of the same requests was, that has not been played yet; one that was not
    recorded is `DestinationNotFound` for the component, and a complaint. Bodies are recorded whole; how they were cut
    into chunks is not.

    Args:
        path: The file.
        upstream: Who is recorded; None: it can be played only.
        record: Whether to record: None: if there is no such file.
        secret: Names of fields whose values are not written down, and not compared.
        secret_query: Likewise, of what is in the query of a URL.

    Attributes:
        world: What the guest is to find of clocks and randomness.
        recording: Whether it records.

    Raises:
        FileNotFoundError: There is nothing to play.
        ValueError: The file is no cassette.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        upstream: _Upstream | None = None,
        *,
        record: bool | None = None,
        secret: Iterable[str] = SECRET,
        secret_query: Iterable[str] = (),
    ) -> None:
        self.path = Path(path)
        self.upstream = upstream
        self.secret = frozenset(name.lower() for name in secret)
        self.secret_query = frozenset(secret_query)
        self.recording = record if record is not None else upstream is not None and not self.path.exists()
        self._entries: list[dict[str, Any]] = []
        self._played: list[bool] = []
        self._unknown: list[dict[str, Any]] = []
        if self.recording:
            if upstream is None:
                raise ValueError("to record a cassette, say whom: `upstream`")
            self.world = World(seed=secrets.randbits(32), now=float(int(time.time())))
        else:
            self._load()

    def _load(self) -> None:
        try:
            read = json.loads(self.path.read_text("utf-8"))
            if read["wasgi-cassette"] != _VERSION:
                raise ValueError(f"it is of version {read['wasgi-cassette']}")
            self.world = World(seed=read["world"]["seed"], now=read["world"]["now"])
            self._entries = read["exchanges"]
            for entry in self._entries:
                _unpacked(entry["request"]["body"])
                self._answer(entry)
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            raise ValueError(f"{self.path} is no cassette: {error}") from error
        self._played = [False] * len(self._entries)

    def _fields(self, headers: Headers) -> list[list[str]]:
        pairs = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers.raw)
        return [[name, _HIDDEN if name in self.secret else value] for name, value in pairs]

    def _url(self, url: str) -> str:
        base, mark, query = url.partition("?")
        pairs = (pair.partition("=") for pair in query.split("&"))
        shown = (
            f"{name}={_HIDDEN}" if name in self.secret_query else name + sign + value for name, sign, value in pairs
        )
        return base + mark + "&".join(shown)

    def _request(self, asked: Asked) -> dict[str, Any]:
        return {
            "method": asked.method,
            "url": self._url(asked.url),
            "headers": self._fields(asked.headers),
            "body": _packed(asked.content),
        }

    @staticmethod
    def _answer(entry: dict[str, Any]) -> Response | errors.ErrorCode:
        if (error := entry.get("error")) is not None:
            return errors.ERROR_CODES[error["code"]](*error["payload"])
        said = entry["response"]
        trailers = [(name, value) for name, value in said["trailers"]] if said["trailers"] is not None else None
        headers = [(name, value) for name, value in said["headers"]]
        return Response(said["status"], headers=headers, body=_unpacked(said["body"]), trailers=trailers)

    async def __call__(self, request: Request) -> Response:
        """Records, or plays."""
        asked = await Asked.read(request)
        sent = self._request(asked)
        if self.recording:
            return await self._record(asked, sent)
        for place, entry in enumerate(self._entries):
            if not self._played[place] and entry["request"] == sent:
                self._played[place] = True
                answer = self._answer(entry)
                if isinstance(answer, errors.ErrorCode):
                    raise answer
                return answer
        self._unknown.append(sent)
        raise errors.DestinationNotFound

    async def _record(self, asked: Asked, sent: dict[str, Any]) -> Response:
        entry: dict[str, Any] = {"request": sent}
        self._entries.append(entry)  # in the order of the requests, whatever is faster
        assert self.upstream is not None
        try:
            response = await asked.of(self.upstream)
            content = await response.aread()
        except errors.ErrorCode as error:
            entry["error"] = {"code": error.code, "payload": list(error._payload())}
            raise
        except errors.BodyError as error:
            cause = (
                error.__cause__ if isinstance(error.__cause__, errors.ErrorCode) else errors.HttpResponseIncomplete()
            )
            entry["error"] = {"code": cause.code, "payload": list(cause._payload())}
            raise cause from error
        trailers = response.trailers
        entry["response"] = {
            "status": response.status,
            "headers": self._fields(Headers(response.headers.raw)),
            "body": _packed(content),
            "trailers": self._fields(Headers(trailers.raw)) if trailers is not None else None,
        }
        return Response(response.status, headers=response.headers.raw, body=content, trailers=trailers)

    def save(self) -> None:
        """Writes what was recorded; nothing, if it was played."""
        if not self.recording:
            return
        whole = [entry for entry in self._entries if "response" in entry or "error" in entry]
        written = {
            "wasgi-cassette": _VERSION,
            "world": {"seed": self.world.seed, "now": self.world.now},
            "exchanges": whole,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        beside.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", "utf-8")
        beside.replace(self.path)

    def complaints(self) -> list[str]:
        """What is not as it was recorded: requests that are new, and those that were not sent again."""
        left = [entry["request"] for entry, played in zip(self._entries, self._played, strict=False) if not played]
        found = [self._changed(sent, left) for sent in self._unknown]
        if not found and not self.recording:
            found = [f"a recorded request was not sent: {one['method']} {one['url']}" for one in left]
        return found

    def _changed(self, sent: dict[str, Any], left: list[dict[str, Any]]) -> str:
        head = f"the component asked for what {self.path.name} has not recorded: {sent['method']} {sent['url']}"
        if not left:
            return f"{head} (all that it has was played)"

        def lines(request: dict[str, Any]) -> list[str]:
            fields = [f"{name}: {value}" for name, value in request["headers"]]
            body = request["body"] if isinstance(request["body"], str) else str(request["body"])
            return [f"{request['method']} {request['url']}", *fields, "", *body.splitlines()]

        now = lines(sent)
        nearest = max(left, key=lambda one: difflib.SequenceMatcher(None, lines(one), now).ratio())
        diff = difflib.unified_diff(lines(nearest), now, "recorded", "sent", lineterm="")
        return "\n".join([f"{head}; hint: --wasgi-record=all records anew", *(f"  {line}" for line in diff)])
