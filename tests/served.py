"""What the servers of `tests/serving/test_servers.py` serve: an App by itself, and mounted in FastAPI and Starlette."""

from __future__ import annotations

import json
from typing import Any

from fastapi import BackgroundTasks, FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.routing import Mount

import wasgi
from tests.conftest import PROBE

probe = wasgi.App(PROBE, limits=wasgi.Limits(timeout=60.0))

api = FastAPI()


@api.get("/own")
async def own() -> dict[str, bool]:
    return {"fastapi": True}


done: list[str] = []


async def work(text: str) -> None:
    response = await probe.handle_async(wasgi.Request("POST", "http://guest.local/echo", body=text))
    done.append((await response.aread()).decode())


@api.get("/later")
async def later(text: str, tasks: BackgroundTasks) -> list[str]:
    tasks.add_task(work, text)
    return done


nested = Starlette(routes=[Mount("/inner", probe)])
api.mount("/plugins/probe", probe)


def say_target(scope: Any, request: wasgi.Request) -> wasgi.Response:
    return wasgi.Response(body=f"{request.path}?{request.query}")


api.mount("/paths", wasgi.App(PROBE, on_request=say_target))
api.mount("/outer", nested)

dressed = FastAPI()
dressed.add_middleware(GZipMiddleware, minimum_size=100)
dressed.add_middleware(CORSMiddleware, allow_origins=["https://example.com"])
dressed.add_middleware(SessionMiddleware, secret_key="of the tests")
dressed.mount("/probe", probe)


@dressed.get("/login")
async def login(request: Request, user: str) -> None:
    request.session["user"] = user


def tell_user(scope: Any, request: wasgi.Request) -> None:
    request.headers["x-user"] = scope["session"].get("user", "nobody")


dressed.mount("/known", wasgi.App(PROBE, on_request=tell_user))


async def application(scope: Any, receive: Any, send: Any) -> None:
    """`/api`, `/dressed` and `/stats`; the probe everywhere else."""
    if scope["type"] == "lifespan":
        await probe(scope, receive, send)
    elif scope["path"] == "/stats":
        body = json.dumps({"exchanges": wasgi.stats().exchanges}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
    elif scope["path"].startswith("/api/"):
        await below(api, "/api", scope, receive, send)
    elif scope["path"].startswith("/dressed/"):
        await below(dressed, "/dressed", scope, receive, send)
    else:
        await probe(scope, receive, send)


async def below(app: Any, root: str, scope: Any, receive: Any, send: Any) -> None:
    await app(dict(scope, root_path=scope.get("root_path", "") + root), receive, send)
