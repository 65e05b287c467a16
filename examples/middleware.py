"""Middleware around what answers a component: a secret it never sees, a log, a cache, a rate.

python examples/middleware.py
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Header, HTTPException

import wasgi
from wasgi.outgoing import asgi, call, route

Upstream = Callable[[wasgi.Request], Awaitable[wasgi.Response]]


def with_token(upstream: Any, token: str) -> Upstream:
    """The component asks without a secret; what it asks has one."""

    async def send(request: wasgi.Request) -> wasgi.Response:
        request.headers["authorization"] = f"Bearer {token}"
        return await call(upstream, request)

    return send


def logged(upstream: Any) -> Upstream:
    async def send(request: wasgi.Request) -> wasgi.Response:
        response = await call(upstream, request)
        print(f"{request.method} {request.url}: {response.status}")
        return response

    return send


def cached(upstream: Any) -> Upstream:
    """Keeps the answers to GET, whole. A real one looks at `cache-control`: give a caching client to `httpx`."""
    kept: dict[str, tuple[int, list[tuple[str, str]], bytes]] = {}

    async def send(request: wasgi.Request) -> wasgi.Response:
        if request.method != "GET":
            return await call(upstream, request)
        if request.url not in kept:
            response = await call(upstream, request)
            kept[request.url] = (response.status, list(response.headers.items()), await response.aread())
        status, headers, body = kept[request.url]
        return wasgi.Response(status, headers=headers, body=body)

    return send


def at_most(upstream: Any, *, each_second: int) -> Upstream:
    """The component is told of a limit, and may come back."""
    sent: list[float] = []

    async def send(request: wasgi.Request) -> wasgi.Response:
        now = time.monotonic()
        sent[:] = [at for at in sent if at > now - 1]
        if len(sent) >= each_second:
            raise wasgi.errors.ConnectionLimitReached
        sent.append(now)
        return await call(upstream, request)

    return send


weather = FastAPI()


@weather.get("/v1/{city}")
async def forecast(city: str, authorization: str = Header()) -> str:
    if authorization != "Bearer secret":
        raise HTTPException(401)
    return f"sunny in {city}"


async def main() -> None:
    upstream = route({"https://weather.example/v1/": with_token(asgi(weather), "secret")})
    component = Path(wasgi.__file__).parent / "demo.wasm"
    app = wasgi.App(component, outgoing=at_most(cached(logged(upstream)), each_second=2), stdout=lambda line: None)
    for city in ("Lisbon", "Lisbon", "Oslo"):
        response = await app.handle_async(wasgi.Request("GET", f"http://demo.local/weather?city={city}"))
        await response.aread()
        print(response.text.strip())


if __name__ == "__main__":
    asyncio.run(main())
    # prints: GET https://weather.example/v1/Lisbon: 200
    # prints: Lisbon: "sunny in Lisbon"
    # prints: Lisbon: "sunny in Lisbon"
    # prints: Oslo: nobody knows (ErrorCode::ConnectionLimitReached)
