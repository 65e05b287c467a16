"""A guest of another toolchain: Python in WebAssembly, built by componentize-py against the WIT of this repository."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

import wasgi
from tests.conftest import GUESTS, get
from wasgi.cli import main

WIT = Path(__file__).parents[1] / "wit"
CACHE = Path(__file__).parents[1] / ".cache" / "guests"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def component() -> wasgi.Component:
    return build("app", WIT, "http-handler")


def build(name: str, wit: Path, world: str) -> wasgi.Component:
    """Built once for each state of its sources, and kept."""
    source = GUESTS / "python" / f"{name}.py"
    digest = hashlib.sha256(importlib.metadata.version("componentize-py").encode())
    for path in [source, *sorted(wit.rglob("*.wit"))]:
        digest.update(path.read_bytes())
    target = CACHE / f"python-{digest.hexdigest()[:16]}.wasm"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        made = target.with_suffix(f".{os.getpid()}")
        tool = str(Path(sys.executable).parent / "componentize-py")
        command = [tool, "-d", str(wit), "-w", world, "componentize", name, "-o", str(made)]
        built = subprocess.run(command, cwd=source.parent, capture_output=True, text=True)
        assert built.returncode == 0, built.stderr
        made.replace(target)
    return wasgi.Component(target)


def test_answers(component: wasgi.Component) -> None:
    lines: list[str] = []
    response = wasgi.App(component, stdout=lines.append).handle(get("/greet?name=Ada"))
    assert response.text.startswith("Hello, Ada, from Python 3.")
    assert lines == ["greeting Ada"]


async def test_answers_async_and_at_once(component: wasgi.Component) -> None:
    app = wasgi.App(component)

    async def greet(name: str) -> str:
        response = await app.handle_async(get(f"/greet?name={name}"))
        await response.aread()
        return str(response.text)

    answers = await asyncio.gather(*(greet(f"n{n}") for n in range(8)))
    assert [answer.split(",")[1] for answer in answers] == [f" n{n}" for n in range(8)]


def test_is_answered(component: wasgi.Component) -> None:
    app = wasgi.App(component, outgoing=lambda request: wasgi.Response(body=f"you asked {request.url}"))
    assert app.handle(get("/fetch?host=api.example")).text == "upstream said: you asked https://api.example/"


@pytest.mark.parametrize("size", [1, 300_000])
def test_an_answer_is_seen_that_comes_before_the_body_is_read(component: wasgi.Component, size: int) -> None:
    app = wasgi.App(component, outgoing=lambda request: wasgi.Response(413))
    assert app.handle(get(f"/post?host=api.example&bytes={size}")).text == "413"


@pytest.mark.parametrize("size", [1, 300_000])
def test_a_refusal_is_seen(component: wasgi.Component, size: int) -> None:
    response = wasgi.App(component).handle(get(f"/post?host=api.example&bytes={size}"))
    assert response.text == "error: ErrorCode_HttpRequestDenied"


def test_its_exceptions_are_traps_with_its_traceback(component: wasgi.Component) -> None:
    with pytest.raises(wasgi.TrapError) as raised:
        wasgi.App(component).handle(get("/no-such-route"))
    assert "RuntimeError: no such route" in raised.value.stderr


def test_the_wit_that_the_command_writes_suits_the_tools_own_event_loop(tmp_path: Path) -> None:
    assert main(["wit", str(tmp_path / "wit")]) == 0
    component = build("polling", tmp_path / "wit", "http-proxy")
    app = wasgi.App(component, outgoing=lambda request: wasgi.Response(body=f"this is {request.authority}"))
    assert app.handle(get("/?host=a.example&host=b.example")).text == "this is a.example\nthis is b.example\n"
