"""An ASGI server for tests: it speaks the protocol to the letter, and fails an application that does not."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

import wasgi

Message = MutableMapping[str, Any]


def http_scope(target: str = "/", /, **changes: Any) -> dict[str, Any]:
    """An HTTP scope as uvicorn makes them."""
    path, _, query = target.partition("?")
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"guest.local")],
        "client": ("192.0.2.1", 50000),
        "server": ("192.0.2.2", 80),
        "state": {},
    }
    return scope | changes


@dataclass
class Answer:
    """What an application has sent."""

    messages: list[Message] = field(default_factory=list)

    @property
    def status(self) -> int:
        status: int = self.messages[0]["status"]
        return status

    @property
    def headers(self) -> wasgi.Headers:
        return wasgi.Headers(self.messages[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages if message["type"].endswith("body"))

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        return [
            pair for message in self.messages if message["type"].endswith("trailers") for pair in message["headers"]
        ]


class Server:
    """One HTTP exchange: what the client sends, and what the application does."""

    def __init__(self, scope: dict[str, Any], *chunks: bytes, complete: bool = True) -> None:
        self.scope = scope
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.received = 0
        self.answer = Answer()
        self.state = "start"
        self.sent = asyncio.Event()
        parts = chunks or (b"",)
        for position, chunk in enumerate(parts):
            more = not complete or position < len(parts) - 1
            self.incoming.put_nowait({"type": "http.request", "body": chunk, "more_body": more})

    def hang_up(self) -> None:
        self.incoming.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> Message:
        message = await self.incoming.get()
        self.received += 1
        return message

    async def send(self, message: Message) -> None:
        check(self.state, message, self.scope)
        trailers = self.answer.messages and self.answer.messages[0].get("trailers")
        match message["type"]:
            case "http.response.start":
                self.state = "body"
            case "http.response.body" if not message.get("more_body", False):
                self.state = "trailers" if trailers else "end"
            case "http.response.trailers" if not message.get("more_trailers", False):
                self.state = "end"
        self.answer.messages.append(message)
        self.sent.set()

    async def run(self, app: Any) -> Answer:
        """The whole exchange. The application must have answered completely."""
        result = await app(self.scope, self.receive, self.send)
        assert result is None
        assert self.state == "end", f"the application returned in state {self.state!r}"
        return self.answer


def check(state: str, message: Message, scope: dict[str, Any]) -> None:
    """The order and the types of what an application sends."""
    kind = message["type"]
    allowed = {"start": {"http.response.start"}, "body": {"http.response.body"}, "trailers": {"http.response.trailers"}}
    assert kind in allowed.get(state, set()), f"{kind} in state {state!r}"
    if kind == "http.response.body":
        assert type(message.get("body", b"")) is bytes
        assert type(message.get("more_body", False)) is bool
        assert set(message) <= {"type", "body", "more_body"}
        return
    for name, value in message["headers"]:
        assert type(name) is bytes
        assert type(value) is bytes
        assert name == name.lower()
        assert b"\n" not in value
        assert not name.startswith(b":")
        assert name not in (b"connection", b"transfer-encoding", b"keep-alive", b"upgrade")
    if kind == "http.response.start":
        assert type(message["status"]) is int
        assert set(message) <= {"type", "status", "headers", "trailers"}
        if message.get("trailers"):
            assert "http.response.trailers" in scope["extensions"]


async def get(app: Any, target: str, /, **changes: Any) -> Answer:
    return await Server(http_scope(target, **changes)).run(app)


async def post(app: Any, path: str, *chunks: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> Answer:
    given = [(b"host", b"guest.local"), (b"transfer-encoding", b"chunked"), *(headers or [])]
    return await Server(http_scope(path, method="POST", headers=given), *chunks).run(app)
