"""A service that runs its customers' plug-ins: each a component below `/plugins`, put there and replaced while it runs.

python examples/plugins/service.py        (needs fastapi and uvicorn; then http://127.0.0.1:8000)

Three plug-ins, in three languages: a notice board in Rust, and two that look at its notes, in Python and JavaScript
(`build.py` makes those two). None has files, a network or memory of its own between two requests; what they may have is
one store, which the service stands for itself.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, RedirectResponse, Response

import wasgi

HERE = Path(__file__).parent
MOST_BYTES = 64 << 20
MOST_NOTES = 10_000
MOST_OF_A_NOTE = 8 << 10
LIMITS = wasgi.Limits(memory=256 << 20, timeout=30, request_body=100 << 20, outgoing=100, concurrency=64, queue=64)
log = logging.getLogger("plugins")


class Store:
    """What the plug-ins share: notes, at `http://store.local/notes`. They reach nothing else."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.more = asyncio.Event()

    async def __call__(self, request: wasgi.Request) -> wasgi.Response:
        if request.authority != "store.local" or request.path.partition("?")[0] != "/notes":
            raise wasgi.errors.HttpRequestDenied
        if request.method == "POST":
            sent = b""
            async for chunk in request:
                sent += chunk
                if len(sent) > MOST_OF_A_NOTE:
                    return wasgi.Response(413)
            return await self.add(parse_qs(sent.decode("utf-8", "replace")))
        query = parse_qs(request.query or "")
        after = int(query.get("after", ["0"])[0])
        if "after" in query and after >= len(self.notes):
            await self.another()
        return wasgi.Response(body="\n".join(self.notes[after:]))

    async def add(self, form: dict[str, list[str]]) -> wasgi.Response:
        name, text = (form.get(key, [""])[0].strip() for key in ("name", "text"))
        if not name or not text or len(name) > 100 or len(text) > 1000 or len(self.notes) >= MOST_NOTES:
            return wasgi.Response(400)
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.notes.append(json.dumps({"name": name, "text": text, "at": at}))
        self.more.set()
        self.more = asyncio.Event()
        return wasgi.Response(201)

    async def another(self) -> None:
        """Until there is one more note, but no longer than a guest's time allows."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.more.wait(), 10)


class Plugin:
    """One version of a plug-in."""

    def __init__(self, name: str, version: int, component: wasgi.Component, size: int, store: Store) -> None:
        self.name = name
        self.version = version
        self.component = component
        self.size = size
        self.app = wasgi.App(component, outgoing=store, limits=LIMITS)
        self.requests = 0
        self.running = 0

    def described(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "size": self.size,
            "digest": self.component.digest[:12],
            "requests": self.requests,
            "running": self.running,
            "asks": any("outgoing-handler" in name for name in self.component.imports),
        }


class Plugins:
    """The plug-ins there are. An ASGI application: what is below `/NAME` is answered by the plug-in of that name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store()
        self.by_name: dict[str, Plugin] = {}

    async def put(self, name: str, path: Path) -> Plugin:
        """Puts a component in place, or in the place of another.

        It is compiled before, beside the requests; then one assignment makes it the one that new requests meet. The old
        one is not closed, only let go: it lives as long as a request of its own, so none is lost.
        """
        component = await asyncio.to_thread(wasgi.Component, path)
        kept = self.folder / f"{name}.wasm"
        version = self.by_name[name].version + 1 if name in self.by_name else 1
        plugin = Plugin(name, version, component, os.stat(path).st_size, self.store)
        if path != kept:
            os.replace(path, kept)  # not before it is known to work: the next start would find it
        self.by_name[name] = plugin
        log.info("%s is now version %d", name, version)
        return plugin

    def remove(self, name: str) -> None:
        """Takes a plug-in away; requests that it has begun are answered."""
        del self.by_name[name]
        (self.folder / f"{name}.wasm").unlink()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        root = scope.get("root_path", "")
        name, slash, _ = scope["path"].removeprefix(root).removeprefix("/").partition("/")
        plugin = self.by_name.get(name)
        if plugin is None or not slash:
            # without the slash, a page's relative links would lead out of it
            query = scope["query_string"].decode("latin-1")
            there = f"{root}/{name}/?{query}" if query else f"{root}/{name}/"
            answer = Response(status_code=404) if plugin is None else RedirectResponse(there, 308)
            await answer(scope, receive, send)
            return
        plugin.requests += 1
        plugin.running += 1
        try:
            await plugin.app({**scope, "root_path": f"{root}/{name}"}, receive, send)
        finally:
            plugin.running -= 1


async def received(request: Request, folder: Path) -> Path:
    """The body of an upload, in a file beside its place."""
    size = 0
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".upload", delete=False) as file:
        try:
            async for chunk in request.stream():
                size += len(chunk)
                if size > MOST_BYTES:
                    raise HTTPException(413, f"a component may have {MOST_BYTES:,} bytes")
                file.write(chunk)
        except BaseException:
            os.unlink(file.name)
            raise
    return Path(file.name)


def create(folder: Path) -> FastAPI:
    """The service, with the plug-ins that are in `folder`, and room for more."""
    plugins = Plugins(folder)

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        for path in sorted(folder.glob("*.wasm")):  # noqa: ASYNC240 - before anybody is served
            await plugins.put(path.stem, path)
        yield
        await asyncio.gather(*(plugin.app.aclose() for plugin in plugins.by_name.values()))

    api = FastAPI(title="Plug-ins", lifespan=lifespan)
    api.state.plugins = plugins

    @api.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(HERE / "page.html")

    @api.get("/api/plugins")
    async def listed() -> list[dict[str, Any]]:
        return [plugin.described() for plugin in plugins.by_name.values()]

    @api.put("/api/plugins/{name}")
    async def put(name: str, request: Request) -> dict[str, Any]:
        if not re.fullmatch("[a-z][a-z0-9-]{0,30}", name):
            raise HTTPException(422, "a name has lower-case letters, digits and hyphens")
        path = await received(request, folder)
        try:
            return (await plugins.put(name, path)).described()
        except wasgi.ComponentError as error:
            raise HTTPException(422, str(error).replace(str(path), f"{name}.wasm")) from error
        finally:
            path.unlink(missing_ok=True)

    @api.delete("/api/plugins/{name}", status_code=204)
    async def delete(name: str) -> None:
        if name not in plugins.by_name:
            raise HTTPException(404, "there is no such plug-in")
        plugins.remove(name)

    api.mount("/plugins", plugins)
    return api


def main() -> None:
    import uvicorn

    logging.basicConfig(level=logging.INFO)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for path in (HERE / "components").glob("*.wasm"):
            shutil.copy(path, folder)
        port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
        uvicorn.run(create(folder), port=port)


if __name__ == "__main__":
    main()
