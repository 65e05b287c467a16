"""Bodies of WASI 0.3: streams that are passed on, what their ends are, and what guests are told of them."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import pytest

import wasgi
from tests.conftest import PROBE_P3, get, post
from tests.processes import free_port
from tests.py.test_errors import CASES, payload_of
from wasgi import errors

pytestmark = pytest.mark.usefixtures("nothing_is_left")

URL = "http://up/"
SENT = b"".join(b"%07d\n" % n for n in range(8 << 10))  # 64 KiB
CHUNK = 16 << 10


@pytest.fixture(scope="module")
def component() -> wasgi.Component:
    return wasgi.Component(PROBE_P3)


async def chunks(size: int = CHUNK) -> AsyncIterator[bytes]:
    for at in range(0, len(SENT), size):
        yield SENT[at : at + size]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


begun = pytest.mark.parametrize(
    ("query", "taken"),
    [
        ("read=1", 1),
        ("read=4", 4),
        ("look=1", 0),
        ("look=1&read=1", 1),
        ("read=16384", CHUNK),
        ("read=16385", CHUNK + 1),
    ],
)
sizes = pytest.mark.parametrize("size", [3000, CHUNK, len(SENT)])


class TestPassingOn:
    """A guest that has read some of a body passes on the others: none is lost."""

    @begun
    @sizes
    async def test_in_a_response(self, component: wasgi.Component, query: str, taken: int, size: int) -> None:
        request = post(f"/only/forward?{query}", chunks(size), trailers={"x-sum": "7"})
        response = await wasgi.App(component).handle_async(request)
        assert digest(await response.aread()) == digest(SENT[taken:])
        assert dict(response.trailers or {}) == {"x-sum": "7"}

    @begun
    @sizes
    async def test_in_a_request(self, component: wasgi.Component, query: str, taken: int, size: int) -> None:
        seen: list[tuple[str, dict[str, str]]] = []

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            content = await request.aread()
            seen.append((digest(content), dict(request.trailers or {})))
            return wasgi.Response(body=content)

        app = wasgi.App(component, outgoing=upstream)
        request = post(f"/only/forward-to?url={URL}&{query}", chunks(size), trailers={"x-sum": "7"})
        response = await app.handle_async(request)
        assert digest(await response.aread()) == digest(SENT[taken:])
        assert seen == [(digest(SENT[taken:]), {"x-sum": "7"})]

    @begun
    @sizes
    async def test_of_an_upstreams_response(
        self, component: wasgi.Component, query: str, taken: int, size: int
    ) -> None:
        async def upstream(request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response(body=chunks(size), trailers={"x-sum": "7"})

        app = wasgi.App(component, outgoing=upstream)
        response = await app.handle_async(get(f"/only/hand-on?url={URL}&{query}"))
        assert digest(await response.aread()) == digest(SENT[taken:])
        assert dict(response.trailers or {}) == {"x-sum": "7"}

    @pytest.mark.parametrize("concurrent", [1, 2, 16])
    @pytest.mark.parametrize("siblings", [1, 3])
    @pytest.mark.parametrize("route", ["/only/answer-on?", "/only/hand-on?", "/only/forward-to?method=GET&"])
    async def test_in_an_instance_that_others_may_share(
        self, component: wasgi.Component, route: str, siblings: int, concurrent: int
    ) -> None:
        """The guest's tasks are over long before the upstream has sent all."""
        gates = [asyncio.Event() for _ in range(siblings)]

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            async def pieces() -> AsyncIterator[bytes]:
                yield SENT[:5]
                await gates[int(request.path[1:])].wait()
                yield SENT[5:]

            return wasgi.Response(body=pieces())

        app = wasgi.App(component, outgoing=upstream, reuse=wasgi.Reuse(concurrent=concurrent))
        responses = [await app.handle_async(get(f"{route}url=http://up/{n}")) for n in range(siblings)]
        readers = [aiter(response) for response in responses]
        assert [await anext(reader) for reader in readers] == [SENT[:5]] * siblings
        for gate, reader in zip(gates, readers, strict=True):
            gate.set()
            assert b"".join([chunk async for chunk in reader]) == SENT[5:]
        for response in responses:
            await response.finished()
        await app.aclose()

    @pytest.mark.parametrize("concurrent", [1, 2])
    async def test_its_exchange_goes_on_with_it(self, component: wasgi.Component, concurrent: int) -> None:
        """It has its place among those of its app, and ends when that closes; it takes none of its guest's time."""
        gate = asyncio.Event()

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            async def pieces() -> AsyncIterator[bytes]:
                yield b"first"
                await gate.wait()
                yield b"last"

            return wasgi.Response(body=pieces())

        one = wasgi.Limits(concurrency=1, queue=0, timeout=0.2)
        app = wasgi.App(component, outgoing=upstream, limits=one, reuse=wasgi.Reuse(concurrent=concurrent))
        response = await app.handle_async(get("/only/answer-on?url=http://up/"))
        reader = aiter(response)
        assert await anext(reader) == b"first"
        assert app.exchanges == 1
        with pytest.raises(wasgi.OverloadedError):
            await app.handle_async(get("/hello"))
        await asyncio.sleep(0.5)  # more than the guest may take
        gate.set()
        assert [chunk async for chunk in reader] == [b"last"]
        await response.finished()

        gate.clear()
        response = await app.handle_async(get("/only/answer-on?url=http://up/"))
        reader = aiter(response)
        assert await anext(reader) == b"first"
        await app.aclose(timeout=0)
        with pytest.raises(wasgi.BodyError):
            await anext(reader)

    async def test_trailers_of_its_own_win(self, component: wasgi.Component) -> None:
        request = post("/only/forward?own=1&read=1", chunks(), trailers={"x-sum": "7"})
        response = await wasgi.App(component).handle_async(request)
        assert await response.aread() == SENT[1:]
        assert dict(response.trailers or {}) == {"x-own": "nothing"}

    @pytest.mark.parametrize(("trailers", "said"), [({"x-sum": "7"}, "x-sum"), (None, "none")])
    async def test_the_future_tells_what_came(
        self, component: wasgi.Component, trailers: dict[str, str] | None, said: str
    ) -> None:
        request = post("/only/forward?own=told", chunks(), trailers=trailers)
        response = await wasgi.App(component).handle_async(request)
        assert await response.aread() == SENT
        assert dict(response.trailers or {}) == {"x-own": said}

    async def test_what_breaks_off_breaks_off(self, component: wasgi.Component) -> None:
        async def broken() -> AsyncIterator[bytes]:
            yield SENT
            raise errors.ConnectionTerminated

        for query in ("", "read=3", "own=1"):
            response = await wasgi.App(component).handle_async(post(f"/only/forward?{query}", broken()))
            with pytest.raises(wasgi.WasgiError):
                await response.aread()


class TestTheEnd:
    @pytest.mark.parametrize("ms", [0, 3])
    @pytest.mark.parametrize(("then", "kind"), [("trap", wasgi.TrapError), ("exit", wasgi.GuestExitError)])
    async def test_a_guest_that_dies_in_the_turn_of_its_end_has_not_ended_it(
        self, component: wasgi.Component, then: str, kind: type[Exception], ms: int
    ) -> None:
        for _ in range(20):
            response = await wasgi.App(component).handle_async(get(f"/only/then-at-once?then={then}&ms={ms}"))
            with pytest.raises(wasgi.BodyError) as raised:
                await response.aread()
            assert isinstance(raised.value.__cause__, kind)

    async def test_one_that_dies_later_has(self, component: wasgi.Component) -> None:
        response = await wasgi.App(component).handle_async(get("/then?then=trap"))
        assert await response.aread() == b"done already"
        with pytest.raises(wasgi.TrapError):
            await response.finished()

    async def test_nobody_waits_for_one_that_computes_on(self, component: wasgi.Component) -> None:
        app = wasgi.App(component, limits=wasgi.Limits(timeout=None))
        response = await app.handle_async(get("/only/then-at-once?then=spin"))
        assert await response.aread() == b"done already"
        app.close(timeout=0)

    @pytest.mark.parametrize("length", ["", "5"])
    @pytest.mark.parametrize(("name", "kind"), CASES)
    def test_an_error_code_breaks_it(self, component: wasgi.Component, name: str, kind: str, length: str) -> None:
        response = wasgi.App(component).handle(get(f"/only/broken-trailers?name={name}&length={length}"))
        with pytest.raises(wasgi.WasgiError) as raised:
            response.read()
        assert isinstance(raised.value, wasgi.BodyError)
        # a body that is not finished has the first, too, and one that is not as long as announced the second
        if name != "HTTP-protocol-error" and not (length and name == "HTTP-response-body-size"):
            assert raised.value.__cause__ == errors.ERROR_CODES[name](**payload_of(name, kind))

    @pytest.mark.parametrize(("name", "kind"), CASES)
    def test_an_error_code_breaks_a_requests(self, component: wasgi.Component, name: str, kind: str) -> None:
        broken: list[BaseException | None] = []

        def upstream(request: wasgi.Request) -> wasgi.Response:
            try:
                request.read()
            except wasgi.WasgiError as exc:
                broken.extend((exc, exc.__cause__))
            return wasgi.Response(204)

        app = wasgi.App(component, outgoing=upstream)
        said = app.handle(get(f"/only/broken-trailers-to?url={URL}&name={name}")).text
        assert isinstance(broken[0], wasgi.BodyError)
        if name != "HTTP-protocol-error":
            assert broken[1] == errors.ERROR_CODES[name](**payload_of(name, kind))
        variant = "".join(part[0].upper() + part[1:].lower() for part in name.split("-"))
        assert said.startswith(f"Ok(204), sent: Err(ErrorCode::{variant}")
        for value in payload_of(name, kind).values():
            assert str(value) in said


class TestTransmission:
    """What a guest is told became of its message."""

    @staticmethod
    def said(app: wasgi.App, target: str) -> str:
        return app.handle(get(target)).text

    def test_a_response_that_was_read(self, component: wasgi.Component) -> None:
        printed: list[str] = []
        response = wasgi.App(component, stdout=printed.append).handle(get("/only/sent?bytes=100000"))
        assert len(response.read()) == 100_000
        response.wait()
        assert printed == ["written: Ok(()), sent: Ok(())"]

    def test_an_answer_to_head(self, component: wasgi.Component) -> None:
        printed: list[str] = []
        app = wasgi.App(component, stdout=printed.append)
        response = app.handle(wasgi.Request("HEAD", "http://guest.local/only/sent?bytes=0"))
        assert response.read() == b""
        response.wait()
        assert printed == ["written: Ok(()), sent: Ok(())"]

    def test_a_request_that_was_read(self, component: wasgi.Component) -> None:
        def upstream(request: wasgi.Request) -> wasgi.Response:
            request.read()
            return wasgi.Response(204)

        app = wasgi.App(component, outgoing=upstream)
        said = self.said(app, f"/only/request-sent?url={URL}&bytes=100000")
        assert said == "Ok(204), written: Ok(()), sent: Ok(())"

    def test_a_request_that_was_answered_unread(self, component: wasgi.Component) -> None:
        app = wasgi.App(component, outgoing=lambda request: wasgi.Response(204))
        said = self.said(app, f"/only/request-sent?url={URL}&bytes=100000")
        assert said == "Ok(204), written: Ok(()), sent: Ok(())"

    @pytest.mark.parametrize("size", [0, 10, 100_000])
    def test_a_request_that_failed_unread(self, component: wasgi.Component, size: int) -> None:
        def upstream(request: wasgi.Request) -> wasgi.Response:
            raise errors.DnsTimeout

        said = self.said(wasgi.App(component, outgoing=upstream), f"/only/request-sent?url={URL}&bytes={size}")
        assert said == "Err(ErrorCode::DnsTimeout), written: Ok(()), sent: Err(ErrorCode::DnsTimeout)"

    def test_a_request_without_an_upstream(self, component: wasgi.Component) -> None:
        said = self.said(wasgi.App(component), f"/only/request-sent?url={URL}&bytes=10")
        assert re.fullmatch(
            r"Err\(ErrorCode::HttpRequestDenied\), written: .*, sent: Err\(ErrorCode::HttpRequestDenied\)", said
        )

    def test_a_refused_connection(self, component: wasgi.Component) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        app = wasgi.App(component, outgoing=wasgi.Network([url]))
        said = self.said(app, f"/only/request-sent?url={quote(url, safe='')}/&bytes=10")
        assert "sent: Err(ErrorCode::ConnectionRefused)" in said


class TestWritesOfNothing:
    """Before, between and after what there is: nobody sees a chunk of nothing, and nobody takes one for the end."""

    async def test_in_a_response(self, component: wasgi.Component) -> None:
        response = await wasgi.App(component).handle_async(get("/only/empty-writes"))
        seen = [chunk async for chunk in response]
        assert all(seen)
        assert b"".join(seen) == b"firstlast"

    def test_in_a_response_that_is_read_blocking(self, component: wasgi.Component) -> None:
        seen = list(wasgi.App(component).handle(get("/only/empty-writes")))
        assert all(seen)
        assert b"".join(seen) == b"firstlast"

    async def test_in_a_request(self, component: wasgi.Component) -> None:
        seen: list[bytes] = []

        async def upstream(request: wasgi.Request) -> wasgi.Response:
            seen.extend([chunk async for chunk in request])
            return wasgi.Response(body="read")

        app = wasgi.App(component, outgoing=upstream)
        response = await app.handle_async(get(f"/only/empty-writes-to?url={URL}"))
        assert await response.aread() == b"read"
        assert all(seen)
        assert b"".join(seen) == b"firstlast"

    @pytest.mark.parametrize("kind", ["asgi", "wsgi", "httpx"])
    async def test_in_a_request_through_a_library(self, component: wasgi.Component, kind: str) -> None:
        httpx2 = pytest.importorskip("httpx2")
        pieces: list[bytes] = []

        async def asgi(scope: Any, receive: Any, send: Any) -> None:
            more = True
            while more:
                message = await receive()
                more = message["more_body"]
                pieces.append(message["body"] if more else message["body"] or b"(end)")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"read"})

        def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            pieces.append(environ["wsgi.input"].read())
            start_response("200 OK", [])
            return [b"read"]

        def answers(request: Any) -> Any:
            pieces.append(request.read())
            return httpx2.Response(200, content=b"read")

        outgoing: dict[str, Any] = {
            "asgi": wasgi.outgoing.asgi(asgi),
            "wsgi": wasgi.outgoing.wsgi(wsgi),
            "httpx": wasgi.outgoing.httpx(httpx2.MockTransport(answers)),
        }
        app = wasgi.App(component, outgoing=outgoing[kind])
        response = await app.handle_async(get(f"/only/empty-writes-to?url={URL}"))
        assert await response.aread() == b"read"
        assert all(pieces)
        assert b"".join(pieces).removesuffix(b"(end)") == b"firstlast"

    @pytest.mark.parametrize("is_async", [False, True])
    async def test_chunks_of_nothing_that_a_guest_gets(self, component: wasgi.Component, is_async: bool) -> None:
        def blocking() -> Iterator[bytes]:
            yield from (b"", b"first", b"", b"last", b"")

        async def asynchronous() -> AsyncIterator[bytes]:
            for piece in blocking():
                yield piece

        made = asynchronous() if is_async else blocking()
        response = await wasgi.App(component).handle_async(post("/collect", made))
        assert await response.aread() == b"9 bytes: firstlast"


class TestWhatIsTold:
    """A fault of a message is that exchange's error-code, and no trap."""

    @pytest.mark.parametrize("length", ["+5", "5, 6", "five", "-1", "18446744073709551616"])
    @pytest.mark.parametrize("route", ["hand-on", "answer-on"])
    async def test_an_upstreams_odd_length(self, component: wasgi.Component, route: str, length: str) -> None:
        async def upstream(request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response(body=b"12345", headers=[("content-length", length)])

        app = wasgi.App(component, outgoing=upstream)
        with pytest.raises(errors.ErrorCode):
            await (await app.handle_async(get(f"/only/{route}?url={URL}"))).aread()

    @pytest.mark.parametrize("route", ["hand-on", "answer-on"])
    async def test_an_upstreams_two_lengths(self, component: wasgi.Component, route: str) -> None:
        async def upstream(request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response(body=b"12345", headers=[("content-length", "5"), ("content-length", "6")])

        app = wasgi.App(component, outgoing=upstream)
        with pytest.raises(errors.ErrorCode):
            await (await app.handle_async(get(f"/only/{route}?url={URL}"))).aread()

    @pytest.mark.parametrize("route", ["/only/send-on", "/only/forward-to", "/proxy"])
    @pytest.mark.parametrize("size", [1000, 4000])
    async def test_fields_near_their_limit(self, component: wasgi.Component, route: str, size: int) -> None:
        async def upstream(request: wasgi.Request) -> wasgi.Response:
            return wasgi.Response(body=str(len(request.headers.get("x-large") or "")))

        app = wasgi.App(component, outgoing=upstream, limits=wasgi.Limits(fields=5000))
        request = post(f"{route}?url={URL}", b"x", headers={"x-large": "x" * size})
        response = await app.handle_async(request)
        assert await response.aread() == str(size if route == "/only/send-on" else 0).encode()
